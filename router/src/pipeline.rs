//! The pipeline: authenticate, admit, choose, place, dispatch. Each stage takes the former one's type, so that none can be
//! left out or put elsewhere.
//!
//! Everything up to the dispatch is plain computation on one snapshot and never waits. What is in flight holds its permits;
//! dropping it gives them back and cancels the job.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_actors::Permit;
use mesh_policies::{
    MeshSnapshot, Principal,
    access::Judged,
    graph::Plan,
    limits::{Admission, Caller, Now},
    placement::device_of,
    snapshot::{Target, TenantEntry, VersionEntry},
};
use mesh_types::{
    Classes, Deadline, EndpointId, Fault, FaultSource, InferJob, InferRequest, InferResponse, ModelParameters,
    Parameters, SequenceStep, ServiceClass, Standing, TraceContext,
};

mod arm;
mod charge;
mod inputs;

pub(crate) use self::inputs::WithInputs;
use self::{arm::of_route, inputs::within_bound};

use crate::{
    Account, Call, RouterParts,
    account::Limited,
    cache::recall::{self, Remembered, Told},
    flight::{InFlight, Kept},
    graph::{self, Ensemble, Manner},
    keys::{Begun, Seen, patience, prove},
    lap::Lap,
    place::{Loads, OnDevice},
    regions::Landing,
    sequences::{self, Routed, SequenceName},
};

/// One router's pipeline.
pub(crate) struct Pipeline {
    pub(crate) parts: RouterParts,
    pub(crate) loads: Arc<Loads>,
}

impl Pipeline {
    /// Takes a call as far as a device, or to the first steps of an ensemble, or says why not.
    pub(crate) fn begin(
        self: &Arc<Self>,
        (call, seen): (Box<Call>, Seen),
        permit: Permit,
        account: &mut Account,
    ) -> Result<Begun, Fault> {
        let mut lap = Lap::start(&*self.parts.clock);
        let received = Received {
            // What its door has read it by, if it has; else what holds now.
            snapshot: seen.clone().unwrap_or_else(|| self.parts.snapshots.load_full()),
            call,
            permit,
        };
        let authenticated = received.authenticate(self, seen, account);
        account.stages.authenticate = lap.next();
        let authenticated = match authenticated? {
            Ok(authenticated) => authenticated,
            Err(waits) => return Ok(waits),
        };
        let admitted = authenticated.admit(lap.last, account);
        account.stages.admit = lap.next();
        // What is in shared memory is read for whom the limits let through only.
        let read = match admitted?.choose(self, account) {
            // A driver that copies is waited for elsewhere.
            Ok(versioned) if versioned.reads_devices(self) => {
                versioned.in_time(self)?;
                return Ok(Begun::Copies(Box::new(versioned)));
            }
            chosen => chosen.and_then(|versioned| versioned.read_here(self)),
        };
        self.go_on(read, (lap, account)).map(Begun::in_flight)
    }

