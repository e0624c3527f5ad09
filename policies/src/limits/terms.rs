//! What subjects may use, as it is declared: kept once for all that are declared alike, with the part of the answers' headers that
//! follows from that alone.
//!
//! Owns no counter and no subject. There are few plans and many tenants: a tenant has its own names and words, and shares the rest. The
//! headers' text is written when an answer first tells of it, with a place for the word that differs from subject to subject.
//!
//! Invariants: terms that are alike are one within a compilation ([`Alike`]), and one that differs in anything is another.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;

use super::{
    bucket::Rates,
    declared::{Budget, Limits},
    rule::{Amounts, Rule, Scope, Unit, What},
};

/// The longest word that tells callers which quotas are one.
const MAX_WORD: usize = 15;

/// A word that tells callers which quotas are one: base64, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Word {
    length: u8,
    bytes: [u8; MAX_WORD],
}

impl Word {
    /// A longer one is none.
    pub(super) fn new(text: Option<&str>) -> Self {
        let mut word = Self::default();
        let text = text.filter(|text| text.len() <= MAX_WORD).unwrap_or_default();
        for (to, from) in word.bytes.iter_mut().zip(text.bytes()) {
            (*to, word.length) = (from, word.length + 1);
        }
        word
    }

    fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// The text of one header field, with a place for a word behind each of its items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Template {
    text: Bytes,
    places: Box<[u32]>,
}

impl Template {
    fn with(&self, word: &Word) -> Bytes {
        if self.places.is_empty() {
            return self.text.clone();
        }
        let (mut text, word) = (self.text.to_vec(), word.as_bytes());
        for place in &self.places {
            let place = *place as usize;
            if let Some(place) = text.get_mut(place..place + word.len()) {
                place.copy_from_slice(word);
            }
        }
        text.into()
    }
}

/// The static part of the answers' headers, as structured fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Policy {
    standard: Template,
    own: Template,
}

/// What a subject may use.
#[derive(Debug)]
pub(super) struct Terms {
    pub(super) scope: Scope,
    pub(super) limits: Limits,
    /// Those of the limits, for buckets to run under.
    pub(super) rates: Arc<Rates>,
    /// Whether there is one.
    pub(super) has_rates: bool,
    /// Of a tenant, or of a subject of its tokens.
    pub(super) budgets: Box<[Budget]>,
    pub(super) budgets_shadow: bool,
    /// How long the word of a subject is.
    word: u8,
    policy: OnceLock<Policy>,
}

impl Terms {
    pub(super) fn new(
        scope: Scope,
        limits: Limits,
        (budgets, budgets_shadow): (Box<[Budget]>, bool),
        word: &Word,
    ) -> Arc<Self> {
        Arc::new(Self {
            scope,
            rates: Arc::new(limits.rates),
            has_rates: limits.rates.iter().any(Option::is_some),
            limits,
            budgets,
            budgets_shadow,
            word: word.length,
            policy: OnceLock::new(),
        })
    }

    /// Of one without budgets.
    pub(super) fn of(scope: Scope, limits: Limits, word: &Word) -> Arc<Self> {
        Self::new(scope, limits, (Box::default(), false), word)
    }

    /// For `RateLimit-Policy`, with the word of a subject: requests, bytes and concurrency, whose units are registered; then the same for
    /// the mesh's own units.
    pub(super) fn policy(&self, word: &Word) -> [Bytes; 2] {
        let policy = self.policy.get_or_init(|| {
            let budgets: &[Budget] = if self.budgets_shadow { &[] } else { &self.budgets };
            policy(self.scope, &self.limits, budgets, usize::from(self.word))
        });
        [policy.standard.with(word), policy.own.with(word)]
    }

    fn said(&self) -> Said {
        Said {
            scope: self.scope,
            limits: self.limits,
            budgets: self.budgets.clone(),
            budgets_shadow: self.budgets_shadow,
            word: self.word,
        }
    }
}

/// What makes terms these and no others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Said {
    scope: Scope,
    limits: Limits,
    budgets: Box<[Budget]>,
    budgets_shadow: bool,
    word: u8,
}

