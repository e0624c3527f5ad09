//! Tokens: one test per rule, named by its section of RFC 8725 or its CVE where it has one.

use std::{sync::Arc, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use mesh_types::{MAX_ISSUER_KEYS, ManualClock, TenantId};
use proptest::prelude::*;
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::{
    Attempts, AuthError, BURST, Credentials, IssuerEntry, IssuerKey, IssuerKeyError, IssuerKeys, KeyAlgorithm,
    KeyMaterial, MAX_TOKEN_BYTES, MAX_TRIALS, MAX_VERIFIED_TOKENS, Origin, PeerCertificate, Presented, Principal,
    Scope, TenantBinding, TokenProfile, cache, jwt::VerifiedToken, jwt::Window,
};

const NOW: i64 = 1_800_000_000;
const ISSUER: &str = "https://login.acme.example/";
const AUDIENCE: &str = "mesh";
/// The header of an access token under [`SECRET`].
const HEADER: &str = r#"{"alg":"HS256","typ":"at+jwt"}"#;
const SECRET: &[u8; 32] = b"thirty-two bytes of test secret!";

/// A public RSA key of 1024 bits; nobody has its private half.
const WEAK_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCnAZEibGJDjkzhyyrZYKXzShy7
KcV2Y2QvJ5q0IoSfivLgVYMEJx1eyYYEUHMQftbmXC+2wo1EejZNJ6qRtNaAJztd
Ez/CIlFSPuo3gBeMvYbmYsvIFNQYK2j0aUF6H3vsNu/fRlPTQULImHGsynmDdu9g
ZarbYP6/D607HZk87QIDAQAB
-----END PUBLIC KEY-----";

/// Somebody who signs.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
}

fn hmac(secret: &[u8]) -> Signer {
    Signer {
        algorithm: Algorithm::HS256,
        key: EncodingKey::from_secret(secret),
    }
}

fn own(algorithm: Algorithm) -> (Signer, String) {
    let (kind, read): (_, fn(&[u8]) -> _) = match algorithm {
        Algorithm::RS256 | Algorithm::PS256 => (&rcgen::PKCS_RSA_SHA256, EncodingKey::from_rsa_pem),
        Algorithm::ES256 => (&rcgen::PKCS_ECDSA_P256_SHA256, EncodingKey::from_ec_pem),
        _ => (&rcgen::PKCS_ED25519, EncodingKey::from_ed_pem),
    };
    let pair = KeyPair::generate_for(kind).unwrap();
    let key = read(pair.serialize_pem().as_bytes()).unwrap();
    (Signer { algorithm, key }, pair.public_key_pem())
}

fn encode(part: &str) -> String {
    URL_SAFE_NO_PAD.encode(part)
}

impl Signer {
    /// A token of exactly this header and these claims.
    fn raw(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }

    fn token(&self, claims: &Value) -> String {
        let header = json!({"alg": format!("{:?}", self.algorithm), "typ": "at+jwt"});
        self.raw(&header.to_string(), &claims.to_string())
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "client_id": "batch", "jti": "1f3a",
        "exp": NOW + 300, "nbf": NOW - 300, "iat": NOW - 300,
    })
}

/// The claims with one of them changed, or removed by null.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    } else {
        claims[name] = value;
    }
    claims
}

fn hs_key(key_id: Option<&str>, secret: &[u8]) -> IssuerKey {
    let text = STANDARD.encode(secret);
    IssuerKey::new(
        key_id.map(str::to_owned),
        KeyAlgorithm::HS256,
        KeyMaterial::SecretBase64(&text),
    )
    .unwrap()
}

fn pem_key(key_id: Option<&str>, algorithm: KeyAlgorithm, pem: &str) -> IssuerKey {
    IssuerKey::new(key_id.map(str::to_owned), algorithm, KeyMaterial::PublicKeyPem(pem)).unwrap()
}

fn issuer(keys: Vec<IssuerKey>) -> IssuerEntry {
    IssuerEntry {
        issuer: ISSUER.into(),
        audiences: vec!["other".into(), AUDIENCE.into()],
        keys: IssuerKeys::Declared(keys),
        tenants: TenantBinding::Tenant(TenantId::parse("acme").unwrap()),
        profile: TokenProfile::default(),
        leeway: Duration::ZERO,
    }
}

fn knowing(issuer: IssuerEntry) -> Credentials {
    Credentials::default().with_issuer(issuer)
}

/// The mesh that takes the tokens of [`SECRET`].
fn mesh() -> Credentials {
    knowing(issuer(vec![hs_key(None, SECRET)]))
}

fn ask_at(credentials: &Credentials, token: &str, now: i64) -> Result<Principal, AuthError> {
    credentials.authenticate(Presented::Bearer(token), now)
}

fn ask(credentials: &Credentials, token: &str) -> Result<Principal, AuthError> {
    ask_at(credentials, token, NOW)
}

fn refused(credentials: &Credentials, token: &str) -> bool {
    ask(credentials, token) == Err(AuthError::Invalid)
}

