//! Splitting a failing batch, on a model that is a closure.

use std::{
    cell::Cell,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use mesh_backend::{BatchInputs, BatchOutputs};
use mesh_types::{
    ArtifactFormat, DataType, Deadline, ExecutionPolicy, InferJob, ManualClock, ModelConfig, ModelId, ModelVersionKey,
    RequestId, Shape, Standing, TenantId, TensorSpec, Version,
};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{ordering::Reply, tests::metered::Meter};

use super::*;
use crate::shared::Queued;

type Behaviour = Arc<dyn Fn(&[f32]) -> Result<Vec<f32>, BackendError> + Send + Sync>;

struct Closure(Behaviour);

impl LoadedModel for Closure {
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        let input = &batch.inputs[0];
        let bytes = input.parts.concat();
        let values: Vec<f32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        let data: Vec<u8> = (self.0)(&values)?.into_iter().flat_map(f32::to_le_bytes).collect();
        let output = Tensor::new(Arc::from("y"), DataType::Fp32, input.shape.clone(), Bytes::from(data));
        Ok(BatchOutputs {
            outputs: vec![output.unwrap()],
        })
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

type Answers = Vec<oneshot::Receiver<Result<JobOutcome, Fault>>>;

/// A thread's surroundings, with a model that does as it is told.
struct Scene {
    clock: Arc<ManualClock>,
    behaviour: Behaviour,
    policy: NonFinite,
    loads: Cell<u32>,
    loads_left: Cell<u32>,
    abandoned: Arc<AtomicBool>,
    /// The values of each execution.
    seen: Arc<Mutex<Vec<Vec<f32>>>>,
}

impl Scene {
    fn new(
        clock: &Arc<ManualClock>,
        behaviour: impl Fn(&[f32]) -> Result<Vec<f32>, BackendError> + Send + Sync + 'static,
    ) -> Self {
        let seen: Arc<Mutex<Vec<Vec<f32>>>> = Arc::default();
        let noted = seen.clone();
        Self {
            clock: clock.clone(),
            behaviour: Arc::new(move |values| {
                noted.lock().push(values.to_vec());
                behaviour(values)
            }),
            policy: NonFinite::Pass,
            loads: Cell::new(0),
            loads_left: Cell::new(u32::MAX),
            abandoned: Arc::default(),
            seen,
        }
    }

    fn queued(&self, values: &[f32], timeout: Duration) -> (Queued, oneshot::Receiver<Result<JobOutcome, Fault>>) {
        let (tenant, model) = (TenantId::parse("t").unwrap(), ModelId::parse("m").unwrap());
        let version = ModelVersionKey {
            tenant: tenant.clone(),
            model,
            version: Version::FIRST,
        };
        let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let rows = u32::try_from(values.len()).unwrap();
        let shape = Shape::from_slice(&[u64::from(rows), 1]);
        let job = InferJob {
            request: RequestId(1),
            tenant,
            version: Arc::new(version),
            inputs: vec![Tensor::new(Arc::from("x"), DataType::Fp32, shape, Bytes::from(data)).unwrap()],
            outputs: Vec::new(),
            rows,
            deadline: Deadline::after(self.clock.now(), timeout),
            standing: Standing::default(),
            sequence: None,
            answers: None,
            trace: TraceContext::default(),
            meter: None,
            parameters: None,
        };
        let (reply, answer) = Reply::channel();
        let arrived = self.clock.now();
        let job = Box::new(job);
        (Queued { job, arrived, reply }, answer)
    }

    fn singles(&self, values: &[f32]) -> (Vec<Queued>, Answers) {
        values.iter().map(|value| self.queued(&[*value], FAR)).unzip()
    }

    fn run(&self, queued: Vec<Queued>) -> Tally {
        let tensor = |name: &str| TensorSpec::new(name, DataType::Fp32, &[1]);
        let config = ModelConfig {
            max_batch_size: 8,
            input: vec![tensor("x")],
            output: vec![tensor("y")],
            execution: Some(ExecutionPolicy {
                non_finite_outputs: self.policy,
                ..ExecutionPolicy::default()
            }),
            ..ModelConfig::default()
        };
        let run = RunBatch::new(1, queued[0].job.version.clone(), queued, Vec::new(), None);
        let spec = LoadSpec {
            key: ModelVersionKey::clone(&run.model),
            config: Arc::new(config),
            artifact: None,
            format: ArtifactFormat::Builtin,
        };
        let mut instance = Instance {
            spec,
            model: Some(Box::new(Closure(self.behaviour.clone()))),
            sequence: None,
            epoch: 1,
        };
        let reload = |_: &LoadSpec| -> LoadResult {
            self.loads.set(self.loads.get() + 1);
            let Some(left) = self.loads_left.get().checked_sub(1) else {
                return Err(BackendError::Load("the file is gone".into()));
            };
            self.loads_left.set(left);
            Ok(Box::new(Closure(self.behaviour.clone())))
        };
        let pulse = Pulse::default();
        let bench = Bench {
            clock: &*self.clock,
            pulse: &pulse,
            limit: FAR,
            reload: &reload,
            abandoned: &|| self.abandoned.load(Ordering::SeqCst),
        };
        let tally = super::run(&bench, &mut instance, &run, None);
        assert_eq!(pulse.due(), None, "no call is left open");
        tally
    }
}

const FAR: Duration = Duration::from_secs(3_600);

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(0))
}

