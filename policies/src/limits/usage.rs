//! What a tenant has used today and this month, in days and months of UTC.
//!
//! Owns the counts that budgets are held against, and the calendar that they follow. They are counted for every tenant,
//! with a budget or without. Whoever keeps them over a restart reads and restores them whole.
//!
//! Invariants: a count begins at zero with its day or month and never anywhere else; a clock that is set back begins nothing anew.

use std::sync::Arc;

use mesh_types::TenantId;

use super::rule::{Amounts, Unit};

const DAY: i64 = 86_400;

/// What was used, at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// The day: days since 1970-01-01.
    pub day: i64,
    /// The month: months since January 1970.
    pub month: i64,
    /// In that day, by unit in the order of [`Unit::ALL`]; device time in microseconds.
    pub daily: Amounts,
    /// In that month.
    pub monthly: Amounts,
}

/// A subject of a tenant's tokens, by the name that it has with the issuer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenSubject {
    /// The token's `iss`.
    pub issuer: Arc<str>,
    /// Its `sub`.
    pub subject: Arc<str>,
}

/// One tenant's use, or that of a subject of its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantUsage {
    /// Whose.
    pub tenant: TenantId,
    /// Of which subject of its tokens; none: the tenant's over all its callers.
    pub subject: Option<TokenSubject>,
    /// What.
    pub usage: Usage,
}

/// The counts of a tenant, or of a subject of its tokens.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) usage: Usage,
    /// The Unix second with which the day ends, and that of the month; zero while nothing was counted.
    day_ends: i64,
    month_ends: i64,
    /// The marks that callers were told of, a bit each.
    pub(super) told: u16,
    /// Whether it has changed since it was last read for keeping.
    pub(super) changed: bool,
}

fn subtract(counts: &mut Amounts, amounts: &Amounts) {
    for (count, amount) in counts.iter_mut().zip(amounts) {
        *count = count.saturating_sub(*amount);
    }
}

impl Counts {
    /// Brings it to this Unix second.
    pub(super) fn follow(&mut self, unix: i64) {
        if unix < self.day_ends {
            return;
        }
        let day = unix.div_euclid(DAY);
        self.day_ends = (day + 1) * DAY;
        // What was restored may be of today.
        if day != self.usage.day {
            (self.usage.day, self.usage.daily) = (day, [0; 4]);
            self.told &= 0xff00;
        }
        if unix < self.month_ends {
            return;
        }
        let month = month_of(day);
        self.month_ends = first_day(month + 1) * DAY;
        if month != self.usage.month {
            (self.usage.month, self.usage.monthly) = (month, [0; 4]);
            self.told &= 0x00ff;
        }
    }

    /// Counts; after [`Counts::follow`].
    pub(super) fn add(&mut self, amounts: &Amounts) {
        self.changed = true;
        for counts in [&mut self.usage.daily, &mut self.usage.monthly] {
            for (count, amount) in counts.iter_mut().zip(amounts) {
                *count = count.saturating_add(*amount);
            }
        }
    }

    /// Takes back what was counted in these windows and did not come about.
    pub(super) fn take_back(&mut self, amounts: &Amounts) {
        subtract(&mut self.usage.daily, amounts);
        subtract(&mut self.usage.monthly, amounts);
        self.changed = true;
    }

    /// Takes back what was counted at this Unix second, of the windows that it lies in.
    pub(super) fn take_back_of(&mut self, unix: i64, amounts: &Amounts) {
        let day = unix.div_euclid(DAY);
        if day == self.usage.day {
            subtract(&mut self.usage.daily, amounts);
            self.changed = true;
        }
        if month_of(day) == self.usage.month {
            subtract(&mut self.usage.monthly, amounts);
            self.changed = true;
        }
    }

    /// Sets what is known from before, which was counted besides what has been since.
    pub(super) fn restore(&mut self, before: Usage) {
        let now = self.usage;
        self.usage = before;
        if now.day == before.day {
            self.usage.daily = sum(before.daily, now.daily);
        } else if now.day > before.day {
            (self.usage.day, self.usage.daily) = (now.day, now.daily);
        }
        if now.month == before.month {
            self.usage.monthly = sum(before.monthly, now.monthly);
        } else if now.month > before.month {
            (self.usage.month, self.usage.monthly) = (now.month, now.monthly);
        }
        (self.day_ends, self.month_ends) = (0, 0);
    }

    /// Whether anything was used in this day, or in this month where that is asked for: what was not might as well be forgotten.
    pub(super) fn counts_still(&mut self, unix: i64, of_month: bool) -> bool {
        self.follow(unix);
        self.usage.daily != [0; 4] || of_month && self.usage.monthly != [0; 4]
    }

    /// Seconds until the day ends, or the month; after [`Counts::follow`].
    pub(super) fn ends_in(&self, of_month: bool, unix: i64) -> u64 {
        let ends = if of_month { self.month_ends } else { self.day_ends };
        u64::try_from(ends - unix).unwrap_or(0)
    }

