//! Stateful models: Triton's `ModelSequenceBatching`, what the mesh adds to it, and how a request names its sequence.
//!
//! Owns the fields and the vocabulary of a request; `sequence_check` says what is wrong with them, `worker/scheduler` and
//! `worker` give them their meaning. Field names and defaults are Triton's (`model_config.proto`), so that a configuration
//! carries over; additions have names that Triton does not use.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{DataType, ModelConfig, TensorSpec};

/// The longest correlation id that is a text, in bytes.
pub const MAX_CORRELATION_ID_BYTES: usize = 128;
/// How long a sequence may be idle where its model's configuration does not say.
const DEFAULT_IDLE_MICROSECONDS: u64 = 1_000_000;

/// Names a sequence among those of one tenant and one model version. The number 5 and the text "5" are two.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CorrelationId {
    /// A number, never 0.
    Number(u64),
    /// A text of 1 to [`MAX_CORRELATION_ID_BYTES`] bytes.
    Text(Arc<str>),
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// A request's place in its sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceStep {
    /// Which sequence.
    pub id: CorrelationId,
    /// Whether it is the first request.
    pub start: bool,
    /// Whether it is the last.
    pub end: bool,
}

/// Each sequence has a row of its own in its instance's batches for as long as it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StrategyDirect {
    /// How long the oldest request may wait for those of other sequences; counts only beside `minimum_slot_utilization`.
    pub max_queue_delay_microseconds: u64,
    /// The part of the rows that is enough to send a batch at once, from 0 to 1; 0 sends what is there.
    pub minimum_slot_utilization: f32,
}

/// Batches are formed from the next requests of so many sequences, in whatever rows.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StrategyOldest {
    /// Sequences that one instance serves at the same time.
    pub max_candidate_sequences: u32,
    /// Sizes to send at once when reached; empty means only the largest.
    pub preferred_batch_size: Vec<u32>,
    /// How long the oldest request may wait for company.
    pub max_queue_delay_microseconds: u64,
    /// Answers leave in the order in which a tenant's requests were put into batches.
    pub preserve_ordering: bool,
}

/// What a control tensor tells the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ControlKind {
    /// Whether the row's request is the first of its sequence.
    #[serde(rename = "CONTROL_SEQUENCE_START")]
    Start,
    /// Whether the row holds a request at all.
    #[serde(rename = "CONTROL_SEQUENCE_READY")]
    Ready,
    /// Whether the row's request is the last of its sequence.
    #[serde(rename = "CONTROL_SEQUENCE_END")]
    End,
    /// The row's correlation id.
    #[serde(rename = "CONTROL_SEQUENCE_CORRID")]
    Corrid,
}

impl ControlKind {
    /// Triton's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "CONTROL_SEQUENCE_START",
            Self::Ready => "CONTROL_SEQUENCE_READY",
            Self::End => "CONTROL_SEQUENCE_END",
            Self::Corrid => "CONTROL_SEQUENCE_CORRID",
        }
    }
}

/// What one control tensor holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Control {
    /// What it tells.
    pub kind: ControlKind,
    /// Its values for false and true, as INT32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub int32_false_true: Vec<i32>,
    /// Its values for false and true, as FP32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fp32_false_true: Vec<f32>,
    /// Its values for false and true, as BOOL.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bool_false_true: Vec<bool>,
    /// The element type of a correlation id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_type: Option<DataType>,
}

impl Control {
    /// The tensor's element type, if the control says one.
    pub fn datatype(&self) -> Option<DataType> {
        match (
            self.kind,
            &*self.int32_false_true,
            &*self.fp32_false_true,
            &*self.bool_false_true,
        ) {
            (ControlKind::Corrid, [], [], []) => self.data_type,
            (ControlKind::Corrid, ..) => None,
            (_, [_, _], [], []) => Some(DataType::Int32),
            (_, [], [_, _], []) => Some(DataType::Fp32),
            (_, [], [], [_, _]) => Some(DataType::Bool),
            _ => None,
        }
    }
}

/// A tensor that the worker fills in: callers neither send nor see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlInput {
    /// The tensor's name; one element per row.
    pub name: String,
    /// What it holds: exactly one control.
    pub control: Vec<Control>,
}

