//! Whether a model may run: one that crashes again and again is kept from the device for a while.
//!
//! A crash is a panic, a hung execution or a failed reload; an error that the model reports is none. After
//! [`MAX_CRASHES`] batches in a row that crashed, with no execution between them that ended well, the model is
//! quarantined for a cool-down. Then one request is let through: if it crashes too, the next cool-down is twice as long;
//! if not, the model is trusted again. Pure: the clock is passed in.

use std::time::{Duration, Instant};

/// Crashed batches in a row after which a model is quarantined.
pub(crate) const MAX_CRASHES: u32 = 3;
/// The first cool-down.
pub(crate) const COOL_DOWN: Duration = Duration::from_secs(10);
/// The longest cool-down, however often a probe crashes.
pub(crate) const MAX_COOL_DOWN: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Runs; so many of its last batches crashed.
    Trusted(u32),
    /// Does not run before this instant.
    Quarantined(Instant),
    /// Lets one request through; whether that is under way.
    Probation(bool),
}

/// What happens to a job for a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It may wait for a batch.
    Open,
    /// It is refused; worth another try after this long.
    Shut(Duration),
}

/// The record of one model on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quarantine {
    standing: Standing,
    cool_down: Duration,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self {
            standing: Standing::Trusted(0),
            cool_down: COOL_DOWN,
        }
    }
}

impl Quarantine {
    /// A batch ran and something in it ended well.
    pub(crate) fn ended_well(&mut self) {
        if !matches!(self.standing, Standing::Quarantined(_)) {
            *self = Self::default();
        }
    }

    /// A batch ran and failed without a crash: the model is not well, but it answers.
    pub(crate) fn responded(&mut self) {
        if matches!(self.standing, Standing::Probation(_)) {
            *self = Self::default();
        }
    }

    /// A batch crashed, and nothing in it ended well. Answers how long the model is kept away, if that begins now.
    pub(crate) fn crashed(&mut self, now: Instant) -> Option<Duration> {
        let cool_down = match self.standing {
            Standing::Quarantined(_) => return None,
            Standing::Trusted(crashes) if crashes + 1 < MAX_CRASHES => {
                self.standing = Standing::Trusted(crashes + 1);
                return None;
            }
            Standing::Trusted(_) => COOL_DOWN,
            Standing::Probation(_) => (self.cool_down * 2).min(MAX_COOL_DOWN),
        };
        self.cool_down = cool_down;
        self.standing = Standing::Quarantined(now + cool_down);
        Some(cool_down)
    }

    /// The probe left without having run: the next request is one.
    pub(crate) fn probe_lost(&mut self) {
        if self.standing == Standing::Probation(true) {
            self.standing = Standing::Probation(false);
        }
    }

    /// Whether its cool-down is over, which begins its probation.
    pub(crate) fn released(&mut self, now: Instant) -> bool {
        let over = self.until().is_some_and(|until| now >= until);
        if over {
            self.standing = Standing::Probation(false);
        }
        over
    }

    /// When its cool-down will be over.
    pub(crate) fn until(&self) -> Option<Instant> {
        match self.standing {
            Standing::Quarantined(until) => Some(until),
            Standing::Trusted(_) | Standing::Probation(_) => None,
        }
    }

    /// Whether a job may come in; on probation the first one may, and is the probe.
    pub(crate) fn enter(&mut self, now: Instant) -> Entry {
        match self.standing {
            Standing::Trusted(_) => Entry::Open,
            Standing::Probation(false) => {
                self.standing = Standing::Probation(true);
                Entry::Open
            }
            Standing::Probation(true) => Entry::Shut(Duration::ZERO),
            Standing::Quarantined(until) => Entry::Shut(until.saturating_duration_since(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn quarantined(now: Instant) -> Quarantine {
        let mut quarantine = Quarantine::default();
        for _ in 1..MAX_CRASHES {
            assert_eq!(quarantine.crashed(now), None);
        }
        assert_eq!(quarantine.crashed(now), Some(COOL_DOWN));
        quarantine
    }

    #[test]
    fn the_bound_of_crashes_quarantines_and_one_fewer_does_not() {
        let now = Instant::now();
        let mut quarantine = Quarantine::default();
        for _ in 1..MAX_CRASHES {
            assert_eq!(quarantine.crashed(now), None);
            assert_eq!(quarantine.enter(now), Entry::Open);
        }
        quarantine.ended_well();
        for _ in 1..MAX_CRASHES {
            assert_eq!(
                quarantine.crashed(now),
                None,
                "a success between them counts from the start"
            );
        }
        assert_eq!(quarantine.crashed(now), Some(COOL_DOWN));
        assert_eq!(quarantine.enter(now + SECOND), Entry::Shut(COOL_DOWN - SECOND));
    }

    #[test]
    fn after_the_cool_down_one_request_decides() {
        let now = Instant::now();
        let mut quarantine = quarantined(now);
        assert!(!quarantine.released(now + COOL_DOWN - SECOND));
        assert!(quarantine.released(now + COOL_DOWN));
        assert_eq!(quarantine.enter(now), Entry::Open);
        assert_eq!(quarantine.enter(now), Entry::Shut(Duration::ZERO), "one only");
        quarantine.probe_lost();
        assert_eq!(quarantine.enter(now), Entry::Open);
        quarantine.ended_well();
        assert_eq!(quarantine, Quarantine::default());
    }

    #[test]
    fn an_error_without_a_crash_ends_a_probation_but_no_row_of_crashes() {
        let now = Instant::now();
        let mut probed = quarantined(now);
        assert!(probed.released(now + COOL_DOWN));
        probed.responded();
        assert_eq!(probed, Quarantine::default());
        for _ in 1..MAX_CRASHES {
            assert_eq!(probed.crashed(now), None);
            probed.responded();
        }
        assert_eq!(probed.crashed(now), Some(COOL_DOWN));
    }

    #[test]
    fn each_probe_that_crashes_doubles_the_cool_down_up_to_its_bound() {
        let mut now = Instant::now();
        let mut quarantine = quarantined(now);
        let mut expected = COOL_DOWN;
        for _ in 0..10 {
            now = quarantine.until().unwrap();
            assert!(quarantine.released(now));
            assert_eq!(quarantine.enter(now), Entry::Open);
            expected = (expected * 2).min(MAX_COOL_DOWN);
            assert_eq!(quarantine.crashed(now), Some(expected));
        }
        assert_eq!(expected, MAX_COOL_DOWN);
    }

    #[test]
    fn news_of_batches_that_ran_before_it_change_a_quarantine_in_no_way() {
        let now = Instant::now();
        let mut quarantine = quarantined(now);
        let before = quarantine;
        quarantine.ended_well();
        assert_eq!(quarantine.crashed(now), None);
        quarantine.probe_lost();
        assert_eq!(quarantine, before);
    }
}
