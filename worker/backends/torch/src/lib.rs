//! TorchScript modules and packages compiled by AOTInductor, through libtorch, on the CPU and on CUDA where its library is found.
//!
//! The only room that links libtorch, and with the built-in models the only one that may hold `unsafe`. It implements
//! [`mesh_backend::Backend`], and opens memory that callers have on CUDA devices ([`CudaMemory`]): batching, queues and warm-up belong
//! to the worker.
//!
//! Invariants: a C++ exception becomes a [`mesh_backend::BackendError`], never a panic; libtorch's CUDA library is opened
//! before libtorch is asked anything about CUDA (it remembers the first answer for good); input bytes are copied once into
//! the batch's tensor, and an output's bytes are handed out only where nothing else can reach them and copied otherwise, so
//! no model ever sees or keeps a caller's buffer.
//!
//! Settings were chosen by measurement (one thread, a small perceptron and a transformer encoder): inference mode saves 2 to
//! 5 % of a small model's call beside `no_grad`; the fuser of the profiling executor saves a third, and stays on. Whether
//! freezing saves anything depends on the model and the processor: it is tried on each ([`variants`]).

#![expect(
    unsafe_code,
    reason = "libtorch is C++: tensors are filled and read through raw pointers"
)]

mod cuda;
mod decisions;
mod difference;
mod element;
mod fault;
mod ipc;
mod lane;
mod made_by;
mod model;
mod module;
mod outputs;
mod package;
mod probe;
mod release;
mod schema;
mod shim;
mod variants;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_backend::{Backend, BackendError, DeviceInfo, LoadSpec, LoadedModel, Passing, Signature};
use mesh_types::{ArtifactFormat, DeviceId, DeviceKind, ModelConfig, TensorSpec};

use crate::decisions::Decisions;
pub use crate::{
    ipc::{CUDA_DRIVER, CudaMemory, CudaMemoryError, OpenMemory},
    made_by::{MadeBy, MadeByError},
    release::{HostHeap, host_heap},
};

/// The libtorch that the bindings are written for.
pub(crate) const LIBTORCH_VERSION: &str = "2.11.0";

/// How libtorch is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TorchOptions {
    /// Threads within one operation, per device thread. Small models are fastest with 1.
    pub intra_op_threads: u16,
    /// By which versions a file may have been made.
    pub made_by: MadeBy,
    /// Whether memory is cleared before a model gets it, so that none shows what another has freed. It holds for the process:
    /// once said, it stays.
    pub clear_memory: bool,
    /// Where packages are unpacked; none: in the system's folder for temporary files.
    pub scratch: Option<PathBuf>,
}

impl Default for TorchOptions {
    fn default() -> Self {
        Self {
            intra_op_threads: 1,
            made_by: MadeBy::default(),
            clear_memory: false,
            scratch: None,
        }
    }
}

/// The libtorch runtime.
#[derive(Debug)]
pub struct TorchBackend {
    options: TorchOptions,
    devices: Vec<DeviceInfo>,
    decisions: Arc<Decisions>,
}

impl TorchBackend {
    /// Starts libtorch; looks for CUDA once, and bounds the arenas of the C library's allocator.
    pub fn new(options: TorchOptions) -> Self {
        release::limit_arenas();
        shim::watch_workspace();
        if options.clear_memory {
            shim::clear_memory();
        }
        let devices = cuda::devices();
        if devices.iter().any(|device| device.id.kind == DeviceKind::Cuda) {
            shim::watch_devices();
        }
        Self {
            options,
            devices,
            decisions: Arc::default(),
        }
    }
}

/// What a file takes and gives. A TorchScript file is loaded for it, onto the host, which runs its author's code as loading it
/// anywhere does; of a package no code is run.
pub fn signature(path: &Path, format: ArtifactFormat) -> Result<Signature, BackendError> {
    match format {
        ArtifactFormat::TorchAoti => package::signature(path),
        ArtifactFormat::TorchScript => {
            let read = module::Module::load(path, tch::Device::Cpu).and_then(|module| module.signature());
            read.map_err(|failure| fault::load(&failure))
        }
        ArtifactFormat::Builtin => Err(BackendError::Unsupported("a built-in model has no file".to_owned())),
        ArtifactFormat::Ensemble => Err(BackendError::Unsupported("an ensemble has no file".to_owned())),
    }
}

/// Runs a model of a file on zeros, on the host, and tells what the outputs are that the configuration names: their types, and their
/// extents as a configuration has them. What it says of outputs beyond their names is not looked at.
pub fn probe(
    path: &Path,
    format: ArtifactFormat,
    config: &ModelConfig,
    options: &TorchOptions,
) -> Result<Vec<TensorSpec>, BackendError> {
    match format {
        ArtifactFormat::TorchAoti | ArtifactFormat::TorchScript => probe::outputs(path, format, config, options),
        ArtifactFormat::Builtin | ArtifactFormat::Ensemble => {
            Err(BackendError::Unsupported(format!("{} has no file", format.platform())))
        }
    }
}

impl Backend for TorchBackend {
    fn name(&self) -> &'static str {
        "torch"
    }

    fn devices(&self) -> Vec<DeviceInfo> {
        self.devices.clone()
    }

    fn formats(&self) -> &'static [ArtifactFormat] {
        &[ArtifactFormat::TorchScript, ArtifactFormat::TorchAoti]
    }

    fn enter_thread(&self) {
        // libtorch keeps this per calling thread (OpenMP), so it is set where models will run.
        tch::set_num_threads(i32::from(self.options.intra_op_threads.max(1)));
    }

    fn give_way(&self) -> bool {
        shim::give_way()
    }

    fn load(&self, spec: &LoadSpec, device: DeviceId) -> Result<Box<dyn LoadedModel>, BackendError> {
        Ok(Box::new(model::TorchModel::load(
            spec,
            device,
            &self.options,
            self.decisions.clone(),
        )?))
    }

    fn estimate(&self, spec: &LoadSpec) -> Option<u64> {
        let file = std::fs::metadata(spec.artifact.as_ref()?).ok()?.len();
        Some(file.saturating_add(module::CODE_BYTES))
    }

    fn passing(&self, spec: &LoadSpec, device: DeviceId) -> Passing {
        model::passing(spec, device, &self.decisions)
    }

    fn clear_memory(&self) {
        shim::clear_memory();
    }

    fn release_memory(&self, device: DeviceId) {
        release::memory(device.kind);
    }
}

#[cfg(test)]
mod clearing_tests;
#[cfg(test)]
mod conformance_tests;
#[cfg(test)]
mod package_tests;
#[cfg(test)]
mod probe_tests;
#[cfg(test)]
mod signature_tests;
#[cfg(test)]
mod tests;
