//! One model on one device: a TorchScript module, or a compiled package.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_backend::{BackendError, BatchInput, BatchInputs, BatchOutputs, Binding, LoadSpec, LoadedModel, Passing};
use mesh_types::{ArtifactFormat, Clock, DeviceId, DeviceKind, LoadReport, ModelConfig, ModelParameters, Variant};
use tch::{Device, Tensor};

use crate::{
    TorchOptions,
    decisions::Decisions,
    element, fault,
    lane::Lane,
    module::{CODE_BYTES, Failure, Module},
    outputs,
    package::Package,
    shim::{self, InferenceMode, Meter, Whose},
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
    pub(crate) fn call(&self, inputs: &[Option<Tensor>], parameters: &ModelParameters) -> Result<Vec<Tensor>, Failure> {
        match self {
            Self::Module(module, _) => module.call(inputs, parameters),
            Self::Package(package) => package.call(inputs),
        }
    }

    /// Whether it computes in another type than the model was written in.
    const fn converts(&self) -> bool {
        matches!(self, Self::Module(_, Variant::Bf16 | Variant::Fp16))
    }
}

/// What loading a file takes for a time beyond the model itself. A form that is made takes the weights again beside those that it is made
/// of, and one that is compared does so beside the original; while it is not known which will run, that is foreseen of any.
pub(crate) fn passing(spec: &LoadSpec, on: DeviceId, decisions: &Decisions) -> Passing {
    let is_off = spec.config.optimization.unwrap_or_default().is_off();
    let chosen = decisions.chosen(spec, on).filter(|_| !is_off);
    if spec.format != ArtifactFormat::TorchScript || is_off || chosen == Some(Variant::Original) {
        return Passing::default();
    }
    let file = || std::fs::metadata(spec.artifact.as_ref()?).ok().map(|file| file.len());
    let form = file().unwrap_or(0).saturating_add(CODE_BYTES);
    match chosen {
        Some(_) => Passing {
            load: form,
            optimize: 0,
        },
        None => Passing {
            load: 0,
            optimize: form.saturating_mul(2),
        },
    }
}

/// What every form of a TorchScript module is made of.
#[derive(Debug)]
pub(crate) struct Origin {
    path: PathBuf,
    binding: Binding,
}

/// A loaded model. It may move between threads, and is used by one at a time.
#[derive(Debug)]
pub(crate) struct TorchModel {
    runner: Runner,
    /// None for packages.
    origin: Option<Origin>,
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
    /// What holds for requests without parameters.
    parameters: ModelParameters,
}

impl TorchModel {
    pub(crate) fn load(
        spec: &LoadSpec,
        on: DeviceId,
        options: &TorchOptions,
        decisions: Arc<Decisions>,
    ) -> Result<Self, BackendError> {
        let Some(path) = &spec.artifact else {
            return Err(BackendError::Load("a model of libtorch needs an artifact".to_owned()));
        };
        for tensor in spec.config.input.iter().chain(&spec.config.output) {
            element::kind_of(tensor.datatype)?;
        }
        let device = match on.kind {
            DeviceKind::Cpu => Device::Cpu,
            DeviceKind::Cuda => Device::Cuda(usize::from(on.index)),
        };
        let mut way = Way::new(device, Lane::to(device), spec.config.clone());
        let meter = Meter::begin(device);
        let mut known = decisions.of(spec, on);
        let (runner, origin) = match spec.format {
            ArtifactFormat::TorchAoti => (Runner::Package(way.package(path, options)?), None),
            _ => {
                options.made_by.check_archive(path)?;
                let (module, origin) = way.module(path)?;
                way.plain.clone_from(&origin.binding.plain);
                let (module, chosen) = way.as_before(module, path, &mut known)?;
                (Runner::Module(module, chosen), Some(origin))
            }
        };
        // Only what the model has: not what operations need while they run, and keep.
        shim::release_workspace(Whose::Own);
        let held = meter.held().unwrap_or(0);
        drop(meter);
        let (kind, counted, remark) = match &runner {
            Runner::Package(package) => (", AOTInductor", package.bytes(), package.remark()),
            Runner::Module(module, _) => (", TorchScript", module.bytes(), ""),
        };
        let report = known.unwrap_or_else(|| LoadReport {
            remark: remark.to_owned(),
            ..LoadReport::plain(format!("libtorch {}{kind}", crate::LIBTORCH_VERSION))
        });
        Ok(Self {
            memory_bytes: held.max(counted).saturating_add(way.host_bytes(&runner)),
            runner,
            origin,
            way,
            spec: spec.clone(),
            on,
            report,
            decisions,
        })
    }

