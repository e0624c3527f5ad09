//! Batches as metrics and spans.

use std::time::SystemTime;

use mesh_telemetry::{BatchSample, BatchSpan, Telemetry};
use mesh_types::{DeviceId, ModelVersionKey, TraceContext};
use mesh_worker::{BatchObserver, BatchRecord};

/// Tells telemetry of each batch.
#[derive(Debug)]
pub(crate) struct BatchTelemetry(pub(crate) Telemetry);

impl BatchObserver for BatchTelemetry {
    fn begin(&self, members: &[TraceContext]) -> Option<TraceContext> {
        self.0.spans().begin_batch(members)
    }

    fn finished(&self, record: &BatchRecord<'_>) {
        self.0.metrics().batch_executed(&BatchSample {
            device: record.device,
            model: record.model,
            rows: record.rows,
            requests: u32::try_from(record.members.len()).unwrap_or(u32::MAX),
            failed: record.failed,
            busy: record.busy,
        });
        // Only a traced batch costs the texts.
        if let Some(context) = record.trace {
            self.0.spans().batch(&BatchSpan {
                context,
                model: &record.model.to_string(),
                device: &record.device.to_string(),
                rows: record.rows,
                ended: SystemTime::now(),
                busy: record.busy,
                members: record.members,
            });
        }
    }

    fn waiting(&self, device: DeviceId, model: &ModelVersionKey, requests: usize) {
        self.0.metrics().set_queue_length(device, model, requests);
    }
}
