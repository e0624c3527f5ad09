//! Where open sequences have their state: remembered from the first request that goes to a device until the last has run.
//!
//! A home is kept from the moment that its sequence's START goes, because the next request may come before the answer does. It
//! is forgotten once the END has run, or the START has not, be it on a device or anywhere on its way through an ensemble; an END that did
//! not run leaves the sequence where it was. What
//! nobody ends is over when no request has come for as long as its model allows, counted from the last one's deadline.
//!
//! Invariants: a tenant meets only its own sequences; a remembered version is used only while the name that the caller uses
//! still leads to its model; at most [`MAX_HOMES`] sequences of a tenant are remembered, and one more is refused. No request
//! looks through them: what is over is found by the instant at which it is, some of all tenants' with every START.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_policies::{
    Target,
    snapshot::{TenantEntry, VersionEntry},
};
use mesh_types::{
    ArtifactFormat, CorrelationId, DeviceId, Fault, FaultSource, ModelId, ModelVersionKey, Retry, SequenceBatching,
    SequenceStep, TenantId,
};
use parking_lot::Mutex;

use super::{Routed, SequenceName};
use crate::{
    WorkerReply,
    graph::{Course, InSequence},
};

/// The most open sequences of one tenant that are remembered.
pub const MAX_HOMES: usize = 65_536;
/// So many that are over are forgotten with each START, which itself adds one.
const FORGOTTEN_AT_ONCE: usize = 16;

/// Where a sequence's state is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// On a device.
    Device(DeviceId),
    /// With an ensemble's steps.
    Steps(Arc<Course>),
}

/// Where an open sequence has its state.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// The version; of an ensemble, without its plan.
    pub(crate) entry: Arc<VersionEntry>,
    pub(crate) arm: Option<Arc<str>>,
    pub(crate) place: Place,
    /// From then on it has ended for want of requests.
    until: Instant,
    /// Of its START: a sequence that begins anew has another.
    number: u64,
}

#[derive(Debug, Default)]
struct OfTenant {
    homes: HashMap<Arc<SequenceName>, Home>,
    /// All of them by when they are over, and by number.
    ends: BTreeMap<(Instant, u64), Arc<SequenceName>>,
}

impl OfTenant {
    fn next(&self) -> Option<Instant> {
        self.ends.first_key_value().map(|((at, _), _)| *at)
    }
}

#[derive(Debug, Default)]
struct Known {
    // As many tenants as have open sequences.
    tenants: HashMap<TenantId, OfTenant>,
    /// When each tenant's next home is over.
    next: BTreeSet<(Instant, TenantId)>,
    last: u64,
    /// Ids of sequences of tenants that are gone, until devices have ended them.
    closed: HashMap<TenantId, HashMap<CorrelationId, Instant>>,
}

/// The open sequences that this process has routed.
#[derive(Debug, Default)]
pub struct Homes {
    known: Mutex<Known>,
}

impl Known {
    /// Changes what is known of a tenant, who is known while anything is.
    fn change<R>(&mut self, tenant: &TenantId, change: impl FnOnce(&mut OfTenant) -> R) -> R {
        let own = self.tenants.entry(tenant.clone()).or_default();
        let before = own.next();
        let result = change(own);
        let after = own.next();
        if own.homes.is_empty() {
            self.tenants.remove(tenant);
        }
        if before != after {
            if let Some(at) = before {
                self.next.remove(&(at, tenant.clone()));
            }
            self.next.extend(after.map(|at| (at, tenant.clone())));
        }
        result
    }

    fn get(&self, tenant: &TenantId, name: &SequenceName) -> Option<&Home> {
        self.tenants.get(tenant)?.homes.get(name)
    }

    fn put(&mut self, tenant: &TenantId, name: &Arc<SequenceName>, home: Home) {
        self.change(tenant, |own| {
            let end = (home.until, home.number);
            if let Some(former) = own.homes.insert(name.clone(), home) {
                own.ends.remove(&(former.until, former.number));
            }
            own.ends.insert(end, name.clone());
        });
    }

    fn forget(&mut self, tenant: &TenantId, name: &SequenceName) {
        self.change(tenant, |own| {
            if let Some(home) = own.homes.remove(name) {
                own.ends.remove(&(home.until, home.number));
            }
        });
    }

    /// Forgets the tenant's home that is over first, if it is by now.
    fn forget_over(&mut self, tenant: &TenantId, now: Instant) {
        let own = self.tenants.get(tenant);
        let first = own.and_then(|own| own.ends.first_key_value());
        if let Some(name) = first.filter(|((at, _), _)| *at <= now).map(|(_, name)| name.clone()) {
            self.forget(tenant, &name);
        }
    }
}

