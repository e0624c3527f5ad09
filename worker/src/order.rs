//! What a device thread is told, and what it has to say.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_backend::{LoadSpec, LoadedModel};
use mesh_scheduler::{StepResult, TooLarge};
use mesh_types::{InferJob, ModelVersionKey};

use crate::{replies::Replies, sequences::Step, shared::Queued};

/// What a thread is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// Run this model from now on; where there was one of the same key, instead of it.
    Adopt(Arc<ModelVersionKey>, Handed),
    Unload(Arc<ModelVersionKey>),
    /// The model is run by this configuration from now on.
    Configure(Arc<ModelVersionKey>, LoadSpec),
    Run(RunBatch),
}

/// A warm instance on its way to the thread that will run it.
pub(crate) struct Handed {
    pub(crate) spec: LoadSpec,
    pub(crate) model: Box<dyn LoadedModel>,
    /// Rows of a batch of zeros that it runs there first: what is kept per thread is then there.
    pub(crate) touch: Option<u32>,
}

impl std::fmt::Debug for Handed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handed")
            .field("key", &self.spec.key)
            .finish_non_exhaustive()
    }
}

/// A request in a batch.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) job: Box<InferJob>,
    pub(crate) arrived: Instant,
    /// Its place in its sequence; none where the model has none.
    pub(crate) step: Option<Box<Step>>,
}

/// A batch to run.
#[derive(Debug)]
pub(crate) struct RunBatch {
    /// Its number on this device; never used twice.
    pub(crate) number: u64,
    pub(crate) model: Arc<ModelVersionKey>,
    pub(crate) members: Vec<Member>,
    /// Theirs, in the same order.
    pub(crate) replies: Arc<Replies>,
    pub(crate) rows: u32,
    /// How long the scheduler thinks that it takes.
    pub(crate) predicted: Option<Duration>,
}

impl RunBatch {
    pub(crate) fn new(
        number: u64,
        model: Arc<ModelVersionKey>,
        queued: Vec<Queued>,
        steps: Vec<Step>,
        predicted: Option<Duration>,
    ) -> Self {
        let (mut members, mut replies) = (Vec::with_capacity(queued.len()), Vec::with_capacity(queued.len()));
        let mut steps = steps.into_iter();
        for Queued { job, arrived, reply } in queued {
            let step = steps.next().map(Box::new);
            members.push(Member { job, arrived, step });
            replies.push(reply);
        }
        let rows = members.iter().map(|member| member.job.rows).sum();
        Self {
            number,
            model,
            members,
            replies: Arc::new(Replies::new(replies)),
            rows,
            predicted,
        }
    }
}

/// A device thread has carried out an order.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) thread: ThreadId,
    pub(crate) news: News,
}

/// One thread of a device: its place, and which of those that were there one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadId {
    pub(crate) place: usize,
    pub(crate) generation: u64,
}

/// What came of an order.
#[derive(Debug)]
pub(crate) enum News {
    /// A batch has been answered.
    Batch(BatchNews),
    /// A model is ready on the thread; it takes so many bytes there.
    Adopted {
        model: Arc<ModelVersionKey>,
        memory_bytes: u64,
    },
    /// A model is gone from the thread.
    Unloaded { model: Arc<ModelVersionKey> },
    /// A model's configuration has been taken over.
    Configured,
}

/// A batch has been answered.
#[derive(Debug, Clone)]
pub(crate) struct BatchNews {
    pub(crate) number: u64,
    pub(crate) model: Arc<ModelVersionKey>,
    /// Rows as it was given.
    pub(crate) rows: u32,
    /// How long the thread had it.
    pub(crate) busy: Duration,
    /// How long it took, if it ran as it was formed: once, well, and with all of its rows.
    pub(crate) whole: Option<Duration>,
    /// Whether it ran at all: not where every caller had gone or every deadline had passed.
    pub(crate) ran: bool,
    /// Whether any execution ended well.
    pub(crate) ended_well: bool,
    /// Whether the model panicked or did not load again.
    pub(crate) crashed: bool,
    /// For how many rows there was no memory, if an execution found none.
    pub(crate) too_large: Option<TooLarge>,
    /// What became of its sequences' steps, in its order; empty where the model has none.
    pub(crate) steps: Vec<Option<StepResult>>,
}

/// What warm-up measured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Profile {
    /// Batch sizes, ascending, and how long each took once warm.
    pub(crate) sizes: Vec<(u32, Duration)>,
    /// The most bytes that one execution took beyond those of the model.
    pub(crate) peak: u64,
    /// The size for which there was no memory.
    pub(crate) oom_rows: Option<u32>,
}
