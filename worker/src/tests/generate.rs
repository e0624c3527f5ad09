//! A decoupled model's batch, on a model that is a closure.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use mesh_backend::{BatchInputs, BatchOutputs, LoadSpec, LoadedModel};
use mesh_types::{
    Answers, ArtifactFormat, Clock, DataType, Deadline, ExecutionPolicy, InferJob, ManualClock, ModelId,
    ModelTransactionPolicy, ModelVersionKey, RequestId, Shape, Standing, TenantId, TensorSpec, Version,
};
use proptest::prelude::*;
use tokio::sync::oneshot;

use super::*;
use crate::{
    execute::{Instance, LoadResult},
    ordering::Reply,
    pulse::Pulse,
    shared::Queued,
    tests::metered::Meter,
};

type Behaviour = Arc<dyn Fn(&Requests<'_>, &mut dyn AnswerSink) -> Result<(), BackendError> + Send + Sync>;

struct Closure(Behaviour);

impl LoadedModel for Closure {
    fn execute(&mut self, _: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        panic!("a decoupled model is not executed")
    }

    fn generate(&mut self, requests: &Requests<'_>, answers: &mut dyn AnswerSink) -> Result<(), BackendError> {
        (self.0)(requests, answers)
    }

    fn memory_bytes(&self) -> u64 {
        0
    }
}

const FAR: Duration = Duration::from_secs(3_600);

/// Somebody who has asked.
struct Asker {
    answers: Answers,
    end: oneshot::Receiver<Result<JobOutcome, Fault>>,
}

impl Asker {
    /// The values of all answers that are there, and how the request has ended.
    fn heard(&mut self) -> (Vec<f32>, Option<Result<(), String>>) {
        let mut values = Vec::new();
        while let Poll::Ready(outputs) = self.answers.poll_next(&mut Context::from_waker(Waker::noop())) {
            values.extend(outputs.iter().map(|output| {
                let bytes: [u8; 4] = output.data[..4].try_into().unwrap();
                f32::from_le_bytes(bytes)
            }));
        }
        let end = self.end.try_recv().ok();
        let end = end.map(|end| end.map(drop).map_err(|fault| fault.message.into_owned()));
        (values, end)
    }
}

fn value(number: f32) -> Vec<Tensor> {
    let shape = Shape::from_slice(&[1, 1]);
    let data = Bytes::copy_from_slice(&number.to_le_bytes());
    vec![Tensor::new(Arc::from("y"), DataType::Fp32, shape, data).unwrap()]
}

struct Scene {
    clock: Arc<ManualClock>,
    abandoned: AtomicBool,
    policy: NonFinite,
    pulse: Pulse,
}

impl Scene {
    fn new() -> Self {
        Self {
            clock: Arc::new(ManualClock::at(0)),
            abandoned: AtomicBool::new(false),
            policy: NonFinite::Pass,
            pulse: Pulse::default(),
        }
    }

    fn queued(&self, number: f32, timeout: Duration) -> (Queued, Asker) {
        let (tenant, model) = (TenantId::parse("t").unwrap(), ModelId::parse("m").unwrap());
        let version = ModelVersionKey {
            tenant: tenant.clone(),
            model,
            version: Version::FIRST,
        };
        let shape = Shape::from_slice(&[1, 1]);
        let data = Bytes::copy_from_slice(&number.to_le_bytes());
        let (sender, answers) = mesh_types::answers();
        let job = InferJob {
            request: RequestId(1),
            tenant,
            version: Arc::new(version),
            inputs: vec![Tensor::new(Arc::from("x"), DataType::Fp32, shape, data).unwrap()],
            outputs: Vec::new(),
            rows: 1,
            deadline: Deadline::after(self.clock.now(), timeout),
            standing: Standing::default(),
            sequence: None,
            answers: Some(sender),
            trace: TraceContext::default(),
            meter: None,
            parameters: None,
        };
        let (reply, end) = Reply::channel();
        let arrived = self.clock.now();
        let job = Box::new(job);
        (Queued { job, arrived, reply }, Asker { answers, end })
    }

    fn asked(&self, numbers: &[f32]) -> (Vec<Queued>, Vec<Asker>) {
        numbers.iter().map(|number| self.queued(*number, FAR)).unzip()
    }

    fn run(
        &self,
        queued: Vec<Queued>,
        behaviour: impl Fn(&Requests<'_>, &mut dyn AnswerSink) -> Result<(), BackendError> + Send + Sync + 'static,
    ) -> Tally {
        let behaviour: Behaviour = Arc::new(behaviour);
        let tensor = |name: &str| TensorSpec::new(name, DataType::Fp32, &[1]);
        let config = ModelConfig {
            max_batch_size: 8,
            input: vec![tensor("x")],
            output: vec![tensor("y")],
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled: true }),
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
            model: Some(Box::new(Closure(behaviour.clone()))),
            sequence: None,
            epoch: 1,
        };
        let reload = |_: &LoadSpec| -> LoadResult { Ok(Box::new(Closure(behaviour.clone()))) };
        let bench = Bench {
            clock: &*self.clock,
            pulse: &self.pulse,
            limit: FAR,
            reload: &reload,
            abandoned: &|| self.abandoned.load(Ordering::SeqCst),
        };
        let tally = crate::execute::run(&bench, &mut instance, &run, None);
        assert_eq!(self.pulse.due(), None, "no call is left open");
        tally
    }
}

