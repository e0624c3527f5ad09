//! TensorFlow Serving's calls over gRPC: messages to requests, responses to messages, and what is said about models.
//!
//! Owns the messages (made from `proto/` when this crate is built) and their descriptors for reflection. What callers send is read by
//! hand, field by field, as the messages of version 2 are: tensors and examples may have a million parts of two bytes each, for
//! which a generated decoder would take some fifty times as much. Answers are small or as large as their tensors, and are written by
//! the generated messages.
//!
//! A tensor comes as its bytes or as elements in the field of its datatype, of which the last fills what is missing; it goes out as
//! elements, which is what clients in every language read. Classes and regressions are those of [`crate::v1`].
//!
//! Invariants: as for the whole crate; what is filled or shared by all examples has a bound of its own.

mod about;
mod answer;
mod error;
mod example;
mod request;
mod tensor;

#[cfg(test)]
mod tests;

pub use about::{signature, status};
pub use answer::{classification, prediction, regression};
pub use error::{MAX_FILLED_BYTES, ServingError};
pub use example::{Examples, decode_examples};
pub use request::{Asked, Predict, decode_predict, decode_question};

/// The messages, as the protocol names them.
#[expect(
    missing_docs,
    reason = "the protocol's names say what each is, and proto/ what is not obvious"
)]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/tensorflow.rs"));

    /// Codes.
    pub mod error {
        include!(concat!(env!("OUT_DIR"), "/tensorflow.error.rs"));
    }

    /// Those of the calls themselves.
    pub mod serving {
        include!(concat!(env!("OUT_DIR"), "/tensorflow.serving.rs"));
    }
}

/// A `FileDescriptorSet` of the calls, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/serving.bin"));

/// The full name of the service of predictions.
pub const PREDICTIONS: &str = "tensorflow.serving.PredictionService";
/// The full name of the service that tells about versions.
pub const MODELS: &str = "tensorflow.serving.ModelService";