    /// Takes a form of the module as what runs from now on.
    fn take(&mut self, module: Module, variant: Variant) {
        let bytes = module.bytes();
        self.runner = Runner::Module(module, variant);
        self.memory_bytes = bytes.saturating_add(self.way.host_bytes(&self.runner));
    }
}

impl Way {
    /// What a runner takes of the host's memory beyond its tensors, where that is the device's memory.
    fn host_bytes(&self, runner: &Runner) -> u64 {
        match runner {
            Runner::Module(module, _) if self.device == Device::Cpu => module.code_bytes(),
            // A package's code is a file that is mapped.
            Runner::Module(..) | Runner::Package(_) => 0,
        }
    }
}

/// Loading. What it puts on a device must be there before the first call, so it goes through the same lane.
impl Way {
    pub(crate) fn new(device: Device, lane: Lane, config: Arc<ModelConfig>) -> Self {
        Self {
            device,
            lane,
            parameters: config.default_parameters(),
            config,
            plain: Vec::new(),
        }
    }

    /// What runs a file, in the form in which it was written.
    pub(crate) fn runner(
        &mut self,
        path: &Path,
        format: ArtifactFormat,
        options: &TorchOptions,
    ) -> Result<Runner, BackendError> {
        match format {
            ArtifactFormat::TorchAoti => Ok(Runner::Package(self.package(path, options)?)),
            _ => self
                .module(path)
                .map(|(module, _)| Runner::Module(module, Variant::Original)),
        }
    }

    fn package(&self, path: &Path, options: &TorchOptions) -> Result<Package, BackendError> {
        let _stream = self.lane.enter();
        Package::load(path, self.device, options, &self.config)
    }

    fn module(&self, path: &Path) -> Result<(Module, Origin), BackendError> {
        let _stream = self.lane.enter();
        let failed = |failure: Failure| fault::load(&failure);
        let mut module = Module::load(path, self.device).map_err(failed)?;
        let signature = module.signature().map_err(failed)?;
        let binding = Binding::of(&signature, &self.config)?;
        module.plan(&binding).map_err(failed)?;
        let path = path.to_path_buf();
        Ok((module, Origin { path, binding }))
    }

    /// A module that was just loaded, in the form that was found to be best when its version was loaded before: at once and not beside the
    /// original, which would take the weights twice. What cannot be made is forgotten here, loaded as it was written, and told of when it
    /// is to be optimised.
    fn as_before(
        &self,
        module: Module,
        path: &Path,
        known: &mut Option<LoadReport>,
    ) -> Result<(Module, Variant), BackendError> {
        let chosen = known.as_ref().map_or(Variant::Original, |known| known.chosen);
        let turned = {
            let _stream = self.lane.enter();
            module.turned(chosen)
        };
        if let Ok(module) = turned {
            return Ok((module, chosen));
        }
        *known = None;
        self.module(path).map(|(module, _)| (module, Variant::Original))
    }

    /// Another form of a module, made of a load of its own: forms that shared their code would keep each other in memory.
    pub(crate) fn form(&self, origin: &Origin, variant: Variant) -> Result<Runner, BackendError> {
        let _stream = self.lane.enter();
        let made = || {
            let mut module = Module::load(&origin.path, self.device)?;
            module.plan(&origin.binding)?;
            module.turned(variant)
        };
        let module = made().map_err(|failure| fault::load(&failure))?;
        Ok(Runner::Module(module, variant))
    }
}

impl Way {
    /// Runs one batch.
    pub(crate) fn run(&self, runner: &Runner, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        let _inference = InferenceMode::begin();
        let _stream = self.lane.enter();
        let inputs = batch.inputs.iter().enumerate();
        let inputs: Result<Vec<Option<Tensor>>, _> = inputs.map(|(index, input)| self.gather(index, input)).collect();
        let inputs = inputs.map_err(BackendError::before_the_call)?;
        if inputs.len() != self.config.input.len() {
            return Err(BackendError::InvalidInput("an input is missing".to_owned()));
        }
        let called = runner.call(&inputs, batch.parameters.unwrap_or(&self.parameters));
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
        // What earlier runs have left of workspace would be used again, and not be seen.
        shim::release_workspace(Whose::Own);
        let meter = Meter::begin(self.way.device);
        let outputs = self.execute(batch)?;
        Ok((outputs, meter.peak()))
    }

