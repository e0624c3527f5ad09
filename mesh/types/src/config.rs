//! Model configuration in Triton's vocabulary (`ModelConfig` of model_config.proto), and the check of inputs against it.
//!
//! Field names are Triton's, so a configuration carries over. `dims` leave out the batch dimension when `max_batch_size` is
//! above zero, and -1 stands for any extent. Messages of [`InputError`] keep the texts that clients look for.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    DataType, DynamicBatching, ExecutionPolicy, Fault, ModelId, Parameters, Tensor, batching::MAX_MICROSECONDS,
};

/// The largest `max_batch_size` and the most inputs or outputs: nothing a configuration says may be without bound.
const MAX_BATCH_SIZE: u32 = 65_536;
const MAX_TENSORS: usize = 64;
/// The most instances of a model on one device: each has a thread of its own.
pub const MAX_INSTANCES: u32 = 32;

/// What kind of file a model version is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ArtifactFormat {
    /// A TorchScript archive (`.pt`), run by libtorch.
    TorchScript,
    /// A model that is part of the mesh; it has no file.
    Builtin,
}

impl ArtifactFormat {
    /// The platform name in model metadata, as Triton calls it.
    pub const fn platform(self) -> &'static str {
        match self {
            Self::TorchScript => "pytorch_libtorch",
            Self::Builtin => "mesh_builtin",
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
    /// What is done about executions that go wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution: Option<ExecutionPolicy>,
    /// Where instances run; empty means one group of the default kind.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub instance_group: Vec<InstanceGroup>,
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

/// Why inputs do not fit a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// An input that the model does not have.
    #[error("unexpected inference input '{input}' for model '{model}'")]
    Unexpected {
        /// The input.
        input: String,
        /// The model.
        model: ModelId,
    },
    /// The same input twice.
    #[error("input '{input}' already exists in request for model '{model}'")]
    Duplicate {
        /// The input.
        input: String,
        /// The model.
        model: ModelId,
    },
    /// Not as many inputs as the model has.
    #[error("expected {expected} inputs but got {got} inputs for model '{model}'")]
    Count {
        /// How many the model has.
        expected: usize,
        /// How many came.
        got: usize,
        /// The model.
        model: ModelId,
    },
    /// Another element type.
    #[error("inference input '{input}' data-type is '{got}', but model '{model}' expects '{expected}'")]
    DataType {
        /// The input.
        input: String,
        /// What came.
        got: DataType,
        /// What is right.
        expected: DataType,
        /// The model.
        model: ModelId,
    },
    /// Another shape.
    #[error("unexpected shape for input '{input}' for model '{model}'. Expected {expected}, got {got}")]
    Shape {
        /// The input.
        input: String,
        /// What is right.
        expected: String,
        /// What came.
        got: String,
        /// The model.
        model: ModelId,
    },
    /// Inputs with different numbers of rows.
    #[error("input '{input}' batch size does not match other inputs for '{model}'")]
    Rows {
        /// The input.
        input: String,
        /// The model.
        model: ModelId,
    },
    /// More rows than one execution takes.
    #[error("inference request batch-size must be <= {max} for '{model}'")]
    BatchSize {
        /// The bound.
        max: u32,
        /// The model.
        model: ModelId,
    },
    /// No rows at all.
    #[error("inference request batch-size must be at least 1 for '{model}'")]
    NoRows {
        /// The model.
        model: ModelId,
    },
    /// An output that the model does not have.
    #[error("unexpected inference output '{output}' for model '{model}'")]
    UnknownOutput {
        /// The output.
        output: String,
        /// The model.
        model: ModelId,
    },
}

impl From<InputError> for Fault {
    fn from(error: InputError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl TensorSpec {
    fn fits(&self, extents: &[u64]) -> bool {
        let fits_one = |(dim, extent): (&i64, &u64)| *dim == -1 || u64::try_from(*dim) == Ok(*extent);
        self.dims.len() == extents.len() && self.dims.iter().zip(extents).all(fits_one)
    }
}

fn list(extents: impl IntoIterator<Item = impl std::fmt::Display>) -> String {
    let mut text = String::from("[");
    for (index, extent) in extents.into_iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{extent}");
    }
    text.push(']');
    text
}

impl ModelConfig {
    /// Whether the first dimension of every tensor is the batch.
    pub fn batches(&self) -> bool {
        self.max_batch_size > 0
    }

