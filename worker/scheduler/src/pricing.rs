//! What those who wait are expected to cost, once that is known.
//!
//! A request that comes while nothing is known of its model's latency (of a model that has never been in memory, or of a shape that
//! has never run, or of one that gave way to others) is taken in for nothing. As soon as something is learnt it is given its cost,
//! or whoever comes next would be admitted as if nobody waited. What has a cost keeps it.
//!
//! Who waits for nothing is listed by model and shape ([`Unpriced`]), apart for what is in the queues and for the steps of sequences
//! that are held back from them: a model with many shapes learns some of them again and again, and must not walk all its
//! sequences each time.
//!
//! Cost: for each request a handful of steps in ordered sets, once when it comes and once when it is priced, whatever else
//! waits.
//!
//! Invariant: listed is exactly what waits and costs nothing; a model's backlog is the sum of what waits for it.

use std::{collections::BTreeSet, hash::Hash};

use ahash::AHashMap as HashMap;

use crate::{Latency, ShapeKey, forming::nanoseconds, item::Extents, scheduler::Scheduler, waiting::ModelIx};

/// What waits for nothing, by model and shape. As many as wait.
#[derive(Debug)]
pub(crate) struct Unpriced<I>(HashMap<(ModelIx, Extents), BTreeSet<I>>);

impl<I> Default for Unpriced<I> {
    fn default() -> Self {
        Self(HashMap::default())
    }
}

impl<I: Ord> Unpriced<I> {
    /// This one waits, at this cost.
    pub(crate) fn came(&mut self, model: ModelIx, shape: &ShapeKey, cost: u64, one: I) {
        if cost == 0 {
            let listed = self.0.entry((model, shape.extents().clone())).or_default();
            listed.insert(one);
        }
    }

    /// It waits no more; its cost is that of now.
    pub(crate) fn left(&mut self, model: ModelIx, shape: &ShapeKey, cost: u64, one: &I) {
        if cost > 0 || self.0.is_empty() {
            return;
        }
        let name = (model, shape.extents().clone());
        if let Some(listed) = self.0.get_mut(&name) {
            listed.remove(one);
            if listed.is_empty() {
                self.0.remove(&name);
            }
        }
    }

    /// Takes out all that wait for a shape, in their order.
    fn take(&mut self, model: ModelIx, shape: &ShapeKey) -> BTreeSet<I> {
        let name = (model, shape.extents().clone());
        self.0.remove(&name).unwrap_or_default()
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// Learns something of a shape's latency.
    pub(crate) fn learn(&mut self, index: ModelIx, shape: &ShapeKey, learn: impl FnOnce(&mut Latency)) {
        let Some(model) = self.models.get_mut(index) else {
            return;
        };
        let known = model.latencies.get(shape).is_some();
        model.learn(shape, learn);
        if !known && model.latencies.get(shape).is_some() {
            self.price(index, shape);
        }
    }

    /// Gives those their cost who wait for the shape and have none; how many were looked at.
    fn price(&mut self, index: ModelIx, shape: &ShapeKey) -> usize {
        let Some(model) = self.models.get(index) else { return 0 };
        let sizing = model.sizing(shape, false);
        let cost = |rows: u32| nanoseconds(sizing.cost(rows));
        let mut all = 0_u64;
        let queued = self.waiting.unpriced.take(index, shape);
        let held = self.sequences.unpriced.take(index, shape);
        let looked_at = queued.len() + held.len();
        for entry in queued {
            let Some(known) = self.waiting.entry(entry) else {
                continue;
            };
            let cost = cost(known.item.rows);
            self.waiting.price(&mut self.tenants, entry, cost);
            all = all.saturating_add(cost);
        }
        for (number, step) in held {
            let line = self.sequences.lines.get_mut(&number);
            let Some(held) = line.and_then(|line| line.held_mut(step)) else {
                continue;
            };
            let cost = cost(held.item.rows);
            held.placed.cost = cost;
            self.sequences.unpriced.came(index, shape, cost, (number, step));
            all = all.saturating_add(cost);
        }
        if let Some(model) = self.models.get_mut(index) {
            model.backlog = model.backlog.saturating_add(all);
        }
        looked_at
    }
}

#[cfg(test)]
#[path = "pricing_tests.rs"]
mod tests;
