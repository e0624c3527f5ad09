//! Which models are loaded next, by whom, and what comes of it.
//!
//! Loads wait in one queue: first those that requests wait for, then hints, then another artifact for a model that is there,
//! then models that are declared and not yet loaded, each kind in the order in which they were asked for. A load for which there is no
//! room makes some, unless nobody needs it yet: then its model stands by. The head of the queue is not overtaken, so that a
//! large model gets its room. Bounded: one load per model at a time, and as many loaders as the configuration says.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_backend::LoadSpec;
use mesh_types::ModelVersionKey;

use crate::{
    crew::MAX_ABANDONED,
    device::DeviceActor,
    loader::{self, MAX_LOADERS, Running, Task},
    model::{Model, Phase, Place},
    priority::Urgency,
    residency::Choice,
    standby::Room,
    thread::ThreadParts,
};

/// How soon a load that found no room is looked at again, where nothing says when there will be some.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// A model whose smallest batch takes no longer is run once on the thread that it comes to, before its first request.
pub(crate) const SHORT_TOUCH: Duration = Duration::from_millis(20);
/// Why a model stands by that was declared while the device's memory was taken.
pub(crate) const NO_ROOM_YET: &str =
    "there was no room for it when it was declared: it is loaded with its first request";
/// How long a device's end waits for a loader, which looks at every step whether it has been given up.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);

/// Why a load is wanted, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Requests wait for it.
    Demand,
    /// Somebody said that requests will come, or an instance is missing.
    Hint,
    /// It is to take the place of what serves.
    Replace,
    /// It has been declared.
    Declared,
}

/// A place among the loads that wait.
pub(crate) type Want = (Rank, u64);

/// A load under way.
#[derive(Debug)]
pub(crate) struct Active {
    pub(crate) id: u64,
    pub(crate) key: Arc<ModelVersionKey>,
    pub(crate) places: Vec<usize>,
    /// What is loaded, where it is to take the place of what is there.
    pub(crate) replacing: Option<LoadSpec>,
    unmeasured: bool,
    /// Nobody needs it yet: it gives way where it takes more than was known.
    pub(crate) yields: bool,
    pub(crate) running: Running,
}

/// The loads of one device.
#[derive(Debug)]
pub(crate) struct Loads {
    waiting: BTreeSet<(Rank, u64, Arc<ModelVersionKey>)>,
    pub(crate) active: Vec<Active>,
    at_once: usize,
    next: u64,
    /// Memory has been freed that the system has not got back.
    pub(crate) freed: bool,
    releasing: Option<std::thread::JoinHandle<()>>,
    /// There is no use in looking before this.
    blocked: Option<Instant>,
}

impl Loads {
    pub(crate) fn new(at_once: usize) -> Self {
        Self {
            waiting: BTreeSet::new(),
            active: Vec::new(),
            at_once: at_once.clamp(1, MAX_LOADERS),
            next: 0,
            freed: false,
            releasing: None,
            blocked: None,
        }
    }

    /// A model that has nothing to run any more may give way.
    pub(crate) fn unblock_if(&mut self, is_over: bool) {
        self.blocked = self.blocked.filter(|_| !is_over);
    }

    /// The next look may find more.
    pub(crate) fn unblock(&mut self) {
        self.blocked = None;
    }

    /// When to look again.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let blocked = self.blocked.filter(|_| !self.waiting.is_empty());
        let hung = self.active.iter().filter_map(|active| active.running.link.pulse.due());
        let releasing = self.freed.then(|| now + Duration::from_millis(100));
        blocked.into_iter().chain(hung).chain(releasing).min()
    }

    /// Whether a loader is at the model now.
    pub(crate) fn is_loading(&self, key: &ModelVersionKey) -> bool {
        self.active.iter().any(|active| *active.key == *key)
    }

    fn forget(&mut self, (rank, number): Want, key: &Arc<ModelVersionKey>) {
        self.waiting.remove(&(rank, number, key.clone()));
    }

    /// Gives freed memory back to the system, one such thread at a time; a load that is about to begin does it itself.
    fn release(&mut self, parts: &ThreadParts) {
        if self.releasing.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        self.freed = false;
        self.releasing = loader::release(parts.clone(), Vec::new())
            .inspect_err(|error| tracing::warn!(%error, "memory is not given back to the system"))
            .ok();
    }
}

