//! Time, passed in: the clock trait with a real and a hand-driven implementation, and absolute deadlines.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Where now comes from.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time, for deadlines and measurements.
    fn now(&self) -> Instant;
    /// Seconds since the Unix epoch, for expiry dates.
    fn unix_seconds(&self) -> i64;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_seconds(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX)
    }
}

/// A clock that moves only when told, for tests and simulations.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    start_unix: i64,
    elapsed_ns: AtomicU64,
}

impl ManualClock {
    /// A clock that stands still at this Unix time.
    pub fn at(unix_seconds: i64) -> Self {
        Self {
            start: Instant::now(),
            start_unix: unix_seconds,
            elapsed_ns: AtomicU64::new(0),
        }
    }

    /// Moves time on.
    pub fn advance(&self, by: Duration) {
        let nanoseconds = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        self.elapsed_ns.fetch_add(nanoseconds, Ordering::SeqCst);
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_ns.load(Ordering::SeqCst))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    fn unix_seconds(&self) -> i64 {
        self.start_unix + i64::try_from(self.elapsed().as_secs()).unwrap_or(i64::MAX)
    }
}

/// The instant after which an answer is worthless. Absolute, so that every hop asks the same question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline at this instant.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// The deadline this long after `now`; beyond the clock's range it is as far as a day.
    pub fn after(now: Instant, timeout: Duration) -> Self {
        const FAR: Duration = Duration::from_secs(86_400);
        Self(now.checked_add(timeout).or_else(|| now.checked_add(FAR)).unwrap_or(now))
    }

    /// The instant.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// Whether it has passed.
    pub fn is_past(self, now: Instant) -> bool {
        now >= self.0
    }

    /// What is left; zero once passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::at(1_000);
        let before = clock.now();
        assert_eq!(clock.now(), before);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), before + Duration::from_secs(5));
        assert_eq!(clock.unix_seconds(), 1_005);
    }

    #[test]
    fn a_deadline_is_past_at_its_instant() {
        let now = Instant::now();
        let deadline = Deadline::after(now, Duration::from_millis(10));
        assert!(!deadline.is_past(now + Duration::from_millis(9)));
        assert!(deadline.is_past(now + Duration::from_millis(10)));
        assert_eq!(deadline.remaining(now + Duration::from_millis(11)), Duration::ZERO);
    }

    #[test]
    fn an_endless_timeout_does_not_overflow() {
        let now = Instant::now();
        assert!(!Deadline::after(now, Duration::MAX).is_past(now));
    }
}
