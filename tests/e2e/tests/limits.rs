//! Tenants' limits: the bound passes, one more does not, and the answer says when to come back.

use mesh_harness::{Caller, Mesh, builtin, identity};
use serde_json::json;
use tokio::task::JoinSet;

async fn limited(mesh: &Mesh, limits: serde_json::Value) -> anyhow::Result<Caller> {
    let admin = mesh.admin()?;
    admin.tenant("small", json!({"limits": limits})).await?;
    Ok(mesh.caller(&admin.key("small").await?))
}

#[tokio::test]
async fn a_burst_passes_to_its_last_request_and_one_more_is_told_when_to_come_back() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let caller = limited(&mesh, json!({"requests": {"per_second": 1, "burst": 5}})).await?;
    admin.publish("small", "m", &identity()).await?;
    // Reading does not count as a request, so it can be waited with.
    mesh_harness::eventually("the model is there", || async {
        let answer = mesh_harness::Answer::of(caller.get("/v2/models/m/ready")).await?;
        Ok(answer.status.is_success().then_some(()))
    })
    .await?;
    for request in 1..=5 {
        let answer = caller.ask("m", &[1.0]).await?;
        assert!(answer.status.is_success(), "request {request}: {:?}", answer.error());
    }
    let refused = caller.ask("m", &[1.0]).await?;
    assert_eq!(refused.status.as_u16(), 429);
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(refused.error()?.contains("requests"), "{}", refused.error()?);
    // Another tenant does not feel it.
    let other = mesh.tenant("other").await?;
    admin.publish("other", "m", &identity()).await?;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    other.until_answers("m", &body).await?;
    Ok(())
}

#[tokio::test]
async fn as_many_at_once_as_allowed_pass_and_one_more_does_not_until_one_is_over() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let caller = limited(&mesh, json!({"concurrency": 2})).await?;
    admin
        .publish("small", "slow", &builtin("busy", &json!({"busy_us": 700_000})))
        .await?;
    mesh_harness::eventually("the model is there", || async {
        let answer = mesh_harness::Answer::of(caller.get("/v2/models/slow/ready")).await?;
        Ok(answer.status.is_success().then_some(()))
    })
    .await?;
    let mut running = JoinSet::new();
    let mut ask = || {
        let caller = caller.clone();
        running.spawn(async move { caller.ask("slow", &[1.0]).await });
    };
    ask();
    ask();
    // Both are in once the mesh counts them.
    mesh_harness::eventually("two requests are in flight", || async {
        let metrics = mesh.metrics().await?;
        Ok(metrics
            .lines()
            .any(|line| line == "mesh_requests_in_flight 2")
            .then_some(()))
    })
    .await?;
    let third = caller.ask("slow", &[1.0]).await?;
    assert_eq!(third.status.as_u16(), 429);
    assert!(third.header("retry-after").is_some());
    assert!(third.error()?.contains("concurrency"), "{}", third.error()?);
    while let Some(answer) = running.join_next().await {
        assert!(answer??.status.is_success());
    }
    assert!(caller.ask("slow", &[1.0]).await?.status.is_success());
    Ok(())
}
