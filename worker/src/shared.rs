//! What callers, a device's actor and its threads share: bounded queues and a wake-up that is sent once per batch of news.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use crossbeam::queue::ArrayQueue;
use mesh_actors::Supervised;
use mesh_backend::LoadSpec;
use mesh_types::{CorrelationId, DeviceId, Fault, FaultSource, InferJob, JobOutcome, ModelVersionKey, TenantId};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::{
    crew::MAX_ABANDONED,
    device::{DeviceActor, Wake},
    dispatch::full,
    loader::{Loaded, MAX_LOADERS},
    order::Done,
    ordering::Reply,
    sequences::Ledger,
    statistics::DeviceBooks,
};

/// A job and where its answer goes.
#[derive(Debug)]
pub(crate) struct Queued {
    /// Boxed: on its way through queues and batches it is moved often.
    pub(crate) job: Box<InferJob>,
    pub(crate) arrived: Instant,
    pub(crate) reply: Reply,
}

impl Queued {
    pub(crate) fn answer(self, answer: Result<JobOutcome, Fault>) {
        // The caller may have gone: then nobody wants the answer.
        self.reply.send(answer);
    }
}

/// A sequence by name: its model, its tenant and its id.
pub(crate) type LostSequence = (Arc<ModelVersionKey>, TenantId, CorrelationId);

/// Bounds of what is shared.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizes {
    pub(crate) arrivals: usize,
    pub(crate) done: usize,
    /// Bytes of sequences' states.
    pub(crate) state_bytes: u64,
}

/// Shared by everyone around one device.
pub(crate) struct Shared {
    pub(crate) device: DeviceId,
    pub(crate) arrivals: ArrayQueue<Queued>,
    pub(crate) done: ArrayQueue<Done>,
    /// What loaders bring.
    pub(crate) loaded: ArrayQueue<Loaded>,
    /// What should be loaded: an actor that is rebuilt loads it again.
    pub(crate) wanted: Mutex<BTreeMap<ModelVersionKey, LoadSpec>>,
    /// What the device has done so far.
    pub(crate) books: Mutex<DeviceBooks>,
    /// What the states of sequences take.
    pub(crate) ledger: Arc<Ledger>,
    /// Sequences that an actor has lost; as many as the scheduler remembers.
    pub(crate) lost_sequences: Mutex<Vec<LostSequence>>,
    /// Threads given up because an execution hangs on them, and not come back since.
    abandoned: AtomicUsize,
    /// Threads that the device has.
    threads: AtomicUsize,
    /// Threads started so far.
    generation: AtomicU64,
    signalled: AtomicBool,
    /// No new jobs are taken.
    draining: AtomicBool,
    /// No actor will come any more: nobody else would answer what arrives.
    closed: AtomicBool,
    actor: OnceLock<Supervised<DeviceActor>>,
}

impl Shared {
    pub(crate) fn new(device: DeviceId, sizes: Sizes, now: Instant) -> Self {
        Self {
            device,
            arrivals: ArrayQueue::new(sizes.arrivals.max(1)),
            done: ArrayQueue::new(sizes.done.max(1)),
            loaded: ArrayQueue::new(MAX_LOADERS + MAX_ABANDONED),
            wanted: Mutex::default(),
            books: Mutex::new(DeviceBooks::new(now)),
            ledger: Arc::new(Ledger::new(sizes.state_bytes)),
            lost_sequences: Mutex::default(),
            abandoned: AtomicUsize::new(0),
            threads: AtomicUsize::new(0),
            generation: AtomicU64::new(0),
            signalled: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            actor: OnceLock::new(),
        }
    }

    pub(crate) fn attach(&self, actor: Supervised<DeviceActor>) {
        // Set once, right after the actor's supervision has begun.
        let _ = self.actor.set(actor);
    }

    pub(crate) fn actor(&self) -> Option<&Supervised<DeviceActor>> {
        self.actor.get()
    }

    /// A thread has been given up; how many are in all.
    pub(crate) fn gave_up(&self) -> usize {
        self.abandoned.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// A thread that had been given up has ended.
    pub(crate) fn came_back(&self) {
        self.abandoned.fetch_sub(1, Ordering::SeqCst);
    }

    /// Threads that have been given up and have not ended.
    pub(crate) fn abandoned(&self) -> usize {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// The device has so many threads from now on.
    pub(crate) fn has_threads(&self, threads: usize) {
        self.threads.store(threads, Ordering::Relaxed);
    }

    /// Threads that the device has.
    pub(crate) fn threads(&self) -> usize {
        self.threads.load(Ordering::Relaxed)
    }

    /// A number that no thread of the device has had.
    pub(crate) fn next_generation(&self) -> u64 {
        self.generation.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the actor that there is news; one message however much of it.
    pub(crate) fn wake(&self) {
        if self.signalled.swap(true, Ordering::AcqRel) {
            return;
        }
        let address = self.actor.get().map(Supervised::address);
        let sent = address
            .as_ref()
            .and_then(|address| address.as_deref())
            .is_some_and(|address| address.try_send(Wake).is_ok());
        if !sent {
            // The actor is being rebuilt: it looks for news when it starts.
            self.signalled.store(false, Ordering::Release);
        }
    }

    pub(crate) fn drain(&self, draining: bool) {
        self.draining.store(draining, Ordering::SeqCst);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::SeqCst)
    }

    /// Takes a job in, or refuses it if there is no room.
    pub(crate) fn arrive(&self, queued: Queued) -> Result<(), Fault> {
        // Sequences may go on for a while: the actor knows which there are, and until when.
        let goes_on = || queued.job.sequence.as_ref().is_some_and(|step| !step.start);
        if self.is_draining() && !goes_on() {
            return Err(Fault::unavailable(FaultSource::Device, "the device is being drained"));
        }
        self.arrivals.push(queued).map_err(|_| full())?;
        self.wake();
        // Looked at after the push, and set before the queue is emptied: one of the two sides sees the job.
        if self.closed.load(Ordering::SeqCst) {
            self.refuse_arrivals();
        }
        Ok(())
    }

    /// The actor is gone for good: answers what it left, and from now on all that comes.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.refuse_arrivals();
    }

    fn refuse_arrivals(&self) {
        while let Some(queued) = self.arrivals.pop() {
            queued.answer(Err(Fault::unavailable(FaultSource::Device, "the device is gone")));
        }
    }

    /// The actor is about to look for news: whatever comes from now on wakes it again.
    pub(crate) fn heard(&self) {
        self.signalled.store(false, Ordering::Release);
    }
}

/// The answer to a job, to be awaited. Dropping it cancels the job.
#[derive(Debug)]
pub struct JobReply {
    pub(crate) receiver: oneshot::Receiver<Result<JobOutcome, Fault>>,
}

impl Future for JobReply {
    type Output = Result<JobOutcome, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = |_| {
            Err(Fault::unavailable(
                FaultSource::Device,
                "the device was restarted while the request waited",
            ))
        };
        Pin::new(&mut self.receiver)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(lost))
    }
}
