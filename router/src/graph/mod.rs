//! Ensembles: a request that is several jobs, one for each step of a graph.
//!
//! Owns the way from a plan to jobs and back. To whoever waits, an ensemble is like a device: it is handed a job, and answers it.
//! Its steps are jobs of the caller, with the caller's deadline, class, priority, request number and trace, and go to devices
//! like any other job. What may start when is the [`Run`](mesh_policies::graph::Run)'s to say, and limits were taken before.
//!
//! Invariants: a step that fails ends the rest, unless it may fail; dropping the answer cancels every step that runs; nothing starts
//! after the deadline; a tensor is handed on by reference; all steps are of the one snapshot that the request was decided by.

mod course;
mod gates;
mod line;
mod travel;

use std::sync::Arc;

use mesh_policies::{VersionEntry, graph::Plan};
use mesh_telemetry::EnsembleMeter;
use mesh_types::{CorrelationId, Fault, FaultSource, InferJob, ModelVersionKey, Parameters, RequestId, SequenceStep};

pub use course::MAX_STATES;
pub(crate) use course::{Course, InSequence};
pub use gates::Gates;
pub use line::{MAX_WAITING, MAX_WAITING_TENANTS};

use self::{gates::Gate, travel::Asked};
use crate::{RouterParts, WorkerReply, pipeline::Pipeline};

/// What a request brings besides tensors and its job; the same for ensembles within ensembles.
#[derive(Debug, Default)]
pub(crate) struct Manner {
    /// The request's parameters.
    pub(crate) parameters: Parameters,
    /// The unit of sticky splitters.
    pub(crate) unit: Option<String>,
    /// The sequence that stateful steps belong to.
    pub(crate) sequence: Option<InSequence>,
}

/// Begins an ensemble's request. The job is as it would be for a device; its inputs are checked and in order.
pub(crate) fn begin(
    pipeline: &Arc<Pipeline>,
    which: &Ensemble<'_>,
    job: InferJob,
    manner: &Arc<Manner>,
) -> WorkerReply {
    travel::begin(pipeline.clone(), which, job, manner.clone(), Asked::Outermost)
}

/// What all requests of a plan count in and pass through: looked up once for the plan, and held for as long as it lives.
#[derive(Debug)]
struct Fittings {
    meter: Arc<EnsembleMeter>,
    /// By the call's place; none where it has no bound.
    gates: Vec<Option<Arc<Gate>>>,
}

impl Fittings {
    fn of(parts: &RouterParts, which: &Ensemble<'_>) -> Arc<Self> {
        let make = || {
            let calls = &which.plan.outline.calls;
            let names = calls.iter().map(|call| &*call.name);
            let steps = calls.iter().enumerate();
            Self {
                meter: parts.telemetry.metrics().ensemble(which.key, names),
                gates: steps
                    .map(|(at, call)| parts.gates.of(which.key, at, call.max_inflight))
                    .collect(),
            }
        };
        which.plan.fitted(make).unwrap_or_else(|| Arc::new(make()))
    }
}

/// An ensemble's version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ensemble<'a> {
    /// Which.
    pub(crate) key: &'a Arc<ModelVersionKey>,
    /// What it runs.
    pub(crate) plan: &'a Arc<Plan>,
}

/// Runs one job on an ensemble, for who is no tenant's caller: no limit is counted. A job of no sequence is one of its own, where
/// steps keep a state.
pub fn infer_ensemble(
    parts: &RouterParts,
    entry: &VersionEntry,
    mut job: InferJob,
    parameters: Parameters,
) -> Result<WorkerReply, Fault> {
    let Some(plan) = entry.plan.as_ref().filter(|plan| plan.ready) else {
        let reason = entry.unavailable_reason.as_deref().unwrap_or("it is no ensemble");
        let text = format!(
            "model '{}' version {} is not ready: {reason}",
            entry.key.model, entry.key.version
        );
        return Err(Fault::unavailable(FaultSource::Model, text));
    };
    if !plan.admits(&job.tenant) {
        return Err(Fault::unknown_model(entry.key.model.as_str()));
    }
    let alone = |request: RequestId| SequenceStep {
        id: CorrelationId::Text(format!("trial-{request}").into()),
        start: true,
        end: true,
    };
    let step = job.sequence.take().map(|step| *step);
    let step = entry.is_stateful().then(|| step.unwrap_or_else(|| alone(job.request)));
    crate::sequences::check_all(entry, step.as_ref(), job.rows)?;
    let sequence = step.map(|step| InSequence {
        step,
        course: Course::begin(),
        name: None,
    });
    let manner = Manner {
        parameters,
        unit: None,
        sequence,
    };
    let pipeline = Arc::new(Pipeline {
        parts: parts.clone(),
        loads: Arc::default(),
    });
    let which = Ensemble { key: &entry.key, plan };
    Ok(begin(&pipeline, &which, job, &Arc::new(manner)))
}
