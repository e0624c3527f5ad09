//! Bodies of generate requests become requests, and responses flat objects; what cannot be either is refused by name.

use bytes::Bytes;
use mesh_types::{DataType, ParameterValue, Version};
use proptest::prelude::*;

use super::*;

fn config(max_batch_size: u32) -> ModelConfig {
    ModelConfig {
        max_batch_size,
        input: vec![
            TensorSpec::new("text_input", DataType::Bytes, &[1]),
            TensorSpec::new("repetition", DataType::Int32, &[-1]),
            TensorSpec::new("STREAM", DataType::Bool, &[1]),
        ],
        ..ModelConfig::default()
    }
}

fn decode(body: &str, max_batch_size: u32) -> Result<InferRequest, String> {
    decode_generate("m", VersionSelector::Default, body.as_bytes(), &config(max_batch_size))
        .map_err(|error| error.to_string())
}

#[test]
fn keys_that_are_inputs_become_tensors_and_others_parameters() {
    let body = r#"{"id":"7","text_input":"h\u0069","repetition":[3,4],"temperature":0.5,
        "parameters":{"STREAM":true,"max_tokens":9,"stop":"x"},"seed":18446744073709551615,"unset":null}"#;
    let request = decode(body, 0).unwrap();
    assert_eq!(request.id.as_deref(), Some("7"));
    let of = |at: usize| {
        (
            &*request.inputs[at].name,
            &request.inputs[at].shape[..],
            &request.inputs[at].data[..],
        )
    };
    assert_eq!(of(0), ("text_input", &[1][..], &b"\x02\0\0\0hi"[..]));
    assert_eq!(of(1), ("repetition", &[2][..], &[3, 0, 0, 0, 4, 0, 0, 0][..]));
    assert_eq!(of(2), ("STREAM", &[1][..], &[1][..]));
    let parameters: Vec<_> = request
        .parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.clone()))
        .collect();
    assert_eq!(
        parameters,
        [
            ("temperature", ParameterValue::Double(0.5)),
            ("max_tokens", ParameterValue::Int(9)),
            ("stop", ParameterValue::String("x".into())),
            ("seed", ParameterValue::Uint(u64::MAX)),
        ]
    );
}

#[test]
fn where_the_model_batches_a_body_is_one_row() {
    let request = decode(r#"{"text_input":["a"],"repetition":3,"id":5}"#, 8).unwrap();
    assert_eq!(&request.inputs[0].shape[..], [1, 1]);
    assert_eq!(&request.inputs[1].shape[..], [1, 1]);
    assert_eq!(request.id.as_deref(), Some("5"));
    let empty = decode(r#"{"repetition":[]}"#, 8).unwrap();
    assert_eq!(&empty.inputs[0].shape[..], [1, 0]);
}

#[test]
fn an_input_of_one_number_without_dimensions_takes_a_scalar() {
    let mut config = config(0);
    config.input[1].dims.clear();
    let request = decode_generate("m", VersionSelector::Default, br#"{"repetition":3}"#, &config).unwrap();
    assert_eq!(&request.inputs[0].shape[..], [] as [u64; 0]);
}

#[test]
fn what_cannot_be_mapped_is_refused_by_name() {
    for (body, text) in [
        ("[]", "an object of inputs and parameters"),
        ("{", "EOF"),
        (r#"{"other":{"a":1}}"#, "'other' is neither"),
        (r#"{"other":[1]}"#, "'other' is neither"),
        (
            r#"{"repetition":"x"}"#,
            "input 'repetition', element 0: a string is not a whole number",
        ),
        (r#"{"repetition":[1,[2]]}"#, "nested otherwise"),
        (r#"{"repetition":[[1]]}"#, "nested otherwise"),
        (r#"{"repetition":{"a":1}}"#, "an object is not a whole number"),
        (r#"{"repetition":2147483648}"#, "is not from -2147483648"),
        (r#"{"text_input":7}"#, "7 is not a string"),
        (
            r#"{"text_input":"a","parameters":{"text_input":"b"}}"#,
            "more than once",
        ),
        (r#"{"a":1,"parameters":{"a":2}}"#, "more than once"),
        (r#"{"a":1,"a":2}"#, "same key more than once"),
        (r#"{"parameters":7}"#, "an object of inputs and parameters"),
        (r#"{"id":true}"#, "'id' is a string or a number"),
    ] {
        let error = decode(body, 0).unwrap_err();
        assert!(error.contains(text), "{body}: {error}");
    }
}

#[test]
fn as_many_keys_and_parameters_as_the_bounds_pass_and_one_more_does_not() {
    let with = |count: usize| {
        let keys: Vec<String> = (0..count).map(|at| format!("\"k{at}\":1")).collect();
        decode(&format!("{{{}}}", keys.join(",")), 0)
    };
    assert_eq!(with(MAX_PARAMETERS).unwrap().parameters.len(), MAX_PARAMETERS);
    assert!(with(MAX_PARAMETERS + 1).unwrap_err().contains("parameters"));
    assert!(with(MAX_FIELDS + 1).unwrap_err().contains("keys"));
    let id = |bytes: usize| decode(&format!(r#"{{"id":"{}"}}"#, "i".repeat(bytes)), 0);
    assert!(id(MAX_ID_BYTES).is_ok());
    assert!(id(MAX_ID_BYTES + 1).is_err());
}

fn response(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse {
        id: Some("7".into()),
        model: "m".into(),
        version: Version::FIRST,
        outputs,
        parameters: [("triton_x".to_owned(), ParameterValue::Bool(true))]
            .into_iter()
            .collect(),
        regions: Vec::new(),
    }
}

fn output(name: &str, datatype: DataType, shape: &[u64], data: &[u8]) -> Tensor {
    Tensor::new(
        Arc::from(name),
        datatype,
        Shape::from_slice(shape),
        Bytes::copy_from_slice(data),
    )
    .unwrap()
}

#[test]
fn a_response_is_one_flat_object() {
    let outputs = vec![
        output("text_output", DataType::Bytes, &[1, 1], b"\x04\0\0\0a\"\nb"),
        output("scores", DataType::Int8, &[1, 2], &[1, 255]),
        output("none", DataType::Fp32, &[1, 0], &[]),
    ];
    let body = encode_generate(&response(outputs)).unwrap();
    assert_eq!(
        String::from_utf8(body).unwrap(),
        r#"{"id":"7","model_name":"m","model_version":"1","triton_x":true,"text_output":"a\"\nb","scores":[1,-1],"none":[]}"#
    );
}

#[test]
fn an_output_named_like_a_field_of_the_response_is_there_once() {
    let body = encode_generate(&response(vec![output("id", DataType::Int8, &[1], &[3])])).unwrap();
    assert_eq!(
        String::from_utf8(body).unwrap(),
        r#"{"model_name":"m","model_version":"1","triton_x":true,"id":3}"#
    );
}

#[test]
fn what_json_cannot_express_is_an_error() {
    let nan = output("x", DataType::Fp32, &[1], &f32::NAN.to_le_bytes());
    assert!(matches!(
        encode_generate(&response(vec![nan])),
        Err(EncodeError::NotFinite { .. })
    ));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_generate("m", VersionSelector::Default, &body, &config(1));
    }

    #[test]
    fn texts_come_back_as_they_were_sent(text in ".{0,40}") {
        let body = serde_json::json!({"text_input": text}).to_string();
        let request = decode(&body, 8).unwrap();
        let back = encode_generate(&response(request.inputs)).unwrap();
        let back: serde_json::Value = serde_json::from_slice(&back).unwrap();
        prop_assert_eq!(&back["text_input"], &serde_json::json!(text));
    }
}
