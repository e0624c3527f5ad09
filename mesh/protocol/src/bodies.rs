//! The small JSON bodies: metadata of server and model, health, configuration, statistics, the index, errors.

use mesh_types::{ModelConfig, TensorSpec, Version};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::{
    error::DecodeError,
    grpc::{
        ConfigOf, StatisticsOf,
        messages::{ModelStatisticsResponse, repository_index_response::ModelIndex},
        model_config, model_statistics,
    },
    regions::REGION_EXTENSIONS,
    response::write_string,
};

/// The extensions of the protocol that this server has. Honest: a client that finds one here may use it.
pub const EXTENSIONS: [&str; 11] = [
    "classification",
    "sequence",
    "sequence(string_id)",
    "model_repository",
    "schedule_policy",
    "model_configuration",
    "binary_tensor_data",
    "parameters",
    "statistics",
    "trace",
    "logging",
];

/// An unload that takes the models of an ensemble's steps along.
const UNLOAD_DEPENDENTS: &str = "model_repository(unload_dependents)";

/// What callers may use of what is an operator's to allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offers {
    /// Shared memory.
    pub regions: bool,
    /// To load and unload the models of a repository.
    pub control: bool,
}

/// All of them that callers may use.
pub fn extensions(offers: Offers) -> Vec<&'static str> {
    let regions = REGION_EXTENSIONS.iter().filter(|_| offers.regions);
    let control = std::iter::once(&UNLOAD_DEPENDENTS).filter(|_| offers.control);
    EXTENSIONS.iter().chain(control).chain(regions).copied().collect()
}

/// What `GET /v2/models/{name}` tells.
#[derive(Debug, Clone, Copy)]
pub struct ModelMetadata<'a> {
    /// The name the caller used.
    pub name: &'a str,
    /// The versions the caller may ask for.
    pub versions: &'a [Version],
    /// What runs it.
    pub platform: &'a str,
    /// Its inputs and outputs.
    pub config: &'a ModelConfig,
}

/// `{"error":".."}`
pub fn error_body(message: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + 16);
    out.extend_from_slice(b"{\"error\":");
    write_string(&mut out, message);
    out.push(b'}');
    out
}

/// `{"name":"..","version":"..","extensions":[..]}`
pub fn server_metadata_body(name: &str, version: &str, extensions: &[&str]) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(b"{\"name\":");
    write_string(&mut out, name);
    out.extend_from_slice(b",\"version\":");
    write_string(&mut out, version);
    out.extend_from_slice(b",\"extensions\":");
    list(&mut out, extensions, |out, name| write_string(out, name));
    out.push(b'}');
    out
}

/// `{"live":true}`: whoever can answer is alive.
pub fn live_body() -> &'static [u8] {
    b"{\"live\":true}"
}

/// `{"ready":..}`
pub fn ready_body(ready: bool) -> &'static [u8] {
    if ready {
        b"{\"ready\":true}"
    } else {
        b"{\"ready\":false}"
    }
}

/// `{"name":"..","ready":..}`
pub fn model_ready_body(name: &str, ready: bool) -> Vec<u8> {
    let mut out = b"{\"name\":".to_vec();
    write_string(&mut out, name);
    out.extend_from_slice(if ready {
        b",\"ready\":true}"
    } else {
        b",\"ready\":false}"
    });
    out
}

/// `{"name":"..","versions":[..],"platform":"..","inputs":[..],"outputs":[..]}`; shapes hold -1 for any extent, the batch
/// dimension too.
pub fn model_metadata_body(metadata: ModelMetadata<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(b"{\"name\":");
    write_string(&mut out, metadata.name);
    out.extend_from_slice(b",\"versions\":");
    list(&mut out, metadata.versions, |out, version| {
        write_string(out, &version.to_string());
    });
    out.extend_from_slice(b",\"platform\":");
    write_string(&mut out, metadata.platform);
    for (key, specs) in [("inputs", &metadata.config.input), ("outputs", &metadata.config.output)] {
        out.push(b',');
        write_string(&mut out, key);
        out.push(b':');
        list(&mut out, specs, |out, spec| tensor(out, metadata.config, spec));
    }
    out.push(b'}');
    out
}

/// A model's configuration, in the JSON of Triton's message.
pub fn model_config_body(of: ConfigOf<'_>) -> Vec<u8> {
    json(&model_config(of))
}

/// `{"model_stats":[..]}`
pub fn statistics_body<'a>(of: impl IntoIterator<Item = StatisticsOf<'a>>) -> Vec<u8> {
    json(&ModelStatisticsResponse {
        model_stats: of.into_iter().map(model_statistics).collect(),
    })
}

/// One version of the index, from its name, number, state, and why it is not ready. A model that was never loaded has no version.
pub fn index_entry((name, version, state, reason): (&str, Option<Version>, &str, &str)) -> ModelIndex {
    ModelIndex {
        name: name.to_owned(),
        version: version.map(|version| version.to_string()).unwrap_or_default(),
        state: state.to_owned(),
        reason: reason.to_owned(),
    }
}

