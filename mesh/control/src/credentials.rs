//! Keys and issuers as the router checks them. What cannot be read lets nobody in, and is said in the log.
//!
//! The book of an issuer whose keys are fetched is carried over from the former credentials where the declaration is the same in
//! what decides them, so that no change of a record costs a fetch, or a request that comes before it. So is the last use of a key.

use std::{sync::Arc, time::Duration};

use mesh_policies::{
    ApiKeyEntry, CertificateEntry, CertificateName, Credentials, IssuerEntry, IssuerKey, IssuerKeyError, IssuerKeys,
    KeyAlgorithm, KeyBook, KeyLocation, KeyMaterial, Pepper, TenantBinding, TokenProfile,
};
use mesh_resources::{CertificateIdentity, ClientCertificateSpec, IssuerKeySpec, IssuerSpec, JwksSpec};
use mesh_types::{KeyId, MAX_ISSUER_KEYS, TenantId};

use crate::{
    compact::{KeyRecord, scopes},
    records::Records,
    since::Since,
};

pub(crate) fn compile(records: &Records, pepper: &Pepper, previous: &Credentials) -> Credentials {
    let mut credentials = Credentials::new(pepper.clone());
    for (name, spec) in &records.keys {
        credentials = with_key(credentials, name, spec, previous);
    }
    with_issuers(with_certificates(credentials, records), records, previous)
}

/// The same from those that were compiled from the records at the revision that these know what is other since: only that is looked at.
pub(crate) fn follow(records: &Records, since: &Since, previous: &Credentials) -> Credentials {
    let mut credentials = previous.clone();
    for name in &since.keys {
        credentials = credentials.without_key(&name.0, &name.1);
        if let Some(spec) = records.keys.get(name) {
            credentials = with_key(credentials, name, spec, previous);
        }
    }
    if since.certificates {
        credentials = with_certificates(credentials.without_certificates(), records);
    }
    if since.issuers {
        credentials = with_issuers(credentials.without_issuers(), records, previous);
    }
    credentials
}

fn with_key(
    credentials: Credentials,
    (tenant, key): &(TenantId, KeyId),
    record: &KeyRecord,
    previous: &Credentials,
) -> Credentials {
    let Some(entry) = api_key(tenant, key, record) else {
        tracing::error!(%tenant, %key, "the hash of an API key cannot be read: nobody gets in with it");
        return credentials;
    };
    let last_use = previous.last_use(&entry);
    credentials.with_used_key(entry, last_use)
}

fn with_certificates(mut credentials: Credentials, records: &Records) -> Credentials {
    for ((tenant, name), spec) in &records.certificates {
        match certificate(tenant, name, spec) {
            Some(entry) => credentials = credentials.with_certificate(entry),
            None => {
                tracing::error!(%tenant, %name, "the digest of a certificate cannot be read: nobody gets in with it");
            }
        }
    }
    credentials
}

fn with_issuers(mut credentials: Credentials, records: &Records, previous: &Credentials) -> Credentials {
    for (name, spec) in &records.issuers {
        credentials = credentials.with_issuer(issuer(name, spec, previous));
    }
    credentials
}

fn api_key(tenant: &TenantId, key: &KeyId, record: &KeyRecord) -> Option<ApiKeyEntry> {
    Some(ApiKeyEntry {
        groups: record.groups.clone(),
        id: key.clone(),
        tenant: tenant.clone(),
        hash: record.hash?,
        scopes: record.scopes,
        expires: record.expires,
        revoked: record.revoked,
    })
}

fn certificate(tenant: &TenantId, name: &KeyId, spec: &ClientCertificateSpec) -> Option<CertificateEntry> {
    Some(CertificateEntry {
        name: name.clone(),
        tenant: tenant.clone(),
        identity: match &spec.identity {
            CertificateIdentity::Spiffe(id) => CertificateName::Spiffe(id.clone()),
            CertificateIdentity::Dns(name) => CertificateName::Dns(name.clone()),
            CertificateIdentity::SpkiSha256(digest) => CertificateName::Key(CertificateName::digest(digest)?),
        },
        scopes: scopes(&spec.scopes),
        groups: spec.groups.iter().map(|group| group.as_str().into()).collect(),
        expires: spec.expires.map(|expires| expires.as_second()),
        revoked: spec.revoked,
    })
}

fn issuer(name: &str, spec: &IssuerSpec, previous: &Credentials) -> IssuerEntry {
    let keys = match &spec.jwks {
        Some(jwks) => IssuerKeys::Fetched(book(name, &spec.issuer, jwks, previous)),
        None => IssuerKeys::Declared(declared(name, spec)),
    };
    IssuerEntry {
        issuer: spec.issuer.clone(),
        audiences: spec.audiences.clone(),
        keys,
        tenants: match &spec.tenants {
            mesh_resources::TenantBinding::Tenant(tenant) => TenantBinding::Tenant(tenant.clone()),
            mesh_resources::TenantBinding::Claim(claim) => TenantBinding::Claim(claim.clone()),
        },
        profile: match spec.profile {
            mesh_resources::TokenProfile::Rfc9068 => TokenProfile::Rfc9068,
            mesh_resources::TokenProfile::Rfc7519 => TokenProfile::Rfc7519,
        },
        leeway: Duration::from_secs(spec.leeway_seconds),
    }
}

