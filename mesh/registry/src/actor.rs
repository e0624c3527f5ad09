//! The single writer as an actor: one mailbox, one thread of its own, and as many writes per fsync as wait.

use std::sync::Arc;

use actix::{Actor, AsyncContext as _, Context, Handler, Message};
use mesh_actors::{Lifeline, Permit};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use crate::{
    RegistryError, State,
    handle::MAX_PENDING_WRITES,
    journal::Extent,
    ledger::{Answer, Ledger, Request},
};

/// Opens the ledger from what is on disk.
pub(crate) type OpenLedger = Arc<dyn Fn() -> Result<Ledger, RegistryError> + Send + Sync>;

/// Owns the ledger.
pub(crate) struct RegistryActor {
    ledger: Option<Ledger>,
    open: OpenLedger,
    waiting: Vec<Parcel>,
    /// Counts the starts, for those who wait for one.
    up: watch::Sender<u64>,
    _lifeline: Lifeline,
}

/// Asks for a write. As long as the parcel is in it, no writer has seen it, and it may be sent again.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct WriteMessage(pub(crate) Arc<Mutex<Option<Parcel>>>);

/// A write and who waits for it. The permit is given back once it is answered.
pub(crate) struct Parcel {
    pub(crate) request: Request,
    pub(crate) answer: oneshot::Sender<Answer>,
    pub(crate) permit: Permit,
}

/// Asks what a write would be answered, without writing it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CheckMessage(pub(crate) WriteMessage);

/// Runs on the writer's thread, between two writes.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct BetweenWrites(pub(crate) Box<dyn FnOnce() + Send>);

/// Asks for everything at the last write, and the segments that led to it.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct ExtentMessage(pub(crate) oneshot::Sender<Result<(State, Extent), RegistryError>>);

/// Writes what waits. Handled only after the mailbox is empty: what came meanwhile shares the fsync.
#[derive(Message)]
#[rtype(result = "()")]
struct Commit;

impl RegistryActor {
    pub(crate) fn new(ledger: Option<Ledger>, open: OpenLedger, up: watch::Sender<u64>, lifeline: Lifeline) -> Self {
        Self {
            ledger,
            open,
            waiting: Vec::new(),
            up,
            _lifeline: lifeline,
        }
    }

    /// The ledger, opened anew if there is none that can be written to.
    fn ledger(&mut self) -> Result<&mut Ledger, RegistryError> {
        let usable = self.ledger.take().filter(|ledger| !ledger.is_broken());
        let ledger = match usable {
            Some(ledger) => ledger,
            None => (self.open)()?,
        };
        Ok(self.ledger.insert(ledger))
    }
}

impl Actor for RegistryActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAX_PENDING_WRITES);
        self.up.send_modify(|starts| *starts += 1);
    }
}

impl Handler<WriteMessage> for RegistryActor {
    type Result = ();

    fn handle(&mut self, WriteMessage(parcel): WriteMessage, context: &mut Self::Context) {
        let Some(parcel) = parcel.lock().take() else {
            return;
        };
        if self.waiting.is_empty() {
            context.notify(Commit);
        }
        self.waiting.push(parcel);
    }
}

impl Handler<CheckMessage> for RegistryActor {
    type Result = ();

    fn handle(&mut self, CheckMessage(WriteMessage(parcel)): CheckMessage, _: &mut Self::Context) {
        let Some(parcel) = parcel.lock().take() else {
            return;
        };
        let answer = self.ledger().and_then(|ledger| ledger.check(&parcel.request));
        drop(parcel.permit);
        // Whoever asked may be gone; nothing was written.
        let _ = parcel.answer.send(answer);
    }
}

impl Handler<BetweenWrites> for RegistryActor {
    type Result = ();

    fn handle(&mut self, BetweenWrites(run): BetweenWrites, _: &mut Self::Context) {
        run();
    }
}

impl Handler<ExtentMessage> for RegistryActor {
    type Result = ();

    fn handle(&mut self, ExtentMessage(answer): ExtentMessage, _: &mut Self::Context) {
        // Whoever asked may be gone; then nothing is held.
        let _ = answer.send(self.ledger().and_then(|ledger| ledger.extent()));
    }
}

impl Handler<Commit> for RegistryActor {
    type Result = ();

    fn handle(&mut self, _: Commit, _: &mut Self::Context) {
        let waiting = std::mem::take(&mut self.waiting);
        let (mut requests, mut waiters) = (Vec::with_capacity(waiting.len()), Vec::with_capacity(waiting.len()));
        for Parcel {
            request,
            answer,
            permit,
        } in waiting
        {
            requests.push(request);
            waiters.push((answer, permit));
        }
        let answers = match self.ledger() {
            Ok(ledger) => ledger.commit(requests),
            Err(RegistryError::Storage(error)) => vec![Err(RegistryError::NotRecorded(error)); requests.len()],
            Err(error) => vec![Err(error); requests.len()],
        };
        for ((waiter, permit), answer) in waiters.into_iter().zip(answers) {
            drop(permit);
            // Whoever asked may be gone; the write happened all the same.
            let _ = waiter.send(answer);
        }
        // After the answers: nobody waits for it but who writes next.
        if let Some(ledger) = &mut self.ledger {
            ledger.compact_if_due();
        }
    }
}
