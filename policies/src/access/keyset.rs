//! JSON web key sets (RFC 7517): what an issuer publishes, read strictly into keys that can verify.
//!
//! Owns the reading of a set and the reasons for which a key in it is left out. A key set is read like a token: no name twice, and
//! every field of its own type. One key that is of no use leaves the others alone, because issuers publish keys for other ends
//! beside those that sign; a set of which nothing can be used is an error, so that it displaces nothing. Fetches nothing.
//!
//! Invariants: no key is symmetric or holds a private half; each has one algorithm, among those that the issuer is allowed
//! (RFC 8725, section 3.1); of two with the same name and algorithm the first stands, and the others are named as left out.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use mesh_types::MAX_ISSUER_KEYS;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    claims,
    jwt::{IssuerKey, KeyAlgorithm},
};

/// The longest key set.
pub const MAX_KEY_SET_BYTES: usize = 1 << 20;
/// The longest `kid` of a fetched key; tokens carry it in each request.
const MAX_KEY_ID_BYTES: usize = 256;
/// The bounds of an RSA modulus in bytes: below, it can be broken; above, each check costs too much.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// A coordinate of P-256, and a point of Ed25519.
const POINT_BYTES: usize = 32;
/// What only a private key has (RFC 7518, section 6).
const PRIVATE: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "oth"];

/// A key of a set that can be used, with its thumbprint (RFC 7638): base64url of the SHA-256 of what makes it this key.
pub(super) struct SetKey {
    pub(super) key: IssuerKey,
    pub(super) thumbprint: String,
}

/// A key of a set that is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its `kid`, as far as it is a text.
    pub key_id: Option<String>,
    /// Why.
    pub reason: WhyLeftOut,
}

/// Why a key of a set is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WhyLeftOut {
    /// `oct`, or an algorithm with a shared secret: published, it is none.
    #[error("it is symmetric: a published secret is none")]
    Symmetric,
    /// The private half is published.
    #[error("its private half is published: replace it at the issuer")]
    Private,
    /// For encryption, or not for checking signatures.
    #[error("it is not for signatures")]
    Use,
    /// An algorithm or a type of key that is not known here.
    #[error("its algorithm or type is not one of RS256, PS256, ES256 and EdDSA")]
    Algorithm,
    /// An algorithm that the issuer's declaration does not list.
    #[error("its algorithm is not among those that the issuer is declared with")]
    NotAllowed,
    /// Its numbers are missing, too weak or too large.
    #[error("it is not a whole public key of its type, or an RSA key of less than 2048 or more than 8192 bits")]
    Unfit,
    /// Another of the same name and algorithm came before.
    #[error("another key before it has the same kid and algorithm")]
    Twice,
    /// Without a name among others.
    #[error("it has no kid, and is not the only key")]
    Unnamed,
}

/// Why a whole set is refused. Names nothing that the issuer wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// More than [`MAX_KEY_SET_BYTES`].
    #[error("the key set has more than {MAX_KEY_SET_BYTES} bytes")]
    TooLarge,
    /// Not a JSON object with an array `keys` of objects, or a name twice.
    #[error("it is no key set: a JSON object with an array of keys (RFC 7517), no name twice")]
    Unreadable,
    /// More than [`MAX_ISSUER_KEYS`].
    #[error("the key set has {0} keys, at most {MAX_ISSUER_KEYS} are taken")]
    TooMany(usize),
    /// None of them.
    #[error("the key set has no key that can be used here")]
    NoneUsable,
}

/// A set as it was read.
pub struct KeySet {
    pub(super) keys: Vec<SetKey>,
    pub(super) left_out: Vec<LeftOut>,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.key.key_id()).collect();
        f.debug_struct("KeySet")
            .field("keys", &ids)
            .field("left_out", &self.left_out)
            .finish()
    }
}

impl KeySet {
    /// Reads a set, for an issuer that may sign in these ways.
    pub fn read(bytes: &[u8], allowed: &[KeyAlgorithm]) -> Result<Self, KeySetError> {
        if bytes.len() > MAX_KEY_SET_BYTES {
            return Err(KeySetError::TooLarge);
        }
        let mut object = claims::strict_object(bytes).ok_or(KeySetError::Unreadable)?;
        let Some(Value::Array(listed)) = object.remove("keys") else {
            return Err(KeySetError::Unreadable);
        };
        if listed.len() > MAX_ISSUER_KEYS {
            return Err(KeySetError::TooMany(listed.len()));
        }
        let alone = listed.len() == 1;
        let mut set = Self {
            keys: Vec::with_capacity(listed.len()),
            left_out: Vec::new(),
        };
        for one in &listed {
            let object = one.as_object().ok_or(KeySetError::Unreadable)?;
            let key_id = match object.get("kid") {
                None => None,
                Some(Value::String(id)) if (1..=MAX_KEY_ID_BYTES).contains(&id.len()) => Some(id.clone()),
                Some(_) => return Err(KeySetError::Unreadable),
            };
            match set.key(object, key_id.clone(), alone, allowed) {
                Ok(key) => set.keys.push(key),
                Err(reason) => set.left_out.push(LeftOut { key_id, reason }),
            }
        }
        if set.keys.is_empty() {
            return Err(KeySetError::NoneUsable);
        }
        Ok(set)
    }

