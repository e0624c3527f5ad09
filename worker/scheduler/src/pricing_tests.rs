//! What waits for nothing is priced as by a walk over all that waits, and nothing else is looked at.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use mesh_types::{CorrelationId, ModelConfig, SequenceBatching, SequenceStep, Standing, TenantId};
use proptest::prelude::*;

use super::*;
use crate::{BatchRules, Item, waiting::EntryIx};

const MODELS: [&str; 2] = ["m", "n"];
const MS: Duration = Duration::from_millis(1);

type Names<I> = HashMap<(ModelIx, Extents), BTreeSet<I>>;

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// The lists are those of a walk over all that waits, and so are the models' backlogs.
    pub(crate) fn assert_priced(&self) {
        let (mut queued, mut held): (Names<EntryIx>, Names<(u64, u64)>) = Default::default();
        let mut backlogs: HashMap<ModelIx, u64> = HashMap::default();
        for index in self.waiting.entries_where(|_| true) {
            let entry = self.waiting.entry(index).unwrap();
            *backlogs.entry(entry.model).or_default() += entry.cost;
            if entry.cost == 0 {
                let name = (entry.model, entry.item.shape.extents().clone());
                queued.entry(name).or_default().insert(index);
            }
        }
        for (number, line) in &self.sequences.lines {
            for step in &line.steps {
                assert_eq!(
                    line.position(step.step).map(|place| line.steps[place].step),
                    Some(step.step)
                );
                *backlogs.entry(step.placed.model).or_default() += step.placed.cost;
                if step.placed.cost == 0 {
                    let name = (step.placed.model, step.item.shape.extents().clone());
                    held.entry(name).or_default().insert((*number, step.step));
                }
            }
        }
        assert_eq!(self.waiting.unpriced.0, queued);
        assert_eq!(self.sequences.unpriced.0, held);
        for model in self.models.iter() {
            let index = self.models.find(&model.key).unwrap();
            assert_eq!(model.backlog, backlogs.get(&index).copied().unwrap_or(0));
        }
    }
}

fn shape(extent: u64) -> ShapeKey {
    ShapeKey::of([[1, extent].as_slice()].into_iter())
}

/// `m` has sequences, `n` has none.
fn scheduler() -> Scheduler<&'static str, usize> {
    let mut scheduler = Scheduler::new(1);
    let plain = ModelConfig {
        max_batch_size: 4,
        ..ModelConfig::default()
    };
    let sequences = ModelConfig {
        sequence_batching: Some(SequenceBatching::default()),
        ..plain.clone()
    };
    scheduler.add_model("m", BatchRules::of(&sequences, 100_000));
    scheduler.add_model("n", BatchRules::of(&plain, 100_000));
    scheduler
}

fn item(payload: usize, extent: u64, now: Instant) -> Item<usize> {
    Item {
        payload,
        tenant: TenantId::parse("a").unwrap(),
        standing: Standing::default(),
        rows: 1,
        shape: shape(extent),
        arrived: now,
        deadline: now + Duration::from_secs(3_600),
    }
}

fn step(id: u64, start: bool) -> SequenceStep {
    SequenceStep {
        id: CorrelationId::Number(id),
        start,
        end: false,
    }
}

/// What each that waits costs.
fn costs(scheduler: &Scheduler<&'static str, usize>) -> BTreeMap<usize, (ModelIx, ShapeKey, u64)> {
    let queued = scheduler.waiting.entries_where(|_| true);
    let queued = queued.into_iter().map(|index| {
        let entry = scheduler.waiting.entry(index).unwrap();
        (entry.item.payload, (entry.model, entry.item.shape.clone(), entry.cost))
    });
    let held = scheduler.sequences.lines.values().flat_map(|line| &line.steps);
    let held = held.map(|held| {
        let placed = &held.placed;
        (held.item.payload, (placed.model, held.item.shape.clone(), placed.cost))
    });
    queued.chain(held).collect()
}

