//! OpenAPI 3.1 documents of the inference door: one of the whole door, and one for each model, with its inputs and outputs.
//!
//! Owns the table of operations ([`operations`]) and what is said of them. Pure: whoever asks has been let in, and what it may
//! see is in what is passed in. Invariants: every reference resolves; the document of the door holds nothing of any tenant; a
//! model's document has a bounded size whatever its configuration says.

mod extensions;
mod model;
mod operations;
mod schemas;
mod v1;

#[cfg(test)]
mod tests;

use mesh_types::{ModelConfig, Version};
use serde_json::{Map, Value, json};

use operations::{Gives, Takes};
pub use operations::{Operation, Verb, Which, operations};

/// The server that is described.
#[derive(Debug, Clone, Copy)]
pub struct Server<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its version.
    pub version: &'a str,
    /// Whether it answers about health as Triton's server does: by the status alone.
    pub as_triton: bool,
}

/// What a model's document is made from.
#[derive(Debug, Clone, Copy)]
pub struct ModelDocument<'a> {
    /// The name that the caller used.
    pub name: &'a str,
    /// The version, as the caller's path names it.
    pub version: Option<&'a str>,
    /// The versions that the caller may ask for.
    pub versions: &'a [Version],
    /// What runs it.
    pub platform: &'a str,
    /// Its inputs and outputs.
    pub config: &'a ModelConfig,
    /// Who answers.
    pub server: Server<'a>,
}

const ABOUT: &str = "The Open Inference Protocol v2 with Triton's extensions, and TensorFlow Serving's V1. Every error has the body `{\"error\": \"..\"}`; \
                     another verb than those here is answered with 405, an unknown path with 404, and what is no HTTP request with 400.";
const TAGS: [(&str, &str); 7] = [
    ("Server", "Health and metadata of the server."),
    ("Models", "Predictions, and what models are and have done."),
    (v1::TAG, "TensorFlow Serving's and KServe's first protocol."),
    (
        "Repository",
        "Which models there are, and loading them where that is done on demand.",
    ),
    ("Shared memory", "Tensors that lie in memory of the server's machine."),
    ("Settings", "What is traced and logged."),
    ("Documents", "These documents, and a page that shows them."),
];

/// The document of the whole door.
pub fn document(server: Server<'_>) -> Vec<u8> {
    let title = format!("{}: inference", server.name);
    let info = json!({"title": title, "version": server.version, "description": ABOUT});
    let mut paths = Map::new();
    for operation in operations() {
        let of_path = paths.entry(operation.path.clone()).or_insert_with(|| json!({}));
        of_path[operation.verb().as_str()] = described(&operation, None, server);
    }
    written(&info, &paths, schemas::shared())
}

/// The document of one model, as the caller's path names it.
pub fn model_document(of: ModelDocument<'_>) -> Vec<u8> {
    let versions: Vec<String> = of.versions.iter().map(Version::to_string).collect();
    let about = format!(
        "{} ({}), versions {}. {ABOUT}",
        of.name,
        of.platform,
        versions.join(", ")
    );
    let info = json!({"title": of.name, "version": of.server.version, "description": about});
    let mut paths = Map::new();
    let mine = |operation: &Operation| operation.is_of_model() && operation.names(of.version);
    for operation in operations().into_iter().filter(mine) {
        let path = operation.path.replacen("{model}", of.name, 1);
        let version = of.version.unwrap_or_default();
        let path = path.replacen("{version}", version, 1).replacen("{label}", version, 1);
        let of_path = paths.entry(path).or_insert_with(|| json!({}));
        of_path[operation.verb().as_str()] = described(&operation, Some(of.config), of.server);
    }
    let mut schemas = schemas::shared();
    if let Some(all) = schemas.as_object_mut() {
        all.extend(model::schemas_of(of.config));
    }
    written(&info, &paths, schemas)
}

fn written(info: &Value, paths: &Map<String, Value>, mut schemas: Value) -> Vec<u8> {
    keep_used(paths, &mut schemas);
    let tags: Vec<Value> = TAGS
        .iter()
        .map(|(name, about)| json!({"name": name, "description": about}))
        .collect();
    let document = json!({
        "openapi": "3.1.0",
        "info": info,
        "servers": [{"url": "/"}],
        "security": [{"credential": []}],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "parameters": schemas::parameters(),
            "headers": schemas::headers(),
            "responses": schemas::responses(),
            "securitySchemes": {"credential": {"type": "http", "scheme": "bearer", "bearerFormat": "API key or JWT"}},
        },
    });
    // Values of ours have nothing that JSON could not hold.
    serde_json::to_vec(&document).unwrap_or_default()
}

/// Leaves out schemas that nothing refers to: a model's document takes some in the place of others.
fn keep_used(paths: &Map<String, Value>, schemas: &mut Value) {
    let Some(all) = schemas.as_object_mut() else { return };
    // Errors are referred to by answers that stand outside of the paths.
    let mut used = vec!["Error".to_owned(), "Problem".to_owned()];
    for path in paths.values() {
        referred(path, &mut used);
    }
    let mut next = 0;
    while let Some(name) = used.get(next).cloned() {
        if let Some(schema) = all.get(&name) {
            referred(schema, &mut used);
        }
        next += 1;
    }
    all.retain(|name, _| used.contains(name));
}

