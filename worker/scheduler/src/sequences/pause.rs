//! Models that do not run for a while: what waits for them leaves, and sequences stay whose state is not the model's.

use std::{hash::Hash, time::Instant};

use super::Aborted;
use crate::{Item, scheduler::Scheduler};

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// The model runs nothing before this instant: what waits for it is given back. Where its sequences' states are kept
    /// outside of it, those that have begun stay where they are, and are idle from then on; all others are over.
    pub fn pause_model(&mut self, model: &K, until: Instant) -> Vec<Item<T>> {
        let Some(index) = self.models.find(model) else {
            return Vec::new();
        };
        let movable = |desk: &super::Desk<K>| desk.rules.movable;
        if !self.sequences.desks.get(&index).is_some_and(movable) {
            return self.remove_model(model);
        }
        let all = self.sequences.of_model(index);
        all.into_iter()
            .flat_map(|number| self.set_aside(number, until))
            .collect()
    }

    /// What waits of a sequence is taken out; what runs goes on.
    fn set_aside(&mut self, number: u64, until: Instant) -> Vec<Item<T>> {
        let entry = self.take_queued(number);
        self.leave_backlog(number);
        self.sequences.stalled.remove(&number);
        let Some(line) = self.sequences.lines.get_mut(&number) else {
            return Vec::new();
        };
        let queued = entry.as_ref().and_then(|_| line.under_way.take());
        let held: Vec<_> = line.steps.drain(..).collect();
        // Whoever began anew, and was not run, does not go on with what was before.
        let anew = queued.is_some_and(|flags| flags.start) || held.iter().any(|held| held.flags.start);
        line.reopen();
        line.open &= !anew;
        let (running, stays) = (line.under_way.is_some(), line.begun && line.open);
        let mut items = Vec::with_capacity(held.len() + 1);
        if let Some(entry) = entry {
            self.tenants.part(entry.tenant);
            items.push(entry.item);
        }
        for held in held {
            self.unhold(number, &held);
            self.tenants.part(held.placed.tenant);
            items.push(held.item);
        }
        if !running && stays {
            self.begin_idling(until, number);
        } else if !running {
            self.end_sequence(number, Some(Aborted::NotBegun));
        }
        items
    }
}
