//! The sockets: binds, starts a thread per worker with a router of its own, reports the bound address, stops gracefully.

use std::{any::Any, io, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{
    App, HttpRequest, HttpServer,
    dev::{Extensions, Server, ServerHandle},
    rt::net::TcpStream,
    web,
};
use mesh_actors::{Readiness, Tasks};
use mesh_router::{Budget, RouterActor, RouterParts};
use mesh_tls::{HANDSHAKE_TIMEOUT, peer_of};

use crate::{config::HttpDoorConfig, service::Service};

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
        let settings = config.clone();
        let budget = Budget::new(config.max_buffered_bytes);
        // Runs once on each worker's thread.
        let make = move || {
            let (clock, telemetry) = (parts.clock.clone(), parts.telemetry.clone());
            let router = RouterActor::start_here(parts.clone());
            let service = Rc::new(Service::new(
                &config,
                router,
                clock,
                telemetry,
                readiness.clone(),
                budget.clone(),
            ));
            let answer = move |request: HttpRequest, payload: web::Payload| {
                let service = service.clone();
                async move { service.answer(request, payload).await }
            };
            // `credential` looks it up, which is called with a request and nothing else.
            App::new()
                .app_data(config.local_tenant.clone())
                .default_service(web::to(answer))
        };
        let server = HttpServer::new(make)
            .workers(settings.workers.max(1))
            .max_connections(settings.max_connections_per_worker)
            .keep_alive(settings.keep_alive)
            .client_request_timeout(settings.head_timeout)
            .tcp_nodelay(true)
            // A caller that leaves must not keep a place: its call is dropped with the connection.
            .h1_allow_half_closed(false)
            .shutdown_timeout(settings.grace.as_secs().max(1))
            // Slow handshakes have as many places as connections have, so that they do not keep others waiting.
            .max_connection_rate(settings.max_connections_per_worker)
            .tls_handshake_timeout(HANDSHAKE_TIMEOUT)
            .on_connect(note_certificate)
            .disable_signals();
        let server = match settings.tls {
            Some(tls) => server.bind_rustls_0_23(settings.listen, tls),
            None => server.bind(settings.listen),
        };
        let server = server.map_err(|source| DoorError::Bind {
            address: settings.listen,
            source,
        })?;
        let address = server.addrs().first().copied().unwrap_or(settings.listen);
        let server = RunningServer::start("inference door", server.run(), address, tasks);
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

/// Notes on a connection what its client's certificate says, for all its requests.
fn note_certificate(connection: &dyn Any, data: &mut Extensions) {
    let Some(secured) = connection.downcast_ref::<TlsStream<TcpStream>>() else {
        return;
    };
    if let Some(certificate) = peer_of(secured.get_ref().1) {
        data.insert(Arc::new(certificate));
    }
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
