//! The device actor: one per device, it feeds the scheduler and hands batches to threads.
//!
//! It never waits and never runs a model. All it reacts to is [`Wake`] (there is news in the shared queues), [`Load`] and
//! [`Unload`]. If it dies, it is rebuilt and loads again what was wanted; what it had queued is answered as unavailable.

use std::{collections::BTreeMap, sync::Arc};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, SpawnHandle};
use mesh_actors::Lifeline;
use mesh_backend::LoadSpec;
use mesh_scheduler::Scheduler;
use mesh_types::{Fault, ModelVersionKey};
use tokio::sync::{oneshot, watch};

use crate::{
    models::Model,
    report::DeviceReport,
    shared::Queued,
    thread::{DeviceThread, ThreadParts},
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
    pub(crate) parts: DeviceParts,
    pub(crate) threads: Vec<DeviceThread>,
    pub(crate) scheduler: Scheduler<Arc<ModelVersionKey>, Queued>,
    pub(crate) models: BTreeMap<Arc<ModelVersionKey>, Model>,
    pub(crate) hasher: std::hash::RandomState,
    pub(crate) timer: Option<SpawnHandle>,
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
        self.begin_unload(&key, answer);
        self.dispatch(context);
        self.finish_unload(&key);
        self.publish();
        context.notify(Wake);
    }
}
