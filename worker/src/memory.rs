//! What a device has learnt of its models: how long batches take and what a load costs, kept over restarts in a file of its own.
//!
//! Owns the file's form and the bound on it, and when it is written. A missing, broken or foreign file is no fault: the device
//! learns anew, from the warm-up on. Written soon after something was learnt and when the device ends, beside the file first and
//! then renamed, so that a reader finds the old or the new one. A cost is that of one file loaded by one configuration: for another
//! it is not known. A write that fails is tried again though nothing more is learnt, each time after twice as long, and is told
//! of once: a disk that is full is full for all devices, and for a while.
//!
//! Invariants: a device that is killed has learnt costs of at most [`WRITE_AFTER`] in vain, and latencies of [`REFRESH_AFTER`], as
//! long as the disk keeps up, and of [`LONGEST_RETRY`] after it did not; one thread writes at a time, and the device's actor waits
//! for none but at its end.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use mesh_backend::LoadSpec;
use mesh_scheduler::{Latency, Scheduler, ShapeKey};
use mesh_types::{DeviceId, ModelVersionKey};
use serde::{Deserialize, Serialize};

use crate::{models::MAX_MODELS, shared::Queued};

/// The form of the file; another one is not read.
const FORM: u32 = 2;
/// What a load has shown is written after so long, together with what was learnt meanwhile.
pub(crate) const WRITE_AFTER: Duration = Duration::from_secs(5);
/// Each batch tells a little of latencies: that alone is written after so long.
pub(crate) const REFRESH_AFTER: Duration = Duration::from_secs(60);
/// While a thread writes, it is looked so long later what has become of it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// A write that failed is tried again after so long, then after twice as long, and so on.
const FIRST_RETRY: Duration = Duration::from_secs(5);
/// But after so long at most.
const LONGEST_RETRY: Duration = Duration::from_secs(600);
/// A larger file was not written by us.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

type Shapes = Vec<(ShapeKey, Latency)>;

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    form: u32,
    models: BTreeMap<String, Shapes>,
    costs: BTreeMap<String, KnownCost>,
}

/// What a load measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownCost {
    /// Of which file, by which configuration: see [`KnownCost::identity`].
    identity: u64,
    /// Bytes of one instance at rest.
    pub(crate) weights: u64,
    /// Bytes beyond those while it runs its largest batch.
    pub(crate) peak: u64,
    /// How long it took.
    pub(crate) load: Duration,
}

impl KnownCost {
    pub(crate) fn new(spec: &LoadSpec, weights: u64, peak: u64, load: Duration) -> Self {
        Self {
            identity: Self::identity(spec),
            weights,
            peak,
            load,
        }
    }

    /// Stays the same for as long as the program is built by the same compiler; after that it is measured anew.
    fn identity(spec: &LoadSpec) -> u64 {
        let mut hasher = DefaultHasher::new();
        // Only the name: the data folder may have moved, and files are named by their digest.
        spec.artifact.as_deref().and_then(Path::file_name).hash(&mut hasher);
        env!("CARGO_PKG_VERSION").hash(&mut hasher);
        serde_json::to_vec(&spec.config.load_part())
            .unwrap_or_default()
            .hash(&mut hasher);
        hasher.finish()
    }
}

#[derive(Debug, Clone, Default)]
struct Known {
    models: BTreeMap<String, Shapes>,
    costs: BTreeMap<String, KnownCost>,
}

/// What has been learnt.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    path: Option<PathBuf>,
    /// Shared with the thread that writes it.
    known: Arc<Known>,
    /// When it is to be written; none while nothing has changed.
    due: Option<Instant>,
    writer: Option<JoinHandle<std::io::Result<()>>>,
    /// When to look what has become of the writer; none while there is none.
    look: Option<Instant>,
    trouble: Trouble,
}

/// Writes that have failed in a row.
#[derive(Debug, Default)]
struct Trouble {
    failures: u32,
    /// None is tried again before this.
    until: Option<Instant>,
}

impl Trouble {
    /// One failed; true if it is the first.
    fn failed(&mut self, now: Instant) -> bool {
        let doubled = 2_u32.saturating_pow(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + FIRST_RETRY.saturating_mul(doubled).min(LONGEST_RETRY));
        self.failures == 1
    }

    /// One went well; true if the one before had not.
    fn is_over(&mut self) -> bool {
        std::mem::take(self).failures > 0
    }
}

impl Memory {
    /// What is in the folder about the device; nothing without a folder.
    pub(crate) fn read(folder: Option<&Path>, device: DeviceId) -> Self {
        let Some(folder) = folder else { return Self::default() };
        let name = device.to_string().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = folder.join(format!("latency-{name}.json"));
        let File { models, costs, .. } = read(&path).unwrap_or_else(|error| {
            tracing::warn!(%device, %error, "what was learnt of models cannot be read: it is learnt anew");
            File::default()
        });
        Self {
            path: Some(path),
            known: Arc::new(Known { models, costs }),
            ..Self::default()
        }
    }

    /// What is known of a model.
    pub(crate) fn of(&self, model: &ModelVersionKey) -> &[(ShapeKey, Latency)] {
        let shapes = self.known.models.get(&model.to_string());
        shapes.map_or(&[], Vec::as_slice)
    }

