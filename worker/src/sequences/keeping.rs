//! The actor's part: steps for batches, states by sequence, the grace of sequences whose model or device is going, and counts.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

use mesh_scheduler::{Aborted, Seat};
use mesh_types::{CorrelationId, CorrelationIds, Fault, FaultClass, FaultSource, ModelId, ModelVersionKey};

use super::{Ledger, SequenceState, Step};
use crate::{device::DeviceActor, shared::Queued};

/// What an actor keeps of sequences.
#[derive(Debug)]
pub(crate) struct Keeping {
    ledger: Arc<Ledger>,
    /// By the scheduler's number; as many as there are sequences.
    states: HashMap<u64, Arc<SequenceState>>,
    /// Until when the sequences of models that are being unloaded may go on.
    closing: BTreeMap<Arc<ModelVersionKey>, Instant>,
    /// The same for all, while the device is being drained.
    drained: Option<Instant>,
    /// Whether there was anything to count last time.
    counted: bool,
}

impl Keeping {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            states: HashMap::new(),
            closing: BTreeMap::new(),
            drained: None,
            counted: false,
        }
    }
}

/// The answer to a request of no sequence for a model that has nothing else, in Triton's words.
pub(crate) fn not_in_sequence(model: &ModelId) -> Fault {
    Fault::invalid(format!(
        "inference request to model '{model}' must specify a non-zero or non-empty correlation ID"
    ))
}

/// The answer to a request that belongs to no open sequence, in Triton's words and with the reason where it is known.
pub(crate) fn refused_step(model: &ModelId, id: &CorrelationId, why: Option<Aborted>) -> Fault {
    let text = format!(
        "inference request for sequence {id} to model '{model}' must specify the START flag on the first request of the sequence"
    );
    match why {
        None => Fault::invalid(text),
        Some(why) => {
            let source = match why {
                Aborted::Idle | Aborted::NotBegun => FaultSource::Client,
                Aborted::Lost | Aborted::Closed => FaultSource::Device,
            };
            let text = format!("{text}: the one before was ended because {}", reason(why));
            Fault::new(FaultClass::InvalidArgument, source, text)
        }
    }
}

/// The answer to a request whose sequence ended while it waited.
pub(crate) fn ended_step(why: Aborted) -> Fault {
    let text = format!(
        "the sequence was ended because {}: start it again with the START flag",
        reason(why)
    );
    Fault::unavailable(FaultSource::Device, text).with_retry(mesh_types::Retry::No)
}

fn reason(why: Aborted) -> &'static str {
    match why {
        Aborted::Idle => "no request came for too long",
        Aborted::NotBegun => "its first request was not run",
        Aborted::Lost => "the instance that held its state is gone",
        Aborted::Closed => "its device is being drained or its model unloaded",
    }
}

impl DeviceActor {
    /// Tells the scheduler which threads can run the models that have open sequences.
    pub(crate) fn seat_sequences(&mut self) {
        if !self.scheduler.has_open_sequences() {
            return;
        }
        self.models_with_sequences()
            .iter()
            .for_each(|key| self.set_instances(key));
    }

    fn models_with_sequences(&self) -> Vec<Arc<ModelVersionKey>> {
        self.scheduler.sequence_counts().map(|(key, _)| key.clone()).collect()
    }

    /// The same for one model: before its first sequence begins.
    pub(crate) fn set_instances(&mut self, key: &Arc<ModelVersionKey>) {
        let model = self.models.get(key);
        let ready = |place| model.is_some_and(|model| model.is_ready_on(place));
        self.scheduler.set_instances(key, self.crew.places(), ready);
    }

    /// What a batch's members need to run as steps; nothing for a model without sequences.
    pub(crate) fn steps_of(&mut self, key: &Arc<ModelVersionKey>, seats: &[Seat], queued: &[Queued]) -> Vec<Step> {
        if seats.is_empty() {
            return Vec::new();
        }
        let config = self.models.get(key).map(|model| &model.spec.config);
        let sequence = config.and_then(|config| config.sequence_batching.as_ref());
        let unique = sequence.is_some_and(|sequence| sequence.correlation_ids == CorrelationIds::Unique);
        let keeping = &mut self.keeping;
        let step = |(seat, queued): (&Seat, &Queued)| {
            let asked = queued.job.sequence.as_ref();
            let own = CorrelationId::Number(seat.sequence);
            let state = keeping.states.entry(seat.sequence).or_insert_with(|| {
                let state = SequenceState::new(queued.job.tenant.clone(), keeping.ledger.clone());
                Arc::new(state)
            });
            Step {
                slot: seat.slot,
                told: asked.filter(|_| !unique).map_or(own, |asked| asked.id.clone()),
                start: asked.is_some_and(|asked| asked.start),
                end: asked.is_some_and(|asked| asked.end),
                state: state.clone(),
            }
        };
        seats.iter().zip(queued).map(step).collect()
    }

