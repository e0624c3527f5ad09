//! Leave to run one request, and its bill: what is given back when its caller goes, and what is settled when its jobs are gone.
//!
//! The caller's end is the [`Admission`]; the jobs hold the ticket, as the meter that devices tell. The two may end in any order.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use mesh_types::DeviceMeter;

use super::{
    Caller,
    ledger::{Bill, Scopes, Told},
};

/// Leave to run one request; dropping it ends the request for the limits on requests at once and on what waits.
#[must_use = "dropping it ends the request for the limits"]
pub struct Admission {
    pub(super) caller: Caller,
    /// Scopes of which it has taken nothing.
    pub(super) spared: Scopes,
    pub(super) told: Told,
    ticket: Option<Arc<Ticket>>,
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

impl Admission {
    pub(super) fn new(caller: Caller, spared: Scopes, told: Told) -> Self {
        Self {
            caller,
            spared,
            told,
            ticket: None,
        }
    }

    /// It has taken this; `reserved` of devices at this Unix second.
    pub(super) fn charged(&mut self, spared: Scopes, (rows, bytes): (u64, u64), (reserved, since): (u64, i64)) {
        self.spared = spared;
        self.ticket = Some(Arc::new(Ticket {
            caller: self.caller.clone(),
            spared,
            rows,
            bytes,
            reserved,
            since,
            waits: AtomicBool::new(true),
            ran: AtomicU64::new(0),
        }));
    }

    /// What devices tell of the request; none before it was charged.
    pub fn meter(&self) -> Option<Arc<dyn DeviceMeter>> {
        let ticket = self.ticket.clone()?;
        Some(ticket)
    }

    /// What is worth telling of it.
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// Who was let in, with all subjects that it has met.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let waits = self.ticket.as_ref().is_some_and(|ticket| ticket.waits_no_longer());
        let mut state = self.caller.ledger.state.lock();
        for subject in self.caller.subjects() {
            let Some(cells) = state.known(subject).filter(|_| !self.spared.has(subject.scope())) else {
                continue;
            };
            cells.leave();
            if let Some(ticket) = self.ticket.as_ref().filter(|_| waits) {
                cells.leave_queue(ticket.rows, ticket.bytes);
            }
        }
    }
}

/// The bill of one request.
pub(super) struct Ticket {
    caller: Caller,
    spared: Scopes,
    rows: u64,
    bytes: u64,
    /// Microseconds of devices that were taken for it.
    reserved: u64,
    /// The Unix second at which they were.
    since: i64,
    /// Whether it still waits for a device.
    waits: AtomicBool,
    /// Nanoseconds of devices that it has used.
    ran: AtomicU64,
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket")
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}

impl Ticket {
    /// True for the first who says so.
    fn waits_no_longer(&self) -> bool {
        self.waits.swap(false, Ordering::AcqRel)
    }
}

impl DeviceMeter for Ticket {
    fn began(&self) {
        // Those whom it does not concern pay nothing for it.
        let counts = (self.caller.subjects()).any(|subject| subject.limits().counts_queue());
        if !counts || !self.waits_no_longer() {
            return;
        }
        let mut state = self.caller.ledger.state.lock();
        for subject in self.caller.subjects() {
            if let Some(cells) = state.known(subject).filter(|_| !self.spared.has(subject.scope())) {
                cells.leave_queue(self.rows, self.bytes);
            }
        }
    }

    fn ran(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.ran.fetch_add(nanoseconds, Ordering::AcqRel);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let bill = Bill {
            rows: self.rows,
            reserved: self.reserved,
            since: self.since,
            ran: self.ran.load(Ordering::Acquire).div_ceil(1_000),
        };
        let time = &self.caller.ledger.time;
        let at = time.at(time.now());
        (self.caller.ledger.state.lock()).true_up(self.caller.subjects(), &bill, at, self.spared);
    }
}
