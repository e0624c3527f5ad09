//! Runs one batch on a model, and splits it where it fails, until what fails is alone.
//!
//! An execution that fails, panics or finds no memory is tried again in halves, and these again: requests that do not fail
//! on their own are answered with outputs, whatever their batch mates hold. Splitting n requests down to single ones takes
//! at most 2n - 1 executions, and one more where steps were packed first, so a batch costs at most twice its requests. Before
//! each execution those leave whose deadline has passed or whose caller has gone. After a panic the model is loaded anew before
//! it runs again; if that fails, nobody of the batch can be served any more.
//!
//! Requests of a decoupled model have any number of answers: `generate` runs them.
//!
//! What is run again and how is `again`'s, also for models with sequences. A thread that was given up meanwhile says nothing more.

mod again;
mod generate;
mod meter;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_backend::{BackendError, LoadSpec, LoadedModel};
use mesh_scheduler::StepResult;
use mesh_types::{
    Clock, Fault, FaultClass, FaultSource, JobOutcome, NonFinite, Retry, StageTimings, Tensor, TraceContext,
};

use crate::{
    batch, finite,
    order::{Member, RunBatch},
    pulse::Pulse,
    sequences::{Plan, Prepared, Reserved, StateTensor, next_epoch, partition, scatter, state_lost},
    tally::{Run, Tally},
};

pub use generate::SLOW_READER_PATIENCE;

/// What callers are told of a panic; its text stays in the log.
const PANICKED: &str = "the model panicked";

/// A model on a device thread.
pub(crate) struct Instance {
    pub(crate) spec: LoadSpec,
    /// None after a panic, until it is loaded again.
    pub(crate) model: Option<Box<dyn LoadedModel>>,
    /// What a stateful model needs beyond its callers' tensors.
    pub(crate) sequence: Option<Arc<Plan>>,
    /// Which load of the model this is.
    pub(crate) epoch: u64,
}

/// Why a call into a backend did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It said so; the model is usable.
    Error(BackendError),
    /// It panicked: the value must not be used again.
    Panicked,
}

impl From<Failure> for Fault {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Error(error) => error.into(),
            Failure::Panicked => BackendError::Execution(PANICKED.to_owned()).into(),
        }
    }
}

/// Runs a backend's code; a panic is a failure.
pub(crate) fn caught<T>(run: impl FnOnce() -> Result<T, BackendError>) -> Result<T, Failure> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(Failure::Error),
        Err(_) => Err(Failure::Panicked),
    }
}

/// What a load comes to.
pub(crate) type LoadResult = Result<Box<dyn LoadedModel>, BackendError>;

/// What a batch runs with.
pub(crate) struct Bench<'a> {
    pub(crate) clock: &'a dyn Clock,
    pub(crate) pulse: &'a Pulse,
    /// How long one execution may take.
    pub(crate) limit: Duration,
    /// Loads the model anew.
    pub(crate) reload: &'a dyn Fn(&LoadSpec) -> LoadResult,
    /// Whether the thread has been given up meanwhile: then nothing more needs to be done.
    pub(crate) abandoned: &'a dyn Fn() -> bool,
}

/// Runs and answers a batch.
pub(crate) fn run(bench: &Bench<'_>, instance: &mut Instance, run: &RunBatch, trace: Option<TraceContext>) -> Tally {
    let open_ended = instance.spec.config.is_decoupled();
    let mut batch = Batch {
        bench,
        instance,
        run,
        trace,
        tally: Tally {
            formed: run.rows,
            open_ended,
            ..Tally::default()
        },
        executed: 0,
        packed: false,
    };
    batch.split_until_answered();
    batch.tally
}

struct Batch<'a> {
    bench: &'a Bench<'a>,
    instance: &'a mut Instance,
    run: &'a RunBatch,
    trace: Option<TraceContext>,
    tally: Tally,
    /// Rows of the last execution, those without a request included.
    executed: u32,
    /// Whether steps of sequences take the first rows, and not their own: see [`again`].
    packed: bool,
}

/// An execution that ended well: each member's outputs, and where the time went.
struct Executed {
    outputs: Vec<Vec<Tensor>>,
    /// Each member's next state; empty where the model has no sequences.
    states: Vec<Vec<StateTensor>>,
    run: Run,
}

