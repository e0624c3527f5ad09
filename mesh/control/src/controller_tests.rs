//! Facts about the task, with a real registry and devices that do what the test says.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use arc_swap::ArcSwap;
use futures::FutureExt;
use mesh_actors::{Readiness, Tasks};
use mesh_policies::{MeshSnapshot, Pepper};
use mesh_registry::{Author, Change, Expected, Registry, RegistryConfig};
use mesh_resources::{Resource, Spec};
use mesh_types::{ArtifactFormat, DeviceId, Fault, FaultSource, ModelVersionKey};
use tokio::sync::watch;

use crate::{
    Controller, ControllerHandle, ControllerParts, DeviceReport, Fleet, FleetReport, LoadOrder, ModelReport,
    ModelState, Moved, samples::*,
};

/// One CPU device that loads at once, except what it was told to fail or to panic about.
struct Devices {
    models: Arc<Mutex<BTreeMap<ModelVersionKey, ModelState>>>,
    changed: Arc<watch::Sender<u64>>,
    fails: Option<ModelVersionKey>,
    panics: Mutex<u32>,
}

impl Devices {
    fn new(fails: Option<&str>, panics: u32) -> Arc<Self> {
        Arc::new(Self {
            models: Arc::default(),
            changed: Arc::new(watch::channel(0).0),
            fails: fails.map(key),
            panics: Mutex::new(panics),
        })
    }

    fn set(&self, key: ModelVersionKey, state: Option<ModelState>) {
        let mut models = self.models.lock().unwrap();
        match state {
            Some(state) => drop(models.insert(key, state)),
            None => drop(models.remove(&key)),
        }
        drop(models);
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Fleet for Devices {
    fn devices(&self) -> Vec<DeviceId> {
        let mut panics = self.panics.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if *panics > 0 {
            *panics -= 1;
            panic!("told to");
        }
        vec![CPU]
    }

    fn load(&self, _: DeviceId, order: LoadOrder) -> Moved {
        if self.fails.as_ref() == Some(&order.key) {
            return async { Err(Fault::unavailable(FaultSource::Model, "it does not fit")) }.boxed();
        }
        self.set(order.key, Some(ModelState::Ready));
        async { Ok(()) }.boxed()
    }

    fn warm_up(&self, _: DeviceId, key: ModelVersionKey) -> Moved {
        self.set(key, Some(ModelState::Ready));
        async { Ok(()) }.boxed()
    }

    fn unload(&self, _: DeviceId, key: ModelVersionKey) -> Moved {
        self.set(key, None);
        async { Ok(()) }.boxed()
    }

    fn report(&self) -> FleetReport {
        let models = self.models.lock().unwrap();
        let models = models.iter().map(|(key, state)| ModelReport {
            key: key.clone(),
            state: *state,
            reason: None,
            memory_bytes: 1,
            peak_bytes: 0,
            load_time: None,
            proven: *state == ModelState::Ready,
            progress: None,
        });
        FleetReport {
            devices: vec![DeviceReport {
                device: CPU,
                draining: false,
                budget: None,
                models: models.collect(),
            }],
        }
    }

    fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}

struct Running {
    registry: Registry,
    control: ControllerHandle,
    snapshots: Arc<ArcSwap<MeshSnapshot>>,
    readiness: Readiness,
    tasks: Tasks,
    _folder: tempfile::TempDir,
}

fn start(fleet: Arc<Devices>) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::new();
    let registry = Registry::open(RegistryConfig::new(folder.path().join("registry")), &tasks).unwrap();
    let (snapshots, readiness) = (Arc::new(ArcSwap::default()), Readiness::default());
    let parts = ControllerParts {
        registry: registry.handle(),
        fleet,
        snapshots: snapshots.clone(),
        pepper: Pepper::from_bytes([7; 32]),
        published: Arc::new(|_| {}),
        ready: readiness.register("models"),
    };
    Running {
        control: Controller::start(parts, &tasks),
        registry,
        snapshots,
        readiness,
        tasks,
        _folder: folder,
    }
}

impl Running {
    async fn write(&self, resources: Vec<Resource>) {
        let put = |resource| Change::Put {
            resource,
            expected: Expected::Any,
        };
        let author = Author {
            who: "test".to_owned(),
            source: "mesh".to_owned(),
            request: None,
            from: None,
        };
        let changes = resources.into_iter().map(put).collect();
        self.registry.handle().write(author, changes).await.unwrap();
    }

