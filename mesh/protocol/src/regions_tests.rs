//! Tensors in shared memory on both wires: what leads to a region is read alike, and where an output was put is written so
//! that the generated messages and any JSON reader find it.

use std::collections::BTreeMap;

use bytes::Bytes;
use mesh_types::{
    DataType, InRegions, InferRequest, InferResponse, Parameters, RegionOutput, RegionSpan, Shape, Tensor, Version,
    VersionSelector,
};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};

use crate::{
    DecodeError, OutputOptions, decode_cuda_region, decode_infer, decode_system_region, encode_infer,
    grpc::{
        StreamReply, decode_message,
        messages::{
            InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
            infer_parameter::ParameterChoice,
            model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
        },
        write_message, write_stream_message,
    },
    regions::{CudaRegionStatus, RegionStatus},
    regions_body,
};

fn json(body: &Value) -> Result<InferRequest, DecodeError> {
    let body = Bytes::from(serde_json::to_vec(body).unwrap());
    decode_infer("m", VersionSelector::Default, &body, None).map(|decoded| decoded.request)
}

fn parameters(of: &Value) -> BTreeMap<String, InferParameter> {
    let value = |value: &Value| match value {
        Value::Bool(value) => ParameterChoice::BoolParam(*value),
        Value::String(text) => ParameterChoice::StringParam(text.clone()),
        Value::Number(number) if number.is_i64() => ParameterChoice::Int64Param(number.as_i64().unwrap()),
        Value::Number(number) if number.is_u64() => ParameterChoice::Uint64Param(number.as_u64().unwrap()),
        number => ParameterChoice::DoubleParam(number.as_f64().unwrap()),
    };
    let entries = of.as_object().into_iter().flatten();
    entries
        .map(|(name, given)| {
            let parameter_choice = Some(value(given));
            (name.clone(), InferParameter { parameter_choice })
        })
        .collect()
}

/// The same request as a message; what is carried has raw bytes.
fn message(body: &Value) -> ModelInferRequest {
    let mut raw_input_contents = Vec::new();
    let list = |name: &str| body[name].as_array().cloned().unwrap_or_default();
    let mut input = |input: &Value| {
        if !input["data"].is_null() {
            raw_input_contents.push(Bytes::from_static(&[7]));
        }
        InferInputTensor {
            name: input["name"].as_str().unwrap().into(),
            datatype: input["datatype"].as_str().unwrap().into(),
            shape: input["shape"]
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_i64)
                .collect(),
            parameters: parameters(&input["parameters"]),
            contents: None,
        }
    };
    let inputs = list("inputs").iter().map(&mut input).collect();
    let output = |output: &Value| InferRequestedOutputTensor {
        name: output["name"].as_str().unwrap().into(),
        parameters: parameters(&output["parameters"]),
    };
    ModelInferRequest {
        model_name: "m".into(),
        inputs,
        outputs: list("outputs").iter().map(output).collect(),
        raw_input_contents,
        ..ModelInferRequest::default()
    }
}

fn grpc(body: &Value) -> Result<InferRequest, DecodeError> {
    decode_message(&Bytes::from(message(body).encode_to_vec()))
}

fn region(name: &str, bytes: u64, offset: Option<u64>) -> Value {
    let mut given = json!({"shared_memory_region": name, "shared_memory_byte_size": bytes});
    if let Some(offset) = offset {
        given["shared_memory_offset"] = json!(offset);
    }
    given
}

