//! The worker's sizes and bounds.

use std::{path::PathBuf, time::Duration};

use mesh_actors::RestartPolicy;

use crate::Cage;

/// How a worker is laid out.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// CPU devices to make; each has threads and queues of its own.
    pub cpu_devices: u16,
    /// Threads per device, where a model asks for no other number of instances.
    pub threads_per_device: u16,
    /// Most jobs on their way to one device's scheduler.
    pub arrivals: usize,
    /// Most jobs of one tenant waiting for one model on a device.
    pub queue: usize,
    /// The folder in which devices keep what they have learnt of latencies; none forgets it at the end.
    pub latency_folder: Option<PathBuf>,
    /// How long one execution may take before its thread counts as hung, where the model's configuration names no bound.
    pub execution_timeout: Duration,
    /// Whether each device thread keeps to one processor, where there are at least as many processors as threads.
    pub pin_threads: bool,
    /// Most bytes of sequences' states that a device keeps; one tenant's have at most half of it.
    pub sequence_state_bytes: u64,
    /// How long open sequences may go on where their device is drained or their model unloaded, before they are ended.
    pub sequence_grace: Duration,
    /// The most bytes that the models of one CPU device may take, their largest batches included; none: no bound.
    pub cpu_memory: Option<u64>,
    /// The same of other devices, in hundredths of the memory that they have; a device that does not say how much that is has
    /// no bound.
    pub device_memory_percent: u8,
    /// Models that one device loads at the same time.
    pub parallel_loads: usize,
    /// Confines the threads that load and run models; none: they may do what the process may. On a device that a driver serves, their
    /// files are not confined.
    pub cage: Option<Cage>,
    /// How often a device's actor is rebuilt.
    pub restart: RestartPolicy,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        Self {
            cpu_devices: 1,
            threads_per_device: 1,
            arrivals: 4_096,
            queue: 4_096,
            latency_folder: None,
            execution_timeout: Duration::from_secs(30),
            pin_threads: false,
            sequence_state_bytes: 1 << 30,
            sequence_grace: Duration::from_secs(30),
            cpu_memory: None,
            device_memory_percent: 90,
            parallel_loads: 2,
            cage: None,
            restart: RestartPolicy::default(),
        }
    }
}