/// The value that each request was answered with, or its fault's text.
fn read(answers: Answers) -> Vec<Result<f32, String>> {
    let one = |mut answer: oneshot::Receiver<Result<JobOutcome, Fault>>| match answer.try_recv() {
        Ok(Ok(outcome)) => Ok(f32::from_le_bytes(outcome.outputs[0].data[..4].try_into().unwrap())),
        Ok(Err(fault)) => Err(fault.message.into_owned()),
        Err(_) => Err("no answer".to_owned()),
    };
    answers.into_iter().map(one).collect()
}

fn fails_on_negative(values: &[f32]) -> Result<Vec<f32>, BackendError> {
    if values.iter().any(|value| *value < 0.0) {
        return Err(BackendError::Execution("below zero".into()));
    }
    Ok(values.to_vec())
}

#[test]
fn one_bad_request_fails_alone_wherever_it_stands() {
    for bad in 0..8u8 {
        let scene = Scene::new(&clock(), fails_on_negative);
        let values: Vec<f32> = (0..8)
            .map(|index| if index == bad { -1.0 } else { f32::from(index) })
            .collect();
        let (queued, answers) = scene.singles(&values);
        let tally = scene.run(queued);
        for (index, answer) in read(answers).into_iter().enumerate() {
            match answer {
                Ok(value) => assert!(index != usize::from(bad) && value == values[index]),
                Err(text) => assert!(index == usize::from(bad) && text.contains("below zero"), "{text}"),
            }
        }
        assert_eq!((tally.success.count, tally.fail.count, tally.executions), (7, 1, 7));
        assert!(!tally.crashed && tally.whole().is_none());
    }
}

#[test]
fn a_batch_of_bad_requests_only_costs_at_most_twice_its_requests() {
    let scene = Scene::new(&clock(), fails_on_negative);
    let (queued, answers) = scene.singles(&[-1.0; 8]);
    let tally = scene.run(queued);
    assert_eq!((tally.executions, tally.fail.count, tally.ended_well()), (15, 8, false));
    assert!(read(answers).iter().all(Result::is_err));
}

#[test]
fn a_panic_is_split_too_and_the_model_loaded_anew_each_time() {
    let scene = Scene::new(&clock(), |values| {
        assert!(values.iter().all(|value| *value >= 0.0), "below zero");
        Ok(values.to_vec())
    });
    let (queued, answers) = scene.singles(&[1.0, -2.0, 3.0]);
    let tally = scene.run(queued);
    let answers = read(answers);
    assert_eq!((&answers[0], &answers[2]), (&Ok(1.0), &Ok(3.0)));
    assert!(answers[1].as_ref().unwrap_err().contains("the model panicked"));
    assert!(tally.crashed && tally.ended_well());
    assert_eq!(scene.loads.get(), 3, "after each of the three panics");
}

