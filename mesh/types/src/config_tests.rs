//! Facts about model configurations and the check of inputs against them.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::Shape;

fn config(max_batch_size: u32) -> ModelConfig {
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        datatype: DataType::Int8,
        dims: vec![-1, 2],
        allow_ragged_batch: false,
    };
    ModelConfig {
        max_batch_size,
        input: vec![spec("a"), spec("b")],
        output: vec![spec("c")],
        ..ModelConfig::default()
    }
}

fn tensor(name: &str, shape: &[u64]) -> Tensor {
    let bytes = usize::try_from(shape.iter().product::<u64>()).unwrap();
    Tensor::new(
        Arc::from(name),
        DataType::Int8,
        Shape::from_slice(shape),
        Bytes::from(vec![0; bytes]),
    )
    .unwrap()
}

fn check(max_batch_size: u32, mut inputs: Vec<Tensor>) -> Result<(u32, Vec<String>), String> {
    let model = ModelId::parse("m").unwrap();
    let rows = config(max_batch_size)
        .check_inputs(&model, &mut inputs)
        .map_err(|error| error.to_string())?;
    Ok((rows, inputs.iter().map(|tensor| tensor.name.to_string()).collect()))
}

#[test]
fn inputs_are_put_in_the_models_order_and_rows_counted() {
    let answer = check(8, vec![tensor("b", &[3, 5, 2]), tensor("a", &[3, 1, 2])]).unwrap();
    assert_eq!(answer, (3, vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn a_batch_of_the_maximum_passes_and_one_more_does_not() {
    assert!(check(8, vec![tensor("a", &[8, 1, 2]), tensor("b", &[8, 1, 2])]).is_ok());
    let refused = check(8, vec![tensor("a", &[9, 1, 2]), tensor("b", &[9, 1, 2])]).unwrap_err();
    assert!(
        refused.contains("inference request batch-size must be <= 8"),
        "{refused}"
    );
    assert!(check(8, vec![tensor("a", &[0, 1, 2]), tensor("b", &[0, 1, 2])]).is_err());
}

#[test]
fn without_a_batch_dimension_shapes_are_whole() {
    assert_eq!(check(0, vec![tensor("a", &[1, 2]), tensor("b", &[4, 2])]).unwrap().0, 1);
    assert!(check(0, vec![tensor("a", &[1, 1, 2]), tensor("b", &[4, 2])]).is_err());
}

#[test]
fn wrong_names_counts_shapes_and_rows_are_told_apart() {
    let a = || tensor("a", &[1, 1, 2]);
    let cases = [
        (vec![a()], "expected 2 inputs but got 1"),
        (vec![a(), a()], "already exists"),
        (vec![a(), tensor("x", &[1, 1, 2])], "unexpected inference input 'x'"),
        (
            vec![a(), tensor("b", &[1, 1, 3])],
            "unexpected shape for input 'b' for model 'm'. Expected [-1,-1,2], got [1,1,3]",
        ),
        (vec![a(), tensor("b", &[2, 1, 2])], "batch size does not match"),
        (vec![a(), tensor("b", &[])], "unexpected shape for input 'b'"),
    ];
    for (inputs, text) in cases {
        let refused = check(8, inputs).unwrap_err();
        assert!(refused.contains(text), "{refused} should contain {text}");
    }
}

#[test]
fn tritons_spelling_of_a_configuration_is_read() {
    let text = r#"{"max_batch_size":4,"input":[{"name":"x","data_type":"TYPE_FP32","dims":[2]}],
        "output":[{"name":"y","datatype":"FP32","dims":[-1]}],"dynamic_batching":{"preferred_batch_size":[2,4]},
        "instance_group":[{"count":2,"kind":"KIND_CPU"}]}"#;
    let config: ModelConfig = serde_json::from_str(text).unwrap();
    assert!(config.problems().is_empty());
    assert_eq!(
        config.instance_group.first().map(|group| group.kind),
        Some(InstanceKind::KindCpu)
    );
    assert!(serde_json::from_str::<ModelConfig>(r#"{"max_batchsize":4}"#).is_err());
}

#[test]
fn every_problem_of_a_configuration_is_named_at_once() {
    let mut bad = config(0);
    bad.dynamic_batching = Some(DynamicBatching {
        preferred_batch_size: vec![9],
        ..DynamicBatching::default()
    });
    bad.output.clear();
    bad.input[1].name = "a".into();
    let fields: Vec<_> = bad.problems().into_iter().map(|problem| problem.field).collect();
    assert_eq!(
        fields,
        [
            "input[1].name",
            "output",
            "dynamic_batching",
            "dynamic_batching.preferred_batch_size"
        ]
    );
}
