//! The digits: 1,797 handwritten digits of 8x8 pixels (0 to 16) with their labels, and a fixed split of them.

use std::{fs::File, io::Read, path::Path};

use anyhow::{Context, bail, ensure};
use flate2::read::GzDecoder;
use tch::Tensor;

/// Pixels of one digit.
pub(crate) const PIXELS: usize = 64;
/// Every fifth digit is held out of training.
const HELD_OUT_EVERY: usize = 5;

/// Images and their labels.
#[derive(Debug, Default, Clone)]
pub(crate) struct Digits {
    pub(crate) pixels: Vec<f32>,
    pub(crate) labels: Vec<i64>,
}

impl Digits {
    pub(crate) fn len(&self) -> usize {
        self.labels.len()
    }

    pub(crate) fn images(&self) -> Tensor {
        Tensor::from_slice(&self.pixels).view([-1, 64])
    }

    pub(crate) fn targets(&self) -> Tensor {
        Tensor::from_slice(&self.labels)
    }

    fn push(&mut self, pixels: &[f32], label: i64) {
        self.pixels.extend_from_slice(pixels);
        self.labels.push(label);
    }
}

/// Reads the file and splits it: (for training, held out).
pub(crate) fn read(path: &Path) -> anyhow::Result<(Digits, Digits)> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut text = String::new();
    GzDecoder::new(file)
        .read_to_string(&mut text)
        .context("the digits are not gzipped text")?;
    let (mut training, mut held_out) = (Digits::default(), Digits::default());
    let rows = text
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_digit()));
    for (index, line) in rows.enumerate() {
        let (pixels, label) = parse(line).with_context(|| format!("digit {} of the file", index + 1))?;
        let split = if index % HELD_OUT_EVERY == 0 {
            &mut held_out
        } else {
            &mut training
        };
        split.push(&pixels, label);
    }
    ensure!(
        training.len() > 1_000,
        "expected 1,797 digits, found {}",
        training.len() + held_out.len()
    );
    Ok((training, held_out))
}

fn parse(line: &str) -> anyhow::Result<(Vec<f32>, i64)> {
    let values: Result<Vec<f32>, _> = line.split(',').map(|field| field.trim().parse::<f32>()).collect();
    let mut values = values.context("a field is not a number")?;
    let Some(label) = values.pop() else {
        bail!("the line is empty")
    };
    ensure!(
        values.len() == PIXELS,
        "expected 64 pixels and a label, found {} fields",
        values.len() + 1
    );
    ensure!(
        values.iter().all(|pixel| (0.0..=16.0).contains(pixel)),
        "a pixel is not between 0 and 16"
    );
    ensure!(
        (0.0..=9.0).contains(&label) && label.fract() == 0.0,
        "the label is not a digit"
    );
    #[expect(
        clippy::cast_possible_truncation,
        reason = "checked to be a whole number from 0 to 9"
    )]
    Ok((values, label as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_are_no_digit_are_refused() {
        let good = format!("{},7", ["3"; 64].join(","));
        assert_eq!(parse(&good).unwrap().1, 7);
        for bad in [
            good.replace(",7", ",11"),
            good.replace(",7", ""),
            good.replacen('3', "17", 1),
            good.replacen('3', "x", 1),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
