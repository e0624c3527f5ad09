//! What a device does about models that crash and threads that hang.
//!
//! Decides who is quarantined, and what becomes of models whose thread was given up. The watchdog itself is the crew's,
//! splitting a failing batch the thread's.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_scheduler::Outcome;
use mesh_types::{Fault, FaultSource, InferJob, ModelVersionKey, Retry};

use crate::{
    crew::Hung,
    device::DeviceActor,
    execute,
    models::{Phase, Place},
    observer::BatchRecord,
    order::{BatchNews, Order},
    quarantine::Entry,
    report::ModelState,
    sequences::not_in_sequence,
    statistics::{Left, Sum},
    tally::Tally,
    thread,
};

impl DeviceActor {
    /// Looks for hung threads and for cool-downs that are over.
    pub(crate) fn watch(&mut self) {
        let now = self.now();
        for hung in self.crew.replace_hung(now) {
            self.after_hang(&hung, now);
        }
        for place in self.crew.refill() {
            self.load_again(place);
        }
        let over = |(key, model): (&Arc<ModelVersionKey>, &mut crate::models::Model)| {
            model.quarantine.released(now).then(|| key.clone())
        };
        let released: Vec<_> = self.models.iter_mut().filter_map(over).collect();
        let any = !released.is_empty();
        for key in released {
            // One that is being unloaded takes no more requests.
            if self.models.get(&key).is_some_and(|model| model.phase == Phase::Serving) {
                tracing::info!(model = %key, "a quarantine is over: one request is let through");
                self.enlist(&key);
                self.settle(&key);
            }
        }
        if any {
            self.publish();
        }
    }

    /// When [`Self::watch`] should look again.
    pub(crate) fn watch_due(&self) -> Option<Instant> {
        let quarantines = self.models.values().filter_map(|model| model.quarantine.until());
        self.crew.due(self.now()).into_iter().chain(quarantines).min()
    }

    fn after_hang(&mut self, hung: &Hung, now: Instant) {
        tracing::error!(
            device = %self.parts.thread.shared.device,
            place = hung.place,
            model = hung.batch.as_ref().map(|batch| batch.model.to_string()),
            taken = ?hung.taken,
            replaced = hung.replaced,
            "a call into a model takes too long: its thread is given up"
        );
        for batch in hung.batch.iter().chain(&hung.behind) {
            if let Some(model) = self.models.get_mut(&batch.model) {
                model.running = model.running.saturating_sub(1);
            }
        }
        for batch in &hung.behind {
            self.lost_before_running(&batch.model);
        }
        for (index, batch) in hung.batch.iter().chain(&hung.behind).enumerate() {
            let hangs = hung.batch.is_some() && index == 0;
            let outcome = Outcome {
                busy: if hangs { hung.taken } else { Duration::ZERO },
                ..Outcome::default()
            };
            self.settle_batch(batch.number, outcome, &[]);
        }
        let (place, loading) = (hung.place, hung.batch.is_none());
        let mut touched = Vec::new();
        for (key, model) in &mut self.models {
            let Some(slot) = model.places.get_mut(place).filter(|slot| **slot != Place::Gone) else {
                continue;
            };
            touched.push(key.clone());
            // What hung while it was loaded would hang again.
            let failed = loading && *slot == Place::Loading;
            let again = hung.replaced && !failed && *slot != Place::Leaving && model.phase != Phase::Unloading;
            *slot = Place::Gone;
            if again && self.crew.load(place, Order::Load(key.clone(), model.spec.clone())) {
                *slot = Place::Loading;
            } else if failed {
                model.reason = Some("loading took too long".to_owned());
            }
            if model.phase == Phase::Serving && model.ready_places().next().is_none() {
                let text = if hung.replaced {
                    "being loaded again after an execution that hung"
                } else {
                    "the device has lost too many threads to executions that hang"
                };
                model.reason = Some(text.to_owned());
            }
        }
        for key in touched {
            self.settle(&key);
            self.finish_unserved(&key);
            self.finish_unload(&key);
        }
        if let Some(batch) = &hung.batch {
            self.crashed(&batch.model, "an execution hung");
        }
        self.publish();
        // Whoever is told also reads so in the report.
        self.answer_hung(hung, now);
    }