    /// What was used of a unit.
    pub(super) fn used(&self, of_month: bool, unit: Unit) -> u64 {
        let counts = if of_month {
            &self.usage.monthly
        } else {
            &self.usage.daily
        };
        super::terms::amount(counts, unit)
    }
}

fn sum(one: Amounts, other: Amounts) -> Amounts {
    let mut sum = one;
    for (sum, more) in sum.iter_mut().zip(other) {
        *sum = sum.saturating_add(more);
    }
    sum
}

/// Months since January 1970 of a day since 1970-01-01, by counting years from March on: then a leap day is a year's last.
fn month_of(day: i64) -> i64 {
    // Days since 0000-03-01; 400 years have 146,097 days.
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // From March.
    let month = (5 * of_year + 2) / 153;
    (era * 400 + year_of_era) * 12 + month + 2 - 1_970 * 12
}

/// The first day of a month.
fn first_day(month: i64) -> i64 {
    // From March of the year 0.
    let month = month + 1_970 * 12 - 2;
    let (year, of_year) = (month.div_euclid(12), (153 * month.rem_euclid(12) + 2) / 5);
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    era * 146_097 + 365 * year + year / 4 - year / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::ledger::Bill;

    #[test]
    fn what_was_set_apart_is_given_back_to_the_windows_in_which_it_was() {
        // The last seconds of a day in the midst of a month, and those of a month.
        for before in [(first_day(40) + 9) * DAY + DAY - 10, first_day(41) * DAY - 10] {
            let after = before + 20;
            let bill = |reserved, ran, since| Bill {
                rows: 1,
                reserved,
                ran,
                since,
            };
            let mut counts = Counts::default();
            counts.follow(before);
            counts.add(&[1, 0, 0, 500]);
            counts.follow(after);
            counts.add(&[1, 0, 0, 100]);
            counts.true_up(&bill(500, 0, before));
            assert_eq!((counts.usage.daily[3], counts.usage.monthly[3]), (100, 100), "{before}");
            counts.true_up(&bill(100, 40, after));
            assert_eq!((counts.usage.daily[3], counts.usage.monthly[3]), (40, 40), "{before}");
            // What has run is this day's, whenever it was set apart.
            counts.true_up(&bill(10, 30, before));
            assert_eq!(counts.usage.daily[3], 60);
        }
    }

    #[test]
    fn months_follow_the_calendar() {
        assert_eq!((month_of(0), first_day(0)), (0, 0));
        // 2024-02-29, 2024-03-01, 2026-11-26, 2000-02-29, 2100-02-28 and the day after, which is no leap day.
        for (day, month) in [
            (19_782, 649),
            (19_783, 650),
            (20_783, 682),
            (11_016, 361),
            (47_540, 1_561),
            (47_541, 1_562),
        ] {
            assert_eq!(month_of(day), month, "{day}");
        }
        let mut day = first_day(-30);
        for month in -30..2_000 {
            let next = first_day(month + 1);
            assert!((28..=31).contains(&(next - day)), "{month}");
            assert_eq!((month_of(day), month_of(next - 1)), (month, month));
            day = next;
        }
    }

    #[test]
    fn a_day_and_a_month_begin_at_zero_and_a_clock_set_back_begins_nothing() {
        // 2024-02-28 23:59:59.
        let mut counts = Counts::default();
        let eve = 19_782 * DAY - 1;
        counts.follow(eve);
        counts.add(&[1, 2, 3, 4]);
        counts.told = 0x0101;
        assert_eq!(
            (counts.ends_in(false, eve), counts.ends_in(true, eve)),
            (1, 1 + DAY as u64)
        );
        counts.follow(eve + 1);
        assert_eq!((counts.usage.daily, counts.usage.monthly), ([0; 4], [1, 2, 3, 4]));
        assert_eq!(counts.told, 0x0100);
        counts.add(&[1, 0, 0, 0]);
        counts.follow(eve - 1_000_000);
        assert_eq!(counts.usage.daily, [1, 0, 0, 0]);
        counts.follow(eve + 1 + DAY);
        assert_eq!((counts.usage.daily, counts.usage.monthly), ([0; 4], [0; 4]));
        assert_eq!(counts.told, 0);
    }

    #[test]
    fn what_is_restored_counts_for_its_own_day_and_month_only() {
        let today = 19_782 * DAY + 5;
        let of = |day| Usage {
            day,
            month: month_of(day),
            daily: [5; 4],
            monthly: [7; 4],
        };
        for (day, daily, monthly) in [(19_782, 6, 8), (19_781, 1, 8), (19_700, 1, 1)] {
            let mut counts = Counts::default();
            counts.follow(today);
            counts.add(&[1; 4]);
            counts.restore(of(day));
            counts.follow(today);
            assert_eq!(
                (counts.usage.daily, counts.usage.monthly),
                ([daily; 4], [monthly; 4]),
                "{day}"
            );
            let mut fresh = Counts::default();
            fresh.restore(of(day));
            fresh.follow(today);
            assert_eq!(fresh.usage.daily, [daily - 1; 4]);
        }
    }
}
