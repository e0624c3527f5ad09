//! Sequence batching as configurations write it, and what is refused of it.

use serde_json::{Value, json};

use super::*;
use crate::{MAX_CANDIDATE_SEQUENCES, MAX_INITIAL_STATE_BYTES, ModelConfigError};

fn config(sequence: &Value) -> ModelConfig {
    let tensor = json!({"name": "INPUT", "data_type": "TYPE_INT32", "dims": [1]});
    let output = json!({"name": "OUTPUT", "data_type": "TYPE_INT32", "dims": [1]});
    let whole = json!({"max_batch_size": 8, "input": [tensor], "output": [output], "sequence_batching": sequence});
    serde_json::from_value(whole).unwrap()
}

fn flag(name: &str, kind: &str) -> Value {
    json!({"name": name, "control": [{"kind": kind, "int32_false_true": [0, 1]}]})
}

fn fields(sequence: &Value) -> Vec<String> {
    let problems = config(sequence).problems();
    problems
        .into_iter()
        .map(|ModelConfigError { field, .. }| field)
        .collect()
}

/// What clients of Triton's examples expect of `simple_dyna_sequence`.
fn dyna() -> Value {
    json!({
        "max_sequence_idle_microseconds": 10_000_000,
        "oldest": {"max_candidate_sequences": 1024, "max_queue_delay_microseconds": 10_000},
        "control_input": [
            flag("START", "CONTROL_SEQUENCE_START"),
            flag("END", "CONTROL_SEQUENCE_END"),
            flag("READY", "CONTROL_SEQUENCE_READY"),
            {"name": "CORRID", "control": [{"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_UINT64"}]},
        ],
    })
}

#[test]
fn tritons_own_configurations_carry_over() {
    let simple = json!({"control_input": [
        flag("START", "CONTROL_SEQUENCE_START"),
        flag("READY", "CONTROL_SEQUENCE_READY"),
    ]});
    for sequence in [&simple, &dyna()] {
        assert_eq!(fields(sequence), Vec::<String>::new(), "{sequence}");
    }
    let simple = config(&simple).sequence_batching.unwrap();
    assert_eq!(
        (simple.idle(), simple.slots(8), simple.slots(0)),
        (Duration::from_secs(1), 8, 1)
    );
    let dyna = config(&dyna()).sequence_batching.unwrap();
    assert_eq!((dyna.idle(), dyna.slots(8)), (Duration::from_secs(10), 1024));
    assert_eq!(dyna.control(ControlKind::Corrid).unwrap().0, "CORRID");
    let back: SequenceBatching = serde_json::from_value(serde_json::to_value(&dyna).unwrap()).unwrap();
    assert_eq!(back, dyna);
}

#[test]
fn each_bound_of_a_strategy_is_checked_at_the_bound_and_beyond() {
    let ready = [
        flag("START", "CONTROL_SEQUENCE_START"),
        flag("READY", "CONTROL_SEQUENCE_READY"),
    ];
    let told = dyna()["control_input"].clone();
    let direct = |delay: u64, utilization: f64| {
        fields(&json!({"control_input": ready, "direct": {
            "max_queue_delay_microseconds": delay, "minimum_slot_utilization": utilization,
        }}))
    };
    assert!(direct(MAX, 1.0).is_empty());
    assert_eq!(
        direct(MAX + 1, 0.0),
        ["sequence_batching.direct.max_queue_delay_microseconds"]
    );
    for wrong in [1.1, -0.1] {
        assert_eq!(direct(0, wrong), ["sequence_batching.direct.minimum_slot_utilization"]);
    }
    let oldest = |candidates: u32, size: u32, delay: u64| {
        fields(&json!({"control_input": told, "oldest": {
            "max_candidate_sequences": candidates, "preferred_batch_size": [size], "max_queue_delay_microseconds": delay,
        }}))
    };
    assert!(oldest(MAX_CANDIDATE_SEQUENCES, 8, MAX).is_empty());
    for wrong in [0, MAX_CANDIDATE_SEQUENCES + 1] {
        assert_eq!(
            oldest(wrong, 8, 0),
            ["sequence_batching.oldest.max_candidate_sequences"]
        );
    }
    assert_eq!(oldest(1, 9, 0), ["sequence_batching.oldest.preferred_batch_size"]);
    assert_eq!(
        oldest(1, 8, MAX + 1),
        ["sequence_batching.oldest.max_queue_delay_microseconds"]
    );
    let idle = |idle: u64| fields(&json!({"control_input": ready, "max_sequence_idle_microseconds": idle}));
    assert!(idle(86_400_000_000).is_empty());
    assert_eq!(
        idle(86_400_000_001),
        ["sequence_batching.max_sequence_idle_microseconds"]
    );
}

const MAX: u64 = crate::batching::MAX_MICROSECONDS;

