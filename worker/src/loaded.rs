//! What loaders bring: warm instances go to their threads, another artifact takes its place, and failures are told.
//!
//! A load that hangs is given up like a hung device thread; a loader that is gone without a word counts as failed.

use std::{sync::Arc, time::Instant};

use mesh_backend::LoadSpec;
use mesh_scheduler::Aborted;
use mesh_types::{Fault, FaultSource, ModelVersionKey};

use crate::{
    device::DeviceActor,
    loader::{self, Loaded, Prepared},
    loading::{Active, NO_ROOM_YET, Rank, SHORT_TOUCH},
    memory::{KnownCost, WRITE_AFTER},
    model::{Cost, Phase, Place, Replacing},
    order::{Handed, Order, Profile},
    quarantine::Quarantine,
};

impl DeviceActor {
    /// Takes in what loaders bring, and how far they are.
    pub(crate) fn hear_loaders(&mut self) {
        // Asked before the news is taken in: whoever has ended by now has said by now what it had to say.
        let ended: Vec<u64> = self
            .loads
            .active
            .iter()
            .filter(|active| !active.running.link.is_running())
            .map(|active| active.id)
            .collect();
        while let Some(Loaded { id, result }) = self.parts.thread.shared.loaded.pop() {
            if let Some(active) = self.take_active(id) {
                self.over(active, result);
            }
        }
        for id in ended {
            if let Some(active) = self.take_active(id) {
                let fault = Fault::internal("the thread that loaded the model ended by itself");
                self.over(active, Err(fault));
            }
        }
        let progress = self
            .loads
            .active
            .iter()
            .map(|active| (active.key.clone(), active.running.progress.lock().clone()));
        for (key, progress) in progress.collect::<Vec<_>>() {
            if let Some(model) = self
                .models
                .get_mut(&key)
                .filter(|model| model.progress.as_ref() != Some(&progress))
            {
                model.progress = Some(progress);
                self.publish(&key);
            }
        }
    }

    fn take_active(&mut self, id: u64) -> Option<Active> {
        let position = self.loads.active.iter().position(|active| active.id == id)?;
        self.loads.unblock();
        Some(self.loads.active.swap_remove(position))
    }

    /// Gives up the loads that take too long.
    pub(crate) fn watch_loaders(&mut self, now: Instant) {
        let hung = self.loads.active.iter().filter(|active| {
            let running = &active.running;
            let given_up = running.link.pulse.give_up_overdue(now, || running.give_up());
            given_up.is_some()
        });
        for id in hung.map(|active| active.id).collect::<Vec<_>>() {
            if let Some(active) = self.take_active(id) {
                tracing::error!(model = %active.key, "a load takes too long: its thread is given up");
                self.over(active, Err(Fault::internal("loading took too long")));
            }
        }
    }

    /// A load is over, one way or the other.
    fn over(&mut self, active: Active, result: Result<Prepared, Fault>) {
        let Active {
            key,
            places,
            replacing,
            rank,
            yields,
            ..
        } = active;
        let Some(model) = self.models.get_mut(&key) else {
            // Unloaded meanwhile: what was brought goes where nobody waits for it.
            self.discard(result);
            return;
        };
        model.progress = None;
        match (replacing, result) {
            (Some(loaded), result) => self.replaced(&key, &places, &loaded, result),
            (None, result) => {
                let loading = |place: &&usize| model.places.get(**place) == Some(&Place::Loading);
                let places: Vec<usize> = places.iter().filter(loading).copied().collect();
                self.brought(&key, &places, result, (rank, yields));
            }
        }
        if self.models.get(&key).is_some_and(|model| model.replacing.is_some()) {
            self.want(&key, Rank::Replace);
        }
        // Requests that came while it was being loaded have asked for nothing.
        if self.scheduler.waiting(&key) > 0 {
            self.demand(&key);
        }
        self.finish_unload(&key);
    }

