//! Sources in AOTInductor's words, and what is read out of them.

use super::*;

const CALL: &str = r#"    in_spec_ = R"([1, {"type": "builtins.tuple", "context": "null", "children_spec": [{"type": "builtins.tuple", "context": "null", "children_spec": [{"type": null, "context": null, "children_spec": []}]}, {"type": "builtins.dict", "context": "[]", "children_spec": []}]}])";
    out_spec_ = R"([1, {"type": null, "context": null, "children_spec": []}])";
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
    let bounds = &found.bounds[0];
    assert_eq!(bounds.check(&[1, 30]), Ok(()));
    assert_eq!(bounds.check(&[1_024, 30]), Ok(()));
    let text = bounds.check(&[1_025, 30]).unwrap_err();
    assert!(
        text.contains("[1025, 30], the package was compiled for [1 to 1024, 30]"),
        "{text}"
    );
    assert!(bounds.check(&[2, 31]).is_err() && bounds.check(&[2]).is_err());
}

#[test]
fn an_extent_without_bounds_is_known_by_its_stride() {
    let found = contract(&["a_size[0] < 3", "1 != a_stride[1]"]).unwrap();
    assert_eq!(found.signature.arguments[0].value.to_string(), "Tensor FP32 [-1, -1]");
    assert_eq!(found.signature.max_rows, None);
    assert!(found.bounds[0].check(&[3, 77]).is_ok() && found.bounds[0].check(&[2, 77]).is_err());
}

#[test]
fn another_layout_is_refused() {
    let dynamic = ["a_size[0] < 2", "a_size[1] < 2", "1 != a_stride[1]"];
    assert!(
        contract(&dynamic).is_ok(),
        "beside a dynamic extent nothing is known of a stride"
    );
    let columns = ["a_size[0] < 2", "30 != a_size[1]", "1 != a_stride[0]"];
    assert!(
        contract(&columns)
            .unwrap_err()
            .contains("do not lie one behind the other")
    );
    let turned = [
        "4 != a_size[0]",
        "30 != a_size[1]",
        "1 != a_stride[0]",
        "4 != a_stride[1]",
    ];
    assert!(
        contract(&turned)
            .unwrap_err()
            .contains("do not lie one behind the other")
    );
}

#[test]
fn a_source_that_says_too_little_is_refused() {
    assert!(read(CALL).unwrap_err().to_string().contains("no checks of inputs"));
    assert!(
        read(&check(&["3 != a_size[0]"]))
            .unwrap_err()
            .to_string()
            .contains("no specification")
    );
    let far = format!("3 != a_size[{MAX_RANK}]");
    assert!(contract(&[&far]).unwrap_err().contains("too many extents"));
    let odd = format!("{CALL}{}", check(&[])).replace("kFloat", "kComplexFloat");
    assert!(read(&odd).unwrap_err().to_string().contains("tensors of ComplexFloat"));
}
