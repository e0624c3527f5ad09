//! Who is limited: by what the limiter knows them, what they may use, and the part of the answers' headers that follows from that
//! alone.
//!
//! Owns no counter. The headers' static part is written here once, when a snapshot is compiled, and shared by every answer.
//!
//! Invariants: what stands for a subject has the same size whatever its name, so that callers' names take no memory; no two subjects of
//! a tenant have the same.

use std::{
    collections::HashMap,
    fmt::Write as _,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
    sync::{Arc, LazyLock},
};

use bytes::Bytes;

use super::{
    declared::{Budget, Limits},
    rule::{Amounts, Rule, Scope, Unit, What},
};
use crate::access::{Principal, TOKEN_PREFIX};

/// Who calls, as its credential says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who<'a> {
    /// What it showed: [`Principal::credential`].
    pub credential: &'a str,
    /// Who it is: [`Principal::subject`].
    pub subject: &'a str,
}

impl<'a> From<&'a Principal> for Who<'a> {
    fn from(principal: &'a Principal) -> Self {
        Self {
            credential: &principal.credential,
            subject: &principal.subject,
        }
    }
}

/// By what the limiter knows a subject of a tenant: 128 bits that follow from its scope and its name. A request looks each up several
/// times, so they are made once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SubjectId {
    hashes: [u64; 2],
    pub(super) scope: Scope,
}

/// Two for the process, so that nobody can choose names that meet.
static HASHES: LazyLock<[RandomState; 2]> = LazyLock::new(|| [RandomState::new(), RandomState::new()]);

impl SubjectId {
    /// Of two names where one does not tell: an issuer's subject.
    fn new(scope: Scope, name: (&str, &str)) -> Self {
        let named = (scope, name);
        let [first, second] = &*HASHES;
        Self {
            hashes: [first.hash_one(named), second.hash_one(named)],
            scope,
        }
    }
}

impl Hash for SubjectId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [first, _] = self.hashes;
        state.write_u64(first);
    }
}

/// Takes a hash that was made before as it is.
#[derive(Debug, Default)]
pub(super) struct Made(u64);

impl Hasher for Made {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // For whatever is no made hash: FNV-1a. A subject's name never comes here.
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, made: u64) {
        self.0 = made;
    }
}

/// Something for each subject.
pub(super) type BySubject<T> = HashMap<SubjectId, T, BuildHasherDefault<Made>>;

/// The static part of the answers' headers, as structured fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Policy {
    /// For `RateLimit-Policy`: requests, bytes and concurrency, whose units are registered.
    pub(super) standard: Bytes,
    /// The same for the mesh's own units.
    pub(super) own: Bytes,
}

/// Who is limited: a tenant, or a key, a token's subject, an endpoint or a model as one tenant uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) id: SubjectId,
    pub(super) limits: Limits,
    pub(super) policy: Policy,
}

impl Subject {
    /// A subject with its limits. The partition is what tells callers which quotas are one: opaque, and none is no such word.
    pub(super) fn new(scope: Scope, name: &str, limits: Limits, partition: Option<&str>) -> Self {
        Self::with_budgets(scope, name, limits, &[], partition)
    }

    pub(super) fn with_budgets(
        scope: Scope,
        name: &str,
        limits: Limits,
        budgets: &[Budget],
        partition: Option<&str>,
    ) -> Self {
        Self {
            id: SubjectId::new(scope, (name, "")),
            policy: policy(scope, &limits, budgets, partition),
            limits,
        }
    }
}

/// What each subject of a token may use, whoever it is.
#[derive(Debug, Clone)]
pub(super) struct EachToken {
    limits: Limits,
    policy: Policy,
}

impl EachToken {
    /// Without a word for which quotas are one: they are as many as there are subjects.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            policy: policy(Scope::Token, &limits, &[], None),
            limits,
        }
    }

    /// The subject of this caller, if it has shown a token. The same subject of two issuers is two.
    pub(super) fn subject(&self, who: Who<'_>) -> Option<Arc<Subject>> {
        who.credential.starts_with(TOKEN_PREFIX).then(|| {
            Arc::new(Subject {
                id: SubjectId::new(Scope::Token, (who.credential, who.subject)),
                limits: self.limits,
                policy: self.policy.clone(),
            })
        })
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

fn policy(scope: Scope, limits: &Limits, budgets: &[Budget], partition: Option<&str>) -> Policy {
    let (mut standard, mut own) = (String::new(), String::new());
    for (what, bound, window) in shown(limits, budgets) {
        let text = if is_standard(what) { &mut standard } else { &mut own };
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
        if let Some(partition) = partition {
            let _ = write!(text, ";pk=:{partition}:");
        }
    }
    // Without room for more: there is one for each of many tenants.
    Policy {
        standard: standard.into_bytes().into_boxed_slice().into(),
        own: own.into_bytes().into_boxed_slice().into(),
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
