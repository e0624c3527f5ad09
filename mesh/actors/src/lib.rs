//! The actix kit: what actix 0.13 lacks for a service that must not lose, leak or wait for ever.
//!
//! Owns supervision that rebuilds an actor from a factory ([`supervise`]), bounded admission ([`Permits`]), tasks that
//! shutdown waits for ([`Tasks`]) and the set of things that must be up before the mesh is ready ([`Readiness`]). Knows
//! nothing of requests, models or stores.

mod permits;
mod readiness;
mod supervise;
mod tasks;

pub use permits::{Permit, Permits};
pub use readiness::{Readiness, ReadinessGuard, ReadinessWatch};
pub use supervise::{ActorState, Lifeline, RestartPolicy, Supervised, supervise};
pub use tasks::{ShutdownSignal, Tasks};
