//! Models that are part of the mesh: for protocol tests, string tensors and faults on purpose.
//!
//! The configuration's parameter `builtin` names the model. Models with faults on purpose (`fail_on_negative`,
//! `panic_on_negative`, `hang_on_negative`, `nan_on_negative`, `oom_above`) are real models too: they prove that a fault
//! stays with the request that causes it. Stateful ones (`sequence`, `sequence_sum`, `sum_state`, `join_state`) show whose
//! state is whose. `echo_parameters` answers with the parameters of its requests. Decoupled ones (`repeat_int32`, `mock_llm`) give any number of answers to a request. Models of the first kind
//! may hold memory (`weights_bytes`), take some for each execution (`scratch_bytes`) and time to load (`load_ms`) on purpose: they
//! show how models come and go in bounded memory.

mod arithmetic;
mod decoupled;
mod gate;
mod llm;
mod model;
mod parameters;
mod sequence;

use std::sync::Arc;

use mesh_backend::{Backend, BackendError, DeviceInfo, LoadSpec, LoadedModel};
use mesh_types::{ArtifactFormat, DeviceId, DeviceKind};

use crate::gate::Gate;

/// The runtime of the built-in models. Clones are the same runtime.
#[derive(Debug, Default, Clone)]
pub struct BuiltinBackend {
    gate: Arc<Gate>,
}

impl BuiltinBackend {
    /// It has nothing to set up.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets every execution of `hang_on_negative` go on that hangs now.
    pub fn release(&self) {
        self.gate.open();
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

    fn estimate(&self, spec: &LoadSpec) -> Option<u64> {
        Some(model::weights_of(&spec.config))
    }

    fn load(&self, spec: &LoadSpec, device: DeviceId) -> Result<Box<dyn LoadedModel>, BackendError> {
        if device.kind != DeviceKind::Cpu {
            return Err(BackendError::Unsupported(
                "built-in models run on the CPU only".to_owned(),
            ));
        }
        let name = spec.config.parameters.get("builtin").and_then(|value| value.as_str());
        if let Some(model) = sequence::SequenceModel::named(name.unwrap_or_default(), spec) {
            return Ok(Box::new(model?));
        }
        if let Some(model) = decoupled::DecoupledModel::named(name.unwrap_or_default(), spec) {
            return Ok(Box::new(model?));
        }
        if let Some(model) = parameters::EchoParameters::named(name.unwrap_or_default(), spec) {
            return Ok(Box::new(model?));
        }
        if spec.config.request_parameters.is_some() {
            let problem = format!("only {} is given request_parameters: leave them out", parameters::NAME);
            return Err(BackendError::Load(problem));
        }
        if spec.config.is_decoupled() {
            let problem = format!(
                "only {} give any number of answers: leave model_transaction_policy out",
                decoupled::NAMES.join(" and ")
            );
            return Err(BackendError::Load(problem));
        }
        Ok(Box::new(model::BuiltinModel::new(spec, self.gate.clone())?))
    }
}

#[cfg(test)]
mod tests;
