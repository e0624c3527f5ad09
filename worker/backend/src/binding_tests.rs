//! The naming rules, and what is said where a configuration does not fit.

use super::*;

fn tensor() -> ValueType {
    ValueType::tensor()
}

fn optional(value: ValueType) -> ValueType {
    ValueType::Optional(Box::new(value))
}

fn list(item: ValueType) -> ValueType {
    ValueType::List {
        item: Box::new(item),
        length: None,
    }
}

fn dict(keys: &[&str]) -> ValueType {
    ValueType::Dict {
        value: Box::new(tensor()),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    }
}

fn signature(arguments: &[(&str, ValueType, Option<&str>)], result: ValueType) -> Signature {
    let argument = |(name, value, default): &(&str, ValueType, Option<&str>)| Argument {
        name: (*name).to_owned(),
        value: value.clone(),
        default: default.map(str::to_owned),
    };
    Signature {
        arguments: arguments.iter().map(argument).collect(),
        result,
        max_rows: None,
    }
}

fn config(inputs: &[&str], outputs: &[&str]) -> ModelConfig {
    let specs = |names: &[&str]| {
        names
            .iter()
            .map(|name| TensorSpec::new(*name, DataType::Fp32, &[2]))
            .collect()
    };
    ModelConfig {
        max_batch_size: 8,
        input: specs(inputs),
        output: specs(outputs),
        ..ModelConfig::default()
    }
}

fn refusal(signature: &Signature, config: &ModelConfig) -> String {
    Binding::of(signature, config).unwrap_err().to_string()
}

#[test]
fn names_of_arguments_win_over_places_and_places_over_order() {
    let two = signature(&[("a", tensor(), None), ("b", tensor(), None)], tensor());
    let bound = |inputs: &[&str]| Binding::of(&two, &config(inputs, &["y"])).unwrap().arguments;
    let (straight, crossed) = (
        vec![Source::Input(0), Source::Input(1)],
        vec![Source::Input(1), Source::Input(0)],
    );
    assert_eq!(bound(&["a", "b"]), straight);
    assert_eq!(bound(&["b", "a"]), crossed);
    assert_eq!(bound(&["INPUT__1", "INPUT__0"]), crossed);
    assert_eq!(bound(&["left", "right"]), straight);
    assert_eq!(
        bound(&["a", "right"]),
        straight,
        "a name in its own place decides nothing"
    );
    let text = refusal(&two, &config(&["b", "right"], &["y"]));
    assert!(
        text.contains("'right' is none of the arguments, which are a, b"),
        "{text}"
    );
    let text = refusal(&two, &config(&["x__0", "x__2"], &["y"]));
    assert!(
        text.contains("'x__2' is beyond the arguments, which are __0 to __1"),
        "{text}"
    );
    let text = refusal(&two, &config(&["x__0", "y__0"], &["y"]));
    assert!(
        text.contains("'y__0' is an argument that another input is as well"),
        "{text}"
    );
    assert!(text.contains("argument 'b' (Tensor) has no input; add 'b'"), "{text}");
    let text = refusal(&two, &config(&["p", "q", "r"], &["y"]));
    assert!(text.contains("3 inputs for 2 arguments"), "{text}");
}

#[test]
fn containers_are_put_together_from_names() {
    let nested = ValueType::Tuple(vec![tensor(), dict(&["h"])]);
    let all = signature(
        &[
            ("xs", list(tensor()), None),
            ("state", nested, None),
            ("d", dict(&[]), None),
        ],
        tensor(),
    );
    let names = ["state__1.h", "xs__1", "d.any", "state__0", "xs__0", "state__1.c"];
    let bound = Binding::of(&all, &config(&names, &["y"])).unwrap().arguments;
    let inner = Source::Dict(vec![("h".into(), Source::Input(0)), ("c".into(), Source::Input(5))]);
    assert_eq!(
        bound,
        [
            Source::List(vec![Source::Input(4), Source::Input(1)]),
            Source::Tuple(vec![Source::Input(3), inner]),
            Source::Dict(vec![("any".into(), Source::Input(2))]),
        ]
    );
    let text = refusal(&all, &config(&["xs__1", "state__0", "d.k", "state__1.h"], &["y"]));
    assert!(
        text.contains("argument 'xs__0' (Tensor) has no input; add 'xs__0'"),
        "{text}"
    );
    let text = refusal(&all, &config(&["xs__0", "state__0", "d.k"], &["y"]));
    assert!(
        text.contains("argument 'state__1' (Dict[str, Tensor]) has no input; add 'state__1.h'"),
        "{text}"
    );
    let text = refusal(&all, &config(&["a", "b", "c"], &["y"]));
    assert!(
        text.contains("input 'a' is List[Tensor]; give its tensors as 'xs__0'"),
        "{text}"
    );
}

#[test]
fn the_keys_of_a_lone_dictionary_are_names_of_their_own() {
    let lone = signature(&[("batch", dict(&[]), None)], tensor());
    let expected = [Source::Dict(vec![
        ("p".into(), Source::Input(0)),
        ("q".into(), Source::Input(1)),
    ])];
    for names in [["p", "q"], ["batch.p", "batch.q"]] {
        assert_eq!(Binding::of(&lone, &config(&names, &["y"])).unwrap().arguments, expected);
    }
}

