//! The hand-written reader and writer against the generated messages, and against what no client would send.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use mesh_types::{
    Control, ControlInput, ControlKind, DataType, DynamicBatching, EnsembleScheduling, EnsembleStep, FaultClass,
    InferRequest, InferResponse, InstanceGroup, MAX_RANK, ModelConfig, ModelId, ParameterValue, QueuePolicy,
    SequenceBatching, Shape, Tensor, TensorSpec, Version, VersionSelector, VersionStatistics,
};
use proptest::prelude::*;
use prost::Message as _;

use super::{
    ConfigOf, DESCRIPTORS, StatisticsOf, StreamReply, decode_message, decode_stream_message, id_of_message,
    messages::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
        infer_parameter::ParameterChoice,
        model_infer_request::{InferInputTensor, InferRequestedOutputTensor},
    },
    model_config, model_statistics, write_message, write_stream_message,
};
use crate::{MAX_PARAMETERS, MAX_TENSORS, decode_infer, error::DecodeError};

fn input(name: &str, datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        parameters: BTreeMap::new(),
        contents,
    }
}

fn request(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".into(),
        inputs,
        raw_input_contents: raw,
        ..ModelInferRequest::default()
    }
}

fn decode(message: &ModelInferRequest) -> Result<InferRequest, DecodeError> {
    decode_message(&Bytes::from(message.encode_to_vec()))
}

fn refused(message: &ModelInferRequest) -> String {
    decode(message).unwrap_err().to_string()
}

fn typed(fill: impl FnOnce(&mut InferTensorContents)) -> InferTensorContents {
    let mut contents = InferTensorContents::default();
    fill(&mut contents);
    contents
}

fn le<T: Copy, const SIZE: usize>(numbers: &[T], bytes: fn(T) -> [u8; SIZE]) -> Vec<u8> {
    numbers.iter().flat_map(|number| bytes(*number)).collect()
}

