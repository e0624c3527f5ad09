//! The sockets: binds, starts a thread per worker with a router of its own, reports the bound address, stops gracefully.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    time::Duration,
};

use actix_server::{GracefulShutdownSignal, Server, ServerBuilder, ServerHandle};
use mesh_actors::{Readiness, Tasks};
use mesh_router::{Budget, RouterActor, RouterParts};

use crate::{
    config::HttpDoorConfig,
    connection::{self, Serving},
    service::Service,
    tls,
};

const NAME: &str = "inference door";

/// Why a door does not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

/// The open inference door.
#[derive(Debug, Clone)]
pub struct HttpDoor {
    server: RunningServer,
}

impl HttpDoor {
    /// Opens the door. Must be called within an actix system, whose arbiters then carry the routers.
    pub fn start(
        config: HttpDoorConfig,
        parts: RouterParts,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<Self, DoorError> {
        let listen = config.listen;
        let taken = |source| DoorError::Bind {
            address: listen,
            source,
        };
        let (address, server) = listening(config, parts, readiness).map_err(taken)?;
        let server = RunningServer::start(NAME, server, address, tasks);
        Ok(Self { server })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.address
    }

    /// Takes no more connections and waits for the requests under way; false if some were still there after `grace`.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.server.stop(grace).await
    }
}

/// Binds, and starts the threads.
fn listening(config: HttpDoorConfig, parts: RouterParts, readiness: Readiness) -> io::Result<(SocketAddr, Server)> {
    let listener = TcpListener::bind(config.listen)?;
    let address = listener.local_addr()?;
    let server = ServerBuilder::new()
        .workers(config.workers.max(1))
        .max_concurrent_connections(config.max_connections_per_worker)
        .shutdown_timeout(config.grace.as_secs().max(1))
        .disable_signals();
    let ending = server.graceful_shutdown_signal();
    let budget = Budget::new(config.max_buffered_bytes);
    let acceptor = config.tls.clone().map(tls::acceptor);
    // Runs once on each worker's thread.
    let begin = move || begin(&config, &parts, &readiness, &budget, &ending);
    let server = match acceptor {
        None => server.listen(NAME, listener, move || connection::plain(begin())),
        Some(acceptor) => server.listen(NAME, listener, move || connection::secured(begin(), acceptor.clone())),
    };
    Ok((address, server?.run()))
}

/// What a thread serves its connections with, and its router.
fn begin(
    config: &HttpDoorConfig,
    parts: &RouterParts,
    readiness: &Readiness,
    budget: &Budget,
    ending: &GracefulShutdownSignal,
) -> Rc<Serving> {
    let (clock, telemetry) = (parts.clock.clone(), parts.telemetry.clone());
    let router = RouterActor::start_here(parts.clone());
    let service = Service::new(config, router, clock, telemetry, readiness.clone(), budget.clone());
    Rc::new(Serving {
        service: Rc::new(service),
        config: config.clone(),
        ending: ending.clone(),
    })
}

/// A server that runs as a task.
#[derive(Debug, Clone)]
pub(crate) struct RunningServer {
    pub(crate) address: SocketAddr,
    handle: HandleOf,
}

// The handle itself says nothing worth printing.
#[derive(Clone)]
struct HandleOf(ServerHandle);

impl std::fmt::Debug for HandleOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerHandle")
    }
}

impl RunningServer {
    pub(crate) fn start(name: &'static str, server: Server, address: SocketAddr, tasks: &Tasks) -> Self {
        let handle = server.handle();
        let ending = handle.clone();
        tasks.spawn(name, move |mut signal| async move {
            let stop = async {
                signal.ended().await;
                ending.stop(true).await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                ended = server => if let Err(error) = ended {
                    tracing::error!(door = name, %error, "the door broke");
                },
                () = stop => {}
            }
        });
        tracing::info!(door = name, %address, "listening");
        Self {
            address,
            handle: HandleOf(handle),
        }
    }

    pub(crate) async fn stop(&self, grace: Duration) -> bool {
        tokio::time::timeout(grace, self.handle.0.stop(true)).await.is_ok()
    }
}
