//! Graphs for tests, in few words.

use std::{collections::BTreeMap, sync::Arc};

use mesh_types::{
    ArtifactFormat, DataType, DeviceId, ModelConfig, ModelConfigError, ModelId, ModelVersionKey, TenantId, TensorSpec,
    Version,
};
use serde_json::{Value, json};

use super::{Outline, Plan, StepVersionEntry, Wanted};
use crate::VersionEntry;

pub(super) fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    serde_json::from_value(json!({"name": name, "datatype": datatype, "dims": dims})).unwrap()
}

/// A model of vectors: inputs and outputs by name.
pub(super) fn signature(max_batch_size: u32, inputs: &[&str], outputs: &[&str]) -> ModelConfig {
    let specs = |names: &[&str]| names.iter().map(|name| spec(name, DataType::Fp32, &[2])).collect();
    ModelConfig {
        max_batch_size,
        input: specs(inputs),
        output: specs(outputs),
        ..ModelConfig::default()
    }
}

/// A configuration with a graph, as it would be written.
pub(super) fn ensemble(max_batch_size: u32, inputs: &[&str], outputs: &[&str], graph: Value) -> ModelConfig {
    ModelConfig {
        graph: Some(serde_json::from_value(graph).unwrap()),
        ..signature(max_batch_size, inputs, outputs)
    }
}

/// Models by name; `one` is `x` to `y`, `two` is `a`, `b` to `y`, `z`.
pub(super) fn models() -> BTreeMap<&'static str, ModelConfig> {
    let mut labels = signature(8, &["x"], &["label"]);
    labels.output = vec![spec("label", DataType::Bytes, &[1])];
    BTreeMap::from([
        ("one", signature(8, &["x"], &["y"])),
        ("two", signature(8, &["a", "b"], &["y", "z"])),
        ("small", signature(2, &["x"], &["y"])),
        ("single", signature(0, &["x"], &["y"])),
        ("labels", labels),
    ])
}

pub(super) fn compile(config: &ModelConfig) -> Result<Outline, Vec<ModelConfigError>> {
    let models = models();
    Outline::compile(config, "acme/pipe", |wanted: Wanted<'_>| {
        let found = models.get(wanted.model.as_str()).cloned().map(Arc::new);
        found.ok_or_else(|| format!("there is no model '{}' here", wanted.model))
    })
}

/// The problems of a graph of one input `in` and one output `out`, as `field: problem`.
pub(super) fn problems(graph: Value) -> Vec<String> {
    problems_of(&ensemble(2, &["in"], &["out"], graph))
}

pub(super) fn problems_of(config: &ModelConfig) -> Vec<String> {
    let problems = compile(config).err().unwrap_or_default();
    problems.iter().map(ToString::to_string).collect()
}

pub(super) fn key(model: &str, tenant: &str) -> ModelVersionKey {
    ModelVersionKey {
        tenant: TenantId::parse(tenant).unwrap(),
        model: ModelId::parse(model).unwrap(),
        version: Version::FIRST,
    }
}

pub(super) fn entry(tenant: &str, model: &str, config: ModelConfig, plan: Option<Arc<Plan>>) -> Arc<VersionEntry> {
    Arc::new(VersionEntry {
        key: Arc::new(key(model, tenant)),
        config: Arc::new(config),
        format: ArtifactFormat::Builtin,
        digest: None,
        ready_on: vec![DeviceId::cpu(0)],
        plan,
        unavailable_reason: None,
        phase: Default::default(),
    })
}

/// The plan of a graph whose models are all of `acme`.
pub(super) fn plan(config: &ModelConfig) -> Arc<Plan> {
    let models = models();
    let resolve = |wanted: Wanted<'_>| {
        let config = models.get(wanted.model.as_str()).cloned();
        let config = config.ok_or_else(|| "no such model".to_owned())?;
        Ok(StepVersionEntry {
            entry: entry("acme", wanted.model.as_str(), config, None),
            callers: [TenantId::parse("acme").unwrap()].into(),
        })
    };
    Arc::new(Plan::compile(&key("pipe", "acme"), config, resolve).unwrap())
}
