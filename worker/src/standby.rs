//! Models that are declared on a device and not in its memory, and how they come and go.
//!
//! A request for one that stands by is taken and waits in the queue while one load is under way. Who gives way to it is decided
//! by `residency`, from the figures gathered here. A model that has been idle for as long as its configuration allows leaves as
//! well. While a model stands by, the scheduler keeps its queue, its rules and what it has learnt.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_types::{Fault, FaultSource, ModelVersionKey};
use smallvec::SmallVec;

use crate::{
    device::{Answer, DeviceActor},
    loading::{Active, Rank},
    model::{Model, Phase, Place, release},
    models::not_here,
    passing::{Asked, Kept, choose_for},
    report::ModelState,
    residency::{Budget, Choice, Guard, Holding, Size, choose, stays_until},
};

/// Callers that may wait for one model to be warm, besides requests.
pub(crate) const MAX_ANSWERS: usize = 256;
/// How soon it is looked at again whether others can give way, where too much is in memory.
const OVER_AGAIN: Duration = Duration::from_millis(200);
/// How soon a model that was busy when its idle time was over is looked at again.
const IDLE_AGAIN: Duration = Duration::from_secs(1);

/// Whether there is room for a model.
#[derive(Debug)]
pub(crate) enum Room {
    /// What must happen first.
    Known(Choice<Arc<ModelVersionKey>>),
    /// It does not fit on the device at all, for this reason.
    TooLarge(String),
}

impl DeviceActor {
    /// The model is declared and not in memory, for this reason; what it had is given up.
    pub(crate) fn stand_by(&mut self, key: &Arc<ModelVersionKey>, reason: String) {
        let Some(model) = self.models.get_mut(key) else { return };
        let fresh = model.phase == Phase::Loading || !self.scheduler.knows(key);
        model.phase = Phase::Standby;
        model.reason = Some(reason);
        (model.ready_since, model.failed) = (None, false);
        release(&mut self.crew, model, key);
        let answers = std::mem::take(&mut model.answers);
        if fresh && model.quarantine.until().is_none() {
            self.enlist(key);
        }
        self.publish(key);
        // Whoever declared it has what was asked for.
        answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
    }

    /// A job for the model is waiting.
    pub(crate) fn demand(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get(key) else { return };
        if model.has(Place::Loading) {
            let active = self.loads.active.iter().filter(|active| active.key == *key);
            active.for_each(|active| active.running.is_awaited());
        }
        let asleep = model.phase == Phase::Standby && !model.has(Place::Loading);
        if asleep && model.want.is_none_or(|(rank, _)| rank > Rank::Demand) {
            self.want(key, Rank::Demand);
            self.publish(key);
        }
    }

    /// Requests for the model are about to come: it is loaded if it is not there.
    pub(crate) fn warm_up(&mut self, key: &Arc<ModelVersionKey>, answer: Answer) {
        let now = self.now();
        let Some(model) = self.models.get_mut(key) else {
            drop(answer.send(Err(not_here())));
            return;
        };
        model.answers.retain(|answer| !answer.is_closed());
        match model.state() {
            ModelState::Ready => {
                // It was said that requests will come: that is a use.
                model.usage.note(now, &key.tenant, 1);
                drop(answer.send(Ok(())));
            }
            ModelState::Loading | ModelState::Waking | ModelState::Standby if model.answers.len() >= MAX_ANSWERS => {
                let text = format!("{MAX_ANSWERS} callers wait for this model to be warm");
                drop(answer.send(Err(Fault::unavailable(FaultSource::Device, text))));
            }
            state @ (ModelState::Loading | ModelState::Waking | ModelState::Standby) => {
                model.usage.note(now, &key.tenant, 1);
                model.answers.push(answer);
                let waits = model.want.is_some();
                if state == ModelState::Standby || waits {
                    self.want(key, Rank::Hint);
                }
                // From now on somebody needs it.
                let active = self.loads.active.iter_mut().filter(|active| active.key == *key);
                active.for_each(|active| active.yields = false);
                self.pump();
                self.publish(key);
            }
            ModelState::Unloading => drop(answer.send(Err(not_here()))),
            ModelState::Quarantined | ModelState::Unavailable => drop(answer.send(Err(model.fault()))),
        }
    }

