//! Properties that hold whatever comes, in simulated time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use mesh_types::{DynamicBatching, ModelConfig, ServiceClass, Standing, TenantId, TenantShare};
use proptest::prelude::*;

use crate::{
    Batch, BatchRules, Gone, Item, Outcome, Scheduler, ShapeKey,
    tenants::{BATCH, INTERACTIVE},
};

const MS: Duration = Duration::from_millis(1);
const MODELS: [&str; 2] = ["m", "n"];
const TENANTS: [&str; 5] = ["a", "b", "c", "d", "e"];
const MOST: u32 = 8;

#[derive(Debug, Clone)]
enum Step {
    Offer {
        model: usize,
        tenant: usize,
        extent: u64,
        rows: u32,
        slack: u64,
        batch_class: bool,
    },
    Wait(u64),
    Poll(usize),
    Finish,
    Cancel(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let offer = (0..2_usize, 0..5_usize, 0..2_u64, 1..=4_u32, 1..200_u64, any::<bool>());
    prop_oneof![
        6 => offer.prop_map(|(model, tenant, extent, rows, slack, batch_class)| Step::Offer {
            model, tenant, extent, rows, slack, batch_class,
        }),
        2 => (1..20_u64).prop_map(Step::Wait),
        3 => (0..2_usize).prop_map(Step::Poll),
        3 => Just(Step::Finish),
        1 => (0..50_usize).prop_map(Step::Cancel),
    ]
}

fn batching() -> impl Strategy<Value = DynamicBatching> {
    let sizes = prop::collection::vec(1..=MOST, 0..3);
    (sizes, 0..10_u64, 0..60_u32, any::<bool>()).prop_map(|(sizes, delay, defer, right_size)| DynamicBatching {
        preferred_batch_size: sizes,
        max_queue_delay_microseconds: delay * 1_000,
        defer_percent: defer,
        right_size: Some(right_size),
        ..DynamicBatching::default()
    })
}

fn rules(batching: DynamicBatching) -> BatchRules {
    let config = ModelConfig {
        max_batch_size: MOST,
        dynamic_batching: Some(batching),
        ..ModelConfig::default()
    };
    BatchRules::of(&config, 20)
}

fn takes(rows: u32) -> Duration {
    2 * MS + MS * rows
}

/// A world around the scheduler that checks everything that leaves it.
struct World {
    now: Instant,
    scheduler: Scheduler<&'static str, usize>,
    waiting: BTreeMap<usize, (usize, Item<usize>)>,
    cancelled: BTreeSet<usize>,
    running: Vec<(crate::BatchId, u32)>,
    offered: usize,
    left: usize,
    busy: Duration,
    charged: Duration,
    clocks: BTreeMap<(String, usize), u128>,
}

impl World {
    fn new(batching: &DynamicBatching, seeded: bool) -> Self {
        let mut scheduler = Scheduler::new(2);
        for model in MODELS {
            scheduler.add_model(model, rules(batching.clone()));
            if seeded {
                let sweep: Vec<_> = [1, 2, 4, 8].map(|rows| (rows, takes(rows))).into();
                for extent in 0..2 {
                    scheduler.seed(&model, &ShapeKey::of([[1, extent].as_slice()].into_iter()), &sweep);
                }
            }
        }
        Self {
            now: Instant::now(),
            scheduler,
            waiting: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            running: Vec::new(),
            offered: 0,
            left: 0,
            busy: Duration::ZERO,
            charged: Duration::ZERO,
            clocks: BTreeMap::new(),
        }
    }