    /// Takes a call whose inputs are all there to a device, or to the first steps of an ensemble.
    pub(crate) fn go_on(
        self: &Arc<Self>,
        read: Result<WithInputs, Fault>,
        (mut lap, account): (Lap<'_>, &mut Account),
    ) -> Result<InFlight, Fault> {
        let checked = read.and_then(|read| read.check(self));
        account.stages.choose = lap.next();
        let mut checked = checked?.charge(lap.last, account)?;
        if let Some(of) = checked.versioned.remembered.take() {
            account.composed = checked.versioned.entry.plan.is_some();
            return checked.recall(self, of, account.trace());
        }
        match checked.versioned.entry.plan.clone().filter(|plan| plan.ready) {
            None => checked.place(self)?.dispatch(self, account.trace()),
            Some(plan) => {
                account.composed = true;
                checked.travel(self, &plan, account.trace())
            }
        }
    }

    /// A place on a device where a version is ready.
    pub(crate) fn place(&self, entry: &VersionEntry) -> Result<OnDevice, Fault> {
        let place = self.loads.take(&entry.ready_on, rand::random());
        place.ok_or_else(|| not_ready(entry))
    }
}

/// Why a version takes no request now.
pub(crate) fn not_ready(entry: &VersionEntry) -> Fault {
    let reason = entry.unavailable_reason.as_deref().unwrap_or("it is loading");
    let text = format!(
        "model '{}' version {} is not ready: {reason}",
        entry.key.model, entry.key.version
    );
    Fault::unavailable(FaultSource::Model, text)
}

/// Nothing is known yet.
struct Received {
    snapshot: Arc<MeshSnapshot>,
    call: Box<Call>,
    permit: Permit,
}

/// The caller is known.
struct Authenticated {
    snapshot: Arc<MeshSnapshot>,
    principal: Principal,
    tenant: Arc<TenantEntry>,
    caller: Caller,
    unix_seconds: i64,
    call: Box<Call>,
    permit: Permit,
}

/// The caller's limits have room, and hold it.
struct Admitted {
    snapshot: Arc<MeshSnapshot>,
    principal: Principal,
    tenant: Arc<TenantEntry>,
    unix_seconds: i64,
    call: Box<Call>,
    permits: (Permit, Admission),
}

/// The version is chosen.
pub(crate) struct Versioned {
    tenant: Arc<TenantEntry>,
    /// The endpoint that was called, if it was one.
    endpoint: Option<EndpointId>,
    unix_seconds: i64,
    entry: Arc<VersionEntry>,
    arm: Option<Arc<str>>,
    timeout: Option<Duration>,
    class: ServiceClass,
    sequence: Option<Box<Routed>>,
    /// Where its answer may be remembered.
    remembered: Option<Box<Remembered>>,
    call: Box<Call>,
    permits: (Permit, Admission),
}

/// The inputs fit the version and there is time.
struct Checked {
    versioned: Versioned,
    rows: u32,
    /// What the model is given of its parameters.
    given: Option<Arc<ModelParameters>>,
    deadline: Deadline,
    standing: Standing,
    /// Where outputs go that are not answered with.
    landing: Option<Box<Landing>>,
}

/// The device is chosen.
struct Placed {
    checked: Checked,
    place: OnDevice,
}

impl Received {
    fn authenticate(
        self,
        pipeline: &Pipeline,
        seen: Seen,
        account: &mut Account,
    ) -> Result<Result<Authenticated, Begun>, Fault> {
        let parts = &pipeline.parts;
        let now = parts.clock.unix_seconds();
        match prove(&self.snapshot, parts, &self.call.credential, now)? {
            Judged::Holds((principal, tenant)) => {
                let caller = (parts.limiter).caller(&tenant.id, &tenant.limits, (&principal).into())?;
                if tenant.limits.is_limited() {
                    account.limited = Some(Box::new(Limited {
                        caller: caller.clone(),
                        violated: None,
                    }));
                }
                account.known(&principal);
                Ok(Ok(Authenticated {
                    tenant: tenant.clone(),
                    snapshot: self.snapshot,
                    principal,
                    caller,
                    unix_seconds: now,
                    call: self.call,
                    permit: self.permit,
                }))
            }
            Judged::Waits(wait) => {
                let timeout = self.call.timeout.unwrap_or(parts.default_timeout);
                let until = patience(self.call.received, timeout.min(parts.default_timeout));
                Ok(Err(Begun::Waits((self.call, seen), self.permit, wait, until)))
            }
        }
    }
}

impl Authenticated {
    fn admit(self, instant: Instant, account: &mut Account) -> Result<Admitted, Fault> {
        let now = Now {
            instant,
            unix_seconds: self.unix_seconds,
        };
        let admission = self.caller.admit(now).map_err(|error| account.limited_by(error))?;
        Ok(Admitted {
            snapshot: self.snapshot,
            principal: self.principal,
            tenant: self.tenant,
            unix_seconds: self.unix_seconds,
            call: self.call,
            permits: (self.permit, admission),
        })
    }
}

impl Admitted {
    fn choose(self, pipeline: &Pipeline, account: &mut Account) -> Result<Versioned, Fault> {
        let request = &self.call.request;
        let unknown = || Fault::unknown_model(&request.model);
        // A name that the caller may not call is as unknown as one that is not there.
        let target = self.snapshot.callable(&self.principal, &self.tenant, &request.model);
        let target = target.ok_or_else(unknown)?;
        // The name exists for this caller: from here on it may be a label.
        account.target = Some(target.clone());
        account.trace_as(&self.tenant.id, &request.model);
        let mut sequence = routed(request)?;
        let home = sequence.as_mut().and_then(|sequence| {
            let now = pipeline.parts.clock.now();
            let home = (pipeline.parts.sequences).find(&self.tenant, target, &sequence.name, now)?;
            // What begins anew chooses anew.
            let home = Some(home).filter(|_| !sequence.step.start)?;
            sequence.place = Some(home.place.clone());
            Some(home)
        });
        let (timeout, class, endpoint) = match target {
            Target::Model(_) => (None, ServiceClass::default(), None),
            Target::Endpoint(route) => (route.timeout, route.class, Some(route.endpoint.clone())),
        };
        let (entry, arm) = match (home, target) {
            (Some(home), _) => (home.entry, home.arm),
            (None, Target::Model(model)) => (model.resolve(&request.version).ok_or_else(unknown)?.clone(), None),
            (None, Target::Endpoint(route)) => {
                let id = sequence.as_ref().map(|sequence| &sequence.step.id);
                let (entry, arm) = of_route(route, &self.tenant, &self.call, id)?;
                (entry, Some(arm))
            }
        };
        if entry.plan.as_ref().is_some_and(|plan| !plan.admits(&self.tenant.id)) {
            return Err(unknown());
        }
        within_bound(&self.snapshot, &entry, self.call.bytes)?;
        let may_be_remembered = sequence.is_none() && !entry.is_stateful() && !entry.config.is_decoupled();
        let remembered = may_be_remembered.then(|| Remembered::of(target, &self.call)).flatten();
        // A model without state has no use for it.
        let sequence = sequence.filter(|_| entry.is_stateful());
        if let Some(unknown) = sequence.as_ref().filter(|one| one.place.is_none() && !one.step.start) {
            let (homes, now) = (&pipeline.parts.sequences, pipeline.parts.clock.now());
            homes.may_go_on(&self.tenant.id, &entry.key.model, &unknown.step.id, now)?;
        }
        account.arm.clone_from(&arm);
        account.version = entry.key.version.get();
        Ok(Versioned {
            tenant: self.tenant,
            endpoint,
            unix_seconds: self.unix_seconds,
            entry,
            arm,
            timeout,
            class,
            sequence,
            remembered,
            call: self.call,
            permits: self.permits,
        })
    }
}

/// The request's sequence; what has no parameters has none.
fn routed(request: &InferRequest) -> Result<Option<Box<Routed>>, Fault> {
    if request.parameters.is_empty() {
        return Ok(None);
    }
    let routed = |step: SequenceStep| {
        Box::new(Routed {
            name: SequenceName::of(request, &step.id),
            step,
            place: None,
        })
    };
    Ok(sequences::step_of(request)?.map(routed))
}

impl Checked {
    fn place(self, pipeline: &Pipeline) -> Result<Placed, Fault> {
        let versioned = &self.versioned;
        let place = match &versioned.sequence {
            None => pipeline.place(&versioned.entry)?,
            Some(sequence) => {
                let (entry, id) = (&versioned.entry, &sequence.step.id);
                let chosen = || device_of(&versioned.tenant.id, &entry.key, id, &entry.ready_on);
                match sequence.device().or_else(chosen) {
                    Some(device) => pipeline.loads.take_on(device),
                    None => pipeline.place(entry)?,
                }
            }
        };
        Ok(Placed { checked: self, place })
    }
}

impl Checked {
    /// The job that a device is handed, and what is kept of the call until it is answered.
    fn job(self, trace: TraceContext) -> (InferJob, Kept) {
        let Self {
            versioned,
            rows,
            given,
            deadline,
            standing,
            landing,
        } = self;
        let call = *versioned.call;
        let request = call.request;
        let (outputs, classes) = (request.outputs, request.classes);
        let classes = (!classes.is_empty()).then(|| {
            Box::new(Classes {
                wanted: classes,
                config: versioned.entry.config.clone(),
            })
        });
        let job = InferJob {
            request: call.request_id,
            tenant: versioned.tenant.id.clone(),
            version: versioned.entry.key.clone(),
            inputs: request.inputs,
            outputs: outputs.clone(),
            rows,
            parameters: given,
            deadline,
            standing,
            sequence: None,
            answers: None,
            trace,
            meter: versioned.permits.1.meter(),
        };
        let kept = Kept {
            deadline,
            wanted: outputs,
            response: InferResponse {
                id: request.id,
                model: request.model,
                version: versioned.entry.key.version,
                outputs: Vec::new(),
                parameters: Parameters::new(),
                regions: Vec::new(),
            },
            arm: versioned.arm,
            permits: versioned.permits,
            classes,
            landing,
            manner: Manner {
                parameters: request.parameters,
                unit: call.unit,
                sequence: None,
            },
        };
        (job, kept)
    }

