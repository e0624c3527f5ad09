//! Equal requests that come at once: one is computed, the others wait for its answer.
//!
//! The first leads. If it leaves or fails, the next that waits leads instead, so that nobody is answered with another's failure
//! and nobody waits for who is gone. Who waits keeps its own deadline and its permits.
//!
//! Invariants: at most [`MAX_WAITERS`] wait for one leader, and one more is computed by itself; a flight is there exactly as
//! long as somebody leads it; who comes after a purge joins nobody who came before it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Kept, key::Key};

/// The most requests that wait for an equal one.
pub(crate) const MAX_WAITERS: usize = 256;

/// What somebody who waits is told.
pub(crate) enum Turn {
    /// The answer is there.
    Answered(Kept),
    /// Nobody leads any more: it is to lead.
    Lead(Leader),
}

/// What a request does that was not remembered.
pub(crate) enum Role {
    /// Computes, and tells the others.
    Lead(Leader),
    /// Waits for who does.
    Wait(oneshot::Receiver<Turn>),
    /// Computes for itself: enough others wait.
    Alone,
}

/// Requests that are one: of this key, and begun after so many purges.
pub(crate) type Flight = (Key, u64);

/// The requests that are being computed.
#[derive(Default)]
pub(crate) struct Flights(Mutex<HashMap<Flight, VecDeque<oneshot::Sender<Turn>>>>);

/// Who computes for all; dropped without an answer it hands over.
pub(crate) struct Leader {
    flights: Arc<Flights>,
    flight: Flight,
    told: bool,
}

impl Flights {
    /// Joins whoever computes the same, or becomes it.
    pub(crate) fn join(self: &Arc<Self>, flight: Flight) -> Role {
        let mut flights = self.0.lock();
        let Some(waiting) = flights.get_mut(&flight) else {
            flights.insert(flight, VecDeque::new());
            return Role::Lead(self.leader(flight));
        };
        // Who has left makes room.
        if waiting.len() >= MAX_WAITERS {
            waiting.retain(|waiter| !waiter.is_closed());
        }
        if waiting.len() >= MAX_WAITERS {
            return Role::Alone;
        }
        let (tell, told) = oneshot::channel();
        waiting.push_back(tell);
        Role::Wait(told)
    }

    fn leader(self: &Arc<Self>, flight: Flight) -> Leader {
        Leader {
            flights: self.clone(),
            flight,
            told: false,
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

impl Leader {
    /// Tells everybody who waits.
    pub(crate) fn answer(mut self, outputs: &Kept) {
        self.told = true;
        let waiting = self.flights.0.lock().remove(&self.flight);
        for waiter in waiting.into_iter().flatten() {
            // Who has left need not be told.
            let _ = waiter.send(Turn::Answered(outputs.clone()));
        }
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let next = {
            let mut flights = self.flights.0.lock();
            let waiting = flights.get_mut(&self.flight);
            let next = waiting.and_then(|waiting| {
                while let Some(waiter) = waiting.pop_front() {
                    if !waiter.is_closed() {
                        return Some(waiter);
                    }
                }
                None
            });
            if next.is_none() {
                flights.remove(&self.flight);
            }
            next
        };
        if let Some(next) = next {
            // If it leaves before it hears this, what comes back is dropped, and so handed on.
            drop(next.send(Turn::Lead(self.flights.leader(self.flight))));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept() -> Kept {
        Arc::from([])
    }

    fn lead(flights: &Arc<Flights>) -> Leader {
        match flights.join(([1; 32], 0)) {
            Role::Lead(leader) => leader,
            _ => panic!("somebody leads already"),
        }
    }

    fn wait(flights: &Arc<Flights>) -> oneshot::Receiver<Turn> {
        match flights.join(([1; 32], 0)) {
            Role::Wait(waiting) => waiting,
            _ => panic!("nobody leads"),
        }
    }

    #[test]
    fn everybody_who_waits_is_told_and_the_flight_is_over() {
        let flights = Arc::<Flights>::default();
        let leader = lead(&flights);
        let mut waiting = [wait(&flights), wait(&flights)];
        assert!(
            matches!(flights.join(([2; 32], 0)), Role::Lead(_)),
            "another request is another flight"
        );
        assert!(
            matches!(flights.join(([1; 32], 1)), Role::Lead(_)),
            "and so is the same after a purge"
        );
        leader.answer(&kept());
        for waiting in &mut waiting {
            assert!(matches!(waiting.try_recv(), Ok(Turn::Answered(_))));
        }
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn a_leader_that_goes_hands_over_to_the_next_who_is_there() {
        let flights = Arc::<Flights>::default();
        let leader = lead(&flights);
        let (gone, mut next, mut last) = (wait(&flights), wait(&flights), wait(&flights));
        drop(gone);
        drop(leader);
        let Ok(Turn::Lead(leader)) = next.try_recv() else {
            panic!("the second one leads")
        };
        assert!(last.try_recv().is_err());
        // It has been told, but leaves before it looks.
        drop(leader);
        drop(last);
        assert_eq!(flights.len(), 0);
        drop(lead(&flights));
        assert_eq!(flights.len(), 0);
    }

    #[test]
    fn so_many_wait_and_one_more_goes_alone_until_one_leaves() {
        let flights = Arc::<Flights>::default();
        let _leader = lead(&flights);
        let mut waiting: Vec<_> = (0..MAX_WAITERS).map(|_| wait(&flights)).collect();
        assert!(matches!(flights.join(([1; 32], 0)), Role::Alone));
        waiting.pop();
        assert!(matches!(flights.join(([1; 32], 0)), Role::Wait(_)));
    }
}
