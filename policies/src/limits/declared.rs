//! Limits as a snapshot has them: what is declared, and the part of the answers' headers that follows from that alone.
//!
//! Owns no counter: state is in the limiter, by the tenant's name and the [`SubjectId`], so that it outlives snapshots. The
//! headers' static part is written here once, when a snapshot is compiled, and shared by every answer.

use std::{collections::HashMap, fmt::Write as _, sync::Arc};

use bytes::Bytes;
use mesh_types::{ModelId, TenantId};

use super::rule::{Amounts, Rule, Scope, Unit, What};

/// The widest rate and burst: both times a thousand million are counted in 64 bits.
pub const MAX_AMOUNT: u64 = 9_000_000_000;

/// So many a second, and so many at once after a pause; from 1 to [`MAX_AMOUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// What is outside of the bounds is brought to them.
    pub const fn new(per_second: u64, burst: u64) -> Self {
        const fn within(number: u64) -> u64 {
            match number {
                0 => 1,
                1..=MAX_AMOUNT => number,
                _ => MAX_AMOUNT,
            }
        }
        Self {
            per_second: within(per_second),
            burst: within(burst),
        }
    }

    /// Sustained.
    pub const fn per_second(self) -> u64 {
        self.per_second
    }

    /// At once.
    pub const fn burst(self) -> u64 {
        self.burst
    }
}

/// What a subject may use; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    /// By unit, in the order of [`Unit::ALL`].
    pub rates: [Option<Rate>; 4],
    /// Requests at once.
    pub concurrency: Option<u32>,
    /// Rows of requests that wait for a device.
    pub queued_rows: Option<u64>,
    /// Bytes of inputs of requests that wait for a device.
    pub queued_bytes: Option<u64>,
    /// Whether nobody is refused, and only told what would be.
    pub shadow: bool,
}

impl Limits {
    /// The same with a rate of a unit.
    #[must_use]
    pub fn with_rate(mut self, unit: Unit, rate: Rate) -> Self {
        if let Some(slot) = self.rates.get_mut(unit as usize) {
            *slot = Some(rate);
        }
        self
    }

    /// The rate of a unit.
    pub fn rate(&self, unit: Unit) -> Option<Rate> {
        self.rates.get(unit as usize).copied().flatten()
    }

    /// Whether what waits is bounded.
    pub(super) fn counts_queue(&self) -> bool {
        self.queued_rows.is_some() || self.queued_bytes.is_some()
    }

    fn is_none(&self) -> bool {
        let Self {
            rates,
            concurrency,
            queued_rows,
            queued_bytes,
            shadow: _,
        } = self;
        rates.iter().all(Option::is_none) && concurrency.is_none() && queued_rows.is_none() && queued_bytes.is_none()
    }
}

/// A budget's marks; none is no mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// From here on callers are warned.
    pub soft: Option<u64>,
    /// From here on they are refused.
    pub hard: Option<u64>,
}

/// A tenant's budgets for a day and a month of UTC, by unit in the order of [`Unit::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budgets {
    /// For a day.
    pub daily: [Marks; 4],
    /// For a month.
    pub monthly: [Marks; 4],
    /// Whether nobody is refused, and only told what would be.
    pub shadow: bool,
}

impl Budgets {
    /// Every mark with what it is of.
    pub(super) fn marks(&self) -> impl Iterator<Item = (What, Unit, Marks)> + '_ {
        let daily = Unit::ALL.into_iter().zip(self.daily);
        let monthly = Unit::ALL.into_iter().zip(self.monthly);
        (daily.map(|(unit, marks)| (What::daily(unit), unit, marks)))
            .chain(monthly.map(|(unit, marks)| (What::monthly(unit), unit, marks)))
    }

    pub(super) fn is_none(&self) -> bool {
        self.marks().all(|(_, _, marks)| marks == Marks::default())
    }
}

/// By what the limiter knows a subject of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SubjectId {
    /// Of which kind.
    pub scope: Scope,
    /// Which.
    pub name: Arc<str>,
}

