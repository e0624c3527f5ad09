//! Gates in front of steps with a bound on requests at once: further ones wait, in the order in which they came.
//!
//! One set for all routers, since the bound is the step's and not a thread's. A snapshot that changes a bound makes another
//! gate: requests that went through the former one are not counted by it.
//!
//! Invariants: a step without a bound has no gate and costs nothing; at most [`MAX_WAITING`] wait at one gate; a gate that nobody
//! uses is forgotten.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use mesh_types::{Fault, FaultSource, ModelVersionKey};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The most requests that wait at one step's gate; one more is refused.
pub const MAX_WAITING: usize = 1_024;

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
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    bound: u32,
}

/// A place in a step; given back when dropped.
#[derive(Debug)]
#[must_use = "dropping it gives the place back"]
pub(crate) struct Pass(#[expect(dead_code, reason = "held for its end")] OwnedSemaphorePermit);

/// Somebody who waits, counted until it waits no more.
struct Waiter<'a>(&'a AtomicUsize);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
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
        let gate = Arc::new(Gate {
            places: Arc::new(Semaphore::new(usize::try_from(bound).unwrap_or(Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            bound,
        });
        gates.insert(which, gate.clone());
        Some(gate)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.gates.lock().len()
    }
}

impl Gate {
    /// A place, if one is free and nobody waits.
    pub(crate) fn try_pass(&self) -> Option<Pass> {
        self.places.clone().try_acquire_owned().ok().map(Pass)
    }

    /// Waits for a place; refused where as many wait as may.
    pub(crate) async fn pass(&self) -> Result<Pass, Fault> {
        let one_more = |waiting: usize| (waiting < MAX_WAITING).then_some(waiting + 1);
        let counted = self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        let full = || {
            let text = format!(
                "{} requests are in this step and {MAX_WAITING} wait for it, as many as may: try again",
                self.bound
            );
            Fault::unavailable(FaultSource::Mesh, text)
        };
        if counted.is_err() {
            return Err(full());
        }
        let _waiter = Waiter(&self.waiting);
        let place = self.places.clone().acquire_owned().await;
        // Nobody closes the semaphore.
        place.map(Pass).map_err(|_| full())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use mesh_types::{ModelId, TenantId, Version};

    use super::*;

    fn version(number: u32) -> Arc<ModelVersionKey> {
        Arc::new(ModelVersionKey {
            tenant: TenantId::parse("acme").unwrap(),
            model: ModelId::parse("pipe").unwrap(),
            version: Version::new(number).unwrap(),
        })
    }

    #[test]
    fn a_step_without_a_bound_has_no_gate_and_one_with_has_one_for_all() {
        let gates = Gates::default();
        assert!(gates.of(&version(1), 0, 0).is_none());
        let (one, other) = (
            gates.of(&version(1), 0, 2).unwrap(),
            gates.of(&version(1), 0, 2).unwrap(),
        );
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one, &gates.of(&version(1), 1, 2).unwrap()));
        drop((one, other));
        let _kept = gates.of(&version(2), 0, 1).unwrap();
        assert_eq!(gates.len(), 1, "those that nobody uses are forgotten");
    }

    #[tokio::test]
    async fn the_bound_passes_and_one_more_waits_until_a_place_is_given_back() {
        let gate = Gates::default().of(&version(1), 0, 2).unwrap();
        let first = gate.try_pass().unwrap();
        let _second = gate.try_pass().unwrap();
        assert!(gate.try_pass().is_none());
        let waiting = gate.pass();
        tokio::pin!(waiting);
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        assert!(waiting.now_or_never().unwrap().is_ok());
    }

    #[tokio::test]
    async fn as_many_wait_as_may_and_one_more_is_refused() {
        let gate = Gates::default().of(&version(1), 0, 1).unwrap();
        let _inside = gate.try_pass().unwrap();
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(gate.pass())).collect();
        for one in &mut waiting {
            assert!(one.as_mut().now_or_never().is_none());
        }
        let refused = gate.pass().now_or_never().unwrap().unwrap_err();
        assert!(
            refused.message.contains("1 requests are in this step and 1024 wait"),
            "{refused}"
        );
        waiting.pop();
        assert!(gate.pass().now_or_never().is_none(), "one left, so one may wait again");
    }
}
