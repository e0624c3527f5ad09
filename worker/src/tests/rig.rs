//! A worker on a hand-driven clock, whose backend tells of each call and can be held up.

use std::{collections::BTreeMap, sync::Arc};

use futures::FutureExt as _;
use mesh_backend::{Backend, BackendError, BatchInputs, BatchOutputs, DeviceInfo, LoadedModel, Passing};
use mesh_types::{Clock, ManualClock, Retry};
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use super::*;
use crate::{BatchRecord, ModelReport};

/// What the backend has seen.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Loads by model.
    pub(super) loads: BTreeMap<String, usize>,
    /// Instances that are there, by model.
    pub(super) alive: BTreeMap<String, usize>,
    /// Names of the threads that ran each model, not on zeros as in warm-up.
    pub(super) threads: BTreeMap<String, std::collections::BTreeSet<String>>,
    /// How often memory was asked to be cleared from then on.
    pub(super) cleared: usize,
    /// Models that were optimised, and such that were left as they were loaded.
    pub(super) optimized: Vec<String>,
    pub(super) left_as_they_were: Vec<String>,
    /// The priorities of the threads that loaded and optimised models, where the system numbers these.
    pub(super) priorities: Vec<i32>,
}

#[derive(Debug, Default)]
struct Hold {
    shut: Mutex<bool>,
    changed: Condvar,
}

impl Hold {
    fn pass(&self) {
        self.changed.wait_while(&mut self.shut.lock(), |shut| *shut);
    }

    fn is_shut(&self) -> bool {
        *self.shut.lock()
    }

    fn set(&self, shut: bool) {
        *self.shut.lock() = shut;
        self.changed.notify_all();
    }
}

/// That of the calling thread.
#[cfg(target_os = "linux")]
pub(super) fn priority() -> Option<i32> {
    rustix::process::getpriority_process(None).ok()
}

#[cfg(not(target_os = "linux"))]
pub(super) fn priority() -> Option<i32> {
    None
}

/// The built-in models, watched. The part of a model's name before `--` names the built-in model.
pub(super) struct Watched {
    inner: BuiltinBackend,
    seen: Arc<Mutex<Seen>>,
    loads: Arc<Hold>,
    hangs: Arc<Hold>,
    entered: mpsc::UnboundedSender<()>,
}

struct WatchedModel {
    inner: Box<dyn LoadedModel>,
    name: String,
    /// Where values below zero are held up, if the model is one that hangs.
    hangs: Option<Arc<Hold>>,
    /// The whole numbers in its first input at which it panics, and at which it is held up.
    panic_at: Option<i32>,
    hang_at: Option<(i32, Arc<Hold>)>,
    /// More rows find no memory, but not in warm-up.
    late_rows: u32,
    peak: u64,
    /// Takes its thread along when it is let go of.
    deadly: bool,
    seen: Arc<Mutex<Seen>>,
    entered: mpsc::UnboundedSender<()>,
}

impl Drop for WatchedModel {
    fn drop(&mut self) {
        *self.seen.lock().alive.get_mut(&self.name).unwrap() -= 1;
        assert!(!self.deadly || std::thread::panicking(), "takes the thread along");
    }
}

