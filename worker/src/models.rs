//! The models of one device: where each stands, and what the threads have said of it.
//!
//! Owns the way of a model from being declared to serving, to standing by, to unloading and away. A model lives on the first
//! threads of its device, as many as it has instances; it serves once all of them have it, and as long as one has it. One
//! that stands by is not in memory, but takes jobs: they wait while it is loaded. Runs nothing and queues nothing; when what is
//! loaded is the business of `loading`, who gives way that of `standby`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_scheduler::Item;
use mesh_types::{Fault, FaultClass, FaultSource, ModelVersionKey, Retry};

use crate::{
    batch,
    device::{Answer, DeviceActor},
    loading::Rank,
    memory::REFRESH_AFTER,
    model::{Phase, Place, release},
    order::{BatchNews, News},
    report::ModelState,
    shared::Queued,
};

/// The most models on one device, those that stand by or failed to load included.
pub(crate) const MAX_MODELS: usize = 4_096;

/// The answer to a job for a model that a device does not have.
pub(crate) fn not_here() -> Fault {
    Fault::new(
        FaultClass::Unavailable,
        FaultSource::Device,
        "the model is not ready on this device",
    )
    .with_retry(Retry::Now)
}

impl DeviceActor {
    /// Takes no more jobs for the model; what was accepted is finished first.
    pub(crate) fn begin_unload(&mut self, key: &Arc<ModelVersionKey>, answer: Answer) {
        match self.models.get_mut(key) {
            Some(model) if model.phase == Phase::Unavailable => {
                model.answers.push(answer);
                self.forget(key);
            }
            Some(model) if model.phase == Phase::Loading && model.has(Place::Loading) => {
                let text = "the model is still loading";
                drop(answer.send(Err(Fault::unavailable(FaultSource::Model, text))));
            }
            Some(model) => {
                let fault = || Fault::unavailable(FaultSource::Model, "the model is being unloaded");
                let told = model
                    .replacing
                    .take()
                    .map(|replacing| replacing.answers)
                    .into_iter()
                    .flatten();
                told.chain(model.answers.drain(..))
                    .for_each(|told| drop(told.send(Err(fault()))));
                model.phase = Phase::Unloading;
                model.answers.push(answer);
                self.close_model(key);
                // What waits for it is still to be answered.
                if self.scheduler.waiting(key) == 0 {
                    self.forget_want(key);
                }
            }
            None => drop(answer.send(Ok(()))),
        }
    }

    /// Takes in what the threads and the loaders have to say.
    pub(crate) fn hear(&mut self) {
        self.hear_threads();
        self.hear_loaders();
    }

    /// Takes in what the threads have to say.
    pub(crate) fn hear_threads(&mut self) {
        while let Some(done) = self.parts.thread.shared.done.pop() {
            match self.crew.heard(done) {
                Some((_, News::Batch(news))) => self.hear_batch(&news),
                Some((place, News::Adopted { model, memory_bytes })) => self.hear_adopted(place, &model, memory_bytes),
                Some((place, News::Unloaded { model })) => self.hear_unloaded(place, &model),
                Some((_, News::Configured)) | None => {}
            }
        }
    }

    fn hear_batch(&mut self, news: &BatchNews) {
        tracing::trace!(model = %news.model, rows = news.rows, busy = ?news.busy, whole = ?news.whole, "batch done");
        if let Some(model) = self.models.get_mut(&news.model) {
            model.running = model.running.saturating_sub(1);
            model.learnt = true;
            let idle = model.running == 0 && self.scheduler.waiting(&news.model) == 0;
            self.loads.unblock_if(idle);
        }
        let now = self.now();
        self.memory.changed(now, REFRESH_AFTER);
        self.settle_news(news);
        self.judge(news);
        self.finish_unload(&news.model);
    }

