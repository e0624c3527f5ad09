//! The scheduler of one device: takes requests in, decides what runs next, and settles what it has cost.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use mesh_types::ServiceClass;
use smallvec::SmallVec;

use crate::{
    BatchId, BatchRules, Charge, Decision, Gone, Item, Latency, Refused, RefusedFor, ShapeKey, StepResult,
    admission::Candidate,
    choosing::Ready,
    company::Company,
    floor::Floor,
    forming::nanoseconds,
    models::Models,
    running::{Run, Running},
    sequences::{Desk, Sequences},
    tenants::{BATCH, INTERACTIVE, TenantIx, Tenants, weighted},
    waiting::{Entry, EntryIx, GroupIx, ModelIx, Placed, Waiting},
};

/// How far a tenant that waits may lag behind who was served last, besides two batches.
const LAG: Duration = Duration::from_millis(200);
/// The most combinations of model, shape and class that one tenant waits with.
pub const MAX_PLACES: usize = 64;

/// The queues of one device. `K` names a model, `T` is what waits.
#[derive(Debug)]
pub struct Scheduler<K, T> {
    pub(crate) models: Models<K>,
    pub(crate) tenants: Tenants,
    pub(crate) waiting: Waiting<T>,
    pub(crate) running: Running,
    pub(crate) floor: Floor,
    pub(crate) company: Company,
    pub(crate) sequences: Sequences<K, T>,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How long the device was busy with it; zero if it never ran.
    pub busy: Duration,
    /// Whether that says how long such batches take: not where it failed, or ran in pieces.
    pub telling: bool,
    /// For how many rows the device had not enough memory, if it ran out.
    pub too_large: Option<TooLarge>,
}

