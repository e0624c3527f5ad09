//! Facts about the built-in models.

use std::sync::Arc;

use mesh_backend::{BatchInput, BatchInputs};
use mesh_types::{
    DataType, ModelConfig, ModelId, ModelParameters, ModelVersionKey, ParameterValue, RequestParameters, Shape,
    TenantId, TensorSpec, Version,
};

use super::*;

fn spec(name: &str, datatype: DataType) -> TensorSpec {
    TensorSpec::new(name, datatype, &[-1])
}

fn config(builtin: &str, inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> ModelConfig {
    let parameters = [("builtin".to_owned(), ParameterValue::String(builtin.into()))]
        .into_iter()
        .collect();
    ModelConfig {
        max_batch_size: 8,
        input: inputs,
        output: outputs,
        parameters,
        ..ModelConfig::default()
    }
}

fn load(config: &ModelConfig) -> Result<Box<dyn LoadedModel>, BackendError> {
    let (tenant, model) = (TenantId::parse("t").unwrap(), ModelId::parse("m").unwrap());
    let key = ModelVersionKey {
        tenant,
        model,
        version: Version::FIRST,
    };
    let spec = LoadSpec {
        key,
        config: Arc::new(config.clone()),
        artifact: None,
        format: ArtifactFormat::Builtin,
    };
    BuiltinBackend::new().load(&spec, DeviceId::cpu(0))
}

fn input<'a>(spec: &'a TensorSpec, part: &'a [u8]) -> BatchInput<'a> {
    BatchInput {
        spec,
        shape: Shape::from_slice(&[1, 1]),
        parts: vec![part],
    }
}

#[test]
fn add_sub_adds_and_subtracts() {
    let config = config(
        "add_sub",
        vec![spec("a", DataType::Int32), spec("b", DataType::Int32)],
        vec![spec("sum", DataType::Int32), spec("difference", DataType::Int32)],
    );
    let mut model = load(&config).unwrap();
    let (a, b) = (5i32.to_le_bytes(), 7i32.to_le_bytes());
    let outputs = model
        .execute(&BatchInputs {
            rows: 1,
            inputs: vec![input(&config.input[0], &a[..]), input(&config.input[1], &b[..])],
            parameters: None,
        })
        .unwrap()
        .outputs;
    assert_eq!(outputs[0].data, 12i32.to_le_bytes().to_vec());
    assert_eq!(outputs[1].data, (-2i32).to_le_bytes().to_vec());
}

#[test]
fn identity_gives_strings_back_and_fail_on_negative_fails() {
    let strings = config(
        "identity",
        vec![spec("x", DataType::Bytes)],
        vec![spec("y", DataType::Bytes)],
    );
    let data = [2, 0, 0, 0, b'h', b'i'];
    let batch = BatchInputs {
        rows: 1,
        inputs: vec![input(&strings.input[0], &data[..])],
        parameters: None,
    };
    assert_eq!(
        load(&strings).unwrap().execute(&batch).unwrap().outputs[0].data,
        data.to_vec()
    );
    let failing = config(
        "fail_on_negative",
        vec![spec("x", DataType::Fp32)],
        vec![spec("y", DataType::Fp32)],
    );
    let mut model = load(&failing).unwrap();
    for (value, fails) in [(1f32, false), (-1f32, true), (2f32, false)] {
        let data = value.to_le_bytes();
        let batch = BatchInputs {
            rows: 1,
            inputs: vec![input(&failing.input[0], &data[..])],
            parameters: None,
        };
        assert_eq!(model.execute(&batch).is_err(), fails);
    }
}

#[test]
fn parameters_are_answered_as_they_were_given_and_defaults_where_there_are_none() {
    let tensor = |name: &str, datatype| TensorSpec::new(name, datatype, &[1]);
    let mut echo = config(
        "echo_parameters",
        vec![spec("x", DataType::Fp32)],
        vec![tensor("said", DataType::Bytes), tensor("rows", DataType::Int32)],
    );
    assert!(load(&echo).err().unwrap().to_string().contains("request_parameters"));
    echo.request_parameters = Some(RequestParameters {
        names: Vec::new(),
        defaults: [("tone".to_owned(), "plain".to_owned())].into(),
    });
    let mut model = load(&echo).unwrap();
    let texts = [("n", "7"), ("q", "\"\n")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    let given = ModelParameters::from(std::collections::BTreeMap::from(texts));
    let mut run = |parameters, rows: u32| {
        let data = vec![0; 4 * rows as usize];
        let inputs = vec![BatchInput {
            spec: &echo.input[0],
            shape: Shape::from_slice(&[u64::from(rows), 1]),
            parts: vec![&data],
        }];
        let batch = BatchInputs {
            rows,
            inputs,
            parameters,
        };
        model.execute(&batch).unwrap().outputs
    };
    let text = br#"{"n":"7","q":"\"\n"}"#;
    let element = [&(text.len() as u32).to_le_bytes(), &text[..]].concat();
    let outputs = run(Some(&given), 2);
    assert_eq!(outputs[0].data, element.repeat(2));
    assert_eq!(outputs[0].shape.as_slice(), [2, 1]);
    assert_eq!(outputs[1].data, 2_u32.to_le_bytes().repeat(2));
    assert_eq!(&run(None, 1)[0].data[4..], br#"{"tone":"plain"}"#);
    let other = ModelConfig {
        request_parameters: echo.request_parameters.clone(),
        ..fp32("identity", None)
    };
    assert!(load(&other).err().unwrap().to_string().contains("only echo_parameters"));
}

#[test]
fn unknown_models_wrong_signatures_and_gpus_are_refused() {
    let x = || vec![spec("x", DataType::Fp32)];
    assert!(
        load(&config("nothing", x(), x()))
            .err()
            .unwrap()
            .to_string()
            .contains("no built-in model 'nothing'")
    );
    assert!(load(&config("identity", x(), vec![spec("y", DataType::Int8)])).is_err());
    assert!(load(&config("add_sub", x(), x())).is_err());
}

fn fp32(builtin: &str, parameter: Option<(&str, i64)>) -> ModelConfig {
    let tensor = |name: &str| vec![spec(name, DataType::Fp32)];
    let mut config = config(builtin, tensor("x"), tensor("y"));
    let parameter = parameter.map(|(name, value)| (name.to_owned(), ParameterValue::Int(value)));
    config.parameters.extend(parameter);
    config
}

fn run(model: &mut dyn LoadedModel, config: &ModelConfig, rows: u32, value: f32) -> Result<f32, BackendError> {
    let data: Vec<u8> = (0..rows).flat_map(|_| value.to_le_bytes()).collect();
    let batch = BatchInputs {
        rows,
        inputs: vec![BatchInput {
            spec: &config.input[0],
            shape: Shape::from_slice(&[u64::from(rows), 1]),
            parts: vec![&data],
        }],
        parameters: None,
    };
    let outputs = model.execute(&batch)?.outputs;
    Ok(f32::from_le_bytes(outputs[0].data[..4].try_into().unwrap()))
}

#[test]
fn nan_on_negative_gives_nan_for_that_value_only() {
    let config = fp32("nan_on_negative", None);
    let mut model = load(&config).unwrap();
    assert_eq!(run(model.as_mut(), &config, 1, 2.0), Ok(2.0));
    assert!(run(model.as_mut(), &config, 1, -2.0).unwrap().is_nan());
}

#[test]
fn oom_above_takes_as_many_rows_as_it_says_and_not_one_more() {
    let config = fp32("oom_above", Some(("rows", 3)));
    let mut model = load(&config).unwrap();
    assert_eq!(run(model.as_mut(), &config, 3, 1.0), Ok(1.0));
    let error = run(model.as_mut(), &config, 4, 1.0).unwrap_err();
    assert!(matches!(error, BackendError::OutOfMemory(_)), "{error}");
    assert!(load(&fp32("oom_above", None)).is_err(), "the number of rows is needed");
}

#[test]
fn hang_on_negative_hangs_until_it_is_released_or_its_time_is_over() {
    let backend = BuiltinBackend::new();
    let (tenant, model) = (TenantId::parse("t").unwrap(), ModelId::parse("m").unwrap());
    let key = ModelVersionKey {
        tenant,
        model,
        version: Version::FIRST,
    };
    let config = fp32("hang_on_negative", None);
    let spec = LoadSpec {
        key,
        config: Arc::new(config.clone()),
        artifact: None,
        format: ArtifactFormat::Builtin,
    };
    let (backend, config) = (&backend, &config);
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| {
            let mut model = backend.load(&spec, DeviceId::cpu(0)).unwrap();
            assert_eq!(
                run(model.as_mut(), config, 1, 1.0),
                Ok(1.0),
                "zero and above do not hang"
            );
            run(model.as_mut(), config, 1, -1.0)
        });
        while !hanging.is_finished() {
            backend.release();
            std::thread::yield_now();
        }
        assert_eq!(hanging.join().unwrap(), Ok(-1.0));
    });
    let short = fp32("hang_on_negative", Some(("hang_ms", 1)));
    assert_eq!(run(load(&short).unwrap().as_mut(), &short, 1, -1.0), Ok(-1.0));
}