    /// Nothing comes of a hint, or of an instance that is missing: the model stays as it is.
    pub(crate) fn give_up_hint(&mut self, key: &Arc<ModelVersionKey>, why: String) {
        self.forget_want(key);
        let Some(model) = self.models.get_mut(key) else { return };
        let fault = Fault::unavailable(FaultSource::Device, why.clone());
        model.reason = Some(why);
        let answers = std::mem::take(&mut model.answers);
        self.publish(key);
        answers
            .into_iter()
            .for_each(|answer| drop(answer.send(Err(fault.clone()))));
    }

    /// What is in the device's memory, or will be.
    fn holdings(&self, now: Instant, impatient: bool) -> Vec<Holding<Arc<ModelVersionKey>>> {
        let holding = |(key, model): (&Arc<ModelVersionKey>, &Model)| {
            let there = model.places.iter().filter(|place| **place != Place::Gone).count();
            (there > 0).then(|| Holding {
                key: key.clone(),
                size: model.size(there),
                guard: self.guard(key, model, now, impatient),
            })
        };
        let busy = |active: &Active, size: Size| Holding {
            key: active.key.clone(),
            size,
            guard: Guard::Busy,
        };
        // What is loaded to take another's place is there besides it, and so is what a load takes for a time.
        let coming = |active: &Active| {
            let replacing = active.replacing.is_some().then_some(active.size);
            let kept = (active.kept.bytes > 0).then(|| active.kept.size());
            let both: SmallVec<[_; 2]> = replacing
                .into_iter()
                .chain(kept)
                .map(|size| busy(active, size))
                .collect();
            both
        };
        let there = self.models.iter().filter_map(holding);
        there.chain(self.loads.active.iter().flat_map(coming)).collect()
    }

    /// Whether the model may be asked to leave; for somebody impatient that it is being used is no reason to stay.
    fn guard(&self, key: &Arc<ModelVersionKey>, model: &Model, now: Instant, impatient: bool) -> Guard {
        if model.phase == Phase::Standby && !model.is_loading() {
            return Guard::Leaving;
        }
        let settled = model.phase == Phase::Serving && !model.is_loading() && model.replacing.is_none();
        if matches!(model.phase, Phase::Unloading | Phase::Unavailable) {
            return Guard::Busy;
        }
        if model.spec.config.residency().pinned {
            return Guard::Pinned;
        }
        let used = model.running > 0 || self.scheduler.waiting(key) > 0;
        if (used && !impatient) || self.scheduler.holds_states(key) || !settled {
            return Guard::Busy;
        }
        let stays = model.ready_since.map(|since| stays_until(since, model.cost.load));
        match stays.filter(|until| now < *until) {
            Some(until) => Guard::Until(until),
            None => Guard::Free(model.usage.worth(now, model.cost.load)),
        }
    }

    fn budget(&self) -> Option<Budget> {
        let lost = self.loads.lost.iter().filter(|(link, _)| !link.has_ended());
        let lost = lost.map(|(_, bytes)| *bytes).fold(0, u64::saturating_add);
        Some(Budget {
            bytes: self.parts.budget?.saturating_sub(lost),
            slots: self.crew.places(),
        })
    }

