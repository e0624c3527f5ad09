//! What is lifted, and that nobody can tell.

use bytes::Bytes;
use mesh_types::VersionSelector;
use proptest::prelude::*;

use super::*;
use crate::{DecodedInfer, request::decode_lifted};

/// Reads a body with all lists lifted that can be, and as it came.
fn both(body: &str) -> [Result<DecodedInfer, String>; 2] {
    let body = Bytes::copy_from_slice(body.as_bytes());
    [0, usize::MAX].map(|least| {
        let binary = crate::request::Binary::nothing(&body);
        decode_lifted("m", VersionSelector::Default, &body, binary, least).map_err(|error| error.to_string())
    })
}

fn input(datatype: &str, shape: &str, data: &str) -> String {
    format!(r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":{shape},"data":{data}}}]}}"#)
}

fn lifted(body: &str) -> usize {
    Lists::lift(body.as_bytes(), 0).map_or(0, |lists| lists.lifted.len())
}

#[test]
fn lists_of_numbers_are_lifted_and_nothing_else_is() {
    for data in ["[1,2]", "[ 1 , -2.5e+3 ]", "[[1],[2]]", "[]", "[1,,2]", "[01]"] {
        assert_eq!(lifted(&input("FP32", "[2]", data)), 1, "{data}");
    }
    for data in [
        "[true]",
        "[\"1\"]",
        "[1,null]",
        "[{}]",
        "1",
        "[NaN]",
        "[1",
        "[[1]",
        &"[".repeat(65),
    ] {
        assert_eq!(lifted(&input("FP32", "[2]", data)), 0, "{data}");
    }
    let deepest = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert_eq!(lifted(&input("FP32", "[1]", &deepest(MAX_DEPTH))), 1);
    assert_eq!(lifted(&input("FP32", "[1]", &deepest(MAX_DEPTH + 1))), 0);
    for body in [
        r#"{"id":"data\":[1,2]"}"#,
        r#"{"d\u0061ta":[1]}"#,
        r#""data" [1]"#,
        r#"["data",[1]]"#,
        r#"{"data"#,
    ] {
        assert_eq!(lifted(body), 0, "{body}");
    }
}

#[test]
fn only_large_lists_are_lifted() {
    let data = format!("[{}]", vec!["1"; LEAST_BYTES].join(","));
    let body = input("FP32", &format!("[{LEAST_BYTES}]"), &data);
    let lists = |least| Lists::lift(body.as_bytes(), least);
    assert!(lists(data.len() + 1).is_none());
    let lists = lists(data.len()).unwrap();
    assert_eq!(lists.lifted.len(), 1);
    assert!(lists.rest().len() < 80, "the list is not among what the parser reads");
    assert!(Lists::lift(input("FP32", "[1]", "[1]").as_bytes(), LEAST_BYTES).is_none());
}

#[test]
fn whatever_is_wrong_is_said_as_if_nothing_had_been_lifted() {
    for data in [
        "[1,,2]",
        "[1,2,]",
        "[,1,2]",
        "[1 2]",
        "[01,2]",
        "[-01,2]",
        "[+1,2]",
        "[.5,2]",
        "[1.,2]",
        "[1.e3,2]",
        "[1e,2]",
        "[1e+,2]",
        "[--1,2]",
        "[1-2,2]",
        "[1/2,2]",
        "[1\u{1},2]",
        "[e,2]",
        "[[1],2]",
        "[[1 2]]",
        "[[1],,[2]]",
        "[[1][2]]",
        "[1],[2]",
        "[1,2]]",
        "[1,2,3]",
        "[1]",
        "[]",
        "[1e99,2]",
        "[,]",
        "[[],[]]",
        "[1.5.5,2]",
        "[0x1,2]",
        "[-,1]",
        "[00,1]",
    ] {
        for datatype in ["FP32", "FP64", "INT8", "UINT64", "BOOL", "BYTES", "FP16"] {
            for shape in ["[2]", "[2,1]", "[]", "[1,2]"] {
                let [lifted, plain] = both(&input(datatype, shape, data));
                assert_eq!(lifted, plain, "{datatype} {shape} {data}");
                assert!(plain.is_err() || (datatype, shape) != ("FP32", "[2]"), "{data}");
            }
        }
    }
}

#[test]
fn a_list_elsewhere_than_in_an_input_is_left_where_it_is() {
    let good = r#"{"name":"x","datatype":"INT8","shape":[2],"data":[1,2]}"#;
    for body in [
        format!(r#"{{"data":[1],"inputs":[{good}]}}"#),
        format!(r#"{{"parameters":{{"data":[1]}},"inputs":[{good}]}}"#),
        format!(r#"{{"id":{{"data":[1]}},"inputs":[{good}]}}"#),
        r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1],"data":[2]}]}"#.to_owned(),
        r#"{"inputs":[{"name":"x","datatype":"INT8","shape":[1],"data":[1],"parameters":{"data":[2]}}]}"#.to_owned(),
        r#"{"inputs":[{"name":"data","datatype":"INT8","shape":{"data":[1]},"data":[1]}]}"#.to_owned(),
    ] {
        assert!(lifted(&body) > 0, "{body}");
        let [lifted, plain] = both(&body);
        assert_eq!(lifted, plain, "{body}");
    }
}

/// What a body may be made of, so that much of it is nearly right.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => any::<f32>().prop_map(|number| number.to_string()),
        8 => any::<i16>().prop_map(|number| number.to_string()),
        8 => Just(",".to_owned()),
        2 => Just(" ".to_owned()),
        2 => "[\\[\\]\\.eE+0-]".prop_map(|text| text),
        1 => "[0-9.eE+-]{1,6}".prop_map(|text| text),
        1 => Just("\"".to_owned()),
    ]
}

proptest! {
    #[test]
    fn lifting_changes_neither_what_is_read_nor_what_is_said(
        pieces in proptest::collection::vec(piece(), 0..12),
        numbers in proptest::collection::vec(any::<f32>().prop_filter("JSON has none", |number| number.is_finite()), 0..80),
        count in 0_u64..6,
        datatype in prop_oneof![Just("FP32"), Just("INT32"), Just("FP64")],
    ) {
        let [lifted, plain] = both(&input(datatype, &format!("[{count}]"), &format!("[{}]", pieces.concat())));
        prop_assert_eq!(lifted, plain);
        let data = serde_json::to_string(&numbers).unwrap();
        let [lifted, plain] = both(&input("FP32", &format!("[{}]", numbers.len()), &data));
        prop_assert!(lifted.is_ok());
        prop_assert_eq!(lifted, plain);
    }
}
