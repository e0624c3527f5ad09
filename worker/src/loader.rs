//! Loader threads: each loads and warms one model, beside the threads that serve and below them in priority.
//!
//! A model is loaded and warmed here and then handed to the device threads that will run it, so that a large load holds up
//! nobody: the system gives a loader the time that the others leave, or where they leave none a small part (`priority`). What takes
//! long runs on a thread of its own for each part of the load, since who has left processors to all others cannot take that back. A
//! thread lives for one load; the actor bounds how many there are at once. One that hangs is given up like a device thread: what it says afterwards is not heard.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use mesh_backend::{BackendError, LoadSpec, LoadedModel};
use mesh_types::{Fault, LoadProgress, LoadStage};
use parking_lot::Mutex;

use crate::{
    execute::caught,
    link::Link,
    order::Profile,
    priority::{self, Urgency},
    sequences::Plan,
    shared::Shared,
    thread::{LOAD_LIMIT, LastAct, ThreadParts, load_instance},
    warm::{self, Step, Stove, Sweep},
};

/// The most loaders of one device at once.
pub(crate) const MAX_LOADERS: usize = 16;

/// What the report of a model says that was not optimised for want of memory.
const NO_ROOM_TO_OPTIMIZE: &str =
    "the device's memory budget has no room for other forms of the model beside it: none was tried";

/// How many times as long as a live execution one of a warm-up may take.
const WARM_UP_PATIENCE: u32 = 20;

/// What a loader is to do.
#[derive(Debug)]
pub(crate) struct Task {
    /// Its number on this device; never used twice.
    pub(crate) id: u64,
    pub(crate) spec: LoadSpec,
    pub(crate) instances: usize,
    pub(crate) urgency: Urgency,
    /// Whether memory of models that are gone is given back to the system first.
    pub(crate) release: bool,
    /// Whether there is memory to optimise it in.
    pub(crate) optimize: bool,
}

/// What a loader brings.
pub(crate) struct Loaded {
    pub(crate) id: u64,
    pub(crate) result: Result<Prepared, Fault>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Warm instances of one model.
pub(crate) struct Prepared {
    pub(crate) instances: Vec<Box<dyn LoadedModel>>,
    pub(crate) profile: Profile,
    /// How long it took.
    pub(crate) took: Duration,
}

/// The actor's end of a loader.
pub(crate) struct Running {
    pub(crate) link: Arc<Link>,
    pub(crate) progress: Arc<Mutex<LoadProgress>>,
    pub(crate) handle: JoinHandle<()>,
    awaited: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

impl Running {
    /// Requests wait for it from now on: what is left of the load is done as one of those is.
    pub(crate) fn is_awaited(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }

    /// Gives the loader up; false if it has ended by itself.
    pub(crate) fn give_up(&self) -> bool {
        // Counted before the thread can see it, which counts itself out again.
        self.shared.gave_up();
        let given_up = self.link.abandon();
        if !given_up {
            self.shared.came_back();
        }
        given_up
    }
}

/// Starts a loader.
pub(crate) fn start(task: Task, parts: ThreadParts) -> std::io::Result<Running> {
    let link = Arc::new(Link::default());
    let progress = Arc::new(Mutex::new(LoadProgress {
        instances: u32::try_from(task.instances).unwrap_or(u32::MAX),
        ..LoadProgress::default()
    }));
    let awaited = Arc::new(AtomicBool::new(task.urgency == Urgency::Awaited));
    let shared = parts.shared.clone();
    let last_act = LastAct::new(link.clone(), shared.clone());
    let name = format!("{}-load", shared.device);
    let loader = Loader {
        task,
        parts,
        link: link.clone(),
        progress: progress.clone(),
        awaited: awaited.clone(),
    };
    let run = move || {
        // Its end wakes the actor, by a panic too.
        let _last_act = last_act;
        loader.run();
    };
    let handle = std::thread::Builder::new().name(name).spawn(run)?;
    Ok(Running {
        link,
        progress,
        handle,
        awaited,
        shared,
    })
}

/// Drops these, and gives memory of models that are gone back to the system, on a thread of its own.
pub(crate) fn release(parts: ThreadParts, unwanted: Vec<Box<dyn LoadedModel>>) -> std::io::Result<JoinHandle<()>> {
    let name = format!("{}-release", parts.shared.device);
    std::thread::Builder::new().name(name).spawn(move || {
        // A compiled package has code that runs as it goes.
        match parts.confine(None) {
            Ok(()) => drop(unwanted),
            Err(error) => {
                tracing::error!(device = %parts.shared.device, %error, "models that are gone keep their memory");
                std::mem::forget(unwanted);
            }
        }
        release_memory(&parts);
    })
}

fn release_memory(parts: &ThreadParts) {
    for backend in parts.backends.iter() {
        backend.release_memory(parts.shared.device);
    }
}

/// The model as its runtime sees it: a stateful one has inputs and outputs that the device fills in and keeps.
fn runtime(spec: &LoadSpec) -> Result<LoadSpec, Fault> {
    let planned = Plan::of(spec)?;
    Ok(planned.map_or_else(|| spec.clone(), |(_, runtime)| runtime))
}

struct Loader {
    task: Task,
    parts: ThreadParts,
    link: Arc<Link>,
    progress: Arc<Mutex<LoadProgress>>,
    awaited: Arc<AtomicBool>,
}

impl Loader {
    /// For what it works at this moment.
    fn urgency(&self) -> Urgency {
        if self.awaited.load(Ordering::Relaxed) {
            Urgency::Awaited
        } else {
            Urgency::Background
        }
    }

