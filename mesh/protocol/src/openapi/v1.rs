//! Version 1 of the protocol, TensorFlow Serving's and KServe's: its rows, the schemas of its bodies, and a model's own.
//!
//! A model's values have no datatype and no shape on this wire, so what a schema can say of them is how lists nest. `NaN` and the
//! infinities, which the protocol writes though JSON has none of them, no schema can say.

use mesh_types::{DataType, ModelConfig, TensorSpec};
use serde_json::{Map, Value, json};

use super::{
    model,
    operations::{ERRORS_OF_INFERENCE, Gives, Row, Takes, Verb, of_model, open},
    schemas::object,
};
use crate::v1::SIGNATURE;

pub(super) const TAG: &str = "V1";

const fn about(id: &'static str, path: &'static str, summary: &'static str) -> Row {
    Row {
        tag: TAG,
        ..of_model(id, path, summary)
    }
}

const fn asked(id: &'static str, path: &'static str, summary: &'static str, takes: Takes) -> Row {
    Row {
        verb: Verb::Post,
        takes,
        headers: &["RequestTimeout", "Unit", "Traceparent", "ContentEncoding"],
        gives: &[(200, "the answer", Gives::Json("ResultsV1"))],
        errors: ERRORS_OF_INFERENCE,
        ..about(id, path, summary)
    }
}

/// Every row.
pub(crate) const ROWS: &[Row] = &[
    Row {
        tag: TAG,
        open: false,
        gives: &[(200, "the names", Gives::Json("ModelsV1"))],
        errors: &[401, 403],
        ..open(
            "modelsV1",
            "/v1/models",
            "The models that the caller may call, as KServe lists them",
        )
    },
    Row {
        gives: &[
            (200, "ready", Gives::Json("StatusV1")),
            (503, "not ready", Gives::Json("StatusV1")),
        ],
        ..about("statusV1", "/v1/models/{model}", "The state of a model's versions")
    },
    Row {
        gives: &[(200, "the signature", Gives::Json("SignatureV1"))],
        ..about(
            "metadataV1",
            "/v1/models/{model}/metadata",
            "What a model takes and gives, as a signature of TensorFlow's",
        )
    },
    Row {
        gives: &[(200, "the predictions", Gives::Json("PredictionsV1"))],
        ..asked(
            "predictV1",
            "/v1/models/{model}:predict",
            "A prediction by rows or by columns",
            Takes::Predict,
        )
    },
    asked(
        "classifyV1",
        "/v1/models/{model}:classify",
        "The classes of examples",
        Takes::Json("ExamplesV1"),
    ),
    asked(
        "regressV1",
        "/v1/models/{model}:regress",
        "A number for each example",
        Takes::Json("ExamplesV1"),
    ),
    Row {
        gives: &[],
        errors: &[400, 401, 403, 404, 501],
        headers: &[],
        ..asked(
            "explainV1",
            "/v1/models/{model}:explain",
            "Refused: models have no explainers",
            Takes::Optional("Anything"),
        )
    },
];

fn list(items: &Value) -> Value {
    json!({"type": "array", "minItems": 1, "items": items})
}

fn signature() -> Value {
    json!({"enum": ["", SIGNATURE], "description": "The only one there is."})
}

/// A body with rows or with columns.
fn predict(rows: &Value, columns: &Value) -> Value {
    let mut by_rows = object(
        &["instances"],
        &json!({"signature_name": signature(), "instances": rows}),
    );
    let mut by_columns = object(&["inputs"], &json!({"signature_name": signature(), "inputs": columns}));
    for (body, other) in [(&mut by_rows, "inputs"), (&mut by_columns, "instances")] {
        body["not"] = json!({"required": [other]});
    }
    json!({"anyOf": [by_rows, by_columns]})
}

