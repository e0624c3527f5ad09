//! States of sequences in the host's memory, and the account of how much that is.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use mesh_types::{Fault, FaultSource, Shape, TenantId};
use parking_lot::Mutex;

/// One state tensor of one sequence, without the batch dimension.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct StateTensor {
    pub(crate) shape: Shape,
    pub(crate) data: Bytes,
}

#[derive(Debug, Default)]
struct Held {
    all: u64,
    tenants: HashMap<TenantId, u64>,
}

/// How many bytes of states a device keeps. Tenants that keep none are not remembered.
#[derive(Debug)]
pub(crate) struct Ledger {
    most: u64,
    held: Mutex<Held>,
}

impl Ledger {
    pub(crate) fn new(most: u64) -> Self {
        Self {
            most,
            held: Mutex::default(),
        }
    }

    /// Bytes kept now.
    pub(crate) fn bytes(&self) -> u64 {
        self.held.lock().all
    }

    /// Changes what a tenant keeps by replacing some bytes with others, if there is room for more.
    fn replace(&self, tenant: &TenantId, before: u64, after: u64) -> Result<(), Fault> {
        let mut held = self.held.lock();
        let own = held.tenants.get(tenant).copied().unwrap_or(0);
        let (all, own) = (held.all - before + after, own - before + after);
        if after > before && all > self.most {
            let text = format!(
                "the device has no room for the sequence's state: it keeps at most {} bytes of states",
                self.most
            );
            return Err(Fault::unavailable(FaultSource::Device, text));
        }
        let share = self.most / 2;
        if after > before && own > share {
            let text = format!("a tenant's sequences have at most {share} bytes of states on a device: end some");
            return Err(Fault::unavailable(FaultSource::TenantLimit, text));
        }
        held.all = all;
        if own == 0 {
            held.tenants.remove(tenant);
        } else {
            held.tenants.insert(tenant.clone(), own);
        }
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Now {
    /// In the order of the configuration; empty before the first step has run.
    tensors: Vec<StateTensor>,
    bytes: u64,
    /// The load of the model that saw the first step.
    epoch: u64,
}

/// What is kept of one sequence. Dropping it gives its memory back.
#[derive(Debug)]
pub(crate) struct SequenceState {
    tenant: TenantId,
    ledger: Arc<Ledger>,
    now: Mutex<Now>,
}

/// Room for a state that is about to replace the one before; dropped unused it is given back.
#[derive(Debug)]
pub(crate) struct Reserved {
    state: Arc<SequenceState>,
    /// None once it has moved.
    tensors: Option<Vec<StateTensor>>,
    before: u64,
    after: u64,
}

impl SequenceState {
    pub(crate) fn new(tenant: TenantId, ledger: Arc<Ledger>) -> Self {
        Self {
            tenant,
            ledger,
            now: Mutex::default(),
        }
    }

    /// The tensors; sharing their bytes.
    pub(crate) fn tensors(&self) -> Vec<StateTensor> {
        self.now.lock().tensors.clone()
    }

    /// How many tensors there are.
    pub(crate) fn count(&self) -> usize {
        self.now.lock().tensors.len()
    }

    /// The load of the model that saw the sequence's first step.
    pub(crate) fn epoch(&self) -> u64 {
        self.now.lock().epoch
    }

    /// The first step has run, on this load of the model.
    pub(crate) fn began(&self, epoch: u64) {
        self.now.lock().epoch = epoch;
    }

    /// Makes room for the tensors; the sequence has them once [`Reserved::keep`] says so.
    pub(crate) fn reserve(self: &Arc<Self>, tensors: Vec<StateTensor>) -> Result<Reserved, Fault> {
        let after = tensors
            .iter()
            .map(|tensor| u64::try_from(tensor.data.len()).unwrap_or(u64::MAX))
            .fold(0, u64::saturating_add);
        let before = self.now.lock().bytes;
        self.ledger.replace(&self.tenant, before, after)?;
        Ok(Reserved {
            state: self.clone(),
            tensors: Some(tensors),
            before,
            after,
        })
    }
}

impl Reserved {
    /// The sequence has moved.
    pub(crate) fn keep(mut self) {
        let mut now = self.state.now.lock();
        now.tensors = self.tensors.take().unwrap_or_default();
        now.bytes = self.after;
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        if self.tensors.is_none() {
            return;
        }
        // What there was had room before, and nobody else moves this sequence meanwhile.
        if self.before <= self.after {
            let _ = self.state.ledger.replace(&self.state.tenant, self.after, self.before);
        } else {
            self.state.ledger.restore(&self.state.tenant, self.after, self.before);
        }
    }
}

impl Ledger {
    /// Puts back what was there, room or not.
    fn restore(&self, tenant: &TenantId, before: u64, after: u64) {
        let mut held = self.held.lock();
        held.all = held.all - before + after;
        let own = held.tenants.entry(tenant.clone()).or_default();
        *own = *own - before + after;
    }
}

impl Drop for SequenceState {
    fn drop(&mut self) {
        let bytes = self.now.get_mut().bytes;
        // Less is always possible.
        let _ = self.ledger.replace(&self.tenant, bytes, 0);
    }
}
