//! From arrivals through the scheduler to the device's threads.
//!
//! Each thread is a slot of the scheduler; a slot is offered only models that its thread has. A batch that is chosen is handed
//! over at once, so nothing waits between the scheduler and a thread.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_scheduler::{Batch, BatchId, Gone, Item, Outcome, Refused, RefusedFor, ShapeKey, ShapePart, StepResult};
use mesh_types::{Fault, FaultSource, ModelConfig, ModelVersionKey, Retry, Tensor, TensorSpec};

use crate::{
    device::DeviceActor,
    models::not_here,
    order::{BatchNews, RunBatch},
    sequences::{ended_step, not_in_sequence, refused_step},
    shared::Queued,
    statistics::Left,
};

/// How often all that wait are looked through for callers that have gone. Those who come to be batched are looked at anyway.
const SWEEP_EVERY: Duration = Duration::from_millis(50);

/// Most arrivals that are taken in before threads are given their next batches: a flood must not leave the device idle.
pub(crate) const MAX_ADMITTED: usize = 256;

impl DeviceActor {
    /// Moves arrivals into the scheduler: those that are there now, and no more than `most`.
    pub(crate) fn admit(&mut self, most: usize) {
        for _ in 0..self.parts.thread.shared.arrivals.len().min(most) {
            let Some(queued) = self.parts.thread.shared.arrivals.pop() else {
                return;
            };
            self.clear_for(&queued);
            let key = queued.job.version.clone();
            let admitted = self.has_room_in_line(&queued);
            let particular = match admitted.and_then(|config| self.admits(&queued.job).map(|()| config)) {
                Ok(particular) => particular,
                Err(fault) => {
                    self.refuse(queued, fault);
                    continue;
                }
            };
            let item = Item {
                tenant: queued.job.tenant.clone(),
                standing: queued.job.standing,
                rows: queued.job.rows,
                shape: match particular {
                    None => shape_of(&queued.job.inputs),
                    Some(config) => shape_beside(&config, &queued.job.inputs),
                }
                .with(queued.job.parameters.clone()),
                arrived: queued.arrived,
                deadline: queued.job.deadline.instant(),
                payload: queued,
            };
            let now = self.now();
            if let Some(model) = self.models.get_mut(&key) {
                model.usage.note(now, &item.tenant, item.standing.share.weight);
            }
            let offered = match item.payload.job.sequence.clone() {
                None => self.scheduler.offer(now, &key, item),
                Some(step) => {
                    // Its caller may have read what became of the step before: then it is known here by now.
                    self.hear_threads();
                    self.set_instances(&key);
                    self.scheduler.offer_step(now, &key, item, &step)
                }
            };
            match offered {
                Ok(()) => self.demand(&key),
                Err(Refused { payload, reason }) => {
                    self.lost_before_running(&key);
                    let fault = refusal(reason, &payload);
                    self.refuse(payload, fault);
                }
            }
        }
    }

    /// From the first request of an isolated tenant on, and before anything of it lies where models run, no model gets memory in which
    /// something of another's is left.
    fn clear_for(&mut self, queued: &Queued) {
        if queued.job.standing.share.isolated && !std::mem::replace(&mut self.clears, true) {
            let backends = &self.parts.thread.backends;
            backends.iter().for_each(|backend| backend.clear_memory());
        }
    }

    /// Behind an answer that is long in coming, those after it pile up: as many of one tenant as may wait in its queue, no more.
    /// Answers with the model's configuration where more than extents decides which requests share a batch.
    fn has_room_in_line(&self, queued: &Queued) -> Result<Option<Arc<ModelConfig>>, Fault> {
        let key = &queued.job.version;
        let model = self.models.get(key);
        if model.is_some_and(|model| model.ordered) && self.lines.held(key, &queued.job.tenant) >= self.parts.queue {
            return Err(full());
        }
        let particular = model.filter(|model| model.particular);
        Ok(particular.map(|model| model.spec.config.clone()))
    }