    /// Has the instances loaded that the model should have and has not, by what is known of it now, and lets go of others.
    pub(crate) fn complete(&mut self, key: &Arc<ModelVersionKey>, rank: Rank) {
        let Some(spec) = self.models.get(key).map(|model| model.spec.clone()) else {
            return;
        };
        let instances = self.make_places(&spec);
        let Some(model) = self.models.get_mut(key) else { return };
        model.instances = instances;
        if model.places.len() < instances {
            model.places.resize(instances, Place::Gone);
        }
        let first = model.phase == Phase::Loading;
        let belongs = first || matches!(model.phase, Phase::Serving | Phase::Standby);
        if belongs && !model.failed && !model.missing_places().is_empty() {
            self.want(key, if first { rank } else { Rank::Hint });
        }
        self.let_go_of_more(key);
    }

    /// A load for missing instances is over.
    fn brought(
        &mut self,
        key: &Arc<ModelVersionKey>,
        places: &[usize],
        result: Result<Prepared, Fault>,
        (rank, yields): (Rank, bool),
    ) {
        match result {
            Ok(prepared) => self.hand_over(key, places, prepared, (rank, yields)),
            Err(fault) => {
                self.parts.thread.shared.books.lock().load_failed(key);
                places.iter().for_each(|place| self.vacate(key, *place));
                tracing::warn!(model = %key, %fault, "a model does not load");
                self.fail_load(key, fault.message.into_owned());
            }
        }
    }

    pub(crate) fn vacate(&mut self, key: &Arc<ModelVersionKey>, place: usize) {
        let model = self.models.get_mut(key);
        if let Some(slot @ Place::Loading) = model.and_then(|model| model.places.get_mut(place)) {
            *slot = Place::Gone;
        }
    }

    fn discard(&mut self, result: Result<Prepared, Fault>) {
        let Ok(prepared) = result else { return };
        self.loads.freed = false;
        if let Err(error) = loader::release(self.parts.thread.clone(), prepared.instances) {
            tracing::warn!(%error, "what was loaded in vain goes on the device actor's thread");
        }
    }

    /// What a load has shown of the model.
    fn measured(&mut self, key: &Arc<ModelVersionKey>, prepared: &Prepared) {
        let Some(model) = self.models.get_mut(key) else { return };
        let weights = prepared.instances.iter().map(|instance| instance.memory_bytes());
        model.cost = Cost {
            weights: weights.max().unwrap_or_default(),
            known: true,
            load: prepared.took,
        };
        if let Some(rows) = prepared.profile.oom_rows {
            model.lower(rows);
        }
        model.profile = prepared.profile.clone();
        model.learnt = true;
        let first = prepared.instances.first();
        model.runtime = first.map(|instance| instance.report()).unwrap_or_default();
        let known = KnownCost::new(&model.spec, model.cost.weights, model.profile.peak, prepared.took);
        self.memory.learn_cost(key, known);
        let now = self.now();
        self.memory.changed(now, WRITE_AFTER);
        self.teach(key);
        self.parts.thread.shared.books.lock().loaded(key, prepared.took);
    }

    /// Whether there is no place for the model after all, now that its size is known; then it is seen to.
    fn is_unwelcome(&mut self, key: &Arc<ModelVersionKey>, places: &[usize], yields: bool) -> bool {
        let Some(model) = self.models.get(key) else { return true };
        let refused = self.refuses(model);
        // Nobody has asked for it yet: what is there is not sent away for its sake.
        let unneeded = yields && model.phase == Phase::Loading && !self.fits_all();
        if refused.is_none() && !unneeded {
            return false;
        }
        places.iter().for_each(|place| self.vacate(key, *place));
        match refused {
            Some(reason) => self.fail_load(key, reason),
            None => self.stand_by(key, NO_ROOM_YET.to_owned()),
        }
        true
    }

