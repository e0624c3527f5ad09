//! Pure decisions, the clock passed in: who may, how much, and which version.
//!
//! Owns the [`MeshSnapshot`] that a request is decided by, authentication ([`access`]), authorization ([`authorization`]), tenants'
//! limits ([`limits`]), the split of an endpoint ([`traffic`]), models made of other models ([`graph`]) and the keys of signatures
//! ([`signing`]). Knows no runtime, no wire format and no store: control compiles a snapshot, routers ask it, and nothing here reads
//! a clock or an environment of its own.
//!
//! Invariants: an empty snapshot lets nobody in; one snapshot decides a whole request; only the limiter's counters, the memories
//! of verified tokens and of decisions, and the books of issuers' keys change behind a shared reference, and only the books, which
//! hold what an issuer publishes, can make a decision another one.

pub mod access;
pub mod authorization;
#[doc(hidden)]
pub mod fuzz;
pub mod graph;
pub mod limits;
pub mod placement;
pub mod request_bounds;
mod shards;
pub mod signing;
pub mod snapshot;
pub mod tenants;
pub mod traffic;

pub use access::{
    ApiKeyEntry, AuthError, CertificateEntry, CertificateName, Credentials, GeneratedKey, IssuerEntry, IssuerKey,
    IssuerKeyError, IssuerKeys, KeyAlgorithm, KeyBook, KeyLocation, KeyMaterial, KeySet, Moment, PeerCertificate,
    Pepper, Presented, Principal, Scope, Scopes, SecretHash, TenantBinding, TokenProfile, generate_admin_token,
    generate_api_key, hash_secret,
};
pub use limits::{Admission, LimitError, Limiter, Limits, Rate, TenantLimits};
pub use request_bounds::RequestBounds;
pub use signing::{PublicKey, Signature, SigningError, SigningKey};
pub use snapshot::{MeshSnapshot, ModelEntry, Target, TenantEntry, VersionEntry, VersionPhase};
pub use tenants::Tenants;
pub use traffic::{Arm, CacheRule, Route};
