//! Device threads: each owns an instance of every model of its device and runs one batch at a time.
//!
//! A panic is caught at the batch; the model that panicked is loaded anew before its next batch. The thread answers the
//! requests itself, so that an answer takes no further hop through the actor.
//!
//! Loading and warm-up run here too, between batches, because a loaded model never leaves its thread: while a large model
//! loads, the models beside it wait. A device with several threads loads on all of them at once.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam::channel::{Receiver, Sender, bounded};
use mesh_backend::{Backend, BackendError, LoadSpec, LoadedModel};
use mesh_types::{Fault, FaultClass, FaultSource, JobOutcome, ModelVersionKey, StageTimings, TraceContext};

use crate::{
    batch,
    observer::{BatchObserver, BatchRecord},
    shared::{Done, News, Queued, Shared},
    warm,
};

/// Batches on their way to one thread: one running, one waiting, so that the thread never idles between two.
pub(crate) const BATCHES_IN_FLIGHT: usize = 2;
/// Orders given to one thread whose news the actor has not heard: batches, and loads and unloads besides. It also is the
/// size of a thread's share of the news, which therefore always has room.
pub(crate) const MAX_OUTSTANDING: usize = BATCHES_IN_FLIGHT + 64;

/// What a thread is told.
#[derive(Debug)]
pub(crate) enum Order {
    Load(Arc<ModelVersionKey>, LoadSpec),
    Unload(Arc<ModelVersionKey>),
    Run(RunBatch),
}

/// A batch to run.
#[derive(Debug)]
pub(crate) struct RunBatch {
    pub(crate) model: Arc<ModelVersionKey>,
    pub(crate) members: Vec<Queued>,
    pub(crate) rows: u32,
}

/// What a thread needs.
#[derive(Clone)]
pub(crate) struct ThreadParts {
    pub(crate) shared: Arc<Shared>,
    pub(crate) backends: Arc<[Arc<dyn Backend>]>,
    pub(crate) observer: Arc<dyn BatchObserver>,
}

/// A running thread; dropping it lets the thread finish what it was given and joins it.
#[derive(Debug)]
pub(crate) struct DeviceThread {
    orders: Option<Sender<Order>>,
    handle: Option<JoinHandle<()>>,
    alive: Arc<AtomicBool>,
    /// Batches given and not yet done.
    pub(crate) in_flight: usize,
    /// Orders given and not yet done, batches among them.
    outstanding: usize,
}

/// Dropped as the thread's last act, by a panic too: says so and wakes the actor, which then makes all anew.
struct LastAct {
    alive: Arc<AtomicBool>,
    shared: Arc<Shared>,
}

impl Drop for LastAct {
    fn drop(&mut self) {
        self.alive.store(false, Ordering::Release);
        self.shared.wake();
    }
}

impl DeviceThread {
    pub(crate) fn start(index: usize, parts: ThreadParts) -> std::io::Result<Self> {
        let (orders, received) = bounded(MAX_OUTSTANDING);
        let name = format!("{}-{index}", parts.shared.device);
        let alive = Arc::new(AtomicBool::new(true));
        let last_act = LastAct {
            alive: alive.clone(),
            shared: parts.shared.clone(),
        };
        // Built on its own thread: loaded models never leave it.
        let run = move || {
            let _last_act = last_act;
            let models = HashMap::new();
            Runner { index, parts, models }.run(&received);
        };
        let handle = std::thread::Builder::new().name(name).spawn(run)?;
        Ok(Self {
            orders: Some(orders),
            handle: Some(handle),
            alive,
            in_flight: 0,
            outstanding: 0,
        })
    }

    /// Whether it still takes orders.
    pub(crate) fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }

    /// Hands an order over, or gives it back if the thread is full or gone.
    pub(crate) fn order(&mut self, order: Order) -> Result<(), Box<Order>> {
        match &self.orders {
            Some(orders) if self.outstanding < MAX_OUTSTANDING => {
                orders.try_send(order).map_err(|error| Box::new(error.into_inner()))?;
                self.outstanding += 1;
                Ok(())
            }
            _ => Err(Box::new(order)),
        }
    }

    /// Its news of one order has been heard.
    pub(crate) fn heard(&mut self) {
        self.outstanding = self.outstanding.saturating_sub(1);
    }
}

impl Drop for DeviceThread {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(handle) = self.handle.take()
            && handle.join().is_err()
        {
            tracing::error!("a device thread ended by a panic");
        }
    }
}

struct Instance {
    spec: LoadSpec,
    /// None after a panic, until it is loaded again.
    model: Option<Box<dyn LoadedModel>>,
}

struct Runner {
    index: usize,
    parts: ThreadParts,
    models: HashMap<Arc<ModelVersionKey>, Instance>,
}

