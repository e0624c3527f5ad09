//! The device actor: one per device, it feeds the scheduler and hands batches to threads.
//!
//! It never waits and never runs a model. All it reacts to is [`Wake`] (there is news in the shared queues), [`Load`] and
//! [`Unload`]. If it dies, it is rebuilt and loads again what was wanted; what it had queued is answered as unavailable.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, SpawnHandle};
use mesh_actors::Lifeline;
use mesh_backend::LoadSpec;
use mesh_scheduler::{BatchRules, Gone, Item, Refused, Scheduler, ShapeKey};
use mesh_types::{Fault, FaultClass, FaultSource, ModelVersionKey};
use tokio::sync::{oneshot, watch};

use crate::{
    report::{DeviceReport, ModelReport, ModelState},
    shared::{News, Queued},
    thread::{BATCHES_IN_FLIGHT, DeviceThread, Order, RunBatch, ThreadParts, not_here},
};

/// Loads, unloads and the one wake-up that may be on their way to the actor.
const MAILBOX: usize = 256;

/// There is news.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

/// Load a model; answered once it is warm on every thread.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Load(pub(crate) LoadSpec, pub(crate) Answer);

/// Unload a model; answered once what it had accepted is finished.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Unload(pub(crate) ModelVersionKey, pub(crate) Answer);

pub(crate) type Answer = oneshot::Sender<Result<(), Fault>>;

#[derive(Debug)]
struct Model {
    rules: BatchRules,
    state: ModelState,
    reason: Option<String>,
    memory_bytes: u64,
    /// Threads that have not said yet whether they loaded or unloaded it.
    outstanding: usize,
    /// Batches given to threads and not yet done.
    running: usize,
    answers: Vec<Answer>,
}

/// What an actor is built from, each time anew.
#[derive(Clone)]
pub(crate) struct DeviceParts {
    pub(crate) thread: ThreadParts,
    pub(crate) threads: u16,
    pub(crate) queue: usize,
    pub(crate) report: watch::Sender<DeviceReport>,
}

/// The actor.
pub(crate) struct DeviceActor {
    parts: DeviceParts,
    threads: Vec<DeviceThread>,
    scheduler: Scheduler<Arc<ModelVersionKey>, Queued>,
    models: BTreeMap<Arc<ModelVersionKey>, Model>,
    hasher: std::hash::RandomState,
    timer: Option<SpawnHandle>,
    _lifeline: Lifeline,
}

impl DeviceActor {
    pub(crate) fn new(parts: DeviceParts, lifeline: Lifeline) -> Self {
        // News of a predecessor's threads, which have ended by now: it is about orders that this one never gave.
        while parts.thread.shared.done.pop().is_some() {}
        let start = |index: u16| DeviceThread::start(usize::from(index), parts.thread.clone());
        let threads = (0..parts.threads.max(1)).filter_map(|index| {
            start(index)
                .inspect_err(|error| tracing::error!(%error, "a device thread does not start"))
                .ok()
        });
        Self {
            threads: threads.collect(),
            parts,
            scheduler: Scheduler::default(),
            models: BTreeMap::new(),
            hasher: std::hash::RandomState::new(),
            timer: None,
            _lifeline: lifeline,
        }
    }

