//! Stateful models on a device: the built-in ones through the whole worker, and rows and states by themselves.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use mesh_backend::{BackendError, BatchOutputs, LoadSpec};
use mesh_types::{
    ArtifactFormat, CorrelationId, DataType, Deadline, Fault, FaultClass, InferJob, ModelConfig, RequestId,
    SequenceStep, Shape, Standing, SystemClock, TenantId, Tensor, TraceContext,
};
use mesh_types::{Clock as _, ModelVersionKey};
use serde_json::{Value, json};

use super::*;
use crate::{
    WorkerConfig, WorkerHandle,
    batch::rows_of,
    order::Member,
    tests::{CPU, LONG, with_worker},
};

pub(crate) fn key() -> ModelVersionKey {
    crate::tests::key("m")
}

pub(crate) fn flag(name: &str, kind: &str) -> Value {
    json!({"name": name, "control": [{"kind": kind, "int32_false_true": [0, 1]}]})
}

pub(crate) fn controls(corrid: &str) -> Value {
    json!([
        flag("START", "CONTROL_SEQUENCE_START"),
        flag("END", "CONTROL_SEQUENCE_END"),
        flag("READY", "CONTROL_SEQUENCE_READY"),
        {"name": "CORRID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": corrid}]},
    ])
}

pub(crate) fn spec(builtin: &str, rows: u32, sequence: &Value) -> LoadSpec {
    let tensor = |name: &str| json!({"name": name, "datatype": "INT32", "dims": [-1]});
    let config = json!({
        "max_batch_size": rows, "input": [tensor("INPUT")], "output": [tensor("OUTPUT")],
        "sequence_batching": sequence, "parameters": {"builtin": builtin},
    });
    let config: ModelConfig = serde_json::from_value(config).unwrap();
    assert_eq!(config.problems(), []);
    LoadSpec {
        key: key(),
        config: Arc::new(config),
        artifact: None,
        format: ArtifactFormat::Builtin,
    }
}

/// A sum that is kept outside of the model.
pub(crate) fn sum_state() -> LoadSpec {
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "INT32", "dims": [1],
        "initial_state": [{"dims": [1], "data": "ZAAAAA=="}]});
    let sequence = json!({"state": [state], "max_sequence_idle_microseconds": 60_000_000});
    spec("sum_state", 4, &sequence)
}

fn tensor(values: &[i32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let shape = Shape::from_slice(&[1, values.len() as u64]);
    Tensor::new(Arc::from("INPUT"), DataType::Int32, shape, Bytes::from(data)).unwrap()
}

pub(crate) fn job(tenant: &str, id: CorrelationId, flags: (bool, bool), values: &[i32]) -> InferJob {
    let (start, end) = flags;
    InferJob {
        request: RequestId(1),
        tenant: TenantId::parse(tenant).unwrap(),
        version: Arc::new(key()),
        inputs: vec![tensor(values)],
        outputs: Vec::new(),
        rows: 1,
        deadline: Deadline::after(SystemClock.now(), LONG),
        standing: Standing::default(),
        sequence: Some(Box::new(SequenceStep { id, start, end })),
        answers: None,
        trace: TraceContext::default(),
        meter: None,
        parameters: None,
    }
}

pub(crate) fn values(tensors: &[Tensor]) -> Vec<i32> {
    let data = &tensors[0].data;
    data.as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| i32::from_le_bytes(*bytes))
        .collect()
}

pub(crate) const FIRST: (bool, bool) = (true, false);
pub(crate) const NEXT: (bool, bool) = (false, false);
pub(crate) const LAST: (bool, bool) = (false, true);

async fn step(
    worker: &WorkerHandle,
    (tenant, id): (&str, u64),
    flags: (bool, bool),
    value: i32,
) -> Result<Vec<i32>, Fault> {
    let job = job(tenant, CorrelationId::Number(id), flags, &[value]);
    let outcome = worker.submit(CPU, job)?.await?;
    assert_eq!(outcome.outputs.len(), 1, "no state is shown");
    Ok(values(&outcome.outputs))
}

fn four_threads() -> WorkerConfig {
    WorkerConfig {
        threads_per_device: 4,
        ..WorkerConfig::default()
    }
}

