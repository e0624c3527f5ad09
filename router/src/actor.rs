//! The router actor: one per front-door arbiter. Its handler runs the pipeline up to the device; the caller waits for the
//! answer itself, so that a caller that leaves takes everything with it.
//!
//! Admission to the mailbox is by permit, so it holds at most as many calls as the router takes at once. An actor that died
//! of a panic is made anew by the next call that meets it.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use actix::{Actor, Addr, Context, Handler, Message, MessageResult};
use mesh_actors::{Permit, Permits};
use mesh_types::{Fault, FaultSource, VersionSelector};

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
        let result = self.pipeline.begin(call, permit, &mut account);
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
        let mut account = Account::open(&inner.parts.telemetry, &inner.parts.clock, opening);
        let Some(permit) = inner.permits.try_acquire() else {
            let fault = Fault::unavailable(FaultSource::Mesh, "too many requests at once: try again");
            account.failed(&fault);
            return Answer {
                result: Err(fault),
                account,
            };
        };
        let begin = Begin { call, permit, account };
        let sent = inner.address.borrow().send(begin);
        let Begun { mut account, result } = match sent.await {
            Ok(begun) => begun,
            Err(_) => return self.rebuilt(opening),
        };
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

    /// The actor is gone, by a panic: another takes its place, and this one call is lost with an answer.
    fn rebuilt(&self, opening: Opening) -> Answer {
        let inner = &*self.inner;
        tracing::error!(request = %opening.request_id, "the router died of a panic and is made anew");
        if !inner.address.borrow().connected() {
            inner.address.replace(make(&inner.parts, &inner.loads));
        }
        // The first account was closed as cancelled when it was lost; this one tells the failure.
        let mut account = Account::open(&inner.parts.telemetry, &inner.parts.clock, opening);
        let fault = Fault::internal("the router failed on this request");
        account.failed(&fault);
        Answer {
            result: Err(fault),
            account,
        }
    }
}
