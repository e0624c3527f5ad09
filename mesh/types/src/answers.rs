//! The answers of a decoupled model to one request, on their way from the device to whoever asked.
//!
//! Owns the bounded queue between the two. A request still ends exactly once, by the reply to its job; this queue only holds what
//! comes before that end, and says nothing of it. Runs on no runtime: whoever takes is woken by a `Waker`, and a device thread
//! that finds no room waits on a condition.
//!
//! Invariants: at most [`MAX_WAITING_ANSWERS`] wait, and at most [`MAX_WAITING_ANSWER_BYTES`] of them unless it is a single one;
//! they come out in the order in which they went in; once the taker is dropped nothing is kept, and the giver is told.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::Tensor;

/// The most answers of one request that wait for whoever asked.
pub const MAX_WAITING_ANSWERS: usize = 64;
/// The most bytes of tensors in them; an answer that is larger waits alone.
pub const MAX_WAITING_ANSWER_BYTES: usize = 16 * 1024 * 1024;

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Vec<Tensor>>,
    bytes: usize,
    taker: Option<Waker>,
    /// Whoever asked has gone.
    left: bool,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// There may be room, or nobody who takes any more.
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        let few = self.waiting.len() < MAX_WAITING_ANSWERS;
        few && (self.waiting.is_empty() || self.bytes.saturating_add(bytes) <= MAX_WAITING_ANSWER_BYTES)
    }
}

fn bytes_of(outputs: &[Tensor]) -> usize {
    outputs.iter().map(|output| output.data.len()).sum()
}

/// Where a device puts a request's answers. Clones are the same place.
#[derive(Clone)]
pub struct AnswerSender(Arc<Queue>);

impl fmt::Debug for AnswerSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AnswerSender(..)")
    }
}

/// Why an answer was not taken.
#[derive(Debug)]
pub enum NotTaken {
    /// Nobody waits for it.
    Left,
    /// There is no room; the answer, for another try.
    Full(Vec<Tensor>),
}

/// A queue for the answers to one request.
pub fn answers() -> (AnswerSender, Answers) {
    let queue = Arc::<Queue>::default();
    (AnswerSender(queue.clone()), Answers(queue))
}

impl AnswerSender {
    /// Whether somebody still waits for answers.
    pub fn is_wanted(&self) -> bool {
        !self.0.lock().left
    }

    /// Puts an answer in, if there is room.
    pub fn give(&self, outputs: Vec<Tensor>) -> Result<(), NotTaken> {
        let bytes = bytes_of(&outputs);
        let mut state = self.0.lock();
        if state.left {
            return Err(NotTaken::Left);
        }
        if !state.has_room(bytes) {
            return Err(NotTaken::Full(outputs));
        }
        state.bytes += bytes;
        state.waiting.push_back(outputs);
        let taker = state.taker.take();
        drop(state);
        if let Some(taker) = taker {
            taker.wake();
        }
        Ok(())
    }

    /// Waits until there is room for such an answer or nobody wants it, but no longer than `patience`; false if it was in vain.
    pub fn wait_for_room(&self, outputs: &[Tensor], patience: Duration) -> bool {
        let bytes = bytes_of(outputs);
        let state = self.0.lock();
        let full = |state: &mut State| !state.left && !state.has_room(bytes);
        let waited = self.0.changed.wait_timeout_while(state, patience, full);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !full(&mut state)
    }
}

/// The answers to one request, for whoever asked. Dropping it says that nobody wants more.
#[derive(Debug)]
pub struct Answers(Arc<Queue>);

impl Answers {
    /// The next answer, once there is one. It never says that there will be none: the reply to the job does.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Vec<Tensor>> {
        let mut state = self.0.lock();
        if let Some(outputs) = state.waiting.pop_front() {
            state.bytes = state.bytes.saturating_sub(bytes_of(&outputs));
            drop(state);
            self.0.changed.notify_all();
            return Poll::Ready(outputs);
        }
        match &mut state.taker {
            Some(known) => known.clone_from(context.waker()),
            taker @ None => *taker = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.left = true;
        state.taker = None;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.0.changed.notify_all();
        drop(waiting);
    }
}

#[cfg(test)]
#[path = "answers_tests.rs"]
mod tests;
