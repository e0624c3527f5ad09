//! Loading a model on a device.

use std::{path::PathBuf, sync::Arc};

use mesh_types::{ArtifactFormat, Clock, DeviceId, LoadReport, ModelConfig, ModelVersionKey};

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

    /// Runs one batch, and says how many bytes of the device's memory it took at its peak above what was taken before; none
    /// where that cannot be told. Costs more than [`LoadedModel::execute`]: for warm-up, not for live traffic.
    fn execute_measured(&mut self, batch: &BatchInputs<'_>) -> Result<(BatchOutputs, Option<u64>), BackendError> {
        self.execute(batch).map(|outputs| (outputs, None))
    }

    /// Tries what would run faster on these inputs, as far as the configuration allows it, and keeps what does and agrees;
    /// what came of it is in the report. Called once, after loading and before the first batch, with inputs of the batch
    /// sizes that matter, smallest first. May take long; never makes the model unusable.
    fn optimize(&mut self, samples: &[BatchInputs<'_>], clock: &dyn Clock) {
        let _ = (samples, clock);
    }

    /// What loading came to.
    fn report(&self) -> LoadReport {
        LoadReport::default()
    }

    /// Memory of the device that the model holds between executions, in bytes: weights, buffers and constants.
    fn memory_bytes(&self) -> u64;
}
