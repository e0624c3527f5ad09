//! Model configuration in Triton's vocabulary (`ModelConfig` of model_config.proto), and its own check.
//!
//! Field names are Triton's, so a configuration carries over. `dims` leave out the batch dimension when `max_batch_size` is
//! above zero, and -1 stands for any extent.

use serde::{Deserialize, Serialize};

use crate::{
    DataType, DynamicBatching, EnsembleScheduling, ExecutionPolicy, Graph, ModelWarmup, Optimization, Parameters,
    RequestParameters, ResidencyPolicy, SequenceBatching, batching::MAX_MICROSECONDS, residency,
};

/// The largest `max_batch_size` and the most inputs or outputs: nothing a configuration says may be without bound.
const MAX_BATCH_SIZE: u32 = 65_536;
const MAX_TENSORS: usize = 64;
/// The most labels of an output; each snapshot and record carries them.
pub const MAX_CLASS_LABELS: usize = 16_384;
/// The most bytes that the labels of an output have together.
pub const MAX_CLASS_LABEL_BYTES: usize = 256 << 10;
/// The most instances of a model on one device: each has a thread of its own.
pub const MAX_INSTANCES: u32 = 32;

/// What kind of file a model version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactFormat {
    /// A TorchScript archive (`.pt`), run by libtorch.
    TorchScript,
    /// A package compiled by AOTInductor (`.pt2`), run by libtorch.
    #[serde(rename = "torch_aoti")]
    TorchAoti,
    /// A model that is part of the mesh; it has no file.
    Builtin,
    /// A model made of other models; it has no file and is on no device.
    Ensemble,
}

impl ArtifactFormat {
    /// The platform name in model metadata, as Triton calls it.
    pub const fn platform(self) -> &'static str {
        match self {
            Self::TorchScript => "pytorch_libtorch",
            Self::TorchAoti => "torch_aoti",
            Self::Builtin => "mesh_builtin",
            Self::Ensemble => "ensemble",
        }
    }
}

/// One input or output of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// The tensor's name on the wire.
    pub name: String,
    /// Its element type; `TYPE_FP32` and `FP32` both do.
    #[serde(alias = "data_type")]
    pub datatype: DataType,
    /// Extents without the batch dimension; -1 is any.
    pub dims: Vec<i64>,
    /// Triton's ragged batching. Known, so that it can be refused with words of its own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_ragged_batch: bool,
    /// For an input: a request may leave it out. Requests that leave out different inputs do not share a batch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// For an input: it has no batch dimension though the model batches, being one value for a whole execution, such as a
    /// number. Requests whose values differ do not share a batch.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unbatched: bool,
    /// For an output: what its values stand for, in their order. (Triton has them in a file, `label_filename`.)
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

/// Where instances of a model run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InstanceKind {
    /// Wherever there is room.
    #[default]
    KindAuto,
    /// Host processors.
    KindCpu,
    /// GPUs.
    KindGpu,
}

/// How many instances of a model run on which devices.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstanceGroup {
    /// Instances per device; 0 takes the device's number of threads.
    pub count: u32,
    /// The kind of device.
    pub kind: InstanceKind,
    /// GPU indices; empty means all.
    pub gpus: Vec<u16>,
}

impl Default for InstanceGroup {
    fn default() -> Self {
        Self {
            count: 0,
            kind: InstanceKind::KindAuto,
            gpus: Vec::new(),
        }
    }
}

/// How many answers a model gives to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelTransactionPolicy {
    /// Any number, none included, each when it is there; else exactly one.
    pub decoupled: bool,
}

