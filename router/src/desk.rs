//! The desk between a door and the router's actor of its arbiter: calls that wait to be looked at, and where their answers
//! appear.
//!
//! One message tells the actor of however many calls have come, and a caller is woken once, when its answer is there: waking
//! it makes its connection look for bytes, which costs as much as the pipeline. So the actor, having brought a call to a
//! device, waits for the answer in the caller's name, with the caller's waker.
//!
//! Invariants: bounded by the permits that calls hold; a ticket whose caller has left is dropped with all it holds, which tells
//! its account; an actor that dies answers what lies on the desk.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use mesh_actors::Permit;
use mesh_policies::MeshSnapshot;
use mesh_types::Fault;

use crate::{Account, Call, Completed};

/// An answer, and the account of its call.
pub(crate) type Done = (Box<Account>, Result<Box<Completed>, Fault>);

/// A call on its way.
enum State {
    /// Nobody has looked at it.
    Waiting(Waiting),
    /// It is on a device.
    Running(Pin<Box<dyn Future<Output = Done>>>),
    /// It has been answered.
    Done(Done),
    /// Its answer has been taken, or somebody is about to change it.
    Taken,
}

/// A call that nobody has looked at.
pub(crate) struct Waiting {
    pub(crate) call: Box<Call>,
    /// What it is to be answered by; none for what holds when it is looked at.
    pub(crate) seen: Option<Arc<MeshSnapshot>>,
    pub(crate) permit: Permit,
    pub(crate) account: Box<Account>,
    /// Of the caller, as of its last poll.
    pub(crate) waker: Waker,
}

/// A call's place on the desk.
pub(crate) struct Ticket(RefCell<State>);

/// The calls that wait to be looked at.
#[derive(Default)]
pub(crate) struct Desk {
    waiting: RefCell<VecDeque<Rc<Ticket>>>,
    /// Whether the actor has been told and has not looked since.
    told: Cell<bool>,
}

impl Desk {
    /// Puts a call on the desk; what is returned becomes its answer.
    pub(crate) fn put(
        &self,
        (call, seen): (Box<Call>, Option<Arc<MeshSnapshot>>),
        permit: Permit,
        account: Box<Account>,
    ) -> Awaited {
        let waiting = Waiting {
            call,
            seen,
            permit,
            account,
            waker: Waker::noop().clone(),
        };
        let ticket = Rc::new(Ticket(RefCell::new(State::Waiting(waiting))));
        self.waiting.borrow_mut().push_back(ticket.clone());
        Awaited(ticket)
    }

    /// Whether the actor must be told; it counts as told from now on.
    pub(crate) fn must_tell(&self) -> bool {
        !self.told.replace(true)
    }

    /// The actor looks: whatever comes from now on must be told again.
    pub(crate) fn looks(&self) {
        self.told.set(false);
    }

    /// The next call whose caller is still there.
    pub(crate) fn next(&self) -> Option<(Rc<Ticket>, Waiting)> {
        loop {
            let ticket = self.waiting.borrow_mut().pop_front()?;
            // The caller holds the other one. Without it the ticket ends here, and tells that it was cancelled.
            if Rc::strong_count(&ticket) > 1
                && let Some(waiting) = ticket.take_waiting()
            {
                return Some((ticket, waiting));
            }
        }
    }
}

impl Ticket {
    fn take_waiting(&self) -> Option<Waiting> {
        let mut state = self.0.borrow_mut();
        match std::mem::replace(&mut *state, State::Taken) {
            State::Waiting(waiting) => Some(waiting),
            other => {
                *state = other;
                None
            }
        }
    }

    /// Answers a call that has been looked at.
    pub(crate) fn answer(&self, done: Done, waker: Waker) {
        *self.0.borrow_mut() = State::Done(done);
        waker.wake();
    }

    /// The call is on a device: its answer is waited for in the caller's name. A panic costs this call only: its caller is woken
    /// and finds no answer.
    pub(crate) fn run(&self, answer: impl Future<Output = Done> + 'static, waker: Waker) {
        let mut answer: Pin<Box<dyn Future<Output = Done>>> = Box::pin(answer);
        let polled = catch_unwind(AssertUnwindSafe(|| {
            answer.as_mut().poll(&mut Context::from_waker(&waker))
        }));
        match polled {
            Ok(Poll::Ready(done)) => self.answer(done, waker),
            Ok(Poll::Pending) => *self.0.borrow_mut() = State::Running(answer),
            Err(_) => waker.wake(),
        }
    }
}

/// The answer to a call on the desk. Dropping it cancels the call. None if there will be none: what waited for it panicked.
pub(crate) struct Awaited(Rc<Ticket>);

impl Future for Awaited {
    type Output = Option<Done>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.0.0.borrow_mut();
        match &mut *state {
            State::Waiting(waiting) => {
                waiting.waker.clone_from(context.waker());
                Poll::Pending
            }
            State::Running(answer) => {
                let done = std::task::ready!(answer.as_mut().poll(context));
                *state = State::Taken;
                Poll::Ready(Some(done))
            }
            State::Done(_) | State::Taken => match std::mem::replace(&mut *state, State::Taken) {
                State::Done(done) => Poll::Ready(Some(done)),
                _ => Poll::Ready(None),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A ticket that has been looked at, and its caller's end.
    fn looked_at() -> (Rc<Ticket>, Awaited) {
        let ticket = Rc::new(Ticket(RefCell::new(State::Taken)));
        (ticket.clone(), Awaited(ticket))
    }

    #[test]
    fn a_caller_is_not_woken_before_its_answer_can_come() {
        let (ticket, mut awaited) = looked_at();
        let woken = Arc::new(Woken::default());
        ticket.run(std::future::pending(), woken.clone().into());
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        let waker = Waker::from(woken);
        let polled = Pin::new(&mut awaited).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }

    #[test]
    fn a_panic_while_waiting_wakes_the_caller_which_finds_no_answer() {
        let (ticket, mut awaited) = looked_at();
        let woken = Arc::new(Woken::default());
        ticket.run(async { panic!("told to") }, woken.clone().into());
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        let waker = Waker::from(woken);
        let polled = Pin::new(&mut awaited).poll(&mut Context::from_waker(&waker));
        assert!(matches!(polled, Poll::Ready(None)));
    }
}
