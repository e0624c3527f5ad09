//! Sequences beside faults and changes: what becomes of their states where a step panics, fails or hangs, where a thread dies,
//! and where their model is configured anew or replaced.

use mesh_types::{CorrelationId, ExecutionPolicy};
use serde_json::{Value, json};

use super::{
    rig::{FAR, Rig, with_rig},
    *,
};
use crate::{
    JobReply, SequenceStatistics,
    sequences::tests::{FIRST, LAST, NEXT, controls, flag, job, key, spec, values},
};

/// How long an execution may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Two steps make a batch; one alone waits for so long.
const DELAY: Duration = Duration::from_secs(1);
/// Values at which the models panic and hang.
const PANICS: i32 = 7;
const HANGS: i32 = 9;
/// Sequences of an instance.
const SEATS: u64 = 4;
const GONE: &str = "the instance that held its state is gone";

/// A model whose steps run two at a time, and which panics and hangs where it is told to.
fn paired(builtin: &str, sequence: &Value) -> LoadSpec {
    let mut whole = json!({
        "oldest": {
            "max_candidate_sequences": SEATS, "preferred_batch_size": [2], "max_queue_delay_microseconds": 1_000_000,
        },
        "max_sequence_idle_microseconds": 3_600_000_000_u64, "max_sequences_per_tenant": SEATS,
    });
    whole
        .as_object_mut()
        .unwrap()
        .extend(sequence.as_object().unwrap().clone());
    changed(spec(builtin, 2, &whole), |config| {
        for (name, value) in [("panic_at", PANICS), ("hang_at", HANGS)] {
            config.parameters.insert(name.into(), ParameterValue::Int(value.into()));
        }
    })
}

fn changed(mut spec: LoadSpec, change: impl FnOnce(&mut ModelConfig)) -> LoadSpec {
    let mut config = ModelConfig::clone(&spec.config);
    change(&mut config);
    spec.config = Arc::new(config);
    spec
}

/// A sum that is kept outside of the model.
fn sum_outside() -> LoadSpec {
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "INT32", "dims": [1]});
    paired("sum_state", &json!({"state": [state]}))
}

/// A sum that the model keeps itself, by correlation id.
fn sum_inside() -> LoadSpec {
    paired("sequence_sum", &json!({"control_input": controls("TYPE_STRING")}))
}

fn number(id: u64) -> CorrelationId {
    CorrelationId::Number(id)
}

fn send(rig: &Rig, (tenant, id): (&str, CorrelationId), flags: (bool, bool), value: i32) -> JobReply {
    let job = InferJob {
        deadline: Deadline::after(SystemClock.now(), FAR),
        ..job(tenant, id, flags, &[value])
    };
    rig.worker.submit(CPU, job).unwrap()
}

async fn read(reply: JobReply) -> Result<Vec<i32>, Fault> {
    reply.await.map(|outcome| values(&outcome.outputs))
}

/// The next steps of a tenant's sequences, in batches of two.
async fn steps<const N: usize>(
    rig: &Rig,
    tenant: &str,
    flags: (bool, bool),
    steps: [(u64, i32); N],
) -> [Result<i32, Fault>; N] {
    let replies = steps.map(|(id, value)| read(send(rig, (tenant, number(id)), flags, value)));
    let answers = futures::future::join_all(replies).await;
    let sums = answers.into_iter().map(|answer| answer.map(|values| values[0]));
    sums.collect::<Vec<_>>().try_into().unwrap()
}

fn ran<const N: usize>(answers: [Result<i32, Fault>; N]) {
    for answer in answers {
        answer.unwrap();
    }
}

fn sequences(rig: &Rig) -> SequenceStatistics {
    let mut device = rig.worker.statistics().devices.remove(0);
    device.models.remove(&key()).unwrap().sequences.unwrap_or_default()
}

fn state_bytes(rig: &Rig) -> u64 {
    rig.worker.statistics().devices[0].sequence_state_bytes
}