#[test]
fn what_cannot_be_meant_is_refused_by_its_field() {
    let start = [flag("START", "CONTROL_SEQUENCE_START")];
    let both = json!({"control_input": start, "direct": {}, "oldest": {"max_candidate_sequences": 1}});
    assert_eq!(fields(&both), ["sequence_batching.oldest"]);
    let iterative =
        json!({"control_input": start, "oldest": {"max_candidate_sequences": 1}, "iterative_sequence": true});
    assert_eq!(fields(&iterative), ["sequence_batching.iterative_sequence"]);
    let mut batched = config(&dyna());
    batched.dynamic_batching = Some(crate::DynamicBatching::default());
    assert_eq!(batched.problems().first().unwrap().field, "sequence_batching");
}

#[test]
fn a_model_that_keeps_its_state_itself_is_told_enough_to_keep_sequences_apart() {
    let said = |sequence: &Value| {
        let problems = config(sequence).problems();
        let said = problems.into_iter().map(|ModelConfigError { field, problem }| {
            assert_eq!(field, "sequence_batching.control_input");
            problem
        });
        said.collect::<Vec<_>>()
    };
    let all = dyna()["control_input"].as_array().unwrap().clone();
    let without = |index: usize, oldest: Value| {
        let mut controls = all.clone();
        controls.remove(index);
        let mut sequence = json!({"control_input": controls});
        sequence
            .as_object_mut()
            .unwrap()
            .extend(oldest.as_object().unwrap().clone());
        said(&sequence)
    };
    let candidates = |count: u32| json!({"oldest": {"max_candidate_sequences": count}});
    for strategy in [json!({}), candidates(1), candidates(2)] {
        assert!(without(0, strategy)[0].contains("CONTROL_SEQUENCE_START"));
    }
    assert!(without(2, json!({}))[0].contains("CONTROL_SEQUENCE_READY"));
    assert!(without(3, candidates(2))[0].contains("CONTROL_SEQUENCE_CORRID"));
    for fine in [
        without(1, candidates(2)),
        without(2, candidates(2)),
        without(3, candidates(1)),
        without(3, json!({})),
    ] {
        assert_eq!(fine, Vec::<String>::new());
    }
    // A declared state is the device's to keep apart.
    let mut declared = state(|_| {});
    declared["oldest"] = candidates(2)["oldest"].clone();
    assert_eq!(said(&declared), Vec::<String>::new());
}

