//! Bodies of V1 there and back, against the protocol of version 2 as the reference.

use bytes::Bytes;
use half::{bf16, f16};
use mesh_types::{DataType, InferResponse, ModelConfig, Parameters, Tensor, TensorSpec, Version, VersionSelector};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{decode_infer, round_trip_tests::tensor};

fn config(rows: u32, input: &[(&str, DataType, &[i64])]) -> ModelConfig {
    ModelConfig {
        max_batch_size: rows,
        input: input
            .iter()
            .map(|(name, datatype, dims)| TensorSpec::new(*name, *datatype, dims))
            .collect(),
        output: vec![TensorSpec::new("y", DataType::Fp32, &[2])],
        ..ModelConfig::default()
    }
}

fn predict(config: &ModelConfig, body: &Value) -> Result<Predict, String> {
    decode_predict(config, body.to_string().as_bytes()).map_err(|error| error.to_string())
}

fn refused(config: &ModelConfig, body: &Value) -> String {
    predict(config, body).unwrap_err()
}

fn answer(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse {
        id: None,
        model: "m".to_owned(),
        version: Version::FIRST,
        outputs,
        parameters: Parameters::default(),
        regions: Vec::new(),
    }
}

fn floats(name: &str, shape: &[u64], values: &[f32]) -> Tensor {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Tensor::new(
        name.into(),
        DataType::Fp32,
        shape.iter().copied().collect(),
        data.into(),
    )
    .unwrap()
}

fn shape(predict: &Predict) -> Vec<u64> {
    predict.inputs[0].shape.to_vec()
}

#[test]
fn rows_and_columns_become_the_same_tensor_with_the_models_datatype() {
    let config = config(8, &[("x", DataType::Int16, &[2])]);
    let rows = predict(&config, &json!({"instances": [[1, 2], [3, 4], [5, 6]]})).unwrap();
    assert_eq!(rows.form, Form::Rows(3));
    assert_eq!(shape(&rows), [3, 2]);
    assert_eq!(&rows.inputs[0].data[..], [1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0]);
    for body in [
        json!({"instances": [{"x": [1, 2]}, {"x": [3, 4]}, {"x": [5, 6]}], "signature_name": "serving_default"}),
        json!({"inputs": [[1, 2], [3, 4], [5, 6]], "signature_name": ""}),
        json!({"inputs": {"x": [[1, 2], [3, 4], [5, 6]]}}),
    ] {
        assert_eq!(predict(&config, &body).unwrap().inputs, rows.inputs, "{body}");
    }
}

#[test]
fn several_inputs_come_in_the_models_order_and_a_list_of_numbers_does_for_rows_of_one() {
    let config = config(8, &[("a", DataType::Fp32, &[1]), ("b", DataType::Bool, &[2])]);
    let body = json!({"instances": [{"b": [true, false], "a": 1.5}, {"a": [2.5], "b": [false, false]}]});
    assert!(
        refused(&config, &body).contains("input 'a'"),
        "a number beside a list is ragged"
    );
    let body = json!({"instances": [{"b": [true, false], "a": 1.5}, {"a": 2.5, "b": [false, false]}]});
    let read = predict(&config, &body).unwrap();
    assert_eq!(read.inputs[0], floats("a", &[2, 1], &[1.5, 2.5]));
    assert_eq!(&read.inputs[1].data[..], [1, 0, 0, 0]);
}

#[test]
fn bytes_are_text_or_base64_and_numbers_may_be_infinite() {
    let text = config(8, &[("s", DataType::Bytes, &[1])]);
    let body = json!({"instances": [{"b64": "AAH/"}, "a]{\"", {"b64": ""}]});
    let read = predict(&text, &body).unwrap();
    assert_eq!(shape(&read), [3, 1]);
    assert_eq!(&read.inputs[0].data[..], b"\x03\0\0\0\0\x01\xff\x04\0\0\0a]{\"\0\0\0\0");
    let named = predict(&text, &json!({"instances": [{"s": {"b64": "AAH/"}}]})).unwrap();
    assert_eq!(&named.inputs[0].data[..], b"\x03\0\0\0\0\x01\xff");
    assert!(refused(&text, &json!({"instances": [{"b64": "!"}]})).contains("not base64"));
    assert!(refused(&text, &json!({"instances": [{"b64": "", "x": 1}]})).contains("b64"));
    let numbers = config(8, &[("x", DataType::Fp64, &[3])]);
    let read = decode_predict(&numbers, b"{\"instances\": [[NaN, -Infinity, Infinity]]}").unwrap();
    let value = |at: usize| f64::from_le_bytes(read.inputs[0].data[at * 8..at * 8 + 8].try_into().unwrap());
    assert!(value(0).is_nan() && value(1) == f64::NEG_INFINITY && value(2) == f64::INFINITY);
    let whole = config(8, &[("x", DataType::Int32, &[1])]);
    assert!(decode_predict(&whole, b"{\"instances\": [NaN]}").is_err());
}

