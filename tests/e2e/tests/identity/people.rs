//! An identity provider that people sign in with: discovery, keys, an authorization endpoint that takes everybody for the person it
//! is set to, and a token endpoint that checks client, code, redirect and PKCE's verifier as a provider must.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use reqwest::Url;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;

use super::{
    signer::{Signer, base64, now},
    wire::{self, Answer, Asked, Serving},
};

pub(crate) const CLIENT: &str = "mesh-admin";
/// With all that forms and Basic must escape.
pub(crate) const SECRET: &str = "s3cret:/ +&é";

/// What comes beside an identity token.
pub(crate) const ACCESS_TOKEN: &str = "unused";

/// What a code stands for.
struct Grant {
    challenge: String,
    redirect_uri: String,
    nonce: String,
}

/// How an identity token is made of the right claims.
pub(crate) type Forge = Box<dyn Fn(&Signer, &Value) -> anyhow::Result<String> + Send>;

struct Shared {
    address: SocketAddr,
    signer: Signer,
    codes: Mutex<HashMap<String, Grant>>,
    claims: Mutex<Value>,
    forge: Mutex<Forge>,
    /// The address that browsers may be sent back to.
    allowed: Mutex<String>,
    /// The same after a sign-out; none: no sign-out is offered.
    allowed_after: Mutex<Option<String>>,
    /// The identity tokens of those who are signed in here.
    signed_in: Mutex<Vec<String>>,
    /// The `iss` beside a code; none: there is none.
    iss: Mutex<Option<String>>,
    says_iss: bool,
}

/// Serves until it is dropped.
pub(crate) struct People {
    shared: Arc<Shared>,
    _serving: Serving,
}

/// A right identity token.
fn right(signer: &Signer, claims: &Value) -> anyhow::Result<String> {
    let header = json!({"alg": format!("{:?}", signer.algorithm), "typ": "JWT", "kid": signer.kid});
    signer.raw(&header.to_string(), &claims.to_string())
}

impl People {
    /// `says_iss`: whether its document says that it sends `iss` along (RFC 9207).
    pub(crate) async fn start(signer: Signer, says_iss: bool) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            address,
            signer,
            codes: Mutex::default(),
            claims: Mutex::new(json!({})),
            forge: Mutex::new(Box::new(right)),
            allowed: Mutex::default(),
            allowed_after: Mutex::default(),
            signed_in: Mutex::default(),
            iss: Mutex::new(says_iss.then(|| format!("http://{address}"))),
            says_iss,
        });
        let _serving = wire::serve(listener, shared.clone(), answer);
        Ok(Self { shared, _serving })
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://{}", self.shared.address)
    }

    /// Sends browsers back to this address and to no other.
    pub(crate) fn allow(&self, redirect_uri: &str) {
        redirect_uri.clone_into(&mut self.shared.allowed.lock());
    }

    /// Offers to sign people out, and sends browsers back to this address after it and to no other.
    pub(crate) fn signs_out(&self, redirect_uri: &str) {
        *self.shared.allowed_after.lock() = Some(redirect_uri.to_owned());
    }

    /// How many are signed in here.
    pub(crate) fn signed_in(&self) -> usize {
        self.shared.signed_in.lock().len()
    }

    /// Takes everybody for the person of these claims.
    pub(crate) fn is(&self, claims: Value) {
        *self.shared.claims.lock() = claims;
    }

    /// Makes its tokens otherwise from now on.
    pub(crate) fn forges(&self, forge: impl Fn(&Signer, &Value) -> anyhow::Result<String> + Send + 'static) {
        *self.shared.forge.lock() = Box::new(forge);
    }

    /// Makes right tokens of these claims in the place of its own.
    pub(crate) fn claims_instead(&self, changes: Value) {
        self.forges(move |signer, claims| {
            let mut claims = claims.clone();
            for (name, value) in changes.as_object().context("no object")? {
                claims[name] = value.clone();
            }
            right(signer, &claims)
        });
    }

    /// Says that a code is of this issuer.
    pub(crate) fn says(&self, iss: Option<&str>) {
        *self.shared.iss.lock() = iss.map(str::to_owned);
    }
}

/// A form, or an address' query.
fn pairs(query: &str) -> anyhow::Result<HashMap<String, String>> {
    let url = Url::parse(&format!("http://form.invalid/?{query}"))?;
    Ok(url.query_pairs().into_owned().collect())
}

