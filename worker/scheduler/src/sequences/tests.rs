//! Facts about sequences: their order, seats, backlog, ends and losses, in simulated time.

use std::time::{Duration, Instant};

use mesh_types::{
    Control, ControlInput, ControlKind, CorrelationId, DataType, ModelConfig, SequenceBatching, SequenceStep, Standing,
    StateSpec, StrategyDirect, StrategyOldest, TenantId, TenantShare,
};

use super::*;
use crate::{Batch, BatchRules, MAX_PLACES, Outcome, RefusedFor, Scheduler, ShapeKey, TooLarge};

const MS: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(100);

fn config(rows: u32, change: impl FnOnce(&mut SequenceBatching)) -> ModelConfig {
    let mut sequence = SequenceBatching {
        max_sequence_idle_microseconds: 100_000,
        ..SequenceBatching::default()
    };
    change(&mut sequence);
    ModelConfig {
        max_batch_size: rows,
        sequence_batching: Some(sequence),
        ..ModelConfig::default()
    }
}

struct Bench {
    start: Instant,
    scheduler: Scheduler<&'static str, u32>,
    next: u32,
}

type Gave = Vec<(u32, u64, u32)>;
type Left = Vec<(u32, Gone)>;

impl Bench {
    fn new(places: usize, config: &ModelConfig) -> Self {
        let mut scheduler = Scheduler::new(places);
        scheduler.add_model("m", BatchRules::of(config, 1_000));
        scheduler.set_instances(&"m", places, |_| true);
        Self {
            start: Instant::now(),
            scheduler,
            next: 0,
        }
    }

    /// One whose model has its states kept for it.
    fn movable(places: usize, config: &ModelConfig) -> Self {
        let mut bench = Self::new(places, config);
        let mut rules = BatchRules::of(config, 1_000);
        rules.sequence.as_mut().unwrap().movable = true;
        bench.scheduler.add_model("m", rules);
        bench
    }

    fn offer_with(
        &mut self,
        at: Duration,
        (tenant, id): (&str, u64),
        (start, end): (bool, bool),
        change: impl FnOnce(&mut Item<u32>),
    ) -> Result<u32, RefusedFor> {
        let now = self.start + at;
        let mut item = Item {
            payload: self.next,
            tenant: TenantId::parse(tenant).unwrap(),
            standing: Standing::default(),
            rows: 1,
            shape: ShapeKey::default(),
            arrived: now,
            deadline: now + Duration::from_secs(1),
        };
        change(&mut item);
        self.next += 1;
        let id = CorrelationId::Number(id);
        let step = SequenceStep { id, start, end };
        let taken = self.scheduler.offer_step(now, &"m", item, &step);
        taken.map(|()| self.next - 1).map_err(|refused| refused.reason)
    }

    fn offer(&mut self, at: Duration, name: (&str, u64), flags: (bool, bool)) -> Result<u32, RefusedFor> {
        self.offer_with(at, name, flags, |_| {})
    }

    fn begin(&mut self, at: Duration, tenant: &str, id: u64) -> u32 {
        self.offer(at, (tenant, id), (true, false)).unwrap()
    }

    fn poll(&mut self, at: Duration, place: usize) -> (Option<Batch<&'static str, u32>>, Left) {
        let decision = self.scheduler.poll(self.start + at, place, |_| true, |_| false);
        let gone = decision
            .gone
            .into_iter()
            .map(|(item, why)| (item.payload, why))
            .collect();
        (decision.batch, gone)
    }

    /// Runs a batch on a place, if there is one: what it held, with sequence and slot.
    fn run(&mut self, at: Duration, place: usize) -> Gave {
        self.run_to(at, place, StepResult::Ran)
    }

    fn run_to(&mut self, at: Duration, place: usize, result: StepResult) -> Gave {
        let Some(batch) = self.poll(at, place).0 else {
            return Vec::new();
        };
        let results = vec![Some(result); batch.items.len()];
        let outcome = Outcome {
            busy: MS,
            telling: true,
            too_large: None,
        };
        self.scheduler
            .finished_steps(self.start + at, batch.id, outcome, &results);
        let seats = batch.seats.iter();
        let items = batch.items.iter().zip(seats);
        items
            .map(|(item, seat)| (item.payload, seat.sequence, seat.slot))
            .collect()
    }

    fn ended(&mut self) -> Vec<(u64, Option<Aborted>)> {
        let ended = self.scheduler.take_ended();
        ended.into_iter().map(|ended| (ended.sequence, ended.why)).collect()
    }

    fn open(&self) -> (usize, usize) {
        let counts = self.scheduler.sequences_of(&"m");
        (counts.open, counts.backlog)
    }
}