/// Schemas of the whole door.
pub(crate) fn schemas() -> Value {
    let text = || json!({"type": "string"});
    let value = json!({"description": "A value, lists of values, or an object of such by the names of inputs."});
    let of_version = json!({"version": text(), "state": {"enum": ["AVAILABLE", "LOADING"]},
        "status": object(&["error_code", "error_message"], &json!({"error_code": text(), "error_message": text()}))});
    let versions = json!({"type": "array", "items": object(&["version", "state", "status"], &of_version)});
    json!({
        "ModelsV1": object(&["models"], &json!({"models": {"type": "array", "items": text()}})),
        "StatusV1": object(&["name", "ready", "model_version_status"],
            &json!({"name": text(), "ready": {"type": "boolean"}, "model_version_status": versions})),
        "SignatureV1": object(&["model_spec", "metadata"], &json!({
            "model_spec": object(&["name", "version"], &json!({"name": text(), "signature_name": text(), "version": text()})),
            "metadata": {"type": "object"}})),
        "PredictV1": predict(&list(&value), &value),
        "ExamplesV1": object(&["examples"], &json!({"signature_name": signature(), "context": {"type": "object"},
            "examples": list(&json!({"type": "object"}))})),
        "PredictionsV1": {"type": "object", "description": "`predictions` for rows, `outputs` for columns.",
            "properties": {"predictions": {"type": "array"}, "outputs": {}},
            "anyOf": [{"required": ["predictions"]}, {"required": ["outputs"]}]},
        "ResultsV1": object(&["results"], &json!({"results": {"type": "array"}})),
    })
}

/// One element: a text may come as base64, and a fraction by the name of what is not finite.
fn element(datatype: DataType) -> Value {
    let plain = model::element(datatype);
    match datatype {
        DataType::Bytes => json!({"anyOf": [plain, object(&["b64"], &json!({"b64": {"type": "string"}}))]}),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp32 | DataType::Fp64 => {
            json!({"anyOf": [plain, {"enum": ["NaN", "Infinity", "-Infinity"]}]})
        }
        _ => plain,
    }
}

/// Lists as the dims say; rows of one element each may be written as that element.
fn nested(spec: &TensorSpec, dims: &[i64]) -> Value {
    let within = |inner: Value, dims: &[i64]| {
        let innermost_first = dims.iter().rev();
        innermost_first.fold(inner, |inner, dim| model::list(&inner, model::fixed(*dim)))
    };
    let whole = within(element(spec.datatype), dims);
    match (spec.dims.last(), dims.split_last()) {
        (Some(1), Some((_, outer))) => json!({"anyOf": [whole, within(element(spec.datatype), outer)]}),
        _ => whole,
    }
}

/// The only value, or an object of values by their names.
fn values(config: &ModelConfig, dims: fn(&ModelConfig, &TensorSpec) -> Vec<i64>) -> Value {
    let of = |spec: &TensorSpec| (spec.name.clone(), nested(spec, &dims(config, spec)));
    let properties: Map<String, Value> = config.input.iter().map(of).collect();
    let must = config.input.iter().filter(|spec| !spec.optional);
    let required: Vec<&str> = must.map(|spec| spec.name.as_str()).collect();
    let object =
        json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    match &config.input[..] {
        [only] => json!({"anyOf": [nested(only, &dims(config, only)), object]}),
        _ => object,
    }
}

/// The schemas that take the place of the door's own.
pub(crate) fn schemas_of(config: &ModelConfig) -> Vec<(String, Value)> {
    // Without rows an instance is the whole value, alone in a list or not.
    let mut rows = list(&json!({}));
    if config.batches() {
        rows = list(&values(config, |_, spec| spec.dims.clone()));
        rows["maxItems"] = json!(config.max_batch_size);
    }
    let columns = values(config, ModelConfig::wire_dims);
    vec![("PredictV1".to_owned(), predict(&rows, &columns))]
}

/// A request by columns, of the same values as the example of version 2. None where that has none, or where the model has sequences,
/// which this protocol cannot name.
pub(crate) fn example(config: &ModelConfig) -> Option<Value> {
    if config.sequence_batching.is_some() {
        return None;
    }
    let example = model::example(config)?;
    let mut inputs = Map::new();
    for input in example["inputs"].as_array()? {
        let shape: Vec<u64> = input["shape"].as_array()?.iter().filter_map(Value::as_u64).collect();
        let element = input["data"].get(0).cloned().unwrap_or_default();
        let wrap = |inner: Value, extent: &u64| json!(vec![inner; usize::try_from(*extent).unwrap_or(0)]);
        let value = shape.iter().rev().fold(element, wrap);
        inputs.insert(input["name"].as_str()?.to_owned(), value);
    }
    Some(json!({"inputs": inputs}))
}
