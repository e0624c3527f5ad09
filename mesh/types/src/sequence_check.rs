//! What is wrong with a `sequence_batching`: every field that cannot be meant, with what would be right.
//!
//! Also decodes an initial state's bytes, because whether they fit can be said when the model is published.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    Control, ControlInput, ControlKind, DataType, InitialState, ModelConfig, SequenceBatching, StateSpec,
    batching::MAX_MICROSECONDS, tensor,
};

/// The most sequences that an instance serves at the same time: each has a queue and a state.
pub const MAX_CANDIDATE_SEQUENCES: u32 = 65_536;
/// The most control tensors or states.
const MAX_TENSORS: usize = 64;
/// The largest initial state, in bytes: it is kept in the model's configuration.
pub const MAX_INITIAL_STATE_BYTES: usize = 1 << 20;
/// The longest that a sequence may be idle: a day.
const MAX_IDLE_MICROSECONDS: u64 = 86_400_000_000;

/// Why a state cannot begin as it is meant to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct InitialStateError {
    field: &'static str,
    problem: String,
}

impl StateSpec {
    /// The state before a sequence's first request: its extents without the batch dimension, and its raw bytes.
    pub fn initial(&self) -> Result<(Vec<u64>, Vec<u8>), InitialStateError> {
        let wrong = |field, problem: String| InitialStateError { field, problem };
        let Some(initial) = self.initial_state.first() else {
            let dims: Vec<u64> = self.dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(1)).collect();
            let zeros = zeros(self.data_type, &dims).map_err(|problem| wrong("dims", problem))?;
            return Ok((dims, zeros));
        };
        let fits = |(dim, extent): (&i64, &u64)| *dim == -1 || u64::try_from(*dim) == Ok(*extent);
        if initial.dims.len() != self.dims.len() || !self.dims.iter().zip(&initial.dims).all(fits) {
            return Err(wrong("dims", format!("fit the state's dims {:?}", self.dims)));
        }
        if initial.data_type.is_some_and(|datatype| datatype != self.data_type) {
            return Err(wrong("data_type", format!("that of the state, {}", self.data_type)));
        }
        let bytes = initial.bytes(self.data_type)?;
        let held = match self.data_type.element_bytes() {
            Some(size) => (bytes.len() % size == 0).then_some(bytes.len() / size),
            None => tensor::bytes_element_count(&bytes),
        };
        let wanted = elements(&initial.dims).and_then(|elements| usize::try_from(elements).ok());
        if held.is_none() || held != wanted {
            let problem = format!("{} bytes are not as many elements as dims say", bytes.len());
            return Err(wrong("data", problem));
        }
        Ok((initial.dims.clone(), bytes))
    }
}

impl InitialState {
    fn bytes(&self, datatype: DataType) -> Result<Vec<u8>, InitialStateError> {
        let wrong = |field, problem: String| InitialStateError { field, problem };
        match (self.zero_data, &self.data_file, &self.data) {
            (_, Some(_), _) => {
                let problem = "the registry keeps no files beside a model: publish with `mesh model publish`, which reads \
                               the file, or give its bytes in base64 as data";
                Err(wrong("data_file", problem.into()))
            }
            (true, None, None) => zeros(datatype, &self.dims).map_err(|problem| wrong("dims", problem)),
            (false, None, Some(data)) => {
                if data.len() > MAX_INITIAL_STATE_BYTES / 3 * 4 + 4 {
                    return Err(wrong("data", format!("at most {MAX_INITIAL_STATE_BYTES} bytes")));
                }
                let decoded = STANDARD.decode(data);
                decoded.map_err(|error| wrong("data", format!("base64: {error}")))
            }
            _ => Err(wrong(
                "zero_data",
                "exactly one of zero_data: true and data (or data_file)".into(),
            )),
        }
    }
}

fn elements(dims: &[u64]) -> Option<u64> {
    dims.iter().try_fold(1_u64, |product, dim| product.checked_mul(*dim))
}

