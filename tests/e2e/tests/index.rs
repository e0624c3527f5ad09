//! The index says where versions are on their way: what loads, what leaves, what failed and why, at both doors.

#![expect(clippy::disallowed_methods, reason = "a test's tasks end with its runtime")]

use anyhow::Context;
use mesh_harness::{Answer, Caller, GrpcCaller, Mesh, builtin, eventually, identity};
use mesh_protocol::grpc::messages::{RepositoryIndexRequest, RepositoryIndexResponse};
use serde_json::{Value, json};
use tonic::{Code, Response, Status};

async fn over_http(caller: &Caller, only_ready: bool) -> anyhow::Result<Vec<Value>> {
    let request = caller.post("/v2/repository/index").json(&json!({"ready": only_ready}));
    let index = Answer::of(request).await?.ok()?.json()?;
    Ok(index.as_array().context("no index")?.clone())
}

/// The entry of a model, once it is in this state at both doors.
async fn until(caller: &Caller, grpc: &GrpcCaller, model: &str, state: &str) -> anyhow::Result<Value> {
    eventually(&format!("{model} is {state}"), || async {
        let entries = over_http(caller, false).await?;
        let entry = entries
            .into_iter()
            .find(|entry| entry["name"] == model && entry["state"] == state);
        let asked = RepositoryIndexRequest::default();
        let index: RepositoryIndexResponse = grpc.ask("RepositoryIndex", asked).await?.into_inner();
        let same = index
            .models
            .iter()
            .any(|known| known.name == model && known.state == state);
        Ok(entry.filter(|_| same))
    })
    .await
}

fn version(spec: &Value, model: &str, unloaded: bool) -> Value {
    let mut spec = spec.clone();
    spec["unloaded"] = json!(unloaded);
    let metadata = json!({"tenant": "acme", "name": format!("{model}/1")});
    json!({"apiVersion": "mesh/v1", "kind": "ModelVersion", "metadata": metadata, "spec": spec})
}

#[tokio::test]
async fn a_version_loads_is_ready_leaves_and_is_unavailable_with_its_reasons() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "other", &identity()).await?;
    // It takes a while to come, and a request of it a while to end.
    let slow = builtin("busy", &json!({"load_ms": 700, "busy_us": 400_000}));
    admin.publish_only("acme", "slow", &slow).await?;
    let loading = until(&caller, &grpc, "slow", "LOADING").await?;
    assert_eq!(
        (&loading["version"], &loading["reason"]),
        (&json!("1"), &json!("it is still loading"))
    );
    let ready = over_http(&caller, true).await?;
    assert!(ready.iter().all(|entry| entry["name"] != "slow"), "{ready:?}");
    let entry = until(&caller, &grpc, "slow", "READY").await?;
    assert_eq!(entry["reason"], "");

    // The request that is under way is finished while it leaves.
    let asking = caller.clone();
    let asked = tokio::spawn(async move { asking.ask("slow", &[1.0]).await });
    let devices = || async {
        let devices = admin.get("/devices").await?;
        Ok(devices.to_string().contains("\"in_flight\":1").then_some(()))
    };
    eventually("the request is on the device", devices).await?;
    admin.apply(&[version(&slow, "slow", true)]).await?;
    let leaving = until(&caller, &grpc, "slow", "UNLOADING").await?;
    assert!(
        leaving["reason"]
            .as_str()
            .unwrap_or_default()
            .contains("kept off the devices"),
        "{leaving}"
    );
    let gone = until(&caller, &grpc, "slow", "UNAVAILABLE").await?;
    assert!(
        gone["reason"]
            .as_str()
            .unwrap_or_default()
            .contains("kept off the devices"),
        "{gone}"
    );
    asked.await??.ok()?;

    admin.apply(&[version(&slow, "slow", false)]).await?;
    until(&caller, &grpc, "slow", "LOADING").await?;
    until(&caller, &grpc, "slow", "READY").await?;

    let broken = builtin("no_such_model", &json!({}));
    admin.publish_only("acme", "broken", &broken).await?;
    let broken = until(&caller, &grpc, "broken", "UNAVAILABLE").await?;
    assert!(
        broken["reason"].as_str().unwrap_or_default().contains("no_such_model"),
        "{broken}"
    );
    Ok(())
}

/// What both doors say of a repository by its name: names of models, or the error.
async fn named(caller: &Caller, grpc: &GrpcCaller, repository: &str) -> anyhow::Result<Result<Vec<String>, String>> {
    let answer = Answer::of(caller.post(&format!("/v2/repository/{repository}/index"))).await?;
    let asked = RepositoryIndexRequest {
        repository_name: repository.to_owned(),
        ready: false,
    };
    let told: Result<Response<RepositoryIndexResponse>, Status> = grpc.ask("RepositoryIndex", asked).await;
    match told {
        Ok(index) => {
            let index = index.into_inner().models.into_iter().map(|known| known.name);
            let (index, body) = (index.collect::<Vec<_>>(), answer.ok()?.json()?);
            let names = body.as_array().context("no index")?.iter();
            let names: Vec<_> = names.filter_map(|entry| entry["name"].as_str()).collect();
            assert_eq!(index, names);
            Ok(Ok(index))
        }
        Err(status) => {
            assert_eq!((status.code(), answer.status.as_u16()), (Code::NotFound, 404));
            assert_eq!(status.message(), answer.error()?);
            Ok(Err(answer.error()?))
        }
    }
}

#[tokio::test]
async fn a_repository_is_asked_for_by_its_tenants_name_and_no_other_is_there() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    let (grpc, other) = (mesh.grpc(acme.key()).await?, mesh.grpc(globex.key()).await?);
    mesh.admin()?.publish("acme", "plain", &identity()).await?;
    acme.until_ready("plain").await?;
    assert_eq!(named(&acme, &grpc, "acme").await?, Ok(vec!["plain".to_owned()]));
    assert_eq!(named(&globex, &other, "globex").await?, Ok(Vec::new()));
    let unknown = |name: &str| Err(format!("Request for unknown repository: '{name}' is not found"));
    for name in ["nowhere", "globex", "models"] {
        assert_eq!(named(&acme, &grpc, name).await?, unknown(name));
    }
    // The one that is there is, to who is none of its tenant's, like the one that is not.
    assert_eq!(named(&globex, &other, "acme").await?, unknown("acme"));
    let nobody = Answer::of(Caller::new(mesh.addresses().http, None).post("/v2/repository/acme/index")).await?;
    assert_eq!(nobody.status, 401);
    Ok(())
}
