//! How often failed sign-ins are written into the audit log: each costs a write to the disk, and strangers can cause them.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const NOTES_WINDOW: Duration = Duration::from_secs(60);
/// Failures that are written in a minute; more are in the program's log only.
const MAX_NOTES: u32 = 30;

/// The failures of this minute.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Option<(Instant, u32)>>);

impl Notes {
    /// Whether one more may be written.
    pub(super) fn may(&self, now: Instant) -> bool {
        let mut window = self.0.lock();
        match &mut *window {
            Some((since, count)) if now.saturating_duration_since(*since) < NOTES_WINDOW => {
                *count = count.saturating_add(1);
                *count <= MAX_NOTES
            }
            _ => {
                *window = Some((now, 1));
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirty_failures_are_noted_in_a_minute_and_the_next_is_not() {
        let (notes, now) = (Notes::default(), Instant::now());
        assert!((0..MAX_NOTES).all(|_| notes.may(now)));
        assert!(!notes.may(now));
        assert!(notes.may(now + NOTES_WINDOW));
    }
}
