//! Graphs: models made of other models, with conditions and splits on the way.
//!
//! Owns everything about them that is pure: the meaning of [conditions](condition), the check that a graph holds together
//! ([`Outline`]), the plan that a snapshot keeps ([`Plan`]), one request's way through it ([`Run`]), and how it is shown
//! ([`show`]). Runs nothing: a router drives the run and hands each call to a device like any request.
//!
//! Invariants: see the parts. Everything is bounded: steps, tensors, routes, depth, width, nesting, sources of an input,
//! conditions.

pub mod condition;
pub mod show;

mod certain;
mod flat;
mod link;
mod order;
mod outline;
mod plan;
mod reach;
mod run;

pub use outline::{
    Bound, Call, Choice, Input, MAX_DEPTH, MAX_WIDTH, Made, Outline, Output, Route, TensorInfo, Wanted, Way,
};
pub use plan::{Plan, StepVersionEntry};
pub use reach::{MAX_NESTING, MAX_TOTAL_STEPS, Reach, StepReach};
pub use run::{Facts, OutputMissing, Run, Starts};

#[cfg(test)]
mod outline_tests;
#[cfg(test)]
mod run_tests;
#[cfg(test)]
mod samples;
