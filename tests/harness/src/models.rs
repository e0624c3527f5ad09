//! Models for tests, as the admin API takes them.

use serde_json::{Value, json};

/// A tensor of a configuration.
pub fn fp32(name: &str, dims: &[i64]) -> Value {
    json!({"name": name, "datatype": "FP32", "dims": dims})
}

/// A configuration with one vector in, `x`, and one out, `y`.
pub fn vector(input: i64, output: i64) -> Value {
    json!({"max_batch_size": 8, "input": [fp32("x", &[input])], "output": [fp32("y", &[output])]})
}

/// A built-in model of one vector of any length, with parameters of its own.
pub fn builtin(name: &str, parameters: &Value) -> Value {
    let mut config = vector(-1, -1);
    config["parameters"] = json!({"builtin": name});
    if let (Some(all), Some(more)) = (config["parameters"].as_object_mut(), parameters.as_object()) {
        all.extend(more.clone());
    }
    json!({"format": "builtin", "config": config})
}

/// A model that gives back what it gets.
pub fn identity() -> Value {
    builtin("identity", &json!({}))
}

/// The same model, batched: so many rows at most, for which the oldest request waits so long, in microseconds.
#[must_use]
pub fn batched(mut model: Value, rows: u32, delay_us: u64) -> Value {
    model["config"]["max_batch_size"] = json!(rows);
    model["config"]["dynamic_batching"] = json!({"max_queue_delay_microseconds": delay_us});
    model
}

/// Triton's own example of a decoupled model: an answer for each value of `IN`, so many milliseconds after the one before as `DELAY`
/// says.
pub fn repeat_int32() -> Value {
    let tensor = |name: &str, datatype: &str, dims: i64| json!({"name": name, "data_type": datatype, "dims": [dims]});
    let config = json!({
        "max_batch_size": 0,
        "model_transaction_policy": {"decoupled": true},
        "input": [tensor("IN", "TYPE_INT32", -1), tensor("DELAY", "TYPE_UINT32", -1), tensor("WAIT", "TYPE_UINT32", 1)],
        "output": [tensor("OUT", "TYPE_INT32", 1), tensor("IDX", "TYPE_UINT32", 1)],
        "parameters": {"builtin": "repeat_int32"},
    });
    json!({"format": "builtin", "config": config})
}
