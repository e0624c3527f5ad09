//! Tokens: JSON Web Tokens of issuers that an admin has declared (RFC 7519, held to RFC 8725 and RFC 9068).
//!
//! Owns the issuers with their keys, and the proof that a token is theirs, ours and in time. Signatures are verified by
//! `jsonwebtoken`, everything else here, because whatever a library skips is a hole. Fetches nothing: what a token's header
//! points to (`jku`, `x5u`, `jwk`, `x5c`) is not even read.
//!
//! Invariants: the algorithm is the key's own, and a token may only agree with it; a key is chosen among those of the very
//! issuer that the token names, and at most [`MAX_TRIALS`] are tried; nothing of a token is believed before its signature holds,
//! and its window is checked last.

use std::{cell::Cell, collections::HashMap, fmt, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::{Algorithm, DecodingKey};
use mesh_types::{MAX_ISSUER_KEYS, TenantId};
use zeroize::Zeroizing;

use super::{
    AuthError, Principal, PrincipalId, TOKEN_PREFIX,
    book::{FetchedKey, KeyBook},
    claims::{Claims, TokenHeader},
};

pub use super::claims::TokenProfile;

/// The longest token.
pub const MAX_TOKEN_BYTES: usize = 8_192;
/// The most keys that are tried on one token, all of its own algorithm: what a forged one costs. Declarations and published sets have one
/// at most for each name and algorithm, and one without a name.
pub const MAX_TRIALS: usize = 4;
/// How far clocks may be apart at most; more is cut to this.
pub const MAX_LEEWAY: Duration = Duration::from_secs(60);
/// The shortest secret for HS256: as long as its hash (RFC 7518, 3.2).
const MIN_SECRET_BYTES: usize = 32;
/// An uncompressed point of P-256 and a point of Ed25519.
const P256_POINT_BYTES: usize = 65;
const ED25519_POINT_BYTES: usize = 32;

/// How a key signs. There is no other way, and no `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl KeyAlgorithm {
    /// The name in a token's `alg`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::PS256 => "PS256",
            Self::ES256 => "ES256",
            Self::EdDSA => "EdDSA",
        }
    }

    const fn library(self) -> Algorithm {
        match self {
            Self::HS256 => Algorithm::HS256,
            Self::RS256 => Algorithm::RS256,
            Self::PS256 => Algorithm::PS256,
            Self::ES256 => Algorithm::ES256,
            Self::EdDSA => Algorithm::EdDSA,
        }
    }
}

/// What a key is made from.
#[derive(Clone, Copy)]
pub enum KeyMaterial<'a> {
    /// A public key in PEM, for every algorithm but HS256.
    PublicKeyPem(&'a str),
    /// A secret in base64, for HS256 only.
    SecretBase64(&'a str),
}

/// Why a key cannot be used. Names neither the key nor its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssuerKeyError {
    /// HS256 with a public key, or another algorithm with a secret.
    #[error("HS256 takes a secret, and RS256, PS256, ES256 and EdDSA take a public key")]
    Material,
    /// Not base64, or too short.
    #[error("the secret must be base64 of at least 32 bytes")]
    Secret,
    /// Not a public key of the algorithm.
    #[error("the public key must be PEM ('BEGIN PUBLIC KEY') and fit {}", .0.as_str())]
    PublicKey(KeyAlgorithm),
}

/// One key of an issuer, bound to its algorithm.
#[derive(Clone)]
pub struct IssuerKey {
    key_id: Option<String>,
    algorithm: KeyAlgorithm,
    key: DecodingKey,
}