#[test]
fn what_may_be_left_out_may_be_optional_and_nothing_else() {
    let arguments = [
        ("x", tensor(), None),
        ("mask", optional(tensor()), None),
        ("k", ValueType::Int, Some("3")),
    ];
    let with = signature(&arguments, tensor());
    let bound = Binding::of(&with, &config(&["x"], &["y"])).unwrap();
    assert_eq!(bound.arguments, [Source::Input(0), Source::Absent, Source::Absent]);
    let mut all = config(&["x", "mask", "k"], &["y"]);
    all.input[1].optional = true;
    all.input[2] = TensorSpec {
        optional: true,
        unbatched: true,
        ..TensorSpec::new("k", DataType::Int64, &[1])
    };
    assert!(Binding::of(&with, &all).is_ok());
    all.input[0].optional = true;
    assert!(refusal(&with, &all).contains("input 'x' is optional, but forward cannot do without 'x'"));
}

#[test]
fn numbers_have_types_and_no_rows() {
    let numbers = signature(
        &[
            ("x", tensor(), None),
            ("k", ValueType::Int, None),
            ("scale", optional(ValueType::Float), None),
            ("sizes", list(ValueType::Int), None),
        ],
        tensor(),
    );
    let text = refusal(&numbers, &config(&["x", "k", "scale", "sizes"], &["y"]));
    for part in [
        "input 'k' is int: make it {datatype: INT64, dims: [1], unbatched: true}",
        "input 'scale' is float: make it {datatype: FP32, dims: [1], unbatched: true}",
        "input 'sizes' is List[int]: make it {datatype: INT64, dims: [-1], unbatched: true}",
    ] {
        assert!(text.contains(part), "{text}");
    }
    let mut right = config(&["x", "k", "scale", "sizes"], &["y"]);
    let number = |name: &str, datatype, dims: &[i64]| TensorSpec {
        unbatched: true,
        ..TensorSpec::new(name, datatype, dims)
    };
    right.input[1] = number("k", DataType::Int32, &[1]);
    right.input[2] = number("scale", DataType::Fp64, &[1]);
    right.input[3] = number("sizes", DataType::Int64, &[-1]);
    assert_eq!(Binding::of(&numbers, &right).unwrap().plain, [1, 2, 3]);
}

#[test]
fn a_dictionary_of_texts_is_the_requests_parameters_and_no_input() {
    let texts = || ValueType::Dict {
        value: Box::new(ValueType::Other("str".into())),
        keys: vec!["scale".into()],
    };
    let asking = |names: &[&str]| ModelConfig {
        request_parameters: Some(mesh_types::RequestParameters::default()),
        ..config(names, &["y"])
    };
    let between = signature(
        &[("a", tensor(), None), ("given", texts(), None), ("b", tensor(), None)],
        tensor(),
    );
    let expected = [Source::Input(0), Source::Parameters, Source::Input(1)];
    // By names, by places (of all arguments), and in order (of those that inputs stand for).
    for names in [["a", "b"], ["X__0", "X__2"], ["one", "two"]] {
        assert_eq!(
            Binding::of(&between, &asking(&names)).unwrap().arguments,
            expected,
            "{names:?}"
        );
    }
    let beside = signature(&[("given", texts(), None), ("all", dict(&["h"]), None)], tensor());
    let keyed = Source::Dict(vec![("h".into(), Source::Input(0))]);
    assert_eq!(
        Binding::of(&beside, &asking(&["h"])).unwrap().arguments,
        [Source::Parameters, keyed]
    );
    let text = refusal(&between, &config(&["a", "b"], &["y"]));
    assert!(
        text.contains("argument 'given' (Dict[str, str]) is the request's parameters: add request_parameters: {}"),
        "{text}"
    );
    let text = refusal(&between, &asking(&["X__0", "X__1"]));
    assert!(
        text.contains("input 'X__1' is argument 'given'") && text.contains("no input"),
        "{text}"
    );
    assert!(refusal(&between, &asking(&["a", "b", "c"])).contains("3 inputs for 2 arguments"));
    let maybe = signature(
        &[("x", tensor(), None), ("given", optional(texts()), Some("None"))],
        tensor(),
    );
    let bound = |config| Binding::of(&maybe, &config).unwrap().arguments;
    assert_eq!(bound(config(&["x"], &["y"])), [Source::Input(0), Source::Absent]);
    assert_eq!(bound(asking(&["x"])), [Source::Input(0), Source::Parameters]);
    let without = signature(&[("x", tensor(), None)], tensor());
    assert!(refusal(&without, &asking(&["x"])).contains("an argument of type Dict[str, str], and there is none"));
}

