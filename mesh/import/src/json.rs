//! A model configuration in protobuf's JSON, read into the form that `config.pbtxt` is read into.
//!
//! Clients send it with a load. In that form whole numbers may be texts, names of enumerations are, maps are objects, and a
//! field's name may be written in camel case. What is not of its field's kind is handed on as it is: who reads the form says so.
//!
//! Invariants: the text is bounded as `config.pbtxt` is, and its nesting by the reader of JSON.

use serde_json::{Map, Value as Json};

use crate::{
    schema::{Kind, Rule, tables::MODEL},
    text::{Field, MAX_TEXT_BYTES, Message, Value},
};

/// What Triton's server learns from a model's file where a configuration does not say it; here from the repository's.
const LEARNT: [&str; 6] = [
    "platform",
    "backend",
    "runtime",
    "default_model_filename",
    "input",
    "output",
];

/// Reads a configuration, completed by the repository's own.
pub(crate) fn parse(text: &str, own: Option<&Message>) -> Result<Message, String> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(format!("it has more than {MAX_TEXT_BYTES} bytes"));
    }
    let object: Map<String, Json> =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON object: {error}"))?;
    let mut said = message(object, MODEL);
    let names: Vec<String> = said.fields.iter().map(|field| field.name.clone()).collect();
    let says = |name: &str| names.iter().any(|said| said == name);
    // Of what runs it a part says all.
    let runs = says("platform") || says("backend");
    let learnt = |field: &&Field| {
        let name = &*field.name;
        LEARNT.contains(&name) && !says(name) && !(runs && matches!(name, "platform" | "backend" | "runtime"))
    };
    said.fields
        .extend(own.iter().flat_map(|own| &own.fields).filter(learnt).cloned());
    Ok(said)
}

fn message(object: Map<String, Json>, rules: &'static [Rule]) -> Message {
    let mut fields = Vec::new();
    for (name, value) in object {
        let rule = rules
            .iter()
            .find(|rule| rule.name == name || is_camel(&name, rule.name));
        let name = rule.map_or(name, |rule| rule.name.to_owned());
        let kind = rule.map(|rule| rule.kind);
        match (kind, value) {
            (_, Json::Null) => {}
            (Some(Kind::ByText(of)), Json::Object(entries)) => {
                fields.extend(entries.into_iter().map(|entry| {
                    let key = Value::Text(entry.0);
                    field(&name, pair(key, entry.1, *of))
                }));
            }
            (Some(Kind::ByNumber(of)), Json::Object(entries)) => {
                fields.extend(entries.into_iter().map(|entry| {
                    let key = entry.0.parse().map_or(Value::Text(entry.0), Value::Integer);
                    field(&name, pair(key, entry.1, *of))
                }));
            }
            (kind, Json::Array(items)) => fields.extend(items.into_iter().map(|item| field(&name, of(item, kind)))),
            (kind, value) => fields.push(field(&name, of(value, kind))),
        }
    }
    Message { fields }
}

fn field(name: &str, value: Value) -> Field {
    Field {
        name: name.to_owned(),
        line: 1,
        value,
    }
}

fn pair(key: Value, value: Json, kind: Kind) -> Value {
    Value::Message(Message {
        fields: vec![field("key", key), field("value", of(value, Some(kind)))],
    })
}

fn of(value: Json, kind: Option<Kind>) -> Value {
    match (value, kind) {
        (Json::Object(object), Some(Kind::Message(rules))) => Value::Message(message(object, rules)),
        (Json::Object(object), _) => Value::Message(message(object, &[])),
        (Json::String(text), Some(Kind::Number(..))) => text.parse().map_or(Value::Text(text), Value::Integer),
        (Json::String(text), Some(Kind::Choice(_) | Kind::Real)) => Value::Word(text),
        (Json::String(text), _) => Value::Text(text),
        (Json::Bool(value), _) => Value::Word(value.to_string()),
        (Json::Number(number), _) => match (number.as_i128(), number.as_f64()) {
            (Some(whole), _) => Value::Integer(whole),
            (None, Some(number)) => Value::Float(number),
            (None, None) => Value::Text(number.to_string()),
        },
        // A list within a list, or nothing in one: no field holds them.
        (other, _) => Value::Text(other.to_string()),
    }
}

/// Whether the one is the other in camel case.
fn is_camel(camel: &str, name: &str) -> bool {
    let mut written = String::with_capacity(name.len());
    let mut up = false;
    for character in name.chars() {
        match character {
            '_' => up = true,
            other if up => {
                written.push(other.to_ascii_uppercase());
                up = false;
            }
            other => written.push(other),
        }
    }
    written == camel
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn same(json: &str, text: &str) {
        assert_eq!(parse(json, None), Ok(flat(Message::parse(text).unwrap())), "{json}");
    }

    /// Without the lines, which JSON has none of; fields in the order of their names, as JSON's are.
    fn flat(mut message: Message) -> Message {
        for field in &mut message.fields {
            field.line = 1;
            if let Value::Message(inner) = &field.value {
                field.value = Value::Message(flat(inner.clone()));
            }
        }
        message
    }

    #[test]
    fn every_kind_reads_as_it_does_in_text() {
        same(r#"{"max_batch_size":"16"}"#, "max_batch_size: 16");
        same(r#"{"maxBatchSize":16}"#, "max_batch_size: 16");
        same(
            r#"{"input":[{"data_type":"TYPE_FP32","dims":["3",-1],"name":"x"}]}"#,
            r#"input { data_type: TYPE_FP32 dims: 3 dims: -1 name: "x" }"#,
        );
        same(
            r#"{"parameters":{"k":{"string_value":"v"}}}"#,
            r#"parameters { key: "k" value: { string_value: "v" } }"#,
        );
        same(
            r#"{"dynamic_batching":{"preserve_ordering":true,"priority_queue_policy":{"2":{"max_queue_size":9}}}}"#,
            "dynamic_batching { preserve_ordering: true priority_queue_policy { key: 2 value: { max_queue_size: 9 } } }",
        );
        same(r#"{"max_batch_size":null,"of_nobody":"x"}"#, r#"of_nobody: "x""#);
    }

    #[test]
    fn what_a_model_is_stays_where_it_is_not_said() {
        let own =
            Message::parse(r#"backend: "add_sub" max_batch_size: 8 input { name: "x" } dynamic_batching { }"#).unwrap();
        let names = |json: &str| {
            let read = parse(json, Some(&own)).unwrap();
            // The order of an object's fields says nothing.
            read.fields.into_iter().map(|field| field.name).collect::<BTreeSet<_>>()
        };
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(
            names(r#"{"max_batch_size":"16"}"#),
            set(&["max_batch_size", "backend", "input"])
        );
        assert_eq!(
            names(r#"{"platform":"pytorch_libtorch","input":[{"name":"y"}]}"#),
            set(&["input", "platform"])
        );
    }

    #[test]
    fn what_is_no_object_or_too_long_is_refused() {
        for bad in ["", "{", "[]", "3", "{\"a\":}"] {
            assert!(parse(bad, None).unwrap_err().contains("no JSON object"), "{bad}");
        }
        let text = |bytes: usize| format!("{{\"name\":\"{}\"}}", "n".repeat(bytes - 11));
        assert!(parse(&text(MAX_TEXT_BYTES), None).is_ok());
        assert!(
            parse(&text(MAX_TEXT_BYTES + 1), None)
                .unwrap_err()
                .contains("more than")
        );
        let deep = format!("{}1{}", "{\"input\":".repeat(200), "}".repeat(200));
        assert!(parse(&deep, None).is_err());
    }
}
