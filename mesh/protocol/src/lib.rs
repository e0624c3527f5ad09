//! The wire formats of the inference door: bytes to requests, responses to bytes, faults to status codes.
//!
//! Owns the Open Inference Protocol v2 over HTTP with the binary tensor data extension, its gRPC form ([`grpc`]), TensorFlow
//! Serving's and KServe's first protocol ([`v1`], and [`serving`] over gRPC), the bodies of metadata, health and what is said about
//! models, the documents that describe all this ([`openapi`]), and the one table from [`mesh_types::FaultClass`] to HTTP and gRPC
//! codes.
//! Knows no socket, no runtime and no model: every function is pure, on bytes. Whether a name exists and whether a tensor fits
//! its model is the router's to say.
//!
//! Invariants: a decoder never panics, never recurses with the input's depth and never takes memory beyond a small multiple
//! of the body, whatever the body says about itself; JSON numbers go straight into a tensor's raw bytes; binary tensors are
//! slices of the body, never copies.

mod bodies;
mod classification;
mod control;
mod data;
mod error;
mod forward;
#[doc(hidden)]
pub mod fuzz;
mod generate;
pub mod grpc;
mod lifted;
mod numbers;
pub mod openapi;
mod parameters;
mod problem;
mod raw;
mod regions;
mod request;
mod response;
pub mod serving;
mod settings;
mod status;
pub mod v1;
mod wire;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod regions_tests;
#[cfg(test)]
mod round_trip_tests;

pub use bodies::{
    EXTENSIONS, ModelMetadata, Offers, decode_index, error_body, extensions, index_body, index_entry, live_body,
    model_config_body, model_metadata_body, model_ready_body, models_body, ready_body, server_metadata_body,
    statistics_body,
};
pub use control::{LoadParameters, MAX_LOAD_FILES, decode_load, decode_unload, load_parameters, unload_parameters};
pub use error::{DecodeError, EncodeError};
pub use forward::{HeaderPattern, MAX_FORWARDED, MAX_FORWARDED_BYTES, PatternError, add_forwarded};
pub use generate::{MAX_FIELDS, decode_generate, encode_generate};
pub use problem::{PROBLEM_JSON, Problem, accepts_problems};
pub use raw::decode_raw;
pub use regions::{
    CudaRegion, CudaRegionStatus, REGION_EXTENSIONS, RegionStatus, SystemRegion, decode_cuda_region,
    decode_system_region, regions_body,
};
pub use request::{DecodedInfer, OutputOptions, decode_infer, read_json_data};
pub use response::{EncodedInfer, encode_infer};
pub use settings::{
    decode_log_change, decode_trace_change, log_change, log_settings, log_settings_body, trace_change, trace_settings,
    trace_settings_body,
};
pub use status::{challenge, grpc_code, http_status, retry_after_milliseconds, retry_after_seconds};
pub use wire::{MAX_ID_BYTES, MAX_PARAMETERS, MAX_TENSOR_NAME_BYTES, MAX_TENSORS};

/// The header that says how many bytes of a body are JSON; the rest are raw tensors.
pub const HEADER_CONTENT_LENGTH: &str = "inference-header-content-length";
