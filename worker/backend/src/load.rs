//! Loading a model on a device.

use std::{path::PathBuf, sync::Arc};

use mesh_types::{ArtifactFormat, DeviceId, ModelConfig, ModelVersionKey};

use crate::{BackendError, BatchInputs, BatchOutputs};

/// What a runtime knows of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its id.
    pub id: DeviceId,
    /// Its name for people.
    pub name: String,
    /// Its memory in bytes, where known.
    pub memory_bytes: Option<u64>,
}

/// What to load.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// Which version.
    pub key: ModelVersionKey,
    /// How it is called.
    pub config: Arc<ModelConfig>,
    /// Its file, verified against its digest; none for built-in models.
    pub artifact: Option<PathBuf>,
    /// The kind of file.
    pub format: ArtifactFormat,
}

/// A model runtime.
pub trait Backend: Send + Sync {
    /// Its name in logs and device lists.
    fn name(&self) -> &'static str;

    /// Devices that it can use beyond the host's processors.
    fn devices(&self) -> Vec<DeviceInfo>;

    /// The kinds of file that it runs.
    fn formats(&self) -> &'static [ArtifactFormat];

    /// Loads a model onto a device. Called on the device thread that will own it; may take long.
    fn load(&self, spec: &LoadSpec, device: DeviceId) -> Result<Box<dyn LoadedModel>, BackendError>;
}

/// A model on a device, owned by one device thread (and not `Send`: it never leaves it).
pub trait LoadedModel {
    /// Runs one batch.
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError>;

    /// Memory that the model takes, in bytes, as far as it can tell.
    fn memory_bytes(&self) -> u64;
}
