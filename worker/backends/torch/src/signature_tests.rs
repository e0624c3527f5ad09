//! Signatures of real modules, and calls with everything that a signature may hold.

use std::path::PathBuf;

use mesh_backend::{BatchInput, BatchInputs};
use mesh_types::{DataType, ModelConfig, ModelParameters, RequestParameters, Shape, TensorSpec};
use tempfile::TempDir;

use super::*;
use crate::tests::{floats, load, raw, scripted, spec};

fn unbatched(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    TensorSpec {
        unbatched: true,
        ..spec(name, datatype, dims)
    }
}

fn config(input: Vec<TensorSpec>, outputs: &[&str]) -> ModelConfig {
    ModelConfig {
        max_batch_size: 4,
        input,
        output: outputs.iter().map(|name| spec(name, DataType::Fp32, &[2])).collect(),
        ..ModelConfig::default()
    }
}

/// One row `[1, 2]` for each input of two numbers, the bytes given for the others; none leaves it out.
fn run(model: &mut dyn LoadedModel, config: &ModelConfig, data: &[Option<Vec<u8>>]) -> Result<Vec<Vec<f32>>, String> {
    let inputs = config.input.iter().zip(data).map(|(spec, data)| match data {
        None => BatchInput::absent(spec),
        Some(data) => {
            let rows = config.has_rows(spec).then_some(1);
            let size = data.len() / spec.datatype.element_bytes().unwrap();
            let extents = if spec.dims.is_empty() {
                vec![]
            } else {
                vec![u64::try_from(size).unwrap()]
            };
            BatchInput {
                spec,
                shape: rows.into_iter().chain(extents).collect::<Shape>(),
                parts: vec![data],
            }
        }
    });
    let batch = BatchInputs {
        rows: 1,
        inputs: inputs.collect(),
        parameters: None,
    };
    let outputs = model.execute(&batch).map_err(|error| error.to_string())?.outputs;
    Ok(outputs.iter().map(|output| floats(&output.data)).collect())
}

fn all_of_it() -> (TempDir, PathBuf) {
    scripted(
        "x: Tensor, scale: float, flag: bool, sizes: List[int], xs: List[Tensor], pair: Tuple[Tensor, Dict[str, Tensor]], \
         mask: Optional[Tensor]=None, k: int=3",
        "Dict[str, Tensor]",
        concat!(
            "    y = torch.add(torch.mul(x, scale), xs[0])\n",
            "    y0 = torch.add(torch.add(y, xs[1]), pair[0])\n",
            "    y1 = torch.add(y0, pair[1][\"h\"])\n",
            "    y2 = torch.add(y1, torch.add(k, sizes[0]))\n",
            "    if flag:\n      y3 = torch.neg(y2)\n    else:\n      y3 = y2\n",
            "    if torch.__isnot__(mask, None):\n      m = unchecked_cast(Tensor, mask)\n      y4 = torch.mul(y3, m)\n",
            "    else:\n      y4 = y3\n",
            "    return {\"y\": y4, \"z\": torch.mul(y4, 10)}\n",
        ),
    )
}

#[test]
fn a_signature_is_read_with_types_defaults_keys_and_lengths() {
    let (_folder, path) = all_of_it();
    let found = signature(&path, ArtifactFormat::TorchScript).unwrap();
    assert_eq!(
        found.to_string(),
        "forward(x: Tensor, scale: float, flag: bool, sizes: List[int], xs: List[Tensor], pair: Tuple[Tensor, Dict[str, \
         Tensor]], mask: Optional[Tensor] = None, k: int = 3) -> Dict[str, Tensor]"
    );
    let leaves: Vec<String> = found
        .arguments
        .iter()
        .flat_map(|argument| argument.value.leaves(&argument.name))
        .map(|(name, _)| name)
        .collect();
    let expected = [
        "x",
        "scale",
        "flag",
        "sizes",
        "xs__0",
        "xs__1",
        "pair__0",
        "pair__1.KEY",
        "mask",
        "k",
    ];
    assert_eq!(leaves, expected);
    let outputs: Vec<String> = found.result.leaves("").into_iter().map(|(name, _)| name).collect();
    assert_eq!(outputs, ["y", "z"]);
}