fn zeros(datatype: DataType, dims: &[u64]) -> Result<Vec<u8>, String> {
    // An empty text has a prefix of four bytes.
    let size = datatype.element_bytes().unwrap_or(4);
    let bytes = elements(dims)
        .and_then(|elements| usize::try_from(elements).ok())
        .and_then(|elements| elements.checked_mul(size));
    let bytes = bytes.filter(|bytes| *bytes <= MAX_INITIAL_STATE_BYTES);
    bytes
        .map(|bytes| vec![0; bytes])
        .ok_or_else(|| format!("an initial state has at most {MAX_INITIAL_STATE_BYTES} bytes"))
}

impl SequenceBatching {
    /// Says everything wrong with it: the field's name within `sequence_batching`, and the problem.
    pub(crate) fn check(&self, config: &ModelConfig, mut say: impl FnMut(String, String)) {
        if config.dynamic_batching.is_some() {
            let problem = "a model has dynamic_batching or sequence_batching, not both";
            say(String::new(), problem.into());
        }
        if self.iterative_sequence {
            let problem = "not offered: a request is run once; leave it out, and let the caller send each step";
            say(".iterative_sequence".into(), problem.into());
        }
        if self.max_sequence_idle_microseconds > MAX_IDLE_MICROSECONDS {
            let problem = format!("at most {MAX_IDLE_MICROSECONDS} (a day)");
            say(".max_sequence_idle_microseconds".into(), problem);
        }
        self.check_strategy(config, &mut say);
        self.check_controls(config, &mut say);
        self.check_states(config, &mut say);
    }

    fn check_strategy(&self, config: &ModelConfig, say: &mut impl FnMut(String, String)) {
        if self.direct.is_some() && self.oldest.is_some() {
            say(".oldest".into(), "a model has one strategy: direct or oldest".into());
        }
        let too_long = |delay: u64| delay > MAX_MICROSECONDS;
        let long = format!("at most {MAX_MICROSECONDS} (ten minutes)");
        if let Some(direct) = &self.direct {
            if !(0.0..=1.0).contains(&direct.minimum_slot_utilization) {
                say(".direct.minimum_slot_utilization".into(), "from 0 to 1".into());
            }
            if too_long(direct.max_queue_delay_microseconds) {
                say(".direct.max_queue_delay_microseconds".into(), long.clone());
            }
        }
        if let Some(oldest) = &self.oldest {
            if !(1..=MAX_CANDIDATE_SEQUENCES).contains(&oldest.max_candidate_sequences) {
                let problem = format!("1 to {MAX_CANDIDATE_SEQUENCES}, got {}", oldest.max_candidate_sequences);
                say(".oldest.max_candidate_sequences".into(), problem);
            }
            let fits = |size: &u32| (1..=config.max_batch_size.max(1)).contains(size);
            if !oldest.preferred_batch_size.iter().all(fits) {
                let problem = format!("each is 1 to max_batch_size ({})", config.max_batch_size);
                say(".oldest.preferred_batch_size".into(), problem);
            }
            if too_long(oldest.max_queue_delay_microseconds) {
                say(".oldest.max_queue_delay_microseconds".into(), long);
            }
        }
        if self.state.is_empty() {
            self.check_own_state(config, say);
        }
    }

    /// A model that keeps its states itself must be told enough to keep them apart, and those of two tenants above all.
    fn check_own_state(&self, config: &ModelConfig, say: &mut impl FnMut(String, String)) {
        let lacks = |kind: ControlKind| self.control(kind).is_none();
        let many = self
            .oldest
            .as_ref()
            .is_some_and(|oldest| oldest.max_candidate_sequences > 1);
        let needs = [
            (
                ControlKind::Start,
                true,
                "or it cannot tell a new sequence from the one that was there before",
            ),
            (
                ControlKind::Ready,
                self.oldest.is_none() && config.max_batch_size > 1,
                "with the direct strategy, or it cannot tell rows without a request from others",
            ),
            (
                ControlKind::Corrid,
                many,
                "with several candidates of the oldest strategy, or it cannot tell whose state is whose",
            ),
        ];
        for (kind, needed, why) in needs {
            if needed && lacks(kind) {
                let problem = format!("a model that keeps its state itself needs {} {why}", kind.as_str());
                say(".control_input".into(), problem);
            }
        }
    }