#[test]
fn a_token_of_each_algorithm_lets_its_tenant_in() {
    let principal = ask(&mesh(), &hmac(SECRET).token(&claims())).unwrap();
    assert_eq!(principal.tenant.as_str(), "acme");
    assert_eq!(&*principal.subject, "alice");
    assert_eq!(*principal.credential, *format!("jwt:{ISSUER}"));
    assert_eq!(principal.require(Scope::Infer), Ok(()));
    for (library, algorithm) in [
        (Algorithm::RS256, KeyAlgorithm::RS256),
        (Algorithm::PS256, KeyAlgorithm::PS256),
        (Algorithm::ES256, KeyAlgorithm::ES256),
        (Algorithm::EdDSA, KeyAlgorithm::EdDSA),
    ] {
        let (signer, pem) = own(library);
        let mesh = knowing(issuer(vec![pem_key(None, algorithm, &pem)]));
        assert!(ask(&mesh, &signer.token(&claims())).is_ok(), "{algorithm:?}");
        let (stranger, _) = own(library);
        assert!(refused(&mesh, &stranger.token(&claims())), "{algorithm:?}");
    }
}

#[test]
fn rfc8725_3_1_none_is_no_algorithm_in_any_case() {
    for none in ["none", "None", "NONE", "nOnE", ""] {
        let header = json!({"alg": none, "typ": "at+jwt"}).to_string();
        let message = format!("{}.{}", encode(&header), encode(&claims().to_string()));
        assert!(refused(&mesh(), &format!("{message}.")), "{none}");
        let signature = sign(message.as_bytes(), &EncodingKey::from_secret(SECRET), Algorithm::HS256).unwrap();
        assert!(refused(&mesh(), &format!("{message}.{signature}")), "{none}, signed");
    }
}

#[test]
fn rfc8725_2_1_a_public_key_is_never_a_secret() {
    let (_, pem) = own(Algorithm::RS256);
    let mesh = knowing(issuer(vec![pem_key(None, KeyAlgorithm::RS256, &pem)]));
    let der = STANDARD
        .decode(pem.lines().filter(|line| !line.starts_with('-')).collect::<String>())
        .unwrap();
    for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &der] {
        assert!(refused(&mesh, &hmac(secret).token(&claims())));
    }
}

