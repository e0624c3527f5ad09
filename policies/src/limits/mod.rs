//! Limits: how much a tenant, a key, a token's subject, an endpoint and a model may be asked for.
//!
//! Owns the counters, in one [`Limiter`] that all routers share and that outlives snapshots; the limits themselves come with
//! each call from the snapshot. Knows nothing of queues or devices: that a request waits no longer, and what it has cost, is told
//! by whoever runs it ([`DeviceMeter`]). Time comes with the calls, and for what ends later from the mesh's clock.
//!
//! A request is let through in two steps: [`Caller::admit`] takes what is known of it at the door, and
//! [`Admission::charge`] the rest once its rows and its model are known. Device time is estimated there, and trued up when the last
//! of the request's jobs is gone: a caller that leaves pays for what ran.
//!
//! Invariants: a snapshot that leaves a limit alone leaves its bucket alone, and a changed limit takes over the share that was left,
//! so no change refills a spent bucket; places are given back when the [`Admission`] drops, and a refusal takes nothing; at
//! most [`MAX_TENANTS`] tenants are tracked.

mod bucket;
mod budget;
mod declared;
mod few;
mod kept;
mod ledger;
mod notice;
mod rule;
mod subject;
mod terms;
mod ticket;
mod tokens;
mod usage;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mesh_types::{Clock, ModelId, TenantId};
use parking_lot::{Mutex, RwLock};
use smallvec::{SmallVec, smallvec};

use self::{
    declared::Met,
    ledger::{At, Part, Parts, Scopes, State},
    subject::Subject,
};
pub use self::{
    declared::{Budgets, Limits, MAX_AMOUNT, Marks, Rate, TenantLimits},
    ledger::{MAX_SUBJECTS, Told},
    notice::Notice,
    rule::{Amounts, LimitError, ROOM_RETRY, Rule, Scope, Unit, What},
    subject::Who,
    terms::Alike,
    ticket::Admission,
    tokens::MAX_TOKEN_SUBJECTS,
    usage::{TenantUsage, TokenSubject, Usage},
};

/// Tenants with counters at any time: as many as there could be in a registry that holds nothing else.
pub const MAX_TENANTS: usize = 400_000;

/// The time of a call, as its caller has read it.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For rates.
    pub instant: Instant,
    /// For budgets: seconds since the Unix epoch.
    pub unix_seconds: i64,
}

/// The mesh's clock, counted from when the limiter was made.
struct Time {
    clock: Arc<dyn Clock>,
    epoch: Instant,
}

impl Time {
    fn now(&self) -> Now {
        Now {
            instant: self.clock.now(),
            unix_seconds: self.clock.unix_seconds(),
        }
    }

    fn at(&self, now: Now) -> At {
        let since: Duration = now.instant.saturating_duration_since(self.epoch);
        At {
            nanos: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            unix: now.unix_seconds,
        }
    }
}

/// One tenant's account.
struct Ledger {
    time: Arc<Time>,
    state: Mutex<State>,
}

/// Every tenant's counters. One for all routers, living longer than any snapshot.
pub struct Limiter {
    time: Arc<Time>,
    tenants: RwLock<HashMap<TenantId, Arc<Ledger>>>,
    /// Whether tenants were forgotten, and nobody has asked yet.
    forgot: AtomicBool,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("tenants", &self.tracked()).finish()
    }
}

/// A caller, and the limits that its request meets. Clones are the same caller.
#[derive(Clone)]
pub struct Caller {
    ledger: Arc<Ledger>,
    limits: TenantLimits,
    /// Whom it meets besides the tenant, in the order of their scopes.
    others: SmallVec<[Met; 3]>,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("subjects", &self.others)
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// The same, once it is known what it calls: limits of the endpoint, if it is one, and of the model are met too.
    pub fn meets(&mut self, endpoint: Option<&str>, (owner, model): (&TenantId, &ModelId)) {
        let endpoint = endpoint.and_then(|endpoint| self.limits.endpoint(endpoint));
        let model = self.limits.model(owner, model);
        self.others.extend([endpoint, model].into_iter().flatten());
    }

    fn subjects(&self) -> impl Iterator<Item = &Subject> + Clone {
        let others = self.others.iter().filter_map(|met| self.limits.met(met));
        std::iter::once(self.limits.own()).chain(others)
    }

    /// Lets one request in, or says which limit is used up and for how long.
    // Whole in a profile: the bench says what part of a request this is.
    #[inline(never)]
    pub fn admit(self, now: Now) -> Result<Admission, LimitError> {
        let at = self.ledger.time.at(now);
        let mut spared = Scopes::default();
        let parts: Parts<'_> = self
            .subjects()
            .map(|subject| Part {
                subject,
                amounts: [1, 0, 0, 0],
                place: true,
                room: false,
            })
            .collect();
        let told = (self.ledger.state.lock()).take(&parts, at, &mut spared)?;
        drop(parts);
        Ok(Admission::new(self, spared, told))
    }
}

/// What a request is, once that is known.
#[derive(Debug, Clone, Copy)]
pub struct Charge<'a> {
    /// The endpoint that was called, if it was one.
    pub endpoint: Option<&'a str>,
    /// The model that answers.
    pub model: (&'a TenantId, &'a ModelId),
    /// Its rows.
    pub rows: u32,
    /// The bytes of its inputs.
    pub input_bytes: u64,
}

