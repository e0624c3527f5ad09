//! What V1 tells about models: their list, the state of versions, and their one signature.

use mesh_types::{DataType, ModelConfig, TensorSpec, Version};
use serde_json::{Map, Value, json};

use super::SIGNATURE;

/// A version, and whether it would take a call now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionStatus<'a> {
    /// Which.
    pub version: Version,
    /// Whether it takes calls.
    pub ready: bool,
    /// Why not.
    pub reason: &'a str,
}

/// KServe's list: `{"models":[".."]}`
pub fn models_body<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let names: Vec<&str> = names.into_iter().collect();
    written(&json!({"models": names}))
}

/// What both ask for: TensorFlow Serving's `model_version_status`, and KServe's `name` and `ready`.
pub fn status_body(name: &str, ready: bool, versions: &[VersionStatus<'_>]) -> Vec<u8> {
    let of_version = |status: &VersionStatus<'_>| {
        let (state, code) = match status.ready {
            true => ("AVAILABLE", "OK"),
            false => ("LOADING", "UNAVAILABLE"),
        };
        json!({"version": status.version.to_string(), "state": state,
            "status": {"error_code": code, "error_message": status.reason}})
    };
    let versions: Vec<Value> = versions.iter().map(of_version).collect();
    written(&json!({"name": name, "ready": ready, "model_version_status": versions}))
}

/// The model's inputs and outputs as a signature of TensorFlow's.
pub fn metadata_body(name: &str, version: Version, config: &ModelConfig) -> Vec<u8> {
    let of = |specs: &[TensorSpec]| {
        let one = |spec: &TensorSpec| (spec.name.clone(), tensor(config, spec));
        Value::Object(specs.iter().map(one).collect::<Map<_, _>>())
    };
    let signature = json!({"inputs": of(&config.input), "outputs": of(&config.output),
        "method_name": "tensorflow/serving/predict"});
    written(&json!({
        "model_spec": {"name": name, "signature_name": "", "version": version.to_string()},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }))
}

fn tensor(config: &ModelConfig, spec: &TensorSpec) -> Value {
    let dim = |dim: i64| json!({"size": dim.to_string(), "name": ""});
    let dims: Vec<Value> = config.wire_dims(spec).into_iter().map(dim).collect();
    json!({"dtype": dtype(spec.datatype), "tensor_shape": {"dim": dims, "unknown_rank": false}, "name": spec.name})
}

/// TensorFlow's name of a datatype.
const fn dtype(datatype: DataType) -> &'static str {
    match datatype {
        DataType::Bool => "DT_BOOL",
        DataType::Uint8 => "DT_UINT8",
        DataType::Uint16 => "DT_UINT16",
        DataType::Uint32 => "DT_UINT32",
        DataType::Uint64 => "DT_UINT64",
        DataType::Int8 => "DT_INT8",
        DataType::Int16 => "DT_INT16",
        DataType::Int32 => "DT_INT32",
        DataType::Int64 => "DT_INT64",
        DataType::Fp16 => "DT_HALF",
        DataType::Bf16 => "DT_BFLOAT16",
        DataType::Fp32 => "DT_FLOAT",
        DataType::Fp64 => "DT_DOUBLE",
        DataType::Bytes => "DT_STRING",
    }
}

// Values of ours have nothing that JSON could not hold.
fn written(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