/// Elements of a datatype: typed, as raw bytes, and in JSON.
type Case = (&'static str, InferTensorContents, Vec<u8>, String);

/// Three elements of every datatype that has typed contents.
fn every_datatype() -> Vec<Case> {
    let signed = [1_i64, -2, i64::MIN];
    let ints = |numbers: [i32; 3]| typed(|contents| contents.int_contents = numbers.to_vec());
    let uints = |numbers: [u32; 3]| typed(|contents| contents.uint_contents = numbers.to_vec());
    let (int8, int16, int32) = ([1, -2, -128], [1, -2, 32_767], [1, -2, i32::MIN]);
    let (uint8, uint16, uint32) = ([1, 2, 255], [1, 2, 65_535], [1, 2, u32::MAX]);
    let uint64 = [1, 2, u64::MAX];
    let texts = [Bytes::from_static(b"ab"), Bytes::new(), Bytes::from_static(b"c")];
    let of = |datatype, contents, raw, json: &str| (datatype, contents, raw, json.to_owned());
    let shown = |numbers: &dyn std::fmt::Debug| format!("{numbers:?}");
    let bools = typed(|contents| contents.bool_contents = vec![true, false, true]);
    let int64 = typed(|contents| contents.int64_contents = signed.to_vec());
    let wide = typed(|contents| contents.uint64_contents = uint64.to_vec());
    let fp32 = typed(|contents| contents.fp32_contents = vec![1.5, -2.25, 0.0]);
    let fp64 = typed(|contents| contents.fp64_contents = vec![1.5, -2.25, 0.0]);
    let bytes = typed(|contents| contents.bytes_contents = texts.to_vec());
    vec![
        of("BOOL", bools, vec![1, 0, 1], "[true,false,true]"),
        of("INT8", ints(int8), vec![1, 254, 128], &shown(&int8)),
        of("INT16", ints(int16), vec![1, 0, 254, 255, 255, 127], &shown(&int16)),
        of("INT32", ints(int32), le(&int32, i32::to_le_bytes), &shown(&int32)),
        of("INT64", int64, le(&signed, i64::to_le_bytes), &shown(&signed)),
        of("UINT8", uints(uint8), vec![1, 2, 255], &shown(&uint8)),
        of("UINT16", uints(uint16), vec![1, 0, 2, 0, 255, 255], &shown(&uint16)),
        of("UINT32", uints(uint32), le(&uint32, u32::to_le_bytes), &shown(&uint32)),
        of("UINT64", wide, le(&uint64, u64::to_le_bytes), &shown(&uint64)),
        of("FP32", fp32, le(&[1.5, -2.25, 0.0], f32::to_le_bytes), "[1.5,-2.25,0]"),
        of("FP64", fp64, le(&[1.5, -2.25, 0.0], f64::to_le_bytes), "[1.5,-2.25,0]"),
        of(
            "BYTES",
            bytes,
            b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c".to_vec(),
            r#"["ab","","c"]"#,
        ),
    ]
}

#[test]
fn typed_raw_json_and_binary_json_are_one_and_the_same_request() {
    for (datatype, contents, raw, json) in every_datatype() {
        let typed = decode(&request(vec![input("x", datatype, &[3], Some(contents))], vec![])).unwrap();
        let bytes = Bytes::from(raw);
        let as_raw = decode(&request(vec![input("x", datatype, &[3], None)], vec![bytes.clone()])).unwrap();
        assert_eq!(typed, as_raw, "{datatype}");
        let head = format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[3],"data":{json}}}]}}"#);
        let from_json = decode_infer("m", VersionSelector::Default, &Bytes::from(head), None).unwrap();
        assert_eq!(typed, from_json.request, "{datatype}");
        let size = bytes.len();
        let head = format!(
            r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[3],"parameters":{{"binary_data_size":{size}}}}}]}}"#
        );
        let body = Bytes::from([head.as_bytes(), &bytes].concat());
        let binary = decode_infer("m", VersionSelector::Default, &body, Some(head.len())).unwrap();
        assert_eq!(typed, binary.request, "{datatype}");
    }
}

#[test]
fn raw_tensors_and_packed_floats_stay_where_they_are() {
    let raw = Bytes::from(vec![7; 4_000]);
    let message = Bytes::from(request(vec![input("x", "FP32", &[1_000], None)], vec![raw]).encode_to_vec());
    let within = |data: &Bytes| message.as_ptr_range().contains(&data.as_ptr());
    assert!(within(&decode_message(&message).unwrap().inputs[0].data));
    let contents = InferTensorContents {
        fp32_contents: vec![1.0; 1_000],
        ..InferTensorContents::default()
    };
    let message = Bytes::from(request(vec![input("x", "FP32", &[1_000], Some(contents))], vec![]).encode_to_vec());
    let data = decode_message(&message).unwrap().inputs[0].data.clone();
    assert!(message.as_ptr_range().contains(&data.as_ptr()));
}

#[test]
fn both_wires_ask_for_classes_alike() {
    let json = r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}],
        "outputs":[{"name":"y","parameters":{"classification":3}},{"name":"z"}]}"#;
    let from_json = decode_infer("m", VersionSelector::Default, &Bytes::from(json), None).unwrap();
    let with = |choice: ParameterChoice| {
        let contents = InferTensorContents {
            int_contents: vec![1],
            ..InferTensorContents::default()
        };
        let mut message = request(vec![input("x", "INT8", &[1], Some(contents))], vec![]);
        let value = InferParameter {
            parameter_choice: Some(choice),
        };
        message.outputs = vec![
            InferRequestedOutputTensor {
                name: "y".into(),
                parameters: [("classification".to_owned(), value)].into(),
            },
            InferRequestedOutputTensor {
                name: "z".into(),
                parameters: BTreeMap::new(),
            },
        ];
        decode(&message)
    };
    for choice in [
        ParameterChoice::Int64Param(3),
        ParameterChoice::Uint64Param(3),
        ParameterChoice::StringParam("3".into()),
    ] {
        assert_eq!(with(choice).unwrap().classes, from_json.request.classes);
    }
    for choice in [ParameterChoice::Int64Param(0), ParameterChoice::BoolParam(true)] {
        assert_eq!(with(choice), Err(DecodeError::ClassCount { name: "y".into() }));
    }
}

