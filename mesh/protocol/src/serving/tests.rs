//! Messages as their generated types write them, against what is read by hand, and answers against their generated types.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_types::{DataType, InferResponse, ModelConfig, Parameters, Tensor, TensorSpec, Version, VersionSelector};
use proptest::prelude::*;
use prost::Message as _;

use super::{
    messages::{
        BytesList, Example, Feature, Features, FloatList, Int64List, TensorProto, TensorShapeProto,
        feature::Kind,
        serving::{
            ClassificationRequest, ExampleList, ExampleListWithContext, Input, ModelSpec, PredictRequest,
            SignatureDefMap, input, model_spec::VersionChoice,
        },
    },
    tensor::{dtype, shape_of, written},
    *,
};
use crate::{round_trip_tests, wire::MAX_TENSORS};

fn spec(name: &str) -> Option<ModelSpec> {
    Some(ModelSpec {
        name: name.to_owned(),
        ..ModelSpec::default()
    })
}

fn asked(tensor: TensorProto) -> Bytes {
    let request = PredictRequest {
        model_spec: spec("m"),
        inputs: BTreeMap::from([("x".to_owned(), tensor)]),
        output_filter: Vec::new(),
    };
    request.encode_to_vec().into()
}

fn read(tensor: TensorProto) -> Result<Tensor, String> {
    let read = decode_predict(&asked(tensor)).map_err(|error| error.to_string())?;
    Ok(read.inputs.into_iter().next().unwrap())
}

fn proto(datatype: DataType, shape: &[i64]) -> TensorProto {
    TensorProto {
        dtype: dtype(datatype).into(),
        tensor_shape: Some(shape_of(shape.iter().copied())),
        ..TensorProto::default()
    }
}

fn floats(shape: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        float_val: values.to_vec(),
        ..proto(DataType::Fp32, shape)
    }
}

proptest! {
    /// Every datatype in every shape, by elements and by bytes, comes back to the bit.
    #[test]
    fn a_tensor_is_read_as_it_was_written(tensor in round_trip_tests::tensor("x", false)) {
        prop_assert_eq!(read(written(&tensor)), Ok(tensor.clone()));
        if tensor.datatype != DataType::Bytes {
            let shape: Vec<i64> = tensor.shape.iter().map(|extent| i64::try_from(*extent).unwrap()).collect();
            let bytes = TensorProto { tensor_content: tensor.data.clone(), ..proto(tensor.datatype, &shape) };
            prop_assert_eq!(read(bytes), Ok(tensor));
        }
    }

    #[test]
    fn any_bytes_get_an_answer(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        crate::fuzz::serving(&data).unwrap();
    }
}

#[test]
fn bytes_share_the_messages_memory() {
    let tensor = TensorProto {
        tensor_content: vec![7; 4_000].into(),
        ..proto(DataType::Fp32, &[1_000])
    };
    let message = asked(tensor);
    let read = decode_predict(&message).unwrap();
    let held = read.inputs[0].data.as_ptr_range();
    assert!(message.as_ptr_range().start < held.start && held.end <= message.as_ptr_range().end);
}

#[test]
fn the_last_element_fills_the_shape_within_a_bound() {
    let whole = |tensor: &Tensor| {
        tensor
            .data
            .as_chunks::<4>()
            .0
            .iter()
            .map(|raw| f32::from_le_bytes(*raw))
            .collect::<Vec<_>>()
    };
    assert_eq!(whole(&read(floats(&[4], &[1.5, 2.0])).unwrap()), [1.5, 2.0, 2.0, 2.0]);
    assert_eq!(whole(&read(floats(&[3], &[])).unwrap()), [0.0; 3]);
    let text = TensorProto {
        string_val: vec!["ab".into()],
        ..proto(DataType::Bytes, &[2])
    };
    assert_eq!(&read(text).unwrap().data[..], b"\x02\0\0\0ab\x02\0\0\0ab");
    let empty = read(proto(DataType::Bytes, &[2])).unwrap();
    assert_eq!(&empty.data[..], [0; 8]);
    let most = i64::try_from(MAX_FILLED_BYTES / 4).unwrap();
    assert_eq!(
        read(floats(&[most + 1], &[1.0])).unwrap().data.len(),
        MAX_FILLED_BYTES + 4
    );
    let text = read(floats(&[most + 2], &[1.0])).unwrap_err();
    assert!(text.contains("too few elements"), "{text}");
    // The bound is that of the request and not of each input.
    let half = floats(&[most / 2 + 1], &[1.0]);
    let mut request = PredictRequest {
        model_spec: spec("m"),
        ..PredictRequest::default()
    };
    request.inputs = [("a".to_owned(), half.clone()), ("b".to_owned(), half)].into();
    assert!(decode_predict(&request.encode_to_vec().into()).is_ok());
    request.inputs.insert("c".to_owned(), floats(&[2], &[1.0]));
    assert!(decode_predict(&request.encode_to_vec().into()).is_err());
}

