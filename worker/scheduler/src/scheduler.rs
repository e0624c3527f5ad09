//! All queues of one device.

use std::{collections::BTreeMap, collections::HashMap, hash::Hash, time::Instant};

use crate::{
    BatchRules, Item, ShapeKey,
    queue::{Queue, Wish},
};

/// Requests that run together.
#[derive(Debug)]
pub struct Batch<K, T> {
    /// The model.
    pub model: K,
    /// In the order they came.
    pub items: Vec<Item<T>>,
    /// All their rows.
    pub rows: u32,
}

/// Why an item left without running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Its deadline passed while it waited.
    Expired,
    /// Whoever asked is no longer there.
    Cancelled,
}

/// Why an item was not taken; it is given back.
#[derive(Debug)]
pub enum Refused<T> {
    /// The model's queue is full.
    Full(T),
    /// There is no such model here.
    UnknownModel(T),
}

/// What to do now.
#[derive(Debug)]
pub struct Decision<K, T> {
    /// Run these now.
    pub batch: Option<Batch<K, T>>,
    /// Answer these without running them.
    pub gone: Vec<(Item<T>, Gone)>,
    /// Ask again at this instant, even if nothing else happens.
    pub wake_at: Option<Instant>,
}

#[derive(Debug)]
struct Model<T> {
    rules: BatchRules,
    queues: BTreeMap<ShapeKey, Queue<T>>,
    waiting: usize,
}

/// The queue to take from next.
struct Chosen<K> {
    oldest: Instant,
    model: K,
    shape: ShapeKey,
    count: usize,
}

/// The queues of one device.
#[derive(Debug)]
pub struct Scheduler<K, T> {
    models: HashMap<K, Model<T>>,
}

impl<K, T> Default for Scheduler<K, T> {
    fn default() -> Self {
        Self { models: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// The model takes requests from now on, or by new rules.
    pub fn add_model(&mut self, model: K, rules: BatchRules) {
        match self.models.get_mut(&model) {
            Some(known) => known.rules = rules,
            None => {
                self.models.insert(
                    model,
                    Model {
                        rules,
                        queues: BTreeMap::new(),
                        waiting: 0,
                    },
                );
            }
        }
    }

    /// The model takes no more requests; those waiting are given back.
    pub fn remove_model(&mut self, model: &K) -> Vec<Item<T>> {
        let removed = self.models.remove(model);
        removed
            .into_iter()
            .flat_map(|model| model.queues.into_values())
            .flat_map(|queue| queue.items)
            .collect()
    }

    /// How many wait for the model.
    pub fn waiting(&self, model: &K) -> usize {
        self.models.get(model).map_or(0, |model| model.waiting)
    }

    /// Takes a request in, or gives it back if the queue is full.
    pub fn offer(&mut self, model: &K, item: Item<T>) -> Result<(), Refused<T>> {
        let Some(model) = self.models.get_mut(model) else {
            return Err(Refused::UnknownModel(item.payload));
        };
        if model.waiting >= model.rules.max_queue {
            return Err(Refused::Full(item.payload));
        }
        model.waiting += 1;
        model.queues.entry(item.shape).or_default().items.push_back(item);
        Ok(())
    }

    /// Decides. `cancelled` says whether whoever asked has gone. With several queues ready, the one whose oldest request
    /// has waited longest goes first.
    pub fn poll(&mut self, now: Instant, cancelled: impl Fn(&T) -> bool) -> Decision<K, T> {
        let gone = self.sweep(now, cancelled);
        let mut wake_at: Option<Instant> = None;
        let mut chosen: Option<Chosen<K>> = None;
        for (key, model) in &self.models {
            for (shape, queue) in &model.queues {
                match queue.wish(now, &model.rules) {
                    Wish::Nothing => {}
                    Wish::Wait(until) => wake_at = Some(wake_at.map_or(until, |earlier: Instant| earlier.min(until))),
                    Wish::Send(count) => {
                        let oldest = queue.oldest().unwrap_or(now);
                        if chosen.as_ref().is_none_or(|best| oldest < best.oldest) {
                            chosen = Some(Chosen {
                                oldest,
                                model: key.clone(),
                                shape: *shape,
                                count,
                            });
                        }
                    }
                }
            }
        }
        let batch = chosen.and_then(|chosen| self.take(chosen));
        Decision { batch, gone, wake_at }
    }

    fn take(
        &mut self,
        Chosen {
            model: key,
            shape,
            count,
            ..
        }: Chosen<K>,
    ) -> Option<Batch<K, T>> {
        let model = self.models.get_mut(&key)?;
        let queue = model.queues.get_mut(&shape)?;
        let items: Vec<_> = queue.items.drain(..count.min(queue.items.len())).collect();
        if queue.items.is_empty() {
            // A queue per shape that was ever seen would grow without bound.
            model.queues.remove(&shape);
        }
        model.waiting -= items.len();
        let rows = items.iter().map(|item| item.rows).sum();
        Some(Batch {
            model: key,
            items,
            rows,
        })
    }

    /// Takes out what is not worth running.
    fn sweep(&mut self, now: Instant, cancelled: impl Fn(&T) -> bool) -> Vec<(Item<T>, Gone)> {
        let mut gone = Vec::new();
        for model in self.models.values_mut() {
            for queue in model.queues.values_mut() {
                let reason = |item: &Item<T>| {
                    let expired = (now >= item.deadline).then_some(Gone::Expired);
                    expired.or_else(|| cancelled(&item.payload).then_some(Gone::Cancelled))
                };
                let mut index = 0;
                while let Some(item) = queue.items.get(index) {
                    let Some(reason) = reason(item) else {
                        index += 1;
                        continue;
                    };
                    gone.extend(queue.items.remove(index).map(|item| (item, reason)));
                    model.waiting -= 1;
                }
            }
            model.queues.retain(|_, queue| !queue.items.is_empty());
        }
        gone
    }
}