async fn answer(shared: Arc<Shared>, asked: Asked) -> anyhow::Result<Answer> {
    let (path, query) = asked.target()?;
    let own = format!("http://{}", shared.address);
    let (status, more, body) = match path {
        "/.well-known/openid-configuration" => {
            let mut document = json!({
                "issuer": own, "jwks_uri": format!("{own}/keys"), "token_endpoint": format!("{own}/token"),
                "authorization_endpoint": format!("{own}/authorize?tenant=1"),
                "authorization_response_iss_parameter_supported": shared.says_iss,
            });
            if shared.allowed_after.lock().is_some() {
                document["end_session_endpoint"] = json!(format!("{own}/end?tenant=1"));
            }
            ("200 OK", String::new(), document)
        }
        "/keys" => ("200 OK", String::new(), json!({"keys": [shared.signer.jwk()]})),
        "/authorize" => match authorize(&shared, query) {
            Ok(place) => ("302 Found", format!("location: {place}\r\n"), Value::Null),
            Err(error) => ("400 Bad Request", String::new(), json!(error.to_string())),
        },
        "/end" => match end(&shared, query) {
            Ok(place) => ("302 Found", format!("location: {place}\r\n"), Value::Null),
            Err(error) => ("400 Bad Request", String::new(), json!(error.to_string())),
        },
        "/token" => match token(&shared, &asked.form, asked.header("authorization")) {
            Ok(token) => {
                shared.signed_in.lock().push(token.clone());
                let body = json!({"id_token": token, "access_token": ACCESS_TOKEN, "token_type": "Bearer"});
                ("200 OK", String::new(), body)
            }
            Err(_) => ("400 Bad Request", String::new(), json!({"error": "invalid_grant"})),
        },
        _ => ("404 Not Found", String::new(), Value::Null),
    };
    Ok((status, more, body.to_string().into_bytes()))
}

/// The address to send the browser back to, with a new code.
fn authorize(shared: &Shared, query: &str) -> anyhow::Result<String> {
    let asked = pairs(query)?;
    let of = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
    ensure!(of("tenant") == "1", "the query of the endpoint was lost");
    ensure!(
        of("response_type") == "code" && of("client_id") == CLIENT,
        "another client"
    );
    ensure!(
        of("scope").split(' ').any(|scope| scope == "openid"),
        "not OpenID Connect"
    );
    ensure!(of("redirect_uri") == *shared.allowed.lock(), "another redirect");
    ensure!(
        of("code_challenge_method") == "S256" && of("code_challenge").len() == 43,
        "no PKCE"
    );
    ensure!(
        of("state").len() >= 43 && of("nonce").len() >= 43,
        "what should be random is short"
    );
    let code = format!("code/+{}", base64(&rand::random::<[u8; 16]>()));
    let grant = Grant {
        challenge: of("code_challenge").to_owned(),
        redirect_uri: of("redirect_uri").to_owned(),
        nonce: of("nonce").to_owned(),
    };
    shared.codes.lock().insert(code.clone(), grant);
    let mut back = Url::parse(of("redirect_uri"))?;
    back.query_pairs_mut()
        .append_pair("code", &code)
        .append_pair("state", of("state"));
    if let Some(iss) = &*shared.iss.lock() {
        back.query_pairs_mut().append_pair("iss", iss);
    }
    Ok(back.into())
}

/// Signs out whom the identity token is of; the address to send the browser back to.
fn end(shared: &Shared, query: &str) -> anyhow::Result<String> {
    let asked = pairs(query)?;
    let of = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
    ensure!(of("tenant") == "1", "the query of the endpoint was lost");
    ensure!(of("client_id") == CLIENT, "another client");
    let allowed = shared.allowed_after.lock().clone().context("no sign-out is offered")?;
    ensure!(of("post_logout_redirect_uri") == allowed, "another redirect");
    let mut signed_in = shared.signed_in.lock();
    let who = signed_in.iter().position(|token| *token == of("id_token_hint"));
    signed_in.swap_remove(who.context("nobody with this token is signed in")?);
    let mut back = Url::parse(&allowed)?;
    back.query_pairs_mut().append_pair("state", of("state"));
    Ok(back.into())
}

/// The identity token for a code, which is good once.
fn token(shared: &Shared, form: &str, authorization: &str) -> anyhow::Result<String> {
    let form = pairs(form)?;
    let of = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let basic = STANDARD.decode(authorization.strip_prefix("Basic ").context("no client")?)?;
    let basic = String::from_utf8(basic)?;
    let (client, secret) = basic.split_once(':').context("no secret")?;
    let shown = pairs(&format!("client={client}&secret={secret}"))?;
    ensure!(shown["client"] == CLIENT && shown["secret"] == SECRET, "another client");
    ensure!(of("grant_type") == "authorization_code", "another grant");
    let grant = shared.codes.lock().remove(of("code")).context("no such code")?;
    ensure!(grant.redirect_uri == of("redirect_uri"), "another redirect");
    let verifier = of("code_verifier");
    ensure!(
        base64(&Sha256::digest(verifier.as_bytes())) == grant.challenge,
        "another verifier"
    );
    let mut claims = json!({
        "iss": format!("http://{}", shared.address), "aud": CLIENT, "sub": "anna", "nonce": grant.nonce,
        "iat": now(), "exp": now() + 300,
    });
    for (name, value) in shared.claims.lock().as_object().context("no object")? {
        claims[name] = value.clone();
    }
    let forge = shared.forge.lock();
    forge(&shared.signer, &claims)
}
