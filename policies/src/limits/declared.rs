//! Limits as a snapshot has them: what is declared, and for whom.
//!
//! Owns no counter: state is in the limiter, by the tenant's name and what stands for a subject of it, so that it outlives snapshots.

use std::{
    collections::HashMap,
    num::NonZeroU64,
    sync::{Arc, LazyLock},
};

use mesh_types::{ModelId, TenantId};

use super::{
    rule::{Scope, Unit, What},
    subject::{EachToken, Subject, Who},
};

/// The widest rate and burst: both times a thousand million are counted in 64 bits.
pub const MAX_AMOUNT: u64 = 9_000_000_000;

/// So many a second, and so many at once after a pause; from 1 to [`MAX_AMOUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    per_second: NonZeroU64,
    burst: NonZeroU64,
}

impl Rate {
    /// What is outside of the bounds is brought to them.
    pub const fn new(per_second: u64, burst: u64) -> Self {
        const fn within(number: u64) -> NonZeroU64 {
            let number = if number > MAX_AMOUNT { MAX_AMOUNT } else { number };
            match NonZeroU64::new(number) {
                Some(number) => number,
                None => NonZeroU64::MIN,
            }
        }
        Self {
            per_second: within(per_second),
            burst: within(burst),
        }
    }

    /// Sustained.
    pub const fn per_second(self) -> u64 {
        self.per_second.get()
    }

    /// At once.
    pub const fn burst(self) -> u64 {
        self.burst.get()
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
    /// Those that have a mark: few tenants have more than one or two.
    fn set(&self) -> Box<[Budget]> {
        let of = |of_month, all: [Marks; 4]| {
            let set = Unit::ALL
                .into_iter()
                .zip(all)
                .filter(|(_, marks)| *marks != Marks::default());
            set.map(move |(unit, marks)| Budget { of_month, unit, marks })
        };
        of(false, self.daily).chain(of(true, self.monthly)).collect()
    }
}

/// The budget of one unit for a day or a month.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) of_month: bool,
    pub(super) unit: Unit,
    pub(super) marks: Marks,
}

impl Budget {
    pub(super) const fn what(&self) -> What {
        if self.of_month {
            What::monthly(self.unit)
        } else {
            What::daily(self.unit)
        }
    }
}

/// A tenant's budgets that have marks.
#[derive(Debug, Clone, Copy)]
pub(super) struct SetBudgets<'a> {
    pub(super) all: &'a [Budget],
    pub(super) shadow: bool,
}

/// All limits that a tenant's requests may meet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TenantLimits(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    own: Arc<Subject>,
    budgets: Box<[Budget]>,
    budgets_shadow: bool,
    limited: bool,
    /// None where subjects of tokens have no limits of their own.
    each_token: Option<Box<EachToken>>,
    /// None where only the tenant itself, and subjects of tokens, have limits.
    others: Option<Box<Others>>,
}

#[derive(Debug, Clone, Default)]
struct Others {
    // Those that have limits, and nobody else: keys by what their callers are known by ([`Who::credential`]).
    keys: HashMap<Arc<str>, Arc<Subject>>,
    endpoints: HashMap<Arc<str>, Arc<Subject>>,
    models: HashMap<(TenantId, ModelId), Arc<Subject>>,
}

impl Default for TenantLimits {
    fn default() -> Self {
        static NONE: LazyLock<TenantLimits> = LazyLock::new(|| Limits::default().into());
        NONE.clone()
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
        let set = budgets.set();
        let shown = if budgets.shadow { &[] } else { &*set };
        // The tenant's own counters are found without a name.
        let own = Subject::with_budgets(Scope::Tenant, "", limits, shown, partition);
        Self(Arc::new(Inner {
            own: Arc::new(own),
            limited: !set.is_empty() || !limits.is_none(),
            budgets: set,
            budgets_shadow: budgets.shadow,
            each_token: None,
            others: None,
        }))
    }

    /// The same with limits of each subject of a token, however many there are.
    #[must_use]
    pub fn with_token_subjects(mut self, limits: Limits) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.limited = true;
        inner.each_token = Some(Box::new(EachToken::new(limits)));
        self
    }

    /// The same with limits of an API key, by what its callers are known by.
    #[must_use]
    pub fn with_key(mut self, credential: &str, limits: Limits, partition: Option<&str>) -> Self {
        let subject = Arc::new(Subject::new(Scope::Key, credential, limits, partition));
        self.others().keys.insert(Arc::from(credential), subject);
        self
    }

    /// The same with limits of an endpoint.
    #[must_use]
    pub fn with_endpoint(mut self, endpoint: &str, limits: Limits, partition: Option<&str>) -> Self {
        let subject = Arc::new(Subject::new(Scope::Endpoint, endpoint, limits, partition));
        self.others().endpoints.insert(Arc::from(endpoint), subject);
        self
    }

    /// The same with limits of a model, its own or one that was granted to it.
    #[must_use]
    pub fn with_model(mut self, owner: &TenantId, model: &ModelId, limits: Limits, partition: Option<&str>) -> Self {
        let name = format!("{owner}/{model}");
        let subject = Arc::new(Subject::new(Scope::Model, &name, limits, partition));
        self.others().models.insert((owner.clone(), model.clone()), subject);
        self
    }

    fn others(&mut self) -> &mut Others {
        let inner = Arc::make_mut(&mut self.0);
        inner.limited = true;
        inner.others.get_or_insert_default()
    }

    pub(super) fn own(&self) -> &Arc<Subject> {
        &self.0.own
    }

    /// The limits of a caller besides its tenant's: its key's, or those of each token's subject.
    pub(super) fn caller(&self, who: Who<'_>) -> Option<Arc<Subject>> {
        let key = || self.0.others.as_ref()?.keys.get(who.credential).cloned();
        let token = || self.0.each_token.as_ref()?.subject(who);
        key().or_else(token)
    }

    pub(super) fn endpoint(&self, endpoint: &str) -> Option<&Arc<Subject>> {
        self.0.others.as_ref()?.endpoints.get(endpoint)
    }

    pub(super) fn model(&self, owner: &TenantId, model: &ModelId) -> Option<&Arc<Subject>> {
        let models = &self.0.others.as_ref()?.models;
        if models.is_empty() {
            return None;
        }
        models.get(&(owner.clone(), model.clone()))
    }

    /// Whether a caller of this tenant may be told of a limit.
    pub fn is_limited(&self) -> bool {
        self.0.limited
    }

    pub(super) fn budgets(&self) -> SetBudgets<'_> {
        SetBudgets {
            all: &self.0.budgets,
            shadow: self.0.budgets_shadow,
        }
    }
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
