//! What the admin door needs from the rest of the program, as traits that its assembler implements.

use std::{borrow::Cow, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use mesh_policies::{Limiter, Pepper, VersionEntry, access::BookView};
use mesh_registry::RegistryHandle;
use mesh_telemetry::Telemetry;
use mesh_types::{
    Clock, DeviceId, EndpointId, Fault, InferJob, JobOutcome, KeyId, LoadProgress, LoadReport, ModelId,
    ModelVersionKey, Parameters, TenantId, Version,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::SignIn;

/// Everything that the admin door is made of.
#[derive(Clone)]
pub struct AdminParts {
    /// What should be true.
    pub registry: RegistryHandle,
    /// The live numbers.
    pub telemetry: Telemetry,
    /// What devices hold.
    pub fleet: Arc<dyn FleetView>,
    /// How the doors speak TLS.
    pub doors: Arc<dyn DoorsView>,
    /// What issuers have published.
    pub issuers: Arc<dyn IssuerView>,
    /// When keys were last used.
    pub key_uses: Arc<dyn KeyUseView>,
    /// How people sign in with an identity provider, where they can.
    pub sign_in: Option<SignIn>,
    /// How inputs are tried out.
    pub probe: Arc<dyn Probe>,
    /// Answers that are remembered.
    pub cache: Arc<dyn AnswerCache>,
    /// What secrets are hashed with.
    pub pepper: Pepper,
    /// Where now comes from.
    pub clock: Arc<dyn Clock>,
    /// What tenants use.
    pub limiter: Arc<Limiter>,
}

/// Answers that are remembered for endpoints that say so.
pub trait AnswerCache: Send + Sync + 'static {
    /// Forgets those of an endpoint, or of all that the tenant has. Must not block.
    fn purge(&self, tenant: &TenantId, endpoint: Option<&EndpointId>) -> Purged;
}

/// What was forgotten.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Purged {
    /// Answers.
    pub entries: u64,
    /// The bytes that they took.
    pub bytes: u64,
}

/// Sees the devices.
pub trait FleetView: Send + Sync + 'static {
    /// Every device and what it holds, now. Must not block.
    fn devices(&self) -> Vec<DeviceView>;
    /// The same with everything that is known of them. Must not block.
    fn inspect(&self) -> Vec<DeviceFacts>;
    /// An ensemble as requests find it now, ready or not; none if there is none of this key. Must not block.
    fn ensemble(&self, key: &ModelVersionKey) -> Option<Arc<VersionEntry>>;
    /// Lets a device take no new requests, or take them again; done once it does.
    fn drain(&self, device: DeviceId, draining: bool) -> BoxFuture<'static, Result<(), Fault>>;
    /// Brings a version into the memory of every device that has it; done once it is warm there, and which these are.
    fn warm_up(&self, version: ModelVersionKey) -> BoxFuture<'static, Result<Vec<DeviceId>, Fault>>;
}

/// Sees how the doors speak TLS.
pub trait DoorsView: Send + Sync + 'static {
    /// Every door by name, and what it serves with; none where it speaks none. Must not block.
    fn shown(&self) -> Vec<(&'static str, Option<mesh_tls::Shown>)>;
}

/// Sees the keys of issuers that publish theirs.
pub trait IssuerView: Send + Sync + 'static {
    /// What is known now of the keys of the issuer that is declared by this name; none where they are not fetched. Must not block.
    fn fetched_keys(&self, issuer: &str, now_unix: i64) -> Option<BookView>;
}

/// Sees when API keys were last used.
pub trait KeyUseView: Send + Sync + 'static {
    /// The minute of a key's last use, in Unix seconds; none where it never was used. Must not block.
    fn last_used(&self, tenant: &TenantId, key: &KeyId) -> Option<i64>;
}

/// Everything that is known of a device, as it was counted.
#[derive(Debug, Clone)]
pub struct DeviceFacts {
    /// Which.
    pub device: DeviceId,
    /// At most so many executions at once.
    pub threads: usize,
    /// Threads given up because an execution hangs on them.
    pub abandoned: usize,
    /// Whether it takes no new requests.
    pub draining: bool,
    /// Requests accepted and not yet answered.
    pub in_flight: u64,
    /// Memory of the host that the states of sequences take.
    pub sequence_state_bytes: u64,
    /// The most bytes that models may take there; none: no bound.
    pub budget: Option<u64>,
    /// How long it has been there.
    pub up: Duration,
    /// How long its threads were busy, all together.
    pub busy: Duration,
    /// What it holds or is about to.
    pub models: Vec<ModelFacts>,
    /// The device's time by tenant.
    pub tenants: Vec<(TenantId, Duration)>,
    /// The time of tenants that are not counted one by one.
    pub other_tenants: Duration,
}

/// One version on a device.
#[derive(Debug, Clone)]
pub struct ModelFacts {
    /// Which, and how far it is.
    pub held: HeldModel,
    /// Requests that waited when the last batch was taken.
    pub waiting: u64,
    /// What it has done since it was loaded.
    pub numbers: ModelNumbers,
    /// What loading it came to.
    pub load: LoadReport,
}

