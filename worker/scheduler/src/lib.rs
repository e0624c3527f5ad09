//! Forms batches: a pure state machine with the clock passed in.
//!
//! Owns the queues of one device, one per (model, shape), and the decision which requests run together and when. Knows no
//! threads, no actors and no tensors: an item is a payload with a number of rows, a shape key and a deadline.
//!
//! Triton's dynamic batching (`dynamic_batch_scheduler.cc`) is the model for the rules: requests are taken in order; a batch
//! never exceeds the model's maximum and never mixes shapes; the largest preferred size that the queue reaches is sent at
//! once; otherwise what is there is sent when the oldest has waited `max_delay`, at once if that is zero.
//!
//! Invariants: first in, first out within a queue; an item leaves exactly once, in a batch or refused; queues are bounded.

mod queue;
mod rules;
mod scheduler;

pub use queue::{Item, ShapeKey};
pub use rules::BatchRules;
pub use scheduler::{Batch, Decision, Gone, Refused, Scheduler};

#[cfg(test)]
mod tests;
