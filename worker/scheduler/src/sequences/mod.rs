//! Sequences: requests that share a state, brought to it one at a time.
//!
//! Owns which sequences are open, on which instance each has its seat, and the steps that may not run yet: those behind
//! another of their sequence, and those of sequences that have no seat (the backlog). A step that may run goes to the queues
//! of [`crate::waiting`] like any other request, but only its instance takes it; so fairness, deadlines and the forming of
//! batches are those of all requests.
//!
//! ```text
//! offer_step -> [ line of its sequence ] -> seat on an instance -> Waiting (pinned) -> Batch -> finished_steps -> next step
//! ```
//!
//! What a step does to the sequence: one that ran moves it; one that did not run leaves it where it was, and takes with it
//! those that wait behind it, which were sent in the belief that it would run. A first step that does not run ends the
//! sequence. A START within an open sequence begins it anew in its seat.
//!
//! Invariants: of a sequence at most one step waits for a batch or is in one, and steps run in the order in which they came;
//! a seat has one sequence; a sequence without steps ends when it has been idle for long enough; while others could come, one
//! tenant does not have all seats; every step leaves exactly once.

mod desk;
mod line;
mod lost;
mod pause;
mod seating;
mod steps;

use std::{
    collections::BTreeSet,
    hash::Hash,
    time::{Duration, Instant},
};

use ahash::AHashMap as HashMap;
use mesh_types::{ControlKind, CorrelationId, CorrelationIds, ModelConfig, TenantId};

use crate::{Gone, Item, pricing::Unpriced, waiting::ModelIx};

pub(crate) use desk::Desk;
pub use desk::SequenceCounts;
pub(crate) use line::{Flags, Held, SeatAt, Sequence};
pub(crate) use lost::Lost;
pub use lost::MAX_REMEMBERED;

/// The most sequences of one device, in seats and in the backlog.
pub const MAX_SEQUENCES: usize = 131_072;

/// How a model's sequences are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceRules {
    /// Sequences that one instance serves at the same time.
    pub slots: u32,
    /// After so long without a step a sequence ends.
    pub idle: Duration,
    /// Seats of one tenant over all instances; 0 is seven eighths of them.
    pub per_tenant: u32,
    /// Whether the model keeps states by ids that callers give: then no two sequences of an instance have the same.
    pub tells_ids: bool,
    /// Whether each sequence has a row of its own, and batches hold rows without a request up to the last that has one.
    pub padded: bool,
    /// Whether the state is kept outside of the model: then a sequence outlives its instance.
    pub movable: bool,
}

impl SequenceRules {
    /// The rules that a configuration asks for, if its model has sequences.
    pub fn of(config: &ModelConfig) -> Option<Self> {
        let sequence = config.sequence_batching.as_ref()?;
        let told = sequence.control(ControlKind::Corrid).is_some();
        Some(Self {
            slots: sequence.slots(config.max_batch_size),
            idle: sequence.idle(),
            per_tenant: sequence.max_sequences_per_tenant,
            // A model whose state is kept for it keeps nothing by ids: there they may be alike.
            tells_ids: told && sequence.correlation_ids == CorrelationIds::AsGiven && sequence.state.is_empty(),
            padded: sequence.oldest.is_none() && config.batches() && sequence.control(ControlKind::Ready).is_some(),
            movable: !sequence.state.is_empty(),
        })
    }
}

/// Why a sequence ended before its caller ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aborted {
    /// No step came for too long.
    Idle,
    /// Its first step did not run.
    NotBegun,
    /// The instance that held its state is gone.
    Lost,
    /// Its device was drained, or its model unloaded.
    Closed,
}

/// What became of a step that was in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepResult {
    /// The sequence has moved.
    Ran,
    /// The sequence is where it was.
    NotRun,
    /// The sequence's state is gone.
    Lost,
}

/// Where a step of a batch belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// The number of its sequence, never used twice.
    pub sequence: u64,
    /// Its sequence's seat within the instance, from 0.
    pub slot: u32,
}

/// A sequence is over: nobody will ask for its state any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended<K> {
    /// Its number.
    pub sequence: u64,
    /// Its model.
    pub model: K,
    /// Why, unless its caller ended it.
    pub why: Option<Aborted>,
}

