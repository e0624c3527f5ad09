//! The router actor: one per front-door arbiter. Its handler runs the pipeline up to the device; the caller waits for the
//! answer itself, so that a caller that leaves takes everything with it.
//!
//! Admission to the mailbox is by permit, so it holds at most as many calls as the router takes at once. A panic in the
//! pipeline is caught at its call: the actor itself holds nothing that could be left half changed, and the calls behind it in
//! the mailbox are others'. An actor that died all the same is made anew by the next call that meets it; what was in its
//! mailbox is answered as unavailable, and told once.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
};

use actix::{Actor, Addr, Context, Handler, Message, MessageResult};
use mesh_actors::{Permit, Permits};
use mesh_types::{Fault, FaultSource, RequestId, VersionSelector};

use crate::{
    Account, Answer, Call, Credential, RouterParts,
    account::Opening,
    describe::{ModelDescription, describe},
    flight::InFlight,
    pipeline::Pipeline,
    place::Loads,
};

/// Runs the pipeline.
pub struct RouterActor {
    pipeline: Pipeline,
}

/// A call with its permit and account; answered once it is on a device, or refused.
struct Begin {
    call: Call,
    permit: Permit,
    account: Account,
}

impl Message for Begin {
    type Result = Begun;
}

struct Begun {
    account: Account,
    result: Result<InFlight, Fault>,
}

impl Actor for RouterActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(self.pipeline.parts.max_in_flight.max(1));
    }
}

impl Handler<Begin> for RouterActor {
    type Result = MessageResult<Begin>;

    fn handle(&mut self, message: Begin, _: &mut Self::Context) -> Self::Result {
        let Begin {
            call,
            permit,
            mut account,
        } = message;
        let id = call.request_id;
        let begun = catch_unwind(AssertUnwindSafe(|| self.pipeline.begin(call, permit, &mut account)));
        let result = begun.unwrap_or_else(|_| {
            tracing::error!(request = %id, "the router panicked on a request");
            Err(Fault::internal("the router failed on this request"))
        });
        MessageResult(Begun { account, result })
    }
}

impl RouterActor {
    /// Starts a router on the current arbiter.
    pub fn start_here(parts: RouterParts) -> RouterHandle {
        let loads = Arc::new(Loads::default());
        let permits = Permits::new(parts.max_in_flight);
        let address = RefCell::new(make(&parts, &loads));
        RouterHandle {
            inner: Rc::new(Inner {
                address,
                permits,
                loads,
                parts,
            }),
        }
    }
}

fn make(parts: &RouterParts, loads: &Arc<Loads>) -> Addr<RouterActor> {
    let pipeline = Pipeline {
        parts: parts.clone(),
        loads: loads.clone(),
    };
    RouterActor { pipeline }.start()
}

struct Inner {
    address: RefCell<Addr<RouterActor>>,
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
    pub async fn infer(&self, call: Call) -> Answer {
        let inner = &*self.inner;
        let opening = Opening {
            request_id: call.request_id,
            received: call.received,
            decode: call.decode,
            parent: call.trace_parent,
        };
        let mut account = Account::open(&inner.parts, opening);
        let Some(permit) = inner.permits.try_acquire() else {
            let fault = Fault::unavailable(FaultSource::Mesh, "too many requests at once: try again");
            account.failed(&fault);
            return Answer {
                result: Err(fault),
                account,
            };
        };
        let lent = account.lend(&inner.parts, opening);
        let sent = inner.address.borrow().send(Begin { call, permit, account });
        let Begun { mut account, result } = match sent.await {
            Ok(begun) => begun,
            Err(_) => return self.rebuilt(lent.lost(), opening.request_id),
        };
        lent.back(&mut account);
        let result = match result {
            Ok(in_flight) => in_flight.complete(&mut account).await,
            Err(fault) => Err(fault),
        };
        if let Err(fault) = &result {
            account.failed(fault);
        }
        Answer { result, account }
    }

    /// Says how a model or endpoint is called, and whether it would take a call now. No hop, no limit.
    pub fn describe(
        &self,
        credential: &Credential,
        name: &str,
        selector: &VersionSelector,
    ) -> Result<ModelDescription, Fault> {
        let parts = &self.inner.parts;
        describe(&parts.snapshots.load(), &*parts.clock, credential, name, selector)
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

    /// The actor is gone: another takes its place, and the call that was in its mailbox may be sent again.
    fn rebuilt(&self, mut account: Account, request: RequestId) -> Answer {
        let inner = &*self.inner;
        tracing::error!(%request, "the router died and is made anew");
        if !inner.address.borrow().connected() {
            inner.address.replace(make(&inner.parts, &inner.loads));
        }
        let fault = Fault::unavailable(FaultSource::Mesh, "the router was restarted: try again");
        account.failed(&fault);
        Answer {
            result: Err(fault),
            account,
        }
    }
}

#[cfg(test)]
#[path = "actor_tests.rs"]
mod tests;
