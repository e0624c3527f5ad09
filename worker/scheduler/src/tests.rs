//! Facts about batch forming, in simulated time.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn rules(max_rows: u32, preferred: &[u32], delay: Duration) -> BatchRules {
    let preferred = if preferred.is_empty() {
        vec![max_rows]
    } else {
        preferred.to_vec()
    };
    BatchRules {
        max_rows,
        shared: true,
        preferred,
        max_delay: delay,
        max_queue: 1_000,
    }
}

struct Bench {
    start: Instant,
    scheduler: Scheduler<&'static str, u32>,
    next: u32,
}

impl Bench {
    fn new(rules: BatchRules) -> Self {
        let mut scheduler = Scheduler::default();
        scheduler.add_model("m", rules);
        Self {
            start: Instant::now(),
            scheduler,
            next: 0,
        }
    }

    fn offer(&mut self, at: Duration, rows: u32, shape: u64) -> bool {
        let arrived = self.start + at;
        let deadline = arrived + Duration::from_secs(1);
        let item = Item {
            payload: self.next,
            rows,
            shape: ShapeKey(shape),
            arrived,
            deadline,
        };
        self.next += 1;
        self.scheduler.offer(&"m", item).is_ok()
    }

    fn poll(&mut self, at: Duration) -> Decision<&'static str, u32> {
        self.scheduler.poll(self.start + at, |_| false)
    }

    fn batch(&mut self, at: Duration) -> Option<Vec<u32>> {
        self.poll(at)
            .batch
            .map(|batch| batch.items.iter().map(|item| item.payload).collect())
    }
}

#[test]
fn without_delay_what_is_there_is_sent_at_once() {
    let mut bench = Bench::new(rules(8, &[], Duration::ZERO));
    bench.offer(Duration::ZERO, 1, 0);
    bench.offer(Duration::ZERO, 2, 0);
    assert_eq!(bench.batch(Duration::ZERO), Some(vec![0, 1]));
    assert_eq!(bench.batch(Duration::ZERO), None);
}

#[test]
fn with_a_delay_the_oldest_waits_that_long_and_no_longer() {
    let mut bench = Bench::new(rules(8, &[], 5 * MS));
    bench.offer(Duration::ZERO, 1, 0);
    bench.offer(3 * MS, 1, 0);
    let decision = bench.poll(4 * MS);
    assert!(decision.batch.is_none());
    assert_eq!(decision.wake_at, Some(bench.start + 5 * MS));
    assert_eq!(bench.batch(5 * MS), Some(vec![0, 1]));
}

#[test]
fn a_preferred_size_is_sent_at_once_and_the_rest_waits() {
    let mut bench = Bench::new(rules(8, &[2, 8], 5 * MS));
    for _ in 0..3 {
        bench.offer(Duration::ZERO, 1, 0);
    }
    assert_eq!(bench.batch(MS), Some(vec![0, 1]));
    assert_eq!(bench.batch(MS), None);
    assert_eq!(bench.batch(5 * MS), Some(vec![2]));
}

#[test]
fn a_request_that_does_not_fit_closes_the_batch() {
    let mut bench = Bench::new(rules(8, &[], 5 * MS));
    for rows in [5, 2, 4] {
        bench.offer(Duration::ZERO, rows, 0);
    }
    assert_eq!(bench.batch(Duration::ZERO), Some(vec![0, 1]));
}

#[test]
fn shapes_are_not_mixed() {
    let mut bench = Bench::new(rules(8, &[], Duration::ZERO));
    bench.offer(Duration::ZERO, 1, 1);
    bench.offer(MS, 1, 2);
    bench.offer(2 * MS, 1, 1);
    assert_eq!(bench.batch(3 * MS), Some(vec![0, 2]));
    assert_eq!(bench.batch(3 * MS), Some(vec![1]));
}