/// What is lost is told so, begins anew, and takes nobody's seat.
async fn all_are_lost_and_begin_anew(rig: &Rig, lost: u64) {
    rig.until_statistics(|device| {
        let known = device.models[&key()].sequences.unwrap_or_default();
        (known.lost, known.open) == (lost, 0)
    })
    .await;
    let answers = steps(rig, "a", FIRST, [(1, 5), (2, 6), (3, 7_000), (4, 8)]).await;
    assert_eq!(answers, [Ok(5), Ok(6), Ok(7_000), Ok(8)]);
    let answers = steps(rig, "a", NEXT, [(1, 1), (2, 1), (3, 1), (4, 1)]).await;
    assert_eq!(answers, [Ok(6), Ok(7), Ok(7_001), Ok(9)]);
    assert_eq!(sequences(rig).open, SEATS);
    assert_eq!(sequences(rig).backlog, 0);
}

fn is_refused(answer: &Result<i32, Fault>, why: &str) {
    let fault = answer.as_ref().unwrap_err();
    assert_eq!(fault.class, FaultClass::InvalidArgument, "{fault}");
    assert!(fault.message.contains(why), "{fault}");
}

fn took_too_long(answer: &Result<Vec<i32>, Fault>) {
    let fault = answer.as_ref().unwrap_err();
    assert_eq!(fault.class, FaultClass::Unavailable, "{fault}");
    assert!(fault.message.contains("took too long"), "{fault}");
}

#[test]
fn a_panic_in_a_shared_batch_moves_no_declared_state() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(sum_outside()).await;
        assert_eq!(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await, [Ok(1), Ok(10)]);
        let [culprit, mate] = steps(&rig, "a", NEXT, [(1, PANICS), (2, 20)]).await;
        let culprit = culprit.unwrap_err();
        assert_eq!(culprit.class, FaultClass::Internal, "{culprit}");
        assert!(culprit.message.contains("panicked"), "{culprit}");
        assert_eq!(mate, Ok(30));
        assert_eq!(steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await, [Ok(2), Ok(31)]);
        rig.until_statistics(|device| device.models[&key()].success.count == 5)
            .await;
        assert_eq!(rig.statistics("m").fail.count, 1);
        assert_eq!((sequences(&rig).open, sequences(&rig).lost), (2, 0));
        rig
    });
}

#[test]
fn a_step_that_hangs_leaves_declared_states_where_they_were_also_once_it_comes_back() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(sum_outside()).await;
        assert_eq!(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await, [Ok(1), Ok(10)]);
        rig.hold_hangs();
        let hung = [(1, HANGS), (2, 20)].map(|(id, value)| send(&rig, ("a", number(id)), NEXT, value));
        rig.entered().await;
        rig.advance(LIMIT);
        for reply in hung {
            took_too_long(&read(reply).await);
        }
        rig.until_state("m", ModelState::Ready).await;
        assert_eq!(steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await, [Ok(2), Ok(11)]);
        rig.release();
        rig.until_statistics(|device| device.abandoned == 0).await;
        assert_eq!(steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await, [Ok(3), Ok(12)]);
        assert_eq!(state_bytes(&rig), 8);
        assert_eq!((sequences(&rig).open, sequences(&rig).lost), (2, 0));
        rig
    });
}

#[test]
fn a_panic_loses_the_states_that_the_model_kept_itself() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(sum_inside()).await;
        let begun = steps(&rig, "a", FIRST, [(1, 1), (2, 10), (3, 20), (4, 30)]).await;
        assert_eq!(begun, [Ok(1), Ok(10), Ok(20), Ok(30)]);
        // Nobody can tell any more which of the two it was: what was before is gone for both.
        for lost in steps(&rig, "a", NEXT, [(1, PANICS), (2, 20)]).await {
            is_refused(&lost, "loaded anew");
        }
        for lost in steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await {
            is_refused(&lost, GONE);
        }
        // Those that had no step in that batch are told with their next.
        for lost in steps(&rig, "a", NEXT, [(3, 1), (4, 1)]).await {
            is_refused(&lost, "loaded anew");
        }
        all_are_lost_and_begin_anew(&rig, 4).await;
        rig
    });
}

