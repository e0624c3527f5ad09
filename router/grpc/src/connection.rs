//! One connection: HTTP/2, and the calls on it, all driven by one future. Whoever drops it drops its calls.
//!
//! The HTTP library starts a future for each call on an executor that it is given; here that is a list which the connection's
//! own future drives, so that no call outlives its connection and none moves to another thread. What a caller sends that is no work is
//! counted below the library ([`Flood`]); too much of it ends the connection and all its calls.

use std::{
    cell::RefCell,
    convert::Infallible,
    future::{Future, poll_fn},
    net::IpAddr,
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use http::{Request, Response};
use hyper::{body::Incoming, rt::Executor, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use mesh_router::{LocalTenant, PeerCertificate};
use mesh_telemetry::Telemetry;
use mesh_wire::{Counted, Flood};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tonic::body::Body;

use crate::{config::GrpcDoorConfig, service::Service};

/// What a caller may send of one call, and of all of a connection, before it is read.
const CALL_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;
/// How long a client without calls may take to close its side once it was told that the connection ends.
const FAREWELL: Duration = Duration::from_secs(1);
/// The largest metadata of a call.
const MAX_METADATA_BYTES: u32 = 16 * 1024;

type Call = Pin<Box<dyn Future<Output = ()>>>;

/// What is known of the other end of a connection.
pub(crate) struct Caller {
    /// Whose calls are without a credential, where it is on this machine.
    pub(crate) local: Option<LocalTenant>,
    /// What it has shown in the handshake.
    pub(crate) certificate: Option<Arc<PeerCertificate>>,
    /// Where it is.
    pub(crate) address: Option<IpAddr>,
}

impl Caller {
    /// Notes it on a call.
    fn mark<B>(&self, request: &mut Request<B>) {
        if let Some(address) = self.address {
            request.extensions_mut().insert(address);
        }
        if let Some(local) = &self.local {
            request.extensions_mut().insert(local.clone());
        }
        if let Some(certificate) = &self.certificate {
            request.extensions_mut().insert(certificate.clone());
        }
    }
}

/// The calls of a connection that were begun and not yet taken up.
#[derive(Clone, Default)]
pub(crate) struct Calls(Rc<RefCell<Vec<Call>>>);

impl Calls {
    /// Has the connection drive it. A panic ends this one only.
    pub(crate) fn begin(&self, call: impl Future<Output = ()> + 'static) {
        let guarded = AssertUnwindSafe(call).catch_unwind().map(|ended| {
            if ended.is_err() {
                tracing::error!("a gRPC call panicked");
            }
        });
        self.0.borrow_mut().push(Box::pin(guarded));
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Calls {
    fn execute(&self, call: F) {
        self.begin(call);
    }
}

fn protocol(calls: Calls, config: &GrpcDoorConfig) -> http2::Builder<Calls> {
    let mut protocol = http2::Builder::new(calls);
    protocol
        .timer(TokioTimer::new())
        .initial_stream_window_size(CALL_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(config.max_calls_per_connection)
        .max_header_list_size(MAX_METADATA_BYTES)
        .keep_alive_interval(config.ping_interval)
        .keep_alive_timeout(config.ping_timeout);
    protocol
}

/// Ends all calls of a connection that has sent too much which is no work, and so gives back what they hold; until when it is waited for.
fn break_off(running: &mut FuturesUnordered<Call>, telemetry: &Telemetry) -> Instant {
    telemetry.metrics().refused("http2_flood");
    running.clear();
    Instant::now() + FAREWELL
}

async fn answered(
    service: Rc<Service>,
    request: Request<Incoming>,
    calls: Calls,
) -> Result<Response<Body>, Infallible> {
    Ok(service.answer(request, &calls).await)
}

/// Serves a connection until either side ends it; when the door is ending, or no call has come for long, what is under way is
/// finished and nothing new taken.
pub(crate) async fn serve(socket: impl AsyncRead + AsyncWrite + Unpin + 'static, caller: Caller, service: Rc<Service>) {
    let (config, telemetry) = (service.config.clone(), service.telemetry.clone());
    let (calls, flood) = (Calls::default(), Flood::new(Instant::now()));
    let (mut told, of_all) = (pin!(service.ended()), calls.clone());
    let answer = service_fn(move |mut request: Request<Incoming>| {
        caller.mark(&mut request);
        answered(service.clone(), request, of_all.clone())
    });
    let socket = TokioIo::new(Counted::new(socket, flood.clone()));
    let mut connection = pin!(protocol(calls.clone(), &config).serve_connection(socket, answer));
    let mut running = FuturesUnordered::new();
    // How long the connection may go on without a call.
    let mut patience = pin!(tokio::time::sleep(config.first_call_timeout));
    let (mut busy, mut leaving, mut broken) = (false, false, false);
    let drive = |context: &mut Context<'_>| {
        if !leaving && told.as_mut().poll(context).is_ready() {
            leaving = true;
            connection.as_mut().graceful_shutdown();
            patience.as_mut().reset(Instant::now() + FAREWELL);
        }
        loop {
            // Answers first, so that the connection sends them in the same turn.
            while let Poll::Ready(Some(())) = running.poll_next_unpin(context) {}
            let ended = connection.as_mut().poll(context);
            if flood.is_over() && !std::mem::replace(&mut broken, true) {
                patience.as_mut().reset(break_off(&mut running, &telemetry));
            }
            if ended.is_ready() {
                return ended;
            }
            if broken {
                calls.0.borrow_mut().clear();
                // Who does not take the farewell is not waited for.
                return patience.as_mut().poll(context).map(Ok);
            }
            let begun = std::mem::take(&mut *calls.0.borrow_mut());
            if begun.is_empty() {
                break;
            }
            // Also one that is answered in this very turn.
            busy = true;
            running.extend(begun);
        }
        if !running.is_empty() {
            return Poll::Pending;
        }
        if std::mem::take(&mut busy) {
            let wait = if leaving { FAREWELL } else { config.idle_timeout };
            patience.as_mut().reset(Instant::now() + wait);
        }
        std::task::ready!(patience.as_mut().poll(context));
        if leaving {
            // Who has no calls here and does not answer the farewell is not waited for.
            return Poll::Ready(Ok(()));
        }
        leaving = true;
        connection.as_mut().graceful_shutdown();
        patience.as_mut().reset(Instant::now() + FAREWELL);
        context.waker().wake_by_ref();
        Poll::Pending
    };
    if let Err(error) = poll_fn(drive).await {
        tracing::debug!(%error, "a gRPC connection broke");
    }
}
