//! The node: configuration, assembly, signals and the order of shutdown.
//!
//! Owns nothing that a request is decided by; it starts the rooms, gives each what it needs of the others, and ends them in
//! order. The only crate that reads the environment and files of configuration.
//!
//! Invariants: a configuration that is not valid ends the program before a port is bound; a data folder is used again as it
//! was left; whatever was accepted before the end is answered.

mod admin;
mod audit;
mod code;
mod compat;
mod config;
mod control;
mod data;
mod devices;
mod doors;
mod fleet;
mod issuer_keys;
mod login;
mod memory;
mod node;
mod observer;
mod options;
mod regions;
mod repository;
mod restore;
mod sent;
pub mod signals;
mod signature;
mod statistics;
mod tenants;
mod tls;
mod triton;
mod turns;
mod usage;
mod uses;
mod whole;

pub use audit::{AuditError, AuditSource, AuditVerdict, verify_audit};
pub use code::{CodeConfig, CodeOptions};
pub use config::{ConfigError, NodeConfig};
pub use data::DataError;
pub use login::{LoginConfig, LoginOptions, Secret};
pub use node::{Addresses, Given, Node, StartError};
pub use options::{ServeOptions, Text};
pub use regions::RegionsError;
pub use repository::RepositoryError;
pub use restore::{RestoreError, RestoreOptions, Restored, restore};
pub use signature::Files;
pub use tls::{TlsConfig, TlsOptions};
