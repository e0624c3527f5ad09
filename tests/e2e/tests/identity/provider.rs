//! An identity provider on a port of its own: discovery, a key set, and tokens for clients that show their secret (RFC 6749,
//! section 4.4). What it answers with can be changed while it serves, and everything that it is asked is counted.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Notify},
};

use super::{
    signer::{Signer, claims},
    wire::{self, Answer, Asked, Serving},
};

/// What the key set's address answers.
#[derive(Clone)]
pub(crate) enum Manner {
    /// These keys.
    Keys(Vec<Value>),
    /// This body.
    Body(Vec<u8>),
    /// This status, with a header line.
    Status(&'static str, String),
    /// These keys, once it is told to go on.
    Held(Vec<Value>, Arc<Notify>),
}

pub(crate) struct Shared {
    pub(crate) manner: Mutex<Manner>,
    /// The `issuer` of the discovery document; none: its own address.
    pub(crate) issuer: Mutex<Option<String>>,
    signer: Mutex<Option<Signer>>,
    pub(crate) fetches: AtomicUsize,
    elsewhere: AtomicUsize,
    address: SocketAddr,
}

/// Serves until it is dropped.
pub(crate) struct Provider {
    pub(crate) shared: Arc<Shared>,
    _serving: Serving,
}

impl Provider {
    pub(crate) async fn start(keys: Vec<Value>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let shared = Arc::new(Shared {
            manner: Mutex::new(Manner::Keys(keys)),
            issuer: Mutex::default(),
            signer: Mutex::default(),
            fetches: AtomicUsize::new(0),
            elsewhere: AtomicUsize::new(0),
            address: listener.local_addr()?,
        });
        let _serving = wire::serve(listener, shared.clone(), answer);
        Ok(Self { shared, _serving })
    }

    /// Its own `iss`.
    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    pub(crate) fn keys_url(&self) -> String {
        format!("{}/keys", self.issuer())
    }

    pub(crate) async fn says(&self, manner: Manner) {
        *self.shared.manner.lock().await = manner;
    }

    /// Signs the tokens that clients ask for with this key from now on.
    pub(crate) async fn signs_with(&self, signer: Signer) {
        *self.shared.signer.lock().await = Some(signer);
    }

    /// How often its key set was asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// How often anybody followed a redirect.
    pub(crate) fn elsewhere(&self) -> usize {
        self.shared.elsewhere.load(Ordering::SeqCst)
    }
}

async fn answer(shared: Arc<Shared>, asked: Asked) -> anyhow::Result<Answer> {
    let (path, _) = asked.target()?;
    Ok(match path {
        "/.well-known/openid-configuration" => {
            let own = format!("http://{}", shared.address);
            let issuer = shared.issuer.lock().await.clone().unwrap_or_else(|| own.clone());
            let document =
                json!({"issuer": issuer, "jwks_uri": format!("{own}/keys"), "token_endpoint": format!("{own}/token")});
            ("200 OK", String::new(), document.to_string().into_bytes())
        }
        "/keys" => {
            shared.fetches.fetch_add(1, Ordering::SeqCst);
            let manner = shared.manner.lock().await.clone();
            let set = |keys: Vec<Value>| json!({"keys": keys}).to_string().into_bytes();
            match manner {
                Manner::Keys(keys) => ("200 OK", "cache-control: max-age=600\r\n".to_owned(), set(keys)),
                Manner::Body(body) => ("200 OK", String::new(), body),
                Manner::Status(status, header) => (status, header, Vec::new()),
                Manner::Held(keys, go_on) => {
                    go_on.notified().await;
                    ("200 OK", String::new(), set(keys))
                }
            }
        }
        "/token" => token(&shared, &asked.form).await?,
        _ => {
            shared.elsewhere.fetch_add(1, Ordering::SeqCst);
            ("404 Not Found", String::new(), Vec::new())
        }
    })
}

/// The token endpoint: `client_credentials` of the one client that there is.
async fn token(shared: &Shared, form: &str) -> anyhow::Result<Answer> {
    let has = |pair: &str| form.split('&').any(|one| one == pair);
    let known = has("grant_type=client_credentials") && has("client_id=batch") && has("client_secret=s3cret");
    let signer = shared.signer.lock().await;
    let (Some(signer), true) = (&*signer, known) else {
        let body = json!({"error": "invalid_client"}).to_string().into_bytes();
        return Ok(("401 Unauthorized", String::new(), body));
    };
    let token = signer.token(&claims(&format!("http://{}", shared.address)))?;
    let body = json!({"access_token": token, "token_type": "Bearer", "expires_in": 300});
    let header = "content-type: application/json\r\ncache-control: no-store\r\n".to_owned();
    Ok(("200 OK", header, body.to_string().into_bytes()))
}
