//! Workers: one supervised actor per device, and the device threads that hold the models.
//!
//! A job crosses two bounded hops: into the device's arrivals, from which its actor feeds the scheduler, and as part of a
//! batch to a device thread, which answers every request of the batch itself. Owns loading, warm-up and unloading on the
//! device. Decides nothing about tenants or versions: a job says what to run.
//!
//! ```text
//! submit -> arrivals (bounded) -> DeviceActor + Scheduler -> thread commands (bounded) -> LoadedModel -> replies
//!                                      ^------------------- done (bounded) ----------------'
//! ```
//!
//! Models are loaded and warmed by loader threads and handed to device threads. A device has a memory budget: models come and go
//! within it, and a request for one that is not there waits while it is loaded.
//!
//! Invariants: a model runs jobs only once it is warm on every thread that it lives on; a request that fails, panics or
//! hangs fails none of its batch mates that can do without it; no request is answered twice; a job whose caller has gone never reaches a device; what was accepted is answered.

mod affinity;
mod alarm;
mod batch;
mod config;
mod confine;
mod crew;
mod declared;
mod device;
mod dispatch;
mod execute;
mod faults;
mod finite;
mod instances;
mod link;
mod loaded;
mod loader;
mod loading;
mod memory;
mod model;
mod models;
mod observer;
mod order;
mod ordering;
mod passing;
mod priority;
mod pulse;
mod quarantine;
mod replies;
mod report;
mod residency;
mod responses;
mod samples;
mod sequences;
mod shared;
mod standby;
mod statistics;
mod tally;
mod thread;
mod warm;
mod worker;

pub use config::WorkerConfig;
pub use confine::{Cage, Confinement, Reach};
pub use execute::SLOW_READER_PATIENCE;
pub use mesh_scheduler::Charge;
pub use observer::{BatchObserver, BatchRecord, Unobserved};
pub use report::{DeviceReport, ModelReport, ModelState, WorkerReport};
pub use responses::ResponseSums;
pub use shared::JobReply;
pub use statistics::{
    BatchSizeStatistics, DeviceStatistics, MAX_EXACT_BATCH_SIZE, MAX_TENANTS_COUNTED, ModelStatistics,
    PredictionStatistics, SequenceStatistics, Sum, WorkerStatistics,
};
pub use worker::{Worker, WorkerError, WorkerHandle};

#[cfg(test)]
mod tests;
