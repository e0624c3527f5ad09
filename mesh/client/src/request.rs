//! A request to be completed: inputs, what is wanted back, and what goes beside them.

use std::time::Duration;

use mesh_types::{ParameterValue, Parameters, TraceContext};

use crate::{Answer, Client, Error, Input, builder::check_timeout, head};

/// A request of a model. Nothing is sent before [`Request::send`].
///
/// ```no_run
/// # use std::time::Duration;
/// # use mesh_client::{Client, Input};
/// # async fn example(client: Client) -> Result<(), mesh_client::Error> {
/// let answer = client
///     .model("digits")
///     .request()
///     .input(Input::new("pixels", [1, 64], &[0.0_f32; 64])?)
///     .output("scores")
///     .unit("ada")
///     .priority(1)
///     .timeout(Duration::from_millis(50))
///     .send()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "send() sends it"]
pub struct Request {
    pub(crate) client: Client,
    pub(crate) model: String,
    pub(crate) version: Option<String>,
    pub(crate) id: Option<String>,
    pub(crate) inputs: Vec<Input>,
    pub(crate) outputs: Vec<String>,
    pub(crate) parameters: Parameters,
    pub(crate) timeout: Option<Duration>,
    pub(crate) unit: Option<String>,
    pub(crate) trace: Option<TraceContext>,
}

/// Where a request stands in its sequence.
///
/// ```
/// # use mesh_client::Sequence;
/// let first = Sequence::number(7).start();
/// let last = Sequence::text("call-7").end();
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    id: ParameterValue,
    start: bool,
    end: bool,
}

impl Sequence {
    /// A sequence whose id is a number above 0.
    pub fn number(id: u64) -> Self {
        Self::of(id.into())
    }

    /// A sequence whose id is a text.
    pub fn text(id: &str) -> Self {
        Self::of(id.into())
    }

    fn of(id: ParameterValue) -> Self {
        Self {
            id,
            start: false,
            end: false,
        }
    }

    /// The request is its first.
    #[must_use]
    pub fn start(mut self) -> Self {
        self.start = true;
        self
    }

    /// The request is its last.
    #[must_use]
    pub fn end(mut self) -> Self {
        self.end = true;
        self
    }
}

impl Request {
    pub(crate) fn new(client: Client, model: &str, version: Option<String>) -> Self {
        Self {
            client,
            model: model.to_owned(),
            version,
            id: None,
            inputs: Vec::new(),
            outputs: Vec::new(),
            parameters: Parameters::new(),
            timeout: None,
            unit: None,
            trace: None,
        }
    }

    /// Adds an input.
    pub fn input(mut self, input: Input) -> Self {
        self.inputs.push(input);
        self
    }

    /// Adds inputs.
    pub fn inputs(mut self, inputs: impl IntoIterator<Item = Input>) -> Self {
        self.inputs.extend(inputs);
        self
    }

    /// Asks for an output; without any, all come.
    pub fn output(mut self, name: &str) -> Self {
        self.outputs.push(name.to_owned());
        self
    }

    /// A parameter beside the inputs: one of the protocol's, or one that an endpoint or a graph looks at.
    pub fn parameter(mut self, name: &str, value: impl Into<ParameterValue>) -> Self {
        self.parameters.insert(name.to_owned(), value.into());
        self
    }

    /// The caller's own id, given back with the answer.
    pub fn id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// Its place among the tenant's own requests: 1 is the first, 0 the model's default.
    pub fn priority(self, priority: u64) -> Self {
        self.parameter("priority", priority)
    }

    /// How long it may wait for a batch, as the model's queue policy allows.
    pub fn queue_timeout(self, timeout: Duration) -> Self {
        let micros = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        self.parameter("timeout", micros)
    }

    /// Makes it a step of a sequence. Such a request is never sent again by itself.
    pub fn sequence(self, sequence: Sequence) -> Self {
        self.parameter("sequence_id", sequence.id)
            .parameter("sequence_start", sequence.start)
            .parameter("sequence_end", sequence.end)
    }

    /// The unit of a sticky split, such as a user: the same unit always gets the same arm.
    pub fn unit(mut self, unit: &str) -> Self {
        self.unit = Some(unit.to_owned());
        self
    }

    /// How long it may take in all, further tries included.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The span that the request is part of; without it, the one that OpenTelemetry says is current.
    pub fn trace(mut self, trace: TraceContext) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Sends it. Dropping this future cancels the request, on the server too.
    pub async fn send(self) -> Result<Answer, Error> {
        if self.inputs.is_empty() {
            return Err(Error::invalid("the request has no inputs, at least one is needed"));
        }
        let client = self.client.clone();
        let timeout = check_timeout(self.timeout.unwrap_or(client.0.timeout))?;
        let trace = self.trace.or_else(head::current_trace);
        client.infer(&self, timeout, trace).await
    }

    /// Whether it is a step of a sequence, in whichever way it was said.
    pub(crate) fn is_step(&self) -> bool {
        match self.parameters.get("sequence_id") {
            None => false,
            Some(ParameterValue::String(id)) => !id.is_empty(),
            Some(id) => id.as_u64() != Some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        let client = Client::http("http://127.0.0.1:1").build().unwrap();
        client.model("m").request()
    }

    #[test]
    fn a_step_is_one_however_it_was_said() {
        assert!(!request().is_step());
        assert!(!request().parameter("sequence_id", 0_u64).is_step());
        assert!(!request().parameter("sequence_id", "").is_step());
        assert!(request().parameter("sequence_id", 7_i64).is_step());
        assert!(request().sequence(Sequence::text("a").start()).is_step());
    }

    #[test]
    fn what_the_protocol_has_parameters_for_becomes_one() {
        let request = request()
            .priority(2)
            .queue_timeout(Duration::from_millis(3))
            .sequence(Sequence::number(5).end());
        let get = |name: &str| request.parameters.get(name).cloned();
        assert_eq!(get("priority"), Some(ParameterValue::Int(2)));
        assert_eq!(get("timeout"), Some(ParameterValue::Int(3_000)));
        assert_eq!(get("sequence_id"), Some(ParameterValue::Int(5)));
        assert_eq!(get("sequence_start"), Some(ParameterValue::Bool(false)));
        assert_eq!(get("sequence_end"), Some(ParameterValue::Bool(true)));
    }
}
