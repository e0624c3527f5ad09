//! Control: brings the devices to what the records say, and publishes what routers follow.
//!
//! Owns the way from records and device reports to a [`MeshSnapshot`](mesh_policies::MeshSnapshot) ([`compile`], a pure
//! function), the plan of loads and unloads, and the supervised task that carries both out. Does not store, serve or run
//! anything itself: the registry, the routers and the devices ([`Fleet`]) do.
//!
//! ```text
//! registry revision --> Records --.
//!                                  compile --> MeshSnapshot --> routers
//! devices' report ----------------'   |
//!        ^                            v
//!        '------ loads, unloads <-- plan
//! ```
//!
//! Invariants: a label, a default or a route moves to a version only once that version is ready, as long as what served
//! before still can; a version is unloaded only after no published snapshot has led to it for a while; a failed load is
//! tried again a bounded number of times, and its reason is kept where callers and admins see it.

mod authorization;
mod caching;
mod compact;
mod compile;
mod controller;
mod credentials;
mod ensembles;
mod fleet;
mod limits;
mod plan;
mod records;
mod reuse;
mod since;
mod standing;

pub use compact::{KeyRecord, PlanRecord, TenantRecord};
pub use compile::{Compiled, compile};
pub use controller::{Controller, ControllerHandle, ControllerParts, Published};
pub use fleet::{DeviceReport, Fleet, FleetReport, LoadOrder, ModelReport, ModelState, Moved};
pub use plan::{MAX_ATTEMPTS, MAX_MOVES, MAX_UNLOADS, UNROUTED_REST, Unsettled};
pub use records::{ModelName, ModelRecord, Records, VersionRecord};
pub use standing::Trouble;

#[cfg(test)]
mod compile_tests;
#[cfg(test)]
mod controller_tests;
#[cfg(test)]
mod ensembles_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod samples;
