//! The account of one tenant: what of its limits, and of those of its keys, endpoints and models, is taken.
//!
//! Owns the counters and the decision over all of a request's limits at once: under one lock they are all looked at before
//! the first is taken from, so a refusal takes nothing and no two threads let the same unit through. Does not know where limits come
//! from, and reads no clock.
//!
//! Invariants: at most [`MAX_SUBJECTS`] keys, endpoints and models have an account; subjects of tokens, whom others name and admins do
//! not, have room of their own ([`Tokens`]); whoever has nothing taken makes room for others, and who finds none is refused; a subject in
//! shadow refuses nobody, and takes nothing of what it would have refused.

use std::time::Duration;

use smallvec::SmallVec;

use super::{
    bucket::{Buckets, Short},
    declared::Limits,
    few::BySubject,
    rule::{Amounts, LimitError, ROOM_RETRY, Rule, Scope, Unit, What},
    subject::Subject,
    terms::{Terms, amount, as_shown},
    tokens::Tokens,
    usage::Counts,
};

/// Keys, endpoints and models of one tenant with counters at any time.
pub const MAX_SUBJECTS: usize = 10_000;
/// What a row is taken to cost a device before any has been measured.
const UNMEASURED: u64 = 1_000;
/// A measurement moves the mean by one part in so many.
const WEIGHT: u64 = 8;

/// When, for counters.
#[derive(Debug, Clone, Copy)]
pub(super) struct At {
    /// Nanoseconds since the limiter was made.
    pub(super) nanos: u64,
    /// Seconds since the Unix epoch.
    pub(super) unix: i64,
}

/// What a request asks of one subject.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) subject: &'a Subject,
    pub(super) amounts: Amounts,
    /// A place among those at once.
    pub(super) place: bool,
    /// Room among those that wait.
    pub(super) room: bool,
}

/// The parts of a request; the tenant's own is the first.
pub(super) type Parts<'a> = SmallVec<[Part<'a>; 4]>;

/// Subjects by their scope, a bit each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Scopes(u8);

impl Scopes {
    pub(super) fn add(&mut self, scope: Scope) {
        self.0 |= 1 << scope as u8;
    }

    pub(super) fn has(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }
}

/// What is worth telling of a request that was let through.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Rules in shadow that would have refused it.
    pub shadowed: SmallVec<[Rule; 2]>,
    /// Budgets whose soft mark was found passed for the first time in their window.
    pub passed: SmallVec<[Rule; 2]>,
}

/// The counters of one subject: there is one for each that has called, of many tenants, so it is small.
#[derive(Debug, Clone, Default)]
pub(super) struct Cells {
    buckets: Buckets,
    pub(super) in_flight: u32,
    /// What a row costs a device, in microseconds; zero before the first.
    mean: u32,
    queued_rows: u64,
    queued_bytes: u64,
}

impl Cells {
    /// Brings the buckets to now and under the terms.
    fn follow(&mut self, terms: &Terms, now: u64) {
        self.buckets.follow(&terms.rates, now);
    }

    fn check(&mut self, part: &Part<'_>, now: u64) -> Result<(), LimitError> {
        let (limits, scope) = (part.subject.limits(), part.subject.scope());
        let reached = |what, limit, retry_after| LimitError::Reached {
            rule: Rule { scope, what },
            limit,
            retry_after,
        };
        if let Some(limit) = limits
            .concurrency
            .filter(|limit| part.place && self.in_flight >= *limit)
        {
            return Err(reached(What::Concurrency, u64::from(limit), ROOM_RETRY));
        }
        if part.room {
            self.check_room(part)?;
        }
        self.follow(&part.subject.terms, now);
        if !part.subject.terms.has_rates {
            return Ok(());
        }
        for ((unit, rate), asked) in Unit::ALL.into_iter().zip(&limits.rates).zip(part.amounts) {
            let (Some(rate), 1..) = (*rate, asked) else { continue };
            let what = What::rate(unit);
            match self.buckets.fits(unit, asked, rate) {
                Ok(()) => {}
                Err(Short::Until(nanos)) => {
                    let limit = as_shown(unit, rate.per_second());
                    return Err(reached(what, limit, Duration::from_nanos(nanos)));
                }
                Err(Short::Never) => {
                    return Err(LimitError::Beyond {
                        rule: Rule { scope, what },
                        limit: as_shown(unit, rate.burst()),
                        asked: as_shown(unit, asked),
                    });
                }
            }
        }
        Ok(())
    }

