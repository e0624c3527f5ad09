//! Ensembles with real libtorch: three traced modules in a row answer like the one that does all three, and every way through a
//! graph ends as it should.

#![expect(clippy::needless_pass_by_value, reason = "JSON is written where it is passed")]

use std::path::{Path, PathBuf};

use anyhow::Context;
use mesh_harness::{Admin, Caller, Mesh, batched, builtin, eventually, fp32, identity};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};

const PIXELS: i64 = 64;
const CLASSES: i64 = 10;

/// The numbers of the three modules, the same for the composed one.
struct Weights {
    first: Tensor,
    second: Tensor,
}

impl Weights {
    fn new() -> Self {
        tch::manual_seed(7);
        let random = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)) * 0.2;
        Self {
            first: random([PIXELS, 32]),
            second: random([32, CLASSES]),
        }
    }

    fn normalise(&self, x: &Tensor) -> Tensor {
        let mean = x.mean_dim(1i64, true, Kind::Float);
        let spread = x.std_dim(1i64, true, true) + 1e-3;
        (x - mean) / spread
    }

    fn classify(&self, x: &Tensor) -> Tensor {
        x.matmul(&self.first).relu().matmul(&self.second)
    }

    fn post(&self, x: &Tensor) -> Tensor {
        x.softmax(1, Kind::Float)
    }
}

fn trace(folder: &Path, name: &str, width: i64, forward: &mut dyn FnMut(&Tensor) -> Tensor) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("{name}.pt"));
    let mut closure = |inputs: &[Tensor]| inputs.iter().map(&mut *forward).collect::<Vec<_>>();
    let example = Tensor::ones([2, width], (Kind::Float, Device::Cpu));
    CModule::create_by_tracing("Part", "forward", &[example], &mut closure)?.save(&path)?;
    Ok(path)
}

fn config(input: i64, output: i64) -> Value {
    json!({"max_batch_size": 8, "input": [fp32("x", &[input])], "output": [fp32("y", &[output])],
        "dynamic_batching": {"priority_levels": 2, "default_priority_level": 2}})
}

/// Normalise, classify, post-process, and the module that is all three.
async fn publish_modules(admin: &Admin) -> anyhow::Result<()> {
    let (folder, weights) = (tempfile::tempdir()?, Weights::new());
    let folder = folder.path();
    module(admin, folder, "normalise", (PIXELS, PIXELS), &mut |x| {
        weights.normalise(x)
    })
    .await?;
    module(admin, folder, "classify", (PIXELS, CLASSES), &mut |x| {
        weights.classify(x)
    })
    .await?;
    module(admin, folder, "post", (CLASSES, CLASSES), &mut |x| weights.post(x)).await?;
    let mut all = |x: &Tensor| weights.post(&weights.classify(&weights.normalise(x)));
    module(admin, folder, "composed", (PIXELS, CLASSES), &mut all).await
}

async fn module(
    admin: &Admin,
    folder: &Path,
    name: &str,
    (input, output): (i64, i64),
    forward: &mut dyn FnMut(&Tensor) -> Tensor,
) -> anyhow::Result<()> {
    let file = trace(folder, name, input, forward)?;
    admin
        .publish_torchscript("acme", name, &file, &config(input, output))
        .await?;
    Ok(())
}

fn step(name: &str, model: &str, input: &str, output: &str) -> Value {
    json!({"name": name, "model": model, "inputs": {"x": input}, "outputs": {"y": output}})
}

fn ensemble(outputs: &[&str], width: i64, graph: Value) -> Value {
    let outputs: Vec<Value> = outputs.iter().map(|name| fp32(name, &[width])).collect();
    json!({"format": "ensemble", "config":
        {"max_batch_size": 8, "input": [fp32("x", &[-1])], "output": outputs, "graph": graph}})
}

fn rows(width: i64, rows: i64) -> Value {
    let data: Vec<f64> = (0..width * rows)
        .map(|at| f64::from((at * 7 % 23) as i32) / 5.0 - 2.0)
        .collect();
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, width], "data": data}]})
}

