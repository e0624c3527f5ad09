//! The device actor: one per device, it feeds the scheduler and hands batches to threads.
//!
//! It never waits and never runs a model. All it reacts to is [`Wake`] (there is news in the shared queues), [`Load`] and
//! [`Unload`]. If it dies, it is rebuilt and loads again what was wanted; what it had queued is answered as unavailable.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message};
use ahash::AHashMap;
use mesh_actors::Lifeline;
use mesh_backend::LoadSpec;
use mesh_scheduler::Scheduler;
use mesh_types::{Fault, ModelVersionKey};
use tokio::sync::{oneshot, watch};

use crate::{
    alarm::AlarmClock, crew::Crew, dispatch::MAX_ADMITTED, loading::Loads, memory::Memory, model::Model,
    ordering::Lines, report::DeviceReport, sequences::Keeping, shared::Queued, thread::ThreadParts,
};

/// Loads, unloads and the one wake-up that may be on their way to the actor.
const MAILBOX: usize = 256;

/// Alarms that would ring at once still let others have their turn.
const SHORTEST_ALARM: Duration = Duration::from_micros(50);

/// There is news.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Wake;

/// Have a model: answered once it is warm on every thread, or stands by.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Load(pub(crate) LoadSpec, pub(crate) Answer);

/// Unload a model; answered once what it had accepted is finished.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Unload(pub(crate) ModelVersionKey, pub(crate) Answer);

/// Load a model that stands by; answered once it is warm.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct WarmUp(pub(crate) ModelVersionKey, pub(crate) Answer);

pub(crate) type Answer = oneshot::Sender<Result<(), Fault>>;

/// What an actor is built from, each time anew.
#[derive(Clone)]
pub(crate) struct DeviceParts {
    pub(crate) thread: ThreadParts,
    pub(crate) threads: u16,
    pub(crate) queue: usize,
    /// The folder in which what was learnt is kept.
    pub(crate) memory: Option<PathBuf>,
    /// How long sequences may go on where their device is drained or their model unloaded.
    pub(crate) sequence_grace: Duration,
    /// The most bytes that models may take; none: no bound.
    pub(crate) budget: Option<u64>,
    pub(crate) parallel_loads: usize,
    pub(crate) report: watch::Sender<DeviceReport>,
}

/// The actor.
pub(crate) struct DeviceActor {
    pub(crate) parts: DeviceParts,
    pub(crate) crew: Crew,
    pub(crate) scheduler: Scheduler<Arc<ModelVersionKey>, Queued>,
    pub(crate) models: AHashMap<Arc<ModelVersionKey>, Model>,
    /// Those that are kept from running.
    pub(crate) quarantined: Vec<Arc<ModelVersionKey>>,
    /// When to look whether a model has been idle for too long.
    pub(crate) idle: BTreeSet<(Instant, Arc<ModelVersionKey>)>,
    pub(crate) loads: Loads,
    /// Answers that must leave in order.
    pub(crate) lines: Lines,
    /// What is kept of sequences.
    pub(crate) keeping: Keeping,
    /// What was learnt of latencies, by this actor's predecessors too.
    pub(crate) memory: Memory,
    /// When requests whose callers have gone were looked for last.
    pub(crate) swept: Instant,
    /// Whether memory is cleared before a model gets it, because an isolated tenant has called.
    pub(crate) clears: bool,
    alarm: Option<AlarmClock>,
    _lifeline: Lifeline,
}

