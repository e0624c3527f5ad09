//! Device threads: each owns instances of models of its device and runs one batch at a time.
//!
//! A panic is caught at the execution; the thread answers the requests itself, so that an answer takes no further hop
//! through the actor. Models are loaded and warmed elsewhere (`loader`) and handed over, so that a large one holds up nobody;
//! only after a crash is one loaded anew while this waits, because its requests wait for it.
//!
//! A thread whose execution hangs cannot be ended: it is abandoned. It keeps its models, its orders are void, what it says
//! is not heard, and it ends once the execution comes back.

use std::{collections::HashMap, ops::Range, path::Path, sync::Arc, thread::JoinHandle, time::Duration};

use mesh_backend::{Backend, BackendError, LoadSpec, LoadedModel, Passing};
use mesh_types::{Clock, DeviceKind, Fault, ModelVersionKey, TraceContext};
use tokio::sync::mpsc;

use crate::{
    Cage, affinity,
    confine::Reach,
    execute::{self, Bench, Instance, caught},
    link::{Link, State},
    observer::{BatchObserver, BatchRecord},
    order::{BatchNews, Done, Handed, News, Order, RunBatch, ThreadId},
    sequences::{Plan, next_epoch},
    shared::Shared,
    tally::Tally,
    warm,
};

/// Batches on their way to one thread: one running, one waiting, so that the thread never idles between two.
pub(crate) const BATCHES_IN_FLIGHT: usize = 2;
/// Orders given to one thread whose news the actor has not heard: batches, and loads and unloads besides. It also is the
/// size of a thread's share of the news, which therefore always has room.
pub(crate) const MAX_OUTSTANDING: usize = BATCHES_IN_FLIGHT + 64;
/// How long loading a model may take, its warm-up's executions not counted, before the thread counts as hung.
pub(crate) const LOAD_LIMIT: Duration = Duration::from_secs(600);

/// What a thread needs.
#[derive(Clone)]
pub(crate) struct ThreadParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) backends: Arc<[Arc<dyn Backend>]>,
    pub(crate) observer: Arc<dyn BatchObserver>,
    pub(crate) clock: Arc<dyn Clock>,
    /// How long one execution may take where the model's configuration names no bound.
    pub(crate) execution_timeout: Duration,
    /// Confines threads on which code of models runs.
    pub(crate) cage: Option<Cage>,
    /// The processors of the device's threads, counted around; none if threads are not kept to one.
    pub(crate) pin: Option<Range<usize>>,
}

impl ThreadParts {
    /// The calling thread is about to run models.
    pub(crate) fn enter_thread(&self) -> std::io::Result<()> {
        self.enter_backends();
        self.confine(None)
    }

    /// The same on a thread that a confined one has started.
    pub(crate) fn enter_backends(&self) {
        self.backends.iter().for_each(|backend| backend.enter_thread());
    }

    /// Code of models is about to run on the calling thread, which reads the file of the one that it loads, if it loads one.
    pub(crate) fn confine(&self, file: Option<&Path>) -> std::io::Result<()> {
        let Some(cage) = &self.cage else { return Ok(()) };
        cage.enter(if self.has_driver() {
            Reach::Driver
        } else {
            Reach::File(file)
        })
    }

    fn has_driver(&self) -> bool {
        self.shared.device.kind != DeviceKind::Cpu
    }

    /// Loads an instance for the calling thread, which runs models and may read the file of none.
    fn load_anew(&self, spec: &LoadSpec) -> Result<Box<dyn LoadedModel>, BackendError> {
        let Some(cage) = self.cage.as_ref().filter(|_| !self.has_driver()) else {
            return load_instance(self, spec);
        };
        let (parts, own) = (self.clone(), spec.clone());
        let loaded = cage.run_apart(spec.artifact.clone(), move || {
            parts.enter_backends();
            load_instance(&parts, &own)
        });
        loaded.map_err(|error| BackendError::Load(error.to_string()))?
    }

    /// Whether some runtime could have the calling thread leave processors to all others.
    pub(crate) fn give_way(&self) -> bool {
        self.backends.iter().any(|backend| backend.give_way())
    }

    /// What an instance will take, before anybody has loaded one: as its backend knows it, else the size of its file.
    pub(crate) fn estimate(&self, spec: &LoadSpec) -> u64 {
        let known = self.backend(spec).and_then(|backend| backend.estimate(spec));
        let file = || std::fs::metadata(spec.artifact.as_ref()?).ok().map(|file| file.len());
        known.or_else(file).unwrap_or(0)
    }