#[test]
fn both_wires_lead_to_the_same_places() {
    let carried = |name: &str| json!({"name": name, "datatype": "UINT8", "shape": [1], "data": [7]});
    let there =
        |name: &str, given: Value| json!({"name": name, "datatype": "FP32", "shape": [2, 3], "parameters": given});
    let body = json!({
        "inputs": [
            there("a", region("r", 24, None)), carried("b"), there("c", region("s", 24, Some(1 << 40))), carried("d"),
        ],
        "outputs": [{"name": "y", "parameters": region("r", 8, Some(24))}, {"name": "z"}],
    });
    let read = json(&body).unwrap();
    assert_eq!(grpc(&body).unwrap(), read);
    let names: Vec<&str> = read.inputs.iter().map(|tensor| &*tensor.name).collect();
    assert_eq!(
        (names, &*read.outputs),
        (vec!["b", "d"], &["y".to_owned(), "z".to_owned()][..])
    );
    let InRegions { inputs, outputs } = *read.regions.unwrap();
    assert_eq!(
        (inputs[0].at, &*inputs[0].name, inputs[0].datatype),
        (0, "a", DataType::Fp32)
    );
    assert_eq!((inputs[1].at, inputs[1].span.offset), (2, 1 << 40));
    assert_eq!(inputs[1].shape.as_slice(), [2, 3]);
    let to = RegionSpan {
        region: "r".into(),
        offset: 24,
        bytes: 8,
    };
    assert_eq!(
        outputs,
        [RegionOutput {
            name: "y".into(),
            span: to
        }]
    );
}

#[test]
fn a_request_without_regions_says_so() {
    let body = json!({
        "inputs": [{"name": "b", "datatype": "UINT8", "shape": [1], "data": [7], "parameters": {"other": 1}}],
        "outputs": [{"name": "y", "parameters": {"other": true}}],
    });
    assert_eq!(json(&body).unwrap().regions, None);
    assert_eq!(grpc(&body).unwrap().regions, None);
}

#[test]
fn what_does_not_lead_to_a_region_is_refused_alike_and_in_words() {
    let long = "r".repeat(256);
    for (given, part) in [
        (
            json!({"shared_memory_region": "r"}),
            "'shared_memory_byte_size' must be there too",
        ),
        (json!({"shared_memory_byte_size": 4}), "need 'shared_memory_region'"),
        (json!({"shared_memory_offset": 4}), "need 'shared_memory_region'"),
        (
            json!({"shared_memory_region": 7, "shared_memory_byte_size": 4}),
            "must be the name of a region",
        ),
        (region("", 4, None), "must be the name of a region"),
        (region(&long, 4, None), "must be the name of a region"),
        (
            json!({"shared_memory_region": "r", "shared_memory_byte_size": -1}),
            "not negative",
        ),
        (
            json!({"shared_memory_region": "r", "shared_memory_byte_size": 1.5}),
            "not negative",
        ),
        (
            json!({"shared_memory_region": "r", "shared_memory_byte_size": "4"}),
            "not negative",
        ),
        (
            json!({"shared_memory_region": "r", "shared_memory_byte_size": 4, "shared_memory_offset": -4}),
            "'shared_memory_offset' must be a whole number",
        ),
    ] {
        let input = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": given}]});
        let output = json!({
            "inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [7]}],
            "outputs": [{"name": "y", "parameters": given}],
        });
        for (body, of) in [(input, "input 'x'"), (output, "output 'y'")] {
            let text = json(&body).unwrap_err().to_string();
            assert!(text.contains(part) && text.contains(of), "'{part}' is not in '{text}'");
            assert_eq!(grpc(&body).unwrap_err().to_string(), text);
        }
    }
    assert!(json(&json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "parameters": region(&"r".repeat(255), 4, None)}]})).is_ok());
}

#[test]
fn a_tensor_is_in_one_place_only() {
    let mut input = json!({"name": "x", "datatype": "FP32", "shape": [1], "parameters": region("r", 4, None)});
    input["data"] = json!([1.0]);
    let refused = |body: &Value| json(body).unwrap_err().to_string();
    assert!(refused(&json!({"inputs": [input]})).contains("it is in shared memory"));
    input["data"] = Value::Null;
    assert!(refused(&json!({"inputs": [input]})).contains("it is in shared memory"));
    let mut input = json!({"name": "x", "datatype": "FP32", "shape": [1], "parameters": region("r", 4, None)});
    input["parameters"]["binary_data_size"] = json!(4);
    assert!(refused(&json!({"inputs": [input]})).contains("it is in shared memory"));
    let carried = json!([{"name": "x", "datatype": "UINT8", "shape": [1], "data": [7]}]);
    for (name, value) in [("binary_data", json!(true)), ("classification", json!(2))] {
        let mut given = region("r", 4, None);
        given[name] = value;
        let body = json!({"inputs": carried, "outputs": [{"name": "y", "parameters": given}]});
        assert!(refused(&body).contains("shared memory"), "{name}");
        if name == "classification" {
            assert_eq!(grpc(&body).unwrap_err().to_string(), refused(&body));
        }
    }
    let mut given = region("r", 4, None);
    given["binary_data"] = json!(false);
    assert!(json(&json!({"inputs": carried, "outputs": [{"name": "y", "parameters": given}]})).is_ok());
    let twice = json!({"name": "x", "datatype": "FP32", "shape": [1], "parameters": region("r", 4, None)});
    let twice = json!({"inputs": [twice, twice]});
    assert!(refused(&twice).contains("more than once"));
    assert!(grpc(&twice).unwrap_err().to_string().contains("more than once"));
}

