//! Facts about what is batched, refused and dropped, in simulated time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_types::{
    DynamicBatching, ModelConfig, ModelParameters, QueuePolicy, ServiceClass, Standing, TenantId, TenantShare,
    TimeoutAction, WhenIdle,
};

use super::*;

const MS: Duration = Duration::from_millis(1);
const US: Duration = Duration::from_micros(1);

fn shape(extent: u64) -> ShapeKey {
    ShapeKey::of([[1, extent].as_slice()].into_iter())
}

fn rules(batching: DynamicBatching) -> BatchRules {
    let config = ModelConfig {
        max_batch_size: 8,
        dynamic_batching: Some(batching),
        ..ModelConfig::default()
    };
    BatchRules::of(&config, 100)
}

fn plain() -> BatchRules {
    rules(DynamicBatching::default())
}

fn patient(milliseconds: u64) -> BatchRules {
    rules(DynamicBatching {
        max_queue_delay_microseconds: milliseconds * 1_000,
        ..DynamicBatching::default()
    })
}

fn item(payload: u32, now: Instant) -> Item<u32> {
    Item {
        payload,
        tenant: TenantId::parse("t").unwrap(),
        standing: Standing::default(),
        rows: 1,
        shape: shape(0),
        arrived: now,
        deadline: now + Duration::from_secs(1),
    }
}

struct Bench {
    start: Instant,
    scheduler: Scheduler<&'static str, u32>,
    next: u32,
}

impl Bench {
    fn new(rules: BatchRules) -> Self {
        let mut scheduler = Scheduler::new(1);
        scheduler.add_model("m", rules);
        Self {
            start: Instant::now(),
            scheduler,
            next: 0,
        }
    }

    fn offer_with(&mut self, at: Duration, change: impl FnOnce(&mut Item<u32>)) -> Result<u32, RefusedFor> {
        let now = self.start + at;
        let mut item = item(self.next, now);
        change(&mut item);
        self.next += 1;
        let taken = self.scheduler.offer(now, &"m", item);
        taken.map(|()| self.next - 1).map_err(|refused| refused.reason)
    }

    fn offer(&mut self, at: Duration, rows: u32) {
        self.offer_with(at, |item| item.rows = rows).unwrap();
    }

    fn of(&mut self, tenant: &str) -> u32 {
        self.offer_with(Duration::ZERO, |item| item.tenant = tenant.parse().unwrap())
            .unwrap()
    }

    fn poll(&mut self, at: Duration) -> Decision<&'static str, u32> {
        self.scheduler.poll(self.start + at, 0, |_| true, |_| false)
    }

    fn batch(&mut self, at: Duration) -> Option<Vec<u32>> {
        let batch = self.poll(at).batch?;
        self.scheduler.finished(self.start + at, batch.id, Outcome::default());
        Some(batch.items.iter().map(|item| item.payload).collect())
    }

    /// One batch runs and ends, so that what is known of the latency is fresh.
    fn run_one(&mut self, at: Duration) {
        self.offer(at, 1);
        let batch = self.poll(at).batch.unwrap();
        self.scheduler.finished(self.start + at, batch.id, Outcome::default());
    }

    fn seed(&mut self, per_row: Duration) {
        let sweep: Vec<_> = [1, 2, 4, 8].map(|rows| (rows, MS + per_row * rows)).into();
        self.scheduler.seed(&"m", &shape(0), &sweep);
    }
}

#[test]
fn without_delay_what_is_there_is_sent_at_once() {
    let mut bench = Bench::new(plain());
    bench.offer(Duration::ZERO, 1);
    bench.offer(Duration::ZERO, 2);
    assert_eq!(bench.batch(Duration::ZERO), Some(vec![0, 1]));
    assert_eq!(bench.batch(Duration::ZERO), None);
}

#[test]
fn with_a_delay_the_oldest_waits_that_long_and_no_longer() {
    let mut bench = Bench::new(patient(5));
    bench.offer(Duration::ZERO, 1);
    bench.offer(3 * MS, 1);
    let decision = bench.poll(4 * MS);
    assert!(decision.batch.is_none());
    assert_eq!(decision.wake_at, Some(bench.start + 5 * MS));
    assert_eq!(bench.batch(5 * MS), Some(vec![0, 1]));
}

#[test]
fn a_full_batch_does_not_wait() {
    let mut bench = Bench::new(patient(5));
    for _ in 0..9 {
        bench.offer(Duration::ZERO, 1);
    }
    assert_eq!(bench.batch(Duration::ZERO).unwrap().len(), 8);
    assert_eq!(bench.batch(Duration::ZERO), None);
}

#[test]
fn a_preferred_size_is_sent_at_once_and_the_rest_waits() {
    let mut bench = Bench::new(rules(DynamicBatching {
        preferred_batch_size: vec![2, 8],
        max_queue_delay_microseconds: 5_000,
        ..DynamicBatching::default()
    }));
    for _ in 0..3 {
        bench.offer(Duration::ZERO, 1);
    }
    assert_eq!(bench.batch(MS), Some(vec![0, 1]));
    assert_eq!(bench.batch(MS), None);
    assert_eq!(bench.batch(5 * MS), Some(vec![2]));
}

