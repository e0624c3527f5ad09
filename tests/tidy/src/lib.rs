//! The laws of the house as functions that name every breach: who may depend on whom, and what a source file may hold.
//!
//! Owns the level table. Each law is a pure function over edges or text, tested on a small breach of its own; the tests in
//! `tests/laws.rs` hold the workspace to them.

mod edges;
mod sources;

pub use edges::{Edge, LEVELS, breaches as edge_breaches, workspace_edges};
pub use sources::{Source, breaches as source_breaches, workspace_sources};