/// The requests' numbers.
fn numbers(requests: &Requests<'_>) -> Vec<f32> {
    let parts = requests.inputs.inputs[0].parts.iter();
    parts
        .map(|part| f32::from_le_bytes((*part).try_into().unwrap()))
        .collect()
}

#[test]
fn each_request_has_its_own_number_of_answers_and_one_end() {
    let scene = Scene::new();
    let (queued, mut askers) = scene.asked(&[2.0, 0.0, 3.0]);
    let tally = scene.run(queued, |requests, answers| {
        assert_eq!(requests.rows, [1, 1, 1]);
        for (request, number) in numbers(requests).into_iter().enumerate() {
            let mut given = 0.0;
            while given < number {
                assert_eq!(answers.answer(request, value(number * 10.0 + given)), Next::More);
                given += 1.0;
            }
        }
        // One ends before the others do, and has no more to say.
        answers.end(0);
        assert_eq!(answers.answer(0, value(99.0)), Next::Stop);
        assert!(!answers.is_wanted(0) && answers.is_wanted(1) && !answers.is_wanted(7));
        assert_eq!(answers.answer(7, value(99.0)), Next::Stop, "nobody's");
        Ok(())
    });
    let heard: Vec<_> = askers.iter_mut().map(Asker::heard).collect();
    assert_eq!(heard[0], (vec![20.0, 21.0], Some(Ok(()))));
    assert_eq!(heard[1], (vec![], Some(Ok(()))));
    assert_eq!(heard[2], (vec![30.0, 31.0, 32.0], Some(Ok(()))));
    assert_eq!((tally.executions, tally.success.count, tally.rows_answered), (1, 3, 3));
    assert_eq!(tally.whole(), None, "it says nothing of how long the next takes");
    let counts = |of: fn(&ResponseSums) -> u64| tally.responses.iter().map(of).collect::<Vec<_>>();
    assert_eq!(counts(|sums| sums.success.count), [2, 2, 1, 0]);
    assert_eq!(counts(|sums| sums.empty_response.count), [1, 0, 1, 1]);
}

