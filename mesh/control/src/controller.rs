//! The task that carries out: it follows the registry and the devices, publishes snapshots and gives the orders.
//!
//! One task, so that there is one opinion. A panic in it is caught and it begins anew from the records and the report, a
//! bounded number of times at a growing distance; routers keep the last snapshot meanwhile.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use mesh_actors::{ReadinessGuard, ShutdownSignal, Tasks};
use mesh_policies::{MeshSnapshot, Pepper};
use mesh_registry::{RegistryError, RegistryHandle};
use mesh_types::{DeviceId, ModelVersionKey};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::{
    compile::{Compiled, compile},
    fleet::{Fleet, FleetReport, LoadOrder},
    plan::{Books, Move, Place, Plan, Unsettled},
    records::{Records, VersionRecord},
};

/// How often the task is begun anew after a panic, and the wait before the first time; doubled for each further one.
const MAX_RESTARTS: u32 = 10;
const RESTART_BACKOFF: Duration = Duration::from_millis(100);
/// When records that could not be read are read again.
const READ_RETRY: Duration = Duration::from_secs(1);

/// Told of each published snapshot.
pub type Published = Arc<dyn Fn(&MeshSnapshot) + Send + Sync>;

/// What control works with.
pub struct ControllerParts {
    /// What should be true.
    pub registry: RegistryHandle,
    /// The devices.
    pub fleet: Arc<dyn Fleet>,
    /// Where routers read.
    pub snapshots: Arc<ArcSwap<MeshSnapshot>>,
    /// Under which secrets are hashed.
    pub pepper: Pepper,
    /// Told of each snapshot, after it can be read.
    pub published: Published,
    /// Dropped once every version is where it belongs or has failed to come there.
    pub ready: ReadinessGuard,
}

/// Starts control.
#[derive(Debug, Clone, Copy)]
pub struct Controller;

/// Shows what control knows. Clones show the same.
#[derive(Debug, Clone)]
pub struct ControllerHandle {
    view: watch::Receiver<FleetReport>,
    unsettled: watch::Receiver<Unsettled>,
}

impl ControllerHandle {
    /// The devices' report, with what is on its way or could not be brought to a device, and why.
    pub fn view(&self) -> FleetReport {
        self.view.borrow().clone()
    }

    /// What is on its way to where it belongs or failed to come there, told with each change; after the snapshot.
    pub fn unsettled(&self) -> watch::Receiver<Unsettled> {
        self.unsettled.clone()
    }

    /// Told of each change of the view.
    pub fn watch(&self) -> watch::Receiver<FleetReport> {
        self.view.clone()
    }
}

struct Control {
    registry: RegistryHandle,
    fleet: Arc<dyn Fleet>,
    snapshots: Arc<ArcSwap<MeshSnapshot>>,
    pepper: Pepper,
    published: Published,
    ready: Mutex<Option<ReadinessGuard>>,
    view: watch::Sender<FleetReport>,
    unsettled: watch::Sender<Unsettled>,
}

impl Controller {
    /// Starts the task. Must be called within a tokio runtime.
    pub fn start(parts: ControllerParts, tasks: &Tasks) -> ControllerHandle {
        let (view, watched) = watch::channel(parts.fleet.report());
        let (unsettled, followed) = watch::channel(Unsettled::default());
        let control = Arc::new(Control {
            registry: parts.registry,
            fleet: parts.fleet,
            snapshots: parts.snapshots,
            pepper: parts.pepper,
            published: parts.published,
            ready: Mutex::new(Some(parts.ready)),
            view,
            unsettled,
        });
        tasks.spawn("control", move |signal| keep_running(control, signal));
        ControllerHandle {
            view: watched,
            unsettled: followed,
        }
    }
}

async fn keep_running(control: Arc<Control>, mut signal: ShutdownSignal) {
    for restarts in 0..=MAX_RESTARTS {
        // Nothing but the parts outlives a panic, and those are only read.
        let run = AssertUnwindSafe(control.run(signal.clone())).catch_unwind();
        if run.await.is_ok() || !waited(&mut signal, restarts).await {
            return;
        }
    }
    tracing::error!("control keeps panicking: the last snapshot stays until the mesh is restarted");
}

/// Waits before beginning anew; false if the end came first.
async fn waited(signal: &mut ShutdownSignal, restarts: u32) -> bool {
    tracing::error!(restarts, "control panicked; it begins anew from the records");
    tokio::select! {
        () = signal.ended() => false,
        () = tokio::time::sleep(RESTART_BACKOFF * 2u32.pow(restarts.min(6))) => true,
    }
}

/// A load or an unload that is over.
enum Over {
    Loaded(Place, Result<(), String>),
    WarmedUp(Place, Result<(), String>),
    Unloaded(Place, Result<(), String>),
}

#[derive(Default)]
struct State {
    records: Records,
    compiled: Compiled,
    books: Books,
}

