//! When a model is in its devices' memory, and what it runs on before it takes requests: `residency` (an addition to Triton's
//! vocabulary) and `model_warmup` (Triton's `ModelWarmup`).
//!
//! Owns the fields and their checks; the worker gives them their meaning. Differs from Triton in one thing: the store keeps one
//! file per version, so a warm-up input's bytes stand in the configuration (`input_data`, base64) and not beside the model.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{DataType, TensorSpec, bytes_element_count};

/// The longest idle time: a year.
const MAX_IDLE_SECONDS: u64 = 31_536_000;
/// The most warm-up records of a model, and the most runs of one.
pub const MAX_WARMUPS: usize = 32;
/// The most runs of one warm-up record.
pub const MAX_WARMUP_COUNT: u32 = 1_000;
/// The most bytes that a model's warm-up inputs have together; each snapshot and record carries them.
pub const MAX_WARMUP_BYTES: usize = 1 << 20;

/// When a model is loaded for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LoadPolicy {
    /// As soon as it is declared, while the device has room.
    #[default]
    Eager,
    /// With the first request, or on a hint.
    OnDemand,
}

/// When a model is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ResidencyPolicy {
    /// Never leaves memory for another's sake.
    pub pinned: bool,
    /// When it is loaded for the first time.
    pub load: LoadPolicy,
    /// Leaves memory once no request has come for so long; 0: only for another's sake.
    pub idle_seconds: u64,
}

/// What a load is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadStage {
    /// It waits for its turn, or for memory.
    #[default]
    Waiting,
    /// The artifact is being read and brought to the device.
    Loading,
    /// It is being run at growing batch sizes and on its records.
    Warming,
}

impl LoadStage {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::Warming => "warming",
        }
    }
}

/// How far a load is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LoadProgress {
    /// What it is at.
    pub stage: LoadStage,
    /// The instance that it is at, counted from 1.
    pub instance: u32,
    /// Instances in all.
    pub instances: u32,
    /// Bytes of the instances loaded so far.
    pub bytes: u64,
    /// The batch size that it is warming.
    pub rows: Option<u32>,
    /// The warm-up record that it is at.
    pub record: Option<String>,
}

/// Bytes that are written as base64.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Base64Bytes(pub Bytes);

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD.decode(text.trim());
        bytes
            .map(|bytes| Self(Bytes::from(bytes)))
            .map_err(|error| serde::de::Error::custom(format!("not base64: {error}")))
    }
}

/// What a warm-up input holds. Exactly one of the four is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarmupInput {
    /// Its element type, the model's; `TYPE_FP32` and `FP32` both do.
    #[serde(alias = "datatype")]
    pub data_type: DataType,
    /// Its extents, without the batch dimension where the model batches.
    pub dims: Vec<i64>,
    /// Zeros, or empty strings.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub zero_data: bool,
    /// Random data: from 0 to 1, 0 or 1 for integers, eight letters for strings; the same in every run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub random_data: bool,
    /// One item's raw bytes, as on the wire, in base64. (An addition.)
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_data: Option<Base64Bytes>,
    /// Triton's file beside the model. Known, so that it can be refused with words of its own: `mesh model publish` puts the
    /// file's bytes into `input_data`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_data_file: Option<String>,
}

/// A request that a model runs before it takes others.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelWarmup {
    /// Its name in errors.
    pub name: String,
    /// Rows; each is the same. 0 is 1.
    pub batch_size: u32,
    /// The model's inputs, each by its name.
    pub inputs: BTreeMap<String, WarmupInput>,
    /// How often it runs; 0 is 1.
    pub count: u32,
}

impl ModelWarmup {
    /// Rows.
    pub fn rows(&self) -> u32 {
        self.batch_size.max(1)
    }

    /// Runs.
    pub fn runs(&self) -> u32 {
        self.count.max(1)
    }
}

impl WarmupInput {
    /// Elements of one item; none if a dimension is not an extent.
    pub fn elements(&self) -> Option<u64> {
        let mut extents = self
            .dims
            .iter()
            .map(|dim| u64::try_from(*dim).ok().filter(|dim| *dim > 0));
        extents.try_fold(1_u64, |product, extent| product.checked_mul(extent?))
    }