    /// Whether there is room for what is missing of the model, and what is kept for its load besides.
    pub(crate) fn room_for(&self, rank: Rank, key: &Arc<ModelVersionKey>, now: Instant) -> (Room, Kept) {
        let unbounded = Kept {
            bytes: 0,
            optimize: true,
        };
        let Some(model) = self.models.get(key) else {
            return (Room::Known(Choice::Room), unbounded);
        };
        if let Some(reason) = self.refuses(model).filter(|_| model.replacing.is_none()) {
            return (Room::TooLarge(reason), unbounded);
        }
        // Also where memory has no bound: there is no thread to load it for before it has left.
        if model.has(Place::Leaving) {
            return (Room::Known(Choice::Later(None)), unbounded);
        }
        let Some(budget) = self.budget() else {
            return (Room::Known(Choice::Room), unbounded);
        };
        let impatient = Self::is_impatient(model, now);
        let mut held = self.holdings(now, impatient);
        // What is there of it stays until the rest, or what takes its place, is there too.
        for own in held.iter_mut().filter(|holding| holding.key == *key) {
            own.guard = Guard::Pinned;
        }
        let replacing = model.replacing.as_ref().filter(|_| rank == Rank::Replace);
        let asked = Asked {
            newcomer: self.newcomer(model),
            passing: self
                .parts
                .thread
                .passing(replacing.map_or(&model.spec, |replacing| &replacing.spec)),
            beside: !self.loads.active.is_empty(),
            displaces: self.may_displace(rank, key),
            impatient,
        };
        let (choice, kept) = choose_for(budget, &mut held, (key, &asked));
        (Room::Known(choice), kept)
    }

    /// What is to come of the model.
    pub(crate) fn newcomer(&self, model: &Model) -> Size {
        match &model.replacing {
            Some(replacing) => Size {
                instances: model.instances,
                weights: self.parts.thread.estimate(&replacing.spec).max(model.cost.weights),
                peak: model.profile.peak,
            },
            None => model.size(model.missing_places().len()),
        }
    }

    /// Why the model does not fit on the device even alone, if it does not.
    pub(crate) fn refuses(&self, model: &Model) -> Option<String> {
        let budget = self.budget()?;
        let size = model.size(model.instances);
        let taken = budget.taken([size].into_iter());
        (taken > budget.bytes).then(|| {
            let Size { instances, weights, peak } = size;
            format!(
                "it needs {} on this device ({instances} instances of {}, and {} for each one's largest batch), and the \
                 device's budget is {}: use fewer instances (instance_group) or smaller batches, or give the device more",
                mib(taken),
                mib(weights),
                mib(peak),
                mib(budget.bytes),
            )
        })
    }

    /// Why there will never be room for the model beside what is pinned. Its tenant reads this, so what others have pinned is not told in
    /// figures: they are in the log, and in the list of devices, which nobody reads who is bound to a tenant.
    pub(crate) fn no_room_ever(&self, key: &Arc<ModelVersionKey>) -> String {
        let Some((budget, model)) = self.budget().zip(self.models.get(key)) else {
            return "there is no room for it".to_owned();
        };
        let (mut own, mut foreign) = (0_u64, 0_u64);
        for (other, pinned) in &self.models {
            if pinned.spec.config.residency().pinned {
                let sum = if other.tenant == key.tenant {
                    &mut own
                } else {
                    &mut foreign
                };
                *sum = sum.saturating_add(pinned.size(pinned.instances).at_rest());
            }
        }
        let (needed, budget) = (mib(budget.taken([self.newcomer(model)].into_iter())), mib(budget.bytes));
        tracing::info!(model = %key, needed, budget, own, foreign, "no room beside what is pinned");
        let there = model.places.iter().filter(|place| **place != Place::Gone).count();
        let there = (there > 0).then(|| mib(model.size(there).at_rest()));
        match (there, foreign) {
            (Some(there), 0) => format!(
                "it needs {needed} on this device beside the {there} of it that are there and the {} that are pinned, and the \
                 device's budget is {budget}: unload it first, or unpin a model",
                mib(own)
            ),
            (Some(there), _) => format!(
                "it needs {needed} on this device beside the {there} of it that are there and what is pinned, {} of it by this \
                 tenant, and the device's budget is {budget}: unload it first, or unpin a model",
                mib(own)
            ),
            (None, 0) => format!(
                "it needs {needed} on this device, whose budget is {budget}, of which {} are pinned: unpin or unload a model",
                mib(own),
            ),
            (None, _) => format!(
                "it needs {needed} on this device, whose budget is {budget}, beside what is pinned, {} of it by this tenant: \
                 unpin or unload a model",
                mib(own),
            ),
        }
    }