#[test]
fn a_model_that_keeps_its_state_sees_each_sequence_on_one_instance() {
    let sequence = json!({"oldest": {"max_candidate_sequences": 16}, "control_input": controls("UINT64"),
        "max_sequence_idle_microseconds": 60_000_000, "max_sequences_per_tenant": 64});
    for model in [
        spec("sequence_sum", 8, &sequence),
        spec(
            "sequence_sum",
            8,
            &json!({
                "control_input": [flag("START", "CONTROL_SEQUENCE_START"), flag("READY", "CONTROL_SEQUENCE_READY")],
                "max_sequence_idle_microseconds": 60_000_000, "max_sequences_per_tenant": 64,
            }),
        ),
    ] {
        let told = model.config.sequence_batching.as_ref().unwrap().oldest.is_some();
        with_worker(&four_threads(), |worker| async move {
            worker.load(CPU, model).await.unwrap();
            let ids: Vec<u64> = (1..=10).collect();
            for round in 1..=4_i32 {
                let flags = match round {
                    1 => FIRST,
                    4 => LAST,
                    _ => NEXT,
                };
                let of = |tenant: &'static str, id: u64| step(&worker, (tenant, id), flags, round);
                let all = ids.iter().flat_map(|id| [of("a", *id), of("b", *id + 100)]);
                let all = futures::future::join_all(all).await;
                for (index, sum) in all.into_iter().enumerate() {
                    let id = i32::try_from(index / 2 + 1 + 100 * (index % 2)).unwrap();
                    let added = if told && round == 4 { id } else { 0 };
                    assert_eq!(
                        sum,
                        Ok(vec![(1..=round).sum::<i32>() + added]),
                        "{index} in round {round}"
                    );
                }
            }
        });
    }
}

#[test]
fn a_declared_state_begins_as_declared_and_moves_with_each_answer() {
    with_worker(&four_threads(), |worker| async move {
        worker.load(CPU, sum_state()).await.unwrap();
        for (tenant, value) in [("a", 1), ("b", 10)] {
            assert_eq!(step(&worker, (tenant, 1), FIRST, value).await, Ok(vec![100 + value]));
        }
        for (tenant, value) in [("a", 1), ("b", 10)] {
            assert_eq!(step(&worker, (tenant, 1), NEXT, value).await, Ok(vec![100 + 2 * value]));
        }
        assert_eq!(step(&worker, ("a", 1), FIRST, 5).await, Ok(vec![105]), "begun anew");
        let statistics = || worker.statistics().devices.remove(0);
        assert_eq!(statistics().sequence_state_bytes, 8);
        assert_eq!(step(&worker, ("a", 1), LAST, 5).await, Ok(vec![110]));
        assert_eq!(step(&worker, ("b", 1), LAST, 10).await, Ok(vec![130]));
        assert_eq!(statistics().sequence_state_bytes, 0);
        let late = step(&worker, ("a", 1), NEXT, 1).await.unwrap_err();
        assert_eq!(late.class, FaultClass::InvalidArgument);
        assert_eq!(
            late.message,
            "inference request for sequence 1 to model 'm' must specify the START flag on the first request of the sequence"
        );
        let plain = InferJob {
            sequence: None,
            ..job("a", CorrelationId::Number(1), FIRST, &[1])
        };
        let plain = worker.submit(CPU, plain).unwrap().await.unwrap_err();
        assert_eq!(
            plain.message,
            "inference request to model 'm' must specify a non-zero or non-empty correlation ID"
        );
    });
}

#[test]
fn a_state_may_grow_and_sequences_of_other_lengths_do_not_meet() {
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "INT32", "dims": [-1],
        "initial_state": [{"dims": [0], "zero_data": true}]});
    let model = spec(
        "join_state",
        4,
        &json!({"state": [state], "max_sequence_idle_microseconds": 60_000_000}),
    );
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, model).await.unwrap();
        let mut all: Vec<Vec<i32>> = vec![Vec::new(); 3];
        for round in 0..6_i32 {
            // The third comes later, so that its state is shorter than the others'.
            let present = if round < 2 { 2 } else { 3 };
            let steps = (0..present).map(|index| {
                let first = round == 0 || (index == 2 && round == 2);
                let value = round * 10 + i32::try_from(index).unwrap();
                all[index].push(value);
                step(
                    &worker,
                    ("a", index as u64 + 1),
                    if first { FIRST } else { NEXT },
                    value,
                )
            });
            let steps: Vec<_> = steps.collect();
            for (index, joined) in futures::future::join_all(steps).await.into_iter().enumerate() {
                assert_eq!(joined, Ok(all[index].clone()), "{index} in round {round}");
            }
        }
    });
}