#[test]
fn where_no_preferred_size_can_be_reached_requests_wait_and_lose_nothing() {
    let mut bench = Bench::new(rules(DynamicBatching {
        preferred_batch_size: vec![4],
        max_queue_delay_microseconds: 5_000,
        ..DynamicBatching::default()
    }));
    bench.offer(Duration::ZERO, 3);
    bench.offer(Duration::ZERO, 3);
    // Six rows are more than the preferred four, but three and three make no four.
    assert_eq!(bench.batch(5 * MS), Some(vec![0]));
    assert_eq!(bench.batch(5 * MS), Some(vec![1]));
    let mut bench = Bench::new(rules(DynamicBatching {
        preferred_batch_size: vec![4, 8],
        max_queue_delay_microseconds: 5_000,
        ..DynamicBatching::default()
    }));
    bench.offer(Duration::ZERO, 3);
    bench.offer(Duration::ZERO, 2);
    let decision = bench.poll(MS);
    assert!(decision.batch.is_none());
    assert_eq!(decision.wake_at, Some(bench.start + 5 * MS));
    assert_eq!(bench.scheduler.waiting(&"m"), 2);
    assert_eq!(bench.batch(5 * MS), Some(vec![0, 1]));
}

#[test]
fn an_idle_device_takes_what_is_there_where_the_model_says_so() {
    let eager = || {
        rules(DynamicBatching {
            max_queue_delay_microseconds: 5_000,
            when_idle: WhenIdle::Send,
            ..DynamicBatching::default()
        })
    };
    let mut bench = Bench::new(eager());
    bench.offer(Duration::ZERO, 1);
    let batch = bench.poll(Duration::ZERO).batch.unwrap();
    bench.offer(Duration::ZERO, 1);
    // The device is busy now, so this one waits for company.
    assert!(bench.poll(MS).batch.is_none());
    bench.scheduler.finished(bench.start + MS, batch.id, Outcome::default());
    assert_eq!(bench.batch(MS), Some(vec![1]));
}

#[test]
fn a_batch_starts_before_its_tightest_deadline_would_be_missed() {
    let mut bench = Bench::new(patient(500));
    bench.seed(MS);
    bench
        .offer_with(Duration::ZERO, |item| item.deadline = item.arrived + 20 * MS)
        .unwrap();
    let wake = bench.poll(Duration::ZERO).wake_at.unwrap();
    let waited = wake - bench.start;
    assert!(waited > 10 * MS && waited < 18 * MS, "{waited:?}");
    assert_eq!(bench.batch(waited), Some(vec![0]));
}

#[test]
fn a_request_that_does_not_fit_closes_the_batch() {
    let mut bench = Bench::new(patient(5));
    for rows in [5, 2, 4] {
        bench.offer(Duration::ZERO, rows);
    }
    assert_eq!(bench.batch(Duration::ZERO), Some(vec![0, 1]));
}

#[test]
fn shapes_are_not_mixed() {
    let mut bench = Bench::new(plain());
    for (at, extent) in [(0, 1), (1, 2), (2, 1)] {
        bench.offer_with(at * MS, |item| item.shape = shape(extent)).unwrap();
    }
    let mut batches = vec![bench.batch(3 * MS).unwrap(), bench.batch(3 * MS).unwrap()];
    batches.sort();
    assert_eq!(batches, [vec![0, 2], vec![1]]);
}

#[test]
fn shapes_with_the_same_extents_in_other_places_differ() {
    let key = |inputs: &[&[u64]]| ShapeKey::of(inputs.iter().copied());
    assert_eq!(key(&[&[1, 2], &[1, 3]]), key(&[&[9, 2], &[9, 3]]));
    assert_ne!(key(&[&[1, 2], &[1, 3]]), key(&[&[1, 2, 3], &[1]]));
    assert_ne!(key(&[&[1, 2]]), key(&[&[1, 2, 1]]));
}

fn given(text: &str) -> Option<Arc<ModelParameters>> {
    let texts = BTreeMap::from([("p".to_owned(), text.to_owned())]);
    Some(Arc::new(texts.into()))
}

#[test]
fn requests_with_other_parameters_do_not_share_a_batch_and_equal_ones_do() {
    let mut bench = Bench::new(plain());
    for (tenant, text) in [
        ("a", Some("x")),
        ("b", Some("y")),
        ("b", Some("x")),
        ("a", None),
        ("a", Some("y")),
    ] {
        let offered = bench.offer_with(Duration::ZERO, |item| {
            item.tenant = tenant.parse().unwrap();
            item.shape = shape(0).with(text.and_then(given));
        });
        offered.unwrap();
    }
    let mut batches: Vec<Vec<u32>> = std::iter::from_fn(|| bench.batch(Duration::ZERO)).collect();
    batches.iter_mut().for_each(|batch| batch.sort_unstable());
    batches.sort();
    assert_eq!(batches, [vec![0, 2], vec![1, 4], vec![3]]);
}

