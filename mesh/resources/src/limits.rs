//! Limits and budgets as admins declare them, for tenants, keys, endpoints and models alike.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Problem;

/// The widest rates and bursts: those of requests, of rows and bytes, and of milliseconds of devices.
const MAX_REQUESTS: u64 = 1_000_000;
const MAX_AMOUNT: u64 = 9_000_000_000;
const MAX_DEVICE_MS: u64 = 9_000_000;
const MAX_CONCURRENCY: u32 = 1_000_000;
const MAX_QUEUED: u64 = 1 << 40;
const MAX_BUDGET: u64 = 1_000_000_000_000_000;

/// Whether a limit refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Enforce {
    /// What is more is refused.
    #[default]
    Refuse,
    /// Nobody is refused; what would be is counted and told.
    Shadow,
}

impl Enforce {
    fn is_on(&self) -> bool {
        *self == Self::Refuse
    }
}

/// What may be used; what is not named has no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsSpec {
    /// `refuse`, or `shadow` to try limits without refusing.
    #[serde(default, skip_serializing_if = "Enforce::is_on")]
    pub enforce: Enforce,
    /// Requests over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RateSpec>,
    /// Rows over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RateSpec>,
    /// Bytes of input tensors over time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_bytes: Option<RateSpec>,
    /// Milliseconds of devices over time: estimated when a request comes, and corrected to what it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_ms: Option<RateSpec>,
    /// Requests at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Rows of requests that wait for a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_rows: Option<u64>,
    /// Bytes of input tensors of requests that wait for a device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_bytes: Option<u64>,
}

/// A rate: so many per second in the long run, and so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RateSpec {
    /// In the long run, per second; at least 1.
    pub per_second: u64,
    /// At once, after a pause; at least 1.
    pub burst: u64,
}

/// What may be used in a day and in a month of UTC; what is not named has no budget.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetsSpec {
    /// `refuse`, or `shadow` to try budgets without refusing.
    #[serde(default, skip_serializing_if = "Enforce::is_on")]
    pub enforce: Enforce,
    /// From midnight to midnight.
    #[serde(default, skip_serializing_if = "BudgetSpec::is_empty")]
    pub daily: BudgetSpec,
    /// From the first of a month to that of the next.
    #[serde(default, skip_serializing_if = "BudgetSpec::is_empty")]
    pub monthly: BudgetSpec,
}

/// What may be used in a window.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BudgetSpec {
    /// Requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<MarksSpec>,
    /// Rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<MarksSpec>,
    /// Bytes of input tensors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_bytes: Option<MarksSpec>,
    /// Milliseconds of devices.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_ms: Option<MarksSpec>,
}

/// The marks of a budget; at least one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MarksSpec {
    /// From here on answers carry a warning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub soft: Option<u64>,
    /// More than this is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hard: Option<u64>,
}

impl LimitsSpec {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        self.check_at("spec.limits", problems);
    }

    /// The same where the limits are at another field.
    pub(crate) fn check_at(&self, field: &str, problems: &mut Vec<Problem>) {
        let rates = [
            ("requests", self.requests, MAX_REQUESTS),
            ("rows", self.rows, MAX_AMOUNT),
            ("input_bytes", self.input_bytes, MAX_AMOUNT),
            ("device_ms", self.device_ms, MAX_DEVICE_MS),
        ];
        for (name, rate, max) in rates {
            let Some(rate) = rate else { continue };
            within(&format!("{field}.{name}.per_second"), rate.per_second, max, problems);
            within(&format!("{field}.{name}.burst"), rate.burst, max, problems);
        }
        let numbers = [
            (
                "concurrency",
                self.concurrency.map(u64::from),
                u64::from(MAX_CONCURRENCY),
            ),
            ("queued_rows", self.queued_rows, MAX_QUEUED),
            ("queued_bytes", self.queued_bytes, MAX_QUEUED),
        ];
        for (name, number, max) in numbers {
            if let Some(number) = number {
                within(&format!("{field}.{name}"), number, max, problems);
            }
        }
    }
}