#[test]
fn numbers_that_are_not_packed_are_read_as_well() {
    // Two floats and two runs of one each, as an old writer would send them; likewise numbers.
    let contents = [&[0x35][..], &1.0_f32.to_le_bytes(), &[0x32, 4], &2.0_f32.to_le_bytes()].concat();
    let field = |number: u8, piece: &[u8]| [&[number << 3 | 2, u8::try_from(piece.len()).unwrap()], piece].concat();
    let tensor = [field(1, b"x"), field(2, b"FP32"), vec![0x18, 2], field(5, &contents)].concat();
    let message = Bytes::from([field(1, b"m"), field(5, &tensor)].concat());
    let read = decode_message(&message).unwrap();
    let expected: Vec<u8> = [1.0_f32, 2.0].iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(read.inputs[0].data, expected);
    assert_eq!(&read.inputs[0].shape[..], [2]);
}

#[test]
fn everything_beside_the_tensors_is_read() {
    let value = |choice| InferParameter {
        parameter_choice: Some(choice),
    };
    let mut message = request(vec![input("x", "BOOL", &[0], None)], vec![]);
    message.model_version = "stable".into();
    message.id = "7".into();
    message.outputs = vec![InferRequestedOutputTensor {
        name: "y".into(),
        parameters: BTreeMap::new(),
    }];
    message.parameters = BTreeMap::from([
        ("bool".into(), value(ParameterChoice::BoolParam(false))),
        ("int".into(), value(ParameterChoice::Int64Param(-5))),
        ("text".into(), value(ParameterChoice::StringParam(String::new()))),
        ("double".into(), value(ParameterChoice::DoubleParam(0.5))),
        ("small".into(), value(ParameterChoice::Uint64Param(5))),
        ("large".into(), value(ParameterChoice::Uint64Param(u64::MAX))),
        (
            "triton_enable_empty_final_response".into(),
            value(ParameterChoice::BoolParam(true)),
        ),
    ]);
    let read = decode(&message).unwrap();
    assert_eq!(read.id.as_deref(), Some("7"));
    assert_eq!(read.version, VersionSelector::parse("stable").unwrap());
    assert_eq!(read.outputs, ["y"]);
    assert_eq!(read.parameter("bool"), Some(&ParameterValue::Bool(false)));
    assert_eq!(read.parameter("int"), Some(&ParameterValue::Int(-5)));
    assert_eq!(read.parameter("text"), Some(&ParameterValue::String(String::new())));
    assert_eq!(read.parameter("double"), Some(&ParameterValue::Double(0.5)));
    assert_eq!(read.parameter("small"), Some(&ParameterValue::Int(5)), "as JSON has it");
    assert_eq!(read.parameter("large"), Some(&ParameterValue::Uint(u64::MAX)));
    assert_eq!(read.parameters.len(), 6);
    assert!(decode_stream_message(&message.encode_to_vec().into()).unwrap().1);
    let asks = |choice| {
        let mut message = message.clone();
        let name = "triton_enable_empty_final_response".to_owned();
        message.parameters.insert(name, value(choice));
        decode_stream_message(&message.encode_to_vec().into()).map(|(_, asks)| asks)
    };
    assert_eq!(asks(ParameterChoice::BoolParam(false)).ok(), Some(false));
    let refused = asks(ParameterChoice::Int64Param(1)).unwrap_err().to_string();
    assert!(
        refused.contains("'triton_enable_empty_final_response' is true or false"),
        "{refused}"
    );
    assert_eq!(id_of_message(&message.encode_to_vec()), Some("7"));
}