    /// Whether all that is there, or on its way, fits.
    pub(crate) fn fits_all(&self) -> bool {
        let fits = |budget| choose(budget, &self.holdings(self.now(), false), Size::default()) == Choice::Room;
        self.budget().is_none_or(fits)
    }

    /// What the model takes has been measured: if that is more than was thought, others give way after all.
    pub(crate) fn make_good(&mut self, key: &Arc<ModelVersionKey>) {
        self.loads.over = None;
        let Some(budget) = self.budget() else { return };
        let now = self.now();
        match choose(budget, &self.holdings(now, false), Size::default()) {
            Choice::Evict(victims) => {
                for victim in victims {
                    self.stand_by(
                        &victim,
                        format!("left memory for '{}', which takes more than was known", key.model),
                    );
                    self.parts.thread.shared.books.lock().evicted(&victim, false);
                }
            }
            Choice::Later(_) => self.loads.over = Some((now + OVER_AGAIN, key.clone())),
            Choice::Room | Choice::Never(_) => {}
        }
    }

    /// Looks again whether others can give way to what takes more than was known, and whether memory of threads that were given
    /// up is free.
    pub(crate) fn watch_memory(&mut self, now: Instant) {
        let before = self.loads.lost.len();
        self.loads.lost.retain(|(link, _)| !link.has_ended());
        if self.loads.lost.len() < before {
            self.memory_freed();
        }
        if let Some((_, key)) = self.loads.over.take_if(|(at, _)| *at <= now) {
            self.make_good(&key);
        }
    }

    /// A model's memory is free, as far as the threads are concerned.
    pub(crate) fn memory_freed(&mut self) {
        self.loads.freed = true;
        self.loads.unblock();
    }

    /// Looks at the model again once it may have been idle for too long.
    pub(crate) fn watch_idle(&mut self, key: &Arc<ModelVersionKey>, now: Instant) {
        let Some(model) = self.models.get(key) else { return };
        let idle = model.spec.config.residency().idle_seconds;
        if idle > 0 && model.phase == Phase::Serving && !self.idle.iter().any(|(_, known)| known == key) {
            self.idle.insert((now + Duration::from_secs(idle), key.clone()));
        }
    }

    /// Lets models go that nobody has used for as long as their configurations allow.
    pub(crate) fn end_idle(&mut self) {
        if self.idle.is_empty() {
            return;
        }
        let now = self.now();
        while let Some((_, key)) = self.idle.first().filter(|(at, _)| *at <= now).cloned() {
            self.idle.pop_first();
            let Some(model) = self.models.get(&key).filter(|model| model.phase == Phase::Serving) else {
                continue;
            };
            let seconds = model.spec.config.residency().idle_seconds;
            if seconds == 0 {
                continue;
            }
            let since = model.usage.last().max(model.ready_since).unwrap_or(now);
            let over = since + Duration::from_secs(seconds);
            let busy = matches!(self.guard(&key, model, now, false), Guard::Busy | Guard::Pinned);
            if over > now || busy {
                self.idle
                    .insert((over.max(now + IDLE_AGAIN.min(Duration::from_secs(seconds))), key));
                continue;
            }
            self.stand_by(&key, format!("left memory after {seconds} s without a request"));
            self.parts.thread.shared.books.lock().evicted(&key, true);
        }
    }
}

fn mib(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes < 10 * MIB {
        return format!("{} KiB", bytes.div_ceil(1024));
    }
    format!("{} MiB", bytes.div_ceil(MIB))
}
