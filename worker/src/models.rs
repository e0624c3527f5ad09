//! The models of one device: where each stands, and what the threads have said of it.
//!
//! Owns the way of a model from loading to serving, to unloading and away. A model lives on the first threads of its
//! device, as many as it has instances; it takes jobs once all of them have loaded it, and as long as one has it. Runs
//! nothing and queues nothing.

use std::{sync::Arc, time::Duration};

use mesh_backend::LoadSpec;
use mesh_scheduler::{BatchRules, Item};
use mesh_types::{Fault, FaultClass, FaultSource, LoadReport, ModelVersionKey, Retry, SequenceBatching};

use crate::{
    batch,
    crew::MAX_THREADS,
    device::{Answer, DeviceActor},
    instances,
    order::{BatchNews, LoadedNews, News, Order, Profile},
    quarantine::Quarantine,
    report::{DeviceReport, ModelReport, ModelState},
    shared::Queued,
};

/// The most models on one device, those that failed to load included.
pub(crate) const MAX_MODELS: usize = 1_024;

/// What one thread has of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Ordered to load it.
    Loading,
    /// Has it; it takes so many bytes there.
    Ready(u64),
    /// Ordered to let go of it.
    Leaving,
    /// Does not have it.
    Gone,
}

/// Where a model is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Being loaded for the first time.
    Loading,
    /// Has been loaded everywhere; some threads may be loading it again.
    Serving,
    /// What was accepted is being finished.
    Unloading,
    /// Did not load, or has been lost.
    Unavailable,
}

/// One model.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) spec: LoadSpec,
    pub(crate) rules: BatchRules,
    pub(crate) phase: Phase,
    /// By thread.
    pub(crate) places: Vec<Place>,
    pub(crate) reason: Option<String>,
    pub(crate) quarantine: Quarantine,
    /// Whether answers leave in the order in which a tenant's requests were put into batches.
    pub(crate) ordered: bool,
    /// Whether inputs may be left out, or are one value for a whole batch.
    pub(crate) particular: bool,
    profile: Profile,
    report: LoadReport,
    /// Batches given to threads and not yet done.
    pub(crate) running: usize,
    answers: Vec<Answer>,
}

impl Model {
    pub(crate) fn state(&self) -> ModelState {
        match self.phase {
            Phase::Loading => ModelState::Loading,
            Phase::Serving if self.quarantine.until().is_some() => ModelState::Quarantined,
            Phase::Serving if self.ready_places().next().is_none() => ModelState::Loading,
            Phase::Serving => ModelState::Ready,
            Phase::Unloading => ModelState::Unloading,
            Phase::Unavailable => ModelState::Unavailable,
        }
    }

    /// The threads that have it.
    pub(crate) fn ready_places(&self) -> impl Iterator<Item = usize> {
        let ready = |(index, place): (usize, &Place)| matches!(place, Place::Ready(_)).then_some(index);
        self.places.iter().enumerate().filter_map(ready)
    }

    /// Whether the thread at this place has it.
    pub(crate) fn is_ready_on(&self, place: usize) -> bool {
        matches!(self.places.get(place), Some(Place::Ready(_)))
    }

    pub(crate) fn has(&self, wanted: Place) -> bool {
        self.places.contains(&wanted)
    }

    fn memory_bytes(&self) -> u64 {
        let bytes = |place: &Place| if let Place::Ready(bytes) = place { *bytes } else { 0 };
        self.places.iter().map(bytes).sum()
    }

