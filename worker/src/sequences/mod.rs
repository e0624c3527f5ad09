//! Stateful models on a device: what a model is told of its sequences, the states that are kept for it, and their end.
//!
//! The scheduler decides which step runs where and when; here a step becomes rows of a batch and rows become a state again.
//! A state that a configuration declares ([`mesh_types::StateSpec`]) is kept by the worker in the host's memory, counted and
//! bounded ([`Ledger`]), and outlives the instance; a model that keeps its state itself is only ever given the steps of a
//! sequence on one instance, and loses it with that.
//!
//! Invariants: callers neither send nor see control tensors and states; a declared state moves exactly when its step's answer
//! is handed to its caller; a step never runs on an instance that has not seen its sequence's first; the bytes of all states
//! stay within the device's bound, and those of one tenant within half of it.

mod batch;
mod keeping;
mod plan;
mod state;

pub(crate) use batch::{Prepared, partition, scatter};
pub(crate) use keeping::{Keeping, ended_step, not_in_sequence, refused_step};
pub(crate) use plan::Plan;
pub(crate) use state::{Ledger, Reserved, SequenceState, StateTensor};

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use mesh_types::{CorrelationId, Fault, FaultClass, FaultSource};

/// A request's step, as a device thread needs it.
#[derive(Debug)]
pub(crate) struct Step {
    /// Its row where sequences have rows of their own.
    pub(crate) slot: u32,
    /// The id that the model is told.
    pub(crate) told: CorrelationId,
    pub(crate) start: bool,
    pub(crate) end: bool,
    pub(crate) state: Arc<SequenceState>,
}

impl Step {
    /// Whether what it begins from is there: with this load of the model where that keeps it, else in the device's memory.
    pub(crate) fn can_run(&self, plan: &Plan, epoch: u64) -> bool {
        if self.start {
            return true;
        }
        if plan.keeps_itself() {
            return self.state.epoch() == epoch;
        }
        self.state.count() == plan.states.len()
    }
}

/// A number that no load of a model in this process has had: two loads of a model do not share what it keeps.
pub(crate) fn next_epoch() -> u64 {
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

/// The answer to a step whose sequence the instance that runs it does not know.
pub(crate) fn state_lost() -> Fault {
    let text = "the sequence was lost when its model was loaded anew: start it again with the START flag";
    Fault::new(FaultClass::InvalidArgument, FaultSource::Model, text)
}

#[cfg(test)]
pub(crate) mod tests;
