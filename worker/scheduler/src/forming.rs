//! Forming one batch from one group.
//!
//! Row by row the tenant whose clock shows least gives its next request, interactive requests before those of the batch class
//! (or the other way round while that is owed its floor), until the batch is full. Before that, whoever cannot be answered in
//! time by the batch about to be formed is dropped: with the latency of that batch and not of a single row, or an overloaded
//! device would spend itself on answers that come too late (Nexus, SOSP 2019). On a device that is not full, a request in a
//! hurry gets a smaller batch instead.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use crate::{
    item::{Batch, Gone, Item},
    models::Sizing,
    running::{Part, Run},
    scheduler::Scheduler,
    sequences::Seat,
    tenants::{BATCH, CLASSES, INTERACTIVE, Virtual, weighted},
    waiting::{Entry, EntryIx, GroupIx, ModelIx},
};

/// What to form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) group: GroupIx,
    /// Where it will run.
    pub(crate) slot: usize,
    /// The class that goes first.
    pub(crate) first: usize,
    /// Whose clock shows more than this gives nothing to a batch that has begun, and neither does the other class: somebody
    /// waits elsewhere who goes before them. None while nobody does.
    pub(crate) limit: Option<Virtual>,
    /// Only a preferred size will do before this instant.
    pub(crate) preferred_until: Option<Instant>,
}

