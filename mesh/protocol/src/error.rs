//! Why bytes are no request, and why a response cannot be written. Each text says what was wrong and what would be right.
//!
//! Texts hold names that the caller sent, cut short, and nothing else of the body.

use mesh_types::{DataType, Fault, FaultClass, FaultSource, MAX_RANK, TensorError};

use crate::forward::{MAX_FORWARDED, MAX_FORWARDED_BYTES};
use crate::wire::{MAX_ID_BYTES, MAX_PARAMETERS, MAX_TENSOR_NAME_BYTES, MAX_TENSORS};

/// The most characters of a caller's text that a message repeats.
const MAX_QUOTED_CHARS: usize = 64;
/// The longest message of the JSON parser that is passed on whole; it may quote the caller's text.
const MAX_JSON_MESSAGE_CHARS: usize = 200;

/// A caller's text, cut for a message.
pub(crate) fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

/// Why a body is no inference request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it is, and the fields are what the message names"
)]
pub enum DecodeError {
    #[error("failed to parse the request JSON: {0}")]
    Json(String),
    #[error("the b64 of a region's 'raw_handle' must be base64")]
    Handle,
    #[error("the request has no 'inputs', at least one input is needed")]
    NoInputs,
    #[error("at most {MAX_TENSORS} {what} are allowed in a request")]
    TooManyTensors { what: &'static str },
    #[error("at most {MAX_PARAMETERS} parameters are allowed")]
    TooManyParameters,
    #[error("the request id has {0} bytes, at most {MAX_ID_BYTES} are allowed")]
    LongId(usize),
    #[error("a tensor name has 1 to {MAX_TENSOR_NAME_BYTES} bytes, got {0}")]
    NameLength(usize),
    #[error("input '{name}' is there more than once")]
    DuplicateInput { name: String },
    #[error("output '{name}' is asked for more than once")]
    DuplicateOutput { name: String },
    #[error("input '{name}': {problem}")]
    DataType { name: String, problem: String },
    #[error("input '{name}' has a shape of more than {MAX_RANK} dimensions")]
    Rank { name: String },
    #[error("input '{name}' has the extent {extent} in its shape, an extent is 0 or more")]
    NegativeExtent { name: String, extent: i64 },
    #[error("input {0}")]
    Tensor(String),
    #[error("input '{name}' has neither 'data' nor the parameter 'binary_data_size'")]
    NoData { name: String },
    #[error("input '{name}' has both 'data' and the parameter 'binary_data_size', only one is allowed")]
    TwoData { name: String },
    #[error(
        "input '{name}' of datatype {datatype} cannot be written as JSON, send it as binary data (parameter 'binary_data_size')"
    )]
    NotInJson { name: String, datatype: DataType },
    #[error("input '{name}', element {index}: {problem}")]
    Element {
        name: String,
        index: usize,
        problem: String,
    },
    #[error("input '{name}' has {got} elements in 'data', its shape needs {expected}")]
    Count { name: String, got: String, expected: usize },
    #[error(
        "input '{name}' has 'data' that is nested otherwise than its shape; write it flat, or nested exactly as the shape says"
    )]
    Nesting { name: String },
    #[error("input '{name}' has 'data' that is not an array")]
    DataNotArray { name: String },
    #[error("input '{name}' says binary_data_size {size}, it must be 0 or more")]
    NegativeSize { name: String, size: i64 },
    #[error(
        "input '{name}' has the parameter 'binary_data_size', which needs the header Inference-Header-Content-Length"
    )]
    NoHeader { name: String },
    #[error("input '{name}' says binary_data_size {size}, but only {left} bytes of binary data are left in the body")]
    BinaryShort { name: String, size: u64, left: usize },
    #[error("{extra} bytes of the body follow the last input's binary data, there must be none")]
    BinaryExtra { extra: usize },
    #[error(
        "the header Inference-Header-Content-Length says {header} bytes of JSON, but the body has only {body} bytes"
    )]
    HeaderBeyondBody { header: usize, body: usize },
    #[error("failed to parse the request message: {0}")]
    Message(&'static str),
    #[error("the request's model_version is no version: {0}")]
    Version(String),
    #[error("parameter '{name}' holds no value")]
    NoValue { name: String },
    #[error("input '{name}' has both 'contents' and 'raw_input_contents', only one is allowed in a request")]
    TwoContents { name: String },
    #[error("input '{name}' has neither 'contents' nor 'raw_input_contents'")]
    NoContents { name: String },
    #[error("the request has {got} 'raw_input_contents' for {expected} inputs, each input has one")]
    RawCount { got: usize, expected: usize },
    #[error("input '{name}' of datatype {datatype} has no field in 'contents', send its bytes in 'raw_input_contents'")]
    NotInContents { name: String, datatype: DataType },
    #[error("input '{name}' of datatype {datatype} has elements in another field than '{right}'")]
    OtherContents {
        name: String,
        datatype: DataType,
        right: &'static str,
    },
    #[error("input '{name}' has {got} elements in 'contents', its shape needs {expected}")]
    ContentsCount { name: String, got: String, expected: usize },
    #[error(
        "'{name}' is neither an input of the model nor a parameter: a parameter is a string, a number, true or false"
    )]
    NoInputNoParameter { name: String },
    #[error("parameter '{name}' is reserved: 'headers' and names that begin with 'triton_' are not a caller's to send")]
    Reserved { name: String },
    #[error("parameter '{name}' is true or false")]
    NoFlag { name: &'static str },
    #[error("header '{name}': {problem}")]
    Header { name: String, problem: &'static str },
    #[error("at most {MAX_FORWARDED} headers of {MAX_FORWARDED_BYTES} bytes are forwarded, the request has more")]
    TooManyHeaders,
    #[error("input '{name}' has the parameter 'classification', which is for outputs")]
    ClassesOfInput { name: String },
    #[error("output '{name}': parameter 'classification' is the number of classes wanted, a whole number of 1 or more")]
    ClassCount { name: String },
    #[error("{what} '{name}': {problem}")]
    Region {
        what: &'static str,
        name: String,
        problem: &'static str,
    },
    #[error("{0}")]
    Setting(String),
    #[error("{name} can not be updated through network protocol: {why}")]
    ReadOnly { name: String, why: &'static str },
    #[error(
        "Raw request must only have 1 input (found 1) to be deduced but got {inputs} inputs in '{model}' model configuration"
    )]
    RawInputs { inputs: usize, model: String },
    #[error(
        "The shape of the raw input '{name}' can not be deduced because there are more than one variable-sized dimension"
    )]
    RawShape { name: String },
    #[error("For BYTE datatype raw input '{name}', the model must have input shape [1]")]
    RawText { name: String },
}

