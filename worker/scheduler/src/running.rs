//! Batches under way: on which slot, since when, and for whom.
//!
//! A slot is one thing that runs batches one after another: a device thread. Owns the estimate of when each is free again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use crate::{
    BatchId, ShapeKey,
    tenants::{CLASSES, TenantIx, Virtual},
    waiting::ModelIx,
};

/// A second batch is handed to a slot no sooner than this before the first is expected to be done, or than this part of its
/// time: late enough for whoever still comes, soon enough that the slot never idles.
pub const HANDOVER: Duration = Duration::from_millis(2);
pub(crate) const HANDOVER_PART: f64 = 0.25;
/// A batch that is so much longer under way than predicted, and at least as much again, holds back the next.
const OVERDUE: Duration = Duration::from_millis(100);

/// A tenant's part of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) tenant: TenantIx,
    pub(crate) class: usize,
    pub(crate) rows: u32,
    /// What its clock was set forward by.
    pub(crate) expected: Virtual,
}

/// A batch under way.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) model: ModelIx,
    pub(crate) shape: ShapeKey,
    pub(crate) slot: usize,
    pub(crate) rows: u32,
    /// The same with rows that hold no request.
    pub(crate) executed: u32,
    pub(crate) predicted: Duration,
    /// One per tenant and class, in the order in which they were taken.
    pub(crate) parts: SmallVec<[Part; 4]>,
    /// Whether requests of each class still waited when it was formed.
    pub(crate) contended: [bool; CLASSES],
    /// The sequences whose steps it holds, in the batch's order; empty for a model without sequences.
    pub(crate) steps: Vec<u64>,
    /// Whether nobody can foresee how long it takes.
    pub(crate) open_ended: bool,
    /// Since when it has its slot to itself; none while it waits behind another.
    pub(crate) since: Option<Instant>,
}

impl Run {
    /// The part of each class in so much time, in nanoseconds.
    pub(crate) fn by_class(&self, busy: Duration) -> [i64; CLASSES] {
        let mut used = [0_i64; CLASSES];
        for part in &self.parts {
            let time = busy.mul_f64(f64::from(part.rows) / f64::from(self.rows.max(1)));
            if let Some(used) = used.get_mut(part.class) {
                *used = used.saturating_add(i64::try_from(time.as_nanos()).unwrap_or(i64::MAX));
            }
        }
        used
    }
}

#[derive(Debug, Default, Clone)]
struct Slot {
    batches: SmallVec<[BatchId; 2]>,
    free_at: Option<Instant>,
}

/// All batches under way on one device.
#[derive(Debug, Default)]
pub(crate) struct Running {
    slots: Vec<Slot>,
    runs: BTreeMap<BatchId, Run>,
    last: u64,
    /// How many of them are open-ended.
    open_ended: usize,
}

impl Running {
    pub(crate) fn set_slots(&mut self, slots: usize) {
        self.slots.resize(slots.max(1), Slot::default());
    }

    /// How many batches can run at the same time.
    pub(crate) fn slots(&self) -> usize {
        self.slots.len().max(1)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many batches the slot has.
    pub(crate) fn on(&self, slot: usize) -> usize {
        self.slots.get(slot).map_or(0, |slot| slot.batches.len())
    }

    /// When the slot has done what it was given.
    pub(crate) fn free_at(&self, slot: usize, now: Instant) -> Instant {
        let known = self.slots.get(slot).and_then(|slot| slot.free_at);
        known.map_or(now, |free_at| free_at.max(now))
    }

    /// When the slot should be given its next batch: shortly before it is expected to be done. The longer a batch, the further
    /// off the prediction may be, and a slot that is done before its next batch is there stands idle. None while its batch is
    /// long overdue: it may hang, and nobody should wait behind it; nor behind one whose end nobody can foresee.
    pub(crate) fn handover_at(&self, slot: usize, now: Instant) -> Option<Instant> {
        let Some(known) = self.slots.get(slot) else {
            return Some(now);
        };
        let Some(run) = known.batches.last().and_then(|id| self.runs.get(id)) else {
            return Some(now);
        };
        if run.open_ended {
            return None;
        }
        let patience = run.predicted.max(OVERDUE);
        let overdue = known.free_at.is_some_and(|free_at| now > free_at + patience);
        if overdue && run.predicted > Duration::ZERO {
            return None;
        }
        let early = HANDOVER.max(run.predicted.mul_f64(HANDOVER_PART));
        Some(self.free_at(slot, now).checked_sub(early).unwrap_or(now).max(now))
    }

    /// Until when batches of the model are expected to be under way; none where none is.
    pub(crate) fn has_until(&self, model: ModelIx) -> Option<Instant> {
        let runs = self.runs.values().filter(|run| run.model == model);
        runs.filter_map(|run| self.slots.get(run.slot)?.free_at).max()
    }

    /// When the first of these slots is free.
    pub(crate) fn first_free(&self, now: Instant, wanted: impl Fn(usize) -> bool) -> Instant {
        (0..self.slots.len())
            .filter(|slot| wanted(*slot))
            .map(|slot| self.free_at(slot, now))
            .min()
            .unwrap_or(now)
    }

    pub(crate) fn start(&mut self, now: Instant, mut run: Run) -> BatchId {
        self.last += 1;
        let id = BatchId(self.last);
        let free_at = self.free_at(run.slot, now) + run.predicted;
        self.open_ended += usize::from(run.open_ended);
        if let Some(slot) = self.slots.get_mut(run.slot) {
            run.since = slot.batches.is_empty().then_some(now);
            slot.batches.push(id);
            slot.free_at = Some(free_at);
        }
        self.runs.insert(id, run);
        id
    }

    pub(crate) fn finish(&mut self, now: Instant, id: BatchId) -> Option<Run> {
        let run = self.runs.remove(&id)?;
        self.open_ended -= usize::from(run.open_ended);
        let Some(slot) = self.slots.get_mut(run.slot) else {
            return Some(run);
        };
        slot.batches.retain(|batch| *batch != id);
        let rest = slot.batches.iter().filter_map(|batch| self.runs.get(batch));
        slot.free_at = Some(now + rest.map(|run| run.predicted).sum::<Duration>());
        let next = slot.batches.first().copied();
        if let Some(next) = next.and_then(|next| self.runs.get_mut(&next)) {
            next.since.get_or_insert(now);
        }
        Some(run)
    }

    /// The open-ended batches that have their slots, with how long they have had them.
    pub(crate) fn open_ended(&mut self, now: Instant) -> impl Iterator<Item = (&mut Run, Duration)> {
        // Mostly there is none: then nobody is looked at.
        let runs = (self.open_ended > 0).then(|| self.runs.values_mut());
        let open = runs.into_iter().flatten().filter(|run| run.open_ended);
        open.filter_map(move |run| run.since.map(|since| (run, now.saturating_duration_since(since))))
    }
}
