//! What can go wrong with a call, as one type for both wires: what it was, whether it may be sent again, and when.
//!
//! What the server says about trying again is kept as it said it. A connection that broke with a request on it says nothing:
//! the model may have run, so such a call is never sent again by itself.

use std::{fmt, time::Duration};

use mesh_protocol::{grpc_code, http_status};
use mesh_types::{FaultClass, Retry};

const CLASSES: [FaultClass; 12] = [
    FaultClass::InvalidArgument,
    FaultClass::Unauthenticated,
    FaultClass::PermissionDenied,
    FaultClass::NotFound,
    FaultClass::TooLarge,
    FaultClass::RateLimited,
    FaultClass::Unavailable,
    FaultClass::DeadlineExceeded,
    FaultClass::Unsupported,
    FaultClass::Cancelled,
    FaultClass::Conflict,
    FaultClass::Internal,
];

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The call cannot be made as it is: nothing was sent.
    #[error("{0}")]
    Invalid(String),
    /// There was no connection, so nothing was sent.
    #[error("cannot connect: {0}")]
    Unreachable(String),
    /// The connection broke with the request on it: whether the model ran is not known.
    #[error("the connection broke before the answer was there: {0}")]
    Broken(String),
    /// No answer came in time; the call was given up, on the server too.
    #[error("no answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// The server answered with an error.
    #[error("{0}")]
    Refused(Box<Refusal>),
    /// A request of a stream failed, and the stream goes on.
    #[error("{message}")]
    OnStream {
        /// The id that the request had.
        id: Option<String>,
        /// The server's words.
        message: String,
    },
    /// A message is larger than this client's bound.
    #[error("{what} is larger than this client's bound of {limit} bytes")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// The bound.
        limit: usize,
    },
    /// The answer is not what the protocol says.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

/// An error that the server answered with.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// In the wire's own terms.
    pub status: Status,
    /// What it means, on either wire.
    pub class: FaultClass,
    /// The server's words.
    pub message: String,
    /// Whether the same call may be sent again, as the server says.
    pub retry: Retry,
    /// The server's number for the request, as in its logs and traces.
    pub request_id: Option<String>,
}

/// The status of an answer in its wire's terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// An HTTP status, such as 503.
    Http(u16),
    /// A gRPC code, such as 14.
    Grpc(i32),
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(status) => write!(f, "HTTP status {status}"),
            Self::Grpc(code) => write!(f, "gRPC status {code}"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.status)
    }
}

impl Status {
    /// What the status means. One gRPC code stands for two classes: of those, a limit is what time mends.
    pub(crate) fn class(self, retry: Retry) -> FaultClass {
        let limited = retry != Retry::No;
        let known = |class: &&FaultClass| match self {
            Self::Http(status) => http_status(**class) == status,
            Self::Grpc(8) => {
                **class
                    == if limited {
                        FaultClass::RateLimited
                    } else {
                        FaultClass::TooLarge
                    }
            }
            Self::Grpc(code) => grpc_code(**class) == code,
        };
        let other = match self {
            Self::Http(400..=499) => FaultClass::InvalidArgument,
            _ => FaultClass::Internal,
        };
        CLASSES.iter().find(known).copied().unwrap_or(other)
    }
}

impl Error {
    /// What went wrong, in the terms that both wires' statuses are chosen from.
    pub fn class(&self) -> FaultClass {
        match self {
            Self::Invalid(_) => FaultClass::InvalidArgument,
            Self::Unreachable(_) | Self::Broken(_) => FaultClass::Unavailable,
            Self::Deadline(_) => FaultClass::DeadlineExceeded,
            Self::Refused(refusal) => refusal.class,
            Self::TooLarge { .. } => FaultClass::TooLarge,
            Self::OnStream { .. } | Self::Unreadable(_) => FaultClass::Internal,
        }
    }

    /// Whether the same call may be sent again: nothing was sent, or the server says so.
    pub fn may_retry(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Refused(refusal) => refusal.retry != Retry::No,
            _ => false,
        }
    }

    /// How long to wait before that, where the server says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => match refusal.retry {
                Retry::After(wait) => Some(wait),
                Retry::No | Retry::Now => None,
            },
            _ => None,
        }
    }

    /// The status of the answer, if there was one.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Refused(refusal) => Some(refusal.status),
            _ => None,
        }
    }

    /// The HTTP status, if that is what was answered.
    pub fn http_status(&self) -> Option<u16> {
        match self.status() {
            Some(Status::Http(status)) => Some(status),
            _ => None,
        }
    }

    /// The gRPC code, if that is what was answered.
    pub fn grpc_code(&self) -> Option<i32> {
        match self.status() {
            Some(Status::Grpc(code)) => Some(code),
            _ => None,
        }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn refused(status: Status, message: String, retry: Retry, request_id: Option<String>) -> Self {
        Self::Refused(Box::new(Refusal {
            status,
            class: status.class(retry),
            message,
            retry,
            request_id,
        }))
    }
}

/// An error with all that it came from, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        // Many errors repeat what they came from.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_of_both_wires_mean_the_same() {
        for class in CLASSES {
            let retry = if class == FaultClass::RateLimited {
                Retry::Now
            } else {
                Retry::No
            };
            assert_eq!(Status::Http(http_status(class)).class(retry), class);
            assert_eq!(Status::Grpc(grpc_code(class)).class(retry), class);
        }
        assert_eq!(Status::Http(418).class(Retry::No), FaultClass::InvalidArgument);
        assert_eq!(Status::Http(599).class(Retry::No), FaultClass::Internal);
        assert_eq!(Status::Grpc(2).class(Retry::No), FaultClass::Internal);
    }

    #[test]
    fn only_what_was_not_sent_and_what_the_server_says_may_be_sent_again() {
        let refused = |retry| Error::refused(Status::Http(503), "full".into(), retry, None);
        assert!(Error::Unreachable("x".into()).may_retry());
        assert!(refused(Retry::Now).may_retry());
        assert!(refused(Retry::After(Duration::from_millis(3))).may_retry());
        for error in [
            refused(Retry::No),
            Error::Broken("x".into()),
            Error::Deadline(Duration::ZERO),
            Error::invalid("x"),
            Error::Unreadable("x".into()),
        ] {
            assert!(!error.may_retry(), "{error}");
        }
        assert_eq!(
            refused(Retry::After(Duration::from_millis(3))).retry_after(),
            Some(Duration::from_millis(3))
        );
        assert_eq!(refused(Retry::Now).to_string(), "full (HTTP status 503)");
    }
}