    fn run(self) {
        // At full priority: it holds the allocator's locks, for which device threads would have to wait.
        if self.task.release {
            release_memory(&self.parts);
        }
        // With all threads that it starts; and models that come to nothing end here.
        let confined = self.parts.confine(self.task.spec.artifact.as_deref());
        let confined = confined.map_err(|error| Fault::from(BackendError::Load(error.to_string())));
        let began = self.parts.clock.now();
        let result = confined.and_then(|()| runtime(&self.task.spec)).and_then(|spec| {
            let loaded = caught(|| self.instances(&spec));
            let (instances, profile) = loaded.map_err(Fault::from)?;
            let took = self.parts.clock.now().saturating_duration_since(began);
            Ok(Prepared {
                instances,
                profile,
                took,
            })
        });
        self.link.pulse.end();
        if self.link.is_abandoned() {
            return;
        }
        let loaded = Loaded {
            id: self.task.id,
            result,
        };
        // As many places as loaders that the actor hears; it looks for news of the others' ends by itself.
        if self.parts.shared.loaded.push(loaded).is_err() {
            tracing::error!(device = %self.parts.shared.device, "no room for a loader's news");
        }
    }

    fn instances(&self, spec: &LoadSpec) -> Result<(Vec<Box<dyn LoadedModel>>, Profile), BackendError> {
        let (mut instances, mut measured) = (Vec::with_capacity(self.task.instances), None);
        for number in 0..self.task.instances {
            self.show(|progress| {
                *progress = LoadProgress {
                    stage: LoadStage::Loading,
                    instance: u32::try_from(number + 1).unwrap_or(u32::MAX),
                    instances: progress.instances,
                    bytes: progress.bytes,
                    ..LoadProgress::default()
                }
            });
            self.link.pulse.begin(self.parts.clock.now(), LOAD_LIMIT, None);
            let mut model = self.apart(|| load_instance(&self.parts, spec))?;
            self.link.pulse.end();
            self.show(|progress| {
                progress.stage = LoadStage::Warming;
                progress.bytes = progress.bytes.saturating_add(model.memory_bytes());
            });
            let sweep = if measured.is_none() {
                Sweep::Measured
            } else {
                Sweep::Repeated
            };
            if self.task.optimize {
                self.apart(|| {
                    self.at_stove(spec, |stove| warm::optimize(stove, model.as_mut(), &spec.config));
                    Ok(())
                })?;
            } else {
                model.leave_as_it_is(NO_ROOM_TO_OPTIMIZE);
            }
            let profile =
                self.apart(|| self.at_stove(spec, |stove| warm::warm(stove, model.as_mut(), &spec.config, sweep)))?;
            measured.get_or_insert(profile);
            instances.push(model);
        }
        Ok((instances, measured.unwrap_or_default()))
    }

    /// Does a part of the load on a thread of its own, which leaves processors to all others if that leaves it any. None takes that back,
    /// so that requests that begin to wait are heeded from the next part on.
    fn apart<T: Send>(&self, work: impl FnOnce() -> Result<T, BackendError> + Send) -> Result<T, BackendError> {
        let parts = &self.parts;
        let probe = parts.clone();
        let urgency = self.urgency();
        let gives_way = priority::finds_time(urgency, move || probe.give_way());
        let here = move || {
            priority::lower(urgency);
            if gives_way {
                parts.give_way();
            }
            parts.enter_backends();
            work()
        };
        let name = format!("{}-load", parts.shared.device);
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name(name).spawn_scoped(scope, here);
            // A panic goes on here, where it is caught.
            let thread = thread.map_err(|error| BackendError::Load(format!("no thread to load it on: {error}")))?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn at_stove<T>(&self, spec: &LoadSpec, run: impl FnOnce(&Stove<'_>) -> T) -> T {
        run(&Stove {
            clock: &*self.parts.clock,
            pulse: &self.link.pulse,
            limit: self.patience(spec),
            step: &|step| self.warms(step),
        })
    }

    /// How long one execution of a warm-up may take: far longer than a live one, since the first ones compile, and all of them
    /// run below what serves.
    fn patience(&self, spec: &LoadSpec) -> Duration {
        let live = self.parts.limit(spec);
        let longer = live.saturating_mul(WARM_UP_PATIENCE);
        longer.max(self.parts.execution_timeout).min(LOAD_LIMIT.max(live))
    }

    fn warms(&self, step: Step<'_>) -> bool {
        self.show(|progress| match step {
            Step::Rows(rows) => progress.rows = Some(rows),
            Step::Record(name) => progress.record = Some(name.to_owned()),
        });
        !self.link.is_abandoned()
    }

    fn show(&self, change: impl FnOnce(&mut LoadProgress)) {
        change(&mut self.progress.lock());
        self.parts.shared.wake();
    }
}
