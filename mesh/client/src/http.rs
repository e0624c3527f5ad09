//! The HTTP wire: paths, bodies of known length that are not copied, and answers read within a bound.

mod form;

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use http_body::{Body, Frame, SizeHint};
use mesh_protocol::HEADER_CONTENT_LENGTH;
use mesh_types::Retry;
use reqwest::{Certificate, Identity, Response, redirect};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Answer, Error, IndexEntry, JsonAnswer, ModelMetadata, ModelStatistics, Request, ServerMetadata, Status,
    builder::{Setting, Tls},
    error::chain,
    head::{self, Head},
};

pub(crate) use form::Written;

const JSON_BYTES: HeaderName = HeaderName::from_static(HEADER_CONTENT_LENGTH);
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// The most of an answer that is not the protocol's that is shown.
const MAX_SHOWN_TEXT: usize = 200;
/// Tensors in an answer begin where their largest elements may lie.
const ALIGNMENT: usize = 8;

/// Connections to an HTTP door.
#[derive(Debug)]
pub(crate) struct HttpWire {
    http: reqwest::Client,
    root: String,
    credential: Option<HeaderValue>,
    limit: usize,
}

/// An answer, taken in whole.
#[derive(Debug)]
struct Whole {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

/// The text of an error.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    error: String,
}

/// A body of parts, whose length is known.
struct Parts(VecDeque<Bytes>);

impl Body for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(self.0.pop_front().map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.iter().map(|part| part.len() as u64).sum())
    }
}

fn secured(mut builder: reqwest::ClientBuilder, tls: &Tls) -> Result<reqwest::ClientBuilder, Error> {
    if let Some(pem) = &tls.authorities {
        let known = Certificate::from_pem_bundle(pem).ok().filter(|known| !known.is_empty());
        builder =
            builder.tls_certs_only(known.ok_or_else(|| Error::invalid("the authorities are no certificates in PEM"))?);
    }
    if let Some(pem) = &tls.identity {
        let identity = Identity::from_pem(pem);
        builder = builder
            .identity(identity.map_err(|_| Error::invalid("the identity is no certificate with its key in PEM"))?);
    }
    Ok(builder)
}

impl HttpWire {
    pub(crate) fn new(setting: &Setting) -> Result<Self, Error> {
        let builder = reqwest::Client::builder()
            .user_agent(setting.user_agent.clone())
            .connect_timeout(setting.connect_timeout)
            .pool_max_idle_per_host(setting.connections)
            .tcp_nodelay(true)
            .http1_only()
            .redirect(redirect::Policy::none());
        let http = secured(builder, &setting.tls)?.build();
        Ok(Self {
            http: http.map_err(|error| Error::invalid(format!("HTTP cannot be set up: {}", chain(&error))))?,
            root: setting.url.as_str().trim_end_matches('/').to_owned(),
            credential: setting.credential.clone(),
            limit: setting.max_message_bytes,
        })
    }

    /// A request's body, within the bound.
    pub(crate) fn write(&self, request: &Request) -> Result<Written, Error> {
        self.within("the request", form::write(request)?)
    }

    fn within(&self, what: &'static str, written: Written) -> Result<Written, Error> {
        if written.bytes() > self.limit {
            return Err(Error::TooLarge {
                what,
                limit: self.limit,
            });
        }
        Ok(written)
    }

    pub(crate) async fn infer(&self, request: &Request, body: Written, head: Head) -> Result<Answer, Error> {
        let path = format!("{}/infer", path(&request.model, request.version.as_deref())?);
        let whole = self.ask(Method::POST, &path, Some(body), &head).await?.ok()?;
        let json_bytes = json_bytes(&whole.headers)?;
        let mut answer = form::read(&whole.body, json_bytes)?;
        answer.arm = head::text(&whole.headers, &head::ARM).map(str::to_owned);
        answer.request_id = head::text(&whole.headers, &head::REQUEST_ID).map(str::to_owned);
        answer.trace = head::text(&whole.headers, &head::TRACEPARENT).and_then(|text| text.parse().ok());
        Ok(answer)
    }

    pub(crate) async fn infer_json(
        &self,
        name: &str,
        version: Option<&str>,
        body: Bytes,
        head: Head,
    ) -> Result<JsonAnswer, Error> {
        let path = format!("{}/infer", path(name, version)?);
        let body = self.within("the request", Written::json(body))?;
        let whole = self.ask(Method::POST, &path, Some(body), &head).await?.ok()?;
        Ok(JsonAnswer {
            arm: head::text(&whole.headers, &head::ARM).map(str::to_owned),
            request_id: head::text(&whole.headers, &head::REQUEST_ID).map(str::to_owned),
            body: whole.body,
        })
    }

    pub(crate) async fn server_metadata(&self, head: &Head) -> Result<ServerMetadata, Error> {
        self.get("/v2", head).await
    }

