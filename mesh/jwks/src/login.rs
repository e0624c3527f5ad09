//! The client of an identity provider with which people sign in: OpenID Connect's authorization code flow (Core 1.0, section 3.1)
//! with PKCE (RFC 7636, S256).
//!
//! Owns what goes to the provider: the address that a browser is sent to, and the exchange of the code that it brings back for an
//! identity token, which is verified by `policies`. Does not know browsers, cookies or sessions, nor what anybody may do: that is
//! the admin door's. The crate `openidconnect` would do this too, but with an HTTP client, a reading of keys and a verification of
//! tokens of its own, beside those that already hold the rules of RFC 8725 here; what is left to do is one address and one form.
//!
//! Invariants: nothing is sent but to addresses that the issuer's own discovery document names, encrypted or on this machine, and no
//! redirect is followed; an answer has at most 64 KiB and comes within [`FETCH_TIMEOUT`](crate::FETCH_TIMEOUT); a provider that was
//! down is asked again after [`REST`] and not before; secrets, codes and tokens are in no error.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_policies::{
    KeyAlgorithm, KeyBook, KeyLocation,
    access::{IdToken, Identity, IdentityError, IdentityRules, Judged, judge_or_wait},
};
use mesh_types::Clock;
use reqwest::{Response, StatusCode, Url};
use serde::Deserialize;
use tokio::{sync::Mutex, time::timeout};

use crate::fetch::{FETCH_TIMEOUT, FetchError, Fetcher, leads_on, read};

/// How long a discovery document counts as new.
pub const DISCOVERY_AGE: Duration = Duration::from_secs(600);
/// How long a provider whose document could not be fetched is left alone.
pub const REST: Duration = Duration::from_secs(2);
/// The wait for a key that the token names and that is not known.
const KEY_PATIENCE: Duration = Duration::from_secs(6);
/// The longest answer of the token endpoint.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// The longest word for an error that is passed on.
const MAX_ERROR_BYTES: usize = 64;
/// How the issuer of the login is called in metrics and logs; no declared issuer can have this name.
const BOOK_NAME: &str = "admin sign-in";

/// A client's secret. Prints as nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSecret(String);

impl ClientSecret {
    /// Takes a secret over.
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientSecret([redacted])")
    }
}

/// Who the mesh is to the provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginClient {
    /// The provider's exact issuer.
    pub issuer: String,
    /// The name that the mesh is registered by.
    pub client_id: String,
    /// Absent: a public client, which only PKCE protects.
    pub secret: Option<ClientSecret>,
    /// What is asked for, with blanks between; `openid` is among them.
    pub scopes: String,
}

/// One sign-in, as it begins.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// Where the browser is to come back to.
    pub redirect_uri: &'a str,
    /// What it is to bring back.
    pub state: &'a str,
    /// What the identity token is to hold.
    pub nonce: &'a str,
    /// Of the verifier: base64url of its SHA-256.
    pub challenge: &'a str,
}

/// The same, as it comes back.
#[derive(Clone, Copy)]
pub struct Returned<'a> {
    /// The code.
    pub code: &'a str,
    /// The `iss` beside it (RFC 9207), if there is one.
    pub issuer: Option<&'a str>,
    /// Where the browser was sent back to.
    pub redirect_uri: &'a str,
    /// What only who began it knows.
    pub verifier: &'a str,
    /// What the identity token must hold.
    pub nonce: &'a str,
}

impl fmt::Debug for Returned<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Returned([redacted])")
    }
}

/// A sign-out, as it begins.
#[derive(Debug, Clone, Copy)]
pub struct Leaving<'a> {
    /// By which the provider knows who it is.
    pub token: &'a IdToken,
    /// Where the browser is to come back to.
    pub redirect_uri: &'a str,
    /// What it is to bring back.
    pub state: &'a str,
}

