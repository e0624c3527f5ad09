//! The router actor: one per front-door arbiter. Its handler runs the pipeline up to the device, for all calls that lie on the
//! desk; the caller waits for the answer, so that a caller that leaves takes everything with it.
//!
//! Admission to the desk is by permit, so it holds at most as many calls as the router takes at once. A panic in the
//! pipeline is caught at its call: the actor itself holds nothing that could be left half changed, and the calls behind it
//! are others'. An actor that died all the same is made anew by the next call that meets it; what lay on its desk is answered
//! as unavailable, and told once.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Instant,
};

use actix::{Actor, Addr, Context, Handler, Message};
use mesh_actors::Permits;
use mesh_policies::MeshSnapshot;
use mesh_types::{Fault, FaultSource};

use crate::{
    Account, Answer, Call, RouterParts,
    account::Opening,
    desk::{Desk, Done, Ticket, Waiting},
    keys::{self, Begun},
    lap::Lap,
    level::{is_levelled, level},
    pipeline::Pipeline,
    place::Loads,
};

/// Runs the pipeline.
pub struct RouterActor {
    pipeline: Arc<Pipeline>,
    desk: Rc<Desk>,
}

/// There are calls on the desk.
struct Look;

impl Message for Look {
    type Result = ();
}

impl Actor for RouterActor {
    type Context = Context<Self>;
}

impl Handler<Look> for RouterActor {
    type Result = ();

    fn handle(&mut self, _: Look, _: &mut Self::Context) {
        self.desk.looks();
        while let Some((ticket, waiting)) = self.desk.next() {
            self.begin(&ticket, waiting);
        }
    }
}

impl RouterActor {
    fn begin(&self, ticket: &Ticket, waiting: Waiting) {
        let Waiting {
            call,
            seen,
            permit,
            mut account,
            waker,
        } = waiting;
        let id = call.request_id;
        let begun = catch_unwind(AssertUnwindSafe(|| {
            self.pipeline.begin((call, seen), permit, &mut account)
        }));
        let begun = begun.unwrap_or_else(|_| {
            tracing::error!(request = %id, "the router panicked on a request");
            Err(Fault::internal("the router failed on this request"))
        });
        match begun {
            Err(fault) => ticket.answer((account, Err(fault)), waker),
            Ok(Begun::InFlight(in_flight)) => {
                let answer = async move {
                    let result = in_flight.complete(&mut account).await;
                    (account, result)
                };
                ticket.run(answer, waker);
            }
            Ok(waits @ (Begun::Waits(..) | Begun::Copies(..))) => {
                ticket.run(after_waits(self.pipeline.clone(), account, waits), waker);
            }
        }
    }
}

/// Begins a call anew as often as keys come that it waits for, as long as it may wait; and goes on with one whose inputs a driver copies
/// once they are there.
async fn after_waits(pipeline: Arc<Pipeline>, mut account: Box<Account>, mut begun: Begun) -> Done {
    loop {
        let (call, permit) = match begun {
            Begun::InFlight(in_flight) => {
                let result = in_flight.complete(&mut account).await;
                return (account, result);
            }
            Begun::Copies(versioned) => {
                let read = versioned.read_elsewhere(&pipeline).await;
                let lap = Lap::start(&*pipeline.parts.clock);
                begun = match pipeline.go_on(read, (lap, &mut account)) {
                    Ok(in_flight) => Begun::in_flight(in_flight),
                    Err(fault) => return (account, Err(fault)),
                };
                continue;
            }
            Begun::Waits(call, permit, wait, until) => {
                if !keys::waited(wait, until).await {
                    return (account, Err(keys::in_vain()));
                }
                (call, permit)
            }
        };
        begun = match pipeline.begin(call, permit, &mut account) {
            Ok(begun) => begun,
            Err(fault) => return (account, Err(fault)),
        };
    }
}

impl Drop for RouterActor {
    /// By a panic too: what lies on the desk may be sent again, and whoever comes next makes another actor.
    fn drop(&mut self) {
        self.desk.looks();
        while let Some((ticket, waiting)) = self.desk.next() {
            ticket.answer((waiting.account, Err(restarted())), waiting.waker);
        }
    }
}

