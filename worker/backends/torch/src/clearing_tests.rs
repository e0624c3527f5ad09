//! Whether a model can show memory that another has freed.

use mesh_backend::{BatchInput, BatchInputs, LoadedModel};
use mesh_types::{DataType, ModelConfig, Shape};
use tempfile::TempDir;

use super::{
    TorchBackend, TorchOptions, shim,
    tests::{floats, load, raw, scripted, spec},
};

/// Small enough that its memory comes from what was freed before, and not anew from the system.
const NUMBERS: usize = 4_096;
/// What no model here computes by itself.
const MARK: f32 = 7_777.5;
const TRIES: usize = 200;

fn model(lines: &str) -> (TempDir, Box<dyn LoadedModel>) {
    let (folder, path) = scripted("a: Tensor", "Tensor", lines);
    (folder, load(Some(path), config()).unwrap())
}

fn config() -> ModelConfig {
    let numbers = i64::try_from(NUMBERS).unwrap();
    ModelConfig {
        max_batch_size: 1,
        input: vec![spec("a", DataType::Fp32, &[numbers])],
        output: vec![spec("y", DataType::Fp32, &[numbers])],
        ..ModelConfig::default()
    }
}

fn answer(model: &mut Box<dyn LoadedModel>, value: f32) -> Vec<f32> {
    let (config, bytes) = (config(), raw(&vec![value; NUMBERS]));
    let inputs = vec![BatchInput {
        spec: &config.input[0],
        shape: Shape::from_slice(&[1, NUMBERS as u64]),
        parts: vec![&bytes],
    }];
    let batch = BatchInputs {
        rows: 1,
        inputs,
        parameters: None,
    };
    let outputs = model.execute(&batch).unwrap().outputs;
    floats(&outputs[0].data)
}

#[test]
fn memory_that_is_cleared_shows_nothing_of_what_another_model_has_freed() {
    let (_one, mut theirs) = model("    return torch.mul(torch.add(a, 0), 1)\n");
    let empty = "    return torch.empty([torch.size(a, 0), torch.size(a, 1)])\n";
    let (_other, mut curious) = model(empty);
    let mut kept = Vec::new();
    let mut shown = || {
        // Or each try would find the allocator as the last one did, and whether any shows something would be one throw of a die.
        kept.push(vec![0_u8; kept.len() % 8 * 1_024]);
        assert_eq!(answer(&mut theirs, MARK)[0], MARK);
        answer(&mut curious, 0.0)
    };
    // As libtorch is: what this is about.
    assert!((0..TRIES).any(|_| shown().contains(&MARK)));
    devices_show_nothing();
    assert!((0..TRIES).any(|_| shown().contains(&MARK)), "as it was");
    let options = TorchOptions {
        clear_memory: true,
        ..TorchOptions::default()
    };
    drop(TorchBackend::new(options));
    for _ in 0..TRIES {
        assert!(shown().iter().all(|number| *number == 0.0));
    }
}

/// The way of devices, taken for the host's memory, where what it would show is known: all but that CUDA's memory is another is the same.
fn devices_show_nothing() {
    let (_one, mut theirs) = model("    return torch.mul(torch.add(a, 0), 1)\n");
    let curious = [
        "    return torch.empty([torch.size(a, 0), torch.size(a, 1)])\n",
        "    return torch.empty_strided([torch.size(a, 0), torch.size(a, 1)], [torch.size(a, 1), 1])\n",
        "    return torch.empty_like(a)\n",
        "    return torch.resize_(torch.empty([0]), [torch.size(a, 0), torch.size(a, 1)])\n",
    ];
    let mut curious: Vec<_> = curious.map(model).into();
    let mut shown = |(_, model): &mut (TempDir, Box<dyn LoadedModel>)| {
        assert_eq!(answer(&mut theirs, MARK)[0], MARK);
        answer(model, 0.0)
    };
    for (index, model) in curious.iter_mut().enumerate() {
        assert!(
            (0..TRIES).any(|_| shown(model).contains(&MARK)),
            "{index} shows nothing anyway"
        );
    }
    shim::watch_devices();
    shim::clear_devices(false, true);
    for (index, model) in curious.iter_mut().enumerate() {
        for _ in 0..TRIES {
            assert!(shown(model).iter().all(|number| *number == 0.0), "{index}");
        }
    }
    shim::clear_devices(false, false);
}
