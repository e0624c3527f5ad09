//! From arrivals through the scheduler to the device's threads.
//!
//! A batch goes only to a thread that has its model. One whose threads are all busy is parked, one at a time, until one of
//! them is free; nothing is taken from the scheduler meanwhile.

use std::{sync::Arc, time::Instant};

use mesh_scheduler::{Gone, Item, Refused, ShapeKey};
use mesh_types::{Fault, FaultSource, ModelVersionKey};

use crate::{
    device::DeviceActor, models::not_here, order::RunBatch, report::ModelState, shared::Queued, statistics::Left,
};

/// What became of an attempt to hand a batch to a thread.
enum Given {
    /// A thread has it, or its requests have been answered.
    Yes,
    /// Every thread with its model is busy.
    Busy(Box<RunBatch>),
}

impl DeviceActor {
    /// Moves arrivals into the scheduler.
    pub(crate) fn admit(&mut self) {
        while let Some(queued) = self.parts.thread.shared.arrivals.pop() {
            let key = queued.job.version.clone();
            if let Err(fault) = self.admits(&key) {
                self.refuse(queued, fault);
                continue;
            }
            let item = Item {
                rows: queued.job.rows,
                shape: self.shape_key(&queued),
                arrived: queued.arrived,
                deadline: queued.job.deadline.instant(),
                payload: queued,
            };
            if let Err(refused) = self.scheduler.offer(&key, item) {
                let (queued, fault) = match refused {
                    Refused::Full(queued) => (queued, full()),
                    Refused::UnknownModel(queued) => (queued, not_here()),
                };
                self.lost_before_running(&key);
                self.refuse(queued, fault);
            }
        }
    }

    fn refuse(&self, queued: Queued, fault: Fault) {
        let books = &self.parts.thread.shared.books;
        books.lock().left(&queued.job.version, Left::Rejected);
        queued.answer(Err(fault));
    }

    /// If the request was a quarantined model's probe, the next one is.
    fn lost_before_running(&mut self, key: &ModelVersionKey) {
        if let Some(model) = self.models.get_mut(key) {
            model.quarantine.probe_lost();
        }
    }

    /// Keyed by chance, so that nobody can make two shapes look alike.
    fn shape_key(&self, queued: &Queued) -> ShapeKey {
        use std::hash::{BuildHasher, Hash, Hasher};
        let mut hasher = self.hasher.build_hasher();
        for tensor in &queued.job.inputs {
            // The rows are what differs within a batch; a model without a batch dimension never shares one.
            tensor.shape.get(1..).unwrap_or_default().hash(&mut hasher);
        }
        ShapeKey(hasher.finish())
    }

    /// Hands out batches while a thread has room; when to do so again, even if nothing else happens.
    pub(crate) fn dispatch(&mut self) -> Option<Instant> {
        loop {
            if let Some(parked) = self.parked.take()
                && let Given::Busy(parked) = self.give(parked)
            {
                self.parked = Some(parked);
                return None;
            }
            if !self.crew.has_room() {
                return None;
            }
            let now = self.now();
            let decision = self.scheduler.poll(now, |queued| queued.reply.is_closed());
            for (item, gone) in decision.gone {
                self.let_go(item.payload, gone);
            }
            let Some(batch) = decision.batch else {
                return decision.wake_at;
            };
            let waiting = self.scheduler.waiting(&batch.model);
            let (device, observer) = (self.parts.thread.shared.device, &self.parts.thread.observer);
            observer.waiting(device, &batch.model, waiting);
            let queued = batch.items.into_iter().map(|item| item.payload).collect();
            self.batches += 1;
            let run = RunBatch::new(self.batches, batch.model, queued, None);
            if let Some(model) = self.models.get_mut(&run.model) {
                model.running += 1;
            }
            self.parked = Some(Box::new(run));
        }
    }

    /// A request that leaves the queue without running.
    fn let_go(&mut self, queued: Queued, gone: Gone) {
        let key = queued.job.version.clone();
        let why = match gone {
            Gone::Expired => Left::Expired,
            Gone::Cancelled => Left::Cancelled,
        };
        self.parts.thread.shared.books.lock().left(&key, why);
        if gone == Gone::Expired {
            queued.answer(Err(Fault::deadline("while waiting for a batch")));
        }
        self.lost_before_running(&key);
        self.finish_unload(&key);
    }

    fn give(&mut self, run: Box<RunBatch>) -> Given {
        let key = run.model.clone();
        let model = self.models.get(&key);
        let places = model.into_iter().flat_map(|model| model.ready_places());
        let Some(place) = self.crew.freest(places) else {
            // A thread that is loading it again may take long: what waits elsewhere must not wait for that.
            let comes = |state| {
                matches!(
                    state,
                    ModelState::Ready | ModelState::Quarantined | ModelState::Unloading
                )
            };
            if model.is_some_and(|model| comes(model.state()) && model.ready_places().next().is_some()) {
                return Given::Busy(run);
            }
            self.give_up(&key, &run, &not_here());
            return Given::Yes;
        };
        let limit = self.limit(&key);
        if let Err(run) = self.crew.run(place, *run, limit) {
            self.give_up(&key, &run, &full());
        }
        Given::Yes
    }

    /// Answers a batch that no thread has taken.
    fn give_up(&mut self, key: &Arc<ModelVersionKey>, run: &RunBatch, fault: &Fault) {
        run.replies.answer_rest(fault);
        if let Some(model) = self.models.get_mut(key) {
            model.running = model.running.saturating_sub(1);
            model.quarantine.probe_lost();
        }
        self.finish_unload(key);
    }
}

pub(crate) fn full() -> Fault {
    Fault::unavailable(FaultSource::Device, "Exceeds maximum queue size")
}
