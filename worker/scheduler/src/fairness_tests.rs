//! Ways in which a tenant might get more than its share, or others less, over several models, classes and threads. Each was
//! possible once.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use mesh_types::{DynamicBatching, ModelConfig, ServiceClass, Standing, TenantId, TenantShare};

use super::*;

const MS: Duration = Duration::from_millis(1);
const MOST: u32 = 32;

/// As the simulations' device.
fn takes(rows: u32) -> Duration {
    5 * MS + Duration::from_micros(500) * rows
}

fn sweep() -> Vec<(u32, Duration)> {
    [1, 2, 4, 8, 16, 32].map(|rows| (rows, takes(rows))).into()
}

fn rules(batching: DynamicBatching) -> BatchRules {
    let config = ModelConfig {
        max_batch_size: MOST,
        dynamic_batching: Some(batching),
        ..ModelConfig::default()
    };
    BatchRules::of(&config, 4_096)
}

/// A tenant that keeps so many requests waiting for a model.
#[derive(Clone, Copy)]
struct Caller {
    name: &'static str,
    model: &'static str,
    waiting: usize,
    weight: u32,
    class: ServiceClass,
}

fn caller(name: &'static str, model: &'static str, waiting: usize) -> Caller {
    Caller {
        name,
        model,
        waiting,
        weight: 1,
        class: ServiceClass::Interactive,
    }
}

struct World {
    scheduler: Scheduler<&'static str, usize>,
    now: Instant,
    callers: Vec<Caller>,
    waiting: Vec<usize>,
    had: BTreeMap<String, f64>,
}

