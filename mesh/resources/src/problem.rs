//! What is wrong with a resource: each problem names its field.

use std::fmt;

use mesh_types::{NameError, VersionError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where, as a path such as `spec.arms[1].weight`.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl Problem {
    /// A problem with a field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

/// Why a kind, a key or an envelope cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// No such kind.
    #[error(
        "unknown kind '{0}': it is one of Tenant, Issuer, ApiKey, ClientCertificate, Model, ModelVersion, Endpoint, AdminToken, Policy (or tenants, issuers, keys, certificates, models, versions, endpoints, admin-tokens, policies)"
    )]
    UnknownKind(String),
    /// A kind within a tenant, without one.
    #[error("metadata.tenant: a {0} belongs to a tenant: say which")]
    TenantMissing(&'static str),
    /// A kind outside tenants, with one.
    #[error("metadata.tenant: a {0} belongs to no tenant: leave it out")]
    TenantUnexpected(&'static str),
    /// A name that is none.
    #[error("metadata.name: {0}")]
    Name(#[from] NameError),
    /// A version number that is none.
    #[error("metadata.name: {0}")]
    Version(#[from] VersionError),
    /// A model version's name without its number.
    #[error("metadata.name: '{0}' names no model version: write model/number, such as digits/1")]
    VersionName(String),
    /// A text that is no key.
    #[error("'{0}' is no resource key: write Kind/name or Kind/tenant/name, such as Endpoint/acme/digits")]
    Key(String),
}