#[test]
fn numbers_containers_and_optional_inputs_reach_the_module() {
    let (_folder, path) = all_of_it();
    let optional = |spec: TensorSpec| TensorSpec { optional: true, ..spec };
    let pair = |name: &str| spec(name, DataType::Fp32, &[2]);
    let inputs = vec![
        pair("x"),
        unbatched("scale", DataType::Fp32, &[1]),
        unbatched("flag", DataType::Bool, &[1]),
        unbatched("sizes", DataType::Int64, &[-1]),
        pair("xs__0"),
        pair("xs__1"),
        pair("pair__0"),
        pair("pair__1.h"),
        optional(pair("mask")),
        optional(unbatched("k", DataType::Int32, &[1])),
    ];
    let config = config(inputs, &["z", "y"]);
    let mut model = load(Some(path), config.clone()).unwrap();
    let row = || Some(raw(&[1.0, 2.0]));
    let whole = |values: &[i64]| Some(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>());
    let mut data = vec![
        row(),
        Some(raw(&[0.5])),
        Some(vec![0]),
        whole(&[100, 7]),
        row(),
        row(),
        row(),
        row(),
        None,
        None,
    ];
    // x/2 and four times as much again, 100 of the sizes, and 3 by default.
    assert_eq!(
        run(model.as_mut(), &config, &data).unwrap(),
        [[1_075.0, 1_120.0], [107.5, 112.0]]
    );
    (data[2], data[8], data[9]) = (Some(vec![1]), row(), Some(5i32.to_le_bytes().to_vec()));
    assert_eq!(
        run(model.as_mut(), &config, &data).unwrap(),
        [[-1_095.0, -2_280.0], [-109.5, -228.0]]
    );
    data[0] = None;
    let refused = run(model.as_mut(), &config, &data).unwrap_err();
    assert!(refused.contains("forward"), "{refused}");
    data[0] = row();
    assert!(run(model.as_mut(), &config, &data).is_ok(), "usable after an error");
}

