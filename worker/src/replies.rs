//! The answers that a batch owes, shared by the thread that runs it and the actor that watches the thread.
//!
//! Whoever comes first takes a request's reply and answers; the other finds it taken. So a hung execution's requests are
//! answered without waiting for it, what it says later is nobody's business, and no request is answered twice. What has become
//! of sequences' steps is noted here as well: where a part of a batch hangs, the other parts have run.

use mesh_scheduler::StepResult;
use mesh_types::{Fault, JobOutcome};
use parking_lot::Mutex;

use crate::ordering::Reply;

/// The replies of one batch, in the order of its members.
#[derive(Debug)]
pub(crate) struct Replies {
    open: Mutex<Vec<Option<Reply>>>,
    /// What has become of each member as a step of its sequence; empty where nothing has been said of any.
    steps: Mutex<Vec<Option<StepResult>>>,
}

impl Replies {
    pub(crate) fn new(replies: Vec<Reply>) -> Self {
        Self {
            open: Mutex::new(replies.into_iter().map(Some).collect()),
            steps: Mutex::default(),
        }
    }

    /// Notes what has become of a member's step; what was noted first stays.
    pub(crate) fn settle(&self, member: usize, step: StepResult) {
        let mut steps = self.steps.lock();
        if steps.len() <= member {
            steps.resize(member + 1, None);
        }
        if let Some(known) = steps.get_mut(member) {
            known.get_or_insert(step);
        }
    }

    /// What has become of the members' steps, as far as is known.
    pub(crate) fn steps(&self) -> Vec<Option<StepResult>> {
        self.steps.lock().clone()
    }

    /// Answers one member; false if that has been done, or nobody waits for it.
    pub(crate) fn answer(&self, member: usize, answer: Result<JobOutcome, Fault>) -> bool {
        let reply = self.open.lock().get_mut(member).and_then(Option::take);
        reply.is_some_and(|reply| reply.send(answer))
    }

    /// Whether somebody still waits for a member's answer.
    pub(crate) fn is_open(&self, member: usize) -> bool {
        let open = self.open.lock();
        open.get(member)
            .and_then(Option::as_ref)
            .is_some_and(|reply| !reply.is_closed())
    }

    /// Answers all that have none yet; how many these were.
    pub(crate) fn answer_rest(&self, fault: &Fault) -> usize {
        let rest: Vec<Reply> = self.open.lock().iter_mut().filter_map(Option::take).collect();
        let answered = rest.into_iter().map(|reply| reply.send(Err(fault.clone())));
        answered.filter(|answered| *answered).count()
    }
}

#[cfg(test)]
mod tests {
    use mesh_types::{FaultSource, StageTimings};

    use super::*;

    #[test]
    fn what_is_said_of_a_step_first_is_what_became_of_it() {
        let (first, _one) = Reply::channel();
        let (second, _two) = Reply::channel();
        let replies = Replies::new(vec![first, second]);
        assert_eq!(replies.steps(), []);
        replies.settle(1, StepResult::Lost);
        replies.settle(1, StepResult::NotRun);
        assert_eq!(replies.steps(), [None, Some(StepResult::Lost)]);
    }

    #[test]
    fn who_comes_first_answers_and_the_other_finds_it_taken() {
        let (first, mut one) = Reply::channel();
        let (second, mut two) = Reply::channel();
        let (third, three) = Reply::channel();
        let replies = Replies::new(vec![first, second, third]);
        let outcome = || JobOutcome {
            outputs: Vec::new(),
            timings: StageTimings::default(),
        };
        assert!(replies.answer(0, Ok(outcome())));
        assert!(!replies.is_open(0) && replies.is_open(1));
        drop(three);
        assert!(!replies.is_open(2), "its caller has gone");
        assert_eq!(replies.answer_rest(&Fault::unavailable(FaultSource::Device, "hung")), 1);
        assert!(!replies.answer(1, Ok(outcome())), "answered already");
        assert!(one.try_recv().unwrap().is_ok());
        assert_eq!(two.try_recv().unwrap().unwrap_err().message, "hung");
    }
}
