//! Limits as a snapshot has them: what is declared, and for whom.
//!
//! Owns no counter: state is in the limiter, by the tenant's name and what stands for a subject of it, so that it outlives snapshots.

use std::{
    cmp::Ordering,
    num::NonZeroU64,
    sync::{Arc, LazyLock},
};

use mesh_types::{ModelId, TenantId};

use super::{
    rule::{Scope, Unit, What},
    subject::{Subject, Who},
    terms::{Alike, Terms, Word},
};

/// The widest rate and burst: both times a thousand million are counted in 64 bits.
pub const MAX_AMOUNT: u64 = 9_000_000_000;

/// So many a second, and so many at once after a pause; from 1 to [`MAX_AMOUNT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Marks {
    /// From here on callers are warned.
    pub soft: Option<u64>,
    /// From here on they are refused.
    pub hard: Option<u64>,
}

/// Budgets of a tenant, or of each subject of its tokens, for a day and a month of UTC, by unit in the order of [`Unit::ALL`].
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// Somebody besides the tenant whose limits a request meets.
#[derive(Debug, Clone)]
pub(super) enum Met {
    /// At this place of those that are declared.
    Declared(usize),
    /// Whom a token names.
    Token(Arc<Subject>),
}

/// All limits that a tenant's requests may meet. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TenantLimits(Arc<Inner>);

#[derive(Debug, Clone)]
struct Inner {
    own: Subject,
    limited: bool,
    /// Of each subject of a token; none where those have no limits of their own.
    each_token: Option<Arc<Terms>>,
    /// Those that have limits, and nobody else, by scope and name: keys by what their callers are known by ([`Who::credential`]), models
    /// with their owner in front. Few in most tenants, so a sorted list and no map.
    others: Box<[Subject]>,
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
        let (word, limited) = (Word::new(partition), !set.is_empty() || !limits.is_none());
        let terms = Terms::new(Scope::Tenant, limits, (set, budgets.shadow), &word);
        Self(Arc::new(Inner {
            // The tenant's own counters are found without a name.
            own: Subject::new("", terms, word),
            limited,
            each_token: None,
            others: Box::default(),
        }))
    }

    /// The same with limits and budgets of each subject of a token, however many there are.
    #[must_use]
    pub fn with_token_subjects(mut self, limits: Limits, budgets: Budgets) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        let budgets = (budgets.set(), budgets.shadow);
        inner.limited = true;
        inner.each_token = Some(Terms::new(Scope::Token, limits, budgets, &Word::default()));
        self
    }

    /// The same with limits of an API key, by what its callers are known by.
    #[must_use]
    pub fn with_key(self, credential: &str, limits: Limits, partition: Option<&str>) -> Self {
        self.with(Scope::Key, credential, limits, partition)
    }

    /// The same with limits of an endpoint.
    #[must_use]
    pub fn with_endpoint(self, endpoint: &str, limits: Limits, partition: Option<&str>) -> Self {
        self.with(Scope::Endpoint, endpoint, limits, partition)
    }

    /// The same with limits of a model, its own or one that was granted to it.
    #[must_use]
    pub fn with_model(self, owner: &TenantId, model: &ModelId, limits: Limits, partition: Option<&str>) -> Self {
        self.with(Scope::Model, &format!("{owner}/{model}"), limits, partition)
    }

    fn with(mut self, scope: Scope, name: &str, limits: Limits, partition: Option<&str>) -> Self {
        let word = Word::new(partition);
        let subject = Subject::new(name, Terms::of(scope, limits, &word), word);
        let inner = Arc::make_mut(&mut self.0);
        inner.limited = true;
        match inner.place(scope, |known| (*known).cmp(name)) {
            Ok(place) => {
                if let Some(known) = inner.others.get_mut(place) {
                    *known = subject;
                }
            }
            Err(place) => {
                // One longer and no more: there are as many of these lists as tenants.
                let mut others = std::mem::take(&mut inner.others).into_vec();
                others.reserve_exact(1);
                others.insert(place, subject);
                inner.others = others.into();
            }
        }
        self
    }

    /// The same, sharing what is declared alike with all that were made alike before.
    #[must_use]
    pub fn alike(mut self, alike: &mut Alike) -> Self {
        if self.is_limited() {
            let inner = Arc::make_mut(&mut self.0);
            alike.make_one(&mut inner.own.terms);
            inner.each_token.iter_mut().for_each(|terms| alike.make_one(terms));
            for other in &mut inner.others {
                alike.make_one(&mut other.terms);
            }
        }
        self
    }

    pub(super) fn own(&self) -> &Subject {
        &self.0.own
    }

    /// The limits of a caller besides its tenant's: its key's, or those of each token's subject.
    pub(super) fn caller(&self, who: Who<'_>) -> Option<Met> {
        let key = || self.0.find(Scope::Key, |name| name.cmp(who.credential));
        let token = || Subject::of_token(who, self.0.each_token.as_ref()?).map(Met::Token);
        key().or_else(token)
    }

    pub(super) fn endpoint(&self, endpoint: &str) -> Option<Met> {
        self.0.find(Scope::Endpoint, |name| name.cmp(endpoint))
    }

    pub(super) fn model(&self, owner: &TenantId, model: &ModelId) -> Option<Met> {
        let (owner, model) = (owner.as_str(), model.as_str());
        self.0.find(Scope::Model, |name| {
            let wanted = owner.bytes().chain([b'/']).chain(model.bytes());
            name.bytes().cmp(wanted)
        })
    }

    /// Whom a request meets, with what it may use; none only if it was met under other limits.
    pub(super) fn met<'a>(&'a self, met: &'a Met) -> Option<&'a Subject> {
        match met {
            Met::Declared(place) => self.0.others.get(*place),
            Met::Token(subject) => Some(subject),
        }
    }

    /// Whether a caller of this tenant may be told of a limit.
    pub fn is_limited(&self) -> bool {
        self.0.limited
    }
}

