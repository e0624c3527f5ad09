//! What the demo declares, through the mesh's own command line. What is there already stays as it is.

use anyhow::Context;
use serde_json::Value;

use crate::{
    demo::{Digits, ENDPOINT, TENANTS, digits::MODEL_CONFIG},
    libtorch,
    node::{Node, document},
    process,
};

/// The model, the first tenant's, granted to the second.
const MODEL: &str = "digit-classifier";

/// Tenants, keys, the model with two versions, and an endpoint per tenant that sends a tenth of its users to version 2.
/// Returns the tenants' keys.
pub(crate) fn declare(node: &Node, digits: &Digits) -> anyhow::Result<Vec<String>> {
    let there = node.list("tenants", None)?;
    let fresh: Vec<&str> = TENANTS
        .into_iter()
        .filter(|name| find(&there, name).is_none())
        .collect();
    let documents: String = fresh.iter().map(|name| document("Tenant", None, name, "{}")).collect();
    if !fresh.is_empty() {
        eprintln!("creating the tenants {}", fresh.join(" and "));
        node.apply(&documents)?;
    }
    let keys = TENANTS
        .iter()
        .map(|tenant| node.key(tenant))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let [owner, other] = TENANTS;
    let versions = [version(node, digits, 1)?, version(node, digits, 2)?];
    grant(node, owner, other)?;
    for tenant in TENANTS {
        if find(&node.list("endpoints", Some(tenant))?, ENDPOINT).is_none() {
            eprintln!("creating the endpoint {ENDPOINT} of {tenant}: 90 % of users to version 1, 10 % to version 2");
            let arm = |name: &str, version: &str, weight: u32| {
                format!("{{name: {name}, model: {MODEL}, version: {version:?}, weight: {weight}}}")
            };
            let [first, second] = &versions;
            let (linear, convolutional) = (arm("v1", first, 90), arm("v2", second, 10));
            let spec = format!("{{sticky_by: user, arms: [{linear}, {convolutional}]}}");
            node.apply(&document("Endpoint", Some(tenant), ENDPOINT, &spec))?;
        }
    }
    Ok(keys)
}

fn find<'a>(items: &'a [Value], name: &str) -> Option<&'a Value> {
    items
        .iter()
        .find(|item| item.pointer("/metadata/name").and_then(Value::as_str) == Some(name))
}

/// The number of the version that holds this file; published if there is none.
fn version(node: &Node, digits: &Digits, which: usize) -> anyhow::Result<String> {
    let file = digits.model(which);
    let digest = libtorch::digest(&file)?;
    let holding = || -> anyhow::Result<Option<String>> {
        let versions = node.list("versions", Some(TENANTS[0]))?;
        Ok(number_of(&versions, &digest))
    };
    if let Some(number) = holding()? {
        return Ok(number);
    }
    eprintln!("publishing {MODEL} version {which}");
    let config = node.folder.join("model.yaml");
    std::fs::write(&config, MODEL_CONFIG).with_context(|| format!("cannot write {}", config.display()))?;
    let label = if which == 1 { "stable" } else { "canary" };
    let mut command = node.cli(&[
        "model", "publish", "-t", TENANTS[0], "-m", MODEL, "--label", label, "--wait",
    ]);
    command.arg("--config").arg(config).arg(file);
    process::output(&mut command)?;
    holding()?.context("the version that was just published is not listed")
}

fn number_of(versions: &[Value], digest: &str) -> Option<String> {
    versions.iter().find_map(|version| {
        let holds = version.pointer("/spec/artifact/sha256")?.as_str()? == digest;
        let name = version.pointer("/metadata/name")?.as_str()?;
        let number = name.strip_prefix(MODEL)?.strip_prefix('/')?;
        holds.then(|| number.to_owned())
    })
}

/// Lets the other tenant call the model, keeping what else the model says.
fn grant(node: &Node, owner: &str, other: &str) -> anyhow::Result<()> {
    let models = node.list("models", Some(owner))?;
    let model = find(&models, MODEL).context("the model that was just published is not listed")?;
    let granted = model.pointer("/spec/grants").and_then(Value::as_array);
    if granted.is_some_and(|granted| granted.iter().any(|tenant| tenant == other)) {
        return Ok(());
    }
    let mut changed = model.clone();
    let spec = changed.get_mut("spec").and_then(Value::as_object_mut);
    let mut all = granted.cloned().unwrap_or_default();
    all.push(other.into());
    spec.context("the model has no spec")?
        .insert("grants".to_owned(), all.into());
    eprintln!("granting {MODEL} of {owner} to {other}");
    // JSON is YAML.
    node.apply(&changed.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_version_is_found_by_its_model_and_digest() {
        let versions = [
            json!({"metadata": {"name": "other/9"}, "spec": {"artifact": {"sha256": "aa"}}}),
            json!({"metadata": {"name": "digit-classifier/3"}, "spec": {"artifact": {"sha256": "aa"}}}),
            json!({"metadata": {"name": "digit-classifier/4"}, "spec": {"format": "builtin"}}),
        ];
        assert_eq!(number_of(&versions, "aa").as_deref(), Some("3"));
        assert_eq!(number_of(&versions, "bb"), None);
    }
}