/// What a version has done on a device since it was loaded.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModelNumbers {
    /// Requests answered with outputs.
    pub requests: u64,
    /// Requests that the model or the device failed.
    pub failed: u64,
    /// Rows answered with outputs.
    pub rows: u64,
    /// Executions, those that failed included.
    pub executions: u64,
    /// Executions that ended well.
    pub ended_well: u64,
    /// The sum of the latencies of the requests answered, from their arrival on the device.
    pub latency: Duration,
    /// The part of it that they waited.
    pub queue: Duration,
    /// The part of it that the model ran.
    pub compute: Duration,
    /// Requests whose caller went before they ran.
    pub cancelled: u64,
    /// Requests whose deadline passed before they ran.
    pub expired: u64,
    /// Requests that were refused.
    pub rejected: u64,
    /// Requests whose answer held NaN or infinity, where that is looked for.
    pub non_finite: u64,
    /// Batches that ended in a crash.
    pub crashed: u64,
    /// Executions that found no memory.
    pub out_of_memory: u64,
    /// Loads that ended well.
    pub loads: u64,
    /// Loads that failed.
    pub load_failures: u64,
    /// How often it left memory for another's sake.
    pub evictions: u64,
    /// How often it left memory because it was idle.
    pub idle_unloads: u64,
    /// What was foretold for its batches.
    pub predicted: Duration,
    /// By how much that was off, each batch's error taken as positive.
    pub prediction_error: Duration,
    /// Its sequences, where it is stateful.
    pub sequences: Option<SequenceNumbers>,
}

/// The sequences of a stateful version on a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct SequenceNumbers {
    /// Open now, those included that wait for a seat.
    pub open: u64,
    /// Of these, those that wait for a seat.
    pub backlog: u64,
    /// Ended by their callers.
    pub ended: u64,
    /// Ended because no request came for too long.
    pub idle: u64,
    /// Ended because their first request was not run.
    pub not_begun: u64,
    /// Ended because the instance that held their state is gone.
    pub lost: u64,
    /// Ended because their device was drained or their model unloaded.
    pub closed: u64,
}

/// Runs one job on a version, wherever it is ready.
pub trait Probe: Send + Sync + 'static {
    /// The job's inputs are checked against the version's configuration; the parameters are the request's, which decide ways
    /// through an ensemble. Dropping the future cancels it.
    fn infer(&self, job: InferJob, parameters: Parameters) -> BoxFuture<'static, Result<JobOutcome, Fault>>;
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DeviceView {
    /// Which, such as `cpu:0`.
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// Whether it takes no new requests.
    pub draining: bool,
    /// What it holds or is about to.
    pub models: Vec<HeldModel>,
}

/// A model version on a device.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct HeldModel {
    /// The owner.
    #[schema(value_type = String)]
    pub tenant: TenantId,
    /// The model.
    #[schema(value_type = String)]
    pub model: ModelId,
    /// Its version.
    #[schema(value_type = u32)]
    pub version: Version,
    /// How far it is.
    pub state: LoadState,
    /// Why it is not ready, where it failed, is quarantined or is not in memory.
    pub reason: Option<String>,
    /// What it takes, where that is known.
    pub memory_bytes: Option<u64>,
    /// What its largest batch takes besides, where that was measured.
    pub peak_bytes: Option<u64>,
    /// How long its last load took, in seconds.
    pub load_seconds: Option<f64>,
    /// How far its load is, if one is wanted or under way.
    pub progress: Option<Progress>,
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Progress {
    /// `waiting`, `loading` or `warming`.
    pub stage: String,
    /// The instance that it is at, counted from 1.
    pub instance: u32,
    /// Instances in all.
    pub instances: u32,
    /// Bytes of the instances loaded so far.
    pub bytes: u64,
    /// The batch size that it is warming.
    pub rows: Option<u32>,
    /// The warm-up record that it is at.
    pub record: Option<String>,
}

impl From<LoadProgress> for Progress {
    fn from(progress: LoadProgress) -> Self {
        Self {
            stage: progress.stage.as_str().to_owned(),
            instance: progress.instance,
            instances: progress.instances,
            bytes: progress.bytes,
            rows: progress.rows,
            record: progress.record,
        }
    }
}

/// How far a version is on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum LoadState {
    /// Being read and warmed up.
    Loading,
    /// Answering.
    Ready,
    /// Not in memory; a request for it waits while it is loaded.
    Standby,
    /// Being loaded because a request waits for it, or on a hint.
    Waking,
    /// On its way out.
    Unloading,
    /// Loaded, but kept from the device for a while because it crashed again and again.
    Quarantined,
    /// Could not be loaded.
    Failed,
}

/// The files of the web app.
pub trait Assets: Send + Sync + 'static {
    /// The file at a path without a leading slash, such as `index.html` or `assets/app-1a2b3c.js`.
    fn get(&self, path: &str) -> Option<Asset>;
}

/// One file of the web app.
#[derive(Debug, Clone)]
pub struct Asset {
    /// What is in it.
    pub bytes: Cow<'static, [u8]>,
    /// Its media type.
    pub content_type: Cow<'static, str>,
}
