//! Keys and issuers as the router checks them. What cannot be read lets nobody in, and is said in the log.

use std::time::Duration;

use mesh_policies::{
    ApiKeyEntry, CertificateEntry, CertificateName, Credentials, IssuerEntry, IssuerKey, IssuerKeyError, KeyAlgorithm,
    KeyMaterial, Pepper, Scope, Scopes, TenantBinding,
};
use mesh_resources::{ApiKeySpec, CertificateIdentity, ClientCertificateSpec, IssuerKeySpec, IssuerSpec};
use mesh_types::{KeyId, TenantId};

use crate::records::Records;

pub(crate) fn compile(records: &Records, pepper: &Pepper) -> Credentials {
    let mut credentials = Credentials::new(pepper.clone());
    for ((tenant, key), spec) in &records.keys {
        match api_key(tenant, key, spec) {
            Some(entry) => credentials = credentials.with_key(entry),
            None => tracing::error!(%tenant, %key, "the hash of an API key cannot be read: nobody gets in with it"),
        }
    }
    for ((tenant, name), spec) in &records.certificates {
        match certificate(tenant, name, spec) {
            Some(entry) => credentials = credentials.with_certificate(entry),
            None => {
                tracing::error!(%tenant, %name, "the digest of a certificate cannot be read: nobody gets in with it")
            }
        }
    }
    for (name, spec) in &records.issuers {
        credentials = credentials.with_issuer(issuer(name, spec));
    }
    credentials
}

fn api_key(tenant: &TenantId, key: &KeyId, spec: &ApiKeySpec) -> Option<ApiKeyEntry> {
    Some(ApiKeyEntry {
        id: key.clone(),
        tenant: tenant.clone(),
        hash: spec.hash.parse().ok()?,
        scopes: scopes(&spec.scopes),
        expires: spec.expires.map(|expires| expires.as_second()),
        revoked: spec.revoked,
    })
}

fn scopes(scopes: &[mesh_resources::Scope]) -> Scopes {
    let scopes = scopes.iter().map(|scope| match scope {
        mesh_resources::Scope::Infer => Scope::Infer,
    });
    scopes.collect()
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
        expires: spec.expires.map(|expires| expires.as_second()),
        revoked: spec.revoked,
    })
}

fn issuer(name: &str, spec: &IssuerSpec) -> IssuerEntry {
    let keys = spec.keys.iter().filter_map(|spec| {
        issuer_key(spec)
            .inspect_err(|error| tracing::error!(issuer = name, %error, "a key of an issuer cannot be used"))
            .ok()
    });
    IssuerEntry {
        issuer: spec.issuer.clone(),
        audiences: spec.audiences.clone(),
        keys: keys.collect(),
        tenants: match &spec.tenants {
            mesh_resources::TenantBinding::Tenant(tenant) => TenantBinding::Tenant(tenant.clone()),
            mesh_resources::TenantBinding::Claim(claim) => TenantBinding::Claim(claim.clone()),
        },
        leeway: Duration::from_secs(spec.leeway_seconds),
    }
}

fn issuer_key(spec: &IssuerKeySpec) -> Result<IssuerKey, IssuerKeyError> {
    let algorithm = match spec.algorithm {
        mesh_resources::KeyAlgorithm::HS256 => KeyAlgorithm::HS256,
        mesh_resources::KeyAlgorithm::RS256 => KeyAlgorithm::RS256,
        mesh_resources::KeyAlgorithm::ES256 => KeyAlgorithm::ES256,
        mesh_resources::KeyAlgorithm::EdDSA => KeyAlgorithm::EdDSA,
    };
    let material = match (&spec.public_key_pem, &spec.secret_base64) {
        (Some(pem), None) => KeyMaterial::PublicKeyPem(pem),
        (None, Some(secret)) => KeyMaterial::SecretBase64(secret),
        _ => return Err(IssuerKeyError::Material),
    };
    IssuerKey::new(spec.key_id.clone(), algorithm, material)
}
