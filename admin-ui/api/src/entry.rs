//! One route: where it is, who answers it, and what the OpenAPI document says of it.

use actix_web::{Route, http::StatusCode};
use mesh_policies::authorization::{Action, ObjectKind};
use utoipa::openapi::HttpMethod;

use crate::{authz::Needs, bodies::Pace};

/// What the document says of a route's body or answer.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    /// None.
    None,
    /// JSON of this schema.
    Json(&'static str),
    /// Bytes.
    Bytes,
    /// Metrics, as text for Prometheus.
    Metrics,
    /// A stream of events whose data have this schema.
    Events(&'static str),
}

/// One route.
pub(crate) struct Entry {
    pub(crate) method: HttpMethod,
    /// The path below [`crate::routes::ROOT`].
    pub(crate) path: String,
    /// The operation's name in generated clients.
    pub(crate) id: String,
    pub(crate) tag: &'static str,
    pub(crate) summary: String,
    pub(crate) query: &'static [&'static str],
    pub(crate) headers: &'static [&'static str],
    pub(crate) body: Body,
    pub(crate) status: StatusCode,
    pub(crate) answer: Body,
    pub(crate) route: Route,
    /// Which right it takes.
    pub(crate) needs: Needs,
    /// How long its body may take.
    pub(crate) pace: Pace,
}

impl Entry {
    fn new(method: HttpMethod, path: &str, id: &str, summary: &str, route: Route) -> Self {
        Self {
            method,
            path: path.to_owned(),
            id: id.to_owned(),
            tag: "resources",
            summary: summary.to_owned(),
            query: &[],
            headers: &[],
            body: Body::None,
            status: StatusCode::OK,
            answer: Body::None,
            route,
            needs: Needs::Undeclared,
            pace: Pace::WHOLE,
        }
    }

    pub(crate) fn get(path: &str, id: &str, summary: &str, route: Route) -> Self {
        Self::new(HttpMethod::Get, path, id, summary, route)
    }

    pub(crate) fn post(path: &str, id: &str, summary: &str, route: Route) -> Self {
        Self::new(HttpMethod::Post, path, id, summary, route)
    }

    pub(crate) fn put(path: &str, id: &str, summary: &str, route: Route) -> Self {
        Self::new(HttpMethod::Put, path, id, summary, route)
    }

    pub(crate) fn delete(path: &str, id: &str, summary: &str, route: Route) -> Self {
        Self::new(HttpMethod::Delete, path, id, summary, route).status(StatusCode::NO_CONTENT)
    }

    /// It takes this right to what its path names.
    pub(crate) fn takes_right(self, action: Action, kind: ObjectKind) -> Self {
        self.needs(Needs::Path(action, kind))
    }

    pub(crate) fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    pub(crate) fn pace(self, pace: Pace) -> Self {
        Self { pace, ..self }
    }

    pub(crate) fn tag(self, tag: &'static str) -> Self {
        Self { tag, ..self }
    }

    pub(crate) fn query(self, query: &'static [&'static str]) -> Self {
        Self { query, ..self }
    }

    pub(crate) fn headers(self, headers: &'static [&'static str]) -> Self {
        Self { headers, ..self }
    }

    pub(crate) fn body(self, body: Body) -> Self {
        Self { body, ..self }
    }

    pub(crate) fn takes(self, schema: &'static str) -> Self {
        self.body(Body::Json(schema))
    }

    pub(crate) fn answer(self, answer: Body) -> Self {
        Self { answer, ..self }
    }

    pub(crate) fn answers(self, schema: &'static str) -> Self {
        self.answer(Body::Json(schema))
    }

    pub(crate) fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// What it answers with is new.
    pub(crate) fn makes(self, schema: &'static str) -> Self {
        self.status(StatusCode::CREATED).answers(schema)
    }
}
