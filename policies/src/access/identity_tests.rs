//! Identity tokens: one test per rule of OpenID Connect Core 1.0, section 3.1.3.7, and of RFC 8725 where that says more.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use rcgen::KeyPair;
use serde_json::json;

use super::*;
use crate::access::{KeyAlgorithm, KeyLocation, KeySet, Moment};

const ISSUER: &str = "https://login.acme.example/";
const CLIENT: &str = "mesh-admin";
const NONCE: &str = "n-0S6_WzA2Mj";
/// What comes beside an identity token.
const ACCESS_TOKEN: &str = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxTl0z9K3vx5KF0Y";
const NOW: i64 = 1_800_000_000;

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

struct Bed {
    pair: KeyPair,
    rules: IdentityRules,
}

impl Bed {
    fn new() -> Self {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let book = Arc::new(KeyBook::new(
            "sso",
            ISSUER,
            KeyLocation::Discovered,
            vec![KeyAlgorithm::EdDSA],
        ));
        let key = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": base64(pair.public_key_raw())});
        let set = KeySet::read(json!({"keys": [key]}).to_string().as_bytes(), book.allowed()).unwrap();
        let now = Moment {
            instant: std::time::Instant::now(),
            unix: NOW,
        };
        book.fetched(set, None, now);
        let rules = IdentityRules::new(CLIENT, book);
        Self { pair, rules }
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            base64(header.to_string().as_bytes()),
            base64(claims.to_string().as_bytes())
        );
        let key = EncodingKey::from_ed_pem(self.pair.serialize_pem().as_bytes()).unwrap();
        let signature = sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }

    fn verify(&self, token: &str) -> Result<Identity, IdentityError> {
        self.rules.verify(token, Some(ACCESS_TOKEN), NONCE, NOW)
    }

    /// What becomes of the right claims with these in their place.
    fn with(&self, changes: &Value) -> Result<Identity, IdentityError> {
        let mut claims = claims();
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                claims.as_object_mut().unwrap().remove(name);
            } else {
                claims[name] = value.clone();
            }
        }
        self.verify(&self.signed(&header(), &claims))
    }

    fn typed(&self, header: &Value) -> Result<Identity, IdentityError> {
        self.verify(&self.signed(header, &claims()))
    }
}

fn header() -> Value {
    json!({"alg": "EdDSA", "typ": "JWT", "kid": "k"})
}

fn claims() -> Value {
    json!({"iss": ISSUER, "aud": CLIENT, "sub": "alice", "nonce": NONCE, "iat": NOW - 1, "exp": NOW + 300})
}

#[test]
fn a_right_identity_token_says_who_somebody_is() {
    let bed = Bed::new();
    let more =
        json!({"groups": ["mesh", "staff"], "realm_access": {"roles": ["admin"]}, "a.b": "c", "email_verified": true});
    let who = bed.with(&more).unwrap();
    assert_eq!(who.text("sub"), Some("alice"));
    assert!(who.has("groups", "staff") && !who.has("groups", "staf") && who.has("sub", "alice"));
    assert!(who.has("realm_access.roles", "admin") && who.has("a.b", "c"));
    assert!(!who.has("realm_access.none", "admin") && !who.has("none.at.all", "x") && !who.has("exp", "1"));
    assert!(who.is_true("email_verified") && !who.is_true("sub"));
}

#[test]
fn oidc_core_3_1_3_7_2_the_issuer_is_exactly_the_configured_one() {
    for issuer in ["https://login.acme.example", "https://evil.example/", ""] {
        assert_eq!(
            Bed::new().with(&json!({"iss": issuer})),
            Err(IdentityError::Issuer),
            "{issuer}"
        );
    }
}

#[test]
fn oidc_core_3_1_3_7_3_to_5_the_token_is_for_this_client() {
    let bed = Bed::new();
    for aud in [json!("other"), json!([]), json!(["mesh", "mesh-admin2"])] {
        assert_eq!(bed.with(&json!({"aud": aud})), Err(IdentityError::Audience), "{aud}");
    }
    for (aud, azp, right) in [
        (json!(CLIENT), json!(CLIENT), true),
        (json!([CLIENT]), Value::Null, true),
        (json!([CLIENT, "other"]), json!(CLIENT), true),
        (json!([CLIENT, "other"]), Value::Null, false),
        (json!([CLIENT, "other"]), json!("other"), false),
        (json!(CLIENT), json!("other"), false),
        (json!(CLIENT), json!(7), false),
    ] {
        let found = bed.with(&json!({"aud": aud, "azp": azp}));
        assert_eq!(found.is_ok(), right, "{aud} {azp}");
        assert!(right || found == Err(IdentityError::AuthorizedParty), "{aud} {azp}");
    }
}

