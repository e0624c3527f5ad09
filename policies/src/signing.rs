//! Signatures that anybody can check: ed25519 keys, as the audit log's heads and models' manifests are signed with.
//!
//! Owns the two kinds of key and how they are written: `ed25519:` and 64 hexadecimal digits. Keeps no key on any disk and
//! decides nothing about whose key is trusted. A private key is 32 random bytes and is not shown by
//! `Debug`.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes of a private key (RFC 8032, section 5.1.5).
pub const SEED_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const SIGNATURE_BYTES: usize = 64;
const SCHEME: &str = "ed25519:";

/// Why bytes or a text are no key or signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// Not a private key.
    #[error("this is no ed25519 private key: it has {SEED_BYTES} bytes")]
    Seed,
    /// Not a public key.
    #[error("a public key is written ed25519: and 64 lowercase hexadecimal digits")]
    PublicKey,
    /// Not a signature.
    #[error("a signature is 128 lowercase hexadecimal digits")]
    Signature,
}

/// A private key. Clones are the same.
#[derive(Clone)]
pub struct SigningKey(Arc<Ed25519KeyPair>);

impl SigningKey {
    /// The key that a seed is.
    pub fn from_seed(seed: &[u8]) -> Result<Self, SigningError> {
        let seed: &[u8; SEED_BYTES] = seed.try_into().map_err(|_| SigningError::Seed)?;
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SigningError::Seed)?;
        Ok(Self(Arc::new(pair)))
    }

    /// What others check its signatures with.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; KEY_BYTES];
        for (to, from) in bytes.iter_mut().zip(self.0.public_key().as_ref()) {
            *to = *from;
        }
        PublicKey(bytes)
    }

    /// Signs bytes.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        let mut signature = [0; SIGNATURE_BYTES];
        for (to, from) in signature.iter_mut().zip(self.0.sign(bytes).as_ref()) {
            *to = *from;
        }
        Signature(signature)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey([redacted], {})", self.public())
    }
}

/// A public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; KEY_BYTES]);

impl PublicKey {
    /// Whether a signature of these bytes was made with the private key to this one.
    pub fn holds(&self, bytes: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(bytes, &signature.0)
            .is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SCHEME)?;
        write_hex(f, &self.0)
    }
}

impl FromStr for PublicKey {
    type Err = SigningError;
    fn from_str(text: &str) -> Result<Self, SigningError> {
        let digits = text.strip_prefix(SCHEME);
        digits.and_then(unhex).map(Self).ok_or(SigningError::PublicKey)
    }
}

/// A signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; SIGNATURE_BYTES]);

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl FromStr for Signature {
    type Err = SigningError;
    fn from_str(text: &str) -> Result<Self, SigningError> {
        unhex(text).map(Self).ok_or(SigningError::Signature)
    }
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}
as_text!(PublicKey);
as_text!(Signature);

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

/// The bytes that lowercase hexadecimal digits say, if they are exactly so many.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return None;
    }
    let mut bytes = [0; N];
    for (to, [high, low]) in bytes.iter_mut().zip(pairs) {
        *to = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seed() -> [u8; 32] {
        // RFC 8032, section 7.1, test 1.
        unhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap()
    }

    #[test]
    fn rfc_8032_section_7_1_test_1() {
        let key = SigningKey::from_seed(&seed()).unwrap();
        let public = "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        assert_eq!(key.public().to_string(), public);
        let signature = "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b";
        assert_eq!(key.sign(b"").to_string(), signature);
        assert!(key.public().holds(b"", &signature.parse().unwrap()));
        assert!(!key.public().holds(b"x", &signature.parse().unwrap()));
        assert!(!format!("{key:?}").contains("9d61"), "{key:?}");
    }

    #[test]
    fn what_is_no_key_is_refused_with_what_would_be() {
        for wrong in [
            "",
            "d75a",
            "ed25519:d75a",
            "ed25519:D75A980182B10AB7D54BFED3C964073A0EE172F3DAA62325AF021A68F707511A",
        ] {
            assert_eq!(wrong.parse::<PublicKey>(), Err(SigningError::PublicKey), "{wrong}");
        }
        assert_eq!("00".parse::<Signature>(), Err(SigningError::Signature));
        for length in [31, 33] {
            assert_eq!(SigningKey::from_seed(&vec![1; length]).err(), Some(SigningError::Seed));
        }
    }
}
