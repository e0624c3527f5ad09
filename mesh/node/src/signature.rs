//! Files of models, asked of the runtime that would run them: for whoever publishes them, and for a mesh that reads a repository.

use std::path::{Path, PathBuf};

use mesh_backend::{ModelFiles, Signature};
use mesh_types::{ArtifactFormat, ModelConfig, TensorSpec};
use mesh_worker::Cage;

/// Reads files, and runs them where that is asked. Offline: nothing of a mesh is started, and the code of a model that is run may do
/// what its caller may.
#[derive(Debug, Clone, Copy)]
pub struct Files;

/// The same for a mesh: each file on a thread that is confined as those of its devices are.
#[derive(Debug, Clone)]
pub(crate) struct ConfinedFiles {
    cage: Option<Cage>,
    scratch: PathBuf,
}

impl ConfinedFiles {
    pub(crate) fn new(cage: Option<Cage>, scratch: PathBuf) -> Self {
        Self { cage, scratch }
    }

    fn confined<T: Send>(&self, path: &Path, work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
        let Some(cage) = &self.cage else { return work() };
        let ran = cage.run(Some(path), work);
        ran.map_err(|error| format!("the model's file cannot be looked at: {error}"))?
    }
}

impl ModelFiles for Files {
    fn signature(&self, path: &Path, format: ArtifactFormat) -> Result<Signature, String> {
        runtime::signature(path, format)
    }

    fn probe(&self, path: &Path, format: ArtifactFormat, config: &ModelConfig) -> Result<Vec<TensorSpec>, String> {
        runtime::probe(path, format, config, None)
    }
}

impl ModelFiles for ConfinedFiles {
    fn signature(&self, path: &Path, format: ArtifactFormat) -> Result<Signature, String> {
        self.confined(path, || runtime::signature(path, format))
    }

    fn probe(&self, path: &Path, format: ArtifactFormat, config: &ModelConfig) -> Result<Vec<TensorSpec>, String> {
        self.confined(path, || runtime::probe(path, format, config, Some(&self.scratch)))
    }
}

#[cfg(feature = "torch")]
mod runtime {
    use super::*;

    pub(super) fn signature(path: &Path, format: ArtifactFormat) -> Result<Signature, String> {
        mesh_backend_torch::signature(path, format).map_err(|error| error.to_string())
    }

    pub(super) fn probe(
        path: &Path,
        format: ArtifactFormat,
        config: &ModelConfig,
        scratch: Option<&Path>,
    ) -> Result<Vec<TensorSpec>, String> {
        let options = mesh_backend_torch::TorchOptions {
            scratch: scratch.map(Path::to_path_buf),
            ..mesh_backend_torch::TorchOptions::default()
        };
        mesh_backend_torch::probe(path, format, config, &options).map_err(|error| error.to_string())
    }
}

/// Says that this program was built without a runtime that reads files.
#[cfg(not(feature = "torch"))]
mod runtime {
    use super::*;

    const NO_RUNTIME: &str = "this program was built without libtorch";

    pub(super) fn signature(_: &Path, _: ArtifactFormat) -> Result<Signature, String> {
        Err(NO_RUNTIME.to_owned())
    }

    pub(super) fn probe(
        _: &Path,
        _: ArtifactFormat,
        _: &ModelConfig,
        _: Option<&Path>,
    ) -> Result<Vec<TensorSpec>, String> {
        Err(NO_RUNTIME.to_owned())
    }
}
