//! From arrivals through the scheduler to the device's threads.

use std::time::Instant;

use actix::{AsyncContext, Context};
use mesh_scheduler::{Gone, Item, Refused, ShapeKey};
use mesh_types::{Fault, FaultSource};

use crate::{
    device::{DeviceActor, Wake},
    report::ModelState,
    shared::Queued,
    thread::{BATCHES_IN_FLIGHT, Order, RunBatch, not_here},
};

impl DeviceActor {
    /// Moves arrivals into the scheduler.
    pub(crate) fn admit(&mut self) {
        while let Some(queued) = self.parts.thread.shared.arrivals.pop() {
            let key = queued.job.version.clone();
            if self
                .models
                .get(&key)
                .is_none_or(|model| model.state != ModelState::Ready)
            {
                queued.answer(Err(not_here()));
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
                queued.answer(Err(fault));
            }
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

    /// Hands out batches while a thread has room.
    pub(crate) fn dispatch(&mut self, context: &mut Context<Self>) {
        loop {
            let free = self
                .threads
                .iter()
                .enumerate()
                .min_by_key(|(_, thread)| thread.in_flight);
            let free = free
                .filter(|(_, thread)| thread.in_flight < BATCHES_IN_FLIGHT)
                .map(|(index, _)| index);
            let Some(free) = free else { return };
            let decision = self.scheduler.poll(Instant::now(), |queued| queued.reply.is_closed());
            for (item, gone) in decision.gone {
                let key = item.payload.job.version.clone();
                if gone == Gone::Expired {
                    item.payload.answer(Err(Fault::deadline("while waiting for a batch")));
                }
                self.finish_unload(&key);
            }
            let Some(batch) = decision.batch else {
                self.wake_at(context, decision.wake_at);
                return;
            };
            let waiting = self.scheduler.waiting(&batch.model);
            let (device, observer) = (self.parts.thread.shared.device, &self.parts.thread.observer);
            observer.waiting(device, &batch.model, waiting);
            let members = batch.items.into_iter().map(|item| item.payload).collect();
            self.give(
                free,
                RunBatch {
                    model: batch.model,
                    members,
                    rows: batch.rows,
                },
            );
        }
    }

    fn give(&mut self, thread: usize, run: RunBatch) {
        let key = run.model.clone();
        let Some(thread) = self.threads.get_mut(thread) else {
            return;
        };
        match thread.order(Order::Run(run)) {
            Ok(()) => {
                thread.in_flight += 1;
                if let Some(model) = self.models.get_mut(&key) {
                    model.running += 1;
                }
            }
            Err(order) => {
                if let Order::Run(run) = *order {
                    run.members.into_iter().for_each(|member| member.answer(Err(full())));
                }
            }
        }
    }

    fn wake_at(&mut self, context: &mut Context<Self>, at: Option<Instant>) {
        if let Some(timer) = self.timer.take() {
            context.cancel_future(timer);
        }
        let wait = at.map(|at| at.saturating_duration_since(Instant::now()));
        self.timer = wait.map(|wait| context.notify_later(Wake, wait));
    }
}

pub(crate) fn full() -> Fault {
    Fault::unavailable(FaultSource::Device, "Exceeds maximum queue size")
}
