//! Faults: what went wrong, whose fault it is and whether the same call may be tried again.
//!
//! Decided once, where the fault is born; every door only translates. Messages are for the caller: they name what was wrong
//! and what would be right, and never a path, a secret or another tenant.

use std::{borrow::Cow, fmt, time::Duration};

/// What went wrong, in the terms that the protocols' status codes are chosen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultClass {
    /// The request is malformed or does not fit the model.
    InvalidArgument,
    /// No valid credential.
    Unauthenticated,
    /// A credential that is not even written like one (RFC 6750's `invalid_request`).
    MalformedCredential,
    /// A valid credential, but nothing that it shows would let the caller do this.
    PermissionDenied,
    /// A valid credential without the scope that this takes (RFC 6750's `insufficient_scope`).
    InsufficientScope,
    /// No such thing that the caller may see.
    NotFound,
    /// Larger than a stated bound.
    TooLarge,
    /// The caller's own limit is used up.
    RateLimited,
    /// The service cannot take it now.
    Unavailable,
    /// The deadline passed, or would have.
    DeadlineExceeded,
    /// Asked for something this server does not offer.
    Unsupported,
    /// The caller gave up.
    Cancelled,
    /// A write met another revision than it expected.
    Conflict,
    /// Broken on our side.
    Internal,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultSource {
    /// The request.
    Client,
    /// A limit set for the tenant.
    TenantLimit,
    /// The model's code or configuration.
    Model,
    /// The device it runs on.
    Device,
    /// The mesh itself.
    Mesh,
}

impl FaultSource {
    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::TenantLimit => "tenant_limit",
            Self::Model => "model",
            Self::Device => "device",
            Self::Mesh => "mesh",
        }
    }
}

/// Whether the same call may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    No,
    /// At once.
    Now,
    /// Not before this much time has passed.
    After(Duration),
}

/// A fault as it travels to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What went wrong.
    pub class: FaultClass,
    /// Whose fault.
    pub source: FaultSource,
    /// May it be tried again.
    pub retry: Retry,
    /// For the caller.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// A fault that will not go away by trying again.
    pub fn new(class: FaultClass, source: FaultSource, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            class,
            source,
            retry: Retry::No,
            message: message.into(),
        }
    }

    /// The same fault, with another word on retrying.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// The request is wrong.
    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultClass::InvalidArgument, FaultSource::Client, message)
    }

    /// There is no such thing, or not for this caller.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultClass::NotFound, FaultSource::Client, message)
    }

    /// A model that does not exist, or that the caller may not see: the two must answer alike.
    pub fn unknown_model(name: &str) -> Self {
        let name: String = name.chars().take(crate::ids::MAX_NAME_BYTES).collect();
        Self::not_found(format!("Request for unknown model: '{name}' is not found"))
    }

    /// A repository that does not exist, or that is not the caller's: the two must answer alike.
    pub fn unknown_repository(name: &str) -> Self {
        let name: String = name.chars().take(crate::ids::MAX_NAME_BYTES).collect();
        Self::not_found(format!("Request for unknown repository: '{name}' is not found"))
    }

    /// We cannot take it now; another try may succeed.
    pub fn unavailable(source: FaultSource, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultClass::Unavailable, source, message).with_retry(Retry::Now)
    }

    /// Broken on our side.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultClass::Internal, FaultSource::Mesh, message)
    }

    /// The deadline passed at the named stage.
    pub fn deadline(stage: &str) -> Self {
        Self::new(
            FaultClass::DeadlineExceeded,
            FaultSource::Mesh,
            format!("deadline exceeded {stage}"),
        )
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_models_name_is_cut_in_the_message() {
        let fault = Fault::unknown_model(&"x".repeat(10_000));
        assert!(fault.message.len() < 200);
        assert_eq!(fault.class, FaultClass::NotFound);
    }

    #[test]
    fn unavailable_may_be_tried_again_and_invalid_not() {
        assert_eq!(Fault::unavailable(FaultSource::Device, "full").retry, Retry::Now);
        assert_eq!(Fault::invalid("bad").retry, Retry::No);
    }
}
