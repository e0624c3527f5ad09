//! Loading a model on a device.

use std::{path::PathBuf, sync::Arc};

use mesh_types::{ArtifactFormat, Clock, DeviceId, LoadReport, ModelConfig, ModelVersionKey};

use crate::{AnswerSink, BackendError, BatchInputs, BatchOutputs, Requests};

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

/// What loading an instance takes of a device's memory for a time, in bytes, beyond what the instance takes at rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passing {
    /// In any case.
    pub load: u64,
    /// Besides, where it is optimised ([`LoadedModel::optimize`]).
    pub optimize: u64,
}

/// A model runtime.
pub trait Backend: Send + Sync {
    /// Its name in logs and device lists.
    fn name(&self) -> &'static str;

    /// Devices that it can use beyond the host's processors.
    fn devices(&self) -> Vec<DeviceInfo>;

    /// The kinds of file that it runs.
    fn formats(&self) -> &'static [ArtifactFormat];

    /// What an instance will take at rest, in bytes, as far as that can be told without loading it; none leaves it at the
    /// size of its file.
    fn estimate(&self, spec: &LoadSpec) -> Option<u64> {
        let _ = spec;
        None
    }

    /// What loading an instance will take for a time, as far as that can be told; asked before each load, and answered at once.
    fn passing(&self, spec: &LoadSpec, device: DeviceId) -> Passing {
        let _ = (spec, device);
        Passing::default()
    }

    /// Called once on every thread that will load or run models, before it does: for what a runtime keeps per thread.
    fn enter_thread(&self) {}

    /// The calling thread leaves processors to all others from now on, for good: it runs only where one would idle. False where the
    /// system cannot, or the runtime does not know how to ask it.
    fn give_way(&self) -> bool {
        false
    }

    /// Loads a model onto a device; may take long. Called on a thread of its own, which then warms the model up and hands
    /// it to the device thread that will run it; after a crash on that device thread, or where it is confined on another one.
    fn load(&self, spec: &LoadSpec, device: DeviceId) -> Result<Box<dyn LoadedModel>, BackendError>;

    /// From now on a model gets no memory of the host in which something of another's could be left, as far as the runtime can see to
    /// that: there is data that must not show. Said any number of times; it costs time with each allocation.
    fn clear_memory(&self) {}

    /// Gives memory of models that are gone back to the system, as far as the runtime keeps any. May take long; called
    /// beside running models, and never on a device thread.
    fn release_memory(&self, device: DeviceId) {
        let _ = device;
    }
}

/// A model on a device. It may move to another thread, and is only ever used by one at a time.
pub trait LoadedModel: Send {
    /// Runs one batch.
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError>;

    /// Runs one batch, and says how many bytes of the device's memory it took at its peak above what was taken before; none
    /// where that cannot be told. Costs more than [`LoadedModel::execute`]: for warm-up, not for live traffic.
    fn execute_measured(&mut self, batch: &BatchInputs<'_>) -> Result<(BatchOutputs, Option<u64>), BackendError> {
        self.execute(batch).map(|outputs| (outputs, None))
    }

    /// Runs requests of a model whose configuration is decoupled, handing on each answer when it is there. Called instead of
    /// [`LoadedModel::execute`]. An error is that of all requests that have neither ended nor failed; those that have no answer
    /// yet may be run again.
    fn generate(&mut self, requests: &Requests<'_>, answers: &mut dyn AnswerSink) -> Result<(), BackendError> {
        let _ = (requests, answers);
        Err(BackendError::Unsupported(
            "this runtime's models give one answer to a request: leave model_transaction_policy out".to_owned(),
        ))
    }

    /// Tries what would run faster on these inputs, as far as the configuration allows it, and keeps what does and agrees;
    /// what came of it is in the report. Called once, after loading and before the first batch, with inputs of the batch
    /// sizes that matter, smallest first. May take long; never makes the model unusable.
    fn optimize(&mut self, samples: &[BatchInputs<'_>], clock: &dyn Clock) {
        let _ = (samples, clock);
    }

    /// Called instead of [`LoadedModel::optimize`] where there is no memory for what that takes: the report says why.
    fn leave_as_it_is(&mut self, why: &str) {
        let _ = why;
    }

    /// What loading came to.
    fn report(&self) -> LoadReport {
        LoadReport::default()
    }

    /// Memory of the device that the model holds between executions, in bytes: weights, buffers and constants.
    fn memory_bytes(&self) -> u64;
}