#[test]
fn a_price_looks_at_those_who_wait_for_nothing_in_its_shape_and_at_nobody_else() {
    let (mut scheduler, now) = (scheduler(), Instant::now());
    for id in 0..1_000 {
        for number in 0..3 {
            let item = item(0, 0, now);
            scheduler.offer_step(now, &"m", item, &step(id, number == 0)).unwrap();
        }
    }
    let index = scheduler.models.find(&"m").unwrap();
    scheduler.seed(&"m", &shape(0), &[(1, 2 * MS)]);
    scheduler.assert_priced();
    let backlog = |scheduler: &Scheduler<_, _>| scheduler.models.get(index).unwrap().backlog;
    let all = backlog(&scheduler);
    assert!(all > 0);
    // A shape that gave way to others, and is learnt again.
    assert_eq!(scheduler.price(index, &shape(0)), 0, "all have their price");
    scheduler
        .offer_step(now, &"m", item(0, 1, now), &step(7, false))
        .unwrap();
    assert_eq!(backlog(&scheduler), all);
    scheduler
        .models
        .get_mut(index)
        .unwrap()
        .learn(&shape(1), |latency| latency.observe(1, MS));
    assert_eq!(scheduler.price(index, &shape(1)), 1, "one alone waits in it");
    assert!(backlog(&scheduler) > all);
    scheduler.assert_priced();
}

#[derive(Debug, Clone)]
enum Act {
    Offer {
        model: usize,
        id: u64,
        start: bool,
        extent: u64,
    },
    Learn {
        model: usize,
        extent: u64,
        takes: u32,
    },
    Unlearn(usize),
    Turn(bool),
    Run,
    Abort,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        10 => (0..2_usize, 0..4_u64, prop::bool::weighted(0.3), 0..3_u64)
            .prop_map(|(model, id, start, extent)| Act::Offer { model, id, start, extent }),
        3 => (0..2_usize, 0..3_u64, 1..9_u32).prop_map(|(model, extent, takes)| Act::Learn { model, extent, takes }),
        2 => (0..2_usize).prop_map(Act::Unlearn),
        1 => any::<bool>().prop_map(Act::Turn),
        3 => Just(Act::Run),
        1 => Just(Act::Abort),
    ]
}

proptest! {
    #[test]
    fn prices_are_those_of_a_walk_over_all_that_waits(acts in prop::collection::vec(act(), 1..80)) {
        let (mut scheduler, now) = (scheduler(), Instant::now());
        for (payload, act) in acts.into_iter().enumerate() {
            match act {
                Act::Offer { model: 0, id, start, extent } => {
                    let _ = scheduler.offer_step(now, &"m", item(payload, extent, now), &step(id, start));
                }
                Act::Offer { extent, .. } => {
                    let _ = scheduler.offer(now, &"n", item(payload, extent, now));
                }
                Act::Learn { model, extent, takes } => {
                    let (name, shape) = (MODELS[model], shape(extent));
                    let index = scheduler.models.find(&name).unwrap();
                    let (known, mut walked) = (scheduler.has_learnt(&name, &shape), costs(&scheduler));
                    scheduler.seed(&name, &shape, &[(1, MS * takes)]);
                    let sizing = scheduler.models.get(index).unwrap().sizing(&shape, false);
                    for (of, other, cost) in walked.values_mut() {
                        if !known && *of == index && *other == shape && *cost == 0 {
                            *cost = nanoseconds(sizing.cost(1));
                        }
                    }
                    prop_assert_eq!(costs(&scheduler), walked);
                }
                Act::Unlearn(model) => scheduler.unlearn(&MODELS[model]),
                Act::Turn(ready) => scheduler.set_instances(&"m", 1, |_| ready),
                Act::Run => {
                    let decision = scheduler.poll(now, 0, |_| true, |_| false);
                    if let Some(batch) = decision.batch {
                        scheduler.finished(now, batch.id, crate::Outcome::default());
                    }
                }
                Act::Abort => scheduler.abort_sequences(&"m", crate::Aborted::Closed),
            }
            scheduler.assert_priced();
        }
    }
}