    fn hear_adopted(&mut self, place: usize, key: &Arc<ModelVersionKey>, memory_bytes: u64) {
        let Some(model) = self.models.get_mut(key) else { return };
        // One that was told to leave meanwhile says so itself.
        let mut replaced = false;
        if let Some(slot @ (Place::Loading | Place::Ready(_))) = model.places.get_mut(place) {
            replaced = matches!(slot, Place::Ready(_));
            *slot = Place::Ready(memory_bytes);
        }
        if replaced {
            self.memory_freed();
        }
        // There may have to be more instances by now, or fewer.
        self.complete(key, Rank::Declared);
        self.settle(key);
        self.finish_unload(key);
    }

    fn hear_unloaded(&mut self, place: usize, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get_mut(key) else { return };
        // After a load that failed, the model may be loading again: that news is not about it.
        if let Some(slot @ Place::Leaving) = model.places.get_mut(place) {
            *slot = Place::Gone;
        }
        if !model.has(Place::Leaving) {
            model.places.truncate(model.instances);
            self.memory_freed();
            self.finish_unload(key);
        }
    }

    /// The model is gone from here: says so, then answers whoever asked for it.
    fn forget(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.remove(key) else { return };
        self.forget_wanted(model.want, key);
        self.forget_grace(key);
        self.parts.thread.shared.books.lock().close(key);
        self.publish(key);
        model.answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
    }

    /// Once every thread that should have the model has it, or its load has failed: serving, or unavailable with the reason.
    pub(crate) fn settle(&mut self, key: &Arc<ModelVersionKey>) {
        let now = self.now();
        let Some(model) = self.models.get_mut(key) else { return };
        let (loading, there) = (model.is_loading(), model.ready_places().next().is_some());
        match model.phase {
            // One that requests wait for serves as soon as one thread has it.
            Phase::Loading if loading => {
                self.publish(key);
                return;
            }
            Phase::Standby if loading && !there => {
                self.publish(key);
                return;
            }
            Phase::Loading if !model.failed || there => {
                model.phase = Phase::Serving;
                self.enlist(key);
            }
            Phase::Standby if there => model.phase = Phase::Serving,
            Phase::Standby if !model.failed => return,
            // One thread that has it is enough to serve on.
            Phase::Serving if loading || there => {}
            Phase::Loading | Phase::Serving | Phase::Standby => {
                self.lose(key);
                return;
            }
            Phase::Unloading | Phase::Unavailable => return,
        }
        let Some(model) = self.models.get_mut(key) else { return };
        let state = model.state();
        if state == ModelState::Ready {
            // Unless it tells why an instance is missing.
            model.reason = model.reason.take().filter(|_| model.failed);
            model.ready_since.get_or_insert(now);
            self.watch_idle(key, now);
        }
        // Whoever is told that it is ready also reads so in the report.
        self.publish(key);
        if let Some(model) = self.models.get_mut(key).filter(|_| state == ModelState::Ready) {
            let answers = std::mem::take(&mut model.answers);
            answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
        }
    }

    /// The scheduler takes requests for the model from now on, and knows what is known of its latency: what was learnt before,
    /// else what warm-up measured.
    pub(crate) fn enlist(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get(key) else { return };
        self.scheduler.add_model(key.clone(), model.rules.clone());
        let known = self.memory.of(key);
        for (shape, latency) in known {
            self.scheduler.restore(key, shape, latency.clone());
        }
        if known.is_empty() && !model.profile.sizes.is_empty() {
            let shape = batch::shape_of_zeros(&model.spec.config);
            self.scheduler.seed(key, &shape, &model.profile.sizes);
        }
    }

    /// A load has measured the model anew: the scheduler is told, if it has the model.
    pub(crate) fn teach(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get(key) else { return };
        if !self.scheduler.knows(key) {
            return;
        }
        // Fewer rows may fit than was thought.
        self.scheduler.add_model(key.clone(), model.rules.clone());
        let shape = batch::shape_of_zeros(&model.spec.config);
        if !model.profile.sizes.is_empty() && !self.scheduler.has_learnt(key, &shape) {
            self.scheduler.seed(key, &shape, &model.profile.sizes);
        }
    }

