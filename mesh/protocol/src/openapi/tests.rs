//! The documents against themselves, against the statuses that faults have, and a model's example against the decoder.

use std::collections::BTreeSet;

use bytes::Bytes;
use mesh_types::{FaultClass, ModelId, SequenceBatching, VersionSelector};

use super::*;
use crate::{decode_infer, http_status};

const MESH: Server<'_> = Server {
    name: "mesh",
    version: "1.2.3",
    as_triton: false,
};

fn read(document: &[u8]) -> Value {
    serde_json::from_slice(document).unwrap()
}

fn spec(name: &str, datatype: mesh_types::DataType, dims: &[i64]) -> mesh_types::TensorSpec {
    mesh_types::TensorSpec::new(name, datatype, dims)
}

fn config(input: Vec<mesh_types::TensorSpec>) -> ModelConfig {
    ModelConfig {
        max_batch_size: 8,
        input,
        output: vec![spec("label", mesh_types::DataType::Fp32, &[3])],
        ..ModelConfig::default()
    }
}

fn of_model(config: &ModelConfig, version: Option<&str>) -> Value {
    read(&model_document(ModelDocument {
        name: "digits",
        version,
        versions: &[Version::FIRST],
        platform: "pytorch_libtorch",
        config,
        server: MESH,
    }))
}

