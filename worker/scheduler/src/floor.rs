//! The floor of the batch class: while interactive requests are served, a tenth of the device's time is owed to the others.
//!
//! Owns a debt in nanoseconds. Interactive time that passes while batch requests wait adds to it; batch time takes off nine
//! times as much. The batch class goes first while it is owed anything. Nothing is owed for the time in which it had nothing
//! to run, but what it had beyond its part is remembered.

/// Interactive time for each part of batch time: nine to one.
const PARTS: i64 = 9;
/// The most that is owed either way, so that an hour of one kind does not mean an hour of the other: ten seconds.
const MAX_DEBT: i64 = 10_000_000_000;

/// What the last batch weighs in the mean of the batch class's part.
const GAIN: f64 = 0.1;
/// The part that the batch class never gets less than while it waits.
const LEAST: f64 = 0.1;

#[derive(Debug)]
pub(crate) struct Floor {
    debt: i64,
    /// What the batch class has had of the device lately, while it had requests waiting.
    part: f64,
}

impl Default for Floor {
    fn default() -> Self {
        Self { debt: 0, part: 1.0 }
    }
}

impl Floor {
    /// Whether the batch class goes first.
    pub(crate) fn is_owed(&self) -> bool {
        self.debt > 0
    }

    /// The part of the device that the batch class can expect.
    pub(crate) fn part(&self) -> f64 {
        self.part.max(LEAST)
    }

    /// A batch has been so much interactive and so much of the batch class, while more of the latter waited.
    pub(crate) fn observe(&mut self, interactive: i64, batch: i64) {
        let all = interactive.saturating_add(batch);
        if all > 0 {
            self.part += GAIN * (batch as f64 / all as f64 - self.part);
        }
    }

    /// So much time has been used by each class, while requests of each class waited or not. Differences to what was said
    /// before may be negative.
    pub(crate) fn used(&mut self, interactive: i64, batch: i64, interactive_waits: bool, batch_waits: bool) {
        let mut debt = self.debt.saturating_add(interactive);
        if !batch_waits && batch == 0 {
            // Nothing waits: what was had beyond its part wears off, and nothing new is owed.
            debt = debt.min(0);
        }
        if interactive_waits || interactive != 0 {
            debt = debt.saturating_sub(batch.saturating_mul(PARTS));
        }
        self.debt = debt.clamp(-MAX_DEBT, MAX_DEBT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The part of the time that the batch class gets, in percent, with both classes always waiting.
    fn part(batch_takes: i64) -> i64 {
        let (mut floor, mut batch, mut all) = (Floor::default(), 0, 0);
        while all < 1_000_000_000 {
            if floor.is_owed() {
                floor.used(0, batch_takes, true, true);
                batch += batch_takes;
                all += batch_takes;
            } else {
                floor.used(1_000_000, 0, true, true);
                all += 1_000_000;
            }
        }
        batch * 100 / all
    }

    #[test]
    fn the_batch_class_gets_a_tenth_however_long_its_batches_are() {
        for takes in [100_000, 1_000_000, 10_000_000] {
            assert!((9..=11).contains(&part(takes)), "{takes}: {}", part(takes));
        }
    }

    #[test]
    fn nothing_is_owed_for_a_time_without_batch_requests() {
        let mut floor = Floor::default();
        floor.used(1_000_000_000, 0, true, false);
        assert!(!floor.is_owed());
        floor.used(1, 0, true, true);
        assert!(floor.is_owed());
    }

    #[test]
    fn a_device_without_interactive_requests_gives_nothing_on_credit() {
        let mut floor = Floor::default();
        floor.used(0, 5_000_000_000, false, true);
        floor.used(1, 0, true, true);
        assert!(floor.is_owed());
    }
}
