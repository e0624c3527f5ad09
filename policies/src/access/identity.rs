//! Identity tokens: who somebody is, as the identity provider says it to this mesh alone (OpenID Connect Core 1.0, section 3.1.3.7).
//!
//! Owns what is asked of such a token beside what is asked of every other (`jwt`, `claims`): that it was made for this client, for
//! this sign-in, and just now, and beside the access token that came with it where it says so (section 3.1.3.6). Its claims decide nothing
//! here; what follows from them is for whoever signs people in. The access token itself is never used.
//!
//! Invariants: keys are the issuer's published ones, so a shared secret never signs and `none` is no algorithm; a token that is
//! typed for another end, such as an access token, is none of these; nothing is believed before the signature holds.

use std::{cell::Cell, fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256, Sha512};

use super::{
    AuthError, KeyBook, MAX_TOKEN_BYTES, TenantBinding, TokenProfile,
    claims::{Claims, TokenHeader},
    jwt::{IssuerEntry, IssuerKeys, Signed},
};

/// How long ago a token may have been made: it is fetched as soon as there is one.
pub const MAX_IDENTITY_AGE: Duration = Duration::from_secs(600);
/// How far the provider's clock may be from ours.
const LEEWAY: Duration = Duration::from_secs(30);
/// The most entries of a claim that are looked at.
const MAX_VALUES: usize = 1_000;

/// Why an identity token is refused: for admins and the log, not for strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not three parts of base64url with JSON, or a claim of a wrong type.
    #[error("the identity token is malformed, unsigned or of more than {MAX_TOKEN_BYTES} bytes")]
    Malformed,
    /// Typed for another end.
    #[error("the token's typ is not that of an identity token: JWT or none")]
    Type,
    /// Of somebody else.
    #[error("the identity token's iss is not the configured issuer")]
    Issuer,
    /// For somebody else.
    #[error("the identity token's aud does not name the client")]
    Audience,
    /// For several, and not asked for by this client.
    #[error("the identity token's azp is not the client")]
    AuthorizedParty,
    /// Not for this sign-in.
    #[error("the identity token's nonce is not that of this sign-in")]
    Nonce,
    /// Unsigned, with a shared secret, or in a way that no published key signs.
    #[error("the identity token's alg is none that a published key signs with")]
    Algorithm,
    /// Not signed by any of the issuer's keys.
    #[error("the identity token's signature does not hold")]
    Signature,
    /// Its key is not among the fetched ones.
    #[error("the identity token is signed with a key that the issuer does not publish")]
    UnknownKey,
    /// No key was fetched yet.
    #[error("the issuer's keys cannot be fetched at the moment")]
    KeysUnavailable,
    /// Its `at_hash` is not that of the access token beside it, or there is none.
    #[error("the identity token's at_hash is not that of the access token that came with it")]
    AccessToken,
    /// Past its `exp`.
    #[error("the identity token has expired")]
    Expired,
    /// Before its `nbf` or `iat`, without an `iat`, or with one too long ago.
    #[error("the identity token was not made just now: its iat or nbf is absent, in the future or too long ago")]
    NotNow,
}

/// Whose identity tokens are taken, and for which client.
#[derive(Debug, Clone)]
pub struct IdentityRules {
    client: String,
    entry: IssuerEntry,
    book: Arc<KeyBook>,
}

/// An identity token as it came: what tells the provider later on whose sign-out it is. Prints as nothing.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct IdToken(Arc<str>);

impl IdToken {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for IdToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdToken([redacted])")
    }
}

/// Somebody whose identity token held.
#[derive(Debug, Clone, PartialEq)]
pub struct Identity {
    claims: Map<String, Value>,
    token: IdToken,
}

impl Identity {
    /// Somebody with these claims, for tests of what follows from them.
    pub fn of(claims: Map<String, Value>) -> Self {
        Self {
            claims,
            token: IdToken::default(),
        }
    }

    /// The token that held.
    pub const fn token(&self) -> &IdToken {
        &self.token
    }

    /// A claim: of this very name, or else along the name's dots, as `realm_access.roles`.
    fn claim(&self, name: &str) -> Option<&Value> {
        if let Some(value) = self.claims.get(name) {
            return Some(value);
        }
        let mut parts = name.split('.');
        let first = self.claims.get(parts.next()?)?;
        parts.try_fold(first, |value, part| value.get(part))
    }

    /// A claim that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.claim(name)?.as_str()
    }

    /// Whether a claim is the truth value true; a text that says so is not.
    pub fn is_true(&self, name: &str) -> bool {
        self.claim(name) == Some(&Value::Bool(true))
    }

    /// Whether a claim is this text, or a list that holds it.
    pub fn has(&self, name: &str, wanted: &str) -> bool {
        match self.claim(name) {
            Some(Value::String(text)) => text == wanted,
            Some(Value::Array(values)) => values.iter().take(MAX_VALUES).any(|value| value == wanted),
            _ => false,
        }
    }
}

