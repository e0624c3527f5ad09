//! What admins declare: the resource kinds, their envelope and their checks.
//!
//! Owns the shape of every resource as it is written in YAML, sent to the admin API and kept in the registry, and all checks
//! that need nothing but the resource itself. Whether what it refers to exists is the registry's to say; what follows from
//! it at run time is decided elsewhere. Knows no store, no wire and no clock.
//!
//! Invariants: an unknown field is an error, never ignored; every list and text has a named bound; a check tells everything
//! that is wrong at once; secrets are never shown by `Debug` or by [`Resource::redacted`].

mod access;
mod archive;
mod certificate;
mod endpoint;
mod envelope;
#[doc(hidden)]
pub mod fuzz;
mod key;
mod limits;
mod model;
mod policy;
mod problem;
mod recognise;
mod schema;
mod signature;
mod tenant;

pub use access::{
    AdminRole, AdminTokenSpec, ApiKeySpec, IssuerKeySpec, IssuerSpec, JwksSpec, KeyAlgorithm, MAX_GROUPS, REDACTED,
    Scope, TenantBinding, TokenProfile,
};
pub use archive::{MAX_ARCHIVE_ENTRIES, MAX_ARCHIVE_RATIO, MAX_ENTRY_NAME, archive_problem};
pub use certificate::{CertificateIdentity, ClientCertificateSpec, MAX_SPIFFE_ID};
pub use endpoint::{
    ALL_HUNDREDTHS, ArmSpec, CacheSpec, EndpointSpec, MAX_ARMS, MAX_CACHE_ENTRY_BYTES, MAX_CACHE_TTL_SECONDS,
    MAX_TIMEOUT_MS,
};
pub use envelope::{API_VERSION, Metadata, Resource, Spec};
pub use key::{Kind, ResourceKey};
pub use limits::{BudgetSpec, BudgetsSpec, Enforce, LimitsSpec, MarksSpec, RateSpec};
pub use model::{
    ArtifactRef, LabelMoves, MAX_GRANTS, MAX_LABELS, MAX_POLICY_VERSIONS, ModelSpec, ModelVersionSpec, VersionPolicy,
    VersionRef,
};
pub use policy::{MAX_CEDAR_BYTES, PolicySpec};
pub use problem::{Problem, ResourceError};
pub use recognise::recognise;
pub use schema::ModelConfigSchema;
pub use signature::{MAX_SIGNERS, ModelSignature, model_manifest};
pub use tenant::{Isolation, TenantSpec};

#[cfg(test)]
mod tests;