#[test]
fn states_have_so_much_room_and_a_tenant_half_of_it() {
    let config = WorkerConfig {
        sequence_state_bytes: 16,
        ..four_threads()
    };
    with_worker(&config, |worker| async move {
        worker.load(CPU, sum_state()).await.unwrap();
        for id in 1..=2 {
            assert!(step(&worker, ("a", id), FIRST, 1).await.is_ok());
        }
        let third = step(&worker, ("a", 3), FIRST, 1).await.unwrap_err();
        assert!(third.message.contains("at most 8 bytes"), "{third}");
        assert_eq!(
            step(&worker, ("a", 1), NEXT, 1).await,
            Ok(vec![102]),
            "what is there goes on"
        );
        for id in 1..=2 {
            assert!(step(&worker, ("b", id), FIRST, 1).await.is_ok());
        }
        let fifth = step(&worker, ("c", 1), FIRST, 1).await.unwrap_err();
        assert!(fifth.message.contains("at most 16 bytes"), "{fifth}");
        step(&worker, ("a", 1), LAST, 1).await.unwrap();
        assert!(step(&worker, ("c", 1), FIRST, 1).await.is_ok());
    });
}

#[test]
fn an_idle_sequence_is_over_and_is_counted() {
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "INT32", "dims": [1]});
    let model = spec(
        "sum_state",
        4,
        &json!({"state": [state], "max_sequence_idle_microseconds": 1_000}),
    );
    with_worker(&WorkerConfig::default(), |worker| async move {
        worker.load(CPU, model).await.unwrap();
        step(&worker, ("a", 1), FIRST, 1).await.unwrap();
        let numbers = || {
            worker
                .statistics()
                .devices
                .remove(0)
                .models
                .remove(&key())
                .unwrap()
                .sequences
        };
        while numbers().is_none_or(|known| known.idle == 0) {
            tokio::task::yield_now().await;
        }
        assert_eq!(numbers().unwrap().open, 0);
        let late = step(&worker, ("a", 1), NEXT, 1).await.unwrap_err();
        assert!(
            late.message.ends_with("ended because no request came for too long"),
            "{late}"
        );
        assert_eq!(worker.statistics().devices.remove(0).sequence_state_bytes, 0);
    });
}

#[test]
fn sequences_may_end_on_a_device_that_is_drained_and_none_begin() {
    let config = WorkerConfig {
        sequence_grace: LONG,
        ..WorkerConfig::default()
    };
    with_worker(&config, |worker| async move {
        worker.load(CPU, sum_state()).await.unwrap();
        step(&worker, ("a", 1), FIRST, 1).await.unwrap();
        worker.drain(CPU, true).unwrap();
        assert!(step(&worker, ("a", 2), FIRST, 1).await.is_err());
        assert_eq!(step(&worker, ("a", 1), NEXT, 1).await, Ok(vec![102]));
        worker.drain(CPU, false).unwrap();
        assert_eq!(step(&worker, ("a", 1), LAST, 1).await, Ok(vec![103]));
        assert!(step(&worker, ("a", 2), FIRST, 1).await.is_ok());
    });
}

#[test]
fn what_has_not_ended_within_the_grace_is_ended_and_told_so() {
    let config = WorkerConfig {
        sequence_grace: Duration::ZERO,
        ..WorkerConfig::default()
    };
    with_worker(&config, |worker| async move {
        worker.load(CPU, sum_state()).await.unwrap();
        step(&worker, ("a", 1), FIRST, 1).await.unwrap();
        worker.drain(CPU, true).unwrap();
        while worker.statistics().devices[0].sequence_state_bytes > 0 {
            tokio::task::yield_now().await;
        }
        let late = step(&worker, ("a", 1), NEXT, 1).await.unwrap_err();
        assert!(late.message.contains("its device is being drained"), "{late}");
        worker.drain(CPU, false).unwrap();
        assert!(step(&worker, ("a", 1), FIRST, 1).await.is_ok());
    });
}

