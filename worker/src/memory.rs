//! What a device has learnt of its models' latencies, kept over restarts in a file of its own.
//!
//! Owns the file's form and the bound on it. A missing, broken or foreign file is no fault: the device learns anew, from the
//! warm-up on. Written when the device ends and when a model leaves it, beside the file first and then renamed, so that a
//! reader finds the old or the new one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_scheduler::{Latency, Scheduler, ShapeKey};
use mesh_types::{DeviceId, ModelVersionKey};
use serde::{Deserialize, Serialize};

use crate::{models::MAX_MODELS, shared::Queued};

/// The form of the file; another one is not read.
const FORM: u32 = 1;
/// A larger file was not written by us.
const MAX_BYTES: u64 = 64 * 1024 * 1024;

type Shapes = Vec<(ShapeKey, Latency)>;

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    form: u32,
    models: BTreeMap<String, Shapes>,
}

/// What has been learnt.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    path: Option<PathBuf>,
    models: BTreeMap<String, Shapes>,
}

impl Memory {
    /// What is in the folder about the device; nothing without a folder.
    pub(crate) fn read(folder: Option<&Path>, device: DeviceId) -> Self {
        let Some(folder) = folder else { return Self::default() };
        let name = device.to_string().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let path = folder.join(format!("latency-{name}.json"));
        let models = match read(&path) {
            Ok(models) => models,
            Err(error) => {
                tracing::warn!(%device, %error, "what was learnt of latencies cannot be read: it is learnt anew");
                BTreeMap::new()
            }
        };
        Self {
            path: Some(path),
            models,
        }
    }

    /// What is known of a model.
    pub(crate) fn of(&self, model: &ModelVersionKey) -> &[(ShapeKey, Latency)] {
        self.models.get(&model.to_string()).map_or(&[], Vec::as_slice)
    }

    /// Takes over what the scheduler has learnt of a model.
    pub(crate) fn learn(&mut self, model: &ModelVersionKey, scheduler: &Scheduler<Arc<ModelVersionKey>, Queued>) {
        let of_model = scheduler.learnt().filter(|(key, ..)| key.as_ref() == model);
        let shapes: Shapes = of_model
            .map(|(_, shape, latency)| (shape.clone(), latency.clone()))
            .collect();
        if shapes.is_empty() {
            return;
        }
        let name = model.to_string();
        if self.models.len() >= MAX_MODELS && !self.models.contains_key(&name) {
            self.models.pop_first();
        }
        self.models.insert(name, shapes);
    }

    /// Writes the file.
    pub(crate) fn write(&self) {
        let Some(path) = &self.path else { return };
        let write = || {
            let text = serde_json::to_vec(&FileRef {
                form: FORM,
                models: &self.models,
            })?;
            let beside = path.with_extension("json.new");
            std::fs::write(&beside, text)?;
            std::fs::rename(&beside, path)
        };
        if let Err(error) = write() {
            tracing::warn!(%error, "what was learnt of latencies cannot be written");
        }
    }
}

#[derive(Serialize)]
struct FileRef<'a> {
    form: u32,
    models: &'a BTreeMap<String, Shapes>,
}

fn read(path: &Path) -> std::io::Result<BTreeMap<String, Shapes>> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(error),
    };
    if length > MAX_BYTES {
        return Err(std::io::Error::other("the file is too large"));
    }
    let file: File = serde_json::from_slice(&std::fs::read(path)?)?;
    if file.form != FORM {
        return Err(std::io::Error::other(format!("form {} is not known", file.form)));
    }
    let mut models = file.models;
    while models.len() > MAX_MODELS {
        models.pop_last();
    }
    Ok(models)
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
    fn a_broken_file_and_one_of_another_form_are_as_good_as_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("latency-cpu-0.json");
        for text in ["{", r#"{"form":2,"models":{}}"#, ""] {
            std::fs::write(&path, text).unwrap();
            assert!(
                Memory::read(Some(folder.path()), DeviceId::cpu(0))
                    .of(&key())
                    .is_empty()
            );
        }
    }
}