impl Admission {
    /// Takes what the request is, or says which limit is used up and for how long; then what was taken before is given back.
    // Whole in a profile: the bench says what part of a request this is.
    #[inline(never)]
    pub fn charge(mut self, charge: &Charge<'_>, now: Now) -> Result<Self, LimitError> {
        let known = self.caller.others.len();
        self.caller.meets(charge.endpoint, charge.model);
        let (caller, mut spared) = (&self.caller, self.spared);
        let (at, rows) = (caller.ledger.time.at(now), u64::from(charge.rows));
        let mut state = caller.ledger.state.lock();
        let reserved = state.estimate(rows, caller.subjects());
        let part = |(index, subject)| {
            // The tenant and the key have let the request in already.
            let first = index > known;
            Part {
                subject,
                amounts: [u64::from(first), rows, charge.input_bytes, reserved],
                place: first,
                room: true,
            }
        };
        let parts: Parts<'_> = caller.subjects().enumerate().map(part).collect();
        let taken = state.take(&parts, at, &mut spared);
        drop(parts);
        let before = self.spared;
        // What has let the request in, and now refuses it, or would in shadow, has taken nothing of it.
        let (refused, admitted) = (taken.is_err(), caller.subjects().take(known + 1));
        for subject in admitted.filter(|subject| !before.has(subject.scope())) {
            let spared = !refused && spared.has(subject.scope());
            let Some(cells) = state.known(subject).filter(|_| refused || spared) else {
                continue;
            };
            cells.forgive_request(subject.limits());
            if spared {
                cells.leave();
            }
        }
        if refused {
            for subject in caller.subjects().take(known + 1) {
                if let Some(counts) = state.known_counts(subject) {
                    counts.take_back(&[1, 0, 0, 0]);
                }
            }
        }
        drop(state);
        match taken {
            Ok(told) => {
                self.told.shadowed.extend(told.shadowed);
                self.told.passed.extend(told.passed);
                self.charged(spared, (rows, charge.input_bytes), (reserved, at.unix));
                Ok(self)
            }
            Err(error) => {
                self.caller.others.truncate(known);
                Err(error)
            }
        }
    }
}

impl Limiter {
    /// A limiter that has let nobody in yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let epoch = clock.now();
        Self {
            time: Arc::new(Time { clock, epoch }),
            tenants: RwLock::new(HashMap::new()),
            forgot: AtomicBool::new(false),
        }
    }

    /// Now, by its clock.
    pub fn now(&self) -> Now {
        self.time.now()
    }

    /// A tenant's caller, by what its credential says. It has taken nothing yet.
    // Whole in a profile: the bench says what part of a request this is.
    #[inline(never)]
    pub fn caller(&self, tenant: &TenantId, limits: &TenantLimits, who: Who<'_>) -> Result<Caller, LimitError> {
        let others = match limits.caller(who) {
            None => SmallVec::new(),
            Some(subject) => smallvec![subject],
        };
        Ok(Caller {
            ledger: self.ledger(tenant)?,
            limits: limits.clone(),
            others,
        })
    }

    fn ledger(&self, tenant: &TenantId) -> Result<Arc<Ledger>, LimitError> {
        if let Some(ledger) = self.tenants.read().get(tenant) {
            return Ok(Arc::clone(ledger));
        }
        let mut tenants = self.tenants.write();
        if tenants.len() >= MAX_TENANTS && !tenants.contains_key(tenant) {
            return Err(LimitError::Full("tenants"));
        }
        let ledger = tenants.entry(tenant.clone()).or_insert_with(|| {
            Arc::new(Ledger {
                time: self.time.clone(),
                state: Mutex::default(),
            })
        });
        Ok(Arc::clone(ledger))
    }

    /// Requests of the tenant that are running now.
    pub fn in_flight(&self, tenant: &TenantId) -> u32 {
        let tenants = self.tenants.read();
        tenants
            .get(tenant)
            .map_or(0, |ledger| ledger.state.lock().own.in_flight)
    }

    /// How many tenants have counters.
    pub fn tracked(&self) -> usize {
        self.tenants.read().len()
    }

    /// Forgets tenants that are not to be kept and have nothing running; those that have go at a later call. Of the others,
    /// subjects go of which nothing is taken.
    pub fn retain(&self, mut keep: impl FnMut(&TenantId) -> bool) {
        let at = self.time.at(self.time.now());
        self.tenants.write().retain(|tenant, ledger| {
            // With the map locked, a count of one means that nobody holds or is about to take an admission.
            let kept = keep(tenant) || Arc::strong_count(ledger) > 1;
            if kept {
                let mut state = ledger.state.lock();
                if state.subjects() > 0 {
                    state.tidy(at);
                }
            }
            self.forgot.fetch_or(!kept, Ordering::Relaxed);
            kept
        });
    }

    /// Forgets all of these tenants at once, whose names others have now: what of them still runs ends with the counters that it has.
    pub fn renew(&self, is_another: impl Fn(&TenantId) -> bool) {
        let mut tenants = self.tenants.write();
        let before = tenants.len();
        tenants.retain(|tenant, _| !is_another(tenant));
        self.forgot.fetch_or(tenants.len() < before, Ordering::Relaxed);
    }

    /// Whether tenants were forgotten since this was last asked: what is kept of them elsewhere is not to come back.
    pub fn take_forgot(&self) -> bool {
        self.forgot.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
