//! The gRPC door of inference: the Open Inference Protocol v2 with Triton's extensions, TensorFlow Serving's calls, health and
//! reflection.
//!
//! Owns sockets, HTTP/2 settings, metadata and the bounds on what a caller may send; decodes with `mesh-protocol`, asks the
//! router that lives on the same thread, encodes. Decides nothing about who may call what, and knows no worker and no
//! registry: what is refused over HTTP is refused here, for the same reason and in the same words.
//!
//! Each thread has an arbiter, a router and the connections that were handed to it; a connection owns its calls. Calls are
//! routed by hand, as in the HTTP door, and not by a generated server, which would have them move between threads.
//!
//! Invariants: every failure is a status of the one table in `mesh-protocol`; a call that is cancelled, or whose connection
//! goes, is dropped, which cancels it in the mesh; a panic ends its call and no other; connections, calls of a connection,
//! requests of a stream and bytes that are kept have bounds.

mod calls;
mod codec;
mod config;
mod connection;
mod door;
mod head;
mod health;
mod infer;
mod meter;
mod regions;
mod repository;
mod service;
mod serving;
mod settings;
mod status;
mod stream;
mod tls;
mod worker;

#[cfg(test)]
mod door_tests;

pub use config::GrpcDoorConfig;
pub use door::{DoorError, GrpcDoor};
