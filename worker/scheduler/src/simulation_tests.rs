//! The scheduler in simulated time: one device that takes 5 ms and half a millisecond a row, at most 32 rows, and an objective
//! of 100 ms. Peak is 1,524 requests a second.

use std::time::{Duration, Instant};

use mesh_types::{DynamicBatching, ModelConfig, ServiceClass, Standing, TenantId, TenantShare};

use crate::{BatchId, BatchRules, Item, Outcome, RefusedFor, Scheduler, ShapeKey};

const OBJECTIVE: Duration = Duration::from_millis(100);
const MOST: u32 = 32;
const SECONDS: u64 = 60;
const PEAK: f64 = 1523.8;

fn takes(rows: u32) -> Duration {
    Duration::from_millis(5) + Duration::from_micros(500) * rows
}

/// A caller of the device.
#[derive(Clone, Copy)]
struct Caller {
    per_second: f64,
    /// On for a second at this many times the rate, then off until the mean is right.
    burst: f64,
    weight: u32,
    class: ServiceClass,
}

fn caller(per_second: f64) -> Caller {
    Caller {
        per_second,
        burst: 1.0,
        weight: 1,
        class: ServiceClass::Interactive,
    }
}

#[derive(Debug, Default, Clone)]
struct Told {
    asked: u32,
    in_time: u32,
    late: u32,
    refused: u32,
    dropped: u32,
    latencies: Vec<Duration>,
    charged: Duration,
}

impl Told {
    fn share_in_time(&self) -> f64 {
        f64::from(self.in_time) / f64::from(self.asked)
    }

    fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1e3
    }
}

struct Outcomes {
    told: Vec<Told>,
    busy: Duration,
    batches: u32,
}

impl Outcomes {
    fn goodput(&self) -> f64 {
        self.told.iter().map(|told| f64::from(told.in_time)).sum::<f64>() / SECONDS as f64
    }

    fn mean_batch(&self) -> f64 {
        let rows: usize = self.told.iter().map(|told| told.latencies.len()).sum();
        rows as f64 / f64::from(self.batches)
    }
}

struct Random(u64);

impl Random {
    /// From 0 to below 1.
    fn next(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64) / ((1_u64 << 53) as f64)
    }
}

/// Poisson arrivals of all callers, in order.
fn arrivals(callers: &[Caller], start: Instant) -> Vec<(Instant, usize)> {
    let mut all = Vec::new();
    for (index, caller) in callers.iter().enumerate() {
        let (mut random, mut at) = (Random(index as u64 + 1), 0.0_f64);
        while at < SECONDS as f64 {
            at += -(1.0 - random.next()).ln() / (caller.per_second * caller.burst);
            let phase = at % caller.burst;
            if caller.burst > 1.0 && phase > 1.0 {
                at += caller.burst - phase;
            }
            all.push((start + Duration::from_secs_f64(at), index));
        }
    }
    all.sort_unstable();
    all
}

fn rules(batching: DynamicBatching) -> BatchRules {
    let config = ModelConfig {
        max_batch_size: MOST,
        dynamic_batching: Some(batching),
        ..ModelConfig::default()
    };
    BatchRules::of(&config, 4_096)
}

fn patient() -> DynamicBatching {
    DynamicBatching {
        max_queue_delay_microseconds: 5_000,
        ..DynamicBatching::default()
    }
}

fn tenant(index: usize) -> TenantId {
    TenantId::parse(&format!("tenant-{index}")).unwrap()
}

/// A device, its scheduler and its callers.
struct World<'a> {
    callers: &'a [Caller],
    scheduler: Scheduler<(), usize>,
    told: Vec<Told>,
}

impl World<'_> {
    fn arrive(&mut self, at: Instant, index: usize) {
        let caller = self.callers[index];
        let share = TenantShare {
            weight: caller.weight,
            isolated: false,
        };
        let item = Item {
            payload: index,
            tenant: tenant(index),
            standing: Standing {
                share,
                class: caller.class,
                ..Standing::default()
            },
            rows: 1,
            shape: ShapeKey::default(),
            arrived: at,
            deadline: at + OBJECTIVE,
        };
        self.told[index].asked += 1;
        if let Err(refused) = self.scheduler.offer(at, &(), item) {
            assert!(matches!(refused.reason, RefusedFor::TooLate { .. } | RefusedFor::Full));
            self.told[index].refused += 1;
        }
    }

    fn answer(&mut self, item: &Item<usize>, end: Instant) {
        let told = &mut self.told[item.payload];
        told.latencies.push(end - item.arrived);
        if end <= item.deadline {
            told.in_time += 1;
        } else {
            told.late += 1;
        }
    }

    fn settle(&mut self, end: Instant, id: BatchId, busy: Duration) {
        let outcome = Outcome {
            busy,
            telling: true,
            too_large: None,
        };
        for charge in self.scheduler.finished(end, id, outcome) {
            let index = (0..self.callers.len())
                .find(|index| tenant(*index) == charge.tenant)
                .unwrap();
            self.told[index].charged += charge.device_time;
        }
    }
}