#[test]
fn raw_contents_are_those_of_inputs_that_are_carried() {
    let there = json!({"name": "x", "datatype": "UINT8", "shape": [1], "parameters": region("r", 1, None)});
    let carried = json!({"name": "y", "datatype": "UINT8", "shape": [1], "data": [7]});
    let good = message(&json!({"inputs": [there, carried]}));
    assert!(decode_message(&Bytes::from(good.encode_to_vec())).is_ok());
    for count in [0, 2, 3] {
        let mut wrong = good.clone();
        wrong.raw_input_contents = vec![Bytes::from_static(&[7]); count];
        let error = decode_message(&Bytes::from(wrong.encode_to_vec())).unwrap_err();
        match count {
            0 => assert!(matches!(error, DecodeError::NoContents { .. }), "{error}"),
            got => assert_eq!(error, DecodeError::RawCount { got, expected: 1 }),
        }
    }
    let mut both = good;
    both.inputs[0].contents = Some(InferTensorContents {
        uint_contents: vec![1],
        ..InferTensorContents::default()
    });
    let error = decode_message(&Bytes::from(both.encode_to_vec())).unwrap_err();
    assert!(error.to_string().contains("no 'contents'"), "{error}");
}

fn answer(places: &[(bool, u64, u64)]) -> InferResponse {
    let tensor = |(at, (there, ..)): (usize, &(bool, u64, u64))| Tensor {
        name: format!("y{at}").into(),
        datatype: DataType::Uint8,
        shape: Shape::from_slice(&[3]),
        data: Bytes::from_static(if *there { &[] } else { &[1, 2, 3] }),
    };
    let placed = places.iter().enumerate().filter(|(_, (there, ..))| *there);
    InferResponse {
        id: Some("id".into()),
        model: "m".into(),
        version: Version::FIRST,
        outputs: places.iter().enumerate().map(tensor).collect(),
        parameters: Parameters::new(),
        regions: placed
            .map(|(at, (_, bytes, offset))| RegionOutput {
                name: format!("y{at}"),
                span: RegionSpan {
                    region: format!("re\"gion {at}"),
                    offset: *offset,
                    bytes: *bytes,
                },
            })
            .collect(),
    }
}

fn wanted(of: &RegionSpan) -> Value {
    region(&of.region, of.bytes, Some(of.offset).filter(|offset| *offset > 0))
}