impl Runner {
    fn run(mut self, orders: &Receiver<Order>) {
        for order in orders {
            let news = match order {
                Order::Load(model, spec) => self.load(model, spec),
                Order::Unload(model) => {
                    self.models.remove(&model);
                    News::Unloaded { model }
                }
                Order::Run(batch) => self.run_batch(batch),
            };
            let thread = self.index;
            let done = Done { thread, news };
            // Never more orders are given than the news has room for.
            if self.parts.shared.done.push(done).is_err() {
                tracing::error!(device = %self.parts.shared.device, "no room for a device thread's news");
            }
            self.parts.shared.wake();
        }
    }

    fn load(&mut self, model: Arc<ModelVersionKey>, spec: LoadSpec) -> News {
        let loaded = caught(|| {
            let mut loaded = self.load_instance(&spec)?;
            match warm::warm(loaded.as_mut(), &spec.config) {
                Err(error) if warm::is_telling(&spec.config) => return Err(error),
                Err(error) => tracing::warn!(model = %model, %error, "warm-up failed on guessed shapes"),
                Ok(()) => {}
            }
            Ok(loaded)
        });
        let result = loaded.map(|loaded| {
            let memory = loaded.memory_bytes();
            self.models.insert(
                model.clone(),
                Instance {
                    spec,
                    model: Some(loaded),
                },
            );
            memory
        });
        News::Loaded {
            model,
            result: result.map_err(Fault::from),
        }
    }

    fn load_instance(&self, spec: &LoadSpec) -> Result<Box<dyn LoadedModel>, BackendError> {
        let backend = self
            .parts
            .backends
            .iter()
            .find(|backend| backend.formats().contains(&spec.format));
        let backend = backend.ok_or_else(|| BackendError::Unsupported(format!("no backend runs {:?}", spec.format)))?;
        backend.load(spec, self.parts.shared.device)
    }

    fn run_batch(&mut self, run: RunBatch) -> News {
        let RunBatch {
            model: key,
            members,
            rows,
        } = run;
        let traces: Vec<TraceContext> = members.iter().map(|member| member.job.trace).collect();
        let trace = self.parts.observer.begin(&traces);
        let began = Instant::now();
        let outcome = self.execute(&key, &members, rows);
        let busy = began.elapsed();
        let record = BatchRecord {
            device: self.parts.shared.device,
            model: &key,
            rows,
            members: &traces,
            failed: outcome.is_err(),
            busy,
            trace,
        };
        self.parts.observer.finished(&record);
        match outcome {
            Ok(Executed { outputs, input, infer }) => {
                let compute_output = busy.saturating_sub(input + infer);
                for (member, outputs) in members.into_iter().zip(outputs) {
                    let timings = StageTimings {
                        queue: began.saturating_duration_since(member.arrived),
                        compute_input: input,
                        compute_infer: infer,
                        compute_output,
                        batch_rows: rows,
                        batch_trace: trace,
                        ..StageTimings::default()
                    };
                    member.answer(Ok(JobOutcome { outputs, timings }));
                }
            }
            Err(fault) => members.into_iter().for_each(|member| member.answer(Err(fault.clone()))),
        }
        News::Batch { model: key }
    }

    fn execute(&mut self, key: &ModelVersionKey, members: &[Queued], rows: u32) -> Result<Executed, Fault> {
        let missing = || Fault::unavailable(FaultSource::Device, "the model is not loaded on this device");
        let (key, mut instance) = self.models.remove_entry(key).ok_or_else(missing)?;
        if instance.model.is_none() {
            instance.model = caught(|| self.load_instance(&instance.spec)).ok();
        }
        let result = match instance.model.as_mut() {
            Some(model) => run_one(model.as_mut(), &instance.spec, members, rows),
            None => Err(BackendError::Load(
                "the model did not load again after a panic".to_owned(),
            )),
        };
        if matches!(result, Err(BackendError::Execution(ref text)) if text == PANICKED) {
            instance.model = None;
        }
        self.models.insert(key, instance);
        result.map_err(Fault::from)
    }
}

struct Executed {
    outputs: Vec<Vec<mesh_types::Tensor>>,
    input: Duration,
    infer: Duration,
}

fn run_one(
    model: &mut dyn LoadedModel,
    spec: &LoadSpec,
    members: &[Queued],
    rows: u32,
) -> Result<Executed, BackendError> {
    let began = Instant::now();
    let inputs = batch::gather(&spec.config, members, rows);
    let gathered = Instant::now();
    let outputs = caught(|| model.execute(&inputs))?;
    let infer = gathered.elapsed();
    let outputs = batch::scatter(&spec.config, members, &outputs)?;
    Ok(Executed {
        outputs,
        input: gathered - began,
        infer,
    })
}

/// What callers are told of a panic; its text stays in the log.
const PANICKED: &str = "the model panicked";

/// Runs a backend's code; a panic is an error. The value that panicked must not be used again.
fn caught<T>(run: impl FnOnce() -> Result<T, BackendError>) -> Result<T, BackendError> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|_| Err(BackendError::Execution(PANICKED.to_owned())))
}

/// The answer to a job for a model that a device does not have.
pub(crate) fn not_here() -> Fault {
    Fault::new(
        FaultClass::Unavailable,
        FaultSource::Device,
        "the model is not ready on this device",
    )
}
