//! Conditions: what they mean, where they are wrong, and that nothing breaks them.

use std::sync::Arc;

use mesh_types::{MAX_CONDITION_BYTES, Shape};
use proptest::prelude::*;

use super::*;

fn tensor(datatype: DataType, elements: u64, data: Vec<u8>) -> Tensor {
    Tensor::new(Arc::from("t"), datatype, Shape::from_slice(&[elements]), data.into()).unwrap()
}

fn texts(texts: &[&str]) -> Tensor {
    let mut data = Vec::new();
    for text in texts {
        data.extend(u32::try_from(text.len()).unwrap().to_le_bytes());
        data.extend(text.as_bytes());
    }
    tensor(DataType::Bytes, texts.len() as u64, data)
}

fn floats(values: &[f32]) -> Tensor {
    let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(DataType::Fp32, values.len() as u64, data)
}

/// Whether it holds beside `score` (0.25, 0.75), `language` (de, en), `flag` (true) and some parameters.
fn holds(text: &str) -> bool {
    let condition = Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let known = [
        ("score", floats(&[0.25, 0.75])),
        ("language", texts(&["de", "en"])),
        ("flag", tensor(DataType::Bool, 1, vec![1])),
        ("dense/out:0", floats(&[3.0])),
    ];
    let parameters: Parameters = [
        ("mode".to_owned(), ParameterValue::String("strict".into())),
        ("level".to_owned(), ParameterValue::Int(3)),
        ("a b".to_owned(), ParameterValue::Bool(true)),
    ]
    .into();
    let lookup = |place: usize| {
        let name = &condition.names()[place].name;
        known
            .iter()
            .find(|(known, _)| **known == **name)
            .map(|(_, tensor)| tensor)
    };
    condition.holds(&lookup, &parameters)
}

#[test]
fn operands_and_operators_mean_what_is_documented() {
    for yes in [
        "score < 0.5",
        "score[1] >= 0.75",
        "language == 'de' && language[1] == \"en\"",
        "flag",
        "flag == true",
        "!(score > 1) && !present(absent)",
        "size(score) == 2",
        "parameters.mode == 'strict'",
        "parameters[\"a b\"]",
        "parameters.level > 2.5 || false",
        "`dense/out:0` == 3",
        "1 < 2",
        "score > -1e3",
        "language < 'df'",
    ] {
        assert!(holds(yes), "{yes}");
    }
}

#[test]
fn and_binds_more_tightly_than_or() {
    assert!(holds("true || false && false"));
    assert!(!holds("(true || false) && false"));
    assert!(holds("!false && true"));
}

#[test]
fn a_comparison_with_what_is_not_there_or_of_another_type_is_false() {
    for no in [
        "absent == 1",
        "absent != 1",
        "score[2] == 0.25",
        "score[2] != 0.25",
        "parameters.absent != 'x'",
        "parameters.mode > 3",
        "parameters.mode",
    ] {
        assert!(!holds(no), "{no}");
        assert!(holds(&format!("!({no})")), "{no}");
    }
}

#[test]
fn errors_say_where_and_what() {
    for (text, at, part) in [
        ("", 1, "expected a number"),
        ("score >", 8, "expected a number"),
        ("score = 1", 7, "write =="),
        ("score > 1 &", 11, "write &&"),
        ("score > 1 2", 11, "expected && or ||"),
        ("(score > 1", 11, "closing )"),
        ("score[x] > 1", 7, "number of an element"),
        ("score[-1] > 1", 7, "number of an element"),
        ("score[0 > 1", 9, "closing ]"),
        ("'open", 1, "never closed"),
        ("a == 'b\\q'", 8, "after \\"),
        ("12x > 1", 1, "no number"),
        ("parameters. == 1", 1, "which parameter"),
        ("parameters[1] == 1", 12, "name in quotes"),
        ("present(1)", 9, "name of a tensor"),
        ("ä == 1", 1, "means nothing"),
        ("\"ä\" == §", 8, "means nothing"),
    ] {
        let error = Condition::parse(text).unwrap_err();
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.problem.contains(part), "{text}: {error}");
    }
}

#[test]
fn types_are_checked_where_they_are_known() {
    let check = |text: &str| {
        Condition::parse(text)
            .unwrap()
            .check(&[DataType::Fp32])
            .map_err(|error| (error.at, error.problem))
    };
    assert_eq!(check("score > 1 && parameters.x == 'a'"), Ok(()));
    assert_eq!(check("true && score == 'a'").unwrap_err().0, 9);
    assert!(check("score").unwrap_err().1.contains("a number, not true or false"));
    assert!(check("true < false").unwrap_err().1.contains("no order"));
    assert!(check("parameters.x < true").unwrap_err().1.contains("no order"));
    assert!(
        check("present(score) == 1")
            .unwrap_err()
            .1
            .contains("true or false with a number")
    );
}

#[test]
fn bounds_hold_at_the_bound_and_one_past_it() {
    let long = |bytes: usize| format!("'{}' == ''", "x".repeat(bytes - 8));
    assert!(Condition::parse(&long(MAX_CONDITION_BYTES)).is_ok());
    assert!(Condition::parse(&long(MAX_CONDITION_BYTES + 1)).is_err());
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Condition::parse(&nested(MAX_CONDITION_DEPTH)).is_ok());
    assert!(Condition::parse(&nested(MAX_CONDITION_DEPTH + 1)).is_err());
    let negated = |depth: usize| format!("{}true", "!".repeat(depth));
    assert!(Condition::parse(&negated(MAX_CONDITION_DEPTH)).is_ok());
    assert!(Condition::parse(&negated(MAX_CONDITION_DEPTH + 1)).is_err());
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "\\PC{0,80}") {
        if let Err(error) = Condition::parse(&text) {
            prop_assert!(error.at >= 1 && error.at <= text.chars().count() + 1, "{}", error);
        }
    }

    #[test]
    fn words_in_any_order_are_read_or_refused_and_always_evaluate(
        words in proptest::collection::vec(
            prop_oneof![
                Just("a"), Just("b[1]"), Just("=="), Just("<"), Just("&&"), Just("||"), Just("!"), Just("("), Just(")"),
                Just("1.5"), Just("-7"), Just("'x'"), Just("true"), Just("present(a)"), Just("size(b)"), Just("parameters.p"),
            ],
            0..12,
        ),
    ) {
        let text = words.join(" ");
        if let Ok(condition) = Condition::parse(&text) {
            let a = floats(&[1.0]);
            let lookup = |place: usize| (&*condition.names()[place].name == "a").then_some(&a);
            let first = condition.holds(&lookup, &Parameters::default());
            prop_assert_eq!(first, condition.holds(&lookup, &Parameters::default()));
            // Read again from what it says of itself, it is the same.
            prop_assert_eq!(Condition::parse(condition.text()), Ok(condition.clone()));
        }
    }

    #[test]
    fn comparisons_agree_with_those_of_the_numbers(a in any::<i64>(), b in any::<i64>()) {
        let bytes = a.to_le_bytes().to_vec();
        let tensor = tensor(DataType::Int64, 1, bytes);
        let of = |operator: &str| {
            let condition = Condition::parse(&format!("x {operator} {b}")).unwrap();
            condition.holds(&|_| Some(&tensor), &Parameters::default())
        };
        prop_assert_eq!(of("=="), a == b);
        prop_assert_eq!(of("!="), a != b);
        prop_assert_eq!(of("<"), a < b);
        prop_assert_eq!(of("<="), a <= b);
        prop_assert_eq!(of(">"), a > b);
        prop_assert_eq!(of(">="), a >= b);
    }
}
