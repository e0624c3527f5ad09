//! Sequences: what a request says of its own, and where those that are open have their state.
//!
//! The first request of a sequence chooses version and device like any other, except that its id decides where nothing else
//! does: the arm of a split without a unit of its own, and the device (rendezvous hashing, [`mesh_policies::placement`]). So
//! routers that share nothing choose alike. What was chosen is remembered for as long as the sequence is open ([`Homes`],
//! shared by the routers of this process), so that a split whose weights change, a label that moves, and a device or a version
//! that is on its way out do not tear it. What is forgotten or was never known here is chosen anew; if that is another device
//! or version than before, the device says that the sequence must be started.
//!
//! Invariants: a tenant meets only its own sequences; a remembered version is used only while the name that the caller uses
//! still leads to its model; at most [`MAX_HOMES`] sequences of a tenant are remembered, and one more is refused.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_policies::{
    Target,
    snapshot::{TenantEntry, VersionEntry},
};
use mesh_types::{
    ArtifactFormat, ControlKind, CorrelationId, CorrelationIds, DataType, DeviceId, Fault, FaultSource, InferRequest,
    MAX_CORRELATION_ID_BYTES, ModelConfig, ModelId, ModelVersionKey, ParameterValue, Retry, SequenceBatching,
    SequenceStep, TenantId, VersionSelector,
};
use parking_lot::Mutex;

use crate::graph::{Course, InSequence};

/// The most open sequences of one tenant that are remembered.
pub const MAX_HOMES: usize = 65_536;

/// How a caller names a sequence: the target and version that it asks for, and the id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SequenceName {
    target: String,
    selector: String,
    id: CorrelationId,
}

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
}

#[derive(Debug, Default)]
struct OfTenant {
    homes: HashMap<SequenceName, Home>,
    /// No home ends before this.
    next: Option<Instant>,
}

/// The open sequences that this process has routed.
#[derive(Debug, Default)]
pub struct Homes {
    // As many tenants as have open sequences.
    tenants: Mutex<HashMap<TenantId, OfTenant>>,
}

/// A request's sequence, on its way to a device.
#[derive(Debug)]
pub(crate) struct Routed {
    pub(crate) step: SequenceStep,
    pub(crate) name: SequenceName,
    /// Where its state is, if that is known.
    pub(crate) place: Option<Place>,
}

/// The sequence that a request belongs to, if it says so.
pub(crate) fn step_of(request: &InferRequest) -> Result<Option<SequenceStep>, Fault> {
    let Some(value) = request.parameter("sequence_id") else {
        return Ok(None);
    };
    let Some(id) = correlation_id(value)? else {
        return Ok(None);
    };
    let flag = |name: &str| match request.parameter(name) {
        None => Ok(false),
        Some(value) => {
            let wrong = || Fault::invalid(format!("parameter '{name}' is true or false"));
            value.as_bool().ok_or_else(wrong)
        }
    };
    Ok(Some(SequenceStep {
        id,
        start: flag("sequence_start")?,
        end: flag("sequence_end")?,
    }))
}

/// As in Triton, 0 and an empty text stand for no sequence.
fn correlation_id(value: &ParameterValue) -> Result<Option<CorrelationId>, Fault> {
    if let Some(text) = value.as_str() {
        if text.len() > MAX_CORRELATION_ID_BYTES {
            return Err(Fault::invalid(format!(
                "parameter 'sequence_id' has at most {MAX_CORRELATION_ID_BYTES} bytes as a text"
            )));
        }
        return Ok((!text.is_empty()).then(|| CorrelationId::Text(text.into())));
    }
    let wrong = || Fault::invalid("parameter 'sequence_id' is a whole number that is not negative, or a text");
    let number = value.as_u64().ok_or_else(wrong)?;
    Ok((number != 0).then_some(CorrelationId::Number(number)))
}

/// Whether the request may be a step of a sequence of this version, and of all stateful steps of an ensemble.
pub(crate) fn check_all(entry: &VersionEntry, step: Option<&SequenceStep>, rows: u32) -> Result<(), Fault> {
    check(&entry.key.model, &entry.config, step, rows)?;
    for (path, stateful) in entry.plan.iter().flat_map(|plan| &plan.stateful) {
        check(&stateful.key.model, &stateful.config, step, rows).map_err(|fault| Fault {
            message: format!("{path}: {}", fault.message).into(),
            ..fault
        })?;
    }
    Ok(())
}

/// Whether the request may be a step of a sequence of this model.
pub(crate) fn check(
    model: &ModelId,
    config: &ModelConfig,
    step: Option<&SequenceStep>,
    rows: u32,
) -> Result<(), Fault> {
    let Some(sequence) = &config.sequence_batching else {
        return Ok(());
    };
    // The texts are Triton's: its clients look for them.
    let Some(step) = step else {
        return Err(Fault::invalid(format!(
            "inference request to model '{model}' must specify a non-zero or non-empty correlation ID"
        )));
    };
    if rows > 1 {
        return Err(Fault::invalid(format!(
            "inference request to model '{model}' must specify batch-size 1 due to requirements of sequence batcher"
        )));
    }
    let told = sequence.control(ControlKind::Corrid);
    let told = told.filter(|_| sequence.correlation_ids == CorrelationIds::AsGiven);
    let Some(datatype) = told.and_then(|(_, control)| control.data_type) else {
        return Ok(());
    };
    let most = match datatype {
        DataType::Int32 => u64::from(i32::MAX.unsigned_abs()),
        DataType::Uint32 => u64::from(u32::MAX),
        DataType::Int64 => i64::MAX.unsigned_abs(),
        DataType::Uint64 => u64::MAX,
        _ => return Ok(()),
    };
    match &step.id {
        CorrelationId::Number(number) if *number <= most => Ok(()),
        id => Err(Fault::invalid(format!(
            "sequence id '{id}' for model '{model}' is no {datatype}, which is how the model is told it: a number from 1 to \
             {most}"
        ))),
    }
}

