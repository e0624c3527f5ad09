//! The router: from a decoded call to a job on a device, and back.
//!
//! Owns the request pipeline ([`RouterActor`] runs it on every front-door arbiter), the choice of a device and what is told
//! about a request ([`Account`]). Knows neither a wire format nor the worker nor the registry: doors bring [`Call`]s, devices
//! stand behind [`Workers`], and configuration is the snapshot that somebody else publishes.
//!
//! ```text
//! Call -> [ authenticate -> admit -> choose -> place -> dispatch ] -> reply -> Answer
//!            one snapshot per request, in the actor's handler         awaited by the caller
//! ```
//!
//! What is asked about models ([`RouterHandle::describe`], [`RouterHandle::statistics`], [`RouterHandle::index`]) is answered from
//! the same snapshot and for the same caller, without the pipeline. A door that must know a model before it can read a body takes a
//! [`View`], by which both are done.
//!
//! A request of an endpoint with a cache may be answered from there after `choose` ([`cache`]), like any other for limits and counts.
//!
//! A request of an ensemble goes from `choose` to [`graph`], which places and dispatches a job for each step.
//!
//! A request of a decoupled model has any number of answers: it is begun like any other, and its [`Answer`] becomes [`ManyAnswers`].
//!
//! Invariants: a request sees one snapshot; permits are held by the future of the answer, so dropping it releases them and
//! cancels the job; every call is answered by its deadline; an unknown name and a foreign one answer alike,
//! in words and in time.

mod account;
mod actor;
mod budget;
mod cache;
mod call;
mod control;
mod describe;
mod desk;
mod flight;
mod graph;
mod keys;
mod lap;
mod level;
mod local;
mod manage;
mod pipeline;
mod place;
mod regions;
mod request_ids;
mod sequences;
mod settings;
mod standing;
mod stream;
mod view;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
pub use mesh_policies::PeerCertificate;
use mesh_policies::{MeshSnapshot, access::Attempts, limits::Limiter};
use mesh_telemetry::Telemetry;
use mesh_types::{Clock, DeviceId, Fault, InferJob, JobOutcome, ModelVersionKey, VersionStatistics};

pub use account::Account;
pub use actor::{RouterActor, RouterHandle};
pub use budget::{Budget, Share};
pub use cache::{
    CacheBounds, CacheOutcome, CacheUse, DEFAULT_CACHE_BYTES, DEFAULT_TENANT_CACHE_BYTES, MAX_COUNTED_VERSIONS,
    ResponseCache,
};
pub use call::{Answer, Call, Completed, Credential};
pub use control::{CHANGE_TIMEOUT, Change, ChangeOrder, Controlled, Load, ModelControl, RepositoryEntry};
pub use describe::ModelDescription;
pub use graph::{Gates, MAX_STATES, MAX_WAITING, MAX_WAITING_TENANTS, infer_ensemble};
pub use keys::KEY_PATIENCE;
pub use level::{REFUSED_AFTER, is_levelled};
pub use local::{LocalTenant, PASSED_ON};
pub use manage::{IndexEntry, NamesPage, StatisticsEntry, state_of};
pub use mesh_policies::limits::Notice;
pub use regions::{
    CudaRegion, CudaRegistration, DeviceHandle, DeviceMemory, DeviceObject, HANDLE_BYTES, MAX_REGIONS,
    MAX_REGIONS_PER_TENANT, MemoryKind, RESERVED_KEY_PREFIX, Region, RegionError, Regions, RegionsConfig, Registration,
};
pub use request_ids::RequestIds;
pub use sequences::{Homes, MAX_HOMES};
pub use stream::{ManyAnswers, Room};
pub use view::{Undescribed, View};

/// The answer of a device; dropping it cancels the job.
pub type WorkerReply = Pin<Box<dyn Future<Output = Result<JobOutcome, Fault>> + Send>>;

/// The devices.
pub trait Workers: Send + Sync + 'static {
    /// Hands a job to a device; refused at once if the device is full or gone. A decoupled model's answers go where the job
    /// says, and the reply, which has no outputs then, is their end.
    fn submit(&self, device: DeviceId, job: InferJob) -> Result<WorkerReply, Fault>;

    /// What they have done so far with a version; nothing where no device has it, or nobody counts.
    fn statistics(&self, _: &ModelVersionKey) -> VersionStatistics {
        VersionStatistics::default()
    }
}

/// What a router is made of; shared by those of all threads.
#[derive(Clone)]
pub struct RouterParts {
    /// The configuration that requests follow.
    pub snapshots: Arc<ArcSwap<MeshSnapshot>>,
    /// Limits' state; it outlives snapshots.
    pub limiter: Arc<Limiter>,
    /// How many tokens addresses may have checked.
    pub attempts: Arc<Attempts>,
    /// The devices.
    pub workers: Arc<dyn Workers>,
    /// Bounds on requests in a step of an ensemble; they outlive snapshots.
    pub gates: Arc<Gates>,
    /// Answers that are remembered for endpoints that say so; it outlives snapshots.
    pub cache: Arc<ResponseCache>,
    /// Where open sequences have their state; it outlives snapshots.
    pub sequences: Arc<Homes>,
    /// Shared memory that callers have registered; it outlives snapshots.
    pub regions: Arc<Regions>,
    /// Whether callers may change what is traced and logged.
    pub client_settings: bool,
    /// Where requests are told.
    pub telemetry: Telemetry,
    /// Now.
    pub clock: Arc<dyn Clock>,
    /// The deadline of a call that brings none, to an endpoint that has none.
    pub default_timeout: Duration,
    /// The most calls at once in one router; one more is refused.
    pub max_in_flight: usize,
}

#[cfg(test)]
mod tests;