    fn check(&self, spec: &TensorSpec, say: &mut impl FnMut(&str, String)) {
        if self.data_type != spec.datatype {
            say(
                "data_type",
                format!("the model's input is {}, got {}", spec.datatype, self.data_type),
            );
        }
        let fits = |(dim, wanted): (&i64, &i64)| *dim > 0 && (*wanted == -1 || wanted == dim);
        if self.dims.len() != spec.dims.len() || !self.dims.iter().zip(&spec.dims).all(fits) {
            let text = format!(
                "the model's input has {:?}, -1 being any extent; got {:?}",
                spec.dims, self.dims
            );
            say("dims", text);
        }
        if self.input_data_file.is_some() {
            let text = "the store keeps one file per version: give the bytes in input_data (base64), or let 'mesh model \
                        push' read the file";
            say("input_data_file", text.to_owned());
        }
        let given = [self.zero_data, self.random_data, self.input_data.is_some()];
        if given.iter().filter(|given| **given).count() != 1 && self.input_data_file.is_none() {
            say("", "give one of zero_data, random_data and input_data".to_owned());
        }
        if let (Some(Base64Bytes(data)), Some(elements)) = (&self.input_data, self.elements()) {
            let right = match self.data_type.element_bytes() {
                Some(size) => elements.checked_mul(size as u64) == Some(data.len() as u64),
                None => bytes_element_count(data).is_some_and(|count| count as u64 == elements),
            };
            if !right {
                say(
                    "input_data",
                    format!("its {} bytes are not the {elements} elements of one item", data.len()),
                );
            }
        }
    }
}

/// Says everything wrong with the residency policy: the field's name within it, and the problem.
pub(crate) fn check_residency(policy: &ResidencyPolicy, mut say: impl FnMut(&str, String)) {
    if policy.idle_seconds > MAX_IDLE_SECONDS {
        let text = format!("at most {MAX_IDLE_SECONDS} (a year), got {}", policy.idle_seconds);
        say(".idle_seconds", text);
    }
    if policy.pinned && policy.idle_seconds > 0 {
        say(
            ".idle_seconds",
            "a pinned model never leaves: leave out one of the two".to_owned(),
        );
    }
}

/// Says everything wrong with the warm-up records: the place within `model_warmup`, and the problem.
pub(crate) fn check_warmups(
    records: &[ModelWarmup],
    inputs: &[TensorSpec],
    max_batch_size: u32,
    mut say: impl FnMut(String, String),
) {
    if records.len() > MAX_WARMUPS {
        say(
            String::new(),
            format!("at most {MAX_WARMUPS} records, got {}", records.len()),
        );
    }
    let data = records.iter().flat_map(|record| record.inputs.values());
    let bytes: usize = data
        .filter_map(|input| input.input_data.as_ref())
        .map(|data| data.0.len())
        .sum();
    if bytes > MAX_WARMUP_BYTES {
        say(
            String::new(),
            format!("at most {MAX_WARMUP_BYTES} bytes of input_data in all, got {bytes}"),
        );
    }
    for (index, record) in records.iter().enumerate() {
        if record.name.is_empty() || record.name.len() > 255 {
            say(format!("[{index}].name"), "1 to 255 bytes".to_owned());
        }
        if records.iter().take(index).any(|other| other.name == record.name) {
            say(format!("[{index}].name"), format!("'{}' is there twice", record.name));
        }
        if record.rows() > max_batch_size.max(1) {
            let text = format!(
                "at most max_batch_size ({}), got {}",
                max_batch_size.max(1),
                record.rows()
            );
            say(format!("[{index}].batch_size"), text);
        }
        if record.count > MAX_WARMUP_COUNT {
            say(
                format!("[{index}].count"),
                format!("at most {MAX_WARMUP_COUNT}, got {}", record.count),
            );
        }
        for (name, input) in &record.inputs {
            match inputs.iter().find(|spec| spec.name == *name) {
                None => say(
                    format!("[{index}].inputs.{name}"),
                    "the model has no such input".to_owned(),
                ),
                Some(spec) => input.check(spec, &mut |field, problem| {
                    let dot = if field.is_empty() { "" } else { "." };
                    say(format!("[{index}].inputs.{name}{dot}{field}"), problem);
                }),
            }
        }
        let missing = |spec: &&TensorSpec| !spec.optional && !record.inputs.contains_key(&spec.name);
        for spec in inputs.iter().filter(missing) {
            say(format!("[{index}].inputs"), format!("'{}' is missing", spec.name));
        }
    }
}

#[cfg(test)]
#[path = "residency_tests.rs"]
mod tests;
