//! Key sets and books: what is read of a set, how long keys are used, and who may have one fetched.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, crypto::sign};
use mesh_types::{MAX_ISSUER_KEYS, ManualClock, TenantId};
use rcgen::KeyPair;
use serde_json::{Value, json};

use super::*;
use crate::access::{
    Attempts, AuthError, BURST, Credentials, IssuerEntry, IssuerKeys, KeySetError, MAX_KEPT_BYTES, MAX_KEY_SET_BYTES,
    NotKept, Origin, Pepper, Presented, TenantBinding, TokenProfile, WhyLeftOut,
};

const ISSUER: &str = "https://login.acme.example/";
const NOW: i64 = 1_800_000_000;
const ALL: [KeyAlgorithm; 4] = [
    KeyAlgorithm::RS256,
    KeyAlgorithm::PS256,
    KeyAlgorithm::ES256,
    KeyAlgorithm::EdDSA,
];

fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An Ed25519 pair with its name.
struct Signer(&'static str, KeyPair);

impl Signer {
    fn new(kid: &'static str) -> Self {
        Self(kid, KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap())
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.0, "use": "sig", "alg": "EdDSA", "x": base64(self.1.public_key_raw())})
    }

    fn token(&self) -> String {
        self.headed(&json!({"alg": "EdDSA", "typ": "at+jwt", "kid": self.0}))
    }

    /// A token with this header.
    fn headed(&self, header: &Value) -> String {
        let header = header.to_string();
        let claims = json!({
            "iss": ISSUER, "aud": "mesh", "sub": "alice", "client_id": "batch", "jti": "1",
            "iat": NOW - 300, "exp": NOW + 1_000_000,
        });
        let message = format!(
            "{}.{}",
            base64(header.as_bytes()),
            base64(claims.to_string().as_bytes())
        );
        let key = EncodingKey::from_ed_pem(self.1.serialize_pem().as_bytes()).unwrap();
        let signature = sign(message.as_bytes(), &key, Algorithm::EdDSA).unwrap();
        format!("{message}.{signature}")
    }
}

fn set(keys: &[Value]) -> Vec<u8> {
    json!({"keys": keys}).to_string().into_bytes()
}

fn read(keys: &[Value]) -> Result<KeySet, KeySetError> {
    KeySet::read(&set(keys), &ALL)
}

/// Why the key is left out, beside one that can be used.
fn left_out(key: &Value) -> Option<WhyLeftOut> {
    let set = read(&[Signer::new("good").jwk(), key.clone()]).unwrap();
    set.left_out.first().map(|left| left.reason)
}

fn with(key: &Value, name: &str, value: Value) -> Value {
    let mut key = key.clone();
    if value.is_null() {
        key.as_object_mut().unwrap().remove(name);
    } else {
        key[name] = value;
    }
    key
}

fn ec(kid: &str) -> Value {
    let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let raw = pair.public_key_raw();
    json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": base64(&raw[1..33]), "y": base64(&raw[33..65])})
}

fn rsa(kid: &str, bytes: usize) -> Value {
    json!({"kty": "RSA", "kid": kid, "n": base64(&vec![0xc5; bytes]), "e": "AQAB"})
}

