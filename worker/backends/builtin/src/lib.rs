//! Models that are part of the mesh: for protocol tests, string tensors and faults on purpose.
//!
//! The configuration's parameter `builtin` names the model. Test doubles for faults (`fail_on_negative`,
//! `panic_on_negative`) are real models too: they prove that a fault stays in its batch.

mod arithmetic;
mod model;

use mesh_backend::{Backend, BackendError, DeviceInfo, LoadSpec, LoadedModel};
use mesh_types::{ArtifactFormat, DeviceId, DeviceKind};

/// The runtime of the built-in models.
#[derive(Debug, Default, Clone, Copy)]
pub struct BuiltinBackend;

impl BuiltinBackend {
    /// It has nothing to set up.
    pub fn new() -> Self {
        Self
    }
}

impl Backend for BuiltinBackend {
    fn name(&self) -> &'static str {
        "builtin"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        Vec::new()
    }

    fn formats(&self) -> &'static [ArtifactFormat] {
        &[ArtifactFormat::Builtin]
    }

    fn load(&self, spec: &LoadSpec, device: DeviceId) -> Result<Box<dyn LoadedModel>, BackendError> {
        if device.kind != DeviceKind::Cpu {
            return Err(BackendError::Unsupported(
                "built-in models run on the CPU only".to_owned(),
            ));
        }
        Ok(Box::new(model::BuiltinModel::new(spec)?))
    }
}

#[cfg(test)]
mod tests;
