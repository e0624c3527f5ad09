//! Tenants and their limits.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{BudgetsSpec, LimitsSpec, Problem, signature::check_signers};

const MAX_WEIGHT: u32 = 1_000;
const MAX_DISPLAY_NAME: usize = 200;

fn default_weight() -> u32 {
    1
}

/// A party that calls, is limited and is kept apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantSpec {
    /// A name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The tenant's share of a busy device, beside the others'. 1 to 1000.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// Whether its requests may share a batch with those of others.
    #[serde(default, skip_serializing_if = "Isolation::is_shared")]
    pub isolation: Isolation,
    /// What it may use.
    #[serde(default, skip_serializing_if = "LimitsSpec::is_empty")]
    pub limits: LimitsSpec,
    /// What each subject of an issuer's tokens may use, besides the tenant's limits.
    #[serde(default, skip_serializing_if = "LimitsSpec::is_empty")]
    pub per_subject: LimitsSpec,
    /// What each of those may use in a day and in a month.
    #[serde(default, skip_serializing_if = "BudgetsSpec::is_empty")]
    pub per_subject_budgets: BudgetsSpec,
    /// What it may use in a day and in a month.
    #[serde(default, skip_serializing_if = "BudgetsSpec::is_empty")]
    pub budgets: BudgetsSpec,
    /// Whose signature a version with a file needs before it is taken; one of these. Empty: nobody's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_signers: Vec<String>,
    /// Whether all its requests are refused.
    #[serde(default)]
    pub suspended: bool,
}

impl Default for TenantSpec {
    fn default() -> Self {
        Self {
            display_name: None,
            weight: default_weight(),
            isolation: Isolation::default(),
            limits: LimitsSpec::default(),
            per_subject: LimitsSpec::default(),
            per_subject_budgets: BudgetsSpec::default(),
            budgets: BudgetsSpec::default(),
            required_signers: Vec::new(),
            suspended: false,
        }
    }
}

/// Who a tenant's requests share batches with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// Anybody: batches are fuller, and one batch's time tells a little of what else is in it.
    #[default]
    Shared,
    /// Nobody: its batches hold its own requests only.
    Isolated,
}

impl Isolation {
    fn is_shared(&self) -> bool {
        *self == Self::Shared
    }
}

impl TenantSpec {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        if !(1..=MAX_WEIGHT).contains(&self.weight) {
            let text = format!("{} is not within 1 to {MAX_WEIGHT}", self.weight);
            problems.push(Problem::new("spec.weight", text));
        }
        self.limits.check(problems);
        self.per_subject.check_at("spec.per_subject", problems);
        self.per_subject_budgets.check_at("spec.per_subject_budgets", problems);
        self.budgets.check(problems);
        check_signers("spec.required_signers", &self.required_signers, problems);
        check_text(
            "spec.display_name",
            self.display_name.as_deref(),
            MAX_DISPLAY_NAME,
            problems,
        );
    }
}

/// Texts for people are bounded, and hold no control characters.
pub(crate) fn check_text(field: &str, text: Option<&str>, max: usize, problems: &mut Vec<Problem>) {
    let Some(text) = text else { return };
    if text.len() > max {
        problems.push(Problem::new(
            field,
            format!("{} bytes long, at most {max} are allowed", text.len()),
        ));
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        problems.push(Problem::new(field, "holds a control character: leave it out"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_each_subject_are_checked_where_they_are_written() {
        let spec: TenantSpec = serde_json::from_value(serde_json::json!({
            "limits": {"concurrency": 0}, "per_subject": {"requests": {"per_second": 0, "burst": 1}, "queued_rows": 0},
            "per_subject_budgets": {"daily": {"rows": {}}, "monthly": {"device_ms": {"soft": 3, "hard": 2}}},
        }))
        .unwrap();
        let mut problems = Vec::new();
        spec.check(&mut problems);
        let fields: Vec<_> = problems.iter().map(|problem| problem.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "spec.limits.concurrency",
                "spec.per_subject.requests.per_second",
                "spec.per_subject.queued_rows",
                "spec.per_subject_budgets.daily.rows",
                "spec.per_subject_budgets.monthly.device_ms.soft"
            ]
        );
        // A tenant that says nothing of it is written as before.
        assert!(
            !serde_json::to_string(&TenantSpec::default())
                .unwrap()
                .contains("per_subject")
        );
    }
}
