//! Responses: the error form everywhere, and the headers that every answer carries.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{
    HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::{
        StatusCode,
        header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE},
    },
};
use bytes::Bytes;
use mesh_protocol::{EncodedInfer, HEADER_CONTENT_LENGTH, challenge, error_body, http_status, retry_after_seconds};
use mesh_types::{Fault, RequestId};
use smallvec::SmallVec;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(crate) const ARM: HeaderName = HeaderName::from_static("x-mesh-arm");
pub(crate) const VERSION: HeaderName = HeaderName::from_static("x-mesh-version");
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A JSON answer.
pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> HttpResponse {
    let mut response = HttpResponse::with_body(status, BoxBody::new(body.into()));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// An error with a status that no fault has.
pub(crate) fn refusal(status: u16, message: &str) -> HttpResponse {
    json(status_code(status), error_body(message))
}

/// A fault, with what its class says beside the status.
pub(crate) fn fault(fault: &Fault, credential_presented: bool) -> HttpResponse {
    let mut response = refusal(http_status(fault.class), &fault.message);
    if let Some(seconds) = retry_after_seconds(fault) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(challenge) = challenge(fault.class, credential_presented) {
        response
            .headers_mut()
            .insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    response
}

/// A prediction.
pub(crate) fn inference(encoded: EncodedInfer) -> HttpResponse {
    let header = encoded.header_content_length();
    let mut chunks = encoded.into_chunks();
    let body = match chunks.len() {
        0 | 1 => BoxBody::new(chunks.pop().unwrap_or_default()),
        _ => BoxBody::new(Chunks::new(chunks)),
    };
    let mut response = HttpResponse::with_body(StatusCode::OK, body);
    let headers = response.headers_mut();
    match header {
        None => headers.insert(CONTENT_TYPE, JSON),
        Some(length) => {
            headers.insert(
                HeaderName::from_static(HEADER_CONTENT_LENGTH),
                HeaderValue::from(length),
            );
            headers.insert(CONTENT_TYPE, BINARY)
        }
    };
    response
}

/// Marks a response with the request's number.
pub(crate) fn mark(response: &mut HttpResponse, id: RequestId) {
    text_header(response, REQUEST_ID, &id.to_string());
}

/// Adds a header whose text is ours (names and numbers), and so always a valid value.
pub(crate) fn text_header(response: &mut HttpResponse, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        response.headers_mut().insert(name, value);
    }
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
