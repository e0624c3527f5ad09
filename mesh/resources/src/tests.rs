//! Resources as people write them, and what is said of bad ones.

use mesh_types::{ModelConfig, TenantId};
use proptest::prelude::*;

use crate::{ArmSpec, EndpointSpec, Kind, MAX_ARMS, ModelConfigSchema, Resource, ResourceKey, Spec, VersionRef};

fn yaml(text: &str) -> Result<Resource, String> {
    serde_yaml_ng::from_str(text).map_err(|error| error.to_string())
}

fn problems(text: &str) -> Vec<String> {
    yaml(text).unwrap().problems().iter().map(ToString::to_string).collect()
}

const ENDPOINT: &str = "
apiVersion: mesh/v1
kind: Endpoint
metadata: {tenant: acme, name: digits}
spec:
  sticky_by: user
  arms:
    - {name: v1, model: digit-classifier, version: 1, weight: 90}
    - {name: v2, model: digit-classifier, version: canary, weight: 10}
";

#[test]
fn an_endpoint_reads_back_as_written() {
    let endpoint = yaml(ENDPOINT).unwrap();
    assert!(endpoint.problems().is_empty());
    assert_eq!(endpoint.key().unwrap().to_string(), "Endpoint/acme/digits");
    let json = serde_json::to_string(&endpoint).unwrap();
    assert_eq!(serde_json::from_str::<Resource>(&json).unwrap(), endpoint);
    assert!(
        json.starts_with(r#"{"apiVersion":"mesh/v1","kind":"Endpoint""#),
        "{json}"
    );
}

#[test]
fn weights_must_sum_to_100_and_the_message_says_what_they_sum_to() {
    let text = ENDPOINT.replace("weight: 90", "weight: 80");
    assert_eq!(problems(&text), ["spec.arms: weights sum to 90, they must sum to 100"]);
    let text = ENDPOINT.replace("weight: 90", "weight: 89.995");
    assert_eq!(
        problems(&text),
        ["spec.arms[0].weight: 89.995 has more than two decimals"]
    );
    let text = ENDPOINT.replace("weight: 90", "weight: -1");
    assert_eq!(
        problems(&text),
        ["spec.arms[0].weight: -1 is not within 0 to 100 percent"]
    );
    assert!(yaml(&ENDPOINT.replace("weight: 90", "weight: .nan")).is_err());
    assert_eq!(
        problems(&ENDPOINT.replace("90", "99.99").replace("weight: 10", "weight: 0.01")),
        Vec::<String>::new()
    );
}

#[test]
fn everything_wrong_is_told_at_once() {
    let text = ENDPOINT
        .replace("name: v2", "name: v1")
        .replace("sticky_by: user", "sticky_by: 'a b'\n  timeout_ms: 0")
        .replace("name: digits", "name: Digits");
    let found = problems(&text);
    assert_eq!(found.len(), 4, "{found:#?}");
}

#[test]
fn sixteen_arms_pass_and_seventeen_do_not() {
    let arm = |index: usize| ArmSpec {
        name: format!("a{index}"),
        model: "m".parse().unwrap(),
        version: None,
        weight: if index == 0 { 100.0 } else { 0.0 },
    };
    let endpoint = |arms: usize| {
        let key: ResourceKey = "Endpoint/acme/e".parse().unwrap();
        let spec = EndpointSpec {
            description: None,
            arms: (0..arms).map(arm).collect(),
            sticky_by: None,
            salt: None,
            timeout_ms: None,
            service_class: mesh_types::ServiceClass::default(),
            cache: None,
            limits: crate::LimitsSpec::default(),
        };
        Resource::new(&key, spec)
    };
    assert!(endpoint(MAX_ARMS).problems().is_empty());
    assert_eq!(endpoint(MAX_ARMS + 1).problems().len(), 1);
    assert_eq!(endpoint(0).problems().len(), 1);
}

#[test]
fn unknown_fields_kinds_and_versions_are_named() {
    for (from, to, expected) in [
        ("sticky_by", "stickyby", "unknown field `stickyby`"),
        ("kind: Endpoint", "kind: Endpont", "unknown kind 'Endpont'"),
        ("mesh/v1", "mesh/v2", "apiVersion is 'mesh/v2', it must be mesh/v1"),
        ("metadata: {tenant", "metadata: {tenent", "unknown field `tenent`"),
        ("version: 1", "version: 0", "invalid model version '0'"),
    ] {
        let error = yaml(&ENDPOINT.replace(from, to)).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_tenant_needs_no_spec_and_takes_no_tenant() {
    let tenant = yaml("{apiVersion: mesh/v1, kind: Tenant, metadata: {name: acme}}").unwrap();
    assert!(tenant.problems().is_empty());
    assert_eq!(
        problems("{apiVersion: mesh/v1, kind: Tenant, metadata: {name: acme, tenant: acme}}"),
        ["metadata.tenant: a Tenant belongs to no tenant: leave it out"]
    );
    assert_eq!(
        problems("{apiVersion: mesh/v1, kind: Model, metadata: {name: m}}"),
        ["metadata.tenant: a Model belongs to a tenant: say which"]
    );
    assert_eq!(
        problems("{apiVersion: mesh/v1, kind: Tenant, metadata: {name: acme}, spec: {weight: 0}}"),
        ["spec.weight: 0 is not within 1 to 1000"]
    );
}

#[test]
fn a_model_version_says_what_its_configuration_lacks() {
    let text = "
apiVersion: mesh/v1
kind: ModelVersion
metadata: {tenant: acme, name: digits/3}
spec: {format: torchscript, config: {max_batch_size: 8}}
";
    assert_eq!(
        problems(text),
        [
            "spec.artifact: this format needs its file: upload it first",
            "spec.config.input: a model has at least one input",
            "spec.config.output: a model has at least one output",
        ]
    );
    let key = yaml(text).unwrap().key().unwrap();
    assert_eq!(key.as_version().unwrap().to_string(), "acme/digits/3");
    assert_eq!(ResourceKey::version(&key.as_version().unwrap()), key);
    assert_eq!(
        problems(&text.replace("digits/3", "digits"))
            .first()
            .map(String::as_str),
        Some("metadata.name: 'digits' names no model version: write model/number, such as digits/1")
    );
}

const ISSUER: &str = "
apiVersion: mesh/v1
kind: Issuer
metadata: {name: sso}
spec:
  issuer: https://sso.example
  audiences: [mesh]
  tenants: {claim: tenant}
  keys: [{algorithm: HS256, secret_base64: c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI=}]
";

#[test]
fn secrets_are_shown_neither_by_debug_nor_in_answers() {
    let issuer = yaml(ISSUER).unwrap();
    assert!(issuer.problems().is_empty(), "{:?}", issuer.problems());
    assert!(!format!("{issuer:?}").contains("c2Vj"));
    assert!(!serde_json::to_string(&issuer.redacted()).unwrap().contains("c2Vj"));
    let hash = "ab".repeat(32);
    let key = yaml(&format!(
        "{{apiVersion: mesh/v1, kind: ApiKey, metadata: {{tenant: a, name: k}}, spec: {{hash: {hash}, scopes: [infer]}}}}"
    ))
    .unwrap();
    assert!(!format!("{key:?}").contains(&hash));
    assert!(!serde_json::to_string(&key.redacted()).unwrap().contains(&hash));
}

#[test]
fn an_issuers_keys_must_suit_their_algorithm() {
    assert_eq!(
        problems(&ISSUER.replace("HS256", "RS256")),
        ["spec.keys[0]: RS256, PS256, ES256 and EdDSA take public_key_pem and no secret_base64"]
    );
    assert_eq!(
        problems(&ISSUER.replace("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI=", "c2VjcmV0")),
        ["spec.keys[0].secret_base64: an HS256 secret has at least 32 bytes (RFC 7518, section 3.2)"]
    );
}

const FETCHED: &str = "
apiVersion: mesh/v1
kind: Issuer
metadata: {name: sso}
spec:
  issuer: https://sso.example/
  audiences: [mesh]
  tenants: {claim: tenant}
  jwks: {url: https://sso.example/keys}
";

#[test]
fn an_issuers_keys_are_declared_or_fetched_over_an_encrypted_connection() {
    let fetched = yaml(FETCHED).unwrap();
    assert!(fetched.problems().is_empty(), "{:?}", fetched.problems());
    // What is written out reads back, with every algorithm named.
    let text = serde_json::to_string(&fetched).unwrap();
    assert!(
        text.contains(r#""algorithms":["RS256","PS256","ES256","EdDSA"]"#) && !text.contains("profile"),
        "{text}"
    );
    assert_eq!(serde_json::from_str::<Resource>(&text).unwrap(), fetched);
    let url = |url: &str| problems(&FETCHED.replace("{url: https://sso.example/keys}", url));
    assert_eq!(url("{}"), [""; 0], "discovered");
    for local in [
        "http://127.0.0.1:8080/keys",
        "'http://[::1]/keys'",
        "http://localhost/keys",
    ] {
        assert_eq!(url(&format!("{{url: {local}}}")), [""; 0], "{local}");
    }
    let scheme = "spec.jwks.url: it must begin with https:// (http:// only for 127.0.0.1, [::1] and localhost)";
    assert_eq!(url("{url: http://sso.example/keys}"), [scheme]);
    assert_eq!(url("{url: http://10.1.2.3/keys}"), [scheme]);
    let discovered = FETCHED
        .replace("{url: https://sso.example/keys}", "{}")
        .replace("https://sso.example/", "http://sso.example/");
    assert!(
        problems(&discovered)[0].contains("at the issuer's own address"),
        "{:?}",
        problems(&discovered)
    );
    let algorithms = "spec.jwks.algorithms: some of RS256, PS256, ES256 and EdDSA, each once";
    for wrong in ["[]", "[HS256]", "[ES256, HS256]", "[ES256, ES256]"] {
        assert_eq!(url(&format!("{{algorithms: {wrong}}}")), [algorithms], "{wrong}");
    }
    let both = FETCHED.replace(
        "  jwks:",
        "  keys: [{algorithm: HS256, secret_base64: c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI=}]\n  jwks:",
    );
    assert_eq!(
        problems(&both),
        ["spec.jwks: keys are declared or fetched, not both: leave one out"]
    );
    let neither = FETCHED.replace("  jwks: {url: https://sso.example/keys}\n", "");
    assert_eq!(problems(&neither), ["spec.keys: 1 to 100 keys, or jwks in their place"]);
}

#[test]
fn an_issuer_has_a_hundred_keys_and_not_one_more() {
    let with = |count: usize| {
        let keys: Vec<String> = (0..count)
            .map(|index| {
                format!("{{key_id: k{index}, algorithm: EdDSA, public_key_pem: '-----BEGIN PUBLIC KEY-----'}}")
            })
            .collect();
        ISSUER.replace(
            "{algorithm: HS256, secret_base64: c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI=}",
            &keys.join(", "),
        )
    };
    assert_eq!(problems(&with(100)), [""; 0]);
    assert_eq!(
        problems(&with(101)),
        ["spec.keys: 1 to 100 keys, or jwks in their place"]
    );
}

#[test]
fn kinds_are_read_in_singular_and_plural() {
    for kind in Kind::ALL {
        for text in [kind.as_str(), kind.plural(), &kind.plural().to_uppercase()] {
            assert_eq!(Kind::parse(text), Ok(kind), "{text}");
        }
    }
    assert_eq!(Kind::parse("key"), Ok(Kind::ApiKey));
    assert_eq!(Kind::parse("version"), Ok(Kind::ModelVersion));
    assert!(Kind::parse("gizmo").is_err());
}

#[test]
fn keys_that_are_none_are_refused() {
    for bad in [
        "",
        "Tenant",
        "Endpoint/acme",
        "Endpoint/acme/a/b",
        "ModelVersion/acme/m/0",
        "Tenant/acme/x",
    ] {
        assert!(bad.parse::<ResourceKey>().is_err(), "{bad}");
    }
}

#[test]
fn an_ensemble_has_steps_and_neither_a_file_nor_anything_of_a_device() {
    let problems = |format: &str, config: serde_json::Value, artifact: bool| -> Vec<String> {
        let mut all = serde_json::json!({
            "input": [{"name": "x", "datatype": "FP32", "dims": [1]}],
            "output": [{"name": "y", "datatype": "FP32", "dims": [1]}], "max_batch_size": 4,
        });
        all.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
        let mut spec = serde_json::json!({"format": format, "config": all});
        if artifact {
            spec["artifact"] = serde_json::json!({"sha256": "a".repeat(64), "bytes": 1});
        }
        let spec: crate::ModelVersionSpec = serde_json::from_value(spec).unwrap();
        let key: ResourceKey = "ModelVersion/acme/pipe/1".parse().unwrap();
        Resource::new(&key, spec)
            .problems()
            .into_iter()
            .map(|problem| problem.field)
            .collect()
    };
    let graph = serde_json::json!({"graph": {"steps": []}});
    assert_eq!(problems("ensemble", graph.clone(), false), Vec::<String>::new());
    assert_eq!(problems("ensemble", graph.clone(), true), ["spec.artifact"]);
    assert_eq!(problems("builtin", graph, false), ["spec.config.graph"]);
    let of_a_device = serde_json::json!({
        "ensemble_scheduling": {"step": []}, "dynamic_batching": {}, "execution": {}, "instance_group": [{}],
        "parameters": {"a": "b"},
    });
    assert_eq!(
        problems("builtin", of_a_device.clone(), false),
        ["spec.config.ensemble_scheduling"]
    );
    assert_eq!(
        problems("ensemble", of_a_device, false),
        ["dynamic_batching", "execution", "instance_group", "parameters"].map(|field| format!("spec.config.{field}"))
    );
    let decoupled = serde_json::json!({"model_transaction_policy": {"decoupled": true}});
    let refused = ["spec.config.model_transaction_policy.decoupled"];
    assert_eq!(problems("builtin", decoupled.clone(), false), Vec::<String>::new());
    assert_eq!(problems("torchscript", decoupled.clone(), true), refused);
    let mut graph = decoupled;
    graph["graph"] = serde_json::json!({"steps": []});
    assert_eq!(problems("ensemble", graph, false), refused);
    let of_a_worker = serde_json::json!({
        "graph": {"steps": []}, "residency": {},
        "sequence_batching": {"state": [
            {"input_name": "before", "output_name": "after", "data_type": "TYPE_FP32", "dims": [1]}]},
        "model_warmup": [{"name": "w", "batch_size": 1,
            "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [1], "zero_data": true}}}],
    });
    assert_eq!(
        problems("ensemble", of_a_worker, false),
        ["residency", "model_warmup", "sequence_batching"].map(|field| format!("spec.config.{field}"))
    );
}

#[test]
fn the_schema_of_the_model_configuration_has_its_fields() {
    let config: ModelConfig = serde_json::from_value(serde_json::json!({
        "max_batch_size": 1, "input": [], "output": [], "dynamic_batching": {}, "instance_group": [{}], "parameters": {"a": "b"},
        "ensemble_scheduling": {"step": []}, "graph": {"steps": []}, "residency": {},
        "model_warmup": [{"name": "w", "batch_size": 1, "inputs": {}}], "model_transaction_policy": {}, "request_parameters": {}
    }))
    .unwrap();
    let fields = |value: serde_json::Value| -> Vec<String> {
        let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        names.sort();
        names
    };
    let real = fields(serde_json::to_value(&config).unwrap());
    let described = fields(serde_json::to_value(ModelConfigSchema::default()).unwrap());
    assert_eq!(real, described);
}

proptest! {
    #[test]
    fn keys_read_back_as_written(tenant in "[a-z0-9]{1,8}", model in "[a-z][a-z0-9.-]{0,6}[a-z0-9]", version in 1u32..) {
        for text in [format!("Tenant/{tenant}"), format!("Model/{tenant}/{model}"), format!("ModelVersion/{tenant}/{model}/{version}")] {
            prop_assert_eq!(text.parse::<ResourceKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn any_split_of_all_hundredths_passes(cuts in proptest::collection::vec(0u32..=10_000, 0..MAX_ARMS)) {
        let mut edges: Vec<u32> = [0, 10_000].into_iter().chain(cuts).collect();
        edges.sort_unstable();
        let arms = edges.windows(2).enumerate().map(|(index, pair)| ArmSpec {
            name: format!("a{index}"),
            model: "m".parse().unwrap(),
            version: Some("1".parse::<VersionRef>().unwrap()),
            weight: f64::from(pair[1] - pair[0]) / 100.0,
        });
        let spec = EndpointSpec { description: None, arms: arms.collect(), sticky_by: None, salt: None, timeout_ms: None, service_class: mesh_types::ServiceClass::default(), cache: None, limits: crate::LimitsSpec::default() };
        let key = ResourceKey::new(Kind::Endpoint, Some(TenantId::parse("t").unwrap()), "e").unwrap();
        let endpoint = Resource::new(&key, Spec::Endpoint(spec));
        if endpoint.problems().is_empty() {
            prop_assert!(edges.len() - 1 <= MAX_ARMS);
        } else {
            prop_assert!(edges.len() - 1 > MAX_ARMS);
        }
    }
}