impl Control {
    async fn run(&self, mut signal: ShutdownSignal) {
        let (mut revision, mut fleet) = (self.registry.revision(), self.fleet.changed());
        let mut state = State {
            compiled: Compiled::after(self.snapshots.load_full()),
            ..State::default()
        };
        let mut moves: FuturesUnordered<BoxFuture<'static, Over>> = FuturesUnordered::new();
        let mut read = false;
        while !signal.is_ended() {
            if !read {
                read = self.read(&mut state).await;
            }
            let plan = if read {
                self.turn(&mut state)
            } else {
                Plan::again_at((Instant::now() + READ_RETRY).into_std())
            };
            moves.extend(plan.moves.into_iter().map(|next| self.carry_out(next)));
            // The registry and the devices end after control does; without them there is nothing to follow.
            tokio::select! {
                () = signal.ended() => return,
                changed = revision.changed() => match changed {
                    Ok(()) => read = false,
                    Err(_) => return,
                },
                changed = fleet.changed() => if changed.is_err() { return },
                Some(over) = moves.next() => note(&mut state.books, over),
                () = at(plan.wake_at) => {}
            }
        }
    }

    /// Reads the records, or only what has changed where the rest is known; whether it could.
    async fn read(&self, state: &mut State) -> bool {
        let (registry, known) = (self.registry.clone(), state.records.revision);
        if known != 0 {
            let changes = tokio::task::spawn_blocking(move || registry.changes(known));
            // Otherwise all of them are read, which also says what is wrong.
            if let Ok(Ok(Some(changes))) = changes.await
                && state.records.follow(changes)
            {
                return true;
            }
        }
        let registry = self.registry.clone();
        let all = tokio::task::spawn_blocking(move || {
            let mut records = Records::default();
            let revision = registry.each(|resource| records.take_in(resource))?;
            Ok::<_, RegistryError>(records.at(revision))
        });
        match all.await {
            Ok(Ok(records)) => {
                state.records = records;
                true
            }
            Ok(Err(error)) => {
                tracing::error!(%error, "the records cannot be read; control tries again");
                false
            }
            Err(_) => false,
        }
    }

    /// Publishes what follows from the records and the devices' report, and says what to do next.
    fn turn(&self, state: &mut State) -> Plan {
        let State {
            records,
            compiled,
            books,
        } = state;
        let now = Instant::now().into_std();
        let (report, devices) = (self.fleet.report(), self.fleet.devices());
        books.review(records, &report, now);
        let trouble = books.trouble(records, &report, &devices);
        let before = compiled.snapshot.revision;
        *compiled = compile(records, &report, &trouble, &self.pepper, compiled);
        self.snapshots.store(compiled.snapshot.clone());
        if before != records.revision {
            (self.published)(&compiled.snapshot);
        }
        books.published(compiled, &report, now);
        let plan = books.plan(records, &report, &devices, now);
        let view = books.view(&report);
        self.view.send_if_modified(|shown| {
            let changed = *shown != view;
            *shown = view;
            changed
        });
        let unsettled = books.unsettled(records, &report, &devices);
        self.unsettled.send_if_modified(|told| {
            let changed = *told != unsettled;
            *told = unsettled;
            changed
        });
        if books.is_settled(records, &report, &devices) {
            drop(self.ready.lock().take());
        }
        plan
    }

    fn carry_out(&self, next: Move) -> BoxFuture<'static, Over> {
        let (fleet, registry) = (self.fleet.clone(), self.registry.clone());
        match next {
            Move::Load(device, record) => {
                let place = (device, ModelVersionKey::clone(&record.key));
                let load = async move { load(registry, fleet, device, record).await };
                load.map(|result| Over::Loaded(place, result)).boxed()
            }
            Move::WarmUp(device, key) => {
                let warmed = fleet.warm_up(device, key.clone());
                let place = (device, key);
                warmed
                    .map(|result| Over::WarmedUp(place, result.map_err(|fault| fault.message.into_owned())))
                    .boxed()
            }
            Move::Unload(device, key) => {
                let unload = fleet.unload(device, key.clone());
                let place = (device, key);
                unload
                    .map(|result| Over::Unloaded(place, result.map_err(|fault| fault.message.into_owned())))
                    .boxed()
            }
        }
    }
}

/// Checks the artifact against its digest and loads it.
async fn load(
    registry: RegistryHandle,
    fleet: Arc<dyn Fleet>,
    device: DeviceId,
    record: VersionRecord,
) -> Result<(), String> {
    let reference = record.artifact.clone();
    let verified = tokio::task::spawn_blocking(move || {
        reference
            .map(|reference| registry.artifacts().path_verified(&reference))
            .transpose()
    });
    let artifact = verified
        .await
        .map_err(|_| "the artifact could not be checked".to_owned())?
        .map_err(|error| error.to_string())?;
    let order = LoadOrder {
        key: ModelVersionKey::clone(&record.key),
        config: record.config.clone(),
        format: record.format,
        artifact,
    };
    let loaded = fleet.load(device, order).await;
    loaded.map_err(|fault| fault.message.into_owned())
}

fn note(books: &mut Books, over: Over) {
    let now = Instant::now().into_std();
    match over {
        Over::Loaded(place, result) => books.loaded(&place, result, now),
        Over::WarmedUp(place, result) => books.warmed(&place, result, now),
        Over::Unloaded(place, result) => books.unloaded(&place, result, now),
    }
}

async fn at(instant: Option<std::time::Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