    /// Warm-up at so many rows found no memory: batches have at most half as many.
    fn lower(&mut self, oom_rows: u32) {
        let fits = (oom_rows / 2).max(1);
        self.rules.max_rows = self.rules.max_rows.min(fits);
        self.rules.preferred.retain(|size| *size <= fits);
    }
}

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
    pub(crate) fn load(&mut self, spec: &LoadSpec, answer: Option<Answer>) {
        let key = Arc::new(spec.key.clone());
        let unavailable = |known: &&mut Model| known.phase != Phase::Unavailable;
        if let Some(known) = self.models.get_mut(&key).filter(unavailable) {
            let fault = || Fault::unavailable(FaultSource::Model, known.reason.clone().unwrap_or_default());
            match (answer, known.state()) {
                (Some(answer), ModelState::Loading) => known.answers.push(answer),
                (Some(answer), ModelState::Ready) => drop(answer.send(Ok(()))),
                (Some(answer), ModelState::Quarantined) => drop(answer.send(Err(fault()))),
                (Some(answer), _) => drop(answer.send(Err(not_here()))),
                (None, _) => {}
            }
            return;
        }
        if self.models.len() >= MAX_MODELS && !self.models.contains_key(&key) {
            let text = format!("the device has {MAX_MODELS} models; unload one first");
            answer.map(|answer| answer.send(Err(Fault::unavailable(FaultSource::Device, text))));
            return;
        }
        let device = self.parts.thread.shared.device;
        let threads = usize::from(self.parts.threads.max(1));
        let instances = instances::on(device, threads, &spec.config);
        self.crew.grow(instances.min(MAX_THREADS.max(threads)));
        self.scheduler.set_slots(self.crew.places());
        let mut model = Model {
            rules: BatchRules::of(&spec.config, self.parts.queue),
            spec: spec.clone(),
            phase: Phase::Loading,
            places: vec![Place::Gone; instances],
            reason: None,
            quarantine: Quarantine::default(),
            ordered: spec
                .config
                .dynamic_batching
                .as_ref()
                .is_some_and(|batching| batching.preserve_ordering)
                || spec.config.sequence_batching.as_ref().is_some_and(keeps_order),
            particular: spec.config.input.iter().any(|spec| spec.optional || spec.unbatched),
            profile: Profile::default(),
            report: LoadReport::default(),
            running: 0,
            answers: answer.into_iter().collect(),
        };
        for (index, place) in model.places.iter_mut().enumerate() {
            if self.crew.load(index, Order::Load(key.clone(), spec.clone())) {
                *place = Place::Loading;
            } else if self.crew.is_manned(index) {
                model.reason = Some("too many loads and unloads are under way; try again".to_owned());
            } else {
                model.reason = Some("the device has lost too many threads to executions that hang".to_owned());
            }
        }
        self.parts.thread.shared.books.lock().open(&key);
        self.models.insert(key.clone(), model);
        self.settle(&key);
        self.publish();
    }

    /// Takes no more jobs for the model; what was accepted is finished first.
    pub(crate) fn begin_unload(&mut self, key: &Arc<ModelVersionKey>, answer: Answer) {
        match self.models.get_mut(key) {
            Some(model) if model.phase == Phase::Unavailable => {
                model.answers.push(answer);
                self.forget(key);
            }
            Some(model) if model.phase == Phase::Loading => {
                let text = "the model is still loading";
                drop(answer.send(Err(Fault::unavailable(FaultSource::Model, text))));
            }
            Some(model) => {
                model.phase = Phase::Unloading;
                model.answers.push(answer);
                self.close_model(key);
            }
            None => drop(answer.send(Ok(()))),
        }
    }

    /// Takes in what the threads have to say.
    pub(crate) fn hear(&mut self) {
        while let Some(done) = self.parts.thread.shared.done.pop() {
            match self.crew.heard(done) {
                Some((_, News::Batch(news))) => self.hear_batch(&news),
                Some((place, News::Loaded { model, result })) => self.hear_loaded(place, &model, result),
                Some((place, News::Unloaded { model })) => self.hear_unloaded(place, &model),
                None => {}
            }
        }
    }

    fn hear_batch(&mut self, news: &BatchNews) {
        tracing::trace!(model = %news.model, rows = news.rows, busy = ?news.busy, whole = ?news.whole, "batch done");
        if let Some(model) = self.models.get_mut(&news.model) {
            model.running = model.running.saturating_sub(1);
        }
        self.settle_news(news);
        self.judge(news);
        self.finish_unload(&news.model);
    }

    fn hear_loaded(&mut self, place: usize, key: &Arc<ModelVersionKey>, result: Result<LoadedNews, Fault>) {
        let Some(model) = self.models.get_mut(key) else { return };
        let Some(slot) = model.places.get_mut(place) else {
            return;
        };
        match result {
            Ok(news) => {
                *slot = Place::Ready(news.memory_bytes);
                if let Some(rows) = news.profile.oom_rows {
                    model.lower(rows);
                }
                if model.profile.sizes.is_empty() {
                    model.profile = news.profile;
                }
                if model.report.runtime.is_empty() {
                    model.report = news.report;
                }
            }
            Err(fault) => {
                *slot = Place::Gone;
                tracing::warn!(model = %key, place, %fault, "a model does not load");
                model.reason = Some(fault.message.into_owned());
            }
        }
        self.settle(key);
        self.finish_unload(key);
    }

    fn hear_unloaded(&mut self, place: usize, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get_mut(key) else { return };
        // After a load that failed, the model may be loading again: that news is not about it.
        if let Some(slot @ Place::Leaving) = model.places.get_mut(place) {
            *slot = Place::Gone;
        }
        if model.phase == Phase::Unloading && !model.has(Place::Leaving) {
            self.finish_unload(key);
        }
    }

    /// The model is gone from here: says so, then answers whoever asked for it.
    fn forget(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.remove(key) else { return };
        self.parts.thread.shared.books.lock().close(key);
        self.publish();
        model.answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
    }

    /// Once every thread has said whether it loaded the model: serving, or unavailable with the reason.
    pub(crate) fn settle(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get_mut(key) else { return };
        let loading = model.has(Place::Loading);
        match model.phase {
            Phase::Loading if loading => return,
            Phase::Loading if model.reason.is_none() => {
                model.phase = Phase::Serving;
                self.enlist(key);
            }
            // One thread that has it is enough to serve on.
            Phase::Serving if loading || model.ready_places().next().is_some() => {}
            Phase::Loading | Phase::Serving => {
                self.lose(key);
                return;
            }
            Phase::Unloading | Phase::Unavailable => return,
        }
        let Some(model) = self.models.get_mut(key) else { return };
        let state = model.state();
        if state == ModelState::Ready {
            model.reason = None;
        }
        // Whoever is told that it is ready also reads so in the report.
        self.publish();
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

    /// The scheduler takes no more requests for the model; those waiting are given back.
    pub(crate) fn delist(&mut self, key: &Arc<ModelVersionKey>) -> Vec<Item<Queued>> {
        self.memory.learn(key, &self.scheduler);
        self.scheduler.remove_model(key)
    }

    /// The model is not to be had here: what waits for it is answered, and the threads that have it let go of it.
    fn lose(&mut self, key: &Arc<ModelVersionKey>) {
        for item in self.delist(key) {
            item.payload.answer(Err(not_here()));
        }
        let Some(model) = self.models.get_mut(key) else { return };
        model.phase = Phase::Unavailable;
        release(&mut self.crew, model, key);
        let (answers, reason) = (std::mem::take(&mut model.answers), model.reason.clone());
        let fault = Fault::new(
            FaultClass::Unavailable,
            FaultSource::Model,
            reason.unwrap_or_else(|| "the model is not there".to_owned()),
        );
        self.publish();
        answers
            .into_iter()
            .for_each(|answer| drop(answer.send(Err(fault.clone()))));
    }

    /// Once everything accepted is done: tells the threads to let go of the model.
    pub(crate) fn finish_unload(&mut self, key: &Arc<ModelVersionKey>) {
        // Open sequences may end in their own time, or at the end of their grace.
        let waiting = self.scheduler.waiting(key) + self.scheduler.open_sequences(key);
        let Some(model) = self.models.get_mut(key) else { return };
        let busy = model.running > 0 || waiting > 0 || model.has(Place::Loading) || model.has(Place::Leaving);
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

    pub(crate) fn publish(&self) {
        let models = self.models.iter().map(|(key, model)| ModelReport {
            key: ModelVersionKey::clone(key),
            state: model.state(),
            reason: model.reason.clone(),
            memory_bytes: model.memory_bytes(),
            warm_up: model.profile.sizes.clone(),
            load: model.report.clone(),
        });
        self.parts.report.send_replace(DeviceReport {
            device: self.parts.thread.shared.device,
            draining: self.parts.thread.shared.is_draining(),
            models: models.collect(),
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

fn keeps_order(sequence: &SequenceBatching) -> bool {
    sequence.oldest.as_ref().is_some_and(|oldest| oldest.preserve_ordering)
}

/// Orders every thread that has the model to let go of it.
fn release(crew: &mut crate::crew::Crew, model: &mut Model, key: &Arc<ModelVersionKey>) {
    for (index, place) in model.places.iter_mut().enumerate() {
        if matches!(place, Place::Ready(_)) {
            *place = if crew.unload(index, key) {
                Place::Leaving
            } else {
                Place::Gone
            };
        }
    }
}
