//! Whether and when a call is sent again. Pure: what is left of the time and the chance are passed in.
//!
//! A call is sent again only where that is safe: nothing was sent, or the server says that it may. The waits grow and are spread
//! at random, so that many callers that were refused together do not come back together; what the server asks for is never
//! undercut, and a wait that would go past the deadline is not begun.

use std::time::Duration;

use crate::Error;

/// The most further tries of a call.
pub const MAX_RETRIES: u32 = 10;
/// Further tries where nothing is said.
pub const DEFAULT_RETRIES: u32 = 2;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// How long to wait before the next try, after `tried` tries of which the last ended so; none to give up.
///
/// `chance` is from 0 to 1.
pub(crate) fn wait(failed: &Error, tried: u32, retries: u32, left: Duration, chance: f64) -> Option<Duration> {
    if !failed.may_retry() || tried > retries.min(MAX_RETRIES) {
        return None;
    }
    let doublings = tried.saturating_sub(1).min(MAX_RETRIES);
    let longest = FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT);
    let chance = chance.clamp(0.0, 1.0);
    let wait = match failed.retry_after() {
        // Not before, and not all at that moment.
        Some(asked) => asked.saturating_add(longest.mul_f64(chance / 2.0)),
        None => longest.mul_f64(0.5 + chance / 2.0),
    };
    (wait < left).then_some(wait)
}

#[cfg(test)]
mod tests {
    use mesh_types::Retry;

    use super::*;
    use crate::Status;

    const LONG: Duration = Duration::from_secs(60);

    fn refused(retry: Retry) -> Error {
        Error::refused(Status::Http(503), "full".into(), retry, None)
    }

    #[test]
    fn a_call_is_tried_as_often_as_allowed_and_never_more_than_the_bound() {
        let lost = Error::Unreachable("x".into());
        assert!(wait(&lost, 2, 2, LONG, 0.5).is_some());
        assert!(wait(&lost, 3, 2, LONG, 0.5).is_none());
        assert!(wait(&lost, 1, 0, LONG, 0.5).is_none());
        assert!(wait(&lost, MAX_RETRIES, u32::MAX, LONG, 0.5).is_some());
        assert!(wait(&lost, MAX_RETRIES + 1, u32::MAX, LONG, 0.5).is_none());
    }

    #[test]
    fn waits_grow_up_to_a_bound_and_are_spread() {
        let lost = Error::Unreachable("x".into());
        let at = |tried, chance| wait(&lost, tried, 10, LONG, chance).unwrap();
        assert_eq!((at(1, 0.0), at(1, 1.0)), (FIRST_WAIT / 2, FIRST_WAIT));
        assert_eq!(at(3, 1.0), FIRST_WAIT * 4);
        assert_eq!(at(10, 1.0), LONGEST_WAIT);
    }

    #[test]
    fn what_the_server_asks_for_is_not_undercut_and_the_deadline_is_not_passed() {
        let asked = Duration::from_millis(300);
        let busy = refused(Retry::After(asked));
        assert_eq!(wait(&busy, 1, 2, LONG, 0.0), Some(asked));
        assert!(wait(&busy, 1, 2, LONG, 1.0).is_some_and(|wait| wait > asked));
        assert_eq!(wait(&busy, 1, 2, asked, 0.0), None);
        assert_eq!(wait(&busy, 1, 2, asked + Duration::from_nanos(1), 0.0), Some(asked));
        let never = refused(Retry::After(Duration::MAX));
        assert_eq!(wait(&never, 1, 2, LONG, 1.0), None);
    }

    #[test]
    fn what_may_have_run_is_never_sent_again() {
        for error in [
            refused(Retry::No),
            Error::Broken("x".into()),
            Error::Deadline(LONG),
            Error::Unreadable("x".into()),
        ] {
            assert_eq!(wait(&error, 1, 10, LONG, 0.5), None, "{error}");
        }
    }
}
