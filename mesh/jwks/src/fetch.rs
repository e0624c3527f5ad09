//! One fetch: from an issuer's declaration to its key set, within bounds.
//!
//! Owns the HTTP client, discovery (OpenID Connect Discovery 1.0, section 4) and the reading of `Cache-Control`. Follows no
//! redirect, uses no proxy and sends no credential: what is fetched is public, and whoever could redirect it could name keys.
//!
//! Invariants: see the crate; an error names the issuer's server at most by what an admin has declared.

use std::time::Duration;

use mesh_policies::{
    KeyBook, KeyLocation, KeySet,
    access::{KeySetError, MAX_KEY_SET_BYTES},
};
use mesh_types::{FetchUrlError, check_fetch_url};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CACHE_CONTROL, HeaderMap},
    redirect::Policy,
};
use serde::Deserialize;
use tokio::time::timeout;

/// How long a fetch may take, discovery included.
pub const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// The longest discovery document.
const MAX_DISCOVERY_BYTES: usize = 64 << 10;
/// Where it is, below the issuer.
const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";

/// Why there are no new keys.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer in time.
    #[error("no answer within {} s", FETCH_TIMEOUT.as_secs())]
    Timeout,
    /// No connection, or it broke.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// The address may not be fetched from.
    #[error("{what} cannot be used: {why}")]
    Address {
        /// Which.
        what: &'static str,
        /// Why not.
        why: FetchUrlError,
    },
    /// It points elsewhere.
    #[error("answered {0}: redirects are not followed, declare the address that they lead to")]
    Redirect(StatusCode),
    /// Another status than 200.
    #[error("answered {0}, and 200 is right")]
    Status(StatusCode),
    /// More bytes than may be.
    #[error("{what} has more than {limit} bytes")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The discovery document is none.
    #[error("the discovery document is no JSON with the texts 'issuer' and 'jwks_uri'")]
    Discovery,
    /// The discovery document is of somebody else.
    #[error("the discovery document is of another issuer, and must name exactly the declared one")]
    Issuer,
    /// It failed a moment ago, and is not asked again yet.
    #[error("did not answer a moment ago, and is not asked again yet")]
    Resting,
    /// The key set cannot be used.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

impl FetchError {
    /// The name in metrics.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable(_) => "unreachable",
            Self::Address { .. } => "address",
            Self::Redirect(_) => "redirect",
            Self::Status(_) => "status",
            Self::TooLarge { .. } | Self::KeySet(KeySetError::TooLarge | KeySetError::TooMany(_)) => "too_large",
            Self::Discovery | Self::KeySet(_) => "malformed",
            Self::Issuer => "issuer_mismatch",
            Self::Resting => "resting",
        }
    }
}

impl From<reqwest::Error> for FetchError {
    fn from(error: reqwest::Error) -> Self {
        // Without the address: an admin knows it, and a path may hold what others should not see.
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self::Unreachable(text)
    }
}

/// What a fetch brought.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) set: KeySet,
    /// As it came.
    pub(crate) bytes: Vec<u8>,
    /// How long the answer says that it is new.
    pub(crate) max_age: Option<Duration>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

/// Fetches. Clones share connections.
#[derive(Debug, Clone)]
pub(crate) struct Fetcher(pub(crate) Client);

impl Fetcher {
    pub(crate) fn new() -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(FETCH_TIMEOUT)
            // Minutes lie between two fetches: a kept connection would mostly be found broken.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("mesh/", env!("CARGO_PKG_VERSION")));
        client.build().map(Self)
    }

    pub(crate) async fn fetch(&self, book: &KeyBook) -> Result<Fetched, FetchError> {
        timeout(FETCH_TIMEOUT, self.fetch_all(book))
            .await
            .map_err(|_| FetchError::Timeout)?
    }

    async fn fetch_all(&self, book: &KeyBook) -> Result<Fetched, FetchError> {
        let address = match book.location() {
            KeyLocation::KeySet(address) => address.clone(),
            KeyLocation::Discovered => self.discover(book.issuer()).await?,
        };
        let answer = self.get("the address of the key set", &address).await?;
        let max_age = max_age(answer.headers());
        let bytes = read(answer, "the key set", MAX_KEY_SET_BYTES).await?;
        Ok(Fetched {
            set: KeySet::read(&bytes, book.allowed())?,
            bytes,
            max_age,
        })
    }

    /// The address of the key set that the issuer's discovery document names.
    async fn discover(&self, issuer: &str) -> Result<String, FetchError> {
        let bytes = self.document(issuer).await?;
        let document: Discovery = serde_json::from_slice(&bytes).map_err(|_| FetchError::Discovery)?;
        leads_on(issuer, "the discovered address of the key set", &document.jwks_uri)?;
        Ok(document.jwks_uri)
    }

    /// An issuer's discovery document, which names this very issuer.
    pub(crate) async fn document(&self, issuer: &str) -> Result<Vec<u8>, FetchError> {
        let address = format!("{}{DISCOVERY_PATH}", issuer.trim_end_matches('/'));
        let answer = self.get("the issuer's address", &address).await?;
        let bytes = read(answer, "the discovery document", MAX_DISCOVERY_BYTES).await?;
        let document: Discovery = serde_json::from_slice(&bytes).map_err(|_| FetchError::Discovery)?;
        if document.issuer == issuer {
            Ok(bytes)
        } else {
            Err(FetchError::Issuer)
        }
    }

    async fn get(&self, what: &'static str, address: &str) -> Result<Response, FetchError> {
        check_fetch_url(address).map_err(|why| FetchError::Address { what, why })?;
        let url: Url = address.parse().map_err(|_| FetchError::Address {
            what,
            why: FetchUrlError::Malformed,
        })?;
        let answer = self.0.get(url).header("accept", "application/json").send().await?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status if status.is_redirection() => Err(FetchError::Redirect(status)),
            status => Err(FetchError::Status(status)),
        }
    }
}

/// Refuses an address that a discovery document names where it leads from the network to this machine, or to no encryption.
pub(crate) fn leads_on(issuer: &str, what: &'static str, address: &str) -> Result<(), FetchError> {
    let astray = issuer.starts_with("https://") && !address.starts_with("https://");
    let checked = if astray {
        Err(FetchUrlError::Scheme)
    } else {
        check_fetch_url(address)
    };
    checked.map_err(|why| FetchError::Address { what, why })
}

/// Reads a body, but no more of it than may be.
pub(crate) async fn read(mut answer: Response, what: &'static str, limit: usize) -> Result<Vec<u8>, FetchError> {
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if bytes.len().saturating_add(piece.len()) > limit {
            return Err(FetchError::TooLarge { what, limit });
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// How long an answer is new (RFC 9111, section 5.2.2); what may not be kept is new for no time at all.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let mut found = None;
    for value in headers.get_all(CACHE_CONTROL) {
        for directive in value.to_str().unwrap_or_default().split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" => return Some(Duration::ZERO),
                "max-age" => found = value.trim().trim_matches('"').parse().ok().map(Duration::from_secs),
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(CACHE_CONTROL, value.parse().unwrap());
        }
        max_age(&headers).map(|age| age.as_secs())
    }

    #[test]
    fn cache_control_says_how_long_an_answer_is_new() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&["public, max-age=600, must-revalidate"]), Some(600));
        assert_eq!(of(&["public", "MAX-AGE=\"7\""]), Some(7));
        assert_eq!(of(&["max-age=600, no-store"]), Some(0));
        assert_eq!(of(&["no-cache"]), Some(0));
        assert_eq!(of(&["max-age=soon"]), None);
        assert_eq!(of(&["s-maxage=9"]), None);
    }
}