#[test]
fn a_model_that_does_not_load_again_leaves_nobody_without_an_answer() {
    let scene = Scene::new(&clock(), |values| {
        assert!(values.iter().all(|value| *value >= 0.0), "below zero");
        Ok(values.to_vec())
    });
    scene.loads_left.set(0);
    let (queued, answers) = scene.singles(&[1.0, -2.0, 3.0, 4.0]);
    let tally = scene.run(queued);
    for answer in read(answers) {
        assert!(answer.unwrap_err().contains("did not load again"));
    }
    assert_eq!((tally.executions, tally.fail.count), (1, 4));
    assert!(tally.crashed && !tally.ended_well());
}

#[test]
fn out_of_memory_is_tried_in_halves_and_the_fewest_rows_that_did_not_fit_are_told() {
    let scene = Scene::new(&clock(), |values| {
        if values.len() > 2 {
            return Err(BackendError::OutOfMemory("full".into()));
        }
        Ok(values.to_vec())
    });
    let (mut queued, mut answers) = scene.singles(&[1.0, 2.0, 3.0, 4.0]);
    let (large, too_large) = scene.queued(&[5.0, 6.0, 7.0], FAR);
    queued.push(large);
    answers.push(too_large);
    let tally = scene.run(queued);
    let answers = read(answers);
    assert_eq!(answers[..4], [Ok(1.0), Ok(2.0), Ok(3.0), Ok(4.0)]);
    assert!(
        answers[4].as_ref().unwrap_err().contains("out of memory"),
        "it does not fit alone"
    );
    assert_eq!(tally.oom_rows, Some(3));
    assert_eq!(tally.out_of_memory, 4, "7 rows, 3 rows, 4 rows, 3 rows");
}

#[test]
fn who_is_late_or_gone_leaves_before_the_next_try() {
    let clock = clock();
    let (moved, dropped) = (clock.clone(), Arc::new(Mutex::new(None)));
    let gone = dropped.clone();
    let scene = Scene::new(&clock, move |values| {
        moved.advance(Duration::from_secs(1));
        drop(gone.lock().take());
        fails_on_negative(values)
    });
    let (mut queued, mut answers) = scene.singles(&[1.0, -1.0]);
    let (late, late_answer) = scene.queued(&[2.0], Duration::from_secs(1));
    let (left, left_answer) = scene.queued(&[3.0], FAR);
    queued.extend([late, left]);
    answers.push(late_answer);
    *dropped.lock() = Some(left_answer);
    let tally = scene.run(queued);
    let answers = read(answers);
    assert_eq!(answers[0], Ok(1.0));
    assert!(answers[2].as_ref().unwrap_err().contains("deadline"));
    assert_eq!(
        (tally.expired, tally.cancelled, tally.success.count, tally.fail.count),
        (1, 1, 1, 1)
    );
    let seen = scene.seen.lock();
    assert!(seen[1..].iter().flatten().all(|value| *value < 2.0), "{seen:?}");
}

#[test]
fn a_batch_that_nobody_waits_for_does_not_run() {
    let scene = Scene::new(&clock(), fails_on_negative);
    let (queued, answers) = scene.singles(&[1.0, 2.0]);
    drop(answers);
    let tally = scene.run(queued);
    assert_eq!((tally.executions, tally.cancelled), (0, 2));
}

#[test]
fn a_thread_that_was_given_up_does_not_try_again() {
    let abandoned: Arc<AtomicBool> = Arc::default();
    let given_up = abandoned.clone();
    let mut scene = Scene::new(&clock(), move |values| {
        given_up.store(true, Ordering::SeqCst);
        fails_on_negative(values)
    });
    scene.abandoned = abandoned;
    let (queued, answers) = scene.singles(&[-1.0, 2.0]);
    let tally = scene.run(queued);
    assert_eq!(tally.executions, 1);
    drop(answers);
}

