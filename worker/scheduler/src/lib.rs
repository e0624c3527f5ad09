//! Decides what a device runs next: a pure state machine with the clock passed in.
//!
//! Owns, for one device and over all models on it, the queues of waiting requests, fairness between tenants by the device time
//! that they use, deadlines, the forming of batches and the latency model that all of these lean on. Knows no threads, no
//! actors and no tensors: an item is a payload with a tenant, a number of rows, a shape and a deadline.
//!
//! Order: interactive requests before the batch class, which has a floor of a tenth; within a class the tenant with the least
//! device time for its weight; within a tenant by priority level, which waiting raises, and within a level by deadline. A
//! batch mixes tenants, except isolated ones. `dynamic_batching` has Triton's meaning (`dynamic_batch_scheduler.cc`).
//!
//! ```text
//! offer -> [ admission ] -> Waiting: group (model, shape) > lane (class) > tenant > level > deadline
//! offer_step -> [ sequences: one step of each at a time, on the slot that holds its state ] -> Waiting, pinned to the slot
//! poll  -> [ expire, choose a group, drop who is too late, fill ] -> Batch -> finished -> charges, latency
//! ```
//!
//! Invariants: an item leaves exactly once, in a batch or with a reason; a batch never exceeds its size, mixes shapes or mixes
//! an isolated tenant with another; tenants that wait all the time differ by no more than a few batches' time for their weight,
//! whatever models they wait for; charges of a batch add up to the time it took; everything is bounded.

mod accrual;
mod admission;
mod choosing;
mod company;
mod exploring;
mod fits;
mod floor;
mod forming;
mod item;
mod latency;
mod models;
mod pricing;
mod queue;
mod rules;
mod running;
mod scheduler;
mod sequences;
mod tenants;
mod waiting;

pub use item::{Batch, BatchId, Charge, Decision, Gone, Item, Refused, RefusedFor, ShapeKey, ShapePart};
pub use latency::Latency;
pub use models::{MAX_SHAPES, QUEUES_PER_MODEL};
pub use queue::AGEING;
pub use rules::{BatchRules, LevelRules};
pub use running::HANDOVER;
pub use scheduler::{MAX_PLACES, Outcome, Scheduler, TooLarge};
pub use sequences::{Aborted, Ended, MAX_REMEMBERED, MAX_SEQUENCES, Seat, SequenceCounts, SequenceRules, StepResult};
pub use tenants::MAX_TENANTS;

#[cfg(test)]
mod fairness_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;