impl BudgetsSpec {
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        self.check_at("spec.budgets", problems);
    }

    /// The same where the budgets are at another field.
    pub(crate) fn check_at(&self, field: &str, problems: &mut Vec<Problem>) {
        for (window, budget) in [("daily", &self.daily), ("monthly", &self.monthly)] {
            let units = [
                ("requests", budget.requests),
                ("rows", budget.rows),
                ("input_bytes", budget.input_bytes),
                ("device_ms", budget.device_ms),
            ];
            for (unit, marks) in units {
                let Some(marks) = marks else { continue };
                let field = format!("{field}.{window}.{unit}");
                for (name, mark) in [("soft", marks.soft), ("hard", marks.hard)] {
                    if let Some(mark) = mark {
                        within(&format!("{field}.{name}"), mark, MAX_BUDGET, problems);
                    }
                }
                match (marks.soft, marks.hard) {
                    (None, None) => problems.push(Problem::new(field, "a budget has a soft mark, a hard one or both")),
                    (Some(soft), Some(hard)) if soft > hard => problems.push(Problem::new(
                        format!("{field}.soft"),
                        format!("{soft} is above the hard mark {hard}: nobody would be warned"),
                    )),
                    _ => {}
                }
            }
        }
    }
}

impl BudgetSpec {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

fn within(field: &str, value: u64, max: u64, problems: &mut Vec<Problem>) {
    if !(1..=max).contains(&value) {
        problems.push(Problem::new(field, format!("{value} is not within 1 to {max}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(limits: &LimitsSpec, budgets: &BudgetsSpec) -> Vec<String> {
        let mut problems = Vec::new();
        limits.check(&mut problems);
        budgets.check(&mut problems);
        problems.into_iter().map(|problem| problem.field).collect()
    }

    #[test]
    fn every_number_is_checked_at_its_bound_and_one_past_it() {
        for (yaml, max) in [
            ("requests", MAX_REQUESTS),
            ("rows", MAX_AMOUNT),
            ("device_ms", MAX_DEVICE_MS),
        ] {
            let of = |number: u64| -> LimitsSpec {
                serde_json::from_value(serde_json::json!({yaml: {"per_second": number, "burst": number}})).unwrap()
            };
            for well in [1, max] {
                assert!(fields(&of(well), &BudgetsSpec::default()).is_empty());
            }
            for wrong in [0, max + 1] {
                let expected = [
                    format!("spec.limits.{yaml}.per_second"),
                    format!("spec.limits.{yaml}.burst"),
                ];
                assert_eq!(fields(&of(wrong), &BudgetsSpec::default()), expected);
            }
        }
        let queued = |number| LimitsSpec {
            queued_bytes: Some(number),
            ..LimitsSpec::default()
        };
        assert!(fields(&queued(MAX_QUEUED), &BudgetsSpec::default()).is_empty());
        assert_eq!(
            fields(&queued(MAX_QUEUED + 1), &BudgetsSpec::default()),
            ["spec.limits.queued_bytes"]
        );
    }

    #[test]
    fn a_budget_has_a_mark_and_warns_before_it_refuses() {
        let of = |soft, hard| BudgetsSpec {
            daily: BudgetSpec {
                rows: Some(MarksSpec { soft, hard }),
                ..BudgetSpec::default()
            },
            ..BudgetsSpec::default()
        };
        let wrong = |soft, hard| fields(&LimitsSpec::default(), &of(soft, hard));
        for (soft, hard) in [(Some(1), None), (None, Some(MAX_BUDGET)), (Some(5), Some(5))] {
            assert!(wrong(soft, hard).is_empty());
        }
        assert_eq!(wrong(None, None), ["spec.budgets.daily.rows"]);
        assert_eq!(wrong(Some(6), Some(5)), ["spec.budgets.daily.rows.soft"]);
        assert_eq!(wrong(None, Some(MAX_BUDGET + 1)), ["spec.budgets.daily.rows.hard"]);
    }
}