impl DecodeError {
    /// A tensor whose bytes and shape disagree.
    pub(crate) fn tensor(error: &TensorError) -> Self {
        // The message begins with "tensor '..'"; the caller knows it as an input.
        let text = error.to_string();
        Self::Tensor(text.strip_prefix("tensor ").unwrap_or(&text).to_owned())
    }
}

impl From<serde_json::Error> for DecodeError {
    fn from(error: serde_json::Error) -> Self {
        Self::Json(what_is_no_json(&error))
    }
}

/// What is wrong with a body, of bounded length: the parser repeats a text of the caller's whole.
pub(crate) fn what_is_no_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.chars().count() <= MAX_JSON_MESSAGE_CHARS {
        return text;
    }
    let start: String = text.chars().take(MAX_JSON_MESSAGE_CHARS).collect();
    format!("{start}.. at line {} column {}", error.line(), error.column())
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        let class = match error {
            DecodeError::ReadOnly { .. } => FaultClass::Unsupported,
            _ => FaultClass::InvalidArgument,
        };
        Self::new(class, FaultSource::Client, error.to_string())
    }
}

/// Why a response cannot be written as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it is, and the fields are what the message names"
)]
pub enum EncodeError {
    #[error(
        "output '{name}' of datatype {datatype} cannot be written as JSON, ask for it as binary data (parameter 'binary_data')"
    )]
    NotInJson { name: String, datatype: DataType },
    #[error(
        "output '{name}' holds NaN or infinity, which JSON cannot express, ask for it as binary data (parameter 'binary_data')"
    )]
    NotFinite { name: String },
    #[error(
        "output '{name}' holds bytes that are not UTF-8, which JSON cannot express, ask for it as binary data (parameter 'binary_data')"
    )]
    NotText { name: String },
}

impl From<EncodeError> for Fault {
    fn from(error: EncodeError) -> Self {
        Self::invalid(error.to_string())
    }
}
