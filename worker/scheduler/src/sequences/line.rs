//! One sequence: its seat, the steps that wait for their turn, and how far it has come.

use std::{collections::VecDeque, time::Instant};

use mesh_types::{CorrelationId, TenantId};

use crate::{
    Item,
    waiting::{ModelIx, Placed},
};

/// Where a sequence sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeatAt {
    pub(crate) place: usize,
    pub(crate) slot: u32,
}

/// What a step says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags {
    pub(crate) start: bool,
    pub(crate) end: bool,
}

/// A step that waits for its turn.
#[derive(Debug)]
pub(crate) struct Held<T> {
    pub(crate) item: Item<T>,
    pub(crate) placed: Placed,
    pub(crate) flags: Flags,
    /// When it has waited for too long.
    pub(crate) due: Instant,
    pub(crate) step: u64,
}

/// One sequence.
#[derive(Debug)]
pub(crate) struct Sequence<T> {
    pub(crate) model: ModelIx,
    pub(crate) tenant: TenantId,
    pub(crate) id: CorrelationId,
    pub(crate) seat: Option<SeatAt>,
    /// Its place among those who wait for a seat, while it does.
    pub(crate) waits_at: Option<i64>,
    /// Their numbers ascend.
    pub(crate) steps: VecDeque<Held<T>>,
    /// The step that waits for a batch or is in one.
    pub(crate) under_way: Option<Flags>,
    /// Whether its first step has run, and its last has not.
    pub(crate) begun: bool,
    /// Whether a step without START may follow what came last.
    pub(crate) open: bool,
    /// Its instance is gone with its state: what is under way is the last.
    pub(crate) doomed: bool,
    /// When it will have been idle for too long; none while it has steps.
    pub(crate) idle_at: Option<Instant>,
}

impl<T> Sequence<T> {
    pub(crate) fn new(model: ModelIx, tenant: TenantId, id: CorrelationId) -> Self {
        Self {
            model,
            tenant,
            id,
            seat: None,
            waits_at: None,
            steps: VecDeque::new(),
            under_way: None,
            begun: false,
            open: false,
            doomed: false,
            idle_at: None,
        }
    }

    /// The place of the step of this number.
    pub(crate) fn position(&self, step: u64) -> Option<usize> {
        self.steps.binary_search_by_key(&step, |held| held.step).ok()
    }

    /// The step of this number.
    pub(crate) fn held_mut(&mut self, step: u64) -> Option<&mut Held<T>> {
        let position = self.position(step)?;
        self.steps.get_mut(position)
    }

    /// Takes out the steps from `first` on that belong to the same run of the sequence: up to the next START, and not it.
    pub(crate) fn cut(&mut self, first: usize) -> Vec<Held<T>> {
        let after = self.steps.iter().skip(first).position(|held| held.flags.start);
        let count = after.unwrap_or(self.steps.len().saturating_sub(first));
        let from = first.min(self.steps.len());
        self.steps.drain(from..from + count).collect()
    }

    /// Whether a step without START may follow what is left, after some were taken out.
    pub(crate) fn reopen(&mut self) {
        let last = self.steps.back().map(|held| held.flags).or(self.under_way);
        self.open = last.map_or(self.begun, |flags| !flags.end);
    }
}
