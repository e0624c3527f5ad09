//! How long an answer takes at most, by the size of what is asked.
//!
//! A refusal for a name that a caller may not call must not tell by its time that the name is there, and to make an answer anew takes the
//! longer the more statements there are: a name that is not there asks none. So whoever answers refusals waits for as long as the
//! slowest answer takes, and how long that is follows from the size of the statements alone: nothing is measured, so it is the same for
//! everybody and known before the first question. The figures are several times what callgrind counts (`examples/decision_cost.rs`).
//!
//! Invariant: it grows with every statement that a question of a tenant's caller can come to, and with each byte of it.

use std::time::Duration;

use cedar_policy::{ActionConstraint, Policy};
use mesh_policies::authorization::{Action, SubjectKind};

/// For each statement.
const OF_STATEMENT: Duration = Duration::from_micros(20);
/// For each byte of a statement.
const OF_BYTE: Duration = Duration::from_nanos(200);

/// What a statement adds to the time of an answer to a tenant's caller.
pub(crate) fn of(statement: &Policy) -> Duration {
    if let ActionConstraint::Eq(action) = statement.action_constraint() {
        let id: &str = action.id().as_ref();
        let others = |action: &Action| action.as_str() == id && !action.is_by(SubjectKind::Key);
        if Action::ALL.iter().any(others) {
            return Duration::ZERO;
        }
    }
    let bytes = statement.to_cedar().map_or(0, |text| text.len());
    OF_STATEMENT + OF_BYTE * u32::try_from(bytes).unwrap_or(u32::MAX)
}