fn simulate(callers: &[Caller], batching: DynamicBatching) -> Outcomes {
    let start = Instant::now();
    let mut scheduler = Scheduler::new(1);
    scheduler.add_model((), rules(batching));
    let sweep: Vec<_> = [1, 2, 4, 8, 16, 32].map(|rows| (rows, takes(rows))).into();
    scheduler.seed(&(), &ShapeKey::default(), &sweep);
    let mut world = World {
        callers,
        scheduler,
        told: vec![Told::default(); callers.len()],
    };
    let mut coming = arrivals(callers, start).into_iter().peekable();
    let (mut now, mut busy, mut batches) = (start, Duration::ZERO, 0);
    loop {
        while let Some((at, index)) = coming.next_if(|(at, _)| *at <= now) {
            world.arrive(at, index);
        }
        let decision = world.scheduler.poll(now, 0, |()| true, |_| false);
        for (item, _) in decision.gone {
            world.told[item.payload].dropped += 1;
        }
        let Some(batch) = decision.batch else {
            let next = coming.peek().map(|(at, _)| *at);
            let Some(wake) = next.into_iter().chain(decision.wake_at).min() else {
                break;
            };
            assert!(wake > now, "time stands still");
            now = wake;
            continue;
        };
        assert!(batch.rows <= MOST);
        let end = now + takes(batch.rows);
        busy += takes(batch.rows);
        batches += 1;
        for item in &batch.items {
            world.answer(item, end);
        }
        // What comes meanwhile is offered when it comes.
        while let Some((at, index)) = coming.next_if(|(at, _)| *at < end) {
            world.arrive(at, index);
        }
        now = end;
        world.settle(end, batch.id, takes(batch.rows));
    }
    Outcomes {
        told: world.told,
        busy,
        batches,
    }
}

fn show(name: &str, outcomes: &Outcomes) {
    eprintln!(
        "{name}: goodput {:.1}/s, busy {:.2}, mean batch {:.1}",
        outcomes.goodput(),
        outcomes.busy.as_secs_f64() / SECONDS as f64,
        outcomes.mean_batch()
    );
    for told in &outcomes.told {
        eprintln!(
            "  in time {:.3}, late {}, refused {}, dropped {}, p50 {:.1} ms, p99 {:.1} ms",
            told.share_in_time(),
            told.late,
            told.refused,
            told.dropped,
            told.percentile(50),
            told.percentile(99)
        );
    }
}

#[test]
fn light_load_is_served_in_time_and_at_once() {
    let outcomes = simulate(&[caller(150.0); 3], patient());
    show("light", &outcomes);
    for told in &outcomes.told {
        assert_eq!(told.in_time, told.asked);
        assert!(told.percentile(50) < 12.0 && told.percentile(99) < 18.0);
    }
}

#[test]
fn at_twice_the_load_small_tenants_are_served_in_time_and_nothing_is_wasted() {
    let outcomes = simulate(&[caller(100.0), caller(100.0), caller(3_000.0)], patient());
    show("noisy neighbour", &outcomes);
    for polite in &outcomes.told[..2] {
        assert_eq!(polite.in_time, polite.asked);
        assert!(polite.percentile(50) < 35.0 && polite.percentile(99) < 45.0);
    }
    assert!(outcomes.goodput() > PEAK * 0.99, "{}", outcomes.goodput());
    let flooding = &outcomes.told[2];
    assert!((0.43..0.46).contains(&flooding.share_in_time()));
    // Refusals come on arrival, not after a wait.
    assert!(flooding.dropped * 20 < flooding.refused);
    assert_eq!(outcomes.told.iter().map(|told| told.late).sum::<u32>(), 0);
}

#[test]
fn a_burst_does_not_reach_its_neighbours() {
    let bursts = Caller {
        burst: 5.0,
        ..caller(600.0)
    };
    let outcomes = simulate(&[caller(100.0), caller(100.0), bursts], patient());
    show("bursts", &outcomes);
    for polite in &outcomes.told[..2] {
        assert!(polite.share_in_time() > 0.99);
    }
    assert!(outcomes.told[2].share_in_time() > 0.45);
}

#[test]
fn weights_of_two_to_one_are_served_two_to_one() {
    let heavy = Caller {
        weight: 2,
        ..caller(1_500.0)
    };
    let outcomes = simulate(&[heavy, caller(1_500.0)], patient());
    show("weights", &outcomes);
    let [heavy, light] = &outcomes.told[..] else {
        unreachable!()
    };
    let ratio = f64::from(heavy.in_time) / f64::from(light.in_time);
    assert!((1.98..=2.02).contains(&ratio), "{ratio}");
    assert!(outcomes.goodput() > PEAK * 0.99);
}

#[test]
fn deferral_saves_the_device_for_some_of_the_slack() {
    let eager = simulate(&[caller(150.0); 3], patient());
    let deferring = DynamicBatching {
        defer_percent: 50,
        ..patient()
    };
    let deferred = simulate(&[caller(150.0); 3], deferring);
    show("deferred", &deferred);
    assert!(deferred.busy < eager.busy / 2);
    assert!(deferred.mean_batch() > 15.0);
    for told in &deferred.told {
        assert_eq!(told.in_time, told.asked);
    }
}

#[test]
fn the_batch_class_gets_what_is_left_and_never_less_than_a_tenth() {
    let background = Caller {
        class: ServiceClass::Batch,
        ..caller(3_000.0)
    };
    // Alone with a light interactive load it has almost everything.
    let outcomes = simulate(&[caller(100.0), background], patient());
    show("batch class beside a light load", &outcomes);
    assert_eq!(outcomes.told[0].in_time, outcomes.told[0].asked);
    assert!(outcomes.goodput() > PEAK * 0.98);
    let outcomes = simulate(&[caller(3_000.0), background], patient());
    show("batch class beside an overload", &outcomes);
    let busy = outcomes.busy.as_secs_f64();
    let part = outcomes.told[1].charged.as_secs_f64() / busy;
    assert!((0.08..0.13).contains(&part), "{part}");
}

#[test]
fn charges_add_up_to_the_time_that_the_device_was_busy() {
    let outcomes = simulate(&[caller(100.0), caller(700.0), caller(3_000.0)], patient());
    assert_eq!(
        outcomes.told.iter().map(|told| told.charged).sum::<Duration>(),
        outcomes.busy
    );
}
