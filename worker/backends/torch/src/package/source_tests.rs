//! Sources in AOTInductor's words, and what is read out of them.

use super::*;
use crate::package::extents::Dimension;

const CALL: &str = r#"    in_spec_ = R"([1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", "context": "null", "children_spec": [{"type": null, "context": null, "children_spec": []}]}, {"type": "builtins.dict", "context": "[]", "children_spec": []}]}])";
    out_spec_ = R"([1, {"type": null, "context": null, "children_spec": []}])";
    : AOTInductorModelBase(1,
                           1,
                           0,
                           device_str,
                           std::move(cubin_dir),
                           true) {
    inputs_info_[0].name = "a";
    int64_t s0 = a_size[0];
"#;

fn check(conditions: &[&str]) -> String {
    let lines: String = conditions
        .iter()
        .map(|condition| format!("    if ({condition}) {{\n        throw 1;\n    }}\n"))
        .collect();
    format!(
        "AOTI_NOINLINE static void check_input_0(\n    AtenTensorHandle* input_handles\n) {{\n        ss << \"expected: \" << \
         d << \"(at::kFloat), \"\n{lines}}}\n\nstatic bool _check_aoti_runtime_check_inputs_env() {{\n    if (9 != a_size[7]) {{}}\n"
    )
}

fn contract(conditions: &[&str]) -> Result<Contract, String> {
    read(&format!("{CALL}{}", check(conditions))).map_err(|error| error.to_string())
}

fn extent(least: i64, most: i64, dimension: Dimension) -> Extent {
    Extent { least, most, dimension }
}

#[test]
fn types_extents_and_rows_are_read() {
    let usual = [
        "a_size[0] < 2",
        "a_size[0] > 1024",
        "30 != a_size[1]",
        "30 != a_stride[0]",
        "1 != a_stride[1]",
    ];
    let found = contract(&usual).unwrap();
    assert_eq!(
        found.signature.to_string(),
        "forward(INPUT__0: Tensor FP32 [-1, 30]) -> Tensor"
    );
    assert_eq!(found.signature.max_rows, Some(1_024));
    assert_eq!(
        found.inputs,
        [[extent(2, 1_024, Dimension::Own(1)), extent(30, 30, Dimension::Shared)]]
    );
}

#[test]
fn an_extent_without_bounds_is_known_by_its_stride() {
    let found = contract(&["a_size[0] < 3", "1 != a_stride[1]"]).unwrap();
    assert_eq!(found.signature.arguments[0].value.to_string(), "Tensor FP32 [-1, -1]");
    assert_eq!(found.signature.max_rows, None);
    assert_eq!(found.inputs, [[extent(3, i64::MAX, Dimension::Own(1)), Extent::ANY]]);
}

#[test]
fn an_extent_that_is_an_expression_has_a_dimension_only_where_it_is_a_multiple() {
    let conditions = ["a_size[0] < 64", "a_size[0] > 256", "1 != a_stride[0]"];
    let of = |solved: &str| {
        let solved = format!("int64_t a_size_0 = a_size[0];\n    int64_t s0 = {solved};");
        let text = format!("{CALL}{}", check(&conditions)).replace("int64_t s0 = a_size[0];", &solved);
        read(&text).unwrap().inputs[0][0].dimension
    };
    assert_eq!(of("(1.0/32.0)*a_size_0"), Dimension::Own(32));
    assert_eq!(of("(1.0/32.0)*a_size_0 - 1.0"), Dimension::Shared);
    assert_eq!(of("(-1L) + a_size_0"), Dimension::Shared);
}

#[test]
fn another_layout_is_refused() {
    let refused = |conditions: &[&str]| {
        let text = contract(conditions).unwrap_err();
        assert!(text.contains("do not lie one behind the other"), "{text}");
    };
    let dynamic = ["a_size[0] < 2", "a_size[1] < 2", "1 != a_stride[1]"];
    assert!(
        contract(&dynamic).is_ok(),
        "beside a dynamic extent a stride is no number"
    );
    refused(&["a_size[0] < 2", "30 != a_size[1]", "1 != a_stride[0]"]);
    refused(&[
        "4 != a_size[0]",
        "30 != a_size[1]",
        "1 != a_stride[0]",
        "4 != a_stride[1]",
    ]);
    // Columns behind each other, of which only the one stride that is a number is checked.
    refused(&["a_size[0] < 2", "a_size[1] < 2", "1 != a_stride[0]"]);
    // Rows out of a wider tensor: the stride is a number, though the extent behind it is not.
    refused(&[
        "a_size[0] < 2",
        "a_size[1] < 2",
        "64 != a_stride[0]",
        "1 != a_stride[1]",
    ]);
    let one = [
        "a_size[0] < 2",
        "1 != a_size[1]",
        "1 != a_stride[0]",
        "7 != a_stride[1]",
    ];
    assert!(contract(&one).is_ok(), "nobody steps over a single element");
    let wider = format!("{CALL}    int64_t s1 = a_stride[0];\n{}", check(&dynamic));
    let text = read(&wider).unwrap_err().to_string();
    assert!(text.contains("do not lie one behind the other"), "{text}");
}

#[test]
fn constants_that_the_library_does_not_hold_are_counted() {
    let outside = CALL.replace(
        "                           true) {",
        "                           false) {",
    );
    let constants = concat!(
        "    constants_info_[0].data_size = 7680;\n    constants_info_[0].from_folded = false;\n",
        "    constants_info_[1].data_size = 64;\n    constants_info_[1].from_folded = true;\n",
        "    constants_info_[2].data_size = 256;\n    constants_info_[2].from_folded = false;\n",
    );
    let weights = |call: &str| {
        read(&format!(
            "{call}{constants}{}",
            check(&["3 != a_size[0]", "1 != a_stride[0]"])
        ))
    };
    assert_eq!(weights(CALL).unwrap().weights_outside, 0);
    assert_eq!(weights(&outside).unwrap().weights_outside, 7_680 + 256);
    let text = weights(&CALL.replace("true) {", "0) {")).unwrap_err().to_string();
    assert!(text.contains("not where its weights are"), "{text}");
}

#[test]
fn a_source_that_says_too_little_is_refused() {
    assert!(read(CALL).unwrap_err().to_string().contains("no checks of inputs"));
    assert!(
        read(&format!("inputs_info_[0].name = \"a\";{}", check(&["3 != a_size[0]"])))
            .unwrap_err()
            .to_string()
            .contains("no specification")
    );
    let nameless = format!("{CALL}{}", check(&["3 != a_size[0]"])).replace("inputs_info_", "");
    assert!(
        read(&nameless)
            .unwrap_err()
            .to_string()
            .contains("an input has no name")
    );
    let far = format!("3 != a_size[{MAX_RANK}]");
    assert!(contract(&[&far]).unwrap_err().contains("too many extents"));
    let odd = format!("{CALL}{}", check(&[])).replace("kFloat", "kComplexFloat");
    assert!(read(&odd).unwrap_err().to_string().contains("tensors of ComplexFloat"));
}
