//! Runs a batch of a decoupled model: each request has any number of answers, which leave while the model goes on.
//!
//! A request still ends exactly once, by its reply; its answers go before that into its own bounded queue. The instance is taken for
//! as long as the model runs, and each answer is a sign of life: the bound on an execution counts from one answer to the next. At an
//! answer the model learns whether it is still wanted: not where the caller has left, the deadline has passed, or a reader has let
//! [`SLOW_READER_PATIENCE`] pass without making room for it. While it waits for room nothing can hang, and the time is the
//! tenant's like all that its batch takes.
//!
//! An execution that fails ends the requests that have had answers, because these cannot be taken back; the others are run again
//! in halves, as those of any model.

use std::time::{Duration, Instant};

use mesh_backend::{AnswerSink, BackendError, Next, Requests};
use mesh_types::{
    AnswerSender, Fault, FaultClass, FaultSource, JobOutcome, MAX_WAITING_ANSWERS, ModelConfig, NonFinite, NotTaken,
    StageTimings, Tensor, TraceContext,
};

use super::{Batch, Bench, Failure, caught, meter};
use crate::{
    batch, finite,
    order::{Member, RunBatch},
    responses::ResponseSums,
    tally::{Run, Tally},
};

/// How long a device waits at an answer for which a slow reader has left no room; then the request fails.
pub const SLOW_READER_PATIENCE: Duration = Duration::from_secs(1);

/// How a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Ended,
}

/// One request's generation.
struct Progress<'a> {
    /// Its place in the batch.
    index: usize,
    member: &'a Member,
    sender: &'a AnswerSender,
    state: State,
    given: usize,
    /// When its last answer was handed on; the beginning before that.
    last: Instant,
}

struct Sink<'a, 'b> {
    bench: &'a Bench<'b>,
    run: &'a RunBatch,
    config: &'a ModelConfig,
    trace: Option<TraceContext>,
    tally: &'a mut Tally,
    requests: Vec<Progress<'a>>,
    began: Instant,
    gathered: Instant,
    /// Until when the device's time is paid for.
    paid: Instant,
    rows: u32,
}

impl Batch<'_> {
    /// Runs members; those to be run again are put back.
    pub(super) fn generate(&mut self, mut members: Vec<usize>, open: &mut Vec<Vec<usize>>) {
        members.retain(|member| self.has_a_stream(*member));
        let run = self.run;
        let config = self.instance.spec.config.clone();
        let Some(model) = self.instance.model.as_mut().filter(|_| !members.is_empty()) else {
            return;
        };
        let chosen: Vec<&Member> = members.iter().filter_map(|index| run.members.get(*index)).collect();
        let rows: Vec<u32> = chosen.iter().map(|member| member.job.rows).collect();
        let total = rows.iter().sum();
        self.tally.executions += 1;
        self.executed = total;
        let began = self.bench.clock.now();
        let inputs = batch::gather(&config, &chosen, total);
        let gathered = self.bench.clock.now();
        let progress = |index: &usize| {
            let member = run.members.get(*index)?;
            Some(Progress {
                index: *index,
                member,
                sender: member.job.answers.as_ref()?,
                state: State::Open,
                given: 0,
                last: gathered,
            })
        };
        let mut sink = Sink {
            bench: self.bench,
            run,
            config: &config,
            trace: self.trace,
            tally: &mut self.tally,
            requests: members.iter().filter_map(progress).collect(),
            began,
            gathered,
            paid: began,
            rows: total,
        };
        sink.alive();
        let requests = Requests {
            inputs: &inputs,
            rows: &rows,
        };
        let outcome = caught(|| model.generate(&requests, &mut sink));
        self.bench.pulse.end();
        sink.pay();
        // Whoever gave the thread up answers these.
        if (self.bench.abandoned)() {
            return;
        }
        let Err(failure) = outcome else {
            sink.all_end_well();
            return;
        };
        let left = sink.requests.iter().filter(|progress| progress.state == State::Open);
        let left: Vec<_> = left
            .map(|progress| (progress.index, progress.given, progress.last))
            .collect();
        self.broke(failure, &left, members.len() == 1, open);
    }

    /// An execution has failed: ends those that have had answers, or were alone, and puts back the others in halves. Of each the
    /// place, the number of answers and the time of the last are told.
    fn broke(&mut self, failure: Failure, left: &[(usize, usize, Instant)], alone: bool, open: &mut Vec<Vec<usize>>) {
        self.note(&failure);
        let fault: Fault = failure.into();
        let mut again = Vec::new();
        for (member, given, last) in left {
            if *given > 0 || alone {
                let since = self.bench.clock.now().saturating_duration_since(*last);
                self.tally.response(*given, |sums| sums.fail.add(since));
                self.fail(*member, fault.clone());
            } else {
                again.push(*member);
            }
        }
        let second = again.split_off(again.len().div_ceil(2));
        open.extend([second, again].into_iter().filter(|part| !part.is_empty()));
    }

    /// Whether a member can be answered; one that cannot is told so.
    fn has_a_stream(&mut self, member: usize) -> bool {
        let has = |member: &Member| member.job.answers.is_some();
        let has = self.run.members.get(member).is_some_and(has);
        if !has {
            self.fail(member, no_stream());
        }
        has
    }
}

