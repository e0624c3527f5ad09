//! The operators' door: metrics for Prometheus and health for probes, on a port of its own and without credentials.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    http::{
        Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE, HeaderValue},
    },
    web,
};
use mesh_actors::{Readiness, Tasks};
use mesh_protocol::{live_body, ready_body};
use mesh_telemetry::Telemetry;
use mesh_tls::{HANDSHAKE_TIMEOUT, ServerConfig};

use crate::{
    door::{DoorError, RunningServer},
    reply,
};

/// The text format that the metrics are written in.
const OPENMETRICS: HeaderValue = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
/// Scrapers and probes are few.
const MAX_CONNECTIONS: usize = 256;
/// The longest that a stop waits for a scrape.
const STOP_SECONDS: u64 = 1;

/// The open operators' door.
#[derive(Debug, Clone)]
pub struct MetricsDoor {
    server: RunningServer,
}

impl MetricsDoor {
    /// Opens the door, which speaks TLS where it is told how. Must be called within an actix system.
    pub fn start(
        listen: SocketAddr,
        tls: Option<ServerConfig>,
        telemetry: Telemetry,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<Self, DoorError> {
        let make = move || {
            let shared = Rc::new((telemetry.clone(), readiness.clone()));
            let answer = move |request: HttpRequest| {
                let shared = shared.clone();
                async move { answer(&request, &shared.0, &shared.1) }
            };
            App::new().default_service(web::to(answer))
        };
        let server = HttpServer::new(make)
            .workers(1)
            .max_connections(MAX_CONNECTIONS)
            .shutdown_timeout(STOP_SECONDS)
            .tls_handshake_timeout(HANDSHAKE_TIMEOUT)
            .disable_signals();
        let server = match tls {
            Some(tls) => server.bind_rustls_0_23(listen, tls),
            None => server.bind(listen),
        };
        let server = server.map_err(|source| DoorError::Bind {
            address: listen,
            source,
        })?;
        let address = server.addrs().first().copied().unwrap_or(listen);
        let server = RunningServer::start("metrics door", server.run(), address, tasks);
        Ok(Self { server })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.server.address
    }

    /// Stops; false if a scrape was still there after `grace`.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.server.stop(grace).await
    }
}

fn answer(request: &HttpRequest, telemetry: &Telemetry, readiness: &Readiness) -> HttpResponse {
    let path = request.path();
    if !matches!(path, "/metrics" | "/health/live" | "/health/ready") {
        return reply::refusal(404, "Not Found");
    }
    if request.method() != Method::GET {
        let mut response = reply::refusal(405, "Method Not Allowed");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    match path {
        "/metrics" => scrape(telemetry),
        "/health/live" => reply::json(StatusCode::OK, live_body()),
        _ => {
            let ready = readiness.is_ready();
            let status = if ready {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            reply::json(status, ready_body(ready))
        }
    }
}

fn scrape(telemetry: &Telemetry) -> HttpResponse {
    let Ok(text) = telemetry.metrics().encode_prometheus() else {
        return reply::refusal(500, "the metrics could not be written");
    };
    let mut response = reply::json(StatusCode::OK, text);
    response.headers_mut().insert(CONTENT_TYPE, OPENMETRICS);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::{body::to_bytes, test::TestRequest};

    fn ask(method: Method, path: &str, readiness: &Readiness) -> HttpResponse {
        let request = TestRequest::with_uri(path).method(method).to_http_request();
        answer(&request, &Telemetry::local(), readiness)
    }

    #[actix_web::test]
    async fn metrics_are_openmetrics_text() {
        let response = ask(Method::GET, "/metrics", &Readiness::default());
        assert_eq!(response.headers().get(CONTENT_TYPE), Some(&OPENMETRICS));
        let text = to_bytes(response.into_body()).await.unwrap();
        assert!(text.ends_with(b"# EOF\n"));
    }

    #[actix_web::test]
    async fn probes_are_told_whether_everything_is_up() {
        let readiness = Readiness::default();
        let guard = readiness.register("models");
        assert_eq!(ask(Method::GET, "/health/live", &readiness).status(), 200);
        assert_eq!(ask(Method::GET, "/health/ready", &readiness).status(), 503);
        drop(guard);
        assert_eq!(ask(Method::GET, "/health/ready", &readiness).status(), 200);
        assert_eq!(ask(Method::GET, "/else", &readiness).status(), 404);
        assert_eq!(ask(Method::POST, "/metrics", &readiness).status(), 405);
    }
}
