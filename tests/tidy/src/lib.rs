//! The laws of the house as functions that name every breach: who may depend on whom, what a source file may hold, and what
//! the tables of the protocols and of the rules of security may say.
//!
//! Owns the level table. Each law is a pure function over edges or text, tested on a small breach of its own; the tests in
//! `tests/laws.rs` hold the workspace to them.

mod edges;
mod protocol;
mod sources;

pub use edges::{Edge, LEVELS, breaches as edge_breaches, workspace_edges};
pub use protocol::{breaches as protocol_breaches, missing_tests};
pub use sources::{Source, breaches as source_breaches, conformance_scripts, workspace_file, workspace_sources};