    fn load(&mut self, spec: &LoadSpec, answer: Option<Answer>) {
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

    /// Takes in what the threads have to say.
    fn hear(&mut self) {
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
    fn forget(&mut self, key: &Arc<ModelVersionKey>) {
        let Some(model) = self.models.remove(key) else { return };
        self.publish();
        model.answers.into_iter().for_each(|answer| drop(answer.send(Ok(()))));
    }

    /// Once every thread has said whether it loaded the model: ready, or unavailable with the reason.
    fn settle(&mut self, key: &Arc<ModelVersionKey>) {
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
    fn finish_unload(&mut self, key: &Arc<ModelVersionKey>) {
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

    /// Moves arrivals into the scheduler.
    fn admit(&mut self) {
        while let Some(queued) = self.parts.thread.shared.arrivals.pop() {
            let key = queued.job.version.clone();
            if self
                .models
                .get(&key)
                .is_none_or(|model| model.state != ModelState::Ready)
            {
                queued.answer(Err(not_here()));
                continue;
            }
            let item = Item {
                rows: queued.job.rows,
                shape: self.shape_key(&queued),
                arrived: queued.arrived,
                deadline: queued.job.deadline.instant(),
                payload: queued,
            };
            if let Err(refused) = self.scheduler.offer(&key, item) {
                let (queued, fault) = match refused {
                    Refused::Full(queued) => (queued, full()),
                    Refused::UnknownModel(queued) => (queued, not_here()),
                };
                queued.answer(Err(fault));
            }
        }
    }

    /// Keyed by chance, so that nobody can make two shapes look alike.
    fn shape_key(&self, queued: &Queued) -> ShapeKey {
        use std::hash::{BuildHasher, Hash, Hasher};
        let mut hasher = self.hasher.build_hasher();
        for tensor in &queued.job.inputs {
            // The rows are what differs within a batch; a model without a batch dimension never shares one.
            tensor.shape.get(1..).unwrap_or_default().hash(&mut hasher);
        }
        ShapeKey(hasher.finish())
    }

    /// Hands out batches while a thread has room.
    fn dispatch(&mut self, context: &mut Context<Self>) {
        loop {
            let free = self
                .threads
                .iter()
                .enumerate()
                .min_by_key(|(_, thread)| thread.in_flight);
            let free = free
                .filter(|(_, thread)| thread.in_flight < BATCHES_IN_FLIGHT)
                .map(|(index, _)| index);
            let Some(free) = free else { return };
            let decision = self.scheduler.poll(Instant::now(), |queued| queued.reply.is_closed());
            for (item, gone) in decision.gone {
                let key = item.payload.job.version.clone();
                if gone == Gone::Expired {
                    item.payload.answer(Err(Fault::deadline("while waiting for a batch")));
                }
                self.finish_unload(&key);
            }
            let Some(batch) = decision.batch else {
                self.wake_at(context, decision.wake_at);
                return;
            };
            let waiting = self.scheduler.waiting(&batch.model);
            let (device, observer) = (self.parts.thread.shared.device, &self.parts.thread.observer);
            observer.waiting(device, &batch.model, waiting);
            let members = batch.items.into_iter().map(|item| item.payload).collect();
            self.give(
                free,
                RunBatch {
                    model: batch.model,
                    members,
                    rows: batch.rows,
                },
            );
        }
    }

    fn give(&mut self, thread: usize, run: RunBatch) {
        let key = run.model.clone();
        let Some(thread) = self.threads.get_mut(thread) else {
            return;
        };
        match thread.order(Order::Run(run)) {
            Ok(()) => {
                thread.in_flight += 1;
                if let Some(model) = self.models.get_mut(&key) {
                    model.running += 1;
                }
            }
            Err(order) => {
                if let Order::Run(run) = *order {
                    run.members.into_iter().for_each(|member| member.answer(Err(full())));
                }
            }
        }
    }

    fn wake_at(&mut self, context: &mut Context<Self>, at: Option<Instant>) {
        if let Some(timer) = self.timer.take() {
            context.cancel_future(timer);
        }
        let wait = at.map(|at| at.saturating_duration_since(Instant::now()));
        self.timer = wait.map(|wait| context.notify_later(Wake, wait));
    }

    fn publish(&self) {
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

pub(crate) fn full() -> Fault {
    Fault::unavailable(FaultSource::Device, "Exceeds maximum queue size")
}

impl Actor for DeviceActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
        let wanted: Vec<LoadSpec> = self.parts.thread.shared.wanted.lock().values().cloned().collect();
        wanted.iter().for_each(|spec| self.load(spec, None));
        context.notify(Wake);
    }
}

impl Handler<Wake> for DeviceActor {
    type Result = ();

    fn handle(&mut self, _: Wake, context: &mut Self::Context) {
        self.parts.thread.shared.heard();
        if self.threads.iter().any(|thread| !thread.is_alive()) {
            // What it ran is lost and answered so; the actor's successor starts threads anew and loads what was wanted.
            tracing::error!(device = %self.parts.thread.shared.device, "a device thread died: the device is restarted");
            context.terminate();
            return;
        }
        self.hear();
        self.admit();
        self.dispatch(context);
    }
}

impl Handler<Load> for DeviceActor {
    type Result = ();

    fn handle(&mut self, Load(spec, answer): Load, context: &mut Self::Context) {
        self.hear();
        self.load(&spec, Some(answer));
        // A mailbox full of loads has refused wake-ups.
        context.notify(Wake);
    }
}

impl Handler<Unload> for DeviceActor {
    type Result = ();

    fn handle(&mut self, Unload(key, answer): Unload, context: &mut Self::Context) {
        // What arrived before the unload was accepted, and is finished first.
        self.hear();
        self.admit();
        let key = Arc::new(key);
        match self.models.get_mut(&key) {
            Some(model) if model.state == ModelState::Unavailable => {
                model.answers.push(answer);
                self.forget(&key);
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
        self.dispatch(context);
        self.finish_unload(&key);
        self.publish();
        context.notify(Wake);
    }
}