#[test]
fn an_unload_waits_for_sequences_to_end_and_no_longer_than_the_grace() {
    let config = WorkerConfig {
        sequence_grace: LONG,
        ..WorkerConfig::default()
    };
    with_worker(&config, |worker| async move {
        worker.load(CPU, sum_state()).await.unwrap();
        step(&worker, ("a", 1), FIRST, 1).await.unwrap();
        let unloaded = std::cell::Cell::new(false);
        let unload = async {
            let result = worker.unload(CPU, &key()).await;
            unloaded.set(true);
            result
        };
        let ending = async {
            let mut begun = 1;
            while step(&worker, ("a", begun + 1), FIRST, 1).await.is_ok() {
                begun += 1;
            }
            assert!(!unloaded.get());
            for id in 1..=begun {
                assert_eq!(step(&worker, ("a", id), LAST, 1).await, Ok(vec![102]));
            }
        };
        futures::join!(unload, ending).0.unwrap();
    });
    let config = WorkerConfig {
        sequence_grace: Duration::ZERO,
        ..WorkerConfig::default()
    };
    with_worker(&config, |worker| async move {
        worker.load(CPU, sum_state()).await.unwrap();
        step(&worker, ("a", 1), FIRST, 1).await.unwrap();
        worker.unload(CPU, &key()).await.unwrap();
    });
}

fn plan(model: &LoadSpec) -> (Plan, LoadSpec) {
    Plan::of(model).unwrap().unwrap()
}

fn member(slot: u32, id: CorrelationId, flags: (bool, bool), values: &[i32]) -> Member {
    let job = job("a", id.clone(), flags, values);
    let ledger = Arc::new(Ledger::new(1_000));
    let state = Arc::new(SequenceState::new(job.tenant.clone(), ledger));
    let step = Step {
        slot,
        told: id,
        start: flags.0,
        end: flags.1,
        state,
    };
    Member {
        arrived: SystemClock.now(),
        job: Box::new(job),
        step: Some(Box::new(step)),
    }
}

#[test]
fn rows_without_a_request_are_there_and_the_model_is_told_so() {
    let sequence = json!({"control_input": controls("TYPE_STRING")});
    let (plan, whole) = plan(&spec("sequence", 8, &sequence));
    let members = [
        member(3, CorrelationId::Text("ab".into()), FIRST, &[7]),
        member(1, CorrelationId::Number(5), LAST, &[9]),
    ];
    let members: Vec<&Member> = members.iter().collect();
    let prepared = Prepared::of(&plan, &members, false);
    let inputs = prepared.inputs(&whole.config, &plan, &members);
    assert_eq!(inputs.rows, 4);
    let shown: Vec<(&str, &[u64], Vec<u8>)> = inputs
        .inputs
        .iter()
        .map(|input| (input.spec.name.as_str(), &*input.shape, input.parts.concat()))
        .collect();
    let numbers = |numbers: [i32; 4]| numbers.map(i32::to_le_bytes).concat();
    let ids = [
        &[0, 0, 0, 0][..],
        b"\x01\0\0\0",
        b"5",
        &[0, 0, 0, 0],
        b"\x02\0\0\0",
        b"ab",
    ]
    .concat();
    assert_eq!(
        shown,
        [
            ("INPUT", &[4, 1][..], numbers([0, 9, 0, 7])),
            ("START", &[4, 1][..], numbers([0, 0, 0, 1])),
            ("END", &[4, 1][..], numbers([0, 1, 0, 0])),
            ("READY", &[4, 1][..], numbers([0, 1, 0, 1])),
            ("CORRID", &[4, 1][..], ids),
        ]
    );
    let output = Tensor {
        shape: Shape::from_slice(&[4, 1]),
        data: Bytes::from(numbers([1, 2, 3, 4])),
        ..tensor(&[0])
    };
    let outputs = BatchOutputs { outputs: vec![output] };
    let moved = scatter(&whole.config, &plan, &prepared, &members, &outputs).unwrap();
    let answers: Vec<Vec<i32>> = moved.iter().map(|(outputs, _)| values(outputs)).collect();
    assert_eq!(answers, [[4], [2]]);
}