    fn optimize(&mut self, samples: &[BatchInputs<'_>], clock: &dyn Clock) {
        let options = self.way.config.optimization.unwrap_or_default();
        let Some(origin) = self
            .origin
            .as_ref()
            .filter(|_| !options.is_off() && self.report.variants.is_empty())
        else {
            return;
        };
        if let Some(known) = self.decisions.of(&self.spec, self.on) {
            self.adopt(known);
            return;
        }
        let compared = variants::compare(&self.way, (origin, &self.runner), samples, clock);
        self.report.variants = compared.variants;
        self.report.remark = compared.remark;
        if let Some(Runner::Module(module, variant)) = compared.chosen {
            self.take(module, variant);
            self.report.chosen = variant;
        }
        if compared.lasting {
            self.decisions.remember(&self.spec, self.on, &self.report);
        }
    }

    fn leave_as_it_is(&mut self, why: &str) {
        let options = self.way.config.optimization.unwrap_or_default();
        if self.origin.is_some() && !options.is_off() && self.report.variants.is_empty() {
            why.clone_into(&mut self.report.remark);
        }
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
        let form = |origin: &Origin| self.way.form(origin, known.chosen);
        let made = self
            .origin
            .as_ref()
            .filter(|_| known.chosen != Variant::Original)
            .map(form);
        match made {
            None => self.report = known,
            Some(Ok(Runner::Module(module, variant))) => {
                self.take(module, variant);
                self.report = known;
            }
            Some(Ok(Runner::Package(_))) => {}
            // It could be made before: that it cannot now is worth a word, and no reason not to serve.
            Some(Err(error)) => {
                self.report.remark = format!("what was chosen before, {}, cannot be made now: {error}", known.chosen);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::lane::Lane;

    /// What a staged buffer holds.
    fn bytes(tensor: &Tensor) -> Vec<u8> {
        let length = tensor.numel() * 4;
        // SAFETY: the tensor is contiguous and in the host's memory, and outlives the slice.
        unsafe { std::slice::from_raw_parts(tensor.data_ptr().cast::<u8>(), length) }.to_vec()
    }

    #[test]
    fn inputs_for_which_there_is_no_memory_are_told_before_the_module_is_called() {
        let config: ModelConfig = serde_json::from_value(serde_json::json!({
            "max_batch_size": 4, "input": [{"name": "x", "datatype": "FP32", "dims": [-1]}],
        }))
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("identity.pt");
        let example = Tensor::zeros([1, 1], (Kind::Float, Device::Cpu));
        let mut forward = |inputs: &[Tensor]| inputs.iter().map(|x| x * 1.0).collect();
        let traced = tch::CModule::create_by_tracing("Same", "forward", &[example], &mut forward).unwrap();
        traced.save(&path).unwrap();
        let mut way = Way::new(Device::Cpu, Lane::to(Device::Cpu), Arc::new(config));
        let options = TorchOptions::default();
        let runner = way.runner(&path, ArtifactFormat::TorchScript, &options).unwrap();
        // More than any machine has.
        let shape = [4, 1 << 46].into_iter().collect();
        let config = way.config.clone();
        let input = BatchInput {
            spec: &config.input[0],
            shape,
            parts: vec![&[0; 4]],
        };
        let batch = BatchInputs {
            rows: 4,
            inputs: vec![input],
            parameters: None,
        };
        let error = way.run(&runner, &batch).unwrap_err();
        assert!(matches!(error, BackendError::NoRoomForInputs(_)), "{error:?}");
        assert!(error.to_string().starts_with("out of memory on the device"), "{error}");
    }

    #[test]
    fn nothing_of_the_batch_before_is_left_in_a_staged_buffer() {
        let lane = Lane::to(Device::Cpu);
        // The allocator hands out what was given back: a secret of one tenant lies where the next one's batch is gathered.
        for rows in [1_usize, 3, 1_000] {
            let extents = [i64::try_from(rows).unwrap(), 2];
            let secret = lane.stage(&extents, Kind::Float).unwrap();
            fill(&secret, rows * 8, &[&vec![0xAA; rows * 8]]);
            assert!(bytes(&secret).iter().all(|byte| *byte == 0xAA));
            drop(secret);
            let next = lane.stage(&extents, Kind::Float).unwrap();
            let row = [1, 2, 3, 4, 5, 6, 7, 8];
            let parts: Vec<&[u8]> = (0..rows).map(|_| &row[..]).collect();
            fill(&next, rows * 8, &parts);
            assert_eq!(bytes(&next), row.repeat(rows));
        }
    }
}
