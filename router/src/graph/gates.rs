//! Gates in front of steps with a bound on requests at once: further ones wait in a [`Line`], which says who is next.
//!
//! One set for all routers, since the bound is the step's and not a thread's. A snapshot that changes a bound makes another
//! gate: requests that went through the former one are not counted by it.
//!
//! Invariants: a step without a bound has no gate and costs nothing; a place is handed on to who waits before anybody who comes can
//! take it; a gate is there while anybody is in it or waits, or a plan leads through it, and forgotten afterwards.

use std::{collections::HashMap, sync::Arc};

use mesh_types::{Fault, FaultSource, ModelVersionKey, Standing, TenantId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::line::{Full, Line, MAX_WAITING, MAX_WAITING_TENANTS, Number};

/// A step of a version, and its bound.
type Which = (Arc<ModelVersionKey>, usize, u32);

/// The gates of all steps that have a bound.
#[derive(Debug, Default)]
pub struct Gates {
    gates: Mutex<HashMap<Which, Arc<Gate>>>,
}

/// A step's gate.
#[derive(Debug)]
pub(crate) struct Gate {
    bound: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    inside: u32,
    line: Line<oneshot::Sender<Pass>>,
}

/// A place in a step; handed on when dropped. It holds the gate: one that is in use is not forgotten.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub(crate) struct Pass {
    gate: Option<Arc<Gate>>,
}

impl Drop for Pass {
    fn drop(&mut self) {
        if let Some(gate) = self.gate.take() {
            gate.hand_on();
        }
    }
}

/// Somebody who waits, in the line until it is next or leaves.
struct Waiter<'a> {
    gate: &'a Gate,
    number: Number,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // Outside the lock: what it was to be woken by may hold a place.
        let left = self.gate.state.lock().line.leave(&self.number);
        drop(left);
    }
}

impl Gates {
    /// The gate of a step; none where the step has no bound.
    pub(crate) fn of(&self, version: &Arc<ModelVersionKey>, step: usize, bound: u32) -> Option<Arc<Gate>> {
        if bound == 0 {
            return None;
        }
        let mut gates = self.gates.lock();
        let which = (version.clone(), step, bound);
        if let Some(gate) = gates.get(&which) {
            return Some(gate.clone());
        }
        // With the map locked, a count of one means that nobody holds or is about to take it.
        gates.retain(|_, gate| Arc::strong_count(gate) > 1);
        let gate = Arc::new(Gate::new(bound));
        gates.insert(which, gate.clone());
        Some(gate)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.gates.lock().len()
    }
}

impl Gate {
    pub(crate) fn new(bound: u32) -> Self {
        Self {
            bound,
            state: Mutex::default(),
        }
    }

    /// A place, if one is free. Where somebody waits none is.
    pub(crate) fn try_pass(self: &Arc<Self>) -> Option<Pass> {
        let mut state = self.state.lock();
        if state.inside >= self.bound {
            return None;
        }
        state.inside += 1;
        Some(self.place())
    }

    /// Waits for a place; refused where as many wait as may.
    pub(crate) async fn pass(self: &Arc<Self>, tenant: &TenantId, standing: &Standing) -> Result<Pass, Fault> {
        let (_waiter, called) = {
            let mut state = self.state.lock();
            if state.inside < self.bound {
                state.inside += 1;
                return Ok(self.place());
            }
            let (call, called) = oneshot::channel();
            let joined = state.line.join(tenant, standing.class, standing.share.weight, call);
            let number = joined.map_err(|full| self.full(full))?;
            (Waiter { gate: self, number }, called)
        };
        // Whoever waits is called, or leaves the line by itself.
        called.await.map_err(|_| Fault::internal("a gate forgot who waits"))
    }

    fn place(self: &Arc<Self>) -> Pass {
        Pass {
            gate: Some(self.clone()),
        }
    }

    /// A place is free: whoever is next has it.
    fn hand_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.state.lock();
                let next = state.line.pop();
                if next.is_none() {
                    state.inside = state.inside.saturating_sub(1);
                }
                next
            };
            let Some(next) = next else { return };
            match next.send(self.place()) {
                Ok(()) => return,
                // It left just now. The place is still to be handed on, but not by the pass's end.
                Err(mut pass) => pass.gate = None,
            }
        }
    }

    fn full(&self, full: Full) -> Fault {
        let waiting = match full {
            Full::Tenant => format!("{MAX_WAITING} of yours wait for it"),
            Full::Tenants => format!("requests of {MAX_WAITING_TENANTS} tenants wait for it"),
        };
        let text = format!(
            "{} requests are in this step and {waiting}, as many as may: try again",
            self.bound
        );
        Fault::unavailable(FaultSource::Mesh, text)
    }
}

#[cfg(test)]
#[path = "gates_tests.rs"]
mod tests;
