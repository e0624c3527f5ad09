//! What a model version has done so far, in the terms of Triton's statistics extension and free of any wire format.
//!
//! Counted by whoever runs the model; added up over devices; written by the doors. Sums are since the version was loaded:
//! rates are the reader's business.

use std::{collections::BTreeMap, time::Duration};

use crate::DeviceId;

/// A number of times, and how long they took together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// How long in all.
    pub total: Duration,
}

impl Times {
    /// The total in nanoseconds.
    pub fn nanoseconds(&self) -> u64 {
        u64::try_from(self.total.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The three parts of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ComputeTimes {
    /// Gathering a batch's inputs.
    pub input: Times,
    /// The model.
    pub infer: Times,
    /// Splitting its outputs.
    pub output: Times,
}

/// The answers of a decoupled model that are counted apart, by their place among those to their request; later ones are counted
/// at the last place.
pub const MAX_RESPONSES_COUNTED: usize = 128;

/// What became of the answers at one place. Each time is since the answer before, or since the model began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseTimes {
    /// The model, until it gave the answer.
    pub compute_infer: Times,
    /// From there until the answer was handed on.
    pub compute_output: Times,
    /// Answers that were handed on, both times together.
    pub success: Times,
    /// Requests that failed in the stead of this answer.
    pub fail: Times,
    /// Requests that ended well without it.
    pub empty_response: Times,
    /// Requests whose caller left before it.
    pub cancel: Times,
}

/// What one version has done, over all devices.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VersionStatistics {
    /// When the last execution ended, in milliseconds since the Unix epoch; 0 if there was none.
    pub last_inference_ms: u64,
    /// Rows that were answered.
    pub inference_count: u64,
    /// Executions of the model.
    pub execution_count: u64,
    /// Requests that were answered, from their arrival on the device.
    pub success: Times,
    /// Requests that the model or the device failed.
    pub fail: Times,
    /// The waits of requests that were answered.
    pub queue: Times,
    /// Where their time went then.
    pub compute: ComputeTimes,
    /// Requests that were answered from the cache, and how long that took.
    pub cache_hit: Times,
    /// Requests that were looked for in the cache in vain, and how long the cache took.
    pub cache_miss: Times,
    /// Executions by their number of rows.
    pub batches: BTreeMap<u32, ComputeTimes>,
    /// What it takes of each device's memory, in bytes.
    pub memory: Vec<(DeviceId, u64)>,
    /// What became of a decoupled model's answers, by their place; at most [`MAX_RESPONSES_COUNTED`].
    pub responses: Vec<ResponseTimes>,
}
