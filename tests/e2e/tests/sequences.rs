//! Sequences through the whole mesh: every request of one finds its state, whatever happens around it.

#![expect(clippy::needless_pass_by_value, reason = "JSON is written where it is passed")]

use anyhow::ensure;
use mesh_e2e::counted;
use mesh_harness::{Answer, Caller, Mesh, MeshOptions, eventually};
use mesh_node::{ServeOptions, Text};
use serde_json::{Value, json};

fn model(builtin: &str, sequence: Value) -> Value {
    let tensor = |name: &str| json!({"name": name, "data_type": "TYPE_INT32", "dims": [1]});
    let config = json!({
        "max_batch_size": 8,
        "input": [tensor("INPUT")],
        "output": [tensor("OUTPUT")],
        "instance_group": [{"count": 2}],
        "sequence_batching": sequence,
        "parameters": {"builtin": builtin},
    });
    json!({"format": "builtin", "config": config})
}

/// A sum whose state the worker keeps; it begins at `first`.
fn sum_from(first: &str) -> Value {
    let state = json!({"input_name": "BEFORE", "output_name": "AFTER", "data_type": "TYPE_INT32", "dims": [1],
        "initial_state": [{"dims": [1], "data": first}]});
    model(
        "sum_state",
        json!({"max_sequence_idle_microseconds": 60_000_000, "state": [state]}),
    )
}

/// 0 and 1000, as the bytes of a state.
const ZERO: &str = "AAAAAA==";
const THOUSAND: &str = "6AMAAA==";

async fn step(caller: &Caller, target: &str, id: &Value, flags: (bool, bool), value: i64) -> anyhow::Result<Answer> {
    let (start, end) = flags;
    let body = json!({
        "parameters": {"sequence_id": id, "sequence_start": start, "sequence_end": end},
        "inputs": [{"name": "INPUT", "datatype": "INT32", "shape": [1, 1], "data": [value]}],
    });
    caller.infer(target, &body).await
}

async fn sum(caller: &Caller, target: &str, id: &Value, flags: (bool, bool), value: i64) -> anyhow::Result<i64> {
    let answer = step(caller, target, id, flags, value).await?.ok()?;
    let json = answer.json()?;
    ensure!(
        json["outputs"].as_array().is_some_and(|outputs| outputs.len() == 1),
        "{json}"
    );
    json["outputs"][0]["data"][0]
        .as_i64()
        .ok_or_else(|| anyhow::anyhow!("no number in {json}"))
}

const FIRST: (bool, bool) = (true, false);
const NEXT: (bool, bool) = (false, false);
const LAST: (bool, bool) = (false, true);

fn text(text: &str) -> Option<Text> {
    Some(Text(text.to_owned()))
}

/// Two devices and two threads of the door.
async fn wide() -> anyhow::Result<Mesh> {
    Mesh::start_with(MeshOptions {
        serve: ServeOptions {
            devices: text("2"),
            threads_per_device: text("2"),
            http_workers: text("2"),
            sequence_grace_ms: text("60000"),
            ..ServeOptions::default()
        },
        ..MeshOptions::default()
    })
    .await
}

#[tokio::test]
async fn sequences_keep_to_their_device_version_and_arm_while_these_change() -> anyhow::Result<()> {
    let mesh = wide().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "sum", &sum_from(ZERO)).await?;
    admin.publish("acme", "sum", &sum_from(THOUSAND)).await?;
    let split = |old: f64| [("old", "sum", "1", old), ("new", "sum", "2", 100.0 - old)];
    admin.endpoint("acme", "front", &split(50.0)).await?;
    caller.until_ready("front").await?;
    let ids: Vec<Value> = (1..=12).map(|id| json!(id)).chain([json!("a"), json!("b")]).collect();
    let mut sums = Vec::new();
    for id in &ids {
        sums.push(sum(&caller, "front", id, FIRST, 1).await?);
    }
    for first in [1, 1001] {
        ensure!(sums.contains(&first), "both arms have sequences: {sums:?}");
    }
    // The whole split moves to the new version; no sequence does.
    admin.endpoint("acme", "front", &split(0.0)).await?;
    eventually("new sequences begin on the new version", || async {
        let mut begun = Vec::new();
        for id in 100..110 {
            begun.push(sum(&caller, "front", &json!(id), (true, true), 1).await?);
        }
        Ok(begun.iter().all(|sum| *sum == 1001).then_some(()))
    })
    .await?;
    for (round, flags) in [(2, NEXT), (3, LAST)] {
        for (id, first) in ids.iter().zip(&sums) {
            let now = sum(&caller, "front", id, flags, 1).await?;
            ensure!(now == first + round - 1, "sequence {id} is at {now} in round {round}");
        }
    }
    let over = step(&caller, "front", &ids[0], NEXT, 1).await?;
    ensure!(over.status.as_u16() == 400, "{}", over.status);
    ensure!(
        over.error()?.contains("must specify the START flag"),
        "{}",
        over.error()?
    );
    Ok(())
}