#[test]
fn steps_run_one_at_a_time_and_in_order() {
    let mut bench = Bench::new(2, &config(4, |_| {}));
    let first = bench.begin(MS, "a", 1);
    let second = bench.offer(MS, ("a", 1), (false, false)).unwrap();
    let third = bench.offer(MS, ("a", 1), (false, true)).unwrap();
    let (batch, _) = bench.poll(MS, 0);
    let batch = batch.unwrap();
    assert_eq!(batch.items.iter().map(|item| item.payload).collect::<Vec<_>>(), [first]);
    assert!(
        bench.poll(MS, 0).0.is_none() && bench.poll(MS, 1).0.is_none(),
        "one at a time"
    );
    let outcome = Outcome {
        busy: MS,
        ..Outcome::default()
    };
    bench
        .scheduler
        .finished_steps(bench.start + MS, batch.id, outcome, &[Some(StepResult::Ran)]);
    assert_eq!(bench.run(2 * MS, 0), [(second, 1, 0)]);
    assert!(bench.run(2 * MS, 1).is_empty(), "it stays on its instance");
    assert_eq!(bench.run(2 * MS, 0), [(third, 1, 0)]);
    assert_eq!(bench.ended(), [(1, None)]);
    assert!(bench.scheduler.sequences.is_bare());
}

#[test]
fn who_does_not_start_is_refused_and_told_why_there_is_none() {
    let mut bench = Bench::new(1, &config(4, |_| {}));
    let step = |bench: &mut Bench, at| bench.offer(at, ("a", 1), (false, false));
    assert_eq!(step(&mut bench, MS), Err(RefusedFor::NotStarted(None)));
    bench.begin(MS, "a", 1);
    assert_eq!(
        bench.offer(MS, ("b", 1), (false, false)),
        Err(RefusedFor::NotStarted(None))
    );
    bench.run(MS, 0);
    assert!(step(&mut bench, 2 * MS).is_ok());
    bench.run(2 * MS, 0);
    assert!(bench.poll(2 * MS + IDLE - MS, 0).1.is_empty());
    assert_eq!(bench.open(), (1, 0));
    bench.poll(2 * MS + IDLE, 0);
    assert_eq!(bench.ended(), [(1, Some(Aborted::Idle))]);
    let late = step(&mut bench, 3 * MS + IDLE);
    assert_eq!(late, Err(RefusedFor::NotStarted(Some(Aborted::Idle))));
    // After its last request it must start as well.
    bench.offer(IDLE * 2, ("a", 1), (true, true)).unwrap();
    assert_eq!(
        step(&mut bench, IDLE * 2),
        Err(RefusedFor::NotStarted(Some(Aborted::Idle)))
    );
}

#[test]
fn each_sequence_keeps_its_row_and_batches_hold_one_step_of_each() {
    let mut bench = Bench::new(1, &config(4, |_| {}));
    for id in 1..=3 {
        bench.begin(MS, "a", id);
    }
    assert_eq!(bench.run(MS, 0), [(0, 1, 0), (1, 2, 1), (2, 3, 2)]);
    bench.offer(2 * MS, ("a", 3), (false, false)).unwrap();
    bench.offer(2 * MS, ("a", 1), (false, true)).unwrap();
    assert_eq!(bench.run(2 * MS, 0), [(3, 3, 2), (4, 1, 0)]);
    // The row that was given back is taken first.
    bench.begin(3 * MS, "a", 9);
    assert_eq!(bench.run(3 * MS, 0), [(5, 4, 0)]);
}

#[test]
fn sequences_spread_over_instances() {
    let mut bench = Bench::new(2, &config(4, |_| {}));
    for id in 1..=4 {
        bench.begin(MS, "a", id);
    }
    assert_eq!(bench.run(MS, 0), [(0, 1, 0), (2, 3, 1)]);
    assert_eq!(bench.run(MS, 1), [(1, 2, 0), (3, 4, 1)]);
}

#[test]
fn without_a_seat_a_sequence_waits_and_the_tenant_that_had_least_is_next() {
    let two = |sequence: &mut SequenceBatching| sequence.max_sequences_per_tenant = 2;
    let mut bench = Bench::new(1, &config(2, two));
    bench.begin(MS, "a", 1);
    bench.begin(MS, "a", 2);
    bench.run(MS, 0);
    bench.begin(2 * MS, "a", 3);
    bench.begin(2 * MS, "b", 1);
    assert_eq!(bench.open(), (4, 2));
    assert!(bench.run(2 * MS, 0).is_empty());
    bench.offer(3 * MS, ("a", 1), (false, true)).unwrap();
    assert_eq!(bench.run(3 * MS, 0), [(4, 1, 0)]);
    // `b` has had nothing yet, though it came later.
    assert_eq!(bench.run(3 * MS, 0), [(3, 4, 0)]);
    assert_eq!(bench.open(), (3, 1));
    assert_eq!(
        bench.run(4 * MS + IDLE, 0),
        [(2, 3, 1)],
        "an idle one gives its seat up"
    );
}

