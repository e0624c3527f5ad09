//! The admin door: resources, credentials, uploads, live numbers and the trail of changes, over HTTP and JSON.
//!
//! Owns the routes under `/admin/v1`, their OpenAPI document, sessions and the checks of who may call, and the listener that
//! also serves the web app. Decides nothing about what a resource may say (that is the registry's and the resources' own)
//! and runs no model: each handler is a thin translation between HTTP and those that know.
//!
//! Invariants: every route but those for signing in and the API's description needs a valid admin token, and the right to its action;
//! a write made with a cookie comes from this door's own pages; secrets are shown once, when made, and redacted in every
//! other answer; every write carries who made it; whatever a caller can make grow has a named bound.

mod apply;
mod artifacts;
mod audit;
mod auth;
mod authz;
mod backup;
mod bodies;
mod cache;
mod certificates;
mod devices;
mod door;
mod entry;
mod error;
mod graph;
mod issuers;
mod key_uses;
mod keys;
mod live;
mod loaded;
mod metrics;
mod openapi;
mod overview;
mod parts;
mod plan;
mod policies;
mod resources;
mod routes;
mod sessions;
mod sign_in;
mod state;
mod static_files;
mod throttle;
mod trial;
mod usage;
mod versions;
mod wire;

pub use door::{AdminDoor, AdminDoorConfig};
pub use live::MAX_EVENT_CLIENTS;
pub use openapi::document as openapi_document;
pub use overview::Overview;
pub use parts::{
    AdminParts, AnswerCache, Asset, Assets, DeviceFacts, DeviceView, DoorsView, FleetView, HeldModel, IssuerView,
    KeyUseView, LoadState, ModelFacts, ModelNumbers, Probe, Progress, Purged, SequenceNumbers,
};
pub use routes::configure;
pub use sessions::{IDLE_SECONDS, MAX_SESSIONS, SESSION_SECONDS};
pub use sign_in::{
    Asked, CALLBACK, IdentityProvider, LEFT, LOGIN_SECONDS, Leaving, MAX_LOGINS, MAX_ROLES, ProviderError, Returned,
    RoleRules, SignIn,
};
pub use state::AdminState;

#[cfg(test)]
mod door_tests;
#[cfg(test)]
mod fixture_tests;
#[cfg(test)]
mod graph_tests;
#[cfg(test)]
mod issuers_tests;
#[cfg(test)]
mod key_uses_tests;
#[cfg(test)]
mod policies_tests;
#[cfg(test)]
mod resources_tests;
#[cfg(test)]
mod security_tests;
#[cfg(test)]
mod usage_tests;