#[test]
fn a_model_without_rows_takes_one_instance_or_what_has_its_rank() {
    let config = config(0, &[("x", DataType::Fp32, &[-1])]);
    let whole = predict(&config, &json!({"instances": [[1.0, 2.0]]})).unwrap();
    assert_eq!((shape(&whole), whole.form), (vec![2], Form::Whole));
    let stacked = predict(&config, &json!({"instances": [1.0, 2.0, 3.0]})).unwrap();
    assert_eq!((shape(&stacked), stacked.form), (vec![3], Form::Rows(3)));
    assert!(
        refused(&config, &json!({"instances": [[1.0], [2.0]]})).contains("one instance at a time, the request has 2")
    );
}

#[test]
fn what_is_wrong_is_named() {
    let one = config(8, &[("x", DataType::Fp32, &[2])]);
    let two = config(8, &[("x", DataType::Fp32, &[2]), ("z", DataType::Fp32, &[1])]);
    for (config, body, text) in [
        (&one, json!({}), "neither 'instances' nor 'inputs'"),
        (&one, json!({"instances": [[1, 2]], "inputs": [[1, 2]]}), "both"),
        (&one, json!({"instances": []}), "at least one"),
        (&one, json!({"instances": 3}), "at least one"),
        (
            &one,
            json!({"instances": [[1, 2]], "signature_name": 3}),
            "'signature_name' key must be a string value.",
        ),
        (
            &one,
            json!({"instances": [[1, 2]], "signature_name": "other"}),
            "signature 'other'",
        ),
        (&one, json!({"instances": [[1, 2], [3]]}), "input 'x'"),
        (&one, json!({"instances": [[1, "a"]]}), "element 1"),
        (&one, json!({"instances": [{"y": 1}]}), "no input 'y', it has 'x'"),
        (&two, json!({"instances": [[1, 2]]}), "2 inputs"),
        (
            &two,
            json!({"instances": [{"x": [1, 2], "z": 1}, {"x": [1, 2]}]}),
            "instance 1 has no value for input 'z'",
        ),
        (
            &two,
            json!({"instances": [{"x": [1, 2]}, {"x": [1, 2], "z": 1}]}),
            "instance 0 has no value for input 'z'",
        ),
        (
            &two,
            json!({"instances": [{"x": [1, 2]}, 3]}),
            "instance 1 must be an object",
        ),
    ] {
        let error = refused(config, &body);
        assert!(error.contains(text), "{body}: {error}");
    }
    let twice = decode_predict(&one, br#"{"instances": [{"x": [1, 2], "x": [1, 2]}]}"#).unwrap_err();
    assert!(twice.to_string().contains("more than once"));
    for (body, text) in [
        (&b"[1"[..], "JSON Parse error: "),
        (b"", "JSON Parse error: "),
        (b"{\"instances\":[1,]}", "JSON Parse"),
    ] {
        assert!(decode_predict(&one, body).unwrap_err().to_string().starts_with(text));
    }
    let deep = format!("{{\"instances\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    assert!(
        decode_predict(&one, deep.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("deeper")
    );
    let deeper = format!("{{\"instances\":{}", "[".repeat(100_000));
    assert!(decode_predict(&one, deeper.as_bytes()).is_err());
}

#[test]
fn at_most_as_many_inputs_as_any_request_may_have() {
    let names: Vec<String> = (0..65).map(|index| format!("i{index}")).collect();
    let specs: Vec<(&str, DataType, &[i64])> = names
        .iter()
        .map(|name| (name.as_str(), DataType::Int8, &[1][..]))
        .collect();
    let config = config(8, &specs);
    let of = |count: usize| {
        let fields: serde_json::Map<String, Value> =
            names.iter().take(count).map(|name| (name.clone(), json!(1))).collect();
        predict(&config, &json!({"instances": [fields]}))
    };
    assert_eq!(of(64).unwrap().inputs.len(), 64);
    assert!(of(65).unwrap_err().contains("at most 64"));
}

#[test]
fn one_value_for_all_rows_is_repeated_by_every_instance() {
    let mut config = config(8, &[("x", DataType::Fp32, &[1]), ("k", DataType::Int64, &[1])]);
    config.input[1].unbatched = true;
    let read = predict(
        &config,
        &json!({"instances": [{"x": 1.0, "k": [5]}, {"x": 2.0, "k": [5]}]}),
    )
    .unwrap();
    assert_eq!(read.inputs[1].shape.to_vec(), [1]);
    let error = refused(
        &config,
        &json!({"instances": [{"x": 1.0, "k": [5]}, {"x": 2.0, "k": [6]}]}),
    );
    assert!(error.contains("input 'k'") && error.contains("instance 1"), "{error}");
}

#[test]
fn answers_are_by_row_or_whole_with_names_where_there_are_several() {
    let y = floats("y", &[2, 2], &[1.0, f32::NAN, -0.5, f32::INFINITY]);
    let text =
        |outputs: Vec<Tensor>, form| String::from_utf8(encode_predictions(&answer(outputs), form).unwrap()).unwrap();
    assert_eq!(
        text(vec![y.clone()], Form::Rows(2)),
        r#"{"predictions":[[1.0,NaN],[-0.5,Infinity]]}"#
    );
    assert_eq!(
        text(vec![y.clone()], Form::Columns),
        r#"{"outputs":[[1.0,NaN],[-0.5,Infinity]]}"#
    );
    assert_eq!(
        text(vec![y.clone()], Form::Whole),
        r#"{"predictions":[[[1.0,NaN],[-0.5,Infinity]]]}"#
    );
    let raw = Tensor::new(
        "z_bytes".into(),
        DataType::Bytes,
        [2].into_iter().collect(),
        Bytes::from_static(b"\x01\0\0\0\xff\0\0\0\0"),
    );
    let both = vec![floats("y", &[2], &[1.0, 2.0]), raw.unwrap()];
    assert_eq!(
        text(both, Form::Rows(2)),
        r#"{"predictions":[{"y":1.0,"z_bytes":{"b64":"/w=="}},{"y":2.0,"z_bytes":{"b64":""}}]}"#
    );
    let error = encode_predictions(&answer(vec![y]), Form::Rows(3))
        .unwrap_err()
        .to_string();
    assert!(error.contains("2 rows for 3 instances"), "{error}");
}

#[test]
fn lists_of_any_length_are_written_alike_with_and_without_what_is_no_number() {
    for count in [1, 15, 16, 17, 300] {
        let mut values: Vec<f32> = (0..count).map(|at| at as f32 / 3.0 - 40.0).collect();
        let written = |values: &[f32]| {
            let list = floats("y", &[2, values.len() as u64 / 2], &values[..values.len() / 2 * 2]);
            let rows = encode_predictions(&answer(vec![list]), Form::Rows(2)).unwrap();
            let whole = floats("y", &[values.len() as u64], values);
            let columns = encode_predictions(&answer(vec![whole]), Form::Columns).unwrap();
            (String::from_utf8(rows).unwrap(), String::from_utf8(columns).unwrap())
        };
        let expected = |values: &[f32]| {
            let each = values.iter().map(|value| match value.is_nan() {
                true => "NaN".to_owned(),
                false => serde_json::to_string(value).unwrap(),
            });
            let each: Vec<_> = each.collect();
            let (first, second) = each[..each.len() / 2 * 2].split_at(each.len() / 2);
            (
                format!("{{\"predictions\":[[{}],[{}]]}}", first.join(","), second.join(",")),
                format!("{{\"outputs\":[{}]}}", each.join(",")),
            )
        };
        assert_eq!(written(&values), expected(&values));
        *values.last_mut().unwrap() = f32::NAN;
        assert_eq!(written(&values), expected(&values));
    }
}

#[test]
fn classes_have_labels_or_numbers_and_a_regression_is_one_number_for_each_row() {
    let mut config = config(8, &[("x", DataType::Fp32, &[1])]);
    let response = answer(vec![floats("y", &[2, 2], &[0.25, 0.75, 1.0, 0.0])]);
    let text = |config: &ModelConfig| String::from_utf8(encode_classes(&response, config).unwrap()).unwrap();
    assert_eq!(
        text(&config),
        r#"{"results":[[["0",0.25],["1",0.75]],[["0",1.0],["1",0.0]]]}"#
    );
    config.output[0].labels = vec!["cat".to_owned(), "dog".to_owned()];
    assert!(text(&config).starts_with(r#"{"results":[[["cat",0.25],["dog",0.75]]"#));
    assert!(
        encode_regressions(&response)
            .unwrap_err()
            .to_string()
            .contains("one number")
    );
    let one = encode_regressions(&answer(vec![floats("y", &[2, 1], &[1.5, -2.0])])).unwrap();
    assert_eq!(one, br#"{"results":[1.5,-2.0]}"#);
    let flat = answer(vec![floats("y", &[2], &[1.5, -2.0])]);
    assert!(encode_classes(&flat, &config).is_err());
}

#[test]
fn examples_share_a_context() {
    let config = config(8, &[("x", DataType::Fp32, &[1]), ("k", DataType::Int64, &[1])]);
    let body = json!({"context": {"k": 7}, "examples": [{"x": 1.0}, {"x": [2.0]}]});
    assert!(decode_examples(&config, body.to_string().as_bytes()).is_err(), "ragged");
    let body = json!({"context": {"k": 7}, "examples": [{"x": 1.0}, {"x": 2.0}]});
    let read = decode_examples(&config, body.to_string().as_bytes()).unwrap();
    assert_eq!(read.inputs[1].shape.to_vec(), [2, 1]);
    for (body, text) in [
        (json!({"examples": []}), "'examples' must be a list"),
        (json!({"examples": [1]}), "'examples' must be a list"),
        (json!({"context": 1, "examples": [{"x": 1.0}]}), "'context'"),
        (
            json!({"context": {"x": 1.0}, "examples": [{"x": 1.0}]}),
            "together with the context",
        ),
    ] {
        let error = decode_examples(&config, body.to_string().as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn a_context_is_spread_over_examples_up_to_its_bound_and_not_a_byte_beyond() {
    let config = config(8, &[("x", DataType::Fp32, &[1]), ("s", DataType::Bytes, &[1])]);
    let of = |bytes: usize| {
        // With its quotation marks it is so long.
        let text = "t".repeat(bytes - 2);
        let body = json!({"context": {"s": text}, "examples": [{"x": 1.0}, {"x": 2.0}]});
        decode_examples(&config, body.to_string().as_bytes()).map(|read| read.inputs.len())
    };
    let half = MAX_SPREAD_BYTES / 2;
    assert_eq!(of(half), Ok(2));
    assert_eq!(of(half + 1), Err(V1Error::Spread));
}

#[test]
fn the_answers_about_models_have_the_fields_of_both() {
    let status = VersionStatus {
        version: Version::FIRST,
        ready: true,
        reason: "",
    };
    let value: Value = serde_json::from_slice(&status_body("m", true, &[status])).unwrap();
    assert_eq!(
        value,
        json!({"name": "m", "ready": true, "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]})
    );
    let config = config(8, &[("x", DataType::Int64, &[3])]);
    let value: Value = serde_json::from_slice(&metadata_body("m", Version::FIRST, &config)).unwrap();
    let input = &value["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]["x"];
    assert_eq!(input["dtype"], "DT_INT64");
    assert_eq!(
        input["tensor_shape"]["dim"],
        json!([{"size": "-1", "name": ""}, {"size": "3", "name": ""}])
    );
    let value: Value = serde_json::from_slice(&models_body(["a", "b"])).unwrap();
    assert_eq!(value, json!({"models": ["a", "b"]}));
}

fn numbers() -> impl Strategy<Value = (DataType, Vec<Value>)> {
    let of = |datatype: DataType, value: BoxedStrategy<Value>| {
        proptest::collection::vec(value, 1..24)
            .prop_map(move |values| (datatype, values))
            .boxed()
    };
    prop_oneof![
        of(DataType::Bool, any::<bool>().prop_map(Value::from).boxed()),
        of(DataType::Uint8, any::<u8>().prop_map(Value::from).boxed()),
        of(DataType::Int8, any::<i8>().prop_map(Value::from).boxed()),
        of(DataType::Uint64, any::<u64>().prop_map(Value::from).boxed()),
        of(DataType::Int64, any::<i64>().prop_map(Value::from).boxed()),
        of(DataType::Fp32, (-1e30_f32..1e30).prop_map(Value::from).boxed()),
        of(DataType::Fp64, (-1e300_f64..1e300).prop_map(Value::from).boxed()),
        of(DataType::Bytes, any::<String>().prop_map(Value::from).boxed()),
    ]
}

/// A tensor with one bit pattern for what is not a number: its name is all that the wire has of it.
fn with_one_nan(tensor: Tensor) -> Tensor {
    let data: Vec<u8> = match tensor.datatype {
        DataType::Fp16 => of_each(&tensor, |raw| {
            canonical(raw, |raw| f16::from_le_bytes(raw).is_nan(), f16::NAN.to_le_bytes())
        }),
        DataType::Bf16 => of_each(&tensor, |raw| {
            canonical(raw, |raw| bf16::from_le_bytes(raw).is_nan(), bf16::NAN.to_le_bytes())
        }),
        DataType::Fp32 => of_each(&tensor, |raw| {
            canonical(raw, |raw| f32::from_le_bytes(raw).is_nan(), f32::NAN.to_le_bytes())
        }),
        DataType::Fp64 => of_each(&tensor, |raw| {
            canonical(raw, |raw| f64::from_le_bytes(raw).is_nan(), f64::NAN.to_le_bytes())
        }),
        _ => tensor.data.to_vec(),
    };
    Tensor {
        data: data.into(),
        ..tensor
    }
}

fn of_each<const SIZE: usize>(tensor: &Tensor, map: impl Fn([u8; SIZE]) -> [u8; SIZE]) -> Vec<u8> {
    tensor
        .data
        .as_chunks::<SIZE>()
        .0
        .iter()
        .flat_map(|raw| map(*raw))
        .collect()
}

fn canonical<const SIZE: usize>(raw: [u8; SIZE], is_nan: fn([u8; SIZE]) -> bool, nan: [u8; SIZE]) -> [u8; SIZE] {
    if is_nan(raw) { nan } else { raw }
}

/// A model whose inputs are these tensors, with rows or without.
fn model_of(tensors: &[&Tensor], rows: u32) -> ModelConfig {
    let dims = |tensor: &Tensor| -> Vec<i64> {
        let dims = tensor.shape.iter().skip(usize::from(rows > 0));
        dims.map(|extent| i64::try_from(*extent).unwrap()).collect()
    };
    let specs: Vec<_> = tensors.iter().map(|tensor| (tensor, dims(tensor))).collect();
    let specs: Vec<(&str, DataType, &[i64])> = specs
        .iter()
        .map(|(tensor, dims)| (&*tensor.name, tensor.datatype, &dims[..]))
        .collect();
    config(rows, &specs)
}

/// What comes back of an answer once its outputs are called inputs.
fn read_back(config: &ModelConfig, tensors: Vec<Tensor>, form: Form) -> Result<Vec<Tensor>, String> {
    let body = encode_predictions(&answer(tensors), form).map_err(|error| error.to_string())?;
    let body = String::from_utf8(body).unwrap();
    let body = match form {
        Form::Columns => body.replacen("{\"outputs\":", "{\"inputs\":", 1),
        _ => body.replacen("{\"predictions\":", "{\"instances\":", 1),
    };
    let read = decode_predict(config, body.as_bytes()).map_err(|error| format!("{error}: {body}"))?;
    assert_eq!(read.form, form, "{body}");
    Ok(read.inputs)
}

proptest! {
    /// Every datatype in every shape, empty ones too: not a number, infinities, -0.0, the ends of 64 bits and bytes that are no text.
    #[test]
    fn every_datatype_comes_back_by_columns(first in tensor("a_bytes", false), second in tensor("b_bytes", false)) {
        let (first, second) = (with_one_nan(first), with_one_nan(second));
        prop_assert_eq!(read_back(&model_of(&[&first], 0), vec![first.clone()], Form::Columns), Ok(vec![first.clone()]));
        let both = vec![first.clone(), second.clone()];
        prop_assert_eq!(read_back(&model_of(&[&first, &second], 0), both.clone(), Form::Columns), Ok(both));
    }

    #[test]
    fn every_datatype_comes_back_by_rows(tensor in tensor("a_bytes", false), more in tensor("b_bytes", false)) {
        let has_rows = |tensor: &Tensor| tensor.shape.first().is_some_and(|rows| *rows > 0);
        prop_assume!(has_rows(&tensor));
        let tensor = with_one_nan(tensor);
        let form = Form::Rows(tensor.shape[0]);
        prop_assert_eq!(read_back(&model_of(&[&tensor], 8), vec![tensor.clone()], form), Ok(vec![tensor.clone()]));
        if has_rows(&more) && more.shape[0] == tensor.shape[0] {
            let both = vec![tensor, with_one_nan(more)];
            prop_assert_eq!(read_back(&model_of(&[&both[0], &both[1]], 8), both.clone(), form), Ok(both));
        }
    }

    /// The same values by V1 and by version 2 are the same bytes, and come back as they were.
    #[test]
    fn values_are_read_as_version_2_reads_them_and_come_back((datatype, values) in numbers()) {
        let config = config(64, &[("x", datatype, &[1])]);
        let rows = values.len();
        let read = predict(&config, &json!({"instances": values})).unwrap();
        let body = json!({"inputs": [{"name": "x", "datatype": datatype.as_str(), "shape": [rows, 1], "data": values}]});
        let body = Bytes::from(body.to_string());
        let reference = decode_infer("m", VersionSelector::Default, &body, None).unwrap().request.inputs;
        prop_assert_eq!(&read.inputs, &reference);
        let written = encode_predictions(&answer(reference), read.form).unwrap();
        let written = String::from_utf8(written).unwrap().replacen("predictions", "instances", 1);
        prop_assert_eq!(decode_predict(&config, written.as_bytes()).unwrap().inputs, read.inputs);
    }

    /// No body panics, and what is accepted has tensors whose bytes fit their shapes.
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{},:\"a-z0-9b64NaN.-]{0,64}") {
        let config = config(8, &[("x", DataType::Fp32, &[1])]);
        let _ = decode_predict(&config, format!("{{\"instances\":{text}}}").as_bytes());
        let _ = decode_predict(&config, format!("{{\"inputs\":{text}}}").as_bytes());
        let _ = decode_examples(&config, format!("{{\"examples\":{text}}}").as_bytes());
        let _ = decode_predict(&config, text.as_bytes());
    }
}

#[test]
fn short_fractions_are_rounded_to_the_nearest_and_have_their_range() {
    let read = |datatype: DataType, number: &str| {
        let body = format!("{{\"instances\":[{number}]}}");
        let read = decode_predict(&config(8, &[("x", datatype, &[1])]), body.as_bytes());
        read.map(|read| u16::from_le_bytes(read.inputs[0].data[..].try_into().unwrap()))
            .map_err(|error| error.to_string())
    };
    for (number, half, brain) in [
        ("1", 0x3c00, 0x3f80),
        ("-0.0", 0x8000, 0x8000),
        ("65504", 0x7bff, 0x4780),
        // Half way, to the even one; the least there is, and half of it.
        ("2049", 0x6800, 0x4500),
        ("5.960464477539063e-8", 0x0001, 0x3380),
        ("2.98e-8", 0x0000, 0x3300),
        ("Infinity", 0x7c00, 0x7f80),
        ("\"-Infinity\"", 0xfc00, 0xff80),
    ] {
        assert_eq!(read(DataType::Fp16, number), Ok(half), "{number}");
        assert_eq!(read(DataType::Bf16, number), Ok(brain), "{number}");
    }
    assert!(
        read(DataType::Fp16, "65520")
            .unwrap_err()
            .contains("65520 is out of range")
    );
    assert!(read(DataType::Bf16, "3.4e38").unwrap_err().contains("out of range"));
    assert!(read(DataType::Fp16, "\"1\"").unwrap_err().contains("is not a number"));
}
