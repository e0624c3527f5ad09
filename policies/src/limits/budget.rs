//! Budgets: whether what a request asks for is within what a tenant, or a subject of its tokens, may use in a day and in a month, and
//! which marks it passes.
//!
//! Owns no counts: those are whoever's they are held against.
//!
//! Invariants: an estimate of device time refuses nobody for good; a soft mark is told of once in its window.

use std::time::Duration;

use super::{
    Told,
    ledger::Bill,
    rule::{Amounts, LimitError, Rule, Unit},
    terms::{Terms, amount, as_shown},
    usage::Counts,
};

impl Counts {
    /// Whether so much more is within the budgets; after [`Counts::follow`].
    pub(super) fn check(&self, terms: &Terms, asked: &Amounts, unix: i64) -> Result<(), LimitError> {
        for budget in &terms.budgets {
            let Some(hard) = budget.marks.hard else { continue };
            let (unit, of_month) = (budget.unit, budget.of_month);
            // An estimate refuses nobody for good.
            let asked = match unit {
                Unit::DeviceTime => amount(asked, unit).min(hard),
                _ => amount(asked, unit),
            };
            let rule = Rule {
                scope: terms.scope,
                what: budget.what(),
            };
            if asked > hard {
                return Err(LimitError::Beyond {
                    rule,
                    limit: as_shown(unit, hard),
                    asked: as_shown(unit, asked),
                });
            }
            if asked > 0 && self.used(of_month, unit).saturating_add(asked) > hard {
                return Err(LimitError::Reached {
                    rule,
                    limit: as_shown(unit, hard),
                    retry_after: Duration::from_secs(self.ends_in(of_month, unix)),
                });
            }
        }
        Ok(())
    }

    /// Notes the soft marks that are passed and were not before in this window.
    pub(super) fn pass_marks(&mut self, terms: &Terms, told: &mut Told) {
        for budget in &terms.budgets {
            let Some(soft) = budget.marks.soft else { continue };
            // Days' marks have the lower eight bits, and months' the upper.
            let bit = 1_u16 << (budget.unit as usize + if budget.of_month { 8 } else { 0 });
            let passed = self.used(budget.of_month, budget.unit) >= soft;
            if passed && self.told & bit == 0 {
                self.told |= bit;
                told.passed.push(Rule {
                    scope: terms.scope,
                    what: budget.what(),
                });
            }
        }
    }

    /// What was taken for a device becomes what it was; after [`Counts::follow`]. What was taken of a window that has ended is no more
    /// to be given back: it is nothing of this one.
    pub(super) fn true_up(&mut self, bill: &Bill) {
        let (reserved, ran) = (bill.reserved, bill.ran);
        if ran >= reserved {
            self.add(&[0, 0, 0, ran - reserved]);
        } else {
            self.take_back_of(bill.since, &[0, 0, 0, reserved - ran]);
        }
    }
}
