//! What is traced and what is logged, as both wires write and change it.
//!
//! Of Triton's settings those mean something here that say how much is traced and logged, and how times are written. Where that goes is
//! the operator's to say at the start of the server, so those settings can be read and not changed.

use std::collections::BTreeMap;

use mesh_types::{Change, LogChange, LogSettings, LogTimes, TraceChange, TraceSettings};
use serde_json::{Map, Value, json};

use crate::{
    error::{DecodeError, quoted},
    grpc::messages::{
        LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse, log_settings_request,
        log_settings_response, log_settings_response::setting_value::ParameterChoice as LogValue,
        trace_setting_response,
    },
};

/// The largest body that changes settings.
const MAX_BODY_BYTES: usize = 16 * 1024;
const OFF: &str = "OFF";
const TIMESTAMPS: &str = "TIMESTAMPS";
const TIMES: &str = "'default' or 'ISO8601'";

fn wrong(problem: String) -> DecodeError {
    DecodeError::Setting(problem)
}

fn read_only(name: &str, why: &'static str) -> DecodeError {
    DecodeError::ReadOnly {
        name: quoted(name),
        why,
    }
}

fn object(body: &[u8]) -> Result<Map<String, Value>, DecodeError> {
    if body.len() > MAX_BODY_BYTES {
        return Err(wrong(format!(
            "settings take at most {MAX_BODY_BYTES} bytes, got {}",
            body.len()
        )));
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    Ok(serde_json::from_slice(body)?)
}

/// Reads a change of what is traced.
pub fn decode_trace_change(body: &[u8]) -> Result<TraceChange, DecodeError> {
    let mut change = TraceChange::default();
    for (name, value) in &object(body)? {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let values = match value {
            Value::Null => Some(Vec::new()),
            Value::Array(values) if !values.is_empty() => values.iter().map(text).collect(),
            value => text(value).map(|text| vec![text]),
        };
        let values = values.ok_or_else(|| {
            wrong(format!(
                "trace setting '{}' must be a string, an array of strings or null",
                quoted(name)
            ))
        })?;
        change_trace(&mut change, name, &values)?;
    }
    Ok(change)
}

/// The same from a message.
pub fn trace_change(asked: &TraceSettingRequest) -> Result<TraceChange, DecodeError> {
    let mut change = TraceChange::default();
    for (name, setting) in &asked.settings {
        change_trace(&mut change, name, &setting.value)?;
    }
    Ok(change)
}

/// Takes one setting in; no values clear it.
fn change_trace(change: &mut TraceChange, name: &str, values: &[String]) -> Result<(), DecodeError> {
    match name {
        "trace_level" => change.on = level(values)?,
        "trace_rate" => {
            change.rate = number(name, values, "a whole number from 0 to 4294967295")?;
        }
        "trace_count" => {
            let right = "-1 or a whole number that is not negative";
            change.count = number(name, values, right)?;
            if matches!(change.count, Change::To(count) if count < -1) {
                return Err(wrong(format!("trace setting '{name}' must be {right}")));
            }
        }
        "trace_file" | "log_frequency" | "trace_mode" => {
            return Err(read_only(
                name,
                "traces go over OTLP to where the operator said at the start",
            ));
        }
        _ => return Err(wrong(format!("Unknown trace setting '{}'", quoted(name)))),
    }
    Ok(())
}

/// Levels add up, as in Triton.
fn level(values: &[String]) -> Result<Change<bool>, DecodeError> {
    if values.is_empty() {
        return Ok(Change::Clear);
    }
    let mut on = false;
    for value in values {
        match value.as_str() {
            OFF => {}
            TIMESTAMPS => on = true,
            "TENSORS" => {
                return Err(read_only(
                    "trace_level TENSORS",
                    "what is in tensors is never traced here",
                ));
            }
            other => {
                return Err(wrong(format!(
                    "trace setting 'trace_level' is {OFF} or {TIMESTAMPS}, got '{}'",
                    quoted(other)
                )));
            }
        }
    }
    Ok(Change::To(on))
}

fn number<T: std::str::FromStr>(name: &str, values: &[String], right: &str) -> Result<Change<T>, DecodeError> {
    match values {
        [] => Ok(Change::Clear),
        [text] if text.parse::<T>().is_ok() => {
            let number = text.parse().map(Change::To);
            Ok(number.unwrap_or_default())
        }
        _ => Err(wrong(format!("trace setting '{name}' must be {right}, as one string"))),
    }
}

/// The settings by their names, each as texts.
fn written(settings: &TraceSettings) -> [(&'static str, String); 6] {
    let level = if settings.on { TIMESTAMPS } else { OFF };
    [
        ("trace_file", String::new()),
        ("trace_level", level.to_owned()),
        ("trace_rate", settings.rate.to_string()),
        ("trace_count", settings.count.to_string()),
        ("log_frequency", "0".to_owned()),
        ("trace_mode", "opentelemetry".to_owned()),
    ]
}

/// `{"trace_level":["TIMESTAMPS"],"trace_rate":"100",..}`
pub fn trace_settings_body(settings: &TraceSettings) -> Vec<u8> {
    let pairs = written(settings).into_iter().map(|(name, text)| {
        let value = if name == "trace_level" {
            json!([text])
        } else {
            json!(text)
        };
        (name.to_owned(), value)
    });
    Value::Object(pairs.collect()).to_string().into_bytes()
}

/// The same as a message.
pub fn trace_settings(settings: &TraceSettings) -> TraceSettingResponse {
    let pairs = written(settings).into_iter().map(|(name, text)| {
        let value = trace_setting_response::SettingValue { value: vec![text] };
        (name.to_owned(), value)
    });
    TraceSettingResponse {
        settings: pairs.collect(),
    }
}

/// A value as either wire has it.
enum Written<'a> {
    Bool(bool),
    Number(u64),
    Text(&'a str),
    Other,
}

/// Reads a change of what is logged.
pub fn decode_log_change(body: &[u8]) -> Result<LogChange, DecodeError> {
    let mut change = LogChange::default();
    for (name, value) in &object(body)? {
        let written = match value {
            Value::Bool(value) => Written::Bool(*value),
            Value::String(text) => Written::Text(text),
            value => value.as_u64().map_or(Written::Other, Written::Number),
        };
        change_log(&mut change, name, &written)?;
    }
    Ok(change)
}

/// The same from a message.
pub fn log_change(asked: &LogSettingsRequest) -> Result<LogChange, DecodeError> {
    use log_settings_request::setting_value::ParameterChoice;
    let mut change = LogChange::default();
    for (name, setting) in &asked.settings {
        let written = match &setting.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Written::Bool(*value),
            Some(ParameterChoice::Uint32Param(number)) => Written::Number(u64::from(*number)),
            Some(ParameterChoice::StringParam(text)) => Written::Text(text),
            None => Written::Other,
        };
        change_log(&mut change, name, &written)?;
    }
    Ok(change)
}

fn change_log(change: &mut LogChange, name: &str, value: &Written<'_>) -> Result<(), DecodeError> {
    let slot = match name {
        "log_info" => &mut change.info,
        "log_warning" => &mut change.warning,
        "log_error" => &mut change.error,
        "log_verbose_level" => {
            let Written::Number(number) = value else {
                return Err(wrong(format!(
                    "log setting '{name}' must be a whole number that is not negative"
                )));
            };
            change.verbose_level = Some(u32::try_from(*number).unwrap_or(u32::MAX));
            return Ok(());
        }
        "log_format" => {
            let named = match value {
                Written::Text(text) => LogTimes::named(text),
                _ => None,
            };
            change.times = Some(named.ok_or_else(|| wrong(format!("log setting '{name}' must be {TIMES}")))?);
            return Ok(());
        }
        "log_file" => return Err(read_only(name, "the server logs to its standard error")),
        _ => return Err(wrong(format!("Unknown log setting '{}'", quoted(name)))),
    };
    let Written::Bool(value) = value else {
        return Err(wrong(format!("log setting '{name}' must be true or false")));
    };
    *slot = Some(*value);
    Ok(())
}

/// `{"log_file":"","log_info":true,..}`
pub fn log_settings_body(settings: &LogSettings) -> Vec<u8> {
    let LogSettings {
        info,
        warning,
        error,
        verbose_level,
        times,
    } = *settings;
    json!({
        "log_file": "", "log_info": info, "log_warning": warning, "log_error": error,
        "log_verbose_level": verbose_level, "log_format": times.as_str(),
    })
    .to_string()
    .into_bytes()
}

/// The same as a message.
pub fn log_settings(settings: &LogSettings) -> LogSettingsResponse {
    let pairs = [
        ("log_file", LogValue::StringParam(String::new())),
        ("log_info", LogValue::BoolParam(settings.info)),
        ("log_warning", LogValue::BoolParam(settings.warning)),
        ("log_error", LogValue::BoolParam(settings.error)),
        ("log_verbose_level", LogValue::Uint32Param(settings.verbose_level)),
        ("log_format", LogValue::StringParam(settings.times.as_str().to_owned())),
    ];
    let settings: BTreeMap<_, _> = pairs
        .into_iter()
        .map(|(name, value)| {
            let parameter_choice = Some(value);
            (
                name.to_owned(),
                log_settings_response::SettingValue { parameter_choice },
            )
        })
        .collect();
    LogSettingsResponse { settings }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::grpc::messages::trace_setting_request;

    fn trace(body: &Value) -> Result<TraceChange, String> {
        decode_trace_change(body.to_string().as_bytes()).map_err(|error| error.to_string())
    }

    fn by_message(pairs: &[(&str, &[&str])]) -> Result<TraceChange, String> {
        let setting = |(name, values): &(&str, &[&str])| {
            let value = values.iter().map(|value| (*value).to_owned()).collect();
            ((*name).to_owned(), trace_setting_request::SettingValue { value })
        };
        let asked = TraceSettingRequest {
            settings: pairs.iter().map(setting).collect(),
            model_name: String::new(),
        };
        trace_change(&asked).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_traced_is_changed_alike_on_both_wires_and_null_clears() {
        let wanted = TraceChange {
            on: Change::To(true),
            rate: Change::To(7),
            count: Change::Clear,
        };
        let body = json!({"trace_level": ["TIMESTAMPS"], "trace_rate": "7", "trace_count": null});
        assert_eq!(trace(&body), Ok(wanted));
        let pairs = [
            ("trace_level", &["TIMESTAMPS"][..]),
            ("trace_rate", &["7"]),
            ("trace_count", &[]),
        ];
        assert_eq!(by_message(&pairs), Ok(wanted));
        let off = TraceChange {
            on: Change::To(false),
            count: Change::To(-1),
            ..TraceChange::default()
        };
        assert_eq!(trace(&json!({"trace_level": "OFF", "trace_count": "-1"})), Ok(off));
        let both = trace(&json!({"trace_level": ["OFF", "TIMESTAMPS"]})).unwrap();
        assert_eq!(both.on, Change::To(true));
        assert!(!trace(&json!({})).unwrap().is_change());
        assert!(!decode_trace_change(b"").unwrap().is_change());
    }

    #[test]
    fn what_cannot_be_changed_or_is_not_known_is_refused_by_name() {
        for (body, part) in [
            (json!({"trace_file": "/x"}), "trace_file can not be updated"),
            (json!({"log_frequency": "1"}), "log_frequency can not be updated"),
            (json!({"trace_mode": "triton"}), "trace_mode can not be updated"),
            (json!({"trace_level": ["TENSORS"]}), "never traced"),
            (json!({"trace_level": ["LOUD"]}), "OFF or TIMESTAMPS, got 'LOUD'"),
            (json!({"trace_level": []}), "must be a string"),
            (json!({"trace_rate": 7}), "must be a string"),
            (json!({"trace_rate": "-1"}), "whole number from 0"),
            (json!({"trace_rate": "4294967296"}), "whole number from 0"),
            (json!({"trace_rate": ["1", "2"]}), "as one string"),
            (json!({"trace_count": "-2"}), "-1 or a whole number"),
            (json!({"trace": "x"}), "Unknown trace setting 'trace'"),
            (json!([]), "failed to parse"),
        ] {
            let text = trace(&body).unwrap_err();
            assert!(text.contains(part), "'{part}' is not in '{text}'");
        }
        assert!(by_message(&[("x", &[])]).unwrap_err().contains("Unknown trace setting"));
        let long = |bytes: usize| decode_trace_change(" ".repeat(bytes).as_bytes());
        assert!(long(MAX_BODY_BYTES).is_ok());
        assert!(long(MAX_BODY_BYTES + 1).is_err());
    }

    #[test]
    fn all_that_is_traced_is_told_as_texts() {
        let settings = TraceSettings {
            on: true,
            rate: 100,
            count: -1,
        };
        let told: Value = serde_json::from_slice(&trace_settings_body(&settings)).unwrap();
        let wanted = json!({
            "trace_file": "", "trace_level": ["TIMESTAMPS"], "trace_rate": "100", "trace_count": "-1",
            "log_frequency": "0", "trace_mode": "opentelemetry",
        });
        assert_eq!(told, wanted);
        let message = trace_settings(&settings).settings;
        assert_eq!(message.len(), 6);
        assert_eq!(message["trace_level"].value, ["TIMESTAMPS"]);
    }

    #[test]
    fn what_is_logged_is_changed_alike_on_both_wires() {
        let wanted = LogChange {
            info: Some(false),
            verbose_level: Some(2),
            times: Some(LogTimes::Short),
            ..LogChange::default()
        };
        let body = json!({"log_info": false, "log_verbose_level": 2, "log_format": "default"});
        assert_eq!(decode_log_change(body.to_string().as_bytes()), Ok(wanted));
        let value = |parameter_choice| log_settings_request::SettingValue {
            parameter_choice: Some(parameter_choice),
        };
        use log_settings_request::setting_value::ParameterChoice;
        let asked = LogSettingsRequest {
            settings: [
                ("log_info".to_owned(), value(ParameterChoice::BoolParam(false))),
                ("log_verbose_level".to_owned(), value(ParameterChoice::Uint32Param(2))),
                (
                    "log_format".to_owned(),
                    value(ParameterChoice::StringParam("default".to_owned())),
                ),
            ]
            .into(),
        };
        assert_eq!(log_change(&asked), Ok(wanted));
        for (body, part) in [
            (json!({"log_file": "/x"}), "log_file can not be updated"),
            (
                json!({"log_format": "RFC3339"}),
                "'log_format' must be 'default' or 'ISO8601'",
            ),
            (json!({"log_format": "iso8601"}), "must be 'default' or 'ISO8601'"),
            (json!({"log_format": true}), "must be 'default' or 'ISO8601'"),
            (json!({"log_format": null}), "must be 'default' or 'ISO8601'"),
            (json!({"log_info": 1}), "must be true or false"),
            (json!({"log_info": null}), "must be true or false"),
            (json!({"log_verbose_level": -1}), "whole number"),
            (json!({"log_verbose_level": true}), "whole number"),
            (json!({"log_loud": true}), "Unknown log setting 'log_loud'"),
        ] {
            let text = decode_log_change(body.to_string().as_bytes()).unwrap_err().to_string();
            assert!(text.contains(part), "'{part}' is not in '{text}'");
        }
    }

    #[test]
    fn all_that_is_logged_is_told_with_its_types() {
        let settings = LogSettings {
            info: true,
            warning: false,
            error: true,
            verbose_level: 1,
            times: LogTimes::Short,
        };
        let told: Value = serde_json::from_slice(&log_settings_body(&settings)).unwrap();
        let wanted = json!({
            "log_file": "", "log_info": true, "log_warning": false, "log_error": true, "log_verbose_level": 1,
            "log_format": "default",
        });
        assert_eq!(told, wanted);
        let message = log_settings(&settings).settings;
        assert_eq!(
            message["log_verbose_level"].parameter_choice,
            Some(LogValue::Uint32Param(1))
        );
        assert_eq!(
            message["log_format"].parameter_choice,
            Some(LogValue::StringParam("default".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn any_body_at_all_only_ever_gets_an_answer(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_trace_change(&body);
            let _ = decode_log_change(&body);
        }
    }
}