    /// The model is being unloaded: its sequences may end within the grace, and none begin.
    pub(crate) fn close_model(&mut self, key: &Arc<ModelVersionKey>) {
        self.scheduler.close_sequences(key, true);
        if self.scheduler.open_sequences(key) > 0 {
            let until = self.now() + self.parts.sequence_grace;
            // Whoever asks for the unload again does not lengthen it.
            self.keeping.closing.entry(key.clone()).or_insert(until);
        }
    }

    /// The model is gone: a later load of it has nothing to do with this one's grace.
    pub(crate) fn forget_grace(&mut self, key: &ModelVersionKey) {
        self.keeping.closing.remove(key);
    }

    /// Ends the sequences whose grace is over; when the next is.
    pub(crate) fn close_sequences(&mut self) -> Option<Instant> {
        if !self.scheduler.has_sequences() {
            self.keeping.closing.clear();
            return None;
        }
        let now = self.now();
        self.follow_draining(now);
        self.keeping.closing.retain(|key, until| {
            let over = *until <= now;
            if over {
                self.scheduler.abort_sequences(key, Aborted::Closed);
            }
            !over
        });
        let drained = self.keeping.drained.filter(|until| *until > now);
        self.keeping.closing.values().copied().chain(drained).min()
    }

    fn follow_draining(&mut self, now: Instant) {
        let draining = self.parts.thread.shared.is_draining();
        if !draining && self.keeping.drained.is_none() {
            return;
        }
        let begins = draining && self.keeping.drained.is_none();
        if begins {
            self.keeping.drained = Some(now + self.parts.sequence_grace);
        } else if !draining {
            self.keeping.drained = None;
        }
        self.scheduler.close_all_sequences(draining);
        if self.keeping.drained.is_some_and(|until| until <= now) {
            for key in self.models_with_sequences() {
                self.scheduler.abort_sequences(&key, Aborted::Closed);
            }
        }
    }

    /// Lets go of what is kept of sequences that are over, and counts those that there are.
    pub(crate) fn count_sequences(&mut self) {
        let ended = self.scheduler.take_ended();
        let any = self.scheduler.has_open_sequences();
        if ended.is_empty() && !any && !self.keeping.counted {
            return;
        }
        self.keeping.counted = any;
        let mut books = self.parts.thread.shared.books.lock();
        for ended in &ended {
            self.keeping.states.remove(&ended.sequence);
            books.sequence_ended(&ended.model, ended.why);
        }
        let mut touched: Vec<_> = ended.into_iter().map(|ended| ended.model).collect();
        touched.sort_unstable();
        touched.dedup();
        for key in &touched {
            books.sequences(key, self.scheduler.sequences_of(key));
        }
        for (key, counts) in self.scheduler.sequence_counts() {
            books.sequences(key, counts);
        }
        drop(books);
        touched.iter().for_each(|key| self.finish_unload(key));
    }

    /// Says to the actor's successor which sequences it loses.
    pub(crate) fn leave_sequences(&self) {
        let names = self.scheduler.sequence_names();
        let names = names.map(|(key, tenant, id)| (key.clone(), tenant.clone(), id.clone()));
        let mut lost = self.parts.thread.shared.lost_sequences.lock();
        lost.extend(names.take(mesh_scheduler::MAX_REMEMBERED));
    }

    /// Takes over what an actor before this one has lost.
    pub(crate) fn inherit_lost(&mut self) {
        let lost = std::mem::take(&mut *self.parts.thread.shared.lost_sequences.lock());
        for (key, tenant, id) in lost {
            self.scheduler.remember_lost(key, tenant, id);
        }
    }
}