#[test]
fn every_refusal_of_a_tensor_has_its_own_text() {
    let unknown = TensorProto {
        tensor_shape: Some(TensorShapeProto {
            unknown_rank: true,
            dim: Vec::new(),
        }),
        ..floats(&[1], &[1.0])
    };
    let text = TensorProto {
        tensor_content: "abcd".into(),
        ..proto(DataType::Bytes, &[1])
    };
    let small = |number| TensorProto {
        int_val: vec![number],
        ..proto(DataType::Uint8, &[1])
    };
    for (tensor, text) in [
        (
            TensorProto {
                dtype: 18,
                ..proto(DataType::Fp32, &[1])
            },
            "has the dtype 18",
        ),
        (unknown, "unknown rank"),
        (text, "has tensor_content"),
        (
            TensorProto {
                int_val: vec![1],
                ..proto(DataType::Fp32, &[1])
            },
            "another field than 'float_val'",
        ),
        (
            floats(&[1], &[1.0, 2.0]),
            "has more than 1 elements in 'contents', its shape needs 1",
        ),
        (floats(&[-1], &[1.0]), "has the extent -1"),
        (floats(&[i64::MAX, 4], &[1.0]), "overflows"),
        (floats(&[1; 17], &[1.0]), "more than 16 dimensions"),
        (small(256), "out of range"),
        (small(-1), "out of range"),
        (
            TensorProto {
                tensor_content: "abc".into(),
                ..proto(DataType::Fp32, &[1])
            },
            "holds 3 bytes",
        ),
    ] {
        let got = read(tensor).unwrap_err();
        assert!(got.contains(text), "{got}");
    }
}

fn predict(spec: Option<ModelSpec>) -> Result<Predict, String> {
    let request = PredictRequest {
        model_spec: spec,
        inputs: BTreeMap::from([("x".to_owned(), floats(&[1], &[1.0]))]),
        output_filter: vec!["y".to_owned()],
    };
    decode_predict(&request.encode_to_vec().into()).map_err(|error| error.to_string())
}

#[test]
fn a_version_is_a_number_or_a_label() {
    let with = |choice| ModelSpec {
        name: "m".to_owned(),
        version_choice: choice,
        signature_name: "serving_default".to_owned(),
    };
    let of = |choice| predict(Some(with(choice)));
    let read = of(None).unwrap();
    assert_eq!(
        (read.asked.version, read.outputs),
        (VersionSelector::Default, vec!["y".to_owned()])
    );
    let read = of(Some(VersionChoice::Version(3))).unwrap();
    assert_eq!(read.asked.version, VersionSelector::Version(Version::new(3).unwrap()));
    let read = of(Some(VersionChoice::VersionLabel("stable".to_owned()))).unwrap();
    assert!(matches!(read.asked.version, VersionSelector::Label(label) if label.as_str() == "stable"));
    for wrong in [0, -1, i64::MAX] {
        let text = of(Some(VersionChoice::Version(wrong))).unwrap_err();
        assert_eq!(text, format!("Servable not found for request: Specific(m, {wrong})"));
    }
    let text = of(Some(VersionChoice::VersionLabel("No".to_owned()))).unwrap_err();
    assert_eq!(text, "Unrecognized servable version label: No");
    assert_eq!(predict(None).unwrap_err(), "Missing model name in ModelSpec");
    let mut other = with(None);
    other.signature_name = "other".to_owned();
    assert!(predict(Some(other)).unwrap_err().contains("'other'"));
}

#[test]
fn as_many_inputs_as_there_may_be_and_not_one_more() {
    let with = |inputs: usize| {
        let request = PredictRequest {
            model_spec: spec("m"),
            inputs: (0..inputs).map(|at| (format!("x{at}"), floats(&[1], &[1.0]))).collect(),
            output_filter: Vec::new(),
        };
        decode_predict(&request.encode_to_vec().into())
    };
    assert_eq!(with(MAX_TENSORS).unwrap().inputs.len(), MAX_TENSORS);
    assert!(with(MAX_TENSORS + 1).unwrap_err().to_string().contains("at most 64"));
    assert!(with(0).unwrap_err().to_string().contains("no 'inputs'"));
}

