//! A model's inputs and outputs as schemas, and a request that it takes.
//!
//! Datatypes become types of JSON with their ranges, fixed extents lengths of arrays. What JSON Schema cannot say (that `data` has
//! as many elements as the shape's product, that each input is there once) is said in words. FP16 and BF16 have no form in JSON:
//! a model that needs such an input has no JSON request and no example.

use mesh_types::{DataType, ModelConfig, TensorSpec};
use serde_json::{Value, json};

use super::schemas;
use crate::wire::{MAX_ID_BYTES, MAX_TENSORS};

/// The most elements of an example, over all inputs: the document stays small whatever a model takes.
pub(crate) const MAX_EXAMPLE_ELEMENTS: u64 = 4_096;
/// The most labels of an output that a description names.
pub(crate) const MAX_SHOWN_LABELS: usize = 32;

/// Whether elements of this datatype can be written in JSON.
fn is_in_json(datatype: DataType) -> bool {
    !matches!(datatype, DataType::Fp16 | DataType::Bf16)
}

/// Whether the model can be asked in JSON: every input that must be there can be written.
pub(crate) fn takes_json(config: &ModelConfig) -> bool {
    asked(config).all(|spec| is_in_json(spec.datatype))
}

/// The inputs of the shortest request: those that must be there, or the first where none must.
fn asked(config: &ModelConfig) -> impl Iterator<Item = &TensorSpec> {
    let none_must = config.input.iter().all(|spec| spec.optional);
    let first = config.input.iter().take(usize::from(none_must));
    first.chain(config.input.iter().filter(|spec| !spec.optional))
}

/// One element, with the range of its datatype.
pub(super) fn element(datatype: DataType) -> Value {
    let whole = |least: Value, most: Value| json!({"type": "integer", "minimum": least, "maximum": most});
    match datatype {
        DataType::Bool => json!({"type": "boolean"}),
        DataType::Uint8 => whole(json!(0), json!(u8::MAX)),
        DataType::Uint16 => whole(json!(0), json!(u16::MAX)),
        DataType::Uint32 => whole(json!(0), json!(u32::MAX)),
        DataType::Uint64 => whole(json!(0), json!(u64::MAX)),
        DataType::Int8 => whole(json!(i8::MIN), json!(i8::MAX)),
        DataType::Int16 => whole(json!(i16::MIN), json!(i16::MAX)),
        DataType::Int32 => whole(json!(i32::MIN), json!(i32::MAX)),
        DataType::Int64 => whole(json!(i64::MIN), json!(i64::MAX)),
        DataType::Fp32 => json!({"type": "number", "minimum": f64::from(f32::MIN), "maximum": f64::from(f32::MAX)}),
        DataType::Fp16 | DataType::Bf16 | DataType::Fp64 => json!({"type": "number"}),
        DataType::Bytes => json!({"type": "string"}),
    }
}

/// A fixed extent; none for any.
pub(super) fn fixed(dim: i64) -> Option<u64> {
    u64::try_from(dim).ok()
}

pub(super) fn list(items: &Value, length: Option<u64>) -> Value {
    match length {
        Some(length) => json!({"type": "array", "items": items, "minItems": length, "maxItems": length}),
        None => json!({"type": "array", "items": items}),
    }
}

fn flat(datatype: DataType, dims: &[i64]) -> Value {
    let elements = dims
        .iter()
        .try_fold(1_u64, |product, dim| product.checked_mul(fixed(*dim)?));
    list(&element(datatype), elements)
}

/// What `data` may be: flat, or nested as the shape.
fn data(datatype: DataType, dims: &[i64]) -> Value {
    let flat = flat(datatype, dims);
    match dims.len() {
        0 => json!({"anyOf": [flat, element(datatype)]}),
        1 => flat,
        _ => {
            let nested = dims
                .iter()
                .rev()
                .fold(element(datatype), |inner, dim| list(&inner, fixed(*dim)));
            json!({"anyOf": [flat, nested]})
        }
    }
}

/// A tensor's shape: what is fixed is fixed, and rows have their bound.
fn shape(config: &ModelConfig, spec: &TensorSpec) -> Value {
    let has_rows = config.has_rows(spec);
    let most = if config.sequence_batching.is_some() {
        1
    } else {
        config.max_batch_size
    };
    let dims = config.wire_dims(spec);
    let extent = |(index, dim): (usize, &i64)| match fixed(*dim) {
        Some(extent) => json!({"const": extent}),
        None if has_rows && index == 0 => {
            json!({"type": "integer", "minimum": 1, "maximum": most, "description": "rows"})
        }
        None => json!({"type": "integer", "minimum": 0}),
    };
    let extents: Vec<Value> = dims.iter().enumerate().map(extent).collect();
    json!({"type": "array", "prefixItems": extents, "items": {"type": "integer", "minimum": 0},
        "minItems": dims.len(), "maxItems": dims.len()})
}

