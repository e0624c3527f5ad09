//! Walks a configuration's text along the tables: what is taken becomes JSON by the same names, the rest becomes notes.
//!
//! Remembers the line of every field by its path, in the form in which `mesh_types` names fields (`input[0].dims`), so that a
//! problem that is found later still has its line.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Number, Value as Json};

use crate::{
    note::{Notes, Place, Weight},
    schema::{Fate, Kind, Rule, Times},
    text::{Field, Message, Value, special},
};

/// The file that every place in a configuration is in.
pub(crate) const CONFIG: &str = "config.pbtxt";

/// The type that is none.
const INVALID: &str = "TYPE_INVALID";
/// The most of a foreign word that a message repeats.
const MAX_SHOWN: usize = 60;

/// The lines of fields by their paths.
#[derive(Debug, Default)]
pub(crate) struct Lines(BTreeMap<String, u32>);

impl Lines {
    /// The line of a field, or of the nearest that it lies within.
    pub(crate) fn place(&self, path: &str) -> Place {
        let mut path = path;
        let line = loop {
            match self.0.get(path) {
                Some(line) => break Some(*line),
                None => match path.rfind(['.', '[']) {
                    Some(end) => path = path.get(..end).unwrap_or_default(),
                    None => break None,
                },
            }
        };
        let file = CONFIG.to_owned();
        Place { file, line }
    }

    /// Whether the field is written.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

pub(crate) struct Reader<'a> {
    pub(crate) notes: &'a mut Notes,
    pub(crate) lines: Lines,
}

impl Reader<'_> {
    /// What a message says, as far as it is taken.
    pub(crate) fn message(&mut self, message: &Message, rules: &'static [Rule], path: &str) -> Map<String, Json> {
        let (mut object, mut seen) = (Map::new(), HashSet::new());
        for field in &message.fields {
            let Some(rule) = rules.iter().find(|rule| rule.name == field.name) else {
                let path = join(path, &shown(&field.name));
                self.say(
                    Weight::Ignored,
                    format!("unknown field '{path}' is ignored"),
                    field,
                    "Triton's model configuration has none of this name",
                );
                continue;
            };
            let mapped = matches!(rule.kind, Kind::ByText(_) | Kind::ByNumber(_));
            let once = !mapped && matches!(rule.times, Times::Once | Times::Needed);
            if !seen.insert(rule.name) && once {
                let what = format!("{} is there twice", join(path, rule.name));
                self.say(Weight::Refused, what, field, "write it once");
                continue;
            }
            self.field(field, rule, path, &mut object);
        }
        for rule in rules.iter().filter(|rule| !seen.contains(rule.name)) {
            match rule.times {
                Times::Needed => {
                    let what = format!("{} is missing", join(path, rule.name));
                    self.notes.refuse(what, Some(self.lines.place(path)), "write it");
                }
                Times::List => {
                    object.insert(rule.name.to_owned(), Json::Array(Vec::new()));
                }
                Times::Once | Times::Many => {}
            }
        }
        object
    }

    fn say(&mut self, weight: Weight, what: String, field: &Field, right: &str) {
        let place = Place {
            file: CONFIG.to_owned(),
            line: Some(field.line),
        };
        self.notes.say(weight, what, Some(place), right);
    }

    /// Puts a field's value where it belongs.
    fn field(&mut self, field: &Field, rule: &'static Rule, path: &str, object: &mut Map<String, Json>) {
        let whole = join(path, rule.name);
        self.lines.0.entry(whole.clone()).or_insert(field.line);
        match rule.fate {
            Fate::Quiet => return,
            Fate::Ignored(why) if says_something(&field.value, rule.kind) => {
                return self.say(Weight::Ignored, format!("{whole} is ignored"), field, why);
            }
            Fate::Refused(right) if says_something(&field.value, rule.kind) => {
                return self.say(Weight::Refused, format!("{whole} is not supported"), field, right);
            }
            Fate::Ignored(_) | Fate::Refused(_) => return,
            Fate::Taken => {}
        }
        match (rule.kind, rule.times) {
            (Kind::ByText(kind) | Kind::ByNumber(kind), _) => {
                let numbered = matches!(rule.kind, Kind::ByNumber(_));
                let entry = self.entry(field, kind, &whole, numbered);
                let slot = object.entry(rule.name).or_insert_with(|| Json::Object(Map::new()));
                if let (Json::Object(entries), Some((key, value))) = (slot, entry) {
                    entries.insert(key, value);
                }
            }
            (kind, Times::Many | Times::List) => {
                let slot = object.entry(rule.name).or_insert_with(|| Json::Array(Vec::new()));
                let index = slot.as_array().map_or(0, Vec::len);
                let own = format!("{whole}[{index}]");
                let value = self.value(field, kind, &own);
                if let (Json::Array(list), Some(value)) = (slot, value) {
                    list.push(value);
                }
            }
            (kind, _) => {
                if let Some(value) = self.value(field, kind, &whole) {
                    object.insert(rule.name.to_owned(), value);
                }
            }
        }
    }

    /// One entry of a map: a message of a key and a value.
    fn entry(&mut self, field: &Field, kind: &'static Kind, whole: &str, numbered: bool) -> Option<(String, Json)> {
        let parts = match &field.value {
            Value::Message(entry) => entry.fields.as_slice(),
            _ => &[],
        };
        let part = |wanted: &str| parts.iter().find(|field| field.name == wanted);
        for other in parts.iter().filter(|part| !matches!(&*part.name, "key" | "value")) {
            let what = format!("unknown field '{whole}.{}' is ignored", shown(&other.name));
            self.say(Weight::Ignored, what, other, "an entry has a key and a value");
        }
        let key = match part("key").map(|key| &key.value) {
            Some(Value::Text(key)) if !numbered => key.clone(),
            Some(Value::Integer(key)) if numbered => key.to_string(),
            _ => {
                let right = if numbered {
                    "{ key: 1 value: { .. } }"
                } else {
                    "{ key: \"..\" value: .. }"
                };
                let what = format!("{whole} has an entry without a key");
                self.say(Weight::Refused, what, field, &format!("write {right}"));
                return None;
            }
        };
        let own = if numbered {
            format!("{whole}[{key}]")
        } else {
            format!("{whole}.{}", shown(&key))
        };
        self.lines.0.insert(own.clone(), field.line);
        let nothing = Field {
            name: String::new(),
            line: field.line,
            value: match kind {
                Kind::Message(_) => Value::Message(Message::default()),
                _ => Value::Text(String::new()),
            },
        };
        let value = self.value(part("value").unwrap_or(&nothing), *kind, &own)?;
        Some((key, value))
    }

    /// One value, if it is of its kind.
    fn value(&mut self, field: &Field, kind: Kind, path: &str) -> Option<Json> {
        self.lines.0.entry(path.to_owned()).or_insert(field.line);
        let (value, right) = match (kind, &field.value) {
            (Kind::Message(rules), Value::Message(message)) => {
                return Some(Json::Object(self.message(message, rules, path)));
            }
            (Kind::Message(_) | Kind::ByText(_) | Kind::ByNumber(_), _) => (None, "a message in braces".to_owned()),
            (Kind::Bool, value) => (boolean(value).map(Json::Bool), "true or false".to_owned()),
            (Kind::Text, Value::Text(text)) => (Some(Json::String(text.clone())), String::new()),
            (Kind::Text, _) => (None, "a text in quotes".to_owned()),
            (Kind::Number(least, most), Value::Integer(number)) if (least..=most).contains(number) => {
                (Number::from_i128(*number).map(Json::Number), String::new())
            }
            (Kind::Number(least, most), _) => (None, format!("a whole number from {least} to {most}")),
            (Kind::Real, value) => (real(value), "a number".to_owned()),
            (Kind::Choice(names), value) => (
                choice(value, names),
                format!("one of {}, without quotes", listed(names)),
            ),
        };
        if value.is_none() {
            let what = format!("{path} is {}", describe(&field.value));
            self.say(Weight::Refused, what, field, &format!("write {right}"));
        }
        value
    }
}