fn declared(name: &str, spec: &IssuerSpec) -> Vec<IssuerKey> {
    if spec.keys.len() > MAX_ISSUER_KEYS {
        // It was stored when there was another bound.
        tracing::warn!(
            issuer = name,
            keys = spec.keys.len(),
            "an issuer has more keys than may be: the first {MAX_ISSUER_KEYS} are used"
        );
    }
    let keys = spec.keys.iter().take(MAX_ISSUER_KEYS).filter_map(|spec| {
        issuer_key(spec)
            .inspect_err(|error| tracing::error!(issuer = name, %error, "a key of an issuer cannot be used"))
            .ok()
    });
    keys.collect()
}

fn book(name: &str, issuer: &str, jwks: &JwksSpec, previous: &Credentials) -> Arc<KeyBook> {
    let location = match &jwks.url {
        Some(url) => KeyLocation::KeySet(url.clone()),
        None => KeyLocation::Discovered,
    };
    let allowed: Vec<KeyAlgorithm> = jwks.algorithms.iter().map(|spec| algorithm(*spec)).collect();
    let known = previous
        .books()
        .chain(previous.kept_books())
        .find(|book| book.is_for(name, issuer, &location, &allowed));
    let made = || Arc::new(KeyBook::new(name, issuer, location.clone(), allowed.clone()));
    known.cloned().unwrap_or_else(made)
}

fn algorithm(spec: mesh_resources::KeyAlgorithm) -> KeyAlgorithm {
    match spec {
        mesh_resources::KeyAlgorithm::HS256 => KeyAlgorithm::HS256,
        mesh_resources::KeyAlgorithm::RS256 => KeyAlgorithm::RS256,
        mesh_resources::KeyAlgorithm::PS256 => KeyAlgorithm::PS256,
        mesh_resources::KeyAlgorithm::ES256 => KeyAlgorithm::ES256,
        mesh_resources::KeyAlgorithm::EdDSA => KeyAlgorithm::EdDSA,
    }
}

fn issuer_key(spec: &IssuerKeySpec) -> Result<IssuerKey, IssuerKeyError> {
    let material = match (&spec.public_key_pem, &spec.secret_base64) {
        (Some(pem), None) => KeyMaterial::PublicKeyPem(pem),
        (None, Some(secret)) => KeyMaterial::SecretBase64(secret),
        _ => return Err(IssuerKeyError::Material),
    };
    IssuerKey::new(spec.key_id.clone(), algorithm(spec.algorithm), material)
}

#[cfg(test)]
mod tests {
    use mesh_policies::{AuthError, Presented};
    use mesh_resources::Resource;

    use super::*;
    use crate::samples;

    fn of(revision: u64, spec: &str, previous: &Credentials) -> Credentials {
        let text = format!(r#"{{"apiVersion":"mesh/v1","kind":"Issuer","metadata":{{"name":"sso"}},"spec":{spec}}}"#);
        let resource: Resource = serde_json::from_str(&text).unwrap();
        compile(&samples::records(revision, &[resource]), &Pepper::default(), previous)
    }

    fn fetched(more: &str) -> String {
        format!(
            r#"{{"issuer":"https://sso.example","audiences":["mesh"],"tenants":{{"tenant":"acme"}},"jwks":{{{more}}}}}"#
        )
    }

    #[test]
    fn a_stored_issuer_with_more_keys_than_may_be_still_loads_with_the_first_of_them() {
        let keys: Vec<String> = (0..=MAX_ISSUER_KEYS)
            .map(|index| {
                let secret = format!("{index:0>42}A");
                format!(r#"{{"key_id":"k{index}","algorithm":"HS256","secret_base64":"{secret}="}}"#)
            })
            .collect();
        // As it was written before there were profiles and fetched keys.
        let spec = format!(
            r#"{{"issuer":"https://sso.example","audiences":["mesh"],"keys":[{}],"tenants":{{"tenant":"acme"}},"leeway_seconds":30}}"#,
            keys.join(",")
        );
        let text = format!(r#"{{"apiVersion":"mesh/v1","kind":"Issuer","metadata":{{"name":"sso"}},"spec":{spec}}}"#);
        let resource: Resource = serde_json::from_str(&text).unwrap();
        assert_eq!(
            resource.problems().len(),
            1,
            "it could not be written any more: {:?}",
            resource.problems()
        );
        let mesh_resources::Spec::Issuer(spec) = &resource.spec else {
            panic!("no issuer")
        };
        assert_eq!(declared("sso", spec).len(), MAX_ISSUER_KEYS);
    }

    #[test]
    fn a_book_is_carried_over_unless_the_declaration_of_its_keys_changes() {
        let first = of(1, &fetched(""), &Credentials::default());
        let book = first.books().next().unwrap().clone();
        let again = of(2, &fetched(""), &first);
        assert!(Arc::ptr_eq(again.books().next().unwrap(), &book));
        let audience = fetched("").replace("[\"mesh\"]", "[\"other\"]");
        assert!(Arc::ptr_eq(of(3, &audience, &first).books().next().unwrap(), &book));
        for other in [
            fetched(r#""url":"https://sso.example/keys""#),
            fetched(r#""algorithms":["ES256"]"#),
            fetched("").replace("https://sso.example", "https://other.example"),
        ] {
            assert!(
                !Arc::ptr_eq(of(4, &other, &first).books().next().unwrap(), &book),
                "{other}"
            );
        }
        let nobody = first.authenticate(Presented::Bearer("x"), 0);
        assert_eq!(nobody.unwrap_err(), AuthError::Invalid);
    }
}
