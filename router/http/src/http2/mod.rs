//! HTTP/2 at the inference door: one future drives a connection and its calls, so that whoever drops it drops them.
//!
//! Owns the protocol's bounds and what follows from them; the handlers are those of HTTP/1.1, asked with the same request and
//! answering with the same response. The HTTP/2 library keeps streams, windows and the size of headers within what it is told;
//! what it leaves open, frames that are no work, is counted in [`Flood`].
//!
//! Invariants: a call that is taken back is dropped, which cancels it in the mesh; nothing is spawned; streams, headers, frames
//! without work, unread bytes and every wait have bounds; a panic ends its call and no other. What is kept of a connection: at
//! most [`CONNECTION_WINDOW`] unread, and for each call what the library holds back for sending.
//!
//! An HTTP/1.1 connection cannot be turned into one of HTTP/2 (`Upgrade: h2c`, which RFC 9113 has given up): a client that wants
//! HTTP/2 without TLS begins with it.

mod call;
mod connection;
mod request;

use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime},
};

use actix_web::{
    body::BoxBody,
    dev::{Service, ServiceResponse},
    http::header::HttpDate,
};
use bytes::Bytes;
use h2::server::Builder;
use mesh_router::PeerCertificate;
use mesh_telemetry::Telemetry;
use mesh_types::Clock;
use mesh_wire::{Counted, Flood};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use self::connection::Connection;
use crate::config::HttpDoorConfig;

/// What a caller may send of one call, and of all of a connection, before it is read.
const CALL_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// A list of headers is smaller, as RFC 9113, section 6.5.2 counts it: names, values and 32 bytes for each.
const MAX_HEADER_BYTES: u32 = 16 * 1024;
/// Calls that were taken back before they were begun, and streams that were reset because the caller broke the protocol
/// (CVE-2025-8671): with one more of either the connection ends.
const MAX_EARLY_RESETS: usize = 100;
const MAX_FORCED_RESETS: usize = 100;

/// The bounds of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    max_calls: u32,
    /// How long the beginning of a connection may take.
    beginning: Duration,
    /// How long it may be without a call.
    idle: Duration,
    /// How long a caller may take no byte of its answer.
    stall: Duration,
    ping_interval: Duration,
    ping_timeout: Duration,
}

impl Limits {
    pub(crate) fn of(config: &HttpDoorConfig) -> Self {
        Self {
            max_calls: config.max_calls_per_connection,
            beginning: config.head_timeout,
            idle: config.keep_alive,
            stall: config.body_timeout,
            ping_interval: config.ping_interval,
            ping_timeout: config.ping_timeout,
        }
    }
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Far {
    pub(crate) address: Option<SocketAddr>,
    /// What it has shown in the handshake.
    pub(crate) certificate: Option<Arc<PeerCertificate>>,
}

/// What the HTTP/2 connections of a thread have in common.
pub(crate) struct Thread<S> {
    service: S,
    limits: Limits,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    /// The second that was written last, and how.
    date: RefCell<(i64, http::HeaderValue)>,
}

impl<S> Thread<S> {
    pub(crate) fn new(service: S, limits: Limits, clock: Arc<dyn Clock>, telemetry: Telemetry) -> Self {
        Self {
            service,
            limits,
            clock,
            telemetry,
            date: RefCell::new((i64::MIN, http::HeaderValue::from_static(""))),
        }
    }

    /// The time, as answers have it; HTTP/1.1 has it from its own library.
    fn date(&self) -> http::HeaderValue {
        let now = self.clock.unix_seconds();
        let mut written = self.date.borrow_mut();
        if written.0 != now {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(now).unwrap_or_default());
            if let Ok(value) = http::HeaderValue::from_str(&HttpDate::from(time).to_string()) {
                *written = (now, value);
            }
        }
        written.1.clone()
    }
}

/// Serves a connection until either side ends it. When `ending` returns, what is under way is finished and nothing new taken.
pub(crate) async fn serve<IO, S>(socket: IO, far: Far, thread: Rc<Thread<S>>, ending: impl Future<Output = ()>)
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Service<actix_http::Request, Response = ServiceResponse<BoxBody>, Error = actix_web::Error> + 'static,
{
    let flood = Flood::new(Instant::now());
    let counted = Counted::new(socket, flood.clone());
    let begun = protocol(&thread.limits).handshake::<_, Bytes>(counted);
    match tokio::time::timeout(thread.limits.beginning, begun).await {
        Ok(Ok(wire)) => Connection::new(wire, far, thread, flood).run(ending).await,
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP/2 connection did not begin"),
        Err(_) => tracing::debug!("an HTTP/2 connection took too long to begin"),
    }
}

fn protocol(limits: &Limits) -> Builder {
    let mut protocol = Builder::new();
    protocol
        .initial_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.max_calls)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_EARLY_RESETS)
        .max_local_error_reset_streams(Some(MAX_FORCED_RESETS));
    protocol
}
