//! What is written reads back the same, for every datatype and both encodings; and any bytes at all only ever get an answer.

use std::sync::Arc;

use crate::{EncodeError, OutputOptions, decode_infer, encode_infer, fuzz};
use bytes::Bytes;
use mesh_types::{DataType, InferResponse, ParameterValue, Parameters, Shape, Tensor, Version, VersionSelector};
use proptest::{collection::vec, prelude::*};

fn response(outputs: Vec<Tensor>) -> InferResponse {
    InferResponse {
        id: Some("an \"id\"".into()),
        model: "digits".into(),
        version: Version::new(3).unwrap(),
        outputs,
        parameters: Parameters::new(),
        regions: Vec::new(),
    }
}

// A response's outputs have the form of a request's inputs.
fn read_back(response: &InferResponse, options: &OutputOptions) -> Vec<Tensor> {
    let encoded = encode_infer(response, options).unwrap();
    let header = encoded.header_content_length();
    assert_eq!(encoded.body_bytes(), encoded.clone().into_chunks().concat().len());
    let body = encoded.into_chunks().concat();
    let json = std::str::from_utf8(&body[..header.unwrap_or(body.len())]).unwrap();
    let renamed = json.replacen("\"outputs\":[", "\"inputs\": [", 1);
    let body = [renamed.as_bytes(), &body[json.len()..]].concat();
    decode_infer("m", VersionSelector::Default, &Bytes::from(body), header)
        .unwrap()
        .request
        .inputs
}