    /// How many keys of it can be used.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Never true of a set that was read.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether no two keys are told apart by nothing, and there are no more than may be.
    pub(crate) fn is_sound(&self) -> bool {
        let name = |key: &SetKey| (key.key.key_id().map(str::to_owned), key.key.algorithm());
        let names: std::collections::HashSet<_> = self.keys.iter().map(name).collect();
        names.len() == self.keys.len() && (1..=MAX_ISSUER_KEYS).contains(&self.keys.len())
    }

    fn key(
        &self,
        object: &Map<String, Value>,
        key_id: Option<String>,
        alone: bool,
        allowed: &[KeyAlgorithm],
    ) -> Result<SetKey, WhyLeftOut> {
        let algorithm = algorithm(object, allowed)?;
        if PRIVATE.iter().any(|name| object.contains_key(*name)) {
            return Err(WhyLeftOut::Private);
        }
        if !is_for_signatures(object) {
            return Err(WhyLeftOut::Use);
        }
        if !allowed.contains(&algorithm) {
            return Err(WhyLeftOut::NotAllowed);
        }
        if key_id.is_none() && !alone {
            return Err(WhyLeftOut::Unnamed);
        }
        let same = |other: &SetKey| other.key.key_id() == key_id.as_deref() && other.key.algorithm() == algorithm;
        if self.keys.iter().any(same) {
            return Err(WhyLeftOut::Twice);
        }
        let (key, thumbprint) = material(object, algorithm).ok_or(WhyLeftOut::Unfit)?;
        Ok(SetKey {
            key: IssuerKey::fetched(key_id, algorithm, key),
            thumbprint,
        })
    }
}

fn text<'a>(object: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    object.get(name).and_then(Value::as_str)
}

/// The one algorithm of a key: that which it names, else the one that keys of its type have.
fn algorithm(object: &Map<String, Value>, allowed: &[KeyAlgorithm]) -> Result<KeyAlgorithm, WhyLeftOut> {
    let (kty, alg) = (text(object, "kty"), text(object, "alg"));
    if kty == Some("oct") || alg.is_some_and(|alg| alg.starts_with("HS")) || object.contains_key("k") {
        return Err(WhyLeftOut::Symmetric);
    }
    let named = object.contains_key("alg");
    let is = |algorithm: KeyAlgorithm| !named || alg == Some(algorithm.as_str());
    let rsa = [KeyAlgorithm::RS256, KeyAlgorithm::PS256];
    match (kty, text(object, "crv")) {
        // Without a name it signs in the first way that is allowed.
        (Some("RSA"), _) if !named => Ok(rsa.into_iter().find(|one| allowed.contains(one)).unwrap_or(rsa[0])),
        (Some("RSA"), _) => rsa.into_iter().find(|one| is(*one)).ok_or(WhyLeftOut::Algorithm),
        (Some("EC"), Some("P-256")) if is(KeyAlgorithm::ES256) => Ok(KeyAlgorithm::ES256),
        (Some("OKP"), Some("Ed25519")) if is(KeyAlgorithm::EdDSA) => Ok(KeyAlgorithm::EdDSA),
        _ => Err(WhyLeftOut::Algorithm),
    }
}

/// Whether it may check signatures, by `use` and `key_ops` (RFC 7517, sections 4.2 and 4.3).
fn is_for_signatures(object: &Map<String, Value>) -> bool {
    let used = object.get("use").is_none_or(|used| used == "sig");
    let operations = object.get("key_ops").is_none_or(|operations| {
        let listed = operations.as_array();
        listed.is_some_and(|listed| listed.iter().any(|operation| operation == "verify"))
    });
    used && operations
}

/// A number or point of the key: canonical base64url, so that one key has one thumbprint.
fn bytes(object: &Map<String, Value>, name: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text(object, name)?).ok()
}

fn material(object: &Map<String, Value>, algorithm: KeyAlgorithm) -> Option<(DecodingKey, String)> {
    let (key, canonical) = match algorithm {
        KeyAlgorithm::RS256 | KeyAlgorithm::PS256 => {
            let (n, e) = (bytes(object, "n")?, bytes(object, "e")?);
            let exponent = (1..=4).contains(&e.len()) && e.last()? % 2 == 1 && e != [1];
            let minimal = n.first()? != &0 && e.first()? != &0;
            if !RSA_BYTES.contains(&n.len()) || !exponent || !minimal {
                return None;
            }
            let canonical = format!(
                r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
                text(object, "e")?,
                text(object, "n")?
            );
            (DecodingKey::from_rsa_raw_components(&n, &e), canonical)
        }
        KeyAlgorithm::ES256 => {
            let (x, y) = (bytes(object, "x")?, bytes(object, "y")?);
            if x.len() != POINT_BYTES || y.len() != POINT_BYTES {
                return None;
            }
            let (x, y) = (text(object, "x")?, text(object, "y")?);
            let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
            (DecodingKey::from_ec_components(x, y).ok()?, canonical)
        }
        KeyAlgorithm::EdDSA => {
            let x = text(object, "x")?;
            if bytes(object, "x")?.len() != POINT_BYTES {
                return None;
            }
            let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
            (DecodingKey::from_ed_components(x).ok()?, canonical)
        }
        KeyAlgorithm::HS256 => return None,
    };
    Some((key, URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes()))))
}
