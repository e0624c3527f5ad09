//! What an answer says of its caller's limits: structured fields (RFC 9651) as the draft of the `RateLimit` header fields has
//! them, for requests, bytes and concurrency; the same grammar for the mesh's own units, and warnings of budgets.

use bytes::Bytes;
use smallvec::SmallVec;

use super::{
    Caller, Now,
    ledger::{At, Cells, State},
    rule::Rule,
    subject::{Subject, as_shown, is_standard},
};

/// Digits of the largest number.
const MAX_DIGITS: usize = 20;

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
            let policy = &subject.policy;
            if !policy.standard.is_empty() {
                notice.policy.push(policy.standard.clone());
            }
            if !policy.own.is_empty() {
                notice.own_policy.push(policy.own.clone());
            }
            (standard, own) = (standard + policy.standard.len(), own + policy.own.len());
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
        item(text, rule);
        parameter(text, ";r=", left);
        if let Some(seconds) = seconds {
            parameter(text, ";t=", seconds);
        }
    }

    fn warn(&mut self, rule: Rule, used: u64, soft: u64) {
        item(&mut self.warning, rule);
        parameter(&mut self.warning, ";used=", used);
        parameter(&mut self.warning, ";soft=", soft);
    }
}

fn item(text: &mut String, rule: Rule) {
    if !text.is_empty() {
        text.push_str(", ");
    }
    text.push('"');
    text.push_str(rule.name());
    text.push('"');
}

/// By hand: formatting machinery would cost more than all else that is done for these headers.
fn parameter(text: &mut String, name: &str, number: u64) {
    text.push_str(name);
    let (mut digits, mut first, mut rest) = ([b'0'; MAX_DIGITS], MAX_DIGITS, number);
    for (place, digit) in digits.iter_mut().enumerate().rev() {
        // A remainder by ten.
        *digit = b'0' + (rest % 10) as u8;
        (first, rest) = (place, rest / 10);
        if rest == 0 {
            break;
        }
    }
    // Digits are always text.
    text.push_str(
        digits
            .get(first..)
            .and_then(|digits| str::from_utf8(digits).ok())
            .unwrap_or_default(),
    );
}

impl Caller {
    /// What an answer says now of the limits that it met.
    pub fn notice(&self, now: Now) -> Notice {
        let at = self.ledger.time.at(now);
        let mut notice = Notice::of(self.subjects());
        let mut state = self.ledger.state.lock();
        for subject in self.subjects().filter(|subject| !subject.limits.shadow) {
            let scope = subject.id.scope;
            let mut tell = |what, left, seconds| notice.tell(Rule { scope, what }, left, seconds);
            match state.known(&subject.id) {
                Some(cells) => cells.left(subject, at.nanos, &mut tell),
                None => Cells::default().left(subject, at.nanos, &mut tell),
            }
        }
        self.tell_budgets(&mut state, at, &mut notice);
        notice
    }

    fn tell_budgets(&self, state: &mut State, at: At, notice: &mut Notice) {
        let budgets = self.limits.budgets();
        if budgets.shadow || budgets.all.is_empty() {
            return;
        }
        state.counts.follow(at.unix);
        for budget in budgets.all {
            let (what, unit, marks, of_month) = (budget.what(), budget.unit, budget.marks, budget.of_month);
            let used = state.counts.used(of_month, unit);
            if let Some(hard) = marks.hard {
                let left = as_shown(unit, hard.saturating_sub(used));
                notice.tell(
                    Rule::of_tenant(what),
                    left,
                    Some(state.counts.ends_in(of_month, at.unix)),
                );
            }
            if let Some(soft) = marks.soft.filter(|soft| used >= *soft) {
                notice.warn(Rule::of_tenant(what), as_shown(unit, used), as_shown(unit, soft));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let mut text = String::new();
            parameter(&mut text, ";r=", number);
            assert_eq!(text, format!(";r={number}"));
        }
    }
}
