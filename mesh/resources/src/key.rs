//! Kinds and keys: what a resource is called, everywhere.

use std::{fmt, str::FromStr};

use mesh_types::{EndpointId, KeyId, ModelId, ModelVersionKey, TenantId, Version};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::ResourceError;

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
pub enum Kind {
    /// A party that calls, is limited and is kept apart.
    Tenant,
    /// A source of JSON web tokens that is trusted.
    Issuer,
    /// An API key of a tenant; only its hash is kept.
    ApiKey,
    /// A caller of a tenant that is known by its certificate.
    ClientCertificate,
    /// A model of a tenant.
    Model,
    /// One version of a model.
    ModelVersion,
    /// A name that tenants call, and how its requests are split.
    Endpoint,
    /// A credential of an admin; only its hash is kept.
    AdminToken,
    /// Who may do what, in Cedar.
    Policy,
}

impl Kind {
    /// Every kind, those that others refer to first.
    pub const ALL: [Self; 9] = [
        Self::Tenant,
        Self::Issuer,
        Self::ApiKey,
        Self::ClientCertificate,
        Self::Model,
        Self::ModelVersion,
        Self::Endpoint,
        Self::AdminToken,
        Self::Policy,
    ];

    /// The name in the envelope.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tenant => "Tenant",
            Self::Issuer => "Issuer",
            Self::ApiKey => "ApiKey",
            Self::ClientCertificate => "ClientCertificate",
            Self::Model => "Model",
            Self::ModelVersion => "ModelVersion",
            Self::Endpoint => "Endpoint",
            Self::AdminToken => "AdminToken",
            Self::Policy => "Policy",
        }
    }

    /// The name in paths and commands.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Tenant => "tenants",
            Self::Issuer => "issuers",
            Self::ApiKey => "keys",
            Self::ClientCertificate => "certificates",
            Self::Model => "models",
            Self::ModelVersion => "versions",
            Self::Endpoint => "endpoints",
            Self::AdminToken => "admin-tokens",
            Self::Policy => "policies",
        }
    }

    /// Whether resources of this kind belong to a tenant.
    pub const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Tenant | Self::Issuer | Self::AdminToken | Self::Policy)
    }

    /// Reads a kind in the singular or plural, in any case.
    pub fn parse(text: &str) -> Result<Self, ResourceError> {
        let singular_of_path = |kind: Self| kind.plural().strip_suffix('s');
        let found = Self::ALL.into_iter().find(|kind| {
            text.eq_ignore_ascii_case(kind.as_str())
                || text.eq_ignore_ascii_case(kind.plural())
                || singular_of_path(*kind).is_some_and(|name| text.eq_ignore_ascii_case(name))
        });
        found.ok_or_else(|| ResourceError::UnknownKind(text.chars().take(64).collect()))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ResourceError;
    fn from_str(text: &str) -> Result<Self, ResourceError> {
        Self::parse(text)
    }
}

/// Names one resource. Written `Endpoint/acme/digits`, `Tenant/acme`, `ModelVersion/acme/digits/3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceKey {
    /// The kind.
    pub kind: Kind,
    /// The tenant it belongs to, for kinds that do.
    pub tenant: Option<TenantId>,
    /// Its name; for a model version `model/number`.
    pub name: String,
}

impl ResourceKey {
    /// Checks that the parts fit the kind.
    pub fn new(kind: Kind, tenant: Option<TenantId>, name: &str) -> Result<Self, ResourceError> {
        match (kind.is_namespaced(), &tenant) {
            (true, None) => return Err(ResourceError::TenantMissing(kind.as_str())),
            (false, Some(_)) => return Err(ResourceError::TenantUnexpected(kind.as_str())),
            _ => {}
        }
        match kind {
            Kind::ModelVersion => drop(split_version(name)?),
            // All names have one grammar; the type decides how a bad one is called in the message.
            Kind::Tenant => drop(TenantId::parse(name)?),
            Kind::ApiKey | Kind::ClientCertificate | Kind::Issuer | Kind::AdminToken | Kind::Policy => {
                drop(KeyId::parse(name)?);
            }
            Kind::Model => drop(ModelId::parse(name)?),
            Kind::Endpoint => drop(EndpointId::parse(name)?),
        }
        Ok(Self {
            kind,
            tenant,
            name: name.to_owned(),
        })
    }

    /// A tenant's key.
    pub fn tenant(tenant: &TenantId) -> Self {
        Self::unchecked(Kind::Tenant, None, tenant)
    }

    /// An issuer's key.
    pub fn issuer(name: &KeyId) -> Self {
        Self::unchecked(Kind::Issuer, None, name)
    }

    /// An admin token's key.
    pub fn admin_token(name: &KeyId) -> Self {
        Self::unchecked(Kind::AdminToken, None, name)
    }

    /// A policy's key.
    pub fn policy(name: &KeyId) -> Self {
        Self::unchecked(Kind::Policy, None, name)
    }

    /// An API key's key.
    pub fn api_key(tenant: &TenantId, key: &KeyId) -> Self {
        Self::unchecked(Kind::ApiKey, Some(tenant), key)
    }

    /// A model's key.
    pub fn model(tenant: &TenantId, model: &ModelId) -> Self {
        Self::unchecked(Kind::Model, Some(tenant), model)
    }

    /// A model version's key.
    pub fn version(version: &ModelVersionKey) -> Self {
        let name = format!("{}/{}", version.model, version.version);
        Self::unchecked(Kind::ModelVersion, Some(&version.tenant), &name)
    }

    /// An endpoint's key.
    pub fn endpoint(tenant: &TenantId, endpoint: &EndpointId) -> Self {
        Self::unchecked(Kind::Endpoint, Some(tenant), endpoint)
    }

    // For names that have passed their type's grammar.
    fn unchecked(kind: Kind, tenant: Option<&TenantId>, name: &impl fmt::Display) -> Self {
        Self {
            kind,
            tenant: tenant.cloned(),
            name: name.to_string(),
        }
    }

    /// The model version that this names, if it names one.
    pub fn as_version(&self) -> Option<ModelVersionKey> {
        let (model, version) = split_version(&self.name).ok()?;
        let tenant = self.tenant.clone().filter(|_| self.kind == Kind::ModelVersion)?;
        Some(ModelVersionKey { tenant, model, version })
    }
}

/// Reads `model/number`.
fn split_version(name: &str) -> Result<(ModelId, Version), ResourceError> {
    let parts = name.split_once('/');
    let (model, number) = parts.ok_or_else(|| ResourceError::VersionName(name.chars().take(80).collect()))?;
    Ok((ModelId::parse(model)?, number.parse()?))
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.tenant {
            Some(tenant) => write!(f, "{}/{tenant}/{}", self.kind, self.name),
            None => write!(f, "{}/{}", self.kind, self.name),
        }
    }
}

impl FromStr for ResourceKey {
    type Err = ResourceError;

    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let unreadable = || ResourceError::Key(text.chars().take(200).collect());
        let (kind, rest) = text.split_once('/').ok_or_else(unreadable)?;
        let kind = Kind::parse(kind)?;
        if !kind.is_namespaced() {
            return Self::new(kind, None, rest);
        }
        let (tenant, name) = rest.split_once('/').ok_or_else(unreadable)?;
        Self::new(kind, Some(TenantId::parse(tenant)?), name)
    }
}

impl Serialize for ResourceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ResourceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