#[test]
fn a_step_that_hangs_loses_the_states_that_the_model_kept_itself() {
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(sum_inside()).await;
        let begun = steps(&rig, "a", FIRST, [(1, 1), (2, 10), (3, 20), (4, 30)]).await;
        assert_eq!(begun, [Ok(1), Ok(10), Ok(20), Ok(30)]);
        rig.hold_hangs();
        let hung = [(1, HANGS), (2, 20)].map(|(id, value)| send(&rig, ("a", number(id)), NEXT, value));
        rig.entered().await;
        rig.advance(LIMIT);
        for reply in hung {
            took_too_long(&read(reply).await);
        }
        rig.until_state("m", ModelState::Ready).await;
        for lost in steps(&rig, "a", NEXT, [(1, 1), (2, 1), (3, 1), (4, 1)]).await {
            is_refused(&lost, GONE);
        }
        rig.release();
        rig.until_statistics(|device| device.abandoned == 0).await;
        all_are_lost_and_begin_anew(&rig, 4).await;
        rig
    });
}

#[test]
fn a_batch_that_fails_is_not_run_again_where_the_model_keeps_its_states_itself() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(sum_inside()).await;
        let text = || CorrelationId::Text("x".into());
        let pair = |flags: [(bool, bool); 2], values: [i32; 2]| {
            let first = read(send(&rig, ("a", number(1)), flags[0], values[0]));
            futures::future::join(first, read(send(&rig, ("a", text()), flags[1], values[1])))
        };
        assert_eq!(pair([FIRST; 2], [1, 10]).await, (Ok(vec![1]), Ok(vec![10])));
        assert_eq!(steps(&rig, "b", FIRST, [(3, 1), (4, 2)]).await, [Ok(1), Ok(2)]);
        // The first has been added to its sum when the second fails: at a last step a text cannot be added to the answer.
        let (mate, culprit) = pair([NEXT, LAST], [5, 3]).await;
        for answer in [mate, culprit] {
            let fault = answer.unwrap_err();
            assert!(fault.message.contains("is no number"), "{fault}");
            assert!(fault.message.contains("start it again"), "{fault}");
        }
        let [late] = steps(&rig, "a", NEXT, [(1, 1)]).await;
        is_refused(&late, GONE);
        assert_eq!(
            steps(&rig, "b", NEXT, [(3, 1), (4, 2)]).await,
            [Ok(2), Ok(4)],
            "another tenant's go on"
        );
        rig.until_statistics(|device| device.models[&key()].execution_count == 4)
            .await;
        rig
    });
}

#[test]
fn what_a_batch_had_done_before_it_hung_counts_as_done() {
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "INT32", "dims": [-1],
        "initial_state": [{"dims": [0], "zero_data": true}]});
    with_rig(&WorkerConfig::default(), |mut rig| async move {
        rig.load(paired("join_state", &json!({"state": [state]}))).await;
        let next = |rig: &Rig, id: u64, value: i32| read(send(rig, ("a", number(id)), NEXT, value));
        ran(steps(&rig, "a", FIRST, [(1, 1), (2, 2)]).await);
        let alone = send(&rig, ("a", number(1)), NEXT, 3);
        rig.settled().await;
        rig.advance(DELAY);
        assert_eq!(read(alone).await, Ok(vec![1, 3]));
        // Their states have two lengths: the batch runs in two parts, and the first one's hangs last.
        rig.hold_hangs();
        let hung = send(&rig, ("a", number(1)), NEXT, HANGS);
        assert_eq!(next(&rig, 2, 5).await, Ok(vec![2, 5]));
        for _ in 0..2 {
            rig.entered().await;
        }
        let behind = send(&rig, ("a", number(2)), NEXT, 6);
        rig.settled().await;
        rig.advance(LIMIT);
        took_too_long(&read(hung).await);
        rig.until_state("m", ModelState::Ready).await;
        rig.settled().await;
        rig.advance(DELAY);
        assert_eq!(read(behind).await, Ok(vec![2, 5, 6]));
        rig.release();
        rig.until_statistics(|device| device.abandoned == 0).await;
        let both = futures::future::join(next(&rig, 1, 4), next(&rig, 2, 8)).await;
        assert_eq!(both, (Ok(vec![1, 3, 4]), Ok(vec![2, 5, 6, 8])));
        assert_eq!(state_bytes(&rig), 7 * 4);
        rig
    });
}

