//! A built-in model that answers with the parameters that it was given: `echo_parameters`.
//!
//! For tests of the wires, and of who shares an execution: each row's first output is the parameters as a JSON object of texts, in
//! the order of their names; a second output, where the configuration has one, is the number of rows that ran together.

use std::sync::Arc;

use bytes::Bytes;
use mesh_backend::{BackendError, BatchInputs, BatchOutputs, LoadSpec, LoadedModel};
use mesh_types::{DataType, LoadReport, ModelConfig, ModelParameters, Shape, Tensor, TensorSpec};

/// Its name.
pub(crate) const NAME: &str = "echo_parameters";

/// The model.
#[derive(Debug)]
pub(crate) struct EchoParameters {
    config: Arc<ModelConfig>,
    defaults: ModelParameters,
}

impl EchoParameters {
    /// The model, if that is its name.
    pub(crate) fn named(name: &str, spec: &LoadSpec) -> Option<Result<Self, BackendError>> {
        (name == NAME).then(|| Self::new(spec))
    }

    fn new(spec: &LoadSpec) -> Result<Self, BackendError> {
        let config = spec.config.clone();
        let is = |spec: &TensorSpec, datatype| spec.datatype == datatype && spec.dims == [1];
        let outputs = match config.output.as_slice() {
            [texts] => is(texts, DataType::Bytes),
            [texts, rows] => is(texts, DataType::Bytes) && is(rows, DataType::Int32),
            _ => false,
        };
        if config.request_parameters.is_none() || !outputs {
            let problem = format!(
                "{NAME} has request_parameters, any inputs, an output of BYTES with dims [1] and, if wanted, a second one of INT32"
            );
            return Err(BackendError::Load(problem));
        }
        Ok(Self {
            defaults: config.default_parameters(),
            config,
        })
    }
}

/// A JSON object of texts.
fn object(parameters: &ModelParameters) -> Result<String, BackendError> {
    let texts: serde_json::Map<_, _> = parameters
        .iter()
        .map(|(name, text)| (name.to_owned(), text.into()))
        .collect();
    serde_json::to_string(&texts).map_err(|error| BackendError::Output(error.to_string()))
}

impl LoadedModel for EchoParameters {
    fn execute(&mut self, batch: &BatchInputs<'_>) -> Result<BatchOutputs, BackendError> {
        let text = object(batch.parameters.unwrap_or(&self.defaults))?;
        let length = u32::try_from(text.len()).map_err(|error| BackendError::Output(error.to_string()))?;
        let shape: Shape = self
            .config
            .batches()
            .then_some(u64::from(batch.rows))
            .into_iter()
            .chain([1])
            .collect();
        let outputs = self.config.output.iter().map(|spec| {
            let element = match spec.datatype {
                DataType::Bytes => [&length.to_le_bytes(), text.as_bytes()].concat(),
                _ => batch.rows.to_le_bytes().to_vec(),
            };
            let rows = if self.config.batches() { batch.rows } else { 1 };
            let data = element.repeat(usize::try_from(rows).unwrap_or(usize::MAX));
            Tensor {
                name: Arc::from(spec.name.as_str()),
                datatype: spec.datatype,
                shape: shape.clone(),
                data: Bytes::from(data),
            }
        });
        Ok(BatchOutputs {
            outputs: outputs.collect(),
        })
    }

    fn memory_bytes(&self) -> u64 {
        0
    }

    fn report(&self) -> LoadReport {
        LoadReport::plain("builtin")
    }
}
