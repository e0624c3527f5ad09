//! Facts about warm-up records and residency.

use super::*;
use crate::ModelConfig;

fn config(records: &serde_json::Value) -> ModelConfig {
    let value = serde_json::json!({
        "max_batch_size": 4,
        "input": [
            {"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 2]},
            {"name": "s", "data_type": "TYPE_STRING", "dims": [1]},
        ],
        "output": [{"name": "y", "data_type": "FP32", "dims": [1]}],
        "model_warmup": records,
    });
    serde_json::from_value(value).unwrap()
}

fn problems(records: &serde_json::Value) -> Vec<String> {
    let problems = config(records).problems();
    problems.into_iter().map(|problem| problem.to_string()).collect()
}

#[test]
fn a_record_in_tritons_words_is_read_and_written_back() {
    let records = serde_json::json!([{
        "name": "one", "batch_size": 4, "count": 2,
        "inputs": {
            "x": {"data_type": "TYPE_FP32", "dims": [3, 2], "random_data": true},
            "s": {"data_type": "TYPE_STRING", "dims": [1], "input_data": "AgAAAGhp"},
        },
    }]);
    let config = config(&records);
    assert!(config.problems().is_empty(), "{:?}", config.problems());
    let record = &config.model_warmup[0];
    assert_eq!((record.rows(), record.runs()), (4, 2));
    assert_eq!(record.inputs["s"].input_data.as_ref().unwrap().0, b"\x02\0\0\0hi"[..]);
    let again: ModelConfig = serde_json::from_value(serde_json::to_value(&config).unwrap()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn every_mistake_in_a_record_names_its_place() {
    let found = problems(&serde_json::json!([
        {"name": "", "batch_size": 5, "count": 1001, "inputs": {
            "x": {"data_type": "INT64", "dims": [0, 2], "zero_data": true, "random_data": true},
            "z": {"data_type": "FP32", "dims": [1], "zero_data": true},
        }},
        {"name": "file", "inputs": {
            "x": {"data_type": "FP32", "dims": [1, 2], "input_data": "AAAA"},
            "s": {"data_type": "BYTES", "dims": [1], "input_data_file": "sample"},
        }},
    ]));
    let expected = [
        "model_warmup[0].name: 1 to 255 bytes",
        "model_warmup[0].batch_size: at most max_batch_size (4), got 5",
        "model_warmup[0].count: at most 1000, got 1001",
        "model_warmup[0].inputs.x.data_type: the model's input is FP32, got INT64",
        "model_warmup[0].inputs.x.dims: the model's input has [-1, 2]",
        "model_warmup[0].inputs.x: give one of",
        "model_warmup[0].inputs.z: the model has no such input",
        "model_warmup[0].inputs: 's' is missing",
        "model_warmup[1].inputs.s.input_data_file: the store keeps one file",
        "model_warmup[1].inputs.x.input_data: its 3 bytes are not the 2 elements",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found} is not {expected}");
    }
}

#[test]
fn as_many_records_and_bytes_as_the_bounds_pass_and_one_more_does_not() {
    let many = |count: usize, bytes: usize| {
        let record = |index: usize| ModelWarmup {
            name: format!("r{index}"),
            inputs: BTreeMap::from([(
                "s".to_owned(),
                WarmupInput {
                    data_type: DataType::Bytes,
                    dims: vec![1],
                    input_data: (index == 0).then(|| {
                        let length = u32::try_from(bytes - 4).unwrap();
                        let data = [length.to_le_bytes().to_vec(), vec![7; bytes - 4]].concat();
                        Base64Bytes(Bytes::from(data))
                    }),
                    zero_data: index > 0,
                    random_data: false,
                    input_data_file: None,
                },
            )]),
            ..ModelWarmup::default()
        };
        let records: Vec<ModelWarmup> = (0..count).map(record).collect();
        let spec = TensorSpec::new("s", DataType::Bytes, &[1]);
        let mut found = Vec::new();
        check_warmups(&records, &[spec], 0, |field, problem| {
            found.push(format!("{field}{problem}"));
        });
        found
    };
    assert_eq!(many(MAX_WARMUPS, MAX_WARMUP_BYTES), Vec::<String>::new());
    assert_eq!(many(MAX_WARMUPS + 1, 8).len(), 1);
    assert_eq!(many(1, MAX_WARMUP_BYTES + 1).len(), 1);
}

#[test]
fn a_residency_that_contradicts_itself_or_knows_an_unknown_word_is_refused() {
    let read = |text: &str| serde_json::from_str::<ResidencyPolicy>(text);
    let mut found = Vec::new();
    let both = read(r#"{"pinned": true, "idle_seconds": 5}"#).unwrap();
    check_residency(&both, |field, problem| found.push(format!("{field}: {problem}")));
    let long = read(r#"{"load": "ON_DEMAND", "idle_seconds": 31536001}"#).unwrap();
    check_residency(&long, |field, problem| found.push(format!("{field}: {problem}")));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(read(r#"{"load": "LAZY"}"#).is_err());
    assert!(read(r#"{"pinned": true, "keep": 1}"#).is_err());
    assert_eq!(read("{}").unwrap(), ResidencyPolicy::default());
}

#[test]
fn what_a_change_does_to_a_loaded_model() {
    let before = config(&serde_json::json!([]));
    let same = |change: fn(&mut ModelConfig)| {
        let mut after = before.clone();
        change(&mut after);
        before.loads_as(&after)
    };
    assert!(same(
        |config| config.dynamic_batching = Some(crate::DynamicBatching::default())
    ));
    assert!(same(|config| config
        .instance_group
        .push(crate::InstanceGroup::default())));
    assert!(same(|config| config.residency = Some(ResidencyPolicy::default())));
    assert!(same(|config| config.execution = Some(crate::ExecutionPolicy::default())));
    assert!(!same(|config| config.max_batch_size = 9));
    assert!(!same(|config| drop(config.input.pop())));
    assert!(!same(|config| config.model_warmup.push(ModelWarmup::default())));
}
