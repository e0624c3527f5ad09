//! What holds of sequences whatever comes, in simulated time.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use mesh_types::{
    Control, ControlInput, ControlKind, CorrelationId, DataType, ModelConfig, SequenceBatching, SequenceStep, Standing,
    StrategyOldest, TenantId, TenantShare,
};
use proptest::prelude::*;

use super::*;
use crate::{Batch, BatchRules, Outcome, Scheduler, ShapeKey};

const MS: Duration = Duration::from_millis(1);
const TENANTS: [&str; 3] = ["a", "b", "c"];
const PLACES: usize = 2;

#[derive(Debug, Clone)]
enum Act {
    Offer {
        tenant: usize,
        id: u64,
        start: bool,
        end: bool,
        extent: u64,
        slack: u64,
        batch_class: bool,
    },
    Wait(u64),
    Poll(usize),
    Finish(u8),
    Cancel(usize),
    Turn(usize),
    Close(bool),
    Abort,
    Pause(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let flags = (prop::bool::weighted(0.3), prop::bool::weighted(0.2));
    let offer = (0..3_usize, 1..5_u64, flags, 0..2_u64, 1..60_u64, any::<bool>());
    prop_oneof![
        12 => offer.prop_map(|(tenant, id, (start, end), extent, slack, batch_class)| Act::Offer {
            tenant, id, start, end, extent, slack, batch_class,
        }),
        2 => (1..15_u64).prop_map(Act::Wait),
        6 => (0..PLACES).prop_map(Act::Poll),
        6 => (0..10_u8).prop_map(Act::Finish),
        1 => (0..200_usize).prop_map(Act::Cancel),
        1 => (0..PLACES).prop_map(Act::Turn),
        1 => any::<bool>().prop_map(Act::Close),
        1 => Just(Act::Abort),
        1 => (0..30_u64).prop_map(Act::Pause),
    ]
}

#[derive(Debug, Clone)]
struct Setup {
    oldest: Option<u32>,
    tells: bool,
    movable: bool,
    delay: u64,
}

fn setup() -> impl Strategy<Value = Setup> {
    (prop::option::of(1..6_u32), any::<bool>(), any::<bool>(), 0..5_u64).prop_map(|(oldest, tells, movable, delay)| {
        Setup {
            oldest,
            tells,
            movable,
            delay,
        }
    })
}

fn rules(setup: &Setup) -> BatchRules {
    let corrid = Control {
        kind: ControlKind::Corrid,
        int32_false_true: Vec::new(),
        fp32_false_true: Vec::new(),
        bool_false_true: Vec::new(),
        data_type: Some(DataType::Uint64),
    };
    let control = ControlInput {
        name: "CORRID".to_owned(),
        control: vec![corrid],
    };
    let config = ModelConfig {
        max_batch_size: 3,
        sequence_batching: Some(SequenceBatching {
            oldest: setup.oldest.map(|max_candidate_sequences| StrategyOldest {
                max_candidate_sequences,
                max_queue_delay_microseconds: setup.delay * 1_000,
                ..StrategyOldest::default()
            }),
            max_sequence_idle_microseconds: 20_000,
            control_input: if setup.tells { vec![control] } else { Vec::new() },
            ..SequenceBatching::default()
        }),
        ..ModelConfig::default()
    };
    let mut rules = BatchRules::of(&config, 30);
    rules.sequence.as_mut().unwrap().movable = setup.movable;
    rules
}

type Name = (String, u64);

/// A world around the scheduler that checks everything that leaves it.
struct World {
    now: Instant,
    setup: Setup,
    scheduler: Scheduler<&'static str, usize>,
    /// By payload: whose it is, and whether it starts a sequence.
    waiting: BTreeMap<usize, (Name, bool)>,
    cancelled: BTreeSet<usize>,
    running: Vec<(usize, Batch<&'static str, usize>)>,
    ready: [bool; PLACES],
    /// The last payload of each name that went into a batch.
    last: BTreeMap<Name, usize>,
    offered: usize,
    left: usize,
}

impl World {
    fn new(setup: Setup) -> Self {
        let mut scheduler = Scheduler::new(PLACES);
        scheduler.add_model("m", rules(&setup));
        scheduler.set_instances(&"m", PLACES, |_| true);
        Self {
            now: Instant::now(),
            setup,
            scheduler,
            waiting: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            running: Vec::new(),
            ready: [true; PLACES],
            last: BTreeMap::new(),
            offered: 0,
            left: 0,
        }
    }

