//! One thread's share of the inference door: its router, and what each route answers.

use std::{cell::OnceCell, sync::Arc, time::Duration};

use actix_web::{
    HttpMessage as _, HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{ALLOW, AUTHORIZATION, HeaderValue},
    },
    web,
};
use bytes::Bytes;
use mesh_actors::Readiness;
use mesh_protocol::{
    HeaderPattern, ModelMetadata, Offers, extensions, live_body, model_metadata_body, model_ready_body, openapi,
    ready_body, server_metadata_body,
};
use mesh_router::{Budget, Credential, LocalTenant, ModelControl, PeerCertificate, RequestIds, RouterHandle};
use mesh_telemetry::Telemetry;
use mesh_types::{Clock, Fault, FaultClass, RequestId, VersionSelector};

use crate::{
    body::{BodyLimits, BoundOf},
    config::HttpDoorConfig,
    cors::CorsOrigins,
    docs,
    extension::Extension,
    generate::Manner,
    manage,
    path::{Miss, ModelCall, Route, route},
    reply, v1,
};

/// What a thread answers with.
pub(crate) struct Service {
    pub(crate) router: RouterHandle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    pub(crate) limits: BodyLimits,
    pub(crate) ids: RequestIds,
    pub(crate) forward: Option<HeaderPattern>,
    cors: Option<CorsOrigins>,
    pub(crate) control: Option<Arc<dyn ModelControl>>,
    readiness: Readiness,
    as_triton: bool,
    server_metadata: Bytes,
    server: (String, String),
    // Made when it is first asked for.
    document: OnceCell<Bytes>,
}

impl Service {
    pub(crate) fn new(
        config: &HttpDoorConfig,
        router: RouterHandle,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        readiness: Readiness,
        budget: Budget,
    ) -> Self {
        let extensions = extensions(Offers {
            regions: router.offers_regions(),
            control: config.control.is_some(),
        });
        let server_metadata = server_metadata_body(&config.server_name, &config.server_version, &extensions);
        Self {
            router,
            clock,
            telemetry,
            limits: BodyLimits {
                max_bytes: config.max_body_bytes,
                of: BoundOf::Server,
                timeout: config.body_timeout.max(Duration::from_millis(1)),
                budget,
            },
            ids: RequestIds::new(),
            forward: config.forward.clone(),
            cors: config.cors.clone(),
            control: config.control.clone(),
            readiness,
            as_triton: config.as_triton,
            server_metadata: server_metadata.into(),
            server: (config.server_name.clone(), config.server_version.clone()),
            document: OnceCell::new(),
        }
    }