#[test]
fn an_argument_that_no_tensor_can_be_needs_a_default() {
    let other = ValueType::Other("Device".into());
    let without = signature(&[("x", tensor(), None), ("on", other.clone(), None)], tensor());
    let text = refusal(&without, &config(&["x"], &["y"]));
    assert!(
        text.contains("argument 'on' is Device, which no input can be, and has no default"),
        "{text}"
    );
    let with = signature(&[("x", tensor(), None), ("on", other, Some("cpu"))], tensor());
    assert!(Binding::of(&with, &config(&["x"], &["y"])).is_ok());
}

#[test]
fn extents_and_types_that_a_file_says_are_kept_to() {
    let built = ValueType::Tensor {
        datatype: Some(DataType::Fp32),
        dims: Some(vec![-1, 30]),
    };
    let mut built = signature(&[("x", built, None)], tensor());
    let mut wanted = config(&["x"], &["y"]);
    assert!(refusal(&built, &wanted).contains("input 'x' has dims [2], the model takes [30]"));
    wanted.input[0].dims = vec![-1];
    assert!(
        refusal(&built, &wanted).contains("the model takes [30]"),
        "any extent is more than it takes"
    );
    wanted.input[0].dims = vec![30];
    assert!(Binding::of(&built, &wanted).is_ok());
    built.max_rows = Some(8);
    assert!(Binding::of(&built, &wanted).is_ok());
    built.max_rows = Some(7);
    assert!(refusal(&built, &wanted).contains("max_batch_size is 8, but the model takes at most 7 rows"));
    wanted.input[0].datatype = DataType::Fp16;
    assert!(refusal(&built, &wanted).contains("input 'x' is FP16, the model takes FP32"));
}

#[test]
fn outputs_are_found_by_key_by_place_and_by_order() {
    let found = |result: ValueType, outputs: &[&str]| {
        Binding::of(&signature(&[("x", tensor(), None)], result), &config(&["x"], outputs)).map(|bound| bound.results)
    };
    let at = |index| vec![Step::Index(index)];
    let key = |key: &str| Step::Key(key.to_owned());
    assert_eq!(found(tensor(), &["any"]).unwrap(), [vec![]]);
    assert_eq!(
        found(dict(&["p", "q"]), &["q", "p"]).unwrap(),
        [vec![key("q")], vec![key("p")]]
    );
    let pair = ValueType::Tuple(vec![tensor(), tensor()]);
    assert_eq!(
        found(pair.clone(), &["OUTPUT__1", "OUTPUT__0"]).unwrap(),
        [at(1), at(0)]
    );
    assert_eq!(found(pair.clone(), &["sum", "difference"]).unwrap(), [at(0), at(1)]);
    assert_eq!(
        found(pair.clone(), &["first"]).unwrap(),
        [at(0)],
        "fewer than there are"
    );
    assert_eq!(found(list(tensor()), &["a", "b"]).unwrap(), [at(0), at(1)]);
    let nested = ValueType::Tuple(vec![tensor(), dict(&["h"])]);
    assert_eq!(
        found(nested.clone(), &["OUTPUT__0", "OUTPUT__1.h"]).unwrap(),
        [at(0), vec![Step::Index(1), key("h")]]
    );
    assert_eq!(
        found(nested, &["y", "hidden"]).unwrap(),
        [at(0), vec![Step::Index(1), key("h")]]
    );
    let text = found(pair, &["a", "b", "c"]).unwrap_err().to_string();
    assert!(
        text.contains("returns 2 tensors, the configuration has 3 outputs"),
        "{text}"
    );
    let text = found(tensor(), &["a", "b"]).unwrap_err().to_string();
    assert!(
        text.contains("returns 1 tensor, the configuration has 2 outputs"),
        "{text}"
    );
}

#[test]
fn a_result_is_one_output_and_what_no_output_can_be_is_said() {
    let refused = |result: ValueType, outputs: &[&str]| {
        refusal(&signature(&[("x", tensor(), None)], result), &config(&["x"], outputs))
    };
    let pair = ValueType::Tuple(vec![tensor(), tensor()]);
    let text = refused(pair, &["a__1", "b__1"]);
    assert!(
        text.contains("output 'b__1' is a result that another output is as well"),
        "{text}"
    );
    let text = refused(dict(&["p"]), &["p", "p"]);
    assert!(
        text.contains("output 'p' is a result that another output is as well"),
        "{text}"
    );
    for other in ["NoneType", "Dict[int, Tensor]"] {
        let text = refused(ValueType::Other(other.into()), &["y"]);
        assert!(
            text.contains(&format!(
                "forward returns {other}, which no output can be: return tensors"
            )),
            "{text}"
        );
    }
    let texts = ValueType::Dict {
        value: Box::new(ValueType::Other("str".into())),
        keys: Vec::new(),
    };
    assert!(refused(texts, &["y"]).contains("forward returns Dict[str, str], which no output can be"));
    let with_text = ValueType::Tuple(vec![tensor(), ValueType::Other("str".into())]);
    let text = refused(with_text.clone(), &["a", "b"]);
    assert!(
        text.contains("returns 1 tensors, the configuration has 2 outputs; they are OUTPUT__0"),
        "{text}"
    );
    assert!(Binding::of(&signature(&[("x", tensor(), None)], with_text), &config(&["x"], &["a"])).is_ok());
}
