//! Parameters: small named values beside a request, a tensor or a model, as the protocol has them.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

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

/// Values by name, in the order given.
pub type Parameters = IndexMap<String, ParameterValue>;
