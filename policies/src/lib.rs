//! Pure decisions, the clock passed in: who may, how much, and which version.
//!
//! Owns the [`MeshSnapshot`] that a request is decided by, authentication ([`access`]), tenants' limits ([`limits`]), the split
//! of an endpoint ([`traffic`]) and models made of other models ([`graph`]). Knows no runtime, no wire format and no store: control compiles a snapshot, routers
//! ask it, and nothing here reads a clock or an environment of its own.
//!
//! Invariants: an empty snapshot lets nobody in; one snapshot decides a whole request; only the limiter's counters and the
//! memory of verified tokens change behind a shared reference, and neither can make a decision that the rules would not.

pub mod access;
#[doc(hidden)]
pub mod fuzz;
pub mod graph;
pub mod limits;
pub mod placement;
pub mod snapshot;
pub mod traffic;

pub use access::{
    ApiKeyEntry, AuthError, CertificateEntry, CertificateName, Credentials, GeneratedKey, IssuerEntry, IssuerKey,
    IssuerKeyError, KeyAlgorithm, KeyMaterial, PeerCertificate, Pepper, Presented, Principal, Scope, Scopes,
    SecretHash, TenantBinding, generate_admin_token, generate_api_key, hash_secret,
};
pub use limits::{Admission, LimitError, Limiter, Rate, TenantLimits};
pub use snapshot::{MeshSnapshot, ModelEntry, Target, TenantEntry, VersionEntry, VersionPhase};
pub use traffic::{Arm, CacheRule, Route};
