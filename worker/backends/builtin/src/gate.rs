//! Where `hang_on_negative` hangs: until it is released, or for a bounded time.

use std::{
    sync::{Condvar, Mutex, PoisonError},
    time::Duration,
};

/// Holds whoever waits at it until it is opened for those that are there.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// How often it has been opened.
    openings: Mutex<u64>,
    opened: Condvar,
}

impl Gate {
    /// Lets everyone pass who waits now.
    pub(crate) fn open(&self) {
        *self.openings.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.opened.notify_all();
    }

    /// Waits for the next opening, but no longer than this.
    pub(crate) fn wait(&self, longest: Duration) {
        let openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *openings;
        let waited = self
            .opened
            .wait_timeout_while(openings, longest, |openings| *openings == before);
        drop(waited);
    }
}
