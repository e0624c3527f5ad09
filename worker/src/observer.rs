//! What is told about each batch; the node turns it into metrics and spans.

use std::time::Duration;

use mesh_types::{DeviceId, ModelVersionKey, TraceContext};

/// A finished batch.
#[derive(Debug, Clone, Copy)]
pub struct BatchRecord<'a> {
    /// Where.
    pub device: DeviceId,
    /// What.
    pub model: &'a ModelVersionKey,
    /// Rows.
    pub rows: u32,
    /// The requests in it.
    pub members: &'a [TraceContext],
    /// Whether it failed.
    pub failed: bool,
    /// How long the device was busy.
    pub busy: Duration,
    /// The batch's own span, if it is traced.
    pub trace: Option<TraceContext>,
}

/// Told about batches, on device threads unless said otherwise: must be quick and must not panic.
pub trait BatchObserver: Send + Sync {
    /// A batch is about to run; answers its span if any member is sampled.
    fn begin(&self, members: &[TraceContext]) -> Option<TraceContext>;
    /// It has run.
    fn finished(&self, record: &BatchRecord<'_>);
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