/// All sequences of one device.
#[derive(Debug)]
pub(crate) struct Sequences<K, T> {
    pub(crate) lines: HashMap<u64, Sequence<T>>,
    pub(crate) desks: HashMap<ModelIx, Desk<K>>,
    /// The models that have open sequences.
    pub(crate) open: BTreeSet<ModelIx>,
    /// No model takes new sequences.
    pub(crate) closing: bool,
    pub(crate) lost: Lost<K>,
    /// When held steps have waited for too long: instant, sequence, step.
    due: BTreeSet<(Instant, u64, u64)>,
    /// When sequences without steps will have been idle for too long.
    idle: BTreeSet<(Instant, u64)>,
    /// Sequences whose next step cannot go to the queues yet, because its tenant waits in too many places.
    stalled: BTreeSet<u64>,
    /// Held steps that were taken in for nothing: sequence, step.
    pub(crate) unpriced: Unpriced<(u64, u64)>,
    /// Steps that left without running, to be given out.
    gone: Vec<(Item<T>, Gone)>,
    ended: Vec<Ended<K>>,
    /// Sequences whose step left the queues without running.
    unran: Vec<u64>,
    last_sequence: u64,
    last_step: u64,
}

impl<K, T> Default for Sequences<K, T> {
    fn default() -> Self {
        Self {
            lines: HashMap::default(),
            desks: HashMap::default(),
            open: BTreeSet::new(),
            closing: false,
            lost: Lost::default(),
            due: BTreeSet::new(),
            idle: BTreeSet::new(),
            stalled: BTreeSet::new(),
            unpriced: Unpriced::default(),
            gone: Vec::new(),
            ended: Vec::new(),
            unran: Vec::new(),
            last_sequence: 0,
            last_step: 0,
        }
    }
}

impl<K: Clone + Eq + Hash, T> Sequences<K, T> {
    /// The model has sequences from now on, or by other rules.
    pub(crate) fn open_desk(&mut self, model: ModelIx, key: K, rules: Option<SequenceRules>) {
        let Some(rules) = rules else { return };
        let desk = self.desks.entry(model).or_insert_with(|| Desk::new(key, rules));
        desk.rules = rules;
    }

    /// All sequences of a model.
    pub(crate) fn of_model(&self, model: ModelIx) -> Vec<u64> {
        let desk = self.desks.get(&model);
        desk.map_or_else(Vec::new, |desk| desk.names.values().copied().collect())
    }

    /// The open sequence of this name.
    pub(crate) fn find(&self, model: ModelIx, tenant: &TenantId, id: &CorrelationId) -> Option<u64> {
        let desk = self.desks.get(&model)?;
        desk.names.get(&(tenant.clone(), id.clone())).copied()
    }

    /// Where the sequence sits.
    pub(crate) fn seat(&self, sequence: u64) -> Seat {
        let seat = self.lines.get(&sequence).and_then(|line| line.seat);
        Seat {
            sequence,
            slot: seat.map_or(0, |seat| seat.slot),
        }
    }

    /// The rows up to the last that a sequence of this instance has; 0 where rows have no sequences of their own.
    pub(crate) fn width(&self, model: ModelIx, place: usize) -> u32 {
        let desk = self.desks.get(&model).filter(|desk| desk.rules.padded);
        let instance = desk.and_then(|desk| desk.instances.get(place));
        let last = instance.and_then(|instance| instance.taken.last_key_value());
        last.map_or(0, |(slot, _)| slot + 1)
    }

    /// A step of the sequence left the queues without running.
    pub(crate) fn left(&mut self, sequence: u64) {
        self.unran.push(sequence);
    }

    /// Whether steps wait here that the queues do not have.
    pub(crate) fn holds_steps(&self) -> bool {
        !self.due.is_empty()
    }

    #[cfg(test)]
    pub(crate) fn is_bare(&self) -> bool {
        self.lines.is_empty()
            && self.due.is_empty()
            && self.idle.is_empty()
            && self.stalled.is_empty()
            && self.unpriced.is_empty()
            && self.gone.is_empty()
            && self.open.is_empty()
            && self.desks.values().all(Desk::is_bare)
    }
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
