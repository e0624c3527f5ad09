//! CloudEvents 1.0 whose body is the event (structured mode): the request within one, and an answer in one.
//!
//! Owns the envelope and what its attributes must be, in either mode; which headers hold them in binary mode, and that a body is an event
//! at all, the door knows. The data stays where it is in the body.

use std::borrow::Cow;

use bytes::Bytes;
use mesh_types::Fault;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::error::what_is_no_json;

/// The longest attribute of an event, in bytes.
pub const MAX_ATTRIBUTE_BYTES: usize = 1_024;
/// What kind of event an answer is, as KServe has it.
pub const RESPONSE_TYPE: &str = "io.kserve.inference.response";

/// Why a request is no event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each variant's message says what it is, and the fields are what the message names"
)]
pub enum EventError {
    #[error("the body is no CloudEvent: {0}")]
    Json(String),
    #[error("the CloudEvent's 'specversion' must be 1.0")]
    Version,
    #[error("the CloudEvent's '{0}' must have 1 to {MAX_ATTRIBUTE_BYTES} bytes")]
    Attribute(&'static str),
    #[error("the CloudEvent has no 'data', which is the request in JSON")]
    NoData,
}

impl From<EventError> for Fault {
    fn from(error: EventError) -> Self {
        Self::invalid(error.to_string())
    }
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

/// The id of the event that a body is, and the request in it.
pub fn decode_event(body: &Bytes) -> Result<(String, Bytes), EventError> {
    let wrong = |error| EventError::Json(what_is_no_json(&error));
    let envelope: Envelope<'_> = serde_json::from_slice(body).map_err(wrong)?;
    check_event(&envelope.specversion, &envelope.id, &envelope.source, &envelope.kind)?;
    let data = envelope.data.ok_or(EventError::NoData)?;
    let id = envelope.id.into_owned();
    Ok((id, body.slice_ref(data.get().as_bytes())))
}

/// Whether an event's attributes are what they must be.
pub fn check_event(version: &str, id: &str, source: &str, kind: &str) -> Result<(), EventError> {
    if version != "1.0" {
        return Err(EventError::Version);
    }
    let attributes = [("id", id), ("source", source), ("type", kind)];
    let wrong = |(_, value): &(&str, &str)| !(1..=MAX_ATTRIBUTE_BYTES).contains(&value.len());
    match attributes.into_iter().find(wrong) {
        Some((name, _)) => Err(EventError::Attribute(name)),
        None => Ok(()),
    }
}

/// An answer's body as the data of an event.
pub fn event_body(id: &str, source: &str, data: &[u8]) -> Vec<u8> {
    let head = json!({"specversion": "1.0", "id": id, "source": source, "type": RESPONSE_TYPE,
        "datacontenttype": "application/json"});
    let mut out = head.to_string().into_bytes();
    // The answer may hold numbers that JSON has none of: it is put in as it is.
    out.pop();
    out.extend_from_slice(b",\"data\":");
    out.extend_from_slice(data);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &'static str) -> Result<(String, Bytes), String> {
        decode_event(&Bytes::from_static(body.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn the_request_within_an_event_shares_its_memory() {
        let body =
            Bytes::from_static(br#"{"data": {"x":[1]} ,"id":"\u0037","source":"s","type":"t","specversion":"1.0"}"#);
        let (id, data) = decode_event(&body).unwrap();
        assert_eq!((&*id, &data[..]), ("7", &br#"{"x":[1]}"#[..]));
        assert!(body.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn an_event_has_its_attributes_and_data() {
        for (body, text) in [
            ("{}", "the body is no CloudEvent: missing field `specversion`"),
            ("[", "the body is no CloudEvent"),
            (
                r#"{"specversion":"0.3","id":"7","source":"s","type":"t","data":1}"#,
                "must be 1.0",
            ),
            (
                r#"{"specversion":"1.0","id":"","source":"s","type":"t","data":1}"#,
                "'id' must have 1 to 1024 bytes",
            ),
            (r#"{"specversion":"1.0","id":"7","source":"s","type":"t"}"#, "no 'data'"),
        ] {
            let error = read(body).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_in_few_words_whatever_was_sent() {
        let error = decode_event(&format!("\"{}\"", "n".repeat(100_000)).into()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.len() < 500 && text.contains("no CloudEvent") && text.ends_with("column 100002"),
            "{text}"
        );
    }

    #[test]
    fn attributes_have_bounds() {
        let long = "i".repeat(MAX_ATTRIBUTE_BYTES + 1);
        let checked = |id: &str, source: &str, kind: &str| check_event("1.0", id, source, kind);
        assert_eq!(checked(&long[1..], &long[1..], &long[1..]), Ok(()));
        for (name, given) in [
            ("id", [&*long, "s", "t"]),
            ("source", ["i", &long, "t"]),
            ("type", ["i", "s", &long]),
        ] {
            let [id, source, kind] = given;
            assert_eq!(checked(id, source, kind), Err(EventError::Attribute(name)));
        }
        assert_eq!(checked("i", "s", ""), Err(EventError::Attribute("type")));
    }

    #[test]
    fn an_answer_in_an_event_is_read_back() {
        let body = event_body("a \"7\"", "io.kserve.inference.m", b"{\"predictions\":[1]}");
        let whole: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            whole,
            json!({"specversion": "1.0", "id": "a \"7\"", "source": "io.kserve.inference.m", "type": RESPONSE_TYPE,
                "datacontenttype": "application/json", "data": {"predictions": [1]}})
        );
        let (id, data) = decode_event(&body.into()).unwrap();
        assert_eq!((&*id, &data[..]), ("a \"7\"", &b"{\"predictions\":[1]}"[..]));
    }
}
