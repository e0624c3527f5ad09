//! What a device has learnt of its models: how long batches take and what a load costs, kept over restarts in a file of its own.
//!
//! Owns the file's form and the bound on it, and when it is written. A missing, broken or foreign file is no fault: the device
//! learns anew, from the warm-up on. Written soon after something was learnt and when the device ends, beside the file first and
//! then renamed, so that a reader finds the old or the new one. A cost is that of one file loaded by one configuration: for another
//! it is not known.
//!
//! Invariants: a device that is killed has learnt costs of at most [`WRITE_AFTER`] in vain, and latencies of [`REFRESH_AFTER`], as
//! long as the disk keeps up; one thread writes at a time, and the device's actor waits for none but at its end.

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
/// While a thread writes, it is looked so long later whether another may.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
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
    writer: Option<JoinHandle<()>>,
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

    /// When it is to be written.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is to be written now: it is due, and no thread is at it.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| now < due) {
            return false;
        }
        if self.writer.as_ref().is_some_and(|writer| !writer.is_finished()) {
            self.due = Some(now + LOOK_AGAIN);
            return false;
        }
        true
    }

    /// Has a thread write it.
    pub(crate) fn write_beside(&mut self) {
        let Some(path) = self.path.clone() else { return };
        self.due = None;
        let known = self.known.clone();
        let started = std::thread::Builder::new()
            .name("latencies".to_owned())
            .spawn(move || write(&path, &known));
        // The one before has ended and says nothing.
        self.writer = started
            .inspect_err(|error| tracing::warn!(%error, "no thread writes what was learnt of models"))
            .ok();
    }

    /// Writes it, once the thread that does has ended.
    pub(crate) fn write(&mut self) {
        // Whatever became of it, the file is written anew.
        let _ = self.writer.take().map(JoinHandle::join);
        self.due = None;
        if let Some(path) = &self.path {
            write(path, &self.known);
        }
    }
}

fn write(path: &Path, known: &Known) {
    let put = || {
        let text = serde_json::to_vec(&FileRef {
            form: FORM,
            models: &known.models,
            costs: &known.costs,
        })?;
        let beside = path.with_extension("json.new");
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, path)
    };
    if let Err(error) = put() {
        tracing::warn!(%error, "what was learnt of models cannot be written");
    }
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
mod tests {
    use std::time::Duration;

    use mesh_scheduler::BatchRules;
    use mesh_types::ModelConfig;

    use super::*;

    fn key() -> ModelVersionKey {
        crate::tests::key("identity")
    }

    fn learnt() -> Scheduler<Arc<ModelVersionKey>, Queued> {
        let mut scheduler = Scheduler::new(1);
        let model = Arc::new(key());
        scheduler.add_model(model.clone(), BatchRules::of(&ModelConfig::default(), 1));
        let sweep = [(1, Duration::from_millis(3))];
        scheduler.seed(&model, &ShapeKey::default(), &sweep);
        scheduler
    }

