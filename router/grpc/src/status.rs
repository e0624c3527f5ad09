//! Faults as statuses, and the metadata that answers carry.

use http::{HeaderMap, HeaderName, HeaderValue};
use mesh_protocol::{grpc_code, retry_after_milliseconds, retry_after_seconds};
use mesh_router::Account;
use mesh_types::{Fault, FaultClass, RequestId, Retry, TraceContext};
use tonic::{Code, Status, metadata::MetadataMap};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub(crate) const CACHE: HeaderName = HeaderName::from_static("mesh-cache");
pub(crate) const ARM: HeaderName = HeaderName::from_static("x-mesh-arm");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-mesh-version");
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const RETRY_AFTER: HeaderName = HeaderName::from_static("retry-after");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT_POLICY: HeaderName = HeaderName::from_static("x-mesh-limit-policy");
const LIMIT: HeaderName = HeaderName::from_static("x-mesh-limit");
const BUDGET_WARNING: HeaderName = HeaderName::from_static("x-mesh-budget-warning");
/// Tells clients that retry by themselves how long to wait, or never to.
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const NEVER: HeaderValue = HeaderValue::from_static("-1");

/// A fault as a status, with the metadata of its answer.
pub(crate) fn of_fault(fault: &Fault, mut metadata: HeaderMap) -> Status {
    if let Some(seconds) = retry_after_seconds(fault) {
        metadata.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(milliseconds) = retry_after_milliseconds(fault) {
        metadata.insert(RETRY_AFTER_MS, HeaderValue::from(milliseconds));
        metadata.insert(PUSHBACK, HeaderValue::from(milliseconds));
    } else if fault.class == FaultClass::Unavailable && fault.retry == Retry::No {
        // Clients take UNAVAILABLE for what may be sent again, as long as nothing else is said.
        metadata.insert(PUSHBACK, NEVER);
    }
    let code = Code::from_i32(grpc_code(fault.class));
    Status::with_metadata(code, fault.message.clone(), MetadataMap::from_headers(metadata))
}

/// The library's own statuses for what a caller sends, by the protocol's names for them: too large a message is
/// RESOURCE_EXHAUSTED, whether or not it is compressed.
pub(crate) fn of_reading(status: Status) -> Status {
    match status.code() {
        Code::OutOfRange => Status::resource_exhausted(status.message()),
        _ => status,
    }
}

/// The metadata of every answer: the request's number.
pub(crate) fn marked(id: RequestId) -> HeaderMap {
    let mut metadata = HeaderMap::new();
    put(&mut metadata, REQUEST_ID, &id.to_string());
    metadata
}

/// Adds the trace that the request is part of.
pub(crate) fn trace(metadata: &mut HeaderMap, trace: TraceContext) {
    put(metadata, TRACEPARENT, &trace.to_string());
}

/// Adds what an answer says of its caller's limits: the fields of the HTTP door, by the same names.
pub(crate) fn limits(metadata: &mut HeaderMap, account: &Account) {
    let Some(notice) = account.limits() else { return };
    let lines = notice.policy.into_iter().map(|line| (RATE_LIMIT_POLICY, line));
    let own = notice.own_policy.into_iter().map(|line| (LIMIT_POLICY, line));
    for (name, line) in lines.chain(own) {
        if let Ok(value) = HeaderValue::from_maybe_shared(line) {
            metadata.append(name, value);
        }
    }
    for (name, text) in [
        (RATE_LIMIT, notice.state),
        (LIMIT, notice.own_state),
        (BUDGET_WARNING, notice.warning),
    ] {
        if !text.is_empty() {
            put(metadata, name, &text);
        }
    }
}

/// Adds a text that is ours (names and numbers), and so always a valid value.
pub(crate) fn put(metadata: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        metadata.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mesh_types::FaultSource;

    use super::*;

    #[test]
    fn a_fault_that_time_mends_tells_clients_how_long_to_wait() {
        let fault = Fault::new(FaultClass::RateLimited, FaultSource::TenantLimit, "slowly");
        let wait = fault.clone().with_retry(Retry::After(Duration::from_millis(37)));
        let status = of_fault(&wait, marked(RequestId(7)));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let value = |name: &str| status.metadata().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(value("grpc-retry-pushback-ms"), Some("37"));
        assert_eq!(value("x-request-id"), Some("00000000000000000000000000000007"));
        let never = of_fault(&fault, HeaderMap::new());
        assert!(never.metadata().get("grpc-retry-pushback-ms").is_none());
        let busy = Fault::unavailable(FaultSource::Device, "full");
        let pushback = |fault: &Fault| {
            let status = of_fault(fault, HeaderMap::new());
            let value = status.metadata().get("grpc-retry-pushback-ms").cloned();
            value.and_then(|value| value.to_str().map(str::to_owned).ok())
        };
        assert_eq!(pushback(&busy), None);
        assert_eq!(pushback(&busy.with_retry(Retry::No)).as_deref(), Some("-1"));
    }

    #[test]
    fn too_large_is_exhausted_and_not_out_of_range() {
        assert_eq!(of_reading(Status::out_of_range("x")).code(), Code::ResourceExhausted);
        assert_eq!(of_reading(Status::internal("x")).code(), Code::Internal);
    }
}