    /// What loading an instance will take for a time.
    pub(crate) fn passing(&self, spec: &LoadSpec) -> Passing {
        let backend = self.backend(spec);
        backend.map_or_else(Passing::default, |backend| backend.passing(spec, self.shared.device))
    }

    fn backend(&self, spec: &LoadSpec) -> Option<&Arc<dyn Backend>> {
        self.backends
            .iter()
            .find(|backend| backend.formats().contains(&spec.format))
    }

    /// How long one execution of a model may take.
    pub(crate) fn limit(&self, spec: &LoadSpec) -> Duration {
        match spec.config.execution.map_or(0, |policy| policy.timeout_microseconds) {
            0 => self.execution_timeout,
            microseconds => Duration::from_micros(microseconds),
        }
    }
}

/// The actor's end of a running thread.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) orders: mpsc::Sender<Order>,
    pub(crate) link: Arc<Link>,
    pub(crate) handle: JoinHandle<()>,
}

/// Dropped as the thread's last act, by a panic too: says so and wakes the actor.
pub(crate) struct LastAct {
    link: Arc<Link>,
    shared: Arc<Shared>,
}

impl LastAct {
    pub(crate) fn new(link: Arc<Link>, shared: Arc<Shared>) -> Self {
        Self { link, shared }
    }
}

impl Drop for LastAct {
    fn drop(&mut self) {
        if self.link.ended() == State::Abandoned {
            self.shared.came_back();
        }
        self.shared.wake();
    }
}

/// Starts a thread at a place among its device's threads.
pub(crate) fn start(id: ThreadId, parts: ThreadParts) -> std::io::Result<Started> {
    let (orders, mut received) = mpsc::channel(MAX_OUTSTANDING);
    let name = format!("{}-{}", parts.shared.device, id.place);
    let link = Arc::new(Link::default());
    let last_act = LastAct::new(link.clone(), parts.shared.clone());
    let own = link.clone();
    let run = move || {
        let _last_act = last_act;
        if let Some(core) = parts.pin.clone().and_then(|mut cores| cores.nth(id.place)) {
            affinity::pin(core);
        }
        if let Err(error) = parts.enter_thread() {
            // It ends, as one that has crashed.
            tracing::error!(device = %parts.shared.device, %error, "a device thread does not start");
            return;
        }
        let (models, link) = (HashMap::new(), own);
        Runner {
            id,
            parts,
            link,
            models,
            refused: Vec::new(),
        }
        .run(&mut received);
    };
    let handle = std::thread::Builder::new().name(name).spawn(run)?;
    Ok(Started { orders, link, handle })
}

struct Runner {
    id: ThreadId,
    parts: ThreadParts,
    link: Arc<Link>,
    models: HashMap<Arc<ModelVersionKey>, Instance>,
    /// The members of the last batch that are answered after its news.
    refused: Vec<(usize, Fault)>,
}

impl Runner {
    fn run(mut self, orders: &mut mpsc::Receiver<Order>) {
        // Sleeps at once where there is nothing to do: a channel that spins first takes the processor from the doors.
        while let Some(order) = orders.blocking_recv() {
            if self.link.is_abandoned() {
                break;
            }
            let mut replies = None;
            let news = match order {
                Order::Adopt(model, handed) => Some(self.adopt(model, handed)),
                Order::Unload(model) => {
                    self.models.remove(&model);
                    Some(News::Unloaded { model })
                }
                Order::Configure(model, spec) => {
                    if let Some(instance) = self.models.get_mut(&model) {
                        (instance.sequence, instance.spec) = as_runtime(&model, spec);
                    }
                    Some(News::Configured)
                }
                Order::Run(batch) => {
                    replies = Some(batch.replies.clone());
                    self.run_batch(&batch)
                }
            };
            let Some(news) = news.filter(|_| !self.link.is_abandoned()) else {
                break;
            };
            // Never more orders are given than the news has room for.
            if self.parts.shared.done.push(Done { thread: self.id, news }).is_err() {
                tracing::error!(device = %self.parts.shared.device, "no room for a device thread's news");
            }
            if let Some(replies) = replies {
                for (member, fault) in self.refused.drain(..) {
                    replies.answer(member, Err(fault));
                }
            }
            self.parts.shared.wake();
        }
    }

