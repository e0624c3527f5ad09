//! The token buckets of one subject, a bucket for each unit, in whole numbers: nothing is rounded, so a bound is met exactly and nothing is
//! refused that would fit.
//!
//! Owns what was spent and has not come back. A unit is divided into a thousand million parts, so that a rate of so many units a
//! second gives back as many parts each nanosecond. Knows neither whose buckets they are nor what their units are; the time is
//! passed in, as nanoseconds since the limiter was made. All buckets are brought to a time together, so one time stands for all, and the
//! rates that they run under are shared with whoever has declared them: a subject takes 48 bytes.
//!
//! Invariants: over any window no more is let through than burst + rate x window, and a caller is told the very nanosecond
//! from which it would be let through; a changed rate takes over the share that was spent and counts from its first use, and one that is
//! taken away goes on giving back what was spent under it, so no change refills a bucket; a charge that is known only afterwards may put
//! one into debt, which is paid off before anything else is let through.

use std::sync::Arc;

use super::{declared::Rate, rule::Unit};

/// Parts of a unit.
const PARTS: u64 = 1_000_000_000;

/// A rate for each unit that has one, in the order of [`Unit::ALL`].
pub(super) type Rates = [Option<Rate>; 4];

/// Why an amount is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// It is more than the burst.
    Never,
    /// It will be after so many nanoseconds.
    Until(u64),
}

/// Four buckets.
#[derive(Debug, Clone, Default)]
pub(super) struct Buckets {
    /// In parts.
    spent: [u64; 4],
    /// When that was so.
    last: u64,
    /// What they have run under since; none before their first rate.
    under: Option<Arc<Rates>>,
}

fn parts(units: u64) -> u64 {
    units.saturating_mul(PARTS)
}

impl Buckets {
    /// Brings them to now and under these rates.
    pub(super) fn follow(&mut self, rates: &Arc<Rates>, now: u64) {
        self.advance(now);
        let same = |under: &Arc<Rates>| Arc::ptr_eq(under, rates);
        if !self.under.as_ref().is_some_and(same) {
            self.change(rates);
        }
    }

    #[cold]
    fn change(&mut self, rates: &Arc<Rates>) {
        let before = self.under.as_deref().copied().unwrap_or_default();
        let mut after = **rates;
        for ((spent, former), rate) in self.spent.iter_mut().zip(before).zip(&mut after) {
            match (former, *rate) {
                (Some(former), Some(rate)) if former != rate => {
                    // The same share, rounded to the side of what was spent.
                    let share = u128::from(*spent) * u128::from(rate.burst());
                    *spent = u64::try_from(share.div_ceil(u128::from(former.burst()))).unwrap_or(u64::MAX);
                }
                (Some(former), None) if *spent > 0 => *rate = Some(former),
                _ => {}
            }
        }
        if after == **rates {
            self.under = Some(rates.clone());
        } else if after != before {
            self.under = Some(Arc::new(after));
        }
    }

    fn advance(&mut self, now: u64) {
        // Whoever read the time before another, and comes after it, gives nothing back.
        let elapsed = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        let Some(under) = self.under.as_deref() else { return };
        for (spent, rate) in self.spent.iter_mut().zip(under) {
            if let Some(rate) = rate {
                *spent = spent.saturating_sub(elapsed.saturating_mul(rate.per_second()));
            }
        }
    }

    fn of(&self, unit: Unit) -> u64 {
        self.spent.get(unit as usize).copied().unwrap_or_default()
    }

    fn spend(&mut self, unit: Unit, change: impl FnOnce(u64) -> u64) {
        if let Some(spent) = self.spent.get_mut(unit as usize) {
            *spent = change(*spent);
        }
    }

    /// Whether so many units would be let through now; after [`Buckets::follow`].
    pub(super) fn fits(&self, unit: Unit, units: u64, rate: Rate) -> Result<(), Short> {
        if units > rate.burst() {
            return Err(Short::Never);
        }
        let wanted = self.of(unit).saturating_add(parts(units));
        match wanted.checked_sub(parts(rate.burst())) {
            None | Some(0) => Ok(()),
            Some(missing) => Err(Short::Until(missing.div_ceil(rate.per_second()))),
        }
    }

    /// Takes so many units, whether or not they fit.
    pub(super) fn take(&mut self, unit: Unit, units: u64) {
        self.spend(unit, |spent| spent.saturating_add(parts(units)));
    }

    /// Takes units that were used already: those that come back meanwhile have come back.
    pub(super) fn take_at(&mut self, unit: Unit, units: u64, now: u64) {
        self.advance(now);
        self.take(unit, units);
    }

    /// Gives units back that were taken for nothing.
    pub(super) fn give_back(&mut self, unit: Unit, units: u64) {
        self.spend(unit, |spent| spent.saturating_sub(parts(units)));
    }

    /// Whole units that are left, and the nanoseconds until it is full again; after [`Buckets::follow`].
    pub(super) fn left(&self, unit: Unit, rate: Rate) -> (u64, u64) {
        let spent = self.of(unit);
        let left = parts(rate.burst()).saturating_sub(spent) / PARTS;
        (left, spent.div_ceil(rate.per_second()))
    }

