//! What the API answers when it does not do what was asked: one shape, `{"error", "problems"}`, with the right status; problem
//! details (RFC 9457) for callers who ask for them.

use std::{borrow::Cow, fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{
        StatusCode,
        header::{ACCEPT, HeaderMap},
    },
};
use mesh_policies::authorization::{Action, Object};
use mesh_registry::{ArtifactError, RegistryError};
use mesh_resources::{Problem, ResourceError};
use mesh_types::Fault;
use serde::Serialize;
use utoipa::ToSchema;

/// An error as it is sent.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct ErrorBody {
    /// What was wrong and what to do.
    error: String,
    /// Each problem with its field.
    problems: Vec<Problem>,
}

/// A refusal on its way to the caller.
#[derive(Debug, Clone)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: Cow<'static, str>,
    problems: Vec<Problem>,
    retry_after: Option<Duration>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
            problems: Vec::new(),
            retry_after: None,
        }
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn problems(problems: Vec<Problem>) -> Self {
        Self {
            problems,
            ..Self::invalid("nothing was written: see the problems")
        }
    }

    pub(crate) fn problem(field: &str, problem: impl Into<String>) -> Self {
        Self::problems(vec![Problem::new(field, problem)])
    }

    pub(crate) fn not_found(what: impl fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, format!("{what} does not exist"))
    }

    pub(crate) fn conflict(message: String) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(crate) fn unauthenticated() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "no valid admin token: sign in, or send it as a bearer token",
        )
    }

    pub(crate) fn forbidden(message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }

    /// The caller is known and may not do this to that.
    pub(crate) fn denied(who: &str, action: Action, object: &Object<'_>) -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            format!("'{who}' may not do {action} to {object}: `mesh policy test` says why"),
        )
    }

    pub(crate) fn internal(message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }

    pub(crate) fn busy(message: &'static str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(Duration::from_secs(1))
    }

    #[must_use]
    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The same with each problem told another way.
    #[must_use]
    pub(crate) fn map_problems(mut self, told: impl Fn(Problem) -> Problem) -> Self {
        self.problems = self.problems.into_iter().map(told).collect();
        self
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.status == StatusCode::CONFLICT
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Fault> for ApiError {
    fn from(fault: Fault) -> Self {
        let status = StatusCode::from_u16(mesh_protocol::http_status(fault.class));
        let error = Self::new(
            status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            fault.message.clone(),
        );
        match mesh_protocol::retry_after_seconds(&fault) {
            Some(seconds) => error.retry_after(Duration::from_secs(seconds)),
            None => error,
        }
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Invalid(problems) => Self::problems(problems),
            other => Self::from(Fault::from(other)),
        }
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        Self::from(Fault::from(error))
    }
}

impl From<ResourceError> for ApiError {
    fn from(error: ResourceError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        if self.status == StatusCode::UNAUTHORIZED {
            response.insert_header(("www-authenticate", "Bearer"));
        }
        if self.status == StatusCode::REQUEST_TIMEOUT {
            // What is still to come of the request would be read as the next one (RFC 9110, section 15.5.9).
            response.force_close();
        }
        if let Some(wait) = self.retry_after {
            let rounded_up = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.insert_header(("retry-after", rounded_up.max(1)));
        }
        let mut response = response.json(ErrorBody {
            error: self.message.to_string(),
            problems: self.problems.clone(),
        });
        response.extensions_mut().insert(Details(self.clone()));
        response
    }
}

/// An error on its way out, for callers who want it as problem details.
pub(crate) struct Details(ApiError);

impl Details {
    /// The body of problem details (RFC 9457), if the caller asks for that; each problem with its field is a member of `errors`.
    pub(crate) fn body(&self, accept: &HeaderMap, request_id: &str) -> Option<Vec<u8>> {
        let accepted = accept.get_all(ACCEPT).filter_map(|value| value.to_str().ok());
        if !mesh_protocol::accepts_problems(accepted) {
            return None;
        }
        let problem = mesh_protocol::Problem::of_status(self.0.status.as_u16(), &self.0.message);
        let mut value = problem.value(request_id);
        if let Some(members) = value.as_object_mut()
            && !self.0.problems.is_empty()
        {
            members.insert("errors".to_owned(), serde_json::json!(self.0.problems));
        }
        Some(value.to_string().into_bytes())
    }
}
