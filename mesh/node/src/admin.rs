//! What the admin door needs of the rest: the view of the devices, trials, and the files of the web app.

use futures::{FutureExt, future::BoxFuture};
use mesh_admin_api::{Asset, Assets, DeviceView, FleetView, HeldModel, LoadState, Probe};
use mesh_control::{ControllerHandle, ModelReport, ModelState};
use mesh_types::{Fault, FaultSource, InferJob, JobOutcome};
use mesh_worker::WorkerHandle;

/// What control shows of the devices.
pub(crate) struct ControlView(pub(crate) ControllerHandle);

impl FleetView for ControlView {
    fn devices(&self) -> Vec<DeviceView> {
        let view = self.0.view();
        let device = |device: mesh_control::DeviceReport| DeviceView {
            device: device.device,
            models: device.models.into_iter().map(held).collect(),
        };
        view.devices.into_iter().map(device).collect()
    }
}

fn held(report: ModelReport) -> HeldModel {
    HeldModel {
        state: match report.state {
            ModelState::Loading => LoadState::Loading,
            ModelState::Ready => LoadState::Ready,
            ModelState::Unloading => LoadState::Unloading,
            ModelState::Unavailable => LoadState::Failed,
        },
        tenant: report.key.tenant,
        model: report.key.model,
        version: report.key.version,
        reason: report.reason,
        memory_bytes: (report.state == ModelState::Ready).then_some(report.memory_bytes),
    }
}

/// Trials go straight to a device: they are an admin's, and no tenant's limits stand before them.
pub(crate) struct DeviceProbe(pub(crate) WorkerHandle);

impl Probe for DeviceProbe {
    fn infer(&self, job: InferJob) -> BoxFuture<'static, Result<JobOutcome, Fault>> {
        let holds = |device: &mesh_worker::DeviceReport| {
            device
                .models
                .iter()
                .any(|model| model.key == *job.version && model.state == mesh_worker::ModelState::Ready)
        };
        let report = self.0.report();
        let device = report
            .devices
            .iter()
            .find(|device| holds(device))
            .map(|device| device.device);
        let reply = match device {
            Some(device) => self.0.submit(device, job),
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
