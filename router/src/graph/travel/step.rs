//! One step of a request: the job that it is, where that goes, and what is told of it.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use mesh_policies::{VersionEntry, graph::Call};
use mesh_telemetry::{EnsembleMeter, StepOutcome, StepSpan};
use mesh_types::{Fault, FaultClass, FaultSource, InferJob, ModelVersionKey, StageTimings, TraceContext};

use super::{Result, Travel, begin};
use crate::{
    WorkerReply,
    graph::{Ensemble, Manner, gates::Pass},
    pipeline::{Pipeline, not_ready},
    place::OnDevice,
    sequences,
};

/// Where an ensemble is asked from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::graph) enum Asked {
    /// By a caller: it must end at the deadline by itself.
    Outermost,
    /// As a step, with inputs that are the caller's own.
    WithTheCallers,
    /// As a step, with what other steps made.
    WithWhatWasMade,
}

/// When and as what a step began.
#[derive(Debug, Clone)]
pub(super) struct Began {
    pub(super) at: Instant,
    pub(super) trace: TraceContext,
    /// The version that it runs: of a sequence that it began with, and so not always the plan's.
    pub(super) key: Arc<ModelVersionKey>,
}

/// A step that runs.
pub(super) struct Going {
    pub(super) call: usize,
    pub(super) reply: WorkerReply,
    /// Where it runs; none where that is not known yet or it is an ensemble.
    pub(super) place: Option<OnDevice>,
    pub(super) pass: Option<Pass>,
    pub(super) began: Began,
    pub(super) meter: Arc<EnsembleMeter>,
    pub(super) told: bool,
}

impl Drop for Going {
    fn drop(&mut self) {
        if !self.told {
            self.meter.step(self.call, StepOutcome::Cancelled, Duration::ZERO);
        }
    }
}

impl Travel {
    pub(super) fn step_trace(&self) -> TraceContext {
        if self.job.trace.sampled {
            self.job.trace.child(rand::random::<u64>().max(1))
        } else {
            self.job.trace
        }
    }

    /// What is told of a step that did not even begin.
    pub(super) fn not_begun(&self, at: usize) -> Began {
        let entry = self.run.plan().entries.get(at);
        Began {
            at: self.now(),
            trace: self.step_trace(),
            key: entry.map_or_else(|| self.key.clone(), |entry| entry.key.clone()),
        }
    }

    /// Hands a step to a device, or to the ensemble that it is.
    pub(super) fn start(&self, at: usize) -> Result<Going> {
        let began = self.now();
        let plan = self.run.plan();
        let (Some(call), Some(entry)) = (plan.outline.calls.get(at), plan.entries.get(at)) else {
            return Err(Fault::internal("a step has no version"));
        };
        if self.job.deadline.is_past(began) {
            return Err(Fault::deadline("before it began"));
        }
        let trace = self.step_trace();
        let sequence = self.manner.sequence.as_ref();
        let stateful = sequence.filter(|_| entry.config.sequence_batching.is_some());
        let seat = stateful.map(|sequence| sequence.seat(entry)).transpose()?;
        // What a sequence began with it goes on with.
        let entry = seat.as_ref().map_or(entry, |seat| &seat.entry);
        let mut job = self.step_job(at, call, entry, trace)?;
        if let Some(seat) = &seat {
            sequences::check(&entry.key.model, &entry.config, Some(&seat.step), job.rows)?;
            job.sequence = Some(Box::new(seat.step.clone()));
        }
        let mut going = Going {
            call: at,
            reply: Box::pin(std::future::pending()),
            place: None,
            pass: None,
            began: Began {
                at: began,
                trace,
                key: entry.key.clone(),
            },
            meter: self.fittings.meter.clone(),
            told: true,
        };
        let gate = self.fittings.gates.get(at).cloned().flatten();
        going.pass = gate.as_ref().and_then(|gate| gate.try_pass());
        match gate.filter(|_| going.pass.is_none()) {
            Some(gate) => {
                let (pipeline, entry, manner) = (self.pipeline.clone(), entry.clone(), self.manner.clone());
                let asked = self.asked_of(at);
                going.reply = Box::pin(async move {
                    let _pass = gate.pass(&job.tenant, &job.standing).await?;
                    let (reply, _place) = hand_over(&pipeline, &entry, (job, asked), &manner)?;
                    reply.await
                });
            }
            None => {
                let asked = self.asked_of(at);
                (going.reply, going.place) = hand_over(&self.pipeline, entry, (job, asked), &self.manner)?;
            }
        }
        going.told = false;
        Ok(going)
    }

    /// How a step is asked, if it is an ensemble.
    fn asked_of(&self, at: usize) -> Asked {
        if self.asked != Asked::WithWhatWasMade && self.run.is_first(at) {
            Asked::WithTheCallers
        } else {
            Asked::WithWhatWasMade
        }
    }

    fn step_job(&self, at: usize, call: &Call, entry: &VersionEntry, trace: TraceContext) -> Result<InferJob> {
        let mut inputs = self.run.inputs(at);
        let checked = entry.config.check_inputs(&entry.key.model, &mut inputs);
        let rows = checked.map_err(|error| {
            if self.asked_of(at) == Asked::WithTheCallers {
                Fault::from(error)
            } else {
                // The caller has not made these.
                Fault::new(FaultClass::Internal, FaultSource::Model, error.to_string())
            }
        })?;
        let parameters = entry
            .config
            .model_parameters(&entry.key.model, &self.manner.parameters)?;
        Ok(InferJob {
            version: entry.key.clone(),
            inputs,
            outputs: call.ask.clone(),
            rows,
            parameters,
            trace,
            ..self.job.clone()
        })
    }

    pub(super) fn tell(
        &self,
        at: usize,
        began: &Began,
        total: Duration,
        (stages, fault): (&StageTimings, Option<&Fault>),
    ) {
        if !began.trace.sampled {
            return;
        }
        let Some(call) = self.run.plan().outline.calls.get(at) else {
            return;
        };
        self.pipeline.parts.telemetry.spans().step(&StepSpan {
            context: began.trace,
            parent: self.job.trace,
            step: &call.name,
            model: began.key.model.as_str(),
            version: began.key.version.get(),
            ended: SystemTime::now(),
            total,
            stages,
            error: fault.map(|fault| &*fault.message),
        });
    }
}

/// Hands a job to whatever runs its version.
fn hand_over(
    pipeline: &Arc<Pipeline>,
    entry: &Arc<VersionEntry>,
    (job, asked): (InferJob, Asked),
    manner: &Arc<Manner>,
) -> Result<(WorkerReply, Option<OnDevice>)> {
    if let Some(plan) = &entry.plan {
        if !plan.ready {
            return Err(not_ready(entry));
        }
        let which = Ensemble { key: &entry.key, plan };
        return Ok((begin(pipeline.clone(), &which, job, manner.clone(), asked), None));
    }
    let sequence = manner.sequence.as_ref().filter(|_| job.sequence.is_some());
    let device = sequence.and_then(|sequence| sequence.device(&job.tenant, entry));
    let place = match device {
        Some(device) => pipeline.loads.take_on(device),
        None => pipeline.place(entry)?,
    };
    let reply = pipeline.parts.workers.submit(place.device, job)?;
    if let Some(sequence) = sequence {
        sequence.course.went(entry, place.device);
    }
    Ok((reply, Some(place)))
}
