//! What the operations share: schemas of bodies that are the same for every model, headers, and answers that are errors.

use serde_json::{Value, json};

use mesh_types::{DataType, MAX_RANK};

use crate::{
    EXTENSIONS,
    wire::{MAX_ID_BYTES, MAX_PARAMETERS, MAX_TENSOR_NAME_BYTES, MAX_TENSORS},
};

/// A model's name in a path, and a version's.
const NAME: &str = "^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$";
const MAX_NAME_BYTES: u32 = 63;

/// A reference to a schema of the document.
pub(crate) fn schema(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The statuses of errors, the name of their answer, and when they come.
const ERRORS: &[(u16, &str, &str)] = &[
    (
        400,
        "BadRequest",
        "The request is malformed or does not fit the model; the text names the field.",
    ),
    (401, "Unauthorized", "No credential that holds."),
    (403, "Forbidden", "A credential that holds, without the right."),
    (
        404,
        "NotFound",
        "No such endpoint, model or version, or not for this caller.",
    ),
    (408, "RequestTimeout", "The body took too long to arrive."),
    (
        413,
        "PayloadTooLarge",
        "The body is larger than the server takes, as sent or unfolded.",
    ),
    (
        415,
        "UnsupportedMediaType",
        "The body is compressed in another way than gzip, deflate or zstd.",
    ),
    (
        429,
        "TooManyRequests",
        "A limit of the caller's own, named in the text; Retry-After says when to come back.",
    ),
    (499, "ClientClosedRequest", "The caller left."),
    (500, "InternalServerError", "The model failed, or the server did."),
    (
        501,
        "NotImplemented",
        "Something of the protocol that this server does not offer.",
    ),
    (
        503,
        "ServiceUnavailable",
        "Full, not ready, or being drained; it may be sent again.",
    ),
    (504, "GatewayTimeout", "The deadline passed."),
];

/// A reference to the answer with an error of this status.
pub(crate) fn error(status: u16) -> Value {
    let name = ERRORS
        .iter()
        .find(|(known, _, _)| *known == status)
        .map_or("InternalServerError", |(_, name, _)| name);
    json!({"$ref": format!("#/components/responses/{name}")})
}

/// What every answer carries.
pub(crate) fn common_headers() -> Value {
    json!({"x-request-id": {"$ref": "#/components/headers/RequestId"}})
}

/// The answers with errors.
pub(crate) fn responses() -> Value {
    let answer = |(status, name, about): &(u16, &str, &str)| {
        let mut headers = common_headers();
        let mut add =
            |header: &str, name: &str| headers[header] = json!({"$ref": format!("#/components/headers/{name}")});
        match status {
            400 | 401 | 403 => add("WWW-Authenticate", "Challenge"),
            429 | 503 => {
                add("Retry-After", "RetryAfter");
                add("retry-after-ms", "RetryAfterMs");
                add("RateLimit", "RateLimit");
                add("RateLimit-Policy", "RateLimitPolicy");
            }
            _ => {}
        }
        let body = json!({"description": about, "headers": headers,
            "content": {"application/json": {"schema": schema("Error")}, "application/problem+json": {"schema": schema("Problem")}}});
        ((*name).to_owned(), body)
    };
    Value::Object(ERRORS.iter().map(answer).collect())
}

/// The headers of answers.
pub(crate) fn headers() -> Value {
    let text = json!({"type": "string"});
    let number = |least: u8| json!({"type": "integer", "minimum": least});
    json!({
        "RequestId": {"description": "The server's number for the request, as in its logs and traces.", "required": true,
            "schema": {"type": "string", "pattern": "^[0-9a-f]{32}$"}},
        "Challenge": {"description": "Which credential is wanted, and what is wrong with the one that was sent (RFC 6750); with 400 \
            and 403 only where that is the reason.", "schema": text},
        "RetryAfter": {"description": "Seconds until the call may succeed.", "schema": number(1)},
        "RetryAfterMs": {"description": "The same in milliseconds, where it is known so exactly.", "schema": number(1)},
        "RateLimit": {"description": "What is left of the caller's limits, if it has some (RFC 9651).", "schema": text},
        "RateLimitPolicy": {"description": "The caller's limits, if it has some (RFC 9651).", "schema": text},
        "ModelVersion": {"description": "The version that answered.", "required": true, "schema": number(1)},
        "Arm": {"description": "The arm of the endpoint's split that answered.", "schema": text},
        "Cache": {"description": "Where the answer of an endpoint with a response cache came from: `hit` or `miss`.", "schema": text},
        "Traceparent": {"description": "The span of the request itself (W3C trace context).", "required": true,
            "schema": {"type": "string"}},
        "InferenceHeaderContentLength": {"description": "Bytes of JSON before the raw tensors; absent where all is JSON.",
            "schema": number(0)},
    })
}

/// The parts of paths, and the headers of requests.
pub(crate) fn parameters() -> Value {
    let name = json!({"type": "string", "pattern": NAME, "maxLength": MAX_NAME_BYTES});
    let query = |name: &str, about: &str, schema: Value| json!({"name": name, "in": "query", "description": about, "schema": schema});
    let header = |name: &str, about: &str, schema: Value| json!({"name": name, "in": "header", "description": about, "schema": schema});
    json!({
        "Model": {"name": "model", "in": "path", "required": true, "schema": name,
            "description": "A name in the caller's own namespace: an endpoint, a model, or a model that was granted."},
        "Version": {"name": "version", "in": "path", "required": true, "schema": name,
            "description": "A number from 1, or a label such as stable."},
        "VersionNumber": {"name": "version", "in": "path", "required": true, "description": "A version's number.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"}},
        "Label": {"name": "label", "in": "path", "required": true, "schema": name, "description": "A label such as stable."},
        "Repository": {"name": "repository", "in": "path", "required": true, "schema": name,
            "description": "The name of the caller's own tenant: any other is answered as one that is not there."},
        "Region": {"name": "region", "in": "path", "required": true, "description": "A name of the caller's choice.",
            "schema": {"type": "string", "pattern": "^[-A-Za-z0-9_]+$", "maxLength": mesh_types::MAX_REGION_NAME_BYTES}},
        "Limit": query("limit", "The most names of the page.", json!({"type": "integer", "minimum": 1, "maximum": 1_000})),
        "After": query("after", "Names behind this one.", json!({"type": "string"})),
        "InferenceHeaderContentLength": header("Inference-Header-Content-Length",
            "Bytes of JSON at the start of the body; raw tensors follow. 0: the body is the bytes of the model's only input.",
            json!({"type": "integer", "minimum": 0})),
        "RequestTimeout": header("x-request-timeout-ms",
            "Answer within this time or not at all, in milliseconds. It can shorten the endpoint's timeout, not lengthen it.",
            json!({"type": "integer", "minimum": 1, "maximum": 86_400_000})),
        "Unit": header("x-mesh-unit", "The unit of a sticky split, where the request has no parameter for it.",
            json!({"type": "string", "pattern": "^[!-~]+$", "minLength": 1, "maxLength": 256})),
        "Traceparent": header("traceparent", "The caller's span (W3C trace context); its sampling decision is kept. What is none begins a trace.",
            json!({"type": "string", "examples": ["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]})),
        "ContentEncoding": header("Content-Encoding", "How the body is compressed: gzip, deflate, zstd or, as without it, identity; in any case.",
            json!({"type": "string", "examples": ["gzip"]})),
    })
}

pub(super) fn object(required: &[&str], properties: &Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

/// Schemas of the whole door.
pub(crate) fn shared() -> Value {
    let text = || json!({"type": "string"});
    let mut all = json!({
        "Error": {"type": "object", "required": ["error"], "additionalProperties": false,
            "description": "What was wrong, and what would be right.", "properties": {"error": text()}},
        "Problem": {"type": "object", "required": ["type", "title", "status", "detail", "instance", "code", "request_id"],
            "description": "The same as problem details (RFC 9457), for who accepts them.",
            "properties": {"type": text(), "title": text(), "status": {"type": "integer"}, "detail": text(), "instance": text(),
                "code": {"type": "string", "description": "The class of the error, for programs."},
                "request_id": {"type": "string", "description": "As in x-request-id."},
                "violated-policies": {"type": "array", "items": text(), "description": "The limit that refused."}}},
        "Anything": {"description": "Read and thrown away."},
        "Document": object(&["openapi", "info", "paths"], &json!({"openapi": text()})),
        "Alive": object(&["status"], &json!({"status": {"const": "alive"}})),
        "Names": object(&["models"], &json!({"models": {"type": "array", "items": text()},
            "next": {"type": "string", "description": "Only where there are more: what `after` takes for the next page."}})),
        "Live": object(&["live"], &json!({"live": {"const": true}})),
        "Ready": object(&["ready"], &json!({"ready": {"type": "boolean"}})),
        "ServerMetadata": object(&["name", "version", "extensions"], &json!({"name": text(), "version": text(),
            "extensions": {"type": "array", "items": text(), "examples": [EXTENSIONS]}})),
        "DataType": {"type": "string", "enum": DataType::ALL.map(DataType::as_str)},
        "Shape": {"type": "array", "maxItems": MAX_RANK, "items": {"type": "integer", "minimum": 0},
            "description": "The extent of each dimension, rows first where the model batches."},
        "Parameters": {"type": "object", "maxProperties": MAX_PARAMETERS, "description": "Values are texts, numbers or booleans.",
            "additionalProperties": {"type": ["string", "number", "boolean"]}},
        "Data": {"description": "The elements, row by row: flat, or nested exactly as the shape says. FP16 and BF16 have no form here."},
    });
    for part in [
        about_models(),
        statistics(),
        repository(),
        inference(),
        extensions(),
        super::v1::schemas(),
    ] {
        if let (Some(all), Value::Object(part)) = (all.as_object_mut(), part) {
            all.extend(part);
        }
    }
    all
}

fn about_models() -> Value {
    let text = || json!({"type": "string"});
    let list = |of: Value| json!({"type": "array", "items": of});
    json!({
        "ModelReady": object(&["name", "ready"], &json!({"name": text(), "ready": {"type": "boolean"}})),
        "TensorMetadata": object(&["name", "datatype", "shape"], &json!({"name": text(), "datatype": schema("DataType"),
            "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}, "description": "-1 stands for any extent."}})),
        "ModelMetadata": object(&["name", "versions", "platform", "inputs", "outputs"], &json!({"name": text(),
            "versions": list(text()), "platform": text(), "inputs": list(schema("TensorMetadata")),
            "outputs": list(schema("TensorMetadata"))})),
        "ModelConfig": object(&["name", "platform", "max_batch_size", "input", "output"], &json!({"name": text(), "platform": text(),
            "max_batch_size": {"type": "integer", "minimum": 0}, "input": list(json!({"type": "object"})),
            "output": list(json!({"type": "object"}))})),
    })
}

fn extensions() -> Value {
    let text = || json!({"type": "string"});
    let whole = || json!({"type": "integer", "minimum": 0});
    let region = json!({"name": text(), "key": text(), "offset": whole(), "byte_size": whole(), "device_id": whole()});
    let flag = || json!({"type": "boolean"});
    let setting = || json!({"type": ["string", "null"]});
    json!({
        "CudaRegion": object(&["raw_handle", "device_id", "byte_size"], &json!({
            "raw_handle": object(&["b64"], &json!({"b64": text()})), "device_id": whole(), "byte_size": whole(),
        })),
        "SystemRegion": object(&["key", "byte_size"], &json!({"key": text(), "offset": whole(), "byte_size": whole()})),
        "Regions": {"type": "array", "items": object(&["name", "byte_size"], &region)},
        "TraceSettings": {"type": "object", "description": "Each a text; null clears one.", "properties": {
            "trace_level": {"type": ["array", "string", "null"], "items": text()}, "trace_rate": setting(),
            "trace_count": setting(), "trace_file": setting(), "log_frequency": setting(), "trace_mode": setting()}},
        "LogSettings": {"type": "object", "properties": {"log_info": flag(), "log_warning": flag(), "log_error": flag(),
            "log_verbose_level": whole(), "log_format": text(), "log_file": text()}},
    })
}

fn statistics() -> Value {
    let whole = || json!({"type": "integer", "minimum": 0});
    let duration = || schema("Duration");
    let compute = || json!({"compute_input": duration(), "compute_infer": duration(), "compute_output": duration()});
    let mut stages = compute();
    for name in ["success", "fail", "queue", "cache_hit", "cache_miss"] {
        stages[name] = duration();
    }
    let mut batch = compute();
    batch["batch_size"] = whole();
    let mut answers = json!({});
    for name in [
        "compute_infer",
        "compute_output",
        "success",
        "fail",
        "empty_response",
        "cancel",
    ] {
        answers[name] = duration();
    }
    let memory = json!({"type": {"type": "string"}, "id": {"type": "integer"}, "byte_size": whole()});
    let version = json!({
        "name": {"type": "string"}, "version": {"type": "string"}, "last_inference": whole(), "inference_count": whole(),
        "execution_count": whole(), "inference_stats": object(&["success", "fail", "queue"], &stages),
        "batch_stats": {"type": "array", "items": object(&["batch_size"], &batch)},
        "memory_usage": {"type": "array", "items": object(&["type", "id", "byte_size"], &memory)},
        "response_stats": {"type": "object", "description": "Of a decoupled model: what became of its answers, by their place.",
            "additionalProperties": object(&[], &answers)},
    });
    let required = [
        "name",
        "version",
        "last_inference",
        "inference_count",
        "execution_count",
        "inference_stats",
        "batch_stats",
    ];
    json!({
        "Duration": object(&["count", "ns"], &json!({"count": whole(), "ns": whole()})),
        "Statistics": object(&["model_stats"], &json!({"model_stats": {"type": "array", "items": object(&required, &version)}})),
    })
}

fn repository() -> Value {
    let text = || json!({"type": "string"});
    let entry = json!({"name": text(), "version": text(), "reason": text(),
        "state": {"type": "string", "enum": ["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]}});
    json!({
        "IndexRequest": {"type": "object", "properties": {"ready": {"type": "boolean", "description": "Only of what is ready."}}},
        "LoadRequest": {"type": "object", "properties": {"parameters": {"type": "object", "properties": {
            "config": {"type": "string", "description": "The configuration in JSON, in place of the repository's."}},
            "patternProperties": {"^file:": {"type": "string", "description": "A file in base64, in place of the repository's."}}}}},
        "UnloadRequest": {"type": "object", "properties": {"parameters": {"type": "object", "properties": {
            "unload_dependents": {"type": "boolean", "description": "The steps of an ensemble as well."}}}}},
        "Index": {"type": "array", "items": object(&["name", "version", "state", "reason"], &entry)},
    })
}

fn inference() -> Value {
    let name = json!({"type": "string", "minLength": 1, "maxLength": MAX_TENSOR_NAME_BYTES});
    let input = json!({"name": name, "datatype": schema("DataType"), "shape": schema("Shape"),
        "parameters": schema("InputParameters"), "data": schema("Data")});
    let wanted = json!({"name": name, "parameters": schema("OutputParameters")});
    let output = json!({"name": {"type": "string"}, "datatype": schema("DataType"), "shape": schema("Shape"),
        "parameters": {"type": "object"}, "data": {"type": "array"}});
    json!({
        "InputParameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer", "minimum": 0,
            "description": "Bytes of this input behind the JSON, in place of `data`."}}},
        "OutputParameters": {"type": "object", "properties": {"binary_data": {"type": "boolean",
            "description": "Whether this output comes as raw bytes behind the JSON."}, "classification": {"type": "integer", "minimum": 1,
            "description": "So many of the highest values instead of all, as texts of value, index and label."}}},
        "GenerateRequest": {"type": "object", "properties": {"id": {"type": ["string", "integer", "null"]}},
            "description": "Inputs by their names, a scalar or a flat list each; other keys, and those of `parameters`, are parameters.",
            "additionalProperties": true},
        "GenerateResponse": {"type": "object", "description": "Outputs by their names, a scalar or a flat list each.",
            "additionalProperties": true},
        "InferInput": object(&["name", "datatype", "shape"], &input),
        "WantedOutput": object(&["name"], &wanted),
        "InferRequest": object(&["inputs"], &json!({
            "id": {"type": "string", "maxLength": MAX_ID_BYTES, "description": "Comes back in the answer."},
            "parameters": schema("Parameters"),
            "inputs": {"type": "array", "minItems": 1, "maxItems": MAX_TENSORS, "items": schema("InferInput")},
            "outputs": {"type": "array", "maxItems": MAX_TENSORS, "items": schema("WantedOutput"), "description": "Absent or empty: all."},
        })),
        "InferOutput": object(&["name", "datatype", "shape"], &output),
        "InferResponse": response(&schema("InferOutput")),
    })
}

/// A response whose outputs are these.
pub(crate) fn response(output: &Value) -> Value {
    object(
        &["model_name", "model_version", "outputs"],
        &json!({
            "id": {"type": "string"}, "model_name": {"type": "string"}, "model_version": {"type": "string"},
            "parameters": {"type": "object"}, "outputs": {"type": "array", "items": output},
        }),
    )
}
