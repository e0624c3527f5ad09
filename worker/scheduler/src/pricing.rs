//! What those who wait are expected to cost, once that is known.
//!
//! A request that comes while nothing is known of its model's latency (of a model that has never been in memory, or of a shape that
//! has never run) is taken in for nothing. As soon as something is learnt it is given its cost, or whoever comes next would be
//! admitted as if nobody waited. What has a cost keeps it.
//!
//! Cost: one look at those who wait for the shape, once for each model and shape.

use std::hash::Hash;

use crate::{Latency, ShapeKey, forming::nanoseconds, scheduler::Scheduler, waiting::ModelIx};

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

    /// Gives those their cost who wait for the shape and have none.
    fn price(&mut self, index: ModelIx, shape: &ShapeKey) {
        let Some(model) = self.models.get(index) else { return };
        let sizing = model.sizing(shape, false);
        let cost = |rows: u32| nanoseconds(sizing.cost(rows));
        let mut all = 0_u64;
        let waiting = self.waiting.of_shape(index, shape);
        let entries = waiting.into_iter().filter_map(|entry| {
            let known = self.waiting.entry(entry).filter(|known| known.cost == 0)?;
            Some((entry, cost(known.item.rows)))
        });
        for (entry, cost) in entries.collect::<Vec<_>>() {
            self.waiting.price(&mut self.tenants, entry, cost);
            all = all.saturating_add(cost);
        }
        for number in self.sequences.of_model(index) {
            let line = self.sequences.lines.get_mut(&number);
            let steps = line.into_iter().flat_map(|line| &mut line.steps);
            for held in steps.filter(|held| held.placed.cost == 0 && held.item.shape.extents() == shape.extents()) {
                held.placed.cost = cost(held.item.rows);
                all = all.saturating_add(held.placed.cost);
            }
        }
        if let Some(model) = self.models.get_mut(index) {
            model.backlog = model.backlog.saturating_add(all);
        }
    }
}
