//! Packages that PyTorch compiled: what their calls may be, what is said where they fail, and which are never opened.

use mesh_backend::{BatchInput, BatchInputs};
use mesh_types::{DataType, ModelConfig, Tensor, TensorSpec};

use super::*;
use crate::{
    conformance_tests::{changed, made},
    tests::{floats, load_as, raw, spec},
};

fn open(name: &str, config: &ModelConfig) -> Result<Box<dyn LoadedModel>, BackendError> {
    load_as(ArtifactFormat::TorchAoti, made(name, "pt2"), config.clone())
}

fn config(input: Vec<TensorSpec>, output: TensorSpec) -> ModelConfig {
    ModelConfig {
        max_batch_size: 64,
        input,
        output: vec![output],
        ..ModelConfig::default()
    }
}

fn floating(name: &str, dims: &[i64]) -> TensorSpec {
    spec(name, DataType::Fp32, dims)
}

/// Calls with the given shapes, filled with the given bytes again and again.
fn call(
    model: &mut dyn LoadedModel,
    config: &ModelConfig,
    shapes: &[&[u64]],
    element: &[u8],
) -> Result<Vec<Tensor>, BackendError> {
    let elements = |shape: &&[u64]| usize::try_from(shape.iter().product::<u64>()).unwrap();
    let data: Vec<Vec<u8>> = shapes.iter().map(|shape| element.repeat(elements(shape))).collect();
    let inputs = config
        .input
        .iter()
        .zip(shapes)
        .zip(&data)
        .map(|((spec, shape), data)| BatchInput {
            spec,
            shape: shape.iter().copied().collect(),
            parts: vec![data],
        });
    let rows = shapes[0]
        .first()
        .and_then(|rows| u32::try_from(*rows).ok())
        .unwrap_or(1);
    let batch = BatchInputs {
        rows,
        inputs: inputs.collect(),
        parameters: None,
    };
    model.execute(&batch).map(|outputs| outputs.outputs)
}

fn one() -> Vec<u8> {
    raw(&[1.0])
}

#[test]
fn extents_that_the_code_takes_for_one_must_be_equal_at_every_call() {
    let weight = TensorSpec {
        unbatched: true,
        ..floating("weight", &[-1])
    };
    let mut config = config(vec![floating("x", &[-1]), weight], floating("y", &[-1]));
    config.input[0].name = "INPUT__0".into();
    config.input[1].name = "INPUT__1".into();
    // More rows than the length may be: an input without rows does not bound them.
    config.max_batch_size = 100;
    let mut model = open("weighed", &config).unwrap();
    let outputs = call(model.as_mut(), &config, &[&[3, 5], &[5]], &one()).unwrap();
    assert_eq!(floats(&outputs[0].data), [1.0; 15]);
    for (shapes, right) in [
        (
            [&[3, 5][..], &[4]],
            "'INPUT__1' has the extent 4 at place 0, where it must have that of 'INPUT__0' at place 1, which is 5",
        ),
        ([&[3, 5], &[64]], "'INPUT__1' has the extent 64 at place 0"),
        (
            [&[3, 65], &[65]],
            "'INPUT__0' has the shape [3, 65], the package was compiled for [1 to 1024, 2 to 64]",
        ),
        ([&[3, 1], &[1]], "[1 to 1024, 2 to 64]"),
    ] {
        let error = call(model.as_mut(), &config, &shapes, &one()).unwrap_err();
        assert!(matches!(error, BackendError::InvalidInput(_)), "{error}");
        assert!(error.to_string().contains(right), "{error}");
    }
    assert!(
        call(model.as_mut(), &config, &[&[1, 64], &[64]], &one()).is_ok(),
        "usable after that"
    );
}

#[test]
fn a_multiple_of_a_dimension_is_held_to_its_steps() {
    let config = config(vec![floating("x", &[-1])], floating("y", &[-1]));
    let mut model = open("blocks", &config).unwrap();
    let outputs = call(model.as_mut(), &config, &[&[2, 96]], &one()).unwrap();
    assert_eq!(floats(&outputs[0].data), [3.0; 192]);
    let error = call(model.as_mut(), &config, &[&[2, 97]], &one()).unwrap_err();
    assert!(
        matches!(&error, BackendError::InvalidInput(text) if text.contains("64 to 256 in steps of 32")),
        "{error}"
    );
}

