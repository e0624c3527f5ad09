//! More models than fit into memory, and what admins and tenants see of it.

use mesh_e2e::Load;
use mesh_harness::{Mesh, MeshOptions, builtin};
use mesh_node::{ServeOptions, Text};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const MODELS: usize = 12;

/// A mesh with room for four models of a MiB.
async fn small() -> anyhow::Result<Mesh> {
    let serve = ServeOptions {
        cpu_memory: Some(Text("4MiB".to_owned())),
        ..ServeOptions::default()
    };
    Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await
}

fn of_one_mib() -> Value {
    let mut spec = builtin("identity", &json!({"weights_bytes": MIB}));
    spec["config"]["max_batch_size"] = json!(4);
    spec
}

#[tokio::test]
async fn every_model_answers_though_a_third_of_them_fit_and_a_hint_brings_one_back() -> anyhow::Result<()> {
    let mesh = small().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    for number in 0..MODELS {
        admin
            .publish_only("acme", &format!("m-{number}"), &of_one_mib())
            .await?;
    }
    for number in 0..MODELS {
        caller.until_ready(&format!("m-{number}")).await?;
    }
    for round in 0..2 {
        for number in 0..MODELS {
            let answer = caller
                .ask(&format!("m-{number}"), &[f32::from(number as u16), 0.5])
                .await?
                .ok()?;
            assert_eq!(answer.numbers(0)?, [number as f64, 0.5], "round {round}");
        }
    }
    let devices = admin.get("/devices").await?;
    let memory = devices[0]["memory_bytes"].as_u64().unwrap_or_default();
    assert!(
        memory <= 4 * MIB && devices[0]["budget_bytes"] == json!(4 * MIB),
        "{devices}"
    );
    let models = devices[0]["models"].as_array().cloned().unwrap_or_default();
    let standing_by = models.iter().filter(|model| model["state"] == "STANDBY").count();
    assert!(standing_by >= MODELS - 4, "{devices}");
    // The first one left memory long ago.
    admin.until_state("acme", "m-0", 1, "STANDBY").await?;
    let hint = admin.request(reqwest::Method::POST, "/tenants/acme/models/m-0/warm");
    let answer: Value = hint.json(&json!({})).send().await?.error_for_status()?.json().await?;
    assert_eq!(
        (&answer["version"], &answer["devices"][0]),
        (&json!(1), &json!("cpu:0"))
    );
    admin.until_state("acme", "m-0", 1, "READY").await?;
    let metrics = mesh.metrics().await?;
    assert!(
        metrics.contains("mesh_device_memory_budget_bytes{device=\"cpu:0\"} 4194304"),
        "{metrics}"
    );
    assert!(metrics.contains("mesh_model_evictions_total{device=\"cpu:0\",model=\"acme/m-0/1\",reason=\"memory\"}"));
    let too_large = builtin("identity", &json!({"weights_bytes": 8 * MIB}));
    let version = admin.publish_only("acme", "large", &too_large).await?;
    let failed = admin.until_state("acme", "large", version, "FAILED").await?;
    let reason = failed["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("the device's budget is 4096 KiB"), "{reason}");
    Ok(())
}

#[tokio::test]
async fn a_label_is_switched_a_hundred_times_under_load_and_everybody_gets_what_was_asked_for() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    let model = builtin("busy", &json!({"busy_us": 50}));
    for _ in 0..2 {
        admin.publish("acme", "m", &model).await?;
    }
    admin.model("acme", "m", json!({"labels": {"stable": 1}})).await?;
    admin
        .endpoint("acme", "front", &[("main", "m", "stable", 100.0)])
        .await?;
    let one = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    caller.until_answers("front", &one).await?;
    let (label, first) = (
        Load::begin(&caller, "front", 56),
        Load::begin(&caller, "m/versions/1", 8),
    );
    for round in 0..100 {
        let stable = 1 + (round + 1) % 2;
        admin.model("acme", "m", json!({"labels": {"stable": stable}})).await?;
        label.go_on_for(20).await;
    }
    let (label, first) = (label.end().await, first.end().await);
    assert_eq!((&label.failures, &first.failures), (&Vec::new(), &Vec::new()));
    assert_eq!(first.versions, ["1"]);
    assert!(label.versions.iter().all(|version| version == "1" || version == "2"));
    assert!(label.ok > 1_000 && label.versions.contains(&"2".to_owned()));
    Ok(())
}