#[test]
fn rfc7517_keys_for_other_ends_are_left_out_and_leave_the_rest_alone() {
    let key = Signer::new("k").jwk();
    for (wrong, reason) in [
        (json!({"kty": "oct", "kid": "k", "k": "AAAA"}), WhyLeftOut::Symmetric),
        (with(&key, "alg", json!("HS256")), WhyLeftOut::Symmetric),
        (with(&rsa("k", 256), "k", json!("AAAA")), WhyLeftOut::Symmetric),
        (with(&key, "d", json!("AAAA")), WhyLeftOut::Private),
        (with(&rsa("k", 256), "p", json!("AAAA")), WhyLeftOut::Private),
        (with(&key, "use", json!("enc")), WhyLeftOut::Use),
        (with(&key, "use", json!(7)), WhyLeftOut::Use),
        (with(&key, "key_ops", json!(["sign"])), WhyLeftOut::Use),
        (with(&key, "key_ops", json!("verify")), WhyLeftOut::Use),
        (with(&key, "kty", json!("XYZ")), WhyLeftOut::Algorithm),
        (with(&key, "kty", Value::Null), WhyLeftOut::Algorithm),
        (with(&key, "crv", json!("Ed448")), WhyLeftOut::Algorithm),
        (with(&key, "alg", json!("ES256")), WhyLeftOut::Algorithm),
        (with(&key, "alg", json!("none")), WhyLeftOut::Algorithm),
        (with(&key, "alg", json!(7)), WhyLeftOut::Algorithm),
        (with(&ec("k"), "crv", json!("P-384")), WhyLeftOut::Algorithm),
        (with(&rsa("k", 256), "alg", json!("RS512")), WhyLeftOut::Algorithm),
        (with(&key, "x", Value::Null), WhyLeftOut::Unfit),
        (with(&key, "x", json!("AAAA")), WhyLeftOut::Unfit),
        (with(&key, "x", json!("not base64!")), WhyLeftOut::Unfit),
        (with(&ec("k"), "y", json!(base64(&[1; 31]))), WhyLeftOut::Unfit),
        (rsa("k", 255), WhyLeftOut::Unfit),
        (rsa("k", 1_025), WhyLeftOut::Unfit),
        (with(&rsa("k", 256), "e", json!("AQ")), WhyLeftOut::Unfit),
        (with(&rsa("k", 256), "e", json!("AAEAAQ")), WhyLeftOut::Unfit),
        (with(&rsa("k", 256), "e", json!("BA")), WhyLeftOut::Unfit),
        (with(&key, "kid", Value::Null), WhyLeftOut::Unnamed),
        (with(&key, "kid", json!("good")), WhyLeftOut::Twice),
    ] {
        assert_eq!(left_out(&wrong), Some(reason), "{wrong}");
    }
    for right in [
        rsa("k", 256),
        rsa("k", 1_024),
        with(&rsa("k", 256), "alg", json!("PS256")),
        ec("k"),
        with(&ec("k"), "alg", json!("ES256")),
        with(&key, "alg", Value::Null),
        with(&key, "use", Value::Null),
        with(&key, "key_ops", json!(["sign", "verify"])),
        with(&key, "x5c", json!(["whatever"])),
        // One name for two algorithms is well defined: the token's own tells them apart.
        with(&ec("k"), "kid", json!("good")),
    ] {
        assert_eq!(left_out(&right), None, "{right}");
    }
}

#[test]
fn rfc8725_3_1_a_fetched_key_has_one_algorithm_of_those_that_are_allowed() {
    let key = Signer::new("k").jwk();
    // The only key needs no name.
    assert_eq!(read(&[with(&key, "kid", Value::Null)]).unwrap().len(), 1);
    let only = KeySet::read(&set(&[key, ec("e")]), &[KeyAlgorithm::ES256]).unwrap();
    assert_eq!((only.len(), only.left_out[0].reason), (1, WhyLeftOut::NotAllowed));
    let signs_as = |allowed: &[KeyAlgorithm]| {
        KeySet::read(&set(&[rsa("k", 256)]), allowed).unwrap().keys[0]
            .key
            .algorithm()
    };
    assert_eq!(signs_as(&ALL), KeyAlgorithm::RS256);
    assert_eq!(
        signs_as(&[KeyAlgorithm::PS256]),
        KeyAlgorithm::PS256,
        "RFC 8725, 3.1: one algorithm"
    );
}