    /// Answers one request; one that is refused for what it names or shows, not before its time.
    pub(crate) async fn answer(&self, request: HttpRequest, payload: web::Payload) -> HttpResponse {
        let (id, received) = (self.ids.next(), self.clock.now());
        if let Some(mut response) = self.cors.as_ref().and_then(|cors| cors.preflight(&request)) {
            reply::mark(&mut response, id);
            return response;
        }
        let mut response = if v1::is_v1(request.path()) {
            self.await_keys(&request).await;
            self.answer_v1(&request, payload, id).await
        } else {
            self.answer_v2(&request, payload, id).await
        };
        reply::as_problem(&mut response, &request, id);
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) {
            self.router.level(received).await;
        }
        reply::mark(&mut response, id);
        if let Some(cors) = &self.cors {
            cors.tell(&request, &mut response);
        }
        response
    }

    /// Lets the keys of a token's issuer come before anything is asked with it, where they may be missing.
    async fn await_keys(&self, request: &HttpRequest) {
        if is_presented(request) {
            self.router.await_keys(&credential(request)).await;
        }
    }

    async fn answer_v2(&self, request: &HttpRequest, payload: web::Payload, id: RequestId) -> HttpResponse {
        let found = route(request.method(), request.path());
        let infers = |call: &ModelCall| *call == ModelCall::Infer;
        // The pipeline waits by itself, within the call's own deadline.
        if !matches!(&found, Ok(Route::Model { call, .. }) if infers(call)) {
            self.await_keys(request).await;
        }
        match found {
            Ok(Route::Model {
                name,
                version,
                call: ModelCall::Infer,
            }) => self.infer(request, payload, (name, version), id).await,
            Ok(Route::Model {
                name,
                version,
                call: call @ (ModelCall::Generate | ModelCall::GenerateStream),
            }) => {
                let manner = Manner::of(call == ModelCall::GenerateStream);
                self.generate(request, payload, (name, version), manner, id).await
            }
            Ok(Route::Index { repository }) => self.index(request, payload, repository, id).await,
            Ok(Route::Change {
                repository,
                name,
                change,
            }) => self.change(request, payload, (repository, name, change), id).await,
            Ok(Route::Extension(Extension::Memory { kind, region, call })) => {
                self.memory(request, payload, (kind, region, call), id).await
            }
            Ok(Route::Extension(Extension::Settings(of))) => self.settings(request, payload, of, id).await,
            Ok(found) => self.describe(request, found),
            Err(Miss::NotFound) => reply::refusal(404, "Not Found"),
            Err(Miss::Method(allowed)) => {
                let mut response = reply::refusal(405, "Method Not Allowed");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                response
            }
        }
    }

    fn describe(&self, request: &HttpRequest, route: Route<'_>) -> HttpResponse {
        match route {
            Route::ServerMetadata => reply::json(StatusCode::OK, self.server_metadata.clone()),
            Route::Live => self.health(true, || live_body().into()),
            Route::Ready => {
                let ready = self.readiness.is_ready();
                self.health(ready, || ready_body(ready).into())
            }
            Route::Document => {
                let document = self.document.get_or_init(|| openapi::document(self.server()).into());
                reply::json(StatusCode::OK, document.clone())
            }
            Route::Page(file) => docs::page(file),
            Route::Alive => reply::json(StatusCode::OK, &br#"{"status":"alive"}"#[..]),
            Route::Names => self.names(request),
            Route::Statistics => self.statistics(request, None, None),
            Route::Model {
                name,
                version,
                call: ModelCall::Statistics,
            } => self.statistics(request, Some(name), version),
            Route::Model { name, version, call } => {
                let described = self.describe_model(request, name, version, call);
                described.unwrap_or_else(|fault| reply::fault(&fault, is_presented(request)))
            }
            // Posted: answered where there is a body.
            Route::Index { .. } | Route::Change { .. } | Route::Extension(_) => reply::refusal(404, "Not Found"),
        }
    }

    fn describe_model(
        &self,
        request: &HttpRequest,
        name: &str,
        version: Option<&str>,
        call: ModelCall,
    ) -> Result<HttpResponse, Fault> {
        let model = self.router.describe(&credential(request), name, &selector(version)?);
        if call == ModelCall::Ready {
            let ready = match model {
                Ok(model) => model.ready,
                // To Triton's server a model that it does not have is one that is not ready.
                Err(fault) if self.as_triton && fault.class == FaultClass::NotFound => false,
                Err(fault) => return Err(fault),
            };
            return Ok(self.health(ready, || model_ready_body(name, ready).into()));
        }
        let model = model?;
        if call == ModelCall::Config {
            return Ok(reply::json(StatusCode::OK, manage::config_body(name, &model)));
        }
        if call == ModelCall::Document {
            let document = docs::model_document(&model, version, self.server());
            return Ok(reply::json(StatusCode::OK, document));
        }
        let body = model_metadata_body(ModelMetadata {
            name,
            versions: &model.versions,
            platform: model.platform,
            config: &model.config,
        });
        Ok(reply::json(StatusCode::OK, body))
    }

    fn server(&self) -> openapi::Server<'_> {
        let (name, version) = &self.server;
        openapi::Server {
            name,
            version,
            as_triton: self.as_triton,
        }
    }

    /// Whether something lives or is ready: Triton's server says it by the status alone, and calls what is not a bad request.
    fn health(&self, well: bool, body: impl FnOnce() -> Bytes) -> HttpResponse {
        match (well, self.as_triton) {
            (true, true) => HttpResponse::new(StatusCode::OK),
            (false, true) => HttpResponse::new(StatusCode::BAD_REQUEST),
            (true, false) => reply::json(StatusCode::OK, body()),
            (false, false) => reply::json(StatusCode::SERVICE_UNAVAILABLE, body()),
        }
    }

    /// Counts a request that never became a call.
    pub(crate) fn refused(&self, reason: &'static str, id: RequestId) {
        self.telemetry.metrics().refused(reason);
        tracing::debug!(request = %id, reason, "request refused");
    }
}