    /// Warm instances go to their threads.
    fn hand_over(
        &mut self,
        key: &Arc<ModelVersionKey>,
        places: &[usize],
        prepared: Prepared,
        (rank, yields): (Rank, bool),
    ) {
        self.measured(key, &prepared);
        if self.is_unwelcome(key, places, yields) {
            self.discard(Ok(prepared));
            return;
        }
        let quick = prepared
            .profile
            .sizes
            .first()
            .is_some_and(|(_, took)| *took < SHORT_TOUCH);
        let instances = prepared.instances;
        let mut handed = instances.into_iter();
        for place in places {
            let Some(model) = self.models.get_mut(key) else { return };
            let Some(instance) = handed.next() else { break };
            let order = Handed {
                spec: model.spec.clone(),
                model: instance,
                touch: quick.then_some(1),
            };
            if !self.crew.tell(*place, Order::Adopt(key.clone(), order)) {
                if let Some(slot) = model.places.get_mut(*place) {
                    *slot = Place::Gone;
                }
                model.failed = true;
                model.reason = Some("the device has lost too many threads to executions that hang".to_owned());
            }
        }
        self.complete(key, rank);
        self.settle(key);
        self.make_good(key);
    }

    /// Another artifact is ready, or is not: then the one that is there stays.
    fn replaced(
        &mut self,
        key: &Arc<ModelVersionKey>,
        places: &[usize],
        loaded: &LoadSpec,
        result: Result<Prepared, Fault>,
    ) {
        let Some(model) = self.models.get_mut(key) else { return };
        // Another one has been asked for meanwhile, or none any more: this one is of no use.
        let current = |replacing: &&mut Replacing| {
            loaded.artifact == replacing.spec.artifact && loaded.config.loads_as(&replacing.spec.config)
        };
        let wanted = model.replacing.as_mut().filter(current).is_some();
        let fitting = wanted && model.phase != Phase::Unloading;
        match result {
            Ok(prepared) if fitting => {
                let Some(replacing) = model.replacing.take() else {
                    return;
                };
                model.spec = replacing.spec;
                model.instances = places.len();
                model.answers.extend(replacing.answers);
                model.reason = None;
                model.profile = Profile::default();
                // What crashed was another one.
                model.quarantine = Quarantine::default();
                model.apply_rules(self.parts.queue);
                // What the former one has kept, or was given, says nothing to the new one.
                self.scheduler.abort_sequences(key, Aborted::Lost);
                self.unlearn(key);
                self.enlist(key);
                self.let_go_of_more(key);
                self.hand_over(key, places, prepared, (Rank::Hint, false));
            }
            Ok(prepared) => {
                places.iter().for_each(|place| self.vacate(key, *place));
                self.discard(Ok(prepared));
            }
            Err(fault) => {
                places.iter().for_each(|place| self.vacate(key, *place));
                self.parts.thread.shared.books.lock().load_failed(key);
                self.keep_former(key, &fault);
            }
        }
    }

    fn keep_former(&mut self, key: &Arc<ModelVersionKey>, fault: &Fault) {
        let Some(model) = self.models.get_mut(key) else { return };
        tracing::warn!(model = %key, %fault, "what was to replace a model does not load: the former one stays");
        let answers = model.replacing.take().map(|replacing| replacing.answers);
        model.reason = Some(format!(
            "its new file does not load ({}): the former one serves on",
            fault.message
        ));
        self.publish(key);
        for answer in answers.into_iter().flatten() {
            let _ = answer.send(Err(fault.clone()));
        }
    }

    /// The load is given up before it has begun.
    pub(crate) fn give_up_load(&mut self, rank: Rank, key: &Arc<ModelVersionKey>, reason: String) {
        if rank == Rank::Replace {
            self.forget_want(key);
            let fault = Fault::unavailable(FaultSource::Device, reason);
            self.keep_former(key, &fault);
        } else {
            self.fail_load(key, reason);
        }
    }

    /// The model cannot be loaded: whoever waits for it is told why. One that has been declared anew meanwhile is loaded as it
    /// is declared now.
    pub(crate) fn fail_load(&mut self, key: &Arc<ModelVersionKey>, reason: String) {
        self.forget_want(key);
        let Some(model) = self.models.get_mut(key) else { return };
        if model.replacing.is_some() && !model.is_there() {
            self.take_replacement(key);
            return;
        }
        model.failed = true;
        model.reason = Some(reason);
        if model.phase == Phase::Unloading {
            self.finish_unserved(key);
            self.finish_unload(key);
            return;
        }
        self.settle(key);
    }
}
