//! Which models are loaded next, by whom, and what comes of it.
//!
//! Loads wait in one queue: first those that requests wait for, then hints, then another artifact for a model that is there,
//! then models that are declared and not yet loaded, each kind in the order in which they were asked for. A load for which there is no
//! room makes some, unless nobody needs it yet: then its model stands by. The head of the queue is overtaken only by loads for
//! which there is room as it is, and after a while busy models give way to it too, so that a large model gets its room. Bounded:
//! one load per model at a time, as many loaders as the configuration says, and [`LOOK_PAST`] loads looked at behind the head.

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
    link::Link,
    loader::{self, MAX_LOADERS, Running, Task},
    model::{Model, Phase, Place},
    passing::Kept,
    priority::Urgency,
    residency::{Choice, Size},
    standby::Room,
    thread::ThreadParts,
};

/// How soon a load that found no room is looked at again, where nothing says when there will be some: most of what makes room
/// says so by itself.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The longest time for which nobody looks.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// Loads that are looked at behind one that waits for room.
const LOOK_PAST: usize = 32;
/// How long a load waits for models that are used each time it looks, before they give way all the same.
pub(crate) const BUSY_PATIENCE: Duration = Duration::from_secs(2);
/// How long a load that no request waits for may wait for room.
pub(crate) const HINT_PATIENCE: Duration = Duration::from_secs(60);
/// A model whose smallest batch takes no longer is run once on the thread that it comes to, before its first request.
pub(crate) const SHORT_TOUCH: Duration = Duration::from_millis(20);
/// Why a model stands by that was declared while the device's memory was taken.
pub(crate) const NO_ROOM_YET: &str =
    "there was no room for it when it was declared: it is loaded with its first request";