/// `{"models":["..",..]}`, with `"next":".."` where there are more: the last name, behind which they are.
pub fn models_body(names: &[String], next: Option<&str>) -> Vec<u8> {
    #[derive(Serialize)]
    struct Models<'a> {
        models: &'a [String],
        #[serde(skip_serializing_if = "Option::is_none")]
        next: Option<&'a str>,
    }
    json(&Models { models: names, next })
}

/// `[{"name":"..","version":"..","state":"..","reason":".."},..]`
pub fn index_body(entries: impl IntoIterator<Item = ModelIndex>) -> Vec<u8> {
    let entries: Vec<ModelIndex> = entries.into_iter().collect();
    json(&entries)
}

/// What a caller says that asks for the index: whether only of what is ready. It may say nothing.
pub fn decode_index(body: &[u8]) -> Result<bool, DecodeError> {
    #[derive(Deserialize)]
    struct Asked<'a> {
        #[serde(borrow, default, deserialize_with = "as_written")]
        ready: Option<&'a RawValue>,
    }
    // Otherwise a null would be the same as nothing.
    fn as_written<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
        <&RawValue>::deserialize(deserializer).map(Some)
    }
    if body.iter().all(u8::is_ascii_whitespace) {
        return Ok(false);
    }
    let asked: Asked<'_> = serde_json::from_slice(body)?;
    match asked.ready.map(|ready| ready.get().trim()) {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(DecodeError::Json(
            "Invalid value for 'ready': expected a boolean".to_owned(),
        )),
    }
}

// Messages of ours have nothing that JSON could not hold.
fn json(message: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(message).unwrap_or_default()
}

fn tensor(out: &mut Vec<u8>, config: &ModelConfig, spec: &TensorSpec) {
    out.extend_from_slice(b"{\"name\":");
    write_string(out, &spec.name);
    out.extend_from_slice(b",\"datatype\":");
    write_string(out, spec.datatype.as_str());
    out.extend_from_slice(b",\"shape\":");
    list(out, config.wire_dims(spec), |out, dim| {
        out.extend_from_slice(itoa::Buffer::new().format(dim).as_bytes());
    });
    out.push(b'}');
}

fn list<T>(out: &mut Vec<u8>, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use mesh_types::DataType;

    #[test]
    fn bodies_are_json_with_the_protocols_fields() {
        let spec = |name: &str| TensorSpec::new(name, DataType::Fp32, &[64]);
        let config = ModelConfig {
            max_batch_size: 8,
            input: vec![spec("INPUT\"0")],
            output: vec![spec("OUTPUT0")],
            ..ModelConfig::default()
        };
        let body = model_metadata_body(ModelMetadata {
            name: "digits",
            versions: &[Version::FIRST],
            platform: "pytorch_libtorch",
            config: &config,
        });
        let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            value,
            serde_json::json!({
                "name": "digits", "versions": ["1"], "platform": "pytorch_libtorch",
                "inputs": [{"name": "INPUT\"0", "datatype": "FP32", "shape": [-1, 64]}],
                "outputs": [{"name": "OUTPUT0", "datatype": "FP32", "shape": [-1, 64]}],
            })
        );
    }

    #[test]
    fn every_text_survives_the_error_form() {
        let message = "quote \" backslash \\ line \n tab \t bell \u{7} unit \u{1f} ä 🦀";
        let value: serde_json::Value = serde_json::from_slice(&error_body(message)).unwrap();
        assert_eq!(value["error"], message);
    }

    #[test]
    fn the_server_names_only_what_it_has() {
        let value: serde_json::Value =
            serde_json::from_slice(&server_metadata_body("mesh", "0.1.0", &extensions(Offers::default()))).unwrap();
        assert_eq!(
            value,
            serde_json::json!({"name": "mesh", "version": "0.1.0", "extensions": EXTENSIONS})
        );
        let offered = |name, regions, control| extensions(Offers { regions, control }).contains(&name);
        for other in [false, true] {
            assert!(!offered("system_shared_memory", false, other) && offered("system_shared_memory", true, other));
            assert!(!offered(UNLOAD_DEPENDENTS, other, false) && offered(UNLOAD_DEPENDENTS, other, true));
        }
    }

    #[test]
    fn the_index_is_asked_for_with_a_boolean_or_with_nothing() {
        for (body, asked) in [
            ("", false),
            (" ", false),
            ("{}", false),
            (r#"{"ready":true,"x":[1]}"#, true),
        ] {
            assert_eq!(decode_index(body.as_bytes()), Ok(asked), "{body}");
        }
        for body in [r#"{"ready":1}"#, r#"{"ready":"true"}"#, r#"{"ready":null}"#] {
            let error = decode_index(body.as_bytes()).map_err(|error| error.to_string());
            assert!(
                error.is_err_and(|text| text.contains("Invalid value for 'ready'")),
                "{body}"
            );
        }
        assert!(decode_index(b"[").is_err());
    }
}