#[test]
fn oidc_core_3_1_3_7_6_to_8_an_unsigned_or_foreign_signature_is_none() {
    let bed = Bed::new();
    for alg in ["none", "None", "HS256", "ES256"] {
        let typed = bed.typed(&json!({"alg": alg, "typ": "JWT", "kid": "k"}));
        assert_eq!(typed, Err(IdentityError::Algorithm), "{alg}");
    }
    let token = bed.signed(&header(), &claims());
    let (message, _) = token.rsplit_once('.').unwrap();
    assert_eq!(bed.verify(&format!("{message}.")), Err(IdentityError::Signature));
    assert_eq!(bed.verify(message), Err(IdentityError::Malformed));
    let foreign = Bed::new().signed(&header(), &claims());
    assert_eq!(bed.verify(&foreign), Err(IdentityError::Signature));
    let unknown = bed.typed(&json!({"alg": "EdDSA", "kid": "other"}));
    assert_eq!(unknown, Err(IdentityError::UnknownKey));
    assert!(bed.rules.book_for(IdentityError::UnknownKey).is_some());
    assert!(bed.rules.book_for(IdentityError::Signature).is_none());
}

#[test]
fn oidc_core_3_1_3_7_9_and_10_a_token_is_in_time_and_was_made_just_now() {
    let bed = Bed::new();
    for (changes, found) in [
        (json!({"exp": NOW - 29}), None),
        (json!({"exp": NOW - 30}), Some(IdentityError::Expired)),
        (json!({"exp": "never"}), Some(IdentityError::Malformed)),
        (json!({"exp": null}), Some(IdentityError::Malformed)),
        (json!({"iat": NOW + 30}), None),
        (json!({"iat": NOW + 31}), Some(IdentityError::NotNow)),
        (json!({"iat": NOW - 630}), None),
        (json!({"iat": NOW - 631}), Some(IdentityError::NotNow)),
        (json!({"iat": null}), Some(IdentityError::NotNow)),
        (json!({"nbf": NOW + 31}), Some(IdentityError::NotNow)),
    ] {
        assert_eq!(bed.with(&changes).err(), found, "{changes}");
    }
}

#[test]
fn oidc_core_3_1_3_7_11_the_nonce_is_that_of_this_sign_in() {
    let bed = Bed::new();
    for nonce in [json!("other"), json!(""), Value::Null, json!(7)] {
        assert_eq!(bed.with(&json!({"nonce": nonce})), Err(IdentityError::Nonce), "{nonce}");
    }
    let without = bed.signed(
        &header(),
        &json!({"iss": ISSUER, "aud": CLIENT, "sub": "a", "nonce": "", "iat": NOW, "exp": NOW + 9}),
    );
    assert_eq!(bed.rules.verify(&without, None, "", NOW), Err(IdentityError::Nonce));
}

#[test]
fn oidc_core_3_1_3_6_an_at_hash_is_that_of_the_access_token_beside_it() {
    assert_eq!(half_hash("RS256", ACCESS_TOKEN), "A0YAnUGEZSNiBdCRkcYFqA");
    let (bed, right) = (Bed::new(), half_hash("EdDSA", ACCESS_TOKEN));
    assert_eq!(right, "w6mAazrZECos-UFuGb9ktW2oGN7Gmfcea88W6cILn8E", "half of SHA-512");
    assert!(bed.with(&json!({"at_hash": right})).is_ok());
    let half = right.get(..22).unwrap();
    for wrong in [
        json!(half_hash("EdDSA", "another")),
        json!("A0YAnUGEZSNiBdCRkcYFqA"),
        json!(half),
        json!(format!("{right}=")),
        json!(""),
        json!(7),
    ] {
        assert_eq!(
            bed.with(&json!({"at_hash": wrong})),
            Err(IdentityError::AccessToken),
            "{wrong}"
        );
    }
    let mut claims = claims();
    claims["at_hash"] = json!(right);
    let token = bed.signed(&header(), &claims);
    let verify = |beside| bed.rules.verify(&token, beside, NONCE, NOW).err();
    assert_eq!(
        verify(None),
        Some(IdentityError::AccessToken),
        "there is none to compare with"
    );
    assert_eq!(verify(Some("another")), Some(IdentityError::AccessToken));
    let held = bed.rules.verify(&token, Some(ACCESS_TOKEN), NONCE, NOW).unwrap();
    assert_eq!(held.token().as_str(), token);
    assert!(!format!("{:?}", held.token()).contains("ey"), "it is printed");
}

#[test]
fn rfc8725_3_11_a_token_for_another_end_is_no_identity_token() {
    let bed = Bed::new();
    assert!(bed.typed(&json!({"alg": "EdDSA", "kid": "k"})).is_ok());
    for typ in ["at+jwt", "application/at+jwt", "logout+jwt"] {
        let typed = bed.typed(&json!({"alg": "EdDSA", "typ": typ, "kid": "k"}));
        assert_eq!(typed, Err(IdentityError::Type), "{typ}");
    }
    let long = format!("{}.", "a".repeat(MAX_TOKEN_BYTES));
    assert_eq!(bed.verify(&long), Err(IdentityError::Malformed));
}