fn config(rows: u32, inputs: &[(&str, DataType, &[i64])]) -> ModelConfig {
    let input = inputs
        .iter()
        .map(|(name, kind, dims)| TensorSpec::new(*name, *kind, dims));
    ModelConfig {
        max_batch_size: rows,
        input: input.collect(),
        output: vec![TensorSpec::new("y", DataType::Fp32, &[2])],
        ..ModelConfig::default()
    }
}

fn example(features: &[(&str, Kind)]) -> Example {
    let feature = |(name, kind): &(&str, Kind)| {
        (
            (*name).to_owned(),
            Feature {
                kind: Some(kind.clone()),
            },
        )
    };
    Example {
        features: Some(Features {
            feature: features.iter().map(feature).collect(),
        }),
    }
}

fn numbers(values: &[f32]) -> Kind {
    Kind::FloatList(FloatList { value: values.to_vec() })
}

fn wholes(values: &[i64]) -> Kind {
    Kind::Int64List(Int64List { value: values.to_vec() })
}

fn words(values: &[&str]) -> Kind {
    let value = values.iter().map(|text| Bytes::copy_from_slice(text.as_bytes()));
    Kind::BytesList(BytesList { value: value.collect() })
}

fn inputs(config: &ModelConfig, kind: input::Kind) -> Result<Vec<Tensor>, String> {
    let request = ClassificationRequest {
        model_spec: spec("m"),
        input: Some(Input { kind: Some(kind) }),
    };
    let examples = decode_examples(&request.encode_to_vec().into()).map_err(|error| error.to_string())?;
    assert_eq!(examples.asked.name, "m");
    examples.inputs(config).map_err(|error| error.to_string())
}

fn list(examples: &[Example]) -> input::Kind {
    let examples = examples.to_vec();
    input::Kind::ExampleList(ExampleList { examples })
}

#[test]
fn examples_become_rows_of_the_models_inputs() {
    let config = config(
        8,
        &[
            ("x", DataType::Fp32, &[2]),
            ("k", DataType::Int8, &[1]),
            ("t", DataType::Bytes, &[-1]),
        ],
    );
    let one = |x: &[f32], k: i64, t: &[&str]| example(&[("x", numbers(x)), ("k", wholes(&[k])), ("t", words(t))]);
    let tensors = inputs(
        &config,
        list(&[one(&[1.0, 2.0], -3, &["a", "b"]), one(&[3.0, 4.0], 5, &["c", ""])]),
    )
    .unwrap();
    let shapes: Vec<_> = tensors
        .iter()
        .map(|tensor| (&*tensor.name, tensor.shape.to_vec()))
        .collect();
    assert_eq!(shapes, [("x", vec![2, 2]), ("k", vec![2, 1]), ("t", vec![2, 2])]);
    assert_eq!(&tensors[1].data[..], [253, 5]);
    assert_eq!(&tensors[2].data[..], b"\x01\0\0\0a\x01\0\0\0b\x01\0\0\0c\0\0\0\0");
    let shared = input::Kind::ExampleListWithContext(ExampleListWithContext {
        examples: vec![
            example(&[("x", numbers(&[1.0, 2.0]))]),
            example(&[("x", numbers(&[3.0, 4.0]))]),
        ],
        context: Some(example(&[("k", wholes(&[7])), ("t", words(&["z"]))])),
    });
    let tensors = inputs(&config, shared).unwrap();
    assert_eq!(&tensors[1].data[..], [7, 7]);
}

