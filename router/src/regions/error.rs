//! Why a region is not registered, found, read or written. Where clients know a text, it is that text.
//!
//! An object that is not there, one that the mesh may not open, a link and an object of another tenant are one error, and so are
//! handles of a device's memory: a caller must not learn which objects the machine has, nor what others have registered.

use mesh_types::{Fault, FaultClass, FaultSource, MAX_REGION_NAME_BYTES};

use super::{HANDLE_BYTES, MAX_REGIONS, MAX_REGIONS_PER_TENANT, RESERVED_KEY_PREFIX};

/// The most characters of a caller's text that a message repeats.
const MAX_QUOTED_CHARS: usize = 64;

pub(super) fn quoted(text: &str) -> String {
    text.chars().take(MAX_QUOTED_CHARS).collect()
}

/// What went wrong with a region.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it is, and the fields are what the message names"
)]
pub enum RegionError {
    #[error("shared memory is not offered by this server: its operator must allow it with --allow-client-shm")]
    Off,
    #[error(
        "CUDA shared memory is not supported by this server, which has no CUDA device: register system shared memory"
    )]
    NoCuda,
    #[error(
        "failed to register shared memory region '{name}': invalid args: its raw_handle must be the {HANDLE_BYTES} bytes of a \
         cudaIpcMemHandle_t, got {got}"
    )]
    Handle { name: String, got: usize },
    #[error("failed to register shared memory region '{name}': its raw_handle cannot be opened on device {device}")]
    HandleNotOpened { name: String, device: i64 },
    #[error("the shared memory region '{name}' is {kind} shared memory, not {wanted} shared memory")]
    OtherKind {
        name: String,
        wanted: &'static str,
        kind: &'static str,
    },
    #[error("Unable to find shared memory region: '{name}'")]
    Unknown { name: String },
    #[error("shared memory region '{name}' already in manager: unregister it first")]
    Taken { name: String },
    #[error("the name of a shared memory region has 1 to {MAX_REGION_NAME_BYTES} bytes, got {0}")]
    NameLength(usize),
    #[error(
        "failed to register shared memory region '{name}': invalid args: its key must be the name of a shared memory object, \
         1 to 255 bytes with a '/' in front only"
    )]
    Key { name: String },
    #[error(
        "cannot register shared memory region '{name}' with key '{key}' as the key contains the reserved prefix \
         '{RESERVED_KEY_PREFIX}'"
    )]
    Reserved { name: String, key: String },
    #[error("failed to register shared memory region '{name}': invalid args: its byte_size must be at least 1")]
    Empty { name: String },
    #[error("Unable to open shared memory region: '{key}'")]
    NotOpened { key: String },
    #[error(
        "failed to register shared memory region '{name}': invalid args: offset {offset} and byte_size {bytes} lead beyond the \
         object, which has {size} bytes"
    )]
    Beyond {
        name: String,
        offset: u64,
        bytes: u64,
        size: u64,
    },
    #[error("a tenant has at most {MAX_REGIONS_PER_TENANT} shared memory regions: unregister one first")]
    TooManyOfTenant,
    #[error("the server has its {MAX_REGIONS} shared memory regions: try again when another is unregistered")]
    TooMany,
    #[error("Invalid offset for shared memory region: '{name}', which has {bytes} bytes")]
    Offset { name: String, bytes: u64 },
    #[error("Invalid offset + byte size for shared memory region: '{name}', which has {bytes} bytes")]
    Span { name: String, bytes: u64 },
    #[error("shared memory region '{name}' is shorter than when it was registered: register it anew")]
    Shrunk { name: String },
    #[error("shared memory region '{name}' could not be copied: {problem}")]
    Copy { name: String, problem: String },
    #[error("input byte size mismatch for input '{input}' for model '{model}'. Expected {expected}, got {got}")]
    InputSize {
        input: String,
        model: String,
        expected: u64,
        got: u64,
    },
    #[error("input {0}")]
    Input(String),
    #[error("the inputs in shared memory have {got} bytes, a request takes at most {most}")]
    TooLarge { got: u64, most: u64 },
    #[error("the server has no room for another large request: try again")]
    NoRoom,
    #[error(
        "shared memory size specified with the request for output '{output}' ({got} bytes) should be at least {needed} bytes \
         to hold the results"
    )]
    OutputSize { output: String, got: u64, needed: u64 },
}

impl RegionError {
    pub(super) fn unknown(name: &str) -> Self {
        Self::Unknown { name: quoted(name) }
    }
}

impl From<RegionError> for Fault {
    fn from(error: RegionError) -> Self {
        let text = error.to_string();
        let of = |class| Self::new(class, FaultSource::Client, text.clone());
        match error {
            RegionError::Off | RegionError::NoCuda => of(FaultClass::Unsupported),
            RegionError::Unknown { .. } | RegionError::OtherKind { .. } => of(FaultClass::NotFound),
            RegionError::TooLarge { .. } => of(FaultClass::TooLarge),
            // As other servers answer it.
            RegionError::OutputSize { .. } => of(FaultClass::Internal),
            RegionError::TooManyOfTenant => Self::new(FaultClass::RateLimited, FaultSource::TenantLimit, text),
            RegionError::TooMany | RegionError::NoRoom => Self::unavailable(FaultSource::Mesh, text),
            RegionError::Copy { .. } => Self::new(FaultClass::Internal, FaultSource::Client, text),
            _ => Self::invalid(text),
        }
    }
}
