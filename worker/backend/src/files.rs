//! Files of models, read without serving them: what is known of a model before it is published.

use std::path::Path;

use mesh_types::{ArtifactFormat, ModelConfig, TensorSpec};

use crate::Signature;

/// Whoever can read models' files. Problems are told in words for the person who publishes.
pub trait ModelFiles {
    /// What a file says that it takes and gives.
    fn signature(&self, path: &Path, format: ArtifactFormat) -> Result<Signature, String>;

    /// Runs the model on zeros, on the host, to learn what its outputs are: those that the configuration names, in that order, with
    /// their types and extents as a configuration has them. What the configuration says of their types and extents is not looked at;
    /// of the inputs it says everything.
    fn probe(&self, path: &Path, format: ArtifactFormat, config: &ModelConfig) -> Result<Vec<TensorSpec>, String>;
}

/// Who reads signatures and runs nothing.
impl<F: Fn(&Path, ArtifactFormat) -> Result<Signature, String>> ModelFiles for F {
    fn signature(&self, path: &Path, format: ArtifactFormat) -> Result<Signature, String> {
        self(path, format)
    }

    fn probe(&self, _: &Path, _: ArtifactFormat, _: &ModelConfig) -> Result<Vec<TensorSpec>, String> {
        Err("nothing here runs models".to_owned())
    }
}
