//! The devices as control sees them: what they report, and what they can be told.
//!
//! The node implements [`Fleet`] over its worker; control and worker do not know each other.

use std::{path::PathBuf, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use mesh_types::{ArtifactFormat, DeviceId, Fault, LoadProgress, ModelConfig, ModelVersionKey};
use tokio::sync::watch;

/// Where a version stands on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Being loaded and warmed.
    Loading,
    /// Takes jobs.
    Ready,
    /// Not in memory; takes jobs, which wait while it is loaded.
    Standby,
    /// Being loaded because a job waits for it, or on a hint; takes jobs.
    Waking,
    /// Takes no more jobs; those accepted are being finished.
    Unloading,
    /// Crashed again and again: it is loaded, but refuses jobs until its cool-down is over.
    Quarantined,
    /// Failed to load.
    Unavailable,
}

impl ModelState {
    /// Whether it takes jobs, now or once it is loaded.
    pub fn takes_jobs(self) -> bool {
        matches!(self, Self::Ready | Self::Standby | Self::Waking)
    }
}

/// One version on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelReport {
    /// The version.
    pub key: ModelVersionKey,
    /// Its state.
    pub state: ModelState,
    /// Why it is unavailable, quarantined or not in memory.
    pub reason: Option<String>,
    /// Memory of all its instances, in bytes; nothing while it is not in memory.
    pub memory_bytes: u64,
    /// Further bytes that an instance's largest batch takes.
    pub peak_bytes: u64,
    /// How long its last load took.
    pub load_time: Option<Duration>,
    /// Whether it has been loaded and warm there as it is declared now.
    pub proven: bool,
    /// How far its load is, if one is wanted or under way.
    pub progress: Option<LoadProgress>,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device.
    pub device: DeviceId,
    /// Whether it takes no new jobs. What is on it stays; nothing is brought to it.
    pub draining: bool,
    /// The most bytes that models may take there; none: no bound.
    pub budget: Option<u64>,
    /// What is on it, in the order of the keys.
    pub models: Vec<ModelReport>,
}

/// All devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetReport {
    /// In the order of their ids.
    pub devices: Vec<DeviceReport>,
}

impl FleetReport {
    /// Whether this device takes no new jobs.
    pub(crate) fn is_draining(&self, device: DeviceId) -> bool {
        self.devices
            .iter()
            .any(|known| known.device == device && known.draining)
    }

    /// Every version on every device.
    pub fn models(&self) -> impl Iterator<Item = (DeviceId, &ModelReport)> {
        let of_device = |device: &'_ DeviceReport| device.device;
        self.devices
            .iter()
            .flat_map(move |device| device.models.iter().map(move |model| (of_device(device), model)))
    }
}

/// What a device is to load.
#[derive(Debug, Clone)]
pub struct LoadOrder {
    /// The version.
    pub key: ModelVersionKey,
    /// How it is called and run.
    pub config: Arc<ModelConfig>,
    /// The kind of file.
    pub format: ArtifactFormat,
    /// The file, checked against its digest; none for built-in models.
    pub artifact: Option<PathBuf>,
}

/// What came of a load or an unload, once it is over.
pub type Moved = BoxFuture<'static, Result<(), Fault>>;

/// The devices.
pub trait Fleet: Send + Sync + 'static {
    /// Their ids, in order.
    fn devices(&self) -> Vec<DeviceId>;
    /// Lets a device have a version; done once it is warm or stands by, or has failed. For one that is there: its
    /// configuration is taken over, and another file takes its place once it is warm; if that fails, what was there stays.
    fn load(&self, device: DeviceId, order: LoadOrder) -> Moved;
    /// Brings a version that stands by into memory; done once it is warm, or has failed.
    fn warm_up(&self, device: DeviceId, key: ModelVersionKey) -> Moved;
    /// Unloads a version; done once everything that it had accepted is answered.
    fn unload(&self, device: DeviceId, key: ModelVersionKey) -> Moved;
    /// What the devices say now.
    fn report(&self) -> FleetReport;
    /// Changes with every change of the report.
    fn changed(&self) -> watch::Receiver<u64>;
}