impl fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerKey")
            .field("key_id", &self.key_id)
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl IssuerKey {
    /// Reads a key. Without a `key_id` it stands for tokens without `kid`, and for those whose `kid` no key has.
    pub fn new(
        key_id: Option<String>,
        algorithm: KeyAlgorithm,
        material: KeyMaterial<'_>,
    ) -> Result<Self, IssuerKeyError> {
        let key = match (algorithm, material) {
            (KeyAlgorithm::HS256, KeyMaterial::SecretBase64(text)) => secret_key(text)?,
            (KeyAlgorithm::HS256, _) | (_, KeyMaterial::SecretBase64(_)) => return Err(IssuerKeyError::Material),
            (_, KeyMaterial::PublicKeyPem(pem)) => {
                public_key(algorithm, pem).ok_or(IssuerKeyError::PublicKey(algorithm))?
            }
        };
        Ok(Self { key_id, algorithm, key })
    }

    /// A key out of a set that an issuer has published.
    pub(super) fn fetched(key_id: Option<String>, algorithm: KeyAlgorithm, key: DecodingKey) -> Self {
        Self { key_id, algorithm, key }
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    pub(super) fn algorithm(&self) -> KeyAlgorithm {
        self.algorithm
    }

    fn verifies(&self, header: &TokenHeader, message: &str, signature: &str) -> bool {
        header.algorithm == self.algorithm.as_str()
            && jsonwebtoken::crypto::verify(signature, message.as_bytes(), &self.key, self.algorithm.library())
                .unwrap_or(false)
    }
}

fn secret_key(text: &str) -> Result<DecodingKey, IssuerKeyError> {
    let secret = STANDARD.decode(text).map_err(|_| IssuerKeyError::Secret)?;
    let secret = Zeroizing::new(secret);
    if secret.len() < MIN_SECRET_BYTES {
        return Err(IssuerKeyError::Secret);
    }
    Ok(DecodingKey::from_secret(&secret))
}

fn public_key(algorithm: KeyAlgorithm, pem: &str) -> Option<DecodingKey> {
    // The library would also take certificates and private keys and cut something out of them.
    let label = pem.trim_start().strip_prefix("-----BEGIN ")?;
    let is_public = label.starts_with("PUBLIC KEY-----") || label.starts_with("RSA PUBLIC KEY-----");
    if !is_public {
        return None;
    }
    let pem = pem.trim_start().as_bytes();
    let key = match algorithm {
        KeyAlgorithm::RS256 | KeyAlgorithm::PS256 => DecodingKey::from_rsa_pem(pem),
        KeyAlgorithm::ES256 => DecodingKey::from_ec_pem(pem),
        KeyAlgorithm::EdDSA => DecodingKey::from_ed_pem(pem),
        KeyAlgorithm::HS256 => return None,
    };
    let key = key.ok()?;
    let bytes = key.try_get_as_bytes().ok()?;
    let fits = match algorithm {
        KeyAlgorithm::ES256 => bytes.len() == P256_POINT_BYTES,
        KeyAlgorithm::EdDSA => bytes.len() == ED25519_POINT_BYTES,
        // A sequence that begins with an integer of 256 bytes or more, the modulus; a private key begins with its version.
        _ => matches!(bytes, [0x30, 0x82, _, _, 0x02, 0x82, ..]),
    };
    fits.then_some(key)
}

/// How a token's tenant is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TenantBinding {
    /// Every token of the issuer acts for this tenant.
    Tenant(TenantId),
    /// This claim names the tenant: the issuer is trusted for all of them.
    Claim(String),
}

/// Where the keys of an issuer come from.
#[derive(Debug, Clone)]
pub enum IssuerKeys {
    /// They are declared.
    Declared(Vec<IssuerKey>),
    /// The issuer publishes them.
    Fetched(Arc<KeyBook>),
}

/// Somebody whose tokens are taken.
#[derive(Debug, Clone)]
pub struct IssuerEntry {
    /// Exactly what its tokens have as `iss`.
    pub issuer: String,
    /// What a token's `aud` must name one of; none means that no token is taken.
    pub audiences: Vec<String>,
    /// Its keys.
    pub keys: IssuerKeys,
    /// For whom its tokens act.
    pub tenants: TenantBinding,
    /// What its tokens look like.
    pub profile: TokenProfile,
    /// How far its clock may be from ours.
    pub leeway: Duration,
}

impl IssuerEntry {
    /// Cuts what is beyond the bounds.
    pub(super) fn make_safe(&mut self) {
        self.leeway = self.leeway.min(MAX_LEEWAY);
        if let IssuerKeys::Declared(keys) = &mut self.keys {
            keys.truncate(MAX_ISSUER_KEYS);
        }
    }

    /// Whether one of its keys has signed; if it is a fetched one, which.
    pub(super) fn verify(&self, signed: &Signed<'_>, now_unix: i64) -> Result<Option<Arc<FetchedKey>>, AuthError> {
        let key_id = signed.header.key_id.as_deref();
        let book = match &self.keys {
            IssuerKeys::Declared(keys) => {
                let all: Vec<&IssuerKey> = keys.iter().collect();
                let by_any = candidates(&all, signed.header).any(|at| all.get(at).is_some_and(|key| signed.is_by(key)));
                return by_any.then_some(None).ok_or(AuthError::Invalid);
            }
            IssuerKeys::Fetched(book) => book,
        };
        let mut keys = Vec::clone(&book.keys());
        keys.retain(|key| key.is_alive(now_unix));
        if keys.is_empty() {
            return Err(AuthError::KeysUnavailable);
        }
        let all: Vec<&IssuerKey> = keys.iter().map(|key| &key.key).collect();
        let named = key_id.is_some_and(|id| all.iter().any(|key| key.key_id() == Some(id)));
        let mut by = candidates(&all, signed.header).filter(|at| all.get(*at).is_some_and(|key| signed.is_by(key)));
        match by.next().and_then(|at| keys.get(at)) {
            Some(key) => Ok(Some(key.clone())),
            // Another key than the one that it names will not help it.
            None if named => Err(AuthError::Invalid),
            None => Err(AuthError::UnknownKey),
        }
    }

    fn tenant(&self, claims: &Claims) -> Result<TenantId, AuthError> {
        match &self.tenants {
            TenantBinding::Tenant(tenant) => Ok(tenant.clone()),
            TenantBinding::Claim(name) => {
                let named = claims.text(name).ok_or(AuthError::Invalid)?;
                TenantId::parse(named).map_err(|_| AuthError::Invalid)
            }
        }
    }
}