#[test]
fn what_is_learnt_of_a_shape_holds_whatever_parameters_come_with_it() {
    let mut bench = Bench::new(plain());
    bench.seed(10 * MS);
    let offered = bench.offer_with(Duration::ZERO, |item| item.shape = shape(0).with(given("x")));
    offered.unwrap();
    assert_eq!(bench.poll(Duration::ZERO).batch.unwrap().predicted, Some(11 * MS));
    // Many parameters push nothing out of what is remembered.
    for text in 0..200 {
        let shape = shape(0).with(given(&text.to_string()));
        bench.scheduler.seed(&"m", &shape, &[(1, MS)]);
    }
    assert_eq!(bench.scheduler.learnt().count(), 1);
    let written = serde_json::to_string(&shape(0).with(given("x"))).unwrap();
    assert_eq!(written, serde_json::to_string(&shape(0)).unwrap());
}

#[test]
fn who_came_before_anything_was_known_counts_with_parameters_too() {
    let mut bench = Bench::new(plain());
    for number in 0..16 {
        let given = given(if number < 8 { "x" } else { "y" });
        let offered = bench.offer_with(Duration::ZERO, |item| item.shape = shape(0).with(given));
        offered.unwrap();
    }
    bench.seed(10 * MS);
    let hasty = bench.offer_with(Duration::ZERO, |item| item.deadline = item.arrived + 50 * MS);
    assert!(matches!(hasty, Err(RefusedFor::TooLate { .. })));
    assert_eq!(bench.scheduler.remove_model(&"m").len(), 16);
    assert!(bench.scheduler.tenants.is_quiet());
}

#[test]
fn requests_that_run_alone_take_one_place_whatever_their_parameters() {
    let alone = BatchRules {
        shared: false,
        max_queue: 10 * MAX_PLACES,
        ..plain()
    };
    let mut bench = Bench::new(alone);
    for text in 0..=MAX_PLACES {
        let given = given(&text.to_string());
        let offered = bench.offer_with(Duration::ZERO, |item| item.shape = shape(0).with(given));
        offered.unwrap();
    }
    assert_eq!(bench.batch(Duration::ZERO), Some(vec![0]));
}

