//! What devices do as metrics and spans: each batch when it has run, and everything else when metrics are read.

use std::{collections::BTreeSet, time::SystemTime};

use mesh_telemetry::{BatchSample, BatchSpan, DeviceReading, DeviceSource, ModelReading, SequenceReading, Telemetry};
use mesh_types::{DeviceId, ModelVersionKey, TraceContext};
use mesh_worker::{
    BatchObserver, BatchRecord, DeviceReport, DeviceStatistics, ModelState, SequenceStatistics, WorkerHandle,
};

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

/// Reads the devices' numbers for telemetry.
pub(crate) struct DeviceReadings(pub(crate) WorkerHandle);

impl DeviceSource for DeviceReadings {
    fn devices(&self) -> Vec<DeviceReading> {
        let (known, reports) = (self.0.statistics().devices, self.0.report().devices);
        known
            .into_iter()
            .zip(&reports)
            .map(|(known, report)| reading(known, report))
            .collect()
    }
}

fn sequences(known: SequenceStatistics) -> SequenceReading {
    SequenceReading {
        seated: known.open.saturating_sub(known.backlog),
        backlog: known.backlog,
        ended: known.ended,
        idle: known.idle,
        not_begun: known.not_begun,
        lost: known.lost,
        closed: known.closed,
    }
}

/// Statistics and reports are both in the order of the devices' ids.
fn reading(known: DeviceStatistics, report: &DeviceReport) -> DeviceReading {
    let quarantined = |model: &&mesh_worker::ModelReport| model.state == ModelState::Quarantined;
    let quarantined: BTreeSet<_> = report
        .models
        .iter()
        .filter(quarantined)
        .map(|model| &model.key)
        .collect();
    let models = known.models.into_iter().map(|(model, numbers)| ModelReading {
        quarantined: quarantined.contains(&model),
        model,
        executions: numbers.execution_count,
        cancelled: numbers.cancelled,
        expired: numbers.expired,
        rejected: numbers.rejected,
        crashed: numbers.crashed,
        out_of_memory: numbers.out_of_memory,
        non_finite: numbers.non_finite,
        loads: numbers.loads.count,
        load_time: numbers.loads.total,
        load_failures: numbers.load_failures,
        evictions: numbers.evictions,
        idle_unloads: numbers.idle_unloads,
        predicted: numbers.prediction.predicted,
        prediction_error: numbers.prediction.absolute_error,
        sequences: numbers.sequences.map(sequences),
    });
    let in_state = |which: fn(ModelState) -> bool| report.models.iter().filter(|model| which(model.state)).count();
    DeviceReading {
        device: known.device,
        threads: known.threads,
        abandoned: known.abandoned,
        draining: report.draining,
        sequence_state_bytes: known.sequence_state_bytes,
        budget: report.budget,
        resident: in_state(|state| matches!(state, ModelState::Ready | ModelState::Quarantined)),
        standby: in_state(|state| matches!(state, ModelState::Standby | ModelState::Waking)),
        models: models.collect(),
        tenants: known.tenants.into_iter().collect(),
        other_tenants: known.other_tenants,
    }
}