    fn refuse(&self, queued: Queued, fault: Fault) {
        let books = &self.parts.thread.shared.books;
        books.lock().left(&queued.job.version, Left::Rejected);
        queued.answer(Err(fault));
    }

    /// If the request was a quarantined model's probe, the next one is.
    pub(crate) fn lost_before_running(&mut self, key: &ModelVersionKey) {
        if let Some(model) = self.models.get_mut(key) {
            model.quarantine.probe_lost();
        }
    }

    /// Hands out batches while a thread has room; when to do so again, even if nothing else happens.
    pub(crate) fn dispatch(&mut self) -> Option<Instant> {
        self.seat_sequences();
        self.scheduler.accrue(self.now());
        loop {
            let now = self.now();
            let free = self.crew.free_places();
            if free.is_empty() {
                let (gone, wake_at) = self.scheduler.tidy(now);
                gone.into_iter().for_each(|(item, why)| self.let_go(item.payload, why));
                return wake_at;
            }
            let mut wake_at = None;
            let given = free.into_iter().any(|place| self.offer_to(now, place, &mut wake_at));
            if !given {
                return wake_at;
            }
        }
    }

    /// Hands the thread a batch, if there is one for it now.
    fn offer_to(&mut self, now: Instant, place: usize, wake_at: &mut Option<Instant>) -> bool {
        let models = &self.models;
        let decision = self.scheduler.poll(
            now,
            place,
            |key| models.get(key).is_some_and(|model| model.is_ready_on(place)),
            |queued: &Queued| queued.reply.is_closed(),
        );
        decision
            .gone
            .into_iter()
            .for_each(|(item, why)| self.let_go(item.payload, why));
        *wake_at = [*wake_at, decision.wake_at].into_iter().flatten().min();
        let given = decision.batch.is_some();
        if let Some(batch) = decision.batch {
            self.give(place, batch);
        }
        given
    }

    /// Now and then, lets all go whose callers have gone; when to do so again.
    pub(crate) fn sweep(&mut self) -> Option<Instant> {
        if self.scheduler.is_empty() {
            return None;
        }
        let now = self.now();
        if now < self.swept + SWEEP_EVERY {
            return Some(self.swept + SWEEP_EVERY);
        }
        self.swept = now;
        let gone = self.scheduler.sweep(now, |queued| queued.reply.is_closed());
        gone.into_iter().for_each(|(item, why)| self.let_go(item.payload, why));
        Some(now + SWEEP_EVERY)
    }

    /// A request that leaves the queue without running.
    fn let_go(&mut self, queued: Queued, gone: Gone) {
        let key = queued.job.version.clone();
        let (why, fault) = match gone {
            Gone::Cancelled => (Left::Cancelled, None),
            Gone::Expired => (Left::Expired, Some(Fault::deadline("while waiting for a batch"))),
            Gone::TooLate => (
                Left::Expired,
                Some(Fault::deadline("before the next batch would be done")),
            ),
            // Triton's words for it.
            Gone::TimedOut => (Left::Rejected, Some(unavailable("Request timeout expired"))),
            Gone::Behind => {
                let text = "a request before it in its sequence was not run";
                (Left::Rejected, Some(unavailable(text).with_retry(Retry::No)))
            }
            Gone::Aborted(why) => (Left::Rejected, Some(ended_step(why))),
        };
        self.parts.thread.shared.books.lock().left(&key, why);
        if let Some(fault) = fault {
            queued.answer(Err(fault));
        }
        self.lost_before_running(&key);
        self.finish_unload(&key);
    }

