//! A version is switched under load, and no request fails.

use mesh_e2e::Load;
use mesh_harness::{Mesh, builtin};
use serde_json::{Value, json};

fn model() -> Value {
    builtin("busy", &json!({"busy_us": 200}))
}

#[tokio::test]
async fn a_label_moves_to_a_new_version_and_the_old_one_leaves_without_a_failed_request() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "m", &model()).await?;
    admin.model("acme", "m", json!({"labels": {"stable": 1}})).await?;
    admin
        .endpoint("acme", "front", &[("main", "m", "stable", 100.0)])
        .await?;
    let one = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    caller.until_answers("front", &one).await?;

    let load = Load::begin(&caller, "front", 8);
    load.go_on_for(200).await;
    // In one breath: the new version, the label, and the old version off the devices.
    let version = |number: u32, unloaded: bool| {
        let mut spec = model();
        spec["unloaded"] = json!(unloaded);
        let metadata = json!({"tenant": "acme", "name": format!("m/{number}")});
        json!({"apiVersion": "mesh/v1", "kind": "ModelVersion", "metadata": metadata, "spec": spec})
    };
    let label = json!({
        "apiVersion": "mesh/v1", "kind": "Model", "metadata": {"tenant": "acme", "name": "m"},
        "spec": {"labels": {"stable": 2}},
    });
    admin.apply(&[version(2, false), label, version(1, true)]).await?;
    admin.until_state("acme", "m", 2, "READY").await?;
    admin.until_gone("acme", "m", 1).await?;
    load.go_on_for(200).await;
    let tally = load.end().await;
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(tally.versions, ["1", "2"]);
    assert!(tally.ok >= 400);
    Ok(())
}

#[tokio::test]
async fn a_version_that_does_not_load_leaves_the_old_one_serving_and_says_why() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "m", &model()).await?;
    admin.model("acme", "m", json!({"labels": {"stable": 1}})).await?;
    admin
        .endpoint("acme", "front", &[("main", "m", "stable", 100.0)])
        .await?;
    caller
        .until_answers(
            "front",
            &json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]}),
        )
        .await?;
    let load = Load::begin(&caller, "front", 2);
    let broken = admin
        .publish_only("acme", "m", &builtin("no_such_model", &json!({})))
        .await?;
    admin.model("acme", "m", json!({"labels": {"stable": broken}})).await?;
    let failed = admin.until_state("acme", "m", broken, "FAILED").await?;
    let reason = failed["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("no built-in model 'no_such_model'"), "{reason}");
    load.go_on_for(50).await;
    let tally = load.end().await;
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(tally.versions, ["1"]);
    let pinned = caller.ask(&format!("m/versions/{broken}"), &[1.0]).await?;
    assert_eq!(pinned.status.as_u16(), 503);
    assert!(pinned.error()?.contains("no_such_model"), "{}", pinned.error()?);
    Ok(())
}
