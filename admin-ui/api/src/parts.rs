//! What the admin door needs from the rest of the program, as traits that its assembler implements.

use std::{borrow::Cow, sync::Arc};

use futures::future::BoxFuture;
use mesh_policies::Pepper;
use mesh_registry::RegistryHandle;
use mesh_telemetry::Telemetry;
use mesh_types::{Clock, DeviceId, Fault, InferJob, JobOutcome, ModelId, TenantId, Version};
use serde::Serialize;
use utoipa::ToSchema;

/// Everything that the admin door is made of.
#[derive(Clone)]
pub struct AdminParts {
    /// What should be true.
    pub registry: RegistryHandle,
    /// The live numbers.
    pub telemetry: Telemetry,
    /// What devices hold.
    pub fleet: Arc<dyn FleetView>,
    /// How inputs are tried out.
    pub probe: Arc<dyn Probe>,
    /// What secrets are hashed with.
    pub pepper: Pepper,
    /// Where now comes from.
    pub clock: Arc<dyn Clock>,
}

/// Sees the devices.
pub trait FleetView: Send + Sync + 'static {
    /// Every device and what it holds, now. Must not block.
    fn devices(&self) -> Vec<DeviceView>;
}

/// Runs one job on a version, wherever it is ready.
pub trait Probe: Send + Sync + 'static {
    /// The job's inputs are checked against the version's configuration. Dropping the future cancels it.
    fn infer(&self, job: InferJob) -> BoxFuture<'static, Result<JobOutcome, Fault>>;
}

/// One device.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct DeviceView {
    /// Which, such as `cpu:0`.
    #[schema(value_type = String)]
    pub device: DeviceId,
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
    /// Why it is not ready, where it failed.
    pub reason: Option<String>,
    /// What it takes, where that is known.
    pub memory_bytes: Option<u64>,
}

/// How far a version is on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum LoadState {
    /// Being read and warmed up.
    Loading,
    /// Answering.
    Ready,
    /// On its way out.
    Unloading,
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
