//! What the admin door needs of the rest: the view of the devices, trials, and the files of the web app.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures::{FutureExt, future::BoxFuture};
use mesh_admin_api::{
    AnswerCache, Asset, Assets, DeviceFacts, DeviceView, FleetView, HeldModel, IssuerView, KeyUseView, LoadState,
    ModelFacts, ModelNumbers, Probe, Progress, Purged, SequenceNumbers,
};
use mesh_control::{ControllerHandle, ModelReport, ModelState};
use mesh_policies::{MeshSnapshot, VersionEntry, access::BookView};
use mesh_router::{ResponseCache, RouterParts, infer_ensemble};
use mesh_telemetry::Telemetry;
use mesh_types::{
    DeviceId, EndpointId, Fault, FaultSource, InferJob, JobOutcome, KeyId, LoadReport, ModelVersionKey, Parameters,
    TenantId,
};
use mesh_worker::{DeviceStatistics, ModelStatistics};

use tokio::time::{sleep, timeout};

use crate::fleet::LocalFleet;

/// How long control may take to leave a device out.
const CONTROL_PATIENCE: Duration = Duration::from_secs(1);
/// How long requests that hold the snapshot before that are let through.
const SNAPSHOT_REST: Duration = Duration::from_millis(100);

/// The devices, as control and the worker know them.
pub(crate) struct Devices {
    pub(crate) control: ControllerHandle,
    pub(crate) fleet: LocalFleet,
    pub(crate) telemetry: Telemetry,
    pub(crate) snapshots: Arc<ArcSwap<MeshSnapshot>>,
}

/// The keys of issuers, as requests find them.
pub(crate) struct Issuers(pub(crate) Arc<ArcSwap<MeshSnapshot>>);

impl IssuerView for Issuers {
    fn fetched_keys(&self, issuer: &str, now_unix: i64) -> Option<BookView> {
        let snapshot = self.0.load();
        let book = snapshot.credentials.books().find(|book| book.name() == issuer)?;
        Some(book.view(now_unix))
    }
}

/// The answers that routers remember.
pub(crate) struct Remembered(pub(crate) Arc<ResponseCache>, pub(crate) Telemetry);

impl AnswerCache for Remembered {
    fn purge(&self, tenant: &TenantId, endpoint: Option<&EndpointId>) -> Purged {
        let Self(cache, telemetry) = self;
        let purged = match endpoint {
            Some(endpoint) => cache.purge(tenant, endpoint),
            None => cache.purge_tenant(tenant),
        };
        let held = cache.usage();
        telemetry.metrics().cache_holds(held.entries, held.bytes);
        Purged {
            entries: purged.entries as u64,
            bytes: purged.bytes as u64,
        }
    }
}

/// The last uses of keys, as requests note them.
pub(crate) struct KeyUses(pub(crate) Arc<ArcSwap<MeshSnapshot>>);

impl KeyUseView for KeyUses {
    fn last_used(&self, tenant: &TenantId, key: &KeyId) -> Option<i64> {
        self.0.load().credentials.last_used(tenant, key)
    }
}

impl FleetView for Devices {
    fn devices(&self) -> Vec<DeviceView> {
        let view = self.control.view();
        let device = |device: mesh_control::DeviceReport| DeviceView {
            device: device.device,
            draining: device.draining,
            models: device.models.into_iter().map(held).collect(),
        };
        view.devices.into_iter().map(device).collect()
    }

    fn inspect(&self) -> Vec<DeviceFacts> {
        let view = self.control.view().devices;
        let (worker, mut facts) = (self.fleet.worker(), Vec::new());
        for (known, report) in worker.statistics().devices.into_iter().zip(worker.report().devices) {
            let shown = view.iter().find(|shown| shown.device == known.device);
            let models = shown.map(|shown| shown.models.clone()).unwrap_or_default();
            let draining = report.draining || self.fleet.is_leaving(known.device);
            let loads = report.models.into_iter().map(|model| (model.key, model.load)).collect();
            facts.push(self.facts(known, (draining, report.budget), models, loads));
        }
        facts
    }

    fn ensemble(&self, key: &ModelVersionKey) -> Option<Arc<VersionEntry>> {
        self.snapshots.load().ensemble(key).cloned()
    }

    fn drain(&self, device: DeviceId, draining: bool) -> BoxFuture<'static, Result<(), Fault>> {
        let (fleet, mut view) = (self.fleet.clone(), self.control.watch());
        async move {
            if !draining {
                fleet.worker().drain(device, false)?;
                fleet.set_leaving(device, false);
                return Ok(());
            }
            // First nothing is led to it any more, then it refuses: what other devices can serve is never refused.
            fleet.set_leaving(device, true);
            let left_out = view.wait_for(|view| view.devices.iter().any(|one| one.device == device && one.draining));
            // Where control does not answer in time, the device is drained all the same.
            let left_out = timeout(CONTROL_PATIENCE, left_out).await.is_ok();
            if left_out {
                sleep(SNAPSHOT_REST).await;
            }
            // Unless somebody undrained it meanwhile.
            if fleet.is_leaving(device) {
                fleet.worker().drain(device, true)?;
            }
            Ok(())
        }
        .boxed()
    }

    fn warm_up(&self, version: ModelVersionKey) -> BoxFuture<'static, Result<Vec<DeviceId>, Fault>> {
        let worker = self.fleet.worker().clone();
        let has = |device: &mesh_worker::DeviceReport| device.models.iter().any(|model| model.key == version);
        let there = worker
            .report()
            .devices
            .into_iter()
            .filter(has)
            .map(|device| device.device);
        let devices: Vec<DeviceId> = there.collect();
        async move {
            if devices.is_empty() {
                let text = "no device has been given the version yet: see why in the list of devices";
                return Err(Fault::unavailable(FaultSource::Model, text));
            }
            let warmed = devices.iter().map(|device| worker.warm_up(*device, &version));
            for result in futures::future::join_all(warmed).await {
                result?;
            }
            Ok(devices)
        }
        .boxed()
    }
}

