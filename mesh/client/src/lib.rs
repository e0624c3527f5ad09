//! A client of the inference doors: predictions over HTTP or gRPC, with the same calls and the same errors.
//!
//! ```no_run
//! use mesh_client::{Client, Input};
//!
//! # async fn example() -> Result<(), mesh_client::Error> {
//! let client = Client::http("http://127.0.0.1:8000").api_key("mesh_...").build()?;
//! let pixels = Input::new("pixels", [1, 64], &[0.0_f32; 64])?;
//! let answer = client.model("digits").infer([pixels]).await?;
//! let scores = answer.output("scores")?.values::<f32>()?;
//! println!("version {} says {scores:?}", answer.version);
//! # Ok(())
//! # }
//! ```
//!
//! Owns what every caller would otherwise write anew: tensors as slices, deadlines that the server and the client keep, trace
//! context, and trying again where that is safe and nowhere else. Tensors travel as raw bytes on both wires, and an answer's are
//! read where they lie. Knows the wires and nothing of what is behind a door; keeps no state but its connections.
//!
//! Invariants: a call ends by its deadline, whatever the server does; a call that may have reached a model is sent again only if
//! the server says that it may, and a step of a sequence never; a call that is dropped is cancelled on the server; messages,
//! tries, connections and what waits in a stream are bounded.

mod about;
mod answer;
mod builder;
mod client;
mod element;
mod error;
mod grpc;
mod head;
mod http;
mod request;
mod retry;
mod stream;
mod tensor;

pub use about::{
    BatchStatistics, IndexEntry, InferStatistics, MemoryUsage, ModelMetadata, ModelStatistics, ResponseStatistics,
    ServerMetadata, Statistic, TensorMetadata,
};
pub use answer::{Answer, JsonAnswer};
pub use builder::{
    ClientBuilder, DEFAULT_CONNECTIONS, DEFAULT_MAX_MESSAGE_BYTES, DEFAULT_TIMEOUT, MAX_CONNECTIONS, MAX_TIMEOUT,
};
pub use client::{Client, Model, Version};
pub use element::Element;
pub use error::{Error, Refusal, Status};
pub use mesh_types::{DataType, FaultClass, ParameterValue, Parameters, Retry, TraceContext};
pub use request::{Request, Sequence};
pub use retry::{DEFAULT_RETRIES, MAX_RETRIES};
pub use stream::{MAX_WAITING, StreamAnswers, StreamBuilder, StreamRequests};
pub use tensor::{ElementError, Elements, Input, Output, Wanted};

/// The examples of the crate's README are compiled with its tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;