/// All terms of one compilation: those that are alike become one.
#[derive(Debug, Default)]
pub struct Alike(HashMap<Said, Arc<Terms>>);

impl Alike {
    /// How many different ones there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn make_one(&mut self, terms: &mut Arc<Terms>) {
        *terms = self.0.entry(terms.said()).or_insert_with(|| terms.clone()).clone();
    }
}

/// Whether a rule's unit is one that the header fields' registry knows.
pub(super) const fn is_standard(what: What) -> bool {
    matches!(
        what,
        What::Requests
            | What::InputBytes
            | What::Concurrency
            | What::DailyRequests
            | What::DailyInputBytes
            | What::MonthlyRequests
            | What::MonthlyInputBytes
    )
}

/// Every rule of a subject that has a bound to show: the bound, and the window in seconds. What is in shadow is not shown, or callers
/// would keep to it.
fn shown(limits: &Limits, budgets: &[Budget]) -> Vec<(What, u64, Option<u64>)> {
    const DAY: u64 = 86_400;
    let nothing = Limits::default();
    let limits = if limits.shadow { &nothing } else { limits };
    let rates = Unit::ALL.into_iter().filter_map(|unit| {
        let rate = limits.rate(unit)?;
        let window = rate.burst().div_ceil(rate.per_second()).max(1);
        Some((What::rate(unit), rate.burst() / unit.per_shown(), Some(window)))
    });
    let rooms = [
        (What::Concurrency, limits.concurrency.map(u64::from)),
        (What::QueuedRows, limits.queued_rows),
        (What::QueuedBytes, limits.queued_bytes),
    ];
    let rooms = rooms.into_iter().filter_map(|(what, bound)| Some((what, bound?, None)));
    let budgets = budgets.iter().filter_map(|budget| {
        // A month's length differs: its end is in the other header.
        let window = (!budget.of_month).then_some(DAY);
        Some((budget.what(), as_shown(budget.unit, budget.marks.hard?), window))
    });
    rates.chain(rooms).chain(budgets).collect()
}

fn policy(scope: Scope, limits: &Limits, budgets: &[Budget], word: usize) -> Policy {
    let (mut standard, mut own) = ((String::new(), Vec::new()), (String::new(), Vec::new()));
    for (what, bound, window) in shown(limits, budgets) {
        let (text, places) = if is_standard(what) { &mut standard } else { &mut own };
        if !text.is_empty() {
            text.push_str(", ");
        }
        // Writing to a String cannot fail.
        let _ = write!(text, "\"{}\";q={bound}", Rule { scope, what });
        if let Some(unit) = quota_unit(what) {
            let _ = write!(text, ";qu=\"{unit}\"");
        }
        if let Some(window) = window {
            let _ = write!(text, ";w={window}");
        }
        if word > 0 {
            text.push_str(";pk=:");
            places.extend(u32::try_from(text.len()));
            text.extend(std::iter::repeat_n('0', word));
            text.push(':');
        }
    }
    let template = |(text, places): (String, Vec<u32>)| Template {
        text: text.into(),
        places: places.into(),
    };
    Policy {
        standard: template(standard),
        own: template(own),
    }
}

/// The unit of a quota; requests need not be named.
const fn quota_unit(what: What) -> Option<&'static str> {
    match what {
        What::Requests | What::DailyRequests | What::MonthlyRequests => None,
        What::Concurrency => Some("concurrent-requests"),
        What::InputBytes | What::QueuedBytes | What::DailyInputBytes | What::MonthlyInputBytes => Some("content-bytes"),
        What::Rows | What::QueuedRows | What::DailyRows | What::MonthlyRows => Some("rows"),
        What::DeviceTime | What::DailyDeviceTime | What::MonthlyDeviceTime => Some("device-ms"),
    }
}

/// An amount as it is shown.
pub(super) fn as_shown(unit: Unit, amount: u64) -> u64 {
    amount / unit.per_shown()
}

/// The amount of a unit.
pub(super) fn amount(amounts: &Amounts, unit: Unit) -> u64 {
    amounts.get(unit as usize).copied().unwrap_or(0)
}
