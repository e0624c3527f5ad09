//! A request of an endpoint with a cache: found, waited for, or computed and remembered.
//!
//! Comes after every check and limit, in the place of dispatching: a request that is found was admitted like any other and takes
//! no device's time.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use mesh_policies::{Target, VersionEntry, traffic::CacheRule};
use mesh_types::{Deadline, EndpointId, Fault, InferJob, JobOutcome, StageTimings, TenantId, VersionSelector};
use tokio::{sync::oneshot, time::timeout_at};

use super::{
    CacheOutcome, Kept,
    flights::{Leader, Role, Turn},
    key::{Asked, Key},
    store::{New, Place},
};
use crate::{
    Call, WorkerReply,
    graph::{self, Ensemble, Manner},
    pipeline::Pipeline,
    place::OnDevice,
};

/// The most bytes of inputs that are looked for: all are hashed, and nobody else of the thread is served meanwhile.
pub(crate) const MAX_KEYED_BYTES: usize = 16 << 20;

/// Where an answer came from, once it is there.
pub(crate) type Told = Arc<OnceLock<CacheOutcome>>;

/// What an endpoint with a cache says of a request.
#[derive(Debug)]
pub(crate) struct Remembered {
    pub(crate) rule: CacheRule,
    pub(crate) endpoint: EndpointId,
}

impl Remembered {
    /// None where the answer may not be remembered: it may only of an endpoint that says so, for what follows its split and is
    /// all in the request, within [`MAX_KEYED_BYTES`].
    pub(crate) fn of(target: &Target, call: &Call) -> Option<Box<Self>> {
        let Target::Endpoint(route) = target else { return None };
        let rule = route.cache?;
        let plain = call.request.version == VersionSelector::Default && call.request.regions.is_none();
        let bytes = call.request.inputs.iter().map(|input| input.data.len());
        let may = plain && bytes.fold(0, usize::saturating_add) <= MAX_KEYED_BYTES;
        may.then(|| {
            Box::new(Self {
                rule,
                endpoint: route.endpoint.clone(),
            })
        })
    }
}

/// A request that is ready to be dispatched.
pub(crate) struct Request {
    pub(crate) entry: Arc<VersionEntry>,
    pub(crate) arm: Option<Arc<str>>,
    pub(crate) job: InferJob,
    pub(crate) manner: Manner,
}

/// What is needed to remember the answer of a request.
struct Course {
    pipeline: Arc<Pipeline>,
    of: Box<Remembered>,
    tenant: TenantId,
    entry: Arc<VersionEntry>,
    key: Key,
    epoch: u64,
    deadline: Deadline,
    begun: Instant,
    /// How long it was looked for.
    looked: Duration,
    told: Told,
}

/// What a device or a graph computes.
struct Running {
    reply: WorkerReply,
    /// Given back with the answer; an ensemble's steps have places of their own.
    place: Option<OnDevice>,
}

/// Answers a request from the cache, or has it computed. The answer comes at the latest at the request's deadline.
pub(crate) fn begin(
    pipeline: &Arc<Pipeline>,
    of: Box<Remembered>,
    request: Request,
    told: &Told,
) -> Result<WorkerReply, Fault> {
    let cache = &pipeline.parts.cache;
    let begun = pipeline.parts.clock.now();
    let course = Course {
        key: key(&of, &request),
        tenant: request.job.tenant.clone(),
        entry: request.entry.clone(),
        epoch: cache.epoch(),
        deadline: request.job.deadline,
        pipeline: pipeline.clone(),
        told: told.clone(),
        looked: Duration::ZERO,
        begun,
        of,
    };
    let found = cache.find(&course.place(), &course.key, begun);
    if let Some(found) = found {
        let outcome = course.found(&found, "hit");
        return Ok(Box::pin(std::future::ready(Ok(outcome))));
    }
    let course = Course {
        looked: course.since(begun),
        ..course
    };
    match cache.flights.join((course.key, course.epoch)) {
        Role::Lead(leader) => {
            let running = start(&course.pipeline, request)?;
            Ok(Box::pin(course.compute(running, Some(leader))))
        }
        Role::Alone => {
            let running = start(&course.pipeline, request)?;
            Ok(Box::pin(course.compute(running, None)))
        }
        Role::Wait(told) => Ok(Box::pin(course.wait(told, request))),
    }
}

