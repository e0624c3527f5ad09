//! One thread's share of the inference door: its router, and what each route answers.

use std::{cell::OnceCell, sync::Arc, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        StatusCode,
        header::{ALLOW, AUTHORIZATION, HeaderValue},
    },
    web,
};
use mesh_actors::Readiness;
use mesh_protocol::{
    ModelMetadata, live_body, model_metadata_body, model_ready_body, openapi, ready_body, server_metadata_body,
};
use mesh_router::{Budget, Credential, RequestIds, RouterHandle};
use mesh_telemetry::Telemetry;
use mesh_types::{Clock, Fault, RequestId, VersionSelector};

use crate::{
    body::BodyLimits,
    config::HttpDoorConfig,
    docs, manage,
    path::{Miss, ModelCall, Route, route},
    reply,
};

/// What a thread answers with.
pub(crate) struct Service {
    pub(crate) router: RouterHandle,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) telemetry: Telemetry,
    pub(crate) limits: BodyLimits,
    pub(crate) ids: RequestIds,
    readiness: Readiness,
    server_metadata: bytes::Bytes,
    server: (String, String),
    // Made when it is first asked for.
    document: OnceCell<bytes::Bytes>,
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
        let server_metadata = server_metadata_body(&config.server_name, &config.server_version);
        Self {
            router,
            clock,
            telemetry,
            limits: BodyLimits {
                max_bytes: config.max_body_bytes,
                timeout: config.body_timeout.max(Duration::from_millis(1)),
                budget,
            },
            ids: RequestIds::new(),
            readiness,
            server_metadata: server_metadata.into(),
            server: (config.server_name.clone(), config.server_version.clone()),
            document: OnceCell::new(),
        }
    }

    /// Answers one request.
    pub(crate) async fn answer(&self, request: HttpRequest, payload: web::Payload) -> HttpResponse {
        let id = self.ids.next();
        let mut response = match route(request.method(), request.path()) {
            Ok(Route::Model {
                name,
                version,
                call: ModelCall::Infer,
            }) => self.infer(&request, payload, (name, version), id).await,
            Ok(Route::Index) => self.index(&request, payload, id).await,
            Ok(Route::Change(change)) => self.refuse_change(&request, payload, change, id).await,
            Ok(found) => self.describe(&request, found),
            Err(Miss::NotFound) => reply::refusal(404, "Not Found"),
            Err(Miss::Method(allowed)) => {
                let mut response = reply::refusal(405, "Method Not Allowed");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
                response
            }
        };
        reply::mark(&mut response, id);
        response
    }

    fn describe(&self, request: &HttpRequest, route: Route<'_>) -> HttpResponse {
        match route {
            Route::ServerMetadata => reply::json(StatusCode::OK, self.server_metadata.clone()),
            Route::Live => reply::json(StatusCode::OK, live_body()),
            Route::Ready => {
                let ready = self.readiness.is_ready();
                reply::json(ready_status(ready), ready_body(ready))
            }
            Route::Document => {
                let (name, version) = &self.server;
                let document = self.document.get_or_init(|| openapi::document(name, version).into());
                reply::json(StatusCode::OK, document.clone())
            }
            Route::Page(file) => docs::page(file),
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
            Route::Index | Route::Change(_) => reply::refusal(404, "Not Found"),
        }
    }

    fn describe_model(
        &self,
        request: &HttpRequest,
        name: &str,
        version: Option<&str>,
        call: ModelCall,
    ) -> Result<HttpResponse, Fault> {
        let model = self.router.describe(&credential(request), name, &selector(version)?)?;
        if call == ModelCall::Ready {
            return Ok(reply::json(
                ready_status(model.ready),
                model_ready_body(name, model.ready),
            ));
        }
        if call == ModelCall::Config {
            return Ok(reply::json(StatusCode::OK, manage::config_body(name, &model)));
        }
        if call == ModelCall::Document {
            let document = docs::model_document(&model, version, &self.server.1);
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

    /// Counts a request that never became a call.
    pub(crate) fn refused(&self, reason: &'static str, id: RequestId) {
        self.telemetry.metrics().refused(reason);
        tracing::debug!(request = %id, reason, "request refused");
    }
}

fn ready_status(ready: bool) -> StatusCode {
    if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// The version in a path.
pub(crate) fn selector(version: Option<&str>) -> Result<VersionSelector, Fault> {
    match version {
        None => Ok(VersionSelector::Default),
        Some(text) => VersionSelector::parse(text).map_err(|error| Fault::invalid(error.to_string())),
    }
}

/// The credential of a request. Two of them, or one that is no text, is a malformed one.
pub(crate) fn credential(request: &HttpRequest) -> Credential {
    let mut headers = request.headers().get_all(AUTHORIZATION);
    let first = headers.next().map(|value| value.to_str().unwrap_or_default());
    let only = if headers.next().is_some() { Some("") } else { first };
    Credential::from_header(only)
}

/// Whether the caller sent a credential of any kind.
pub(crate) fn is_presented(request: &HttpRequest) -> bool {
    request.headers().contains_key(AUTHORIZATION)
}
