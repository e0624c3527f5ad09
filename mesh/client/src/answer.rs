//! What came back: outputs, the version and arm that answered, and the request's own number.

use bytes::Bytes;
use mesh_types::{Parameters, TraceContext};

use crate::{Error, Output};

/// A prediction.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The id that the request had.
    pub id: Option<String>,
    /// The name that was called.
    pub model: String,
    /// The version that answered.
    pub version: String,
    /// The outputs, in the model's order or the order asked for.
    pub outputs: Vec<Output>,
    /// What the server says beside them.
    pub parameters: Parameters,
    /// The arm of the endpoint's split; none for a model, and on a stream.
    pub arm: Option<String>,
    /// The server's number for the request, as in its logs and traces; none on a stream.
    pub request_id: Option<String>,
    /// The request's own span on the server; none on a stream.
    pub trace: Option<TraceContext>,
}

impl Answer {
    /// An output by name, or an error that says which there are.
    pub fn output(&self, name: &str) -> Result<&Output, Error> {
        let found = self.outputs.iter().find(|output| output.name() == name);
        found.ok_or_else(|| {
            let names: Vec<&str> = self.outputs.iter().map(Output::name).collect();
            Error::invalid(format!(
                "the answer has no output '{name}', it has {}",
                names.join(", ")
            ))
        })
    }
}

/// The answer to a request that was sent as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct JsonAnswer {
    /// The JSON.
    pub body: Bytes,
    /// The arm of the endpoint's split.
    pub arm: Option<String>,
    /// The server's number for the request.
    pub request_id: Option<String>,
}
