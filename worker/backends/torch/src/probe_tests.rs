//! What real modules show of their outputs.

use mesh_types::{ArtifactFormat, DataType, ModelConfig, TensorSpec};

use crate::{
    TorchOptions, probe,
    tests::{scripted, spec},
};

fn config(rows: u32, dims: &[i64], outputs: &[&str]) -> ModelConfig {
    ModelConfig {
        max_batch_size: rows,
        input: vec![spec("x", DataType::Fp32, dims)],
        // What is said here of types and extents counts for nothing.
        output: outputs.iter().map(|name| spec(name, DataType::Int8, &[99])).collect(),
        ..ModelConfig::default()
    }
}

/// What a model of one input shows.
fn shown(config: &ModelConfig, result: &str, lines: &str) -> Result<Vec<(String, DataType, Vec<i64>)>, String> {
    let (_folder, path) = scripted("x: Tensor", result, lines);
    let found = probe(&path, ArtifactFormat::TorchScript, config, &TorchOptions::default())
        .map_err(|error| error.to_string())?;
    let told = |spec: TensorSpec| (spec.name, spec.datatype, spec.dims);
    Ok(found.into_iter().map(told).collect())
}

#[test]
fn fixed_and_open_extents_and_types_are_those_that_two_runs_show() {
    let lines = concat!(
        "    y = torch.argmax(x, -1, True)\n",
        "    z = torch.gt(torch.unsqueeze(x, 1), 0)\n",
        "    return (torch.mul(x, 2), y, z)\n",
    );
    let result = "Tuple[Tensor, Tensor, Tensor]";
    let outputs = ["OUTPUT__0", "OUTPUT__1", "OUTPUT__2"];
    let named = |name: &str, datatype, dims: &[i64]| (name.to_owned(), datatype, dims.to_vec());
    assert_eq!(
        shown(&config(8, &[4, -1], &outputs), result, lines).unwrap(),
        [
            named("OUTPUT__0", DataType::Fp32, &[4, -1]),
            named("OUTPUT__1", DataType::Int64, &[4, 1]),
            named("OUTPUT__2", DataType::Bool, &[1, 4, -1]),
        ]
    );
    for rows in [1, 2] {
        let found = shown(&config(rows, &[4], &outputs), result, lines).unwrap();
        assert_eq!(found[2], named("OUTPUT__2", DataType::Bool, &[1, 4]), "{rows} rows");
    }
    // Without rows every extent is the model's own.
    let found = shown(&config(0, &[3, -1], &outputs), result, lines).unwrap();
    assert_eq!(found[0], named("OUTPUT__0", DataType::Fp32, &[3, -1]));
}

#[test]
fn keys_are_told_in_the_order_of_the_configuration() {
    let lines = "    return {\"a\": x, \"b\": torch.argmax(x, -1, True)}\n";
    let found = shown(&config(4, &[2], &["b", "a"]), "Dict[str, Tensor]", lines).unwrap();
    let names: Vec<_> = found
        .iter()
        .map(|(name, datatype, _)| (name.as_str(), *datatype))
        .collect();
    assert_eq!(names, [("b", DataType::Int64), ("a", DataType::Fp32)]);
}

#[test]
fn what_is_found_in_zeros_says_nothing_of_how_many_there_are() {
    let lines = "    return torch.flatten(torch.nonzero(x))\n";
    let found = shown(&config(0, &[3], &["OUTPUT__0"]), "Tensor", lines).unwrap();
    assert_eq!(found, [("OUTPUT__0".to_owned(), DataType::Int64, vec![-1])]);
}

#[test]
fn a_model_that_takes_no_small_inputs_is_tried_with_larger_ones() {
    let lines = "    return torch.select(torch.narrow(x, 1, 60, 4), 1, 0)\n";
    let found = shown(&config(4, &[-1], &["OUTPUT__0"]), "Tensor", lines).unwrap();
    assert_eq!(found, [("OUTPUT__0".to_owned(), DataType::Fp32, vec![])]);
}

#[test]
fn what_does_not_fit_is_told_with_what_would() {
    let sum = "    return torch.sum(x)\n";
    let error = shown(&config(4, &[2], &["OUTPUT__0"]), "Tensor", sum).unwrap_err();
    assert!(
        error.contains("'OUTPUT__0' has the shape [] for 2 rows: write max_batch_size: 0"),
        "{error}"
    );
    let complex = "    return torch.complex(x, x)\n";
    let error = shown(&config(4, &[2], &["OUTPUT__0"]), "Tensor", complex).unwrap_err();
    assert!(error.contains("which no tensor of the protocol is"), "{error}");
    let narrow = "    return torch.narrow(x, 1, 600, 4)\n";
    let error = shown(&config(4, &[-1], &["OUTPUT__0"]), "Tensor", narrow).unwrap_err();
    assert!(!error.is_empty() && error.len() < 2_000, "{error}");
    let sequences = ModelConfig {
        sequence_batching: Some(Default::default()),
        ..config(4, &[2], &["OUTPUT__0"])
    };
    let error = shown(&sequences, "Tensor", sum).unwrap_err();
    assert!(error.contains("a model of sequences is not run"), "{error}");
}
