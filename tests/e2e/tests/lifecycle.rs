//! The end and the next beginning: what was accepted is answered, what was written is there again.

use mesh_harness::{Mesh, MeshOptions, builtin, identity};
use serde_json::json;
use tokio::task::JoinSet;

#[tokio::test]
async fn a_mesh_that_ends_under_load_answers_all_that_it_accepted() -> anyhow::Result<()> {
    const AT_ONCE: usize = 12;
    let mut mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let slow = builtin("busy", &json!({"busy_us": 150_000}));
    mesh.admin()?.publish("acme", "slow", &slow).await?;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    caller.until_answers("slow", &body).await?;
    let mut asked = JoinSet::new();
    for _ in 0..AT_ONCE {
        let caller = caller.clone();
        asked.spawn(async move { caller.ask("slow", &[1.0]).await });
    }
    let all_in = format!("mesh_requests_in_flight {AT_ONCE}");
    mesh_harness::eventually("all requests are accepted", || async {
        Ok(mesh.metrics().await?.lines().any(|line| line == all_in).then_some(()))
    })
    .await?;
    mesh.begin_stop();
    while let Some(answer) = asked.join_next().await {
        let answer = answer??;
        assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.body));
    }
    mesh.join().await?;
    assert!(caller.ask("slow", &[1.0]).await.is_err(), "nobody is there any more");
    Ok(())
}

#[tokio::test]
async fn a_mesh_on_an_old_data_folder_serves_as_before() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    let token = admin.token().to_owned();
    admin.publish("acme", "m", &identity()).await?;
    admin.endpoint("acme", "front", &[("main", "m", "1", 100.0)]).await?;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    caller.until_answers("front", &body).await?;
    let key = caller.key().to_owned();
    let data = mesh.stop().await?;

    let again = Mesh::start_with(MeshOptions {
        data: Some(data),
        ..MeshOptions::default()
    })
    .await?;
    assert!(again.admin().is_err(), "no second token is made");
    // Ready means ready: the first request is answered.
    let answer = again.caller(&key).infer("front", &body).await?;
    assert!(answer.status.is_success(), "{}", String::from_utf8_lossy(&answer.body));
    let again = again.with_token(&token);
    let endpoint = again.admin()?.get("/tenants/acme/endpoints/front").await?;
    assert_eq!(endpoint["spec"]["arms"][0]["name"], "main");
    let audit = again.admin()?.get("/audit/verify").await?;
    assert!(audit.is_object(), "{audit}");
    Ok(())
}