    /// An unloading model that no thread has any more cannot finish what waits for it.
    fn finish_unserved(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get(key) else { return };
        let served = model.ready_places().next().is_some() || model.has(Place::Loading);
        if model.phase == Phase::Unloading && !served {
            for item in self.delist(key) {
                item.payload.answer(Err(crate::models::not_here()));
            }
        }
    }

    /// A thread that stood still is there again: it gets the models that live on it.
    fn load_again(&mut self, place: usize) {
        for (key, model) in &mut self.models {
            let Some(slot @ Place::Gone) = model.places.get_mut(place) else {
                continue;
            };
            if model.phase == Phase::Serving && self.crew.load(place, Order::Load(key.clone(), model.spec.clone())) {
                *slot = Place::Loading;
            }
        }
    }

    fn answer_hung(&self, hung: &Hung, now: Instant) {
        let shared = &self.parts.thread.shared;
        for (index, batch) in hung.batch.iter().chain(&hung.behind).enumerate() {
            let hangs = hung.batch.is_some() && index == 0;
            let given_up = batch.replies.answer_rest(&execute::hung());
            let tally = Tally {
                executions: u32::from(hangs),
                crashed: hangs,
                busy: if hangs { hung.taken } else { Duration::ZERO },
                fail: Sum {
                    count: u64::try_from(given_up).unwrap_or(u64::MAX),
                    total: hung.taken * u32::try_from(given_up).unwrap_or(u32::MAX),
                },
                ..Tally::default()
            };
            shared.books.lock().batch(&batch.model, &tally, None, now);
            let record: BatchRecord<'_> = thread::record(shared, &batch.model, batch.rows, &batch.traces, &tally);
            self.parts.thread.observer.finished(&record);
        }
    }

    /// What a finished batch says of its model's health.
    pub(crate) fn judge(&mut self, news: &BatchNews) {
        let Some(model) = self.models.get_mut(&news.model) else {
            return;
        };
        if news.ended_well {
            model.quarantine.ended_well();
        } else if news.crashed {
            self.crashed(&news.model, "it panicked or did not load again");
        } else if news.ran {
            model.quarantine.responded();
        } else {
            model.quarantine.probe_lost();
        }
    }

    fn crashed(&mut self, key: &Arc<ModelVersionKey>, how: &str) {
        let now = self.now();
        let Some(model) = self.models.get_mut(key) else { return };
        let Some(cool_down) = model.quarantine.crashed(now) else {
            return;
        };
        let seconds = cool_down.as_secs();
        let reason = format!("quarantined after crashes in a row ({how}); tried again after {seconds} s");
        tracing::error!(model = %key, reason, "a model is quarantined");
        model.reason = Some(reason);
        if model.phase == Phase::Serving {
            let fault = refusal(model.reason.as_deref(), cool_down);
            for item in self.delist(key) {
                self.parts.thread.shared.books.lock().left(key, Left::Rejected);
                item.payload.answer(Err(fault.clone()));
            }
        }
        self.publish();
    }

    /// Whether a job for this model may wait for a batch.
    pub(crate) fn admits(&mut self, key: &ModelVersionKey, job: &InferJob) -> Result<(), Fault> {
        let now = self.now();
        let model = self.models.get_mut(key);
        let model = model.ok_or_else(crate::models::not_here)?;
        if model.spec.config.sequence_batching.is_some() && job.sequence.is_none() {
            return Err(not_in_sequence(&key.model));
        }
        let goes_on = job.sequence.as_ref().is_some_and(|step| !step.start);
        match model.state() {
            // Sequences may end; the scheduler knows which there are.
            ModelState::Unloading if goes_on => Ok(()),
            ModelState::Ready | ModelState::Quarantined => match model.quarantine.enter(now) {
                Entry::Open => Ok(()),
                Entry::Shut(wait) => Err(refusal(model.reason.as_deref(), wait)),
            },
            _ => Err(crate::models::not_here()),
        }
    }
}

fn refusal(reason: Option<&str>, wait: Duration) -> Fault {
    let text = reason.unwrap_or("the model is on probation after crashes in a row");
    let retry = if wait.is_zero() { Retry::Now } else { Retry::After(wait) };
    Fault::unavailable(FaultSource::Model, text.to_owned()).with_retry(retry)
}