#[test]
fn a_change_that_loads_nothing_leaves_sequences_as_they_are() {
    for model in [sum_outside(), sum_inside()] {
        with_rig(&WorkerConfig::default(), |rig| async move {
            rig.load(model.clone()).await;
            assert_eq!(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await, [Ok(1), Ok(10)]);
            let patient = changed(model, |config| {
                config.execution = Some(ExecutionPolicy {
                    timeout_microseconds: 60_000_000,
                    ..ExecutionPolicy::default()
                });
            });
            rig.load(patient).await;
            assert_eq!(steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await, [Ok(2), Ok(11)]);
            assert_eq!(steps(&rig, "b", FIRST, [(3, 5), (4, 6)]).await, [Ok(5), Ok(6)]);
            assert_eq!(steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await, [Ok(3), Ok(12)]);
            assert_eq!(rig.seen.lock().loads["m"], 1);
            rig
        });
    }
}

#[test]
fn what_replaces_a_model_goes_on_with_none_of_its_sequences() {
    for model in [sum_outside(), sum_inside()] {
        with_rig(&WorkerConfig::default(), |rig| async move {
            rig.load(model.clone()).await;
            assert_eq!(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await, [Ok(1), Ok(10)]);
            let other = changed(model, |config| {
                config.parameters.insert("another".into(), ParameterValue::Int(1));
            });
            rig.load(other).await;
            assert_eq!(rig.seen.lock().loads["m"], 2);
            for lost in steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await {
                is_refused(&lost, GONE);
            }
            rig.until_statistics(|device| device.sequence_state_bytes == 0).await;
            all_are_lost_and_begin_anew(&rig, 2).await;
            rig
        });
    }
}

fn with_grace(grace: Duration) -> WorkerConfig {
    WorkerConfig {
        sequence_grace: grace,
        ..WorkerConfig::default()
    }
}

#[test]
fn a_grace_ends_with_its_unload() {
    const GRACE: Duration = Duration::from_secs(10);
    with_rig(&with_grace(GRACE), |rig| async move {
        // Another stateful model is there all the time.
        rig.load(LoadSpec {
            key: crate::tests::key("other"),
            ..sum_outside()
        })
        .await;
        rig.load(sum_outside()).await;
        ran(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await);
        let (worker, key) = (rig.worker.clone(), key());
        let unload = worker.unload(CPU, &key);
        let ending = async {
            rig.settled().await;
            rig.advance(GRACE / 2);
            ran(steps(&rig, "a", LAST, [(1, 1), (2, 1)]).await);
        };
        futures::join!(unload, ending).0.unwrap();
        // It is here again before the former grace would have been over.
        rig.load(sum_outside()).await;
        ran(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await);
        rig.advance(GRACE);
        rig.settled().await;
        assert_eq!(steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await, [Ok(2), Ok(11)]);
        rig
    });
}

#[test]
fn another_unload_does_not_lengthen_the_grace() {
    const GRACE: Duration = Duration::from_secs(10);
    with_rig(&with_grace(GRACE), |rig| async move {
        rig.load(sum_outside()).await;
        ran(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await);
        let (worker, key) = (rig.worker.clone(), key());
        let again = async {
            rig.settled().await;
            rig.advance(GRACE / 2);
            let again = worker.unload(CPU, &key);
            let over = async {
                rig.settled().await;
                rig.advance(GRACE / 2);
            };
            futures::join!(again, over).0
        };
        let (first, second) = futures::join!(worker.unload(CPU, &key), again);
        // Who asked first is told that another did, and the model is gone once the first one's grace is over.
        assert!(first.is_err());
        second.unwrap();
        assert_eq!(state_bytes(&rig), 0);
        rig
    });
}

