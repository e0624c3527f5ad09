//! Secrets that the mesh hands out: API keys and admin tokens, made, hashed and compared.
//!
//! Owns the two formats, `mesh_<env>_<id>_<secret>_<crc32>` and `meshadmin_<id>_<secret>_<crc32>`: a prefix that secret
//! scanners find, a public identifier to look up by, a secret of 256 random bits and a checksum that catches a typing error.
//! Only HMAC-SHA-256(pepper, secret) is kept. A slow hash would add nothing: such a secret cannot be guessed, and hashing
//! slowly would let strangers burn our time.
//!
//! Invariants: secrets are compared in constant time; nothing that holds one prints it or outlives its use unwiped.

use std::{fmt, fmt::Write as _, str::FromStr};

use base64::Engine as _;
use hmac::{Hmac, KeyInit, Mac};
use mesh_types::KeyId;
use rand::{CryptoRng, RngExt};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Base62 digits of a secret: 62^43 is just above 2^256.
const SECRET_CHARS: usize = 43;
const ID_CHARS: usize = 12;
const CRC_CHARS: usize = 8;
const MAX_ENV_CHARS: usize = 16;
/// Longer than any key that we make or take: prefix, environment, the longest identifier, secret, checksum.
const MAX_KEY_BYTES: usize = 192;
const ADMIN_PREFIX: &str = "meshadmin_";
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const BASE36: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// The mesh's own secret, mixed into every stored hash so that a stolen store alone proves nothing.
#[derive(Clone)]
pub struct Pepper(Zeroizing<[u8; 32]>);

impl Pepper {
    /// Takes 32 random bytes over.
    pub fn from_bytes(mut bytes: [u8; 32]) -> Self {
        let pepper = Self(Zeroizing::new(bytes));
        bytes.zeroize();
        pepper
    }

    /// HMAC-SHA-256(pepper, secret).
    pub fn hash(&self, secret: &str) -> SecretHash {
        // HMAC takes a key of any length; this is the array form, which cannot fail.
        let mut mac = Hmac::<Sha256>::new(&block(&self.0).into());
        mac.update(secret.as_bytes());
        SecretHash(mac.finalize().into_bytes().into())
    }

    /// A word for a thing that says nothing of it: 72 bits of HMAC-SHA-256(pepper, name), base64. What `hash` is asked for never
    /// looks like a name.
    pub fn opaque(&self, name: &str) -> String {
        const BYTES: usize = 9;
        let SecretHash(hash) = self.hash(&format!("opaque word for {name}"));
        base64::engine::general_purpose::STANDARD.encode(hash.get(..BYTES).unwrap_or_default())
    }
}

/// A 32-byte key as HMAC's block of 64: padding with zeros is what HMAC itself does.
fn block(key: &[u8; 32]) -> [u8; 64] {
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    block
}

impl Default for Pepper {
    /// All zeros: for a mesh without keys.
    fn default() -> Self {
        Self(Zeroizing::new([0; 32]))
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper([redacted])")
    }
}

/// What is kept of a secret; written as 64 lowercase hexadecimal digits. Compares in constant time.
#[derive(Clone, Copy)]
pub struct SecretHash([u8; 32]);

/// A text that is no hash of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hash is 64 lowercase hexadecimal digits")]
pub struct SecretHashError;

impl PartialEq for SecretHash {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SecretHash {}

impl fmt::Display for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash([redacted])")
    }
}

impl FromStr for SecretHash {
    type Err = SecretHashError;

    fn from_str(text: &str) -> Result<Self, SecretHashError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(SecretHashError),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        if pairs.len() != 32 || !rest.is_empty() {
            return Err(SecretHashError);
        }
        let mut hash = [0; 32];
        for (to, [high, low]) in hash.iter_mut().zip(pairs) {
            *to = digit(*high)? << 4 | digit(*low)?;
        }
        Ok(Self(hash))
    }
}

/// What is stored of a secret, as text: lowercase hexadecimal HMAC-SHA-256(pepper, secret).
pub fn hash_secret(pepper: &Pepper, secret: &str) -> String {
    pepper.hash(secret).to_string()
}

/// A new key or admin token. Its text is shown once and never stored.
pub struct GeneratedKey {
    /// The public half: the name of the record.
    pub id: KeyId,
    /// All of it, for its owner.
    pub text: String,
    /// The secret half, to be hashed.
    pub secret: Zeroizing<String>,
}