    /// Is answered from the cache, or computed as it would be without one.
    fn recall(self, pipeline: &Arc<Pipeline>, of: Box<Remembered>, trace: TraceContext) -> Result<InFlight, Fault> {
        let (entry, arm) = (self.versioned.entry.clone(), self.versioned.arm.clone());
        let (job, mut kept) = self.job(trace);
        let manner = std::mem::take(&mut kept.manner);
        let (told, request) = (
            Told::default(),
            recall::Request {
                entry,
                arm,
                job,
                manner,
            },
        );
        let reply = recall::begin(pipeline, of, request, &told)?;
        let mut in_flight = kept.in_flight(reply, None);
        in_flight.cached = Some(told);
        Ok(in_flight)
    }

    /// Goes through an ensemble's graph; what its first steps are refused is found when it is waited for.
    fn travel(mut self, pipeline: &Arc<Pipeline>, plan: &Arc<Plan>, trace: TraceContext) -> Result<InFlight, Fault> {
        let homes = &pipeline.parts.sequences;
        let sequence = self.versioned.sequence.take();
        if let Some(sequence) = sequence.as_ref().filter(|sequence| sequence.stays()) {
            homes.has_room(&self.versioned.tenant.id, &sequence.name, pipeline.parts.clock.now())?;
        }
        let entry = self.versioned.entry.clone();
        let (job, mut kept) = self.job(trace);
        let mut manner = std::mem::take(&mut kept.manner);
        manner.sequence = sequence.map(|sequence| sequence.travels());
        if let Some(sequence) = &manner.sequence {
            let version = (&*entry, kept.arm.clone());
            homes.set_out(&job.tenant, sequence, version, kept.deadline.instant());
        }
        let which = Ensemble { key: &entry.key, plan };
        let reply = graph::begin(pipeline, &which, job, &Arc::new(manner));
        Ok(kept.in_flight(reply, None))
    }
}

impl Placed {
    fn dispatch(self, pipeline: &Pipeline, trace: TraceContext) -> Result<InFlight, Fault> {
        let Self { mut checked, place } = self;
        let homes = &pipeline.parts.sequences;
        let sequence = checked.versioned.sequence.take();
        if let Some(sequence) = sequence.as_ref().filter(|sequence| sequence.stays()) {
            let tenant = &checked.versioned.tenant.id;
            homes.has_room(tenant, &sequence.name, pipeline.parts.clock.now())?;
        }
        let entry = sequence.is_some().then(|| checked.versioned.entry.clone());
        let decoupled = checked.versioned.entry.config.is_decoupled();
        let (mut job, kept) = checked.job(trace);
        let tenant = job.tenant.clone();
        job.sequence = sequence.as_ref().map(|sequence| Box::new(sequence.step.clone()));
        let answers = decoupled.then(|| {
            let (sender, answers) = mesh_types::answers();
            job.answers = Some(sender);
            Box::new(answers)
        });
        let mut reply = pipeline.parts.workers.submit(place.device, job)?;
        if let (Some(sequence), Some(entry)) = (sequence, entry) {
            let home = (entry, kept.arm.clone(), place.device);
            reply = homes.follow(&tenant, *sequence, home, kept.deadline.instant(), reply);
        }
        Ok(InFlight {
            answers,
            ..kept.in_flight(reply, Some(place))
        })
    }
}