fn no_stream() -> Fault {
    let text =
        "the model gives any number of answers (it is decoupled), and here is room for one: call it over a stream";
    Fault::new(FaultClass::Unsupported, FaultSource::Client, text)
}

fn too_slow() -> Fault {
    let text = format!(
        "the answers are read too slowly: {MAX_WAITING_ANSWERS} of them, or their bytes, waited for {} ms",
        SLOW_READER_PATIENCE.as_millis()
    );
    Fault::new(FaultClass::Cancelled, FaultSource::Client, text)
}

impl Sink<'_, '_> {
    fn now(&self) -> Instant {
        self.bench.clock.now()
    }

    /// A sign of life: what the model does now may take as long as an execution may.
    fn alive(&self) {
        self.bench
            .pulse
            .begin(self.now(), self.bench.limit, Some(self.run.number));
    }

    /// Those that are open share the time since this was last asked: who has ended pays nothing for who goes on.
    fn pay(&mut self) {
        let now = self.now();
        let took = now.saturating_duration_since(std::mem::replace(&mut self.paid, now));
        let open = self.requests.iter().filter(|progress| progress.state == State::Open);
        meter::share(open.map(|progress| progress.member), took);
    }

    fn is_open(&self, request: usize) -> bool {
        let known = self.requests.get(request);
        known.is_some_and(|progress| progress.state == State::Open)
    }

    /// What became of the answer that is next, since the one before.
    fn count(&mut self, request: usize, add: impl FnOnce(&mut ResponseSums, Duration)) {
        let now = self.now();
        if let Some(progress) = self.requests.get_mut(request) {
            let since = now.saturating_duration_since(progress.last);
            self.tally.response(progress.given, |sums| add(sums, since));
        }
    }

    /// Nobody waits for the request any more.
    fn left(&mut self, request: usize) -> Next {
        self.pay();
        self.count(request, |sums, since| sums.cancel.add(since));
        if let Some(progress) = self.requests.get_mut(request) {
            progress.state = State::Ended;
            self.tally.cancelled += 1;
        }
        Next::Stop
    }

    /// The request ends with a fault.
    fn end_with(&mut self, request: usize, fault: Fault) {
        self.pay();
        let now = self.now();
        let Some(progress) = self.requests.get_mut(request) else {
            return;
        };
        progress.state = State::Ended;
        let (index, arrived) = (progress.index, progress.member.arrived);
        if self.run.replies.answer(index, Err(fault)) {
            self.count(request, |sums, since| sums.fail.add(since));
            self.tally.fail.add(now.saturating_duration_since(arrived));
        } else {
            self.count(request, |sums, since| sums.cancel.add(since));
            self.tally.cancelled += 1;
        }
    }

    fn end_well(&mut self, request: usize) {
        self.pay();
        let now = self.now();
        let Some(progress) = self.requests.get_mut(request) else {
            return;
        };
        progress.state = State::Ended;
        let (index, member) = (progress.index, progress.member);
        let queue = self.began.saturating_duration_since(member.arrived);
        let (input, infer) = (
            self.gathered.saturating_duration_since(self.began),
            now.saturating_duration_since(self.gathered),
        );
        let timings = StageTimings {
            queue,
            compute_input: input,
            compute_infer: infer,
            batch_rows: self.rows,
            batch_trace: self.trace,
            ..StageTimings::default()
        };
        let outcome = JobOutcome {
            outputs: Vec::new(),
            timings,
        };
        if !self.run.replies.answer(index, Ok(outcome)) {
            self.count(request, |sums, since| sums.cancel.add(since));
            self.tally.cancelled += 1;
            return;
        }
        self.count(request, |sums, since| sums.empty_response.add(since));
        self.tally.rows_answered += member.job.rows;
        self.tally.success.add(now.saturating_duration_since(member.arrived));
        self.tally.queue.add(queue);
        self.tally.compute_input.add(input);
        self.tally.compute_infer.add(infer);
        self.tally.compute_output.add(Duration::ZERO);
        self.tally.longest_wait = self.tally.longest_wait.max(queue);
    }

