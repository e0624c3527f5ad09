//! Bytes are handed out without a copy only where nobody else can reach them.

use std::{path::PathBuf, ptr};

use mesh_backend::{BatchInput, BatchInputs, LoadedModel};
use mesh_types::DataType;
use tch::Kind;

use super::*;
use crate::tests::{add_sub_with, load, raw, spec, traced};

/// Columns of one row: large enough that it would be worth keeping.
const WIDE: i64 = 8_192;

fn config(outputs: usize) -> ModelConfig {
    let wide = |name: String| spec(&name, DataType::Fp32, &[WIDE]);
    ModelConfig {
        max_batch_size: 8,
        input: vec![wide("x".into())],
        output: (0..outputs).map(|number| wide(format!("y__{number}"))).collect(),
        ..ModelConfig::default()
    }
}

fn execute(model: &mut dyn LoadedModel, config: &ModelConfig, value: f32) -> Vec<Bytes> {
    let data = raw(&vec![value; 8_192]);
    let batch = BatchInputs {
        rows: 1,
        inputs: vec![BatchInput {
            spec: &config.input[0],
            shape: Shape::from_slice(&[1, 8_192]),
            parts: vec![&data],
        }],
        parameters: None,
    };
    let outputs = model.execute(&batch).unwrap().outputs;
    outputs.into_iter().map(|output| output.data).collect()
}

fn example() -> [Tensor; 1] {
    [Tensor::ones([1, WIDE], (Kind::Float, Device::Cpu))]
}

/// Every execution's bytes are kept while later ones run: none may change what an earlier one gave.
fn stays_as_it_was(path: PathBuf, config: &ModelConfig, expected: fn(f32) -> f32) {
    let mut model = load(Some(path), config.clone()).unwrap();
    let values = [1.0, 2.0, 3.0, 4.0, 5.0];
    let kept: Vec<Vec<Bytes>> = values.map(|value| execute(model.as_mut(), config, value)).into();
    for (value, outputs) in values.iter().zip(&kept) {
        for output in outputs {
            assert_eq!(*output, raw(&vec![expected(*value); 8_192]), "{value}");
        }
    }
    let all: Vec<*const u8> = kept.iter().flatten().map(|bytes| bytes.as_ptr()).collect();
    for (index, one) in all.iter().enumerate() {
        assert!(
            all[index + 1..].iter().all(|other| !ptr::eq(*one, *other)),
            "bytes handed out twice"
        );
    }
    drop(model);
    assert_eq!(
        kept[0][0],
        raw(&vec![expected(1.0); 8_192]),
        "the bytes outlive the model"
    );
}

#[test]
fn a_fresh_result_is_handed_out_as_it_is() {
    let tensor = Tensor::ones([1, WIDE], (Kind::Float, Device::Cpu));
    let address = tensor.data_ptr().cast::<u8>().cast_const();
    let config = config(1);
    let read = read(vec![tensor], &config, 1).unwrap();
    assert!(ptr::eq(read.outputs[0].data.as_ptr(), address), "not copied");
    let (_folder, path) = traced(&example(), &mut |inputs| vec![&inputs[0] * 2.0]);
    stays_as_it_was(path, &config, |value| value * 2.0);
}

#[test]
fn a_result_whose_bytes_do_not_lie_in_order_is_put_in_order_once() {
    let tensor = Tensor::arange(2 * WIDE, (Kind::Float, Device::Cpu))
        .view([WIDE, 2])
        .transpose(0, 1);
    let expected: Vec<f32> = (0..2u16)
        .flat_map(|row| (0..8_192u16).map(move |column| 2.0 * f32::from(column) + f32::from(row)))
        .collect();
    let read = read(vec![tensor], &config(1), 2).unwrap();
    assert_eq!(read.outputs[0].data, raw(&expected));
}

#[test]
fn a_small_result_is_copied() {
    let tensor = Tensor::ones([1, 4], (Kind::Float, Device::Cpu));
    let address = tensor.data_ptr().cast::<u8>().cast_const();
    let mut config = config(1);
    config.output[0].dims = vec![4];
    let read = read(vec![tensor], &config, 1).unwrap();
    assert!(!ptr::eq(read.outputs[0].data.as_ptr(), address));
}

#[test]
fn a_result_that_somebody_else_holds_is_copied() {
    let tensor = Tensor::ones([1, WIDE], (Kind::Float, Device::Cpu));
    let address = tensor.data_ptr().cast::<u8>().cast_const();
    let held = [tensor.shallow_clone(), tensor.view([WIDE, 1])];
    let config = config(1);
    let read = read(vec![tensor], &config, 1).unwrap();
    assert!(!ptr::eq(read.outputs[0].data.as_ptr(), address));
    drop(held);
}

#[test]
fn a_model_that_returns_its_input_gives_a_copy() {
    let (_folder, path) = traced(&example(), &mut |inputs| vec![inputs[0].shallow_clone()]);
    stays_as_it_was(path, &config(1), |value| value);
}

#[test]
fn a_model_that_returns_what_it_holds_gives_a_copy() {
    let code = "    return (CONSTANTS.c0, torch.view(CONSTANTS.c0, [-1, 8192]))\n";
    let (_folder, path) = add_sub_with(&example(), code);
    stays_as_it_was(path, &config(2), |_| 7.0);
}

#[test]
fn a_model_that_returns_two_views_of_one_storage_gives_copies() {
    let code = "    y = torch.mul(a, 3)\n    return (torch.view(y, [-1, 8192]), torch.view(y, [-1, 8192]))\n";
    let (_folder, path) = add_sub_with(&example(), code);
    stays_as_it_was(path, &config(2), |value| value * 3.0);
}

#[test]
fn a_model_that_returns_one_tensor_twice_gives_copies() {
    let code = "    y = torch.mul(a, 3)\n    return (y, y)\n";
    let (_folder, path) = add_sub_with(&example(), code);
    stays_as_it_was(path, &config(2), |value| value * 3.0);
}

#[test]
fn a_model_that_writes_into_its_input_and_returns_it_changes_no_callers_bytes() {
    let (_folder, path) = traced(&example(), &mut |inputs| {
        vec![inputs[0].shallow_clone().g_add_scalar_(1.0)]
    });
    stays_as_it_was(path, &config(1), |value| value + 1.0);
}
