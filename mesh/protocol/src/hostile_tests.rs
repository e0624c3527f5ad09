//! Every hostile or mistaken body and the exact text it is answered with, as one snapshot; and the accepted ones beside them.

use std::fmt::Write as _;

use crate::{DecodeError, MAX_ID_BYTES, MAX_PARAMETERS, MAX_TENSOR_NAME_BYTES, MAX_TENSORS, decode_infer};
use bytes::Bytes;
use mesh_types::{Fault, FaultClass, ParameterValue, VersionSelector};

fn decode(body: impl Into<Bytes>, header: Option<usize>) -> Result<crate::DecodedInfer, DecodeError> {
    decode_infer("m", VersionSelector::Default, &body.into(), header)
}

fn one(fields: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x",{fields}}}]}}"#)
}

fn data(datatype: &str, shape: &str, data: &str) -> String {
    one(&format!(r#""datatype":"{datatype}","shape":{shape},"data":{data}"#))
}

fn decoded_data(body: String) -> Vec<u8> {
    decode(body, None).unwrap().request.inputs[0].data.to_vec()
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of cases")]
fn every_refusal_has_its_own_text() {
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let long = "n".repeat(100_000);
    let cases: Vec<(&str, String)> = vec![
        ("empty body", String::new()),
        ("not json", "hello".into()),
        ("not an object", "[1,2]".into()),
        ("cut short", r#"{"inputs":[{"name":"x""#.into()),
        ("trailing text", format!("{} x", data("INT8", "[1]", "[1]"))),
        ("no inputs", "{}".into()),
        ("empty inputs", r#"{"inputs":[]}"#.into()),
        ("inputs no array", r#"{"inputs":{}}"#.into()),
        ("input no object", r#"{"inputs":[1]}"#.into()),
        ("no name", r#"{"inputs":[{"datatype":"INT8","shape":[1],"data":[1]}]}"#.into()),
        ("empty name", r#"{"inputs":[{"name":"","datatype":"INT8","shape":[1],"data":[1]}]}"#.into()),
        ("no datatype", one(r#""shape":[1],"data":[1]"#)),
        ("no shape", one(r#""datatype":"INT8","data":[1]"#)),
        ("no data", one(r#""datatype":"INT8","shape":[1]"#)),
        ("same field twice", one(r#""datatype":"INT8","shape":[1],"data":[1],"data":[2]"#)),
        ("same input twice", r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]},{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}"#.into()),
        ("inputs twice", r#"{"inputs":[],"inputs":[]}"#.into()),
        ("id no string", r#"{"id":7,"inputs":[]}"#.into()),
        ("unknown datatype", data("FP8", "[1]", "[1]")),
        ("long unknown datatype", data(&long, "[1]", "[1]")),
        ("long string where an array is due", format!(r#"{{"inputs":"{long}"}}"#)),
        ("negative extent", data("INT8", "[-1]", "[1]")),
        ("fraction in shape", data("INT8", "[1.5]", "[1]")),
        ("string in shape", data("INT8", r#"["1"]"#, "[1]")),
        ("extent beyond 64 bits", data("INT8", "[18446744073709551616]", "[1]")),
        ("overflowing shape", data("INT8", "[4294967296,4294967296]", "[1]")),
        ("overflow beside a zero", data("INT8", "[4294967296,4294967296,0]", "[]")),
        ("overflowing bytes", data("FP64", "[9223372036854775807]", "[1]")),
        ("huge shape, little data", data("FP64", "[1099511627776]", "[1,2]")),
        ("too few elements", data("INT8", "[3]", "[1,2]")),
        ("too many elements", data("INT8", "[3]", "[1,2,3,4]")),
        ("flat for a matrix, too few", data("INT8", "[2,2]", "[1,2,3]")),
        ("nested otherwise", data("INT8", "[2,2]", "[[1,2,3,4]]")),
        ("ragged", data("INT8", "[2,2]", "[[1,2,3],[4]]")),
        ("number beside a list", data("INT8", "[2,2]", "[[1,2],3,4]")),
        ("list beside a number", data("INT8", "[2,2]", "[1,2,[3,4]]")),
        ("nested too deep", data("INT8", "[2]", "[[1],[2]]")),
        ("ten thousand deep data", data("INT8", "[1]", &deep(10_000))),
        ("ten thousand deep parameters", format!(r#"{{"parameters":{},"inputs":[]}}"#, deep(10_000))),
        ("ten thousand deep inputs", format!(r#"{{"inputs":{}}}"#, deep(10_000))),
        ("hundred thousand deep unknown field, cut short", format!(r#"{{"x":{}"#, "[".repeat(100_000))),
        ("data no array", data("INT8", "[1]", "5")),
        ("data an object", data("INT8", "[1]", r#"{"b64":"AA=="}"#)),
        ("data null", data("INT8", "[1]", "null")),
        ("element an object", data("INT8", "[1]", "[{}]")),
        ("element null", data("FP32", "[1]", "[null]")),
        ("NaN", data("FP32", "[1]", "[NaN]")),
        ("number as string", data("FP32", "[1]", r#"["1.0"]"#)),
        ("bool as number", data("INT32", "[1]", "[true]")),
        ("number as bool", data("BOOL", "[2]", "[true,1]")),
        ("string as bool", data("BOOL", "[1]", r#"["true"]"#)),
        ("fraction as integer", data("INT32", "[1]", "[1.5]")),
        ("exponent as integer", data("INT32", "[1]", "[1e2]")),
        ("too large for int8", data("INT8", "[2]", "[127,128]")),
        ("too small for int8", data("INT8", "[1]", "[-129]")),
        ("negative for unsigned", data("UINT16", "[1]", "[-1]")),
        ("too large for uint64", data("UINT64", "[1]", "[18446744073709551616]")),
        ("too small for int64", data("INT64", "[1]", "[-9223372036854775809]")),
        ("endless integer", data("INT64", "[1]", &format!("[{}]", "9".repeat(100_000)))),
        ("too large for fp32", data("FP32", "[1]", "[1e39]")),
        ("too large for fp64", data("FP64", "[1]", "[1e309]")),
        ("fp16 in json", data("FP16", "[1]", "[1.0]")),
        ("bf16 in json", data("BF16", "[1]", "[1.0]")),
        ("number as string element", data("BYTES", "[1]", "[1]")),
        ("lone surrogate", data("BYTES", "[1]", r#"["\ud800"]"#)),
        ("same parameter twice", r#"{"parameters":{"a":1,"a":2},"inputs":[]}"#.into()),
        ("parameter an object", r#"{"parameters":{"a":{}},"inputs":[]}"#.into()),
        ("parameters no object", r#"{"parameters":[],"inputs":[]}"#.into()),
        ("binary_data_output no boolean", r#"{"parameters":{"binary_data_output":1},"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}]}"#.into()),
        ("binary_data no boolean", r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}],"outputs":[{"name":"y","parameters":{"binary_data":"yes"}}]}"#.into()),
        ("same output twice", r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}],"outputs":[{"name":"y"},{"name":"y"}]}"#.into()),
        ("no classes", r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}],"outputs":[{"name":"y","parameters":{"classification":0}}]}"#.into()),
        ("classes in a list", r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}],"outputs":[{"name":"y","parameters":{"classification":[3]}}]}"#.into()),
        ("classes twice", r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}],"outputs":[{"name":"y","parameters":{"classification":1,"classification":2}}]}"#.into()),
        ("classes of an input", one(r#""datatype":"INT8","shape":[1],"parameters":{"classification":1},"data":[1]"#)),
        ("shared memory", one(r#""datatype":"INT8","shape":[1],"parameters":{"shared_memory_region":"r"}"#)),
        ("binary size without header", one(r#""datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1}"#)),
        ("data and binary size", one(r#""datatype":"INT8","shape":[1],"parameters":{"binary_data_size":1},"data":[1]"#)),
    ];
    let mut texts = String::new();
    for (case, body) in cases {
        let fault: Fault = decode(body, None).expect_err(case).into();
        writeln!(texts, "{case}: {:?}: {fault}", fault.class).unwrap();
    }
    insta::assert_snapshot!("json", texts);
}

#[test]
fn every_refusal_of_binary_data_has_its_own_text() {
    let sized = |size: &str| {
        one(&format!(
            r#""datatype":"INT32","shape":[2],"parameters":{{"binary_data_size":{size}}}"#
        ))
    };
    let strings = one(r#""datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}"#);
    // The binary data, then the header: none takes the length of the JSON.
    let cases: Vec<(&str, String, &[u8], Option<usize>)> = vec![
        ("no JSON at all", sized("8"), &[0; 8], Some(0)),
        ("header beyond the body", sized("8"), &[0; 8], Some(1_000_000)),
        ("header of all bits", sized("8"), &[0; 8], Some(usize::MAX)),
        ("header one short", sized("8"), &[0; 8], Some(sized("8").len() - 1)),
        ("header one long", sized("8"), &[0; 8], Some(sized("8").len() + 1)),
        ("data cut short", sized("8"), &[0; 7], None),
        ("one byte behind", sized("8"), &[0; 9], None),
        ("bytes behind and no size", data("INT8", "[1]", "[1]"), &[0; 3], None),
        ("negative size", sized("-1"), &[0; 8], None),
        ("huge size", sized("18446744073709551615"), &[0; 8], None),
        ("size beyond 64 bits", sized("18446744073709551616"), &[0; 8], None),
        ("size a fraction", sized("8.0"), &[0; 8], None),
        ("size a string", sized("\"8\""), &[0; 8], None),
        ("size unlike the shape", sized("4"), &[0; 4], None),
        ("string cut short", strings.clone(), &[9, 0, 0, 0, b'x'], None),
        ("string of endless length", strings, &[255, 255, 255, 255, b'x'], None),
    ];
    let mut texts = String::new();
    for (case, json, binary, header) in cases {
        let header = header.unwrap_or(json.len());
        let body = [json.as_bytes(), binary].concat();
        let fault: Fault = decode(body, Some(header)).expect_err(case).into();
        writeln!(texts, "{case}: {:?}: {fault}", fault.class).unwrap();
    }
    insta::assert_snapshot!("binary", texts);
}

#[test]
fn bounds_hold_at_n_and_break_at_n_plus_one() {
    let inputs = |count: usize| {
        let input = |index: usize| format!(r#"{{"name":"x{index}","datatype":"INT8","shape":[1],"data":[1]}}"#);
        let list: Vec<String> = (0..count).map(input).collect();
        format!(r#"{{"inputs":[{}]}}"#, list.join(","))
    };
    assert_eq!(
        decode(inputs(MAX_TENSORS), None).unwrap().request.inputs.len(),
        MAX_TENSORS
    );
    assert!(matches!(
        decode(inputs(MAX_TENSORS + 1), None),
        Err(DecodeError::TooManyTensors { .. })
    ));

    let parameters = |count: usize| {
        let list: Vec<String> = (0..count).map(|index| format!(r#""p{index}":1"#)).collect();
        format!(
            r#"{{"parameters":{{{}}},"inputs":[{{"name":"x","datatype":"INT8","shape":[1],"data":[1],"parameters":{{{}}}}}]}}"#,
            list.join(","),
            list.join(",")
        )
    };
    assert_eq!(
        decode(parameters(MAX_PARAMETERS), None)
            .unwrap()
            .request
            .parameters
            .len(),
        MAX_PARAMETERS
    );
    assert_eq!(
        decode(parameters(MAX_PARAMETERS + 1), None),
        Err(DecodeError::TooManyParameters)
    );

    let named = |bytes: usize| data("INT8", "[1]", "[1]").replace("\"x\"", &format!("\"{}\"", "x".repeat(bytes)));
    assert!(decode(named(MAX_TENSOR_NAME_BYTES), None).is_ok());
    assert_eq!(
        decode(named(MAX_TENSOR_NAME_BYTES + 1), None),
        Err(DecodeError::NameLength(256))
    );

    let with_id =
        |bytes: usize| data("INT8", "[1]", "[1]").replacen('{', &format!("{{\"id\":\"{}\",", "i".repeat(bytes)), 1);
    assert!(decode(with_id(MAX_ID_BYTES), None).is_ok());
    assert_eq!(decode(with_id(MAX_ID_BYTES + 1), None), Err(DecodeError::LongId(1_025)));

    let ranked = |rank: usize| data("INT8", &format!("[{}]", vec!["1"; rank].join(",")), "[1]");
    assert!(decode(ranked(16), None).is_ok());
    assert!(matches!(decode(ranked(17), None), Err(DecodeError::Rank { .. })));
    assert!(matches!(decode(ranked(100_000), None), Err(DecodeError::Rank { .. })));
}

#[test]
fn data_is_flat_or_nested_and_the_datatype_may_come_last() {
    assert_eq!(
        decoded_data(data("UINT8", "[2,3]", "[1,2,3,4,5,6]")),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(
        decoded_data(data("UINT8", "[2,3]", " [ [1 , 2,3],\n[4,5,6 ] ] ")),
        [1, 2, 3, 4, 5, 6]
    );
    assert_eq!(
        decoded_data(one(r#""data":[-2],"shape":[1],"datatype":"INT16""#)),
        (-2_i16).to_le_bytes()
    );
    assert_eq!(decoded_data(data("UINT8", "[]", "7")), [7]);
    assert_eq!(decoded_data(data("UINT8", "[]", "[7]")), [7]);
    assert!(decoded_data(data("UINT8", "[0,5]", "[]")).is_empty());
    assert!(decoded_data(data("UINT8", "[2,0]", "[[],[]]")).is_empty());
    assert_eq!(decoded_data(data("BOOL", "[2]", "[true,false]")), [1, 0]);
    assert_eq!(
        decoded_data(data("FP32", "[2]", "[3,-2.5e-1]")),
        [3.0_f32.to_le_bytes(), (-0.25_f32).to_le_bytes()].concat()
    );
    assert_eq!(
        decoded_data(data("UINT64", "[1]", "[18446744073709551615]")),
        u64::MAX.to_le_bytes()
    );
    assert_eq!(
        decoded_data(data("INT64", "[1]", "[-9223372036854775808]")),
        i64::MIN.to_le_bytes()
    );
    assert_eq!(decoded_data(data("UINT8", "[1]", "[-0]")), [0]);
    assert_eq!(
        decoded_data(data("BYTES", "[3]", r#"["a]\"\\","",  "\u00e4"]"#)),
        b"\x04\0\0\0a]\"\\\0\0\0\0\x02\0\0\0\xc3\xa4"
    );
    // A decimal that rounds differently by way of 64 bits.
    assert_eq!(
        decoded_data(data("FP32", "[1]", "[1.00000017881393432617187499]")),
        1.000_000_1_f32.to_le_bytes()
    );
}

#[test]
fn unknown_fields_and_deep_ones_are_ignored() {
    let deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let body = data("INT8", "[1]", "[1]").replacen('{', &format!(r#"{{"x":{deep},"timeout":{{}},"#), 1);
    assert!(decode(body, None).is_ok());
}

#[test]
fn parameters_and_outputs_come_through_and_binary_wishes_are_kept_apart() {
    let body = r#"{"id":"7","parameters":{"user":"u1","n":-1,"big":18446744073709551615,"f":0.5,"binary_data_output":true},
        "inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1]}],
        "outputs":[{"name":"a"},{"name":"b","parameters":{"binary_data":false}}]}"#;
    let decoded = decode(body, None).unwrap();
    let request = decoded.request;
    assert_eq!(request.id.as_deref(), Some("7"));
    assert_eq!(request.outputs, ["a", "b"]);
    assert_eq!(request.parameter("user"), Some(&ParameterValue::String("u1".into())));
    assert_eq!(request.parameter("n"), Some(&ParameterValue::Int(-1)));
    assert_eq!(request.parameter("big"), Some(&ParameterValue::Uint(u64::MAX)));
    assert_eq!(request.parameter("f"), Some(&ParameterValue::Double(0.5)));
    assert_eq!(request.parameter("binary_data_output"), None);
    assert!(decoded.outputs.is_binary("a") && !decoded.outputs.is_binary("b") && decoded.outputs.is_binary("other"));
}

#[test]
fn binary_tensors_share_the_bodys_memory() {
    let json = r#"{"inputs":[{"name":"a","datatype":"INT32","shape":[1],"parameters":{"binary_data_size":4}},{"name":"b","datatype":"UINT8","shape":[1],"data":[5]},{"name":"c","datatype":"FP16","shape":[2],"parameters":{"binary_data_size":4}}]}"#;
    let body = Bytes::from([json.as_bytes(), &[1, 0, 0, 0, 9, 8, 7, 6]].concat());
    let decoded = decode(body.clone(), Some(json.len())).unwrap();
    let [a, b, c] = decoded.request.inputs.as_slice() else {
        panic!("three inputs")
    };
    assert_eq!(
        (&a.data[..], &b.data[..], &c.data[..]),
        (&[1, 0, 0, 0][..], &[5][..], &[9, 8, 7, 6][..])
    );
    assert_eq!(a.data.as_ptr(), body[json.len()..].as_ptr());
    assert_eq!(c.data.as_ptr(), body[json.len() + 4..].as_ptr());
}

#[test]
fn refusals_are_the_callers_fault_and_no_message_grows_with_the_body() {
    let body = data(&"\\\"x".repeat(50_000), "[1]", "[1]");
    let fault: Fault = decode(body, None).unwrap_err().into();
    assert_eq!(fault.class, FaultClass::InvalidArgument);
    assert!(fault.message.len() < 1_000, "{}", fault.message.len());
}
