//! Who may call this door from a web page of another origin, where the server is set up for it.
//!
//! Off is no setting at all. A page authenticates like any caller, by a key in `Authorization`: credentials that a browser would
//! add by itself are never allowed, so a page has no more rights than whoever gave it a key. A preflight is answered without a
//! credential, since browsers send none with it.

use std::str::FromStr;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        Method, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
            ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN, VARY,
        },
    },
};

use crate::reply;

/// The most origins of a setting.
pub const MAX_ORIGINS: usize = 64;
/// The longest origin, in bytes.
const MAX_ORIGIN_BYTES: usize = 512;

/// Which origins may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorsOrigins(Origins);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Origins {
    Any,
    Exactly(Vec<String>),
}

/// Why a text names no origins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Something else than an origin.
    #[error("'{0}' is no origin: write https://app.example.com, several with commas between them, or * for all")]
    Malformed(String),
    /// Too many of them.
    #[error("at most {MAX_ORIGINS} origins, got {0}")]
    TooMany(usize),
}

impl FromStr for CorsOrigins {
    type Err = OriginError;
    fn from_str(text: &str) -> Result<Self, OriginError> {
        if text.trim() == "*" {
            return Ok(Self(Origins::Any));
        }
        let origins: Vec<String> = text.split(',').map(|origin| origin.trim().to_owned()).collect();
        if origins.len() > MAX_ORIGINS {
            return Err(OriginError::TooMany(origins.len()));
        }
        match origins.iter().find(|origin| !is_origin(origin)) {
            None => Ok(Self(Origins::Exactly(origins))),
            Some(wrong) => Err(OriginError::Malformed(wrong.chars().take(100).collect())),
        }
    }
}

/// As browsers write it: scheme, host and port, in small letters, and nothing behind them.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else {
        return false;
    };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let in_scheme = |byte: u8| plain(byte) || matches!(byte, b'+' | b'-' | b'.');
    let in_host = |byte: u8| plain(byte) || matches!(byte, b'-' | b'.' | b':' | b'[' | b']' | b'_');
    text.len() <= MAX_ORIGIN_BYTES
        && !scheme.is_empty()
        && !host.is_empty()
        && scheme.bytes().all(in_scheme)
        && host.bytes().all(in_host)
}

impl CorsOrigins {
    /// What an origin is told, if it may call.
    fn allowed(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        match &self.0 {
            Origins::Any => Some(HeaderValue::from_static("*")),
            Origins::Exactly(origins) => {
                let known = origins.iter().any(|known| known.as_bytes() == origin.as_bytes());
                known.then(|| origin.clone())
            }
        }
    }

    /// The answer to a preflight; none where the request is something else.
    pub(crate) fn preflight(&self, request: &HttpRequest) -> Option<HttpResponse> {
        if request.method() != Method::OPTIONS {
            return None;
        }
        let origin = request.headers().get(ORIGIN)?;
        request.headers().get(ACCESS_CONTROL_REQUEST_METHOD)?;
        let Some(allowed) = self.allowed(origin) else {
            let mut refused = reply::refusal(403, "this origin may not call: the server's operator allows origins");
            vary(&mut refused);
            return Some(refused);
        };
        let mut response = HttpResponse::new(StatusCode::NO_CONTENT);
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        // Headers that this door does not know change nothing, so a page may send what it likes.
        if let Some(wanted) = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        }
        vary(&mut response);
        Some(response)
    }

    /// Lets the page of an origin that may call read the answer.
    pub(crate) fn tell(&self, request: &HttpRequest, response: &mut HttpResponse) {
        const EXPOSED: HeaderValue = HeaderValue::from_static(
            "inference-header-content-length, x-request-id, x-mesh-version, x-mesh-arm, mesh-cache, traceparent, retry-after, \
             retry-after-ms, www-authenticate, ratelimit-policy, ratelimit, x-mesh-limit-policy, x-mesh-limit, \
             x-mesh-budget-warning",
        );
        if let Some(allowed) = request.headers().get(ORIGIN).and_then(|origin| self.allowed(origin)) {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        }
        if self.0 != Origins::Any {
            vary(response);
        }
    }
}

/// Caches must not hand one origin what another was told.
fn vary(response: &mut HttpResponse) {
    response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(setting: &str, origin: &str) -> Option<String> {
        let origins: CorsOrigins = setting.parse().unwrap();
        let told = origins.allowed(&HeaderValue::from_str(origin).unwrap())?;
        Some(told.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_origin_is_allowed_exactly_as_it_is_written() {
        let setting = "https://a.example, http://[::1]:8080";
        assert_eq!(
            allowed(setting, "https://a.example").as_deref(),
            Some("https://a.example")
        );
        assert_eq!(
            allowed(setting, "http://[::1]:8080").as_deref(),
            Some("http://[::1]:8080")
        );
        for other in [
            "http://a.example",
            "https://a.example:443",
            "https://b.a.example",
            "https://a.example.evil",
            "null",
        ] {
            assert_eq!(allowed(setting, other), None, "{other}");
        }
        assert_eq!(allowed(" * ", "null").as_deref(), Some("*"));
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in [
            "",
            "a.example",
            "https://",
            "https://a.example/",
            "https://A.example",
            "https://a.example,",
            "https://*.example",
            "null",
            "*,https://a.example",
        ] {
            assert!(
                matches!(bad.parse::<CorsOrigins>(), Err(OriginError::Malformed(_))),
                "{bad}"
            );
        }
    }

    #[test]
    fn as_many_origins_as_the_bound_pass_and_one_more_does_not() {
        let setting = |count: usize| vec!["https://a.example"; count].join(",").parse::<CorsOrigins>();
        assert!(setting(MAX_ORIGINS).is_ok());
        assert_eq!(setting(MAX_ORIGINS + 1), Err(OriginError::TooMany(MAX_ORIGINS + 1)));
        let long = |bytes: usize| format!("https://{}", "a".repeat(bytes - 8)).parse::<CorsOrigins>();
        assert!(long(MAX_ORIGIN_BYTES).is_ok());
        assert!(long(MAX_ORIGIN_BYTES + 1).is_err());
    }
}