fn referred(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str);
            if let Some(name) = name.and_then(|name| name.strip_prefix("#/components/schemas/"))
                && !found.iter().any(|known| known == name)
            {
                found.push(name.to_owned());
            }
            fields.values().for_each(|field| referred(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| referred(item, found)),
        _ => {}
    }
}

/// An operation; for a model's document with the model's own names and example.
fn described(operation: &Operation, config: Option<&ModelConfig>, server: Server<'_>) -> Value {
    let row = operation.row;
    let mut answers = Map::new();
    let by_status = server.as_triton && row.is_health;
    if by_status {
        answers.insert("200".to_owned(), bare("it is so"));
        answers.insert("400".to_owned(), bare("it is not so, or not there"));
    } else {
        for (status, about, gives) in row.gives {
            answers.insert(status.to_string(), answer(about, *gives, config));
        }
    }
    for status in row.errors.iter().filter(|status| !by_status || **status != 404) {
        // What is not ready says so in a form of its own.
        answers
            .entry(status.to_string())
            .or_insert_with(|| schemas::error(*status));
    }
    let mut described =
        json!({"operationId": operation.id(), "tags": [row.tag], "summary": row.summary, "responses": answers});
    let mut parameters: Vec<&str> = Vec::new();
    if config.is_none() {
        parameters.extend(row.path.contains("{model}").then_some("Model"));
        parameters.extend(match operation.which {
            Which::Default => None,
            Which::Version if operation.is_v1() => Some("VersionNumber"),
            Which::Version => Some("Version"),
            Which::Label => Some("Label"),
        });
        parameters.extend(row.path.contains("{repository}").then_some("Repository"));
        parameters.extend(row.path.contains("{region}").then_some("Region"));
    }
    parameters.extend(row.headers);
    if !parameters.is_empty() {
        let reference = |name: &&str| json!({"$ref": format!("#/components/parameters/{name}")});
        described["parameters"] = parameters.iter().map(reference).collect();
    }
    if let Some(body) = body(row.takes, config) {
        described["requestBody"] = body;
    }
    if row.open {
        described["security"] = json!([]);
    }
    described
}

fn body(takes: Takes, config: Option<&ModelConfig>) -> Option<Value> {
    let binary = json!({"schema": {"type": "string", "contentMediaType": "application/octet-stream",
        "description": "JSON, and the raw tensors behind it in its order: little endian, row by row; of BYTES each element after \
                        its length (4 bytes). The header Inference-Header-Content-Length says how long the JSON is."}});
    match takes {
        Takes::Nothing => None,
        Takes::Optional(schema) => {
            Some(json!({"required": false, "content": {"application/json": {"schema": schemas::schema(schema)}}}))
        }
        Takes::Json(schema) => {
            Some(json!({"required": true, "content": {"application/json": {"schema": schemas::schema(schema)}}}))
        }
        Takes::Predict => {
            let mut plain = json!({"schema": schemas::schema("PredictV1")});
            if let Some(example) = config.and_then(v1::example) {
                plain["example"] = example;
            }
            Some(json!({"required": true, "content": {"application/json": plain}}))
        }
        Takes::Inference => {
            let mut content = json!({"application/octet-stream": binary});
            if config.is_none_or(model::takes_json) {
                let mut plain = json!({"schema": schemas::schema("InferRequest")});
                if let Some(example) = config.and_then(model::example) {
                    plain["example"] = example;
                }
                content["application/json"] = plain;
            }
            Some(json!({"required": true, "content": content}))
        }
    }
}

fn bare(about: &str) -> Value {
    json!({"description": about, "headers": schemas::common_headers()})
}

fn answer(about: &str, gives: Gives, config: Option<&ModelConfig>) -> Value {
    let mut headers = schemas::common_headers();
    let content = match gives {
        Gives::Empty => return bare(about),
        Gives::Json(schema) => json!({"application/json": {"schema": schemas::schema(schema)}}),
        Gives::Text(media) => json!({media: {"schema": {"type": "string"}}}),
        Gives::Inference => {
            for (header, name) in [
                ("x-mesh-version", "ModelVersion"),
                ("x-mesh-arm", "Arm"),
                ("mesh-cache", "Cache"),
                ("traceparent", "Traceparent"),
                ("inference-header-content-length", "InferenceHeaderContentLength"),
            ] {
                headers[header] = json!({"$ref": format!("#/components/headers/{name}")});
            }
            let binary = json!({"schema": {"type": "string", "contentMediaType": "application/octet-stream"}});
            json!({"application/json": {"schema": schemas::schema("InferResponse")}, "application/octet-stream": binary})
        }
    };
    let about = match (gives, config) {
        (Gives::Inference, Some(_)) => "the outputs; as raw bytes behind the JSON where that was asked for",
        _ => about,
    };
    json!({"description": about, "headers": headers, "content": content})
}
