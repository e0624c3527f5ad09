//! The HTTP doors: inference for tenants, and metrics and health for operators.
//!
//! Owns sockets, paths, headers and the bounds on what a caller may send; decodes with `mesh-protocol`, asks the router that
//! lives on the same thread, encodes. Decides nothing about who may call what, and knows no worker and no registry.
//!
//! Invariants: every error, also that of an unknown path, has the body `{"error":".."}`; a body is bounded before and after
//! decompression; a caller that goes away drops its call, which cancels it; a refusal leaves the connection usable, except
//! where more than a little of a refused body would have to be read first: then the answer says that it is closed.

mod asked;
mod body;
mod config;
mod connection;
mod cors;
mod docs;
mod door;
mod extension;
mod generate;
mod http2;
mod infer;
mod manage;
mod metrics;
mod packing;
mod path;
mod regions;
mod reply;
mod service;
mod settings;
mod tls;
mod v1;

#[cfg(test)]
mod door_tests;

pub use config::HttpDoorConfig;
pub use cors::{CorsOrigins, MAX_ORIGINS, OriginError};
pub use door::{DoorError, HttpDoor};
pub use metrics::MetricsDoor;
