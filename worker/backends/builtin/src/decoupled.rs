//! Built-in models that give any number of answers to a request: `repeat_int32` and `mock_llm`.
//!
//! Both are those of Triton's own tests, by their names and tensors, so that clients written for it find what they know. Where a
//! model is told to wait (`DELAY`, `WAIT`), it looks now and then whether somebody still waits for its answers.
//!
//! `fail_after` (a parameter) makes either fail once a request has had so many answers, on purpose.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use mesh_backend::{AnswerSink, BackendError, BatchInputs, BatchOutputs, LoadSpec, LoadedModel, Next, Requests};
use mesh_types::{DataType, LoadReport, ModelConfig, Shape, Tensor, TensorSpec};

use crate::{gate::Gate, llm};

/// Their names.
pub(crate) const NAMES: [&str; 2] = ["repeat_int32", "mock_llm"];
/// How often a model that waits looks whether that is wanted.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A model with any number of answers.
#[derive(Debug)]
pub(crate) struct DecoupledModel {
    kind: Kind,
    config: Arc<ModelConfig>,
    fail_after: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An answer for each value of `IN`, so long after the one before as `DELAY` says.
    Repeat,
    /// Pieces of a text.
    Llm(llm::Dialect),
}

impl DecoupledModel {
    /// The model of this name, if it is one of these.
    pub(crate) fn named(name: &str, spec: &LoadSpec) -> Option<Result<Self, BackendError>> {
        let config = &spec.config;
        let kind = match name {
            "repeat_int32" => check_repeat(config).map(|()| Kind::Repeat),
            "mock_llm" => llm::Dialect::of(config).map(Kind::Llm),
            _ => return None,
        };
        let fail_after = config.parameters.get("fail_after").and_then(|value| value.as_u64());
        Some(kind.and_then(|kind| {
            if !config.is_decoupled() {
                let problem = format!("{name} gives any number of answers: set model_transaction_policy.decoupled");
                return Err(BackendError::Load(problem));
            }
            Ok(Self {
                kind,
                config: config.clone(),
                fail_after,
            })
        }))
    }

    fn one(&self, requests: &Requests<'_>, request: usize, answers: &mut dyn AnswerSink) -> Result<(), BackendError> {
        let mut speaker = Speaker {
            request,
            given: 0,
            fail_after: self.fail_after,
            answers,
        };
        match self.kind {
            Kind::Repeat => repeat(&self.config, &Given::of(requests.inputs, request), &mut speaker),
            Kind::Llm(dialect) => llm::speak(
                &self.config,
                dialect,
                &Given::of(requests.inputs, request),
                &mut speaker,
            ),
        }
    }
}

impl LoadedModel for DecoupledModel {
    fn execute(&mut self, _: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        let problem = "a decoupled model answers over a stream";
        Err(BackendError::Unsupported(problem.to_owned()))
    }

    /// One request after the other: each has its answers before the next begins.
    fn generate(&mut self, requests: &Requests<'_>, answers: &mut dyn AnswerSink) -> Result<(), BackendError> {
        for request in 0..requests.rows.len() {
            match self.one(requests, request, answers) {
                Ok(()) => answers.end(request),
                Err(error) => answers.fail(request, error),
            }
        }
        Ok(())
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    fn report(&self) -> LoadReport {
        LoadReport::plain("builtin")
    }
}

/// A request's inputs, by name.
pub(crate) struct Given<'a> {
    inputs: &'a BatchInputs<'a>,
    request: usize,
}

impl<'a> Given<'a> {
    fn of(inputs: &'a BatchInputs<'a>, request: usize) -> Self {
        Self { inputs, request }
    }

    /// The bytes of an input; none where the request leaves it out.
    pub(crate) fn bytes(&self, name: &str) -> Option<&'a [u8]> {
        let input = self.inputs.inputs.iter().find(|input| input.spec.name == name)?;
        input.parts.get(self.request).copied()
    }

    /// The numbers of an input of four bytes each.
    pub(crate) fn numbers(&self, name: &str) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        let bytes = self.bytes(name).unwrap_or_default();
        bytes.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes))
    }
}

