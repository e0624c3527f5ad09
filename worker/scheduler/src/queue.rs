//! One queue: the waiting requests of one model and shape.

use std::{collections::VecDeque, time::Instant};

use crate::BatchRules;

/// What must be equal for two requests to share a batch: a hash of the extents of all inputs but the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShapeKey(pub u64);

/// A waiting request.
#[derive(Debug, Clone)]
pub struct Item<T> {
    /// What it is.
    pub payload: T,
    /// Rows along the batch dimension.
    pub rows: u32,
    /// Which others it may share a batch with.
    pub shape: ShapeKey,
    /// When it came.
    pub arrived: Instant,
    /// After this its answer is worthless.
    pub deadline: Instant,
}

/// What a queue wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Send the first so many items.
    Send(usize),
    /// Nothing before this instant.
    Wait(Instant),
    /// It is empty.
    Nothing,
}

/// First in, first out.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    pub(crate) items: VecDeque<Item<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { items: VecDeque::new() }
    }
}

impl<T> Queue<T> {
    /// When the oldest came.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.items.front().map(|item| item.arrived)
    }

    /// What to do now: the rules of [`crate`].
    pub(crate) fn wish(&self, now: Instant, rules: &BatchRules) -> Wish {
        let Some(oldest) = self.items.front() else {
            return Wish::Nothing;
        };
        if !rules.shared {
            return Wish::Send(1);
        }
        let (mut rows, mut best, mut taken, mut full) = (0u32, None, 0, false);
        for item in &self.items {
            let with = rows.saturating_add(item.rows);
            if taken > 0 && with > rules.max_rows {
                full = true;
                break;
            }
            (rows, taken) = (with, taken + 1);
            if rules.preferred.binary_search(&rows).is_ok() {
                best = Some(taken);
            }
        }
        let largest = rules.preferred.last().copied().unwrap_or(rules.max_rows);
        let waited_out = now.saturating_duration_since(oldest.arrived) >= rules.max_delay;
        if full || rows >= largest || waited_out {
            // A preferred size is worth leaving the rest for the next batch only while there is time to wait for it.
            let preferred = best.filter(|_| !waited_out || full);
            return Wish::Send(preferred.unwrap_or(taken));
        }
        match best {
            Some(preferred) => Wish::Send(preferred),
            None => Wish::Wait(oldest.arrived + rules.max_delay),
        }
    }
}