#[tokio::test]
async fn a_device_that_is_drained_keeps_its_sequences_until_they_end() -> anyhow::Result<()> {
    let mesh = wide().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "sum", &sum_from(ZERO)).await?;
    eventually("the model is on both devices", || async {
        let devices = admin.get("/devices").await?;
        let ready = |device: &Value| device["models"][0]["state"] == "READY";
        let both = devices
            .as_array()
            .is_some_and(|all| all.len() == 2 && all.iter().all(ready));
        Ok(both.then_some(()))
    })
    .await?;
    caller.until_ready("sum").await?;
    let ids: Vec<Value> = (1..=12).map(|id| json!(id)).collect();
    for id in &ids {
        ensure!(sum(&caller, "sum", id, FIRST, 1).await? == 1, "sequence {id}");
    }
    let open = |device: &Value| device["open_sequences"].as_u64().unwrap_or(0);
    let counts = |devices: &Value| -> Vec<u64> { devices.as_array().into_iter().flatten().map(open).collect() };
    let before = eventually("all are counted", || async {
        let counts = counts(&admin.get("/devices").await?);
        Ok((counts.iter().sum::<u64>() == 12).then_some(counts))
    })
    .await?;
    ensure!(
        before.iter().all(|count| *count > 0),
        "both devices have sequences: {before:?}"
    );
    let drained = admin
        .request(reqwest::Method::POST, "/devices/cpu:0/drain")
        .send()
        .await?;
    ensure!(drained.status().is_success(), "{}", drained.status());
    for (round, flags) in [(2, NEXT), (3, LAST)] {
        for id in &ids {
            let now = sum(&caller, "sum", id, flags, 1).await?;
            ensure!(now == round, "sequence {id} is at {now} in round {round}");
        }
    }
    // New ones begin on the other device only.
    for id in &ids {
        ensure!(sum(&caller, "sum", id, FIRST, 1).await? == 1, "sequence {id}");
    }
    eventually("the drained device has no sequence", || async {
        let counts = counts(&admin.get("/devices").await?);
        Ok((counts == [0, 12]).then_some(()))
    })
    .await?;
    let metrics = mesh.metrics().await?;
    let seated = counted(&metrics, "mesh_sequences", &["state=\"seated\""]);
    ensure!((seated - 12.0).abs() < 0.5, "{seated} seated");
    Ok(())
}

#[tokio::test]
async fn tenants_never_meet_each_others_sequences() -> anyhow::Result<()> {
    let mesh = wide().await?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    let admin = mesh.admin()?;
    admin.publish("acme", "sum", &sum_from(ZERO)).await?;
    admin.model("acme", "sum", json!({"grants": ["globex"]})).await?;
    globex.until_ready("sum").await?;
    let id = json!("shared");
    ensure!(sum(&acme, "sum", &id, FIRST, 5).await? == 5, "acme begins");
    let foreign = step(&globex, "sum", &id, NEXT, 1).await?;
    ensure!(foreign.status.as_u16() == 400, "{}", foreign.status);
    ensure!(sum(&globex, "sum", &id, FIRST, 7).await? == 7, "globex begins its own");
    ensure!(sum(&acme, "sum", &id, NEXT, 5).await? == 10, "acme goes on");
    ensure!(sum(&globex, "sum", &id, LAST, 7).await? == 14, "globex ends");
    // A grant that is taken back ends the sequence too.
    ensure!(sum(&globex, "sum", &id, FIRST, 7).await? == 7, "globex begins again");
    admin.model("acme", "sum", json!({"grants": []})).await?;
    eventually("the grant is gone", || async {
        let answer = step(&globex, "sum", &id, NEXT, 7).await?;
        Ok((answer.status.as_u16() == 404).then_some(()))
    })
    .await?;
    ensure!(sum(&acme, "sum", &id, LAST, 5).await? == 15, "acme ends");
    Ok(())
}

#[tokio::test]
async fn an_ensemble_hands_sequences_on_to_the_step_that_keeps_state() -> anyhow::Result<()> {
    let mesh = wide().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "sum", &sum_from(ZERO)).await?;
    let mut echo = model("identity", Value::Null);
    if let Some(config) = echo["config"].as_object_mut() {
        config.remove("sequence_batching");
    }
    admin.publish("acme", "echo", &echo).await?;
    let tensor = |name: &str| json!({"name": name, "data_type": "TYPE_INT32", "dims": [1]});
    let of = |model: &str, input: &str, output: &str| json!({"name": model, "model": model, "inputs": {"INPUT": input}, "outputs": {"OUTPUT": output}});
    let pipe = json!({"format": "ensemble", "config": {
        "max_batch_size": 8, "input": [tensor("INPUT")], "output": [tensor("OUTPUT")],
        "graph": {"steps": [of("echo", "INPUT", "middle"), of("sum", "middle", "OUTPUT")]},
    }});
    admin.publish_only("acme", "pipe", &pipe).await?;
    caller.until_ready("pipe").await?;
    let ids: Vec<Value> = (1..=12).map(|id| json!(id)).chain([json!("a")]).collect();
    for (round, flags) in [(1, FIRST), (2, NEXT), (3, LAST)] {
        for (value, id) in (1..).zip(&ids) {
            let now = sum(&caller, "pipe", id, flags, value).await?;
            ensure!(now == round * value, "sequence {id} is at {now} in round {round}");
        }
    }
    let over = step(&caller, "pipe", &ids[0], NEXT, 1).await?;
    ensure!(over.status.as_u16() == 400, "{}", over.status);
    ensure!(over.error()?.starts_with("step 'sum': "), "{}", over.error()?);
    let without = step(&caller, "pipe", &json!(0), FIRST, 1).await?;
    ensure!(without.status.as_u16() == 400, "{}", without.status);
    ensure!(
        without.error()?.contains("step 'sum': ") && without.error()?.contains("correlation ID"),
        "{}",
        without.error()?
    );
    Ok(())
}