/// A batch that is being filled.
struct Filling<T> {
    model: ModelIx,
    entries: Vec<Entry<T>>,
    /// One for each entry.
    parts: Vec<Part>,
    rows: u32,
    /// The most rows.
    cap: u32,
    /// One row's expected device time.
    row_cost: u64,
    /// What the clocks of the first of each class showed.
    served: [Option<Virtual>; CLASSES],
    /// Sizes that are preferred.
    sizes: SmallVec<[u32; 4]>,
    /// How many entries make up the largest preferred size so far.
    preferred: Option<usize>,
}

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// Forms a batch; none where everybody was dropped, or where no preferred size can be reached.
    pub(crate) fn form(
        &mut self,
        now: Instant,
        plan: Plan,
        cancelled: &impl Fn(&T) -> bool,
        gone: &mut Vec<(Item<T>, Gone)>,
    ) -> Option<Batch<K, T>> {
        let (mut filling, hurried) = self.measure(now, plan, cancelled, gone)?;
        if let Some(entry) = hurried {
            self.take_entry(&mut filling, entry, cancelled, gone);
        }
        while let Some(entry) = self.next_entry(now, plan, filling.rows > 0) {
            let rows = self.waiting.entry(entry).map_or(0, |entry| entry.item.rows);
            // In order, as in Triton: a request that does not fit any more ends the batch.
            if filling.rows > 0 && filling.rows.saturating_add(rows) > filling.cap {
                break;
            }
            self.take_entry(&mut filling, entry, cancelled, gone);
        }
        self.cut_to_preferred(&mut filling, plan);
        self.send(now, plan, filling)
    }

    /// Drops who cannot make it, and settles how large the batch may become. Also the request, if any, for whose sake it is
    /// smaller than it could be: that one goes first.
    fn measure(
        &mut self,
        now: Instant,
        plan: Plan,
        cancelled: &impl Fn(&T) -> bool,
        gone: &mut Vec<(Item<T>, Gone)>,
    ) -> Option<(Filling<T>, Option<EntryIx>)> {
        let start = self.running.free_at(plan.slot, now);
        let group = self.waiting.group(plan.group)?;
        let (index, shape, waiting) = (group.model, group.shape.clone(), group.rows);
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let company = self.company.is_there(now);
        let model = self.models.get_mut(index)?;
        let Sizing { full, most, .. } = model.sizing(&shape, company);
        let is_full = model.rules.shared && waiting >= full;
        let cap = match (model.rules.shared, is_full) {
            (false, _) => 1,
            (true, true) if plan.preferred_until.is_some() || !model.rules.right_size => full,
            (true, true) => model.exploring.next(full, most),
            (true, false) => full,
        };
        let size = cap.min(waiting).max(1);
        let model = self.models.get(index)?;
        let doubtful = self.running.is_idle() && !model.is_fresh(now);
        let sizing = model.sizing(&shape, company);
        let latency = sizing.latency;
        // Where sequences have rows of their own, a batch has as many as reach to the last of its own.
        let tail = |rows: u32| sizing.tail(rows.max(self.sequences.width(index, plan.slot)));
        let mut out: SmallVec<[(EntryIx, Gone); 8]> = SmallVec::new();
        let mut hurried = None;
        // Where requests have one row each, none takes longer than the batch.
        let widest = if group.has_single_rows() {
            size
        } else {
            size.max(model.rules.max_rows)
        };
        for entry in group.due_before(start + tail(widest)) {
            let Some(known) = self.waiting.entry(entry) else {
                continue;
            };
            let (deadline, rows) = (known.item.deadline, known.item.rows);
            let needs = tail(if is_full { rows.max(size) } else { rows });
            if cancelled(&known.item.payload) {
                out.push((entry, Gone::Cancelled));
            } else if start + needs > deadline && !doubtful {
                out.push((entry, Gone::TooLate));
            } else if start + tail(size) > deadline && self.may_hurry(plan, known) {
                hurried = hurried.or(Some((entry, deadline)));
            }
        }
        let within = |deadline: Instant| {
            let room = deadline.saturating_duration_since(start);
            latency.map_or(size, |latency| latency.rows_within(room, size))
        };
        let filling = Filling {
            model: index,
            entries: Vec::new(),
            parts: Vec::new(),
            rows: 0,
            cap: hurried.map_or(cap, |(_, deadline)| within(deadline).max(1)),
            row_cost: nanoseconds(sizing.cost(1)),
            served: [None; CLASSES],
            sizes: SmallVec::from_slice(&model.rules.preferred),
            preferred: None,
        };
        for (entry, why) in out {
            self.take_out(entry, why, gone);
        }
        Some((filling, hurried.map(|(entry, _)| entry)))
    }

    /// Whether a request in a hurry may go first: not before another class, and not before tenants that have had less by more
    /// than what it is about to use.
    fn may_hurry(&self, plan: Plan, entry: &Entry<T>) -> bool {
        let least = self
            .waiting
            .group(plan.group)
            .and_then(|group| group.next_tenant(plan.first));
        let weight = self.tenants.get(entry.tenant).map_or(1, |tenant| tenant.weight);
        let clock = self.tenants.clock(entry.tenant, entry.class);
        entry.class == plan.first && least.is_some_and(|(least, _)| clock <= least + weighted(entry.cost, weight))
    }

    /// Whose request goes next.
    fn next_entry(&self, now: Instant, plan: Plan, begun: bool) -> Option<EntryIx> {
        let second = if plan.first == INTERACTIVE { BATCH } else { INTERACTIVE };
        for class in [plan.first, second] {
            let group = self.waiting.group(plan.group)?;
            if let Some((clock, tenant)) = group.next_tenant(class) {
                let over = |limit: Virtual| class != plan.first || clock > limit;
                if begun && plan.limit.is_some_and(over) {
                    return None;
                }
                return group.next_of(class, tenant, now);
            }
        }
        None
    }

    fn take_entry(
        &mut self,
        filling: &mut Filling<T>,
        index: EntryIx,
        cancelled: &impl Fn(&T) -> bool,
        gone: &mut Vec<(Item<T>, Gone)>,
    ) {
        if self
            .waiting
            .entry(index)
            .is_some_and(|entry| cancelled(&entry.item.payload))
        {
            self.take_out(index, Gone::Cancelled, gone);
            return;
        }
        let Some(entry) = self.remove_entry(index) else { return };
        let (tenant, class, rows) = (entry.tenant, entry.class, entry.item.rows);
        let weight = self.tenants.get_mut(tenant).map_or(1, |tenant| {
            tenant.batches += 1;
            tenant.weight
        });
        let clock = self.tenants.clock(tenant, class);
        if let Some(served) = filling.served.get_mut(class) {
            served.get_or_insert(clock);
        }
        let expected = weighted(filling.row_cost.saturating_mul(u64::from(rows)), weight);
        self.waiting.reclock(&mut self.tenants, tenant, class, |tenants| {
            tenants.expect(tenant, class, expected);
        });
        let part = Part {
            tenant,
            class,
            rows,
            expected,
        };
        filling.rows += rows;
        filling.entries.push(entry);
        filling.parts.push(part);
        if filling.sizes.binary_search(&filling.rows).is_ok() {
            filling.preferred = Some(filling.entries.len());
        }
    }

    /// Where only a preferred size will do: the requests beyond it, or all where none was reached, go back to where they were.
    fn cut_to_preferred(&mut self, filling: &mut Filling<T>, plan: Plan) {
        if plan.preferred_until.is_none() {
            return;
        }
        let keep = filling.preferred.unwrap_or(0);
        while filling.entries.len() > keep {
            let (Some(entry), Some(part)) = (filling.entries.pop(), filling.parts.pop()) else {
                return;
            };
            filling.rows -= part.rows;
            self.tenants.let_go(part.tenant);
            self.waiting
                .reclock(&mut self.tenants, part.tenant, part.class, |tenants| {
                    tenants.charge(part.tenant, part.class, part.expected, 0);
                });
            self.put_back(entry);
        }
    }

    /// The batch is under way.
    fn send(&mut self, now: Instant, plan: Plan, filling: Filling<T>) -> Option<Batch<K, T>> {
        let first = filling.entries.first()?;
        for (class, clock) in filling.served.iter().enumerate() {
            clock.iter().for_each(|clock| self.tenants.serve(class, *clock));
        }
        let (index, shape) = (filling.model, first.item.shape.clone());
        let model = self.models.get(index)?;
        let key = model.key.clone();
        let mut parts: SmallVec<[Part; 4]> = SmallVec::new();
        for part in filling.parts {
            match parts.last_mut() {
                Some(last) if (last.tenant, last.class) == (part.tenant, part.class) => {
                    last.rows += part.rows;
                    last.expected += part.expected;
                    self.tenants.let_go(part.tenant);
                }
                _ => parts.push(part),
            }
        }
        let foreseen = filling.entries.iter().filter(|entry| entry.foreseen).count();
        if let Some(model) = self.models.get_mut(index) {
            model.caution.in_time(foreseen);
        }
        let pins = filling.entries.iter().filter_map(|entry| entry.pin);
        let steps: Vec<u64> = pins.map(|pin| pin.sequence).collect();
        let seats: Vec<Seat> = steps.iter().map(|sequence| self.sequences.seat(*sequence)).collect();
        let model = self.models.get(index)?;
        let open_ended = model.rules.open_ended;
        let padded = model.rules.sequence.is_some_and(|rules| rules.padded);
        let last = seats.iter().map(|seat| seat.slot + 1).max().filter(|_| padded);
        let executed = last.map_or(filling.rows, |last| last.max(filling.rows));
        let predicted = (model.latencies.get(&shape)).and_then(|latency| latency.mean(executed));
        let run = Run {
            model: index,
            shape,
            slot: plan.slot,
            rows: filling.rows,
            executed,
            predicted: predicted.unwrap_or_default(),
            parts,
            contended: [INTERACTIVE, BATCH].map(|class| self.tenants.anyone_waits(class)),
            steps,
            open_ended,
            since: None,
        };
        self.use_floor(&run, run.predicted, 1);
        let rows = run.rows;
        let id = self.running.start(now, run);
        Some(Batch {
            id,
            model: key,
            items: filling.entries.into_iter().map(|entry| entry.item).collect(),
            seats,
            rows,
            predicted,
        })
    }
}

pub(crate) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
