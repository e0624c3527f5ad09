//! A load generator, and the empty handler to hold it against.
//!
//! Owns a closed loop of HTTP/1.1 requests over kept connections: each connection sends a request made beforehand, reads the
//! whole answer, and sends the next. It parses no more than the status and the length, so that what is measured is the
//! server. [`Floor`] is the least that a server on the same library can do with the same bytes: read them, answer as many.
//! Not a test of its own, and no open-loop generator: under a closed loop a slow server is asked less often.

mod answer;
mod connection;
mod floor;
mod request;
mod run;

pub use answer::{AnswerError, Head, MAX_HEAD_BYTES};
pub use connection::{Connection, MAX_ANSWER_BYTES};
pub use floor::{Floor, MAX_FLOOR_BODY_BYTES};
pub use request::{RequestParts, request_bytes};
pub use run::{Load, MAX_CONCURRENCY, Outcome, Summary, run};