    fn act(&mut self, step: &Step) {
        match step {
            Step::Offer {
                model,
                tenant,
                extent,
                rows,
                slack,
                batch_class,
            } => {
                let item = Item {
                    payload: self.offered,
                    tenant: TenantId::parse(TENANTS[*tenant]).unwrap(),
                    standing: Standing {
                        share: TenantShare {
                            weight: u32::try_from(*tenant).unwrap() + 1,
                            isolated: *tenant == 0,
                        },
                        class: if *batch_class {
                            ServiceClass::Batch
                        } else {
                            ServiceClass::Interactive
                        },
                        ..Standing::default()
                    },
                    rows: *rows,
                    shape: ShapeKey::of([[1, *extent].as_slice()].into_iter()),
                    arrived: self.now,
                    deadline: self.now + Duration::from_millis(*slack),
                };
                self.offered += 1;
                match self.scheduler.offer(self.now, &MODELS[*model], item.clone()) {
                    Ok(()) => drop(self.waiting.insert(item.payload, (*model, item))),
                    Err(refused) => assert_eq!(refused.payload, item.payload),
                }
            }
            Step::Wait(milliseconds) => self.now += Duration::from_millis(*milliseconds),
            Step::Poll(slot) => drop(self.poll(*slot)),
            Step::Finish => self.finish(),
            Step::Cancel(payload) => drop(self.cancelled.insert(*payload)),
        }
        self.check_clocks();
    }

    fn poll(&mut self, slot: usize) -> Option<Instant> {
        let cancelled = self.cancelled.clone();
        let decision = self
            .scheduler
            .poll(self.now, slot, |_| true, |payload| cancelled.contains(payload));
        for (item, reason) in decision.gone {
            let (_, known) = self.waiting.remove(&item.payload).expect("left twice, or never came");
            self.left += 1;
            match reason {
                Gone::Cancelled => assert!(self.cancelled.contains(&known.payload)),
                Gone::Expired => assert!(known.deadline <= self.now),
                Gone::TooLate => assert!(known.deadline < self.now + Duration::from_secs(1)),
                Gone::TimedOut => panic!("no queue has a timeout"),
                Gone::Behind | Gone::Aborted(_) => panic!("no model has sequences"),
            }
        }
        if let Some(batch) = decision.batch {
            self.check_batch(&batch);
            self.running.push((batch.id, batch.rows));
        }
        decision.wake_at
    }

    fn check_batch(&mut self, batch: &Batch<&'static str, usize>) {
        assert!(!batch.items.is_empty());
        assert_eq!(batch.rows, batch.items.iter().map(|item| item.rows).sum::<u32>());
        assert!(batch.rows <= MOST || batch.items.len() == 1);
        let first = &batch.items[0];
        for item in &batch.items {
            assert_eq!(item.shape, first.shape);
            let (model, known) = self.waiting.remove(&item.payload).expect("left twice, or never came");
            assert_eq!(MODELS[model], batch.model);
            assert!(!self.cancelled.contains(&known.payload));
            self.left += 1;
            if item.standing.share.isolated || first.standing.share.isolated {
                assert_eq!(item.tenant, first.tenant);
            }
            // Nothing of the same tenant that could have gone instead has an earlier deadline.
            let overtaken = self.waiting.values().find(|(other_model, other)| {
                other_model == &model
                    && other.tenant == item.tenant
                    && other.shape == item.shape
                    && other.standing.class == item.standing.class
                    && other.deadline < item.deadline
                    && !batch.items.iter().any(|mate| mate.payload == other.payload)
            });
            assert!(overtaken.is_none(), "{overtaken:?} was overtaken by {item:?}");
        }
    }

    fn finish(&mut self) {
        if self.running.is_empty() {
            return;
        }
        let (id, rows) = self.running.remove(0);
        self.busy += takes(rows);
        let outcome = Outcome {
            busy: takes(rows),
            telling: true,
            too_large: None,
        };
        let charges = self.scheduler.finished(self.now, id, outcome);
        let sum: Duration = charges.iter().map(|charge| charge.device_time).sum();
        assert_eq!(sum, takes(rows));
        self.charged += sum;
    }