impl LoadedModel for WatchedModel {
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        if batch
            .inputs
            .iter()
            .flat_map(|input| &input.parts)
            .any(|part| part.iter().any(|byte| *byte != 0))
        {
            // Zeros are warm-up.
            let thread = std::thread::current().name().unwrap_or_default().to_owned();
            self.seen
                .lock()
                .threads
                .entry(self.name.clone())
                .or_default()
                .insert(thread);
            let _ = self.entered.send(());
            if batch.rows > self.late_rows {
                return Err(BackendError::OutOfMemory("late".into()));
            }
        }
        let negative = |part: &&[u8]| {
            part.as_chunks::<4>()
                .0
                .iter()
                .any(|bytes| f32::from_le_bytes(*bytes) < 0.0)
        };
        let mut parts = batch.inputs.iter().flat_map(|input| &input.parts);
        if let Some(hangs) = self.hangs.as_ref().filter(|_| parts.any(negative)) {
            hangs.pass();
        }
        let holds = |number: i32| {
            let bytes = number.to_le_bytes();
            let mut parts = batch.inputs.first().into_iter().flat_map(|input| &input.parts);
            parts.any(|part| part.as_chunks::<4>().0.contains(&bytes))
        };
        if let Some((_, hangs)) = self.hang_at.as_ref().filter(|(number, _)| holds(*number)) {
            hangs.pass();
        }
        assert!(!self.panic_at.is_some_and(holds), "panics at this number");
        self.inner.execute(batch)
    }

    fn execute_measured(&mut self, batch: &BatchInputs<'_>) -> Result<(BatchOutputs, Option<u64>), BackendError> {
        let outputs = self.execute(batch)?;
        Ok((outputs, Some(self.peak)))
    }

    fn optimize(&mut self, _: &[BatchInputs<'_>], _: &dyn Clock) {
        let mut seen = self.seen.lock();
        seen.priorities.extend(priority());
        seen.optimized.push(self.name.clone());
    }

    fn leave_as_it_is(&mut self, _: &str) {
        self.seen.lock().left_as_they_were.push(self.name.clone());
    }

    fn memory_bytes(&self) -> u64 {
        // As much as a test asks for, else a little.
        self.inner.memory_bytes().max(1_000)
    }
}

impl Backend for Watched {
    fn name(&self) -> &'static str {
        "watched"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        Vec::new()
    }

    fn formats(&self) -> &'static [ArtifactFormat] {
        self.inner.formats()
    }

    fn estimate(&self, spec: &LoadSpec) -> Option<u64> {
        // As much as a test asks for, else the size of its file.
        self.inner
            .estimate(spec)
            .filter(|bytes| *bytes > 0 && spec.artifact.is_none())
    }

    fn passing(&self, spec: &LoadSpec, _: DeviceId) -> Passing {
        let number = |name: &str| spec.config.parameters.get(name).and_then(|value| value.as_u64());
        Passing {
            load: number("passing_load").unwrap_or(0),
            optimize: number("passing_optimize").unwrap_or(0),
        }
    }

    fn clear_memory(&self) {
        self.seen.lock().cleared += 1;
    }

    fn load(&self, spec: &LoadSpec, device: DeviceId) -> Result<Box<dyn LoadedModel>, BackendError> {
        let name = spec.key.model.as_str().to_owned();
        if self.loads.is_shut() {
            let _ = self.entered.send(());
        }
        self.seen.lock().priorities.extend(priority());
        self.loads.pass();
        let mut spec = spec.clone();
        let builtin = spec.config.parameters.get("builtin").and_then(|value| value.as_str());
        let hangs = (builtin == Some("hang_on_negative")).then(|| self.hangs.clone());
        let number = |name: &str| spec.config.parameters.get(name).and_then(|value| value.as_u64());
        let whole = |name: &str| number(name).map(|number| i32::try_from(number).unwrap());
        let (panic_at, hang_at) = (whole("panic_at"), whole("hang_at"));
        if let Some(text) = spec
            .artifact
            .as_deref()
            .and_then(|path| std::fs::read_to_string(path).ok())
            && text.starts_with("broken")
        {
            return Err(BackendError::Load("the file is broken".into()));
        }
        let (late_rows, peak) = (number("late_rows"), number("scratch_bytes").unwrap_or(0));
        let late_rows = late_rows.map_or(u32::MAX, |rows| u32::try_from(rows).unwrap());
        // Held up here, where a test can let it go whenever it likes.
        let mut config = ModelConfig::clone(&spec.config);
        config.parameters.insert("hang_ms".into(), ParameterValue::Int(0));
        spec.config = Arc::new(config);
        let inner = self.inner.load(&spec, device)?;
        let mut seen = self.seen.lock();
        *seen.loads.entry(name.clone()).or_default() += 1;
        *seen.alive.entry(name.clone()).or_default() += 1;
        Ok(Box::new(WatchedModel {
            inner,
            name,
            hangs,
            panic_at,
            hang_at: hang_at.map(|number| (number, self.hangs.clone())),
            late_rows,
            peak,
            deadly: spec.config.parameters.contains_key("deadly"),
            seen: self.seen.clone(),
            entered: self.entered.clone(),
        }))
    }
}

