//! An inference request from its head to its answer: read, decode, ask the router, encode.

use std::time::Duration;

use actix_web::{
    HttpRequest, HttpResponse,
    http::{
        ConnectionType,
        header::{HeaderMap, HeaderName},
    },
    web,
};
use bytes::Bytes;
use mesh_protocol::{DecodedInfer, HEADER_CONTENT_LENGTH, add_forwarded, decode_infer, decode_raw, encode_infer};
use mesh_router::{Room, View};
use mesh_types::{Fault, FaultSource, Parameters, RequestId, TraceContext};

use crate::{
    asked::Asked,
    body::{self, Body, BodyError, BodyLimits},
    packing::{self, Accepted},
    reply,
    service::{Service, credential, is_presented, selector},
};

// Made once: a name that is looked up as text is parsed and copied each time.
const JSON_BYTES_HEADER: HeaderName = HeaderName::from_static(HEADER_CONTENT_LENGTH);
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("x-request-timeout-ms");
const UNIT_HEADER: HeaderName = HeaderName::from_static("x-mesh-unit");
/// What a caller of a decoupled model is told where it has room for one answer.
pub(crate) const ONE_ANSWER: Room = Room::One(
    "HTTP end point doesn't support models with decoupled transaction policy: the model gives any number of answers, call \
     generate_stream, or ModelStreamInfer over gRPC",
);
/// The longest time a caller may ask for: a day.
const MAX_TIMEOUT_MS: u64 = 86_400_000;
/// The longest unit of stickiness, in bytes.
const MAX_UNIT_BYTES: usize = 256;

impl Service {
    /// Answers an inference request.
    pub(crate) async fn infer(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        (name, version): (&str, Option<&str>),
        id: RequestId,
    ) -> HttpResponse {
        let received = self.clock.now();
        let body = match self.body_of(request, &mut payload, name, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let decode_start = self.clock.now();
        let (head, decoded, view) = match self.read_infer(request, (name, version), &body.bytes) {
            Ok(decoded) => decoded,
            Err(fault) => {
                self.refused("malformed", id);
                return reply::fault(&fault, is_presented(request));
            }
        };
        let DecodedInfer {
            request: asked,
            outputs,
        } = decoded;
        let accepted = head.accepted;
        let asked = Asked {
            request: asked,
            bytes: body.bytes.len(),
            head,
            room: ONE_ANSWER,
            view,
            id,
            received,
            decode_start,
        };
        let answer = self.ask(request, asked).await;
        self.settle(request, answer, async |completed| {
            let encoded = encode_infer(&completed.response, &outputs)?;
            let json_bytes = encoded.header_content_length();
            packing::answer(encoded.into_chunks(), json_bytes, accepted).await
        })
        .await
    }

    /// Reads the body; what is raw bytes alone by the model's configuration, in the snapshot that answers.
    fn read_infer(
        &self,
        request: &HttpRequest,
        (name, version): (&str, Option<&str>),
        body: &Bytes,
    ) -> Result<(Head, DecodedInfer, Option<View>), Fault> {
        let version = selector(version)?;
        let head = read_head(request.headers())?;
        let (mut decoded, view) = if head.json_bytes == Some(0) {
            let view = self.router.view();
            let model = view.describe(&credential(request), name, &version)?;
            (decode_raw(name, version, body, &model.config)?, Some(view))
        } else {
            (decode_infer(name, version, body, head.json_bytes)?, None)
        };
        self.forward(request, &mut decoded.request.parameters)?;
        Ok((head, decoded, view))
    }

    /// Reads a request's body, or says why not.
    pub(crate) async fn body(
        &self,
        request: &HttpRequest,
        payload: &mut web::Payload,
        id: RequestId,
    ) -> Result<Body, HttpResponse> {
        self.body_within(request, payload, &self.limits, id).await
    }

    /// The same for a model or endpoint of this name, whose requests may have to be smaller.
    pub(crate) async fn body_of(
        &self,
        request: &HttpRequest,
        payload: &mut web::Payload,
        name: &str,
        id: RequestId,
    ) -> Result<Body, HttpResponse> {
        let declared = body::declared(request).map(|bytes| bytes as u64);
        match self.router.request_bound(|| credential(request), name, declared) {
            Some(bound) => {
                let limits = self.limits.of_model(bound);
                self.body_within(request, payload, &limits, id).await
            }
            None => self.body(request, payload, id).await,
        }
    }

    async fn body_within(
        &self,
        request: &HttpRequest,
        payload: &mut web::Payload,
        limits: &BodyLimits,
        id: RequestId,
    ) -> Result<Body, HttpResponse> {
        let error = match body::read(request, payload, limits).await {
            Ok(body) => return Ok(body),
            Err(error) => error,
        };
        self.refused("body", id);
        let mut response = match error {
            BodyError::NoRoom => reply::fault(&Fault::unavailable(FaultSource::Mesh, error.to_string()), true),
            _ => reply::refusal(error.status(), &error.to_string()),
        };
        if !body::is_done_with(request, payload, limits, &error).await {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        Err(response)
    }

    /// Adds the headers that are forwarded to a request's parameters.
    pub(crate) fn forward(&self, request: &HttpRequest, parameters: &mut Parameters) -> Result<(), Fault> {
        let Some(pattern) = &self.forward else { return Ok(()) };
        let headers = request.headers().iter();
        let gathered = pattern.gather(headers.map(|(name, value)| (name.as_str(), value.as_bytes())))?;
        Ok(add_forwarded(gathered, parameters)?)
    }
}

// What a head says beside the path.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) json_bytes: Option<usize>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) unit: Option<String>,
    pub(crate) accepted: Accepted,
}

pub(crate) fn read_head(headers: &HeaderMap) -> Result<Head, Fault> {
    Ok(Head {
        json_bytes: number(headers, &JSON_BYTES_HEADER)?,
        timeout: timeout(headers)?,
        unit: unit(headers)?,
        accepted: packing::accepted(headers)?,
    })
}

// What is no trace context starts a trace of its own.
pub(crate) fn trace_parent(headers: &HeaderMap) -> Option<TraceContext> {
    headers.get(reply::TRACEPARENT)?.to_str().ok()?.parse().ok()
}

// A header that is a whole number; once, and digits only.
fn number(headers: &HeaderMap, name: &HeaderName) -> Result<Option<usize>, Fault> {
    let mut values = headers.get_all(name);
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    match (number, values.next()) {
        (Some(number), None) => Ok(Some(number)),
        (None, None) => Err(Fault::invalid(format!(
            "the header {name} must be a whole number of 0 or more"
        ))),
        (_, Some(_)) => Err(Fault::invalid(format!("the header {name} is there more than once"))),
    }
}

/// How long a caller waits.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Fault> {
    match number(headers, &TIMEOUT_HEADER)?.map(|milliseconds| milliseconds as u64) {
        None => Ok(None),
        Some(milliseconds @ 1..=MAX_TIMEOUT_MS) => Ok(Some(Duration::from_millis(milliseconds))),
        Some(_) => Err(Fault::invalid(format!(
            "the header {TIMEOUT_HEADER} must be a whole number of milliseconds from 1 to {MAX_TIMEOUT_MS}"
        ))),
    }
}