#[test]
fn inputs_left_out_and_values_of_whole_batches_tell_shapes_apart() {
    let key = |parts: &[ShapePart<'_>]| ShapeKey::of_parts(parts.iter().copied());
    let rows = ShapePart::Rows(&[3, 2]);
    assert_eq!(
        key(&[rows]),
        ShapeKey::of([[9, 2].as_slice()].into_iter()),
        "the same without either"
    );
    assert_ne!(key(&[rows, ShapePart::Absent]), key(&[rows, rows]));
    assert_ne!(key(&[ShapePart::Absent, rows]), key(&[rows, ShapePart::Absent]));
    let value = |bytes: &'static [u8]| key(&[rows, ShapePart::Value(&[1], bytes)]);
    assert_eq!(value(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), value(&[1, 2, 3, 4, 5, 6, 7, 8, 9]));
    assert_ne!(value(&[1, 2, 3, 4, 5, 6, 7, 8, 9]), value(&[1, 2, 3, 4, 5, 6, 7, 8, 8]));
    assert_ne!(value(&[1]), value(&[1, 0]));
    assert_ne!(value(&[0; 8]), value(&[]));
}

#[test]
fn an_isolated_tenant_shares_a_batch_with_nobody() {
    let mut bench = Bench::new(plain());
    for (tenant, isolated) in [("a", false), ("b", true), ("c", false), ("b", true)] {
        let change = |item: &mut Item<u32>| {
            item.tenant = tenant.parse().unwrap();
            item.standing.share.isolated = isolated;
        };
        bench.offer_with(Duration::ZERO, change).unwrap();
    }
    let mut batches = vec![bench.batch(MS).unwrap(), bench.batch(MS).unwrap()];
    batches.sort();
    assert_eq!(batches, [vec![0, 2], vec![1, 3]]);
}

#[test]
fn a_model_without_dynamic_batching_runs_each_request_alone() {
    let config = ModelConfig {
        max_batch_size: 8,
        ..ModelConfig::default()
    };
    let mut bench = Bench::new(BatchRules::of(&config, 10));
    bench.offer(Duration::ZERO, 3);
    bench.offer(Duration::ZERO, 1);
    assert_eq!(bench.batch(Duration::ZERO), Some(vec![0]));
    assert_eq!(bench.batch(Duration::ZERO), Some(vec![1]));
}

#[test]
fn a_tenants_queue_takes_its_bound_and_refuses_one_more_and_another_tenants_is_its_own() {
    let mut bench = Bench::new(BatchRules {
        max_queue: 2,
        ..patient(5)
    });
    bench.offer(Duration::ZERO, 1);
    bench.offer_with(Duration::ZERO, |item| item.shape = shape(7)).unwrap();
    assert_eq!(bench.offer_with(Duration::ZERO, |_| {}), Err(RefusedFor::Full));
    let other = |item: &mut Item<u32>| item.tenant = "other".parse().unwrap();
    assert!(bench.offer_with(Duration::ZERO, other).is_ok());
    let refused = bench
        .scheduler
        .offer(bench.start, &"none", item(9, bench.start))
        .unwrap_err();
    assert_eq!((refused.payload, refused.reason), (9, RefusedFor::UnknownModel));
}

#[test]
fn a_tenant_waits_with_so_many_shapes_and_no_more_and_others_with_theirs() {
    let mut bench = Bench::new(BatchRules {
        max_queue: 10 * MAX_PLACES,
        ..patient(5)
    });
    let mut wait = |tenant: &str, extent: usize| {
        bench.offer_with(Duration::ZERO, |item| {
            item.tenant = tenant.parse().unwrap();
            item.shape = shape(extent as u64);
        })
    };
    for extent in 0..MAX_PLACES {
        assert!(wait("a", extent).is_ok());
    }
    assert_eq!(wait("a", MAX_PLACES), Err(RefusedFor::Full));
    assert!(wait("a", 0).is_ok(), "a shape that it waits with already");
    assert!(wait("b", MAX_PLACES).is_ok());
}

#[test]
fn a_level_has_a_bound_of_its_own() {
    let one = QueuePolicy {
        max_queue_size: 1,
        ..QueuePolicy::default()
    };
    let mut bench = Bench::new(rules(DynamicBatching {
        max_queue_delay_microseconds: 5_000,
        priority_levels: 2,
        default_priority_level: 1,
        priority_queue_policy: [(2, one)].into(),
        ..DynamicBatching::default()
    }));
    let mut at = |priority: u32| {
        bench
            .offer_with(Duration::ZERO, |item| item.standing.priority = priority)
            .is_ok()
    };
    assert_eq!([at(2), at(2), at(1), at(1)], [true, false, true, true]);
}

#[test]
fn a_priority_orders_a_tenants_own_requests_and_does_not_put_it_before_another() {
    let mut bench = Bench::new(rules(DynamicBatching {
        priority_levels: 2,
        default_priority_level: 2,
        preferred_batch_size: vec![2],
        ..DynamicBatching::default()
    }));
    for (tenant, priority) in [("a", 2), ("a", 1), ("a", 1), ("b", 2)] {
        let change = |item: &mut Item<u32>| {
            item.tenant = tenant.parse().unwrap();
            item.standing.priority = priority;
        };
        bench.offer_with(Duration::ZERO, change).unwrap();
    }
    bench.seed(MS);
    let first = bench.batch(Duration::ZERO).unwrap();
    assert!(first.contains(&1) && first.contains(&3), "{first:?}");
    assert_eq!(bench.batch(MS), Some(vec![2, 0]));
}

#[test]
fn the_expired_and_the_cancelled_leave_without_running() {
    let mut bench = Bench::new(plain());
    for at in [0, 0, 500] {
        bench.offer(Duration::from_millis(at), 1);
    }
    let now = bench.start + Duration::from_secs(1);
    let decision = bench.scheduler.poll(now, 0, |_| true, |payload| *payload == 2);
    assert!(decision.batch.is_none());
    let gone: Vec<_> = decision
        .gone
        .iter()
        .map(|(item, reason)| (item.payload, *reason))
        .collect();
    assert_eq!(gone, [(0, Gone::Expired), (1, Gone::Expired), (2, Gone::Cancelled)]);
    assert_eq!(bench.scheduler.waiting(&"m"), 0);
    assert!(bench.scheduler.waiting.is_bare());
}

#[test]
fn whoever_leaves_while_the_device_is_busy_is_swept_out() {
    let mut bench = Bench::new(plain());
    bench.seed(10 * MS);
    bench.offer(Duration::ZERO, 1);
    assert!(bench.poll(Duration::ZERO).batch.is_some());
    bench.offer(MS, 1);
    bench.offer(MS, 1);
    assert!(bench.poll(MS).batch.is_none());
    let gone = bench.scheduler.sweep(bench.start + MS, |payload| *payload == 1);
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].0.payload, gone[0].1), (1, Gone::Cancelled));
    assert_eq!(bench.scheduler.waiting(&"m"), 1);
}

#[test]
fn a_second_batch_is_handed_over_just_before_the_first_is_done() {
    let mut bench = Bench::new(plain());
    bench.seed(10 * MS);
    bench.offer(Duration::ZERO, 1);
    let predicted = bench.poll(Duration::ZERO).batch.unwrap().predicted.unwrap();
    assert_eq!(predicted, 11 * MS);
    bench.offer(MS, 1);
    let decision = bench.poll(MS);
    assert!(decision.batch.is_none());
    assert_eq!(decision.wake_at, Some(bench.start + predicted - predicted / 4));
    assert_eq!(bench.batch(predicted - predicted / 4), Some(vec![1]));
}

