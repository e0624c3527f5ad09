//! The built-in models themselves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh_backend::{BackendError, BatchInput, BatchInputs, BatchOutputs, LoadSpec, LoadedModel};
use mesh_types::{ModelConfig, Tensor, TensorSpec};

use crate::arithmetic;

/// The longest that `busy` may take for one batch.
const MAX_BUSY: Duration = Duration::from_secs(10);

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
    /// Identity that keeps the device busy for `busy_us` microseconds a batch.
    Busy(Duration),
}

/// A built-in model.
#[derive(Debug)]
pub(crate) struct BuiltinModel {
    kind: Kind,
    config: Arc<ModelConfig>,
}

impl BuiltinModel {
    pub(crate) fn new(spec: &LoadSpec) -> Result<Self, BackendError> {
        let config = spec.config.clone();
        let name = config
            .parameters
            .get("builtin")
            .and_then(|value| value.as_str())
            .unwrap_or_default();
        let kind = match name {
            "identity" => Kind::Identity,
            "add_sub" => Kind::AddSub,
            "fail_on_negative" => Kind::FailOnNegative,
            "panic_on_negative" => Kind::PanicOnNegative,
            "busy" => {
                let microseconds = config
                    .parameters
                    .get("busy_us")
                    .and_then(|value| value.as_u64())
                    .unwrap_or(1_000);
                Kind::Busy(Duration::from_micros(microseconds).min(MAX_BUSY))
            }
            other => {
                let known = "identity, add_sub, fail_on_negative, panic_on_negative, busy";
                return Err(BackendError::Load(format!(
                    "no built-in model '{other}'; parameter 'builtin' is one of {known}"
                )));
            }
        };
        check_signature(kind, &config)?;
        Ok(Self { kind, config })
    }
}

fn check_signature(kind: Kind, config: &ModelConfig) -> Result<(), BackendError> {
    let alike = |a: &TensorSpec, b: &TensorSpec| a.datatype == b.datatype && a.dims == b.dims;
    let refuse = |problem: &str| Err(BackendError::Load(problem.to_owned()));
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
        let data: Vec<Bytes> = batch.inputs.iter().map(gather).collect();
        let negative = || {
            batch
                .inputs
                .iter()
                .zip(&data)
                .any(|(input, data)| arithmetic::any_negative(input.spec.datatype, data))
        };
        let data = match self.kind {
            Kind::FailOnNegative if negative() => {
                return Err(BackendError::Execution("a value is below zero".to_owned()));
            }
            Kind::PanicOnNegative if negative() => panic!("a value is below zero"),
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

    fn memory_bytes(&self) -> u64 {
        0
    }
}