fn floats(count: usize) -> Option<InferTensorContents> {
    Some(typed(|contents| contents.fp32_contents = vec![0.0; count]))
}

#[test]
fn elements_that_do_not_fit_are_refused_by_name() {
    let ints = |numbers: &[i32]| Some(typed(|contents| contents.int_contents = numbers.to_vec()));
    let one = |input: InferInputTensor| refused(&request(vec![input], vec![]));
    let cases = [
        (one(input("x", "FP32", &[2], floats(1))), "input 'x' has 1 elements"),
        (one(input("x", "FP32", &[2], floats(3))), "input 'x' has 3 elements"),
        (
            one(input("x", "INT32", &[1], ints(&[1, 2]))),
            "input 'x' has more than 1 elements",
        ),
        (one(input("x", "INT8", &[1], ints(&[128]))), "input 'x', element 0"),
        (
            one(input("x", "INT32", &[1], floats(1))),
            "another field than 'int_contents'",
        ),
        (one(input("x", "FP16", &[1], floats(1))), "'raw_input_contents'"),
        (one(input("x", "FP32", &[1], None)), "neither 'contents' nor"),
        (one(input("x", "FP32", &[-1], floats(1))), "extent -1"),
        (one(input("x", "FP8", &[1], floats(1))), "unknown datatype 'FP8'"),
        (one(input("", "FP32", &[1], floats(1))), "a tensor name has 1 to"),
    ];
    for (text, part) in cases {
        assert!(text.contains(part), "'{part}' is not in '{text}'");
    }
}

#[test]
fn requests_that_do_not_hold_together_are_refused() {
    let raw = Bytes::from_static(&[0; 4]);
    let of = |inputs: Vec<InferInputTensor>, raws: usize| refused(&request(inputs, vec![raw.clone(); raws]));
    let plain = input("x", "FP32", &[1], None);
    let cases = [
        (of(vec![], 0), "no 'inputs'"),
        (
            of(vec![input("x", "FP32", &[1], floats(1))], 1),
            "both 'contents' and 'raw_input_contents'",
        ),
        (of(vec![plain.clone()], 2), "2 'raw_input_contents' for 1 inputs"),
        (of(vec![input("x", "FP32", &[2], None)], 1), "holds 4 bytes"),
        (
            of(vec![plain.clone(), plain.clone()], 2),
            "input 'x' is there more than once",
        ),
    ];
    for (text, part) in cases {
        assert!(text.contains(part), "'{part}' is not in '{text}'");
    }
    let mut shared = plain;
    shared
        .parameters
        .insert("shared_memory_region".into(), InferParameter::default());
    let fault = mesh_types::Fault::from(decode(&request(vec![shared], vec![])).unwrap_err());
    assert_eq!(fault.class, FaultClass::InvalidArgument);
    let mut empty = request(vec![input("x", "BOOL", &[0], None)], vec![]);
    empty.parameters.insert("p".into(), InferParameter::default());
    assert!(refused(&empty).contains("parameter 'p' holds no value"));
    empty.parameters.clear();
    empty.model_version = "No Such".into();
    assert!(refused(&empty).contains("model_version"));
}