/// One request's answers, counted.
pub(crate) struct Speaker<'a> {
    request: usize,
    given: u64,
    fail_after: Option<u64>,
    answers: &'a mut dyn AnswerSink,
}

impl Speaker<'_> {
    /// Gives an answer, unless the model is to fail in its stead.
    pub(crate) fn say(&mut self, outputs: Vec<Tensor>) -> Result<Next, BackendError> {
        if self.fail_after == Some(self.given) {
            let problem = format!("it is made to fail after {} answers", self.given);
            return Err(BackendError::Execution(problem));
        }
        self.given += 1;
        Ok(self.answers.answer(self.request, outputs))
    }

    /// Waits for so long, or until nobody waits for answers.
    pub(crate) fn pause(&self, time: Duration) -> Next {
        let (began, gate) = (Instant::now(), Gate::default());
        loop {
            if !self.answers.is_wanted(self.request) {
                return Next::Stop;
            }
            let left = time.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Next::More;
            }
            // A gate that nobody opens.
            gate.wait(left.min(LOOK_EVERY));
        }
    }
}

fn check_repeat(config: &ModelConfig) -> Result<(), BackendError> {
    let is = |spec: Option<&TensorSpec>, name: &str, datatype: DataType, dims: &[i64]| {
        spec.is_some_and(|spec| spec.name == name && spec.datatype == datatype && spec.dims == dims)
    };
    let [inputs, outputs] = [&config.input, &config.output];
    let fits = inputs.len() == 3
        && outputs.len() == 2
        && is(inputs.first(), "IN", DataType::Int32, &[-1])
        && is(inputs.get(1), "DELAY", DataType::Uint32, &[-1])
        && is(inputs.get(2), "WAIT", DataType::Uint32, &[1])
        && is(outputs.first(), "OUT", DataType::Int32, &[1])
        && is(outputs.get(1), "IDX", DataType::Uint32, &[1])
        && !config.batches();
    if fits {
        return Ok(());
    }
    Err(BackendError::Load(
        "repeat_int32 has the inputs IN (INT32, [-1]), DELAY (UINT32, [-1]) and WAIT (UINT32, [1]), the outputs OUT (INT32, [1]) \
         and IDX (UINT32, [1]), and max_batch_size 0"
            .to_owned(),
    ))
}

/// `OUT` is the value and `IDX` its place. `DELAY` and `WAIT` are milliseconds; the instance is taken until both `WAIT` and all
/// delays are over, because an answer is given within the call that it answers: who pays, what hangs and who has left is asked of
/// calls, and an answer that came from elsewhere would be none of theirs. The request's deadline bounds the whole.
fn repeat(config: &ModelConfig, given: &Given<'_>, speaker: &mut Speaker<'_>) -> Result<(), BackendError> {
    let began = Instant::now();
    let (values, delays) = (given.numbers("IN"), given.numbers("DELAY"));
    if values.len() != delays.len() {
        return Err(BackendError::InvalidInput(format!(
            "expected IN and DELAY shape to match, got [{}] and [{}]",
            values.len(),
            delays.len()
        )));
    }
    for (index, (value, delay)) in (0_u32..).zip(values.zip(delays)) {
        if speaker.pause(Duration::from_millis(delay.into())) == Next::Stop {
            return Ok(());
        }
        let output = |(spec, number): (&TensorSpec, u32)| Tensor {
            name: Arc::from(spec.name.as_str()),
            datatype: spec.datatype,
            shape: Shape::from_slice(&[1]),
            data: Bytes::copy_from_slice(&number.to_le_bytes()),
        };
        let outputs = config.output.iter().zip([value, index]).map(output).collect();
        if speaker.say(outputs)? == Next::Stop {
            return Ok(());
        }
    }
    let wait = given.numbers("WAIT").next().unwrap_or(0);
    let rest = Duration::from_millis(wait.into()).saturating_sub(began.elapsed());
    let _ = speaker.pause(rest);
    Ok(())
}

#[cfg(test)]
#[path = "decoupled_tests.rs"]
mod tests;
