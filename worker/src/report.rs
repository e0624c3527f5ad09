//! What the worker says of itself, published on every change of a model's state.

use mesh_types::{DeviceId, ModelVersionKey};

/// Where a model stands on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelState {
    /// Being loaded and warmed.
    Loading,
    /// Takes jobs.
    Ready,
    /// Takes no more jobs; those accepted are being finished.
    Unloading,
    /// Failed to load.
    Unavailable,
}

/// One model on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelReport {
    /// The version.
    pub key: ModelVersionKey,
    /// Its state.
    pub state: ModelState,
    /// Why it is unavailable.
    pub reason: Option<String>,
    /// Memory of all its instances, in bytes.
    pub memory_bytes: u64,
}

/// One device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceReport {
    /// The device.
    pub device: DeviceId,
    /// Its models, in the order of their keys.
    pub models: Vec<ModelReport>,
}

/// All devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WorkerReport {
    /// In the order of their ids.
    pub devices: Vec<DeviceReport>,
}
