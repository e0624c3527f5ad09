//! One model on one device: a TorchScript module, or a compiled package.

use std::sync::Arc;

use mesh_backend::{BackendError, BatchInput, BatchInputs, BatchOutputs, Binding, LoadSpec, LoadedModel};
use mesh_types::{ArtifactFormat, Clock, DeviceId, DeviceKind, LoadReport, ModelConfig, Variant};
use tch::{Device, Tensor};

use crate::{
    decisions::Decisions,
    element, fault,
    lane::Lane,
    module::{Failure, Module},
    outputs,
    package::Package,
    shim::{InferenceMode, Meter},
    variants,
};

/// What runs a model.
#[derive(Debug)]
pub(crate) enum Runner {
    /// TorchScript, in one of its forms.
    Module(Module, Variant),
    /// Compiled code.
    Package(Package),
}

impl Runner {
    fn call(&self, inputs: &[Option<Tensor>]) -> Result<Vec<Tensor>, Failure> {
        match self {
            Self::Module(module, _) => module.call(inputs),
            Self::Package(package) => package.call(inputs),
        }
    }

    /// Whether it computes in another type than the model was written in.
    const fn converts(&self) -> bool {
        matches!(self, Self::Module(_, Variant::Bf16 | Variant::Fp16))
    }
}

/// A loaded model. It may move between threads, and is used by one at a time.
#[derive(Debug)]
pub(crate) struct TorchModel {
    runner: Runner,
    way: Way,
    spec: LoadSpec,
    on: DeviceId,
    memory_bytes: u64,
    report: LoadReport,
    decisions: Arc<Decisions>,
}

/// How inputs get to a runner and outputs back.
#[derive(Debug)]
pub(crate) struct Way {
    pub(crate) device: Device,
    lane: Lane,
    pub(crate) config: Arc<ModelConfig>,
    /// The inputs that are numbers: they stay with the host.
    plain: Vec<usize>,
}

impl TorchModel {
    pub(crate) fn load(spec: &LoadSpec, on: DeviceId, decisions: Arc<Decisions>) -> Result<Self, BackendError> {
        let Some(path) = &spec.artifact else {
            return Err(BackendError::Load("a model of libtorch needs an artifact".to_owned()));
        };
        let config = &spec.config;
        for tensor in config.input.iter().chain(&config.output) {
            element::kind_of(tensor.datatype)?;
        }
        let device = match on.kind {
            DeviceKind::Cpu => Device::Cpu,
            DeviceKind::Cuda => Device::Cuda(usize::from(on.index)),
        };
        let meter = Meter::begin(device);
        let (runner, counted, plain) = match spec.format {
            ArtifactFormat::TorchAoti => {
                let package = Package::load(path, device, config)?;
                let bytes = package.bytes();
                (Runner::Package(package), bytes, Vec::new())
            }
            _ => {
                let mut module = Module::load(path, device).map_err(|failure| fault::load(&failure))?;
                let signature = module.signature().map_err(|failure| fault::load(&failure))?;
                let binding = Binding::of(&signature, config)?;
                module.plan(&binding).map_err(|failure| fault::load(&failure))?;
                let bytes = module.bytes();
                (Runner::Module(module, Variant::Original), bytes, binding.plain)
            }
        };
        let held = meter.held().unwrap_or(0);
        drop(meter);
        let kind = if matches!(runner, Runner::Package(_)) {
            ", AOTInductor"
        } else {
            ", TorchScript"
        };
        Ok(Self {
            runner,
            way: Way {
                device,
                lane: Lane::to(device),
                config: config.clone(),
                plain,
            },
            spec: spec.clone(),
            on,
            memory_bytes: held.max(counted),
            report: LoadReport::plain(format!("libtorch {}{kind}", crate::LIBTORCH_VERSION)),
            decisions,
        })
    }

    /// Takes a form of the module as what runs from now on.
    fn take(&mut self, module: Module, variant: Variant) {
        self.memory_bytes = module.bytes();
        self.runner = Runner::Module(module, variant);
    }
}

impl Way {
    /// Runs one batch.
    pub(crate) fn run(&self, runner: &Runner, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        let _inference = InferenceMode::begin();
        let _stream = self.lane.enter();
        let inputs = batch.inputs.iter().enumerate();
        let inputs: Result<Vec<Option<Tensor>>, _> = inputs.map(|(index, input)| self.gather(index, input)).collect();
        let inputs = inputs?;
        if inputs.len() != self.config.input.len() {
            return Err(BackendError::InvalidInput("an input is missing".to_owned()));
        }
        let called = runner.call(&inputs);
        let mut tensors = called.map_err(|failure| fault::call(&failure, &self.config))?;
        if runner.converts() {
            tensors = outputs::in_their_own_type(tensors, &self.config)?;
        }
        let outputs = outputs::read(tensors, &self.config, batch.rows);
        // Only now: an output that is one of them must be seen to be shared.
        drop(inputs);
        outputs
    }

    fn gather(&self, index: usize, input: &BatchInput<'_>) -> Result<Option<Tensor>, BackendError> {
        if input.is_absent() {
            return Ok(None);
        }
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
        if self.plain.contains(&index) {
            return Ok(Some(tensor));
        }
        self.lane.send(tensor).map(Some)
    }
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
        self.way.run(&self.runner, batch)
    }

    fn execute_measured(&mut self, batch: &BatchInputs<'_>) -> Result<(BatchOutputs, Option<u64>), BackendError> {
        let meter = Meter::begin(self.way.device);
        let outputs = self.execute(batch)?;
        Ok((outputs, meter.peak()))
    }

    fn optimize(&mut self, samples: &[BatchInputs<'_>], clock: &dyn Clock) {
        let options = self.way.config.optimization.unwrap_or_default();
        if options.is_off()
            || matches!(
                self.runner,
                Runner::Package(_) | Runner::Module(_, Variant::Bf16 | Variant::Fp16)
            )
        {
            return;
        }
        if let Some(known) = self.decisions.of(&self.spec, self.on) {
            self.adopt(known);
            return;
        }
        let report = variants::compare(&self.way, &self.runner, samples, clock);
        self.report.variants = report.variants;
        self.report.remark = report.remark;
        if let Some(Runner::Module(module, variant)) = report.chosen {
            self.take(module, variant);
            self.report.chosen = variant;
        }
        self.decisions.remember(&self.spec, self.on, &self.report);
    }

    fn report(&self) -> LoadReport {
        self.report.clone()
    }

    fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }
}

impl TorchModel {
    /// Does what was found to be best when the same version was loaded before.
    fn adopt(&mut self, known: LoadReport) {
        let made = match (&self.runner, known.chosen) {
            (_, Variant::Original) | (Runner::Package(_), _) => None,
            (Runner::Module(module, _), variant) => Some(module.variant(variant).map(|module| (module, variant))),
        };
        match made {
            None => self.report = known,
            Some(Ok((module, variant))) => {
                self.take(module, variant);
                self.report = known;
            }
            // It could be made before: that it cannot now is worth a word, and no reason not to serve.
            Some(Err(failure)) => {
                let said = fault::sentence(&failure.text);
                self.report.remark = format!("what was chosen before, {}, cannot be made now: {said}", known.chosen);
            }
        }
    }
}
