//! Why a V1 body is no request, and why an answer has no V1 form. Texts that clients look for begin as TensorFlow Serving's.

use mesh_types::{Fault, Label, VersionSelector};

use super::request::MAX_SPREAD_BYTES;
use crate::{
    error::{DecodeError, EncodeError},
    wire::MAX_TENSORS,
};

/// Why a call of the V1 protocol cannot be made or answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it is, and the fields are what the message names"
)]
pub enum V1Error {
    #[error("JSON Parse error: {0}")]
    Json(String),
    #[error("'signature_name' key must be a string value.")]
    Signature,
    #[error("signature '{0}' is not there: a model has 'serving_default' only")]
    UnknownSignature(String),
    #[error("the request has both 'instances' and 'inputs', only one is allowed")]
    Both,
    #[error("the request has neither 'instances' nor 'inputs'")]
    Neither,
    #[error("'instances' must be a list with at least one value")]
    NoInstances,
    #[error("'examples' must be a list with at least one object")]
    NoExamples,
    #[error("'context' must be an object")]
    Context,
    #[error(
        "the context, once for each example, comes to more than {MAX_SPREAD_BYTES} bytes: send fewer examples at once"
    )]
    Spread,
    #[error("instance {instance} has no value for input '{name}', which other instances have")]
    Missing { instance: usize, name: String },
    #[error("instance {instance} has input '{name}' more than once, or together with the context")]
    Twice { instance: usize, name: String },
    #[error("instance {instance} must be an object as the first one is")]
    NotObject { instance: usize },
    #[error("the model has {0} inputs: each value must say which, as in {{\"name\": value}}")]
    Unnamed(usize),
    #[error("at most {MAX_TENSORS} inputs are allowed")]
    TooManyInputs,
    #[error("the model has no input '{name}', it has {known}")]
    UnknownInput { name: String, known: String },
    #[error("input '{name}' is one value for all rows, and differs in instance {instance}")]
    Differs { instance: usize, name: String },
    #[error("input '{0}' nests lists deeper than any tensor")]
    Deep(String),
    #[error("{0}")]
    Input(#[from] DecodeError),
    #[error("the model takes one instance at a time, the request has {0}")]
    OneAtATime(usize),
    #[error("the model cannot classify: {0}")]
    NoClasses(&'static str),
    #[error("the model cannot be asked for a regression: {0}")]
    NoRegression(&'static str),
    #[error(
        "output '{name}' has {got} rows for {rows} instances: ask with 'inputs', whose answer is not taken apart by row"
    )]
    Rows { name: String, got: u64, rows: u64 },
    #[error("{0}")]
    Output(#[from] EncodeError),
}

impl From<V1Error> for Fault {
    fn from(error: V1Error) -> Self {
        match error {
            V1Error::Input(error) => error.into(),
            V1Error::Output(error) => error.into(),
            other => Self::invalid(other.to_string()),
        }
    }
}

/// The most characters of a name that such a text repeats.
const MAX_NAME_CHARS: usize = 128;

/// A model that is not there, as TensorFlow Serving names it.
pub fn not_found(name: &str, version: &VersionSelector) -> Fault {
    let name: String = name.chars().take(MAX_NAME_CHARS).collect();
    let servable = match version {
        VersionSelector::Default => format!("Latest({name})"),
        VersionSelector::Version(version) => format!("Specific({name}, {version})"),
        VersionSelector::Label(label) => format!("Label({name}, {label})"),
    };
    Fault::not_found(format!("Servable not found for request: {servable}"))
}

/// A label that a model does not have, which is the caller's mistake.
pub fn unknown_label(label: &Label) -> Fault {
    Fault::invalid(format!("Unrecognized servable version label: {label}"))
}