/// Why nobody is signed in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The provider does not answer as one should.
    #[error("the identity provider {0}")]
    Provider(#[from] FetchError),
    /// Its document lacks what a sign-in needs.
    #[error("the identity provider's discovery document names no usable {0}")]
    Metadata(&'static str),
    /// It does not take the code, the verifier or the client.
    #[error("the identity provider refused the code: {0}")]
    Refused(String),
    /// No identity token.
    #[error("the identity provider's answer holds no identity token: is the scope 'openid' allowed?")]
    NoToken,
    /// RFC 9207: the code comes from another provider than the one that was asked.
    #[error("the answer is not of the configured issuer, or does not say so although it should (RFC 9207)")]
    MixedUp,
    /// The identity token does not hold.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl LoginError {
    /// Whether it is the provider that is not there, so that trying again later helps.
    pub const fn is_outage(&self) -> bool {
        matches!(self, Self::Provider(_) | Self::Identity(IdentityError::KeysUnavailable))
    }
}

#[derive(Debug, Clone, Deserialize)]
struct Metadata {
    authorization_endpoint: String,
    token_endpoint: String,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    end_session_endpoint: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    id_token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// What a code was good for.
struct Tokens {
    identity: String,
    access: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
}

/// What is known of the provider, and since when.
#[derive(Debug, Default)]
struct Known {
    metadata: Option<(Arc<Metadata>, Instant)>,
    failed: Option<Instant>,
}

/// A provider, as the mesh signs people in with it.
pub struct Login {
    client: LoginClient,
    fetcher: Fetcher,
    rules: IdentityRules,
    book: Arc<KeyBook>,
    clock: Arc<dyn Clock>,
    known: Mutex<Known>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Login {
    /// A client of a provider. Asks nothing yet.
    pub fn new(client: LoginClient, clock: Arc<dyn Clock>) -> Result<Self, reqwest::Error> {
        let allowed = vec![
            KeyAlgorithm::RS256,
            KeyAlgorithm::PS256,
            KeyAlgorithm::ES256,
            KeyAlgorithm::EdDSA,
        ];
        let book = KeyBook::new(BOOK_NAME, &client.issuer, KeyLocation::Discovered, allowed);
        let book = Arc::new(book);
        Ok(Self {
            fetcher: Fetcher::new()?,
            rules: IdentityRules::new(&client.client_id, book.clone()),
            client,
            book,
            clock,
            known: Mutex::default(),
        })
    }

    /// The book of the provider's keys: to be followed by a [`Keeper`](crate::Keeper).
    pub fn book(&self) -> &Arc<KeyBook> {
        &self.book
    }

    /// Where a browser is to go.
    pub async fn address(&self, asked: &Asked<'_>) -> Result<String, LoginError> {
        let metadata = self.metadata().await?;
        let mut url =
            Url::parse(&metadata.authorization_endpoint).map_err(|_| LoginError::Metadata("authorization_endpoint"))?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.client.client_id)
            .append_pair("redirect_uri", asked.redirect_uri)
            .append_pair("scope", &self.client.scopes)
            .append_pair("state", asked.state)
            .append_pair("nonce", asked.nonce)
            .append_pair("code_challenge", asked.challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    /// Who has come back.
    pub async fn identity(&self, returned: &Returned<'_>) -> Result<Identity, LoginError> {
        let metadata = self.metadata().await?;
        // Before the code goes anywhere: another provider's code is none of this one's business.
        let right = match returned.issuer {
            Some(issuer) => issuer == self.client.issuer,
            None => !metadata.authorization_response_iss_parameter_supported,
        };
        if !right {
            return Err(LoginError::MixedUp);
        }
        let exchanged = timeout(FETCH_TIMEOUT, self.redeem(&metadata, returned)).await;
        let tokens = exchanged.map_err(|_| FetchError::Timeout)??;
        let verify = || {
            let access = tokens.access.as_deref();
            let now = self.clock.unix_seconds();
            self.rules.verify(&tokens.identity, access, returned.nonce, now)
        };
        let judged = judge_or_wait(verify, |refused| self.rules.book_for(refused), || self.clock.now())?;
        let wait = match judged {
            Judged::Holds(identity) => return Ok(identity),
            Judged::Waits(wait) => wait,
        };
        // Whether the keys came or not is seen by asking again.
        let _ = timeout(KEY_PATIENCE, wait).await;
        Ok(verify()?)
    }

    /// Where a browser is to go so that it is signed out at the provider, too (OpenID Connect RP-Initiated Logout 1.0, section 2); none
    /// where the provider does not offer that.
    pub async fn leaving(&self, leaving: &Leaving<'_>) -> Result<Option<String>, LoginError> {
        let metadata = self.metadata().await?;
        let Some(endpoint) = &metadata.end_session_endpoint else {
            return Ok(None);
        };
        // What else it may be, it is no reason to refuse sign-ins.
        leads_on(&self.client.issuer, "the discovered end_session_endpoint", endpoint)?;
        let mut url = Url::parse(endpoint).map_err(|_| LoginError::Metadata("end_session_endpoint"))?;
        url.query_pairs_mut()
            .append_pair("id_token_hint", leaving.token.as_str())
            .append_pair("client_id", &self.client.client_id)
            .append_pair("post_logout_redirect_uri", leaving.redirect_uri)
            .append_pair("state", leaving.state);
        Ok(Some(url.into()))
    }

    /// The provider's addresses: one fetch at a time, and none shortly after one that failed.
    async fn metadata(&self) -> Result<Arc<Metadata>, LoginError> {
        let mut known = self.known.lock().await;
        let now = self.clock.now();
        let age = |since: Instant| now.saturating_duration_since(since);
        if let Some((metadata, since)) = &known.metadata
            && age(*since) < DISCOVERY_AGE
        {
            return Ok(metadata.clone());
        }
        if known.failed.is_some_and(|failed| age(failed) < REST) {
            return Err(FetchError::Resting.into());
        }
        let fetched = timeout(FETCH_TIMEOUT, self.discover())
            .await
            .unwrap_or(Err(FetchError::Timeout.into()));
        match fetched {
            Ok(metadata) => {
                let metadata = Arc::new(metadata);
                known.failed = None;
                known.metadata = Some((metadata.clone(), now));
                Ok(metadata)
            }
            Err(error) => {
                known.failed = Some(self.clock.now());
                Err(error)
            }
        }
    }

    async fn discover(&self) -> Result<Metadata, LoginError> {
        let issuer = &self.client.issuer;
        let bytes = self.fetcher.document(issuer).await?;
        let metadata: Metadata = serde_json::from_slice(&bytes)
            .map_err(|_| LoginError::Metadata("authorization_endpoint and token_endpoint"))?;
        let authorize = &metadata.authorization_endpoint;
        leads_on(issuer, "the discovered authorization_endpoint", authorize)?;
        leads_on(issuer, "the discovered token_endpoint", &metadata.token_endpoint)?;
        Ok(metadata)
    }

    /// The identity token for a code, and what came with it.
    async fn redeem(&self, metadata: &Metadata, returned: &Returned<'_>) -> Result<Tokens, LoginError> {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", returned.code),
            ("redirect_uri", returned.redirect_uri),
            ("code_verifier", returned.verifier),
        ];
        let methods = metadata.token_endpoint_auth_methods_supported.as_deref();
        // What a document does not say is Basic (OpenID Connect Discovery 1.0, section 3).
        let basic = methods.is_none_or(|methods| methods.iter().any(|method| method == "client_secret_basic"));
        let request = self.fetcher.0.post(&metadata.token_endpoint);
        let request = match &self.client.secret {
            Some(ClientSecret(secret)) if basic => {
                // Each as in a form first (RFC 6749, section 2.3.1).
                request.basic_auth(encoded(&self.client.client_id), Some(encoded(secret)))
            }
            Some(ClientSecret(secret)) => {
                form.extend([("client_id", self.client.client_id.as_str()), ("client_secret", secret)]);
                request
            }
            None => {
                form.push(("client_id", &self.client.client_id));
                request
            }
        };
        let answer = request
            .header("content-type", "application/x-www-form-urlencoded")
            .header("accept", "application/json")
            .body(form_of(&form))
            .send()
            .await
            .map_err(FetchError::from)?;
        tokens_of(answer).await
    }
}

async fn tokens_of(answer: Response) -> Result<Tokens, LoginError> {
    let status = answer.status();
    if status.is_redirection() {
        return Err(FetchError::Redirect(status).into());
    }
    let refused = matches!(status, StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED);
    if status != StatusCode::OK && !refused {
        return Err(FetchError::Status(status).into());
    }
    let bytes = read(answer, "the answer with the identity token", MAX_ANSWER_BYTES).await?;
    if refused {
        let said = serde_json::from_slice::<Refusal>(&bytes).map(|refusal| refusal.error);
        return Err(LoginError::Refused(
            said.map_or_else(|_| "no reason".to_owned(), |word| told(&word)),
        ));
    }
    let answer = serde_json::from_slice::<Answer>(&bytes).map_err(|_| LoginError::NoToken)?;
    Ok(Tokens {
        identity: answer.id_token.ok_or(LoginError::NoToken)?,
        access: answer.access_token,
    })
}

/// A provider's word for an error (RFC 6749, sections 4.1.2.1 and 5.2), as far as it is one.
pub fn told(word: &str) -> String {
    let plain = |char: &char| char.is_ascii_lowercase() || *char == '_';
    let word: String = word.chars().filter(plain).take(MAX_ERROR_BYTES).collect();
    if word.is_empty() { "no reason".to_owned() } else { word }
}

/// A form's body. An address' query is written alike, and its writer is at hand.
fn form_of(pairs: &[(&str, &str)]) -> String {
    let Ok(mut url) = Url::parse("https://form.invalid/") else {
        return String::new();
    };
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

/// One text as in a form.
fn encoded(text: &str) -> String {
    let form = form_of(&[("", text)]);
    form.strip_prefix('=').unwrap_or(&form).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_written_as_forms_are() {
        assert_eq!(form_of(&[("a", "b c"), ("d", "&=+%é")]), "a=b+c&d=%26%3D%2B%25%C3%A9");
        assert_eq!(encoded("s3cret:/ +"), "s3cret%3A%2F+%2B");
    }

    #[test]
    fn a_providers_word_is_a_word_and_no_secret_is_printed() {
        assert_eq!(told("access_denied"), "access_denied");
        assert_eq!(told("<script>"), "script");
        assert_eq!(told("\n"), "no reason");
        assert_eq!(told(&"a".repeat(MAX_ERROR_BYTES + 1)).len(), MAX_ERROR_BYTES);
        let client = LoginClient {
            issuer: "https://login.example".into(),
            client_id: "mesh".into(),
            secret: Some(ClientSecret::new("s3cret".into())),
            scopes: "openid".into(),
        };
        assert!(!format!("{client:?}").contains("s3cret"));
    }
}