/// What a test keeps of a batch's record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) rows: u32,
    pub(super) failed_requests: u64,
    pub(super) executions: u32,
    pub(super) crashed: bool,
    pub(super) non_finite: u32,
}

#[derive(Default)]
struct Notes(Mutex<Vec<Noted>>);

impl BatchObserver for Notes {
    fn begin(&self, _: &[TraceContext]) -> Option<TraceContext> {
        None
    }

    fn finished(&self, record: &BatchRecord<'_>) {
        self.0.lock().push(Noted {
            rows: record.rows,
            failed_requests: record.failed_requests,
            executions: record.executions,
            crashed: record.crashed,
            non_finite: record.non_finite,
        });
    }
}

pub(super) struct Rig {
    pub(super) worker: WorkerHandle,
    pub(super) clock: Arc<ManualClock>,
    pub(super) seen: Arc<Mutex<Seen>>,
    loads: Arc<Hold>,
    hangs: Arc<Hold>,
    notes: Arc<Notes>,
    entered: mpsc::UnboundedReceiver<()>,
}

pub(super) const FAR: Duration = Duration::from_secs(1_000_000);

impl Rig {
    /// The clock moves on, and the device looks at it.
    pub(super) fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.poke();
    }

    /// Any arrival wakes the device, also one for a model that is not there.
    pub(super) fn poke(&self) {
        drop(self.worker.submit(CPU, job("nobody", &[1.0], FAR)));
    }

    /// Once the device has taken in and handed out all that was submitted before: it answers an unload within its turn, and
    /// the next one after it.
    pub(super) async fn settled(&self) {
        for _ in 0..2 {
            self.worker.unload(CPU, &key("nobody")).await.unwrap();
        }
    }

    /// Asks for a load that is held up or waits for one that is: the device has been asked once this returns. A task of its own
    /// would ask whenever it has its turn, which on a busy machine is after what the test does next.
    pub(super) fn ask_for(&self, spec: LoadSpec) -> impl Future<Output = Result<(), Fault>> + use<> {
        let worker = self.worker.clone();
        let mut asked = Box::pin(async move { worker.load(CPU, spec).await });
        let answer = asked.as_mut().now_or_never();
        assert!(answer.is_none(), "{answer:?}");
        asked
    }

    pub(super) async fn load(&self, spec: LoadSpec) {
        self.worker.load(CPU, spec).await.unwrap();
    }

    pub(super) fn submit(&self, model: &str, values: &[f32]) -> crate::JobReply {
        self.worker.submit(CPU, job(model, values, FAR)).unwrap()
    }

    pub(super) async fn infer(&self, model: &str, value: f32) -> Result<f32, Fault> {
        let outcome = self.submit(model, &[value]).await?;
        Ok(f32::from_le_bytes(outcome.outputs[0].data[..].try_into().unwrap()))
    }

    /// Submits a request that hangs, and returns once it does.
    pub(super) async fn hang(&mut self, model: &str) -> crate::JobReply {
        self.hold_hangs();
        let reply = self.submit(model, &[-1.0]);
        self.entered.recv().await.unwrap();
        reply
    }

    /// From now on what hangs does, and only what is entered from now on counts as such.
    pub(super) fn hold_hangs(&mut self) {
        while self.entered.try_recv().is_ok() {}
        self.hangs.set(true);
    }

    /// Once something has been entered that was to be held up.
    pub(super) async fn entered(&mut self) {
        self.entered.recv().await.unwrap();
    }

    /// Once the model's report is so.
    pub(super) async fn until(&self, model: &str, wanted: impl Fn(Option<&ModelReport>) -> bool) {
        let mut reports = self.worker.watch(CPU).unwrap();
        let is_so = |report: &crate::DeviceReport| wanted(report.models.iter().find(|report| report.key == key(model)));
        let waited = tokio::time::timeout(LONG, reports.wait_for(is_so)).await;
        assert!(waited.is_ok(), "{:?}", self.worker.report());
    }

    pub(super) async fn until_state(&self, model: &str, state: ModelState) {
        self.until(model, |report| report.is_some_and(|report| report.state == state))
            .await;
    }

    /// Once the statistics are so; the device is poked meanwhile.
    pub(super) async fn until_statistics(&self, wanted: impl Fn(&crate::DeviceStatistics) -> bool) {
        let deadline = std::time::Instant::now() + LONG;
        while !wanted(&self.worker.statistics().devices[0]) {
            assert!(std::time::Instant::now() < deadline, "{:?}", self.worker.statistics());
            let answered = self.worker.submit(CPU, job("nobody", &[1.0], FAR)).unwrap().await;
            assert!(answered.is_err());
        }
    }

    pub(super) fn report(&self, model: &str) -> ModelReport {
        let report = self.worker.report();
        let found = report.devices[0].models.iter().find(|report| report.key == key(model));
        found.unwrap().clone()
    }

    pub(super) fn statistics(&self, model: &str) -> crate::ModelStatistics {
        self.worker.statistics().models().remove(&key(model)).unwrap()
    }

    pub(super) fn notes(&self) -> Vec<Noted> {
        self.notes.0.lock().clone()
    }

    /// Lets go of what hangs.
    pub(super) fn release(&self) {
        self.hangs.set(false);
    }

    pub(super) fn hold_loads(&self) {
        self.loads.set(true);
    }

    /// Lets loads go on, from wherever it is called.
    pub(super) fn freer(&self) -> impl FnOnce() + Send + 'static {
        let loads = self.loads.clone();
        move || loads.set(false)
    }

    pub(super) fn free_loads(&self) {
        self.loads.set(false);
    }
}