impl Drop for Loads {
    fn drop(&mut self) {
        for active in &self.active {
            active.running.link.abandon();
        }
        for active in self.active.drain(..) {
            if active.running.link.wait(JOIN_PATIENCE) {
                // It has ended and says nothing any more.
                let _ = active.running.handle.join();
            } else {
                tracing::error!(model = %active.key, "a load does not end: its thread is left behind");
            }
        }
        // It only frees memory, and says nothing.
        let _ = self.releasing.take().map(std::thread::JoinHandle::join);
    }
}

impl DeviceActor {
    /// The model is to be loaded: on all threads that should have it and do not.
    pub(crate) fn want(&mut self, key: &Arc<ModelVersionKey>, rank: Rank) {
        let Some(model) = self.models.get_mut(key) else { return };
        model.failed = false;
        if model.want.is_some_and(|(known, _)| known <= rank) {
            return;
        }
        if let Some(known) = model.want.take() {
            self.loads.forget(known, key);
        }
        self.loads.next += 1;
        let want = (rank, self.loads.next);
        model.want = Some(want);
        self.loads.waiting.insert((want.0, want.1, key.clone()));
        self.loads.unblock();
    }

    /// The model is not to be loaded after all.
    pub(crate) fn forget_want(&mut self, key: &Arc<ModelVersionKey>) {
        let want = self.models.get_mut(key).and_then(|model| model.want.take());
        self.forget_wanted(want, key);
    }

    pub(crate) fn forget_wanted(&mut self, want: Option<Want>, key: &Arc<ModelVersionKey>) {
        want.into_iter().for_each(|want| self.loads.forget(want, key));
    }

    /// Begins the loads whose turn it is, as far as there are loaders and room.
    pub(crate) fn pump(&mut self) {
        if self.loads.waiting.is_empty() {
            if self.loads.freed {
                self.loads.release(&self.parts.thread);
            }
            return;
        }
        let now = self.now();
        if self.loads.blocked.is_some_and(|until| now < until) {
            return;
        }
        self.loads.unblock();
        while self.loads.active.len() < self.loads.at_once {
            let mut queue = self.loads.waiting.iter();
            // One that is being loaded for some threads is loaded for others after that.
            let Some((rank, _, key)) =
                queue.find(|(_, _, key)| !self.loads.active.iter().any(|active| active.key == *key))
            else {
                return;
            };
            let (rank, key) = (*rank, key.clone());
            if !self.is_worth_loading(rank, &key) {
                self.forget_want(&key);
                self.publish(&key);
                self.finish_unload(&key);
                continue;
            }
            if !self.try_load(rank, &key, now) {
                return;
            }
        }
    }

    /// Begins the load, makes room for it or gives it up; false if it has to wait.
    fn try_load(&mut self, rank: Rank, key: &Arc<ModelVersionKey>, now: Instant) -> bool {
        let soon = now + LOOK_AGAIN;
        match self.room_for(key, now) {
            Room::Known(Choice::Room) if self.overlaps(key) => {
                self.loads.blocked = Some(soon);
                return false;
            }
            Room::Known(Choice::Room) => self.begin(rank, key),
            Room::Known(Choice::Evict(victims)) if self.may_displace(rank, key) => {
                for victim in victims {
                    self.stand_by(&victim, format!("left memory for '{}'", key.model));
                    self.parts.thread.shared.books.lock().evicted(&victim, false);
                }
            }
            Room::Known(Choice::Later(at)) if self.may_displace(rank, key) => {
                self.loads.blocked = Some(at.map_or(soon, |at| at.max(soon)));
                return false;
            }
            Room::Known(Choice::Never(_)) | Room::TooLarge(_) if rank != Rank::Declared => {
                let why = self.no_room_ever(key);
                self.fail_load(key, why);
            }
            Room::TooLarge(why) => self.fail_load(key, why),
            Room::Known(_) => {
                self.forget_want(key);
                self.stand_by(key, NO_ROOM_YET.to_owned());
            }
        }
        true
    }

