//! Answers in the order in which requests went into batches, for models whose configuration has `preserve_ordering`.
//!
//! A line is one tenant's requests for one model on one device. Each takes a number when its batch is formed, in the batch's
//! order; its answer is held back until all before it have left. Another tenant's requests are another line, because nobody can
//! see the order of two tenants' answers, and a slow request of one must not hold back the other. As in Triton, who still waits
//! for a batch stands in no line: refusals and timeouts are answered at once, and a request that waits longer because others
//! are in a greater hurry holds up none of them. A reply that is dropped unanswered leaves the line as well, so that nobody
//! waits for ever.
//!
//! Bounded: the device takes no more requests of a tenant that has as many answers held back as may wait in its queue. So one
//! line holds at most these, as many again that waited by then, and what the threads had.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use mesh_types::{Fault, JobOutcome, ModelVersionKey, TenantId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

pub(crate) type Answer = Result<JobOutcome, Fault>;

#[derive(Debug)]
enum Held {
    Answer(Box<(oneshot::Sender<Answer>, Answer)>),
    /// Dropped unanswered.
    Gone,
}

#[derive(Debug, Default)]
struct Line {
    /// The number that the next request takes.
    next: u64,
    /// The number whose turn it is to leave.
    turn: u64,
    held: BTreeMap<u64, Held>,
}

impl Line {
    fn leave(&mut self, number: u64, held: Held) {
        self.held.insert(number, held);
        while let Some(held) = self.held.remove(&self.turn) {
            self.turn += 1;
            if let Held::Answer(held) = held {
                let (sender, answer) = *held;
                // Its caller may have gone.
                let _ = sender.send(answer);
            }
        }
    }
}

/// Where the answer to a job goes.
#[derive(Debug)]
pub(crate) struct Reply {
    sender: Option<oneshot::Sender<Answer>>,
    place: Option<(Arc<Mutex<Line>>, u64)>,
}

impl Reply {
    /// A reply, and where its answer comes out.
    pub(crate) fn channel() -> (Self, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        let reply = Self {
            sender: Some(sender),
            place: None,
        };
        (reply, receiver)
    }

    /// Whether whoever asked has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Answers, now or when it is its turn; false if nobody waits for it.
    pub(crate) fn send(mut self, answer: Answer) -> bool {
        let Some(sender) = self.sender.take() else { return false };
        let wanted = !sender.is_closed();
        match self.place.take() {
            None => sender.send(answer).is_ok(),
            Some((line, number)) => {
                line.lock().leave(number, Held::Answer(Box::new((sender, answer))));
                wanted
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some((line, number)) = self.place.take() {
            line.lock().leave(number, Held::Gone);
        }
    }
}

/// All lines of a device. A line that nobody stands in is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    lines: HashMap<(Arc<ModelVersionKey>, TenantId), Arc<Mutex<Line>>>,
    /// Lines after which to look for empty ones.
    tidy_at: usize,
}

/// Empty lines are looked for when there are so many more than after the last time.
const TIDY_STEP: usize = 64;

impl Lines {
    /// How many answers of a tenant's line are held back.
    pub(crate) fn held(&self, model: &Arc<ModelVersionKey>, tenant: &TenantId) -> usize {
        let line = self.lines.get(&(model.clone(), tenant.clone()));
        line.map_or(0, |line| line.lock().held.len())
    }

    /// The reply stands in its tenant's line from now on.
    pub(crate) fn enter(&mut self, model: &Arc<ModelVersionKey>, tenant: &TenantId, reply: &mut Reply) {
        if self.lines.len() >= self.tidy_at + TIDY_STEP {
            self.lines.retain(|_, line| {
                let line = line.lock();
                line.turn < line.next
            });
            self.tidy_at = self.lines.len();
        }
        let line = self.lines.entry((model.clone(), tenant.clone())).or_default().clone();
        let number = {
            let mut line = line.lock();
            line.next += 1;
            line.next - 1
        };
        reply.place = Some((line, number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &'static str) -> Answer {
        Err(Fault::internal(text))
    }

    fn standing(lines: &mut Lines, tenant: &str) -> (Reply, oneshot::Receiver<Answer>) {
        let model = Arc::new(crate::tests::key("identity"));
        let (mut reply, receiver) = Reply::channel();
        lines.enter(&model, &TenantId::parse(tenant).unwrap(), &mut reply);
        (reply, receiver)
    }

    #[test]
    fn an_answer_waits_for_those_before_it() {
        let mut lines = Lines::default();
        let (first, mut one) = standing(&mut lines, "a");
        let (second, mut two) = standing(&mut lines, "a");
        assert!(second.send(answer("second")));
        assert!(two.try_recv().is_err());
        let (model, tenant) = (Arc::new(crate::tests::key("identity")), TenantId::parse("a").unwrap());
        assert_eq!(lines.held(&model, &tenant), 1);
        assert!(first.send(answer("first")));
        assert_eq!(lines.held(&model, &tenant), 0);
        assert_eq!(one.try_recv().unwrap().unwrap_err().message, "first");
        assert_eq!(two.try_recv().unwrap().unwrap_err().message, "second");
    }

    #[test]
    fn who_is_dropped_unanswered_or_has_gone_holds_up_nobody() {
        let mut lines = Lines::default();
        let (dropped, _one) = standing(&mut lines, "a");
        let (left, two) = standing(&mut lines, "a");
        let (third, mut three) = standing(&mut lines, "a");
        assert!(third.send(answer("third")));
        drop(two);
        assert!(!left.send(answer("nobody")));
        assert!(three.try_recv().is_err());
        drop(dropped);
        assert_eq!(three.try_recv().unwrap().unwrap_err().message, "third");
    }

    #[test]
    fn another_tenants_line_is_another() {
        let mut lines = Lines::default();
        let (_first, _one) = standing(&mut lines, "a");
        let (second, mut two) = standing(&mut lines, "b");
        assert!(second.send(answer("second")));
        assert!(two.try_recv().is_ok());
    }

    #[test]
    fn empty_lines_are_forgotten() {
        let mut lines = Lines::default();
        for index in 0..TIDY_STEP * 10 {
            let (reply, _receiver) = standing(&mut lines, &format!("t{index}"));
            drop(reply);
            assert!(lines.lines.len() <= TIDY_STEP + 1);
        }
    }
}
