//! The whole mesh in one process, for tests.
//!
//! Owns starting a node on free ports with a data folder of its own ([`Mesh`]), speaking to its doors ([`Admin`],
//! [`Caller`], [`GrpcCaller`]) and waiting for what can be observed ([`eventually`]). Knows the doors' HTTP and gRPC and nothing behind them, so a
//! test that passes here says what a user would see. Beside the mesh stand what it pushes to ([`Collector`]), callers that
//! cost so little that a hundred thousand requests are soon sent ([`Lane`]), and a model runtime that takes its thread along
//! when told ([`DeadlyBackend`]).
//!
//! Invariants: nothing waits without a deadline, and nothing sleeps and hopes; a mesh that is dropped is stopped in order.

mod admin;
mod caller;
mod certificates;
mod collector;
mod deadly;
mod grpc;
mod lane;
mod mesh;
mod models;
mod wait;

pub use admin::Admin;
pub use caller::{Answer, Caller};
pub use certificates::{Authority, Pair};
pub use collector::{Collector, ExportedSpan};
pub use deadly::{DeadlyBackend, Gate};
pub use grpc::GrpcCaller;
pub use lane::{Lane, LaneAnswer};
pub use mesh::{Mesh, MeshOptions};
pub use mesh_node::{ServeOptions, Text};
pub use models::{batched, builtin, fp32, identity, repeat_int32, vector};
pub use wait::{PATIENCE, eventually};
