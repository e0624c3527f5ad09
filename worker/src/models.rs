//! The models of one device: where each stands, and what the threads have said of it.
//!
//! Owns the way of a model from loading to ready, to unloading and away. Runs nothing and queues nothing.

use std::sync::Arc;

use mesh_backend::LoadSpec;
use mesh_scheduler::BatchRules;
use mesh_types::{Fault, FaultClass, FaultSource, ModelVersionKey};

use crate::{
    device::{Answer, DeviceActor},
    report::{DeviceReport, ModelReport, ModelState},
    shared::News,
    thread::{Order, not_here},
};

#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) rules: BatchRules,
    pub(crate) state: ModelState,
    pub(crate) reason: Option<String>,
    pub(crate) memory_bytes: u64,
    /// Threads that have not said yet whether they loaded or unloaded it.
    pub(crate) outstanding: usize,
    /// Batches given to threads and not yet done.
    pub(crate) running: usize,
    pub(crate) answers: Vec<Answer>,
}

impl DeviceActor {
    pub(crate) fn load(&mut self, spec: &LoadSpec, answer: Option<Answer>) {
        let key = Arc::new(spec.key.clone());
        if let Some(known) = self
            .models
            .get_mut(&key)
            .filter(|known| known.state != ModelState::Unavailable)
        {
            match (answer, known.state) {
                (Some(answer), ModelState::Loading) => known.answers.push(answer),
                (Some(answer), ModelState::Ready) => drop(answer.send(Ok(()))),
                (Some(answer), _) => drop(answer.send(Err(not_here()))),
                (None, _) => {}
            }
            return;
        }
        let rules = BatchRules::of(&spec.config, self.parts.queue);
        let mut model = Model {
            rules,
            state: ModelState::Loading,
            reason: None,
            memory_bytes: 0,
            outstanding: 0,
            running: 0,
            answers: answer.into_iter().collect(),
        };
        for thread in &mut self.threads {
            match thread.order(Order::Load(key.clone(), spec.clone())) {
                Ok(()) => model.outstanding += 1,
                Err(_) => model.reason = Some("too many loads and unloads are under way; try again".to_owned()),
            }
        }
        if self.threads.is_empty() {
            model.reason = Some("the device has no threads".to_owned());
        }
        self.models.insert(key.clone(), model);
        self.settle(&key);
        self.publish();
    }

    /// Takes no more jobs for the model; what was accepted is finished first.
    pub(crate) fn begin_unload(&mut self, key: &Arc<ModelVersionKey>, answer: Answer) {
        match self.models.get_mut(key) {
            Some(model) if model.state == ModelState::Unavailable => {
                model.answers.push(answer);
                self.forget(key);
            }
            Some(model) if model.state == ModelState::Loading => {
                drop(answer.send(Err(Fault::unavailable(
                    FaultSource::Model,
                    "the model is still loading",
                ))));
            }
            Some(model) => {
                model.state = ModelState::Unloading;
                model.answers.push(answer);
            }
            None => drop(answer.send(Ok(()))),
        }
    }

    /// Takes in what the threads have to say.
    pub(crate) fn hear(&mut self) {
        while let Some(done) = self.parts.thread.shared.done.pop() {
            if let Some(thread) = self.threads.get_mut(done.thread) {
                thread.heard();
                if matches!(done.news, News::Batch { .. }) {
                    thread.in_flight = thread.in_flight.saturating_sub(1);
                }
            }
            match done.news {
                News::Batch { model } => {
                    if let Some(model) = self.models.get_mut(&model) {
                        model.running = model.running.saturating_sub(1);
                    }
                    self.finish_unload(&model);
                }
                News::Loaded { model, result } => {
                    if let Some(known) = self.models.get_mut(&model) {
                        known.outstanding = known.outstanding.saturating_sub(1);
                        match result {
                            Ok(memory) => known.memory_bytes += memory,
                            Err(fault) => known.reason = Some(fault.message.into_owned()),
                        }
                    }
                    self.settle(&model);
                }
                News::Unloaded { model } => {
                    // After a load that failed, the model may be loading again: that news is not about it.
                    let unloading = |known: &&mut Model| known.state == ModelState::Unloading;
                    let gone = self.models.get_mut(&model).filter(unloading).is_some_and(|known| {
                        known.outstanding = known.outstanding.saturating_sub(1);
                        known.outstanding == 0
                    });
                    if gone {
                        self.forget(&model);
                    }
                }
            }
        }
    }

    /// The model is gone from here: says so, then answers whoever asked for it.
    pub(crate) fn forget(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.remove(key) else { return };
        self.publish();
        model.answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
    }

    /// Once every thread has said whether it loaded the model: ready, or unavailable with the reason.
    pub(crate) fn settle(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get_mut(key) else { return };
        if model.outstanding > 0 || model.state != ModelState::Loading {
            return;
        }
        let answers = std::mem::take(&mut model.answers);
        let result = match &model.reason {
            None => {
                model.state = ModelState::Ready;
                self.scheduler.add_model(key.clone(), model.rules.clone());
                Ok(())
            }
            Some(reason) => {
                model.state = ModelState::Unavailable;
                self.threads
                    .iter_mut()
                    .for_each(|thread| drop(thread.order(Order::Unload(key.clone()))));
                Err(Fault::new(FaultClass::Unavailable, FaultSource::Model, reason.clone()))
            }
        };
        // Whoever is told that it is ready also reads so in the report.
        self.publish();
        answers.into_iter().for_each(|answer| drop(answer.send(result.clone())));
    }

    /// Once everything accepted is done: tells the threads to let go of the model.
    pub(crate) fn finish_unload(&mut self, key: &Arc<ModelVersionKey>) {
        let waiting = self.scheduler.waiting(key);
        let Some(model) = self.models.get_mut(key) else { return };
        if model.state != ModelState::Unloading || model.running > 0 || waiting > 0 || model.outstanding > 0 {
            return;
        }
        drop(self.scheduler.remove_model(key));
        let told = self
            .threads
            .iter_mut()
            .filter_map(|thread| thread.order(Order::Unload(key.clone())).ok())
            .count();
        model.outstanding = told;
        if told == 0 {
            self.forget(key);
        }
    }

    pub(crate) fn publish(&self) {
        let models = self.models.iter().map(|(key, model)| ModelReport {
            key: ModelVersionKey::clone(key),
            state: model.state,
            reason: model.reason.clone(),
            memory_bytes: model.memory_bytes,
        });
        self.parts.report.send_replace(DeviceReport {
            device: self.parts.thread.shared.device,
            models: models.collect(),
        });
    }
}