    fn check_controls(&self, config: &ModelConfig, say: &mut impl FnMut(String, String)) {
        if self.control_input.len() > MAX_TENSORS {
            say(".control_input".into(), format!("at most {MAX_TENSORS} tensors"));
        }
        for (index, input) in self.control_input.iter().enumerate() {
            let field = format!(".control_input[{index}]");
            let before = self.control_input.iter().take(index);
            let taken = before.clone().any(|other| other.name == input.name);
            check_name(&input.name, taken || is_input(config, &input.name), |problem| {
                say(format!("{field}.name"), problem);
            });
            let [control] = input.control.as_slice() else {
                say(format!("{field}.control"), "exactly one control for each tensor".into());
                continue;
            };
            if before
                .flat_map(|other| &other.control)
                .any(|other| other.kind == control.kind)
            {
                let problem = format!("{} has another tensor already", control.kind.as_str());
                say(format!("{field}.control[0].kind"), problem);
            }
            if let Some(problem) = control.problem() {
                say(format!("{field}.control[0]"), problem.into());
            }
        }
    }

    fn check_states(&self, config: &ModelConfig, say: &mut impl FnMut(String, String)) {
        if self.state.len() > MAX_TENSORS {
            say(".state".into(), format!("at most {MAX_TENSORS} tensors"));
        }
        for (index, state) in self.state.iter().enumerate() {
            let field = format!(".state[{index}]");
            let before = self.state.iter().take(index);
            let is_control = |control: &ControlInput| control.name == state.input_name;
            let taken = before.clone().any(|other| other.input_name == state.input_name)
                || self.control_input.iter().any(is_control)
                || is_input(config, &state.input_name);
            check_name(&state.input_name, taken, |problem| {
                say(format!("{field}.input_name"), problem);
            });
            let taken = before.clone().any(|other| other.output_name == state.output_name);
            check_name(&state.output_name, taken, |problem| {
                say(format!("{field}.output_name"), problem);
            });
            let rank = state.dims.len() < tensor::MAX_RANK;
            if !rank || state.dims.iter().any(|dim| *dim < -1 || *dim == 0) {
                let problem = "at most 15 extents, each -1 (may change) or at least 1";
                say(format!("{field}.dims"), problem.into());
                continue;
            }
            let shown = config.output.iter().find(|output| output.name == state.output_name);
            if shown.is_some_and(|shown| shown.datatype != state.data_type || shown.dims != state.dims) {
                let problem = "the output of this name has another datatype or other dims";
                say(format!("{field}.output_name"), problem.into());
            }
            if state.initial_state.len() > 1 {
                say(format!("{field}.initial_state"), "at most one".into());
            }
            if let Err(error) = state.initial() {
                let place = if state.initial_state.is_empty() {
                    ""
                } else {
                    ".initial_state[0]"
                };
                say(format!("{field}{place}.{}", error.field), error.problem);
            }
        }
    }
}

impl Control {
    fn problem(&self) -> Option<&'static str> {
        let is_corrid = self.kind == ControlKind::Corrid;
        match self.datatype() {
            Some(DataType::Uint64 | DataType::Int64 | DataType::Uint32 | DataType::Int32 | DataType::Bytes)
                if is_corrid =>
            {
                None
            }
            _ if is_corrid => Some(
                "a correlation id has a data_type of UINT64, INT64, UINT32, INT32 or BYTES (TYPE_STRING), and no values",
            ),
            Some(_) if self.data_type.is_none() => None,
            _ => Some(
                "exactly one of int32_false_true, fp32_false_true and bool_false_true, with two values, and no data_type",
            ),
        }
    }
}

fn is_input(config: &ModelConfig, name: &str) -> bool {
    config.input.iter().any(|input| input.name == name)
}

fn check_name(name: &str, taken: bool, say: impl FnOnce(String)) {
    if name.is_empty() || name.len() > 255 {
        say("1 to 255 bytes".into());
    } else if taken {
        say(format!("'{name}' is there twice"));
    }
}
