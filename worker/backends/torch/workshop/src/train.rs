//! Trains the demo's two classifiers and writes them as TorchScript with softmax probabilities.
//!
//! Version 1 is a linear softmax, version 2 a small convolutional net. Seeds, split and thread count are fixed, so the same
//! machine makes the same models.

use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use tch::{
    CModule, Device, Kind, Tensor,
    nn::{self, Module, OptimizerConfig},
};

use crate::digits::{self, Digits};

const SEED: i64 = 20;
const CLASSES: i64 = 10;
const BATCH: i64 = 64;

/// What was made.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) trained_on: usize,
    pub(crate) held_out: usize,
    pub(crate) accuracy_v1: f64,
    pub(crate) accuracy_v2: f64,
}

#[derive(Debug, Serialize)]
struct HeldOut<'a> {
    pixels: Vec<&'a [f32]>,
    labels: &'a [i64],
}

/// Trains both and writes everything to `out`.
pub(crate) fn run(data: &Path, out: &Path) -> anyhow::Result<()> {
    let report = train(data, out)?;
    #[expect(clippy::print_stdout, reason = "the command's answer")]
    {
        println!(
            "digits: {} for training, {} held out",
            report.trained_on, report.held_out
        );
        println!(
            "v1, linear softmax:      {:.1} % of the held-out digits right",
            report.accuracy_v1 * 100.0
        );
        println!(
            "v2, convolutional net:   {:.1} % of the held-out digits right",
            report.accuracy_v2 * 100.0
        );
    }
    Ok(())
}

pub(crate) fn train(data: &Path, out: &Path) -> anyhow::Result<Report> {
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    tch::manual_seed(SEED);
    tch::set_num_threads(1);
    let (training, held_out) = digits::read(data)?;
    let mut linear_variables = nn::VarStore::new(Device::Cpu);
    let linear = linear_net(&linear_variables.root());
    fit(
        &linear_variables,
        &linear,
        &training,
        Schedule { epochs: 25, rate: 5e-3 },
    )?;
    let mut conv_variables = nn::VarStore::new(Device::Cpu);
    let conv = conv_net(&conv_variables.root());
    fit(&conv_variables, &conv, &training, Schedule { epochs: 18, rate: 2e-3 })?;
    // A trace keeps weights as constants, and takes only those that want no gradient.
    linear_variables.freeze();
    conv_variables.freeze();
    let accuracy_v1 = export(&linear, &held_out, &out.join("v1.pt"))?;
    let accuracy_v2 = export(&conv, &held_out, &out.join("v2.pt"))?;
    let report = Report {
        trained_on: training.len(),
        held_out: held_out.len(),
        accuracy_v1,
        accuracy_v2,
    };
    let images = HeldOut {
        pixels: held_out.pixels.chunks_exact(digits::PIXELS).collect(),
        labels: &held_out.labels,
    };
    std::fs::write(out.join("heldout.json"), serde_json::to_vec(&images)?)?;
    // Last: a report on disk says that everything else is.
    std::fs::write(out.join("report.json"), serde_json::to_vec_pretty(&report)?)?;
    Ok(report)
}

/// Pixels 0 to 16 to -1 to 1.
fn normalised(pixels: &Tensor) -> Tensor {
    pixels / 8.0 - 1.0
}

fn linear_net(root: &nn::Path<'_>) -> nn::Sequential {
    nn::seq()
        .add_fn(normalised)
        .add(nn::linear(root / "linear", 64, CLASSES, nn::LinearConfig::default()))
}

fn conv_net(root: &nn::Path<'_>) -> nn::Sequential {
    let same = nn::ConvConfig {
        padding: 1,
        ..nn::ConvConfig::default()
    };
    nn::seq()
        .add_fn(|pixels| normalised(pixels).view([-1, 1, 8, 8]))
        .add(nn::conv2d(root / "conv1", 1, 16, 3, same))
        .add_fn(Tensor::relu)
        .add(nn::conv2d(root / "conv2", 16, 32, 3, same))
        .add_fn(|features| features.relu().max_pool2d_default(2).flatten(1, -1))
        .add(nn::linear(root / "hidden", 32 * 4 * 4, 64, nn::LinearConfig::default()))
        .add_fn(Tensor::relu)
        .add(nn::linear(root / "out", 64, CLASSES, nn::LinearConfig::default()))
}

#[derive(Debug, Clone, Copy)]
struct Schedule {
    epochs: i64,
    rate: f64,
}

fn fit(variables: &nn::VarStore, net: &nn::Sequential, training: &Digits, schedule: Schedule) -> anyhow::Result<()> {
    let (images, targets) = (training.images(), training.targets());
    let mut optimizer = nn::Adam::default().build(variables, schedule.rate)?;
    let count = i64::try_from(training.len())?;
    for epoch in 0..schedule.epochs {
        if epoch == schedule.epochs * 2 / 3 {
            optimizer.set_lr(schedule.rate / 5.0);
        }
        let order = Tensor::randperm(count, (Kind::Int64, Device::Cpu));
        let mut start = 0;
        while start < count {
            let chosen = order.narrow(0, start, BATCH.min(count - start));
            let logits = net.forward(&images.index_select(0, &chosen));
            optimizer.backward_step(&logits.cross_entropy_for_logits(&targets.index_select(0, &chosen)));
            start += BATCH;
        }
    }
    Ok(())
}

/// Writes the net with a softmax behind it; returns the accuracy of the file as written, read back.
fn export(net: &nn::Sequential, held_out: &Digits, path: &Path) -> anyhow::Result<f64> {
    let images = held_out.images();
    let _no_grad = tch::no_grad_guard();
    let example = [images.narrow(0, 0, 2)];
    let mut forward = |inputs: &[Tensor]| {
        inputs
            .iter()
            .map(|pixels| net.forward(pixels).softmax(-1, Kind::Float))
            .collect()
    };
    CModule::create_by_tracing("DigitClassifier", "forward", &example, &mut forward)?.save(path)?;
    let read_back = CModule::load(path)?;
    let guesses = read_back.forward_ts(&[images])?.argmax(-1, false);
    let right = guesses
        .eq_tensor(&held_out.targets())
        .to_kind(Kind::Double)
        .mean(Kind::Double);
    Ok(right.double_value(&[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_read_held_out_digits_and_the_second_better() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../../tests/data/digits.csv.gz");
        let folder = tempfile::tempdir().unwrap();
        let report = train(&data, folder.path()).unwrap();
        assert!(report.accuracy_v1 >= 0.93, "{report:?}");
        assert!(report.accuracy_v2 >= 0.96, "{report:?}");
        assert!(report.accuracy_v2 > report.accuracy_v1, "{report:?}");
        for file in ["v1.pt", "v2.pt", "heldout.json", "report.json"] {
            assert!(folder.path().join(file).exists(), "{file}");
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = train(Path::new("no-such-digits.csv.gz"), &std::env::temp_dir()).unwrap_err();
        assert!(error.to_string().contains("no-such-digits.csv.gz"), "{error}");
    }
}
