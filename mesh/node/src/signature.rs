//! What a model's file takes and gives, for `mesh model inspect`: asked of the runtime that would run it.

use std::path::Path;

use mesh_backend::Signature;
use mesh_types::ArtifactFormat;

/// Reads it. Offline: nothing of a mesh is started.
#[cfg(feature = "torch")]
pub fn signature(path: &Path, format: ArtifactFormat) -> Result<Signature, String> {
    mesh_backend_torch::signature(path, format).map_err(|error| error.to_string())
}

/// Says that this program was built without a runtime that reads files.
#[cfg(not(feature = "torch"))]
pub fn signature(_: &Path, _: ArtifactFormat) -> Result<Signature, String> {
    Err("this program was built without libtorch".to_owned())
}
