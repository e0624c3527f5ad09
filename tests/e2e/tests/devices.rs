//! What devices tell of themselves, and that one can be taken out of service without a request being lost.

use std::sync::Arc;

use anyhow::Context;
use mesh_backend::Backend;
use mesh_backend_builtin::BuiltinBackend;
use mesh_e2e::Load;
use mesh_harness::{Admin, Mesh, MeshOptions, ServeOptions, Text, builtin, eventually, identity};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::task::JoinSet;

fn row(number: f32) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [number]}]})
}

async fn device(admin: &Admin, name: &str) -> anyhow::Result<Value> {
    let devices = admin.get("/devices").await?;
    let found = devices
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["device"] == name);
    found.cloned().with_context(|| format!("{name} is not in {devices}"))
}

async fn order(admin: &Admin, name: &str, action: &str) -> anyhow::Result<Value> {
    let request = admin.request(Method::POST, &format!("/devices/{name}/{action}"));
    Ok(request.send().await?.error_for_status()?.json().await?)
}

/// The requests that a device has answered.
fn answered(device: &Value) -> u64 {
    let models = device["models"].as_array().into_iter().flatten();
    models.filter_map(|model| model["requests"].as_u64()).sum()
}

fn seconds(device: &Value, tenant: &str) -> Option<f64> {
    let tenants = device["tenants"].as_array()?;
    tenants.iter().find(|one| one["tenant"] == tenant)?["seconds"].as_f64()
}

/// The value of a line of metrics.
fn value(metrics: &str, line: &str) -> anyhow::Result<f64> {
    let found = metrics.lines().find_map(|known| known.strip_prefix(line));
    let text = found.with_context(|| format!("{line} is not in\n{metrics}"))?;
    Ok(text.trim().parse()?)
}

/// What the admin API told, in the metrics.
fn metrics_say_the_same(metrics: &str, acme_seconds: f64) -> anyhow::Result<()> {
    let line = "mesh_tenant_device_seconds_total{tenant=\"acme\"} ";
    assert!((value(metrics, line)? - acme_seconds).abs() < 1e-9);
    let executions = value(
        metrics,
        "mesh_model_executions_total{device=\"cpu:0\",model=\"acme/m/1\"} ",
    )?;
    assert!(executions >= 1.0, "{metrics}");
    for (line, expected) in [
        (
            "mesh_requests_not_run_total{device=\"cpu:0\",model=\"acme/m/1\",reason=\"rejected\"} ",
            0.0,
        ),
        ("mesh_model_quarantined{device=\"cpu:0\",model=\"acme/m/1\"} ", 0.0),
        ("mesh_device_threads{device=\"cpu:0\"} ", 1.0),
        ("mesh_device_draining{device=\"cpu:0\"} ", 0.0),
    ] {
        assert_eq!(value(metrics, line)?, expected, "{line}");
    }
    Ok(())
}

