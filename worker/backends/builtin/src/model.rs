//! The built-in models themselves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh_backend::{BackendError, BatchInput, BatchInputs, BatchOutputs, LoadSpec, LoadedModel};
use mesh_types::{DataType, LoadReport, ModelConfig, Tensor, TensorSpec};

use crate::{arithmetic, decoupled, gate::Gate, parameters, sequence};

/// The longest that `busy` may take for one batch.
const MAX_BUSY: Duration = Duration::from_secs(10);
/// The longest that `hang_on_negative` hangs, and how long it does if the configuration does not say.
const MAX_HANG: Duration = Duration::from_secs(600);
const HANG: Duration = Duration::from_secs(60);
/// The most memory that a model holds on purpose, and the longest that one takes to load on purpose.
const MAX_HELD: u64 = 4 << 30;
const MAX_LOAD: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Each output is the input of the same position.
    Identity,
    /// Two inputs; the sum and the difference.
    AddSub,
    /// Identity, but fails on any value below zero.
    FailOnNegative,
    /// Identity, but panics on any value below zero.
    PanicOnNegative,
    /// Identity, but hangs on any value below zero: for so long, or until it is released.
    HangOnNegative(Duration),
    /// Identity, but the output of a value below zero is NaN; FP32 only.
    NanOnNegative,
    /// Identity, but finds no memory for more rows than these.
    OomAbove(u32),
    /// Identity that keeps the device busy for `busy_us` microseconds a batch.
    Busy(Duration),
}

/// A built-in model.
#[derive(Debug)]
pub(crate) struct BuiltinModel {
    kind: Kind,
    gate: Arc<Gate>,
    config: Arc<ModelConfig>,
    /// What it holds for as long as it is there (`weights_bytes`).
    weights: Vec<u8>,
    /// What each execution takes for itself (`scratch_bytes`).
    scratch: usize,
}

impl BuiltinModel {
    pub(crate) fn new(spec: &LoadSpec, gate: Arc<Gate>) -> Result<Self, BackendError> {
        let config = spec.config.clone();
        let kind = kind_of(&config)?;
        check_signature(kind, &config)?;
        let number = |name: &str| config.parameters.get(name).and_then(|value| value.as_u64());
        if let Some(millis) = number("load_ms") {
            // A gate that nobody opens.
            Gate::default().wait(Duration::from_millis(millis).min(MAX_LOAD));
        }
        let bytes = |name| usize::try_from(number(name).unwrap_or(0).min(MAX_HELD)).unwrap_or(0);
        Ok(Self {
            kind,
            gate,
            weights: held(bytes("weights_bytes")),
            scratch: bytes("scratch_bytes"),
            config,
        })
    }

    /// Whether any value of any input is below zero.
    fn any_negative(batch: &BatchInputs<'_>, data: &[Bytes]) -> bool {
        let mut inputs = batch.inputs.iter().zip(data);
        inputs.any(|(input, data)| arithmetic::any_negative(input.spec.datatype, data))
    }
}

/// What a model holds on purpose.
pub(crate) fn weights_of(config: &ModelConfig) -> u64 {
    let bytes = config.parameters.get("weights_bytes").and_then(|value| value.as_u64());
    bytes.unwrap_or(0).min(MAX_HELD)
}

/// Memory that the system must really give: every page of it is written.
fn held(bytes: usize) -> Vec<u8> {
    vec![1; bytes]
}

fn kind_of(config: &ModelConfig) -> Result<Kind, BackendError> {
    let number = |name: &str| config.parameters.get(name).and_then(|value| value.as_u64());
    let name = config.parameters.get("builtin").and_then(|value| value.as_str());
    Ok(match name.unwrap_or_default() {
        "identity" => Kind::Identity,
        "add_sub" => Kind::AddSub,
        "fail_on_negative" => Kind::FailOnNegative,
        "panic_on_negative" => Kind::PanicOnNegative,
        "hang_on_negative" => {
            let hang = number("hang_ms").map_or(HANG, Duration::from_millis);
            Kind::HangOnNegative(hang.min(MAX_HANG))
        }
        "nan_on_negative" => Kind::NanOnNegative,
        "oom_above" => {
            let rows = number("rows").and_then(|rows| u32::try_from(rows).ok());
            let missing = || BackendError::Load("oom_above needs the parameter 'rows', a number".to_owned());
            Kind::OomAbove(rows.ok_or_else(missing)?)
        }
        "busy" => {
            let busy = Duration::from_micros(number("busy_us").unwrap_or(1_000));
            Kind::Busy(busy.min(MAX_BUSY))
        }
        other => {
            let known = "identity, add_sub, fail_on_negative, panic_on_negative, hang_on_negative, nan_on_negative, \
                         oom_above, busy";
            let (stateful, decoupled) = (sequence::NAMES.join(", "), decoupled::NAMES.join(", "));
            let problem = format!(
                "no built-in model '{other}'; parameter 'builtin' is one of {known}, {stateful}, {decoupled}, {}",
                parameters::NAME
            );
            return Err(BackendError::Load(problem));
        }
    })
}

