//! The check of a request's inputs and outputs against a model's configuration.
//!
//! Owns the messages: [`InputError`] keeps the texts that clients look for. Puts inputs in the configuration's order; those
//! that are left out leave no gap.

use std::fmt::Write as _;

use crate::{
    DataType, Fault, MAX_MODEL_PARAMETER_BYTES, MAX_MODEL_PARAMETERS, ModelConfig, ModelId, Tensor, TensorSpec,
};

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
    /// Not as many inputs as the model may have.
    #[error("expected number of inputs between {least} and {most} but got {got} inputs for model '{model}'")]
    CountBetween {
        /// How many it must have.
        least: usize,
        /// How many it may have.
        most: usize,
        /// How many came.
        got: usize,
        /// The model.
        model: ModelId,
    },
    /// An input that may not be left out.
    #[error("input '{input}' is missing in the request for model '{model}'; it is not optional")]
    Missing {
        /// The input.
        input: String,
        /// The model.
        model: ModelId,
    },
    /// Too long a value for a whole execution.
    #[error("input '{input}' has {got} bytes, but is compared with other requests' for model '{model}': at most {max}")]
    TooLong {
        /// The input.
        input: String,
        /// How many came.
        got: usize,
        /// How many may.
        max: usize,
        /// The model.
        model: ModelId,
    },
    /// Too many or too long parameters for a model that is given them.
    #[error(
        "{got} parameters of {bytes} bytes, but they are compared with other requests' for model '{model}': at most \
         {MAX_MODEL_PARAMETERS} of {MAX_MODEL_PARAMETER_BYTES} bytes, names included"
    )]
    Parameters {
        /// How many came.
        got: usize,
        /// Bytes of their names and texts.
        bytes: usize,
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

fn fits(spec: &TensorSpec, extents: &[u64]) -> bool {
    let fits_one = |(dim, extent): (&i64, &u64)| *dim == -1 || u64::try_from(*dim) == Ok(*extent);
    spec.dims.len() == extents.len() && spec.dims.iter().zip(extents).all(fits_one)
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
    /// Checks inputs against the configuration, puts them in its order and counts the rows (1 where the model does not batch).
    pub fn check_inputs(&self, model: &ModelId, inputs: &mut [Tensor]) -> Result<u32, InputError> {
        for index in 0..inputs.len() {
            self.check_input_name(model, inputs, index)?;
        }
        self.check_input_count(model, inputs)?;
        // All known and none twice: the specs find theirs in order, but for those that are left out.
        let (mut next, mut rows) = (0, None);
        for spec in &self.input {
            let rest = inputs.get(next..).unwrap_or_default();
            let Some(found) = rest.iter().position(|tensor| *tensor.name == *spec.name) else {
                if spec.optional {
                    continue;
                }
                return Err(InputError::Missing {
                    input: spec.name.clone(),
                    model: model.clone(),
                });
            };
            inputs.swap(next, next + found);
            let Some(tensor) = inputs.get(next) else { break };
            next += 1;
            let Some(tensor_rows) = self.check_input(model, tensor, spec)? else {
                continue;
            };
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

    fn check_input_count(&self, model: &ModelId, inputs: &[Tensor]) -> Result<(), InputError> {
        let most = self.input.len();
        let least = self.input.iter().filter(|spec| !spec.optional).count();
        if (least..=most).contains(&inputs.len()) {
            return Ok(());
        }
        Err(if least == most {
            InputError::Count {
                expected: most,
                got: inputs.len(),
                model: model.clone(),
            }
        } else {
            InputError::CountBetween {
                least,
                most,
                got: inputs.len(),
                model: model.clone(),
            }
        })
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

    /// The tensor's rows; none where it has no batch dimension though the model batches.
    fn check_input(&self, model: &ModelId, tensor: &Tensor, spec: &TensorSpec) -> Result<Option<u64>, InputError> {
        if tensor.datatype != spec.datatype {
            return Err(InputError::DataType {
                input: spec.name.clone(),
                got: tensor.datatype,
                expected: spec.datatype,
                model: model.clone(),
            });
        }
        if spec.unbatched && tensor.data.len() > TensorSpec::MAX_UNBATCHED_BYTES {
            return Err(InputError::TooLong {
                input: spec.name.clone(),
                got: tensor.data.len(),
                max: TensorSpec::MAX_UNBATCHED_BYTES,
                model: model.clone(),
            });
        }
        let (rows, extents) = match tensor.shape.split_first() {
            Some((rows, extents)) if self.has_rows(spec) => (Some(Some(*rows)), extents),
            _ if self.has_rows(spec) => (None, &tensor.shape[..]),
            _ if self.batches() => (Some(None), &tensor.shape[..]),
            _ => (Some(Some(1)), &tensor.shape[..]),
        };
        match rows {
            Some(rows) if fits(spec, extents) => Ok(rows),
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
#[path = "inputs_tests.rs"]
mod tests;