    /// Waits until the view holds what is looked for.
    async fn until(&self, wanted: impl FnMut(&FleetReport) -> bool) {
        let mut view = self.control.watch();
        let seen = tokio::time::timeout(Duration::from_secs(10), view.wait_for(wanted)).await;
        seen.unwrap().unwrap();
    }

    async fn end(self) {
        self.tasks.end(Duration::from_secs(5)).await;
        self.registry.close().unwrap();
    }
}

fn builtin(text: &str, unloaded: bool) -> Resource {
    let mut resource = a_version(text, unloaded);
    if let Spec::ModelVersion(spec) = &mut resource.spec {
        (spec.format, spec.artifact) = (ArtifactFormat::Builtin, None);
        spec.config = serde_json::from_value(serde_json::json!({
            "max_batch_size": 8,
            "input": [{"name": "x", "datatype": "FP32", "dims": [-1]}],
            "output": [{"name": "y", "datatype": "FP32", "dims": [-1]}],
            "parameters": {"builtin": "identity"},
        }))
        .unwrap();
    }
    resource
}

fn state_of(report: &FleetReport, text: &str) -> Option<ModelState> {
    report
        .models()
        .find(|(_, model)| model.key == key(text))
        .map(|(_, model)| model.state)
}

#[test]
fn what_is_written_is_loaded_published_and_taken_away_again() {
    actix::System::new().block_on(async {
        let running = start(Devices::new(None, 0));
        running
            .write(vec![
                a_tenant("acme"),
                a_model("acme", "m", &[], &[]),
                builtin("acme/m/1", false),
            ])
            .await;
        running
            .until(|view| state_of(view, "acme/m/1") == Some(ModelState::Ready))
            .await;
        assert!(running.readiness.is_ready());
        assert!(running.snapshots.load().tenant("acme").unwrap().target("m").is_some());
        running.write(vec![builtin("acme/m/1", true)]).await;
        running.until(|view| state_of(view, "acme/m/1").is_none()).await;
        running.end().await;
    });
}

#[test]
fn a_load_that_fails_is_shown_with_its_reason_and_does_not_keep_the_mesh_from_being_ready() {
    actix::System::new().block_on(async {
        let running = start(Devices::new(Some("acme/m/1"), 0));
        running
            .write(vec![
                a_tenant("acme"),
                a_model("acme", "m", &[], &[]),
                builtin("acme/m/1", false),
                builtin("acme/m/2", false),
            ])
            .await;
        running
            .until(|view| {
                state_of(view, "acme/m/1") == Some(ModelState::Unavailable)
                    && state_of(view, "acme/m/2") == Some(ModelState::Ready)
            })
            .await;
        let view = running.control.view();
        let (_, failed) = view.models().find(|(_, model)| model.key == key("acme/m/1")).unwrap();
        assert_eq!(failed.reason.as_deref(), Some("it does not fit"));
        assert!(running.readiness.is_ready());
        running.end().await;
    });
}

#[test]
fn after_a_panic_control_begins_anew_from_the_records() {
    actix::System::new().block_on(async {
        let running = start(Devices::new(None, 2));
        running
            .write(vec![
                a_tenant("acme"),
                a_model("acme", "m", &[], &[]),
                builtin("acme/m/1", false),
            ])
            .await;
        running
            .until(|view| state_of(view, "acme/m/1") == Some(ModelState::Ready))
            .await;
        running.end().await;
    });
}