impl IdentityRules {
    /// Those of a client at the issuer whose keys are in the book.
    pub fn new(client: &str, book: Arc<KeyBook>) -> Self {
        let entry = IssuerEntry {
            issuer: book.issuer().to_owned(),
            audiences: vec![client.to_owned()],
            keys: IssuerKeys::Fetched(book.clone()),
            // Nobody calls models with an identity token.
            tenants: TenantBinding::Claim(String::new()),
            profile: TokenProfile::Rfc7519,
            leeway: LEEWAY,
        };
        Self {
            client: client.to_owned(),
            entry,
            book,
        }
    }

    /// The book that may yet get the key of a token that was refused for want of it.
    pub fn book_for(&self, refused: IdentityError) -> Option<&Arc<KeyBook>> {
        let missing = matches!(refused, IdentityError::UnknownKey | IdentityError::KeysUnavailable);
        missing.then_some(&self.book)
    }

    /// Who this is, at this Unix second: a token for this client, made for the sign-in of this nonce, that came with this access token.
    pub fn verify(
        &self,
        token: &str,
        access_token: Option<&str>,
        nonce: &str,
        now_unix: i64,
    ) -> Result<Identity, IdentityError> {
        let malformed = |_: AuthError| IdentityError::Malformed;
        if token.len() > MAX_TOKEN_BYTES {
            return Err(IdentityError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(IdentityError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(IdentityError::Malformed)?;
        let header = TokenHeader::read(header).map_err(malformed)?;
        let claims = Claims::read(payload).map_err(malformed)?;
        if !header.is_plain() {
            return Err(IdentityError::Type);
        }
        // Before the key: no fetch would bring one.
        if !self
            .book
            .allowed()
            .iter()
            .any(|known| known.as_str() == header.algorithm)
        {
            return Err(IdentityError::Algorithm);
        }
        self.check_parties(&claims)?;
        let signed = Signed {
            header: &header,
            message,
            signature,
            is_tried: &Cell::default(),
        };
        self.entry.verify(&signed, now_unix).map_err(|error| match error {
            AuthError::UnknownKey => IdentityError::UnknownKey,
            AuthError::KeysUnavailable => IdentityError::KeysUnavailable,
            _ => IdentityError::Signature,
        })?;
        check_times(&claims, now_unix)?;
        if nonce.is_empty() || claims.text("nonce") != Some(nonce) {
            return Err(IdentityError::Nonce);
        }
        if let Some(hash) = claims.all.get("at_hash")
            && !access_token.is_some_and(|token| *hash == half_hash(&header.algorithm, token))
        {
            return Err(IdentityError::AccessToken);
        }
        Ok(Identity {
            claims: claims.all,
            token: IdToken(Arc::from(token)),
        })
    }

    fn check_parties(&self, claims: &Claims) -> Result<(), IdentityError> {
        if claims.issuer != self.entry.issuer {
            return Err(IdentityError::Issuer);
        }
        if !claims.audience.contains(&self.client) {
            return Err(IdentityError::Audience);
        }
        let party = claims.all.get("azp");
        let alone = claims.audience.len() == 1 && party.is_none();
        if alone || party.is_some_and(|party| *party == self.client) {
            Ok(())
        } else {
            Err(IdentityError::AuthorizedParty)
        }
    }
}

/// base64url of the left half of an access token's hash: the one that the identity token's own signature is made with (OpenID Connect
/// Core 1.0, section 3.1.3.6), which is SHA-512 for Ed25519 (RFC 8032, section 5.1).
fn half_hash(algorithm: &str, access_token: &str) -> String {
    let text = access_token.as_bytes();
    let hash = match algorithm {
        "EdDSA" => Sha512::digest(text).to_vec(),
        _ => Sha256::digest(text).to_vec(),
    };
    URL_SAFE_NO_PAD.encode(hash.get(..hash.len() / 2).unwrap_or_default())
}

fn check_times(claims: &Claims, now_unix: i64) -> Result<(), IdentityError> {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(0);
    if now_unix >= claims.expires.saturating_add(seconds(LEEWAY)) {
        return Err(IdentityError::Expired);
    }
    let latest = now_unix.saturating_add(seconds(LEEWAY));
    let oldest = now_unix.saturating_sub(seconds(MAX_IDENTITY_AGE + LEEWAY));
    let issued = claims.issued.filter(|issued| (oldest..=latest).contains(issued));
    if issued.is_none() || claims.begins.is_some_and(|begins| begins > latest) {
        return Err(IdentityError::NotNow);
    }
    Ok(())
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
