//! The demo's models and the digits they have not seen, made by the workshop once and then reused.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{environment, process, programs::Programs};

/// How the classifiers are called and run.
pub(crate) const MODEL_CONFIG: &str = "\
max_batch_size: 64
input: [{name: pixels, datatype: FP32, dims: [64]}]
output: [{name: probabilities, datatype: FP32, dims: [10]}]
dynamic_batching: {max_queue_delay_microseconds: 500}
";

/// What the workshop left.
#[derive(Debug)]
pub(crate) struct Digits {
    folder: PathBuf,
    held_out: HeldOut,
    report: Report,
}

#[derive(Debug, Deserialize)]
struct HeldOut {
    pixels: Vec<Vec<f32>>,
    labels: Vec<usize>,
}

/// How well the classifiers do on the digits held out.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Report {
    pub(crate) trained_on: usize,
    pub(crate) held_out: usize,
    pub(crate) accuracy_v1: f64,
    pub(crate) accuracy_v2: f64,
}

impl Digits {
    /// Trains the classifiers unless they are there, and says how well they do.
    pub(crate) fn provide(programs: &Programs, folder: &Path) -> anyhow::Result<Self> {
        // The report is written last: where it is, the rest is.
        if folder.join("report.json").is_file() {
            eprintln!("the classifiers are there from before: {}", folder.display());
        } else {
            eprintln!("training two classifiers on handwritten digits");
            let data = environment::root()?.join("tests/data/digits.csv.gz");
            let mut command = programs.command(&programs.workshop());
            command
                .arg("train-digits")
                .arg("--data")
                .arg(data)
                .arg("--out")
                .arg(folder);
            process::output(&mut command)?;
        }
        let digits = Self::read(folder)?;
        let Report {
            trained_on,
            held_out,
            accuracy_v1,
            accuracy_v2,
        } = digits.report;
        println!(
            "trained on {trained_on} digits; of {held_out} held out, version 1 (linear) reads {:.1} %, version 2 (convolutional) {:.1} %",
            accuracy_v1 * 100.0,
            accuracy_v2 * 100.0
        );
        Ok(digits)
    }

    fn read(folder: &Path) -> anyhow::Result<Self> {
        let held_out: HeldOut = read(&folder.join("heldout.json"))?;
        ensure!(
            !held_out.labels.is_empty() && held_out.labels.len() == held_out.pixels.len(),
            "{} holds no digits: remove the folder and start again",
            folder.display()
        );
        Ok(Self {
            folder: folder.to_path_buf(),
            held_out,
            report: read(&folder.join("report.json"))?,
        })
    }

    /// The TorchScript file of version 1 or 2.
    pub(crate) fn model(&self, version: usize) -> PathBuf {
        self.folder.join(format!("v{version}.pt"))
    }

    /// A held-out digit, counted round and round: its pixels and what it is.
    pub(crate) fn digit(&self, index: usize) -> (&[f32], usize) {
        let index = index % self.held_out.labels.len().max(1);
        let pixels = self.held_out.pixels.get(index).map_or(&[][..], Vec::as_slice);
        (pixels, self.held_out.labels.get(index).copied().unwrap_or_default())
    }

    /// A request of the Open Inference Protocol for one digit, on behalf of a user.
    pub(crate) fn request(&self, index: usize, user: &str) -> Value {
        let (pixels, _) = self.digit(index);
        json!({
            "parameters": {"user": user},
            "inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": pixels}],
        })
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is not what the workshop writes", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_go_round_and_requests_hold_them() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("heldout.json"),
            json!({"pixels": [[1.0], [2.0]], "labels": [7, 8]}).to_string(),
        )
        .unwrap();
        let report = json!({"trained_on": 1, "held_out": 2, "accuracy_v1": 0.9, "accuracy_v2": 1.0});
        fs::write(folder.path().join("report.json"), report.to_string()).unwrap();
        let digits = Digits::read(folder.path()).unwrap();
        assert_eq!(digits.digit(1), (&[2.0][..], 8));
        assert_eq!(digits.digit(2), (&[1.0][..], 7));
        let request = digits.request(3, "u1");
        assert_eq!(request["inputs"][0]["data"], json!([2.0]));
        assert_eq!(request["parameters"]["user"], "u1");
    }

    #[test]
    fn a_folder_without_digits_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("heldout.json"), r#"{"pixels": [], "labels": []}"#).unwrap();
        let error = Digits::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("remove the folder"), "{error}");
    }
}
