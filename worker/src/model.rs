//! One model of a device: what is known of it, and what its state is called.
//!
//! Owns a model's own figures and what follows from them alone. What happens to it is decided in `models`, `loading`, `loaded`,
//! `declared` and `standby`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_backend::LoadSpec;
use mesh_scheduler::BatchRules;
use mesh_types::{Fault, FaultClass, FaultSource, LoadProgress, LoadReport, ModelVersionKey, SequenceBatching};

use crate::{
    device::Answer,
    loading::Want,
    order::{Order, Profile},
    quarantine::Quarantine,
    report::{ModelReport, ModelState},
    residency::{Size, Usage},
};

/// What one thread has of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// A loader loads it for the thread, or it is on its way there.
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
    /// Has been loaded everywhere; some threads may be given it again.
    Serving,
    /// Declared and not in memory, or on its way back there.
    Standby,
    /// What was accepted is being finished.
    Unloading,
    /// Did not load, or has been lost.
    Unavailable,
}

/// Another artifact that is to take a model's place once it is loaded.
#[derive(Debug)]
pub(crate) struct Replacing {
    pub(crate) spec: LoadSpec,
    pub(crate) answers: Vec<Answer>,
}

/// What a model costs, measured where it was loaded before.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    /// Bytes of one instance at rest; the file's size until it is measured.
    pub(crate) weights: u64,
    /// Whether a load of this file by this configuration has measured it, now or before a restart.
    pub(crate) known: bool,
    /// How long its last load took.
    pub(crate) load: Duration,
}

/// One model.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) spec: LoadSpec,
    pub(crate) rules: BatchRules,
    pub(crate) phase: Phase,
    /// By thread; more than it has instances while some are leaving.
    pub(crate) places: Vec<Place>,
    /// On so many of the first threads it belongs.
    pub(crate) instances: usize,
    pub(crate) reason: Option<String>,
    pub(crate) quarantine: Quarantine,
    /// Whether answers leave in the order in which a tenant's requests were put into batches.
    pub(crate) ordered: bool,
    /// Whether inputs may be left out, or are one value for a whole batch.
    pub(crate) particular: bool,
    pub(crate) profile: Profile,
    /// What its runtime says of loading it.
    pub(crate) runtime: LoadReport,
    /// Batches given to threads and not yet done.
    pub(crate) running: usize,
    /// Whether anything was learnt of its latency that is not written down.
    pub(crate) learnt: bool,
    pub(crate) usage: Usage,
    pub(crate) cost: Cost,
    /// Its place among the loads that wait for their turn.
    pub(crate) want: Option<Want>,
    /// Since when that load waits for room alone.
    pub(crate) blocked_since: Option<Instant>,
    pub(crate) replacing: Option<Replacing>,
    /// Whether the last load failed.
    pub(crate) failed: bool,
    /// Since when it is in memory.
    pub(crate) ready_since: Option<Instant>,
    pub(crate) progress: Option<LoadProgress>,
    pub(crate) answers: Vec<Answer>,
}

impl Model {
    pub(crate) fn new(spec: LoadSpec, queue: usize, instances: usize) -> Self {
        let mut model = Self {
            rules: BatchRules::of(&spec.config, queue),
            ordered: false,
            particular: false,
            spec,
            phase: Phase::Standby,
            places: vec![Place::Gone; instances],
            instances,
            reason: None,
            quarantine: Quarantine::default(),
            profile: Profile::default(),
            runtime: LoadReport::default(),
            running: 0,
            learnt: false,
            usage: Usage::default(),
            cost: Cost::default(),
            want: None,
            blocked_since: None,
            replacing: None,
            failed: false,
            ready_since: None,
            progress: None,
            answers: Vec::new(),
        };
        model.apply_rules(queue);
        model
    }

    /// Takes the rules of its configuration, with no larger batches than fit.
    pub(crate) fn apply_rules(&mut self, queue: usize) {
        let config = &self.spec.config;
        self.rules = BatchRules::of(config, queue);
        self.ordered = config
            .dynamic_batching
            .as_ref()
            .is_some_and(|batching| batching.preserve_ordering)
            || config
                .sequence_batching
                .as_ref()
                .is_some_and(SequenceBatching::keeps_order);
        self.particular = config.input.iter().any(|spec| spec.optional || spec.unbatched);
        if let Some(rows) = self.profile.oom_rows {
            self.lower(rows);
        }
    }

