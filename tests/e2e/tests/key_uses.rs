//! When API keys were last used: each door's requests count, a restart forgets nothing, and a use is no write.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use mesh_harness::{Mesh, MeshOptions};
use serde_json::{Value, json};

fn now() -> anyhow::Result<i64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
    Ok(i64::try_from(since.as_secs())?)
}

fn id(key: &str) -> anyhow::Result<&str> {
    key.split('_').nth(2).context("no identifier in the key")
}

async fn last_used(mesh: &Mesh, key: &str) -> anyhow::Result<Value> {
    let path = format!("/tenants/acme/keys/{}/use", id(key)?);
    Ok(mesh.admin()?.get(&path).await?["last_used"].clone())
}

/// Whether it is the minute of now, or of a moment ago.
fn ensure_now(time: &Value) -> anyhow::Result<()> {
    let time: Timestamp = time.as_str().context("never used")?.parse()?;
    let age = now()? - time.as_second();
    ensure!(
        time.as_second() % 60 == 0 && (0..120).contains(&age),
        "{time}, {age} s ago"
    );
    Ok(())
}

#[tokio::test]
async fn a_key_says_when_it_was_last_used_over_every_door_and_after_a_restart() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    mesh.tenant("acme").await?;
    admin.publish("acme", "m", &mesh_harness::identity()).await?;
    let (idle, grpc, http) = (
        admin.key("acme").await?,
        admin.key("acme").await?,
        admin.key("acme").await?,
    );
    for key in [&http, &grpc, &idle] {
        ensure!(last_used(&mesh, key).await?.is_null(), "it was never used");
    }
    let revision = admin.get("/audit?limit=1").await?["latest"].clone();
    // A key of a moment ago may not be known yet.
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    let caller = mesh.caller(&http);
    caller.until_let_in().await?;
    caller.infer("m", &body).await?.ok()?;
    mesh.grpc_client(&grpc)?.model("m").is_ready().await?;
    ensure_now(&last_used(&mesh, &http).await?)?;
    ensure_now(&last_used(&mesh, &grpc).await?)?;
    ensure!(last_used(&mesh, &idle).await?.is_null(), "another key was used");
    let other = if idle.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{other}", &idle[..idle.len() - 1]);
    ensure!(mesh.caller(&wrong).infer("m", &body).await?.status == 401);
    ensure!(
        last_used(&mesh, &idle).await?.is_null(),
        "a wrong secret is no use of a key"
    );
    let listed = admin.get("/key-uses?tenant=acme").await?;
    let items = listed["items"].as_array().context("no items")?;
    let used = items.iter().filter(|item| item["last_used"].is_string()).count();
    // The harness' own key of the tenant is the third.
    ensure!(items.len() == 4 && used == 3, "{listed}");
    ensure!(
        admin.get("/audit?limit=1").await?["latest"] == revision,
        "a use was written as a change"
    );

    let (token, seen) = (admin.token().to_owned(), last_used(&mesh, &http).await?);
    let data = mesh.stop().await?;
    let options = MeshOptions {
        data: Some(data),
        ..MeshOptions::default()
    };
    let mesh = Mesh::start_with(options).await?.with_token(&token);
    ensure!(last_used(&mesh, &http).await? == seen, "the restart has forgotten it");
    ensure!(last_used(&mesh, &idle).await?.is_null());
    Ok(())
}
