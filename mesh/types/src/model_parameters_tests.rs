//! What a model is given of parameters, at the bounds and past them, and what a configuration may say of it.

use super::*;

fn config(rule: Option<RequestParameters>) -> ModelConfig {
    ModelConfig {
        request_parameters: rule,
        ..ModelConfig::default()
    }
}

fn all() -> Option<RequestParameters> {
    Some(RequestParameters::default())
}

fn rule(names: &[&str], defaults: &[(&str, &str)]) -> Option<RequestParameters> {
    Some(RequestParameters {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        defaults: defaults
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect(),
    })
}

fn given(
    rule: Option<RequestParameters>,
    said: &[(&str, ParameterValue)],
) -> Result<Option<Vec<(String, String)>>, String> {
    let parameters = said
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let model = ModelId::parse("m").unwrap();
    let given = config(rule).model_parameters(&model, &parameters);
    let pairs = |given: Arc<ModelParameters>| {
        given
            .iter()
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect()
    };
    given.map(|given| given.map(pairs)).map_err(|error| error.to_string())
}

fn pairs(of: &[(&str, &str)]) -> Option<Vec<(String, String)>> {
    let pair = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    Some(of.iter().map(pair).collect())
}

#[test]
fn values_are_texts_in_the_order_of_their_names() {
    let said = [
        ("z", ParameterValue::Bool(true)),
        ("i", (-7_i64).into()),
        ("u", u64::MAX.into()),
        ("d", 1.0.into()),
        ("tiny", 1e-7.into()),
        ("nan", f64::NAN.into()),
        ("inf", f64::NEG_INFINITY.into()),
        ("text", "a\0b \u{e9}".into()),
    ];
    let expected = [
        ("d", "1.0"),
        ("i", "-7"),
        ("inf", "-inf"),
        ("nan", "NaN"),
        ("text", "a\0b \u{e9}"),
        ("tiny", "1e-7"),
        ("u", "18446744073709551615"),
        ("z", "true"),
    ];
    assert_eq!(given(all(), &said).unwrap(), pairs(&expected));
    let mut turned = said.clone();
    turned.reverse();
    assert_eq!(given(all(), &turned), given(all(), &said));
}

#[test]
fn a_model_is_given_what_it_asks_for_and_nothing_that_has_a_meaning() {
    let said = [
        ("priority", ParameterValue::Int(1)),
        ("timeout", 5_i64.into()),
        ("sequence_id", 5_i64.into()),
        ("service_class", "batch".into()),
        ("user", "ada".into()),
        ("language", "fr".into()),
    ];
    assert_eq!(given(None, &said).unwrap(), None);
    assert_eq!(
        given(all(), &said).unwrap(),
        pairs(&[("language", "fr"), ("user", "ada")])
    );
    let one = || rule(&["language", "style"], &[]);
    assert_eq!(given(one(), &said).unwrap(), pairs(&[("language", "fr")]));
    // What it does not ask for tells no two requests apart.
    assert_eq!(given(one(), &[("user", "ada".into())]).unwrap(), None);
    assert_eq!(given(all(), &[]).unwrap(), None);
    assert_eq!(given(all(), &said[..4]).unwrap(), None);
}

#[test]
fn what_holds_by_default_is_as_if_it_was_not_said() {
    let with = || rule(&["language", "scale"], &[("scale", "1.0")]);
    assert_eq!(given(with(), &[("scale", 1.0.into())]).unwrap(), None);
    assert_eq!(
        given(with(), &[("scale", 2.0.into())]).unwrap(),
        pairs(&[("scale", "2.0")])
    );
    let both = pairs(&[("language", "fr"), ("scale", "1.0")]);
    assert_eq!(given(with(), &[("language", "fr".into())]).unwrap(), both);
    let defaults = config(with()).default_parameters();
    assert_eq!(defaults.iter().collect::<Vec<_>>(), [("scale", "1.0")]);
    assert!(config(None).default_parameters().is_empty());
}

#[test]
fn as_many_and_as_long_as_the_bounds_pass_and_one_more_does_not() {
    let names: Vec<String> = (0..=MAX_MODEL_PARAMETERS).map(|at| format!("{at:03}")).collect();
    let many: Vec<(&str, ParameterValue)> = names.iter().map(|name| (name.as_str(), "v".into())).collect();
    assert!(given(all(), &many[..MAX_MODEL_PARAMETERS]).is_ok());
    let error = given(all(), &many).unwrap_err();
    assert!(
        error.contains("65 parameters") && error.contains("at most 64"),
        "{error}"
    );
    let long = |bytes: usize| given(all(), &[("n", "v".repeat(bytes - 1).into())]);
    assert!(long(MAX_MODEL_PARAMETER_BYTES).is_ok());
    let error = long(MAX_MODEL_PARAMETER_BYTES + 1).unwrap_err();
    assert!(error.contains("4097 bytes") && error.contains("4096"), "{error}");
    // What the model does not take is no matter.
    assert!(given(rule(&["other"], &[]), &many).is_ok());
}

#[test]
fn a_rule_names_what_is_a_callers_to_choose_within_bounds() {
    let problems = |rule: Option<RequestParameters>| {
        let mut found = Vec::new();
        rule.unwrap()
            .check(|field, problem| found.push(format!("{field}: {problem}")));
        found
    };
    assert_eq!(problems(all()), Vec::<String>::new());
    assert_eq!(problems(rule(&["scale"], &[("scale", "1")])), Vec::<String>::new());
    for bad in ["", "priority", "sequence_id", "headers", "triton_x"] {
        assert_eq!(problems(rule(&[bad], &[])).len(), 1, "{bad}");
    }
    assert!(problems(rule(&["a"], &[("b", "1")]))[0].contains("none of the names"));
    let names: Vec<String> = (0..=MAX_MODEL_PARAMETERS).map(|at| at.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(problems(rule(&names[..MAX_MODEL_PARAMETERS], &[])).is_empty());
    assert_eq!(problems(rule(&names, &[])).len(), 1);
    let long = |bytes: usize| problems(rule(&[], &[("n", &"v".repeat(bytes - 1))]));
    assert!(long(MAX_MODEL_PARAMETER_BYTES).is_empty());
    assert_eq!(long(MAX_MODEL_PARAMETER_BYTES + 1).len(), 1);
}

#[test]
fn a_configuration_reads_and_writes_its_rule_and_another_rule_is_another_load() {
    let text = r#"{"max_batch_size":4,"input":[],"output":[],"request_parameters":{"names":["scale"],"defaults":{"scale":"1"}}}"#;
    let config: ModelConfig = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&config).unwrap(), text);
    let plain = ModelConfig {
        request_parameters: None,
        ..config.clone()
    };
    assert!(!plain.loads_as(&config));
    assert!(!serde_json::to_string(&plain).unwrap().contains("request_parameters"));
    let bad = ModelConfig {
        request_parameters: rule(&["timeout"], &[]),
        ..config
    };
    let named = bad
        .problems()
        .into_iter()
        .any(|problem| problem.field == "request_parameters");
    assert!(named, "{:?}", bad.problems());
}