#[test]
fn a_quarantine_leaves_declared_states_where_they_were() {
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(sum_outside()).await;
        ran(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await);
        for _ in 0..crate::quarantine::MAX_CRASHES {
            for culprit in steps(&rig, "a", NEXT, [(1, PANICS), (2, PANICS)]).await {
                assert_eq!(culprit.unwrap_err().class, FaultClass::Internal);
            }
        }
        rig.until_state("m", ModelState::Quarantined).await;
        let [refused] = steps(&rig, "a", NEXT, [(1, 1)]).await;
        assert_eq!(refused.unwrap_err().class, FaultClass::Unavailable);
        rig.advance(crate::quarantine::COOL_DOWN);
        rig.until_state("m", ModelState::Ready).await;
        let probe = send(&rig, ("a", number(1)), NEXT, 1);
        rig.settled().await;
        rig.advance(DELAY);
        assert_eq!(read(probe).await, Ok(vec![2]));
        // The device may hear of the probe's end a little later than its caller.
        let after = loop {
            let reply = send(&rig, ("a", number(1)), NEXT, 1);
            rig.settled().await;
            rig.advance(DELAY);
            match read(reply).await {
                Err(fault) if fault.message.contains("probation") => {}
                after => break after,
            }
        };
        assert_eq!(after, Ok(vec![3]));
        assert_eq!(steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await, [Ok(4), Ok(11)]);
        assert_eq!(sequences(&rig).lost, 0);
        rig
    });
}

#[test]
fn a_model_whose_states_are_kept_for_it_may_leave_memory_under_open_sequences() {
    let idle = |config: &mut ModelConfig| {
        config.residency = Some(mesh_types::ResidencyPolicy {
            idle_seconds: 60,
            ..mesh_types::ResidencyPolicy::default()
        });
    };
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(changed(sum_outside(), idle)).await;
        ran(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await);
        // The device may hear of the last step's end a little later than its caller, and looks again then.
        while rig.report("m").state != ModelState::Standby {
            rig.advance(Duration::from_secs(60));
            rig.settled().await;
        }
        rig.until("m", |report| report.is_some_and(|report| report.memory_bytes == 0))
            .await;
        assert_eq!(steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await, [Ok(2), Ok(11)]);
        assert_eq!(sequences(&rig).lost, 0);
        rig
    });
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(changed(sum_inside(), idle)).await;
        ran(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await);
        rig.settled().await;
        rig.advance(Duration::from_secs(60));
        rig.settled().await;
        assert_eq!(rig.report("m").state, ModelState::Ready, "it holds their states");
        assert_eq!(steps(&rig, "a", NEXT, [(1, 1), (2, 1)]).await, [Ok(2), Ok(11)]);
        rig
    });
}

