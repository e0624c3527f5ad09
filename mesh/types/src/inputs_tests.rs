//! Facts about the check of inputs against a configuration.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::Shape;

fn config(max_batch_size: u32) -> ModelConfig {
    let spec = |name: &str| TensorSpec::new(name, DataType::Int8, &[-1, 2]);
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

fn optional_config() -> ModelConfig {
    let mut config = config(8);
    config.input[1].optional = true;
    config.input.push(TensorSpec {
        unbatched: true,
        optional: true,
        ..TensorSpec::new("k", DataType::Int8, &[-1])
    });
    config
}

fn check_optional(mut inputs: Vec<Tensor>) -> Result<(u32, Vec<String>), String> {
    let model = ModelId::parse("m").unwrap();
    let rows = optional_config()
        .check_inputs(&model, &mut inputs)
        .map_err(|error| error.to_string())?;
    Ok((rows, inputs.iter().map(|tensor| tensor.name.to_string()).collect()))
}

#[test]
fn optional_inputs_may_be_left_out_and_others_not() {
    let (a, b, k) = (
        || tensor("a", &[3, 1, 2]),
        || tensor("b", &[3, 5, 2]),
        || tensor("k", &[4]),
    );
    let names = |names: &[&str]| (3, names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    assert_eq!(check_optional(vec![a()]), Ok(names(&["a"])));
    assert_eq!(check_optional(vec![k(), a()]), Ok(names(&["a", "k"])));
    assert_eq!(check_optional(vec![k(), b(), a()]), Ok(names(&["a", "b", "k"])));
    let missing = check_optional(vec![b(), k()]).unwrap_err();
    assert!(missing.contains("input 'a' is missing"), "{missing}");
    let none = check_optional(vec![]).unwrap_err();
    assert!(none.contains("between 1 and 3 but got 0"), "{none}");
    let twice = check_optional(vec![a(), b(), b()]).unwrap_err();
    assert!(twice.contains("already exists"), "{twice}");
}

#[test]
fn an_unbatched_input_has_no_rows_and_a_bound() {
    let most = u64::try_from(TensorSpec::MAX_UNBATCHED_BYTES).unwrap();
    let with = |extent: u64| check_optional(vec![tensor("a", &[2, 1, 2]), tensor("k", &[extent])]);
    assert_eq!(with(most).unwrap().0, 2);
    let long = with(most + 1).unwrap_err();
    assert!(long.contains("at most 256"), "{long}");
    let shaped = check_optional(vec![tensor("a", &[2, 1, 2]), tensor("k", &[2, 1])]).unwrap_err();
    assert!(shaped.contains("Expected [-1], got [2,1]"), "{shaped}");
}
