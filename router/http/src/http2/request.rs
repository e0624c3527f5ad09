//! A request as it came over HTTP/2, made into what the handlers know, so that they answer as they do over HTTP/1.1.
//!
//! The library has checked what HTTP/2 forbids (RFC 9113, section 8.2): names in capitals, headers of a connection, pseudo-headers
//! that are missing or there twice, a body whose length is not the one that was declared.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use actix_http::{HttpMessage as _, Payload, Request, error::PayloadError};
use actix_web::http::{
    Method, Uri, Version,
    header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue},
    uri::PathAndQuery,
};
use bytes::Bytes;
use futures::Stream;
use h2::RecvStream;

use super::Far;

/// The most headers of a request; their bytes are bounded by the library.
pub(super) const MAX_HEADERS: usize = 100;

/// Why a request is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("a request has at most {MAX_HEADERS} headers")]
    Headers,
    #[error("the header content-length is there more than once")]
    Lengths,
    #[error("the request's method, path or headers cannot be read")]
    Malformed,
}

impl Unreadable {
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Headers => 431,
            Self::Lengths | Self::Malformed => 400,
        }
    }
}

/// The handlers' request.
pub(super) fn read(request: http::Request<RecvStream>, far: Far) -> Result<Request, Unreadable> {
    let (head, body) = request.into_parts();
    let payload = if body.is_end_stream() {
        Payload::None
    } else {
        let payload: actix_http::BoxedPayloadStream = Box::pin(Arriving(body));
        Payload::Stream { payload }
    };
    let mut request = Request::with_payload(payload);
    let to = request.head_mut();
    to.method = method(&head.method)?;
    to.uri = uri(&head.uri)?;
    to.version = Version::HTTP_2;
    to.peer_addr = far.address;
    headers(&head, &mut to.headers)?;
    if let Some(certificate) = far.certificate {
        request.extensions_mut().insert(certificate);
    }
    Ok(request)
}

fn method(method: &http::Method) -> Result<Method, Unreadable> {
    match *method {
        http::Method::GET => Ok(Method::GET),
        http::Method::POST => Ok(Method::POST),
        ref other => Method::from_bytes(other.as_str().as_bytes()).map_err(|_| Unreadable::Malformed),
    }
}

/// What stands in the first line over HTTP/1.1; CONNECT has no path.
fn uri(uri: &http::Uri) -> Result<Uri, Unreadable> {
    let text = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    PathAndQuery::try_from(text)
        .map(Uri::from)
        .map_err(|_| Unreadable::Malformed)
}

fn headers(head: &http::request::Parts, to: &mut HeaderMap) -> Result<(), Unreadable> {
    if head.headers.len() > MAX_HEADERS {
        return Err(Unreadable::Headers);
    }
    for (name, value) in &head.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| Unreadable::Malformed)?;
        let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| Unreadable::Malformed)?;
        if name == CONTENT_LENGTH && to.contains_key(CONTENT_LENGTH) {
            return Err(Unreadable::Lengths);
        }
        to.append(name, value);
    }
    if let Some(authority) = head.uri.authority()
        && !to.contains_key(HOST)
    {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Unreadable::Malformed)?;
        to.insert(HOST, host);
    }
    Ok(())
}

/// A body as it arrives. What is taken makes room for as much again, so that a caller sends no faster than it is read.
struct Arriving(RecvStream);

impl Stream for Arriving {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = std::task::ready!(self.0.poll_data(context));
        Poll::Ready(piece.map(|piece| {
            let piece = piece.map_err(|_| PayloadError::Incomplete(None))?;
            let released = self.0.flow_control().release_capacity(piece.len());
            released.map_err(|_| PayloadError::Incomplete(None))?;
            Ok(piece)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(build: impl FnOnce(http::request::Builder) -> http::request::Builder) -> http::request::Parts {
        build(http::Request::builder()).body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_path_is_what_http_1_1_has_in_its_first_line() {
        for (of, line) in [
            ("https://mesh/v2/models?a=%20b", "/v2/models?a=%20b"),
            ("https://mesh//v2", "//v2"),
            ("https://mesh", "/"),
            ("*", "*"),
            ("mesh:443", "/"),
        ] {
            assert_eq!(uri(&of.parse().unwrap()).unwrap().to_string(), line, "{of}");
        }
    }

    #[test]
    fn as_many_headers_as_the_bound_pass_and_one_more_does_not() {
        let read = |count: usize| {
            let parts = parts(|request| (0..count).fold(request, |request, at| request.header(format!("x-{at}"), "1")));
            headers(&parts, &mut HeaderMap::new())
        };
        assert_eq!(read(MAX_HEADERS), Ok(()));
        assert_eq!(read(MAX_HEADERS + 1), Err(Unreadable::Headers));
    }

    #[test]
    fn a_length_is_said_once_and_the_authority_is_the_host() {
        let twice = parts(|request| request.header("content-length", "1").header("content-length", "2"));
        assert_eq!(headers(&twice, &mut HeaderMap::new()), Err(Unreadable::Lengths));
        let mut read = HeaderMap::new();
        headers(&parts(|request| request.uri("https://mesh:8000/v2")), &mut read).unwrap();
        assert_eq!(read.get(HOST).unwrap(), "mesh:8000");
        let mut read = HeaderMap::new();
        headers(
            &parts(|request| request.uri("https://mesh/").header("host", "own")),
            &mut read,
        )
        .unwrap();
        assert_eq!(
            read.get_all(HOST).map(HeaderValue::as_bytes).collect::<Vec<_>>(),
            [b"own"]
        );
    }

    #[test]
    fn methods_are_the_same() {
        for name in ["GET", "POST", "OPTIONS", "HEAD", "FROB"] {
            assert_eq!(method(&name.parse().unwrap()).unwrap().as_str(), name);
        }
    }
}