/// The keys that may have signed: those that the token's `kid` names, else those without a name, as far as they sign in its way. A token
/// without `kid` may also mean the only key there is.
fn candidates(keys: &[&IssuerKey], header: &TokenHeader) -> impl Iterator<Item = usize> {
    let key_id = header.key_id.as_deref();
    let named = key_id.is_some_and(|id| keys.iter().any(|key| key.key_id() == Some(id)));
    let wanted = if named { key_id } else { None };
    let only = key_id.is_none() && keys.len() == 1;
    let fits = move |(at, key): (usize, &&IssuerKey)| {
        let may = (only || key.key_id() == wanted) && key.algorithm.as_str() == header.algorithm;
        may.then_some(at)
    };
    keys.iter().enumerate().filter_map(fits).take(MAX_TRIALS)
}

/// What a token's signature is over.
pub(super) struct Signed<'a> {
    pub(super) header: &'a TokenHeader,
    pub(super) message: &'a str,
    pub(super) signature: &'a str,
    /// Whether a key was tried on it, which is what a token costs.
    pub(super) is_tried: &'a Cell<bool>,
}

impl Signed<'_> {
    fn is_by(&self, key: &IssuerKey) -> bool {
        self.is_tried.set(true);
        key.verifies(self.header, self.message, self.signature)
    }
}

/// When a token is valid, leeway included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Window {
    from: i64,
    until: i64,
}

impl Window {
    /// Refuses a token before it begins and from its `exp` on.
    pub(super) fn check(self, now_unix: i64) -> Result<(), AuthError> {
        if now_unix >= self.until {
            return Err(AuthError::Expired);
        }
        if now_unix < self.from {
            return Err(AuthError::Invalid);
        }
        Ok(())
    }
}

/// What a token has proven, but for the time.
pub(super) struct VerifiedToken {
    pub(super) principal: Principal,
    pub(super) window: Window,
    /// The fetched key that signed it; without it the token is worth nothing.
    pub(super) key: Option<Arc<FetchedKey>>,
    /// SHA-256 of the certificate that its bearer must have (RFC 8705, section 3.1).
    pub(super) bound: Option<[u8; 32]>,
}

impl VerifiedToken {
    /// Whether the key that signed it still counts.
    pub(super) fn is_alive(&self, now_unix: i64) -> bool {
        self.key.as_ref().is_none_or(|key| key.is_alive(now_unix))
    }
}

/// The issuers, by `iss`.
pub(super) type Issuers = HashMap<String, Arc<IssuerEntry>>;

/// The book of the issuer that a token names, if its keys are fetched. Proves nothing.
pub(super) fn book_of<'a>(issuers: &'a Issuers, token: &str) -> Option<&'a Arc<KeyBook>> {
    let (_, payload) = token.rsplit_once('.')?.0.split_once('.')?;
    let claims = Claims::read(payload).ok()?;
    match &issuers.get(&claims.issuer)?.keys {
        IssuerKeys::Fetched(book) => Some(book),
        IssuerKeys::Declared(_) => None,
    }
}

/// Proves a token of at most [`MAX_TOKEN_BYTES`]; the caller checks its window. `is_tried` is set where a key was tried on it.
pub(super) fn verify(
    issuers: &Issuers,
    token: &str,
    now_unix: i64,
    is_tried: &Cell<bool>,
) -> Result<VerifiedToken, AuthError> {
    // Three parts: two are unsigned, five are encrypted.
    let (message, signature) = token.rsplit_once('.').ok_or(AuthError::Invalid)?;
    let (header, payload) = message.split_once('.').ok_or(AuthError::Invalid)?;
    let header = TokenHeader::read(header)?;
    let claims = Claims::read(payload)?;
    let issuer = issuers.get(&claims.issuer).ok_or(AuthError::Invalid)?;
    if !header.fits(issuer.profile) || !claims.fits(issuer.profile) {
        return Err(AuthError::Invalid);
    }
    // Before the signature: what would be refused with it needs no key, and must not have one fetched.
    if !claims.audience.iter().any(|named| issuer.audiences.contains(named)) {
        return Err(AuthError::Invalid);
    }
    let leeway = i64::try_from(issuer.leeway.as_secs()).unwrap_or(0);
    let window = Window {
        from: claims.begins.unwrap_or(i64::MIN).saturating_sub(leeway),
        until: claims.expires.saturating_add(leeway),
    };
    let signed = Signed {
        header: &header,
        message,
        signature,
        is_tried,
    };
    let key = issuer
        .verify(&signed, now_unix)
        .map_err(|error| match window.check(now_unix) {
            Ok(()) => error,
            Err(_) => AuthError::Invalid,
        })?;
    Ok(VerifiedToken {
        principal: Principal {
            id: PrincipalId::fresh(),
            groups: claims.groups(),
            tenant: issuer.tenant(&claims)?,
            subject: Arc::from(claims.subject.as_str()),
            credential: Arc::from(format!("{TOKEN_PREFIX}{}", issuer.issuer)),
            scopes: claims.scopes,
        },
        window,
        key,
        bound: claims.bound,
    })
}