#[test]
fn nobody_is_handed_over_behind_a_batch_that_is_long_overdue() {
    let mut bench = Bench::new(plain());
    bench.seed(10 * MS);
    bench.offer(Duration::ZERO, 1);
    let batch = bench.poll(Duration::ZERO).batch.unwrap();
    // Somewhat late is no reason.
    bench.offer(50 * MS, 1);
    assert_eq!(bench.poll(50 * MS).batch.unwrap().items.len(), 1);
    let mut bench = Bench::new(plain());
    bench.seed(10 * MS);
    bench.offer(Duration::ZERO, 1);
    let hanging = bench.poll(Duration::ZERO).batch.unwrap();
    bench.offer(200 * MS, 1);
    assert!(bench.poll(200 * MS).batch.is_none());
    bench
        .scheduler
        .finished(bench.start + 300 * MS, hanging.id, Outcome::default());
    assert_eq!(bench.batch(300 * MS), Some(vec![1]));
    drop(batch);
}

#[test]
fn a_timeout_refuses_or_delays_as_the_level_says() {
    let batching = |action: TimeoutAction| {
        rules(DynamicBatching {
            max_queue_delay_microseconds: 50_000,
            default_queue_policy: Some(QueuePolicy {
                timeout_action: action,
                default_timeout_microseconds: 10_000,
                allow_timeout_override: true,
                max_queue_size: 0,
            }),
            ..DynamicBatching::default()
        })
    };
    let mut bench = Bench::new(batching(TimeoutAction::Reject));
    bench.offer(Duration::ZERO, 1);
    bench
        .offer_with(Duration::ZERO, |item| item.standing.queue_timeout = Some(3 * MS))
        .unwrap();
    let decision = bench.poll(Duration::ZERO);
    assert_eq!(decision.wake_at, Some(bench.start + 3 * MS));
    let gone = |decision: Decision<_, u32>| -> Vec<_> {
        decision
            .gone
            .iter()
            .map(|(item, reason)| (item.payload, *reason))
            .collect()
    };
    assert_eq!(gone(bench.poll(3 * MS)), [(1, Gone::TimedOut)]);
    assert_eq!(gone(bench.poll(10 * MS)), [(0, Gone::TimedOut)]);

    let mut bench = Bench::new(batching(TimeoutAction::Delay));
    bench.offer(Duration::ZERO, 1);
    assert!(bench.poll(20 * MS).gone.is_empty());
    bench.offer(45 * MS, 1);
    assert_eq!(bench.batch(50 * MS), Some(vec![1, 0]));
}

#[test]
fn a_request_that_cannot_make_it_is_refused_on_arrival_with_the_time_to_come_back() {
    let mut bench = Bench::new(plain());
    bench.seed(10 * MS);
    bench.run_one(Duration::ZERO);
    // Nothing else is here: a batch of one takes 11 ms, at the 99th percentile somewhat more.
    let within = |slack: Duration| move |item: &mut Item<u32>| item.deadline = item.arrived + slack;
    let refused = bench.offer_with(Duration::ZERO, within(8 * MS)).unwrap_err();
    let RefusedFor::TooLate { retry_after } = refused else {
        panic!("{refused:?}")
    };
    assert!(retry_after >= 3 * MS && retry_after < 10 * MS, "{retry_after:?}");
    assert!(bench.offer_with(Duration::ZERO, within(20 * MS)).is_ok());
    assert!(bench.poll(Duration::ZERO).batch.is_some());
    // The device is busy for 11 ms now.
    assert!(bench.offer_with(Duration::ZERO, within(20 * MS)).is_err());
    assert!(bench.offer_with(Duration::ZERO, within(40 * MS)).is_ok());
}

#[test]
fn a_prediction_that_refuses_everything_is_put_to_the_test() {
    let mut bench = Bench::new(plain());
    let within = |slack: Duration| move |item: &mut Item<u32>| item.deadline = item.arrived + slack;
    // Warm-up has measured ten seconds where one millisecond is right.
    bench.scheduler.seed(&"m", &shape(0), &[(1, Duration::from_secs(10))]);
    let mut served = 0;
    for second in 0..60 {
        let at = Duration::from_secs(second * 2);
        if bench.offer_with(at, within(Duration::from_secs(1))).is_ok() {
            let batch = bench.poll(at).batch.unwrap();
            let outcome = Outcome {
                busy: MS,
                telling: true,
                too_large: None,
            };
            bench.scheduler.finished(bench.start + at + MS, batch.id, outcome);
            served += 1;
        }
    }
    assert_eq!(served, 60);
    // By now it is known to be fast, also while the device is busy.
    let at = Duration::from_secs(120);
    assert!(bench.offer_with(at, within(Duration::from_secs(1))).is_ok());
    assert!(bench.poll(at).batch.is_some());
    assert!(bench.offer_with(at, within(Duration::from_secs(1))).is_ok());
}