#[test]
fn every_bound_is_kept_and_what_is_at_it_passes() {
    let inputs = |count: usize| {
        let one = |at: usize| input(&format!("x{at}"), "BOOL", &[0], None);
        decode(&request((0..count).map(one).collect(), vec![]))
    };
    assert!(inputs(MAX_TENSORS).is_ok());
    assert!(matches!(
        inputs(MAX_TENSORS + 1),
        Err(DecodeError::TooManyTensors { .. })
    ));
    let parameters = |count: usize| {
        let mut message = request(vec![input("x", "BOOL", &[0], None)], vec![]);
        let value = InferParameter {
            parameter_choice: Some(ParameterChoice::BoolParam(true)),
        };
        message.parameters = (0..count).map(|at| (at.to_string(), value.clone())).collect();
        decode(&message)
    };
    assert!(parameters(MAX_PARAMETERS).is_ok());
    assert_eq!(parameters(MAX_PARAMETERS + 1), Err(DecodeError::TooManyParameters));
    let rank = |count: usize| {
        let mut shape = vec![1; count - 1];
        shape.push(0);
        decode(&request(vec![input("x", "BOOL", &shape, None)], vec![]))
    };
    assert!(rank(MAX_RANK).is_ok());
    assert!(matches!(rank(MAX_RANK + 1), Err(DecodeError::Rank { .. })));
    let id = |count: usize| {
        let mut message = request(vec![input("x", "BOOL", &[0], None)], vec![]);
        message.id = "i".repeat(count);
        decode(&message)
    };
    assert!(id(crate::MAX_ID_BYTES).is_ok());
    assert!(matches!(id(crate::MAX_ID_BYTES + 1), Err(DecodeError::LongId(_))));
}

#[test]
fn a_message_of_a_million_empty_inputs_is_refused_at_the_bound() {
    let message = Bytes::from([0x2a, 0].repeat(1_000_000));
    assert!(matches!(
        decode_message(&message),
        Err(DecodeError::TooManyTensors { .. })
    ));
    // A shape that claims more elements than there is memory takes none.
    let huge = InferTensorContents {
        int64_contents: vec![1],
        ..InferTensorContents::default()
    };
    let text = refused(&request(vec![input("x", "INT64", &[1 << 40], Some(huge))], vec![]));
    assert!(text.contains("has 1 elements"), "{text}");
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        prop_assert_eq!(crate::fuzz::infer_message(&bytes), Ok(()));
    }

    #[test]
    fn no_cut_and_no_changed_byte_makes_the_reader_panic(cut in 0_usize..200, at in 0_usize..200, byte: u8) {
        for (datatype, contents, ..) in every_datatype() {
            let mut bytes = request(vec![input("x", datatype, &[3], Some(contents))], vec![]).encode_to_vec();
            bytes.truncate(cut.max(1));
            let length = bytes.len();
            bytes[at % length] = byte;
            prop_assert_eq!(crate::fuzz::infer_message(&bytes), Ok(()));
        }
    }
}

fn response() -> InferResponse {
    let tensor = |name: &str, datatype, shape: &[u64], data: &'static [u8]| {
        Tensor::new(
            Arc::from(name),
            datatype,
            Shape::from_slice(shape),
            Bytes::from_static(data),
        )
        .unwrap()
    };
    InferResponse {
        id: Some("7".into()),
        model: "m".into(),
        version: Version::new(300).unwrap(),
        outputs: vec![
            tensor("y", DataType::Int16, &[1, 2], &[1, 2, 3, 4]),
            tensor("scalar", DataType::Int8, &[], &[9]),
            tensor("empty", DataType::Fp32, &[0, 300], &[]),
        ],
        parameters: [
            ("flag".to_owned(), ParameterValue::Bool(false)),
            ("int".to_owned(), ParameterValue::Int(-1)),
            ("large".to_owned(), ParameterValue::Uint(u64::MAX)),
            ("half".to_owned(), ParameterValue::Double(0.5)),
            ("text".to_owned(), ParameterValue::String("t".into())),
        ]
        .into(),
        regions: Vec::new(),
    }
}

