//! The worker as control, the router and the admin door see it.
//!
//! Each of them names its own trait, because they do not know each other; here the traits meet the one worker. Counts the
//! requests that are on each device, which only whoever hands them over can.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::FutureExt;
use mesh_actors::Tasks;
use mesh_backend::LoadSpec;
use mesh_control::{DeviceReport, Fleet, FleetReport, LoadOrder, ModelReport, ModelState, Moved};
use mesh_router::{WorkerReply, Workers};
use mesh_telemetry::Telemetry;
use mesh_types::{DeviceId, Fault, InferJob, JobOutcome, ModelVersionKey, VersionStatistics};
use mesh_worker::{JobReply, WorkerHandle};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::statistics;

/// How long a change that leads no request elsewhere may wait for others.
const REST: Duration = Duration::from_millis(250);

/// The devices of this process.
#[derive(Clone)]
pub(crate) struct LocalFleet {
    worker: WorkerHandle,
    changes: watch::Receiver<u64>,
    in_flight: Arc<BTreeMap<DeviceId, Arc<AtomicU64>>>,
    /// Devices that are or will be drained: control leaves them out before they refuse anything.
    leaving: Arc<Mutex<BTreeSet<DeviceId>>>,
    changed: Arc<watch::Sender<u64>>,
}

/// An answer that is still to come, counted until it is there or nobody wants it any more.
struct Counted {
    reply: JobReply,
    count: Arc<AtomicU64>,
}

impl Future for Counted {
    type Output = Result<JobOutcome, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply).poll(context)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
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
                    let routing = Some(report.routing);
                    known = measure(&telemetry, &report, &known);
                    changed.send_modify(|count| *count = count.wrapping_add(1));
                    tokio::select! {
                        () = signal.ended() => return,
                        news = next(&mut reports, routing) => if news.is_err() { return },
                    }
                }
            });
        }
        let counts = worker.devices().into_iter().map(|device| (device, Arc::default()));
        Ok(Self {
            in_flight: Arc::new(counts.collect()),
            leaving: Arc::default(),
            worker,
            changes,
            changed,
        })
    }

    /// Whether a device takes no new requests, or is about to.
    pub(crate) fn is_leaving(&self, device: DeviceId) -> bool {
        self.leaving.lock().contains(&device)
    }

    /// Says that a device will take no new requests, or will take them again; nothing is refused by that.
    pub(crate) fn set_leaving(&self, device: DeviceId, leaving: bool) {
        let mut known = self.leaving.lock();
        let _ = if leaving {
            known.insert(device)
        } else {
            known.remove(&device)
        };
        drop(known);
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// The devices themselves.
    pub(crate) fn worker(&self) -> &WorkerHandle {
        &self.worker
    }

    /// Requests handed to a device whose answers are still awaited.
    pub(crate) fn in_flight(&self, device: DeviceId) -> u64 {
        let count = self.in_flight.get(&device);
        count.map_or(0, |count| count.load(Ordering::SeqCst))
    }

    /// Hands a request to a device.
    pub(crate) fn hand_over(
        &self,
        device: DeviceId,
        job: InferJob,
    ) -> Result<impl Future<Output = Result<JobOutcome, Fault>> + Send + use<>, Fault> {
        let count = self.in_flight.get(&device).cloned().unwrap_or_default();
        // Before the device has it, so that whoever sees none on a draining device sees that it is empty.
        count.fetch_add(1, Ordering::SeqCst);
        match self.worker.submit(device, job) {
            Ok(reply) => Ok(Counted { reply, count }),
            Err(fault) => {
                count.fetch_sub(1, Ordering::SeqCst);
                Err(fault)
            }
        }
    }
}

/// Waits for a change of the report: not at all where it decides where requests go, else for as many others as come within
/// [`REST`]. Models may come and go by the dozen a second, and whoever is told looks at all that are declared.
async fn next(
    reports: &mut watch::Receiver<mesh_worker::DeviceReport>,
    routing: Option<u64>,
) -> Result<(), watch::error::RecvError> {
    reports.changed().await?;
    let routes = |report: &mesh_worker::DeviceReport| Some(report.routing) != routing;
    let rest = tokio::time::timeout(REST, reports.wait_for(routes)).await;
    rest.map_or(Ok(()), |waited| waited.map(drop))
}

/// Brings the metrics to what a device reports; answers what they now show.
fn measure(
    telemetry: &Telemetry,
    report: &mesh_worker::DeviceReport,
    known: &BTreeSet<ModelVersionKey>,
) -> BTreeSet<ModelVersionKey> {
    let mut now = BTreeSet::new();
    for model in &report.models {
        // A quarantined one is still there.
        if matches!(
            model.state,
            mesh_worker::ModelState::Ready | mesh_worker::ModelState::Quarantined
        ) {
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

    fn warm_up(&self, device: DeviceId, key: ModelVersionKey) -> Moved {
        let worker = self.worker.clone();
        async move { worker.warm_up(device, &key).await }.boxed()
    }

    fn unload(&self, device: DeviceId, key: ModelVersionKey) -> Moved {
        let worker = self.worker.clone();
        async move { worker.unload(device, &key).await }.boxed()
    }

    fn report(&self) -> FleetReport {
        let devices = self.worker.report().devices.into_iter().map(|device| DeviceReport {
            device: device.device,
            draining: device.draining || self.is_leaving(device.device),
            budget: device.budget,
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
            mesh_worker::ModelState::Standby => ModelState::Standby,
            mesh_worker::ModelState::Waking => ModelState::Waking,
            mesh_worker::ModelState::Unloading => ModelState::Unloading,
            mesh_worker::ModelState::Quarantined => ModelState::Quarantined,
            mesh_worker::ModelState::Unavailable => ModelState::Unavailable,
        },
        key: report.key,
        reason: report.reason,
        memory_bytes: report.memory_bytes,
        peak_bytes: report.peak_bytes,
        load_time: report.load_time,
        proven: report.proven,
        progress: report.progress,
    }
}

impl Workers for LocalFleet {
    fn submit(&self, device: DeviceId, job: InferJob) -> Result<WorkerReply, Fault> {
        Ok(Box::pin(self.hand_over(device, job)?))
    }

    fn statistics(&self, key: &ModelVersionKey) -> VersionStatistics {
        statistics::of(&self.worker, key)
    }
}