impl Batch<'_> {
    fn split_until_answered(&mut self) {
        let all = (0..self.run.members.len()).collect();
        let mut open: Vec<Vec<usize>> = match &self.instance.sequence {
            None => vec![all],
            Some(plan) => partition(plan, &self.run.members, all),
        };
        while let Some(mut members) = open.pop() {
            if (self.bench.abandoned)() {
                return;
            }
            let now = self.bench.clock.now();
            members.retain(|member| self.is_worth_running(*member, now));
            if members.is_empty() {
                continue;
            }
            let loaded = self.ensure_loaded();
            if (self.bench.abandoned)() {
                return;
            }
            if let Err(fault) = loaded {
                let lost = members.into_iter().chain(open.drain(..).flatten());
                lost.for_each(|member| self.fail(member, fault.clone()));
                return;
            }
            members.retain(|member| self.has_its_state(*member));
            if members.is_empty() {
                continue;
            }
            meter::wait_no_longer(self.run, &members);
            if self.tally.open_ended {
                self.generate(members, &mut open);
                continue;
            }
            let began = self.bench.clock.now();
            let executed = self.execute(&members);
            meter::charge(
                self.run,
                &members,
                self.bench.clock.now().saturating_duration_since(began),
            );
            if let Err(failure) = &executed {
                self.note(failure);
            }
            // Whoever gave the thread up answers these.
            if (self.bench.abandoned)() {
                return;
            }
            match executed {
                Ok(executed) => self.answer(&members, executed, began),
                Err(failure) if self.may_have_moved(&failure, &members) => self.lose_all(&members, failure),
                Err(failure) => self.try_again(members, failure, &mut open),
            }
        }
    }

    fn keeps_states_itself(&self) -> bool {
        self.instance.sequence.as_ref().is_some_and(|plan| plan.keeps_itself())
    }

    fn is_worth_running(&mut self, member: usize, now: Instant) -> bool {
        if !self.run.replies.is_open(member) {
            self.settle(member, StepResult::NotRun);
            self.tally.cancelled += 1;
            return false;
        }
        let deadline = self.run.members.get(member).map(|member| member.job.deadline.instant());
        if deadline.is_some_and(|deadline| now >= deadline) {
            self.tally.expired += 1;
            self.settle(member, StepResult::NotRun);
            self.refuse(member, Fault::deadline("before the batch ran"));
            return false;
        }
        true
    }

    fn ensure_loaded(&mut self) -> Result<(), Fault> {
        if self.instance.model.is_some() {
            return Ok(());
        }
        match caught(|| (self.bench.reload)(&self.instance.spec)) {
            Ok(model) => {
                self.instance.model = Some(model);
                self.instance.epoch = next_epoch();
                Ok(())
            }
            Err(failure) => {
                tracing::error!(model = %self.run.model, ?failure, "a model did not load again after a panic");
                self.tally.crashed = true;
                let text = "the model did not load again after a panic";
                Err(Fault::unavailable(FaultSource::Model, text))
            }
        }
    }

    fn execute(&mut self, members: &[usize]) -> Result<Executed, Failure> {
        let config = &self.instance.spec.config;
        let gone = || Failure::Error(BackendError::Load("the model is not there".to_owned()));
        let model = self.instance.model.as_mut().ok_or_else(gone)?;
        let members: Vec<&Member> = members
            .iter()
            .filter_map(|index| self.run.members.get(*index))
            .collect();
        let rows = members.iter().map(|member| member.job.rows).sum();
        self.tally.executions += 1;
        let began = self.bench.clock.now();
        let plan = self.instance.sequence.as_deref();
        let prepared = plan.map(|plan| (plan, Prepared::of(plan, &members, self.packed)));
        let inputs = match &prepared {
            None => batch::gather(config, &members, rows),
            Some((plan, prepared)) => prepared.inputs(config, plan, &members),
        };
        self.executed = inputs.rows;
        let gathered = self.bench.clock.now();
        let number = Some(self.run.number);
        self.bench.pulse.begin(gathered, self.bench.limit, number);
        let outputs = caught(|| model.execute(&inputs));
        self.bench.pulse.end();
        let inferred = self.bench.clock.now();
        let (outputs, states) = match &prepared {
            None => (batch::scatter(config, &members, &outputs?), Vec::new()),
            Some((plan, prepared)) => {
                let moved = scatter(config, plan, prepared, &members, &outputs?).map_err(Failure::Error)?;
                let (outputs, states) = moved.into_iter().unzip();
                (Ok(outputs), states)
            }
        };
        let outputs = outputs.map_err(Failure::Error)?;
        let run = Run {
            rows,
            input: gathered.saturating_duration_since(began),
            infer: inferred.saturating_duration_since(gathered),
            output: self.bench.clock.now().saturating_duration_since(inferred),
        };
        Ok(Executed { outputs, states, run })
    }

    fn answer(&mut self, members: &[usize], executed: Executed, began: Instant) {
        let Executed { outputs, states, run } = executed;
        let mut states = states.into_iter();
        self.tally.runs.push(run);
        self.tally.fitted = self.tally.fitted.max(self.executed);
        let now = self.bench.clock.now();
        for (index, outputs) in members.iter().zip(outputs) {
            let state = states.next();
            if self.is_unfit(*index, &outputs) {
                continue;
            }
            let Some(member) = self.run.members.get(*index) else {
                continue;
            };
            let queue = began.saturating_duration_since(member.arrived);
            let timings = StageTimings {
                queue,
                compute_input: run.input,
                compute_infer: run.infer,
                compute_output: run.output,
                batch_rows: run.rows,
                batch_trace: self.trace,
                ..StageTimings::default()
            };
            let reserved = match self.reserve(*index, state) {
                Ok(reserved) => reserved,
                Err(fault) => {
                    self.fail(*index, fault);
                    continue;
                }
            };
            let answered = self.run.replies.answer(*index, Ok(JobOutcome { outputs, timings }));
            self.moved(*index, reserved, answered);
            if !answered {
                self.tally.cancelled += 1;
                continue;
            }
            let whole = now.saturating_duration_since(member.arrived);
            self.tally.rows_answered += member.job.rows;
            self.tally.success.add(whole);
            self.tally.queue.add(queue);
            self.tally.compute_input.add(run.input);
            self.tally.compute_infer.add(run.infer);
            self.tally.compute_output.add(run.output);
            self.tally.longest_wait = self.tally.longest_wait.max(queue);
        }
    }

    /// Whether the outputs are not finite, and are refused for it; the member is then answered.
    fn is_unfit(&mut self, member: usize, outputs: &[Tensor]) -> bool {
        let policy = self.instance.spec.config.execution.unwrap_or_default();
        let policy = policy.non_finite_outputs;
        let odd = policy != NonFinite::Pass && !outputs.iter().all(finite::is_finite);
        self.tally.non_finite += u32::from(odd);
        let unfit = odd && policy == NonFinite::Fail;
        if unfit {
            let fault = not_finite();
            if self.keeps_states_itself() {
                // The step has run, and its caller does not know what it came to.
                self.lose(&[member], &fault);
            } else {
                self.fail(member, fault);
            }
        }
        unfit
    }

    /// Whether what the member's step begins from is there.
    fn has_its_state(&mut self, member: usize) -> bool {
        let Some(plan) = &self.instance.sequence else {
            return true;
        };
        let step = self.run.members.get(member).and_then(|member| member.step.as_deref());
        let knows = step.is_none_or(|step| step.can_run(plan, self.instance.epoch));
        if !knows {
            self.settle(member, StepResult::Lost);
            self.fail(member, state_lost());
        }
        knows
    }

    /// Makes room for a member's next state.
    fn reserve(&mut self, member: usize, state: Option<Vec<StateTensor>>) -> Result<Option<Reserved>, Fault> {
        let step = self.run.members.get(member).and_then(|member| member.step.as_deref());
        let (Some(step), Some(state)) = (step, state) else {
            return Ok(None);
        };
        // After its last step nothing is kept.
        let state = if step.end { Vec::new() } else { state };
        step.state.reserve(state).map(Some)
    }

    /// A member has run: a declared state moves with its answer, and a model's own has moved already.
    fn moved(&mut self, member: usize, reserved: Option<Reserved>, answered: bool) {
        let Some(plan) = self.instance.sequence.clone() else {
            return;
        };
        if !answered && !plan.keeps_itself() {
            self.settle(member, StepResult::NotRun);
            return;
        }
        let step = self.run.members.get(member).and_then(|member| member.step.as_deref());
        if let Some(step) = step.filter(|step| step.start) {
            step.state.began(self.instance.epoch);
        }
        reserved.into_iter().for_each(Reserved::keep);
        self.settle(member, StepResult::Ran);
    }

    /// Notes what has become of a member's step, if it is one.
    fn settle(&self, member: usize, result: StepResult) {
        if self.instance.sequence.is_some() {
            self.run.replies.settle(member, result);
        }
    }

    fn note(&mut self, failure: &Failure) {
        match failure {
            Failure::Panicked => {
                self.tally.crashed = true;
                self.drop_model();
            }
            Failure::Error(error) if error.is_out_of_memory() => {
                let rows = self.executed;
                self.tally.out_of_memory += 1;
                self.tally.oom_rows = Some(self.tally.oom_rows.map_or(rows, |fewest| fewest.min(rows)));
            }
            Failure::Error(_) => {}
        }
    }

    /// What panicked once may do so again while it is dropped.
    fn drop_model(&mut self) {
        let model = self.instance.model.take();
        if catch_unwind(AssertUnwindSafe(|| drop(model))).is_err() {
            tracing::error!(model = %self.run.model, "a model that panicked did so again while it was dropped");
        }
    }

    fn fail(&mut self, member: usize, fault: Fault) {
        self.settle(member, StepResult::NotRun);
        let arrived = self.run.members.get(member).map(|member| member.arrived);
        if self.refuse(member, fault)
            && let Some(arrived) = arrived
        {
            let whole = self.bench.clock.now().saturating_duration_since(arrived);
            self.tally.fail.add(whole);
        }
    }

    /// Answers with a fault; false if nobody waits for it. Where it is a step, once the actor has been told: whoever reads
    /// that a step has not run may send the next one at once, which must not count as one that waited behind it.
    fn refuse(&mut self, member: usize, fault: Fault) -> bool {
        if self.instance.sequence.is_none() {
            return self.run.replies.answer(member, Err(fault));
        }
        let open = self.run.replies.is_open(member);
        self.tally.refused.push((member, fault));
        open
    }
}

fn not_finite() -> Fault {
    Fault::new(
        FaultClass::Internal,
        FaultSource::Model,
        "the model's output holds NaN or infinity",
    )
}

/// What the requests are told whose execution hangs, or waited behind one that does.
pub(crate) fn hung() -> Fault {
    let text = "the execution took too long and was given up";
    Fault::unavailable(FaultSource::Device, text).with_retry(Retry::Now)
}

#[cfg(test)]
#[path = "tests/execute.rs"]
mod tests;
