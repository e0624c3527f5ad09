//! What a device is told to have: models that are new, that have changed, and that come in another's place.
//!
//! A change of configuration that no load depends on is taken over at once. Another artifact is loaded beside the one that
//! serves, which goes only once the new one is ready; if that fails, it stays.

use std::sync::Arc;

use mesh_backend::LoadSpec;
use mesh_scheduler::Aborted;
use mesh_types::{Fault, FaultSource, LoadPolicy, ModelVersionKey};

use crate::{
    crew::MAX_THREADS,
    device::{Answer, DeviceActor},
    instances,
    loading::Rank,
    model::{Cost, Model, Phase, Place, Replacing},
    models::{MAX_MODELS, not_here},
    order::Order,
    quarantine::Quarantine,
    report::ModelState,
};

impl DeviceActor {
    /// The model is declared on this device from now on, or declared anew.
    pub(crate) fn load(&mut self, spec: &LoadSpec, answer: Option<Answer>) {
        let key = Arc::new(spec.key.clone());
        if self
            .models
            .get(&key)
            .is_some_and(|known| known.phase != Phase::Unavailable)
        {
            self.declare_again(&key, spec, answer);
            return;
        }
        if self.models.len() >= MAX_MODELS && !self.models.contains_key(&key) {
            let text = format!("the device has {MAX_MODELS} models; unload one first");
            answer.map(|answer| answer.send(Err(Fault::unavailable(FaultSource::Device, text))));
            return;
        }
        let instances = self.make_places(spec);
        let mut model = Model::new(spec.clone(), self.parts.queue, instances);
        model.answers.extend(answer);
        self.foresee(&mut model);
        self.parts.thread.shared.books.lock().open(&key);
        let refused = self.refuses(&model);
        let on_demand = spec.config.residency().load == LoadPolicy::OnDemand;
        if refused.is_none() && !on_demand {
            model.phase = Phase::Loading;
        }
        self.models.insert(key.clone(), model);
        if let Some(reason) = refused {
            self.fail_load(&key, reason);
        } else if on_demand {
            self.stand_by(&key, "loaded on demand: no request has come yet".to_owned());
        } else {
            self.want(&key, Rank::Declared);
            self.pump();
            self.publish(&key);
        }
    }

    /// What the model will cost: what a load of it has cost before, else what its file says.
    fn foresee(&self, model: &mut Model) {
        if let Some(known) = self.memory.cost(&model.spec) {
            model.cost = Cost {
                weights: known.weights,
                load: known.load,
                known: true,
            };
            model.profile.peak = known.peak;
        } else {
            model.cost.weights = self.parts.thread.estimate(&model.spec);
        }
    }

    /// So many threads as the model has instances; how many these are.
    pub(crate) fn make_places(&mut self, spec: &LoadSpec) -> usize {
        let device = self.parts.thread.shared.device;
        let threads = usize::from(self.parts.threads.max(1));
        let instances = instances::on(device, threads, &spec.config);
        self.crew.grow(instances.min(MAX_THREADS.max(threads)));
        self.scheduler.set_slots(self.crew.places());
        instances
    }

    /// The device knows the model: what has changed about it is taken over.
    fn declare_again(&mut self, key: &Arc<ModelVersionKey>, spec: &LoadSpec, answer: Option<Answer>) {
        let Some(known) = self.models.get_mut(key) else { return };
        let newest = known
            .replacing
            .as_ref()
            .map_or(&known.spec, |replacing| &replacing.spec);
        let same = newest.artifact == spec.artifact && newest.format == spec.format;
        if !same || !newest.config.loads_as(&spec.config) {
            self.replace(key, spec, answer);
            return;
        }
        if newest.config != spec.config {
            self.reconfigure(key, spec);
        }
        let Some(known) = self.models.get_mut(key) else { return };
        if let Some(replacing) = &mut known.replacing {
            replacing.answers.extend(answer);
            return;
        }
        let Some(answer) = answer else { return };
        match known.state() {
            ModelState::Loading => known.answers.push(answer),
            ModelState::Ready | ModelState::Standby | ModelState::Waking => drop(answer.send(Ok(()))),
            ModelState::Quarantined => drop(answer.send(Err(known.fault()))),
            ModelState::Unloading | ModelState::Unavailable => drop(answer.send(Err(not_here()))),
        }
    }

