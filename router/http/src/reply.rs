//! Responses: the error form everywhere, and the headers that every answer carries.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::{
        StatusCode,
        header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use bytes::Bytes;
use mesh_protocol::{
    HEADER_CONTENT_LENGTH, PROBLEM_JSON, Problem, accepts_problems, challenge, error_body, http_status,
    retry_after_milliseconds, retry_after_seconds,
};
use mesh_router::{Account, Notice};
use mesh_types::{Fault, RequestId, TraceContext};
use smallvec::SmallVec;

const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const ARM: HeaderName = HeaderName::from_static("x-mesh-arm");
pub(crate) const CACHE: HeaderName = HeaderName::from_static("mesh-cache");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-mesh-version");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const JSON_BYTES: HeaderName = HeaderName::from_static(HEADER_CONTENT_LENGTH);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const PROBLEM: HeaderValue = HeaderValue::from_static(PROBLEM_JSON);
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const LIMIT_POLICY: HeaderName = HeaderName::from_static("x-mesh-limit-policy");
const LIMIT: HeaderName = HeaderName::from_static("x-mesh-limit");
const BUDGET_WARNING: HeaderName = HeaderName::from_static("x-mesh-budget-warning");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = HttpResponse::with_body(status, BoxBody::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// An error with a status that no fault has.
pub(crate) fn refusal(status: u16, message: &str) -> HttpResponse {
    let mut response = json(status_code(status), error_body(message));
    response.extensions_mut().insert(Problem::of_status(status, message));
    response
}

/// A fault, with what its class says beside the status.
pub(crate) fn fault(fault: &Fault, credential_presented: bool) -> HttpResponse {
    let status = http_status(fault.class);
    let mut response = json(status_code(status), error_body(&fault.message));
    response.extensions_mut().insert(Problem::of_fault(fault));
    if let Some(seconds) = retry_after_seconds(fault) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(milliseconds) = retry_after_milliseconds(fault) {
        response
            .headers_mut()
            .insert(RETRY_AFTER_MS, HeaderValue::from(milliseconds));
    }
    if let Some(challenge) = challenge(fault.class, credential_presented) {
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// What an answer says of its caller's limits. A refusal that can be told as a problem names the limit that refused.
pub(crate) fn limits(response: &mut HttpResponse, account: &Account) {
    if let Some(rule) = account.violated()
        && let Some(problem) = response.extensions_mut().get_mut::<Problem>()
    {
        problem.violated = Some(rule);
    }
    if let Some(told) = account.limits() {
        notice(response, told);
    }
}

/// What an answer says of limits.
pub(crate) fn notice(response: &mut HttpResponse, notice: Notice) {
    let headers = response.headers_mut();
    let lines = notice.policy.into_iter().map(|line| (RATE_LIMIT_POLICY, line));
    let own = notice.own_policy.into_iter().map(|line| (LIMIT_POLICY, line));
    for (name, line) in lines.chain(own) {
        if let Ok(value) = HeaderValue::from_maybe_shared(line) {
            headers.append(name, value);
        }
    }
    for (name, text) in [
        (RATE_LIMIT, notice.state),
        (LIMIT, notice.own_state),
        (BUDGET_WARNING, notice.warning),
    ] {
        if !text.is_empty()
            && let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(text))
        {
            headers.insert(name, value);
        }
    }
}

/// Tells an error as a problem, where the caller asks for that (RFC 9457).
pub(crate) fn as_problem(response: &mut HttpResponse, request: &HttpRequest, id: RequestId) {
    if !response.status().is_client_error() && !response.status().is_server_error() {
        return;
    }
    let Some(problem) = response.extensions_mut().remove::<Problem>() else {
        return;
    };
    let accepted = request
        .headers()
        .get_all(ACCEPT)
        .filter_map(|value| value.to_str().ok());
    if !accepts_problems(accepted) {
        return;
    }
    let body = problem.body(&id.to_string());
    let former = std::mem::replace(response, HttpResponse::new(StatusCode::OK));
    *response = former.set_body(BoxBody::new(body));
    response.headers_mut().insert(CONTENT_TYPE, PROBLEM);
}

/// A prediction: its body in pieces, and how many bytes of that are JSON where not all are.
pub(crate) fn inference(json_bytes: Option<usize>, mut chunks: SmallVec<[Bytes; 2]>) -> HttpResponse {
    let body = match chunks.len() {
        0 | 1 => BoxBody::new(chunks.pop().unwrap_or_default()),
        _ => BoxBody::new(Chunks::new(chunks)),
    };
    let mut response = HttpResponse::with_body(StatusCode::OK, body);
    let headers = response.headers_mut();
    match json_bytes {
        None => headers.insert(CONTENT_TYPE, JSON),
        Some(length) => {
            headers.insert(JSON_BYTES, HeaderValue::from(length));
            headers.insert(CONTENT_TYPE, BINARY)
        }
    };
    response
}

/// Marks a response with the request's number.
pub(crate) fn mark(response: &mut HttpResponse, id: RequestId) {
    let digits: [u8; 32] = hex(id.0);
    bytes_header(response, REQUEST_ID, &digits);
}

/// Tells the caller the trace that its request is part of, as [`TraceContext`] is written.
pub(crate) fn trace(response: &mut HttpResponse, trace: TraceContext) {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let (trace_id, span_id): ([u8; 32], [u8; 16]) = (hex(trace.trace_id), hex(u128::from(trace.span_id)));
    text[3..35].copy_from_slice(&trace_id);
    text[36..52].copy_from_slice(&span_id);
    text[54] = b'0' + u8::from(trace.sampled);
    bytes_header(response, TRACEPARENT, &text);
}

// The lowest digits of a number; formatting machinery would cost more than all else that is done for these headers.
fn hex<const DIGITS: usize>(mut number: u128) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        let low = (number & 15) as u8;
        *digit = if low < 10 { b'0' + low } else { b'a' + low - 10 };
        number >>= 4;
    }
    digits
}

fn bytes_header(response: &mut HttpResponse, name: HeaderName, text: &[u8]) {
    if let Ok(value) = HeaderValue::from_bytes(text) {
        response.headers_mut().insert(name, value);
    }
}

/// Adds a header whose text is ours (names and numbers), and so always a valid value.
pub(crate) fn text_header(response: &mut HttpResponse, name: HeaderName, text: &str) {
    bytes_header(response, name, text.as_bytes());
}

fn status_code(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

// A body of several pieces: large tensors go out as they are.
struct Chunks {
    chunks: smallvec::IntoIter<[Bytes; 2]>,
    bytes: u64,
}

impl Chunks {
    fn new(chunks: SmallVec<[Bytes; 2]>) -> Self {
        Self {
            bytes: chunks.iter().map(|chunk| chunk.len() as u64).sum(),
            chunks: chunks.into_iter(),
        }
    }
}

impl MessageBody for Chunks {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.bytes)
    }

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        // An empty piece would read as the end.
        Poll::Ready(self.chunks.find(|chunk| !chunk.is_empty()).map(Ok))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_traces_are_written_as_their_types_write_them() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, u128::MAX, u128::MAX / 7] {
            let id = RequestId(number);
            let context = TraceContext {
                trace_id: number,
                span_id: number as u64,
                sampled: number % 2 == 1,
            };
            let mut response = refusal(404, "Not Found");
            mark(&mut response, id);
            trace(&mut response, context);
            let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
            assert_eq!(header(REQUEST_ID), Some(id.to_string().as_str()));
            assert_eq!(header(TRACEPARENT), Some(context.to_string().as_str()));
        }
    }
}