#[test]
fn a_fault_after_answers_ends_its_stream_and_the_others_go_on_or_are_run_again() {
    let scene = Scene::new();
    let (queued, mut askers) = scene.asked(&[1.0, 2.0, 3.0]);
    let tally = scene.run(queued, |requests, answers| {
        for (request, number) in numbers(requests).into_iter().enumerate() {
            let _ = answers.answer(request, value(number));
            if number == 1.0 {
                answers.fail(request, BackendError::Execution("one has failed".into()));
            } else if number == 2.0 {
                let _ = answers.answer(request, value(number));
                // All that have not ended: this one, which has had answers, and the third, which has not.
                return Err(BackendError::Execution("all have failed".into()));
            }
        }
        Ok(())
    });
    let heard: Vec<_> = askers.iter_mut().map(Asker::heard).collect();
    let failed = |text: &str| Some(Err(format!("model execution failed: {text}")));
    assert_eq!(heard[0], (vec![1.0], failed("one has failed")));
    assert_eq!(heard[1], (vec![2.0, 2.0], failed("all have failed")));
    assert_eq!(heard[2], (vec![3.0], Some(Ok(()))), "it was run again");
    assert_eq!((tally.executions, tally.fail.count, tally.success.count), (2, 2, 1));
}

#[test]
fn a_panic_after_answers_ends_its_stream_and_others_are_run_again_on_a_new_model() {
    let scene = Scene::new();
    let (queued, mut askers) = scene.asked(&[1.0, 2.0, 3.0]);
    let tally = scene.run(queued, |requests, answers| {
        for (request, number) in numbers(requests).into_iter().enumerate() {
            let _ = answers.answer(request, value(number));
            assert!(number != 1.0, "told to");
        }
        Ok(())
    });
    let heard: Vec<_> = askers.iter_mut().map(Asker::heard).collect();
    assert_eq!(heard[0].0, [1.0]);
    assert!(heard[0].1.as_ref().unwrap().as_ref().unwrap_err().contains("panicked"));
    assert_eq!(heard[1], (vec![2.0], Some(Ok(()))));
    assert_eq!(heard[2], (vec![3.0], Some(Ok(()))));
    assert!(tally.crashed);
}

#[test]
fn who_leaves_has_the_model_stop_at_its_next_answer() {
    let scene = Scene::new();
    let (queued, mut askers) = scene.asked(&[1.0, 2.0]);
    let leaver = std::sync::Mutex::new(Some(askers.remove(0)));
    let tally = scene.run(queued, move |_, answers| {
        assert_eq!(answers.answer(0, value(1.0)), Next::More);
        drop(leaver.lock().unwrap().take());
        assert!(!answers.is_wanted(0));
        assert_eq!(answers.answer(0, value(1.0)), Next::Stop);
        assert_eq!(answers.answer(1, value(2.0)), Next::More, "the other stays");
        Ok(())
    });
    assert_eq!(askers[0].heard(), (vec![2.0], Some(Ok(()))));
    assert_eq!((tally.cancelled, tally.success.count, tally.fail.count), (1, 1, 0));
    assert_eq!(tally.responses[1].cancel.count, 1);
}

#[test]
fn a_deadline_that_passes_between_answers_ends_the_request() {
    let scene = Scene::new();
    let (late, mut asker) = scene.queued(1.0, Duration::from_secs(5));
    let (patient, mut other) = scene.queued(2.0, FAR);
    let clock = scene.clock.clone();
    scene.run(vec![late, patient], move |_, answers| {
        assert_eq!(answers.answer(0, value(1.0)), Next::More);
        clock.advance(Duration::from_secs(5));
        assert_eq!(answers.answer(0, value(1.0)), Next::Stop);
        assert_eq!(answers.answer(1, value(2.0)), Next::More);
        Ok(())
    });
    let (values, end) = asker.heard();
    assert_eq!(values, [1.0]);
    assert!(end.unwrap().unwrap_err().contains("deadline exceeded"));
    assert_eq!(other.heard(), (vec![2.0], Some(Ok(()))));
}

