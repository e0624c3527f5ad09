//! Where a resource is in the admin API, and how a person may name it.

use mesh_resources::{Kind, ResourceKey};
use mesh_types::TenantId;

use crate::Failure;

/// The path of a resource below the API's root. Names have a grammar that needs no escaping.
pub(crate) fn of(key: &ResourceKey) -> String {
    match (&key.tenant, key.kind) {
        (Some(tenant), Kind::ModelVersion) => {
            let (model, number) = key.name.split_once('/').unwrap_or((&key.name, ""));
            format!("/tenants/{tenant}/models/{model}/versions/{number}")
        }
        (Some(tenant), kind) => format!("/tenants/{tenant}/{}/{}", kind.plural(), key.name),
        (None, kind) => format!("/{}/{}", kind.plural(), key.name),
    }
}

/// The key that a person means by `NAME` or `TENANT/NAME`, with or without `--tenant`.
pub(crate) fn key(kind: Kind, name: &str, tenant: Option<&TenantId>) -> Result<ResourceKey, Failure> {
    let refused = |error: mesh_resources::ResourceError| Failure::refused(error.to_string());
    if !kind.is_namespaced() {
        return ResourceKey::new(kind, None, name).map_err(refused);
    }
    if let Some(tenant) = tenant {
        return ResourceKey::new(kind, Some(tenant.clone()), name).map_err(refused);
    }
    let parts = name
        .split_once('/')
        .filter(|(_, rest)| kind != Kind::ModelVersion || rest.contains('/'));
    let Some((tenant, name)) = parts else {
        return Err(Failure::refused(format!(
            "which tenant's {kind}? write --tenant TENANT, or TENANT/{name}"
        )));
    };
    let tenant = TenantId::parse(tenant).map_err(|error| Failure::refused(error.to_string()))?;
    ResourceKey::new(kind, Some(tenant), name).map_err(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_path() {
        for (text, path) in [
            ("Tenant/acme", "/tenants/acme"),
            ("Issuer/idp", "/issuers/idp"),
            ("ApiKey/acme/ab12", "/tenants/acme/keys/ab12"),
            ("ClientCertificate/acme/billing", "/tenants/acme/certificates/billing"),
            ("Model/acme/digits", "/tenants/acme/models/digits"),
            ("ModelVersion/acme/digits/3", "/tenants/acme/models/digits/versions/3"),
            ("Endpoint/acme/digits", "/tenants/acme/endpoints/digits"),
            ("AdminToken/root", "/admin-tokens/root"),
            ("Policy/lockdown", "/policies/lockdown"),
        ] {
            assert_eq!(of(&text.parse().unwrap()), path);
        }
    }

    #[test]
    fn the_tenant_comes_from_the_option_or_the_name() {
        let acme = TenantId::parse("acme").unwrap();
        let digits = key(Kind::Endpoint, "digits", Some(&acme)).unwrap();
        assert_eq!(key(Kind::Endpoint, "acme/digits", None).unwrap(), digits);
        let version = key(Kind::ModelVersion, "digits/3", Some(&acme)).unwrap();
        assert_eq!(key(Kind::ModelVersion, "acme/digits/3", None).unwrap(), version);
        assert!(key(Kind::ModelVersion, "digits/3", None).is_err());
        assert!(
            key(Kind::Endpoint, "digits", None)
                .unwrap_err()
                .to_string()
                .contains("--tenant")
        );
        assert_eq!(key(Kind::Tenant, "acme", None).unwrap().to_string(), "Tenant/acme");
    }
}
