//! One execution's inputs, gathered by reference, and its outputs.

use mesh_types::{ModelParameters, Shape, Tensor, TensorSpec};

/// One input of a batch: the requests' raw bytes in order; put together they are the batch's tensor.
#[derive(Debug, Clone)]
pub struct BatchInput<'a> {
    /// What the model's configuration says of it.
    pub spec: &'a TensorSpec,
    /// The whole batch's shape, rows first where the model batches.
    pub shape: Shape,
    /// Each request's bytes, in the wire's raw form; one part for all where the input has no batch dimension, and none where
    /// the requests leave it out.
    pub parts: Vec<&'a [u8]>,
}

impl<'a> BatchInput<'a> {
    /// An input that the requests leave out.
    pub fn absent(spec: &'a TensorSpec) -> Self {
        Self {
            spec,
            shape: Shape::new(),
            parts: Vec::new(),
        }
    }

    /// Whether the requests leave it out.
    pub fn is_absent(&self) -> bool {
        self.parts.is_empty()
    }

    /// The batch's size in bytes.
    pub fn byte_len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Copies the parts one behind the other; the one copy a batch needs.
    pub fn gather_into(&self, buffer: &mut Vec<u8>) {
        buffer.clear();
        buffer.reserve(self.byte_len());
        for part in &self.parts {
            buffer.extend_from_slice(part);
        }
    }
}

/// All inputs of one execution, in the configuration's order.
#[derive(Debug, Clone)]
pub struct BatchInputs<'a> {
    /// Rows of all requests together; 1 where the model does not batch.
    pub rows: u32,
    /// The inputs.
    pub inputs: Vec<BatchInput<'a>>,
    /// What the requests say by parameters, all the same; none where they say nothing: then the defaults of the model's
    /// configuration hold.
    pub parameters: Option<&'a ModelParameters>,
}

/// All outputs of one execution, in the configuration's order, each for the whole batch.
#[derive(Debug, Clone)]
pub struct BatchOutputs {
    /// The outputs; their bytes may be sliced by rows without copying.
    pub outputs: Vec<Tensor>,
}