#[test]
fn a_model_without_dynamic_batching_runs_each_request_alone() {
    let config = mesh_types::ModelConfig {
        max_batch_size: 8,
        ..mesh_types::ModelConfig::default()
    };
    let mut bench = Bench::new(BatchRules::of(&config, 10));
    bench.offer(Duration::ZERO, 3, 0);
    bench.offer(Duration::ZERO, 1, 0);
    assert_eq!(bench.batch(Duration::ZERO), Some(vec![0]));
    assert_eq!(bench.batch(Duration::ZERO), Some(vec![1]));
}

#[test]
fn the_queue_takes_its_bound_and_refuses_one_more() {
    let mut bench = Bench::new(BatchRules {
        max_queue: 2,
        ..rules(8, &[], 5 * MS)
    });
    assert!(bench.offer(Duration::ZERO, 1, 0));
    assert!(bench.offer(Duration::ZERO, 1, 7));
    assert!(!bench.offer(Duration::ZERO, 1, 0));
    let item = Item {
        payload: 9,
        rows: 1,
        shape: ShapeKey(0),
        arrived: bench.start,
        deadline: bench.start,
    };
    assert!(matches!(
        bench.scheduler.offer(&"none", item),
        Err(Refused::UnknownModel(9))
    ));
}

#[test]
fn the_expired_and_the_cancelled_leave_before_the_batch() {
    let mut bench = Bench::new(rules(8, &[], Duration::ZERO));
    for at in [0, 0, 500] {
        bench.offer(Duration::from_millis(at), 1, 0);
    }
    let decision = bench
        .scheduler
        .poll(bench.start + Duration::from_millis(1_000), |payload| *payload == 2);
    assert!(decision.batch.is_none());
    let gone: Vec<_> = decision
        .gone
        .iter()
        .map(|(item, reason)| (item.payload, *reason))
        .collect();
    assert_eq!(gone, [(0, Gone::Expired), (1, Gone::Expired), (2, Gone::Cancelled)]);
    assert_eq!(bench.scheduler.waiting(&"m"), 0);
}

#[test]
fn removing_a_model_gives_its_requests_back() {
    let mut bench = Bench::new(rules(8, &[], 5 * MS));
    bench.offer(Duration::ZERO, 1, 0);
    assert_eq!(bench.scheduler.remove_model(&"m").len(), 1);
    assert!(!bench.offer(Duration::ZERO, 1, 0));
}

proptest! {
    #[test]
    fn every_request_leaves_once_in_order_and_no_batch_is_too_large_or_mixed(
        arrivals in proptest::collection::vec((1u32..=8, 0u64..3, 0u64..4), 1..80),
        preferred in proptest::collection::vec(1u32..=8, 0..3),
        delay in 0u64..6,
    ) {
        let mut preferred = preferred;
        preferred.sort_unstable();
        preferred.dedup();
        let mut bench = Bench::new(rules(8, &preferred, Duration::from_millis(delay)));
        let (mut at, mut left) = (Duration::ZERO, Vec::new());
        let mut record = |decision: Decision<&'static str, u32>, now: Instant| {
            let Some(batch) = decision.batch else { return false };
            assert!(batch.rows <= 8 && !batch.items.is_empty());
            assert!(batch.items.iter().all(|item| item.shape == batch.items[0].shape));
            for item in &batch.items {
                left.push((item.shape, item.payload, now.duration_since(item.arrived)));
            }
            true
        };
        for (rows, shape, pause) in &arrivals {
            at += Duration::from_millis(*pause);
            bench.offer(at, *rows, *shape);
            let now = bench.start + at;
            while record(bench.poll(at), now) {}
        }
        at += Duration::from_millis(delay);
        let now = bench.start + at;
        while record(bench.poll(at), now) {}
        prop_assert_eq!(left.len(), arrivals.len());
        for shape in 0..3 {
            let order: Vec<_> = left.iter().filter(|(s, ..)| *s == ShapeKey(shape)).map(|(_, payload, _)| *payload).collect();
            prop_assert!(order.is_sorted());
        }
    }
}
