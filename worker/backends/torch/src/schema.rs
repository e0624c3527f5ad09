//! A module's signature as the shim writes it: JSON, read into the backend's words.

use mesh_backend::{Argument, Signature, ValueType};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct WireSignature {
    arguments: Vec<WireArgument>,
    result: WireType,
}

#[derive(Debug, Deserialize)]
struct WireArgument {
    name: String,
    #[serde(rename = "type")]
    value: WireType,
    default: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "is", rename_all = "lowercase")]
enum WireType {
    Tensor,
    Int,
    Float,
    Bool,
    Optional { of: Box<WireType> },
    List { of: Box<WireType>, length: Option<usize> },
    Tuple { of: Vec<WireType>, names: Vec<String> },
    Dict { of: Box<WireType>, keys: Vec<String> },
    Other { text: String },
}

/// Reads it; an error is a defect of the shim and says where.
pub(crate) fn read(json: &str) -> Result<Signature, serde_json::Error> {
    let wire: WireSignature = serde_json::from_str(json)?;
    let argument = |wire: WireArgument| Argument {
        name: wire.name,
        value: value(wire.value),
        default: wire.default,
    };
    Ok(Signature {
        arguments: wire.arguments.into_iter().map(argument).collect(),
        result: value(wire.result),
        max_rows: None,
    })
}

fn value(wire: WireType) -> ValueType {
    match wire {
        WireType::Tensor => ValueType::tensor(),
        WireType::Int => ValueType::Int,
        WireType::Float => ValueType::Float,
        WireType::Bool => ValueType::Bool,
        WireType::Optional { of } => ValueType::Optional(Box::new(value(*of))),
        WireType::List { of, length } => ValueType::List {
            item: Box::new(value(*of)),
            length,
        },
        WireType::Tuple { of, names } if names.len() == of.len() && !names.is_empty() => {
            ValueType::Record(names.into_iter().zip(of.into_iter().map(value)).collect())
        }
        WireType::Tuple { of, .. } => ValueType::Tuple(of.into_iter().map(value).collect()),
        WireType::Dict { of, keys } => ValueType::Dict {
            value: Box::new(value(*of)),
            keys,
        },
        WireType::Other { text } => ValueType::Other(text),
    }
}