impl Routed {
    /// Whether it begins a sequence that goes on.
    pub(crate) fn stays(&self) -> bool {
        self.step.start && !self.step.end
    }

    /// The device that holds its state, if that is known.
    pub(crate) fn device(&self) -> Option<DeviceId> {
        match self.place {
            Some(Place::Device(device)) => Some(device),
            _ => None,
        }
    }

    /// The same on its way through an ensemble.
    pub(crate) fn travels(self) -> InSequence {
        let course = match self.place {
            Some(Place::Steps(course)) => course,
            _ if self.step.start => Course::begin(),
            _ => Course::unknown(),
        };
        InSequence {
            step: self.step,
            course,
            name: Some(self.name),
        }
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

impl SequenceName {
    pub(crate) fn of(request: &InferRequest, id: &CorrelationId) -> Self {
        Self {
            target: request.model.clone(),
            selector: match &request.version {
                VersionSelector::Default => String::new(),
                VersionSelector::Version(version) => version.to_string(),
                VersionSelector::Label(label) => label.to_string(),
            },
            id: id.clone(),
        }
    }
}

impl Homes {
    /// Where the sequence is, if it is known and the caller may still use it.
    pub(crate) fn find(&self, tenant: &TenantEntry, target: &Target, name: &SequenceName) -> Option<Home> {
        let tenants = self.tenants.lock();
        let home = tenants.get(&tenant.id)?.homes.get(name)?;
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
        let mut tenants = self.tenants.lock();
        let Some(own) = tenants.get_mut(tenant) else {
            return Ok(());
        };
        if own.homes.len() < MAX_HOMES || own.homes.contains_key(name) {
            return Ok(());
        }
        // Looked through no more often than something can be found.
        if own.next.is_none_or(|next| next <= now) {
            own.homes.retain(|_, home| home.until > now);
            own.next = own.homes.values().map(|home| home.until).min();
        }
        if own.homes.len() < MAX_HOMES {
            return Ok(());
        }
        let text = format!("a tenant has at most {MAX_HOMES} open sequences: end some");
        let wait = own
            .next
            .map_or(Duration::ZERO, |next| next.saturating_duration_since(now));
        Err(Fault::unavailable(FaultSource::TenantLimit, text).with_retry(Retry::After(wait)))
    }

    /// A step has gone to a device, where it is done with by its deadline.
    pub(crate) fn went(
        &self,
        tenant: &TenantId,
        routed: Routed,
        (entry, arm, device): (Arc<VersionEntry>, Option<Arc<str>>, DeviceId),
        deadline: Instant,
    ) {
        let until = deadline + idle(&entry);
        let home = (entry, arm, Place::Device(device));
        if routed.step.end {
            self.forget(tenant, &routed.name);
        } else if routed.step.start {
            self.keep(tenant, routed.name, home, until);
        } else {
            self.extend(tenant, &routed.name, until);
        }
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
        if sequence.step.start && sequence.step.end {
            // All of it is this request.
            self.forget(tenant, name);
        } else if sequence.step.start {
            // A plan holds all that it leads to, and is looked up anew for each request.
            let entry = Arc::new(VersionEntry {
                plan: None,
                ..entry.clone()
            });
            let place = Place::Steps(sequence.course.clone());
            self.keep(tenant, name.clone(), (entry, arm, place), until);
        } else {
            self.extend(tenant, name, until);
        }
    }

    /// The last request of a sequence has come to the end of its way. One that has begun anew under the same name stays.
    pub(crate) fn arrived(&self, tenant: &TenantId, sequence: &InSequence) {
        let Some(name) = sequence.name.as_ref().filter(|_| sequence.step.end) else {
            return;
        };
        let is_it = {
            let tenants = self.tenants.lock();
            let home = tenants.get(tenant).and_then(|own| own.homes.get(name));
            matches!(home.map(|home| &home.place), Some(Place::Steps(course)) if Arc::ptr_eq(course, &sequence.course))
        };
        if is_it {
            self.forget(tenant, name);
        }
    }

    /// Remembers where a sequence is until then.
    pub(crate) fn keep(
        &self,
        tenant: &TenantId,
        name: SequenceName,
        (entry, arm, place): (Arc<VersionEntry>, Option<Arc<str>>, Place),
        until: Instant,
    ) {
        let mut tenants = self.tenants.lock();
        let own = tenants.entry(tenant.clone()).or_default();
        let home = Home {
            entry,
            arm,
            place,
            until,
        };
        own.homes.insert(name, home);
    }

    /// The sequence goes on for at least so long.
    pub(crate) fn extend(&self, tenant: &TenantId, name: &SequenceName, until: Instant) {
        let mut tenants = self.tenants.lock();
        let home = tenants.get_mut(tenant).and_then(|own| own.homes.get_mut(name));
        if let Some(home) = home {
            home.until = home.until.max(until);
        }
    }

    /// The sequence is over.
    pub(crate) fn forget(&self, tenant: &TenantId, name: &SequenceName) {
        let mut tenants = self.tenants.lock();
        let Some(own) = tenants.get_mut(tenant) else { return };
        own.homes.remove(name);
        if own.homes.is_empty() {
            tenants.remove(tenant);
        }
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.tenants.lock().values().map(|own| own.homes.len()).sum()
    }
}

#[cfg(test)]
#[path = "sequences_tests.rs"]
mod tests;