    /// What was learnt of the model was about another file.
    pub(crate) fn unlearn(&mut self, key: &Arc<ModelVersionKey>) {
        self.memory.forget(key);
        self.scheduler.unlearn(key);
    }

    /// The scheduler takes no more requests for the model; those waiting are given back.
    pub(crate) fn delist(&mut self, key: &Arc<ModelVersionKey>) -> Vec<Item<Queued>> {
        self.memory.learn(key, &self.scheduler);
        self.scheduler.remove_model(key)
    }

    /// The scheduler keeps the model from running until then; those waiting are given back.
    pub(crate) fn pause(&mut self, key: &Arc<ModelVersionKey>, until: Instant) -> Vec<Item<Queued>> {
        self.memory.learn(key, &self.scheduler);
        self.scheduler.pause_model(key, until)
    }

    /// The model is not to be had here: what waits for it is told why, and the threads that have it let go of it.
    pub(crate) fn lose(&mut self, key: &Arc<ModelVersionKey>) {
        let waiting = self.delist(key);
        let Some(model) = self.models.get_mut(key) else { return };
        let fault = model.fault();
        model.phase = Phase::Unavailable;
        (model.ready_since, model.progress) = (None, None);
        release(&mut self.crew, model, key);
        let mut answers = std::mem::take(&mut model.answers);
        answers.extend(
            model
                .replacing
                .take()
                .map(|replacing| replacing.answers)
                .into_iter()
                .flatten(),
        );
        self.forget_want(key);
        self.publish(key);
        waiting
            .into_iter()
            .for_each(|item| item.payload.answer(Err(fault.clone())));
        answers
            .into_iter()
            .for_each(|answer| drop(answer.send(Err(fault.clone()))));
    }

    /// Once everything accepted is done: tells the threads to let go of the model.
    pub(crate) fn finish_unload(&mut self, key: &Arc<ModelVersionKey>) {
        // Open sequences may end in their own time, or at the end of their grace.
        let waiting = self.scheduler.waiting(key) + self.scheduler.open_sequences(key);
        let Some(model) = self.models.get_mut(key) else { return };
        let moving = model.has(Place::Loading) || model.has(Place::Leaving);
        let busy = model.running > 0 || waiting > 0 || moving;
        if model.phase != Phase::Unloading || busy {
            return;
        }
        drop(self.delist(key));
        let Some(model) = self.models.get_mut(key) else { return };
        release(&mut self.crew, model, key);
        if !model.has(Place::Leaving) {
            self.forget(key);
        }
    }

    /// Brings one model's part of the report up to date: the others' may be many.
    pub(crate) fn publish(&self, key: &ModelVersionKey) {
        let now = self.models.get(key).map(|model| model.report(key));
        self.parts.report.send_if_modified(|report| {
            let place = report.models.binary_search_by(|known| known.key.cmp(key));
            let routes = match (place, now) {
                (Ok(place), Some(now)) => match report.models.get_mut(place) {
                    Some(known) if *known != now => !std::mem::replace(known, now).routes_as(known),
                    _ => return false,
                },
                (Err(place), Some(now)) => {
                    report.models.insert(place, now);
                    true
                }
                (Ok(place), None) => {
                    report.models.remove(place);
                    true
                }
                (Err(_), None) => return false,
            };
            report.routing = report.routing.wrapping_add(u64::from(routes));
            true
        });
    }

    /// How long one execution of a model may take.
    pub(crate) fn limit(&self, key: &ModelVersionKey) -> Duration {
        let spec = self.models.get(key).map(|model| &model.spec);
        spec.map_or(self.parts.thread.execution_timeout, |spec| {
            self.parts.thread.limit(spec)
        })
    }
}
