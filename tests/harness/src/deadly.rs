//! A model runtime that ends its device thread when told, to see what becomes of everybody else.
//!
//! It runs the built-in models. A model named `deadly` takes its thread along on a value below zero: it panics with a payload
//! whose own drop panics, so that whoever catches the first panic meets the second outside of the catch. From then on its
//! loads wait at a [`Gate`], so that a test sees the time in which the model is away.

use std::{
    panic::resume_unwind,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_backend::{Backend, BackendError, BatchInputs, BatchOutputs, DeviceInfo, LoadSpec, LoadedModel};
use mesh_backend_builtin::BuiltinBackend;
use mesh_types::{ArtifactFormat, DeviceId, LoadReport};
use tokio::sync::watch;

use crate::PATIENCE;

/// The name of the models that can end their thread.
const DEADLY: &str = "deadly";
/// Between two looks at a closed gate.
const LOOK: Duration = Duration::from_millis(1);

/// What loads wait at; open at first. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(true)))
    }
}

impl Gate {
    /// Lets what waits go on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    fn close(&self) {
        self.0.send_replace(false);
    }

    /// Waits on a device thread, which knows no runtime; a test that never opens the gate fails elsewhere, and ends.
    fn pass(&self) {
        let began = Instant::now();
        while !*self.0.borrow() && began.elapsed() < PATIENCE {
            std::thread::park_timeout(LOOK);
        }
    }
}

/// The runtime.
#[derive(Debug, Default)]
pub struct DeadlyBackend {
    gate: Gate,
}

impl DeadlyBackend {
    /// One whose `deadly` models load anew once the gate is open again.
    pub fn new(gate: &Gate) -> Self {
        Self { gate: gate.clone() }
    }
}

struct DeadlyModel {
    model: Box<dyn LoadedModel>,
    gate: Gate,
}

/// Panics when it is dropped, unless a panic is under way already.
struct SecondPanic;

impl Drop for SecondPanic {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "takes the device thread along, as told");
    }
}

impl LoadedModel for DeadlyModel {
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        let parts = batch.inputs.iter().flat_map(|input| &input.parts);
        let is_below_zero = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes) < 0.0;
        if parts.flat_map(|part| part.as_chunks::<4>().0).any(is_below_zero) {
            self.gate.close();
            resume_unwind(Box::new(SecondPanic));
        }
        self.model.execute(batch)
    }

    fn memory_bytes(&self) -> u64 {
        self.model.memory_bytes()
    }

    fn report(&self) -> LoadReport {
        self.model.report()
    }
}

impl Backend for DeadlyBackend {
    fn name(&self) -> &'static str {
        DEADLY
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        Vec::new()
    }

    fn formats(&self) -> &'static [ArtifactFormat] {
        &[ArtifactFormat::Builtin]
    }

    fn load(&self, spec: &LoadSpec, device: DeviceId) -> Result<Box<dyn LoadedModel>, BackendError> {
        let model = BuiltinBackend::new().load(spec, device)?;
        if spec.key.model.as_str() != DEADLY {
            return Ok(model);
        }
        self.gate.pass();
        Ok(Box::new(DeadlyModel {
            model,
            gate: self.gate.clone(),
        }))
    }
}