/// The version in a path.
pub(crate) fn selector(version: Option<&str>) -> Result<VersionSelector, Fault> {
    match version {
        None => Ok(VersionSelector::Default),
        Some(text) => VersionSelector::parse(text).map_err(|error| Fault::invalid(error.to_string())),
    }
}

/// The credential of a request with the certificate of its connection, or what a caller on this machine has instead. Two
/// credentials, or one that is no text, is a malformed one.
pub(crate) fn credential(request: &HttpRequest) -> Credential {
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let first = headers
        .next()
        .map(|value| value.to_str().unwrap_or(Credential::UNREADABLE));
    let certificate = certificate(request);
    if let (None, None, Some(local)) = (first, &certificate, local(request)) {
        return local.credential(|name| request.headers().contains_key(name));
    }
    let only = if headers.next().is_some() {
        Some(Credential::UNREADABLE)
    } else {
        first
    };
    let address = request.peer_addr().map(|peer| peer.ip());
    Credential::from_header(only).over(certificate).from_address(address)
}

/// What the client of the request's connection has shown in the handshake: noted on the connection over HTTP/1.1, and on each of
/// its requests over HTTP/2.
fn certificate(request: &HttpRequest) -> Option<Arc<PeerCertificate>> {
    let of_connection = request.conn_data::<Arc<PeerCertificate>>().cloned();
    of_connection.or_else(|| request.extensions().get::<Arc<PeerCertificate>>().cloned())
}

/// Whom a caller is that shows no credential: by the connection's other end alone.
fn local(request: &HttpRequest) -> Option<&LocalTenant> {
    let local = request.app_data::<Option<LocalTenant>>()?.as_ref()?;
    let here = request.peer_addr().is_some_and(|peer| LocalTenant::is_here(peer.ip()));
    here.then_some(local)
}

/// Whether the caller sent a bearer credential, right or wrong. One of another scheme is as none: its sender does not know what
/// is wanted here (RFC 6750, section 3.1).
pub(crate) fn is_presented(request: &HttpRequest) -> bool {
    request.headers().get_all(AUTHORIZATION).any(|value| {
        let scheme = value.as_bytes().get(..6);
        scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"bearer"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;
    use mesh_types::TenantId;

    fn shown(peer: &str, local: bool, header: Option<(&'static str, &'static str)>) -> String {
        let local = local.then(|| LocalTenant::new(TenantId::parse("acme").unwrap()));
        let mut request = TestRequest::get().app_data(local).peer_addr(peer.parse().unwrap());
        if let Some(header) = header {
            request = request.insert_header(header);
        }
        format!("{:?}", credential(&request.to_http_request()))
    }

    #[test]
    fn only_the_connections_other_end_makes_a_caller_local() {
        assert_eq!(shown("127.0.0.1:9", true, None), "Credential(local)");
        assert_eq!(shown("[::1]:9", true, None), "Credential(local)");
        assert_eq!(shown("127.0.0.1:9", false, None), "Credential(none)");
        assert_eq!(shown("10.0.0.1:9", true, None), "Credential(none)");
        let claims = |header| shown("10.0.0.1:9", true, Some((header, "127.0.0.1")));
        assert_eq!(claims("x-forwarded-for"), "Credential(none)");
        assert_eq!(claims("x-real-ip"), "Credential(none)");
        assert_eq!(
            shown("127.0.0.1:9", true, Some(("x-forwarded-for", "127.0.0.1"))),
            "Credential(none)"
        );
        assert_eq!(
            shown("127.0.0.1:9", true, Some(("authorization", "Bearer x"))),
            "Credential(..)"
        );
        assert_eq!(
            shown("127.0.0.1:9", true, Some(("authorization", ""))),
            "Credential(..)"
        );
    }
}