fn key(of: &Remembered, request: &Request) -> Key {
    Asked {
        endpoint: of.endpoint.as_str(),
        serial: of.rule.serial,
        arm: request.arm.as_deref().unwrap_or_default(),
        digest: request.entry.digest.as_deref(),
        unit: request.manner.unit.as_deref().filter(|_| request.entry.plan.is_some()),
        parameters: &request.manner.parameters,
        job: &request.job,
    }
    .key()
}

fn start(pipeline: &Arc<Pipeline>, request: Request) -> Result<Running, Fault> {
    let Request { entry, job, manner, .. } = request;
    if let Some(plan) = entry.plan.as_ref().filter(|plan| plan.ready) {
        let which = Ensemble { key: &entry.key, plan };
        let reply = graph::begin(pipeline, &which, job, &Arc::new(manner));
        return Ok(Running { reply, place: None });
    }
    let place = pipeline.place(&entry)?;
    let reply = pipeline.parts.workers.submit(place.device, job)?;
    Ok(Running {
        reply,
        place: Some(place),
    })
}

impl Course {
    fn place(&self) -> Place<'_> {
        Place {
            tenant: &self.tenant,
            endpoint: &self.of.endpoint,
            serial: self.of.rule.serial,
        }
    }

    fn since(&self, then: Instant) -> Duration {
        self.pipeline.parts.clock.now().saturating_duration_since(then)
    }

    fn deadline(&self) -> tokio::time::Instant {
        tokio::time::Instant::from_std(self.deadline.instant())
    }

    fn tell(&self, outcome: CacheOutcome, name: &'static str, took: Duration) {
        let parts = &self.pipeline.parts;
        parts.cache.count(&self.entry.key, outcome, took);
        let metrics = parts.telemetry.metrics();
        metrics.asked_cache(self.tenant.as_str(), self.of.endpoint.as_str(), name);
        // Told once: this request has no other course.
        let _ = self.told.set(outcome);
    }

    fn found(&self, outputs: &Kept, name: &'static str) -> JobOutcome {
        self.tell(CacheOutcome::Hit, name, self.since(self.begun));
        JobOutcome {
            outputs: outputs.to_vec(),
            timings: StageTimings::default(),
        }
    }

    /// Waits for who computes the same, and computes it if nobody does any more.
    async fn wait(self, told: oneshot::Receiver<Turn>, request: Request) -> Result<JobOutcome, Fault> {
        let turn = timeout_at(self.deadline(), told).await;
        let turn = turn.map_err(|_| Fault::deadline("while an equal request was computed"))?;
        let leader = match turn {
            Ok(Turn::Answered(outputs)) => return Ok(self.found(&outputs, "shared")),
            Ok(Turn::Lead(leader)) => Some(leader),
            Err(_) => None,
        };
        let running = start(&self.pipeline, request)?;
        self.compute(running, leader).await
    }

    /// Waits for the model, and remembers what it gave; dropped or failed it hands over.
    async fn compute(self, running: Running, leader: Option<Leader>) -> Result<JobOutcome, Fault> {
        let Running { reply, place } = running;
        let answered = timeout_at(self.deadline(), reply).await;
        let late = |_| Err(Fault::deadline("while the model was running or waiting to run"));
        let outcome = answered.unwrap_or_else(late)?;
        drop(place);
        let done = self.pipeline.parts.clock.now();
        let name = match leader {
            Some(leader) => {
                let outputs: Kept = Arc::from(&*outcome.outputs);
                self.remember(outputs.clone(), done);
                leader.answer(&outputs);
                "miss"
            }
            None => "alone",
        };
        self.tell(CacheOutcome::Miss, name, self.looked + self.since(done));
        Ok(outcome)
    }

    fn remember(&self, outputs: Kept, now: Instant) {
        let (cache, rule) = (&self.pipeline.parts.cache, &self.of.rule);
        let new = New {
            outputs,
            expires: now + rule.ttl,
            max_bytes: rule.max_entry_bytes,
        };
        if cache.keep(&self.place(), self.key, &new, self.epoch) {
            let held = cache.usage();
            let metrics = self.pipeline.parts.telemetry.metrics();
            metrics.cache_holds(held.entries, held.bytes);
        }
    }
}