    fn give(&mut self, place: usize, batch: Batch<Arc<ModelVersionKey>, Queued>) {
        let key = batch.model;
        let waiting = self.scheduler.waiting(&key);
        let (device, observer) = (self.parts.thread.shared.device, &self.parts.thread.observer);
        observer.waiting(device, &key, waiting);
        let mut queued: Vec<Queued> = batch.items.into_iter().map(|item| item.payload).collect();
        if self.models.get(&key).is_some_and(|model| model.ordered) {
            for Queued { job, reply, .. } in &mut queued {
                self.lines.enter(&key, &job.tenant, reply);
            }
        }
        let steps = self.steps_of(&key, &batch.seats, &queued);
        let run = RunBatch::new(batch.id.0, key.clone(), queued, steps, batch.predicted);
        if let Some(model) = self.models.get_mut(&key) {
            model.running += 1;
        }
        let limit = self.limit(&key);
        if let Err(run) = self.crew.run(place, run, limit) {
            run.replies.answer_rest(&full());
            self.settle_batch(batch.id.0, Outcome::default(), &[]);
            if let Some(model) = self.models.get_mut(&key) {
                model.running = model.running.saturating_sub(1);
                model.quarantine.probe_lost();
            }
            self.finish_unload(&key);
        }
    }

    /// A batch is done: tells the scheduler what it cost.
    pub(crate) fn settle_news(&mut self, news: &BatchNews) {
        let outcome = Outcome {
            busy: news.busy,
            telling: news.whole.is_some(),
            too_large: news.too_large,
        };
        self.settle_batch(news.number, outcome, &news.steps);
    }

    /// Tells the scheduler what a batch cost, and the books who pays for it.
    pub(crate) fn settle_batch(&mut self, number: u64, outcome: Outcome, steps: &[Option<StepResult>]) {
        let now = self.now();
        let charges = self.scheduler.finished_steps(now, BatchId(number), outcome, steps);
        let shared = &self.parts.thread.shared;
        let mut books = shared.books.lock();
        for charge in &charges {
            books.charge(&charge.tenant, charge.device_time);
        }
        drop(books);
        self.parts.thread.observer.charged(shared.device, &charges);
    }
}

/// What must be equal for two jobs to share a batch.
pub(crate) fn shape_of(inputs: &[Tensor]) -> ShapeKey {
    ShapeKey::of(inputs.iter().map(|tensor| tensor.shape.as_slice()))
}

/// The same where inputs may be left out, or are one value for a whole batch: then who leaves out the same ones, and gives the
/// same values.
pub(crate) fn shape_beside(config: &ModelConfig, inputs: &[Tensor]) -> ShapeKey {
    let mut rest = inputs.iter().peekable();
    let part = |spec: &TensorSpec| match rest.next_if(|tensor| *tensor.name == *spec.name) {
        None => ShapePart::Absent,
        Some(tensor) if spec.unbatched => ShapePart::Value(&tensor.shape, &tensor.data),
        Some(tensor) => ShapePart::Rows(&tensor.shape),
    };
    ShapeKey::of_parts(config.input.iter().map(part))
}

fn refusal(reason: RefusedFor, queued: &Queued) -> Fault {
    match reason {
        RefusedFor::Full => full(),
        RefusedFor::UnknownModel => not_here(),
        RefusedFor::NotStarted(why) => {
            let model = &queued.job.version.model;
            let step = queued.job.sequence.as_ref();
            step.map_or_else(|| not_in_sequence(model), |step| refused_step(model, &step.id, why))
        }
        RefusedFor::Closing => {
            unavailable("no new sequences are taken: the device is being drained, or the model unloaded")
        }
        RefusedFor::IdTaken => unavailable(
            "no instance can begin a sequence of this id now, because the model is told ids as they are given: choose another",
        ),
        RefusedFor::TooLate { retry_after } => {
            let text = format!(
                "the request would not be finished by its deadline: the device is busy for {} ms longer than that",
                retry_after.as_millis().max(1)
            );
            Fault::unavailable(FaultSource::Device, text).with_retry(Retry::After(retry_after))
        }
    }
}

fn unavailable(text: &'static str) -> Fault {
    Fault::unavailable(FaultSource::Device, text)
}

pub(crate) fn full() -> Fault {
    unavailable("Exceeds maximum queue size")
}