/// The ends of each datatype's range, zeros of both signs, and what is no number.
fn edges(datatype: DataType, finite: bool) -> Vec<Vec<u8>> {
    let singles = [
        0.0,
        -0.0,
        f32::MIN,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        16_777_217.0,
    ];
    let odd = [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    let doubles = [0.0, -0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::from_bits(1), 0.1];
    match datatype {
        DataType::Bool => vec![vec![0], vec![1]],
        DataType::Fp32 => {
            let odd = odd.into_iter().filter(|_| !finite);
            singles
                .into_iter()
                .chain(odd)
                .map(|x| x.to_le_bytes().to_vec())
                .collect()
        }
        DataType::Fp64 => {
            let odd = odd.into_iter().filter(|_| !finite).map(f64::from);
            doubles
                .into_iter()
                .chain(odd)
                .map(|x| x.to_le_bytes().to_vec())
                .collect()
        }
        DataType::Bytes => ["", "\0", "a\0b", "\u{10ffff}\"\\\n", "\u{7f}\u{2028}"]
            .map(|text| prefixed(text.as_bytes()))
            .to_vec(),
        // All bits, all but the highest, the highest alone, none: the ends of both kinds of whole numbers.
        _ => {
            let size = datatype.element_bytes().unwrap_or_default();
            let ends = |last: u8, rest: u8| [vec![rest; size - 1], vec![last]].concat();
            vec![ends(0xff, 0xff), ends(0x7f, 0xff), ends(0x80, 0), ends(0, 0)]
        }
    }
}

fn element(datatype: DataType, finite: bool) -> BoxedStrategy<Vec<u8>> {
    prop_oneof![
        proptest::sample::select(edges(datatype, finite)),
        any_element(datatype, finite)
    ]
    .boxed()
}

fn any_element(datatype: DataType, finite: bool) -> BoxedStrategy<Vec<u8>> {
    match datatype {
        DataType::Bool => any::<bool>().prop_map(|value| vec![u8::from(value)]).boxed(),
        DataType::Fp32 if finite => any::<f32>()
            .prop_filter("finite", |x| x.is_finite())
            .prop_map(|x| x.to_le_bytes().to_vec())
            .boxed(),
        DataType::Fp64 if finite => any::<f64>()
            .prop_filter("finite", |x| x.is_finite())
            .prop_map(|x| x.to_le_bytes().to_vec())
            .boxed(),
        DataType::Bytes if finite => any::<String>().prop_map(|text| prefixed(text.as_bytes())).boxed(),
        DataType::Bytes => vec(any::<u8>(), 0..40).prop_map(|bytes| prefixed(&bytes)).boxed(),
        _ => vec(any::<u8>(), datatype.element_bytes().unwrap_or_default()).boxed(),
    }
}

fn prefixed(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat()
}

pub(crate) fn tensor(name: &'static str, finite: bool) -> impl Strategy<Value = Tensor> {
    let datatypes = DataType::ALL
        .into_iter()
        .filter(move |datatype| !finite || !matches!(datatype, DataType::Fp16 | DataType::Bf16));
    let datatype = proptest::sample::select(datatypes.collect::<Vec<_>>());
    (datatype, vec(0_u64..4, 0..4)).prop_flat_map(move |(datatype, shape)| {
        let elements = usize::try_from(shape.iter().product::<u64>()).unwrap();
        vec(element(datatype, finite), elements).prop_map(move |elements| {
            Tensor::new(
                Arc::from(name),
                datatype,
                Shape::from_slice(&shape),
                Bytes::from(elements.concat()),
            )
            .unwrap()
        })
    })
}

proptest! {
    #[test]
    fn json_reads_back_as_written(first in tensor("first", true), second in tensor("se\"cond", true)) {
        let response = response(vec![first, second]);
        prop_assert_eq!(read_back(&response, &OutputOptions::default()), response.outputs);
    }

    #[test]
    fn binary_data_reads_back_as_written(first in tensor("first", false), second in tensor("second", false)) {
        let response = response(vec![first, second]);
        prop_assert_eq!(read_back(&response, &OutputOptions::all(true)), response.outputs);
    }

    #[test]
    fn any_bytes_get_an_answer(data in vec(any::<u8>(), 0..300)) {
        fuzz::infer_json(&data).unwrap();
        fuzz::infer_binary(&data).unwrap();
    }

    #[test]
    fn any_text_in_the_places_of_a_request_gets_an_answer(name in any::<String>(), datatype in "[A-Z0-9]{0,6}", shape in "[-0-9,.e\\[\\]]{0,12}", data in "[-0-9,.e\\[\\]\"tru ]{0,40}") {
        let body = format!(r#"{{"inputs":[{{"name":{name:?},"datatype":"{datatype}","shape":[{shape}],"data":[{data}]}}]}}"#);
        fuzz::infer_json(body.as_bytes()).unwrap();
    }
}

#[test]
fn large_binary_outputs_are_sent_as_they_are_and_small_ones_join_the_json() {
    let tensor = |bytes: usize| {
        Tensor::new(
            Arc::from("y"),
            DataType::Uint8,
            Shape::from_slice(&[bytes as u64]),
            Bytes::from(vec![7; bytes]),
        )
        .unwrap()
    };
    let small = encode_infer(&response(vec![tensor(64 * 1024)]), &OutputOptions::all(true)).unwrap();
    assert_eq!(small.into_chunks().len(), 1);
    let large = tensor(64 * 1024 + 1);
    let chunks = encode_infer(&response(vec![large.clone()]), &OutputOptions::all(true))
        .unwrap()
        .into_chunks();
    assert_eq!(chunks.len(), 2);
    assert_eq!(chunks[1].as_ptr(), large.data.as_ptr());
}

#[test]
fn what_json_cannot_say_is_an_error_that_names_the_way_out() {
    let tensor = |datatype, bytes: Vec<u8>| {
        Tensor::new(Arc::from("y"), datatype, Shape::from_slice(&[1]), Bytes::from(bytes)).unwrap()
    };
    let error = |tensor| encode_infer(&response(vec![tensor]), &OutputOptions::default()).unwrap_err();
    assert!(matches!(
        error(tensor(DataType::Fp32, f32::NAN.to_le_bytes().to_vec())),
        EncodeError::NotFinite { .. }
    ));
    assert!(matches!(
        error(tensor(DataType::Fp64, f64::NEG_INFINITY.to_le_bytes().to_vec())),
        EncodeError::NotFinite { .. }
    ));
    assert!(matches!(
        error(tensor(DataType::Bytes, vec![1, 0, 0, 0, 0xff])),
        EncodeError::NotText { .. }
    ));
    let half = error(tensor(DataType::Fp16, vec![0, 0]));
    assert!(half.to_string().contains("binary_data"), "{half}");
}

#[test]
fn a_response_has_the_protocols_fields() {
    let tensor = Tensor::new(
        Arc::from("y"),
        DataType::Fp32,
        Shape::from_slice(&[1, 2]),
        Bytes::from([0.1_f32.to_le_bytes(), 1e20_f32.to_le_bytes()].concat()),
    )
    .unwrap();
    let mut response = response(vec![tensor]);
    response.parameters.insert("note".into(), ParameterValue::Bool(true));
    let body = encode_infer(&response, &OutputOptions::default())
        .unwrap()
        .into_chunks()
        .concat();
    let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        value,
        serde_json::json!({"id": "an \"id\"", "model_name": "digits", "model_version": "3", "parameters": {"note": true},
            "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2], "data": [0.1, 1e20]}]})
    );
}
