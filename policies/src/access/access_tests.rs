//! API keys, admin tokens and headers: what is taken, what is refused, and that nothing leaks.

use std::collections::HashMap;

use mesh_types::{Fault, FaultClass, KeyId, TenantId};
use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::{
    ApiKeyEntry, AuthError, Credentials, GeneratedKey, Pepper, Presented, Principal, Scope, Scopes, SecretHash,
    admin_token_id, generate_admin_token, generate_admin_token_as, generate_api_key, generate_api_key_as, hash_secret,
    verify_admin_token,
};
use crate::{MeshSnapshot, TenantEntry, TenantLimits};

const NOW: i64 = 1_800_000_000;

fn pepper() -> Pepper {
    Pepper::from_bytes(std::array::from_fn(|index| u8::try_from(index).unwrap()))
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn entry(key: &GeneratedKey, tenant: &str) -> ApiKeyEntry {
    ApiKeyEntry {
        groups: [].into(),
        id: key.id.clone(),
        tenant: TenantId::parse(tenant).unwrap(),
        hash: pepper().hash(&key.secret),
        scopes: Scopes::from_iter([Scope::Infer]),
        expires: None,
        revoked: false,
    }
}

fn ask(credentials: &Credentials, text: &str) -> Result<Principal, AuthError> {
    credentials.authenticate(Presented::Bearer(text), NOW)
}

/// The text with its checksum made right.
fn sealed(body: &str) -> String {
    format!("{body}_{:08x}", crc32fast::hash(body.as_bytes()))
}

#[test]
fn a_generated_key_has_the_published_form_and_lets_its_tenant_in() {
    let key = generate_api_key("live", &mut rng());
    let parts: Vec<&str> = key.text.split('_').collect();
    assert_eq!(parts[..2], ["mesh", "live"]);
    assert_eq!((parts[2], parts[3]), (key.id.as_str(), key.secret.as_str()));
    assert_eq!((parts[2].len(), parts[3].len(), parts[4].len()), (12, 43, 8));
    let credentials = Credentials::new(pepper()).with_key(entry(&key, "acme"));
    let principal = ask(&credentials, &key.text).unwrap();
    assert_eq!(principal.tenant.as_str(), "acme");
    assert_eq!(&*principal.subject, key.id.as_str());
    assert_eq!(*principal.credential, *format!("key:{}", key.id));
    assert_eq!(principal.require(Scope::Infer), Ok(()));
}

#[test]
fn hash_and_checksum_are_those_of_other_implementations() {
    // python: hmac.new(bytes(range(32)), b"secret", "sha256"), zlib.crc32
    let expected = "723f228d66d0f98dd0b43d22396eda3938365077ed1737631b6ca62d2dca6b43";
    assert_eq!(hash_secret(&pepper(), "secret"), expected);
    assert!(expected.parse::<SecretHash>().unwrap() == pepper().hash("secret"));
    let text = format!("mesh_live_0123456789ab_{}_de9c647c", "A".repeat(43));
    let key = ApiKeyEntry {
        id: KeyId::parse("0123456789ab").unwrap(),
        hash: pepper().hash(&"A".repeat(43)),
        ..entry(&generate_api_key("live", &mut rng()), "acme")
    };
    assert!(ask(&Credentials::new(pepper()).with_key(key), &text).is_ok());
}

#[test]
fn hashes_are_64_lowercase_hexadecimal_digits() {
    for bad in [
        String::new(),
        "0".repeat(63),
        "0".repeat(65),
        "A".repeat(64),
        "g".repeat(64),
        "é".repeat(32),
    ] {
        assert!(bad.parse::<SecretHash>().is_err(), "{bad}");
    }
}

#[test]
fn keys_differ_and_their_characters_are_evenly_drawn() {
    let mut rng = rng();
    let mut counts: HashMap<char, u32> = HashMap::new();
    let mut ids = std::collections::HashSet::new();
    for _ in 0..2_000 {
        let key = generate_api_key("live", &mut rng);
        assert!(ids.insert(key.id));
        for char in key.secret.chars() {
            *counts.entry(char).or_default() += 1;
        }
    }
    assert_eq!(counts.len(), 62);
    let expected = 2_000.0 * 43.0 / 62.0;
    let chi_square: f64 = counts
        .values()
        .map(|count| (f64::from(*count) - expected).powi(2) / expected)
        .sum();
    // 61 degrees of freedom: 110 is exceeded once in ten thousand times.
    assert!(chi_square < 110.0, "{chi_square}");
}

#[test]
fn an_environment_is_cut_to_lowercase_letters_and_digits() {
    for (env, shown) in [
        ("test", "test"),
        ("Te_s t", "est"),
        ("", "live"),
        (&*"a".repeat(20), &*"a".repeat(16)),
    ] {
        let key = generate_api_key(env, &mut rng());
        assert!(key.text.starts_with(&format!("mesh_{shown}_{}_", key.id)), "{env}");
    }
}

#[test]
fn a_wrong_secret_an_unknown_key_and_a_wrong_pepper_are_refused_alike() {
    let (key, other) = {
        let mut rng = rng();
        (generate_api_key("live", &mut rng), generate_api_key("live", &mut rng))
    };
    let credentials = Credentials::new(pepper()).with_key(entry(&key, "acme"));
    let wrong_secret = sealed(&format!("mesh_live_{}_{}", key.id, &*other.secret));
    assert_eq!(ask(&credentials, &wrong_secret), Err(AuthError::Invalid));
    assert_eq!(ask(&credentials, &other.text), Err(AuthError::Invalid));
    let elsewhere = Credentials::new(Pepper::from_bytes([9; 32])).with_key(entry(&key, "acme"));
    assert_eq!(ask(&elsewhere, &key.text), Err(AuthError::Invalid));
    assert_eq!(ask(&Credentials::default(), &key.text), Err(AuthError::Invalid));
}

#[test]
fn a_key_ends_at_its_expiry_and_a_revoked_one_at_once() {
    let key = generate_api_key("live", &mut rng());
    let with = |expires, revoked| {
        let entry = ApiKeyEntry {
            expires,
            revoked,
            ..entry(&key, "acme")
        };
        ask(&Credentials::new(pepper()).with_key(entry), &key.text).map(|_| ())
    };
    assert_eq!(with(Some(NOW + 1), false), Ok(()));
    assert_eq!(with(Some(NOW), false), Err(AuthError::Expired));
    assert_eq!(with(None, true), Err(AuthError::Invalid));
    assert_eq!(with(Some(NOW), true), Err(AuthError::Invalid));
    // Expired is said to the holder of the secret only.
    let expired = ApiKeyEntry {
        expires: Some(NOW),
        ..entry(&key, "acme")
    };
    let forged = sealed(&format!("mesh_live_{}_{}", key.id, "0".repeat(43)));
    assert_eq!(
        ask(&Credentials::new(pepper()).with_key(expired), &forged),
        Err(AuthError::Invalid)
    );
}

#[test]
fn two_tenants_may_use_the_same_identifier() {
    let id = KeyId::parse("ci_key").unwrap();
    let mut rng = rng();
    let first = generate_api_key_as("live", id.clone(), &mut rng);
    let second = generate_api_key_as("live", id, &mut rng);
    let credentials = Credentials::new(pepper())
        .with_key(entry(&first, "acme"))
        .with_key(entry(&second, "globex"));
    assert_eq!(ask(&credentials, &first.text).unwrap().tenant.as_str(), "acme");
    assert_eq!(ask(&credentials, &second.text).unwrap().tenant.as_str(), "globex");
}

#[test]
fn a_key_of_192_bytes_is_read_and_of_193_is_not() {
    let key = generate_api_key("live", &mut rng());
    let credentials = Credentials::new(pepper()).with_key(entry(&key, "acme"));
    let of_length = |bytes: usize| {
        let env = "a".repeat(bytes - "mesh_".len() - "_".len() - 12 - "_".len() - 43 - "_".len() - 8);
        let text = sealed(&format!("mesh_{env}_{}_{}", key.id, &*key.secret));
        assert_eq!(text.len(), bytes);
        ask(&credentials, &text).is_ok()
    };
    assert!(of_length(192));
    assert!(!of_length(193));
}

#[test]
fn a_key_without_the_scope_is_known_but_may_not_infer() {
    let key = generate_api_key("live", &mut rng());
    let entry = ApiKeyEntry {
        scopes: Scopes::NONE,
        ..entry(&key, "acme")
    };
    let principal = ask(&Credentials::new(pepper()).with_key(entry), &key.text).unwrap();
    let error = principal.require(Scope::Infer).unwrap_err();
    assert_eq!(error, AuthError::InsufficientScope(Scope::Infer));
    assert_eq!(Fault::from(error).class, FaultClass::InsufficientScope);
}

#[test]
fn a_caller_needs_a_tenant_that_exists_and_is_not_suspended() {
    let key = generate_api_key("live", &mut rng());
    let credentials = || Credentials::new(pepper()).with_key(entry(&key, "acme"));
    let tenant = |suspended| TenantEntry {
        id: TenantId::parse("acme").unwrap(),
        created: 0,
        suspended,
        limits: TenantLimits::default(),
        share: mesh_types::TenantShare::default(),
        targets: HashMap::new(),
    };
    let shown = Presented::Bearer(&key.text);
    let outcome = |tenants: Vec<TenantEntry>| {
        let snapshot = MeshSnapshot::new(1, credentials(), tenants);
        snapshot.caller(shown, NOW).map(|(_, tenant)| tenant.id.to_string())
    };
    assert_eq!(outcome(vec![tenant(false)]), Ok("acme".to_owned()));
    assert_eq!(outcome(vec![tenant(true)]), Err(AuthError::TenantSuspended));
    assert_eq!(outcome(vec![]), Err(AuthError::Invalid));
}

#[test]
fn admin_tokens_and_api_keys_are_not_each_other() {
    let mut rng = rng();
    let (admin, key) = (generate_admin_token(&mut rng), generate_api_key("live", &mut rng));
    let hash = |key: &GeneratedKey| hash_secret(&pepper(), &key.secret);
    assert_eq!(admin_token_id(&admin.text), Some(admin.id.clone()));
    assert!(verify_admin_token(&pepper(), &admin.text, &hash(&admin)));
    assert!(!verify_admin_token(&pepper(), &admin.text, &hash(&key)));
    assert!(!verify_admin_token(&pepper(), &admin.text, "no hash"));
    assert!(!verify_admin_token(&pepper(), &key.text, &hash(&key)));
    assert_eq!(admin_token_id(&key.text), None);
    let credentials = Credentials::new(pepper()).with_key(entry(&admin, "acme"));
    assert_eq!(ask(&credentials, &admin.text), Err(AuthError::Invalid));
    // The longest name, with an underscore in it, is read back whole.
    let name = KeyId::parse(&format!("anna_{}", "a".repeat(58))).unwrap();
    let named = generate_admin_token_as(name.clone(), &mut rng);
    assert_eq!(admin_token_id(&named.text), Some(name));
    assert!(verify_admin_token(&pepper(), &named.text, &hash(&named)));
}

#[test]
fn rfc6750_2_1_headers_are_read_as_bearer_none_or_malformed() {
    for nothing in [None, Some(""), Some("  "), Some("Basic dXNlcjpwYXNz"), Some("Bearerx")] {
        assert_eq!(Presented::from_header(nothing), Presented::None, "{nothing:?}");
    }
    for bearer in ["Bearer abc", "bearer abc", "BEARER   abc", "  Bearer abc "] {
        assert_eq!(
            Presented::from_header(Some(bearer)),
            Presented::Bearer("abc"),
            "{bearer:?}"
        );
    }
    for malformed in [
        "Bearer",
        "Bearer ",
        "Bearer a b",
        "Bearer a\tb",
        "Bearer ä",
        "Bearer a\u{7f}",
    ] {
        assert_eq!(
            Presented::from_header(Some(malformed)),
            Presented::Malformed,
            "{malformed:?}"
        );
    }
}

#[test]
fn rfc6750_3_1_missing_is_told_apart_and_a_refusal_says_no_more_than_it_must() {
    let credentials = Credentials::default();
    let missing = credentials.authenticate(Presented::None, NOW).unwrap_err();
    let malformed = credentials.authenticate(Presented::Malformed, NOW).unwrap_err();
    assert_eq!((missing, malformed), (AuthError::Missing, AuthError::Malformed));
    for error in [missing, AuthError::Invalid, AuthError::UnknownKey, AuthError::Expired] {
        assert_eq!(Fault::from(error).class, FaultClass::Unauthenticated);
    }
    assert_eq!(Fault::from(malformed).class, FaultClass::MalformedCredential);
    assert_eq!(Fault::from(AuthError::UnknownKey), Fault::from(AuthError::Invalid));
    assert_eq!(Fault::from(AuthError::Invalid).message, "invalid credential");
    assert_eq!(Fault::from(AuthError::Expired).message, "expired credential");
    assert_eq!(
        Fault::from(AuthError::TenantSuspended).class,
        FaultClass::PermissionDenied
    );
}

#[test]
fn nothing_that_holds_a_secret_prints_it() {
    let key = generate_api_key("live", &mut rng());
    let entry = entry(&key, "acme");
    let hash = entry.hash.to_string();
    let credentials = Credentials::new(pepper()).with_key(entry.clone());
    let shown = Presented::Bearer(&key.text);
    for printed in [
        format!("{key:?}"),
        format!("{entry:?}"),
        format!("{credentials:?}"),
        format!("{shown:?}"),
        format!("{:?}", pepper()),
    ] {
        assert!(!printed.contains(&*key.secret) && !printed.contains(&hash), "{printed}");
        assert!(!printed.contains("0, 1, 2"), "{printed}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_authentication_fail_otherwise_than_by_refusal(text in "(mesh_|meshadmin_)?[ -~_.]{0,200}") {
        let key = generate_api_key("live", &mut rng());
        let credentials = Credentials::new(pepper()).with_key(entry(&key, "acme"));
        prop_assert_eq!(ask(&credentials, &text), Err(AuthError::Invalid));
    }

    #[test]
    fn a_key_with_any_one_character_changed_is_refused(at in any::<prop::sample::Index>(), to in "[0-9A-Za-z_]") {
        let key = generate_api_key("live", &mut rng());
        let credentials = Credentials::new(pepper()).with_key(entry(&key, "acme"));
        let at = at.index(key.text.len());
        let mut changed = key.text.clone();
        changed.replace_range(at..=at, &to);
        prop_assert_eq!(ask(&credentials, &changed).is_ok(), changed == key.text);
    }
}

#[test]
fn a_key_is_used_by_who_holds_it_and_by_nobody_else() {
    let (key, ended, revoked) = (
        generate_api_key("live", &mut rng()),
        generate_api_key_as("live", KeyId::parse("ended").unwrap(), &mut rng()),
        generate_api_key_as("live", KeyId::parse("revoked").unwrap(), &mut rng()),
    );
    let credentials = Credentials::new(pepper())
        .with_key(entry(&key, "acme"))
        .with_key(ApiKeyEntry {
            expires: Some(NOW),
            ..entry(&ended, "acme")
        })
        .with_key(ApiKeyEntry {
            revoked: true,
            ..entry(&revoked, "acme")
        });
    let acme = TenantId::parse("acme").unwrap();
    let last = |id: &KeyId| credentials.last_used(&acme, id);
    let wrong = sealed(&format!("mesh_live_{}_{}", key.id, "A".repeat(43)));
    for refused in [&wrong, &ended.text, &revoked.text] {
        ask(&credentials, refused).unwrap_err();
    }
    assert_eq!([last(&key.id), last(&ended.id), last(&revoked.id)], [None; 3]);
    assert!(credentials.uses().is_empty());
    ask(&credentials, &key.text).unwrap();
    assert_eq!(last(&key.id), Some(NOW));
    // One that is remembered by its text counts as well, and to the minute only.
    for (later, seen) in [(59, NOW), (61, NOW + 60)] {
        let asked = credentials.authenticate(Presented::Bearer(&key.text), NOW + later);
        asked.unwrap();
        assert_eq!(last(&key.id), Some(seen));
    }
    assert_eq!(
        credentials.last_used(&TenantId::parse("globex").unwrap(), &key.id),
        None
    );
}

#[test]
fn a_use_outlives_the_credentials_and_a_start_but_not_the_secret() {
    let (key, other) = (
        generate_api_key("live", &mut rng()),
        generate_api_key("live", &mut rand::rng()),
    );
    let first = Credentials::new(pepper()).with_key(entry(&key, "acme"));
    ask(&first, &key.text).unwrap();
    let after = |before: &Credentials, entry: ApiKeyEntry| {
        let last_use = before.last_use(&entry);
        Credentials::new(pepper()).with_used_key(entry, last_use)
    };
    let acme = TenantId::parse("acme").unwrap();
    let revoked = ApiKeyEntry {
        revoked: true,
        ..entry(&key, "acme")
    };
    let second = after(&first, revoked);
    assert_eq!(second.last_used(&acme, &key.id), Some(NOW));
    // What a request that still holds the former credentials notes is not lost.
    first.authenticate(Presented::Bearer(&key.text), NOW + 60).unwrap();
    assert_eq!(second.last_used(&acme, &key.id), Some(NOW + 60));
    let started = after(&Credentials::remembering(second.uses()), entry(&key, "acme"));
    assert_eq!(started.last_used(&acme, &key.id), Some(NOW + 60));
    // Another key of the same name, and one of the same secret that is another tenant's.
    for before in [&second, &Credentials::remembering(second.uses())] {
        let renewed = ApiKeyEntry {
            hash: pepper().hash(&other.secret),
            ..entry(&key, "acme")
        };
        assert_eq!(after(before, renewed).last_used(&acme, &key.id), None);
        let foreign = after(before, entry(&key, "globex"));
        assert_eq!(foreign.last_used(&TenantId::parse("globex").unwrap(), &key.id), None);
    }
}