fn restarted() -> Fault {
    Fault::unavailable(FaultSource::Mesh, "the router was restarted: try again")
}

impl RouterActor {
    /// Starts a router on the current arbiter.
    pub fn start_here(parts: RouterParts) -> RouterHandle {
        let loads = Arc::new(Loads::default());
        let permits = Permits::new(parts.max_in_flight);
        let desk = Rc::default();
        let address = RefCell::new(make(&parts, &loads, &desk));
        RouterHandle {
            inner: Rc::new(Inner {
                address,
                desk,
                permits,
                loads,
                parts,
            }),
        }
    }
}

fn make(parts: &RouterParts, loads: &Arc<Loads>, desk: &Rc<Desk>) -> Addr<RouterActor> {
    let pipeline = Arc::new(Pipeline {
        parts: parts.clone(),
        loads: loads.clone(),
    });
    let desk = desk.clone();
    RouterActor { pipeline, desk }.start()
}

struct Inner {
    address: RefCell<Addr<RouterActor>>,
    desk: Rc<Desk>,
    permits: Permits,
    loads: Arc<Loads>,
    parts: RouterParts,
}

/// Reaches the router of this arbiter. Clones reach the same one.
#[derive(Clone)]
pub struct RouterHandle {
    inner: Rc<Inner>,
}

impl RouterHandle {
    /// Answers a call; at the latest at its deadline. Dropping the future cancels the call.
    pub fn infer(&self, call: Call) -> impl Future<Output = Answer> {
        // A call and its account go through many hands: what is handed on is where they are.
        self.infer_boxed(Box::new(call), None)
    }

    /// The same by a snapshot that the call was read by.
    pub(crate) async fn infer_boxed(&self, call: Box<Call>, seen: Option<Arc<MeshSnapshot>>) -> Answer {
        let inner = &*self.inner;
        let opening = Opening {
            request_id: call.request_id,
            received: call.received,
            decode: call.decode,
            parent: call.trace_parent,
        };
        let mut account = Box::new(Account::open(&inner.parts, opening));
        let Some(permit) = inner.permits.try_acquire() else {
            let fault = Fault::unavailable(FaultSource::Mesh, "too many requests at once: try again");
            account.failed(&fault);
            return Answer {
                result: Err(fault),
                account,
            };
        };
        let awaited = inner.desk.put((call, seen), permit, account);
        if inner.desk.must_tell() {
            inner.tell();
        }
        let Some((mut account, result)) = awaited.await else {
            // Its account went with what panicked, and has told that the call ended; this one tells why.
            let fault = Fault::internal("the router failed on this request");
            let mut account = Box::new(Account::open(&inner.parts, opening));
            account.failed(&fault);
            return Answer {
                result: Err(fault),
                account,
            };
        };
        if let Err(fault) = &result {
            account.failed(fault);
            if is_levelled(fault.class) {
                self.level(opening.received).await;
            }
        }
        Answer { result, account }
    }

    pub(crate) fn parts(&self) -> &RouterParts {
        &self.inner.parts
    }

    /// Returns when a refusal that must not tell anything is to be answered, of a request that came then.
    pub async fn level(&self, received: Instant) {
        let longest = self.inner.parts.snapshots.load().authorization.longest();
        level(received, longest).await;
    }

    /// Calls in this router now.
    pub fn in_flight(&self) -> usize {
        self.inner.permits.taken()
    }

    #[cfg(test)]
    pub(crate) fn on_devices(&self) -> u32 {
        self.inner.loads.total()
    }

    /// Has the actor die of a panic, with what is in its mailbox.
    #[cfg(test)]
    pub(crate) fn kill(&self) {
        // Refused by a full mailbox only, which no test fills.
        let _ = self.inner.address.borrow().try_send(tests::Die);
    }
}

impl Inner {
    /// Tells the actor that there are calls on the desk; if it is gone, another takes its place.
    fn tell(&self) {
        if self.address.borrow().try_send(Look).is_ok() {
            return;
        }
        tracing::error!("the router died and is made anew");
        self.address.replace(make(&self.parts, &self.loads, &self.desk));
        // A new mailbox has room; if not even that, the actor has died again and has answered the desk.
        if self.address.borrow().try_send(Look).is_err() {
            self.desk.looks();
        }
    }
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