    /// `live` or `ready`.
    pub(crate) async fn health(&self, what: &str, head: &Head) -> Result<bool, Error> {
        let whole = self.ask(Method::GET, &format!("/v2/health/{what}"), None, head).await?;
        whole.yes_or_no()
    }

    pub(crate) async fn is_model_ready(&self, name: &str, version: Option<&str>, head: &Head) -> Result<bool, Error> {
        let path = format!("{}/ready", path(name, version)?);
        self.ask(Method::GET, &path, None, head).await?.yes_or_no()
    }

    pub(crate) async fn metadata(
        &self,
        name: &str,
        version: Option<&str>,
        head: &Head,
    ) -> Result<ModelMetadata, Error> {
        self.get(&path(name, version)?, head).await
    }

    pub(crate) async fn config(&self, name: &str, version: Option<&str>, head: &Head) -> Result<Value, Error> {
        self.get(&format!("{}/config", path(name, version)?), head).await
    }

    pub(crate) async fn statistics(
        &self,
        name: Option<&str>,
        version: Option<&str>,
        head: &Head,
    ) -> Result<Vec<ModelStatistics>, Error> {
        #[derive(Deserialize)]
        struct Statistics {
            model_stats: Vec<ModelStatistics>,
        }
        let path = match name {
            Some(name) => format!("{}/stats", path(name, version)?),
            None => "/v2/models/stats".to_owned(),
        };
        let statistics: Statistics = self.get(&path, head).await?;
        Ok(statistics.model_stats)
    }

    pub(crate) async fn index(&self, only_ready: bool, head: &Head) -> Result<Vec<IndexEntry>, Error> {
        let body = Written::json(Bytes::from(format!("{{\"ready\":{only_ready}}}")));
        let asked = self.ask(Method::POST, "/v2/repository/index", Some(body), head);
        read_json(&asked.await?.ok()?.body)
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, head: &Head) -> Result<T, Error> {
        read_json(&self.ask(Method::GET, path, None, head).await?.ok()?.body)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Written>, head: &Head) -> Result<Whole, Error> {
        let mut headers = head.over_http()?;
        if let Some(credential) = &self.credential {
            headers.insert(header::AUTHORIZATION, credential.clone());
        }
        let mut request = self.http.request(method, format!("{}{path}", self.root));
        if let Some(Written { parts, json_bytes }) = body {
            match json_bytes {
                Some(json_bytes) => {
                    headers.insert(JSON_BYTES, HeaderValue::from(json_bytes));
                    headers.insert(header::CONTENT_TYPE, BINARY);
                }
                None => drop(headers.insert(header::CONTENT_TYPE, JSON)),
            }
            request = request.body(reqwest::Body::wrap(Parts(parts.into())));
        }
        let response = request.headers(headers).send().await.map_err(|error| lost(&error))?;
        self.whole(response).await
    }

    async fn whole(&self, mut response: Response) -> Result<Whole, Error> {
        let too_large = || Error::TooLarge {
            what: "the answer",
            limit: self.limit,
        };
        let announced = response
            .content_length()
            .map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if announced.is_some_and(|length| length > self.limit) {
            return Err(too_large());
        }
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let json_bytes = json_bytes(&headers)?.unwrap_or_default();
        let mut body = BytesMut::with_capacity(announced.unwrap_or_default() + ALIGNMENT);
        let gap = gap(body.as_ptr().addr(), json_bytes);
        body.resize(gap, 0);
        while let Some(chunk) = response.chunk().await.map_err(|error| lost(&error))? {
            if body.len() - gap + chunk.len() > self.limit {
                return Err(too_large());
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Whole {
            status,
            headers,
            body: body.freeze().slice(gap..),
        })
    }
}

/// How far behind an address a body is put so that what follows its JSON lies right.
fn gap(address: usize, json_bytes: usize) -> usize {
    let tensors = address.wrapping_add(json_bytes);
    tensors.wrapping_neg() % ALIGNMENT
}

impl Whole {
    fn ok(self) -> Result<Self, Error> {
        if (200..300).contains(&self.status) {
            return Ok(self);
        }
        Err(self.refusal())
    }

    /// An answer of health: yes, no, or an error.
    fn yes_or_no(&self) -> Result<bool, Error> {
        let says_why = || serde_json::from_slice::<ErrorBody>(&self.body).is_ok();
        match self.status {
            200..300 => Ok(true),
            400 | 503 if !says_why() => Ok(false),
            _ => Err(self.refusal()),
        }
    }

    fn refusal(&self) -> Error {
        let message = match serde_json::from_slice::<ErrorBody>(&self.body) {
            Ok(body) => body.error,
            Err(_) => {
                let text = String::from_utf8_lossy(&self.body);
                text.trim().chars().take(MAX_SHOWN_TEXT).collect()
            }
        };
        let request_id = head::text(&self.headers, &head::REQUEST_ID).map(str::to_owned);
        Error::refused(Status::Http(self.status), message, self.retry(), request_id)
    }

