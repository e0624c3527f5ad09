//! What an answer says of its caller's limits: structured fields (RFC 9651) as the draft of the `RateLimit` header fields has
//! them, for requests, bytes and concurrency; the same grammar for the mesh's own units, and warnings of budgets.

use std::fmt::Write as _;

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Caller, Now,
    ledger::{At, Cells, State},
    rule::Rule,
    subject::Subject,
    terms::{as_shown, is_standard},
    usage::Counts,
};

/// The header fields of an answer; what is empty is not sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notice {
    /// `RateLimit-Policy`, a line for each subject.
    pub policy: SmallVec<[Bytes; 2]>,
    /// `RateLimit`.
    pub state: String,
    /// `x-mesh-limit-policy`, a line for each subject.
    pub own_policy: SmallVec<[Bytes; 2]>,
    /// `x-mesh-limit`.
    pub own_state: String,
    /// `x-mesh-budget-warning`.
    pub warning: String,
}

impl Notice {
    /// Nothing to say but which subjects there are.
    pub(super) fn of<'a>(subjects: impl Iterator<Item = &'a Subject>) -> Self {
        let mut notice = Self::default();
        let (mut standard, mut own) = (0, 0);
        for subject in subjects {
            let [of_standard, of_own] = subject.policy();
            (standard, own) = (standard + of_standard.len(), own + of_own.len());
            if !of_standard.is_empty() {
                notice.policy.push(of_standard);
            }
            if !of_own.is_empty() {
                notice.own_policy.push(of_own);
            }
        }
        // What is left is rarely told at greater length than what there is.
        notice.state.reserve(standard);
        notice.own_state.reserve(own);
        notice
    }

    fn tell(&mut self, rule: Rule, left: u64, seconds: Option<u64>) {
        let text = if is_standard(rule.what) {
            &mut self.state
        } else {
            &mut self.own_state
        };
        part(text);
        text.push_str(rule.item());
        number(text, left);
        if let Some(seconds) = seconds {
            text.push_str(";t=");
            number(text, seconds);
        }
    }

    fn warn(&mut self, rule: Rule, used: u64, soft: u64) {
        part(&mut self.warning);
        // Writing to a String cannot fail.
        let _ = write!(self.warning, "\"{rule}\";used={used};soft={soft}");
    }
}

/// Before a further item.
fn part(text: &mut String) {
    if !text.is_empty() {
        text.push_str(", ");
    }
}

/// Without formatting machinery, which would cost more than all else that is done for these headers.
fn number(text: &mut String, number: u64) {
    text.push_str(itoa::Buffer::new().format(number));
}

impl Caller {
    /// What an answer says now of the limits that it met.
    pub fn notice(&self, now: Now) -> Notice {
        let at = self.ledger.time.at(now);
        let mut notice = Notice::of(self.subjects());
        let mut state = self.ledger.state.lock();
        for subject in self.subjects().filter(|subject| !subject.limits().shadow) {
            let scope = subject.scope();
            let mut tell = |what, left, seconds| notice.tell(Rule { scope, what }, left, seconds);
            match state.known(subject) {
                Some(cells) => cells.left(subject, at.nanos, &mut tell),
                None => Cells::default().left(subject, at.nanos, &mut tell),
            }
        }
        self.tell_budgets(&mut state, at, &mut notice);
        notice
    }

    fn tell_budgets(&self, state: &mut State, at: At, notice: &mut Notice) {
        let with_budgets = self
            .subjects()
            .filter(|subject| !subject.terms.budgets.is_empty() && !subject.terms.budgets_shadow);
        for subject in with_budgets {
            let mut nothing = Counts::default();
            let counts = state.known_counts(subject).unwrap_or(&mut nothing);
            counts.follow(at.unix);
            for budget in &subject.terms.budgets {
                let (unit, marks, of_month) = (budget.unit, budget.marks, budget.of_month);
                let rule = Rule {
                    scope: subject.scope(),
                    what: budget.what(),
                };
                let used = counts.used(of_month, unit);
                if let Some(hard) = marks.hard {
                    let left = as_shown(unit, hard.saturating_sub(used));
                    notice.tell(rule, left, Some(counts.ends_in(of_month, at.unix)));
                }
                if let Some(soft) = marks.soft.filter(|soft| used >= *soft) {
                    notice.warn(rule, as_shown(unit, used), as_shown(unit, soft));
                }
            }
        }
    }
}