pub(super) fn with_rig<F: Future<Output = Rig>>(config: &WorkerConfig, test: impl FnOnce(Rig) -> F) {
    System::new().block_on(async {
        let tasks = Tasks::new();
        let (entered, entries) = mpsc::unbounded_channel();
        let hangs = Arc::new(Hold::default());
        let (seen, loads, notes) = (Arc::default(), Arc::new(Hold::default()), Arc::new(Notes::default()));
        let watched = Watched {
            inner: BuiltinBackend::new(),
            seen: Arc::clone(&seen),
            loads: loads.clone(),
            hangs: hangs.clone(),
            entered,
        };
        let clock = Arc::new(ManualClock::at(0));
        let observer: Arc<dyn BatchObserver> = notes.clone();
        let worker = Worker::start(config, vec![Arc::new(watched)], &observer, clock.clone(), &tasks).unwrap();
        let rig = Rig {
            worker: worker.handle(),
            clock,
            seen,
            loads,
            hangs,
            notes,
            entered: entries,
        };
        let rig = test(rig).await;
        rig.free_loads();
        rig.release();
        assert!(tasks.end(Duration::from_secs(10)).await.is_empty());
        worker.stop();
    });
}

/// A model of its own name that runs a built-in one with parameters.
pub(super) fn named(name: &str, builtin: &str, change: impl FnOnce(&mut ModelConfig)) -> LoadSpec {
    let mut spec = spec(builtin, batching());
    let mut config = ModelConfig::clone(&spec.config);
    change(&mut config);
    (spec.key, spec.config) = (key(name), Arc::new(config));
    spec
}

/// Requests wait until a batch is full.
pub(super) fn when_full(config: &mut ModelConfig) {
    config.dynamic_batching = Some(DynamicBatching {
        max_queue_delay_microseconds: 600_000_000,
        ..DynamicBatching::default()
    });
}

pub(super) fn retry_after(fault: &Fault) -> Duration {
    match fault.retry {
        Retry::After(wait) => wait,
        other => panic!("{other:?}"),
    }
}