#[test]
fn rfc7638_the_thumbprint_is_that_of_the_standards_example() {
    let key = json!({
        "kty": "RSA", "alg": "RS256", "kid": "2011-04-29", "e": "AQAB",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn\
              jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL\
              5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    });
    let set = read(&[key]).unwrap();
    assert_eq!(set.keys[0].thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
}

#[test]
fn a_set_that_is_none_is_refused_whole() {
    let good = Signer::new("k").jwk().to_string();
    for wrong in [
        "",
        "<html>Sign in</html>",
        "[]",
        "{}",
        r#"{"keys":{}}"#,
        r#"{"keys":[7]}"#,
        r#"{"keys":[{"kid":7}]}"#,
        r#"{"keys":[{"kid":""}]}"#,
        &format!(r#"{{"keys":[{good}],"keys":[]}}"#),
        &format!(r#"{{"keys":[{}]}}"#, good.replacen('{', r#"{"kid":"other","#, 1)),
        &format!(r#"{{"keys":[{{"kid":"{}"}}]}}"#, "k".repeat(257)),
    ] {
        assert_eq!(
            KeySet::read(wrong.as_bytes(), &ALL).unwrap_err(),
            KeySetError::Unreadable,
            "{wrong}"
        );
    }
    assert_eq!(read(&[]).unwrap_err(), KeySetError::NoneUsable);
}

#[test]
fn a_hundred_keys_and_a_mebibyte_are_taken_and_not_one_more() {
    let keys: Vec<Value> = (0..=MAX_ISSUER_KEYS)
        .map(|index| with(&ec("k"), "kid", json!(format!("k{index}"))))
        .collect();
    assert_eq!(read(&keys[..MAX_ISSUER_KEYS]).unwrap().len(), MAX_ISSUER_KEYS);
    assert_eq!(read(&keys).unwrap_err(), KeySetError::TooMany(MAX_ISSUER_KEYS + 1));
    let mut bytes = set(&[Signer::new("k").jwk()]);
    bytes.resize(MAX_KEY_SET_BYTES, b' ');
    assert!(KeySet::read(&bytes, &ALL).is_ok());
    bytes.push(b' ');
    assert_eq!(KeySet::read(&bytes, &ALL).unwrap_err(), KeySetError::TooLarge);
}

/// A mesh that fetches the keys of one issuer, at a time of its own.
struct Bed {
    book: Arc<KeyBook>,
    known: Credentials,
    now: Moment,
}

impl Bed {
    fn new() -> Self {
        let book = Arc::new(KeyBook::new("sso", ISSUER, KeyLocation::Discovered, ALL.to_vec()));
        let known = Credentials::default().with_issuer(IssuerEntry {
            issuer: ISSUER.into(),
            audiences: vec!["mesh".into()],
            keys: IssuerKeys::Fetched(book.clone()),
            tenants: TenantBinding::Tenant(TenantId::parse("acme").unwrap()),
            profile: TokenProfile::Rfc9068,
            leeway: Duration::ZERO,
        });
        let now = Moment {
            instant: Instant::now(),
            unix: NOW,
        };
        Self { book, known, now }
    }

    fn pass(&mut self, seconds: u64) {
        self.now.instant += Duration::from_secs(seconds);
        self.now.unix += i64::try_from(seconds).unwrap();
    }

    fn fetched(&self, signers: &[&Signer], max_age: Option<u64>) {
        let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
        self.book.began();
        self.book
            .fetched(read(&keys).unwrap(), max_age.map(Duration::from_secs), self.now);
    }

    fn ask(&self, signer: &Signer) -> Result<(), AuthError> {
        self.known
            .authenticate(Presented::Bearer(&signer.token()), self.now.unix)
            .map(|_| ())
    }

    /// Seconds until the next fetch.
    fn due(&self) -> Option<u64> {
        let due = self.book.due()?;
        Some(due.saturating_duration_since(self.now.instant).as_secs())
    }
}

#[test]
fn rotation_takes_a_new_key_with_the_fetch_that_has_it_and_drops_the_old_one_with_the_fetch_that_has_not() {
    let (mut bed, old, new) = (Bed::new(), Signer::new("old"), Signer::new("new"));
    assert_eq!(
        bed.ask(&old),
        Err(AuthError::KeysUnavailable),
        "nothing was fetched yet"
    );
    bed.fetched(&[&old], None);
    assert_eq!(bed.ask(&old), Ok(()));
    assert_eq!(bed.ask(&new), Err(AuthError::UnknownKey));
    bed.pass(600);
    bed.fetched(&[&old, &new], None);
    assert_eq!((bed.ask(&old), bed.ask(&new)), (Ok(()), Ok(())));
    bed.pass(600);
    bed.fetched(&[&new], None);
    // Although its token was remembered as verified.
    assert_eq!((bed.ask(&old), bed.ask(&new)), (Err(AuthError::UnknownKey), Ok(())));
    // The same name with another key: what the former one signed is worth nothing.
    let again = Signer::new("new");
    bed.fetched(&[&again], None);
    assert_eq!((bed.ask(&new), bed.ask(&again)), (Err(AuthError::Invalid), Ok(())));
}

#[test]
fn a_token_that_no_key_is_there_for_counts_as_a_wrong_one_only_where_one_was_tried() {
    let (bed, known, new) = (Bed::new(), Signer::new("known"), Signer::new("new"));
    let attempts = Attempts::new(Arc::new(ManualClock::at(NOW)));
    let ask = |token: &str| {
        let origin = Origin {
            attempts: &attempts,
            address: [10, 0, 0, 1].into(),
            is_ahead: false,
        };
        let shown = Presented::Bearer(token);
        bed.known
            .authenticate_from(shown, NOW, Some(origin))
            .map(|principal| principal.subject)
    };
    for _ in 0..=BURST {
        assert_eq!(ask(&new.token()), Err(AuthError::KeysUnavailable));
    }
    bed.fetched(&[&known], None);
    for _ in 0..=BURST {
        assert_eq!(ask(&new.token()), Err(AuthError::UnknownKey));
    }
    // It names none, and so may mean the only one.
    let unnamed = new.headed(&json!({"alg": "EdDSA", "typ": "at+jwt"}));
    for _ in 0..BURST {
        assert_eq!(ask(&unnamed), Err(AuthError::UnknownKey));
    }
    assert!(matches!(ask(&unnamed), Err(AuthError::TooManyTokens(_))));
}

#[test]
fn keys_are_fetched_ahead_of_their_end_within_five_minutes_and_a_day() {
    let (bed, signer) = (Bed::new(), Signer::new("k"));
    assert_eq!(bed.due(), None, "at once");
    for (said, due) in [
        (None, 12 * 60),
        (Some(0), 4 * 60),
        (Some(299), 4 * 60),
        (Some(300), 4 * 60),
        (Some(1_000), 800),
        (Some(86_400), 69_120),
        (Some(86_401), 69_120),
        (Some(u64::MAX), 69_120),
    ] {
        bed.fetched(&[&signer], said);
        assert_eq!(bed.due(), Some(due), "{said:?}");
    }
}

#[test]
fn an_outage_of_less_than_a_day_costs_nothing_and_a_longer_one_all() {
    let (mut bed, signer) = (Bed::new(), Signer::new("k"));
    bed.fetched(&[&signer], None);
    let mut waits = Vec::new();
    for _ in 0..9 {
        bed.book.began();
        bed.book.failed("down".into(), bed.now);
        waits.push(bed.due().unwrap());
        bed.pass(bed.due().unwrap());
        assert_eq!(bed.ask(&signer), Ok(()));
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    bed.pass(86_399 - waits.iter().sum::<u64>());
    assert_eq!(bed.ask(&signer), Ok(()));
    assert_eq!(bed.book.view(bed.now.unix).keys.len(), 1);
    bed.pass(1);
    assert_eq!(
        bed.ask(&signer),
        Err(AuthError::KeysUnavailable),
        "a remembered token too"
    );
    let fault = mesh_types::Fault::from(AuthError::KeysUnavailable);
    assert_eq!(fault.class, mesh_types::FaultClass::Unavailable);
    let view = bed.book.view(bed.now.unix);
    assert_eq!((view.keys.len(), view.fetched), (0, Some(NOW)));
    assert_eq!(view.last_error.unwrap().1, "down");
    bed.fetched(&[&signer], None);
    assert_eq!(bed.ask(&signer), Ok(()));
    assert_eq!(bed.book.view(bed.now.unix).last_error, None);
}

#[test]
fn a_missing_key_has_one_fetch_made_in_thirty_seconds() {
    let (mut bed, known, other) = (Bed::new(), Signer::new("k"), Signer::new("other"));
    let polled = |wait: &mut Pin<&mut KeyWait>| wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    // The first fetch is about to be made anyway.
    assert!(bed.book.ask(bed.now.instant).is_some());
    bed.fetched(&[&known], None);
    assert_eq!(bed.due(), Some(720));
    let token = other.token();
    let presented = Presented::Bearer(&token);
    let refused = bed.known.authenticate(presented, NOW).unwrap_err();
    let book = bed.known.book_for(presented, refused).unwrap().clone();
    let mut first = pin!(book.ask(bed.now.instant).unwrap());
    assert_eq!(bed.due(), None, "to be fetched at once");
    assert!(book.poll_asked(&mut Context::from_waker(Waker::noop())).is_ready());
    book.began();
    let mut second = pin!(book.ask(bed.now.instant).unwrap());
    assert!(!polled(&mut first) && !polled(&mut second));
    bed.fetched(&[&known], None);
    assert!(polled(&mut first) && polled(&mut second));
    assert!(book.ask(bed.now.instant).is_none(), "it is known to be missing");
    bed.pass(29);
    assert!(book.ask(bed.now.instant).is_none());
    bed.pass(1);
    assert!(book.ask(bed.now.instant).is_some());
    // Only what lacks a key leads to a book, and only to that of the issuer it names.
    for presented in [
        presented,
        Presented::None,
        Presented::Malformed,
        Presented::Bearer("mesh_a_b_c_d"),
    ] {
        assert!(bed.known.book_for(presented, AuthError::Invalid).is_none());
        let leads = bed.known.book_for(presented, AuthError::UnknownKey).is_some();
        assert_eq!(leads, matches!(presented, Presented::Bearer(text) if text == token));
    }
}

#[test]
fn a_key_that_comes_while_its_token_is_judged_is_seen() {
    let (mut bed, known, new) = (Bed::new(), Signer::new("k"), Signer::new("new"));
    bed.fetched(&[&known], None);
    let token = new.token();
    let judged = |bed: &Bed, meanwhile: &dyn Fn()| {
        let presented = Presented::Bearer(&token);
        judge_or_wait(
            || bed.known.authenticate(presented, NOW),
            |refused| bed.known.book_for(presented, refused),
            || {
                // The token was refused, and has not asked yet.
                meanwhile();
                bed.now.instant
            },
        )
    };
    let first = judged(&bed, &|| ());
    assert!(matches!(first, Ok(Judged::Waits(_))), "{first:?}");
    drop(first);
    bed.fetched(&[&known], None);
    let again = judged(&bed, &|| ());
    assert!(matches!(again, Err(AuthError::UnknownKey)), "{again:?}");
    let found = judged(&bed, &|| bed.fetched(&[&known, &new], None));
    assert!(matches!(found, Ok(Judged::Holds(_))), "{found:?}");
    // Nothing to wait for: what holds, and what no key would help.
    let other = judge_or_wait(|| Err::<(), _>(AuthError::Invalid), |_| None, || bed.now.instant);
    assert!(matches!(other, Err(AuthError::Invalid)), "{other:?}");
    bed.pass(30);
    let held = judged(&bed, &|| panic!("nothing to ask for"));
    assert!(matches!(held, Ok(Judged::Holds(_))), "{held:?}");
}

#[test]
fn what_would_be_refused_anyway_never_asks_for_a_key() {
    let (bed, known, other) = (Bed::new(), Signer::new("k"), Signer::new("other"));
    bed.fetched(&[&known], None);
    let at = |unix| bed.known.authenticate(Presented::Bearer(&other.token()), unix);
    assert_eq!(at(NOW), Err(AuthError::UnknownKey));
    assert_eq!(at(NOW + 1_000_000), Err(AuthError::Invalid), "out of date");
    assert_eq!(at(NOW - 301), Err(AuthError::Invalid), "not yet valid");
    let changed = |name: &str, value: Value| {
        let token = other.token();
        let parts: Vec<&str> = token.split('.').collect();
        let decode = |part: &str| serde_json::from_slice::<Value>(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
        let claims = with(&decode(parts[1]), name, value);
        format!("{}.{}.{}", parts[0], base64(claims.to_string().as_bytes()), parts[2])
    };
    for (name, value) in [
        ("aud", json!("else")),
        ("iss", json!("https://else")),
        ("jti", Value::Null),
    ] {
        let token = changed(name, value);
        let refused = bed.known.authenticate(Presented::Bearer(&token), NOW);
        assert_eq!(refused, Err(AuthError::Invalid), "{name}");
    }
}

#[test]
fn so_many_wait_for_a_book_and_one_more_does_not() {
    let bed = Bed::new();
    let mut waits: Vec<KeyWait> = (0..MAX_KEY_WAITERS)
        .map(|_| bed.book.ask(bed.now.instant).unwrap())
        .collect();
    assert!(bed.book.ask(bed.now.instant).is_none());
    waits.pop();
    assert!(bed.book.ask(bed.now.instant).is_some(), "its place was given up");
    drop(waits);
    bed.fetched(&[&Signer::new("k")], None);
    assert_eq!(bed.book.fetches(), 1);
}

/// What a former start kept of `signer`'s key, fetched at this second.
fn kept(signer: &Signer, fetched: i64, pepper: &Pepper) -> Vec<u8> {
    let book = KeyBook::new("sso", ISSUER, KeyLocation::Discovered, ALL.to_vec());
    book.to_keep(&set(&[signer.jwk()]), fetched, pepper).unwrap()
}

fn ask(book: KeyBook, signer: &Signer, now: i64) -> Result<(), AuthError> {
    let credentials = Credentials::default().with_issuer(IssuerEntry {
        issuer: ISSUER.into(),
        audiences: vec!["mesh".into()],
        keys: IssuerKeys::Fetched(Arc::new(book)),
        tenants: TenantBinding::Tenant(TenantId::parse("acme").unwrap()),
        profile: TokenProfile::Rfc9068,
        leeway: Duration::ZERO,
    });
    credentials
        .authenticate(Presented::Bearer(&signer.token()), now)
        .map(drop)
}

#[test]
fn kept_keys_hold_for_a_day_after_their_fetch_whatever_starts_lie_between() {
    let (signer, pepper) = (Signer::new("k"), Pepper::default());
    let day = i64::try_from(MAX_STALE.as_secs()).unwrap();
    let bytes = kept(&signer, NOW, &pepper);
    let read = |now| KeyBook::from_kept(&bytes, now, &pepper);
    for (now, then, holds) in [
        (NOW, NOW, true),
        (NOW, NOW + day - 1, true),
        (NOW + day - 1, NOW + day - 1, true),
        (NOW + day - 1, NOW + day, false),
        // A clock that was set back a little gives no more time.
        (NOW - 60, NOW + day - 61, true),
        (NOW - 60, NOW + day - 60, false),
    ] {
        let book = read(now).unwrap();
        assert!(book.due().is_none(), "it is to be fetched at once");
        assert_eq!(book.view(now).fetched, Some(NOW.min(now)));
        assert_eq!(ask(book, &signer, then).is_ok(), holds, "read at {now}, used at {then}");
    }
    assert_eq!(read(NOW + day).unwrap_err(), NotKept::Stale);
    assert_eq!(read(NOW - 61).unwrap_err(), NotKept::Future);
    assert_eq!(read(i64::MAX).unwrap_err(), NotKept::Stale);
    assert_eq!(read(i64::MIN).unwrap_err(), NotKept::Future);
    let book = read(NOW).unwrap();
    assert!(book.is_for("sso", ISSUER, &KeyLocation::Discovered, &ALL));
    // A fetch that does not have them ends them, as if they had been fetched by this start.
    let (other, moment) = (
        Signer::new("other"),
        Moment {
            instant: Instant::now(),
            unix: NOW,
        },
    );
    book.fetched(KeySet::read(&set(&[other.jwk()]), &ALL).unwrap(), None, moment);
    assert_eq!(ask(book, &signer, NOW), Err(AuthError::UnknownKey));
}

#[test]
fn kept_keys_are_nobodys_but_this_meshs_and_whole() {
    let (signer, pepper) = (Signer::new("k"), Pepper::default());
    let bytes = kept(&signer, NOW, &pepper);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1;
        assert_eq!(
            KeyBook::from_kept(&damaged, NOW, &pepper).unwrap_err(),
            NotKept::Damaged,
            "{at}"
        );
        assert_eq!(
            KeyBook::from_kept(&bytes[..at], NOW, &pepper).unwrap_err(),
            NotKept::Damaged,
            "{at}"
        );
    }
    let other = Pepper::from_bytes([1; 32]);
    assert_eq!(KeyBook::from_kept(&bytes, NOW, &other).unwrap_err(), NotKept::Damaged);
    // What was never fetched as a set of keys is none now.
    let book = KeyBook::new(
        "sso",
        ISSUER,
        KeyLocation::KeySet("https://a.example/keys".into()),
        ALL.to_vec(),
    );
    let bytes = book.to_keep(b"<html>", NOW, &pepper).unwrap();
    let refused = KeyBook::from_kept(&bytes, NOW, &pepper).unwrap_err();
    assert_eq!(refused, NotKept::KeySet(KeySetError::Unreadable));
}

#[test]
fn as_many_bytes_as_the_bound_are_kept_and_not_one_more() {
    let (signer, pepper) = (Signer::new("k"), Pepper::default());
    let book = KeyBook::new("sso", ISSUER, KeyLocation::Discovered, ALL.to_vec());
    let of_length = |length: usize| {
        let mut bytes = set(&[signer.jwk()]);
        bytes.resize(length, b' ');
        book.to_keep(&bytes, NOW, &pepper)
    };
    let bytes = of_length(MAX_KEY_SET_BYTES).unwrap();
    let head = bytes.len() - MAX_KEY_SET_BYTES;
    assert!(KeyBook::from_kept(&bytes, NOW, &pepper).is_ok());
    assert!(of_length(MAX_KEPT_BYTES - head).is_some());
    assert!(of_length(MAX_KEPT_BYTES - head + 1).is_none());
}
