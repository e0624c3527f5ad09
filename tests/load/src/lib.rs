//! A load generator, and the empty handler to hold it against.
//!
//! Owns two loops of HTTP/1.1 requests, made beforehand, over kept connections. In the closed one ([`run`]) each connection
//! sends a request, reads the whole answer, and sends the next: it finds what a server can do at most, and asks a slow server
//! less often. In the open one ([`run_open`]) requests begin when they are due, whatever the server does: it finds what
//! callers meet. The closed one there is over gRPC as well ([`run_grpc`]). None parses more than the status and the length, so that what is measured is the server. [`Floor`] is the
//! least that a server on the same library can do with the same bytes: read them, answer as many. [`soak`] mixes valid, hostile and
//! cancelled traffic. Not a test of its own.

mod answer;
mod arrivals;
mod connection;
mod floor;
mod grpc;
mod open;
mod request;
mod run;
mod soak;
mod tally;

pub use answer::{AnswerError, Head, MAX_HEAD_BYTES};
pub use arrivals::{Arrivals, Spread};
pub use connection::{Connection, MAX_ANSWER_BYTES};
pub use floor::{Floor, MAX_FLOOR_BODY_BYTES};
pub use grpc::{CALLS_PER_CONNECTION, GrpcLoad, framed, run_grpc};
pub use open::{MAX_DUE, OpenLoad, run_open};
pub use request::{RequestParts, request_bytes};
pub use run::{Load, MAX_CONCURRENCY, Outcome, Summary, run};
pub use soak::{Soak, SoakSummary, soak};
pub use tally::{Latencies, OpenOutcome, OpenSummary};
