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
    loading::Rank,
    model::{Model, Phase, Place},
    observer::BatchRecord,
    order::BatchNews,
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
        self.watch_loaders(now);
        self.watch_memory(now);
        // Few are quarantined, however many there are.
        let (mut released, models) = (Vec::new(), &mut self.models);
        self.quarantined.retain(|key| {
            let Some(model) = models.get_mut(key) else { return false };
            let over = model.quarantine.released(now);
            if over {
                released.push(key.clone());
            }
            !over && model.quarantine.until().is_some()
        });
        for key in released {
            // One that is being unloaded takes no more requests.
            let phase = self.models.get(&key).map(|model| model.phase);
            if matches!(phase, Some(Phase::Serving | Phase::Standby)) {
                tracing::info!(model = %key, "a quarantine is over: one request is let through");
                self.enlist(&key);
                self.settle(&key);
            }
            self.publish(&key);
        }
    }

    /// When [`Self::watch`] should look again.
    pub(crate) fn watch_due(&self) -> Option<Instant> {
        let models = self.quarantined.iter().filter_map(|key| self.models.get(key));
        let quarantines = models.filter_map(|model| model.quarantine.until());
        let idle = self.idle.first().map(|(at, _)| *at);
        let now = self.now();
        let others = self.crew.due(now).into_iter().chain(self.loads.due(now)).chain(idle);
        others.chain(quarantines).min()
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
            // Where only a part of it hangs, the other parts have run.
            self.settle_batch(batch.number, outcome, &batch.replies.steps());
        }
        for key in self.empty_place(hung) {
            self.publish(&key);
            self.settle(&key);
            self.finish_unserved(&key);
            self.finish_unload(&key);
        }
        if let Some(batch) = &hung.batch {
            self.crashed(&batch.model, "an execution hung");
        }
        // Whoever is told also reads so in the report.
        self.answer_hung(hung, now);
    }

    /// What was on the thread that hangs is gone from there, and loaded again where that may help; which models these are.
    fn empty_place(&mut self, hung: &Hung) -> Vec<Arc<ModelVersionKey>> {
        let (place, loading) = (hung.place, hung.batch.is_none());
        let (mut touched, mut again) = (Vec::new(), Vec::new());
        // The thread keeps its instances until it ends.
        let mut kept = 0_u64;
        for (key, model) in &mut self.models {
            let Some(slot) = model.places.get_mut(place).filter(|slot| **slot != Place::Gone) else {
                continue;
            };
            touched.push(key.clone());
            if let Place::Ready(bytes) = slot {
                kept = kept.saturating_add(*bytes);
            }
            // A loader may still be at it: its instance then goes to the thread's successor.
            let being_loaded = *slot == Place::Loading && self.loads.is_loading(key);
            // What hung when it came to the thread would hang again.
            let failed = loading && *slot == Place::Loading && !being_loaded;
            let lost = matches!(*slot, Place::Ready(_)) || (*slot == Place::Loading && !failed && !being_loaded);
            if !being_loaded {
                *slot = Place::Gone;
            }
            if lost && hung.replaced && matches!(model.phase, Phase::Serving | Phase::Loading | Phase::Standby) {
                again.push(key.clone());
            } else if failed {
                model.failed = true;
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
        self.loads.lost.push((hung.link.clone(), kept));
        again.iter().for_each(|key| self.want(key, Rank::Hint));
        touched
    }

    /// An unloading model that no thread has any more cannot finish what waits for it.
    pub(crate) fn finish_unserved(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get(key) else { return };
        let served = model.ready_places().next().is_some() || model.is_loading();
        if model.phase == Phase::Unloading && !served {
            for item in self.delist(key) {
                item.payload.answer(Err(crate::models::not_here()));
            }
        }
    }

    /// A thread that stood still is there again: it gets the models that live on it.
    fn load_again(&mut self, place: usize) {
        let lacks = |model: &Model| model.phase == Phase::Serving && model.missing_places().contains(&place);
        let lacking = self.models.iter().filter(|(_, model)| lacks(model));
        for key in lacking.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.want(&key, Rank::Hint);
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
        if matches!(model.phase, Phase::Serving | Phase::Standby) {
            let fault = refusal(model.reason.as_deref(), cool_down);
            for item in self.pause(key, now + cool_down) {
                self.parts.thread.shared.books.lock().left(key, Left::Rejected);
                item.payload.answer(Err(fault.clone()));
            }
        }
        if !self.quarantined.contains(key) {
            self.quarantined.push(key.clone());
        }
        self.publish(key);
    }

    /// Whether a job may wait for a batch of its model; notes who uses it.
    pub(crate) fn admits(&mut self, job: &InferJob) -> Result<(), Fault> {
        let now = self.now();
        let model = self.models.get_mut(&job.version);
        let model = model.ok_or_else(crate::models::not_here)?;
        if model.spec.config.sequence_batching.is_some() && job.sequence.is_none() {
            return Err(not_in_sequence(&job.version.model));
        }
        let goes_on = job.sequence.as_ref().is_some_and(|step| !step.start);
        match model.state() {
            // Sequences may end; the scheduler knows which there are.
            ModelState::Unloading if goes_on => Ok(()),
            ModelState::Ready | ModelState::Standby | ModelState::Waking | ModelState::Quarantined => {
                match model.quarantine.enter(now) {
                    Entry::Open => Ok(()),
                    Entry::Shut(wait) => Err(refusal(model.reason.as_deref(), wait)),
                }
            }
            ModelState::Unavailable => Err(model.fault()),
            ModelState::Loading | ModelState::Unloading => Err(crate::models::not_here()),
        }
    }
}

fn refusal(reason: Option<&str>, wait: Duration) -> Fault {
    let text = reason.unwrap_or("the model is on probation after crashes in a row");
    let retry = if wait.is_zero() { Retry::Now } else { Retry::After(wait) };
    Fault::unavailable(FaultSource::Model, text.to_owned()).with_retry(retry)
}