#[test]
fn on_a_device_that_is_not_full_a_request_in_a_hurry_gets_a_smaller_batch() {
    let mut bench = Bench::new(BatchRules {
        right_size: false,
        ..patient(1)
    });
    bench.seed(10 * MS);
    bench.offer(Duration::ZERO, 1);
    let batch = bench.poll(MS).batch.unwrap();
    bench.scheduler.finished(bench.start + MS, batch.id, Outcome::default());
    for _ in 0..4 {
        bench
            .offer_with(Duration::ZERO, |item| {
                item.deadline = item.arrived + Duration::from_secs(10);
            })
            .unwrap();
    }
    let hurried = bench.scheduler.offer(
        bench.start,
        &"m",
        Item {
            deadline: bench.start + 200 * MS,
            ..item(100, bench.start)
        },
    );
    assert!(hurried.is_ok());
    // By now five rows would take too long for it, and two would not.
    let batch = bench.batch(165 * MS).unwrap();
    assert!(batch.contains(&100) && batch.len() < 5, "{batch:?}");
}

#[test]
fn running_out_of_memory_makes_batches_smaller() {
    let mut bench = Bench::new(plain());
    for _ in 0..16 {
        bench.offer(Duration::ZERO, 1);
    }
    let batch = bench.poll(Duration::ZERO).batch.unwrap();
    assert_eq!(batch.rows, 8);
    let outcome = Outcome {
        too_large: Some(TooLarge { rows: 8, fitted: 0 }),
        ..Outcome::default()
    };
    bench.scheduler.finished(bench.start, batch.id, outcome);
    assert_eq!(bench.poll(MS).batch.unwrap().rows, 4);
}

#[test]
fn a_model_that_gains_nothing_by_batching_gets_small_batches_once_it_is_saturated() {
    let sweep: Vec<_> = [1, 2, 4, 8].map(|rows| (rows, 10 * MS * rows)).into();
    let size = |right_size: bool| {
        let mut bench = Bench::new(rules(DynamicBatching {
            right_size: Some(right_size),
            ..DynamicBatching::default()
        }));
        bench.scheduler.seed(&"m", &shape(0), &sweep);
        for _ in 0..16 {
            bench.offer(Duration::ZERO, 1);
        }
        bench.poll(Duration::ZERO).batch.unwrap().rows
    };
    assert_eq!((size(true), size(false)), (1, 8));
}

#[test]
fn the_next_model_is_the_one_whose_tenant_has_had_least() {
    let mut bench = Bench::new(plain());
    bench.scheduler.add_model("other", plain());
    for model in ["m", "other"] {
        bench.scheduler.seed(&model, &shape(0), &[(1, 10 * MS), (8, 20 * MS)]);
    }
    // "greedy" has used the device for a while.
    for _ in 0..8 {
        bench.of("greedy");
    }
    let batch = bench.poll(Duration::ZERO).batch.unwrap();
    let busy = Outcome {
        busy: Duration::from_millis(500),
        ..Outcome::default()
    };
    bench.of("steady");
    bench.scheduler.finished(bench.start + 500 * MS, batch.id, busy);
    bench.of("greedy");
    let late = |tenant: &str, payload| Item {
        tenant: tenant.parse().unwrap(),
        ..item(payload, bench.start + 500 * MS)
    };
    let now = bench.start + 500 * MS;
    bench.scheduler.offer(now, &"other", late("fresh", 100)).unwrap();
    let first = bench.poll(500 * MS).batch.unwrap();
    let has_greedy = first.items.iter().any(|item| item.tenant.as_str() == "greedy");
    assert!(first.model == "other" || !has_greedy || first.items[0].tenant.as_str() == "steady");
}

#[test]
fn removing_a_model_gives_its_requests_back() {
    let mut bench = Bench::new(patient(5));
    bench.offer(Duration::ZERO, 1);
    assert_eq!(bench.scheduler.remove_model(&"m").len(), 1);
    assert_eq!(bench.offer_with(Duration::ZERO, |_| {}), Err(RefusedFor::UnknownModel));
    assert!(bench.scheduler.waiting.is_bare());
}

#[test]
fn what_was_learnt_survives_a_restart() {
    let mut bench = Bench::new(plain());
    bench.seed(10 * MS);
    let learnt: Vec<_> = bench
        .scheduler
        .learnt()
        .map(|(_, shape, latency)| (shape, latency.clone()))
        .collect();
    let mut again = Bench::new(plain());
    for (shape, latency) in learnt {
        again.scheduler.restore(&"m", &shape, latency);
    }
    again.offer(Duration::ZERO, 1);
    assert_eq!(again.poll(Duration::ZERO).batch.unwrap().predicted, Some(11 * MS));
}

