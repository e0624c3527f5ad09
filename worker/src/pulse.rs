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

    /// If the call takes longer than it may: gives it up, and answers how long it has taken and the batch that it is for. The
    /// call cannot come back meanwhile: either its thread sees that it was given up, or it is not. None also where `give_up`
    /// says that there was nothing to give up.
    pub(crate) fn give_up_overdue(
        &self,
        now: Instant,
        give_up: impl FnOnce() -> bool,
    ) -> Option<(Duration, Option<u64>)> {
        let call = self.call.lock();
        let Call { since, limit, batch } = (*call)?;
        let taken = now.saturating_duration_since(since);
        (taken >= limit && give_up()).then_some((taken, batch))
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
        let overdue = |now| pulse.give_up_overdue(now, || true);
        assert_eq!((overdue(now), pulse.due()), (None, None));
        pulse.begin(now, limit, Some(7));
        assert_eq!(pulse.due(), Some(now + limit));
        assert_eq!(overdue(now + Duration::from_millis(2_999)), None);
        assert_eq!(overdue(now + limit), Some((limit, Some(7))));
        pulse.end();
        assert_eq!(overdue(now + limit), None);
    }

    #[test]
    fn a_call_does_not_come_back_while_it_is_given_up() {
        let (pulse, now) = (Pulse::default(), Instant::now());
        pulse.begin(now, Duration::ZERO, None);
        let given_up = pulse.give_up_overdue(now, || {
            assert!(pulse.call.try_lock().is_none(), "its end would wait");
            true
        });
        assert_eq!(given_up, Some((Duration::ZERO, None)));
        assert_eq!(pulse.give_up_overdue(now, || false), None, "nothing to give up");
        pulse.end();
        assert_eq!(pulse.give_up_overdue(now, || panic!("it came back first")), None);
    }
}
