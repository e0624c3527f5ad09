//! One thread's share of the door: its router, and who answers which call.

use std::{future::Future, pin::Pin, rc::Rc, sync::Arc};

use http::{Method, Request, Response, StatusCode, header::ALLOW};
use hyper::body::Incoming;
use mesh_actors::Readiness;
use mesh_protocol::{
    grpc::{DESCRIPTORS, SERVICE},
    serving,
};
use mesh_router::{Budget, RequestIds, RouterActor, RouterHandle, RouterParts};
use mesh_telemetry::Telemetry;
use mesh_types::{Clock, RequestId};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tonic::{
    Status,
    body::Body,
    codec::{Codec, CompressionEncoding},
    server::Grpc,
};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::{Builder, Error as ReflectionError};
use tower_service::Service as _;

use crate::{
    config::GrpcDoorConfig,
    connection::Calls,
    door::DoorError,
    head,
    health::HealthOf,
    meter::{Meter, Metered},
};

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";

type Answering = Pin<Box<dyn Future<Output = Response<Body>>>>;
type Reflection = Arc<dyn Fn(Request<Incoming>) -> Answering + Send + Sync>;

/// What the service of a thread is made of.
#[derive(Clone)]
pub(crate) struct ServiceParts {
    pub(crate) shared: Shared,
    pub(crate) config: GrpcDoorConfig,
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) parts: RouterParts,
    pub(crate) budget: Budget,
    pub(crate) ending: watch::Sender<bool>,
}

/// What the services of all threads have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    readiness: Readiness,
    reflection: [(&'static str, Reflection); 2],
}

impl Shared {
    pub(crate) fn new(readiness: Readiness) -> Result<Self, DoorError> {
        // Both versions: older clients know only the first.
        let builder = || {
            Builder::configure()
                .register_encoded_file_descriptor_set(DESCRIPTORS)
                .register_encoded_file_descriptor_set(serving::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let broken = |error: ReflectionError| DoorError::Reflection(error.to_string());
        let (current, older) = (
            builder().build_v1().map_err(broken)?,
            builder().build_v1alpha().map_err(broken)?,
        );
        Ok(Self {
            readiness,
            reflection: [
                (
                    "/grpc.reflection.v1.",
                    Arc::new(move |request| {
                        let mut service = current.clone();
                        Box::pin(async move { infallible(service.call(request).await) })
                    }),
                ),
                (
                    "/grpc.reflection.v1alpha.",
                    Arc::new(move |request| {
                        let mut service = older.clone();
                        Box::pin(async move { infallible(service.call(request).await) })
                    }),
                ),
            ],
        })
    }
}

fn infallible<T>(answered: Result<T, std::convert::Infallible>) -> T {
    match answered {
        Ok(answer) => answer,
        Err(never) => match never {},
    }
}

/// What a thread answers with.
pub(crate) struct Service {
    pub(crate) router: RouterHandle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    pub(crate) ids: RequestIds,
    pub(crate) config: GrpcDoorConfig,
    pub(crate) readiness: Readiness,
    /// True once the door is ending.
    pub(crate) ending: watch::Receiver<bool>,
    /// How handshakes are made, if there are any.
    pub(crate) tls: Option<TlsAcceptor>,
    budget: Budget,
    reflection: [(&'static str, Reflection); 2],
}

impl Service {
    pub(crate) fn new(of: ServiceParts) -> Self {
        Self {
            clock: of.parts.clock.clone(),
            telemetry: of.parts.telemetry.clone(),
            router: RouterActor::start_here(of.parts),
            ids: RequestIds::new(),
            tls: of.tls,
            config: of.config,
            readiness: of.shared.readiness,
            ending: of.ending.subscribe(),
            budget: of.budget,
            reflection: of.shared.reflection,
        }
    }

    /// Answers one call; one that is refused for what it names or shows, not before its time.
    pub(crate) async fn answer(self: Rc<Self>, request: Request<Incoming>, calls: &Calls) -> Response<Body> {
        let received = self.clock.now();
        let response = Rc::clone(&self).reply(request, calls).await;
        // A refusal has no message, so its status is among the headers.
        let refused = response.headers().get("grpc-status").map(http::HeaderValue::as_bytes);
        if matches!(refused, Some(b"5" | b"16")) {
            self.router.level(received).await;
        }
        response
    }

    async fn reply(self: Rc<Self>, request: Request<Incoming>, calls: &Calls) -> Response<Body> {
        if request.method() != Method::POST {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED);
            refused
                .headers_mut()
                .insert(ALLOW, http::HeaderValue::from_static("POST"));
            return refused;
        }
        if !head::is_grpc(request.headers()) {
            return plain(StatusCode::UNSUPPORTED_MEDIA_TYPE);
        }
        // The two that are called most, without a copy of the path.
        match request.uri().path() {
            INFER => return self.infer(request).await,
            STREAM => return self.stream(request, calls).await,
            _ => {}
        }
        let path = request.uri().path().to_owned();
        let call = path.strip_prefix('/').and_then(|path| path.strip_prefix(SERVICE));
        match call.and_then(|call| call.strip_prefix('/')) {
            Some(call) => self.question(call, request).await,
            None if path.starts_with("/grpc.health.v1.Health/") => {
                let mut health = HealthServer::new(HealthOf {
                    readiness: self.readiness.clone(),
                    ending: self.ending.clone(),
                });
                let (request, _meter) = self.metered(request);
                infallible(health.call(request).await)
            }
            None => {
                let known = self.reflection.iter().find(|(prefix, _)| path.starts_with(prefix));
                match known {
                    Some((_, reflection)) => reflection(request).await,
                    None if path.starts_with("/tensorflow.serving.") => {
                        self.serving(path.trim_start_matches('/'), request).await
                    }
                    None => Status::unimplemented("there is no such service").into_http(),
                }
            }
        }
    }

    /// A call's reader and writer of messages of inference.
    pub(crate) fn grpc<C: Codec>(&self, codec: C, encoding: Option<CompressionEncoding>) -> Grpc<C> {
        let grpc = Grpc::new(codec)
            .max_decoding_message_size(self.config.max_message_bytes)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Deflate);
        match encoding {
            Some(encoding) => grpc.send_compressed(encoding),
            None => grpc,
        }
    }

    /// Puts a request's one message under a meter.
    pub(crate) fn metered(&self, request: Request<Incoming>) -> (Request<Metered>, Meter) {
        let meter = Meter::new(&self.budget);
        let metered = request.map(|body| meter.over(body, Some(self.config.message_timeout)));
        (metered, meter)
    }

    /// Puts the messages of a stream, which may take as long as they like, under a meter.
    pub(crate) fn metered_stream(&self, request: Request<Incoming>) -> (Request<Metered>, Meter) {
        let meter = Meter::new(&self.budget);
        let metered = request.map(|body| meter.over(body, None));
        (metered, meter)
    }

    /// Returns once the door is ending.
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + use<> {
        ended(self.ending.clone())
    }

    /// Counts a request that never became a call.
    pub(crate) fn refused(&self, reason: &'static str, id: RequestId) {
        self.telemetry.metrics().refused(reason);
        tracing::debug!(request = %id, reason, "request refused");
    }
}

/// Returns once a door is ending.
pub(crate) async fn ended(mut ending: watch::Receiver<bool>) {
    // An error means that the door is gone, which is the end as well.
    let _ = ending.wait_for(|ending| *ending).await;
}

/// What is no gRPC call gets no gRPC answer.
fn plain(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
