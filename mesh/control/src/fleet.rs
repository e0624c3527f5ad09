//! The devices as control sees them: what they report, and the two things they can be told.
//!
//! The node implements [`Fleet`] over its worker; control and worker do not know each other.

use std::{path::PathBuf, sync::Arc};

use futures::future::BoxFuture;
use mesh_types::{ArtifactFormat, DeviceId, Fault, ModelConfig, ModelVersionKey};
use tokio::sync::watch;

/// Where a version stands on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Being loaded and warmed.
    Loading,
    /// Takes jobs.
    Ready,
    /// Takes no more jobs; those accepted are being finished.
    Unloading,
    /// Crashed again and again: it is loaded, but refuses jobs until its cool-down is over.
    Quarantined,
    /// Failed to load.
    Unavailable,
}

/// One version on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelReport {
    /// The version.
    pub key: ModelVersionKey,
    /// Its state.
    pub state: ModelState,
    /// Why it is unavailable or quarantined.
    pub reason: Option<String>,
    /// Memory of all its instances, in bytes.
    pub memory_bytes: u64,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device.
    pub device: DeviceId,
    /// Whether it takes no new jobs. What is on it stays; nothing is brought to it.
    pub draining: bool,
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
    /// Loads a version; done once it is warm, or failed.
    fn load(&self, device: DeviceId, order: LoadOrder) -> Moved;
    /// Unloads a version; done once everything that it had accepted is answered.
    fn unload(&self, device: DeviceId, key: ModelVersionKey) -> Moved;
    /// What the devices say now.
    fn report(&self) -> FleetReport;
    /// Changes with every change of the report.
    fn changed(&self) -> watch::Receiver<u64>;
}