/// The device ran out of memory while a batch ran, which was then run in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// The fewest rows for which there was none.
    pub rows: u32,
    /// The most rows of a part for which there was; 0 where there was for none.
    pub fitted: u32,
}

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// An empty one for a device that runs so many batches at the same time.
    pub fn new(slots: usize) -> Self {
        let mut running = Running::default();
        running.set_slots(slots);
        Self {
            models: Models::default(),
            tenants: Tenants::default(),
            waiting: Waiting::default(),
            running,
            floor: Floor::default(),
            company: Company::default(),
            sequences: Sequences::default(),
        }
    }

    /// The device runs so many batches at the same time from now on.
    pub fn set_slots(&mut self, slots: usize) {
        self.running.set_slots(slots);
    }

    /// The model takes requests from now on, or by new rules.
    pub fn add_model(&mut self, model: K, rules: BatchRules) {
        let sequence = rules.sequence;
        let key = model.clone();
        self.models.add(model, rules);
        if let Some(index) = self.models.find(&key) {
            self.sequences.open_desk(index, key, sequence);
        }
    }

    /// The model takes no more requests; those waiting are given back.
    pub fn remove_model(&mut self, model: &K) -> Vec<Item<T>> {
        let Some(index) = self.models.find(model) else {
            return Vec::new();
        };
        let mut items = self.remove_sequences(index);
        let entries = self.waiting.entries_where(|entry| entry.model == index);
        let entries = entries.into_iter().filter_map(|entry| self.remove_entry(entry));
        items.extend(entries.map(|entry| entry.item));
        self.models.remove(model);
        items
    }

    /// Whether the model takes requests.
    pub fn knows(&self, model: &K) -> bool {
        self.models.find(model).is_some()
    }

    /// How many requests wait for the model.
    pub fn waiting(&self, model: &K) -> usize {
        let model = self.models.find(model).and_then(|index| self.models.get(index));
        model.map_or(0, |model| model.waiting)
    }

    /// Whether nothing waits at all.
    pub fn is_empty(&self) -> bool {
        self.waiting.groups().next().is_none() && !self.sequences.holds_steps()
    }

    /// How many batches the slot has.
    pub fn on_slot(&self, slot: usize) -> usize {
        self.running.on(slot)
    }

    /// How many tenants are remembered.
    pub fn tenants(&self) -> usize {
        self.tenants.len()
    }

    /// What a warm-up sweep has measured.
    pub fn seed(&mut self, model: &K, shape: &ShapeKey, sweep: &[(u32, Duration)]) {
        if let Some(index) = self.models.find(model) {
            self.learn(index, shape, |latency| latency.seed(sweep));
        }
    }

    /// What was learnt before a restart.
    pub fn restore(&mut self, model: &K, shape: &ShapeKey, latency: Latency) {
        if let Some(index) = self.models.find(model) {
            self.learn(index, shape, |known| *known = latency.restored());
        }
    }

    /// Whether something is known of how long batches of this shape take.
    pub fn has_learnt(&self, model: &K, shape: &ShapeKey) -> bool {
        let model = self.models.find(model).and_then(|index| self.models.get(index));
        model.is_some_and(|model| model.sizing(shape, false).latency.is_some())
    }

    /// The model is another one from now on, although it is called the same.
    pub fn unlearn(&mut self, model: &K) {
        if let Some(model) = self.models.of_mut(model) {
            model.unlearn();
        }
    }

    /// What has been learnt.
    pub fn learnt(&self) -> impl Iterator<Item = (&K, ShapeKey, &Latency)> {
        self.models.iter().flat_map(|model| {
            let learnt = model.latencies.iter();
            learnt.map(move |(shape, latency)| (&model.key, shape, latency))
        })
    }

    /// What has been learnt of one model.
    pub fn learnt_of(&self, model: &K) -> impl Iterator<Item = (ShapeKey, &Latency)> {
        let model = self.models.find(model).and_then(|index| self.models.get(index));
        model.into_iter().flat_map(|model| model.latencies.iter())
    }

    fn shares_batches(&self, model: &K) -> bool {
        let model = self.models.find(model).and_then(|index| self.models.get(index));
        model.is_some_and(|model| model.rules.shared)
    }

    /// Takes a request in, or gives it back with the reason.
    pub fn offer(&mut self, now: Instant, model: &K, mut item: Item<T>) -> Result<(), Refused<T>> {
        if item.shape.has_parameters() && !self.shares_batches(model) {
            // What runs alone meets nobody with others, and would take a place for each.
            item.shape = item.shape.with(None);
        }
        match self.consider(now, model, &item) {
            Ok(placed) => {
                self.company.came(now, placed.tenant);
                if let Some(known) = self.models.get_mut(placed.model) {
                    known.entered(placed.tenant, placed.level, placed.cost);
                }
                self.waiting.insert(&mut self.tenants, item, &placed, None);
                Ok(())
            }
            Err(reason) => Err(Refused {
                payload: item.payload,
                reason,
            }),
        }
    }

    /// Takes out what has expired or waited for too long, without running anything: for a device whose slots are all taken.
    /// Also when to look again.
    pub fn tidy(&mut self, now: Instant) -> (Vec<(Item<T>, Gone)>, Option<Instant>) {
        let mut gone = Vec::new();
        let next = self.expire(now, &mut gone);
        let again = self.settle_steps(now, &mut gone).then_some(now);
        (gone, next.into_iter().chain(again).min())
    }

    /// Takes out what is not worth running: what has expired or timed out, and whatever `cancelled` says. Looks at every
    /// request that waits, so it is for now and then; [`Scheduler::poll`] looks at those that it takes.
    pub fn sweep(&mut self, now: Instant, cancelled: impl Fn(&T) -> bool) -> Vec<(Item<T>, Gone)> {
        let mut gone = Vec::new();
        self.expire(now, &mut gone);
        for entry in self.waiting.entries_where(|entry| cancelled(&entry.item.payload)) {
            self.take_out(entry, Gone::Cancelled, &mut gone);
        }
        self.sweep_steps(now, &cancelled);
        self.settle_steps(now, &mut gone);
        gone
    }

    /// Decides what the slot runs next. `eligible` says whether it can run a model at all, `cancelled` whether whoever asked
    /// has gone.
    pub fn poll(
        &mut self,
        now: Instant,
        slot: usize,
        eligible: impl Fn(&K) -> bool,
        cancelled: impl Fn(&T) -> bool,
    ) -> Decision<K, T> {
        let mut decision = self.decide(now, slot, eligible, cancelled);
        if self.settle_steps(now, &mut decision.gone) {
            decision.wake_at = Some(now);
        }
        decision
    }

    fn decide(
        &mut self,
        now: Instant,
        slot: usize,
        eligible: impl Fn(&K) -> bool,
        cancelled: impl Fn(&T) -> bool,
    ) -> Decision<K, T> {
        let mut gone = Vec::new();
        let mut wake_at = self.expire(now, &mut gone);
        let mut wake = |at: Instant| wake_at = Some(wake_at.map_or(at, |known: Instant| known.min(at)));
        let handover = self.running.handover_at(slot, now);
        if handover.is_none_or(|handover| handover > now) {
            if self.waiting.groups().next().is_some() {
                handover.into_iter().for_each(&mut wake);
            }
            return Decision {
                batch: None,
                gone,
                wake_at,
            };
        }
        self.note_slots(slot, &eligible);
        let (mut batch, mut barren) = (None, SmallVec::<[GroupIx; 4]>::new());
        // Each turn but the last drops somebody, or leaves out a group.
        loop {
            let (mut ready, next) = self.ready(now, slot, &eligible);
            next.into_iter().for_each(&mut wake);
            if self.catch_up(&ready) {
                ready = self.ready(now, slot, &eligible).0;
            }
            ready.retain(|ready| !barren.contains(&ready.group));
            let Some(plan) = self.choose(slot, &ready) else { break };
            let before = gone.len();
            batch = self.form(now, plan, &cancelled, &mut gone);
            if batch.is_some() {
                break;
            }
            if gone.len() == before {
                // No preferred size could be reached with the requests as they are: they go when they have waited for long
                // enough, and others go meanwhile.
                plan.preferred_until.into_iter().for_each(&mut wake);
                barren.push(plan.group);
            }
        }
        Decision { batch, gone, wake_at }
    }

    /// A batch is done: what each tenant is charged. The charges add up to the time that the device was busy.
    pub fn finished(&mut self, now: Instant, id: BatchId, outcome: Outcome) -> Vec<Charge> {
        self.finished_steps(now, id, outcome, &[])
    }

    /// A batch is done, and what became of its sequences' steps, in its order. A step of which nothing is said has not run,
    /// or has taken its sequence's state with it where that is the model's.
    pub fn finished_steps(
        &mut self,
        now: Instant,
        id: BatchId,
        outcome: Outcome,
        results: &[Option<StepResult>],
    ) -> Vec<Charge> {
        let Some(run) = self.running.finish(now, id) else {
            return Vec::new();
        };
        let movable = |desk: &Desk<K>| desk.rules.movable || outcome.busy.is_zero();
        let unsaid = match self.sequences.desks.get(&run.model) {
            Some(desk) if !movable(desk) => StepResult::Lost,
            _ => StepResult::NotRun,
        };
        for (index, sequence) in run.steps.iter().enumerate() {
            self.step_ended(now, *sequence, results.get(index).copied().flatten().unwrap_or(unsaid));
        }
        if outcome.telling {
            self.learn(run.model, &run.shape, |latency| {
                latency.observe(run.executed, outcome.busy);
            });
        }
        if let Some(model) = self.models.get_mut(run.model) {
            model.has_run(now);
            if outcome.telling {
                model.went_well(&run.shape, run.executed);
            }
            if let Some(large) = outcome.too_large {
                model.too_large(&run.shape, large);
            }
        }
        self.limit_seats(run.model);
        self.use_floor(&run, run.predicted, -1);
        self.use_floor(&run, outcome.busy, 1);
        if run.contended.get(BATCH) == Some(&true) {
            let [interactive, batch] = run.by_class(outcome.busy);
            self.floor.observe(interactive, batch);
        }
        let busy = nanoseconds(outcome.busy);
        let (mut charges, mut rows, mut charged) = (Vec::<Charge>::new(), 0_u64, 0);
        for part in &run.parts {
            rows += u64::from(part.rows);
            // Of the sum so far and not of each: nothing is lost by rounding.
            let so_far = u128::from(busy) * u128::from(rows) / u128::from(run.rows.max(1));
            let so_far = u64::try_from(so_far).unwrap_or(u64::MAX);
            let mine = so_far - charged;
            charged = so_far;
            self.tenants.let_go(part.tenant);
            let Some(tenant) = self.tenants.get(part.tenant) else {
                continue;
            };
            let charge = Charge {
                tenant: tenant.id.clone(),
                device_time: Duration::from_nanos(mine),
            };
            let cost = weighted(mine, tenant.weight);
            self.waiting
                .reclock(&mut self.tenants, part.tenant, part.class, |tenants| {
                    tenants.charge(part.tenant, part.class, part.expected, cost);
                });
            self.tenants.part(part.tenant);
            match charges.iter_mut().find(|known| known.tenant == charge.tenant) {
                Some(known) => known.device_time += charge.device_time,
                None => charges.push(charge),
            }
        }
        charges
    }

    /// Which models the slot can run, of those that anybody waits for.
    fn note_slots(&mut self, slot: usize, eligible: &impl Fn(&K) -> bool) {
        for (_, group) in self.waiting.groups() {
            if let Some(model) = self.models.get_mut(group.model) {
                let runs = eligible(&model.key);
                model.runs_on(slot, runs);
            }
        }
    }

    /// Nobody lags far behind who was served last, whatever kept them from being served: a model with a long delay, or one that
    /// other threads have. Otherwise one could save up by waiting, and whoever comes would wait for those who did. True if
    /// any clock was set forward.
    fn catch_up(&mut self, ready: &[Ready]) -> bool {
        let longest = ready.iter().map(|ready| ready.batch).max().unwrap_or_default();
        let lag = weighted(nanoseconds(LAG + longest * 2), 1);
        let groups: SmallVec<[GroupIx; 8]> = self.waiting.groups().map(|(index, _)| index).collect();
        let mut lifted = false;
        for group in groups {
            for class in [INTERACTIVE, BATCH] {
                let floor = self.tenants.served(class).saturating_sub(lag);
                let next = |scheduler: &Self| {
                    scheduler
                        .waiting
                        .group(group)
                        .and_then(|group| group.next_tenant(class))
                };
                while let Some((clock, tenant)) = next(self).filter(|(clock, _)| *clock < floor) {
                    self.waiting.reclock(&mut self.tenants, tenant, class, |tenants| {
                        tenants.lift(tenant, class, floor - clock);
                    });
                    lifted = true;
                }
            }
        }
        lifted
    }

    /// Where the request goes, or why not here.
    fn consider(&mut self, now: Instant, key: &K, item: &Item<T>) -> Result<Placed, RefusedFor> {
        let index = self.models.find(key).ok_or(RefusedFor::UnknownModel)?;
        let tenant = self.tenants.meet(&item.tenant, item.standing.share);
        let placed = self.place(now, index, tenant, item);
        if placed.is_err() {
            self.tenants.part(tenant);
        }
        placed
    }

    fn place(&self, now: Instant, index: ModelIx, tenant: TenantIx, item: &Item<T>) -> Result<Placed, RefusedFor> {
        let model = self.models.get(index).ok_or(RefusedFor::UnknownModel)?;
        let level = model.rules.level(item.standing.priority);
        model.has_room(tenant, level)?;
        let class = match item.standing.class {
            ServiceClass::Interactive => INTERACTIVE,
            ServiceClass::Batch => BATCH,
        };
        let isolated = item.standing.share.isolated || model.rules.open_ended;
        let alone = isolated.then_some(tenant);
        let beside = self.waiting.find(index, &item.shape, alone, None);
        self.has_place(tenant, beside.map(|(group, _)| (group, class)))?;
        let sizing = model.sizing(&item.shape, self.company.is_there(now));
        let candidate = Candidate {
            item,
            model: index,
            beside: beside.map_or(0, |(_, group)| group.rows),
            sizing,
            tenant,
            class,
            place: None,
        };
        let foreseen = self.admit(now, &candidate)?;
        let timeout = model.rules.timeout(level, item.standing.queue_timeout);
        Ok(Placed {
            model: index,
            tenant,
            class,
            level,
            ages: model.rules.levels.len() > 1,
            isolated,
            foreseen,
            cost: nanoseconds(sizing.cost(item.rows)),
            timeout: timeout.map(|(wait, action)| (item.arrived + wait, action)),
        })
    }

    /// Every shape that a tenant waits with is a group that each decision looks at: one tenant has so many and no more.
    pub(crate) fn has_place(&self, tenant: TenantIx, place: Option<(GroupIx, usize)>) -> Result<(), RefusedFor> {
        let Some(tenant) = self.tenants.get(tenant) else {
            return Ok(());
        };
        let joins = place.is_some_and(|place| tenant.places.contains(&place));
        if tenant.places.len() < MAX_PLACES || joins {
            return Ok(());
        }
        Err(RefusedFor::Full)
    }

    /// Tells the floor what the batch takes of each class's time, or takes that back.
    pub(crate) fn use_floor(&mut self, run: &Run, busy: Duration, sign: i64) {
        let [interactive, batch] = run.by_class(busy);
        let [interactive_waits, batch_waits] = run.contended;
        self.floor
            .used(sign * interactive, sign * batch, interactive_waits, batch_waits);
    }

    pub(crate) fn take_out(&mut self, entry: EntryIx, reason: Gone, gone: &mut Vec<(Item<T>, Gone)>) {
        if let Some(entry) = self.remove_entry(entry) {
            self.tenants.part(entry.tenant);
            // Only what a prediction has let in says anything about predictions.
            let misjudged = entry.foreseen && reason == Gone::TooLate;
            if let Some(model) = self.models.get_mut(entry.model).filter(|_| misjudged) {
                model.caution.late();
            }
            if let Some(pin) = entry.pin {
                self.sequences.left(pin.sequence);
            }
            gone.push((entry.item, reason));
        }
    }

    pub(crate) fn remove_entry(&mut self, index: EntryIx) -> Option<Entry<T>> {
        let entry = self.waiting.remove(&mut self.tenants, index)?;
        if let Some(model) = self.models.get_mut(entry.model) {
            model.left(entry.tenant, entry.stand.level, entry.cost);
        }
        Some(entry)
    }

    pub(crate) fn put_back(&mut self, entry: Entry<T>) {
        if let Some(model) = self.models.get_mut(entry.model) {
            model.entered(entry.tenant, entry.stand.level, entry.cost);
        }
        self.waiting.put_back(&mut self.tenants, entry);
    }
}
