//! The worker as control, the router and the admin door see it.
//!
//! Each of them names its own trait, because they do not know each other; here the traits meet the one worker.

use std::{collections::BTreeSet, sync::Arc};

use futures::FutureExt;
use mesh_actors::Tasks;
use mesh_backend::LoadSpec;
use mesh_control::{DeviceReport, Fleet, FleetReport, LoadOrder, ModelReport, ModelState, Moved};
use mesh_router::{WorkerReply, Workers};
use mesh_telemetry::Telemetry;
use mesh_types::{DeviceId, Fault, InferJob, ModelVersionKey};
use mesh_worker::WorkerHandle;
use tokio::sync::watch;

/// The devices of this process.
#[derive(Clone)]
pub(crate) struct LocalFleet {
    worker: WorkerHandle,
    changes: watch::Receiver<u64>,
}

impl LocalFleet {
    /// Follows every device's report: for control, and for the metrics of memory.
    pub(crate) fn follow(worker: WorkerHandle, telemetry: &Telemetry, tasks: &Tasks) -> Result<Self, Fault> {
        let (changed, changes) = watch::channel(0_u64);
        let changed = Arc::new(changed);
        for device in worker.devices() {
            let mut reports = worker.watch(device)?;
            let (changed, telemetry) = (changed.clone(), telemetry.clone());
            tasks.spawn("device reports", move |mut signal| async move {
                let mut known = BTreeSet::new();
                loop {
                    let report = reports.borrow_and_update().clone();
                    known = measure(&telemetry, &report, &known);
                    changed.send_modify(|count| *count = count.wrapping_add(1));
                    tokio::select! {
                        () = signal.ended() => return,
                        news = reports.changed() => if news.is_err() { return },
                    }
                }
            });
        }
        Ok(Self { worker, changes })
    }
}

/// Brings the metrics to what a device reports; answers what they now show.
fn measure(
    telemetry: &Telemetry,
    report: &mesh_worker::DeviceReport,
    known: &BTreeSet<ModelVersionKey>,
) -> BTreeSet<ModelVersionKey> {
    let mut now = BTreeSet::new();
    for model in &report.models {
        if model.state == mesh_worker::ModelState::Ready {
            telemetry
                .metrics()
                .set_model_memory(report.device, &model.key, model.memory_bytes);
            now.insert(model.key.clone());
        }
    }
    for gone in known.difference(&now) {
        telemetry.metrics().model_unloaded(report.device, gone);
    }
    now
}

impl Fleet for LocalFleet {
    fn devices(&self) -> Vec<DeviceId> {
        self.worker.devices()
    }

    fn load(&self, device: DeviceId, order: LoadOrder) -> Moved {
        let worker = self.worker.clone();
        let spec = LoadSpec {
            key: order.key,
            config: order.config,
            artifact: order.artifact,
            format: order.format,
        };
        async move { worker.load(device, spec).await }.boxed()
    }

    fn unload(&self, device: DeviceId, key: ModelVersionKey) -> Moved {
        let worker = self.worker.clone();
        async move { worker.unload(device, &key).await }.boxed()
    }

    fn report(&self) -> FleetReport {
        let devices = self.worker.report().devices.into_iter().map(|device| DeviceReport {
            device: device.device,
            models: device.models.into_iter().map(model).collect(),
        });
        FleetReport {
            devices: devices.collect(),
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

fn model(report: mesh_worker::ModelReport) -> ModelReport {
    ModelReport {
        state: match report.state {
            mesh_worker::ModelState::Loading => ModelState::Loading,
            mesh_worker::ModelState::Ready => ModelState::Ready,
            mesh_worker::ModelState::Unloading => ModelState::Unloading,
            // Control has no word of its own for it: it reads why, and that no jobs may be sent.
            mesh_worker::ModelState::Quarantined | mesh_worker::ModelState::Unavailable => ModelState::Unavailable,
        },
        key: report.key,
        reason: report.reason,
        memory_bytes: report.memory_bytes,
    }
}

impl Workers for LocalFleet {
    fn submit(&self, device: DeviceId, job: InferJob) -> Result<WorkerReply, Fault> {
        let reply = self.worker.submit(device, job)?;
        Ok(Box::pin(reply))
    }
}