    /// Whether anybody still wants it.
    fn is_worth_loading(&self, rank: Rank, key: &Arc<ModelVersionKey>) -> bool {
        let Some(model) = self.models.get(key) else {
            return false;
        };
        match rank {
            Rank::Replace => model.replacing.is_some(),
            Rank::Demand if matches!(model.phase, Phase::Standby | Phase::Unloading) => {
                self.scheduler.waiting(key) > 0 || !model.answers.is_empty()
            }
            _ => !model.missing_places().is_empty() || model.has(Place::Leaving),
        }
    }

    fn may_displace(&self, rank: Rank, key: &Arc<ModelVersionKey>) -> bool {
        let pinned = |model: &Model| model.spec.config.residency().pinned;
        rank != Rank::Declared || self.models.get(key).is_some_and(pinned)
    }

    /// Of models whose cost nobody has measured, one is warmed at a time where memory is bounded: the budget is overshot by one
    /// of them at most.
    fn overlaps(&self, key: &Arc<ModelVersionKey>) -> bool {
        let unmeasured = self.models.get(key).is_some_and(|model| !model.cost.known);
        self.parts.budget.is_some() && unmeasured && self.loads.active.iter().any(|active| active.unmeasured)
    }

    fn begin(&mut self, rank: Rank, key: &Arc<ModelVersionKey>) {
        self.forget_want(key);
        let replacing = self.models.get(key).and_then(|model| model.replacing.as_ref());
        let replacing = replacing
            .filter(|_| rank == Rank::Replace)
            .map(|replacing| replacing.spec.clone());
        let instances = replacing.as_ref().map(|spec| self.make_places(spec));
        let Some(model) = self.models.get_mut(key) else { return };
        if let Some(instances) = instances.filter(|instances| model.places.len() < *instances) {
            model.places.resize(instances, Place::Gone);
        }
        let places = instances.map_or_else(|| model.missing_places(), |instances| (0..instances).collect());
        for place in &places {
            if let Some(slot @ Place::Gone) = model.places.get_mut(*place) {
                *slot = Place::Loading;
            }
        }
        self.loads.next += 1;
        let id = self.loads.next;
        let unmeasured = !model.cost.known || replacing.is_some();
        let task = Task {
            id,
            spec: replacing.clone().unwrap_or_else(|| model.spec.clone()),
            instances: places.len(),
            urgency: if rank == Rank::Demand {
                Urgency::Awaited
            } else {
                Urgency::Background
            },
            release: std::mem::take(&mut self.loads.freed),
        };
        match self.start(task, &places) {
            Ok(running) => {
                self.loads.active.push(Active {
                    id,
                    key: key.clone(),
                    places,
                    unmeasured,
                    yields: !self.may_displace(rank, key),
                    replacing,
                    running,
                });
                self.publish(key);
            }
            Err(why) => {
                places.iter().for_each(|place| self.vacate(key, *place));
                self.fail_load(key, why);
            }
        }
    }

    fn start(&self, task: Task, places: &[usize]) -> Result<Running, String> {
        let given_up = self.parts.thread.shared.abandoned() > MAX_ABANDONED;
        if given_up || !places.iter().any(|place| self.crew.is_manned(*place)) {
            return Err("the device has lost too many threads to executions that hang".to_owned());
        }
        loader::start(task, self.parts.thread.clone()).map_err(|error| format!("a loader does not start: {error}"))
    }
}