    /// Whether they are as good as new ones.
    pub(super) fn are_full(&mut self, now: u64) -> bool {
        self.advance(now);
        self.spent == [0; 4]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: u64 = 1_000_000_000;

    const UNIT: Unit = Unit::Rows;

    fn only(rate: Rate) -> Arc<Rates> {
        let mut rates = Rates::default();
        rates[UNIT as usize] = Some(rate);
        Arc::new(rates)
    }

    fn let_through(buckets: &mut Buckets, units: u64, rate: Rate, now: u64) -> Result<(), Short> {
        // As with each snapshot: the rates are equal, and not the same.
        buckets.follow(&only(rate), now);
        buckets.fits(UNIT, units, rate)?;
        buckets.take(UNIT, units);
        Ok(())
    }

    #[test]
    fn rates_that_no_nanosecond_divides_are_met_exactly() {
        let (mut bucket, rate) = (Buckets::default(), Rate::new(3, 3));
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
        let (mut bucket, rate) = (Buckets::default(), Rate::new(10, 5));
        assert_eq!(let_through(&mut bucket, 5, rate, 0), Ok(()));
        bucket.take_at(UNIT, 20, 0);
        assert_eq!(bucket.left(UNIT, rate), (0, 5 * SECOND / 2));
        assert_eq!(
            let_through(&mut bucket, 1, rate, 2 * SECOND),
            Err(Short::Until(SECOND / 10))
        );
        assert_eq!(let_through(&mut bucket, 1, rate, 2 * SECOND + SECOND / 10), Ok(()));
    }

    #[test]
    fn what_is_used_later_is_not_paid_by_what_came_back_before() {
        let (mut bucket, rate) = (Buckets::default(), Rate::new(10, 10));
        assert_eq!(let_through(&mut bucket, 1, rate, 0), Ok(()));
        bucket.take_at(UNIT, 10, 100 * SECOND);
        assert_eq!(
            let_through(&mut bucket, 1, rate, 100 * SECOND),
            Err(Short::Until(SECOND / 10))
        );
    }

    #[test]
    fn a_new_rate_counts_from_its_first_use() {
        let mut bucket = Buckets::default();
        assert_eq!(let_through(&mut bucket, 10, Rate::new(1, 10), 0), Ok(()));
        // A second at one a second, however fast the new rate is.
        bucket.follow(&only(Rate::new(1_000, 10)), SECOND);
        assert_eq!(bucket.left(UNIT, Rate::new(1_000, 10)).0, 1);
    }

    #[test]
    fn a_rate_that_is_taken_away_gives_back_until_all_is_back_and_refills_nothing() {
        let (mut bucket, rate) = (Buckets::default(), Rate::new(1, 10));
        assert_eq!(let_through(&mut bucket, 10, rate, 0), Ok(()));
        let (none, other) = (Arc::new(Rates::default()), Arc::new([Some(rate), None, None, None]));
        for rates in [&none, &other, &none] {
            bucket.follow(rates, SECOND);
        }
        assert_eq!(
            let_through(&mut bucket.clone(), 2, rate, SECOND),
            Err(Short::Until(SECOND))
        );
        bucket.follow(&none, 4 * SECOND);
        assert_eq!(let_through(&mut bucket, 4, rate, 4 * SECOND), Ok(()));
        assert!(!bucket.are_full(13 * SECOND));
        assert!(bucket.are_full(14 * SECOND));
        // Nothing is spent under it any more, so nothing is kept of it.
        bucket.follow(&none, 14 * SECOND);
        assert!(bucket.under.as_ref().is_some_and(|under| Arc::ptr_eq(under, &none)));
    }

    #[test]
    fn four_units_are_counted_apart() {
        let mut buckets = Buckets::default();
        let rates = Arc::new([1, 2, 3, 4].map(|rate| Some(Rate::new(rate, 4))));
        buckets.follow(&rates, 0);
        for (unit, rate) in Unit::ALL.into_iter().zip(*rates) {
            buckets.take(unit, 4);
            assert_eq!(buckets.left(unit, rate.unwrap()).0, 0);
        }
        buckets.follow(&rates, SECOND);
        let left = Unit::ALL
            .into_iter()
            .zip(*rates)
            .map(|(unit, rate)| buckets.left(unit, rate.unwrap()).0);
        assert_eq!(left.collect::<Vec<_>>(), [1, 2, 3, 4]);
    }

    #[test]
    fn the_widest_numbers_neither_overflow_nor_refuse() {
        let rate = Rate::new(u64::MAX, u64::MAX);
        let mut bucket = Buckets::default();
        assert_eq!(let_through(&mut bucket, rate.burst(), rate, 0), Ok(()));
        assert_eq!(let_through(&mut bucket, 1, rate, 1), Ok(()));
        assert_eq!(let_through(&mut bucket, u64::MAX, rate, u64::MAX), Err(Short::Never));
        bucket.take_at(UNIT, u64::MAX, u64::MAX);
        assert!(!bucket.are_full(u64::MAX));
    }

    proptest! {
        /// Of any amounts at any times, those within any window come to no more than burst + rate x window, to the part.
        #[test]
        fn no_window_lets_more_through(
            per_second in 1_u64..5_000_000_000, burst in 1_u64..1_000_000,
            calls in proptest::collection::vec((0_u64..50_000_000, 1_u64..2_000_000), 1..120),
        ) {
            let (mut bucket, rate) = (Buckets::default(), Rate::new(per_second, burst));
            let (mut now, mut passed) = (0_u64, Vec::new());
            for (pause, units) in calls {
                now += pause;
                match let_through(&mut bucket, units, rate, now) {
                    Ok(()) => passed.push((now, u128::from(units))),
                    Err(Short::Never) => prop_assert!(units > burst),
                    Err(Short::Until(wait)) => {
                        // Exactly then, and not before.
                        let mut then = bucket.clone();
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