/// How a model is called and run.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// Most rows in one execution; 0 means the model has no batch dimension.
    pub max_batch_size: u32,
    /// Inputs, in the order of the model's arguments.
    #[serde(alias = "inputs")]
    pub input: Vec<TensorSpec>,
    /// Outputs, in the order of the model's results.
    #[serde(alias = "outputs")]
    pub output: Vec<TensorSpec>,
    /// How requests are batched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dynamic_batching: Option<DynamicBatching>,
    /// How requests find their sequence's state; absent: the model has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence_batching: Option<SequenceBatching>,
    /// What is done about executions that go wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<ExecutionPolicy>,
    /// What the runtime may change about the model when it loads it; absent: the defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimization: Option<Optimization>,
    /// When it is in memory; absent: loaded when declared, and gone only for another's sake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub residency: Option<ResidencyPolicy>,
    /// What it runs on before it takes requests, besides a sweep over batch sizes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub model_warmup: Vec<ModelWarmup>,
    /// Where instances run; empty means one group of the default kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instance_group: Vec<InstanceGroup>,
    /// How many answers it gives to a request; absent: exactly one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_transaction_policy: Option<ModelTransactionPolicy>,
    /// What an ensemble is made of, in Triton's form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ensemble_scheduling: Option<EnsembleScheduling>,
    /// What an ensemble is made of, in the mesh's own form. (An addition.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
    /// Which of a request's parameters it is given; absent: none. (An addition.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_parameters: Option<RequestParameters>,
    /// The backend's own settings.
    #[serde(skip_serializing_if = "Parameters::is_empty")]
    pub parameters: Parameters,
}

/// Why a configuration is refused. Each names the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ModelConfigError {
    /// Path of the field within the configuration.
    pub field: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl TensorSpec {
    /// A tensor that every request has, with a batch dimension where the model batches.
    pub fn new(name: impl Into<String>, datatype: DataType, dims: &[i64]) -> Self {
        Self {
            name: name.into(),
            datatype,
            dims: dims.to_vec(),
            allow_ragged_batch: false,
            optional: false,
            unbatched: false,
            labels: Vec::new(),
        }
    }

    /// The most bytes of an unbatched input: they are compared with those of other requests.
    pub const MAX_UNBATCHED_BYTES: usize = 256;
}

impl ModelConfig {
    /// Whether the first dimension of every tensor is the batch.
    pub fn batches(&self) -> bool {
        self.max_batch_size > 0
    }

    /// Whether a request may have any number of answers.
    pub fn is_decoupled(&self) -> bool {
        self.model_transaction_policy.is_some_and(|policy| policy.decoupled)
    }

    /// Whether the first dimension of this tensor is the batch.
    pub fn has_rows(&self, spec: &TensorSpec) -> bool {
        self.batches() && !spec.unbatched
    }

    /// The full dims of a tensor on the wire, batch dimension included.
    pub fn wire_dims(&self, spec: &TensorSpec) -> Vec<i64> {
        let batch = self.has_rows(spec).then_some(-1);
        batch.into_iter().chain(spec.dims.iter().copied()).collect()
    }

    /// Whether a device that has loaded a model by one of the two has loaded it by the other: they differ in nothing but how
    /// many instances there are, how requests wait, and when it is in memory.
    pub fn loads_as(&self, other: &Self) -> bool {
        self.load_part() == other.load_part()
    }

    /// What a load depends on.
    #[must_use]
    pub fn load_part(&self) -> Self {
        Self {
            dynamic_batching: None,
            execution: None,
            residency: None,
            instance_group: Vec::new(),
            ..self.clone()
        }
    }

    /// When it is in memory.
    pub fn residency(&self) -> ResidencyPolicy {
        self.residency.unwrap_or_default()
    }

    /// Everything wrong with the configuration, at once.
    pub fn problems(&self) -> Vec<ModelConfigError> {
        let mut problems = Vec::new();
        let mut say = |field: String, problem: String| problems.push(ModelConfigError { field, problem });
        if self.max_batch_size > MAX_BATCH_SIZE {
            say(
                "max_batch_size".into(),
                format!("at most {MAX_BATCH_SIZE}, got {}", self.max_batch_size),
            );
        }
        self.check_tensors(&mut say);
        self.check_labels(&mut say);
        if let Some(batching) = &self.dynamic_batching {
            batching.check(self.max_batch_size, |field, problem| {
                say(format!("dynamic_batching{field}"), problem);
            });
        }
        if let Some(sequence) = &self.sequence_batching {
            sequence.check(self, |field, problem| say(format!("sequence_batching{field}"), problem));
        }
        let too_long = |policy: &ExecutionPolicy| policy.timeout_microseconds > MAX_MICROSECONDS;
        if self.execution.as_ref().is_some_and(too_long) {
            let problem = format!("at most {MAX_MICROSECONDS} (ten minutes)");
            say("execution.timeout_microseconds".into(), problem);
        }
        if let Some(optimization) = &self.optimization {
            optimization.check(|field, problem| say(format!("optimization{field}"), problem));
        }
        residency::check_residency(&self.residency(), |field, problem| {
            say(format!("residency{field}"), problem);
        });
        residency::check_warmups(
            &self.model_warmup,
            &self.input,
            self.max_batch_size,
            |place, problem| {
                say(format!("model_warmup{place}"), problem);
            },
        );
        if let Some(rule) = &self.request_parameters {
            rule.check(|field, problem| say(format!("request_parameters{field}"), problem));
        }
        self.check_decoupled(&mut say);
        for (index, group) in self.instance_group.iter().enumerate() {
            if group.count > MAX_INSTANCES {
                let problem = format!("at most {MAX_INSTANCES} instances per device, got {}", group.count);
                say(format!("instance_group[{index}].count"), problem);
            }
        }
        problems
    }