    fn check_room(&self, part: &Part<'_>) -> Result<(), LimitError> {
        let (limits, scope) = (part.subject.limits(), part.subject.scope());
        let rows = (What::QueuedRows, limits.queued_rows, self.queued_rows, Unit::Rows);
        let bytes = (
            What::QueuedBytes,
            limits.queued_bytes,
            self.queued_bytes,
            Unit::InputBytes,
        );
        for (what, limit, queued, unit) in [rows, bytes] {
            let (Some(limit), asked) = (limit, amount(&part.amounts, unit)) else {
                continue;
            };
            let rule = Rule { scope, what };
            if asked > limit {
                return Err(LimitError::Beyond { rule, limit, asked });
            }
            if queued.saturating_add(asked) > limit {
                return Err(LimitError::Reached {
                    rule,
                    limit,
                    retry_after: ROOM_RETRY,
                });
            }
        }
        Ok(())
    }

    fn take(&mut self, part: &Part<'_>) {
        self.in_flight += u32::from(part.place);
        if part.room {
            self.queued_rows = self.queued_rows.saturating_add(amount(&part.amounts, Unit::Rows));
            self.queued_bytes = (self.queued_bytes).saturating_add(amount(&part.amounts, Unit::InputBytes));
        }
        if !part.subject.terms.has_rates {
            return;
        }
        for ((unit, rate), asked) in Unit::ALL
            .into_iter()
            .zip(&part.subject.limits().rates)
            .zip(part.amounts)
        {
            if rate.is_some() && asked > 0 {
                self.buckets.take(unit, asked);
            }
        }
    }

    pub(super) fn leave(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    pub(super) fn leave_queue(&mut self, rows: u64, bytes: u64) {
        self.queued_rows = self.queued_rows.saturating_sub(rows);
        self.queued_bytes = self.queued_bytes.saturating_sub(bytes);
    }

    /// A request's token comes back.
    pub(super) fn forgive_request(&mut self, limits: &Limits) {
        if limits.rate(Unit::Requests).is_some() {
            self.buckets.give_back(Unit::Requests, 1);
        }
    }

    /// What was taken for the device becomes what it was.
    fn true_up(&mut self, subject: &Subject, bill: &Bill, now: u64) {
        if bill.ran > 0 {
            let measured = bill.ran / bill.rows.max(1);
            let mean = match u64::from(self.mean) {
                0 => measured.max(1),
                mean => (mean * (WEIGHT - 1) + measured).div_ceil(WEIGHT).max(1),
            };
            // More than an hour for a row is an hour.
            self.mean = u32::try_from(mean).unwrap_or(u32::MAX);
        }
        if subject.limits().rate(Unit::DeviceTime).is_none() {
            return;
        }
        // Of whom nothing was known any more, nothing would come back with time.
        self.follow(&subject.terms, now);
        if bill.ran >= bill.reserved {
            (self.buckets).take_at(Unit::DeviceTime, bill.ran - bill.reserved, now);
        } else {
            self.buckets.give_back(Unit::DeviceTime, bill.reserved - bill.ran);
        }
    }

    pub(super) fn is_at_rest(&mut self, now: u64) -> bool {
        let quiet = self.in_flight == 0 && self.queued_rows == 0 && self.queued_bytes == 0;
        quiet && self.buckets.are_full(now)
    }

    /// What is left of each rule, and the seconds until it is whole again.
    pub(super) fn left(&mut self, subject: &Subject, now: u64, mut tell: impl FnMut(What, u64, Option<u64>)) {
        let limits = subject.limits();
        self.follow(&subject.terms, now);
        for (unit, rate) in Unit::ALL.into_iter().zip(&limits.rates) {
            if let Some(rate) = *rate {
                let (left, nanos) = self.buckets.left(unit, rate);
                tell(
                    What::rate(unit),
                    as_shown(unit, left),
                    Some(nanos.div_ceil(1_000_000_000)),
                );
            }
        }
        let rooms = [
            (
                What::Concurrency,
                limits.concurrency.map(u64::from),
                u64::from(self.in_flight),
            ),
            (What::QueuedRows, limits.queued_rows, self.queued_rows),
            (What::QueuedBytes, limits.queued_bytes, self.queued_bytes),
        ];
        for (what, limit, taken) in rooms {
            if let Some(limit) = limit {
                tell(what, limit.saturating_sub(taken), None);
            }
        }
    }
}

/// What a request's device time was taken for, and what it came to; microseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bill {
    pub(super) rows: u64,
    pub(super) reserved: u64,
    pub(super) ran: u64,
    /// The Unix second at which it was reserved.
    pub(super) since: i64,
}

