//! Files of models, for whoever publishes them: asked of the runtime that would run them.

use std::path::Path;

use mesh_backend::{ModelFiles, Signature};
use mesh_types::{ArtifactFormat, ModelConfig, TensorSpec};

/// Reads files, and runs them where that is asked. Offline: nothing of a mesh is started.
#[derive(Debug, Clone, Copy)]
pub struct Files;

#[cfg(feature = "torch")]
impl ModelFiles for Files {
    fn signature(&self, path: &Path, format: ArtifactFormat) -> Result<Signature, String> {
        mesh_backend_torch::signature(path, format).map_err(|error| error.to_string())
    }

    fn probe(&self, path: &Path, format: ArtifactFormat, config: &ModelConfig) -> Result<Vec<TensorSpec>, String> {
        mesh_backend_torch::probe(path, format, config).map_err(|error| error.to_string())
    }
}

#[cfg(not(feature = "torch"))]
const NO_RUNTIME: &str = "this program was built without libtorch";

/// Says that this program was built without a runtime that reads files.
#[cfg(not(feature = "torch"))]
impl ModelFiles for Files {
    fn signature(&self, _: &Path, _: ArtifactFormat) -> Result<Signature, String> {
        Err(NO_RUNTIME.to_owned())
    }

    fn probe(&self, _: &Path, _: ArtifactFormat, _: &ModelConfig) -> Result<Vec<TensorSpec>, String> {
        Err(NO_RUNTIME.to_owned())
    }
}
