//! TensorFlow Serving's REST protocol (V1), and what KServe's V1 has of it: JSON without datatypes and shapes, which are the
//! model's.
//!
//! Owns the bodies: `instances` (rows) and `inputs` (columns) to tensors, outputs to `predictions` and `outputs`, examples to
//! classes and regressions, the CloudEvents that either may be in, and the small answers about models. A value becomes what the model's configuration says; whether it
//! fits the model beyond that (extents, rows) the router says, as for every protocol. Pure, and without a tree: memory is bound
//! to the body's size as in the protocol of version 2.
//!
//! Invariants: lists are as regular as tensors are; every row names the same inputs; a row of the answer is that of its instance.

mod about;
mod error;
mod event;
mod literals;
mod request;
mod response;
mod value;

#[cfg(test)]
mod tests;

pub use about::{VersionStatus, metadata_body, models_body, status_body};
pub use error::{V1Error, not_found, unknown_label};
pub use event::{EventError, MAX_ATTRIBUTE_BYTES, RESPONSE_TYPE, check_event, decode_event, event_body};
pub use request::{Form, Predict, decode_examples, decode_predict};
pub(crate) use request::{MAX_SPREAD_BYTES, spec_of};
pub(crate) use response::{classes_of, regression_of};
pub use response::{encode_classes, encode_predictions, encode_regressions};

/// The only signature that a model has here.
pub const SIGNATURE: &str = "serving_default";