impl Inner {
    /// Where the subject is whose name this compares as equal, or where it would be.
    fn place(&self, scope: Scope, name: impl Fn(&str) -> Ordering) -> Result<usize, usize> {
        let order = |known: &Subject| known.scope().cmp(&scope).then_with(|| name(known.name()));
        self.others.binary_search_by(order)
    }

    fn find(&self, scope: Scope, name: impl Fn(&str) -> Ordering) -> Option<Met> {
        if self.others.is_empty() {
            return None;
        }
        self.place(scope, name).ok().map(Met::Declared)
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
        let [standard, own] = all.own().policy();
        assert_eq!(
            standard,
            "\"requests\";q=5;w=1;pk=:cHsdsRa894==:, \"input-bytes\";q=1000;qu=\"content-bytes\";w=10;pk=:cHsdsRa894==:, \
             \"concurrency\";q=2;qu=\"concurrent-requests\";pk=:cHsdsRa894==:, \"daily-requests\";q=9;w=86400;pk=:cHsdsRa894==:"
        );
        assert_eq!(
            own,
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

    #[test]
    fn subjects_are_found_by_scope_and_name_and_the_later_of_two_stays() {
        let limits = |burst| Limits::default().with_rate(Unit::Rows, Rate::new(1, burst));
        let (a, b, model) = ("a".parse().unwrap(), "a.b".parse().unwrap(), "m".parse().unwrap());
        let all = (1..=20).rev().fold(TenantLimits::default(), |all, number| {
            let all = all.with_key(&format!("key:{number}"), limits(number), None);
            all.with_endpoint(&format!("key:{number}"), limits(100 + number), None)
        });
        let all = all
            .with_model(&a, &model, limits(200), None)
            .with_model(&b, &model, limits(201), None);
        let all = all.with_endpoint("key:7", limits(300), None);
        let burst = |met: Option<Met>| Some(all.met(&met?)?.limits().rate(Unit::Rows)?.burst());
        for number in 1..=20 {
            let name = format!("key:{number}");
            let who = Who {
                credential: &name,
                subject: "",
            };
            assert_eq!(burst(all.caller(who)), Some(number));
            let endpoint = if number == 7 { 300 } else { 100 + number };
            assert_eq!(burst(all.endpoint(&name)), Some(endpoint));
        }
        assert_eq!(
            (burst(all.model(&a, &model)), burst(all.model(&b, &model))),
            (Some(200), Some(201))
        );
        assert!(all.endpoint("key:21").is_none() && all.endpoint("a/m").is_none());
        assert!(all.model(&model.to_string().parse().unwrap(), &model).is_none());
    }

    #[test]
    fn what_is_declared_alike_is_kept_once_and_each_keeps_its_own_word() {
        let mut alike = Alike::default();
        let limits = |burst| Limits::default().with_rate(Unit::Requests, Rate::new(1, burst));
        let mut tenant = |burst, word| {
            TenantLimits::new(limits(burst), Budgets::default(), word)
                .with_key("k", limits(burst), word)
                .with_token_subjects(limits(burst), Budgets::default())
                .alike(&mut alike)
        };
        let words = ["cHsdsRa894==", "AAAAAAAAAAA="];
        let [one, other] = words.map(|word| tenant(5, Some(word)));
        let (apart, unnamed) = (tenant(6, Some("cHsdsRa894==")), tenant(5, None));
        assert!(Arc::ptr_eq(&one.own().terms, &other.own().terms));
        assert!(!Arc::ptr_eq(&one.own().terms, &apart.own().terms));
        for (tenant, text) in [
            (one, "\"requests\";q=5;w=5;pk=:cHsdsRa894==:"),
            (other, "\"requests\";q=5;w=5;pk=:AAAAAAAAAAA=:"),
            (apart, "\"requests\";q=6;w=6;pk=:cHsdsRa894==:"),
            (unnamed, "\"requests\";q=5;w=5"),
        ] {
            assert_eq!(tenant.own().policy()[0], text);
        }
        // The tenant's, the key's and each token's; twice, and without a word a third time but for the tokens'.
        assert_eq!(alike.len(), 3 + 3 + 2);
        let long = TenantLimits::new(limits(5), Budgets::default(), Some("0123456789abcdef"));
        assert_eq!(long.own().policy()[0], "\"requests\";q=5;w=5");
    }
}