fn check_signature(kind: Kind, config: &ModelConfig) -> Result<(), BackendError> {
    let alike = |a: &TensorSpec, b: &TensorSpec| a.datatype == b.datatype && a.dims == b.dims;
    let refuse = |problem: &str| Err(BackendError::Load(problem.to_owned()));
    if config.batches() && config.input.iter().any(|spec| spec.unbatched) {
        return refuse("built-in models answer every row of every input: leave 'unbatched' out");
    }
    if kind != Kind::Identity && config.input.iter().any(|spec| spec.optional) {
        return refuse("of the built-in models only identity has optional inputs");
    }
    if kind == Kind::AddSub {
        let all: Vec<_> = config.input.iter().chain(&config.output).collect();
        let [a, rest @ ..] = all.as_slice() else {
            return refuse("add_sub has two inputs and two outputs");
        };
        if config.input.len() != 2 || config.output.len() != 2 || !rest.iter().all(|b| alike(a, b)) {
            return refuse("add_sub has two inputs and two outputs, all of one datatype and dims");
        }
        return arithmetic::add_sub(a.datatype, &[], &[]).map(drop);
    }
    if kind == Kind::NanOnNegative && config.input.iter().any(|spec| spec.datatype != DataType::Fp32) {
        return refuse("nan_on_negative has FP32 tensors only");
    }
    let same =
        config.input.len() == config.output.len() && config.input.iter().zip(&config.output).all(|(a, b)| alike(a, b));
    if same {
        Ok(())
    } else {
        refuse("each output has the datatype and dims of the input in its place")
    }
}

fn gather(input: &BatchInput<'_>) -> Bytes {
    let mut buffer = Vec::new();
    input.gather_into(&mut buffer);
    Bytes::from(buffer)
}

impl LoadedModel for BuiltinModel {
    #[expect(
        clippy::panic,
        reason = "panic_on_negative exists to show that a panic stays in its batch"
    )]
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        let _scratch = held(self.scratch);
        let data: Vec<Bytes> = batch.inputs.iter().map(gather).collect();
        let negative = || Self::any_negative(batch, &data);
        let data = match self.kind {
            Kind::FailOnNegative if negative() => {
                return Err(BackendError::Execution("a value is below zero".to_owned()));
            }
            Kind::PanicOnNegative if negative() => panic!("a value is below zero"),
            Kind::HangOnNegative(longest) if negative() => {
                self.gate.wait(longest);
                data
            }
            Kind::NanOnNegative => data.iter().map(|data| arithmetic::nan_for_negative(data)).collect(),
            Kind::OomAbove(rows) if batch.rows > rows => {
                let problem = format!("{} rows, and there is room for {rows}", batch.rows);
                return Err(BackendError::OutOfMemory(problem));
            }
            Kind::Busy(duration) => {
                let began = Instant::now();
                while began.elapsed() < duration {
                    std::hint::spin_loop();
                }
                data
            }
            Kind::AddSub => match (batch.inputs.first(), data.as_slice()) {
                (Some(first), [a, b]) => {
                    let (sum, difference) = arithmetic::add_sub(first.spec.datatype, a, b)?;
                    vec![sum.into(), difference.into()]
                }
                _ => return Err(BackendError::InvalidInput("add_sub has two inputs".to_owned())),
            },
            _ => data,
        };
        let outputs = self
            .config
            .output
            .iter()
            .zip(&batch.inputs)
            .zip(data)
            .filter(|((_, input), _)| !input.is_absent())
            .map(|((spec, input), data)| Tensor {
                name: Arc::from(spec.name.as_str()),
                datatype: spec.datatype,
                shape: input.shape.clone(),
                data,
            });
        Ok(BatchOutputs {
            outputs: outputs.collect(),
        })
    }

    fn execute_measured(&mut self, batch: &BatchInputs<'_>) -> Result<(BatchOutputs, Option<u64>), BackendError> {
        let outputs = self.execute(batch)?;
        let gathered: usize = batch.inputs.iter().map(BatchInput::byte_len).sum();
        let peak = u64::try_from(self.scratch.saturating_add(gathered)).unwrap_or(u64::MAX);
        Ok((outputs, Some(peak)))
    }

    fn memory_bytes(&self) -> u64 {
        u64::try_from(self.weights.len()).unwrap_or(u64::MAX)
    }

    fn report(&self) -> LoadReport {
        LoadReport::plain("builtin")
    }
}