fn described(config: &ModelConfig, spec: &TensorSpec) -> String {
    let dims: Vec<String> = config.wire_dims(spec).iter().map(i64::to_string).collect();
    let mut text = format!("{} [{}]; -1 stands for any extent.", spec.datatype, dims.join(", "));
    if spec.optional {
        text.push_str(" It may be left out.");
    }
    if spec.unbatched {
        text.push_str(" One value for all rows.");
    }
    if !is_in_json(spec.datatype) {
        text.push_str(" Raw bytes only: this datatype has no form in JSON.");
    }
    if !spec.labels.is_empty() {
        let shown: Vec<&str> = spec.labels.iter().take(MAX_SHOWN_LABELS).map(String::as_str).collect();
        text.push_str(" Its values stand for: ");
        text.push_str(&shown.join(", "));
        if let Some(more) = spec.labels.len().checked_sub(MAX_SHOWN_LABELS).filter(|more| *more > 0) {
            text.push_str(&format!(", and {more} more"));
        }
        text.push('.');
    }
    text
}

fn input(config: &ModelConfig, spec: &TensorSpec) -> Value {
    let in_json = is_in_json(spec.datatype);
    let mut properties = json!({
        "name": {"const": spec.name}, "datatype": {"const": spec.datatype.as_str()}, "shape": shape(config, spec),
        "parameters": schemas::schema("InputParameters"),
    });
    let last = if in_json {
        properties["data"] = data(spec.datatype, &config.wire_dims(spec));
        "data"
    } else {
        "parameters"
    };
    json!({"title": spec.name, "description": described(config, spec), "type": "object",
        "required": ["name", "datatype", "shape", last], "properties": properties})
}

fn output(config: &ModelConfig, spec: &TensorSpec) -> Value {
    let mut properties = json!({
        "name": {"const": spec.name}, "datatype": {"const": spec.datatype.as_str()}, "shape": shape(config, spec),
        "parameters": {"type": "object"},
    });
    if is_in_json(spec.datatype) {
        properties["data"] = flat(spec.datatype, &config.wire_dims(spec));
    }
    json!({"title": spec.name, "description": described(config, spec), "type": "object",
        "required": ["name", "datatype", "shape"], "properties": properties})
}

/// What an output is whose classes were asked for.
fn classes(names: &[&str]) -> Value {
    json!({"title": "classes", "description": "An output with the parameter `classification`: `value:index[:label]`.",
        "type": "object", "required": ["name", "datatype", "shape"], "properties": {
            "name": {"enum": names}, "datatype": {"const": "BYTES"}, "shape": schemas::schema("Shape"),
            "parameters": {"type": "object"}, "data": {"type": "array", "items": {"type": "string"}}}})
}

/// The schemas that take the place of the door's own, and those that they refer to.
pub(crate) fn schemas_of(config: &ModelConfig) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    let mut named = |kind: &str, of: &[TensorSpec], build: fn(&ModelConfig, &TensorSpec) -> Value| {
        let mut references = Vec::new();
        for (index, spec) in of.iter().enumerate() {
            let name = format!("{kind}{index}");
            references.push(schemas::schema(&name));
            all.push((name, build(config, spec)));
        }
        json!({"anyOf": references})
    };
    let inputs = named("Input", &config.input, input);
    let mut outputs = named("Output", &config.output, output);
    let names: Vec<&str> = config.output.iter().map(|spec| spec.name.as_str()).collect();
    if let Some(outputs) = outputs["anyOf"].as_array_mut() {
        outputs.push(schemas::schema("Classes"));
    }
    all.push(("Classes".to_owned(), classes(&names)));
    let wanted = json!({"type": "object", "required": ["name"], "properties": {"name": {"enum": names},
        "parameters": schemas::schema("OutputParameters")}});
    let request = json!({"type": "object", "required": ["inputs"], "properties": {
        "id": {"type": "string", "maxLength": MAX_ID_BYTES, "description": "Comes back in the answer."},
        "parameters": schemas::schema("Parameters"),
        "inputs": {"type": "array", "minItems": asked(config).count(), "maxItems": config.input.len(), "items": inputs,
            "description": "Each input once, in any order; `data` has as many elements as its shape says."},
        "outputs": {"type": "array", "maxItems": MAX_TENSORS, "items": wanted, "description": "Absent or empty: all."},
    }});
    all.extend(super::v1::schemas_of(config));
    all.push(("InferRequest".to_owned(), request));
    all.push(("InferResponse".to_owned(), schemas::response(&outputs)));
    all
}

/// A request that the model takes: its shortest, with one row and extents of 1 where any will do. None where it has no JSON
/// form, or would be too long.
pub(crate) fn example(config: &ModelConfig) -> Option<Value> {
    let mut left = MAX_EXAMPLE_ELEMENTS;
    let mut inputs = Vec::new();
    for spec in asked(config) {
        let shape: Vec<u64> = config
            .wire_dims(spec)
            .iter()
            .map(|dim| fixed(*dim).unwrap_or(1))
            .collect();
        let elements = shape
            .iter()
            .try_fold(1_u64, |product, extent| product.checked_mul(*extent))?;
        left = left.checked_sub(elements)?;
        let one = match spec.datatype {
            DataType::Fp16 | DataType::Bf16 => return None,
            DataType::Bool => json!(false),
            DataType::Fp32 | DataType::Fp64 => json!(0.0),
            DataType::Bytes => json!("text"),
            _ => json!(0),
        };
        let data = vec![one; usize::try_from(elements).ok()?];
        inputs.push(json!({"name": spec.name, "datatype": spec.datatype.as_str(), "shape": shape, "data": data}));
    }
    let mut request = json!({"inputs": inputs});
    if config.sequence_batching.is_some() {
        request["parameters"] = json!({"sequence_id": 1, "sequence_start": true, "sequence_end": true});
    }
    Some(request)
}
