//! The account of one tenant's callers with tokens, who are as many as others make them.
//!
//! Owns the counters of their limits, and the counts of what each has used of its budgets, which are kept over restarts and therefore with
//! the subjects' names.
//!
//! Invariants: at most [`MAX_TOKEN_SUBJECTS`] have counters, and as many have counts; whoever has nothing taken of the one, or has used
//! nothing that a budget still looks at of the other, makes room; who finds none is told, and room is looked for at most once in
//! [`ROOM_RETRY`], because the look goes through all of them.

use super::{
    TokenSubject, Usage,
    few::BySubject,
    ledger::{At, Cells},
    rule::{LimitError, ROOM_RETRY},
    subject::{Subject, SubjectId},
    usage::Counts,
};

/// Subjects of one tenant's tokens with counters at any time, and with counts of what they have used of their budgets.
pub const MAX_TOKEN_SUBJECTS: usize = 10_000;
/// How long nobody looks for room again, after there was none.
const LOOK_NANOS: u64 = ROOM_RETRY.as_nanos() as u64;

const NO_ROOM: LimitError = LimitError::Full("subjects of tokens");
const NO_BUDGET: LimitError = LimitError::Full("subjects of tokens with budgets");

/// What one subject has used.
#[derive(Debug)]
struct Counted {
    name: TokenSubject,
    counts: Counts,
}

/// The account of a tenant's callers with tokens.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    cells: BySubject<Cells>,
    /// Until when there is no look for room.
    full_until: u64,
    counted: BySubject<Counted>,
    none_uncounted_until: u64,
}

impl Tokens {
    /// A subject's counters, made if they are not there.
    pub(super) fn cells(&mut self, subject: &Subject, now: u64) -> Result<&mut Cells, LimitError> {
        if !self.cells.contains_key(&subject.id) {
            if self.cells.len() >= MAX_TOKEN_SUBJECTS && now >= self.full_until {
                self.cells.retain(|cells| !cells.is_at_rest(now));
                self.full_until = now.saturating_add(LOOK_NANOS);
            }
            if self.cells.len() >= MAX_TOKEN_SUBJECTS {
                return Err(NO_ROOM);
            }
            self.cells.add(subject.id, Cells::default());
        }
        self.cells.get_mut(&subject.id).ok_or(NO_ROOM)
    }

    pub(super) fn known(&mut self, subject: &Subject) -> Option<&mut Cells> {
        self.cells.get_mut(&subject.id)
    }

    /// The counts of a subject that has budgets, made if they are not there.
    pub(super) fn counts(&mut self, subject: &Subject, at: At) -> Result<&mut Counts, LimitError> {
        let id = &subject.id;
        if !self.counted.contains_key(id) {
            if self.counted.len() >= MAX_TOKEN_SUBJECTS && at.nanos >= self.none_uncounted_until {
                // Without a budget for a month nobody asks for what was used before today.
                let of_month = subject.terms.budgets.iter().any(|budget| budget.of_month);
                self.counted.retain(|of| of.counts.counts_still(at.unix, of_month));
                self.none_uncounted_until = at.nanos.saturating_add(LOOK_NANOS);
            }
            let name = subject.token().filter(|_| self.counted.len() < MAX_TOKEN_SUBJECTS);
            let name = name.ok_or(NO_BUDGET)?.clone();
            let counts = Counts::default();
            self.counted.add(*id, Counted { name, counts });
        }
        self.counted.get_mut(id).map(|of| &mut of.counts).ok_or(NO_BUDGET)
    }

    /// The counts of a subject, if there are any.
    pub(super) fn known_counts(&mut self, id: &SubjectId) -> Option<&mut Counts> {
        self.counted.get_mut(id).map(|of| &mut of.counts)
    }

    /// What is known from before; left out where it is of a month that is over, or there is no room.
    pub(super) fn restore(&mut self, name: TokenSubject, usage: Usage, unix: i64) {
        let id = name.id();
        let mut before = Counts::default();
        before.restore(usage);
        if !before.counts_still(unix, true) {
            return;
        }
        if !self.counted.contains_key(&id) {
            if self.counted.len() >= MAX_TOKEN_SUBJECTS {
                return;
            }
            let counts = Counts::default();
            self.counted.add(id, Counted { name, counts });
        }
        if let Some(of) = self.counted.get_mut(&id) {
            of.counts.restore(usage);
        }
    }

    /// What every subject has used that has used something; brought to this Unix second.
    pub(super) fn usages(&mut self, unix: i64) -> impl Iterator<Item = (&TokenSubject, Usage)> {
        self.counted.values_mut().filter_map(move |of| {
            let still = of.counts.counts_still(unix, true);
            still.then_some((&of.name, of.counts.usage))
        })
    }

    /// What has changed since this was last asked.
    pub(super) fn changed(&mut self) -> impl Iterator<Item = (&TokenSubject, Usage)> {
        self.counted.values_mut().filter_map(|of| {
            let changed = std::mem::take(&mut of.counts.changed);
            changed.then_some((&of.name, of.counts.usage))
        })
    }

    /// Forgets subjects of which nothing is taken, and what was used in months that are over.
    pub(super) fn tidy(&mut self, at: At) {
        self.cells.retain(|cells| !cells.is_at_rest(at.nanos));
        self.counted.retain(|of| of.counts.counts_still(at.unix, true));
    }

    /// How many have counters, or counts.
    pub(super) fn len(&self) -> usize {
        self.cells.len() + self.counted.len()
    }
}