#[test]
fn what_comes_back_after_its_thread_was_given_up_is_answered_by_others() {
    let abandoned: Arc<AtomicBool> = Arc::default();
    let given_up = abandoned.clone();
    let mut scene = Scene::new(&clock(), move |values| {
        given_up.store(true, Ordering::SeqCst);
        Ok(values.to_vec())
    });
    scene.abandoned = abandoned;
    let (queued, answers) = scene.singles(&[1.0, 2.0]);
    let tally = scene.run(queued);
    assert_eq!((tally.executions, tally.success.count), (1, 0));
    assert!(
        read(answers)
            .iter()
            .all(|answer| answer.as_ref() == Err(&"no answer".to_owned()))
    );
}

#[test]
fn not_finite_answers_pass_are_counted_or_fail_alone() {
    let cases = [
        (NonFinite::Pass, 2, 0, 0),
        (NonFinite::Count, 2, 0, 1),
        (NonFinite::Fail, 1, 1, 1),
    ];
    for (policy, success, fail, counted) in cases {
        let mut scene = Scene::new(&clock(), |values| Ok(values.iter().map(|value| value.sqrt()).collect()));
        scene.policy = policy;
        let (queued, answers) = scene.singles(&[-4.0, 4.0]);
        let tally = scene.run(queued);
        assert_eq!((tally.success.count, tally.fail.count), (success, fail), "{policy:?}");
        assert_eq!(tally.non_finite, counted, "{policy:?}");
        let answers = read(answers);
        assert_eq!(answers[1], Ok(2.0));
        match &answers[0] {
            Ok(value) => assert!(value.is_nan() && policy != NonFinite::Fail),
            Err(text) => assert!(text.contains("NaN") && policy == NonFinite::Fail),
        }
        assert_eq!(tally.executions, 1, "nothing is run again for it");
    }
}

#[test]
fn members_pay_for_their_executions_by_their_rows_whatever_comes_of_them() {
    let clock = clock();
    let time = clock.clone();
    let scene = Scene::new(&clock, move |values| {
        time.advance(Duration::from_millis(40));
        fails_on_negative(values)
    });
    let ((mut one, _first), (mut three, _second)) = (scene.queued(&[1.0], FAR), scene.queued(&[1.0, 2.0, -3.0], FAR));
    let (mut late, _third) = scene.queued(&[1.0], Duration::ZERO);
    let meters = [Meter::put(&mut one), Meter::put(&mut three), Meter::put(&mut late)];
    let (unmetered, _fourth) = scene.queued(&[5.0; 4], FAR);
    // Eight rows at first; then those of the first half, and the fourth alone.
    scene.run(vec![one, three, late, unmetered]);
    let paid: Vec<_> = meters.iter().map(|meter| meter.paid().as_millis()).collect();
    assert_eq!(paid, [5 + 10 + 40, 15 + 30 + 40, 0]);
    let begun: Vec<_> = meters.iter().map(|meter| meter.has_begun()).collect();
    assert_eq!(begun, [true, true, false], "who is too late for a device has not begun");
}

#[test]
fn an_execution_that_nobody_waits_for_is_paid_for() {
    let clock = clock();
    let (time, abandoned) = (clock.clone(), Arc::new(AtomicBool::new(false)));
    let hangs = abandoned.clone();
    let mut scene = Scene::new(&clock, move |values| {
        time.advance(Duration::from_millis(7));
        hangs.store(true, Ordering::SeqCst);
        Ok(values.to_vec())
    });
    scene.abandoned = abandoned;
    let (mut queued, answer) = scene.queued(&[1.0], FAR);
    let meter = Meter::put(&mut queued);
    scene.run(vec![queued]);
    drop(answer);
    assert_eq!(meter.paid().as_millis(), 7);
}
