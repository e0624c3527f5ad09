//! The worker's sizes and bounds.

use mesh_actors::RestartPolicy;

/// How a worker is laid out.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// CPU devices to make; each has threads and queues of its own.
    pub cpu_devices: u16,
    /// Threads per device; each holds an instance of every model of the device.
    pub threads_per_device: u16,
    /// Most jobs on their way to one device's scheduler.
    pub arrivals: usize,
    /// Most jobs waiting for one model.
    pub queue: usize,
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
            restart: RestartPolicy::default(),
        }
    }
}
