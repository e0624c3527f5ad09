//! The contract between a device thread and a model runtime.
//!
//! Synchronous on purpose: a [`LoadedModel`] is loaded and warmed on one thread, then moves to a device thread and is only
//! ever called there, so a runtime needs no locks and knows nothing of actors, queues or deadlines. Batches arrive gathered by reference and leave as whole tensors;
//! what belongs to which request is the caller's business.
//!
//! Invariants: an error from `execute` leaves the model usable; output tensors are in the configuration's order and have the
//! batch's rows first where the model batches. A decoupled model hands its answers on one by one ([`LoadedModel::generate`]), and
//! stops where nobody waits for more.

mod batch;
mod binding;
mod error;
mod files;
mod generation;
mod load;
mod naming;
mod signature;

pub use batch::{BatchInput, BatchInputs, BatchOutputs};
pub use binding::{Binding, Source, Step};
pub use error::BackendError;
pub use files::ModelFiles;
pub use generation::{AnswerSink, Next, Requests};
pub use load::{Backend, DeviceInfo, LoadSpec, LoadedModel, Passing};
pub use signature::{Argument, MAX_DEPTH, Signature, ValueType};
