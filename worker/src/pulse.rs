//! What a thread is doing that may not take for ever: the watchdog's view of it.
//!
//! The thread notes when a call into a model began and how long it may take; the actor compares that with its clock.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A call into a model.
#[derive(Debug, Clone, Copy)]
struct Call {
    since: Instant,
    limit: Duration,
    /// The batch that it is for; none while a model is loaded.
    batch: Option<u64>,
}

/// The call that a thread is in, if any.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    call: Mutex<Option<Call>>,
}

impl Pulse {
    /// A call begins.
    pub(crate) fn begin(&self, now: Instant, limit: Duration, batch: Option<u64>) {
        *self.call.lock() = Some(Call {
            since: now,
            limit,
            batch,
        });
    }

    /// It has come back.
    pub(crate) fn end(&self) {
        *self.call.lock() = None;
    }

    /// How long the call has taken and the batch that it is for, if it takes longer than it may.
    pub(crate) fn overdue(&self, now: Instant) -> Option<(Duration, Option<u64>)> {
        let call = (*self.call.lock())?;
        let taken = now.saturating_duration_since(call.since);
        (taken >= call.limit).then_some((taken, call.batch))
    }

    /// When the call will have taken too long.
    pub(crate) fn due(&self) -> Option<Instant> {
        (*self.call.lock()).and_then(|call| call.since.checked_add(call.limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_overdue_at_its_limit_and_not_before() {
        let (pulse, now, limit) = (Pulse::default(), Instant::now(), Duration::from_secs(3));
        assert_eq!((pulse.overdue(now), pulse.due()), (None, None));
        pulse.begin(now, limit, Some(7));
        assert_eq!(pulse.due(), Some(now + limit));
        assert_eq!(pulse.overdue(now + Duration::from_millis(2_999)), None);
        assert_eq!(pulse.overdue(now + limit), Some((limit, Some(7))));
        pulse.end();
        assert_eq!(pulse.overdue(now + limit), None);
    }
}