/// All counters of a tenant. Each subject's are made when it first calls.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) own: Cells,
    others: BySubject<Cells>,
    pub(super) tokens: Option<Box<Tokens>>,
    pub(super) counts: Counts,
}

impl State {
    /// A subject's counters, made if they are not there; nothing where there is no room.
    fn cells(&mut self, subject: &Subject, now: u64) -> Result<&mut Cells, LimitError> {
        let id = &subject.id;
        match subject.scope() {
            Scope::Tenant => Ok(&mut self.own),
            Scope::Token => self.tokens.get_or_insert_default().cells(subject, now),
            _ => {
                const FULL: LimitError = LimitError::Full("limited keys, endpoints and models");
                if !self.others.contains_key(id) {
                    if self.others.len() >= MAX_SUBJECTS {
                        tidy(&mut self.others, now);
                    }
                    if self.others.len() >= MAX_SUBJECTS {
                        return Err(FULL);
                    }
                    self.others.add(*id, Cells::default());
                }
                self.others.get_mut(id).ok_or(FULL)
            }
        }
    }

    /// A subject's counters, if there are any.
    pub(super) fn known(&mut self, subject: &Subject) -> Option<&mut Cells> {
        match subject.scope() {
            Scope::Tenant => Some(&mut self.own),
            Scope::Token => self.tokens.as_mut()?.known(subject),
            _ => self.others.get_mut(&subject.id),
        }
    }

    /// What is counted for a subject's budgets, made if it is not there and brought to now; none of one that can have none.
    fn counts(&mut self, subject: &Subject, at: At) -> Result<Option<&mut Counts>, LimitError> {
        let counts = match subject.scope() {
            Scope::Tenant => &mut self.counts,
            Scope::Token if subject.token().is_some() => self.tokens.get_or_insert_default().counts(subject, at)?,
            _ => return Ok(None),
        };
        counts.follow(at.unix);
        Ok(Some(counts))
    }

    /// The same, if it is there.
    pub(super) fn known_counts(&mut self, subject: &Subject) -> Option<&mut Counts> {
        match subject.scope() {
            Scope::Tenant => Some(&mut self.counts),
            Scope::Token => self.tokens.as_mut()?.known_counts(&subject.id),
            _ => None,
        }
    }

    /// Forgets subjects of which nothing is taken: they begin anew as they are.
    pub(super) fn tidy(&mut self, at: At) {
        tidy(&mut self.others, at.nanos);
        if let Some(tokens) = &mut self.tokens {
            tokens.tidy(at);
            if tokens.len() == 0 {
                self.tokens = None;
            }
        }
    }