proptest! {
    #[test]
    fn where_outputs_were_put_reads_back(
        places in proptest::collection::vec((any::<bool>(), any::<u32>(), any::<u32>()), 1..5),
        binary in any::<bool>(),
    ) {
        let places: Vec<_> = places.iter().map(|(there, bytes, offset)| (*there, u64::from(*bytes), u64::from(*offset / 2))).collect();
        let response = answer(&places);
        let encoded = encode_infer(&response, &OutputOptions::all(binary)).unwrap();
        let carried = places.iter().filter(|(there, ..)| !there).count();
        let (header, all) = (encoded.header_content_length(), encoded.body_bytes());
        prop_assert_eq!(header.is_some(), binary && carried > 0);
        let body = encoded.into_chunks().concat();
        let told: Value = serde_json::from_slice(&body[..header.unwrap_or(all)]).unwrap();
        if binary {
            prop_assert_eq!(all - header.unwrap_or(all), 3 * carried);
        }

        let mut bytes = Vec::new();
        write_message(&response, &mut bytes);
        let message = ModelInferResponse::decode(&*bytes).unwrap();
        prop_assert_eq!(message.encoded_len(), bytes.len());
        let mut bytes = Vec::new();
        write_stream_message(&StreamReply::Response(&response), &mut bytes);
        let streamed = ModelStreamInferResponse::decode(&*bytes).unwrap();
        prop_assert_eq!(streamed.encoded_len(), bytes.len());
        for (at, (there, ..)) in places.iter().enumerate() {
            let (output, raw) = (&message.outputs[at], &message.raw_output_contents[at]);
            prop_assert_eq!(&streamed.infer_response.as_ref().unwrap().outputs[at], output);
            if *there {
                let place = &response.regions.iter().find(|known| known.name == format!("y{at}")).unwrap().span;
                prop_assert_eq!(&told["outputs"][at]["parameters"], &wanted(place));
                prop_assert!(told["outputs"][at].get("data").is_none());
                prop_assert_eq!(&output.parameters, &parameters(&wanted(place)));
                prop_assert!(raw.is_empty());
            } else {
                prop_assert!(output.parameters.is_empty());
                prop_assert_eq!(&raw[..], &[1, 2, 3]);
            }
        }
    }

    #[test]
    fn any_parameters_at_all_only_ever_get_an_answer(
        region in proptest::option::of(".{0,5}"), size in any::<i64>(), offset in any::<f64>(), shape in any::<i64>(),
    ) {
        let given = json!({"shared_memory_region": region.unwrap_or_default(), "shared_memory_byte_size": size});
        let input = json!({"name": "x", "datatype": "FP64", "shape": [shape], "parameters": given});
        let body = json!({"inputs": [input], "outputs": [{"name": "y", "parameters": {"shared_memory_offset": offset}}]});
        prop_assert!(json(&body).is_err());
        prop_assert!(grpc(&body).is_err());
    }
}

#[test]
fn a_registration_is_read_and_a_status_written() {
    let read = decode_system_region(br#"{"key":"/k","byte_size":8}"#).unwrap();
    assert_eq!((&*read.key, read.offset, read.byte_size), ("/k", 0, 8));
    for wrong in [
        &b""[..],
        b"{}",
        b"[]",
        br#"{"key":"k"}"#,
        br#"{"key":"k","byte_size":-1}"#,
        br#"{"key":1,"byte_size":1}"#,
    ] {
        assert!(decode_system_region(wrong).is_err());
    }
    let status = RegionStatus {
        name: "a\"b",
        key: "/k",
        offset: 4,
        byte_size: 8,
    };
    let told: Value = serde_json::from_slice(&regions_body([status])).unwrap();
    assert_eq!(
        told,
        json!([{"name": "a\"b", "key": "/k", "offset": 4, "byte_size": 8}])
    );
    assert_eq!(regions_body(Vec::<RegionStatus<'_>>::new()), b"[]");
}

#[test]
fn a_registration_of_cuda_memory_is_read_and_its_status_written() {
    let read = decode_cuda_region(br#"{"raw_handle":{"b64":"AAEC"},"device_id":1,"byte_size":8}"#).unwrap();
    assert_eq!((&*read.handle, read.device, read.byte_size), (&[0, 1, 2][..], 1, 8));
    for wrong in [
        &b""[..],
        b"{}",
        br#"{"raw_handle":"AAEC","device_id":1,"byte_size":8}"#,
        br#"{"raw_handle":{"b64":"AAEC"},"device_id":"1","byte_size":8}"#,
        br#"{"raw_handle":{"b64":"AAEC"},"device_id":1,"byte_size":-8}"#,
    ] {
        assert!(matches!(decode_cuda_region(wrong), Err(DecodeError::Json(_))));
    }
    let wrong = decode_cuda_region(br#"{"raw_handle":{"b64":"A"},"device_id":1,"byte_size":8}"#);
    assert_eq!(wrong, Err(DecodeError::Handle));
    let status = CudaRegionStatus {
        name: "a",
        device_id: 1,
        byte_size: 8,
    };
    let told: Value = serde_json::from_slice(&regions_body([status])).unwrap();
    assert_eq!(told, json!([{"name": "a", "device_id": 1, "byte_size": 8}]));
}
