//! One token bucket, in whole numbers: nothing is rounded, so a bound is met exactly and nothing is refused that would fit.
//!
//! Owns what was spent and has not come back. A unit is divided into a thousand million parts, so that a rate of so many units a
//! second gives back as many parts each nanosecond. Knows neither whose bucket it is nor what its units are; the time is
//! passed in, as nanoseconds since the limiter was made.
//!
//! Invariants: over any window no more is let through than burst + rate x window, and a caller is told the very nanosecond
//! from which it would be let through; a changed rate takes over the share that was spent and counts from its first use, so no
//! change refills a bucket; a charge that is known only afterwards may put it into debt, which is paid off before anything else is
//! let through.

use super::declared::Rate;

/// Parts of a unit.
const PARTS: u64 = 1_000_000_000;

/// Why an amount is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// It is more than the burst.
    Never,
    /// It will be after so many nanoseconds.
    Until(u64),
}

/// One bucket.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Bucket {
    /// In parts.
    spent: u64,
    /// When that was so.
    last: u64,
    /// What it has run under since.
    rate: Option<Rate>,
}

fn parts(units: u64) -> u64 {
    units.saturating_mul(PARTS)
}

impl Bucket {
    /// Brings it to now and under the rate.
    pub(super) fn follow(&mut self, rate: Rate, now: u64) {
        self.advance(now);
        if self.rate == Some(rate) {
            return;
        }
        if let Some(former) = self.rate.replace(rate) {
            // The same share, rounded to the side of what was spent.
            let share = u128::from(self.spent) * u128::from(rate.burst());
            self.spent = u64::try_from(share.div_ceil(u128::from(former.burst()))).unwrap_or(u64::MAX);
        }
    }

    fn advance(&mut self, now: u64) {
        if let Some(rate) = self.rate {
            // Whoever read the time before another, and comes after it, gives nothing back.
            let elapsed = now.saturating_sub(self.last);
            self.spent = self.spent.saturating_sub(elapsed.saturating_mul(rate.per_second()));
        }
        self.last = self.last.max(now);
    }

