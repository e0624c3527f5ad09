//! Requests, written once and sent many times.

use bytes::{BufMut, Bytes, BytesMut};

/// What a request says.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// The method.
    pub method: &'a str,
    /// The path and query.
    pub path: &'a str,
    /// The `Host` header.
    pub host: &'a str,
    /// More headers.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
}

/// The request as bytes, `content-length` included.
pub fn request_bytes(parts: &RequestParts<'_>) -> Bytes {
    let RequestParts {
        method,
        path,
        host,
        headers,
        body,
    } = parts;
    let mut bytes = BytesMut::with_capacity(512 + body.len());
    bytes.put_slice(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n").as_bytes());
    for (name, value) in *headers {
        bytes.put_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.put_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.put_slice(body);
    bytes.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_its_headers_length_and_body() {
        let bytes = request_bytes(&RequestParts {
            method: "POST",
            path: "/v2/models/m/infer",
            host: "127.0.0.1:1",
            headers: &[("authorization".into(), "Bearer x".into())],
            body: b"{}",
        });
        let text = std::str::from_utf8(&bytes).unwrap();
        assert_eq!(
            text,
            "POST /v2/models/m/infer HTTP/1.1\r\nhost: 127.0.0.1:1\r\nauthorization: Bearer x\r\ncontent-length: 2\r\n\r\n{}"
        );
    }
}