#[test]
fn one_tenant_does_not_have_all_seats() {
    let mut bench = Bench::new(1, &config(8, |_| {}));
    for id in 1..=8 {
        bench.begin(MS, "a", id);
    }
    assert_eq!(bench.open(), (8, 1));
    bench.begin(MS, "b", 1);
    assert_eq!(bench.open(), (9, 1));
    assert_eq!((bench.run(MS, 0).len(), bench.run(MS, 0).len()), (7, 1));
    let all = |sequence: &mut SequenceBatching| sequence.max_sequences_per_tenant = 8;
    let mut bench = Bench::new(1, &config(8, all));
    for id in 1..=9 {
        bench.begin(MS, "a", id);
    }
    assert_eq!(bench.open(), (9, 1));
    // Of one seat, one tenant may have it.
    let mut bench = Bench::new(1, &config(0, |_| {}));
    bench.begin(MS, "a", 1);
    assert_eq!(bench.open(), (1, 0));
}

#[test]
fn a_step_that_does_not_run_leaves_its_sequence_and_takes_those_behind_it() {
    let mut bench = Bench::new(1, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    bench.run(MS, 0);
    let hurry = |item: &mut Item<u32>| item.deadline = item.arrived + 2 * MS;
    bench.offer_with(MS, ("a", 1), (false, false), hurry).unwrap();
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    let (_, gone) = bench.poll(4 * MS, 0);
    assert_eq!(gone, [(1, Gone::Expired), (2, Gone::Behind)]);
    assert!(
        bench.offer(5 * MS, ("a", 1), (false, true)).is_ok(),
        "it goes on from where it was"
    );
    assert_eq!(bench.run(5 * MS, 0), [(3, 1, 0)]);
    assert_eq!(bench.ended(), [(1, None)]);
}

#[test]
fn a_first_step_that_does_not_run_ends_its_sequence() {
    let mut bench = Bench::new(1, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    assert_eq!(bench.run_to(MS, 0, StepResult::NotRun).len(), 1);
    assert_eq!(bench.poll(MS, 0).1, [(1, Gone::Behind)]);
    assert_eq!(bench.ended(), [(1, Some(Aborted::NotBegun))]);
    let next = bench.offer(MS, ("a", 1), (false, false));
    assert_eq!(next, Err(RefusedFor::NotStarted(Some(Aborted::NotBegun))));
    assert!(bench.scheduler.sequences.is_bare());
}

#[test]
fn a_start_within_an_open_sequence_begins_it_anew_behind_what_came_before() {
    let mut bench = Bench::new(1, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    bench.begin(MS, "a", 1);
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    assert_eq!(bench.run(MS, 0), [(0, 1, 0)]);
    // What fails takes those with it that are of the same run, and no others.
    assert_eq!(bench.run_to(MS, 0, StepResult::NotRun), [(1, 1, 0)]);
    assert_eq!(bench.run(MS, 0), [(2, 1, 0)]);
    assert_eq!(bench.run(MS, 0), [(3, 1, 0)]);
    assert_eq!(bench.open(), (1, 0));
}

#[test]
fn a_start_that_fails_does_not_lead_back_to_what_was_before() {
    let mut bench = Bench::new(1, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    bench.run(MS, 0);
    bench.begin(2 * MS, "a", 1);
    bench.run_to(2 * MS, 0, StepResult::NotRun);
    assert_eq!(bench.ended(), [(1, Some(Aborted::NotBegun))]);
    // The same where the START had not had its turn yet.
    bench.begin(3 * MS, "b", 1);
    let batch = bench.poll(3 * MS, 0).0.unwrap();
    let hurry = |item: &mut Item<u32>| item.deadline = item.arrived + MS;
    bench.offer_with(3 * MS, ("b", 1), (true, false), hurry).unwrap();
    assert_eq!(bench.poll(5 * MS, 0).1, [(3, Gone::Expired)]);
    assert_eq!(
        bench.offer(5 * MS, ("b", 1), (false, false)),
        Err(RefusedFor::NotStarted(None))
    );
    let (at, outcome) = (bench.start + 5 * MS, Outcome::default());
    bench
        .scheduler
        .finished_steps(at, batch.id, outcome, &[Some(StepResult::Ran)]);
    assert_eq!(bench.ended(), [(2, Some(Aborted::NotBegun))]);
}

#[test]
fn what_ends_and_begins_anew_stands_behind_those_who_wait_for_a_seat() {
    let mut bench = Bench::new(1, &config(0, |_| {}));
    bench.begin(MS, "a", 1);
    bench.run(MS, 0);
    bench.begin(MS, "b", 1);
    bench.offer(MS, ("a", 1), (false, true)).unwrap();
    bench.begin(MS, "a", 1);
    assert_eq!(bench.run(MS, 0), [(2, 1, 0)]);
    assert_eq!(bench.run(MS, 0), [(1, 2, 0)]);
    assert_eq!(bench.open(), (2, 1));
}

#[test]
fn an_instance_that_goes_takes_its_sequences_with_it() {
    let mut bench = Bench::new(2, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    bench.begin(MS, "a", 2);
    bench.run(MS, 0);
    bench.run(MS, 1);
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    bench.scheduler.set_instances(&"m", 2, |place| place == 1);
    let mut gone = bench.poll(MS, 1).1;
    gone.sort_by_key(|(payload, _)| *payload);
    let lost = Gone::Aborted(Aborted::Lost);
    assert_eq!(gone, [(2, lost), (3, lost)]);
    assert_eq!(bench.ended(), [(1, Some(Aborted::Lost))]);
    let next = bench.offer(MS, ("a", 1), (false, false));
    assert_eq!(next, Err(RefusedFor::NotStarted(Some(Aborted::Lost))));
    assert!(bench.offer(MS, ("a", 2), (false, false)).is_ok());
    bench.begin(MS, "a", 1);
    assert_eq!(bench.run(MS, 1).len(), 2, "it may start anew where the model is");
}

#[test]
fn what_runs_on_an_instance_that_goes_is_the_last_of_its_sequence() {
    let mut bench = Bench::new(2, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    let batch = bench.poll(MS, 0).0.unwrap();
    bench.scheduler.set_instances(&"m", 2, |place| place == 1);
    assert_eq!(bench.open(), (1, 0));
    let (at, outcome) = (bench.start + MS, Outcome::default());
    bench
        .scheduler
        .finished_steps(at, batch.id, outcome, &[Some(StepResult::Ran)]);
    assert_eq!(bench.ended(), [(1, Some(Aborted::Lost))]);
}

#[test]
fn a_state_that_is_not_the_models_moves_with_its_sequence() {
    let mut bench = Bench::movable(2, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    bench.run(MS, 0);
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    bench.scheduler.set_instances(&"m", 2, |place| place == 1);
    assert_eq!(bench.run(MS, 1), [(1, 1, 0)]);
    assert_eq!(bench.run(MS, 1), [(2, 1, 0)]);
    // Also one that has no step just now, and one that is running.
    bench.scheduler.set_instances(&"m", 2, |place| place == 0);
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    let batch = bench.poll(MS, 0).0.unwrap();
    bench.offer(MS, ("a", 1), (false, true)).unwrap();
    bench.scheduler.set_instances(&"m", 2, |place| place == 1);
    let (at, outcome) = (bench.start + MS, Outcome::default());
    bench
        .scheduler
        .finished_steps(at, batch.id, outcome, &[Some(StepResult::Ran)]);
    assert_eq!(bench.run(MS, 1), [(4, 1, 0)]);
    assert_eq!(bench.ended(), [(1, None)]);
}

fn tells_ids(sequence: &mut SequenceBatching) {
    let corrid = Control {
        kind: ControlKind::Corrid,
        int32_false_true: Vec::new(),
        fp32_false_true: Vec::new(),
        bool_false_true: Vec::new(),
        data_type: Some(DataType::Uint64),
    };
    let (name, control) = ("CORRID".to_owned(), vec![corrid]);
    sequence.control_input.push(ControlInput { name, control });
}

fn state() -> StateSpec {
    StateSpec {
        input_name: "BEFORE".to_owned(),
        output_name: "AFTER".to_owned(),
        data_type: DataType::Int32,
        dims: vec![1],
        initial_state: Vec::new(),
        use_same_buffer_for_input_output: false,
        use_growable_memory: false,
    }
}

#[test]
fn a_model_is_never_told_one_id_for_two_tenants() {
    let mut bench = Bench::new(2, &config(4, tells_ids));
    for tenant in ["a", "b"] {
        bench.begin(MS, tenant, 5);
    }
    // The third has no instance, and does not wait for one; another of its tenant's has.
    assert_eq!(bench.offer(MS, ("c", 5), (true, false)), Err(RefusedFor::IdTaken));
    bench.begin(MS, "c", 6);
    bench.begin(MS, "a", 5);
    assert_eq!(bench.open(), (3, 0));
    assert_eq!((bench.run(MS, 0), bench.run(MS, 1)), (vec![(0, 1, 0)], vec![(1, 2, 0)]));
    bench.offer(MS, ("b", 5), (false, true)).unwrap();
    bench.run(MS, 1);
    let third = bench.begin(MS, "c", 5);
    assert_eq!(bench.run(MS, 1), [(third, 4, 0)]);
    bench.scheduler.abort_sequences(&"m", Aborted::Closed);
    bench.poll(MS, 0);
    assert!(bench.scheduler.sequences.is_bare());
    let unique = |sequence: &mut SequenceBatching| {
        tells_ids(sequence);
        sequence.correlation_ids = CorrelationIds::Unique;
    };
    let mut bench = Bench::new(1, &config(4, unique));
    bench.begin(MS, "a", 5);
    bench.begin(MS, "b", 5);
    assert_eq!(bench.open(), (2, 0));
}

#[test]
fn who_waits_for_a_seat_counts_among_those_of_an_id() {
    let one = |sequence: &mut SequenceBatching| {
        tells_ids(sequence);
        sequence.max_sequences_per_tenant = 1;
    };
    let mut bench = Bench::new(2, &config(0, one));
    for (tenant, id) in [("a", 1), ("b", 2), ("c", 5), ("d", 5)] {
        bench.begin(MS, tenant, id);
    }
    assert_eq!(bench.open(), (4, 2));
    assert_eq!(bench.offer(MS, ("e", 5), (true, false)), Err(RefusedFor::IdTaken));
    for (place, name) in [(0, ("a", 1)), (1, ("b", 2))] {
        bench.run(MS, place);
        bench.offer(MS, name, (false, true)).unwrap();
        bench.run(MS, place);
    }
    // Both have come to sit, each on an instance of its own.
    assert_eq!((bench.run(MS, 0).len(), bench.run(MS, 1).len()), (1, 1));
    assert_eq!(bench.open(), (2, 0));
}

#[test]
fn a_declared_state_leaves_ids_to_their_tenants() {
    let outside = |sequence: &mut SequenceBatching| {
        tells_ids(sequence);
        sequence.state.push(state());
    };
    let mut bench = Bench::new(1, &config(4, outside));
    for tenant in ["a", "b", "c"] {
        bench.begin(MS, tenant, 5);
    }
    assert_eq!(bench.open(), (3, 0));
    assert_eq!(bench.run(MS, 0).len(), 3);
}

#[test]
fn a_model_that_closes_lets_sequences_go_on_and_none_begin() {
    let mut bench = Bench::new(1, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    bench.run(MS, 0);
    bench.scheduler.close_sequences(&"m", true);
    assert_eq!(bench.offer(MS, ("a", 2), (true, false)), Err(RefusedFor::Closing));
    assert_eq!(bench.offer(MS, ("a", 1), (true, false)), Err(RefusedFor::Closing));
    assert!(bench.offer(MS, ("a", 1), (false, false)).is_ok());
    bench.scheduler.abort_sequences(&"m", Aborted::Closed);
    assert_eq!(bench.poll(MS, 0).1, [(3, Gone::Aborted(Aborted::Closed))]);
    assert_eq!(bench.scheduler.open_sequences(&"m"), 0);
    bench.scheduler.close_sequences(&"m", false);
    bench.begin(MS, "a", 2);
    assert_eq!(bench.run(MS, 0).len(), 1);
}

#[test]
fn a_requests_timeout_bounds_the_wait_for_a_seat_and_not_for_a_batch() {
    let mut bench = Bench::new(1, &config(0, |_| {}));
    bench.begin(MS, "a", 1);
    bench.run(MS, 0);
    let impatient = |item: &mut Item<u32>| item.standing.queue_timeout = Some(5 * MS);
    bench.offer_with(MS, ("b", 1), (true, false), impatient).unwrap();
    bench.offer(MS, ("b", 1), (false, false)).unwrap();
    assert_eq!(bench.poll(5 * MS, 0).1, []);
    assert_eq!(bench.poll(6 * MS, 0).1, [(1, Gone::TimedOut), (2, Gone::Behind)]);
    assert_eq!(bench.ended(), [(2, Some(Aborted::NotBegun))]);
    bench.offer_with(7 * MS, ("a", 1), (false, false), impatient).unwrap();
    assert_eq!(bench.poll(20 * MS, 0).1, []);
}

#[test]
fn a_requests_timeout_ends_once_its_sequence_has_a_seat() {
    let mut bench = Bench::new(1, &config(0, |_| {}));
    bench.begin(MS, "a", 1);
    bench.run(MS, 0);
    let impatient = |item: &mut Item<u32>| item.standing.queue_timeout = Some(5 * MS);
    bench.offer_with(MS, ("b", 1), (true, false), impatient).unwrap();
    let second = bench.offer_with(MS, ("b", 1), (false, false), impatient).unwrap();
    bench.offer(2 * MS, ("a", 1), (false, true)).unwrap();
    bench.run(2 * MS, 0);
    let batch = bench.poll(2 * MS, 0).0.unwrap();
    // Its first step takes longer than the second would have waited for a seat.
    assert_eq!(bench.poll(20 * MS, 0).1, []);
    let (at, outcome) = (bench.start + 20 * MS, Outcome::default());
    bench
        .scheduler
        .finished_steps(at, batch.id, outcome, &[Some(StepResult::Ran)]);
    assert_eq!(bench.run(20 * MS, 0), [(second, 2, 0)]);
}

#[test]
fn a_batch_waits_for_its_utilization_no_longer_than_the_delay() {
    let half = |sequence: &mut SequenceBatching| {
        sequence.direct = Some(StrategyDirect {
            max_queue_delay_microseconds: 10_000,
            minimum_slot_utilization: 0.5,
        });
    };
    let mut bench = Bench::new(1, &config(4, half));
    bench.begin(MS, "a", 1);
    assert!(bench.run(5 * MS, 0).is_empty());
    bench.begin(5 * MS, "a", 2);
    assert_eq!(bench.run(5 * MS, 0).len(), 2);
    bench.offer(6 * MS, ("a", 1), (false, false)).unwrap();
    assert!(bench.run(15 * MS, 0).is_empty());
    assert_eq!(bench.run(16 * MS, 0).len(), 1);
    let at_once = |sequence: &mut SequenceBatching| {
        sequence.direct = Some(StrategyDirect {
            max_queue_delay_microseconds: 10_000,
            ..StrategyDirect::default()
        });
    };
    let mut bench = Bench::new(1, &config(4, at_once));
    bench.begin(MS, "a", 1);
    assert_eq!(bench.run(MS, 0).len(), 1, "the delay alone does nothing");
}

#[test]
fn candidates_beyond_a_batch_take_turns() {
    let oldest = |sequence: &mut SequenceBatching| {
        sequence.oldest = Some(StrategyOldest {
            max_candidate_sequences: 6,
            ..StrategyOldest::default()
        });
        sequence.max_sequences_per_tenant = 6;
    };
    let mut bench = Bench::new(1, &config(4, oldest));
    for id in 1..=7 {
        bench.begin(MS, "a", id);
    }
    assert_eq!(bench.open(), (7, 1));
    assert_eq!(
        bench.run(MS, 0).iter().map(|(_, id, _)| *id).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    assert_eq!(
        bench.run(MS, 0).iter().map(|(_, id, _)| *id).collect::<Vec<_>>(),
        [5, 6]
    );
}

#[test]
fn a_tenant_of_many_shapes_waits_with_so_many_and_the_rest_come_later() {
    let many = u32::try_from(MAX_PLACES).unwrap() + 6;
    let wide = |sequence: &mut SequenceBatching| sequence.max_sequences_per_tenant = many;
    let mut bench = Bench::new(1, &config(many, wide));
    for id in 1..=u64::from(many) {
        let shape = |item: &mut Item<u32>| item.shape = ShapeKey::of([[1, id].as_slice()].into_iter());
        bench.offer_with(MS, ("a", id), (true, true), shape).unwrap();
    }
    assert_eq!(bench.scheduler.waiting.groups().count(), MAX_PLACES);
    let ran: usize = (0..many).map(|_| bench.run(MS, 0).len()).sum();
    assert_eq!(ran, many as usize);
    assert!(bench.scheduler.sequences.is_bare());
}

#[test]
fn a_batch_of_a_model_that_keeps_its_states_itself_is_of_one_tenant() {
    let begin = |mut bench: Bench| {
        for (tenant, id) in [("a", 1), ("b", 1), ("a", 2)] {
            bench.begin(MS, tenant, id);
        }
        (bench.run(MS, 0).len(), bench.run(MS, 0).len())
    };
    assert_eq!(begin(Bench::new(1, &config(4, |_| {}))), (2, 1));
    assert_eq!(begin(Bench::movable(1, &config(4, |_| {}))), (3, 0));
}

#[test]
fn steps_of_an_isolated_tenant_share_no_batch() {
    let mut bench = Bench::movable(1, &config(4, |_| {}));
    let isolated = |item: &mut Item<u32>| {
        item.standing.share = TenantShare {
            weight: 1,
            isolated: true,
        };
    };
    bench.offer_with(MS, ("a", 1), (true, false), isolated).unwrap();
    bench.begin(MS, "b", 1);
    assert_eq!((bench.run(MS, 0).len(), bench.run(MS, 0).len()), (1, 1));
}

#[test]
fn cancelled_steps_leave_the_line_of_their_sequence() {
    let mut bench = Bench::new(1, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    bench.offer(MS, ("a", 1), (false, false)).unwrap();
    let gone = bench.scheduler.sweep(bench.start + MS, |payload| *payload == 1);
    let gone: Vec<_> = gone.into_iter().map(|(item, why)| (item.payload, why)).collect();
    assert_eq!(gone, [(1, Gone::Cancelled), (2, Gone::Behind)]);
    bench.run(MS, 0);
    assert_eq!(bench.open(), (1, 0));
}

#[test]
fn there_are_so_many_sequences_and_no_more() {
    let mut bench = Bench::new(1, &config(4, |_| {}));
    bench.begin(MS, "a", 1);
    let model = bench.scheduler.models.find(&"m").unwrap();
    let (tenant, id) = (TenantId::parse("z").unwrap(), CorrelationId::Number(1));
    for number in 0..u64::try_from(MAX_SEQUENCES).unwrap() - 2 {
        let line = Sequence::new(model, tenant.clone(), id.clone());
        bench.scheduler.sequences.lines.insert(1_000_000 + number, line);
    }
    bench.begin(MS, "a", 2);
    assert_eq!(bench.offer(MS, ("a", 3), (true, false)), Err(RefusedFor::Full));
    assert!(bench.offer(MS, ("a", 2), (false, false)).is_ok());
}

/// Each sequence has a row of its own.
fn ready(sequence: &mut SequenceBatching) {
    let control = Control {
        kind: ControlKind::Ready,
        int32_false_true: vec![0, 1],
        fp32_false_true: Vec::new(),
        bool_false_true: Vec::new(),
        data_type: None,
    };
    let (name, control) = ("READY".to_owned(), vec![control]);
    sequence.control_input.push(ControlInput { name, control });
}

#[test]
fn rows_without_a_request_take_their_time_as_well() {
    let predicted = |config: &ModelConfig, rows: u32| {
        let mut bench = Bench::new(1, config);
        let sweep = [(1, MS), (4, 4 * MS), (8, 8 * MS)];
        bench.scheduler.seed(&"m", &ShapeKey::default(), &sweep);
        for id in 1..=4 {
            bench.begin(MS, "a", id);
        }
        bench.run(MS, 0);
        // Only the last of four rows has a request.
        let hurry = |item: &mut Item<u32>| item.deadline = item.arrived + 3 * MS;
        let admitted = bench.offer_with(2 * MS, ("a", 4), (false, false), hurry);
        if admitted.is_err() {
            bench.offer(2 * MS, ("a", 4), (false, false)).unwrap();
        }
        let batch = bench.poll(2 * MS, 0).0.unwrap();
        let outcome = Outcome {
            busy: batch.predicted.unwrap(),
            telling: true,
            too_large: None,
        };
        let at = bench.start + 2 * MS;
        bench
            .scheduler
            .finished_steps(at, batch.id, outcome, &[Some(StepResult::Ran)]);
        let learnt = bench.scheduler.learnt().next().unwrap().2.mean(rows);
        (admitted.is_ok(), batch.predicted.unwrap(), learnt.unwrap())
    };
    let (admitted, padded, one) = predicted(&config(8, ready), 1);
    assert!(!admitted && padded > 2 * MS && one == MS, "{padded:?} {one:?}");
    let (admitted, alone, _) = predicted(&config(8, |_| {}), 1);
    assert!(admitted && alone == MS, "{alone:?}");
}

#[test]
fn a_model_that_pauses_gives_back_what_waits_and_keeps_what_is_not_its_own() {
    let mut bench = Bench::movable(1, &config(2, |_| {}));
    for (tenant, id) in [("a", 1), ("b", 2)] {
        bench.begin(MS, tenant, id);
    }
    assert_eq!(bench.run(MS, 0).len(), 2);
    bench.offer(2 * MS, ("a", 1), (false, false)).unwrap();
    bench.offer(2 * MS, ("a", 1), (false, false)).unwrap();
    // One begins anew and one waits for a seat: neither has run.
    bench.begin(2 * MS, "b", 2);
    bench.begin(2 * MS, "c", 3);
    let until = bench.start + 10 * IDLE;
    let given_back = bench.scheduler.pause_model(&"m", until);
    assert_eq!(given_back.len(), 4);
    assert_eq!(bench.open(), (1, 0));
    assert_eq!(bench.scheduler.waiting(&"m"), 0);
    // It is idle from the end of the pause on.
    assert!(bench.poll(11 * IDLE - MS, 0).1.is_empty());
    bench.offer(11 * IDLE - MS, ("a", 1), (false, false)).unwrap();
    assert_eq!(bench.run(11 * IDLE - MS, 0).len(), 1);
    bench.poll(13 * IDLE, 0);
    let ended = bench.ended();
    assert_eq!(ended.last(), Some(&(1, Some(Aborted::Idle))));
    assert_eq!(
        ended.iter().filter(|(_, why)| *why == Some(Aborted::NotBegun)).count(),
        2
    );
    assert!(bench.scheduler.sequences.is_bare() && bench.scheduler.waiting.is_bare());
}

#[test]
fn what_runs_while_its_model_pauses_counts() {
    let mut bench = Bench::movable(1, &config(2, |_| {}));
    bench.begin(MS, "a", 1);
    let batch = bench.poll(MS, 0).0.unwrap();
    bench.offer(MS, ("a", 1), (false, true)).unwrap();
    assert_eq!(bench.scheduler.pause_model(&"m", bench.start + IDLE).len(), 1);
    let (at, outcome) = (bench.start + 2 * MS, Outcome::default());
    bench
        .scheduler
        .finished_steps(at, batch.id, outcome, &[Some(StepResult::Ran)]);
    assert_eq!(bench.open(), (1, 0));
    assert!(bench.offer(3 * MS, ("a", 1), (false, true)).is_ok());
    // One that keeps its states itself takes them along.
    let mut bench = Bench::new(1, &config(2, |_| {}));
    bench.begin(MS, "a", 1);
    assert_eq!(bench.scheduler.pause_model(&"m", bench.start + IDLE).len(), 1);
    assert!(!bench.scheduler.knows(&"m"));
}

#[test]
fn a_model_that_is_removed_gives_all_back() {
    let mut bench = Bench::new(1, &config(2, |_| {}));
    for id in 1..=3 {
        bench.begin(MS, "a", id);
        bench.offer(MS, ("a", id), (false, true)).unwrap();
    }
    assert_eq!(bench.scheduler.remove_model(&"m").len(), 6);
    assert!(bench.scheduler.waiting.is_bare() && !bench.scheduler.has_sequences());
    assert!(bench.scheduler.is_empty());
    assert_eq!(bench.ended().len(), 3);
}

/// Four sequences of two tenants in the seats of one instance, whose first batch found memory for two rows only.
fn short_of_memory(mut bench: Bench) -> Bench {
    for (tenant, id) in [("a", 1), ("b", 2), ("a", 3), ("b", 4)] {
        bench.begin(MS, tenant, id);
    }
    let batch = bench.poll(MS, 0).0.unwrap();
    let too_large = Some(TooLarge { rows: 3, fitted: 2 });
    let outcome = Outcome {
        busy: MS,
        telling: false,
        too_large,
    };
    let ran = vec![Some(StepResult::Ran); batch.items.len()];
    bench
        .scheduler
        .finished_steps(bench.start + MS, batch.id, outcome, &ran);
    // Where states are the model's, each tenant has a batch of its own.
    bench.run(MS, 0);
    bench
}

fn slots(gave: &Gave) -> Vec<u32> {
    let mut slots: Vec<u32> = gave.iter().map(|(.., slot)| *slot).collect();
    slots.sort_unstable();
    slots
}

#[test]
fn where_memory_runs_out_sequences_move_to_the_rows_that_fit_and_wait_for_them() {
    let mut bench = short_of_memory(Bench::movable(1, &config(4, ready)));
    assert_eq!(bench.open(), (4, 0), "nobody is ended for it");
    for (tenant, id) in [("a", 1), ("b", 2), ("a", 3), ("b", 4)] {
        bench.offer(2 * MS, (tenant, id), (false, false)).unwrap();
    }
    assert_eq!(slots(&bench.run(2 * MS, 0)), [0, 1]);
    assert_eq!(bench.open(), (4, 2));
    // As seats become free, those that wait take them, and none beyond.
    for (tenant, id) in [("a", 1), ("b", 2)] {
        bench.offer(3 * MS, (tenant, id), (false, true)).unwrap();
    }
    assert_eq!(slots(&bench.run(3 * MS, 0)), [0, 1]);
    assert_eq!(slots(&bench.run(4 * MS, 0)), [0, 1]);
    assert_eq!(bench.open(), (2, 0));
    // Where batches go well for long, one more is tried, up to all.
    for round in 0..200 {
        let at = 5 * MS + MS * round;
        for (tenant, id) in [("a", 3), ("b", 4)] {
            bench.offer(at, (tenant, id), (false, false)).unwrap();
        }
        assert_eq!(slots(&bench.run(at, 0)), [0, 1]);
    }
    bench.begin(300 * MS, "a", 5);
    bench.begin(300 * MS, "b", 6);
    assert_eq!(slots(&bench.run(300 * MS, 0)), [2, 3]);
}

#[test]
fn states_that_are_the_models_stay_in_their_rows_and_no_new_sequence_sits_beyond_what_fits() {
    let mut bench = short_of_memory(Bench::new(1, &config(4, ready)));
    for (tenant, id) in [("a", 1), ("b", 2), ("a", 3), ("b", 4)] {
        bench.offer(2 * MS, (tenant, id), (false, tenant == "b")).unwrap();
    }
    // Of the model's own states one tenant's steps are in a batch.
    let mut ran = bench.run(2 * MS, 0);
    ran.extend(bench.run(3 * MS, 0));
    assert_eq!(slots(&ran), [0, 1, 2, 3], "there may be memory again");
    assert_eq!(bench.open(), (2, 0));
    bench.begin(4 * MS, "b", 5);
    bench.begin(4 * MS, "b", 6);
    assert_eq!(slots(&bench.run(4 * MS, 0)), [1]);
    assert_eq!(bench.open(), (4, 1));
}

#[test]
fn where_a_batch_has_as_many_rows_as_steps_seats_stay_as_they_are() {
    let mut bench = short_of_memory(Bench::movable(1, &config(4, |_| {})));
    for (tenant, id) in [("a", 1), ("b", 2), ("a", 3), ("b", 4)] {
        bench.offer(2 * MS, (tenant, id), (false, false)).unwrap();
    }
    assert_eq!(bench.open(), (4, 0));
    assert_eq!((bench.run(2 * MS, 0).len(), bench.run(3 * MS, 0).len()), (2, 2));
}