#[test]
fn rfc8725_3_1_another_algorithm_of_the_same_key_is_refused() {
    let (signer, pem) = own(Algorithm::RS256);
    let mesh = knowing(issuer(vec![pem_key(None, KeyAlgorithm::RS256, &pem)]));
    for algorithm in [Algorithm::RS384, Algorithm::RS512, Algorithm::PS256] {
        let other = Signer {
            algorithm,
            key: signer.key.clone(),
        };
        assert!(refused(&mesh, &other.token(&claims())), "{algorithm:?}");
    }
    // Nor does a right signature help a header that says otherwise.
    for said in ["HS256", "rs256", "RS384", "EdDSA"] {
        let token = signer.raw(
            &json!({"alg": said, "typ": "at+jwt"}).to_string(),
            &claims().to_string(),
        );
        assert!(refused(&mesh, &token), "{said}");
    }
    let token = signer.raw(r#"{"typ":"at+jwt"}"#, &claims().to_string());
    assert!(refused(&mesh, &token), "no algorithm at all");
}

#[test]
fn rfc8725_3_3_a_changed_part_breaks_the_signature() {
    let signer = hmac(SECRET);
    let (ours, theirs) = (signer.token(&claims()), signer.token(&with("sub", json!("mallory"))));
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (ours, theirs) = (parts(&ours), parts(&theirs));
    assert!(refused(&mesh(), &format!("{}.{}.{}", ours[0], theirs[1], ours[2])));
    assert!(refused(&mesh(), &format!("{}.{}.", ours[0], ours[1])));
    assert!(refused(&mesh(), &format!("{}.{}.{}=", ours[0], ours[1], ours[2])));
}

#[test]
fn rfc8725_3_8_the_issuer_is_exactly_the_declared_one() {
    let signer = hmac(SECRET);
    for wrong in [
        "https://login.acme.example",
        "HTTPS://login.acme.example/",
        "https://login.acme.example//",
        "",
    ] {
        assert!(refused(&mesh(), &signer.token(&with("iss", json!(wrong)))), "{wrong}");
    }
    assert!(refused(&mesh(), &signer.token(&with("iss", Value::Null))));
    assert!(refused(&mesh(), &signer.token(&with("iss", json!([ISSUER])))));
}

#[test]
fn rfc8725_3_8_an_issuers_key_proves_only_its_own_tokens() {
    let other = IssuerEntry {
        issuer: "https://other.example".into(),
        ..issuer(vec![hs_key(Some("k2"), &[7; 32])])
    };
    let mesh = knowing(issuer(vec![hs_key(Some("k1"), SECRET)])).with_issuer(other);
    let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": "k2"}).to_string();
    let theirs = with("iss", json!("https://other.example")).to_string();
    assert!(ask(&mesh, &hmac(&[7; 32]).raw(&header, &theirs)).is_ok());
    assert!(refused(&mesh, &hmac(&[7; 32]).raw(&header, &claims().to_string())));
}

#[test]
fn rfc8725_3_9_the_audience_names_us() {
    let signer = hmac(SECRET);
    for right in [json!("mesh"), json!(["mesh"]), json!(["else", "mesh"]), json!("other")] {
        assert!(
            ask(&mesh(), &signer.token(&with("aud", right.clone()))).is_ok(),
            "{right}"
        );
    }
    for wrong in [
        json!("Mesh"),
        json!(["else"]),
        json!([]),
        json!(""),
        json!(7),
        json!(["mesh", 7]),
        Value::Null,
    ] {
        assert!(refused(&mesh(), &signer.token(&with("aud", wrong.clone()))), "{wrong}");
    }
    let nobody = IssuerEntry {
        audiences: vec![],
        ..issuer(vec![hs_key(None, SECRET)])
    };
    assert!(refused(&knowing(nobody), &signer.token(&claims())));
}

#[test]
fn cve_2026_25537_an_expiry_that_is_no_number_is_not_an_absent_one() {
    let signer = hmac(SECRET);
    for name in ["exp", "nbf"] {
        for wrong in [
            json!("never"),
            json!("9999999999"),
            json!(format!("{}", NOW - 300)),
            json!(true),
            json!([NOW]),
            json!({"seconds": NOW}),
            json!(1e300),
            json!(u64::MAX),
        ] {
            assert!(
                refused(&mesh(), &signer.token(&with(name, wrong.clone()))),
                "{name} {wrong}"
            );
        }
        let null = claims()
            .to_string()
            .replacen(&format!("\"{name}\":"), &format!("\"{name}\":null,\"x\":"), 1);
        assert!(refused(&mesh(), &signer.raw(HEADER, &null)), "{name} is null");
    }
    assert!(refused(&mesh(), &signer.token(&with("iat", json!("yesterday")))));
    assert!(
        refused(&mesh(), &signer.token(&with("exp", Value::Null))),
        "exp is required"
    );
}

#[test]
fn rfc7519_4_1_5_a_token_without_nbf_begins_when_it_was_issued() {
    let mut body = with("nbf", Value::Null);
    body["iat"] = json!(NOW);
    let token = hmac(SECRET).token(&body);
    assert!(ask_at(&mesh(), &token, NOW).is_ok());
    assert_eq!(ask_at(&mesh(), &token, NOW - 1), Err(AuthError::Invalid));
    // Where there is one, it alone says when.
    body["nbf"] = json!(NOW - 10);
    let token = hmac(SECRET).token(&body);
    assert!(ask_at(&mesh(), &token, NOW - 10).is_ok());
}

#[test]
fn rfc9068_2_2_every_claim_of_an_access_token_is_required() {
    let signer = hmac(SECRET);
    assert!(ask(&mesh(), &signer.token(&claims())).is_ok());
    for name in ["iss", "exp", "aud", "sub", "client_id", "iat", "jti"] {
        assert!(refused(&mesh(), &signer.token(&with(name, Value::Null))), "{name}");
    }
    for name in ["client_id", "jti"] {
        for wrong in [json!(""), json!(7), json!(["batch"]), json!({})] {
            assert!(
                refused(&mesh(), &signer.token(&with(name, wrong.clone()))),
                "{name} {wrong}"
            );
        }
    }
}

/// The mesh that takes any signed token of [`SECRET`].
fn lenient() -> Credentials {
    knowing(IssuerEntry {
        profile: TokenProfile::Rfc7519,
        ..issuer(vec![hs_key(None, SECRET)])
    })
}

#[test]
fn the_profile_rfc7519_requires_less_and_checks_the_rest() {
    let signer = hmac(SECRET);
    for name in ["client_id", "iat", "jti", "nbf"] {
        assert!(
            ask(&lenient(), &signer.token(&with(name, Value::Null))).is_ok(),
            "{name}"
        );
    }
    for name in ["iss", "exp", "aud", "sub"] {
        assert!(refused(&lenient(), &signer.token(&with(name, Value::Null))), "{name}");
    }
    for wrong in [
        with("iat", json!("yesterday")),
        with("nbf", json!("9999999999")),
        with("aud", json!("else")),
    ] {
        assert!(refused(&lenient(), &signer.token(&wrong)), "{wrong}");
    }
    let untyped = signer.raw(r#"{"alg":"HS256"}"#, &claims().to_string());
    assert!(ask(&lenient(), &untyped).is_ok());
    assert!(refused(&mesh(), &untyped), "and only with it");
}

#[test]
fn rfc7519_4_1_4_a_token_ends_at_exp_and_begins_at_nbf() {
    let token = hmac(SECRET).token(&claims());
    let at = |now| ask_at(&mesh(), &token, now).map(|_| ());
    assert_eq!(at(NOW + 299), Ok(()));
    assert_eq!(at(NOW + 300), Err(AuthError::Expired));
    assert_eq!(at(NOW - 300), Ok(()));
    assert_eq!(at(NOW - 301), Err(AuthError::Invalid));
    assert_eq!(at(i64::MAX), Err(AuthError::Expired));
    assert_eq!(at(i64::MIN), Err(AuthError::Invalid));
    // Only who holds the key learns that it would have been right.
    let forged = hmac(&[1; 32]).token(&claims());
    assert_eq!(ask_at(&mesh(), &forged, NOW + 300), Err(AuthError::Invalid));
    let fraction = hmac(SECRET).token(&with("exp", json!(1_800_000_300.9)));
    assert_eq!(ask_at(&mesh(), &fraction, NOW + 300), Err(AuthError::Expired));
}

#[test]
fn leeway_of_60_seconds_is_granted_and_of_61_is_cut() {
    let token = hmac(SECRET).token(&claims());
    for (asked, granted) in [(0, 0), (30, 30), (60, 60), (61, 60), (86_400, 60)] {
        let mesh = knowing(IssuerEntry {
            leeway: Duration::from_secs(asked),
            ..issuer(vec![hs_key(None, SECRET)])
        });
        assert!(ask_at(&mesh, &token, NOW + 299 + granted).is_ok(), "{asked}");
        assert_eq!(
            ask_at(&mesh, &token, NOW + 300 + granted),
            Err(AuthError::Expired),
            "{asked}"
        );
        assert!(ask_at(&mesh, &token, NOW - 300 - granted).is_ok(), "{asked}");
        assert_eq!(
            ask_at(&mesh, &token, NOW - 301 - granted),
            Err(AuthError::Invalid),
            "{asked}"
        );
    }
}

#[test]
fn rfc7515_4_1_11_critical_extensions_compression_and_encryption_are_refused() {
    let signer = hmac(SECRET);
    for extra in [
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"b64": false}),
        json!({"zip": "DEF"}),
        json!({"enc": "A128GCM"}),
    ] {
        let mut header = json!({"alg": "HS256", "typ": "at+jwt"});
        header
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        assert!(
            refused(&mesh(), &signer.raw(&header.to_string(), &claims().to_string())),
            "{extra}"
        );
    }
}

