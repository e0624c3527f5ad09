//! The node's devices: how they are laid out, and what code of models may reach while it runs on them.
//!
//! Owns which folders of a mesh that is: what is unpacked of models, and nothing else of the data folder. A model's own file is read by the
//! thread that loads it, and by no other. The rules themselves are the worker's.

use std::sync::Arc;

use mesh_actors::Tasks;
use mesh_backend::Backend;
use mesh_telemetry::Telemetry;
use mesh_types::Clock;
use mesh_worker::{BatchObserver, Cage, Confinement, Worker, WorkerConfig, WorkerError};

use crate::{NodeConfig, StartError, code, data::DataFolder, observer::BatchTelemetry, signature::ConfinedFiles};

/// Starts the worker; its models run confined unless it was said otherwise, and so do those that are run to learn of them.
pub(crate) fn start(
    config: &NodeConfig,
    given: Vec<Arc<dyn Backend>>,
    telemetry: &Telemetry,
    clock: &Arc<dyn Clock>,
    tasks: &Tasks,
) -> Result<(Worker, ConfinedFiles), StartError> {
    let data = DataFolder::open(&config.data)?;
    let scratch = data.unpacked()?;
    // Before the cage: it lets them read the libraries that they have loaded.
    let backends = given.into_iter().chain(code::backends(config, &scratch)).collect();
    let confinement = Confinement {
        private: config.data.clone(),
        readable: Vec::new(),
        writable: vec![scratch.clone()],
    };
    let cage = (!config.code.unconfined_models).then(|| Cage::new(&confinement));
    let cage = cage
        .transpose()
        .map_err(|error| WorkerError::Confinement(error.to_string()))?;
    let layout = WorkerConfig {
        cpu_devices: config.devices,
        threads_per_device: config.threads_per_device,
        arrivals: config.queue,
        queue: config.queue,
        sequence_grace: config.sequence_grace,
        sequence_state_bytes: config.sequence_state_bytes,
        cpu_memory: config.cpu_memory.map(|bytes| bytes / u64::from(config.devices.max(1))),
        device_memory_percent: config.gpu_memory_percent,
        parallel_loads: config.parallel_loads,
        latency_folder: Some(data.latency()?),
        cage: cage.clone(),
        ..WorkerConfig::default()
    };
    let observer: Arc<dyn BatchObserver> = Arc::new(BatchTelemetry(telemetry.clone()));
    let worker = Worker::start(&layout, backends, &observer, clock.clone(), tasks)?;
    Ok((worker, ConfinedFiles::new(cage, scratch)))
}
