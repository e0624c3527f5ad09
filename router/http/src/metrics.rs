//! The operators' door: metrics for Prometheus and health for probes, on a port of its own and without credentials.

use std::{
    net::{SocketAddr, TcpListener},
    rc::Rc,
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE, HeaderValue},
    },
    middleware::from_fn,
    web,
};
use mesh_actors::{Readiness, Tasks};
use mesh_protocol::{live_body, ready_body};
use mesh_telemetry::Telemetry;
use mesh_tls::ServerConfig;
use mesh_wire::{Bounds, Http1Door, keep, serve};

use crate::{
    door::{DoorError, RunningServer},
    reply,
};

/// The text format that the metrics are written in.
const OPENMETRICS: HeaderValue = HeaderValue::from_static(mesh_telemetry::OPENMETRICS);
const NAME: &str = "metrics door";
/// Scrapers and probes are few.
const MAX_CONNECTIONS: usize = 256;
/// The longest that a stop waits for a scrape.
const GRACE: Duration = Duration::from_secs(1);
/// How long a caller may take for the head of a request, and how long a connection is kept that nobody uses.
const BOUNDS: Bounds = Bounds {
    head: Duration::from_secs(5),
    still: Duration::from_secs(60),
};

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
        let of_all = telemetry.clone();
        let make = move || {
            let shared = Rc::new((of_all.clone(), readiness.clone()));
            let answer = move |request: HttpRequest| {
                let shared = shared.clone();
                async move { answer(&request, &shared.0, &shared.1) }
            };
            App::new().wrap(from_fn(keep)).default_service(web::to(answer))
        };
        let door = Http1Door {
            name: NAME,
            workers: 1,
            max_connections: MAX_CONNECTIONS,
            bounds: BOUNDS,
            grace: GRACE,
            tls,
        };
        let taken = |source| DoorError::Bind {
            address: listen,
            source,
        };
        let listener = TcpListener::bind(listen).map_err(taken)?;
        let address = listener.local_addr().map_err(taken)?;
        let server = serve(door, listener, telemetry, make).map_err(taken)?;
        let server = RunningServer::start(NAME, server, address, tasks);
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
