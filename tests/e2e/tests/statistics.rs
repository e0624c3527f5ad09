//! Statistics of ensembles: an entry of their own at both doors, beside those of the models that their steps run.

#![expect(clippy::too_many_lines, reason = "a test tells one story, or is one table")]

use anyhow::Context;
use mesh_harness::{Answer, Caller, Mesh, builtin, eventually, fp32, identity};
use mesh_protocol::grpc::messages::{ModelStatistics, ModelStatisticsRequest, ModelStatisticsResponse};
use serde_json::{Value, json};

/// Two steps one after the other; the second fails on what is negative.
fn pipe() -> Value {
    let graph = json!({"steps": [
        {"name": "first", "model": "first", "inputs": {"x": "x"}, "outputs": {"y": "between"}},
        {"name": "second", "model": "second", "inputs": {"x": "between"}, "outputs": {"y": "y"}},
    ]});
    let config = json!({
        "max_batch_size": 8, "input": [fp32("x", &[-1])], "output": [fp32("y", &[-1])], "graph": graph,
    });
    json!({"format": "ensemble", "config": config})
}

fn rows(numbers: &[f32]) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [numbers.len(), 1], "data": numbers}]})
}

async fn of(caller: &Caller, name: &str) -> anyhow::Result<Value> {
    let answer = Answer::of(caller.get(&format!("/v2/models/{name}/stats")))
        .await?
        .ok()?
        .json()?;
    Ok(answer["model_stats"][0].clone())
}

#[tokio::test]
async fn an_ensemble_has_numbers_of_its_own_at_both_doors() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin
        .publish(
            "acme",
            "first",
            &builtin("busy", &json!({"busy_us": 2_000, "weights_bytes": 4_096})),
        )
        .await?;
    admin
        .publish("acme", "second", &builtin("fail_on_negative", &json!({})))
        .await?;
    admin.publish("acme", "unused", &identity()).await?;
    admin.publish_only("acme", "pipe", &pipe()).await?;
    caller.until_ready("pipe").await?;
    let before = of(&caller, "pipe").await?;
    assert_eq!(
        (&before["inference_count"], &before["last_inference"]),
        (&json!(0), &json!(0))
    );

    for _ in 0..3 {
        caller.infer("pipe", &rows(&[1.0, 2.0])).await?.ok()?;
    }
    assert!(!caller.infer("pipe", &rows(&[-1.0])).await?.status.is_success());
    let told = of(&caller, "pipe").await?;
    assert_eq!((&told["name"], &told["version"]), (&json!("pipe"), &json!("1")));
    assert_eq!(
        (&told["inference_count"], &told["execution_count"]),
        (&json!(6), &json!(3))
    );
    assert!(told["last_inference"].as_u64() > Some(1_600_000_000_000), "{told}");
    let stats = &told["inference_stats"];
    for (name, count) in [
        ("success", 3),
        ("fail", 1),
        ("queue", 3),
        ("compute_input", 3),
        ("compute_infer", 3),
        ("compute_output", 3),
        ("cache_hit", 0),
        ("cache_miss", 0),
    ] {
        assert_eq!(stats[name]["count"], count, "{name}: {told}");
    }
    let time = |name: &str| stats[name]["ns"].as_u64().context("no time");
    // The first step alone takes two milliseconds each time.
    assert!(
        time("compute_infer")? >= 6_000_000 && time("success")? >= time("compute_infer")?,
        "{told}"
    );
    assert!(time("fail")? >= 2_000_000, "{told}");
    assert_eq!(
        (&told["memory_usage"], &told["response_stats"]),
        (&json!([]), &json!({}))
    );

    // Over gRPC the same; and its steps' models have theirs, with their memory.
    let grpc = mesh.grpc(caller.key()).await?;
    let asked = |name: &str| ModelStatisticsRequest {
        name: name.into(),
        version: String::new(),
    };
    let all: ModelStatisticsResponse = grpc.ask("ModelStatistics", asked("")).await?.into_inner();
    let names: Vec<&str> = all.model_stats.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names, ["first", "pipe", "second", "unused"]);
    let one: ModelStatisticsResponse = grpc.ask("ModelStatistics", asked("pipe")).await?.into_inner();
    assert_eq!(serde_json::to_value(&one.model_stats[0])?, told);
    let first: ModelStatistics = eventually("the steps are counted", || async {
        let first: ModelStatisticsResponse = grpc.ask("ModelStatistics", asked("first")).await?.into_inner();
        let first = first.model_stats.into_iter().next().context("no entry")?;
        Ok((first.inference_count == 7).then_some(first))
    })
    .await?;
    let memory = first.memory_usage.first().context("no memory")?;
    assert_eq!(
        (&*memory.r#type, memory.byte_size >= 4_096),
        ("CPU", true),
        "{memory:?}"
    );
    Ok(())
}
