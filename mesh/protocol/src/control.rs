//! What callers say who have models loaded and unloaded: the JSON bodies and the parameters of the messages.
//!
//! Invariants: what is not known is refused, not ignored; a model's files come with a configuration or not at all.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    error::DecodeError,
    grpc::messages::{ModelRepositoryParameter, model_repository_parameter::ParameterChoice},
};

/// The most files that a model can be loaded with.
pub const MAX_LOAD_FILES: usize = 64;
/// How the parameters begin that are files.
const FILE: &str = "file:";

/// What a model is to be made of, where that is not what its repository has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadParameters {
    /// Its configuration, in JSON.
    pub config: Option<String>,
    /// Its files, by `<version>/<name>`.
    pub files: Vec<(String, Bytes)>,
}

/// One parameter's value, of either wire.
enum Said {
    Bool(bool),
    Text(String),
    Bytes(Bytes),
    Other,
}

fn wrong(problem: impl Into<String>) -> DecodeError {
    DecodeError::Json(problem.into())
}

/// Reads the body of a load; it may be empty.
pub fn decode_load(body: &[u8]) -> Result<LoadParameters, DecodeError> {
    load(parameters(body)?)
}

/// Reads the parameters of a load's message.
pub fn load_parameters(of: BTreeMap<String, ModelRepositoryParameter>) -> Result<LoadParameters, DecodeError> {
    load(of.into_iter().map(|(name, parameter)| (name, said(parameter))))
}

/// Reads the body of an unload, which may be empty: whether the models of an ensemble's steps go too.
pub fn decode_unload(body: &[u8]) -> Result<bool, DecodeError> {
    unload(parameters(body)?)
}

/// Reads the parameters of an unload's message.
pub fn unload_parameters(of: BTreeMap<String, ModelRepositoryParameter>) -> Result<bool, DecodeError> {
    unload(of.into_iter().map(|(name, parameter)| (name, said(parameter))))
}

fn parameters(body: &[u8]) -> Result<impl Iterator<Item = (String, Said)> + use<>, DecodeError> {
    #[derive(Deserialize, Default)]
    struct Asked {
        #[serde(default)]
        parameters: BTreeMap<String, Value>,
    }
    let asked: Asked = if body.iter().all(u8::is_ascii_whitespace) {
        Asked::default()
    } else {
        serde_json::from_slice(body)?
    };
    Ok(asked.parameters.into_iter().map(|(name, value)| {
        let said = match value {
            Value::Bool(value) => Said::Bool(value),
            Value::String(text) => Said::Text(text),
            _ => Said::Other,
        };
        (name, said)
    }))
}

fn said(parameter: ModelRepositoryParameter) -> Said {
    match parameter.parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Said::Bool(value),
        Some(ParameterChoice::StringParam(text)) => Said::Text(text),
        Some(ParameterChoice::BytesParam(bytes)) => Said::Bytes(bytes),
        Some(ParameterChoice::Int64Param(_)) | None => Said::Other,
    }
}

fn load(parameters: impl IntoIterator<Item = (String, Said)>) -> Result<LoadParameters, DecodeError> {
    let mut load = LoadParameters::default();
    for (name, said) in parameters {
        match (&*name, said) {
            ("config", Said::Text(text)) => load.config = Some(text),
            ("config", _) => {
                return Err(wrong(
                    "the parameter 'config' must be a text: the configuration in JSON",
                ));
            }
            (file, said) if file.starts_with(FILE) => {
                if load.files.len() >= MAX_LOAD_FILES {
                    return Err(wrong(format!(
                        "more than {MAX_LOAD_FILES} files: put them into the repository"
                    )));
                }
                let bytes = match said {
                    Said::Bytes(bytes) => Some(bytes),
                    Said::Text(text) => STANDARD.decode(text).ok().map(Bytes::from),
                    Said::Bool(_) | Said::Other => None,
                };
                let bytes =
                    bytes.ok_or_else(|| wrong("a parameter 'file:<version>/<name>' must be base64 or bytes"))?;
                load.files
                    .push((file.strip_prefix(FILE).unwrap_or(file).to_owned(), bytes));
            }
            _ => return Err(unknown(&name, "config and file:<version>/<name>")),
        }
    }
    if load.config.is_none() && !load.files.is_empty() {
        return Err(wrong("files need the parameter 'config' beside them"));
    }
    Ok(load)
}