    #[test]
    fn what_was_learnt_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let device = DeviceId::cpu(0);
        let mut memory = Memory::read(Some(folder.path()), device);
        assert!(memory.of(&key()).is_empty());
        memory.learn(&Arc::new(key()), &learnt());
        memory.write();
        let again = Memory::read(Some(folder.path()), device);
        assert_eq!(again.of(&key()).len(), 1);
        assert!(
            Memory::read(Some(folder.path()), DeviceId::cpu(1))
                .of(&key())
                .is_empty()
        );
        assert!(Memory::read(None, device).of(&key()).is_empty());
    }

    #[test]
    fn a_cost_is_read_back_for_the_file_and_configuration_that_it_was_measured_with() {
        let folder = tempfile::tempdir().unwrap();
        let spec = LoadSpec {
            key: key(),
            config: Arc::new(ModelConfig::default()),
            artifact: Some("here/abc".into()),
            format: mesh_types::ArtifactFormat::TorchScript,
        };
        let cost = KnownCost::new(&spec, 1_000, 20, Duration::from_millis(3));
        let mut memory = Memory::read(Some(folder.path()), DeviceId::cpu(0));
        assert_eq!(memory.cost(&spec), None);
        memory.learn_cost(&spec.key, cost);
        memory.write();
        let again = Memory::read(Some(folder.path()), DeviceId::cpu(0));
        let moved = LoadSpec {
            artifact: Some("there/abc".into()),
            ..spec.clone()
        };
        assert_eq!((again.cost(&spec), again.cost(&moved)), (Some(cost), Some(cost)));
        let other_file = LoadSpec {
            artifact: Some("here/def".into()),
            ..spec.clone()
        };
        let config = ModelConfig {
            max_batch_size: 7,
            ..ModelConfig::default()
        };
        let other_config = LoadSpec {
            config: Arc::new(config),
            ..spec
        };
        assert_eq!((again.cost(&other_file), again.cost(&other_config)), (None, None));
    }

    fn spec() -> LoadSpec {
        LoadSpec {
            key: key(),
            config: Arc::new(ModelConfig::default()),
            artifact: None,
            format: mesh_types::ArtifactFormat::Builtin,
        }
    }

    #[test]
    fn what_was_learnt_is_written_soon_after_and_not_at_each_change() {
        let folder = tempfile::tempdir().unwrap();
        let (start, spec) = (Instant::now(), spec());
        let cost = KnownCost::new(&spec, 1_000, 20, Duration::from_millis(3));
        let mut memory = Memory::read(Some(folder.path()), DeviceId::cpu(0));
        let there = || Memory::read(Some(folder.path()), DeviceId::cpu(0)).cost(&spec);
        assert!(!memory.is_due(start + 2 * REFRESH_AFTER), "nothing has changed");
        memory.changed(start, REFRESH_AFTER);
        memory.learn_cost(&spec.key, cost);
        memory.changed(start, WRITE_AFTER);
        // Whoever learns all the time is written all the same.
        let later = start + WRITE_AFTER.mul_f64(0.9);
        memory.changed(later, WRITE_AFTER);
        assert_eq!(memory.due(), Some(start + WRITE_AFTER));
        assert!(!memory.is_due(later));
        assert!(memory.is_due(start + WRITE_AFTER));
        memory.write_beside();
        memory.writer.take().unwrap().join().unwrap();
        assert_eq!((there(), memory.due()), (Some(cost), None));
        let mut nowhere = Memory::read(None, DeviceId::cpu(0));
        nowhere.changed(start, WRITE_AFTER);
        assert_eq!(nowhere.due(), None, "there is nothing to write to");
    }

    #[test]
    fn one_thread_writes_at_a_time_and_the_last_write_comes_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let (start, spec) = (Instant::now(), spec());
        let mut memory = Memory::read(Some(folder.path()), DeviceId::cpu(0));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        memory.writer = Some(std::thread::spawn(move || {
            let _ = wait.recv();
        }));
        memory.changed(start, WRITE_AFTER);
        let due = start + WRITE_AFTER;
        assert!(!memory.is_due(due), "it is at it still");
        assert_eq!(memory.due(), Some(due + LOOK_AGAIN));
        let cost = KnownCost::new(&spec, 1_000, 20, Duration::from_millis(3));
        memory.learn_cost(&spec.key, cost);
        drop(go);
        memory.write();
        assert!(memory.writer.is_none());
        assert_eq!(
            Memory::read(Some(folder.path()), DeviceId::cpu(0)).cost(&spec),
            Some(cost)
        );
    }

    #[test]
    fn no_more_costs_are_kept_than_a_device_may_have_models() {
        let mut known = BTreeMap::new();
        let named = |number: usize| ModelVersionKey {
            model: format!("m{number:05}").parse().unwrap(),
            ..key()
        };
        for number in 0..=MAX_MODELS {
            keep(&mut known, &named(number), number);
        }
        assert_eq!(known.len(), MAX_MODELS);
        assert_eq!(known.values().max(), Some(&MAX_MODELS));
    }

    #[test]
    fn a_broken_file_and_one_of_another_form_are_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latency-cpu-0.json");
        for text in ["{", r#"{"form":1,"models":{},"costs":{}}"#, ""] {
            std::fs::write(&path, text).unwrap();
            assert!(
                Memory::read(Some(folder.path()), DeviceId::cpu(0))
                    .of(&key())
                    .is_empty()
            );
        }
    }
}