    /// How many subjects besides the tenant are kept account of.
    pub(super) fn subjects(&self) -> usize {
        self.others.len() + self.tokens.as_ref().map_or(0, |tokens| tokens.len())
    }

    /// What so many rows will cost a device, by what is known closest to them; no more than any burst.
    pub(super) fn estimate<'a>(&mut self, rows: u64, subjects: impl Iterator<Item = &'a Subject> + Clone) -> u64 {
        let means = subjects
            .clone()
            .filter_map(|subject| self.known(subject).map(|cells| cells.mean));
        let mean = means.filter(|mean| *mean > 0).last().map_or(UNMEASURED, u64::from);
        let bursts = subjects.filter_map(|subject| subject.limits().rate(Unit::DeviceTime));
        let estimate = mean.saturating_mul(rows);
        bursts.fold(estimate, |estimate, rate| estimate.min(rate.burst()))
    }

    /// Takes all of a request's parts, or none of them. Scopes that would have refused in shadow are added to `spared`.
    pub(super) fn take(&mut self, parts: &Parts<'_>, at: At, spared: &mut Scopes) -> Result<Told, LimitError> {
        let mut told = Told::default();
        for part in parts {
            if spared.has(part.subject.scope()) {
                continue;
            }
            let cells = match self.cells(part.subject, at.nanos) {
                Err(_) if part.subject.limits().shadow => {
                    // For whom there is no room there is nothing to try.
                    spared.add(part.subject.scope());
                    continue;
                }
                cells => cells?,
            };
            let checked = cells.check(part, at.nanos);
            match checked.map_err(|error| (error.rule().filter(|_| part.subject.limits().shadow), error)) {
                Ok(()) => {}
                Err((Some(rule), _)) => {
                    spared.add(part.subject.scope());
                    told.shadowed.push(rule);
                }
                Err((None, error)) => return Err(error),
            }
        }
        for part in parts {
            let terms = &part.subject.terms;
            let checked = match self.counts(part.subject, at) {
                Ok(Some(counts)) => counts.check(terms, &part.amounts, at.unix),
                // For whom there is no room there is nothing to try.
                Err(_) if terms.budgets_shadow => Ok(()),
                counts => counts.map(drop),
            };
            match checked.map_err(|error| (error.rule().filter(|_| terms.budgets_shadow), error)) {
                Ok(()) => {}
                Err((Some(rule), _)) => told.shadowed.push(rule),
                Err((None, error)) => return Err(error),
            }
        }
        for part in parts.iter().filter(|part| !spared.has(part.subject.scope())) {
            self.cells(part.subject, at.nanos)?.take(part);
        }
        for part in parts {
            // Without room in shadow nothing is counted.
            if let Ok(Some(counts)) = self.counts(part.subject, at) {
                counts.add(&part.amounts);
                counts.pass_marks(&part.subject.terms, &mut told);
            }
        }
        Ok(told)
    }

    /// A request's device time is known.
    pub(super) fn true_up<'a>(
        &mut self,
        subjects: impl Iterator<Item = &'a Subject>,
        bill: &Bill,
        at: At,
        spared: Scopes,
    ) {
        for subject in subjects {
            if let Ok(Some(counts)) = self.counts(subject, at) {
                counts.true_up(bill);
            }
            let spared = spared.has(subject.scope());
            let bill = if spared {
                Bill {
                    reserved: bill.ran,
                    ..*bill
                }
            } else {
                *bill
            };
            // Who was forgotten while the device still ran for it has its debt nevertheless.
            let owes = bill.ran > bill.reserved && subject.limits().rate(Unit::DeviceTime).is_some();
            let cells = match self.known(subject) {
                None if owes => self.cells(subject, at.nanos).ok(),
                known => known,
            };
            if let Some(cells) = cells {
                cells.true_up(subject, &bill, at.nanos);
            }
        }
    }
}

fn tidy(subjects: &mut BySubject<Cells>, now: u64) {
    subjects.retain(|cells| !cells.is_at_rest(now));
}
