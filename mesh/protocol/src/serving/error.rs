//! Why a message of TensorFlow Serving's is no request. Texts that clients look for begin as TensorFlow Serving's.

use mesh_types::{DataType, Fault};

use crate::{error::DecodeError, v1::V1Error};

/// The most bytes that elements may come to which a tensor does not hold: its last one fills the shape, and a short message could claim
/// far more than it has.
pub const MAX_FILLED_BYTES: usize = 16 << 20;

/// Why a call of TensorFlow Serving's cannot be made or answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it is, and the fields are what the message names"
)]
pub enum ServingError {
    #[error("Missing model name in ModelSpec")]
    NoName,
    #[error("Servable not found for request: Specific({name}, {version})")]
    NoVersion { name: String, version: i64 },
    #[error("Unrecognized servable version label: {0}")]
    NoLabel(String),
    #[error("input '{name}' has the dtype {dtype}, which no model here has")]
    DataType { name: String, dtype: u64 },
    #[error("input '{name}' has a shape of unknown rank, its extents are needed")]
    UnknownRank { name: String },
    #[error("input '{name}' of DT_STRING has tensor_content, texts are in string_val")]
    TextContent { name: String },
    #[error("input '{name}' of datatype {datatype} has elements in another field than '{right}'")]
    OtherField {
        name: String,
        datatype: DataType,
        right: &'static str,
    },
    #[error(
        "input '{name}' has too few elements for its shape: to fill it would take more than {MAX_FILLED_BYTES} bytes"
    )]
    Filled { name: String },
    #[error("input '{name}' of datatype {datatype} is not in '{right}' in example {example}")]
    OtherList {
        name: String,
        datatype: DataType,
        right: &'static str,
        example: usize,
    },
    #[error("input '{name}' has {got} values in example {example}, and {expected} in the first one")]
    Ragged {
        name: String,
        example: usize,
        got: usize,
        expected: usize,
    },
    #[error("input '{name}' has {got} values in each example, which its dims do not lead to a shape for")]
    NoShape { name: String, got: usize },
    #[error("the metadata '{0}' is not offered: ask for 'signature_def'")]
    NoMetadata(String),
    #[error("{0}")]
    Input(#[from] DecodeError),
    #[error("{0}")]
    Example(#[from] V1Error),
}

impl From<ServingError> for Fault {
    fn from(error: ServingError) -> Self {
        match error {
            ServingError::NoVersion { .. } => Self::not_found(error.to_string()),
            ServingError::Input(error) => error.into(),
            ServingError::Example(error) => error.into(),
            other => Self::invalid(other.to_string()),
        }
    }
}
