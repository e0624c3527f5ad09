//! The inference doors as a node's configuration wants them.
//!
//! Only a translation: what the settings mean is the doors' own to say, and everything was checked before.

use std::sync::Arc;

use mesh_router::{LocalTenant, ModelControl};
use mesh_router_grpc::GrpcDoorConfig;
use mesh_router_http::HttpDoorConfig;

use crate::{config::NodeConfig, tls::DoorsTls};

/// The HTTP door; `control` is the repository whose models its callers may load, if there is one.
pub(crate) fn http(config: &NodeConfig, tls: &DoorsTls, control: Option<Arc<dyn ModelControl>>) -> HttpDoorConfig {
    HttpDoorConfig {
        listen: config.http,
        tls: tls.inference.clone(),
        workers: config.http_workers,
        max_body_bytes: config.max_body_bytes,
        forward: config.forward_headers.clone(),
        cors: config.cors_origins.clone(),
        grace: config.grace,
        server_name: config.server_name.clone(),
        as_triton: config.as_triton,
        local_tenant: config.local_tenant.clone().map(LocalTenant::new),
        control,
        ..HttpDoorConfig::default()
    }
}

/// The gRPC door, likewise.
pub(crate) fn grpc(config: &NodeConfig, tls: &DoorsTls, control: Option<Arc<dyn ModelControl>>) -> GrpcDoorConfig {
    GrpcDoorConfig {
        listen: config.grpc,
        tls: tls.inference.clone(),
        workers: config.http_workers,
        max_message_bytes: config.max_body_bytes,
        forward: config.forward_headers.clone(),
        server_name: config.server_name.clone(),
        as_triton: config.as_triton,
        local_tenant: config.local_tenant.clone().map(LocalTenant::new),
        control,
        ..GrpcDoorConfig::default()
    }
}