fn all_references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|field| all_references(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| all_references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves_and_every_operation_has_a_name_of_its_own() {
    for document in [
        read(&document(MESH)),
        of_model(&config(vec![spec("x", mesh_types::DataType::Int8, &[4, -1])]), None),
    ] {
        assert_eq!(document["openapi"], "3.1.0");
        let mut references = BTreeSet::new();
        all_references(&document, &mut references);
        for reference in &references {
            assert!(
                document.pointer(reference.trim_start_matches('#')).is_some(),
                "{reference}"
            );
        }
        for schema in document["components"]["schemas"].as_object().unwrap().keys() {
            assert!(
                references.contains(&format!("#/components/schemas/{schema}")),
                "{schema} is not used"
            );
        }
        let mut ids = BTreeSet::new();
        for operation in document["paths"]
            .as_object()
            .unwrap()
            .values()
            .flat_map(|path| path.as_object().unwrap().values())
        {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{id} is there twice");
            for part in ["{model}", "{version}"] {
                assert!(!operation["summary"].as_str().unwrap().contains(part));
            }
        }
    }
}

#[test]
fn a_prediction_may_have_every_status_that_a_fault_has() {
    let document = read(&document(MESH));
    let answers = document["paths"]["/v2/models/{model}/infer"]["post"]["responses"]
        .as_object()
        .unwrap();
    for class in [
        FaultClass::InvalidArgument,
        FaultClass::Unauthenticated,
        FaultClass::PermissionDenied,
        FaultClass::NotFound,
        FaultClass::TooLarge,
        FaultClass::RateLimited,
        FaultClass::Cancelled,
        FaultClass::Internal,
        FaultClass::Unsupported,
        FaultClass::Unavailable,
        FaultClass::DeadlineExceeded,
    ] {
        assert!(answers.contains_key(&http_status(class).to_string()), "{class:?}");
    }
}

#[test]
fn what_needs_no_credential_says_so_and_nothing_else_does() {
    let document = read(&document(MESH));
    let open = |path: &str| document["paths"][path]["get"]["security"] == json!([]);
    for path in [
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/openapi.json",
        "/v2/docs",
    ] {
        assert!(open(path), "{path}");
    }
    for path in [
        "/v2/models/{model}",
        "/v2/models/{model}/openapi.json",
        "/v2/models/stats",
    ] {
        assert!(!open(path), "{path}");
    }
    assert_eq!(document["security"], json!([{"credential": []}]));
}

#[test]
fn a_models_paths_are_its_own_and_of_the_version_that_was_asked_for() {
    let config = config(vec![spec("x", mesh_types::DataType::Fp32, &[2])]);
    let plain = of_model(&config, None);
    assert!(plain["paths"]["/v2/models/digits/infer"]["post"].is_object());
    assert!(
        plain["paths"]
            .as_object()
            .unwrap()
            .keys()
            .all(|path| !path.contains(['{', '}']))
    );
    let versioned = of_model(&config, Some("stable"));
    let paths: Vec<_> = versioned["paths"].as_object().unwrap().keys().collect();
    assert!(
        paths
            .iter()
            .all(|path| path.starts_with("/v2/models/digits/versions/stable")
                || path.starts_with("/v1/models/digits/labels/stable")),
        "{paths:?}"
    );
    assert_eq!(paths.len(), plain["paths"].as_object().unwrap().len());
    let numbered = of_model(&config, Some("7"));
    assert!(numbered["paths"]["/v1/models/digits/versions/7:predict"]["post"].is_object());
    assert_eq!(numbered["paths"].as_object().unwrap().len(), paths.len());
}

#[test]
fn datatypes_have_their_ranges_and_fixed_extents_their_lengths() {
    let document = of_model(
        &config(vec![
            spec("x", mesh_types::DataType::Int8, &[4, -1]),
            spec("k", mesh_types::DataType::Uint64, &[2]),
        ]),
        None,
    );
    let schemas = &document["components"]["schemas"];
    let x = &schemas["Input0"]["properties"];
    assert_eq!(x["name"]["const"], "x");
    let nested = &x["data"]["anyOf"][1];
    assert_eq!(
        (&nested["minItems"], &nested["items"]["minItems"]),
        (&Value::Null, &json!(4))
    );
    assert_eq!(
        nested["items"]["items"]["items"],
        json!({"type": "integer", "minimum": -128, "maximum": 127})
    );
    assert_eq!(x["shape"]["prefixItems"][0]["maximum"], 8);
    assert_eq!(x["shape"]["prefixItems"][1]["const"], 4);
    assert_eq!(
        (&x["shape"]["minItems"], &x["shape"]["maxItems"]),
        (&json!(3), &json!(3))
    );
    let k = &schemas["Input1"]["properties"]["data"]["anyOf"][0];
    assert_eq!(k["items"]["maximum"], u64::MAX);
    assert_eq!(schemas["InferRequest"]["properties"]["inputs"]["minItems"], 2);
    assert_eq!(
        schemas["InferRequest"]["properties"]["outputs"]["items"]["properties"]["name"]["enum"],
        json!(["label"])
    );
}

#[test]
fn labels_stand_in_the_description_up_to_a_bound() {
    let with = |count: usize| {
        let mut config = config(vec![spec("x", mesh_types::DataType::Fp32, &[1])]);
        config.output[0].labels = (0..count).map(|at| format!("l{at}")).collect();
        let document = of_model(&config, None);
        document["components"]["schemas"]["Output0"]["description"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert!(with(2).contains("stand for: l0, l1."));
    assert!(with(model::MAX_SHOWN_LABELS).ends_with("l31."));
    assert!(with(model::MAX_SHOWN_LABELS + 1).ends_with("l31, and 1 more."));
}

fn example_of(config: &ModelConfig) -> Option<Value> {
    let document = of_model(config, None);
    let plain = &document["paths"]["/v2/models/digits/infer"]["post"]["requestBody"]["content"]["application/json"];
    plain.get("example").cloned()
}

#[test]
fn an_example_is_read_and_fits_its_model_for_every_datatype_that_json_has() {
    for datatype in mesh_types::DataType::ALL {
        for dims in [&[3, 2][..], &[-1], &[]] {
            let mut optional = spec("left-out", mesh_types::DataType::Fp16, &[1]);
            optional.optional = true;
            let config = config(vec![spec("x", datatype, dims), optional]);
            let Some(example) = example_of(&config) else {
                assert!(
                    matches!(datatype, mesh_types::DataType::Fp16 | mesh_types::DataType::Bf16),
                    "{datatype}"
                );
                continue;
            };
            let body = Bytes::from(example.to_string());
            let decoded = decode_infer("digits", VersionSelector::Default, &body, None).unwrap();
            let mut inputs = decoded.request.inputs;
            assert_eq!(
                config.check_inputs(&ModelId::parse("digits").unwrap(), &mut inputs),
                Ok(1),
                "{datatype} {dims:?}"
            );
        }
    }
}

#[test]
fn an_example_of_a_sequence_is_a_whole_one() {
    let mut config = config(vec![spec("x", mesh_types::DataType::Int32, &[1])]);
    config.sequence_batching = Some(SequenceBatching::default());
    let example = example_of(&config).unwrap();
    assert_eq!(
        example["parameters"],
        json!({"sequence_id": 1, "sequence_start": true, "sequence_end": true})
    );
}

#[test]
fn an_example_has_a_bound() {
    let most = i64::try_from(model::MAX_EXAMPLE_ELEMENTS).unwrap();
    let example = |elements: i64| example_of(&config(vec![spec("x", mesh_types::DataType::Fp32, &[elements])]));
    assert!(example(most).is_some());
    assert!(example(most + 1).is_none());
    assert!(
        example_of(&config(vec![spec(
            "x",
            mesh_types::DataType::Fp32,
            &[i64::MAX, i64::MAX]
        )]))
        .is_none()
    );
}

#[test]
fn in_the_place_of_tritons_server_health_is_told_by_the_status_alone() {
    let document = read(&document(Server {
        as_triton: true,
        ..MESH
    }));
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/{model}/ready"] {
        let answers = document["paths"][path]["get"]["responses"].as_object().unwrap();
        assert!(
            answers["200"].get("content").is_none() && answers["400"].get("content").is_none(),
            "{path}"
        );
        assert!(!answers.contains_key("503") && !answers.contains_key("404"), "{path}");
    }
    assert!(document["paths"]["/v2/models/{model}"]["get"]["responses"]["404"].is_object());
}

fn example_of_v1(config: &ModelConfig) -> Option<Value> {
    let document = of_model(config, None);
    let plain = &document["paths"]["/v1/models/digits:predict"]["post"]["requestBody"]["content"]["application/json"];
    plain.get("example").cloned()
}

#[test]
fn an_example_of_version_1_is_read_and_fits_its_model() {
    for datatype in mesh_types::DataType::ALL {
        for dims in [&[3, 2][..], &[-1], &[1], &[]] {
            let mut optional = spec("left-out", mesh_types::DataType::Fp32, &[1]);
            optional.optional = true;
            let config = config(vec![spec("x", datatype, dims), optional]);
            let Some(example) = example_of_v1(&config) else {
                assert!(example_of(&config).is_none(), "{datatype}");
                continue;
            };
            let mut read = crate::v1::decode_predict(&config, example.to_string().as_bytes()).unwrap();
            let fits = config.check_inputs(&ModelId::parse("digits").unwrap(), &mut read.inputs);
            assert_eq!(fits, Ok(1), "{datatype} {dims:?}: {example}");
        }
    }
    let mut sequence = config(vec![spec("x", mesh_types::DataType::Int32, &[1])]);
    sequence.sequence_batching = Some(SequenceBatching::default());
    assert_eq!(example_of_v1(&sequence), None);
}

#[test]
fn rows_of_version_1_are_nested_as_the_model_says_and_bound_by_it() {
    let document = of_model(&config(vec![spec("x", mesh_types::DataType::Int8, &[4, -1])]), None);
    let rows = &document["components"]["schemas"]["PredictV1"]["anyOf"][0]["properties"]["instances"];
    assert_eq!((&rows["minItems"], &rows["maxItems"]), (&json!(1), &json!(8)));
    let value = &rows["items"]["anyOf"][0];
    assert_eq!((&value["minItems"], &value["maxItems"]), (&json!(4), &json!(4)));
    assert_eq!(value["items"]["items"]["minimum"], -128);
    assert_eq!(rows["items"]["anyOf"][1]["required"], json!(["x"]));
}