#[test]
fn examples_that_are_not_alike_are_refused_by_name() {
    let config = config(8, &[("x", DataType::Fp32, &[2]), ("k", DataType::Int8, &[1])]);
    let whole = || vec![("x", numbers(&[1.0, 2.0])), ("k", wholes(&[1]))];
    let with = |features: &[(&str, Kind)]| inputs(&config, list(&[example(&whole()), example(features)]));
    for (features, text) in [
        (
            vec![("x", numbers(&[1.0, 2.0]))],
            "instance 1 has no value for input 'k'",
        ),
        (
            vec![("x", numbers(&[1.0])), ("k", wholes(&[1]))],
            "has 1 values in example 1, and 2 in the first one",
        ),
        (
            vec![("x", wholes(&[1, 2])), ("k", wholes(&[1]))],
            "is not in 'float_list' in example 1",
        ),
        (
            vec![("x", numbers(&[1.0, 2.0])), ("k", wholes(&[128]))],
            "128 is out of range",
        ),
        (
            vec![("x", numbers(&[1.0, 2.0])), ("z", wholes(&[1]))],
            "the model has no input 'z'",
        ),
    ] {
        let got = with(&features).unwrap_err();
        assert!(got.contains(text), "{got}");
    }
    let odd = inputs(
        &config,
        list(&[example(&[("x", numbers(&[1.0; 3])), ("k", wholes(&[1]))])]),
    )
    .unwrap_err();
    assert!(odd.contains("has 3 values in each example"), "{odd}");
    assert!(inputs(&config, list(&[])).unwrap_err().contains("'examples'"));
    let single = self::config(0, &[("x", DataType::Fp32, &[2])]);
    let one = example(&[("x", numbers(&[1.0, 2.0]))]);
    assert_eq!(
        inputs(&single, list(std::slice::from_ref(&one))).unwrap()[0]
            .shape
            .to_vec(),
        [2]
    );
    assert!(
        inputs(&single, list(&[one.clone(), one]))
            .unwrap_err()
            .contains("one instance at a time")
    );
}

#[test]
fn a_context_has_the_bound_that_it_has_in_json() {
    let config = config(8, &[("x", DataType::Fp32, &[1]), ("t", DataType::Bytes, &[1])]);
    let with = |bytes: usize| {
        let text = "t".repeat(bytes);
        inputs(
            &config,
            input::Kind::ExampleListWithContext(ExampleListWithContext {
                examples: vec![example(&[("x", numbers(&[1.0]))]); 2],
                context: Some(example(&[("t", words(&[&text]))])),
            }),
        )
    };
    assert!(with(crate::v1::MAX_SPREAD_BYTES / 2 - 100).is_ok());
    assert!(with(crate::v1::MAX_SPREAD_BYTES / 2).unwrap_err().contains("context"));
}

fn answered(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse {
        id: None,
        model: "m".to_owned(),
        version: Version::new(3).unwrap(),
        outputs,
        parameters: Parameters::new(),
        regions: Vec::new(),
    }
}

fn scores(shape: &[u64], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new("y".into(), DataType::Fp32, shape.iter().copied().collect(), data.into()).unwrap()
}

#[test]
fn answers_are_by_name_by_class_and_by_example() {
    let mut config = config(8, &[("x", DataType::Fp32, &[2])]);
    let response = answered(vec![scores(&[2, 2], &[0.5, 0.25, 1.0, -1.0])]);
    let told = prediction(&response);
    assert_eq!(told.outputs["y"].float_val, [0.5, 0.25, 1.0, -1.0]);
    let spec = told.model_spec.unwrap();
    assert_eq!(
        (spec.name.as_str(), spec.version_choice),
        ("m", Some(VersionChoice::Version(3)))
    );
    config.output[0].labels = vec!["cat".to_owned()];
    let result = classification(&response, &config).unwrap().result.unwrap();
    let rows: Vec<Vec<_>> = result
        .classifications
        .iter()
        .map(|row| {
            row.classes
                .iter()
                .map(|class| (class.label.as_str(), class.score))
                .collect()
        })
        .collect();
    assert_eq!(rows, [[("cat", 0.5), ("1", 0.25)], [("cat", 1.0), ("1", -1.0)]]);
    assert!(regression(&response).is_err());
    let one = answered(vec![scores(&[2, 1], &[1.5, -2.0])]);
    let result = regression(&one).unwrap().result.unwrap();
    assert_eq!(
        result.regressions.iter().map(|one| one.value).collect::<Vec<_>>(),
        [1.5, -2.0]
    );
}

#[test]
fn a_signature_is_within_its_metadata() {
    let config = config(8, &[("x", DataType::Int64, &[-1])]);
    let told = signature("m", Version::new(3).unwrap(), &config);
    let held = &told.metadata["signature_def"];
    assert_eq!(held.type_url, "type.googleapis.com/tensorflow.serving.SignatureDefMap");
    let all = SignatureDefMap::decode(&*held.value).unwrap();
    let x = &all.signature_def["serving_default"].inputs["x"];
    let dims: Vec<i64> = x
        .tensor_shape
        .iter()
        .flat_map(|shape| &shape.dim)
        .map(|dim| dim.size)
        .collect();
    assert_eq!((x.dtype, dims), (9, vec![-1, -1]));
}