/// What a state is before a sequence's first request.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InitialState {
    /// A name, for people.
    pub name: String,
    /// The state's element type.
    #[serde(alias = "datatype", skip_serializing_if = "Option::is_none")]
    pub data_type: Option<DataType>,
    /// Its extents, which fit those of the state; 0 is an extent that is empty at first.
    pub dims: Vec<u64>,
    /// Zeros, or empty texts.
    pub zero_data: bool,
    /// A file with its raw bytes, which `mesh model publish` reads into `data`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_file: Option<String>,
    /// Its raw bytes in base64. (An addition.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
}

/// A tensor that the worker keeps for each sequence: an output of one execution is an input of the sequence's next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateSpec {
    /// The model's input; callers neither send nor see it.
    pub input_name: String,
    /// The model's output; callers see it only where it is also an `output`.
    pub output_name: String,
    /// Its element type.
    #[serde(alias = "datatype")]
    pub data_type: DataType,
    /// Its extents without the batch dimension; -1 may change from one execution to the next.
    pub dims: Vec<i64>,
    /// What it is at first; absent: zeros, with 1 for each -1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub initial_state: Vec<InitialState>,
    /// Triton's hint on where the state is kept. Known, so that a configuration carries over; it changes nothing here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_same_buffer_for_input_output: bool,
    /// Triton's hint that a state grows in place. Known likewise: states of changing extents grow here without it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_growable_memory: bool,
}

/// Which correlation id a model is told by its control tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum CorrelationIds {
    /// The caller's own. Two open sequences of one instance never have the same, where the model keeps their states.
    #[default]
    AsGiven,
    /// A number of the device's own, which no two open sequences share.
    Unique,
}

/// How requests of stateful models are brought to their sequence's state and batched.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SequenceBatching {
    /// Each sequence has its own row. The default strategy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<StrategyDirect>,
    /// The next requests of many sequences share batches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest: Option<StrategyOldest>,
    /// After so long without a request a sequence is ended; 0 is a second.
    pub max_sequence_idle_microseconds: u64,
    /// Tensors that tell the model where a request stands in its sequence.
    pub control_input: Vec<ControlInput>,
    /// Tensors that the worker keeps from one request to the next.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StateSpec>,
    /// Triton's provisional rescheduling of one request. Known, so that it can be refused with words of its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub iterative_sequence: bool,
    /// Open sequences of one tenant on a device; 0 is seven eighths of what its instances serve. (An addition.)
    pub max_sequences_per_tenant: u32,
    /// What the model is told as correlation id. (An addition.)
    pub correlation_ids: CorrelationIds,
}

impl SequenceBatching {
    /// Whether answers leave in the order of the requests.
    pub fn keeps_order(&self) -> bool {
        self.oldest.as_ref().is_some_and(|oldest| oldest.preserve_ordering)
    }

    /// How long a sequence may be without a request.
    pub fn idle(&self) -> Duration {
        match self.max_sequence_idle_microseconds {
            0 => Duration::from_micros(DEFAULT_IDLE_MICROSECONDS),
            microseconds => Duration::from_micros(microseconds),
        }
    }

    /// The control of a kind, with its tensor's name.
    pub fn control(&self, kind: ControlKind) -> Option<(&str, &Control)> {
        let all = self
            .control_input
            .iter()
            .flat_map(|input| input.control.iter().map(|control| (input.name.as_str(), control)));
        all.into_iter().find(|(_, control)| control.kind == kind)
    }

    /// Sequences that one instance serves at the same time.
    pub fn slots(&self, max_batch_size: u32) -> u32 {
        match &self.oldest {
            Some(oldest) => oldest.max_candidate_sequences.max(1),
            None => max_batch_size.max(1),
        }
    }
}

impl ModelConfig {
    /// The configuration as a runtime sees it: behind the callers' inputs come the control tensors and then the states, behind
    /// the callers' outputs those states that callers do not see. None for a model without sequences.
    pub fn with_sequence_tensors(&self) -> Option<Self> {
        let sequence = self.sequence_batching.as_ref()?;
        let mut whole = self.clone();
        for input in &sequence.control_input {
            let datatype = input.control.first().and_then(Control::datatype);
            // Checked when the model was published.
            let datatype = datatype.unwrap_or(DataType::Int32);
            whole.input.push(TensorSpec::new(&input.name, datatype, &[1]));
        }
        for state in &sequence.state {
            let spec = |name: &str| TensorSpec::new(name, state.data_type, &state.dims);
            whole.input.push(spec(&state.input_name));
            if !self.output.iter().any(|output| output.name == state.output_name) {
                whole.output.push(spec(&state.output_name));
            }
        }
        Some(whole)
    }
}

#[cfg(test)]
#[path = "sequence_tests.rs"]
mod tests;