#[test]
fn memory_that_runs_out_after_warm_up_leaves_no_sequence_in_a_row_that_does_not_fit() {
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "INT32", "dims": [1]});
    let sequence = json!({
        "state": [state], "control_input": [flag("READY", "CONTROL_SEQUENCE_READY")],
        "max_sequence_idle_microseconds": 3_600_000_000_u64,
    });
    let four_rows = changed(spec("sum_state", 4, &sequence), |config| {
        config.parameters.insert("late_rows".into(), ParameterValue::Int(2));
    });
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(four_rows).await;
        let out_of_memory = |rig: &Rig| rig.statistics("m").out_of_memory;
        let step = |id: u64, flags, value| {
            let tenant = if id % 2 == 1 { "a" } else { "b" };
            send(&rig, (tenant, number(id)), flags, value)
        };
        assert_eq!(read(step(1, FIRST, 1)).await, Ok(vec![1]));
        assert_eq!(read(step(2, FIRST, 2)).await, Ok(vec![2]));
        // The third sits in the third row, for which there is no memory: its step runs all the same, in the first one.
        assert_eq!(read(step(3, FIRST, 3)).await, Ok(vec![3]));
        rig.until_statistics(|device| device.models[&key()].out_of_memory == 1)
            .await;
        // Its next waits for a row that fits, and nobody who is open is lost for it.
        let third = step(3, NEXT, 3);
        rig.until_statistics(|device| {
            let known = device.models[&key()].sequences.unwrap_or_default();
            (known.open, known.backlog) == (3, 1)
        })
        .await;
        assert_eq!(read(step(2, NEXT, 5)).await, Ok(vec![7]));
        assert_eq!(read(step(1, LAST, 5)).await, Ok(vec![6]));
        assert_eq!(read(third).await, Ok(vec![6]));
        assert_eq!(read(step(3, LAST, 4)).await, Ok(vec![10]));
        assert_eq!(read(step(2, LAST, 1)).await, Ok(vec![8]));
        // The device may hear of the last step's end a little later than its caller.
        rig.until_statistics(|device| device.models[&key()].sequences.unwrap_or_default().open == 0)
            .await;
        assert_eq!(out_of_memory(&rig), 1);
        assert_eq!(sequences(&rig).lost, 0);
        rig
    });
}

/// The same, with no memory for more rows than these.
fn with_room(model: LoadSpec, parameter: &str, rows: i64) -> LoadSpec {
    changed(model, |config| {
        config.parameters.insert(parameter.into(), ParameterValue::Int(rows));
    })
}

/// What waits for a batch to fill waits no longer than its delay.
async fn while_time_goes_on<T>(rig: &Rig, what: impl Future<Output = T>) -> T {
    let time = async {
        loop {
            rig.advance(DELAY);
            rig.settled().await;
        }
    };
    futures::pin_mut!(what, time);
    match futures::future::select(what, time).await {
        futures::future::Either::Left((done, _)) => done,
        futures::future::Either::Right(((), _)) => unreachable!("time has no end"),
    }
}

fn says(answer: &Result<i32, Fault>, words: &[&str]) {
    let fault = answer.as_ref().unwrap_err();
    assert_eq!(fault.class, FaultClass::Unavailable, "{fault}");
    for word in words {
        assert!(fault.message.contains(word), "'{word}' is not in: {fault}");
    }
}

#[test]
fn a_batch_of_steps_that_finds_no_memory_runs_in_halves_and_moves_each_declared_state_once() {
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "INT32", "dims": [1]});
    let ready = json!([flag("READY", "CONTROL_SEQUENCE_READY")]);
    let told = paired("sum_state", &json!({"state": [state], "control_input": ready}));
    for model in [
        with_room(sum_outside(), "late_rows", 1),
        with_room(told, "oom_above", 1),
    ] {
        with_rig(&WorkerConfig::default(), |rig| async move {
            rig.load(model).await;
            assert_eq!(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await, [Ok(1), Ok(10)]);
            let answers = steps(&rig, "a", NEXT, [(2, 20), (1, 2)]);
            assert_eq!(while_time_goes_on(&rig, answers).await, [Ok(30), Ok(3)]);
            let answers = steps(&rig, "a", LAST, [(1, 3), (2, 30)]);
            assert_eq!(while_time_goes_on(&rig, answers).await, [Ok(6), Ok(60)]);
            rig.until_statistics(|device| device.models[&key()].success.count == 6)
                .await;
            assert!(rig.statistics("m").out_of_memory >= 1);
            assert_eq!((rig.statistics("m").fail.count, sequences(&rig).lost), (0, 0));
            rig
        });
    }
}

