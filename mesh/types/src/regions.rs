//! Tensors that lie in shared memory instead of the request: which ones, and where.
//!
//! A region is a name in its tenant's own namespace; what it stands for is known to whoever keeps regions. An input that lies
//! in one is no tensor of the request before its bytes were read, so that nothing can take it for one.

use std::sync::Arc;

use crate::{DataType, Shape};

/// The longest name of a region, in bytes.
pub const MAX_REGION_NAME_BYTES: usize = 255;

/// A part of a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionSpan {
    /// The region's name.
    pub region: String,
    /// Where it begins in the region, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// An input that lies in a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionInput {
    /// Its place among all inputs of the request.
    pub at: usize,
    /// Its name.
    pub name: Arc<str>,
    /// Its element type.
    pub datatype: DataType,
    /// Its extent.
    pub shape: Shape,
    /// Where its elements are.
    pub span: RegionSpan,
}

/// An output that is to be put into a region.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionOutput {
    /// Its name.
    pub name: String,
    /// Where it goes. In a response: where it was put, and as many bytes as it has.
    pub span: RegionSpan,
}

/// What of a request is in shared memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InRegions {
    /// Inputs, in the order of the request; they are not among its tensors yet.
    pub inputs: Vec<RegionInput>,
    /// Outputs, in the order of the request; they are among the outputs that it asks for.
    pub outputs: Vec<RegionOutput>,
}

impl InRegions {
    /// Itself, unless there is nothing in it.
    pub fn boxed(self) -> Option<Box<Self>> {
        let empty = self.inputs.is_empty() && self.outputs.is_empty();
        (!empty).then(|| Box::new(self))
    }
}
