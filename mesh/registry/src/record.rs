//! How a resource is kept: a versioned envelope around it, so that what is written today can be read for ever.
//!
//! The golden files under `tests/golden` hold one record of each kind as the first version wrote it. A change of a resource
//! that they no longer pass needs a new [`RECORD_VERSION`] and a reader for the old one.

use mesh_resources::Resource;
use serde::{Deserialize, Serialize};

/// The version that is written.
pub const RECORD_VERSION: u32 = 1;

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a mesh that is newer than this one.
    #[error(
        "the record has version {found}, this mesh reads up to version {RECORD_VERSION}: use the mesh that wrote it, or a newer one"
    )]
    Version {
        /// Its version.
        found: u32,
    },
    /// Not a record.
    #[error("the record cannot be read: {0}")]
    Unreadable(String),
}

#[derive(Deserialize)]
struct Probe {
    v: u32,
}

#[derive(Serialize)]
struct Written<'a> {
    v: u32,
    resource: &'a Resource,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReadV1 {
    #[serde(rename = "v")]
    _version: u32,
    resource: Resource,
}

/// Checks the version of anything that says one as `v`.
pub(crate) fn check_version(bytes: &[u8]) -> Result<(), RecordError> {
    let unreadable = |error: serde_json::Error| RecordError::Unreadable(error.to_string());
    let Probe { v } = serde_json::from_slice(bytes).map_err(unreadable)?;
    if v == RECORD_VERSION {
        return Ok(());
    }
    Err(RecordError::Version { found: v })
}

/// The bytes that a resource is kept as.
pub(crate) fn encode(resource: &Resource) -> Result<String, RecordError> {
    let written = Written {
        v: RECORD_VERSION,
        resource,
    };
    serde_json::to_string(&written).map_err(|error| RecordError::Unreadable(error.to_string()))
}

/// The resource that bytes hold.
pub(crate) fn decode(bytes: &[u8]) -> Result<Resource, RecordError> {
    check_version(bytes)?;
    let record: ReadV1 = serde_json::from_slice(bytes).map_err(|error| RecordError::Unreadable(error.to_string()))?;
    Ok(record.resource)
}
