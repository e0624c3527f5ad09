//! Somebody who signs tokens, and the tokens: right ones to begin with, so that a test changes the one thing that it is about.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use rcgen::KeyPair;
use serde_json::{Value, json};

/// Now, in Unix seconds.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or_default()
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A key pair with its name.
pub(crate) struct Signer {
    pub(crate) kid: String,
    pub(crate) algorithm: Algorithm,
    pub(crate) pem: String,
    key: EncodingKey,
    pair: KeyPair,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?}\n{}", self.kid, self.algorithm, self.pem)
    }
}

impl Signer {
    /// A new pair for ES256, EdDSA, RS256 or PS256.
    pub(crate) fn new(kid: &str, algorithm: Algorithm) -> anyhow::Result<Self> {
        let (kind, read): (_, fn(&[u8]) -> _) = match algorithm {
            Algorithm::RS256 | Algorithm::PS256 => (&rcgen::PKCS_RSA_SHA256, EncodingKey::from_rsa_pem),
            Algorithm::ES256 => (&rcgen::PKCS_ECDSA_P256_SHA256, EncodingKey::from_ec_pem),
            _ => (&rcgen::PKCS_ED25519, EncodingKey::from_ed_pem),
        };
        let pair = KeyPair::generate_for(kind)?;
        Ok(Self {
            kid: kid.to_owned(),
            algorithm,
            pem: pair.public_key_pem(),
            key: read(pair.serialize_pem().as_bytes())?,
            pair,
        })
    }

    /// The header of its access tokens.
    pub(crate) fn header(&self) -> Value {
        json!({"alg": format!("{:?}", self.algorithm), "typ": "at+jwt", "kid": self.kid})
    }

    /// A token of exactly this header and these claims.
    pub(crate) fn raw(&self, header: &str, claims: &str) -> anyhow::Result<String> {
        signed(header, claims, &self.key, self.algorithm)
    }

    /// An access token with these claims.
    pub(crate) fn token(&self, claims: &Value) -> anyhow::Result<String> {
        self.raw(&self.header().to_string(), &claims.to_string())
    }

    /// Its public half as a JSON web key (RFC 7517); for ES256 and EdDSA.
    pub(crate) fn jwk(&self) -> Value {
        let raw = self.pair.public_key_raw();
        let (name, algorithm) = (&self.kid, format!("{:?}", self.algorithm));
        match self.algorithm {
            Algorithm::ES256 => json!({
                "kty": "EC", "crv": "P-256", "use": "sig", "kid": name, "alg": algorithm,
                "x": base64(&raw[1..33]), "y": base64(&raw[33..65]),
            }),
            _ => json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": name, "alg": algorithm, "x": base64(raw)}),
        }
    }
}

/// A token of exactly this header and these claims, under any key.
pub(crate) fn signed(header: &str, claims: &str, key: &EncodingKey, algorithm: Algorithm) -> anyhow::Result<String> {
    let message = format!("{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()));
    let signature = sign(message.as_bytes(), key, algorithm)?;
    Ok(format!("{message}.{signature}"))
}

/// What an access token of this issuer claims, for five minutes.
pub(crate) fn claims(issuer: &str) -> Value {
    let now = now();
    json!({
        "iss": issuer, "aud": "mesh", "sub": "somebody", "client_id": "batch", "jti": "1f3a",
        "iat": now - 60, "nbf": now - 60, "exp": now + 300,
    })
}
