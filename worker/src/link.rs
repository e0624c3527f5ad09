//! What a device thread and its actor know of each other besides orders and news: whether the thread is there.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::pulse::Pulse;

/// Where a thread stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// It takes orders.
    #[default]
    Running,
    /// Given up; it ends when the execution that hangs comes back.
    Abandoned,
    /// It has ended.
    Ended,
}

/// Shared by a thread and the actor that started it.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub(crate) pulse: Pulse,
    state: Mutex<State>,
    changed: Condvar,
}

impl Link {
    /// Gives the thread up; false if it has ended by itself.
    pub(crate) fn abandon(&self) -> bool {
        let mut state = self.state.lock();
        let running = *state == State::Running;
        if running {
            *state = State::Abandoned;
        }
        running
    }

    pub(crate) fn is_abandoned(&self) -> bool {
        *self.state.lock() == State::Abandoned
    }

    pub(crate) fn is_running(&self) -> bool {
        *self.state.lock() == State::Running
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.state.lock() == State::Ended
    }

    /// The thread's last word; answers how it stood before.
    pub(crate) fn ended(&self) -> State {
        let before = std::mem::replace(&mut *self.state.lock(), State::Ended);
        self.changed.notify_all();
        before
    }

    /// Waits until the thread has ended, but no longer than `patience`; whether it has.
    pub(crate) fn wait(&self, patience: Duration) -> bool {
        let mut state = self.state.lock();
        self.changed
            .wait_while_for(&mut state, |state| *state != State::Ended, patience);
        *state == State::Ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_has_ended_cannot_be_abandoned() {
        let link = Link::default();
        assert_eq!(link.ended(), State::Running);
        assert!(!link.abandon() && !link.is_running());
        assert!(link.wait(Duration::ZERO));
    }

    #[test]
    fn an_abandoned_thread_is_waited_for_no_longer_than_patience_lasts() {
        let link = Link::default();
        assert!(link.abandon() && link.is_abandoned());
        assert!(!link.abandon(), "once");
        assert!(!link.wait(Duration::from_millis(1)));
        assert_eq!(link.ended(), State::Abandoned);
    }
}