#[test]
fn ids_and_flags_are_written_in_the_types_that_are_declared() {
    for (datatype, expected) in [
        ("UINT64", vec![5, 0, 0, 0, 0, 0, 0, 0]),
        ("INT64", vec![5, 0, 0, 0, 0, 0, 0, 0]),
        ("UINT32", vec![5, 0, 0, 0]),
        ("INT32", vec![5, 0, 0, 0]),
        ("STRING", vec![1, 0, 0, 0, b'5']),
    ] {
        let datatype = if datatype == "STRING" { "TYPE_STRING" } else { datatype };
        let (plan, _) = plan(&spec("sequence", 8, &json!({"control_input": controls(datatype)})));
        let member = member(0, CorrelationId::Number(5), FIRST, &[1]);
        let mut written = Vec::new();
        plan.element(3, member.step.as_deref(), &mut written);
        assert_eq!(written, expected, "{datatype}");
    }
    let control = |values: Value| {
        let mut control = json!({"kind": "CONTROL_SEQUENCE_START"});
        control
            .as_object_mut()
            .unwrap()
            .extend(values.as_object().unwrap().clone());
        let ready = flag("READY", "CONTROL_SEQUENCE_READY");
        let sequence = json!({"control_input": [{"name": "START", "control": [control]}, ready]});
        let (plan, _) = plan(&spec("sequence", 8, &sequence));
        let member = member(0, CorrelationId::Number(5), FIRST, &[1]);
        let (mut yes, mut no) = (Vec::new(), Vec::new());
        plan.element(0, member.step.as_deref(), &mut yes);
        plan.element(0, None, &mut no);
        (no, yes)
    };
    let floats = (1.5_f32.to_le_bytes().to_vec(), 2.5_f32.to_le_bytes().to_vec());
    assert_eq!(control(json!({"fp32_false_true": [1.5, 2.5]})), floats);
    assert_eq!(control(json!({"bool_false_true": [true, false]})), (vec![1], vec![0]));
}

#[test]
fn a_state_that_is_not_as_declared_fails_its_step() {
    let (plan, whole) = plan(&sum_state());
    let members = [member(0, CorrelationId::Number(5), FIRST, &[1])];
    let members: Vec<&Member> = members.iter().collect();
    let prepared = Prepared::of(&plan, &members, false);
    let outputs = |state: Tensor| BatchOutputs {
        outputs: vec![tensor(&[1]), state],
    };
    let good = scatter(&whole.config, &plan, &prepared, &members, &outputs(tensor(&[2]))).unwrap();
    assert_eq!(good[0].1[0].data, 2_i32.to_le_bytes().to_vec());
    let wide = outputs(tensor(&[2, 3]));
    let wide = scatter(&whole.config, &plan, &prepared, &members, &wide).unwrap_err();
    assert!(matches!(wide, BackendError::Output(text) if text.contains("'AFTER'")));
    assert!(rows_of(&tensor(&[1]), std::iter::repeat_n(1, 2)).is_err());
}

#[test]
fn a_step_that_goes_on_runs_only_where_its_state_is() {
    let (outside, _) = plan(&sum_state());
    let (inside, _) = plan(&spec(
        "sequence_sum",
        8,
        &json!({"control_input": controls("TYPE_UINT64")}),
    ));
    let step = |flags| *member(0, CorrelationId::Number(5), flags, &[1]).step.unwrap();
    for plan in [&outside, &inside] {
        assert!(step(FIRST).can_run(plan, 7) && !step(NEXT).can_run(plan, 7));
    }
    let begun = step(NEXT);
    begun.state.began(7);
    assert!(begun.can_run(&inside, 7) && !begun.can_run(&inside, 8));
    begun
        .state
        .reserve(outside.states.iter().map(|state| state.initial.clone()).collect())
        .unwrap()
        .keep();
    assert!(begun.can_run(&outside, 8));
}

#[test]
fn sequences_have_no_more_rows_of_their_own_than_fit_into_memory() {
    let direct = spec("sequence_sum", 8, &json!({"control_input": controls("TYPE_UINT64")}));
    let oldest = json!({"control_input": controls("TYPE_UINT64"), "oldest": {"max_candidate_sequences": 16}});
    for (model, slots) in [(direct, 2), (spec("sequence_sum", 8, &oldest), 16)] {
        let mut model = crate::model::Model::new(model, 100, 1);
        model.lower(4);
        assert_eq!((model.rules.max_rows, model.rules.sequence.unwrap().slots), (2, slots));
    }
}

#[test]
fn room_that_is_not_used_is_given_back_and_a_state_takes_its_own_with_it() {
    let ledger = Arc::new(Ledger::new(100));
    let state = Arc::new(SequenceState::new(TenantId::parse("a").unwrap(), ledger.clone()));
    let tensors = |bytes: usize| {
        vec![StateTensor {
            shape: Shape::new(),
            data: Bytes::from(vec![1; bytes]),
        }]
    };
    drop(state.reserve(tensors(50)).unwrap());
    assert_eq!((ledger.bytes(), state.tensors().len()), (0, 0));
    state.reserve(tensors(50)).unwrap().keep();
    assert!(state.reserve(tensors(51)).is_err());
    assert_eq!(ledger.bytes(), 50);
    drop(state.reserve(tensors(10)).unwrap());
    assert_eq!((ledger.bytes(), state.tensors()), (50, tensors(50)));
    drop(state);
    assert_eq!(ledger.bytes(), 0);
}