    fn all_end_well(&mut self) {
        for request in 0..self.requests.len() {
            if self.is_open(request) {
                self.end_well(request);
            }
        }
        let inferred = self.now();
        self.tally.runs.push(Run {
            rows: self.rows,
            input: self.gathered.saturating_duration_since(self.began),
            infer: inferred.saturating_duration_since(self.gathered),
            output: Duration::ZERO,
        });
    }

    /// Why no answer goes to the request now, if none does.
    fn refused(&self, request: usize) -> Option<Refusal> {
        let Some(progress) = self
            .requests
            .get(request)
            .filter(|progress| progress.state == State::Open)
        else {
            return Some(Refusal::Over);
        };
        if (self.bench.abandoned)() || !progress.sender.is_wanted() || !self.run.replies.is_open(progress.index) {
            return Some(Refusal::Left);
        }
        progress
            .member
            .job
            .deadline
            .is_past(self.now())
            .then_some(Refusal::Late)
    }

    /// Hands an answer on, waiting for room for a bounded time; or why it is not.
    fn hand_on(&self, request: usize, outputs: Vec<Tensor>) -> Result<(), Refusal> {
        let progress = self.requests.get(request).ok_or(Refusal::Over)?;
        let back = match progress.sender.give(outputs) {
            Ok(()) => return Ok(()),
            Err(NotTaken::Left) => return Err(Refusal::Left),
            Err(NotTaken::Full(back)) => back,
        };
        let left = progress.member.job.deadline.remaining(self.now());
        // What waits for a reader does not hang.
        self.bench.pulse.end();
        progress.sender.wait_for_room(&back, SLOW_READER_PATIENCE.min(left));
        self.alive();
        match progress.sender.give(back) {
            Ok(()) => Ok(()),
            Err(NotTaken::Left) => Err(Refusal::Left),
            Err(NotTaken::Full(_)) if left <= SLOW_READER_PATIENCE => Err(Refusal::Late),
            Err(NotTaken::Full(_)) => Err(Refusal::Slow),
        }
    }

    fn stop(&mut self, request: usize, refusal: &Refusal) -> Next {
        match refusal {
            Refusal::Over => {}
            Refusal::Left => return self.left(request),
            Refusal::Late => self.end_with(request, Fault::deadline("while the model gave its answers")),
            Refusal::Slow => self.end_with(request, too_slow()),
        }
        Next::Stop
    }
}

/// Why a request gets no more answers.
enum Refusal {
    /// It has ended.
    Over,
    /// Nobody waits for them.
    Left,
    /// Its deadline has passed.
    Late,
    /// They are not read.
    Slow,
}

impl AnswerSink for Sink<'_, '_> {
    fn answer(&mut self, request: usize, mut outputs: Vec<Tensor>) -> Next {
        self.alive();
        if let Some(refusal) = self.refused(request) {
            return self.stop(request, &refusal);
        }
        if self.config.execution.unwrap_or_default().non_finite_outputs != NonFinite::Pass
            && !outputs.iter().all(finite::is_finite)
        {
            self.tally.non_finite += 1;
            if self.config.execution.unwrap_or_default().non_finite_outputs == NonFinite::Fail {
                self.end_with(request, super::not_finite());
                return Next::Stop;
            }
        }
        if let Some(progress) = self.requests.get(request) {
            let wanted = &progress.member.job.outputs;
            outputs.retain(|output| wanted.is_empty() || wanted.iter().any(|name| **name == *output.name));
        }
        let made = self.now();
        if let Err(refusal) = self.hand_on(request, outputs) {
            return self.stop(request, &refusal);
        }
        let now = self.now();
        let Some(progress) = self.requests.get_mut(request) else {
            return Next::Stop;
        };
        let infer = made.saturating_duration_since(progress.last);
        let output = now.saturating_duration_since(made);
        self.tally.response(progress.given, |sums| {
            sums.compute_infer.add(infer);
            sums.compute_output.add(output);
            sums.success.add(infer + output);
        });
        progress.given += 1;
        progress.last = now;
        Next::More
    }

    fn is_wanted(&self, request: usize) -> bool {
        self.refused(request).is_none()
    }

    fn end(&mut self, request: usize) {
        if let Some(refusal) = self.refused(request) {
            let _ = self.stop(request, &refusal);
        } else {
            self.end_well(request);
        }
        self.alive();
    }

    fn fail(&mut self, request: usize, error: BackendError) {
        if let Some(refusal) = self.refused(request) {
            let _ = self.stop(request, &refusal);
        } else {
            self.end_with(request, error.into());
        }
        self.alive();
    }
}

#[cfg(test)]
#[path = "../tests/generate.rs"]
mod tests;