    pub(crate) fn state(&self) -> ModelState {
        match self.phase {
            Phase::Loading => ModelState::Loading,
            Phase::Serving | Phase::Standby if self.quarantine.until().is_some() => ModelState::Quarantined,
            Phase::Serving if self.ready_places().next().is_none() => ModelState::Loading,
            Phase::Serving => ModelState::Ready,
            Phase::Standby if self.is_loading() => ModelState::Waking,
            Phase::Standby => ModelState::Standby,
            Phase::Unloading => ModelState::Unloading,
            Phase::Unavailable => ModelState::Unavailable,
        }
    }

    /// The threads that have it.
    pub(crate) fn ready_places(&self) -> impl Iterator<Item = usize> {
        let ready = |(index, place): (usize, &Place)| matches!(place, Place::Ready(_)).then_some(index);
        self.places.iter().enumerate().filter_map(ready)
    }

    /// The threads that should have it and do not.
    pub(crate) fn missing_places(&self) -> Vec<usize> {
        let mine = self.places.iter().enumerate().take(self.instances);
        mine.filter(|(_, place)| **place == Place::Gone)
            .map(|(index, _)| index)
            .collect()
    }

    /// Whether the thread at this place has it.
    pub(crate) fn is_ready_on(&self, place: usize) -> bool {
        matches!(self.places.get(place), Some(Place::Ready(_)))
    }

    pub(crate) fn has(&self, wanted: Place) -> bool {
        self.places.contains(&wanted)
    }

    /// Whether a thread has it, or is about to.
    pub(crate) fn is_there(&self) -> bool {
        self.has(Place::Loading) || self.ready_places().next().is_some()
    }

    /// Whether a load is wanted or under way.
    pub(crate) fn is_loading(&self) -> bool {
        self.want.is_some() || self.has(Place::Loading)
    }

    /// What it takes, or will take, on so many threads.
    pub(crate) fn size(&self, instances: usize) -> Size {
        Size {
            instances,
            weights: self.cost.weights,
            peak: self.profile.peak,
        }
    }

    fn memory_bytes(&self) -> u64 {
        let bytes = |place: &Place| if let Place::Ready(bytes) = place { *bytes } else { 0 };
        self.places.iter().map(bytes).sum()
    }

    /// Warm-up at so many rows found no memory: batches have at most half as many.
    pub(crate) fn lower(&mut self, oom_rows: u32) {
        let fits = (oom_rows / 2).max(1);
        self.rules.max_rows = self.rules.max_rows.min(fits);
        self.rules.preferred.retain(|size| *size <= fits);
        let rows_of_their_own = |sequence: &SequenceBatching| sequence.oldest.is_none();
        let batching = self.spec.config.sequence_batching.as_ref();
        if let Some(sequence) = self
            .rules
            .sequence
            .as_mut()
            .filter(|_| batching.is_some_and(rows_of_their_own))
        {
            // A sequence in a row that does not fit would never run.
            sequence.slots = sequence.slots.min(fits);
        }
    }

    /// Why it is not to be had.
    pub(crate) fn fault(&self) -> Fault {
        let text = self
            .reason
            .clone()
            .unwrap_or_else(|| "the model is not there".to_owned());
        Fault::new(FaultClass::Unavailable, FaultSource::Model, text)
    }

    pub(crate) fn report(&self, key: &ModelVersionKey) -> ModelReport {
        ModelReport {
            key: key.clone(),
            state: self.state(),
            reason: self.reason.clone(),
            memory_bytes: self.memory_bytes(),
            peak_bytes: self.profile.peak,
            load_time: self.cost.known.then_some(self.cost.load),
            proven: self.cost.known,
            progress: self
                .progress
                .clone()
                .or_else(|| self.want.map(|_| LoadProgress::default())),
            warm_up: self.profile.sizes.clone(),
            load: self.runtime.clone(),
        }
    }
}

/// Orders every thread that has the model to let go of it.
pub(crate) fn release(crew: &mut crate::crew::Crew, model: &mut Model, key: &Arc<ModelVersionKey>) {
    for (index, place) in model.places.iter_mut().enumerate() {
        if matches!(place, Place::Ready(_)) {
            *place = if crew.tell(index, Order::Unload(key.clone())) {
                Place::Leaving
            } else {
                Place::Gone
            };
        }
    }
}