async fn publish(mesh: &Mesh, caller: &Caller, name: &str, spec: &Value, body: &Value) -> anyhow::Result<()> {
    mesh.admin()?.publish_only("acme", name, spec).await?;
    caller.until_answers(name, body).await?;
    Ok(())
}

#[tokio::test]
async fn three_modules_in_a_row_answer_like_the_composed_one() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    publish_modules(mesh.admin()?).await?;
    let body = rows(PIXELS, 3);
    caller.until_answers("composed", &body).await?;
    let mut own = ensemble(
        &["probabilities", "again"],
        CLASSES,
        json!({"steps": [
            step("normalise", "normalise", "x", "n"),
            step("left", "classify", "n", "scores"), step("right", "classify", "n", "more"),
            step("post", "post", "scores", "probabilities"), step("too", "post", "more", "again"),
        ]}),
    );
    own["config"]["input"] = json!([fp32("x", &[PIXELS])]);
    publish(&mesh, &caller, "pipe", &own, &body).await?;
    let map = |from: &str, to: &str| (json!({"x": from}), json!({"y": to}));
    let of = |model: &str, (input, output): (Value, Value)| json!({"model_name": model, "model_version": -1, "input_map": input, "output_map": output});
    let tritons = json!({"format": "ensemble", "config": {"max_batch_size": 8,
        "input": [fp32("x", &[PIXELS])], "output": [fp32("probabilities", &[CLASSES])],
        "ensemble_scheduling": {"step": [
            of("normalise", map("x", "n")), of("classify", map("n", "s")), of("post", map("s", "probabilities"))]}}});
    publish(&mesh, &caller, "triton", &tritons, &body).await?;
    let wanted = caller.infer("composed", &body).await?.ok()?.numbers(0)?;
    for (model, output) in [("pipe", 0), ("pipe", 1), ("triton", 0)] {
        let got = caller.infer(model, &body).await?.ok()?.numbers(output)?;
        assert_eq!(got.len(), wanted.len());
        for (got, wanted) in got.iter().zip(&wanted) {
            assert!((got - wanted).abs() <= 1e-6, "{model}: {got} is not {wanted}");
        }
    }
    let metadata = caller.get("/v2/models/pipe").send().await?.json::<Value>().await?;
    assert_eq!(metadata["platform"], "ensemble");
    assert_eq!(metadata["outputs"][1]["name"], "again");
    let metrics = mesh.metrics().await?;
    let ok = "mesh_ensemble_steps_total{ensemble=\"acme/pipe/1\",step=\"left\",outcome=\"ok\"}";
    assert!(metrics.lines().any(|line| line.starts_with(ok)), "{metrics}");
    Ok(())
}

/// Models that add nothing, wait, or fail; and a caller.
async fn with_builtins() -> anyhow::Result<(Mesh, Caller)> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "echo", &identity()).await?;
    admin
        .publish("acme", "broken", &builtin("fail_on_negative", &json!({})))
        .await?;
    admin
        .publish("acme", "slow", &builtin("busy", &json!({"busy_us": 300_000})))
        .await?;
    Ok((mesh, caller))
}

fn numbers(values: &[f64]) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, values.len()], "data": values}]})
}

fn with_parameter(mut body: Value, name: &str, value: Value) -> Value {
    body["parameters"] = json!({name: value});
    body
}