#[test]
fn a_configuration_that_does_not_fit_is_refused_with_what_would_be_right() {
    let (_folder, path) = all_of_it();
    let wrong = config(
        vec![spec("x", DataType::Fp32, &[2]), spec("scale", DataType::Fp32, &[1])],
        &["y"],
    );
    let text = load(Some(path), wrong).err().unwrap().to_string();
    for part in [
        "does not fit forward(x: Tensor, scale: float",
        "input 'scale' is float: make it {datatype: FP32, dims: [1], unbatched: true}",
        "argument 'flag' (bool) has no input; add 'flag'",
        "argument 'xs' (List[Tensor]) has no input; add 'xs__0', 'xs__1'",
        "add 'pair__0', 'pair__1.KEY'",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    assert!(
        !text.contains("'mask'") && !text.contains("'k'"),
        "these may be left out: {text}"
    );
}

#[test]
fn nested_results_and_numbers_come_out_and_none_is_named() {
    let (_folder, path) = scripted(
        "x: Tensor",
        "Tuple[Tensor, Dict[str, Tensor], List[Tensor]]",
        "    return (x, {\"h\": torch.mul(x, 2)}, [torch.mul(x, 3), torch.mul(x, 4)])\n",
    );
    let x = || vec![spec("x", DataType::Fp32, &[2])];
    let data = [Some(raw(&[1.0, 2.0]))];
    for names in [
        ["OUTPUT__0", "OUTPUT__1.h", "OUTPUT__2__1"],
        ["y__0", "y__1.h", "y__2__1"],
    ] {
        let config = config(x(), &names);
        let mut model = load(Some(path.clone()), config.clone()).unwrap();
        let expected = [[1.0, 2.0], [2.0, 4.0], [4.0, 8.0]];
        assert_eq!(run(model.as_mut(), &config, &data).unwrap(), expected);
    }
    let all = config(x(), &["a", "b", "c", "d"]);
    let mut model = load(Some(path), all.clone()).unwrap();
    assert_eq!(run(model.as_mut(), &all, &data).unwrap().len(), 4, "in order");

    let (_folder, path) = scripted(
        "x: Tensor",
        "Tuple[Tensor, Optional[Tensor]]",
        "    if torch.gt(torch.size(x, 0), 1):\n      y = annotate(Optional[Tensor], x)\n    else:\n      y = annotate(Optional[Tensor], None)\n    return (x, y)\n",
    );
    let both = config(x(), &["first", "second"]);
    let mut model = load(Some(path), both.clone()).unwrap();
    let refused = run(model.as_mut(), &both, &data).unwrap_err();
    assert!(refused.contains("'second': the model returns none"), "{refused}");

    let (_folder, path) = scripted("x: Tensor", "Tuple[Tensor, float]", "    return (x, 2.5)\n");
    let mut numbers = config(x(), &["y", "number"]);
    numbers.max_batch_size = 0;
    numbers.output[1] = spec("number", DataType::Fp64, &[1]);
    let mut model = load(Some(path), numbers.clone()).unwrap();
    let batch = BatchInputs {
        rows: 1,
        inputs: vec![BatchInput {
            spec: &numbers.input[0],
            shape: Shape::from_slice(&[2]),
            parts: vec![data[0].as_deref().unwrap()],
        }],
        parameters: None,
    };
    let outputs = model.execute(&batch).unwrap().outputs;
    assert_eq!(outputs[1].data.as_ref(), 2.5f64.to_le_bytes());
}

/// Scales by the parameter `scale` if it is there, and adds the length of `note`.
const SCALING: &str = concat!(
    "    if torch.__contains__(given, \"scale\"):\n      y = torch.mul(x, float(given[\"scale\"]))\n    else:\n      y = x\n",
    "    if torch.__contains__(given, \"note\"):\n      z = torch.add(y, torch.len(given[\"note\"]))\n    else:\n      z = y\n",
    "    return z\n",
);

fn said(texts: &[(&str, &str)]) -> ModelParameters {
    let texts = texts
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    texts.collect::<std::collections::BTreeMap<_, _>>().into()
}

fn one_row(
    model: &mut dyn LoadedModel,
    config: &ModelConfig,
    parameters: Option<&ModelParameters>,
) -> Result<Vec<f32>, String> {
    let data = raw(&[1.0, 2.0]);
    let batch = BatchInputs {
        rows: 1,
        inputs: vec![BatchInput {
            spec: &config.input[0],
            shape: Shape::from_slice(&[1, 2]),
            parts: vec![&data],
        }],
        parameters,
    };
    let outputs = model.execute(&batch).map_err(|error| error.to_string())?.outputs;
    Ok(floats(&outputs[0].data))
}

#[test]
fn parameters_reach_an_argument_that_is_a_dictionary_of_texts() {
    let (_folder, path) = scripted("x: Tensor, given: Dict[str, str]", "Tensor", SCALING);
    let found = signature(&path, ArtifactFormat::TorchScript).unwrap();
    assert_eq!(found.to_string(), "forward(x: Tensor, given: Dict[str, str]) -> Tensor");
    assert!(found.arguments[1].value.is_parameters());
    let mut with = config(vec![spec("x", DataType::Fp32, &[2])], &["y"]);
    let refused = load(Some(path.clone()), with.clone()).err().unwrap().to_string();
    assert!(refused.contains("add request_parameters: {}"), "{refused}");
    with.request_parameters = Some(RequestParameters {
        names: Vec::new(),
        defaults: [("scale".to_owned(), "10".to_owned())].into(),
    });
    let mut model = load(Some(path.clone()), with.clone()).unwrap();
    // Before and after the file was put into another form.
    for _ in 0..2 {
        let mut ask = |texts: &[(&str, &str)]| one_row(model.as_mut(), &with, Some(&said(texts)));
        assert_eq!(ask(&[("scale", "2.5")]).unwrap(), [2.5, 5.0]);
        // A text is its bytes, with a zero among them, and counted by letters where the module does so.
        assert_eq!(ask(&[("note", "a\0b"), ("scale", "1")]).unwrap(), [4.0, 5.0]);
        assert_eq!(ask(&[]).unwrap(), [1.0, 2.0]);
        let refused = ask(&[("scale", "much")]).unwrap_err();
        assert!(refused.contains("model execution failed"), "{refused}");
        assert_eq!(
            one_row(model.as_mut(), &with, None).unwrap(),
            [10.0, 20.0],
            "the defaults"
        );
        let (shape, data) = (Shape::from_slice(&[1, 2]), raw(&[1.0, 2.0]));
        let sample = BatchInputs {
            rows: 1,
            inputs: vec![BatchInput {
                spec: &with.input[0],
                shape,
                parts: vec![&data],
            }],
            parameters: None,
        };
        model.optimize(&[sample], &mesh_types::SystemClock);
    }
    let outputs = probe(&path, ArtifactFormat::TorchScript, &with, &TorchOptions::default()).unwrap();
    assert_eq!(outputs[0].dims, [2]);
}

#[test]
fn parameters_that_may_be_none_are_none_where_there_are_none() {
    let (_folder, path) = scripted(
        "x: Tensor, given: Optional[Dict[str, str]]=None",
        "Tensor",
        concat!(
            "    if torch.__isnot__(given, None):\n      g = unchecked_cast(Dict[str, str], given)\n",
            "      y = torch.add(x, torch.len(g))\n",
            "    else:\n      y = torch.neg(x)\n",
            "    return y\n",
        ),
    );
    let mut with = config(vec![spec("x", DataType::Fp32, &[2])], &["y"]);
    let mut plain = load(Some(path.clone()), with.clone()).unwrap();
    assert_eq!(one_row(plain.as_mut(), &with, None).unwrap(), [-1.0, -2.0]);
    with.request_parameters = Some(RequestParameters::default());
    let mut model = load(Some(path), with.clone()).unwrap();
    assert_eq!(one_row(model.as_mut(), &with, None).unwrap(), [-1.0, -2.0]);
    let two = said(&[("a", "1"), ("b", "2")]);
    assert_eq!(one_row(model.as_mut(), &with, Some(&two)).unwrap(), [3.0, 4.0]);
}

#[test]
fn the_keys_of_a_lone_dictionary_are_the_inputs_and_a_left_out_key_is_not_there() {
    let (_folder, path) = scripted(
        "d: Dict[str, Tensor]",
        "Dict[str, Tensor]",
        concat!(
            "    x = d[\"x\"]\n",
            "    if torch.__contains__(d, \"bias\"):\n      y = torch.add(x, d[\"bias\"])\n    else:\n      y = x\n",
            "    return {\"y\": y}\n",
        ),
    );
    let bias = TensorSpec {
        optional: true,
        ..spec("bias", DataType::Fp32, &[2])
    };
    let config = config(vec![spec("x", DataType::Fp32, &[2]), bias], &["y"]);
    let mut model = load(Some(path), config.clone()).unwrap();
    let row = || Some(raw(&[1.0, 2.0]));
    assert_eq!(run(model.as_mut(), &config, &[row(), row()]).unwrap(), [[2.0, 4.0]]);
    assert_eq!(run(model.as_mut(), &config, &[row(), None]).unwrap(), [[1.0, 2.0]]);
}

#[test]
fn a_list_that_is_appended_to_has_no_length_and_lists_of_truth_values_come_out() {
    let (_folder, path) = scripted(
        "x: Tensor",
        "List[Tensor]",
        concat!(
            "    ys = annotate(List[Tensor], [])\n",
            "    _0 = torch.append(ys, torch.mul(x, 2))\n",
            "    _1 = torch.append(ys, torch.mul(x, 3))\n",
            "    return ys\n",
        ),
    );
    let both = config(vec![spec("x", DataType::Fp32, &[2])], &["a", "b"]);
    let mut model = load(Some(path), both.clone()).unwrap();
    let data = [Some(raw(&[1.0, 2.0]))];
    assert_eq!(run(model.as_mut(), &both, &data).unwrap(), [[2.0, 4.0], [3.0, 6.0]]);

    let (_folder, path) = scripted(
        "x: Tensor",
        "List[bool]",
        "    return [torch.gt(torch.dim(x), 1), torch.gt(torch.dim(x), 5)]\n",
    );
    let mut truths = config(vec![spec("x", DataType::Fp32, &[2])], &["truths"]);
    truths.max_batch_size = 0;
    truths.input[0].dims = vec![1, 2];
    truths.output[0] = spec("truths", DataType::Bool, &[2]);
    let mut model = load(Some(path), truths.clone()).unwrap();
    let batch = BatchInputs {
        rows: 1,
        inputs: vec![BatchInput {
            spec: &truths.input[0],
            shape: Shape::from_slice(&[1, 2]),
            parts: vec![data[0].as_deref().unwrap()],
        }],
        parameters: None,
    };
    assert_eq!(model.execute(&batch).unwrap().outputs[0].data.as_ref(), [1, 0]);
}
