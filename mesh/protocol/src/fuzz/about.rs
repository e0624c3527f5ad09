//! The bodies for what is read beside inference: events around requests, and what callers say of models, regions and settings, on both
//! wires. What either wire says, the other says as well.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use prost::Message as _;
use serde_json::{Map, Value, json};

use super::{MOST_CHARS, plain};
use crate::{
    CudaRegion, LoadParameters, MAX_LOAD_FILES, RegionStatus, decode_cuda_region, decode_load, decode_log_change,
    decode_system_region, decode_trace_change, decode_unload,
    grpc::messages::{
        LogSettingsRequest, ModelRepositoryParameter, RepositoryModelLoadRequest, RepositoryModelUnloadRequest,
        SystemSharedMemoryRegisterRequest, TraceSettingRequest, model_repository_parameter::ParameterChoice,
        trace_setting_request::SettingValue,
    },
    load_parameters, log_change, regions_body, trace_change, unload_parameters,
    v1::{decode_event, event_body},
};

/// A CloudEvent in structured mode: what is read lies within the body, and is read back from an answer's event.
pub fn event(data: &[u8]) -> Result<(), String> {
    let body = Bytes::copy_from_slice(data);
    let (id, inner) = match decode_event(&body) {
        Ok(read) => read,
        Err(error) => return plain(&error, MOST_CHARS),
    };
    let written = event_body(&id, "s", &inner);
    let back = decode_event(&Bytes::from(written)).map_err(|error| format!("an event does not read back: {error}"))?;
    (back == (id, inner))
        .then_some(())
        .ok_or_else(|| "an event reads back as something else".to_owned())
}

/// What has a model loaded or unloaded, as a JSON body and as a message: bounded, and the same when it is said on the other wire.
pub fn load(data: &[u8]) -> Result<(), String> {
    match decode_load(data) {
        Ok(load) => loaded(&load)?,
        Err(error) => plain(&error, MOST_CHARS)?,
    }
    if let Err(error) = decode_unload(data) {
        plain(&error, MOST_CHARS)?;
    }
    if let Ok(message) = RepositoryModelLoadRequest::decode(data) {
        match load_parameters(message.parameters) {
            Ok(load) => loaded(&load)?,
            Err(error) => plain(&error, MOST_CHARS)?,
        }
    }
    if let Ok(message) = RepositoryModelUnloadRequest::decode(data)
        && let Err(error) = unload_parameters(message.parameters)
    {
        plain(&error, MOST_CHARS)?;
    }
    Ok(())
}

fn loaded(load: &LoadParameters) -> Result<(), String> {
    if load.files.len() > MAX_LOAD_FILES || (load.config.is_none() && !load.files.is_empty()) {
        return Err(format!("{} files, and no configuration", load.files.len()));
    }
    let choice = |choice| ModelRepositoryParameter {
        parameter_choice: Some(choice),
    };
    let (mut message, mut object) = (BTreeMap::new(), Map::new());
    if let Some(config) = &load.config {
        message.insert(
            "config".to_owned(),
            choice(ParameterChoice::StringParam(config.clone())),
        );
        object.insert("config".to_owned(), json!(config));
    }
    for (name, bytes) in &load.files {
        let name = format!("file:{name}");
        message.insert(name.clone(), choice(ParameterChoice::BytesParam(bytes.clone())));
        object.insert(name, json!(STANDARD.encode(bytes)));
    }
    let body = json!({"parameters": object}).to_string();
    let same = load_parameters(message).as_ref() == Ok(load) && decode_load(body.as_bytes()).as_ref() == Ok(load);
    same.then_some(())
        .ok_or_else(|| "a load says something else on the other wire".to_owned())
}

/// What registers a region of shared memory, and what changes settings, as JSON bodies and as messages.
pub fn settings(data: &[u8]) -> Result<(), String> {
    match decode_system_region(data) {
        Ok(region) => {
            let status = RegionStatus {
                name: "r",
                key: &region.key,
                offset: region.offset,
                byte_size: region.byte_size,
            };
            let body = regions_body([status]);
            let one = body.strip_prefix(b"[").and_then(|body| body.strip_suffix(b"]"));
            if decode_system_region(one.unwrap_or_default()).as_ref() != Ok(&region) {
                return Err("a region reads back as something else".to_owned());
            }
        }
        Err(error) => plain(&error, MOST_CHARS)?,
    }
    match decode_cuda_region(data) {
        Ok(CudaRegion {
            handle,
            device,
            byte_size,
        }) => {
            let again =
                json!({"raw_handle": {"b64": STANDARD.encode(&handle)}, "device_id": device, "byte_size": byte_size});
            let back = decode_cuda_region(again.to_string().as_bytes()).map(|region| region.handle);
            if back.as_ref() != Ok(&handle) {
                return Err("a region of CUDA memory reads back as something else".to_owned());
            }
        }
        Err(error) => plain(&error, MOST_CHARS)?,
    }
    let traced = decode_trace_change(data);
    if let Err(error) = &traced {
        plain(error, MOST_CHARS)?;
    }
    // Which of several mistakes is told depends on the order; whether there is one does not.
    if let Some(message) = trace_message(data)
        && trace_change(&message).ok() != traced.ok()
    {
        return Err("a change of tracing says something else on the other wire".to_owned());
    }
    if let Err(error) = decode_log_change(data) {
        plain(&error, MOST_CHARS)?;
    }
    if let Ok(message) = TraceSettingRequest::decode(data)
        && let Err(error) = trace_change(&message)
    {
        plain(&error, MOST_CHARS)?;
    }
    if let Ok(message) = LogSettingsRequest::decode(data)
        && let Err(error) = log_change(&message)
    {
        plain(&error, MOST_CHARS)?;
    }
    // The library reads it, and nothing of ours.
    let _ = SystemSharedMemoryRegisterRequest::decode(data);
    Ok(())
}

/// The message that says what a body of settings does, if one can.
fn trace_message(body: &[u8]) -> Option<TraceSettingRequest> {
    let settings: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let values = |value: &Value| match value {
        Value::Null => Some(Vec::new()),
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(values) if !values.is_empty() => {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    };
    let settings = settings.iter().map(|(name, value)| {
        let value = values(value)?;
        Some((name.clone(), SettingValue { value }))
    });
    Some(TraceSettingRequest {
        settings: settings.collect::<Option<_>>()?,
        ..TraceSettingRequest::default()
    })
}