    /// Takes over what the scheduler has learnt of a model.
    pub(crate) fn learn(&mut self, model: &Arc<ModelVersionKey>, scheduler: &Scheduler<Arc<ModelVersionKey>, Queued>) {
        let of_model = scheduler.learnt_of(model);
        let shapes: Shapes = of_model.map(|(shape, latency)| (shape, latency.clone())).collect();
        if shapes.is_empty() {
            return;
        }
        keep(&mut Arc::make_mut(&mut self.known).models, model, shapes);
    }

    /// The model is another one from now on.
    pub(crate) fn forget(&mut self, model: &ModelVersionKey) {
        let name = model.to_string();
        if self.known.models.contains_key(&name) {
            Arc::make_mut(&mut self.known).models.remove(&name);
        }
    }

    /// What loading this file by this configuration cost, if that is known.
    pub(crate) fn cost(&self, spec: &LoadSpec) -> Option<KnownCost> {
        let known = self.known.costs.get(&spec.key.to_string()).copied();
        known.filter(|known| known.identity == KnownCost::identity(spec))
    }

    /// Takes note of what a load has cost.
    pub(crate) fn learn_cost(&mut self, model: &ModelVersionKey, cost: KnownCost) {
        keep(&mut Arc::make_mut(&mut self.known).costs, model, cost);
    }

    /// Something was learnt now that is worth a write in so long, unless one comes before.
    pub(crate) fn changed(&mut self, now: Instant, after: Duration) {
        if self.path.is_some() {
            let at = now + after;
            self.due = Some(self.due.map_or(at, |due| due.min(at)));
        }
    }

    /// When it is to be looked at: to be written, or for what became of a write.
    pub(crate) fn due(&self) -> Option<Instant> {
        let write = || {
            self.due
                .map(|due| self.trouble.until.map_or(due, |until| due.max(until)))
        };
        // While a thread is at it, nothing else can be done.
        self.look.or_else(write)
    }

    /// Whether it is to be written now: it is due, no thread is at it, and none has failed at it just now.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if self.due().is_none_or(|due| now < due) {
            return false;
        }
        if self.writer.as_ref().is_some_and(|writer| !writer.is_finished()) {
            self.look = Some(now + LOOK_AGAIN);
            return false;
        }
        if let Some(result) = self.ended() {
            self.came_to(now, result);
        }
        // The look is over: what is left is when it is to be written.
        self.due().is_some_and(|due| due <= now)
    }

    /// Has a thread write it.
    pub(crate) fn write_beside(&mut self, now: Instant) {
        let Some(path) = self.path.clone() else { return };
        self.due = None;
        let known = self.known.clone();
        let started = std::thread::Builder::new()
            .name("latencies".to_owned())
            .spawn(move || write(&path, &known));
        match started {
            Ok(writer) => (self.writer, self.look) = (Some(writer), Some(now + LOOK_AGAIN)),
            Err(error) => self.came_to(now, Err(error)),
        }
    }

    /// Writes it, once the thread that does has ended.
    pub(crate) fn write(&mut self) {
        // Whatever became of it, the file is written anew.
        let _ = self.ended();
        self.due = None;
        if let Some(path) = &self.path
            && let Err(error) = write(path, &self.known)
            && self.trouble.failures == 0
        {
            tracing::warn!(%error, "what was learnt of models cannot be written: it is learnt anew after the next start");
        }
    }

    /// What the writer came to, waiting for it.
    fn ended(&mut self) -> Option<std::io::Result<()>> {
        self.look = None;
        let writer = self.writer.take()?;
        let panicked = |_| Err(std::io::Error::other("the thread that writes it panicked"));
        Some(writer.join().unwrap_or_else(panicked))
    }

    /// Says it once where a write fails and once where one goes well again, and has what failed tried again.
    fn came_to(&mut self, now: Instant, result: std::io::Result<()>) {
        match result {
            Ok(()) => {
                if self.trouble.is_over() {
                    tracing::info!("what was learnt of models is written again");
                }
            }
            Err(error) => {
                if self.trouble.failed(now) {
                    tracing::warn!(%error, "what was learnt of models cannot be written: it is tried again");
                }
                // Nothing else may ever be learnt: the write is still owed.
                self.due.get_or_insert(now);
            }
        }
    }
}

fn write(path: &Path, known: &Known) -> std::io::Result<()> {
    let text = serde_json::to_vec(&FileRef {
        form: FORM,
        models: &known.models,
        costs: &known.costs,
    })?;
    let beside = path.with_extension("json.new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}

#[derive(Serialize)]
struct FileRef<'a> {
    form: u32,
    models: &'a BTreeMap<String, Shapes>,
    costs: &'a BTreeMap<String, KnownCost>,
}

/// One of [`MAX_MODELS`] at most.
fn keep<T>(known: &mut BTreeMap<String, T>, model: &ModelVersionKey, value: T) {
    let name = model.to_string();
    if known.len() >= MAX_MODELS && !known.contains_key(&name) {
        known.pop_first();
    }
    known.insert(name, value);
}

fn read(path: &Path) -> std::io::Result<File> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(File::default()),
        Err(error) => return Err(error),
    };
    if length > MAX_BYTES {
        return Err(std::io::Error::other("the file is too large"));
    }
    let mut file: File = serde_json::from_slice(&std::fs::read(path)?)?;
    if file.form != FORM {
        return Err(std::io::Error::other(format!("form {} is not known", file.form)));
    }
    while file.models.len() > MAX_MODELS {
        file.models.pop_last();
    }
    while file.costs.len() > MAX_MODELS {
        file.costs.pop_last();
    }
    Ok(file)
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