#[test]
fn a_reader_that_leaves_no_room_fails_at_one_answer_more_than_wait_and_holds_up_nobody_for_long() {
    let scene = Scene::new();
    let (queued, mut askers) = scene.asked(&[1.0, 2.0]);
    let began = Instant::now();
    scene.run(queued, move |_, answers| {
        for _ in 0..MAX_WAITING_ANSWERS {
            assert_eq!(answers.answer(0, value(1.0)), Next::More);
        }
        assert_eq!(answers.answer(0, value(1.0)), Next::Stop);
        assert_eq!(answers.answer(1, value(2.0)), Next::More);
        Ok(())
    });
    assert!(began.elapsed() >= SLOW_READER_PATIENCE);
    let (values, end) = askers[0].heard();
    assert_eq!(values.len(), MAX_WAITING_ANSWERS);
    assert!(end.unwrap().unwrap_err().contains("read too slowly"));
    assert_eq!(askers[1].heard(), (vec![2.0], Some(Ok(()))));
}

#[test]
fn as_many_answers_as_may_wait_are_taken_without_a_reader() {
    let scene = Scene::new();
    let (queued, mut askers) = scene.asked(&[1.0]);
    scene.run(queued, move |_, answers| {
        for _ in 0..MAX_WAITING_ANSWERS {
            assert_eq!(answers.answer(0, value(1.0)), Next::More);
        }
        Ok(())
    });
    assert_eq!(askers[0].heard(), (vec![1.0; MAX_WAITING_ANSWERS], Some(Ok(()))));
}

#[test]
fn each_answer_is_a_sign_of_life_and_waiting_for_a_reader_is_no_hang() {
    let scene = Arc::new(Scene::new());
    let (queued, mut askers) = scene.asked(&[1.0]);
    let (within, clock) = (Arc::downgrade(&scene), scene.clock.clone());
    scene.run(queued, move |_, answers| {
        let scene = within.upgrade().unwrap();
        let begun = scene.pulse.due().unwrap();
        clock.advance(Duration::from_secs(60));
        assert_eq!(answers.answer(0, value(1.0)), Next::More);
        assert_eq!(scene.pulse.due(), Some(begun + Duration::from_secs(60)));
        Ok(())
    });
    assert_eq!(askers[0].heard(), (vec![1.0], Some(Ok(()))));
}

#[test]
fn a_thread_that_was_given_up_says_nothing_more() {
    let scene = Arc::new(Scene::new());
    let (queued, mut askers) = scene.asked(&[1.0]);
    let within = Arc::downgrade(&scene);
    scene.run(queued, move |_, answers| {
        within.upgrade().unwrap().abandoned.store(true, Ordering::SeqCst);
        assert_eq!(answers.answer(0, value(1.0)), Next::Stop);
        Ok(())
    });
    assert_eq!(askers[0].heard(), (vec![], None));
}

#[test]
fn an_answer_that_is_not_finite_ends_its_request_where_that_is_looked_for() {
    let scene = Scene {
        policy: NonFinite::Fail,
        ..Scene::new()
    };
    let (queued, mut askers) = scene.asked(&[1.0, 2.0]);
    scene.run(queued, |_, answers| {
        assert_eq!(answers.answer(0, value(f32::NAN)), Next::Stop);
        assert_eq!(answers.answer(1, value(2.0)), Next::More);
        Ok(())
    });
    assert!(askers[0].heard().1.unwrap().unwrap_err().contains("NaN"));
    assert_eq!(askers[1].heard(), (vec![2.0], Some(Ok(()))));
}

#[test]
fn a_job_with_room_for_one_answer_is_refused_and_its_batch_mates_are_not() {
    let scene = Scene::new();
    let (mut queued, mut askers) = scene.asked(&[1.0, 2.0]);
    queued[0].job.answers = None;
    scene.run(queued, |requests, answers| {
        assert_eq!(numbers(requests), [2.0]);
        let _ = answers.answer(0, value(2.0));
        Ok(())
    });
    assert!(askers[0].heard().1.unwrap().unwrap_err().contains("over a stream"));
    assert_eq!(askers[1].heard(), (vec![2.0], Some(Ok(()))));
}

