//! HTTP/1.1 as every door speaks it: over a socket that is paced, on the connection's own thread, until the door ends.
//!
//! [`http1`] serves connections that somebody else has accepted; [`serve`] is a door that speaks nothing else.

use std::{
    fmt,
    future::{Future, ready},
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    time::Duration,
};

use actix_http::{Extensions, HttpServiceBuilder, KeepAlive, Request, Response, error::DispatchError};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{IntoServiceFactory, Service as _, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::{
    Error,
    body::{BoxBody, MessageBody},
    dev::{AppConfig, ServiceResponse},
};
use mesh_telemetry::Telemetry;
use mesh_tls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    pace::{Bounds, Paced},
    tls,
};

/// How long the end of a connection may take.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves paced connections. `is_cut`: a caller who closes its side has left, and its request with it. `knows` is asked once for each
/// connection, and notes on it what its handlers are to know.
pub fn http1<IO, F, S, B>(
    app: F,
    ending: GracefulShutdownSignal,
    is_cut: bool,
    knows: fn(&IO, &mut Extensions),
) -> impl ServiceFactory<(Paced<IO>, Option<SocketAddr>), Config = (), Response = (), Error = DispatchError, InitError = ()>
+ use<IO, F, S, B>
where
    IO: AsyncRead + AsyncWrite + Unpin + 'static,
    F: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = ()> + 'static,
    S::Error: Into<Response<BoxBody>> + 'static,
    S::InitError: fmt::Debug,
    S::Response: Into<Response<B>> + 'static,
    B: MessageBody + 'static,
{
    HttpServiceBuilder::<Paced<IO>, _>::default()
        // How long it may take is seen to by `Paced`.
        .keep_alive(KeepAlive::Os)
        .client_request_timeout(Duration::ZERO)
        .on_connect_ext(move |socket: &Paced<IO>, data: &mut Extensions| {
            data.insert(socket.pulse());
            knows(socket.paced(), data);
        })
        .client_disconnect_timeout(DISCONNECT_TIMEOUT)
        .h1_allow_half_closed(!is_cut)
        .graceful_shutdown_signal(move || {
            let ending = ending.clone();
            async move { ending.notified().await }
        })
        .h1(app)
}

/// The other end, where it is known; small answers are not held back from here on.
pub fn peer(socket: &TcpStream) -> Option<SocketAddr> {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "a connection holds small answers back");
    }
    socket.peer_addr().ok()
}

/// Notes how a connection ended.
pub fn told(ended: Result<(), DispatchError>) {
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP/1.1 connection broke");
    }
}

/// A door that speaks HTTP/1.1 and nothing else.
#[derive(Debug, Clone)]
pub struct Http1Door {
    /// What it is called in the log.
    pub name: &'static str,
    /// Threads.
    pub workers: usize,
    /// The most connections of each thread.
    pub max_connections: usize,
    /// How long its connections may take.
    pub bounds: Bounds,
    /// The longest that a stop waits for requests under way.
    pub grace: Duration,
    /// How it speaks TLS; absent: it does not.
    pub tls: Option<ServerConfig>,
}

/// Opens such a door. `make` is called once on each thread; its application is to be wrapped in [`keep`](crate::keep). Must be called
/// within an actix system; the answer does nothing until it is polled.
pub fn serve<M, A, S, B>(door: Http1Door, listener: TcpListener, telemetry: Telemetry, make: M) -> io::Result<Server>
where
    M: Fn() -> A + Send + Clone + 'static,
    A: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error, InitError = ()>
        + 'static,
    S::Service: 'static,
    B: MessageBody + 'static,
{
    let server = ServerBuilder::new()
        .workers(door.workers.max(1))
        .max_concurrent_connections(door.max_connections)
        .shutdown_timeout(door.grace.as_secs().max(1))
        .disable_signals();
    let thread = Thread {
        ending: server.graceful_shutdown_signal(),
        bounds: door.bounds,
        telemetry,
    };
    let server = match door.tls {
        None => {
            let at_once = |socket| ready(Some(socket));
            server.listen(door.name, listener, move || {
                thread.clone().connections(make.clone(), at_once)
            })
        }
        Some(tls) => {
            let acceptor = tls::acceptor(tls, &[tls::HTTP1]);
            let shaken = move |socket| {
                let acceptor = acceptor.clone();
                async move { tls::shake_hands(&acceptor, socket).await }
            };
            server.listen(door.name, listener, move || {
                thread.clone().connections(make.clone(), shaken.clone())
            })
        }
    };
    Ok(server?.run())
}

/// What the connections of a thread are served with.
#[derive(Clone)]
struct Thread {
    ending: GracefulShutdownSignal,
    bounds: Bounds,
    telemetry: Telemetry,
}

impl Thread {
    /// Serves what is accepted, once it is ready to be spoken over.
    fn connections<IO, H, R, M, A, S, B>(self, make: M, ready: H) -> impl ServiceFactory<TcpStream, Config = ()>
    where
        IO: AsyncRead + AsyncWrite + Unpin + 'static,
        H: Fn(TcpStream) -> R + Clone + 'static,
        R: Future<Output = Option<IO>> + 'static,
        M: Fn() -> A + 'static,
        A: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig, Response = ServiceResponse<B>, Error = Error, InitError = ()>
            + 'static,
        B: MessageBody + 'static,
    {
        fn_factory(move || {
            let (thread, ready) = (self.clone(), ready.clone());
            // What it says is for addresses that an application makes of its own, and here none are.
            let app = map_config(make(), |()| AppConfig::default());
            let http1 = http1::<IO, _, _, _>(app, thread.ending.clone(), false, |_, _| ());
            async move {
                let http1 = Rc::new(http1.new_service(()).await?);
                Ok::<_, ()>(fn_service::<_, _, TcpStream, _, _, ()>(move |socket: TcpStream| {
                    let (thread, http1, peer) = (thread.clone(), http1.clone(), peer(&socket));
                    let ready = ready(socket);
                    async move {
                        let socket = tokio::select! {
                            socket = ready => socket,
                            () = thread.ending.notified() => None,
                        };
                        if let Some(socket) = socket {
                            let paced = Paced::new(socket, thread.bounds, thread.telemetry.clone());
                            told(http1.call((paced, peer)).await);
                        }
                        Ok::<_, ()>(())
                    }
                }))
            }
        })
    }
}

#[cfg(test)]
#[path = "http1_tests.rs"]
mod tests;