    /// Whether so many units would be let through now; after [`Bucket::follow`].
    pub(super) fn fits(&self, units: u64, rate: Rate) -> Result<(), Short> {
        if units > rate.burst() {
            return Err(Short::Never);
        }
        let wanted = self.spent.saturating_add(parts(units));
        match wanted.checked_sub(parts(rate.burst())) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Short::Until(missing.div_ceil(rate.per_second()))),
        }
    }

    /// Takes so many units, whether or not they fit.
    pub(super) fn take(&mut self, units: u64) {
        self.spent = self.spent.saturating_add(parts(units));
    }

    /// Takes units that were used already: those that come back meanwhile have come back.
    pub(super) fn take_at(&mut self, units: u64, now: u64) {
        self.advance(now);
        self.take(units);
    }

    /// Gives units back that were taken for nothing.
    pub(super) fn give_back(&mut self, units: u64) {
        self.spent = self.spent.saturating_sub(parts(units));
    }

    /// Whole units that are left, and the nanoseconds until it is full again; after [`Bucket::follow`].
    pub(super) fn left(&self, rate: Rate) -> (u64, u64) {
        let left = parts(rate.burst()).saturating_sub(self.spent) / PARTS;
        (left, self.spent.div_ceil(rate.per_second()))
    }

    /// Whether it is as good as a new one.
    pub(super) fn is_full(&mut self, now: u64) -> bool {
        self.advance(now);
        self.spent == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    fn let_through(bucket: &mut Bucket, units: u64, rate: Rate, now: u64) -> Result<(), Short> {
        bucket.follow(rate, now);
        bucket.fits(units, rate)?;
        bucket.take(units);
        Ok(())
    }

    #[test]
    fn rates_that_no_nanosecond_divides_are_met_exactly() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(3, 3));
        for _ in 0..3 {
            assert_eq!(let_through(&mut bucket, 1, rate, 0), Ok(()));
        }
        assert_eq!(let_through(&mut bucket, 1, rate, 0), Err(Short::Until(333_333_334)));
        assert_eq!(let_through(&mut bucket, 1, rate, 333_333_333), Err(Short::Until(1)));
        assert_eq!(let_through(&mut bucket, 1, rate, 333_333_334), Ok(()));
        // 3,000 a thousand seconds later, and not one more or less, one at a time.
        let passed = (1..=1_000_000_u64).filter(|step| {
            let now = 333_333_334 + step * SECOND / 1_000;
            let_through(&mut bucket, 1, rate, now).is_ok()
        });
        assert_eq!(passed.count(), 3_000);
    }

    #[test]
    fn a_debt_is_paid_off_before_anything_is_let_through() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(10, 5));
        assert_eq!(let_through(&mut bucket, 5, rate, 0), Ok(()));
        bucket.take_at(20, 0);
        assert_eq!(bucket.left(rate), (0, 5 * SECOND / 2));
        assert_eq!(
            let_through(&mut bucket, 1, rate, 2 * SECOND),
            Err(Short::Until(SECOND / 10))
        );
        assert_eq!(let_through(&mut bucket, 1, rate, 2 * SECOND + SECOND / 10), Ok(()));
    }

    #[test]
    fn what_is_used_later_is_not_paid_by_what_came_back_before() {
        let (mut bucket, rate) = (Bucket::default(), Rate::new(10, 10));
        assert_eq!(let_through(&mut bucket, 1, rate, 0), Ok(()));
        bucket.take_at(10, 100 * SECOND);
        assert_eq!(
            let_through(&mut bucket, 1, rate, 100 * SECOND),
            Err(Short::Until(SECOND / 10))
        );
    }

    #[test]
    fn a_new_rate_counts_from_its_first_use() {
        let mut bucket = Bucket::default();
        assert_eq!(let_through(&mut bucket, 10, Rate::new(1, 10), 0), Ok(()));
        // A second at one a second, however fast the new rate is.
        bucket.follow(Rate::new(1_000, 10), SECOND);
        assert_eq!(bucket.left(Rate::new(1_000, 10)).0, 1);
    }

    #[test]
    fn the_widest_numbers_neither_overflow_nor_refuse() {
        let rate = Rate::new(u64::MAX, u64::MAX);
        let mut bucket = Bucket::default();
        assert_eq!(let_through(&mut bucket, rate.burst(), rate, 0), Ok(()));
        assert_eq!(let_through(&mut bucket, 1, rate, 1), Ok(()));
        assert_eq!(let_through(&mut bucket, u64::MAX, rate, u64::MAX), Err(Short::Never));
        bucket.take_at(u64::MAX, u64::MAX);
        assert!(!bucket.is_full(u64::MAX));
    }

    proptest! {
        /// Of any amounts at any times, those within any window come to no more than burst + rate x window, to the part.
        #[test]
        fn no_window_lets_more_through(
            per_second in 1_u64..5_000_000_000, burst in 1_u64..1_000_000,
            calls in proptest::collection::vec((0_u64..50_000_000, 1_u64..2_000_000), 1..120),
        ) {
            let (mut bucket, rate) = (Bucket::default(), Rate::new(per_second, burst));
            let (mut now, mut passed) = (0_u64, Vec::new());
            for (pause, units) in calls {
                now += pause;
                match let_through(&mut bucket, units, rate, now) {
                    Ok(()) => passed.push((now, u128::from(units))),
                    Err(Short::Never) => prop_assert!(units > burst),
                    Err(Short::Until(wait)) => {
                        // Exactly then, and not before.
                        let mut then = bucket;
                        prop_assert!(let_through(&mut then, units, rate, now + wait - 1).is_err());
                        prop_assert!(let_through(&mut then, units, rate, now + wait).is_ok());
                    }
                }
            }
            for (first, (start, _)) in passed.iter().enumerate() {
                let mut sum = 0;
                for (end, units) in passed.iter().skip(first) {
                    sum += units * u128::from(PARTS);
                    let allowed = u128::from(burst) * u128::from(PARTS) + u128::from(end - start) * u128::from(per_second);
                    prop_assert!(sum <= allowed);
                }
            }
        }
    }
}