    fn adopt(&mut self, model: Arc<ModelVersionKey>, handed: Handed) -> News {
        let Handed {
            spec,
            model: mut loaded,
            touch,
        } = handed;
        let (sequence, spec) = as_runtime(&model, spec);
        if let Some(rows) = touch {
            let (pulse, clock) = (&self.link.pulse, &self.parts.clock);
            pulse.begin(clock.now(), self.parts.limit(&spec), None);
            // It ran on the loader already: a failure here will show again with the first batch.
            let _ = caught(|| warm::touch(loaded.as_mut(), &spec.config, rows));
            pulse.end();
        }
        let memory_bytes = loaded.memory_bytes();
        let instance = Instance {
            spec,
            model: Some(loaded),
            sequence,
            epoch: next_epoch(),
        };
        self.models.insert(model.clone(), instance);
        News::Adopted { model, memory_bytes }
    }

    /// Runs a batch and answers it; no news if the thread was given up meanwhile.
    fn run_batch(&mut self, run: &RunBatch) -> Option<News> {
        let traces: Vec<TraceContext> = run.members.iter().map(|member| member.job.trace).collect();
        let trace = self.parts.observer.begin(&traces);
        let began = self.parts.clock.now();
        let mut tally = self.execute(run, trace);
        if self.link.is_abandoned() {
            return None;
        }
        let ended = self.parts.clock.now();
        tally.busy = ended.saturating_duration_since(began);
        self.refused = std::mem::take(&mut tally.refused);
        let news = News::Batch(BatchNews {
            number: run.number,
            model: run.model.clone(),
            rows: run.rows,
            busy: tally.busy,
            whole: tally.whole(),
            ran: tally.executions > 0 || tally.crashed,
            ended_well: tally.ended_well(),
            crashed: tally.crashed,
            too_large: tally.too_large(),
            steps: run.replies.steps(),
        });
        let shared = &self.parts.shared;
        shared.books.lock().batch(&run.model, &tally, run.predicted, ended);
        let record = record(shared, &run.model, run.rows, &traces, &tally);
        self.parts.observer.finished(&BatchRecord {
            trace,
            predicted: run.predicted,
            ..record
        });
        Some(news)
    }

    fn execute(&mut self, run: &RunBatch, trace: Option<TraceContext>) -> Tally {
        let Some(instance) = self.models.get_mut(&run.model) else {
            let answered = run.replies.answer_rest(&crate::models::not_here());
            tracing::error!(model = %run.model, answered, "a batch came to a thread without its model");
            return Tally::default();
        };
        let (parts, link) = (&self.parts, &self.link);
        let bench = Bench {
            clock: &*parts.clock,
            pulse: &link.pulse,
            limit: parts.limit(&instance.spec),
            reload: &|spec| {
                link.pulse.begin(parts.clock.now(), LOAD_LIMIT, Some(run.number));
                let loaded = parts.load_anew(spec);
                link.pulse.end();
                loaded
            },
            abandoned: &|| link.is_abandoned(),
        };
        execute::run(&bench, instance, run, trace)
    }
}

/// What a stateful model needs beyond its callers' tensors, and the specification as its runtime sees it.
fn as_runtime(model: &ModelVersionKey, spec: LoadSpec) -> (Option<Arc<Plan>>, LoadSpec) {
    match Plan::of(&spec) {
        Ok(Some((plan, runtime))) => (Some(Arc::new(plan)), runtime),
        Ok(None) => (None, spec),
        Err(fault) => {
            tracing::error!(%model, %fault, "the loader has taken a model whose sequences cannot be served");
            (None, spec)
        }
    }
}

/// Loads one instance on the calling thread.
pub(crate) fn load_instance(parts: &ThreadParts, spec: &LoadSpec) -> Result<Box<dyn LoadedModel>, BackendError> {
    let backend = parts.backend(spec);
    let backend = backend.ok_or_else(|| BackendError::Unsupported(format!("no backend runs {:?}", spec.format)))?;
    backend.load(spec, parts.shared.device)
}

/// A batch's account in the observer's words.
pub(crate) fn record<'a>(
    shared: &Shared,
    model: &'a ModelVersionKey,
    rows: u32,
    members: &'a [TraceContext],
    tally: &Tally,
) -> BatchRecord<'a> {
    let sum = |of: fn(&crate::tally::Run) -> Duration| tally.runs.iter().map(of).sum();
    BatchRecord {
        device: shared.device,
        model,
        rows,
        members,
        failed: tally.fail.count > 0,
        failed_requests: tally.fail.count,
        cancelled: tally.cancelled,
        expired: tally.expired,
        non_finite: tally.non_finite,
        executions: tally.executions,
        crashed: tally.crashed,
        oom_rows: tally.oom_rows,
        busy: tally.busy,
        predicted: None,
        queue: tally.longest_wait,
        compute_input: sum(|run| run.input),
        compute_infer: sum(|run| run.infer),
        compute_output: sum(|run| run.output),
        trace: None,
    }
}
