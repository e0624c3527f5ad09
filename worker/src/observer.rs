//! What is told about each batch; the node turns it into metrics and spans.

use std::time::Duration;

use mesh_scheduler::Charge;
use mesh_types::{DeviceId, ModelVersionKey, TraceContext};

/// A finished batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchRecord<'a> {
    /// Where.
    pub device: DeviceId,
    /// What.
    pub model: &'a ModelVersionKey,
    /// Rows as the batch was formed.
    pub rows: u32,
    /// The requests in it.
    pub members: &'a [TraceContext],
    /// Whether the model or the device failed any of them.
    pub failed: bool,
    /// How many it failed.
    pub failed_requests: u64,
    /// Requests whose caller went before they ran.
    pub cancelled: u32,
    /// Requests whose deadline passed before they ran.
    pub expired: u32,
    /// Requests whose answer held NaN or infinity, where that is looked for.
    pub non_finite: u32,
    /// Executions that it took: more than one where a failing one was split.
    pub executions: u32,
    /// Whether the model panicked, hung or did not load again.
    pub crashed: bool,
    /// The fewest rows for which the device had no memory.
    pub oom_rows: Option<u32>,
    /// How long the device was busy.
    pub busy: Duration,
    /// How long the scheduler thought that it would be.
    pub predicted: Option<Duration>,
    /// The longest wait of a request in it.
    pub queue: Duration,
    /// Gathering inputs, over all executions that ended well.
    pub compute_input: Duration,
    /// The model, over the same.
    pub compute_infer: Duration,
    /// Splitting outputs, over the same.
    pub compute_output: Duration,
    /// The batch's own span, if it is traced.
    pub trace: Option<TraceContext>,
}

/// Told about batches, on device threads unless said otherwise: must be quick and must not panic.
pub trait BatchObserver: Send + Sync {
    /// A batch is about to run; answers its span if any member is sampled.
    fn begin(&self, members: &[TraceContext]) -> Option<TraceContext>;
    /// It has run. For a batch whose execution hangs it is told on the device actor's thread, and has no span.
    fn finished(&self, record: &BatchRecord<'_>);
    /// What a batch cost each tenant in it. Told on the device actor's thread.
    fn charged(&self, device: DeviceId, charges: &[Charge]) {
        let _ = (device, charges);
    }
    /// So many requests wait for the model after a batch has been taken from them. Told on the device actor's thread.
    fn waiting(&self, device: DeviceId, model: &ModelVersionKey, requests: usize) {
        let _ = (device, model, requests);
    }
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unobserved;

impl BatchObserver for Unobserved {
    fn begin(&self, _: &[TraceContext]) -> Option<TraceContext> {
        None
    }

    fn finished(&self, _: &BatchRecord<'_>) {}
}