fn unload(parameters: impl IntoIterator<Item = (String, Said)>) -> Result<bool, DecodeError> {
    let mut dependents = false;
    for (name, said) in parameters {
        match (&*name, said) {
            ("unload_dependents", Said::Bool(value)) => dependents = value,
            ("unload_dependents", _) => return Err(wrong("the parameter 'unload_dependents' must be a boolean")),
            _ => return Err(unknown(&name, "unload_dependents")),
        }
    }
    Ok(dependents)
}

fn unknown(name: &str, right: &str) -> DecodeError {
    let name: String = name.chars().take(60).collect();
    wrong(format!("unknown parameter '{name}': there is {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_of(parameters: &str) -> Result<LoadParameters, String> {
        let body = format!("{{\"parameters\":{{{parameters}}}}}");
        decode_load(body.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_load_says_nothing_a_configuration_or_files_with_one() {
        for empty in ["", " ", "{}", "{\"parameters\":{}}"] {
            assert_eq!(decode_load(empty.as_bytes()), Ok(LoadParameters::default()), "{empty}");
        }
        let load = load_of(r#""config":"{}","file:1/model.pt":"YWJj""#).unwrap();
        assert_eq!(load.config.as_deref(), Some("{}"));
        assert_eq!(load.files, [("1/model.pt".to_owned(), Bytes::from("abc"))]);
        for (bad, part) in [
            (r#""config":{}"#, "must be a text"),
            (r#""file:1/m":"YWJj""#, "need the parameter 'config'"),
            (r#""config":"{}","file:1/m":"!""#, "base64"),
            (r#""config":"{}","file:1/m":1"#, "base64"),
            (r#""speed":1"#, "unknown parameter 'speed'"),
        ] {
            assert!(load_of(bad).unwrap_err().contains(part), "{bad}");
        }
        assert!(decode_load(b"[").is_err());
    }

    #[test]
    fn two_parameters_are_two_files_whatever_their_names_begin_with() {
        let load = load_of(r#""config":"{}","file:1/m":"YWJj","file:file:1/m":"ZGVm""#).unwrap();
        let named = |(name, bytes): (&str, &'static str)| (name.to_owned(), Bytes::from(bytes));
        assert_eq!(load.files, [("1/m", "abc"), ("file:1/m", "def")].map(named));
    }

    #[test]
    fn as_many_files_as_there_may_be_and_not_one_more() {
        let with = |files: usize| {
            let files: Vec<String> = (0..files).map(|file| format!("\"file:1/{file}\":\"\"")).collect();
            load_of(&format!("\"config\":\"{{}}\",{}", files.join(",")))
        };
        assert_eq!(with(MAX_LOAD_FILES).unwrap().files.len(), MAX_LOAD_FILES);
        assert!(with(MAX_LOAD_FILES + 1).unwrap_err().contains("more than 64 files"));
    }

    #[test]
    fn an_unload_may_take_dependents_along() {
        let of = |text: &str| decode_unload(text.as_bytes());
        assert_eq!(of(""), Ok(false));
        assert_eq!(of(r#"{"parameters":{"unload_dependents":true}}"#), Ok(true));
        assert!(of(r#"{"parameters":{"unload_dependents":1}}"#).is_err());
        assert!(of(r#"{"parameters":{"x":true}}"#).is_err());
    }

    #[test]
    fn messages_say_the_same() {
        let parameter = |choice| ModelRepositoryParameter {
            parameter_choice: Some(choice),
        };
        let of = BTreeMap::from([
            (
                "config".to_owned(),
                parameter(ParameterChoice::StringParam("{}".to_owned())),
            ),
            (
                "file:1/m".to_owned(),
                parameter(ParameterChoice::BytesParam(Bytes::from("abc"))),
            ),
        ]);
        let load = load_parameters(of).unwrap();
        assert_eq!(load.files, [("1/m".to_owned(), Bytes::from("abc"))]);
        let of = BTreeMap::from([(
            "unload_dependents".to_owned(),
            parameter(ParameterChoice::BoolParam(true)),
        )]);
        assert_eq!(unload_parameters(of), Ok(true));
        let of = BTreeMap::from([("config".to_owned(), parameter(ParameterChoice::Int64Param(1)))]);
        assert!(load_parameters(of).is_err());
    }
}