impl Homes {
    /// Forgets the sequences of these tenants. Devices keep their states for as long as they would: until then whoever has a tenant's name
    /// after it goes on with none of these ids but one that it has begun itself.
    pub fn forget_tenants(&self, is_gone: impl Fn(&TenantId) -> bool, now: Instant) {
        let mut known = self.known.lock();
        known.closed.retain(|_, ids| {
            ids.retain(|_, until| *until > now);
            !ids.is_empty()
        });
        let gone: Vec<_> = known.tenants.extract_if(|tenant, _| is_gone(tenant)).collect();
        for (tenant, own) in gone {
            let ids = own.homes.iter().map(|(name, home)| (name.id.clone(), home.until));
            known.closed.entry(tenant.clone()).or_default().extend(ids);
            if let Some(at) = own.next() {
                known.next.remove(&(at, tenant));
            }
        }
    }

    /// Whether a step that begins nothing, of a sequence that is not known, may go to a device.
    pub(crate) fn may_go_on(
        &self,
        tenant: &TenantId,
        model: &ModelId,
        id: &CorrelationId,
        now: Instant,
    ) -> Result<(), Fault> {
        let known = self.known.lock();
        let closed = known.closed.get(tenant).and_then(|ids| ids.get(id));
        if closed.is_none_or(|until| *until <= now) {
            return Ok(());
        }
        // What a device says that knows no such sequence.
        Err(Fault::invalid(format!(
            "inference request for sequence {id} to model '{model}' must specify the START flag on the first request of the sequence"
        )))
    }

    /// Where the sequence is, if it is known, is not over and the caller may still use it.
    pub(crate) fn find(
        &self,
        tenant: &TenantEntry,
        target: &Target,
        name: &SequenceName,
        now: Instant,
    ) -> Option<Home> {
        let known = self.known.lock();
        let home = known.get(&tenant.id, name).filter(|home| home.until > now)?;
        let key = &home.entry.key;
        let leads_there = match target {
            Target::Model(model) => model.owner == key.tenant && model.model == key.model,
            Target::Endpoint(route) => {
                let mut arms = route.arms.iter();
                arms.any(|arm| arm.model.owner == key.tenant && arm.model.model == key.model)
            }
        };
        let mut home = leads_there.then(|| home.clone())?;
        if home.entry.format == ArtifactFormat::Ensemble {
            home.entry = current(target, &home.entry.key)?.clone();
        }
        Some(home)
    }

    /// Whether another sequence of the tenant can be remembered.
    pub(crate) fn has_room(&self, tenant: &TenantId, name: &SequenceName, now: Instant) -> Result<(), Fault> {
        let mut known = self.known.lock();
        for _ in 0..FORGOTTEN_AT_ONCE {
            let Some((_, other)) = known.next.first().filter(|(at, _)| *at <= now).cloned() else {
                break;
            };
            known.forget_over(&other, now);
        }
        let has_room = |known: &Known| {
            let own = known.tenants.get(tenant);
            own.is_none_or(|own| own.homes.len() < MAX_HOMES || own.homes.contains_key(name))
        };
        if !has_room(&known) {
            // Its own first, however many of others' are over.
            known.forget_over(tenant, now);
        }
        if has_room(&known) {
            return Ok(());
        }
        let text = format!("a tenant has at most {MAX_HOMES} open sequences: end some");
        let next = known.tenants.get(tenant).and_then(OfTenant::next);
        let wait = next.map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        Err(Fault::unavailable(FaultSource::TenantLimit, text).with_retry(Retry::After(wait)))
    }

    /// A step has gone to a device, where it is done with by its deadline: its answer says what becomes of the home.
    pub(crate) fn follow(
        self: &Arc<Self>,
        tenant: &TenantId,
        routed: Routed,
        (entry, arm, device): (Arc<VersionEntry>, Option<Arc<str>>, DeviceId),
        deadline: Instant,
        reply: WorkerReply,
    ) -> WorkerReply {
        let until = deadline + idle(&entry);
        let home = (entry, arm, Place::Device(device));
        let Routed { step, name, .. } = routed;
        let name = Arc::new(name);
        let number = if step.start && !step.end {
            Some(self.keep(tenant, &name, home, until))
        } else {
            self.extend(tenant, &name, until)
        };
        // The answer of a step between the first and the last changes nothing.
        let Some(number) = number.filter(|_| step.start || step.end) else {
            return reply;
        };
        let (homes, tenant) = (self.clone(), tenant.clone());
        Box::pin(async move {
            let answer = reply.await;
            homes.ended(&tenant, &name, number, &step, answer.is_ok());
            answer
        })
    }

