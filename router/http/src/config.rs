//! How the inference door is set up, with defaults that suit a server on the open network.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use mesh_protocol::HeaderPattern;
use mesh_router::{LocalTenant, ModelControl};
use mesh_tls::ServerConfig;

use crate::cors::CorsOrigins;

/// The inference door's settings.
#[derive(Debug, Clone)]
pub struct HttpDoorConfig {
    /// Where it listens; port 0 takes any free one.
    pub listen: SocketAddr,
    /// How it speaks TLS; absent: it does not.
    pub tls: Option<ServerConfig>,
    /// Threads, each with a router of its own.
    pub workers: usize,
    /// The largest body, as sent and after decompression.
    pub max_body_bytes: usize,
    /// What large bodies may take together while their calls are answered.
    pub max_buffered_bytes: usize,
    /// The most connections of each thread.
    pub max_connections_per_worker: usize,
    /// The most calls of one HTTP/2 connection at once; a client holds back the next.
    pub max_calls_per_connection: u32,
    /// How often an HTTP/2 connection is asked whether somebody is there.
    pub ping_interval: Duration,
    /// How long it may take to say so.
    pub ping_timeout: Duration,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// How long a caller may take to send the head of a request.
    pub head_timeout: Duration,
    /// How long a caller may take to send a body.
    pub body_timeout: Duration,
    /// The longest that a stop waits for requests under way.
    pub grace: Duration,
    /// Headers that become parameters of requests; none: no header does.
    pub forward: Option<HeaderPattern>,
    /// Web pages of which origins may call; none: those of no other origin.
    pub cors: Option<CorsOrigins>,
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

impl Default for HttpDoorConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8000)),
            tls: None,
            workers: 2,
            max_body_bytes: 64 * 1024 * 1024,
            max_buffered_bytes: 1024 * 1024 * 1024,
            max_connections_per_worker: 8_192,
            max_calls_per_connection: 100,
            ping_interval: Duration::from_secs(60),
            ping_timeout: Duration::from_secs(20),
            keep_alive: Duration::from_secs(60),
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            forward: None,
            cors: None,
            server_name: "mesh".to_owned(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            as_triton: false,
            local_tenant: None,
            control: None,
        }
    }
}