#[tokio::test]
async fn devices_tell_what_they_did_for_whom_and_tenants_time_adds_up_to_it() -> anyhow::Result<()> {
    const REQUESTS: u64 = 40;
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    admin.publish("acme", "m", &identity()).await?;
    admin.publish("globex", "m", &identity()).await?;
    acme.until_ready("m").await?;
    globex.until_ready("m").await?;
    for _ in 0..REQUESTS {
        acme.infer("m", &row(1.0)).await?.ok()?;
        globex.infer("m", &row(2.0)).await?.ok()?;
    }
    // A batch is charged for a moment after its requests are answered.
    let (told, acme_seconds) = eventually("tenants' time adds up to the device's", || async {
        let told = device(admin, "cpu:0").await?;
        let (Some(acme), Some(globex)) = (seconds(&told, "acme"), seconds(&told, "globex")) else {
            return Ok(None);
        };
        let busy = told["busy_seconds"].as_f64().unwrap_or_default();
        Ok(((acme + globex - busy).abs() < 1e-6 && answered(&told) == 2 * REQUESTS).then_some((told, acme)))
    })
    .await?;
    assert!(acme_seconds > 0.0, "{told}");
    assert_eq!((&told["kind"], &told["threads"]), (&json!("cpu"), &json!(1)), "{told}");
    assert_eq!((&told["in_flight"], &told["draining"]), (&json!(0), &json!(false)));
    for model in told["models"].as_array().into_iter().flatten() {
        assert_eq!(model["state"], "READY", "{model}");
        assert_eq!(
            (&model["requests"], &model["rows"]),
            (&json!(REQUESTS), &json!(REQUESTS))
        );
        assert!(model["mean_latency_ms"].as_f64() > Some(0.0), "{model}");
        assert!(
            model["mean_latency_ms"].as_f64() >= model["mean_queue_ms"].as_f64(),
            "{model}"
        );
    }
    metrics_say_the_same(&mesh.metrics().await?, acme_seconds)?;
    eventually("how busy it was of late is known", || async {
        let told = device(admin, "cpu:0").await?;
        Ok(told["recent_busy_fraction"].as_f64())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_drained_device_finishes_what_it_has_refuses_the_rest_and_serves_again_when_undrained() -> anyhow::Result<()>
{
    let backend = Arc::new(BuiltinBackend::new());
    let backends: Vec<Arc<dyn Backend>> = vec![backend.clone()];
    let options = MeshOptions {
        backends,
        ..MeshOptions::default()
    };
    let mesh = Mesh::start_with(options).await?;
    let (admin, caller) = (mesh.admin()?, mesh.tenant("acme").await?);
    let model = builtin("hang_on_negative", &json!({"hang_ms": "15000"}));
    admin.publish("acme", "m", &model).await?;
    caller.until_answers("m", &row(1.0)).await?;
    // One request is held on the device until it is let go.
    let (held, waiting) = (caller.clone(), row(-1.0));
    let mut calls = JoinSet::new();
    calls.spawn(async move { held.infer("m", &waiting).await });
    eventually("the request is on the device", || async {
        Ok((device(admin, "cpu:0").await?["in_flight"] == 1).then_some(()))
    })
    .await?;

    let drained = order(admin, "cpu:0", "drain").await?;
    assert_eq!((&drained["draining"], &drained["in_flight"]), (&json!(true), &json!(1)));
    let refused = caller.infer("m", &row(1.0)).await?;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.error()?.contains("being drained"), "{}", refused.error()?);
    assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
    let metrics = mesh.metrics().await?;
    assert_eq!(value(&metrics, "mesh_device_draining{device=\"cpu:0\"} ")?, 1.0);

    let held = eventually("the held request is let go", || {
        backend.release();
        let joined = calls.try_join_next();
        async { joined.transpose().context("the call panicked") }
    })
    .await?;
    assert_eq!(held?.ok()?.numbers(0)?, [-1.0]);
    let empty = eventually("nothing is in flight", || async {
        let told = device(admin, "cpu:0").await?;
        Ok((told["in_flight"] == 0).then_some(told))
    })
    .await?;
    assert_eq!(empty["models"][0]["state"], "READY", "its models stay: {empty}");
    caller
        .infer("m", &row(1.0))
        .await?
        .ok()
        .expect_err("it is still drained");

    assert_eq!(order(admin, "cpu:0", "undrain").await?["draining"], false);
    caller.until_answers("m", &row(1.0)).await?;
    let trail = admin.get("/audit?limit=500").await?;
    let items = trail["items"].as_array().into_iter().flatten();
    let events: Vec<_> = items.filter_map(|item| item["event"].as_str()).collect();
    assert_eq!(events, ["drain cpu:0", "undrain cpu:0"]);
    Ok(())
}

#[tokio::test]
async fn while_one_of_two_devices_is_drained_the_other_serves_everything() -> anyhow::Result<()> {
    let serve = ServeOptions {
        devices: Some(Text("2".to_owned())),
        ..ServeOptions::default()
    };
    let options = MeshOptions {
        serve,
        ..MeshOptions::default()
    };
    let mesh = Mesh::start_with(options).await?;
    let (admin, caller) = (mesh.admin()?, mesh.tenant("acme").await?);
    admin.publish("acme", "m", &identity()).await?;
    let on_both = || async {
        let (one, two) = (device(admin, "cpu:0").await?, device(admin, "cpu:1").await?);
        let ready = |device: &Value| device["models"][0]["state"] == "READY";
        Ok((ready(&one) && ready(&two)).then_some(()))
    };
    eventually("both have the model", on_both).await?;
    caller.until_ready("m").await?;
    let load = Load::begin(&caller, "m", 4);
    load.go_on_for(50).await;

    order(admin, "cpu:0", "drain").await?;
    let before = eventually("nothing is in flight", || async {
        let told = device(admin, "cpu:0").await?;
        Ok((told["in_flight"] == 0).then_some(answered(&told)))
    })
    .await?;
    load.go_on_for(100).await;
    assert_eq!(answered(&device(admin, "cpu:0").await?), before, "it is given nothing");

    order(admin, "cpu:0", "undrain").await?;
    eventually("it is given requests again", || async {
        Ok((answered(&device(admin, "cpu:0").await?) > before).then_some(()))
    })
    .await?;
    assert_eq!(load.end().await.failures, Vec::<String>::new());
    Ok(())
}

#[tokio::test]
async fn a_model_that_crashes_again_and_again_is_shown_as_quarantined_with_its_reason() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (admin, caller) = (mesh.admin()?, mesh.tenant("acme").await?);
    admin
        .publish("acme", "m", &builtin("panic_on_negative", &json!({})))
        .await?;
    caller.until_answers("m", &row(1.0)).await?;
    let refused = eventually("the model is refused", || async {
        let answer = caller.infer("m", &row(-1.0)).await?;
        let refused = answer.status == StatusCode::SERVICE_UNAVAILABLE;
        Ok(refused.then_some(answer))
    })
    .await?;
    assert!(refused.header("retry-after").is_some(), "{:?}", refused.headers);
    let shown = admin.until_state("acme", "m", 1, "QUARANTINED").await?;
    let reason = shown["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("crashes in a row"), "{shown}");
    assert!(shown["crashed"].as_u64() >= Some(3), "{shown}");
    // Routers have heard of it too, and say why. Should it be tried again meanwhile, it crashes again.
    let line = "mesh_model_quarantined{device=\"cpu:0\",model=\"acme/m/1\"} ";
    eventually("callers are told the reason, and so are the metrics", || async {
        let answer = caller.infer("m", &row(-1.0)).await?;
        let told = answer.error()?.contains("crashes in a row");
        Ok((told && value(&mesh.metrics().await?, line)? == 1.0).then_some(()))
    })
    .await
}