    /// The full dims of a tensor on the wire, batch dimension included.
    pub fn wire_dims(&self, spec: &TensorSpec) -> Vec<i64> {
        let batch = self.batches().then_some(-1);
        batch.into_iter().chain(spec.dims.iter().copied()).collect()
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
        if let Some(batching) = &self.dynamic_batching {
            batching.check(self.max_batch_size, |field, problem| {
                say(format!("dynamic_batching{field}"), problem);
            });
        }
        let too_long = |policy: &ExecutionPolicy| policy.timeout_microseconds > MAX_MICROSECONDS;
        if self.execution.as_ref().is_some_and(too_long) {
            let problem = format!("at most {MAX_MICROSECONDS} (ten minutes)");
            say("execution.timeout_microseconds".into(), problem);
        }
        for (index, group) in self.instance_group.iter().enumerate() {
            if group.count > MAX_INSTANCES {
                let problem = format!("at most {MAX_INSTANCES} instances per device, got {}", group.count);
                say(format!("instance_group[{index}].count"), problem);
            }
        }
        problems
    }

    /// Checks inputs against the configuration, puts them in its order and counts the rows (1 where the model does not batch).
    pub fn check_inputs(&self, model: &ModelId, inputs: &mut [Tensor]) -> Result<u32, InputError> {
        for index in 0..inputs.len() {
            self.check_input_name(model, inputs, index)?;
        }
        if inputs.len() != self.input.len() {
            return Err(InputError::Count {
                expected: self.input.len(),
                got: inputs.len(),
                model: model.clone(),
            });
        }
        // As many inputs as specs, all known and none twice: each spec finds its input.
        for (index, spec) in self.input.iter().enumerate() {
            if let Some(found) = inputs.iter().position(|tensor| *tensor.name == *spec.name) {
                inputs.swap(index, found);
            }
        }
        let mut rows = None;
        for (tensor, spec) in inputs.iter().zip(&self.input) {
            let tensor_rows = self.check_input(model, tensor, spec)?;
            if *rows.get_or_insert(tensor_rows) != tensor_rows {
                return Err(InputError::Rows {
                    input: spec.name.clone(),
                    model: model.clone(),
                });
            }
        }
        let rows = rows.unwrap_or(1);
        if rows == 0 {
            return Err(InputError::NoRows { model: model.clone() });
        }
        match u32::try_from(rows) {
            Ok(rows) if !self.batches() || rows <= self.max_batch_size => Ok(rows),
            _ => Err(InputError::BatchSize {
                max: self.max_batch_size,
                model: model.clone(),
            }),
        }
    }

    /// Checks that every output asked for exists and none twice over the model's number.
    pub fn check_outputs(&self, model: &ModelId, outputs: &[String]) -> Result<(), InputError> {
        let unknown = outputs
            .iter()
            .find(|name| !self.output.iter().any(|spec| spec.name == **name));
        match unknown {
            Some(output) => Err(InputError::UnknownOutput {
                output: output.clone(),
                model: model.clone(),
            }),
            None => Ok(()),
        }
    }

    fn check_input_name(&self, model: &ModelId, inputs: &[Tensor], index: usize) -> Result<(), InputError> {
        let Some(tensor) = inputs.get(index) else { return Ok(()) };
        let input = || tensor.name.chars().take(255).collect::<String>();
        if !self.input.iter().any(|spec| *spec.name == *tensor.name) {
            return Err(InputError::Unexpected {
                input: input(),
                model: model.clone(),
            });
        }
        if inputs.iter().take(index).any(|other| other.name == tensor.name) {
            return Err(InputError::Duplicate {
                input: input(),
                model: model.clone(),
            });
        }
        Ok(())
    }

    fn check_input(&self, model: &ModelId, tensor: &Tensor, spec: &TensorSpec) -> Result<u64, InputError> {
        if tensor.datatype != spec.datatype {
            return Err(InputError::DataType {
                input: spec.name.clone(),
                got: tensor.datatype,
                expected: spec.datatype,
                model: model.clone(),
            });
        }
        let (rows, extents) = match tensor.shape.split_first() {
            Some((rows, extents)) if self.batches() => (Some(*rows), extents),
            _ if self.batches() => (None, &tensor.shape[..]),
            _ => (Some(1), &tensor.shape[..]),
        };
        match rows {
            Some(rows) if spec.fits(extents) => Ok(rows),
            _ => Err(InputError::Shape {
                input: spec.name.clone(),
                expected: list(self.wire_dims(spec)),
                got: list(&tensor.shape),
                model: model.clone(),
            }),
        }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
