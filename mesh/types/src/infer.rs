//! A prediction asked for and answered, free of any wire format.

use crate::{ClassCount, InRegions, ParameterValue, Parameters, RegionOutput, Tensor, Version, VersionSelector};

/// What a caller asks. Names are still text: whether they exist, and for whom, is the router's to say.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct InferRequest {
    /// The caller's own id, given back unchanged.
    pub id: Option<String>,
    /// An endpoint or a model in the caller's namespace.
    pub model: String,
    /// Which version.
    pub version: VersionSelector,
    /// Input tensors, each checked against its own shape.
    pub inputs: Vec<Tensor>,
    /// Names of the outputs wanted; empty means all.
    pub outputs: Vec<String>,
    /// Request parameters (priority, sequence, the caller's own).
    pub parameters: Parameters,
    /// Outputs of which classes are wanted instead of numbers; for most requests none.
    pub classes: Vec<ClassCount>,
    /// What of it is in shared memory; nothing for most requests.
    pub regions: Option<Box<InRegions>>,
}

impl InferRequest {
    /// A request parameter by name.
    pub fn parameter(&self, name: &str) -> Option<&ParameterValue> {
        self.parameters.get(name)
    }
}

/// What the caller gets.
#[derive(Debug, Clone, PartialEq)]
pub struct InferResponse {
    /// The caller's id.
    pub id: Option<String>,
    /// The name the caller used.
    pub model: String,
    /// The version that answered.
    pub version: Version,
    /// Output tensors, in the model's order or the order asked for.
    pub outputs: Vec<Tensor>,
    /// Response parameters.
    pub parameters: Parameters,
    /// Outputs that were put into shared memory: their tensors hold no data.
    pub regions: Vec<RegionOutput>,
}