#[test]
fn idle_tenants_are_forgotten_and_at_the_bound_one_makes_room() {
    let mut bench = Bench::new(plain());
    let mut serve = |index: usize| {
        let tenant = TenantId::parse(&format!("t{index}")).unwrap();
        bench.offer_with(Duration::ZERO, |item| item.tenant = tenant).unwrap();
        let batch = bench.poll(Duration::ZERO).batch.unwrap();
        let outcome = Outcome {
            busy: MS,
            ..Outcome::default()
        };
        bench.scheduler.finished(bench.start, batch.id, outcome);
        bench.scheduler.tenants()
    };
    let most = (0..MAX_TENANTS + 10).map(&mut serve).max().unwrap();
    assert!(most <= MAX_TENANTS, "{most}");
}

#[test]
fn a_tenant_that_comes_back_has_saved_nothing_up() {
    let mut bench = Bench::new(rules(DynamicBatching {
        preferred_batch_size: vec![2],
        ..DynamicBatching::default()
    }));
    bench.scheduler.seed(&"m", &shape(0), &[(1, 10 * MS), (2, 10 * MS)]);
    // One tenant has the device for a while, and another comes once it is busy.
    for _ in 0..20 {
        bench.of("long");
    }
    for step in 0..5 {
        let batch = bench.poll(10 * MS * step).batch.unwrap();
        let busy = Outcome {
            busy: 10 * MS,
            ..Outcome::default()
        };
        bench
            .scheduler
            .finished(bench.start + 10 * MS * (step + 1), batch.id, busy);
    }
    for _ in 0..10 {
        bench.of("new");
    }
    let mut new = 0;
    for step in 5..10 {
        let batch = bench.poll(10 * MS * step).batch.unwrap();
        new += batch.items.iter().filter(|item| item.tenant.as_str() == "new").count();
        let busy = Outcome {
            busy: 10 * MS,
            ..Outcome::default()
        };
        bench
            .scheduler
            .finished(bench.start + 10 * MS * (step + 1), batch.id, busy);
    }
    assert!((4..=6).contains(&new), "{new} of 10");
}

#[test]
fn shares_and_weights_are_those_of_the_request() {
    let share = TenantShare {
        weight: 5,
        isolated: false,
    };
    let mut bench = Bench::new(plain());
    bench
        .offer_with(Duration::ZERO, |item| {
            item.standing = Standing {
                share,
                class: ServiceClass::Batch,
                ..Standing::default()
            };
        })
        .unwrap();
    let batch = bench.poll(Duration::ZERO).batch.unwrap();
    assert_eq!(batch.items[0].standing.share, share);
}

/// Two slots, and a batch of one row under way on the first that takes this long and a little.
fn one_under_way(per_batch: Duration, right_size: bool) -> (Bench, BatchId) {
    let mut bench = Bench::new(rules(DynamicBatching {
        right_size: Some(right_size),
        ..DynamicBatching::default()
    }));
    bench.scheduler.set_slots(2);
    let sweep = [1, 2, 4, 8].map(|rows| (rows, per_batch + Duration::from_micros(1) * rows));
    bench.scheduler.seed(&"m", &shape(0), &sweep);
    bench.offer(Duration::ZERO, 1);
    let id = bench.poll(Duration::ZERO).batch.unwrap().id;
    (bench, id)
}

fn on_second(bench: &mut Bench, at: Duration) -> Option<u32> {
    let decision = bench.scheduler.poll(bench.start + at, 1, |_| true, |_| false);
    decision.batch.map(|batch| batch.rows)
}

#[test]
fn brief_batches_go_one_after_another_and_grow_meanwhile() {
    let (mut bench, first) = one_under_way(100 * US, true);
    bench.offer(10 * US, 1);
    assert_eq!(on_second(&mut bench, 10 * US), None);
    bench.offer(20 * US, 1);
    assert_eq!(bench.poll(20 * US).batch.map(|batch| batch.rows), None);
    bench
        .scheduler
        .finished(bench.start + 100 * US, first, Outcome::default());
    assert_eq!(on_second(&mut bench, 100 * US), Some(2));
}

#[test]
fn a_brief_batch_goes_at_once_when_it_is_full_or_in_a_hurry_or_the_other_is_late() {
    let (mut bench, _) = one_under_way(100 * US, true);
    for _ in 0..8 {
        bench.offer(10 * US, 1);
    }
    assert_eq!(on_second(&mut bench, 10 * US), Some(8));

    let (mut bench, _) = one_under_way(100 * US, true);
    let soon = |item: &mut Item<u32>| item.deadline = item.arrived + MS;
    bench.offer_with(10 * US, soon).unwrap();
    assert_eq!(on_second(&mut bench, 700 * US), Some(1));

    let (mut bench, _) = one_under_way(100 * US, true);
    bench.offer(10 * US, 1);
    assert_eq!(on_second(&mut bench, 4 * MS), None);
    assert_eq!(on_second(&mut bench, 6 * MS), Some(1));
}

