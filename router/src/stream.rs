//! A request with any number of answers, while they come: what it holds, and how it ends.
//!
//! A decoupled model's answers come out of the job's queue, and the reply to the job is their end. What was answered before the end
//! is handed on before it, a fault included.
//!
//! Invariants: the request is one request: it holds its permits, its place and its account until its end, and dropping it gives all of
//! them back and tells the device that nobody waits. It ends at its deadline even if the device never answers.

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use mesh_actors::Permit;
use mesh_policies::limits::Admission;
use mesh_types::{Answers, Classes, Fault, FaultClass, FaultSource, InferResponse, JobOutcome, Tensor, Version};
use tokio::time::{Sleep, sleep_until};

use crate::{
    Account, Answer, Completed, WorkerReply,
    flight::{InFlight, in_order, note},
    place::OnDevice,
    regions::Landing,
};

/// How many answers a caller has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Exactly one; what a caller of a decoupled model is told.
    One(&'static str),
    /// Any number.
    Many,
}

impl Room {
    /// Whether it is enough for a decoupled model.
    pub(crate) fn for_many(self, landing: Option<&Landing>) -> Result<(), Fault> {
        if let Self::One(told) = self {
            return Err(Fault::new(FaultClass::Unsupported, FaultSource::Client, told));
        }
        if landing.is_some_and(Landing::has_outputs) {
            let text = "the model gives any number of answers, and a region has room for one: leave the outputs' \
                        shared_memory_region out";
            return Err(Fault::invalid(text));
        }
        Ok(())
    }
}

/// The answers to one request.
pub(crate) struct Stream {
    reply: WorkerReply,
    answers: Answers,
    late: Pin<Box<Sleep>>,
    /// The first of them, taken out to learn whether there is one.
    first: Option<Vec<Tensor>>,
    /// How it has ended.
    end: Option<Result<JobOutcome, Fault>>,
    wanted: Vec<String>,
    classes: Option<Box<Classes>>,
    /// What every answer has beside its outputs.
    head: InferResponse,
    held: Option<(Permit, Admission, Option<OnDevice>)>,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("model", &self.head.model)
            .field("ended", &self.end.is_some())
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// The next answer; none once it has ended, and then `end` says how.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Vec<Tensor>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        if let Poll::Ready(outputs) = self.answers.poll_next(context) {
            return Poll::Ready(Some(outputs));
        }
        if self.end.is_none() {
            let end = match self.reply.as_mut().poll(context) {
                Poll::Ready(end) => end,
                Poll::Pending => {
                    ready!(self.late.as_mut().poll(context));
                    Err(Fault::deadline("while the model gave its answers"))
                }
            };
            self.end = Some(end);
            // The device says the end last: what it answered before is there by now.
            if let Poll::Ready(outputs) = self.answers.poll_next(context) {
                return Poll::Ready(Some(outputs));
            }
        }
        drop(self.held.take());
        Poll::Ready(None)
    }

    fn answer(&self, outputs: Vec<Tensor>) -> Result<InferResponse, Fault> {
        let mut response = self.head.clone();
        response.outputs = in_order(outputs, &self.wanted);
        if let Some(classes) = &self.classes {
            classes.put_into(&mut response.outputs)?;
        }
        Ok(response)
    }
}

impl InFlight {
    /// Waits until it is known whether there is an answer: from there on the answers come one by one. What ends without any, and not
    /// well, is a fault like that of any request.
    pub(crate) async fn begin_stream(
        self,
        answers: Box<Answers>,
        account: &mut Account,
    ) -> Result<Box<Completed>, Fault> {
        let (permit, admission) = self.permits;
        let mut stream = Box::new(Stream {
            reply: self.reply,
            answers: *answers,
            late: Box::pin(sleep_until(self.deadline.instant().into())),
            first: None,
            end: None,
            wanted: self.wanted,
            classes: self.classes,
            head: self.response.clone(),
            held: Some((permit, admission, self.place)),
        });
        stream.first = poll_fn(|context| stream.poll(context)).await;
        account.answers.get_or_insert_default();
        if let (None, Some(Err(fault))) = (&stream.first, &stream.end) {
            return Err(fault.clone());
        }
        if stream.first.is_some() {
            account.first_answer();
        }
        Ok(Box::new(Completed {
            response: self.response,
            arm: self.arm,
            cached: None,
            timings: account.stages,
            more: Some(stream),
        }))
    }
}

