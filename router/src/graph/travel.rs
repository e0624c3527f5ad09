//! One request's way through a graph: starts what can start, takes in what ends, until every wanted output is there.

mod step;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime},
};

use mesh_policies::graph::{Facts, MAX_WIDTH, Run, Starts};
use mesh_telemetry::{EnsembleMeter, EnsembleOutcome, StepOutcome};
use mesh_types::{
    Fault, FaultClass, FaultSource, InferJob, JobOutcome, ModelVersionKey, StageTimings, TenantId, Tensor,
};
use smallvec::SmallVec;
use tokio::time::Sleep;

pub(super) use self::step::Asked;
use self::step::{Began, Going};
use super::{Ensemble, Fittings, InSequence, Manner};
use crate::{WorkerReply, pipeline::Pipeline};

/// Begins.
pub(super) fn begin(
    pipeline: Arc<Pipeline>,
    which: &Ensemble<'_>,
    mut job: InferJob,
    manner: Arc<Manner>,
    asked: Asked,
) -> WorkerReply {
    let (inputs, outputs) = (std::mem::take(&mut job.inputs), std::mem::take(&mut job.outputs));
    let plan = which.plan.clone();
    let fittings = Fittings::of(&pipeline.parts, which);
    let travel = Travel {
        ended: vec![Ended::default(); plan.outline.calls.len()],
        run: Run::begin(plan, inputs, &outputs),
        began: pipeline.parts.clock.now(),
        alarm: (asked == Asked::Outermost).then(|| Box::pin(tokio::time::sleep_until(job.deadline.instant().into()))),
        key: which.key.clone(),
        going: SmallVec::new(),
        held: Starts::new(),
        asked,
        pipeline,
        ending: Ending {
            meter: fittings.meter.clone(),
            told: false,
        },
        fittings,
        manner,
        job,
    };
    Box::pin(travel.go())
}

/// The first request of a sequence while it has its turn. Where it fails, or its caller leaves, nothing of the sequence goes on.
struct Beginning<'a> {
    pipeline: Arc<Pipeline>,
    tenant: &'a TenantId,
    sequence: &'a InSequence,
    has_begun: bool,
}

impl Drop for Beginning<'_> {
    fn drop(&mut self) {
        if !self.has_begun {
            self.pipeline.parts.sequences.not_begun(self.tenant, self.sequence);
        }
    }
}

/// What is known of a step that has ended.
#[derive(Debug, Clone, Copy, Default)]
struct Ended {
    started: bool,
    total: Duration,
    timings: StageTimings,
}

/// How the whole ends: cancelled, where nothing else was told.
struct Ending {
    meter: Arc<EnsembleMeter>,
    told: bool,
}

impl Ending {
    fn tell(&mut self, ok: bool, total: Duration, compose: Duration) {
        self.told = true;
        let outcome = if ok {
            EnsembleOutcome::Ok
        } else {
            EnsembleOutcome::Failed
        };
        self.meter.request(outcome, total, compose);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if !self.told {
            self.meter
                .request(EnsembleOutcome::Cancelled, Duration::ZERO, Duration::ZERO);
        }
    }
}

/// A request on its way.
struct Travel {
    pipeline: Arc<Pipeline>,
    key: Arc<ModelVersionKey>,
    /// Without its inputs and outputs, which the run has.
    job: InferJob,
    asked: Asked,
    manner: Arc<Manner>,
    run: Run,
    going: SmallVec<[Going; 4]>,
    /// Steps that could start but that as many run as may, in their order; at most as many as there are steps.
    held: Starts,
    ended: Vec<Ended>,
    fittings: Arc<Fittings>,
    ending: Ending,
    began: Instant,
    alarm: Option<Pin<Box<Sleep>>>,
}

type Result<T> = std::result::Result<T, Fault>;

