//! Callers that are known by certificates, and tokens that are bound to one.

use mesh_types::{KeyId, TenantId};
use rand::{SeedableRng, rngs::StdRng};

use super::{
    ApiKeyEntry, AuthError, CertificateEntry, CertificateName, Credentials, PeerCertificate, Pepper, Presented,
    Principal, Scope, Scopes, generate_api_key,
};

const NOW: i64 = 1_800_000_000;

fn entry(tenant: &str, name: &str, identity: CertificateName) -> CertificateEntry {
    CertificateEntry {
        name: KeyId::parse(name).unwrap(),
        tenant: TenantId::parse(tenant).unwrap(),
        identity,
        scopes: Scopes::from_iter([Scope::Infer]),
        groups: [std::sync::Arc::from("services")].into(),
        expires: None,
        revoked: false,
    }
}

fn spiffe(id: &str) -> CertificateName {
    CertificateName::Spiffe(id.into())
}

fn dns(name: &str) -> CertificateName {
    CertificateName::Dns(name.into())
}

/// A certificate with a SPIFFE ID, two host names, and a key and a thumbprint of these bytes.
fn peer() -> PeerCertificate {
    PeerCertificate {
        spiffe: Some("spiffe://acme.test/billing".into()),
        dns: vec!["a.acme.test".into(), "b.acme.test".into()],
        key: [7; 32],
        thumbprint: [9; 32],
        until: NOW + 60,
    }
}

fn ask(credentials: &Credentials, peer: &PeerCertificate) -> Result<Principal, AuthError> {
    credentials.authenticate(Presented::Certificate(peer), NOW)
}

#[test]
fn each_kind_of_name_lets_its_caller_in_and_no_other_does() {
    for identity in [
        spiffe("spiffe://acme.test/billing"),
        dns("b.acme.test"),
        CertificateName::Key([7; 32]),
    ] {
        let credentials = Credentials::default().with_certificate(entry("acme", "billing", identity));
        let principal = ask(&credentials, &peer()).unwrap();
        assert_eq!(principal.tenant.as_str(), "acme");
        assert_eq!(&*principal.subject, "billing");
        assert_eq!(*principal.groups, [std::sync::Arc::from("services")]);
        assert_eq!(principal.certificate(), Some("billing"));
        assert_eq!(principal.require(Scope::Infer), Ok(()));
        // The next certificate of the same names with a new key; one that shares nothing.
        let other = PeerCertificate {
            until: NOW + 60,
            ..PeerCertificate::default()
        };
        assert_eq!(ask(&credentials, &other), Err(AuthError::Missing));
    }
    for identity in [
        spiffe("spiffe://acme.test/billing/x"),
        spiffe("spiffe://acme.test"),
        dns("acme.test"),
        dns("*.acme.test"),
        dns("spiffe://acme.test/billing"),
        CertificateName::Key([9; 32]),
    ] {
        let credentials = Credentials::default().with_certificate(entry("acme", "billing", identity.clone()));
        assert_eq!(ask(&credentials, &peer()), Err(AuthError::Missing), "{identity:?}");
    }
}

#[test]
fn what_is_revoked_expired_or_without_a_scope_is_refused() {
    let with = |change: fn(&mut CertificateEntry)| {
        let mut entry = entry("acme", "billing", dns("a.acme.test"));
        change(&mut entry);
        Credentials::default().with_certificate(entry)
    };
    assert_eq!(
        ask(&with(|entry| entry.revoked = true), &peer()),
        Err(AuthError::Invalid)
    );
    assert_eq!(
        ask(&with(|entry| entry.expires = Some(NOW)), &peer()),
        Err(AuthError::Expired)
    );
    assert!(ask(&with(|entry| entry.expires = Some(NOW + 1)), &peer()).is_ok());
    let narrow = ask(&with(|entry| entry.scopes = Scopes::NONE), &peer()).unwrap();
    assert!(narrow.require(Scope::Infer).is_err());
    // The handshake was in time, but the connection has outlived the certificate.
    let outlived = PeerCertificate {
        until: NOW - 1,
        ..peer()
    };
    assert_eq!(ask(&with(|_| {}), &outlived), Err(AuthError::Expired));
    let last = PeerCertificate { until: NOW, ..peer() };
    assert!(ask(&with(|_| {}), &last).is_ok());
}

#[test]
fn the_most_exact_name_counts_and_two_tenants_are_nobody() {
    let of_acme = Credentials::default()
        .with_certificate(entry("acme", "by-dns", dns("a.acme.test")))
        .with_certificate(entry("acme", "by-id", spiffe("spiffe://acme.test/billing")))
        .with_certificate(entry("acme", "by-key", CertificateName::Key([7; 32])));
    assert_eq!(ask(&of_acme, &peer()).unwrap().certificate(), Some("by-key"));
    for other in [dns("b.acme.test"), dns("a.acme.test")] {
        let torn = Credentials::default()
            .with_certificate(entry("acme", "by-key", CertificateName::Key([7; 32])))
            .with_certificate(entry("globex", "taken", other));
        assert_eq!(ask(&torn, &peer()), Err(AuthError::Invalid));
    }
}

#[test]
fn a_key_counts_before_the_certificate_and_must_not_disagree_with_it() {
    let pepper = Pepper::default();
    let key = generate_api_key("live", &mut StdRng::seed_from_u64(1));
    let with_key = |tenant: &str| {
        Credentials::new(pepper.clone()).with_key(ApiKeyEntry {
            groups: [].into(),
            id: key.id.clone(),
            tenant: TenantId::parse(tenant).unwrap(),
            hash: pepper.hash(&key.secret),
            scopes: Scopes::from_iter([Scope::Infer]),
            expires: None,
            revoked: false,
        })
    };
    let peer = peer();
    let both = |credentials: &Credentials| {
        let shown = Presented::Bearer(&key.text).over(Some(&peer));
        credentials.authenticate(shown, NOW)
    };
    // A certificate that stands for nobody, for the same tenant, and for another.
    assert!(both(&with_key("acme")).is_ok());
    let same = with_key("acme").with_certificate(entry("acme", "billing", dns("a.acme.test")));
    assert_eq!(both(&same).unwrap().certificate(), None);
    let other = with_key("globex").with_certificate(entry("acme", "billing", dns("a.acme.test")));
    assert_eq!(both(&other), Err(AuthError::Disagreeing));
    // A header that is wrong is not saved by a certificate that is right.
    let wrong = Presented::Bearer("mesh_live_x").over(Some(&peer));
    assert_eq!(same.authenticate(wrong, NOW), Err(AuthError::Invalid));
    let malformed = Presented::from_header(Some("Bearer ")).over(Some(&peer));
    assert_eq!(same.authenticate(malformed, NOW), Err(AuthError::Malformed));
    let another_scheme = Presented::from_header(Some("Basic eDp5")).over(Some(&peer));
    assert_eq!(same.authenticate(another_scheme, NOW), Err(AuthError::Missing));
}

#[test]
fn digests_are_read_exactly() {
    assert_eq!(CertificateName::digest(&"0a".repeat(32)), Some([10; 32]));
    for wrong in [
        "",
        "0a",
        &"0a".repeat(31),
        &"0a".repeat(33),
        &"0g".repeat(32),
        &"é".repeat(32),
    ] {
        assert_eq!(CertificateName::digest(wrong), None, "{wrong}");
    }
}