    fn act(&mut self, act: &Act) {
        match act {
            Act::Offer {
                tenant,
                id,
                start,
                end,
                extent,
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
                            mesh_types::ServiceClass::Batch
                        } else {
                            mesh_types::ServiceClass::Interactive
                        },
                        ..Standing::default()
                    },
                    rows: 1,
                    shape: ShapeKey::of([[1, *extent].as_slice()].into_iter()),
                    arrived: self.now,
                    deadline: self.now + MS * u32::try_from(*slack).unwrap(),
                };
                let step = SequenceStep {
                    id: CorrelationId::Number(*id),
                    start: *start,
                    end: *end,
                };
                if self.scheduler.offer_step(self.now, &"m", item, &step).is_ok() {
                    let name = (TENANTS[*tenant].to_owned(), *id);
                    self.waiting.insert(self.offered, (name, *start));
                    self.offered += 1;
                }
            }
            Act::Wait(milliseconds) => self.now += MS * u32::try_from(*milliseconds).unwrap(),
            Act::Poll(place) => self.poll(*place),
            Act::Finish(how) => self.finish(*how),
            Act::Cancel(payload) => {
                self.cancelled.insert(*payload);
                let cancelled = self.cancelled.clone();
                let gone = self.scheduler.sweep(self.now, |payload| cancelled.contains(payload));
                self.leave(gone);
            }
            Act::Turn(place) => {
                self.ready[*place] = !self.ready[*place];
                let ready = self.ready;
                self.scheduler.set_instances(&"m", PLACES, |place| ready[place]);
            }
            Act::Close(closing) => self.scheduler.close_sequences(&"m", *closing),
            Act::Pause(milliseconds) => self.pause(self.now + MS * u32::try_from(*milliseconds).unwrap()),
            Act::Abort => self.scheduler.abort_sequences(&"m", Aborted::Closed),
        }
        self.look();
    }

    fn pause(&mut self, until: Instant) {
        let items = self.scheduler.pause_model(&"m", until);
        self.left += items.len();
        for item in items {
            assert!(self.waiting.remove(&item.payload).is_some(), "leaves once");
        }
        if !self.setup.movable {
            let ready = self.ready;
            self.scheduler.add_model("m", rules(&self.setup));
            self.scheduler.set_instances(&"m", PLACES, |place| ready[place]);
        }
    }

    fn poll(&mut self, place: usize) {
        let (ready, cancelled) = (self.ready, self.cancelled.clone());
        let decision = self
            .scheduler
            .poll(self.now, place, |_| ready[place], |payload| cancelled.contains(payload));
        self.leave(decision.gone);
        let Some(batch) = decision.batch else { return };
        assert!(ready[place]);
        assert!(batch.items.len() <= 3 && batch.items.len() == batch.seats.len());
        let slots: BTreeSet<u32> = batch.seats.iter().map(|seat| seat.slot).collect();
        assert_eq!(slots.len(), batch.seats.len(), "a seat has one sequence");
        let most = self.setup.oldest.unwrap_or(3);
        assert!(slots.iter().all(|slot| *slot < most));
        for item in &batch.items {
            let (name, _) = self.waiting.remove(&item.payload).expect("leaves once");
            assert_eq!(name.0, item.tenant.as_str());
            let before = self.last.insert(name, item.payload);
            assert!(before.is_none_or(|before| before < item.payload), "steps run in order");
            let others = self.running.iter().flat_map(|(_, batch)| &batch.seats);
            let mine: Vec<u64> = batch.seats.iter().map(|seat| seat.sequence).collect();
            for other in others {
                assert!(!mine.contains(&other.sequence), "one step of a sequence at a time");
            }
        }
        let isolated = batch.items.iter().filter(|item| item.tenant.as_str() == "a").count();
        assert!(isolated == 0 || isolated == batch.items.len());
        let mut tenants = batch.items.iter().map(|item| &item.tenant);
        let first = tenants.next();
        assert!(self.setup.movable || tenants.all(|tenant| Some(tenant) == first));
        self.running.push((place, batch));
    }

    fn finish(&mut self, how: u8) {
        if self.running.is_empty() {
            return;
        }
        let (_, batch) = self.running.remove(usize::from(how) % self.running.len());
        let result = match how {
            0 => StepResult::NotRun,
            1 => StepResult::Lost,
            _ => StepResult::Ran,
        };
        let results = vec![Some(result); batch.items.len()];
        let results = if how == 2 { Vec::new() } else { results };
        let outcome = Outcome {
            busy: MS,
            telling: true,
            too_large: None,
        };
        self.left += batch.items.len();
        self.scheduler.finished_steps(self.now, batch.id, outcome, &results);
    }

    fn leave(&mut self, gone: Vec<(Item<usize>, Gone)>) {
        for (item, why) in gone {
            assert!(self.waiting.remove(&item.payload).is_some(), "leaves once");
            if why == Gone::Expired {
                assert!(item.deadline <= self.now);
            }
            self.left += 1;
        }
    }

    /// What must hold at every moment.
    fn look(&self) {
        let running: usize = self.running.iter().map(|(_, batch)| batch.items.len()).sum();
        let given_out = self.left + running + self.waiting.len();
        assert_eq!(self.offered, given_out, "nothing is lost");
        self.scheduler.assert_priced();
        let sequences = &self.scheduler.sequences;
        for desk in sequences.desks.values() {
            let bound = desk.bound();
            for tenant in TENANTS {
                let tenant = TenantId::parse(tenant).unwrap();
                // Instances that went have taken seats of the bound with them.
                let all_ready = self.ready.iter().all(|ready| *ready);
                assert!(!all_ready || desk.seats_of(&tenant) <= bound);
            }
            for instance in &desk.instances {
                for (slot, number) in &instance.taken {
                    let line = &sequences.lines[number];
                    assert_eq!(line.seat.map(|seat| seat.slot), Some(*slot));
                }
            }
            let backlog: BTreeSet<u64> = desk.backlog.values().flat_map(BTreeMap::values).copied().collect();
            assert_eq!(desk.counts().backlog, backlog.len());
            for (number, line) in &sequences.lines {
                let waits = line.seat.is_none() && !line.steps.is_empty() && line.under_way.is_none();
                assert_eq!(waits, backlog.contains(number), "{number} {line:?}");
                let idles = line.steps.is_empty() && line.under_way.is_none();
                assert_eq!(idles, line.idle_at.is_some(), "{number} {line:?}");
                assert!(line.steps.is_empty() || line.idle_at.is_none());
            }
        }
    }

    /// In the end everything is answered, and nothing is left.
    fn end(mut self) {
        self.ready = [true; PLACES];
        self.scheduler.close_sequences(&"m", false);
        self.scheduler.set_instances(&"m", PLACES, |_| true);
        for _ in 0..300 {
            for place in 0..PLACES {
                self.poll(place);
            }
            while !self.running.is_empty() {
                self.finish(3);
            }
            self.now += MS;
        }
        self.look();
        assert!(self.waiting.is_empty(), "{:?}", self.waiting);
        assert!(self.scheduler.waiting.is_bare() && self.scheduler.sequences.is_bare());
        assert!(self.scheduler.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn steps_run_in_order_one_at_a_time_and_each_leaves_once(
        setup in setup(),
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let mut world = World::new(setup);
        acts.iter().for_each(|act| world.act(act));
        world.end();
    }
}