impl DeviceActor {
    pub(crate) fn new(parts: DeviceParts, lifeline: Lifeline) -> Self {
        // News of a predecessor's threads: it is about orders that this one never gave.
        while parts.thread.shared.done.pop().is_some() {}
        while parts.thread.shared.loaded.pop().is_some() {}
        parts.report.send_modify(|report| {
            report.models.clear();
            report.routing = report.routing.wrapping_add(1);
        });
        let shared = parts.thread.shared.clone();
        let alarm = AlarmClock::start(format!("{}-alarm", shared.device), move || shared.wake())
            .inspect_err(|error| tracing::error!(%error, "a device's alarm clock does not start"))
            .ok();
        let crew = Crew::new(usize::from(parts.threads), parts.thread.clone());
        let mut actor = Self {
            keeping: Keeping::new(parts.thread.shared.ledger.clone()),
            scheduler: Scheduler::new(crew.places()),
            memory: Memory::read(parts.memory.as_deref(), parts.thread.shared.device),
            swept: parts.thread.clock.now(),
            clears: false,
            crew,
            loads: Loads::new(parts.parallel_loads),
            parts,
            lines: Lines::default(),
            models: AHashMap::new(),
            quarantined: Vec::new(),
            idle: BTreeSet::new(),
            alarm,
            _lifeline: lifeline,
        };
        actor.inherit_lost();
        actor
    }

    pub(crate) fn now(&self) -> Instant {
        self.parts.thread.clock.now()
    }

    /// Takes in news, hands out what can run, and sets the alarm for what only time will change.
    fn turn(&mut self) {
        self.hear();
        self.watch();
        // Before arrivals are looked at: a device that is drained no more takes new sequences again.
        let closing = self.close_sequences();
        self.admit(MAX_ADMITTED);
        self.end_idle();
        self.pump();
        self.remember();
        let batch = self.dispatch();
        let swept = self.sweep();
        self.count_sequences();
        let next = batch
            .into_iter()
            .chain(swept)
            .chain(closing)
            .chain(self.watch_due())
            .chain(self.memory.due())
            .min();
        if let Some(at) = next {
            self.wake_at(at);
        }
        if !self.parts.thread.shared.arrivals.is_empty() {
            self.parts.thread.shared.wake();
        }
    }

    /// Has what was learnt written, where it is time.
    fn remember(&mut self) {
        let now = self.now();
        if !self.memory.is_due(now) {
            return;
        }
        let models = self.models.iter_mut();
        let learnt = models.filter_map(|(key, model)| std::mem::take(&mut model.learnt).then(|| key.clone()));
        for key in learnt.collect::<Vec<_>>() {
            self.memory.learn(&key, &self.scheduler);
        }
        self.memory.write_beside(now);
    }

    /// Sets the alarm at every turn: only the clock knows whether one that was set before has rung.
    fn wake_at(&self, at: Instant) {
        if let Some(alarm) = &self.alarm {
            alarm.set(at.saturating_duration_since(self.now()).max(SHORTEST_ALARM));
        }
    }
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

impl Drop for DeviceActor {
    /// Not when it is told to stop: an arbiter that ends drops its actors without a word.
    fn drop(&mut self) {
        for key in self.models.keys() {
            self.memory.learn(key, &self.scheduler);
        }
        self.memory.write();
        self.leave_sequences();
    }
}

impl Handler<Wake> for DeviceActor {
    type Result = ();

    fn handle(&mut self, _: Wake, context: &mut Self::Context) {
        self.parts.thread.shared.heard();
        if self.crew.has_lost_one() {
            // What it ran is lost and answered so; the actor's successor starts threads anew and loads what was wanted.
            tracing::error!(device = %self.parts.thread.shared.device, "a device thread died: the device is restarted");
            context.terminate();
            return;
        }
        self.turn();
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
        // What arrived before the unload was accepted, and is finished first; the arrivals' bound is that of this turn.
        self.hear();
        self.admit(usize::MAX);
        let key = Arc::new(key);
        self.begin_unload(&key, answer);
        self.turn();
        self.finish_unload(&key);
        self.publish(&key);
        context.notify(Wake);
    }
}

impl Handler<WarmUp> for DeviceActor {
    type Result = ();

    fn handle(&mut self, WarmUp(key, answer): WarmUp, context: &mut Self::Context) {
        self.hear();
        self.warm_up(&Arc::new(key), answer);
        context.notify(Wake);
    }
}