    fn check_decoupled(&self, say: &mut dyn FnMut(String, String)) {
        if !self.is_decoupled() {
            return;
        }
        let field = || "model_transaction_policy.decoupled".to_owned();
        if self.sequence_batching.is_some() {
            let problem =
                "a sequence's steps have one answer each, so that its state moves once: leave out one of the two";
            say(field(), problem.into());
        }
        if self
            .dynamic_batching
            .as_ref()
            .is_some_and(|batching| batching.preserve_ordering)
        {
            let problem = "answers leave when they are there: leave out dynamic_batching.preserve_ordering";
            say(field(), problem.into());
        }
    }

    fn check_labels(&self, say: &mut dyn FnMut(String, String)) {
        if let Some(index) = self.input.iter().position(|spec| !spec.labels.is_empty()) {
            let problem = "labels are an output's: leave them out";
            say(format!("input[{index}].labels"), problem.into());
        }
        for (index, spec) in self.output.iter().enumerate() {
            let bytes: usize = spec.labels.iter().map(String::len).sum();
            if spec.labels.len() > MAX_CLASS_LABELS || bytes > MAX_CLASS_LABEL_BYTES {
                let problem = format!(
                    "at most {MAX_CLASS_LABELS} labels of {MAX_CLASS_LABEL_BYTES} bytes in all, got {} of {bytes}",
                    spec.labels.len()
                );
                say(format!("output[{index}].labels"), problem);
            }
        }
    }

    fn check_tensors(&self, say: &mut dyn FnMut(String, String)) {
        for (field, specs) in [("input", &self.input), ("output", &self.output)] {
            if specs.is_empty() {
                say(field.into(), format!("a model has at least one {field}"));
            }
            if specs.len() > MAX_TENSORS {
                say(
                    field.into(),
                    format!("at most {MAX_TENSORS} tensors, got {}", specs.len()),
                );
            }
            for (index, spec) in specs.iter().enumerate() {
                if spec.name.is_empty() || spec.name.len() > 255 {
                    say(format!("{field}[{index}].name"), "1 to 255 bytes".into());
                }
                if specs.iter().take(index).any(|other| other.name == spec.name) {
                    say(
                        format!("{field}[{index}].name"),
                        format!("'{}' is there twice", spec.name),
                    );
                }
                if spec.dims.len() >= crate::tensor::MAX_RANK || spec.dims.iter().any(|dim| *dim < -1 || *dim == 0) {
                    say(
                        format!("{field}[{index}].dims"),
                        "at most 15 extents, each -1 (any) or at least 1".into(),
                    );
                }
                if spec.allow_ragged_batch {
                    let problem = "ragged batches are not supported: requests of equal shape share a batch, others wait \
                                   for their own; leave it out";
                    say(format!("{field}[{index}].allow_ragged_batch"), problem.into());
                }
            }
        }
        let marked = |spec: &&TensorSpec| spec.optional || spec.unbatched;
        if let Some(index) = self.output.iter().position(|spec| marked(&spec)) {
            let problem = "an output is neither optional nor unbatched: every request gets its own rows of it";
            say(format!("output[{index}]"), problem.into());
        }
        if self.batches() && !self.input.is_empty() && self.input.iter().all(|spec| spec.unbatched) {
            let problem =
                "a model that batches has an input with rows: leave 'unbatched' out, or set max_batch_size to 0";
            say("input".into(), problem.into());
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
