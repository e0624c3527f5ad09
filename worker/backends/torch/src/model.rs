//! One TorchScript module on one device.

use std::sync::Arc;

use mesh_backend::{BackendError, BatchInput, BatchInputs, BatchOutputs, LoadSpec, LoadedModel};
use mesh_types::{DeviceId, DeviceKind, LoadReport, ModelConfig};
use tch::{CModule, Device, IValue, Kind, Tensor};

use crate::{
    element, fault,
    lane::Lane,
    names, outputs,
    shim::{InferenceMode, Meter},
};

/// The runtime's name in reports.
const RUNTIME: &str = "libtorch 2.11.0";

/// A loaded module; lives on one device thread.
#[derive(Debug)]
pub(crate) struct TorchModel {
    module: CModule,
    device: Device,
    lane: Lane,
    config: Arc<ModelConfig>,
    /// Spec of each argument.
    arguments: Vec<usize>,
    /// Spec of each result.
    results: Vec<usize>,
    memory_bytes: u64,
}

impl TorchModel {
    pub(crate) fn load(spec: &LoadSpec, device: DeviceId) -> Result<Self, BackendError> {
        let Some(path) = &spec.artifact else {
            return Err(BackendError::Load("a TorchScript model needs an artifact".to_owned()));
        };
        for tensor in spec.config.input.iter().chain(&spec.config.output) {
            element::kind_of(tensor.datatype)?;
        }
        let arguments = names::positions("input", &spec.config.input)?;
        let results = names::positions("output", &spec.config.output)?;
        let device = match device.kind {
            DeviceKind::Cpu => Device::Cpu,
            DeviceKind::Cuda => Device::Cuda(usize::from(device.index)),
        };
        let meter = Meter::begin(device);
        let mut module = CModule::load_on_device(path, device).map_err(|error| fault::load(&error))?;
        module.f_set_eval().map_err(|error| fault::load(&error))?;
        let memory_bytes = meter.held().unwrap_or_else(|| parameter_bytes(&module));
        drop(meter);
        Ok(Self {
            module,
            device,
            lane: Lane::to(device),
            config: spec.config.clone(),
            arguments,
            results,
            memory_bytes,
        })
    }

    fn gather(&self, input: &BatchInput<'_>) -> Result<Tensor, BackendError> {
        let kind = element::kind_of(input.spec.datatype)?;
        let extents: Result<Vec<i64>, _> = input.shape.iter().map(|extent| i64::try_from(*extent)).collect();
        let extents =
            extents.map_err(|_| BackendError::InvalidInput(format!("shape of '{}' is too large", input.spec.name)))?;
        let tensor = self.lane.stage(&extents, kind)?;
        let length = tensor.numel() * kind.elt_size_in_bytes();
        if length != input.byte_len() {
            let problem = format!(
                "'{}' holds {} bytes, its shape needs {length}",
                input.spec.name,
                input.byte_len()
            );
            return Err(BackendError::InvalidInput(problem));
        }
        fill(&tensor, length, &input.parts);
        self.lane.send(tensor)
    }
}

/// What the module's parameters take, where nothing could be measured.
fn parameter_bytes(module: &CModule) -> u64 {
    let bytes_of = |tensor: &Tensor| tensor.numel() * tensor.f_kind().map_or(4, Kind::elt_size_in_bytes);
    let parameters = module.named_parameters().unwrap_or_default();
    let bytes = parameters
        .iter()
        .map(|(_, tensor)| u64::try_from(bytes_of(tensor)).unwrap_or(0));
    bytes.sum()
}

/// Copies the parts one behind the other into a new, contiguous tensor of exactly `length` bytes.
fn fill(tensor: &Tensor, length: usize, parts: &[&[u8]]) {
    if length == 0 {
        return;
    }
    // SAFETY: the tensor was just made in the host's memory by `Lane::stage`: contiguous, `length` bytes long (numel times element size),
    // referenced by nobody else, and it outlives the slice. Any bytes are valid for u8.
    let mut rest = unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast::<u8>(), length) };
    for part in parts {
        let (here, after) = rest.split_at_mut(part.len().min(rest.len()));
        here.copy_from_slice(part.get(..here.len()).unwrap_or_default());
        rest = after;
    }
}

impl LoadedModel for TorchModel {
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        let _inference = InferenceMode::begin();
        let _stream = self.lane.enter();
        let mut arguments = Vec::with_capacity(self.arguments.len());
        for index in &self.arguments {
            let input = batch
                .inputs
                .get(*index)
                .ok_or_else(|| BackendError::InvalidInput("an input is missing".to_owned()))?;
            arguments.push(IValue::Tensor(self.gather(input)?));
        }
        let result = self
            .module
            .forward_is(&arguments)
            .map_err(|error| fault::execution(&error))?;
        let outputs = outputs::read(result, &self.config, &self.results, batch.rows);
        // Only now: an output that is one of them must be seen to be shared.
        drop(arguments);
        outputs
    }

    fn execute_measured(&mut self, batch: &BatchInputs<'_>) -> Result<(BatchOutputs, Option<u64>), BackendError> {
        let meter = Meter::begin(self.device);
        let outputs = self.execute(batch)?;
        Ok((outputs, meter.peak()))
    }

    fn report(&self) -> LoadReport {
        LoadReport::plain(RUNTIME)
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}
