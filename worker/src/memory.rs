//! What a device has learnt of its models: how long batches take and what a load costs, kept over restarts in a file of its own.
//!
//! Owns the file's form and the bound on it. A missing, broken or foreign file is no fault: the device learns anew, from the
//! warm-up on. Written when the device ends, beside the file first and then renamed, so that a reader finds the old or the new
//! one. A cost is that of one file loaded by one configuration: for another it is not known.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_backend::LoadSpec;
use mesh_scheduler::{Latency, Scheduler, ShapeKey};
use mesh_types::{DeviceId, ModelVersionKey};
use serde::{Deserialize, Serialize};

use crate::{models::MAX_MODELS, shared::Queued};

/// The form of the file; another one is not read.
const FORM: u32 = 2;
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

/// What has been learnt.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    path: Option<PathBuf>,
    models: BTreeMap<String, Shapes>,
    costs: BTreeMap<String, KnownCost>,
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
            models,
            costs,
        }
    }

    /// What is known of a model.
    pub(crate) fn of(&self, model: &ModelVersionKey) -> &[(ShapeKey, Latency)] {
        self.models.get(&model.to_string()).map_or(&[], Vec::as_slice)
    }

    /// Takes over what the scheduler has learnt of a model.
    pub(crate) fn learn(&mut self, model: &ModelVersionKey, scheduler: &Scheduler<Arc<ModelVersionKey>, Queued>) {
        let of_model = scheduler.learnt().filter(|(key, ..)| key.as_ref() == model);
        let shapes: Shapes = of_model.map(|(_, shape, latency)| (shape, latency.clone())).collect();
        if shapes.is_empty() {
            return;
        }
        keep(&mut self.models, model, shapes);
    }

    /// The model is another one from now on.
    pub(crate) fn forget(&mut self, model: &ModelVersionKey) {
        self.models.remove(&model.to_string());
    }

    /// What loading this file by this configuration cost, if that is known.
    pub(crate) fn cost(&self, spec: &LoadSpec) -> Option<KnownCost> {
        let known = self.costs.get(&spec.key.to_string()).copied();
        known.filter(|known| known.identity == KnownCost::identity(spec))
    }

    /// Takes note of what a load has cost.
    pub(crate) fn learn_cost(&mut self, model: &ModelVersionKey, cost: KnownCost) {
        keep(&mut self.costs, model, cost);
    }

    /// Writes the file.
    pub(crate) fn write(&self) {
        let Some(path) = &self.path else { return };
        let write = || {
            let text = serde_json::to_vec(&FileRef {
                form: FORM,
                models: &self.models,
                costs: &self.costs,
            })?;
            let beside = path.with_extension("json.new");
            std::fs::write(&beside, text)?;
            std::fs::rename(&beside, path)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "what was learnt of models cannot be written");
        }
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
        memory.learn(&key(), &learnt());
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