    /// What a refusal says about trying again: of 429 and 503 only, and nothing said is no.
    fn retry(&self) -> Retry {
        if !matches!(self.status, 429 | 503) {
            return Retry::No;
        }
        let number = |name: &HeaderName| head::text(&self.headers, name)?.trim().parse::<u64>().ok();
        if let Some(milliseconds) = number(&head::RETRY_AFTER_MS) {
            return Retry::After(Duration::from_millis(milliseconds));
        }
        match (number(&header::RETRY_AFTER), self.headers.get(header::RETRY_AFTER)) {
            (Some(seconds), _) => Retry::After(Duration::from_secs(seconds)),
            // A date, or what nobody can read: it may be sent again, but not as soon as can be.
            (None, Some(_)) => Retry::After(Duration::from_secs(1)),
            (None, None) => Retry::No,
        }
    }
}

fn lost(error: &reqwest::Error) -> Error {
    if error.is_builder() {
        return Error::invalid(chain(error));
    }
    if error.is_connect() {
        return Error::Unreachable(chain(error));
    }
    Error::Broken(chain(error))
}

fn json_bytes(headers: &HeaderMap) -> Result<Option<usize>, Error> {
    let Some(value) = headers.get(JSON_BYTES) else {
        return Ok(None);
    };
    let number = value.to_str().ok().and_then(|text| text.parse().ok());
    number
        .map(Some)
        .ok_or_else(|| Error::Unreadable(format!("its header {JSON_BYTES} is no number")))
}

fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| Error::Unreadable(error.to_string()))
}

/// The path of a model, its name and version written so that they are each one segment.
fn path(name: &str, version: Option<&str>) -> Result<String, Error> {
    let mut path = format!("/v2/models/{}", segment("model's name", name)?);
    if let Some(version) = version {
        path.push_str("/versions/");
        path.push_str(&segment("version", version)?);
    }
    Ok(path)
}

fn segment(what: &str, text: &str) -> Result<String, Error> {
    if matches!(text, "" | "." | "..") {
        return Err(Error::invalid(format!("the {what} is '{text}', which leads nowhere")));
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~');
    Ok(text
        .bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_segment_whatever_it_holds() {
        assert_eq!(path("digits", None).unwrap(), "/v2/models/digits");
        assert_eq!(path("a/b", Some("x y")).unwrap(), "/v2/models/a%2Fb/versions/x%20y");
        assert!(path("..", None).is_err() && path("m", Some("")).is_err());
    }

    #[test]
    fn what_follows_the_json_lies_right() {
        for address in 4_096..4_112 {
            for json_bytes in 0..20 {
                assert_eq!((address + gap(address, json_bytes) + json_bytes) % ALIGNMENT, 0);
            }
        }
    }

    fn whole(status: u16, headers: &[(HeaderName, &str)], body: &str) -> Whole {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()));
        Whole {
            status,
            headers: headers.collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn only_what_is_marked_may_be_sent_again() {
        let after = |status, headers: &[(HeaderName, &str)]| whole(status, headers, "").retry();
        let seconds = [(header::RETRY_AFTER, "2")];
        assert_eq!(after(503, &[]), Retry::No);
        assert_eq!(after(500, &seconds), Retry::No);
        assert_eq!(after(429, &seconds), Retry::After(Duration::from_secs(2)));
        let both = [(header::RETRY_AFTER, "2"), (head::RETRY_AFTER_MS, "37")];
        assert_eq!(after(503, &both), Retry::After(Duration::from_millis(37)));
        let date = [(header::RETRY_AFTER, "Wed, 21 Oct 2026 07:28:00 GMT")];
        assert_eq!(after(503, &date), Retry::After(Duration::from_secs(1)));
    }

    #[test]
    fn a_refusal_has_the_servers_words_or_the_little_that_is_known() {
        let error = whole(404, &[(head::REQUEST_ID, "07")], r#"{"error":"unknown model"}"#)
            .ok()
            .unwrap_err();
        assert_eq!(error.to_string(), "unknown model (HTTP status 404)");
        let error = whole(502, &[], &"<html>".repeat(100)).ok().unwrap_err();
        assert!(error.to_string().chars().count() < 230, "{error}");
        assert_eq!(whole(503, &[], r#"{"ready":false}"#).yes_or_no(), Ok(false));
        assert_eq!(whole(400, &[], "").yes_or_no(), Ok(false));
        assert!(whole(404, &[], "").yes_or_no().is_err());
        assert!(whole(503, &[], r#"{"error":"full"}"#).yes_or_no().is_err());
    }
}