/// The static part of the answers' headers, as structured fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Policy {
    /// For `RateLimit-Policy`: requests, bytes and concurrency, whose units are registered.
    pub(super) standard: Bytes,
    /// The same for the mesh's own units.
    pub(super) own: Bytes,
}

/// Who is limited: a tenant, or a key, an endpoint or a model as one tenant uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub(super) id: SubjectId,
    pub(super) limits: Limits,
    pub(super) policy: Policy,
}

impl Subject {
    /// A subject with its limits. The partition is what tells callers which quotas are one: opaque, and none is no such word.
    pub fn new(scope: Scope, name: impl Into<Arc<str>>, limits: Limits, partition: Option<&str>) -> Self {
        Self::with_budgets(scope, name.into(), limits, &Budgets::default(), partition)
    }

    fn with_budgets(scope: Scope, name: Arc<str>, limits: Limits, budgets: &Budgets, partition: Option<&str>) -> Self {
        Self {
            id: SubjectId { scope, name },
            policy: policy(scope, &limits, budgets, partition),
            limits,
        }
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
fn shown(limits: &Limits, budgets: &Budgets) -> Vec<(What, u64, Option<u64>)> {
    const DAY: u64 = 86_400;
    let nothing = (Limits::default(), Budgets::default());
    let limits = if limits.shadow { &nothing.0 } else { limits };
    let budgets = if budgets.shadow { &nothing.1 } else { budgets };
    let rates = Unit::ALL.into_iter().filter_map(|unit| {
        let rate = limits.rate(unit)?;
        let window = rate.burst.div_ceil(rate.per_second).max(1);
        Some((What::rate(unit), rate.burst / unit.per_shown(), Some(window)))
    });
    let rooms = [
        (What::Concurrency, limits.concurrency.map(u64::from)),
        (What::QueuedRows, limits.queued_rows),
        (What::QueuedBytes, limits.queued_bytes),
    ];
    let rooms = rooms.into_iter().filter_map(|(what, bound)| Some((what, bound?, None)));
    let budgets = budgets.marks().filter_map(|(what, unit, marks)| {
        // A month's length differs: its end is in the other header.
        let window = (what == What::daily(unit)).then_some(DAY);
        Some((what, marks.hard? / unit.per_shown(), window))
    });
    rates.chain(rooms).chain(budgets).collect()
}

fn policy(scope: Scope, limits: &Limits, budgets: &Budgets, partition: Option<&str>) -> Policy {
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
    Policy {
        standard: standard.into(),
        own: own.into(),
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

/// All limits that a tenant's requests may meet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TenantLimits(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    own: Arc<Subject>,
    budgets: Budgets,
    has_budgets: bool,
    limited: bool,
    // Those that have limits, and nobody else: keys by what their callers are known by ([`crate::Principal::credential`]).
    keys: HashMap<Arc<str>, Arc<Subject>>,
    endpoints: HashMap<Arc<str>, Arc<Subject>>,
    models: HashMap<(TenantId, ModelId), Arc<Subject>>,
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self::from(Limits::default())
    }
}

impl From<Limits> for TenantLimits {
    fn from(limits: Limits) -> Self {
        Self::new(limits, Budgets::default(), None)
    }
}

impl TenantLimits {
    /// A tenant's own limits.
    pub fn new(limits: Limits, budgets: Budgets, partition: Option<&str>) -> Self {
        let (has_budgets, name) = (!budgets.is_none(), Arc::from(""));
        Self(Arc::new(Inner {
            own: Arc::new(Subject::with_budgets(Scope::Tenant, name, limits, &budgets, partition)),
            budgets,
            has_budgets,
            limited: has_budgets || !limits.is_none(),
            keys: HashMap::new(),
            endpoints: HashMap::new(),
            models: HashMap::new(),
        }))
    }

    /// The same with limits of an API key, by what its callers are known by.
    #[must_use]
    pub fn with_key(mut self, credential: &str, limits: Limits, partition: Option<&str>) -> Self {
        let subject = Arc::new(Subject::new(Scope::Key, credential, limits, partition));
        let inner = self.inner();
        inner.keys.insert(subject.id.name.clone(), subject);
        self
    }

    /// The same with limits of an endpoint.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: &str, limits: Limits, partition: Option<&str>) -> Self {
        let subject = Arc::new(Subject::new(Scope::Endpoint, endpoint, limits, partition));
        let inner = self.inner();
        inner.endpoints.insert(subject.id.name.clone(), subject);
        self
    }

    /// The same with limits of a model, its own or one that was granted to it.
    #[must_use]
    pub fn with_model(mut self, owner: &TenantId, model: &ModelId, limits: Limits, partition: Option<&str>) -> Self {
        let name = format!("{owner}/{model}");
        let subject = Arc::new(Subject::new(Scope::Model, name, limits, partition));
        let inner = self.inner();
        inner.models.insert((owner.clone(), model.clone()), subject);
        self
    }

    fn inner(&mut self) -> &mut Inner {
        let inner = Arc::make_mut(&mut self.0);
        inner.limited = true;
        inner
    }

    pub(super) fn own(&self) -> &Arc<Subject> {
        &self.0.own
    }

    pub(super) fn key(&self, credential: &str) -> Option<&Arc<Subject>> {
        self.0.keys.get(credential)
    }

    pub(super) fn endpoint(&self, endpoint: &str) -> Option<&Arc<Subject>> {
        self.0.endpoints.get(endpoint)
    }

    pub(super) fn model(&self, owner: &TenantId, model: &ModelId) -> Option<&Arc<Subject>> {
        if self.0.models.is_empty() {
            return None;
        }
        self.0.models.get(&(owner.clone(), model.clone()))
    }

    /// Whether a caller of this tenant may be told of a limit.
    pub fn is_limited(&self) -> bool {
        self.0.limited
    }

    /// The budgets, if any has a mark.
    pub fn budgets(&self) -> Option<&Budgets> {
        self.0.has_budgets.then_some(&self.0.budgets)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_static_part_names_every_rule_once_each_in_its_header() {
        let limits = Limits {
            concurrency: Some(2),
            queued_rows: Some(7),
            ..Limits::default()
        }
        .with_rate(Unit::Requests, Rate::new(10, 5))
        .with_rate(Unit::InputBytes, Rate::new(100, 1_000))
        .with_rate(Unit::DeviceTime, Rate::new(500_000, 2_000_000));
        let mut budgets = Budgets::default();
        budgets.daily[0].hard = Some(9);
        budgets.monthly[1].hard = Some(8);
        budgets.monthly[0].soft = Some(1);
        let all = TenantLimits::new(limits, budgets, Some("cHsdsRa894=="));
        assert_eq!(
            all.own().policy.standard,
            "\"requests\";q=5;w=1;pk=:cHsdsRa894==:, \"input-bytes\";q=1000;qu=\"content-bytes\";w=10;pk=:cHsdsRa894==:, \
             \"concurrency\";q=2;qu=\"concurrent-requests\";pk=:cHsdsRa894==:, \"daily-requests\";q=9;w=86400;pk=:cHsdsRa894==:"
        );
        assert_eq!(
            all.own().policy.own,
            "\"device-ms\";q=2000;qu=\"device-ms\";w=4;pk=:cHsdsRa894==:, \"queued-rows\";q=7;qu=\"rows\";pk=:cHsdsRa894==:, \
             \"monthly-rows\";q=8;qu=\"rows\";pk=:cHsdsRa894==:"
        );
        assert!(all.is_limited());
        assert!(!TenantLimits::default().is_limited());
    }

    #[test]
    fn a_rate_is_brought_within_its_bounds() {
        assert_eq!(Rate::new(0, 0), Rate::new(1, 1));
        assert_eq!(Rate::new(MAX_AMOUNT + 1, u64::MAX), Rate::new(MAX_AMOUNT, MAX_AMOUNT));
    }
}
