//! Policies in Cedar: checked when they are written, evaluated where the mesh asks who may do what.
//!
//! Owns the schema that policies are checked against ([`SCHEMA`]), the policies that are there from the start ([`BUILTIN`]), the
//! check of a policy's text with line and column ([`check`]), and [`Policies`], the judge. It is a room of its own so that the
//! engine is not built again with every change of `mesh-policies`. Does not know the table of actions by heart, the rule
//! across tenants or the memory of decisions: those are `mesh_policies::authorization`'s.
//!
//! Invariants: what does not parse, does not type-check or can never apply is refused; texts and statements are bounded, in depth too; a
//! statement that fails to evaluate denies, because what it would have forbidden is not known.

mod bounds;
mod check;
mod cost;
mod declared;
mod engine;
mod entities;
mod index;
mod place;

pub use check::{MAX_POLICY_BYTES, MAX_PROBLEMS, PolicyProblem, check};
pub use declared::{Holder, Thing, changing, kind_of, reading, role, writing};
pub use engine::{CompileError, MAX_SET_BYTES, MAX_STATEMENTS, Policies};

/// What policies can speak of, in Cedar's language of schemas.
pub const SCHEMA: &str = include_str!("mesh.cedarschema");
/// What holds without any other policy.
pub const BUILTIN: &str = include_str!("builtin.cedar");
/// The name under which those decide.
pub const BUILTIN_NAME: &str = "builtin";

#[cfg(test)]
mod tests;