#[test]
fn batches_that_are_not_brief_and_models_of_a_fixed_size_use_every_slot() {
    for (per_batch, right_size) in [(MS, true), (100 * US, false)] {
        let (mut bench, _) = one_under_way(per_batch, right_size);
        bench.offer(10 * US, 1);
        assert_eq!(on_second(&mut bench, 10 * US), Some(1), "{per_batch:?}");
    }
}

#[test]
fn where_several_tenants_use_a_device_batches_are_smaller() {
    let mut bench = Bench::new(plain());
    // 89, 94, 98.5 and 100 % of the best rate.
    let sweep = [(1, 11_240), (2, 21_280), (4, 40_600), (8, 80_000)].map(|(rows, us)| (rows, US * us));
    bench.scheduler.seed(&"m", &shape(0), &sweep);
    let size = |bench: &mut Bench, others: usize| {
        for turn in 0..12 {
            bench.of(if turn < others { "other" } else { "t" });
        }
        let batch = bench.poll(Duration::ZERO).batch.unwrap();
        bench.scheduler.finished(bench.start, batch.id, Outcome::default());
        batch.rows
    };
    assert_eq!((size(&mut bench, 0), size(&mut bench, 1)), (4, 2));
}

#[test]
fn who_came_before_anything_was_known_counts_once_it_is() {
    let mut bench = Bench::new(plain());
    // As for a model that is being loaded for the first time: whoever comes is taken in.
    for _ in 0..16 {
        bench
            .offer_with(Duration::ZERO, |item| item.deadline = item.arrived + MS)
            .unwrap();
    }
    bench.seed(10 * MS);
    // Two batches of 81 ms are before it, and it is in a third.
    let within = |bench: &mut Bench, left: Duration| {
        bench.offer_with(Duration::ZERO, |item| item.deadline = item.arrived + left)
    };
    assert!(matches!(within(&mut bench, 150 * MS), Err(RefusedFor::TooLate { .. })));
    within(&mut bench, 400 * MS).unwrap();
    // What they were priced at is taken back when they leave.
    assert_eq!(bench.scheduler.sweep(bench.start, |payload| *payload < 8).len(), 8);
    within(&mut bench, 200 * MS).unwrap();
    assert_eq!(bench.scheduler.remove_model(&"m").len(), 10);
    assert!(bench.scheduler.tenants.is_quiet());
}

#[test]
fn a_shape_that_is_seen_for_the_first_time_prices_those_who_wait_in_it_and_no_others() {
    let mut bench = Bench::new(plain());
    bench.seed(10 * MS);
    for extent in [7, 7, 7, 9] {
        bench
            .offer_with(Duration::ZERO, |item| item.shape = shape(extent))
            .unwrap();
    }
    let backlog = |bench: &Bench| bench.scheduler.models.iter().next().unwrap().backlog;
    assert_eq!(backlog(&bench), 0);
    let first = bench.poll(Duration::ZERO).batch.unwrap();
    let (ran, more) = (first.items.len(), 2);
    for _ in 0..more {
        bench.offer_with(Duration::ZERO, |item| item.shape = shape(7)).unwrap();
    }
    let told = Outcome {
        busy: 8 * MS,
        telling: true,
        ..Outcome::default()
    };
    bench.scheduler.finished(bench.start + 8 * MS, first.id, told);
    // Those three in one batch took 8 ms; of as many as are full each is expected to take its part.
    assert_eq!(ran, 3);
    let priced = backlog(&bench);
    assert!(priced > 0, "the two that have come since");
    assert_eq!(bench.batch(8 * MS).map(|batch| batch.len()), Some(more));
    assert_eq!(backlog(&bench), 0, "nothing is known of the other shape");
}

#[test]
fn a_smaller_size_that_took_long_once_is_tried_again_and_used() {
    let mut bench = Bench::new(plain());
    // Every row takes a millisecond, but the warm-up met small batches in a bad moment.
    let sweep = [(1, 2 * MS), (2, 4 * MS), (4, 8 * MS), (8, 8 * MS)];
    bench.scheduler.seed(&"m", &shape(0), &sweep);
    let (mut now, mut sizes) = (Duration::ZERO, Vec::new());
    for _ in 0..1_000 {
        while bench.scheduler.waiting(&"m") < 16 {
            bench
                .offer_with(now, |item| item.deadline = item.arrived + 1_000 * MS)
                .unwrap();
        }
        let batch = bench.poll(now).batch.unwrap();
        let busy = MS * batch.rows;
        now += busy;
        let outcome = Outcome {
            busy,
            telling: true,
            ..Outcome::default()
        };
        bench.scheduler.finished(bench.start + now, batch.id, outcome);
        sizes.push(batch.rows);
    }
    assert_eq!(sizes[0], 8);
    // One row alone costs too much of handing over; two do not.
    let used = sizes[900..].iter().filter(|rows| **rows == 2).count();
    assert!(used > 85, "{:?}", &sizes[900..]);
}