fn unit(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get(UNIT_HEADER) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(unit) if (1..=MAX_UNIT_BYTES).contains(&unit.len()) => Ok(Some(unit.to_owned())),
        _ => Err(Fault::invalid(format!(
            "the header {UNIT_HEADER} must be 1 to {MAX_UNIT_BYTES} visible ASCII characters"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn head(pairs: &[(HeaderName, &str)]) -> Result<Head, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        read_head(&headers).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_plain_head_says_nothing() {
        let nothing = Head {
            json_bytes: None,
            timeout: None,
            unit: None,
            accepted: Accepted::Plain,
        };
        assert_eq!(head(&[]), Ok(nothing));
    }

    #[test]
    fn a_timeout_is_from_a_millisecond_to_a_day() {
        let timeout = |text: &str| head(&[(TIMEOUT_HEADER, text)]).map(|head| head.timeout);
        assert_eq!(timeout("1"), Ok(Some(Duration::from_millis(1))));
        assert_eq!(timeout("86400000"), Ok(Some(Duration::from_secs(86_400))));
        for bad in ["0", "86400001", "-1", "+1", "1.5", "1s", "", "99999999999999999999"] {
            assert!(timeout(bad).unwrap_err().contains(TIMEOUT_HEADER.as_str()), "{bad}");
        }
    }

    #[test]
    fn the_length_of_the_json_is_given_once() {
        assert_eq!(
            head(&[(JSON_BYTES_HEADER, "12")]).map(|head| head.json_bytes),
            Ok(Some(12))
        );
        let twice = [(JSON_BYTES_HEADER, "12"), (JSON_BYTES_HEADER, "12")];
        assert!(head(&twice).unwrap_err().contains("more than once"));
        assert!(head(&[(JSON_BYTES_HEADER, "x")]).is_err());
    }

    #[test]
    fn a_unit_has_a_bound() {
        let unit = |length: usize| head(&[(UNIT_HEADER, &"u".repeat(length))]);
        assert!(unit(256).is_ok());
        assert!(unit(257).is_err());
        assert!(unit(0).is_err());
    }
}
