//! Why a runtime could not load or run a model.

use mesh_types::{Fault, FaultClass, FaultSource};

/// A runtime's error. The texts go to callers and admins: no paths.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The model does not load.
    #[error("failed to load: {0}")]
    Load(String),
    /// The inputs do not suit the model, though they fit its configuration.
    #[error("invalid input: {0}")]
    InvalidInput(String),
    /// The model failed while running.
    #[error("model execution failed: {0}")]
    Execution(String),
    /// The model's outputs are not what its configuration says.
    #[error("model output does not match its configuration: {0}")]
    Output(String),
    /// The device has no memory left for it. Where it ran, what a model keeps may have changed.
    #[error("out of memory on the device: {0}")]
    OutOfMemory(String),
    /// The device has no memory left for the inputs: the model was not called, and what it keeps is as it was.
    #[error("out of memory on the device: {0}")]
    NoRoomForInputs(String),
    /// This runtime cannot do that.
    #[error("not supported: {0}")]
    Unsupported(String),
}

impl BackendError {
    /// Whether the device had no memory for it: fewer rows may fit.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory(_) | Self::NoRoomForInputs(_))
    }

    /// The same, where the model was not called yet.
    #[must_use]
    pub fn before_the_call(self) -> Self {
        match self {
            Self::OutOfMemory(text) => Self::NoRoomForInputs(text),
            other => other,
        }
    }

    /// The same, saying within what it happened.
    #[must_use]
    pub fn within(self, what: &str) -> Self {
        let name = |text: String| format!("{what}: {text}");
        match self {
            Self::Load(text) => Self::Load(name(text)),
            Self::InvalidInput(text) => Self::InvalidInput(name(text)),
            Self::Execution(text) => Self::Execution(name(text)),
            Self::Output(text) => Self::Output(name(text)),
            Self::OutOfMemory(text) => Self::OutOfMemory(name(text)),
            Self::NoRoomForInputs(text) => Self::NoRoomForInputs(name(text)),
            Self::Unsupported(text) => Self::Unsupported(name(text)),
        }
    }
}

impl From<BackendError> for Fault {
    fn from(error: BackendError) -> Self {
        let message = error.to_string();
        match error {
            BackendError::Load(_) | BackendError::Execution(_) | BackendError::Output(_) => {
                Self::new(FaultClass::Internal, FaultSource::Model, message)
            }
            BackendError::InvalidInput(_) => Self::invalid(message),
            BackendError::OutOfMemory(_) | BackendError::NoRoomForInputs(_) => {
                Self::unavailable(FaultSource::Device, message)
            }
            BackendError::Unsupported(_) => Self::new(FaultClass::Unsupported, FaultSource::Model, message),
        }
    }
}