#[test]
fn controls_have_one_kind_each_and_values_of_one_type() {
    let with = |control: Value| {
        let mut sequence = dyna();
        sequence["control_input"][0] = control;
        // What a model that keeps its state itself must be told is another matter.
        sequence["state"] = state(|_| {})["state"].clone();
        fields(&sequence)
    };
    let named = |name: &str, control: Value| with(json!({"name": name, "control": control}));
    let start = || json!({"kind": "CONTROL_SEQUENCE_START", "fp32_false_true": [0.0, 1.0]});
    assert!(named("START", json!([start()])).is_empty());
    let bools = json!([{"kind": "CONTROL_SEQUENCE_START", "bool_false_true": [false, true]}]);
    assert!(named("START", bools).is_empty());
    assert_eq!(
        named("INPUT", json!([start()])),
        ["sequence_batching.control_input[0].name"]
    );
    assert_eq!(
        named("END", json!([start()])),
        ["sequence_batching.control_input[1].name"]
    );
    assert_eq!(named("", json!([start()])), ["sequence_batching.control_input[0].name"]);
    let place = "sequence_batching.control_input[0].control";
    assert_eq!(named("START", json!([])), [place]);
    assert_eq!(named("START", json!([start(), start()])), [place]);
    let again = json!([{"kind": "CONTROL_SEQUENCE_END", "int32_false_true": [0, 1]}]);
    assert_eq!(
        named("START", again),
        ["sequence_batching.control_input[1].control[0].kind"]
    );
    for wrong in [
        json!({"kind": "CONTROL_SEQUENCE_START"}),
        json!({"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0]}),
        json!({"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1], "fp32_false_true": [0.0, 1.0]}),
        json!({"kind": "CONTROL_SEQUENCE_START", "int32_false_true": [0, 1], "data_type": "TYPE_INT32"}),
    ] {
        assert_eq!(
            named("START", json!([wrong])),
            ["sequence_batching.control_input[0].control[0]"]
        );
    }
    let corrid = |control: Value| {
        let mut sequence = dyna();
        sequence["control_input"][3]["control"][0] = control;
        fields(&sequence)
    };
    for datatype in ["TYPE_UINT64", "TYPE_INT64", "TYPE_UINT32", "TYPE_INT32", "TYPE_STRING"] {
        assert!(corrid(json!({"kind": "CONTROL_SEQUENCE_CORRID", "data_type": datatype})).is_empty());
    }
    for wrong in [
        json!({"kind": "CONTROL_SEQUENCE_CORRID"}),
        json!({"kind": "CONTROL_SEQUENCE_CORRID", "data_type": "TYPE_FP32"}),
        json!({"kind": "CONTROL_SEQUENCE_CORRID", "int32_false_true": [0, 1]}),
    ] {
        assert_eq!(corrid(wrong), ["sequence_batching.control_input[3].control[0]"]);
    }
}

fn state(change: impl FnOnce(&mut Value)) -> Value {
    let mut state = json!({"input_name": "STATE", "output_name": "NEXT", "data_type": "TYPE_INT32", "dims": [2, -1]});
    change(&mut state);
    json!({"state": [state]})
}

fn initial(initial: Value) -> Value {
    let initial = Value::Array(vec![initial]);
    state(|state| state["initial_state"] = initial)
}

#[test]
fn a_state_begins_as_zeros_or_as_the_bytes_that_it_is_given() {
    let of = |sequence: &Value| {
        let config = config(sequence);
        assert_eq!(config.problems(), []);
        config.sequence_batching.unwrap().state[0].initial().unwrap()
    };
    assert_eq!(of(&state(|_| {})), (vec![2, 1], vec![0; 8]));
    assert_eq!(
        of(&initial(json!({"dims": [2, 3], "zero_data": true}))),
        (vec![2, 3], vec![0; 24])
    );
    // A state that grows may begin empty.
    assert_eq!(
        of(&initial(json!({"dims": [2, 0], "zero_data": true}))),
        (vec![2, 0], Vec::new())
    );
    let given = initial(json!({"name": "h0", "data_type": "TYPE_INT32", "dims": [2, 1], "data": "AQAAAAIAAAA="}));
    assert_eq!(of(&given), (vec![2, 1], vec![1, 0, 0, 0, 2, 0, 0, 0]));
    let texts = state(|state| {
        state["data_type"] = json!("TYPE_STRING");
        state["initial_state"] = json!([{"dims": [2, 1], "data": "AQAAAGEAAAAA"}]);
    });
    assert_eq!(of(&texts).1, [1, 0, 0, 0, b'a', 0, 0, 0, 0]);
}

#[test]
fn a_state_that_cannot_begin_is_refused_by_its_field() {
    let place = "sequence_batching.state[0].initial_state[0]";
    for (wrong, field) in [
        (json!({"dims": [3, 1], "zero_data": true}), "dims"),
        (json!({"dims": [2], "zero_data": true}), "dims"),
        (
            json!({"dims": [2, 1], "data_type": "TYPE_FP32", "zero_data": true}),
            "data_type",
        ),
        (json!({"dims": [2, 1]}), "zero_data"),
        (json!({"dims": [2, 1], "zero_data": true, "data": ""}), "zero_data"),
        (json!({"dims": [2, 1], "data": "AQAAAA=="}), "data"),
        (json!({"dims": [2, 1], "data": "no base64"}), "data"),
        (json!({"dims": [2, 1], "data_file": "h0"}), "data_file"),
    ] {
        assert_eq!(fields(&initial(wrong)), [format!("{place}.{field}")]);
    }
    let elements = u64::try_from(MAX_INITIAL_STATE_BYTES / 8).unwrap();
    let zeros = |extent: u64| fields(&initial(json!({"dims": [2, extent], "zero_data": true})));
    assert!(zeros(elements).is_empty());
    assert_eq!(zeros(elements + 1), [format!("{place}.dims")]);
    assert_eq!(zeros(u64::MAX), [format!("{place}.dims")]);
    let two = state(|state| state["initial_state"] = json!([{"dims": [2, 1], "zero_data": true}, {"dims": [2, 1]}]));
    assert_eq!(fields(&two), ["sequence_batching.state[0].initial_state"]);
}

#[test]
fn states_have_names_of_their_own_and_may_be_shown_as_they_are() {
    for (field, name) in [("input_name", "INPUT"), ("input_name", ""), ("output_name", "")] {
        let wrong = state(|state| state[field] = json!(name));
        assert_eq!(fields(&wrong), [format!("sequence_batching.state[0].{field}")]);
    }
    let shown = state(|state| {
        state["output_name"] = json!("OUTPUT");
        state["dims"] = json!([1]);
    });
    assert!(fields(&shown).is_empty());
    let other = state(|state| state["output_name"] = json!("OUTPUT"));
    assert_eq!(fields(&other), ["sequence_batching.state[0].output_name"]);
    let no_dims = state(|state| state["dims"] = json!([0]));
    assert_eq!(fields(&no_dims), ["sequence_batching.state[0].dims"]);
    let whole = config(&shown).with_sequence_tensors().unwrap();
    let names: Vec<_> = whole
        .input
        .iter()
        .chain(&whole.output)
        .map(|spec| spec.name.as_str())
        .collect();
    assert_eq!(names, ["INPUT", "STATE", "OUTPUT"]);
}

#[test]
fn a_runtime_sees_controls_and_states_behind_the_callers_tensors() {
    let mut sequence = dyna();
    sequence["state"] = state(|_| {})["state"].clone();
    let whole = config(&sequence).with_sequence_tensors().unwrap();
    let names: Vec<_> = whole.input.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["INPUT", "START", "END", "READY", "CORRID", "STATE"]);
    assert_eq!(
        (whole.input[4].datatype, &*whole.input[4].dims),
        (DataType::Uint64, &[1][..])
    );
    let names: Vec<_> = whole.output.iter().map(|spec| spec.name.as_str()).collect();
    assert_eq!(names, ["OUTPUT", "NEXT"]);
    assert!(ModelConfig::default().with_sequence_tensors().is_none());
}
