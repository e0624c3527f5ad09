//! Errors as problem details (RFC 9457), for callers who ask for them.
//!
//! Owns the types and codes, and whether an `Accept` header asks for them. A problem says what the protocol's own form says, and
//! nothing of the inside.

use mesh_types::{Fault, FaultClass, FaultSource};
use serde_json::json;

use crate::status::http_status;

/// The media type.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The caller's own quota is used up; registered with IANA by the draft of the `RateLimit` header fields.
const QUOTA_EXCEEDED: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
/// The server has no capacity now.
const REDUCED_CAPACITY: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
/// No more than the status says.
const BLANK: &str = "about:blank";

/// What is wrong with a request, or with us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: u16,
    kind: &'static str,
    code: &'static str,
    detail: String,
    /// The limit that refused the request, if one did.
    pub violated: Option<&'static str>,
}

/// The mesh's own word for a class, for programs.
const fn code(class: FaultClass) -> &'static str {
    match class {
        FaultClass::InvalidArgument => "invalid_argument",
        FaultClass::Unauthenticated => "unauthenticated",
        FaultClass::MalformedCredential => "malformed_credential",
        FaultClass::PermissionDenied => "permission_denied",
        FaultClass::InsufficientScope => "insufficient_scope",
        FaultClass::NotFound => "not_found",
        FaultClass::TooLarge => "too_large",
        FaultClass::RateLimited => "rate_limited",
        FaultClass::Unavailable => "unavailable",
        FaultClass::DeadlineExceeded => "deadline_exceeded",
        FaultClass::Unsupported => "unsupported",
        FaultClass::Cancelled => "cancelled",
        FaultClass::Conflict => "conflict",
        FaultClass::Internal => "internal",
    }
}

impl Problem {
    /// A fault.
    pub fn of_fault(fault: &Fault) -> Self {
        let ours = matches!(fault.source, FaultSource::Device | FaultSource::Mesh);
        let (kind, code) = match fault.class {
            FaultClass::RateLimited => (QUOTA_EXCEEDED, "rate_limited"),
            FaultClass::Unavailable if ours => (REDUCED_CAPACITY, "no_capacity"),
            class => (BLANK, code(class)),
        };
        Self {
            status: http_status(fault.class),
            kind,
            code,
            detail: fault.message.to_string(),
            violated: None,
        }
    }

    /// An error with a status that no fault has.
    pub fn of_status(status: u16, message: &str) -> Self {
        Self {
            status,
            kind: BLANK,
            code: match status {
                404 => "not_found",
                405 => "method_not_allowed",
                408 => "request_timeout",
                413 => "too_large",
                415 => "unsupported_media_type",
                401 => "unauthenticated",
                403 => "permission_denied",
                409 => "conflict",
                429 => "rate_limited",
                503 => "unavailable",
                501 => "unsupported",
                400..=499 => "invalid_argument",
                _ => "internal",
            },
            detail: message.to_owned(),
            violated: None,
        }
    }

    /// The body.
    pub fn body(&self, request_id: &str) -> Vec<u8> {
        self.value(request_id).to_string().into_bytes()
    }

    /// The same, for whoever has members of its own to add; the request's number is also what names this occurrence.
    pub fn value(&self, request_id: &str) -> serde_json::Value {
        let mut value = json!({
            "type": self.kind,
            "title": title(self.status, self.kind),
            "status": self.status,
            "detail": self.detail,
            "instance": format!("urn:mesh:request:{request_id}"),
            "code": self.code,
            "request_id": request_id,
        });
        if let (Some(rule), Some(members)) = (self.violated, value.as_object_mut()) {
            members.insert("violated-policies".to_owned(), json!([rule]));
        }
        value
    }
}

/// In the words of the type, or of the status where it has none of its own (RFC 9457, section 4.2.1).
fn title(status: u16, kind: &str) -> &'static str {
    match (kind, status) {
        (QUOTA_EXCEEDED, _) => "Request cannot be satisfied as assigned quota has been exceeded",
        (REDUCED_CAPACITY, _) => "Request cannot be satisfied due to temporary server capacity constraints",
        (_, 400) => "Bad Request",
        (_, 401) => "Unauthorized",
        (_, 403) => "Forbidden",
        (_, 404) => "Not Found",
        (_, 405) => "Method Not Allowed",
        (_, 408) => "Request Timeout",
        (_, 409) => "Conflict",
        (_, 413) => "Content Too Large",
        (_, 415) => "Unsupported Media Type",
        (_, 429) => "Too Many Requests",
        (_, 499) => "Client Closed Request",
        (_, 501) => "Not Implemented",
        (_, 503) => "Service Unavailable",
        (_, 504) => "Gateway Timeout",
        _ => "Internal Server Error",
    }
}

/// Whether `Accept` headers name problem details, with a weight above zero. A range such as `*/*` names nothing, and gets the
/// protocol's own form.
pub fn accepts_problems<'a>(accept: impl Iterator<Item = &'a str>) -> bool {
    accept.flat_map(|value| value.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(PROBLEM_JSON));
        let weight = |part: &str| {
            let (name, value) = part.split_once('=')?;
            name.trim()
                .eq_ignore_ascii_case("q")
                .then(|| value.trim().parse::<f32>().unwrap_or(0.0))
        };
        named && parts.find_map(weight).is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(problem: &Problem) -> serde_json::Value {
        serde_json::from_slice(&problem.body("0a")).unwrap()
    }

    #[test]
    fn a_quota_and_a_lack_of_capacity_have_types_of_their_own() {
        let limited = Fault::new(FaultClass::RateLimited, FaultSource::TenantLimit, "the limit \"x\"");
        let mut problem = Problem::of_fault(&limited);
        problem.violated = Some("daily-requests");
        assert_eq!(
            body(&problem),
            json!({"type": QUOTA_EXCEEDED, "title": title(429, QUOTA_EXCEEDED), "status": 429, "detail": "the limit \"x\"",
                "instance": "urn:mesh:request:0a", "code": "rate_limited", "request_id": "0a",
                "violated-policies": ["daily-requests"]})
        );
        let busy = Fault::unavailable(FaultSource::Device, "full");
        let busy = body(&Problem::of_fault(&busy));
        assert_eq!(
            (&busy["type"], &busy["status"]),
            (&json!(REDUCED_CAPACITY), &json!(503))
        );
        assert!(busy.get("violated-policies").is_none());
        // A model that is loading says nothing of the server's capacity.
        let loading = body(&Problem::of_fault(&Fault::unavailable(FaultSource::Model, "loading")));
        assert_eq!(
            (&loading["type"], &loading["code"]),
            (&json!(BLANK), &json!("unavailable"))
        );
        let unknown = body(&Problem::of_status(404, "Not Found"));
        assert_eq!(
            (&unknown["title"], &unknown["code"]),
            (&json!("Not Found"), &json!("not_found"))
        );
    }

    #[test]
    fn only_who_names_problems_gets_them() {
        let accepts = |text: &str| accepts_problems([text].into_iter());
        for text in [
            "application/problem+json",
            "application/json;q=0.5, Application/Problem+JSON ; q=0.1",
            "application/problem+json; charset=utf-8",
        ] {
            assert!(accepts(text), "{text}");
        }
        for text in [
            "",
            "*/*",
            "application/*",
            "application/json",
            "application/problem+json;q=0",
            "application/problem+jsonx",
        ] {
            assert!(!accepts(text), "{text}");
        }
    }
}