impl Travel {
    async fn go(mut self) -> Result<JobOutcome> {
        let result = self.in_turn().await;
        let total = self.now().saturating_duration_since(self.began);
        let path = self.run.critical_path();
        let (mut stages, mut steps) = (StageTimings::default(), Duration::ZERO);
        for ended in path.iter().filter_map(|call| self.ended.get(*call)) {
            steps += ended.total;
            stages.queue += ended.timings.queue;
            stages.compute_input += ended.timings.compute_input;
            stages.compute_infer += ended.timings.compute_infer;
            stages.compute_output += ended.timings.compute_output;
            stages.batch_rows = ended.timings.batch_rows;
        }
        self.ending.tell(result.is_ok(), total, total.saturating_sub(steps));
        let outputs = result?;
        self.fittings
            .meter
            .answered(self.job.rows, &self.on_devices(), SystemTime::now());
        if let Some(sequence) = self.sequence() {
            self.pipeline.parts.sequences.arrived(&self.job.tenant, sequence);
        }
        for (call, _) in self.ended.iter().enumerate().filter(|(_, ended)| !ended.started) {
            self.fittings.meter.step(call, StepOutcome::LeftOut, Duration::ZERO);
        }
        Ok(JobOutcome {
            outputs,
            timings: stages,
        })
    }

    /// What all steps took on devices, also those that ran side by side.
    fn on_devices(&self) -> StageTimings {
        let mut sum = StageTimings::default();
        for StageTimings {
            queue,
            compute_input,
            compute_infer,
            compute_output,
            ..
        } in self.ended.iter().map(|ended| ended.timings)
        {
            sum.queue += queue;
            sum.compute_input += compute_input;
            sum.compute_infer += compute_infer;
            sum.compute_output += compute_output;
        }
        sum
    }

    /// The wanted outputs, of the shapes that the ensemble declares: where its steps' models leave them open, only now is it known.
    fn outputs(&self) -> Result<Vec<Tensor>> {
        let outputs = self.run.outputs();
        let declared = &self.run.plan().outline.outputs;
        for tensor in &outputs {
            let declared = declared.iter().find(|declared| declared.name == tensor.name);
            if let Some(declared) = declared.filter(|declared| !declared.fits(&tensor.shape)) {
                let text = format!(
                    "output '{}' has the shape {:?}, but model '{}' declares {:?}",
                    tensor.name, tensor.shape, self.key.model, declared.dims
                );
                return Err(Fault::new(FaultClass::Internal, FaultSource::Model, text));
            }
        }
        Ok(outputs)
    }

    /// The sequence of the request; an ensemble within an ensemble has its outermost one's turn.
    fn sequence(&self) -> Option<&InSequence> {
        self.manner.sequence.as_ref().filter(|_| self.alarm.is_some())
    }

    async fn in_turn(&mut self) -> Result<Vec<Tensor>> {
        let manner = self.manner.clone();
        let (Some(sequence), Some(alarm)) = (&manner.sequence, self.alarm.as_mut()) else {
            return self.answer().await;
        };
        let tenant = self.job.tenant.clone();
        let _turn = tokio::select! {
            biased;
            turn = sequence.turn(&tenant) => turn?,
            () = alarm => return Err(Fault::deadline("while an earlier request of its sequence ran")),
        };
        // Gone before the turn is: the next one must not have its turn first.
        let mut beginning = sequence.step.start.then(|| Beginning {
            pipeline: self.pipeline.clone(),
            tenant: &tenant,
            sequence,
            has_begun: false,
        });
        let answer = self.answer().await;
        if let Some(beginning) = &mut beginning {
            beginning.has_begun = answer.is_ok();
        }
        answer
    }

    async fn answer(&mut self) -> Result<Vec<Tensor>> {
        self.until_over().await?;
        self.outputs()
    }

    async fn until_over(&mut self) -> Result<()> {
        loop {
            self.start_what_can()?;
            if self.run.is_over() {
                return Ok(());
            }
            if self.going.is_empty() {
                // A checked graph always has something to wait for.
                return Err(Fault::internal("nothing runs and yet outputs are missing"));
            }
            let (going, outcome) = std::future::poll_fn(|context| self.poll_next(context)).await?;
            self.take(going, outcome)?;
        }
    }