/// What a model does with a request.
#[derive(Debug, Clone, Copy)]
enum Plan {
    /// So many answers, then as it is said.
    Answers(u8, Then),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    Ends,
    Fails,
    Breaks,
    Panics,
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    let then = prop_oneof![
        Just(Then::Nothing),
        Just(Then::Ends),
        Just(Then::Fails),
        Just(Then::Breaks),
        Just(Then::Panics)
    ];
    let plan = (0_u8..5, then).prop_map(|(count, then)| Plan::Answers(count, then));
    prop::collection::vec(plan, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a model does, each request ends once, has its own answers before that, and none twice.
    #[test]
    fn every_request_ends_once_with_its_own_answers(plans in plans()) {
        let scene = Scene::new();
        #[expect(clippy::cast_precision_loss, reason = "few")]
        let names: Vec<f32> = (0..plans.len()).map(|index| index as f32).collect();
        let (queued, mut askers) = scene.asked(&names);
        let told = plans.clone();
        let tally = scene.run(queued, move |requests, answers| {
            for (request, name) in numbers(requests).into_iter().enumerate() {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place")]
                let Plan::Answers(count, then) = told[name as usize];
                for _ in 0..count {
                    let _ = answers.answer(request, value(name));
                }
                match then {
                    Then::Nothing => {}
                    Then::Ends => answers.end(request),
                    Then::Fails => answers.fail(request, BackendError::Execution("told to".into())),
                    Then::Breaks => return Err(BackendError::Execution("told to".into())),
                    Then::Panics => panic!("told to"),
                }
            }
            Ok(())
        });
        prop_assert!(usize::try_from(tally.executions).unwrap() < 2 * plans.len());
        for ((asker, name), Plan::Answers(count, then)) in askers.iter_mut().zip(names).zip(plans) {
            let (values, end) = asker.heard();
            prop_assert!(values.iter().all(|value| *value == name), "another's answers: {values:?}");
            let end = end.expect("it has ended");
            match then {
                Then::Ends => prop_assert!(end.is_ok() && values.len() == usize::from(count)),
                Then::Fails => prop_assert!(end.is_err() && values.len() == usize::from(count)),
                // One that breaks may be run alone again if it has had no answers.
                Then::Breaks | Then::Panics => prop_assert!(end.is_err() && values.len() == usize::from(count)),
                // It goes down with one that broke, if it has had answers by then.
                Then::Nothing => prop_assert!(values.len() == usize::from(count)),
            }
        }
    }
}

#[test]
fn who_is_open_pays_for_the_device_and_who_has_ended_does_not_pay_for_who_goes_on() {
    let scene = Scene::new();
    let (mut queued, mut askers) = scene.asked(&[1.0, 2.0, 3.0]);
    let meters: Vec<Arc<Meter>> = queued.iter_mut().map(Meter::put).collect();
    let leaver = std::sync::Mutex::new(Some(askers.remove(2)));
    let (clock, told) = (scene.clock.clone(), meters.clone());
    scene.run(queued, move |_, answers| {
        assert!(told.iter().all(|meter| meter.has_begun()), "they wait no longer");
        clock.advance(Duration::from_millis(30));
        answers.end(0);
        drop(leaver.lock().unwrap().take());
        clock.advance(Duration::from_millis(8));
        assert_eq!(answers.answer(2, value(3.0)), Next::Stop);
        clock.advance(Duration::from_millis(100));
        Ok(())
    });
    let paid: Vec<_> = meters.iter().map(|meter| meter.paid().as_millis()).collect();
    assert_eq!(paid, [10, 114, 14], "138 between them");
}

#[test]
fn a_generation_that_is_run_again_is_paid_for_twice() {
    let scene = Scene::new();
    let (mut queued, _askers) = scene.asked(&[1.0, 2.0]);
    let meters: Vec<Arc<Meter>> = queued.iter_mut().map(Meter::put).collect();
    let clock = scene.clock.clone();
    scene.run(queued, move |requests, _| {
        clock.advance(Duration::from_millis(6));
        if requests.rows.len() > 1 {
            return Err(BackendError::Execution("only alone".into()));
        }
        Ok(())
    });
    let paid: Vec<_> = meters.iter().map(|meter| meter.paid().as_millis()).collect();
    assert_eq!(paid, [9, 9]);
}
