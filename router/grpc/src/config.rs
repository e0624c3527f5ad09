//! How the gRPC door is set up, with defaults that suit a server on the open network.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_protocol::HeaderPattern;
use mesh_router::{LocalTenant, ModelControl};
use mesh_tls::ServerConfig;

/// The gRPC door's settings.
#[derive(Debug, Clone)]
pub struct GrpcDoorConfig {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// How it speaks TLS; absent: it does not.
    pub tls: Option<ServerConfig>,
    /// Threads, each with a router of its own.
    pub workers: usize,
    /// The largest message of an inference request, as sent and after decompression.
    pub max_message_bytes: usize,
    /// What large messages may take together while their calls are answered.
    pub max_buffered_bytes: usize,
    /// The most connections of each thread.
    pub max_connections_per_worker: usize,
    /// The most calls of one connection at once; a client holds back the next.
    pub max_calls_per_connection: u32,
    /// The most requests of one stream that are under way; the next is not read before the first is answered.
    pub max_stream_requests: usize,
    /// How long a connection may be open before its first call.
    pub first_call_timeout: Duration,
    /// How long it may be without a call after that; clients make another when they need one.
    pub idle_timeout: Duration,
    /// How often a silent connection is asked whether somebody is there.
    pub ping_interval: Duration,
    /// How long it may take to say so.
    pub ping_timeout: Duration,
    /// How long a caller may take to send the one message of a call.
    pub message_timeout: Duration,
    /// Metadata that becomes parameters of requests; none: none does.
    pub forward: Option<HeaderPattern>,
    /// The name in the server's metadata.
    pub server_name: String,
    /// The version in the server's metadata.
    pub server_version: String,
    /// Whether it answers as Triton's server does where the two differ.
    pub as_triton: bool,
    /// Whom callers on this machine are who show no credential; none: they are refused like all others.
    pub local_tenant: Option<LocalTenant>,
    /// The repository whose models its tenant may load and unload here; none: nobody may.
    pub control: Option<Arc<dyn ModelControl>>,
}

impl Default for GrpcDoorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8001)),
            tls: None,
            workers: 2,
            max_message_bytes: 64 * 1024 * 1024,
            max_buffered_bytes: 1024 * 1024 * 1024,
            max_connections_per_worker: 8_192,
            max_calls_per_connection: 256,
            max_stream_requests: 64,
            first_call_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(600),
            ping_interval: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(20),
            message_timeout: Duration::from_secs(60),
            forward: None,
            server_name: "mesh".to_owned(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            as_triton: false,
            local_tenant: None,
            control: None,
        }
    }
}
