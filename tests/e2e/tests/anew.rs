//! A tenant that is deleted and made anew under the same name begins at nothing.

use anyhow::ensure;
use mesh_harness::{Admin, Answer, Caller, Mesh, eventually};
use reqwest::Method;
use serde_json::{Value, json};

/// A sum of the numbers of a sequence, whose state the worker keeps.
fn sum() -> Value {
    let tensor = |name: &str| json!({"name": name, "data_type": "TYPE_INT32", "dims": [1]});
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "TYPE_INT32", "dims": [1],
        "initial_state": [{"dims": [1], "zero_data": true}]});
    json!({"format": "builtin", "config": {
        "max_batch_size": 8,
        "input": [tensor("INPUT")],
        "output": [tensor("OUTPUT")],
        "sequence_batching": {"max_sequence_idle_microseconds": 60_000_000, "state": [state]},
        "parameters": {"builtin": "sum_state"},
    }})
}

async fn step(caller: &Caller, start: bool, value: i64) -> anyhow::Result<Answer> {
    let body = json!({
        "parameters": {"sequence_id": 7, "sequence_start": start},
        "inputs": [{"name": "INPUT", "datatype": "INT32", "shape": [1, 1], "data": [value]}],
    });
    caller.infer("sum", &body).await
}

async fn delete(admin: &Admin, path: &str) -> anyhow::Result<()> {
    let answer = admin.request(Method::DELETE, path).send().await?;
    ensure!(answer.status().is_success(), "{path}: {}", answer.text().await?);
    Ok(())
}

async fn metrics(admin: &Admin) -> anyhow::Result<String> {
    let answer = admin.request(Method::GET, "/tenants/acme/metrics").send().await?;
    Ok(answer.error_for_status()?.text().await?)
}

#[tokio::test]
async fn a_tenant_that_is_made_anew_by_an_old_name_begins_at_nothing() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let budgets = json!({"budgets": {"daily": {"requests": {"hard": 100}}}});
    admin.tenant("house", json!({})).await?;
    admin.tenant("acme", budgets.clone()).await?;
    admin.model("house", "sum", json!({"grants": ["acme"]})).await?;
    admin.publish("house", "sum", &sum()).await?;
    let key = admin.key("acme").await?;
    let caller = mesh.caller(&key);
    caller.until_ready("sum").await?;
    step(&caller, true, 5).await?.ok()?;
    step(&caller, false, 3).await?.ok()?;
    ensure!(
        metrics(admin)
            .await?
            .contains("mesh_requests_total{tenant=\"acme\",endpoint=\"sum\"")
    );
    ensure!(admin.get("/tenants/acme/usage").await?["daily"]["requests"] == 2);
    eventually("the device's time is told", async || {
        Ok(metrics(admin)
            .await?
            .contains("mesh_tenant_device_seconds_total")
            .then_some(()))
    })
    .await?;

    // As fast as can be: control may see both changes at once.
    admin.model("house", "sum", json!({})).await?;
    delete(
        admin,
        &format!("/tenants/acme/keys/{}", key.split('_').nth(2).unwrap_or_default()),
    )
    .await?;
    delete(admin, "/tenants/acme").await?;
    admin.tenant("acme", budgets).await?;
    admin.model("house", "sum", json!({"grants": ["acme"]})).await?;
    let caller = mesh.caller(&admin.key("acme").await?);
    caller.until_ready("sum").await?;

    let told = metrics(admin).await?;
    let own: Vec<_> = told.lines().filter(|line| line.contains("tenant=\"acme\"")).collect();
    ensure!(own == ["mesh_tenant_told_apart{tenant=\"acme\"} 1"], "{told}");
    let usage = admin.get("/tenants/acme/usage").await?;
    ensure!(usage["daily"]["requests"].as_u64().unwrap_or_default() == 0, "{usage}");
    let goes_on = step(&caller, false, 1).await?;
    ensure!(
        !goes_on.status.is_success(),
        "a sequence of the former tenant goes on: {goes_on:?}"
    );
    step(&caller, true, 1).await?.ok()?;
    Ok(())
}