fn check_response(read: &ModelInferResponse) {
    assert_eq!((&*read.model_name, &*read.model_version, &*read.id), ("m", "300", "7"));
    assert_eq!(read.outputs[0].name, "y");
    assert_eq!(read.outputs[0].datatype, "INT16");
    let shapes: Vec<&[i64]> = read.outputs.iter().map(|output| &*output.shape).collect();
    assert_eq!(shapes, [&[1, 2][..], &[], &[0, 300]]);
    assert_eq!(read.raw_output_contents, [&[1, 2, 3, 4][..], &[9], &[]]);
    let choice = |name: &str| read.parameters[name].parameter_choice.clone();
    assert_eq!(choice("flag"), Some(ParameterChoice::BoolParam(false)));
    assert_eq!(choice("int"), Some(ParameterChoice::Int64Param(-1)));
    assert_eq!(choice("large"), Some(ParameterChoice::Uint64Param(u64::MAX)));
    assert_eq!(choice("half"), Some(ParameterChoice::DoubleParam(0.5)));
    assert_eq!(choice("text"), Some(ParameterChoice::StringParam("t".into())));
}

#[test]
fn a_response_reads_back_through_the_generated_message() {
    let mut bytes = Vec::new();
    write_message(&response(), &mut bytes);
    let read = ModelInferResponse::decode(&*bytes).unwrap();
    assert_eq!(read.encoded_len(), bytes.len());
    assert_eq!(read.parameters.len(), 5);
    check_response(&read);
}

/// A tensor's elements in the field of its datatype.
fn contents_of(tensor: &Tensor) -> InferTensorContents {
    fn each<T, const SIZE: usize>(data: &[u8], read: impl Fn([u8; SIZE]) -> T) -> Vec<T> {
        data.as_chunks::<SIZE>().0.iter().map(|raw| read(*raw)).collect()
    }
    let data = &tensor.data;
    typed(|contents| match tensor.datatype {
        DataType::Bool => contents.bool_contents = each(data, |raw: [u8; 1]| raw[0] == 1),
        DataType::Int8 => contents.int_contents = each(data, |raw| i8::from_le_bytes(raw).into()),
        DataType::Int16 => contents.int_contents = each(data, |raw| i16::from_le_bytes(raw).into()),
        DataType::Int32 => contents.int_contents = each(data, i32::from_le_bytes),
        DataType::Int64 => contents.int64_contents = each(data, i64::from_le_bytes),
        DataType::Uint8 => contents.uint_contents = each(data, |raw| u8::from_le_bytes(raw).into()),
        DataType::Uint16 => contents.uint_contents = each(data, |raw| u16::from_le_bytes(raw).into()),
        DataType::Uint32 => contents.uint_contents = each(data, u32::from_le_bytes),
        DataType::Uint64 => contents.uint64_contents = each(data, u64::from_le_bytes),
        DataType::Fp32 => contents.fp32_contents = each(data, f32::from_le_bytes),
        DataType::Fp64 => contents.fp64_contents = each(data, f64::from_le_bytes),
        DataType::Bytes => {
            let mut rest = &data[..];
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (text, after) = after.split_at(u32::from_le_bytes(*length) as usize);
                contents.bytes_contents.push(Bytes::copy_from_slice(text));
                rest = after;
            }
        }
        DataType::Fp16 | DataType::Bf16 => panic!("these have no field"),
    })
}

fn input_of(tensor: &Tensor, contents: Option<InferTensorContents>) -> InferInputTensor {
    let shape: Vec<i64> = tensor
        .shape
        .iter()
        .map(|extent| i64::try_from(*extent).unwrap())
        .collect();
    input(&tensor.name, tensor.datatype.as_str(), &shape, contents)
}