    /// A request has set out on its way through an ensemble, where it is done with by its deadline.
    pub(crate) fn set_out(
        &self,
        tenant: &TenantId,
        sequence: &InSequence,
        (entry, arm): (&VersionEntry, Option<Arc<str>>),
        deadline: Instant,
    ) {
        let Some(name) = &sequence.name else { return };
        let until = deadline + idle(entry);
        let name = Arc::new(name.clone());
        if sequence.step.start && sequence.step.end {
            // All of it is this request.
            self.known.lock().forget(tenant, &name);
        } else if sequence.step.start {
            // A plan holds all that it leads to, and is looked up anew for each request.
            let entry = Arc::new(VersionEntry {
                plan: None,
                ..entry.clone()
            });
            let place = Place::Steps(sequence.course.clone());
            self.keep(tenant, &name, (entry, arm, place), until);
        } else {
            self.extend(tenant, &name, until);
        }
    }

    /// The last request of a sequence has come to the end of its way. One that has begun anew under the same name stays.
    pub(crate) fn arrived(&self, tenant: &TenantId, sequence: &InSequence) {
        if sequence.step.end {
            self.leave(tenant, sequence);
        }
    }

    /// The first request of a sequence has failed on its way: whoever goes on with it starts it again.
    pub(crate) fn not_begun(&self, tenant: &TenantId, sequence: &InSequence) {
        sequence.course.fail();
        self.leave(tenant, sequence);
    }

    fn leave(&self, tenant: &TenantId, sequence: &InSequence) {
        let Some(name) = &sequence.name else { return };
        let mut known = self.known.lock();
        let place = known.get(tenant, name).map(|home| &home.place);
        if matches!(place, Some(Place::Steps(course)) if Arc::ptr_eq(course, &sequence.course)) {
            known.forget(tenant, name);
        }
    }

    /// Remembers where a sequence is until then; its number.
    fn keep(
        &self,
        tenant: &TenantId,
        name: &Arc<SequenceName>,
        (entry, arm, place): (Arc<VersionEntry>, Option<Arc<str>>, Place),
        until: Instant,
    ) -> u64 {
        let mut known = self.known.lock();
        known.last += 1;
        let home = Home {
            entry,
            arm,
            place,
            until,
            number: known.last,
        };
        known.put(tenant, name, home);
        known.last
    }

    /// The sequence goes on for at least so long; its number, if it is known.
    fn extend(&self, tenant: &TenantId, name: &Arc<SequenceName>, until: Instant) -> Option<u64> {
        let mut known = self.known.lock();
        let home = known.get(tenant, name)?.clone();
        let number = home.number;
        if until > home.until {
            known.put(tenant, name, Home { until, ..home });
        }
        Some(number)
    }

    /// The first or the last step of a sequence has been answered: after a last that ran or a first that did not, it is over.
    fn ended(&self, tenant: &TenantId, name: &SequenceName, number: u64, step: &SequenceStep, ran: bool) {
        let over = if ran { step.end } else { step.start };
        let mut known = self.known.lock();
        // It may have begun anew meanwhile.
        if over && known.get(tenant, name).is_some_and(|home| home.number == number) {
            known.forget(tenant, name);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.known.lock().tenants.values().map(|own| own.homes.len()).sum()
    }
}

/// The version of an ensemble as the target has it now, if it still has it.
fn current<'a>(target: &'a Target, key: &ModelVersionKey) -> Option<&'a Arc<VersionEntry>> {
    let model = match target {
        Target::Model(model) => model,
        Target::Endpoint(route) => {
            let mut models = route.arms.iter().map(|arm| &arm.model);
            models.find(|model| model.owner == key.tenant && model.model == key.model)?
        }
    };
    model.versions.get(&key.version)
}

/// How long a sequence may be without a request: of an ensemble's, as long as any state is kept.
fn idle(entry: &VersionEntry) -> Duration {
    let own = entry.config.sequence_batching.iter();
    let steps = entry.plan.iter().flat_map(|plan| &plan.stateful);
    let of_steps = steps.filter_map(|(_, entry)| entry.config.sequence_batching.as_ref());
    own.chain(of_steps)
        .map(SequenceBatching::idle)
        .max()
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "homes_tests.rs"]
mod tests;