#[test]
fn weights_are_in_the_library_or_beside_it_and_a_package_without_them_is_refused() {
    let config = config(vec![floating("x", &[30])], floating("y", &[2]));
    let text = open("weights_nowhere", &config).err().unwrap().to_string();
    assert!(
        text.contains("without its weights") && text.contains("package_constants_in_so"),
        "{text}"
    );
    let mut beside = open("weights_beside", &config).unwrap();
    let mut script = load_as(
        ArtifactFormat::TorchScript,
        made("weights_beside", "pt"),
        config.clone(),
    )
    .unwrap();
    let ours = call(beside.as_mut(), &config, &[&[3, 30]], &one()).unwrap();
    let theirs = call(script.as_mut(), &config, &[&[3, 30]], &one()).unwrap();
    for (one, other) in floats(&ours[0].data).iter().zip(floats(&theirs[0].data)) {
        assert!((one - other).abs() < 1e-5 && *one != 0.0, "{one} {other}");
    }
    let cut = |name: &str, content: Vec<u8>| {
        Some(if name.ends_with(".blob") {
            content[..content.len() - 1].to_vec()
        } else {
            content
        })
    };
    let (_folder, path) = changed(&made("weights_beside", "pt2"), &cut);
    let text = load_as(ArtifactFormat::TorchAoti, path, config)
        .err()
        .unwrap()
        .to_string();
    assert!(text.contains("weights are cut short"), "{text}");
}

#[test]
fn a_failure_says_its_reason_and_the_package_stays_usable() {
    let config = config(vec![spec("x", DataType::Int64, &[6])], floating("y", &[6, 64]));
    let mut model = open("lookup", &config).unwrap();
    for _ in 0..2 {
        let error = call(model.as_mut(), &config, &[&[2, 6]], &1_000i64.to_le_bytes()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, BackendError::Execution(_)), "{text}");
        assert!(text.contains("index out of bounds") && !text.contains(".cpp"), "{text}");
        assert!(call(model.as_mut(), &config, &[&[2, 6]], &99i64.to_le_bytes()).is_ok());
    }
}

#[test]
fn no_memory_for_a_package_is_known_as_such() {
    let config = config(vec![floating("x", &[3])], floating("y", &[-1]));
    let mut model = open("endless", &config).unwrap();
    let error = call(model.as_mut(), &config, &[&[2, 3]], &one()).unwrap_err();
    assert!(matches!(error, BackendError::OutOfMemory(_)), "{error}");
    assert!(error.to_string().contains("can't allocate memory"), "{error}");
}

#[test]
fn code_that_would_end_the_process_on_a_callers_number_is_refused() {
    let config = config(vec![spec("x", DataType::Int64, &[6])], floating("y", &[6, 64]));
    let error = open("lookup_parallel", &config).err().unwrap();
    assert!(
        matches!(&error, BackendError::Unsupported(text) if text.contains("\"cpp.threads\": 1")),
        "{error}"
    );
}

#[test]
fn what_cannot_be_checked_of_a_processor_is_remarked() {
    let config = config(vec![floating("x", &[30])], floating("y", &[2]));
    let model = open("perceptron", &config).unwrap();
    let remark = model.report().remark;
    assert!(
        remark.contains("-march=native") && remark.contains("oldest kind of processor"),
        "{remark}"
    );
    let foreign = |name: &str, content: Vec<u8>| {
        Some(if name.ends_with(".cpp") {
            let text = String::from_utf8(content).unwrap();
            text.replace("-march=native", "-march=native -msha512 -mavx512er")
                .into_bytes()
        } else {
            content
        })
    };
    let (_folder, path) = changed(&made("perceptron", "pt2"), &foreign);
    let model = load_as(ArtifactFormat::TorchAoti, path, config).unwrap();
    assert!(model.report().remark.contains("-march=native -mavx512er -msha512"));
}