impl Devices {
    fn facts(
        &self,
        known: DeviceStatistics,
        (draining, budget): (bool, Option<u64>),
        models: Vec<ModelReport>,
        mut loads: BTreeMap<ModelVersionKey, LoadReport>,
    ) -> DeviceFacts {
        let model = |report: ModelReport| ModelFacts {
            waiting: self.telemetry.metrics().queue_length(known.device, &report.key),
            numbers: known.models.get(&report.key).map(numbers).unwrap_or_default(),
            load: loads.remove(&report.key).unwrap_or_default(),
            held: held(report),
        };
        DeviceFacts {
            device: known.device,
            threads: known.threads,
            abandoned: known.abandoned,
            draining,
            budget,
            in_flight: self.fleet.in_flight(known.device),
            sequence_state_bytes: known.sequence_state_bytes,
            up: known.up,
            busy: known.busy,
            models: models.into_iter().map(model).collect(),
            tenants: known.tenants.into_iter().collect(),
            other_tenants: known.other_tenants,
        }
    }
}

fn numbers(known: &ModelStatistics) -> ModelNumbers {
    let ended_well = known.batch_sizes.values().map(|size| size.compute_infer.count);
    ModelNumbers {
        requests: known.success.count,
        failed: known.fail.count,
        rows: known.inference_count,
        executions: known.execution_count,
        ended_well: ended_well.sum(),
        latency: known.success.total,
        queue: known.queue.total,
        compute: known.compute_infer.total,
        cancelled: known.cancelled,
        expired: known.expired,
        rejected: known.rejected,
        non_finite: known.non_finite,
        crashed: known.crashed,
        out_of_memory: known.out_of_memory,
        loads: known.loads.count,
        load_failures: known.load_failures,
        evictions: known.evictions,
        idle_unloads: known.idle_unloads,
        predicted: known.prediction.predicted,
        prediction_error: known.prediction.absolute_error,
        sequences: known.sequences.map(|known| SequenceNumbers {
            open: known.open,
            backlog: known.backlog,
            ended: known.ended,
            idle: known.idle,
            not_begun: known.not_begun,
            lost: known.lost,
            closed: known.closed,
        }),
    }
}

fn held(report: ModelReport) -> HeldModel {
    HeldModel {
        state: match report.state {
            ModelState::Loading => LoadState::Loading,
            ModelState::Ready => LoadState::Ready,
            ModelState::Standby => LoadState::Standby,
            ModelState::Waking => LoadState::Waking,
            ModelState::Unloading => LoadState::Unloading,
            ModelState::Quarantined => LoadState::Quarantined,
            ModelState::Unavailable => LoadState::Failed,
        },
        tenant: report.key.tenant,
        model: report.key.model,
        version: report.key.version,
        reason: report.reason,
        memory_bytes: matches!(report.state, ModelState::Ready | ModelState::Quarantined)
            .then_some(report.memory_bytes),
        peak_bytes: report.load_time.map(|_| report.peak_bytes),
        load_seconds: report.load_time.map(|time| time.as_secs_f64()),
        progress: report.progress.map(Progress::from),
    }
}

/// Trials go straight to a device, or to the devices of an ensemble's steps: they are an admin's, and no tenant's limits stand before them.
pub(crate) struct DeviceProbe {
    pub(crate) fleet: LocalFleet,
    pub(crate) router: RouterParts,
}

impl Probe for DeviceProbe {
    fn infer(&self, job: InferJob, parameters: Parameters) -> BoxFuture<'static, Result<JobOutcome, Fault>> {
        if let Some(entry) = self.router.snapshots.load().ensemble(&job.version) {
            let reply = infer_ensemble(&self.router, entry, job, parameters);
            return async move { reply?.await }.boxed();
        }
        let holds = |device: &mesh_worker::DeviceReport| {
            device
                .models
                .iter()
                .any(|model| model.key == *job.version && model.state.takes_jobs())
        };
        let report = self.fleet.worker().report();
        let device = report
            .devices
            .iter()
            .find(|device| !self.fleet.is_leaving(device.device) && holds(device))
            .map(|device| device.device);
        let reply = match device {
            Some(device) => self.fleet.hand_over(device, job),
            None => Err(Fault::unavailable(
                FaultSource::Model,
                "the version is not ready on any device",
            )),
        };
        async move { reply?.await }.boxed()
    }
}

/// The app that is part of this program.
pub(crate) struct WebApp;

impl Assets for WebApp {
    fn get(&self, path: &str) -> Option<Asset> {
        if path == mesh_admin_web::INDEX && !mesh_admin_web::is_built() {
            return Some(Asset {
                bytes: mesh_admin_web::NOT_BUILT_PAGE.as_bytes().into(),
                content_type: "text/html; charset=utf-8".into(),
            });
        }
        mesh_admin_web::get(path).map(|asset| Asset {
            bytes: asset.bytes,
            content_type: asset.content_type.into(),
        })
    }
}
