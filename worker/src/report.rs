//! What the worker says of itself, published on every change of a model's state.

use std::time::Duration;

use mesh_types::{DeviceId, LoadReport, ModelVersionKey};

/// Where a model stands on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Being loaded and warmed.
    Loading,
    /// Takes jobs.
    Ready,
    /// Takes no more jobs; those accepted are being finished.
    Unloading,
    /// Crashed again and again; refuses jobs until its cool-down is over.
    Quarantined,
    /// Failed to load, or has been lost.
    Unavailable,
}

/// One model on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReport {
    /// The version.
    pub key: ModelVersionKey,
    /// Its state.
    pub state: ModelState,
    /// Why it is unavailable, quarantined or loading again.
    pub reason: Option<String>,
    /// Memory of all its instances, in bytes.
    pub memory_bytes: u64,
    /// Batch sizes and what one execution of each took in warm-up, ascending.
    pub warm_up: Vec<(u32, Duration)>,
    /// What its runtime says of loading it: that of the first instance that was ready.
    pub load: LoadReport,
}

/// One device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceReport {
    /// The device.
    pub device: DeviceId,
    /// Whether it takes no new jobs: those that it has are finished, and its models stay.
    pub draining: bool,
    /// Its models, in the order of their keys.
    pub models: Vec<ModelReport>,
}

/// All devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkerReport {
    /// In the order of their ids.
    pub devices: Vec<DeviceReport>,
}