    /// The time charged to a tenant never goes down while it is known.
    fn check_clocks(&mut self) {
        for name in TENANTS {
            for class in [INTERACTIVE, BATCH] {
                let charged = self.scheduler.tenants.charged(name, class);
                let before = self.clocks.insert((name.to_owned(), class), charged.unwrap_or(0));
                assert!(
                    charged.is_none() || charged >= before,
                    "{name}: {charged:?} after {before:?}"
                );
            }
        }
    }

    fn drain(&mut self) {
        for _ in 0..10_000 {
            let wake = [self.poll(0), self.poll(1)].into_iter().flatten().min();
            if !self.running.is_empty() {
                self.finish();
                continue;
            }
            if self.waiting.is_empty() {
                return;
            }
            // Whatever waits is woken for: nothing starves.
            self.now = wake
                .expect("somebody waits and nobody is woken")
                .max(self.now + Duration::from_nanos(1));
        }
        panic!("it does not end");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_comes_leaves_once_in_a_sound_batch_or_with_a_reason(
        steps in prop::collection::vec(step(), 1..150),
        batching in batching(),
        seeded in any::<bool>(),
    ) {
        let mut world = World::new(&batching, seeded);
        for step in &steps {
            world.act(step);
        }
        world.drain();
        prop_assert!(world.scheduler.waiting.is_bare());
        prop_assert_eq!(world.busy, world.charged);
        for model in MODELS {
            prop_assert_eq!(world.scheduler.waiting(&model), 0);
        }
        prop_assert!(world.scheduler.tenants.is_quiet());
    }

    #[test]
    fn two_tenants_that_always_wait_differ_by_no_more_than_two_batches(
        weights in (1_u32..10, 1_u32..10),
        rows in (1_u32..=4, 1_u32..=4),
        models in (0..2_usize, 0..2_usize),
        batching in batching(),
    ) {
        let start = Instant::now();
        let mut scheduler: Scheduler<&'static str, usize> = Scheduler::new(1);
        let sweep: Vec<_> = [1, 2, 4, 8].map(|rows| (rows, takes(rows))).into();
        for model in MODELS {
            scheduler.add_model(model, rules(batching.clone()));
            scheduler.seed(&model, &ShapeKey::default(), &sweep);
        }
        let tenants = [("a", weights.0, rows.0, models.0), ("b", weights.1, rows.1, models.1)];
        let (mut now, mut had, mut waiting) = (start, [Duration::ZERO; 2], [0; 2]);
        for _ in 0..300 {
            for (index, (name, weight, rows, model)) in tenants.iter().enumerate() {
                while waiting[index] < 10 {
                    let standing = Standing {
                        share: TenantShare { weight: *weight, isolated: false },
                        ..Standing::default()
                    };
                    let item = Item {
                        payload: index,
                        tenant: TenantId::parse(name).unwrap(),
                        standing,
                        rows: *rows,
                        shape: ShapeKey::default(),
                        arrived: now,
                        deadline: now + Duration::from_secs(3_600),
                    };
                    prop_assert!(scheduler.offer(now, &MODELS[*model], item).is_ok());
                    waiting[index] += 1;
                }
            }
            let decision = scheduler.poll(now, 0, |_| true, |_| false);
            let Some(batch) = decision.batch else {
                now = decision.wake_at.unwrap();
                continue;
            };
            for item in &batch.items {
                waiting[item.payload] -= 1;
            }
            now += takes(batch.rows);
            let outcome = Outcome { busy: takes(batch.rows), telling: true, too_large: None };
            for charge in scheduler.finished(now, batch.id, outcome) {
                had[usize::from(charge.tenant.as_str() == "b")] += charge.device_time;
            }
            let of = |index: usize| had[index].as_secs_f64() / f64::from(tenants[index].1);
            let bound = 2.0 * takes(MOST).as_secs_f64() / f64::from(weights.0.min(weights.1)) + 1e-9;
            prop_assert!((of(0) - of(1)).abs() <= bound, "{had:?} with weights {weights:?}: bound {bound}");
        }
    }
}