impl Answer {
    /// The answers to a request that may have any number of them; itself where it has exactly one, or failed before its first.
    pub fn into_many(mut self) -> Result<ManyAnswers, Self> {
        let more = match &mut self.result {
            Ok(completed) => completed.more.take(),
            Err(_) => None,
        };
        match (more, self.result) {
            (Some(stream), Ok(completed)) => Ok(ManyAnswers {
                arm: completed.arm,
                stream,
                account: Some(self.account),
            }),
            (_, result) => Err(Self {
                result,
                account: self.account,
            }),
        }
    }
}

/// The answers to one request, while they come. Dropping it before their end cancels the request.
#[derive(Debug)]
pub struct ManyAnswers {
    arm: Option<Arc<str>>,
    stream: Box<Stream>,
    /// None once it has ended and is told.
    account: Option<Box<Account>>,
}

impl ManyAnswers {
    /// The arm of the split; none where there was none.
    pub fn arm(&self) -> Option<&str> {
        self.arm.as_deref()
    }

    /// The version that answers.
    pub fn version(&self) -> Version {
        self.stream.head.version
    }

    /// An answer without outputs: what says that no other follows.
    pub fn empty(&self) -> InferResponse {
        self.stream.head.clone()
    }

    /// The account of the request, until it has ended.
    pub fn account(&self) -> Option<&Account> {
        self.account.as_deref()
    }

    /// The next answer; none after the last. A fault is the last.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<InferResponse, Fault>>> {
        let Some(account) = &mut self.account else {
            return Poll::Ready(None);
        };
        let fault = match ready!(self.stream.poll(context)) {
            Some(outputs) => match self.stream.answer(outputs) {
                Ok(response) => {
                    account.answered();
                    return Poll::Ready(Some(Ok(response)));
                }
                Err(fault) => Some(fault),
            },
            None => match self.stream.end.take() {
                Some(Ok(outcome)) => {
                    note(account, &outcome.timings);
                    None
                }
                Some(Err(fault)) => Some(fault),
                None => None,
            },
        };
        self.end(fault.as_ref());
        Poll::Ready(fault.map(Err))
    }

    /// The same, to be awaited.
    pub async fn next(&mut self) -> Option<Result<InferResponse, Fault>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The answer, where there is exactly one. None at all, or more than one, is the caller's fault in the words of `told`, and
    /// counts as one.
    pub async fn only(&mut self, told: &'static str) -> Result<InferResponse, Fault> {
        let first = poll_fn(|context| self.stream.poll(context)).await;
        // Seen before the account is told that it has ended well.
        let none = first.is_none() && matches!(self.stream.end, Some(Ok(_)));
        self.stream.first = first;
        if !none
            && let Some(answer) = self.next().await.transpose()?
            && self.next().await.transpose()?.is_none()
        {
            return Ok(answer);
        }
        let fault = Fault::new(FaultClass::InvalidArgument, FaultSource::Client, told);
        self.failed(&fault);
        Err(fault)
    }

    /// Ends it early: an answer cannot be handed on.
    pub fn failed(&mut self, fault: &Fault) {
        self.end(Some(fault));
        // Nobody waits for more.
        let (_, none) = mesh_types::answers();
        self.stream.answers = none;
        drop(self.stream.held.take());
        self.stream.reply = Box::pin(std::future::pending());
    }

    fn end(&mut self, fault: Option<&Fault>) {
        if let Some(mut account) = self.account.take() {
            if let Some(fault) = fault {
                account.failed(fault);
            }
            // Each answer was encoded when it came.
            account.finish(Duration::ZERO);
        }
    }
}