#[test]
fn rfc8725_3_10_a_token_never_brings_or_points_to_its_own_key() {
    let (mallory, pem) = own(Algorithm::RS256);
    let (ours, our_pem) = own(Algorithm::RS256);
    let mesh = knowing(issuer(vec![pem_key(None, KeyAlgorithm::RS256, &our_pem)]));
    let header = json!({
        "alg": "RS256", "typ": "at+jwt", "jku": "https://mallory.example/keys", "x5u": "https://mallory.example/chain",
        "jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}, "x5c": [pem],
    })
    .to_string();
    assert!(refused(&mesh, &mallory.raw(&header, &claims().to_string())));
    // They are not read at all, so a right token may carry them.
    assert!(ask(&mesh, &ours.raw(&header, &claims().to_string())).is_ok());
}

#[test]
fn a_token_has_three_parts() {
    let token = hmac(SECRET).token(&claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    for wrong in [
        message.to_owned(),
        format!("{token}.{signature}"),
        format!("{token}.."),
        format!("{message}..{signature}"),
        format!(".{token}"),
        "..".to_owned(),
        ".".to_owned(),
        String::new(),
        "a.b.c".to_owned(),
    ] {
        assert!(refused(&mesh(), &wrong), "{wrong}");
    }
}

#[test]
fn rfc8725_2_4_a_name_twice_is_refused_at_any_depth() {
    let signer = hmac(SECRET);
    let header = HEADER;
    let body = claims().to_string();
    let inside = body.trim_end_matches('}');
    assert!(
        ask(
            &mesh(),
            &signer.raw(header, &format!(r#"{inside},"x":{{"a":1,"b":1}}}}"#))
        )
        .is_ok()
    );
    for twice in [
        format!(r#"{inside},"sub":"mallory"}}"#),
        format!(r#"{inside},"exp":9999999999}}"#),
        format!(r#"{inside},"x":1,"x":1}}"#),
        format!(r#"{inside},"x":{{"a":1,"a":1}}}}"#),
        format!(r#"{inside},"x":[{{"a":1,"a":1}}]}}"#),
        format!(r#"{inside},"su\u0062":"mallory"}}"#),
    ] {
        assert!(refused(&mesh(), &signer.raw(header, &twice)), "{twice}");
    }
    assert!(refused(
        &mesh(),
        &signer.raw(r#"{"alg":"HS256","typ":"at+jwt","alg":"HS256"}"#, &body)
    ));
}

#[test]
fn what_is_no_object_is_refused_and_deep_nesting_breaks_nothing() {
    let signer = hmac(SECRET);
    let header = HEADER;
    for wrong in ["", "null", "[]", "7", "\"text\"", "{", "{} {}", "\u{0}"] {
        assert!(refused(&mesh(), &signer.raw(header, wrong)), "{wrong}");
        assert!(refused(&mesh(), &signer.raw(wrong, &claims().to_string())), "{wrong}");
    }
    let deep = format!(r#"{{"x":{}{}}}"#, "[".repeat(2_500), "]".repeat(2_500));
    assert!(refused(&mesh(), &signer.raw(header, &deep)));
}

#[test]
fn a_token_of_8192_bytes_is_read_and_of_8193_is_not() {
    let signer = hmac(SECRET);
    let of_length = |bytes: usize| {
        // Base64 grows by steps: header and claims together can meet every length.
        for padding in (0..8_000).rev() {
            for more in 0..4 {
                let header = json!({"alg": "HS256", "typ": "at+jwt", "x": "h".repeat(more)}).to_string();
                let body = with("pad", json!("p".repeat(padding))).to_string();
                let length = encode(&header).len() + 1 + (body.len() * 4).div_ceil(3) + 1 + 43;
                if length == bytes {
                    return signer.raw(&header, &body);
                }
            }
        }
        panic!("no token of {bytes} bytes");
    };
    let (fits, over) = (of_length(MAX_TOKEN_BYTES), of_length(MAX_TOKEN_BYTES + 1));
    assert_eq!((fits.len(), over.len()), (8_192, 8_193));
    assert!(ask(&mesh(), &fits).is_ok());
    assert!(refused(&mesh(), &over));
}

#[test]
fn rfc8725_3_11_only_types_of_access_tokens_are_taken() {
    let signer = hmac(SECRET);
    let takes = |mesh: &Credentials, typ: &Value| {
        let mut header = json!({"alg": "HS256", "typ": typ});
        if typ.is_null() {
            header.as_object_mut().unwrap().remove("typ");
        }
        ask(mesh, &signer.raw(&header.to_string(), &claims().to_string())).is_ok()
    };
    for right in ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+jwt"] {
        assert!(
            takes(&mesh(), &json!(right)) && takes(&lenient(), &json!(right)),
            "{right}"
        );
    }
    for plain in [json!("JWT"), json!("jwt"), json!("application/jwt"), Value::Null] {
        assert!(!takes(&mesh(), &plain), "{plain}");
        assert!(takes(&lenient(), &plain), "{plain}");
    }
    for wrong in [
        json!("dpop+jwt"),
        json!("logout+jwt"),
        json!("secevent+jwt"),
        json!("JWE"),
        json!("at+jwt2"),
        json!("text/at+jwt"),
        json!(""),
        json!(7),
    ] {
        assert!(!takes(&mesh(), &wrong) && !takes(&lenient(), &wrong), "{wrong}");
    }
    let null = signer.raw(r#"{"alg":"HS256","typ":null}"#, &claims().to_string());
    assert!(refused(&mesh(), &null) && refused(&lenient(), &null));
}

#[test]
fn rfc8725_3_10_kid_selects_within_the_issuers_keys() {
    let ask_kid = |keys: Vec<IssuerKey>, signer: &Signer, kid: Value| {
        let mut header = json!({"alg": "HS256", "typ": "at+jwt"});
        if !kid.is_null() {
            header["kid"] = kid;
        }
        ask(
            &knowing(issuer(keys)),
            &signer.raw(&header.to_string(), &claims().to_string()),
        )
        .is_ok()
    };
    let (first, second) = (hmac(SECRET), hmac(&[2; 32]));
    let both = || vec![hs_key(Some("one"), SECRET), hs_key(Some("two"), &[2; 32])];
    assert!(ask_kid(both(), &first, json!("one")));
    assert!(ask_kid(both(), &second, json!("two")));
    assert!(!ask_kid(both(), &first, json!("two")));
    assert!(!ask_kid(both(), &first, json!("three")));
    assert!(!ask_kid(both(), &first, json!("../one")));
    assert!(!ask_kid(both(), &first, json!(1)));
    assert!(!ask_kid(both(), &first, Value::Null), "which of two?");
    assert!(
        ask_kid(vec![hs_key(Some("one"), SECRET)], &first, Value::Null),
        "the only key"
    );
    assert!(
        ask_kid(vec![hs_key(None, SECRET)], &first, json!("any")),
        "a key without a name"
    );
    let mixed = || vec![hs_key(Some("one"), SECRET), hs_key(None, &[2; 32])];
    assert!(ask_kid(mixed(), &second, Value::Null));
    assert!(ask_kid(mixed(), &second, json!("other")));
    assert!(!ask_kid(mixed(), &second, json!("one")));
    assert!(!ask_kid(mixed(), &first, Value::Null));
}

#[test]
fn a_hundred_keys_of_an_issuer_are_known_and_the_next_is_not() {
    let keys = (0..=MAX_ISSUER_KEYS).map(|index| {
        let name = index.to_string();
        hs_key(Some(&name), &[u8::try_from(index).unwrap(); 32])
    });
    let mesh = knowing(issuer(keys.collect()));
    let by = |index: u8| {
        let header = json!({"alg": "HS256", "typ": "at+jwt", "kid": index.to_string()});
        hmac(&[index; 32]).raw(&header.to_string(), &claims().to_string())
    };
    for index in 0..100 {
        assert!(ask(&mesh, &by(index)).is_ok(), "{index}");
    }
    assert!(refused(&mesh, &by(100)));
}

#[test]
fn a_tenant_from_a_claim_must_be_there_and_a_name() {
    let mesh = knowing(IssuerEntry {
        tenants: TenantBinding::Claim("org".into()),
        ..issuer(vec![hs_key(None, SECRET)])
    });
    let signer = hmac(SECRET);
    let principal = ask(&mesh, &signer.token(&with("org", json!("globex")))).unwrap();
    assert_eq!(principal.tenant.as_str(), "globex");
    for wrong in [
        json!("Globex"),
        json!(""),
        json!("a/b"),
        json!(7),
        json!(["globex"]),
        Value::Null,
    ] {
        assert!(refused(&mesh, &signer.token(&with("org", wrong.clone()))), "{wrong}");
    }
    // A fixed tenant is not talked out of by a claim.
    let fixed = ask(&self::mesh(), &signer.token(&with("org", json!("globex")))).unwrap();
    assert_eq!(fixed.tenant.as_str(), "acme");
}

#[test]
fn a_subject_is_text_of_1_to_255_printable_bytes() {
    let signer = hmac(SECRET);
    assert!(ask(&mesh(), &signer.token(&with("sub", json!("s".repeat(255))))).is_ok());
    for wrong in [
        json!("s".repeat(256)),
        json!(""),
        json!("a\nb"),
        json!("a\u{0}"),
        json!(7),
        Value::Null,
    ] {
        assert!(refused(&mesh(), &signer.token(&with("sub", wrong.clone()))), "{wrong}");
    }
}

#[test]
fn rfc9068_2_2_3_a_scope_claim_narrows_what_a_token_may_do() {
    let signer = hmac(SECRET);
    let may = |scope: Value| {
        ask(&mesh(), &signer.token(&with("scope", scope)))
            .unwrap()
            .require(Scope::Infer)
            .is_ok()
    };
    assert!(may(Value::Null));
    assert!(may(json!("infer")));
    assert!(may(json!("openid infer profile")));
    assert!(!may(json!("openid profile")));
    assert!(!may(json!("INFER inference")));
    assert!(!may(json!("")));
    assert!(refused(&mesh(), &signer.token(&with("scope", json!(["infer"])))));
}

fn new_key(algorithm: KeyAlgorithm, material: KeyMaterial<'_>) -> Result<(), IssuerKeyError> {
    IssuerKey::new(None, algorithm, material).map(|_| ())
}

const PUBLIC_ALGORITHMS: [KeyAlgorithm; 4] = [
    KeyAlgorithm::RS256,
    KeyAlgorithm::PS256,
    KeyAlgorithm::ES256,
    KeyAlgorithm::EdDSA,
];

#[test]
fn rfc7518_3_2_a_secret_has_at_least_32_bytes_and_serves_hs256_only() {
    let secret_of = |bytes: usize| STANDARD.encode(vec![7; bytes]);
    let secret = |text: &str| new_key(KeyAlgorithm::HS256, KeyMaterial::SecretBase64(text));
    assert_eq!(secret(&secret_of(32)), Ok(()));
    assert_eq!(secret(&secret_of(31)), Err(IssuerKeyError::Secret));
    assert_eq!(secret("not base64!"), Err(IssuerKeyError::Secret));
    for algorithm in PUBLIC_ALGORITHMS {
        let given = new_key(algorithm, KeyMaterial::SecretBase64(&secret_of(32)));
        assert_eq!(given, Err(IssuerKeyError::Material), "{algorithm:?}");
    }
    let (_, public) = own(Algorithm::RS256);
    assert_eq!(
        new_key(KeyAlgorithm::HS256, KeyMaterial::PublicKeyPem(&public)),
        Err(IssuerKeyError::Material)
    );
    assert!(!format!("{:?}", hs_key(Some("k"), SECRET)).contains("thirty"));
}

#[test]
fn rfc7518_3_1_a_public_key_is_of_its_algorithm_or_refused() {
    let pair = |kind| KeyPair::generate_for(kind).unwrap();
    let pairs = [
        (KeyAlgorithm::RS256, pair(&rcgen::PKCS_RSA_SHA256)),
        (KeyAlgorithm::ES256, pair(&rcgen::PKCS_ECDSA_P256_SHA256)),
        (KeyAlgorithm::EdDSA, pair(&rcgen::PKCS_ED25519)),
    ];
    let p384 = pair(&rcgen::PKCS_ECDSA_P384_SHA384).public_key_pem();
    for algorithm in PUBLIC_ALGORITHMS {
        let ask = |pem: &str| new_key(algorithm, KeyMaterial::PublicKeyPem(pem));
        let wrong = Err(IssuerKeyError::PublicKey(algorithm));
        for (fitting, pair) in &pairs {
            // One kind of key signs in both of RSA's ways.
            let kind = if algorithm == KeyAlgorithm::PS256 {
                KeyAlgorithm::RS256
            } else {
                algorithm
            };
            let expected = if *fitting == kind { Ok(()) } else { wrong };
            let (public, private) = (pair.public_key_pem(), pair.serialize_pem());
            assert_eq!(ask(&public), expected, "{fitting:?} for {algorithm:?}");
            assert_eq!(ask(&private), wrong, "a private key");
            assert_eq!(
                ask(&private.replace("PRIVATE", "PUBLIC")),
                wrong,
                "{fitting:?} relabelled"
            );
            assert_eq!(
                ask(&public.replace("PUBLIC KEY", "CERTIFICATE")),
                wrong,
                "a certificate"
            );
        }
        for none in [
            &*p384,
            WEAK_RSA,
            "",
            "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        ] {
            assert_eq!(ask(none), wrong, "{algorithm:?}: {none}");
        }
    }
}

#[test]
fn a_verified_token_is_remembered_but_never_beyond_its_time_or_its_issuer() {
    let mesh = mesh();
    let token = hmac(SECRET).token(&claims());
    assert!(refused(&mesh, &hmac(&[1; 32]).token(&claims())));
    assert_eq!(ask_at(&mesh, &token, NOW + 300), Err(AuthError::Expired));
    assert_eq!(
        mesh.verified.len(),
        0,
        "neither a forged nor an expired token is remembered"
    );
    let first = ask(&mesh, &token).unwrap();
    assert_eq!(mesh.verified.len(), 1);
    assert_eq!(ask(&mesh, &token), Ok(first));
    assert_eq!(mesh.verified.len(), 1);
    assert_eq!(ask_at(&mesh, &token, NOW + 300), Err(AuthError::Expired));
    assert_eq!(ask_at(&mesh, &token, NOW - 301), Err(AuthError::Invalid));
    // A clone shares the memory; a set of other issuers does not.
    let clone = mesh.clone();
    assert_eq!(clone.verified.len(), 1);
    let rotated = clone.with_issuer(issuer(vec![hs_key(None, &[3; 32])]));
    assert!(refused(&rotated, &token));
    assert!(ask(&mesh, &token).is_ok());
}

#[test]
fn a_memory_of_n_tokens_takes_one_more_and_stays_within_n() {
    let memory = cache::VerifiedTokens::default();
    let verified = |index: usize| {
        Arc::new(VerifiedToken {
            principal: Principal {
                id: super::PrincipalId::fresh(),
                groups: [].into(),
                tenant: TenantId::parse("acme").unwrap(),
                subject: index.to_string().into(),
                credential: "jwt:x".into(),
                scopes: super::Scopes::NONE,
            },
            window: Window::default(),
            key: None,
            bound: None,
        })
    };
    for index in 0..MAX_VERIFIED_TOKENS {
        memory.insert(cache::fingerprint(&index.to_string()), verified(index));
    }
    assert_eq!(memory.len(), MAX_VERIFIED_TOKENS);
    memory.insert(cache::fingerprint("one more"), verified(0));
    assert!(memory.len() <= MAX_VERIFIED_TOKENS);
    assert!(memory.get(&cache::fingerprint("one more")).is_some());
    assert!(memory.get(&cache::fingerprint("0")).is_none(), "the oldest went");
    let recent = (MAX_VERIFIED_TOKENS - 1).to_string();
    assert_eq!(
        *memory.get(&cache::fingerprint(&recent)).unwrap().principal.subject,
        *recent
    );
}

proptest! {
    #[test]
    fn a_token_with_any_one_character_changed_is_refused(at in any::<prop::sample::Index>(), to in "[0-9A-Za-z_.-]") {
        let token = hmac(SECRET).token(&claims());
        let at = at.index(token.len());
        let mut changed = token.clone();
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(ask(&mesh(), &changed).is_ok(), changed == token);
    }

    #[test]
    fn no_signed_json_makes_authentication_fail_otherwise_than_by_refusal(
        header in r#"\{"alg":"HS256","typ":"at\+jwt"(,"[a-z5#]{1,4}":("[ -~&&[^"\\]]{0,8}"|[0-9]{1,20}|null|\[\]|\{\}))?\}"#,
        body in r#"\{("[a-z]{1,3}":("[a-z]{0,8}"|-?[0-9]{1,30}|[0-9]e[0-9]{1,3}|null|\[[0-9]?\]),?){0,5}\}"#,
    ) {
        prop_assert_eq!(ask(&mesh(), &hmac(SECRET).raw(&header, &body)), Err(AuthError::Invalid));
    }
}

#[test]
fn rfc8705_3_a_bound_token_is_used_over_its_certificate_only() {
    let own = PeerCertificate {
        thumbprint: [9; 32],
        until: NOW,
        ..PeerCertificate::default()
    };
    let bound = with("cnf", json!({"x5t#S256": URL_SAFE_NO_PAD.encode([9; 32])}));
    let (credentials, token) = (mesh(), hmac(SECRET).token(&bound));
    let over = |peer: Option<&PeerCertificate>| credentials.authenticate(Presented::Bearer(&token).over(peer), NOW);
    // Asked twice each, since the second time it is remembered.
    for _ in 0..2 {
        assert!(over(Some(&own)).is_ok());
        assert_eq!(over(None), Err(AuthError::Invalid));
        let another = PeerCertificate {
            until: NOW,
            ..PeerCertificate::default()
        };
        assert_eq!(over(Some(&another)), Err(AuthError::Invalid));
        let outlived = PeerCertificate {
            until: NOW - 1,
            ..own.clone()
        };
        assert_eq!(over(Some(&outlived)), Err(AuthError::Invalid));
    }
    // A token that is not bound may be carried over any connection.
    assert!(ask(&credentials, &hmac(SECRET).token(&claims())).is_ok());
}

#[test]
fn rfc8705_3_1_a_token_that_is_bound_in_a_way_that_nobody_here_checks_is_refused() {
    let digest = URL_SAFE_NO_PAD.encode([9; 32]);
    for confirmation in [
        json!({}),
        json!("x5t#S256"),
        json!([digest]),
        json!({"jkt": digest}),
        json!({"x5t#S256": 7}),
        json!({"x5t#S256": URL_SAFE_NO_PAD.encode([9; 31])}),
        json!({"x5t#S256": STANDARD.encode([255; 32])}),
    ] {
        let own = PeerCertificate {
            thumbprint: [9; 32],
            until: NOW,
            ..PeerCertificate::default()
        };
        let token = hmac(SECRET).token(&with("cnf", confirmation.clone()));
        let shown = Presented::Bearer(&token).over(Some(&own));
        assert_eq!(
            mesh().authenticate(shown, NOW),
            Err(AuthError::Invalid),
            "{confirmation}"
        );
    }
}

#[test]
fn so_many_keys_are_tried_on_a_token_and_not_one_more() {
    let secret = |number: usize| format!("thirty-two bytes of secret no. {number:03}").into_bytes();
    let of = |keys: usize| {
        // Those of another algorithm cost nothing, and are in nobody's way.
        let (_, pem) = own(Algorithm::EdDSA);
        let others = (0..MAX_TRIALS).map(|_| pem_key(None, KeyAlgorithm::EdDSA, &pem));
        knowing(issuer(
            others.chain((0..keys).map(|key| hs_key(None, &secret(key)))).collect(),
        ))
    };
    for header in [
        json!({"alg": "HS256", "typ": "at+jwt"}),
        json!({"alg": "HS256", "typ": "at+jwt", "kid": "unknown"}),
    ] {
        let by = |key: usize| hmac(&secret(key)).raw(&header.to_string(), &claims().to_string());
        let mesh = of(MAX_TRIALS + 1);
        for key in 0..MAX_TRIALS {
            assert!(ask(&mesh, &by(key)).is_ok(), "{key}");
        }
        assert!(refused(&mesh, &by(MAX_TRIALS)));
    }
}

#[test]
fn right_tokens_in_any_number_count_for_nobody_and_wrong_ones_up_to_the_bound() {
    let clock = Arc::new(ManualClock::at(NOW));
    let (credentials, attempts) = (mesh(), Attempts::new(clock.clone()));
    let from = |address: [u8; 4], token: &str| {
        let origin = Origin {
            attempts: &attempts,
            address: address.into(),
            is_ahead: false,
        };
        credentials.authenticate_from(Presented::Bearer(token), NOW, Some(origin))
    };
    const HERE: [u8; 4] = [10, 0, 0, 1];
    let (signer, forger) = (hmac(SECRET), hmac(b"thirty-two bytes of wrong secret"));
    let right = |number: u32| signer.token(&with("jti", json!(number.to_string())));
    for number in 0..2 * BURST {
        assert!(from(HERE, &right(number)).is_ok(), "{number}");
    }
    let late = signer.token(&with("exp", json!(NOW)));
    let wrong = [
        (forger.token(&claims()), AuthError::Invalid),
        (late, AuthError::Expired),
        ("no token".to_owned(), AuthError::Invalid),
        (signer.token(&with("aud", json!("another"))), AuthError::Invalid),
    ];
    for number in 0..BURST {
        let (token, refusal) = &wrong[number as usize % wrong.len()];
        assert!(from(HERE, &right(10 * BURST + number)).is_ok(), "{number}");
        assert_eq!(from(HERE, token), Err(*refusal), "{number}");
    }
    let each = Duration::from_millis(5);
    for (token, _) in &wrong {
        assert_eq!(from(HERE, token), Err(AuthError::TooManyTokens(each)));
    }
    // Whether a new one is right cannot be known without checking it; what is remembered is let in.
    assert_eq!(from(HERE, &right(0xffff)), Err(AuthError::TooManyTokens(each)));
    assert!(from(HERE, &right(11 * BURST - 1)).is_ok());
    assert!(from([10, 0, 0, 2], &right(0xffff)).is_ok());
    clock.advance(each);
    for number in 0..BURST {
        assert!(from(HERE, &right(20 * BURST + number)).is_ok(), "{number}");
    }
    assert_eq!(from(HERE, &wrong[0].0), Err(AuthError::Invalid));
    assert_eq!(from(HERE, &wrong[0].0), Err(AuthError::TooManyTokens(each)));
}

#[test]
fn a_token_that_is_judged_ahead_counts_once_and_is_not_checked_beyond_the_bound() {
    let clock = Arc::new(ManualClock::at(NOW));
    let (credentials, attempts) = (mesh(), Attempts::new(clock));
    let token = hmac(b"thirty-two bytes of wrong secret").token(&claims());
    let judged = |is_ahead| {
        let origin = Origin {
            attempts: &attempts,
            address: [10, 0, 0, 1].into(),
            is_ahead,
        };
        credentials
            .authenticate_from(Presented::Bearer(&token), NOW, Some(origin))
            .map(drop)
    };
    for number in 0..BURST {
        assert_eq!(judged(true), Err(AuthError::Invalid), "{number}");
        assert_eq!(judged(false), Err(AuthError::Invalid), "{number}");
    }
    for is_ahead in [true, false] {
        assert!(matches!(judged(is_ahead), Err(AuthError::TooManyTokens(_))));
    }
}