impl World {
    fn new(callers: &[Caller], delays: &[(&'static str, u64)]) -> Self {
        let mut scheduler = Scheduler::new(1);
        for (model, delay) in delays {
            let batching = DynamicBatching {
                max_queue_delay_microseconds: *delay,
                ..DynamicBatching::default()
            };
            scheduler.add_model(*model, rules(batching));
            scheduler.seed(model, &ShapeKey::default(), &sweep());
        }
        Self {
            scheduler,
            now: Instant::now(),
            callers: callers.to_vec(),
            waiting: vec![0; callers.len()],
            had: BTreeMap::new(),
        }
    }

    fn item(&self, index: usize) -> Item<usize> {
        let caller = self.callers[index];
        Item {
            payload: index,
            tenant: TenantId::parse(caller.name).unwrap(),
            standing: Standing {
                share: TenantShare {
                    weight: caller.weight,
                    isolated: false,
                },
                class: caller.class,
                ..Standing::default()
            },
            rows: 1,
            shape: ShapeKey::default(),
            arrived: self.now,
            deadline: self.now + Duration::from_secs(36_000),
        }
    }

    fn fill(&mut self) {
        for index in 0..self.callers.len() {
            while self.waiting[index] < self.callers[index].waiting {
                let item = self.item(index);
                self.scheduler
                    .offer(self.now, &self.callers[index].model, item)
                    .unwrap();
                self.waiting[index] += 1;
            }
        }
    }

    /// Serves for so long; what each tenant had of it, in seconds.
    fn serve_for(&mut self, time: Duration) -> &BTreeMap<String, f64> {
        self.had.clear();
        let end = self.now + time;
        while self.now < end {
            self.fill();
            let decision = self.scheduler.poll(self.now, 0, |_| true, |_| false);
            let Some(batch) = decision.batch else {
                self.now = decision.wake_at.unwrap().min(end);
                continue;
            };
            batch.items.iter().for_each(|item| self.waiting[item.payload] -= 1);
            let busy = takes(batch.rows);
            self.now += busy;
            let outcome = Outcome {
                busy,
                telling: true,
                too_large: None,
            };
            for charge in self.scheduler.finished(self.now, batch.id, outcome) {
                *self.had.entry(charge.tenant.to_string()).or_default() += charge.device_time.as_secs_f64();
            }
        }
        &self.had
    }
}

#[test]
fn nobody_rides_along_with_a_tenant_that_is_owed_more() {
    let heavy = |model, waiting| Caller {
        weight: 8,
        ..caller("a", model, waiting)
    };
    // "a" trickles into m, which "b" floods; "c" floods n and has nobody to ride with.
    let callers = [
        heavy("m", 2),
        heavy("o", 64),
        caller("b", "m", 64),
        caller("c", "n", 64),
    ];
    let mut world = World::new(&callers, &[("m", 0), ("n", 0), ("o", 0)]);
    let had = world.serve_for(Duration::from_secs(60));
    let bound = 4.0 * takes(MOST).as_secs_f64();
    assert!((had["b"] - had["c"]).abs() <= bound, "{had:?}");
    assert!((had["a"] / 8.0 - had["b"]).abs() <= bound, "{had:?}");
}

#[test]
fn the_batch_class_does_not_ride_past_interactive_requests_of_another_model() {
    let bulk = Caller {
        class: ServiceClass::Batch,
        ..caller("bulk", "m", 64)
    };
    let callers = [caller("trickle", "m", 2), bulk, caller("c", "n", 64)];
    let mut world = World::new(&callers, &[("m", 0), ("n", 0)]);
    let had = world.serve_for(Duration::from_secs(60));
    let part = had["bulk"] / had.values().sum::<f64>();
    assert!((0.08..0.13).contains(&part), "{part}: {had:?}");
}

#[test]
fn waiting_in_a_model_with_a_long_delay_saves_nothing_up() {
    let mut world = World::new(
        &[caller("patient", "slow", 1), caller("polite", "m", 64)],
        &[("m", 0), ("slow", 600_000_000)],
    );
    world.serve_for(Duration::from_secs(100));
    world.callers.push(caller("patient", "m", 64));
    world.waiting.push(0);
    let had = world.serve_for(Duration::from_secs(20));
    assert!((had["patient"] - had["polite"]).abs() < 1.0, "{had:?}");
}

#[test]
fn who_comes_to_one_thread_is_not_behind_what_another_has_served() {
    let mut scheduler: Scheduler<&'static str, &'static str> = Scheduler::new(2);
    for model in ["m", "n"] {
        scheduler.add_model(model, rules(DynamicBatching::default()));
        scheduler.seed(&model, &ShapeKey::default(), &[(1, 10 * MS), (32, 10 * MS)]);
    }
    let mut now = Instant::now();
    let item = |name: &'static str, weight: u32, now: Instant| Item {
        payload: name,
        tenant: TenantId::parse(name).unwrap(),
        standing: Standing {
            share: TenantShare {
                weight,
                isolated: false,
            },
            ..Standing::default()
        },
        rows: 1,
        shape: ShapeKey::default(),
        arrived: now,
        deadline: now + Duration::from_secs(36_000),
    };
    let (mut waiting, mut waited) = (BTreeMap::from([("a", 0), ("b", 0)]), None);
    for step in 0..2_000 {
        for (name, model, weight) in [("a", "m", 1), ("b", "n", 10)] {
            while waiting[name] < 80 {
                scheduler.offer(now, &model, item(name, weight, now)).unwrap();
                *waiting.get_mut(name).unwrap() += 1;
            }
        }
        if step == 1_000 {
            scheduler.offer(now, &"n", item("new", 1, now)).unwrap();
        }
        let mut ids = Vec::new();
        for (slot, model) in [(0, "n"), (1, "m")] {
            let batch = scheduler.poll(now, slot, |key| *key == model, |_| false).batch.unwrap();
            for item in &batch.items {
                if let Some(count) = waiting.get_mut(item.payload) {
                    *count -= 1;
                } else {
                    waited = Some(step - 1_000);
                }
            }
            ids.push(batch.id);
        }
        now += 10 * MS;
        for id in ids {
            let outcome = Outcome {
                busy: 10 * MS,
                telling: true,
                too_large: None,
            };
            scheduler.finished(now, id, outcome);
        }
        if waited.is_some() {
            break;
        }
    }
    assert!(waited.is_some_and(|steps| steps <= 50), "{waited:?}");
}

#[test]
fn a_model_whose_preferred_size_cannot_be_reached_keeps_nobody_else_waiting() {
    let mut world = World::new(&[caller("a", "m", 0)], &[("m", 0)]);
    let stubborn = DynamicBatching {
        preferred_batch_size: vec![4, 8],
        max_queue_delay_microseconds: 600_000_000,
        ..DynamicBatching::default()
    };
    world.scheduler.add_model("p", rules(stubborn));
    for rows in [3, 2] {
        let item = Item { rows, ..world.item(0) };
        world.scheduler.offer(world.now, &"p", item).unwrap();
    }
    let item = world.item(0);
    world.scheduler.offer(world.now, &"m", item).unwrap();
    let batch = world.scheduler.poll(world.now, 0, |_| true, |_| false).batch.unwrap();
    assert_eq!(batch.model, "m");
    assert_eq!(world.scheduler.waiting(&"p"), 2);
}

#[test]
fn a_wide_request_is_dropped_by_what_it_takes_itself() {
    let mut world = World::new(&[caller("a", "m", 0)], &[("m", 0)]);
    world.scheduler.add_model(
        "m",
        BatchRules {
            preferred: vec![2],
            right_size: false,
            ..rules(DynamicBatching::default())
        },
    );
    let (now, start) = (world.now, world.item(0));
    // Something has run just now, so that predictions count.
    world.scheduler.offer(now, &"m", start).unwrap();
    let batch = world.scheduler.poll(now, 0, |_| true, |_| false).batch.unwrap();
    let wide = Item {
        rows: 32,
        deadline: now + 40 * MS,
        ..world.item(0)
    };
    world.scheduler.offer(now, &"m", wide).unwrap();
    world.scheduler.finished(now + 25 * MS, batch.id, Outcome::default());
    // Two rows would be done in time, its thirty-two would not.
    let decision = world.scheduler.poll(now + 25 * MS, 0, |_| true, |_| false);
    assert!(decision.batch.is_none());
    assert_eq!(decision.gone[0].1, Gone::TooLate);
}

#[test]
fn a_hurry_puts_nobody_before_another_class_and_ends_with_its_caller() {
    let bulk = Caller {
        class: ServiceClass::Batch,
        ..caller("bulk", "m", 0)
    };
    let patient = rules(DynamicBatching {
        max_queue_delay_microseconds: 1_000,
        right_size: Some(false),
        ..DynamicBatching::default()
    });
    for (hurries, gone) in [(1, false), (0, true)] {
        let mut world = World::new(&[caller("a", "m", 0), bulk], &[("m", 0)]);
        world.scheduler.add_model("m", patient.clone());
        let now = world.now;
        for _ in 0..5 {
            let item = world.item(0);
            world.scheduler.offer(now, &"m", item).unwrap();
        }
        let hurried = Item {
            payload: 100,
            deadline: now + 14 * MS,
            ..world.item(hurries)
        };
        world.scheduler.offer(now, &"m", hurried).unwrap();
        let at = now + 5 * MS;
        let batch = world
            .scheduler
            .poll(at, 0, |_| true, |payload| gone && *payload == 100)
            .batch
            .unwrap();
        assert!(
            batch.items.iter().filter(|item| item.payload == 0).count() == 5,
            "{hurries} {gone}"
        );
    }
}

#[test]
fn drops_that_no_prediction_let_in_make_admission_no_more_careful() {
    let admitted = |spoilt: bool| {
        let mut world = World::new(&[caller("a", "m", 0), caller("b", "m", 0)], &[("m", 0)]);
        let now = world.now;
        let first = world.item(0);
        world.scheduler.offer(now, &"m", first).unwrap();
        let batch = world.scheduler.poll(now, 0, |_| true, |_| false).batch.unwrap();
        if spoilt {
            for _ in 0..100 {
                let unknown = Item {
                    shape: ShapeKey::of([[1, 77].as_slice()].into_iter()),
                    deadline: now,
                    ..world.item(1)
                };
                world.scheduler.offer(now, &"m", unknown).unwrap();
            }
            assert_eq!(world.scheduler.poll(now, 0, |_| true, |_| false).gone.len(), 100);
        }
        let mut admitted = 0;
        for _ in 0..400 {
            let item = Item {
                deadline: now + 200 * MS,
                ..world.item(0)
            };
            admitted += u32::from(world.scheduler.offer(now, &"m", item).is_ok());
        }
        world.scheduler.finished(now, batch.id, Outcome::default());
        admitted
    };
    assert_eq!(admitted(true), admitted(false));
}

#[test]
fn admission_counts_the_threads_that_have_the_model() {
    let admitted = |slots: usize| {
        let mut scheduler: Scheduler<&'static str, usize> = Scheduler::new(slots);
        scheduler.add_model("m", rules(DynamicBatching::default()));
        scheduler.seed(&"m", &ShapeKey::default(), &sweep());
        let world = World::new(&[caller("a", "m", 0)], &[]);
        let now = world.now;
        scheduler.offer(now, &"m", world.item(0)).unwrap();
        // Every thread has been asked; the first has the model and runs it.
        for slot in (0..slots).rev() {
            scheduler.poll(now, slot, |_| slot == 0, |_| false);
        }
        let offers = (0..400).map(|_| Item {
            deadline: now + 200 * MS,
            ..world.item(0)
        });
        offers.filter_map(|item| scheduler.offer(now, &"m", item).ok()).count()
    };
    assert_eq!(admitted(8), admitted(1));
}

#[test]
fn a_file_of_latencies_out_of_this_world_is_not_believed() {
    let text = r#"{"points":[{"rows":1,"mean":1e300,"deviation":1.0,"tail":1e300,"seen":1},
                             {"rows":2,"mean":-5.0,"deviation":1.0,"tail":1.0,"seen":1}]}"#;
    let latency: Latency = serde_json::from_str(text).unwrap();
    let mut world = World::new(&[caller("a", "m", 3)], &[]);
    world.scheduler.add_model("m", rules(DynamicBatching::default()));
    world.scheduler.restore(&"m", &ShapeKey::default(), latency);
    world.serve_for(MS);
    assert!(world.had["a"] > 0.0);
}
