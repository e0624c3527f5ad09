//! What a runtime may change about a model when it loads it, and the report of what it tried.
//!
//! Owns the configuration's block `optimization` with its check, and the words of a load report. Runtimes give them their
//! meaning: they try variants of a model on the inputs of warm-up, and keep one only if its outputs agree with the original's
//! within the tolerance and it is faster at the batch sizes tried.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// The largest tolerance that can be asked for: beyond it two outputs have nothing to do with each other.
const MAX_TOLERANCE: f64 = 1.0;

/// Whether a runtime may try something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attempt {
    /// It may, and keeps what is faster and agrees.
    #[default]
    Auto,
    /// It may not.
    Off,
}

/// The type in which a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// As the model was written.
    #[default]
    Fp32,
    /// Half the bytes, the range of FP32.
    Bf16,
    /// Half the bytes, more digits than BF16 and less range.
    Fp16,
}

/// What a runtime may change about a model when it loads it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Optimization {
    /// Freezing: weights become constants, and what follows from constants is computed once.
    pub freeze: Attempt,
    /// Another type to compute in, tried besides.
    pub precision: Precision,
    /// The largest difference from the original's outputs, in parts of the value and absolutely below 1; absent: the
    /// precision's own, see [`Optimization::tolerance`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tolerance: Option<f64>,
}

impl Optimization {
    /// Whether there is nothing to try.
    pub fn is_off(&self) -> bool {
        self.freeze == Attempt::Off && self.precision == Precision::Fp32
    }

    /// The largest difference from the original's outputs that is borne in a variant.
    pub fn tolerance(&self, variant: Variant) -> f64 {
        self.tolerance.unwrap_or(match variant {
            Variant::Original | Variant::Frozen | Variant::Optimized => 1e-5,
            // A value has 11 and 8 bits; a few layers lose some more.
            Variant::Fp16 => 5e-3,
            Variant::Bf16 => 3e-2,
        })
    }

    pub(crate) fn check(&self, mut say: impl FnMut(&str, String)) {
        let fits = |tolerance: f64| tolerance > 0.0 && tolerance <= MAX_TOLERANCE;
        if self.tolerance.is_some_and(|tolerance| !fits(tolerance)) {
            say(
                ".tolerance",
                format!("above 0 and at most {MAX_TOLERANCE}, such as 1e-5"),
            );
        }
    }
}

/// One form of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// As it was written.
    #[default]
    Original,
    /// With weights as constants.
    Frozen,
    /// Frozen, and rewritten for inference on this device.
    Optimized,
    /// Computing in BF16.
    Bf16,
    /// Computing in FP16.
    Fp16,
}

impl fmt::Display for Variant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Original => "original",
            Self::Frozen => "frozen",
            Self::Optimized => "optimized for inference",
            Self::Bf16 => "BF16",
            Self::Fp16 => "FP16",
        })
    }
}

/// What became of a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "is", content = "why")]
pub enum Verdict {
    /// This is what runs.
    Chosen,
    /// It agrees, and another runs.
    Slower,
    /// Its outputs differ from the original's by more than the tolerance.
    Differs,
    /// It could not be made, or did not run.
    Failed(String),
}

/// The largest difference between a variant's outputs and the original's.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Difference {
    /// Of two values.
    pub absolute: f64,
    /// In parts of the original's value, or of the output's largest where that is more, but at most of 1: what the tolerance
    /// bounds.
    pub relative: f64,
}

/// One batch size's time in a variant: the median of several executions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VariantTime {
    /// Rows.
    pub rows: u32,
    /// How long.
    #[serde(rename = "nanoseconds", with = "nanoseconds")]
    pub took: Duration,
}

/// One variant that was tried.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VariantReport {
    /// Which.
    pub variant: Variant,
    /// What became of it.
    pub verdict: Verdict,
    /// How far its outputs are from the original's; none for the original, and where it did not run.
    pub difference: Option<Difference>,
    /// How far they may be.
    pub tolerance: Option<f64>,
    /// By batch size, ascending.
    pub times: Vec<VariantTime>,
}

/// What loading a model came to.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct LoadReport {
    /// The runtime and its version; empty where nothing has been loaded.
    pub runtime: String,
    /// What runs.
    pub chosen: Variant,
    /// What was tried; empty where the runtime has nothing to try, or may not.
    pub variants: Vec<VariantReport>,
    /// What is to be said of it in a sentence; empty where nothing is.
    pub remark: String,
}

impl LoadReport {
    /// A model as it was written.
    pub fn plain(runtime: impl Into<String>) -> Self {
        Self {
            runtime: runtime.into(),
            ..Self::default()
        }
    }
}

mod nanoseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        u64::deserialize(deserializer).map(Duration::from_nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let block: Optimization = serde_json::from_str(text).unwrap();
        let mut problems = Vec::new();
        block.check(|field, problem| problems.push(format!("{field}: {problem}")));
        problems
    }

    #[test]
    fn the_block_is_read_and_its_bounds_are_kept() {
        assert!(problems(r#"{"freeze":"off","precision":"bf16","tolerance":1.0}"#).is_empty());
        for tolerance in ["0", "1.0001", "-1e-3"] {
            let found = problems(&format!("{{\"tolerance\":{tolerance}}}"));
            assert!(
                found.len() == 1 && found[0].starts_with(".tolerance: above 0"),
                "{found:?}"
            );
        }
        assert!(serde_json::from_str::<Optimization>(r#"{"frieze":"off"}"#).is_err());
        assert!(serde_json::from_str::<Optimization>(r#"{"precision":"int8"}"#).is_err());
    }

    #[test]
    fn nothing_to_try_is_off() {
        assert!(!Optimization::default().is_off());
        let off = Optimization {
            freeze: Attempt::Off,
            ..Optimization::default()
        };
        assert!(off.is_off());
        let half = Optimization {
            precision: Precision::Bf16,
            ..off
        };
        assert!(!half.is_off());
        assert!(half.tolerance(Variant::Bf16) > half.tolerance(Variant::Frozen));
    }

    #[test]
    fn a_report_survives_json() {
        let report = LoadReport {
            chosen: Variant::Frozen,
            variants: vec![VariantReport {
                variant: Variant::Frozen,
                verdict: Verdict::Failed("no".into()),
                difference: Some(Difference::default()),
                tolerance: Some(1e-5),
                times: vec![VariantTime {
                    rows: 8,
                    took: Duration::from_micros(7),
                }],
            }],
            ..LoadReport::plain("torch 2")
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<LoadReport>(&text).unwrap(), report);
    }
}