proptest! {
    #[test]
    fn tensors_of_every_datatype_read_back_from_both_forms(
        first in crate::round_trip_tests::tensor("first", false), second in crate::round_trip_tests::tensor("second", false)
    ) {
        let tensors = vec![first, second];
        let inputs = tensors.iter().map(|tensor| input_of(tensor, None)).collect();
        let raw = tensors.iter().map(|tensor| tensor.data.clone()).collect();
        prop_assert_eq!(&decode(&request(inputs, raw)).unwrap().inputs, &tensors);
        let with_fields = tensors.iter().filter(|tensor| !matches!(tensor.datatype, DataType::Fp16 | DataType::Bf16));
        let with_fields: Vec<&Tensor> = with_fields.collect();
        if !with_fields.is_empty() {
            let inputs = with_fields.iter().map(|tensor| input_of(tensor, Some(contents_of(tensor)))).collect();
            let read = decode(&request(inputs, vec![])).unwrap().inputs;
            prop_assert_eq!(read.iter().collect::<Vec<_>>(), with_fields);
        }
        let response = InferResponse { outputs: tensors.clone(), ..response() };
        let mut bytes = Vec::new();
        write_message(&response, &mut bytes);
        let read = ModelInferResponse::decode(&*bytes).unwrap();
        for ((tensor, output), raw) in tensors.iter().zip(&read.outputs).zip(&read.raw_output_contents) {
            prop_assert_eq!((&*tensor.name, tensor.datatype.as_str(), &tensor.data), (&*output.name, &*output.datatype, raw));
            prop_assert!(tensor.shape.iter().map(|extent| *extent as i64).eq(output.shape.iter().copied()));
        }
        prop_assert_eq!(read.raw_output_contents.len(), tensors.len());
    }
}

#[test]
fn a_streams_answers_say_that_they_are_the_last_of_their_request() {
    let is_final = |response: &ModelInferResponse| {
        response.parameters["triton_final_response"].parameter_choice == Some(ParameterChoice::BoolParam(true))
    };
    let (whole, mut bytes) = (response(), Vec::new());
    write_stream_message(&StreamReply::Response(&whole), &mut bytes);
    let read = ModelStreamInferResponse::decode(&*bytes).unwrap();
    assert_eq!((read.encoded_len(), &*read.error_message), (bytes.len(), ""));
    let inner = read.infer_response.unwrap();
    check_response(&inner);
    assert!(is_final(&inner));
    let mut bytes = Vec::new();
    write_stream_message(&StreamReply::Partial(&whole), &mut bytes);
    let read = ModelStreamInferResponse::decode(&*bytes).unwrap();
    assert_eq!(read.encoded_len(), bytes.len());
    let inner = read.infer_response.unwrap();
    check_response(&inner);
    assert!(!is_final(&inner));
    let mut bytes = Vec::new();
    let failed = StreamReply::Failed {
        id: Some("7"),
        message: "no",
    };
    write_stream_message(&failed, &mut bytes);
    let read = ModelStreamInferResponse::decode(&*bytes).unwrap();
    let inner = read.infer_response.unwrap();
    assert_eq!((&*read.error_message, &*inner.id), ("no", "7"));
    assert!(is_final(&inner));
}

fn full_config() -> ModelConfig {
    let flag = Control {
        kind: ControlKind::Start,
        int32_false_true: vec![0, 1],
        fp32_false_true: Vec::new(),
        bool_false_true: Vec::new(),
        data_type: None,
    };
    ModelConfig {
        max_batch_size: 8,
        input: vec![
            TensorSpec::new("x", DataType::Bytes, &[-1]),
            TensorSpec::new("b", DataType::Bf16, &[2]),
        ],
        output: vec![TensorSpec::new("y", DataType::Fp32, &[10])],
        instance_group: vec![InstanceGroup::default()],
        sequence_batching: Some(SequenceBatching {
            max_sequence_idle_microseconds: 5_000_000,
            control_input: vec![ControlInput {
                name: "START".into(),
                control: vec![flag],
            }],
            ..SequenceBatching::default()
        }),
        parameters: [("k".to_owned(), ParameterValue::Int(7))].into(),
        ..ModelConfig::default()
    }
}

fn config_of(config: &ModelConfig, owned: bool) -> ConfigOf<'_> {
    ConfigOf {
        name: "m",
        platform: "pytorch_libtorch",
        versions: &[Version::FIRST],
        config,
        owned,
    }
}

