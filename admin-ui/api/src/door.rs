//! The admin listener: the API, the web app, and the headers that every answer carries.

use std::{
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use actix_web::{
    App, Error, HttpMessage as _, HttpRequest,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServerHandle, ServiceRequest, ServiceResponse},
    http::header::{self, HeaderName, HeaderValue},
    middleware::{Compress, Next, from_fn},
    web,
};
use mesh_actors::Tasks;
use mesh_tls::ServerConfig;
use mesh_types::RequestId;
use mesh_wire::{Bounds, Http1Door, keep, serve};

use crate::{AdminParts, AdminState, Assets, configure, error::Details, static_files};

/// Connections at once; the door is for people and their tools, not for traffic.
const MAX_CONNECTIONS: usize = 512;
const WORKERS: usize = 2;
const NAME: &str = "admin door";
/// How long a client may take for the head of a request, and how long a connection is kept that nobody uses.
const BOUNDS: Bounds = Bounds {
    head: Duration::from_secs(5),
    still: Duration::from_secs(60),
};
/// How long a stop waits for what is being answered, if nobody says otherwise.
const GRACE: Duration = Duration::from_secs(30);
/// Scripts only from our own files. Styles may be inline, because the app's widgets place themselves by style attributes.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
object-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'";
/// Browsers that have come by TLS do so for half a year. Only this name: others of its domain are not ours to bind.
const STRICT_TRANSPORT_SECURITY: &str = "max-age=15768000";

/// Where the admin door listens, and how.
#[derive(Debug, Clone)]
pub struct AdminDoorConfig {
    /// The address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// How it speaks TLS; absent: it does not.
    pub tls: Option<ServerConfig>,
}

/// The door that a request came to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Here {
    /// Whether it speaks TLS.
    pub(crate) secure: bool,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Here {
    /// As the application of the request was told; without a door, as actix has it.
    pub(crate) fn of(request: &HttpRequest) -> Self {
        let config = request.app_config();
        request.app_data::<Self>().copied().unwrap_or_else(|| Self {
            secure: config.secure(),
            address: config.local_addr(),
        })
    }
}

/// A listening admin door.
#[derive(Debug)]
pub struct AdminDoor {
    addr: SocketAddr,
    server: ServerHandle,
    streams: Tasks,
}

impl AdminDoor {
    /// Binds and serves. The server itself runs as one of `tasks`.
    pub fn start(
        config: AdminDoorConfig,
        parts: AdminParts,
        assets: Arc<dyn Assets>,
        tasks: &Tasks,
    ) -> std::io::Result<Self> {
        // Streams of events end when this door stops, before the other tasks do: a server waits for its connections.
        let streams = Tasks::new();
        let listener = TcpListener::bind(config.listen)?;
        let here = Here {
            secure: config.tls.is_some(),
            address: listener.local_addr()?,
        };
        let telemetry = parts.telemetry.clone();
        let state = web::Data::new(AdminState::start(parts, &streams));
        let assets = web::Data::new(assets);
        let app = move || {
            App::new()
                .app_data(state.clone())
                .app_data(assets.clone())
                .app_data(here)
                .wrap(from_fn(frame))
                .wrap(from_fn(keep))
                .configure(configure)
                .service(
                    web::scope("")
                        .wrap(Compress::default())
                        .default_service(web::to(static_files::serve)),
                )
        };
        let door = Http1Door {
            name: NAME,
            workers: WORKERS,
            max_connections: MAX_CONNECTIONS,
            bounds: BOUNDS,
            grace: GRACE,
            tls: config.tls,
        };
        let server = serve(door, listener, telemetry, app)?;
        let handle = server.handle();
        tasks.spawn(NAME, |_| async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "the admin door ended");
            }
        });
        Ok(Self {
            addr: here.address,
            server: handle,
            streams,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops accepting, ends the streams of events, and waits at most `grace` for what is being answered.
    pub async fn stop(&self, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        self.streams.end(grace).await;
        if tokio::time::timeout_at(deadline, self.server.stop(true)).await.is_err() {
            self.server.stop(false).await;
        }
    }
}

/// Numbers the request, and puts the headers on its answer.
async fn frame(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let id = RequestId(rand::random());
    request.extensions_mut().insert(id);
    let secure = Here::of(request.request()).secure;
    let mut response = next.call(request).await?;
    let problem = response.response_mut().extensions_mut().remove::<Details>();
    let problem = problem.and_then(|details| details.body(response.request().headers(), &id.to_string()));
    let is_problem = problem.is_some();
    let mut response = response.map_body(|_, body| match problem {
        Some(problem) => EitherBody::right(BoxBody::new(problem)),
        None => EitherBody::left(body),
    });
    let headers = response.headers_mut();
    if is_problem {
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(mesh_protocol::PROBLEM_JSON),
        );
    }
    let mut set = |name: HeaderName, value: &'static str| headers.insert(name, HeaderValue::from_static(value));
    set(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::X_FRAME_OPTIONS, "DENY");
    set(header::REFERRER_POLICY, "no-referrer");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    if secure {
        set(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT_SECURITY);
    }
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
    Ok(response)
}