const NO_ROOM_FOR_ALL: &str = "there is no room for all its instances: it serves with fewer";
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
    pub(crate) rank: Rank,
    /// What it takes as far as is known.
    pub(crate) size: Size,
    /// What it takes besides for a time.
    pub(crate) kept: Kept,
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
    /// More is in memory than there should be, for this model's sake: when to look whether others can give way.
    pub(crate) over: Option<(Instant, Arc<ModelVersionKey>)>,
    /// Memory of threads that were given up, until they end.
    pub(crate) lost: Vec<(Arc<Link>, u64)>,
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
            over: None,
            lost: Vec::new(),
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
        let over = self.over.as_ref().map(|(at, _)| *at);
        blocked.into_iter().chain(hung).chain(releasing).chain(over).min()
    }

    /// A load that waits, with so many before it; those of models that are being loaded are not looked at until that is over.
    fn waiting_at(&self, passed: usize) -> Option<(Rank, Arc<ModelVersionKey>)> {
        let idle = |(_, _, key): &&(Rank, u64, Arc<ModelVersionKey>)| !self.is_loading(key);
        let (rank, _, key) = self.waiting.iter().filter(idle).nth(passed)?;
        Some((*rank, key.clone()))
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
            active.running.give_up();
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
        let Some(model) = self.models.get_mut(key) else { return };
        model.blocked_since = None;
        let want = model.want.take();
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
        let mut passed = 0;
        while self.loads.active.len() < self.loads.at_once && passed <= LOOK_PAST {
            let Some((rank, key)) = self.loads.waiting_at(passed) else {
                break;
            };
            if !self.is_worth_loading(rank, &key) {
                self.forget_want(&key);
                self.publish(&key);
                self.finish_unload(&key);
                continue;
            }
            if !self.try_load(rank, &key, now, passed == 0) {
                passed += 1;
            }
        }
        if passed > 0 {
            // Whatever may change that says so; the next turns need not look.
            self.loads.blocked.get_or_insert(now + LONGEST_LOOK);
        }
    }

    /// Begins the load, makes room for it or gives it up; false if it has to wait. Only the first of those that wait has others
    /// give way.
    fn try_load(&mut self, rank: Rank, key: &Arc<ModelVersionKey>, now: Instant, first: bool) -> bool {
        let (room, kept) = self.room_for(rank, key, now);
        match room {
            // The end of the other load has this one looked at again.
            Room::Known(Choice::Room) if self.overlaps(key) => return false,
            Room::Known(Choice::Room) => self.begin(rank, key, kept),
            Room::TooLarge(why) => self.give_up_load(rank, key, why),
            Room::Known(_) if !first => return false,
            Room::Known(Choice::Evict(victims)) if self.may_displace(rank, key) => self.displace(&victims, key),
            Room::Known(Choice::Later(at)) if self.may_displace(rank, key) => {
                return self.wait_for_room(rank, key, at, now);
            }
            Room::Known(Choice::Never(_)) if rank != Rank::Declared => {
                let why = self.no_room_ever(key);
                self.give_up_load(rank, key, why);
            }
            Room::Known(_) => self.go_without(key),
        }
        true
    }

    fn displace(&mut self, victims: &[Arc<ModelVersionKey>], key: &ModelVersionKey) {
        for victim in victims {
            self.stand_by(victim, format!("left memory for '{}'", key.model));
            self.parts.thread.shared.books.lock().evicted(victim, false);
            // One that was used all the time comes back in its turn.
            if self.scheduler.waiting(victim) > 0 {
                self.demand(victim);
            }
        }
    }

    /// There will be room, but not now; true if it has been waited for long enough.
    fn wait_for_room(&mut self, rank: Rank, key: &Arc<ModelVersionKey>, at: Option<Instant>, now: Instant) -> bool {
        let Some(model) = self.models.get_mut(key) else {
            return true;
        };
        let since = *model.blocked_since.get_or_insert(now);
        let patience = match rank {
            Rank::Hint | Rank::Replace => HINT_PATIENCE,
            // Requests have deadlines, and what is pinned is promised its place.
            Rank::Demand | Rank::Declared => Duration::MAX,
        };
        if now.saturating_duration_since(since) >= patience {
            let seconds = patience.as_secs();
            let why = format!("there was no room for it within {seconds} s: what is in memory is used all the time");
            if rank == Rank::Hint {
                self.give_up_hint(key, why);
            } else {
                self.give_up_load(rank, key, why);
            }
            return true;
        }
        let soon = now + LOOK_AGAIN;
        self.loads.blocked = Some(at.map_or(soon, |at| at.clamp(soon, now + LONGEST_LOOK)));
        false
    }

    /// Nobody needs the model yet, and there is no room for it, or not for all its instances.
    fn go_without(&mut self, key: &Arc<ModelVersionKey>) {
        self.forget_want(key);
        let there = self.models.get(key).and_then(|model| model.ready_places().next());
        if there.is_some() {
            self.fail_load(key, NO_ROOM_FOR_ALL.to_owned());
        } else {
            self.stand_by(key, NO_ROOM_YET.to_owned());
        }
    }

    /// Whether the load has waited so long for its room that busy models give way to it.
    pub(crate) fn is_impatient(model: &Model, now: Instant) -> bool {
        let since = model.blocked_since;
        since.is_some_and(|since| now.saturating_duration_since(since) >= BUSY_PATIENCE)
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

    pub(crate) fn may_displace(&self, rank: Rank, key: &Arc<ModelVersionKey>) -> bool {
        let pinned = |model: &Model| model.spec.config.residency().pinned;
        rank != Rank::Declared || self.models.get(key).is_some_and(pinned)
    }

    /// Of models whose cost nobody has measured, one is warmed at a time where memory is bounded: the budget is overshot by one
    /// of them at most.
    fn overlaps(&self, key: &Arc<ModelVersionKey>) -> bool {
        let unmeasured = self.models.get(key).is_some_and(|model| !model.cost.known);
        self.parts.budget.is_some() && unmeasured && self.loads.active.iter().any(|active| active.unmeasured)
    }

    fn begin(&mut self, rank: Rank, key: &Arc<ModelVersionKey>, kept: Kept) {
        self.forget_want(key);
        let replacing = self.models.get(key).and_then(|model| model.replacing.as_ref());
        let replacing = replacing
            .filter(|_| rank == Rank::Replace)
            .map(|replacing| replacing.spec.clone());
        let instances = replacing.as_ref().map(|spec| self.make_places(spec));
        let size = self.models.get(key).filter(|_| replacing.is_some());
        let size = size.map(|model| self.newcomer(model));
        let Some(model) = self.models.get_mut(key) else { return };
        if let Some(instances) = instances.filter(|instances| model.places.len() < *instances) {
            model.places.resize(instances, Place::Gone);
        }
        let mut places: Vec<usize> =
            instances.map_or_else(|| model.missing_places(), |instances| (0..instances).collect());
        let unmeasured = !model.cost.known || replacing.is_some();
        if unmeasured && replacing.is_none() && self.parts.budget.is_some() {
            // One shows what the others take.
            places.truncate(1);
        }
        for place in &places {
            if let Some(slot @ Place::Gone) = model.places.get_mut(*place) {
                *slot = Place::Loading;
            }
        }
        self.loads.next += 1;
        let id = self.loads.next;
        let size = size.unwrap_or_else(|| model.size(places.len()));
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
            optimize: kept.optimize,
        };
        match self.start(task, &places) {
            Ok(running) => {
                self.loads.active.push(Active {
                    id,
                    key: key.clone(),
                    places,
                    rank,
                    size,
                    kept,
                    unmeasured,
                    yields: !self.may_displace(rank, key),
                    replacing,
                    running,
                });
                self.publish(key);
            }
            Err(why) => {
                places.iter().for_each(|place| self.vacate(key, *place));
                self.give_up_load(rank, key, why);
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
