//! CloudEvents 1.0 around a prediction: structured (the event is the body) and binary (its attributes are headers).
//!
//! The answer is an event in the same mode, with the caller's id, and the source and type that KServe gives.

use actix_web::{
    HttpResponse,
    http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use bytes::Bytes;
use mesh_protocol::v1::{RESPONSE_TYPE, check_event, decode_event, event_body};
use mesh_types::Fault;

const STRUCTURED: &str = "application/cloudevents+json";
const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
const ID: HeaderName = HeaderName::from_static("ce-id");
const SOURCE: HeaderName = HeaderName::from_static("ce-source");
const TYPE: HeaderName = HeaderName::from_static("ce-type");

/// The event that a request is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Structured { id: String },
    Binary { id: String },
}

/// The event, if the request is one, and the body within it.
pub(crate) fn unwrap(headers: &HeaderMap, body: &Bytes) -> Result<(Option<Event>, Bytes), Fault> {
    let structured = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let structured = structured.and_then(|text| text.get(..STRUCTURED.len()));
    if structured.is_some_and(|text| text.eq_ignore_ascii_case(STRUCTURED)) {
        let (id, data) = decode_event(body)?;
        return Ok((Some(Event::Structured { id }), data));
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
    check_event(attribute(&SPEC_VERSION), id, attribute(&SOURCE), attribute(&TYPE))?;
    Ok((Some(Event::Binary { id: id.to_owned() }), body.clone()))
}

impl Event {
    /// The answer's body in its event.
    pub(crate) fn wrap(&self, model: &str, body: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Structured { id } => event_body(id, &source(model), &body),
            Self::Binary { .. } => body,
        }
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
    use mesh_protocol::v1::MAX_ATTRIBUTE_BYTES;
    use serde_json::json;

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
        let fault = unwrap(&structured, &Bytes::from_static(b"{}")).unwrap_err();
        assert!(fault.message.contains("specversion"), "{fault}");
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
