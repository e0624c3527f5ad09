//! A request on a device, or on its way through an ensemble: what it holds, and how it ends.
//!
//! Invariants: dropping it gives back its permits and its place and cancels the job; it ends at its deadline even if the
//! device never answers.

use std::sync::Arc;

use mesh_actors::Permit;
use mesh_policies::limits::Admission;
use mesh_types::{Answers, Classes, Deadline, Fault, InferResponse, JobOutcome, StageTimings, Tensor};

use crate::{
    Account, Completed, WorkerReply,
    cache::recall::Told,
    graph::Manner,
    place::OnDevice,
    regions::{self, Landing},
};

/// A request on a device.
pub(crate) struct InFlight {
    pub(crate) reply: WorkerReply,
    pub(crate) deadline: Deadline,
    pub(crate) wanted: Vec<String>,
    pub(crate) response: InferResponse,
    pub(crate) arm: Option<Arc<str>>,
    pub(crate) permits: (Permit, Admission),
    /// Outputs of which classes are wanted; hardly any request has some.
    pub(crate) classes: Option<Box<Classes>>,
    /// Where outputs go that are in shared memory.
    pub(crate) landing: Option<Box<Landing>>,
    /// Where the answers of a decoupled model come out.
    pub(crate) answers: Option<Box<Answers>>,
    /// Where the answer comes from, where the endpoint has a cache.
    pub(crate) cached: Option<Told>,
    /// None for what the cache answers and for an ensemble, whose steps have places of their own: both end at the deadline by
    /// themselves.
    pub(crate) place: Option<OnDevice>,
}

/// What is kept of a call until it is answered.
pub(crate) struct Kept {
    pub(crate) deadline: Deadline,
    pub(crate) wanted: Vec<String>,
    pub(crate) response: InferResponse,
    pub(crate) arm: Option<Arc<str>>,
    pub(crate) permits: (Permit, Admission),
    pub(crate) classes: Option<Box<Classes>>,
    pub(crate) landing: Option<Box<Landing>>,
    pub(crate) manner: Manner,
}

impl Kept {
    pub(crate) fn in_flight(self, reply: WorkerReply, place: Option<OnDevice>) -> InFlight {
        InFlight {
            reply,
            deadline: self.deadline,
            wanted: self.wanted,
            response: self.response,
            arm: self.arm,
            permits: self.permits,
            classes: self.classes,
            landing: self.landing,
            answers: None,
            cached: None,
            place,
        }
    }
}

impl InFlight {
    /// Waits for the device, at most until the deadline.
    pub(crate) async fn complete(mut self: Box<Self>, account: &mut Account) -> Result<Box<Completed>, Fault> {
        if let Some(answers) = self.answers.take() {
            return self.begin_stream(answers, account).await;
        }
        let answered = if self.place.is_none() {
            // It ends at its deadline by itself.
            self.reply.await
        } else {
            let deadline = tokio::time::Instant::from_std(self.deadline.instant());
            let answered = tokio::time::timeout_at(deadline, self.reply).await;
            answered.unwrap_or_else(|_| Err(Fault::deadline("while the model was running or waiting to run")))
        };
        let deadline = self.deadline;
        let JobOutcome { outputs, timings } = answered?;
        note(account, &timings);
        drop((self.permits, self.place));
        let mut response = self.response;
        response.outputs = in_order(outputs, &self.wanted);
        if let Some(classes) = self.classes {
            classes.put_into(&mut response.outputs)?;
        }
        if let Some(landing) = self.landing {
            response = regions::in_time(deadline, landing.put_out_of(response)).await?;
        }
        Ok(Box::new(Completed {
            response,
            arm: self.arm,
            cached: self.cached.and_then(|told| told.get().copied()),
            timings: account.stages,
            more: None,
        }))
    }
}

/// Notes where the time went on the device.
pub(crate) fn note(account: &mut Account, timings: &StageTimings) {
    let stages = &mut account.stages;
    (stages.queue, stages.compute_input) = (timings.queue, timings.compute_input);
    (stages.compute_infer, stages.compute_output) = (timings.compute_infer, timings.compute_output);
    (stages.batch_rows, stages.batch_trace) = (timings.batch_rows, timings.batch_trace);
}

/// The outputs in the order asked for; the model's own where none was asked for.
pub(crate) fn in_order(mut outputs: Vec<Tensor>, wanted: &[String]) -> Vec<Tensor> {
    if wanted.len() > 1 {
        let place = |tensor: &Tensor| wanted.iter().position(|name| **name == *tensor.name);
        outputs.sort_by_key(place);
    }
    outputs
}