/// The message's JSON by protobuf's own rules, with the protocol's names and with what is empty.
fn by_protobuf(name: &str, message: &[u8]) -> serde_json::Value {
    let pool = prost_reflect::DescriptorPool::decode(DESCRIPTORS).unwrap();
    let descriptor = pool.get_message_by_name(name).unwrap();
    let message = prost_reflect::DynamicMessage::decode(descriptor, message).unwrap();
    let options = prost_reflect::SerializeOptions::new()
        .stringify_64_bit_integers(false)
        .use_proto_field_name(true)
        .skip_default_fields(false);
    let mut json = Vec::new();
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut json), &options)
        .unwrap();
    let mut value: serde_json::Value = serde_json::from_slice(&json).unwrap();
    without_nulls(&mut value);
    value
}

fn without_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[test]
fn a_configurations_json_is_that_of_its_message() {
    let batching = DynamicBatching {
        preferred_batch_size: vec![4],
        max_queue_delay_microseconds: 100,
        default_queue_policy: Some(QueuePolicy::default()),
        priority_queue_policy: BTreeMap::from([(2, QueuePolicy::default())]),
        ..DynamicBatching::default()
    };
    let batched = ModelConfig {
        sequence_batching: None,
        dynamic_batching: Some(batching),
        ..full_config()
    };
    for config in [full_config(), batched] {
        let message = model_config(config_of(&config, true));
        let json = serde_json::to_value(&message).unwrap();
        assert_eq!(json, by_protobuf("inference.ModelConfig", &message.encode_to_vec()));
        assert_eq!(json["input"][0]["data_type"], "TYPE_STRING");
        assert_eq!(json["input"][0]["format"], "FORMAT_NONE");
        assert_eq!(json["input"][1]["data_type"], "TYPE_BF16");
        assert_eq!(json["instance_group"][0]["kind"], "KIND_AUTO");
        assert_eq!(json["parameters"]["k"]["string_value"], "7");
    }
}

#[test]
fn the_steps_of_an_ensemble_are_its_owners_to_see() {
    let step = EnsembleStep {
        model_name: ModelId::parse("secret").unwrap(),
        model_version: "-1".parse().unwrap(),
        input_map: BTreeMap::new(),
        output_map: BTreeMap::new(),
        model_namespace: None,
    };
    let config = ModelConfig {
        ensemble_scheduling: Some(EnsembleScheduling {
            step: vec![step],
            max_inflight_requests: 0,
        }),
        ..ModelConfig::default()
    };
    let shown = |owned| serde_json::to_string(&model_config(config_of(&config, owned))).unwrap();
    assert!(shown(true).contains(r#""model_name":"secret","model_version":-1"#));
    assert!(!shown(false).contains("secret"));
}

#[test]
fn statistics_json_is_that_of_its_message() {
    let numbers = VersionStatistics {
        inference_count: 3,
        batches: BTreeMap::from([(2, mesh_types::ComputeTimes::default())]),
        memory: vec![(mesh_types::DeviceId::cuda(1), 5)],
        responses: vec![mesh_types::ResponseTimes::default(); 11],
        ..VersionStatistics::default()
    };
    let message = model_statistics(StatisticsOf {
        name: "m",
        version: Version::FIRST,
        numbers: &numbers,
    });
    let json = serde_json::to_value(&message).unwrap();
    assert_eq!(json, by_protobuf("inference.ModelStatistics", &message.encode_to_vec()));
    assert_eq!(
        json["inference_stats"]["cache_hit"],
        serde_json::json!({"count": 0, "ns": 0})
    );
    assert_eq!(
        json["memory_usage"][0],
        serde_json::json!({"type": "GPU", "id": 1, "byte_size": 5})
    );
    let responses = json["response_stats"].as_object().unwrap();
    assert_eq!(responses.len(), 11);
    let nothing = serde_json::json!({"count": 0, "ns": 0});
    for field in [
        "compute_infer",
        "compute_output",
        "success",
        "fail",
        "empty_response",
        "cancel",
    ] {
        assert_eq!(responses["10"][field], nothing, "{field}");
    }
}
