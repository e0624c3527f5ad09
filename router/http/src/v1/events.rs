//! CloudEvents 1.0 around a prediction: structured (the event is the body) and binary (its attributes are headers).
//!
//! The answer is an event in the same mode, with the caller's id, and the source and type that KServe gives.

use std::borrow::Cow;

use actix_web::{
    HttpResponse,
    http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;
use mesh_types::Fault;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

const STRUCTURED: &str = "application/cloudevents+json";
const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
const ID: HeaderName = HeaderName::from_static("ce-id");
const SOURCE: HeaderName = HeaderName::from_static("ce-source");
const TYPE: HeaderName = HeaderName::from_static("ce-type");
const RESPONSE_TYPE: &str = "io.kserve.inference.response";
/// The longest attribute of an event, in bytes.
const MAX_ATTRIBUTE_BYTES: usize = 1_024;

/// The event that a request is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Structured { id: String },
    Binary { id: String },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// The event, if the request is one, and the body within it.
pub(crate) fn unwrap(headers: &HeaderMap, body: &Bytes) -> Result<(Option<Event>, Bytes), Fault> {
    let structured = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let structured = structured.and_then(|text| text.get(..STRUCTURED.len()));
    if structured.is_some_and(|text| text.eq_ignore_ascii_case(STRUCTURED)) {
        let envelope: Envelope<'_> = serde_json::from_slice(body)
            .map_err(|error| Fault::invalid(format!("the body is no CloudEvent: {error}")))?;
        check(&envelope.specversion, &envelope.id, &envelope.source, &envelope.kind)?;
        let data = envelope
            .data
            .ok_or_else(|| Fault::invalid("the CloudEvent has no 'data', which is the request in JSON"))?;
        let id = envelope.id.into_owned();
        return Ok((Some(Event::Structured { id }), body.slice_ref(data.get().as_bytes())));
    }
    if !headers.contains_key(SPEC_VERSION) {
        return Ok((None, body.clone()));
    }
    let attribute = |name: &HeaderName| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    };
    let id = attribute(&ID);
    check(attribute(&SPEC_VERSION), id, attribute(&SOURCE), attribute(&TYPE))?;
    Ok((Some(Event::Binary { id: id.to_owned() }), body.clone()))
}

fn check(version: &str, id: &str, source: &str, kind: &str) -> Result<(), Fault> {
    if version != "1.0" {
        return Err(Fault::invalid("the CloudEvent's 'specversion' must be 1.0"));
    }
    for (name, value) in [("id", id), ("source", source), ("type", kind)] {
        if !(1..=MAX_ATTRIBUTE_BYTES).contains(&value.len()) {
            return Err(Fault::invalid(format!(
                "the CloudEvent's '{name}' must have 1 to {MAX_ATTRIBUTE_BYTES} bytes"
            )));
        }
    }
    Ok(())
}

impl Event {
    /// The answer's body in its event.
    pub(crate) fn wrap(&self, model: &str, body: Vec<u8>) -> Vec<u8> {
        let Self::Structured { id } = self else { return body };
        let head = json!({"specversion": "1.0", "id": id, "source": source(model), "type": RESPONSE_TYPE,
            "datacontenttype": "application/json"});
        let mut out = head.to_string().into_bytes();
        // The answer may hold numbers that JSON has none of: it is put in as it is.
        out.pop();
        out.extend_from_slice(b",\"data\":");
        out.extend_from_slice(&body);
        out.push(b'}');
        out
    }

    /// What the answer's head says of its event.
    pub(crate) fn mark(&self, model: &str, response: &mut HttpResponse) {
        let headers = response.headers_mut();
        let id = match self {
            Self::Structured { .. } => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED));
                return;
            }
            Self::Binary { id } => id,
        };
        headers.insert(SPEC_VERSION, HeaderValue::from_static("1.0"));
        headers.insert(TYPE, HeaderValue::from_static(RESPONSE_TYPE));
        for (name, text) in [(ID, id.as_str()), (SOURCE, &source(model))] {
            if let Ok(value) = HeaderValue::from_str(text) {
                headers.insert(name, value);
            }
        }
    }
}

fn source(model: &str) -> String {
    format!("io.kserve.inference.{model}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.insert(name.clone(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn an_event_is_its_body_or_in_its_headers_and_anything_else_is_none() {
        let structured = headers(&[(CONTENT_TYPE, "application/cloudevents+json; charset=utf-8")]);
        let body =
            Bytes::from_static(br#"{"specversion":"1.0","id":"7","source":"s","type":"t","data":{"instances":[1]}}"#);
        let (event, inner) = unwrap(&structured, &body).unwrap();
        assert_eq!(event, Some(Event::Structured { id: "7".to_owned() }));
        assert_eq!(&inner[..], br#"{"instances":[1]}"#);
        let binary = headers(&[(SPEC_VERSION, "1.0"), (ID, "8"), (SOURCE, "s"), (TYPE, "t")]);
        let (event, inner) = unwrap(&binary, &body).unwrap();
        assert_eq!(
            (event, inner),
            (Some(Event::Binary { id: "8".to_owned() }), body.clone())
        );
        assert_eq!(unwrap(&headers(&[]), &body).unwrap(), (None, body));
    }

    #[test]
    fn an_event_needs_its_attributes() {
        let structured = headers(&[(CONTENT_TYPE, STRUCTURED)]);
        for (body, text) in [
            ("{}", "specversion"),
            (
                r#"{"specversion":"0.3","id":"7","source":"s","type":"t","data":1}"#,
                "must be 1.0",
            ),
            (
                r#"{"specversion":"1.0","id":"","source":"s","type":"t","data":1}"#,
                "'id'",
            ),
            (r#"{"specversion":"1.0","id":"7","source":"s","type":"t"}"#, "'data'"),
        ] {
            let fault = unwrap(&structured, &Bytes::from(body)).unwrap_err();
            assert!(fault.message.contains(text), "{fault}");
        }
        let long = "i".repeat(MAX_ATTRIBUTE_BYTES + 1);
        for (id, well) in [(&long[1..], true), (&long[..], false)] {
            let binary = headers(&[(SPEC_VERSION, "1.0"), (ID, id), (SOURCE, "s"), (TYPE, "t")]);
            assert_eq!(unwrap(&binary, &Bytes::new()).is_ok(), well);
        }
    }

    #[test]
    fn the_answer_is_an_event_of_the_same_id() {
        let event = Event::Structured { id: "7".to_owned() };
        let body: serde_json::Value =
            serde_json::from_slice(&event.wrap("m", b"{\"predictions\":[1]}".to_vec())).unwrap();
        assert_eq!(
            body,
            json!({"specversion": "1.0", "id": "7", "source": "io.kserve.inference.m", "type": RESPONSE_TYPE,
                "datacontenttype": "application/json", "data": {"predictions": [1]}})
        );
        let event = Event::Binary { id: "8".to_owned() };
        assert_eq!(event.wrap("m", b"{}".to_vec()), b"{}");
        let mut response = HttpResponse::Ok().finish();
        event.mark("m", &mut response);
        assert_eq!(response.headers().get(ID).unwrap(), "8");
    }
}