    /// What changes without a load: how requests wait, how many instances there are, when it is in memory.
    fn reconfigure(&mut self, key: &Arc<ModelVersionKey>, spec: &LoadSpec) {
        let instances = self.make_places(spec);
        let (now, queue) = (self.now(), self.parts.queue);
        let Some(model) = self.models.get_mut(key) else { return };
        if let Some(replacing) = &mut model.replacing {
            // The one that comes is of this configuration; the one that is there keeps its own until then.
            replacing.spec = spec.clone();
            return;
        }
        model.spec = spec.clone();
        model.apply_rules(queue);
        model.instances = instances;
        if model.places.len() < instances {
            model.places.resize(instances, Place::Gone);
        }
        for place in model.ready_places().take_while(|place| *place < instances) {
            self.crew.tell(place, Order::Configure(key.clone(), spec.clone()));
        }
        self.let_go_of_more(key);
        let Some(model) = self.models.get(key) else { return };
        let short = model.phase == Phase::Serving && !model.missing_places().is_empty();
        let enlisted = matches!(model.phase, Phase::Serving | Phase::Standby) && model.quarantine.until().is_none();
        let rules = model.rules.clone();
        if enlisted {
            self.scheduler.add_model(key.clone(), rules);
        }
        if short {
            self.want(key, Rank::Hint);
        }
        self.watch_idle(key, now);
        self.publish(key);
    }

    /// Threads that have an instance more than there should be let go of it.
    pub(crate) fn let_go_of_more(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.get_mut(key) else { return };
        for (place, slot) in model.places.iter_mut().enumerate().skip(model.instances) {
            if matches!(slot, Place::Ready(_)) {
                let told = self.crew.tell(place, Order::Unload(key.clone()));
                *slot = if told { Place::Leaving } else { Place::Gone };
            }
        }
    }

    /// Another artifact for the same version: it is loaded beside the one that is there and takes its place, or does not.
    fn replace(&mut self, key: &Arc<ModelVersionKey>, spec: &LoadSpec, answer: Option<Answer>) {
        let Some(model) = self.models.get_mut(key) else { return };
        if !matches!(model.phase, Phase::Serving | Phase::Standby) {
            answer.map(|answer| answer.send(Err(not_here())));
            return;
        }
        let mut answers: Vec<Answer> = answer.into_iter().collect();
        if let Some(former) = model.replacing.take() {
            answers.extend(former.answers);
        }
        model.replacing = Some(Replacing {
            spec: spec.clone(),
            answers,
        });
        if model.phase == Phase::Standby && !model.is_there() {
            self.take_replacement(key);
            return;
        }
        self.want(key, Rank::Replace);
        self.pump();
        self.publish(key);
    }

    /// Nothing of the model is in memory: what is to take its place does so at once, and is loaded when the model would be.
    pub(crate) fn take_replacement(&mut self, key: &Arc<ModelVersionKey>) {
        let queue = self.parts.queue;
        let Some(model) = self.models.get_mut(key) else { return };
        let Some(Replacing { spec, answers }) = model.replacing.take() else {
            return;
        };
        let mut fresh = Model::new(spec, queue, model.instances);
        self.foresee(&mut fresh);
        let instances = self.make_places(&fresh.spec);
        let Some(model) = self.models.get_mut(key) else { return };
        (model.spec, model.cost, model.profile) = (fresh.spec, fresh.cost, fresh.profile);
        (model.quarantine, model.failed) = (Quarantine::default(), false);
        model.instances = instances;
        model.places.resize(model.places.len().max(instances), Place::Gone);
        model.apply_rules(queue);
        model.answers.extend(answers);
        // What the former one was given says nothing to this one.
        self.scheduler.abort_sequences(key, Aborted::Lost);
        self.unlearn(key);
        if let Some(reason) = self.models.get(key).and_then(|model| self.refuses(model)) {
            self.fail_load(key, reason);
            return;
        }
        let Some(model) = self.models.get_mut(key) else { return };
        match model.phase {
            Phase::Standby => {
                let answers = std::mem::take(&mut model.answers);
                self.enlist(key);
                answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
                if self.scheduler.waiting(key) > 0 {
                    self.demand(key);
                }
            }
            Phase::Loading => self.want(key, Rank::Declared),
            Phase::Serving => {
                self.enlist(key);
                self.want(key, Rank::Hint);
            }
            Phase::Unloading | Phase::Unavailable => {}
        }
        self.publish(key);
    }
}