#[tokio::test]
async fn a_switch_takes_the_way_whose_condition_holds() -> anyhow::Result<()> {
    let (mesh, caller) = with_builtins().await?;
    let body = numbers(&[1.0, 2.0]);
    let switch = ensemble(
        &["high", "low"],
        -1,
        json!({"steps": [{"name": "way", "switch": [
        {"when": "x[0] > 10 || parameters.mode == 'high'", "steps": [step("up", "echo", "x", "high")]},
        {"steps": [step("down", "echo", "x", "low")]},
    ]}], "optional_outputs": ["high", "low"]}),
    );
    publish(&mesh, &caller, "switch", &switch, &body).await?;
    let which = async |body: &Value| {
        let answer = caller.infer("switch", body).await?.ok()?.json()?;
        let outputs = answer["outputs"].as_array().context("no outputs")?.clone();
        anyhow::Ok(
            outputs
                .iter()
                .map(|output| output["name"].as_str().unwrap_or("").to_owned())
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(which(&body).await?, ["low"]);
    assert_eq!(which(&numbers(&[11.0])).await?, ["high"]);
    assert_eq!(
        which(&with_parameter(body.clone(), "mode", json!("high"))).await?,
        ["high"]
    );
    Ok(())
}

#[tokio::test]
async fn a_splitter_sends_a_unit_the_same_way() -> anyhow::Result<()> {
    let (mesh, caller) = with_builtins().await?;
    let body = numbers(&[1.0, 2.0]);
    let splitter = ensemble(
        &["a", "b"],
        -1,
        json!({"steps": [{"name": "split", "sticky_by": "user", "splitter": [
        {"weight": 30, "steps": [step("one", "echo", "x", "a")]},
        {"weight": 70, "steps": [step("two", "echo", "x", "b")]},
    ]}], "optional_outputs": ["a", "b"]}),
    );
    publish(&mesh, &caller, "splitter", &splitter, &body).await?;
    let mut first = 0;
    for user in 0..100 {
        let body = with_parameter(body.clone(), "user", json!(user));
        let mut names = Vec::new();
        for _ in 0..2 {
            let answer = caller.infer("splitter", &body).await?.ok()?.json()?;
            names.push(answer["outputs"][0]["name"].clone());
        }
        assert_eq!(names[0], names[1], "a unit goes the same way");
        first += u32::from(names[0] == "a");
    }
    assert!((15..=45).contains(&first), "{first} of 100 took the way of 30 percent");
    Ok(())
}

#[tokio::test]
async fn a_soft_failure_leads_on_and_a_hard_one_is_named() -> anyhow::Result<()> {
    let (mesh, caller) = with_builtins().await?;
    let body = numbers(&[1.0, 2.0]);
    let mut soft = step("try", "broken", "x", "best");
    soft["dependency"] = json!("Soft");
    let soft = json!({"steps": [soft, step("spare", "echo", "x", "good")], "outputs": {"y": ["best", "good"]}});
    publish(&mesh, &caller, "soft", &ensemble(&["y"], -1, soft), &body).await?;
    let bad = numbers(&[-1.0, 2.0]);
    for body in [&body, &bad] {
        let answer = caller.infer("soft", body).await?.ok()?;
        assert_eq!(answer.numbers(0)?.last(), Some(&2.0));
    }
    let metrics = mesh.metrics().await?;
    let failed = "mesh_ensemble_steps_total{ensemble=\"acme/soft/1\",step=\"try\",outcome=\"failed\"} 1";
    assert!(metrics.lines().any(|line| line == failed), "{metrics}");
    let hard = json!({"steps": [step("try", "broken", "x", "y")]});
    publish(&mesh, &caller, "hard", &ensemble(&["y"], -1, hard), &body).await?;
    let refused = caller.infer("hard", &bad).await?;
    assert_eq!(refused.status.as_u16(), 500);
    assert!(refused.error()?.starts_with("step 'try': "), "{}", refused.error()?);
    Ok(())
}

#[tokio::test]
async fn a_deadline_ends_it_within_a_step_and_a_caller_that_leaves_cancels_the_rest() -> anyhow::Result<()> {
    let (mesh, caller) = with_builtins().await?;
    let body = numbers(&[1.0]);
    let graph = json!({"steps": [step("first", "slow", "x", "m"), step("second", "slow", "m", "y")]});
    publish(&mesh, &caller, "pipe", &ensemble(&["y"], -1, graph), &body).await?;
    let late = caller
        .post("/v2/models/pipe/infer")
        .header("x-request-timeout-ms", "450")
        .json(&body);
    let late = mesh_harness::Answer::of(late).await?;
    // The device refuses the second step when it comes, because it foresees that it would be late; or the deadline passes.
    assert!([503, 504].contains(&late.status.as_u16()), "{}", late.status);
    // On a busy machine it may foresee that already at the first step.
    assert!(late.error()?.contains("step '"), "{}", late.error()?);
    let leaves = caller
        .post("/v2/models/pipe/infer")
        .json(&body)
        .timeout(std::time::Duration::from_millis(100))
        .send();
    assert!(leaves.await.is_err());
    eventually("the rest is cancelled", || async {
        let metrics = mesh.metrics().await?;
        let line = "mesh_ensemble_steps_total{ensemble=\"acme/pipe/1\",step=\"first\",outcome=\"cancelled\"} 1";
        Ok(metrics.lines().any(|known| known == line).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_granted_ensemble_brings_its_owners_steps_and_nothing_foreign_is_reached_by_naming_it() -> anyhow::Result<()>
{
    let (mesh, caller) = with_builtins().await?;
    let admin = mesh.admin()?;
    let globex = mesh.tenant("globex").await?;
    let body = numbers(&[3.0]);
    let graph = json!({"steps": [step("only", "echo", "x", "y")]});
    publish(&mesh, &caller, "pipe", &ensemble(&["y"], -1, graph.clone()), &body).await?;
    admin.model("acme", "pipe", json!({"grants": ["globex"]})).await?;
    globex.until_answers("pipe", &body).await?;
    assert_eq!(
        globex.infer("echo", &body).await?.status.as_u16(),
        404,
        "the step itself was not granted"
    );
    // The caller's device time is its own, whoever owns the models.
    let metrics = mesh.metrics().await?;
    assert!(
        metrics.contains("mesh_tenant_device_seconds_total{tenant=\"globex\"}"),
        "{metrics}"
    );
    let refused = |name: &str| {
        let spec = ensemble(&["y"], -1, json!({"steps": [step("only", name, "x", "y")]}));
        async move {
            anyhow::Ok(
                admin
                    .publish_only("globex", "thief", &spec)
                    .await
                    .unwrap_err()
                    .to_string(),
            )
        }
    };
    let (foreign, absent) = (refused("echo").await?, refused("none").await?);
    assert!(foreign.contains("there is no model 'echo' here"), "{foreign}");
    assert_eq!(foreign.replace("echo", "NAME"), absent.replace("none", "NAME"));
    Ok(())
}

#[tokio::test]
async fn a_step_follows_its_label_without_a_failed_request_and_rows_are_batched_over_requests() -> anyhow::Result<()> {
    let (mesh, caller) = with_builtins().await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "part", &identity()).await?;
    admin.publish("acme", "part", &batched(identity(), 8, 1_000)).await?;
    admin.model("acme", "part", json!({"labels": {"stable": 1}})).await?;
    let mut part = step("part", "part", "x", "y");
    part["version"] = json!("stable");
    let body = numbers(&[3.0, 4.0]);
    publish(
        &mesh,
        &caller,
        "pipe",
        &ensemble(&["y"], -1, json!({"steps": [part]})),
        &body,
    )
    .await?;
    let load = mesh_e2e::Load::begin(&caller, "pipe", 8);
    load.go_on_for(50).await;
    admin.model("acme", "part", json!({"labels": {"stable": 2}})).await?;
    eventually("the step has moved", || async {
        let shown = admin.get("/tenants/acme/models/pipe/graph").await?;
        Ok((shown["steps"][0]["version"] == 2).then_some(()))
    })
    .await?;
    load.go_on_for(50).await;
    let tally = load.end().await;
    assert!(tally.failures.is_empty(), "{:?}", tally.failures.first());
    assert!(tally.ok >= 100);
    Ok(())
}