/// The path of a field within another.
fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        return name.to_owned();
    }
    format!("{path}.{name}")
}

fn shown(text: &str) -> String {
    text.chars().take(MAX_SHOWN).collect()
}

fn describe(value: &Value) -> String {
    match value {
        Value::Message(_) => "a message".to_owned(),
        Value::Text(text) => format!("the text '{}'", shown(text)),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Word(word) => format!("'{}'", shown(word)),
    }
}

/// Whether a value is other than its kind's default. A message that is there says something.
fn says_something(value: &Value, kind: Kind) -> bool {
    match value {
        Value::Message(_) => true,
        Value::Text(text) => !text.is_empty(),
        Value::Integer(number) => *number != 0,
        Value::Float(number) => *number != 0.0,
        Value::Word(word) => match kind {
            Kind::Choice(names) => names.first() != Some(&word.as_str()),
            _ => boolean(value) != Some(false),
        },
    }
}

fn boolean(value: &Value) -> Option<bool> {
    match value {
        Value::Word(word) => match word.as_str() {
            "true" | "True" | "t" => Some(true),
            "false" | "False" | "f" => Some(false),
            _ => None,
        },
        Value::Integer(0) => Some(false),
        Value::Integer(1) => Some(true),
        _ => None,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number with a fraction is asked for")]
fn real(value: &Value) -> Option<Json> {
    let number = match value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        Value::Word(word) => special(word)?,
        _ => return None,
    };
    Number::from_f64(number).map(Json::Number)
}

fn listed(names: &[&str]) -> String {
    let valid: Vec<&str> = names.iter().copied().filter(|name| *name != INVALID).collect();
    valid.join(", ")
}

fn choice(value: &Value, names: &[&str]) -> Option<Json> {
    let name = match value {
        Value::Word(word) => names.iter().find(|name| *name == word)?,
        Value::Integer(number) => names.get(usize::try_from(*number).ok()?)?,
        _ => return None,
    };
    (*name != INVALID).then(|| Json::String((*name).to_owned()))
}