    fn now(&self) -> Instant {
        self.pipeline.parts.clock.now()
    }

    fn start_what_can(&mut self) -> Result<()> {
        loop {
            let manner = self.manner.clone();
            let facts = Facts {
                tenant: &self.job.tenant,
                parameters: &manner.parameters,
                unit: manner.unit.as_deref(),
                random: &rand::random::<u64>,
            };
            let starts = self.run.advance(&facts);
            self.held.extend(starts);
            let mut failed_at_once = false;
            while self.going.len() < MAX_WIDTH && !self.held.is_empty() {
                let call = self.held.remove(0);
                if let Some(ended) = self.ended.get_mut(call) {
                    ended.started = true;
                }
                match self.start(call) {
                    Ok(going) => {
                        self.run.started(call);
                        self.going.push(going);
                    }
                    Err(fault) => {
                        let began = self.not_begun(call);
                        self.failed(call, &fault, &began)?;
                        failed_at_once = true;
                    }
                }
            }
            // What fails softly may let others start.
            if !failed_at_once {
                return Ok(());
            }
        }
    }

    /// Waits for any step that runs, at most until the deadline.
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<(Going, Result<JobOutcome>)>> {
        for at in 0..self.going.len() {
            let Some(going) = self.going.get_mut(at) else { break };
            if let Poll::Ready(outcome) = going.reply.as_mut().poll(context) {
                let going = self.going.swap_remove(at);
                return Poll::Ready(Ok((going, outcome)));
            }
        }
        match self.alarm.as_mut().map(|alarm| alarm.as_mut().poll(context)) {
            Some(Poll::Ready(())) => {
                let name = |going: &Going| {
                    self.run
                        .plan()
                        .outline
                        .calls
                        .get(going.call)
                        .map(|call| format!("'{}'", call.name))
                };
                let names: Vec<String> = self.going.iter().filter_map(name).collect();
                let stage = format!("while running or waiting to run step {}", names.join(", "));
                Poll::Ready(Err(Fault::deadline(&stage)))
            }
            _ => Poll::Pending,
        }
    }

    /// Takes in what came of a step.
    fn take(&mut self, mut going: Going, outcome: Result<JobOutcome>) -> Result<()> {
        (going.place, going.pass) = (None, None);
        going.told = true;
        let ended = self.now();
        let JobOutcome { outputs, timings } = match outcome {
            Ok(outcome) => outcome,
            Err(fault) => return self.failed(going.call, &fault, &going.began),
        };
        if let Err(error) = self.run.finished(going.call, outputs) {
            let fault = Fault::new(FaultClass::Internal, FaultSource::Model, error.to_string());
            return self.failed(going.call, &fault, &going.began);
        }
        let total = ended.saturating_duration_since(going.began.at);
        if let Some(known) = self.ended.get_mut(going.call) {
            (known.total, known.timings) = (total, timings);
        }
        self.fittings.meter.step(going.call, StepOutcome::Ok, total);
        self.tell(going.call, &going.began, total, (&timings, None));
        Ok(())
    }

    /// A step has failed: so has the whole, unless it may fail.
    fn failed(&mut self, at: usize, fault: &Fault, began: &Began) -> Result<()> {
        let total = self.now().saturating_duration_since(began.at);
        if let Some(known) = self.ended.get_mut(at) {
            known.total = total;
        }
        self.fittings.meter.step(at, StepOutcome::Failed, total);
        self.tell(at, began, total, (&StageTimings::default(), Some(fault)));
        let call = self.run.plan().outline.calls.get(at);
        // Past the deadline nothing else is in time either.
        let late = fault.class == FaultClass::DeadlineExceeded && self.job.deadline.is_past(self.now());
        if call.is_some_and(|call| call.soft) && !late {
            self.run.failed(at);
            return Ok(());
        }
        let name = call.map_or("", |call| &call.name);
        Err(Fault {
            message: format!("step '{name}': {}", fault.message).into(),
            ..fault.clone()
        })
    }
}
