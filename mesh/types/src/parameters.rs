//! Parameters: small named values beside a request, a tensor or a model, as the protocol has them.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// What the protocol and Triton say by parameters of a request, and what the mesh does.
const MEANINGFUL: [&str; 7] = [
    "sequence_id",
    "sequence_start",
    "sequence_end",
    "priority",
    "timeout",
    "binary_data_output",
    "service_class",
];

/// A name that stands for nothing in a request and may not be made up: those that begin so are Triton's own, in responses.
pub fn is_reserved(name: &str) -> bool {
    name == "headers" || name.starts_with("triton_")
}

/// Whether a request's parameter of this name means something to the protocol or the mesh, so that it is no caller's own.
pub fn has_meaning(name: &str) -> bool {
    MEANINGFUL.contains(&name)
}

/// One value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ParameterValue {
    /// true or false.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// A number beyond the signed ones.
    Uint(u64),
    /// A number with a fraction.
    Double(f64),
    /// A text.
    String(String),
}

impl ParameterValue {
    /// The text, if it is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if it is a whole one and not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Int(number) => u64::try_from(*number).ok(),
            Self::Uint(number) => Some(*number),
            _ => None,
        }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }
}

impl From<bool> for ParameterValue {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<i64> for ParameterValue {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

/// Unsigned only where it has to be, as the wires have it.
impl From<u64> for ParameterValue {
    fn from(number: u64) -> Self {
        i64::try_from(number).map_or(Self::Uint(number), Self::Int)
    }
}

impl From<f64> for ParameterValue {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl From<String> for ParameterValue {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<&str> for ParameterValue {
    fn from(text: &str) -> Self {
        Self::String(text.to_owned())
    }
}

/// Values by name, in the order given.
pub type Parameters = IndexMap<String, ParameterValue>;
