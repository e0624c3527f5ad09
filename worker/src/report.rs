//! What the worker says of itself, published on every change of a model's state.

use std::time::Duration;

use mesh_types::{DeviceId, LoadProgress, LoadReport, ModelVersionKey};

/// Where a model stands on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Being loaded and warmed.
    Loading,
    /// Takes jobs.
    Ready,
    /// Not in memory; a job for it is taken, and waits while it is loaded.
    Standby,
    /// Being loaded because a job waits for it, or on a hint; takes jobs.
    Waking,
    /// Takes no more jobs; those accepted are being finished.
    Unloading,
    /// Crashed again and again; refuses jobs until its cool-down is over.
    Quarantined,
    /// Failed to load, or has been lost.
    Unavailable,
}

impl ModelState {
    /// Whether a job for it is taken.
    pub fn takes_jobs(self) -> bool {
        matches!(self, Self::Ready | Self::Standby | Self::Waking)
    }
}

/// One model on one device.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelReport {
    /// The version.
    pub key: ModelVersionKey,
    /// Its state.
    pub state: ModelState,
    /// Why it is unavailable, quarantined, not in memory or loading again.
    pub reason: Option<String>,
    /// Memory of all its instances, in bytes; nothing while it is not in memory.
    pub memory_bytes: u64,
    /// Further bytes that an instance's largest batch takes, as warm-up has shown.
    pub peak_bytes: u64,
    /// How long its last load took, warm-up included.
    pub load_time: Option<Duration>,
    /// Whether it has been loaded and warm here as it is declared now.
    pub proven: bool,
    /// How far its load is, if one is wanted or under way.
    pub progress: Option<LoadProgress>,
    /// Batch sizes and what one execution of each took in warm-up, ascending.
    pub warm_up: Vec<(u32, Duration)>,
    /// What its runtime says of loading it: that of the first instance that was ready.
    pub load: LoadReport,
}

impl ModelReport {
    /// Whether a request that may be led to the one may be led to the other, and what callers are told is the same.
    pub(crate) fn routes_as(&self, other: &Self) -> bool {
        let takes = self.state.takes_jobs();
        let alike = if takes {
            other.state.takes_jobs()
        } else {
            self.state == other.state && self.reason == other.reason
        };
        alike && self.proven == other.proven
    }
}

/// One device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceReport {
    /// The device.
    pub device: DeviceId,
    /// Whether it takes no new jobs: those that it has are finished, and its models stay.
    pub draining: bool,
    /// Counts the changes that decide where requests may be led: not those of a model that takes them before and after.
    pub routing: u64,
    /// The most bytes that its models may take; none if they are not bounded.
    pub budget: Option<u64>,
    /// Its models, in the order of their keys.
    pub models: Vec<ModelReport>,
}

/// All devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct WorkerReport {
    /// In the order of their ids.
    pub devices: Vec<DeviceReport>,
}
