//! Policies: who may do what, in Cedar.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Problem, model::MAX_DESCRIPTION, tenant::check_text};

/// The longest text of a policy, in bytes.
pub const MAX_CEDAR_BYTES: usize = 65_536;

/// Statements that permit or forbid, beside those that are built in. Whether they parse and type-check is told when they are
/// written, with line and column.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicySpec {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The statements, in Cedar's language.
    pub cedar: String,
}

impl PolicySpec {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_text(
            "spec.description",
            self.description.as_deref(),
            MAX_DESCRIPTION,
            problems,
        );
        let bytes = self.cedar.len();
        if !(1..=MAX_CEDAR_BYTES).contains(&bytes) {
            problems.push(Problem::new(
                "spec.cedar",
                format!("{bytes} bytes long, 1 to {MAX_CEDAR_BYTES} are allowed: split it into several policies"),
            ));
        }
    }
}