impl fmt::Debug for GeneratedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratedKey")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn random_text<R: CryptoRng + ?Sized>(alphabet: &[u8], length: usize, rng: &mut R) -> String {
    let draw = |_| alphabet.get(rng.random_range(0..alphabet.len())).copied();
    (0..length).filter_map(draw).map(char::from).collect()
}

fn random_id<R: CryptoRng + ?Sized>(rng: &mut R) -> KeyId {
    loop {
        // Letters and digits always are a name: this ends at the first try.
        if let Ok(id) = KeyId::parse(&random_text(BASE36, ID_CHARS, rng)) {
            return id;
        }
    }
}

fn generate<R: CryptoRng + ?Sized>(prefix: &str, id: KeyId, rng: &mut R) -> GeneratedKey {
    let secret = Zeroizing::new(random_text(BASE62, SECRET_CHARS, rng));
    let mut text = format!("{prefix}{id}_{}", &*secret);
    let checksum = crc32fast::hash(text.as_bytes());
    // Writing to a String cannot fail.
    let _ = write!(text, "_{checksum:08x}");
    GeneratedKey { id, text, secret }
}

/// A new API key with an identifier of its own.
///
/// The environment is there to be read (`live`, `test`): its lowercase letters and digits are kept, 16 at most, and nothing
/// left of it becomes `live`.
pub fn generate_api_key<R: CryptoRng + ?Sized>(env: &str, rng: &mut R) -> GeneratedKey {
    let id = random_id(rng);
    generate_api_key_as(env, id, rng)
}

/// A new API key with a given identifier.
pub fn generate_api_key_as<R: CryptoRng + ?Sized>(env: &str, id: KeyId, rng: &mut R) -> GeneratedKey {
    let plain = |char: &char| char.is_ascii_lowercase() || char.is_ascii_digit();
    let env: String = env.chars().filter(plain).take(MAX_ENV_CHARS).collect();
    let env = if env.is_empty() { "live" } else { &env };
    generate(&format!("{}{env}_", super::API_KEY_PREFIX), id, rng)
}

/// A new admin token with an identifier of its own.
pub fn generate_admin_token<R: CryptoRng + ?Sized>(rng: &mut R) -> GeneratedKey {
    let id = random_id(rng);
    generate_admin_token_as(id, rng)
}

/// A new admin token with a given identifier, which is the name that the audit trail shows.
pub fn generate_admin_token_as<R: CryptoRng + ?Sized>(id: KeyId, rng: &mut R) -> GeneratedKey {
    generate(ADMIN_PREFIX, id, rng)
}

/// Identifier and secret after the prefix, if the whole is well-formed. The identifier may hold underscores itself.
fn split<'a>(text: &'a str, rest: &'a str) -> Option<(&'a str, &'a str)> {
    let (body, checksum) = rest.rsplit_once('_')?;
    let (id, secret) = body.rsplit_once('_')?;
    let signed = text.get(..text.len().checked_sub(CRC_CHARS + 1)?)?;
    let expected = format!("{:08x}", crc32fast::hash(signed.as_bytes()));
    let well_formed = checksum == expected
        && secret.len() == SECRET_CHARS
        && secret.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && KeyId::parse(id).is_ok();
    well_formed.then_some((id, secret))
}

/// Identifier and secret of an API key.
pub(super) fn parse_api_key(text: &str) -> Option<(&str, &str)> {
    if text.len() > MAX_KEY_BYTES {
        return None;
    }
    let (_env, rest) = text.strip_prefix(super::API_KEY_PREFIX)?.split_once('_')?;
    split(text, rest)
}

fn parse_admin_token(text: &str) -> Option<(&str, &str)> {
    if text.len() > MAX_KEY_BYTES {
        return None;
    }
    split(text, text.strip_prefix(ADMIN_PREFIX)?)
}

/// The identifier in a well-formed admin token: the name of the record that holds its hash. Proves nothing yet.
pub fn admin_token_id(text: &str) -> Option<KeyId> {
    parse_admin_token(text).and_then(|(id, _)| KeyId::parse(id).ok())
}

/// Whether an admin token is the one whose hash is kept. An unreadable hash fits nothing.
pub fn verify_admin_token(pepper: &Pepper, text: &str, hash: &str) -> bool {
    let Some((_, secret)) = parse_admin_token(text) else {
        return false;
    };
    hash.parse::<SecretHash>().is_ok_and(|kept| kept == pepper.hash(secret))
}