#[test]
fn steps_whose_rows_do_not_fit_are_packed_into_those_that_do() {
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "INT32", "dims": [1]});
    // Once all four have a step, they run together.
    let sequence = json!({
        "direct": {"max_queue_delay_microseconds": 1_000_000, "minimum_slot_utilization": 1.0},
        "state": [state], "control_input": [flag("READY", "CONTROL_SEQUENCE_READY")],
        "max_sequence_idle_microseconds": 3_600_000_000_u64, "max_sequences_per_tenant": SEATS,
    });
    let model = with_room(spec("sum_state", 4, &sequence), "late_rows", 2);
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(model).await;
        let begun = steps(&rig, "a", FIRST, [(1, 1), (2, 10), (3, 20), (4, 30)]).await;
        assert_eq!(begun, [Ok(1), Ok(10), Ok(20), Ok(30)]);
        rig.until_statistics(|device| device.models[&key()].success.count == SEATS)
            .await;
        assert_eq!(
            (rig.statistics("m").out_of_memory, rig.statistics("m").fail.count),
            (1, 0)
        );
        // Two have a seat from now on, and the others' states wait for one.
        let last = steps(&rig, "a", LAST, [(1, 1), (2, 1), (3, 1), (4, 1)]);
        let sums = while_time_goes_on(&rig, last).await;
        assert_eq!(sums, [Ok(2), Ok(11), Ok(21), Ok(31)]);
        assert_eq!(sequences(&rig).lost, 0);
        rig
    });
}

#[test]
fn a_model_that_keeps_its_states_runs_in_halves_where_it_was_not_called_yet() {
    let model = with_room(sum_inside(), "oom_above", 1);
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(model).await;
        assert_eq!(steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await, [Ok(1), Ok(10)]);
        let answers = steps(&rig, "a", NEXT, [(2, 20), (1, 2)]);
        assert_eq!(while_time_goes_on(&rig, answers).await, [Ok(30), Ok(3)]);
        rig.until_statistics(|device| device.models[&key()].success.count == 4)
            .await;
        assert!(rig.statistics("m").out_of_memory >= 1);
        assert_eq!((sequences(&rig).open, sequences(&rig).lost), (2, 0));
        rig
    });
}

#[test]
fn a_row_that_does_not_fit_fails_alone_and_says_what_would() {
    let by_row = json!({
        "control_input": [flag("START", "CONTROL_SEQUENCE_START"), flag("READY", "CONTROL_SEQUENCE_READY")],
        "max_sequence_idle_microseconds": 3_600_000_000_u64, "max_sequences_per_tenant": SEATS,
    });
    let model = with_room(spec("sequence_sum", 4, &by_row), "oom_above", 2);
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(model).await;
        assert_eq!(steps(&rig, "a", FIRST, [(1, 1)]).await, [Ok(1)]);
        assert_eq!(steps(&rig, "a", FIRST, [(2, 10)]).await, [Ok(10)]);
        let [third] = steps(&rig, "a", FIRST, [(3, 20)]).await;
        says(
            &third,
            &[
                "out of memory",
                "has not begun",
                "one of 3 that run together",
                "declare the state",
            ],
        );
        assert_eq!(steps(&rig, "a", NEXT, [(1, 1)]).await, [Ok(2)]);
        assert_eq!(steps(&rig, "a", NEXT, [(2, 1)]).await, [Ok(11)]);
        assert_eq!(sequences(&rig).lost, 0);
        rig
    });
    let none = with_room(sum_outside(), "late_rows", 0);
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(none).await;
        for alone in steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await {
            says(
                &alone,
                &["out of memory", "has not begun: begin it again", "needs more memory"],
            );
        }
        rig
    });
}

#[test]
fn a_model_that_may_have_moved_its_states_loses_them_and_says_what_keeps_them() {
    let model = with_room(sum_inside(), "late_rows", 1);
    with_rig(&WorkerConfig::default(), |rig| async move {
        rig.load(model).await;
        for lost in steps(&rig, "a", FIRST, [(1, 1), (2, 10)]).await {
            says(
                &lost,
                &[
                    "out of memory",
                    "for 2 rows",
                    "smaller max_batch_size",
                    "start it again",
                ],
            );
        }
        rig
    });
}
