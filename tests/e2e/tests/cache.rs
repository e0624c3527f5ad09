//! The response cache: one for both wires, per tenant, void after a change, purged by command, and seen in numbers.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use mesh_client::{Answer, Client, Input};
use mesh_harness::{
    Admin, Caller, Mesh, MeshOptions, PATIENCE, ServeOptions, Text, builtin, eventually, identity, repeat_int32,
};
use serde_json::{Value, json};

/// A model that takes its time, so that equal requests meet.
fn slow() -> Value {
    builtin("busy", &json!({"busy_us": 100_000}))
}

fn with_cache(ttl: u64) -> Value {
    json!({"cache": {"ttl_seconds": ttl}})
}

fn clients(mesh: &Mesh, caller: &Caller) -> anyhow::Result<[Client; 2]> {
    Ok([caller.client()?, mesh.grpc_client(caller.key())?])
}

fn row(numbers: [f32; 2]) -> anyhow::Result<Input> {
    Ok(Input::new("x", [1, 2], &numbers)?)
}

async fn ask(client: &Client, numbers: [f32; 2]) -> anyhow::Result<Answer> {
    Ok(client.model("e").infer([row(numbers)?]).await?)
}

/// Where the answer to one row came from, by the header over HTTP.
async fn outcome(caller: &Caller, target: &str, numbers: &[f32]) -> anyhow::Result<Option<String>> {
    let answer = caller.ask(target, numbers).await?.ok()?;
    Ok(answer.header("mesh-cache").map(str::to_owned))
}

async fn until(caller: &Caller, numbers: &[f32], wanted: Option<&str>) -> anyhow::Result<()> {
    eventually("the cache is as it should be", || async {
        Ok((outcome(caller, "e", numbers).await?.as_deref() == wanted).then_some(()))
    })
    .await
}

/// The numbers of a model's first version.
async fn numbers(caller: &Caller, model: &str) -> anyhow::Result<Value> {
    let request = caller.get(&format!("/v2/models/{model}/versions/1/stats"));
    let answer = mesh_harness::Answer::of(request).await?.ok()?.json()?;
    Ok(answer["model_stats"][0].clone())
}

async fn prepared(mesh: &Mesh, tenant: &str, model: &Value, spec: Value) -> anyhow::Result<Caller> {
    let (caller, admin) = (mesh.tenant(tenant).await?, mesh.admin()?);
    admin.publish(tenant, "m", model).await?;
    admin
        .endpoint_with(tenant, "e", &[("only", "m", "", 100.0)], spec)
        .await?;
    caller.until_ready("e").await?;
    Ok(caller)
}

/// The same once it counts every request that `e` has answered: a device counts after it has answered.
async fn settled(mesh: &Mesh, caller: &Caller) -> anyhow::Result<Value> {
    let metrics = mesh.metrics().await?;
    let answered = |line: &str| {
        let of_e = line.starts_with(r#"mesh_requests_total{tenant="acme",endpoint="e","#) && line.contains(r#""ok""#);
        line.rsplit_once(' ').filter(|_| of_e)?.1.parse::<u64>().ok()
    };
    let answered: u64 = metrics.lines().filter_map(answered).sum();
    ensure!(answered > 0, "{metrics}");
    eventually("all are counted", || async {
        let numbers = numbers(caller, "m").await?;
        Ok((count(&numbers, "success") == answered).then_some(numbers))
    })
    .await
}

fn count(numbers: &Value, name: &str) -> u64 {
    numbers["inference_stats"][name]["count"].as_u64().unwrap_or_default()
}

#[tokio::test]
async fn both_wires_share_answers_which_are_those_of_the_model() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = prepared(&mesh, "acme", &identity(), json!({})).await?;
    let plain = caller.ask("e", &[1.0, -0.0]).await?.ok()?;
    ensure!(plain.header("mesh-cache").is_none(), "off unless it is said");
    let [rest, grpc] = clients(&mesh, &caller)?;
    mesh.admin()?
        .endpoint_with("acme", "e", &[("only", "m", "", 100.0)], with_cache(600))
        .await?;
    until(&caller, &[9.0, 9.0], Some("hit")).await?;
    let before = settled(&mesh, &caller).await?;
    // Asked over gRPC and found over HTTP, and the other way round: equal to what is not remembered.
    let asked = ask(&grpc, [1.0, -0.0]).await?;
    let found = caller.ask("e", &[1.0, -0.0]).await?.ok()?;
    assert_eq!(found.header("mesh-cache"), Some("hit"));
    assert_eq!(found.body, plain.body);
    assert_eq!(found.header("x-mesh-arm"), Some("only"));
    assert_eq!(
        ask(&rest, [1.0, -0.0]).await?.output("y")?.to_vec::<f32>()?,
        asked.output("y")?.to_vec::<f32>()?
    );
    ask(&rest, [2.0, 3.0]).await?;
    assert_eq!(ask(&grpc, [2.0, 3.0]).await?.output("y")?.to_vec::<f32>()?, [2.0, 3.0]);
    let after = settled(&mesh, &caller).await?;
    let more = |name: &str| count(&after, name) - count(&before, name);
    assert_eq!((more("cache_hit"), more("cache_miss"), more("success")), (3, 2, 5));
    let inferences = |of: &Value| of["inference_count"].as_u64().unwrap_or_default();
    assert_eq!(inferences(&after) - inferences(&before), 2, "hits are no inferences");
    let metrics = mesh.metrics().await?;
    for line in [
        r#"mesh_cache_requests_total{tenant="acme",endpoint="e",outcome="hit"} "#,
        r#"mesh_cache_requests_total{tenant="acme",endpoint="e",outcome="miss"} "#,
        "mesh_cache_entries 3",
        r#"mesh_requests_total{tenant="acme",endpoint="e",arm="only",version="1",outcome="ok"} "#,
    ] {
        ensure!(metrics.lines().any(|one| one.starts_with(line)), "{line} in {metrics}");
    }
    Ok(())
}

#[tokio::test]
async fn equal_requests_at_once_run_the_model_once() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = prepared(&mesh, "acme", &slow(), with_cache(600)).await?;
    let [rest, grpc] = clients(&mesh, &caller)?;
    let asks = (0..16).map(|index| ask(if index % 2 == 0 { &rest } else { &grpc }, [4.0, 5.0]));
    for answer in futures::future::join_all(asks).await {
        assert_eq!(answer?.output("y")?.to_vec::<f32>()?, [4.0, 5.0]);
    }
    let seen = numbers(&caller, "m").await?;
    assert_eq!((count(&seen, "cache_miss"), count(&seen, "cache_hit")), (1, 15));
    // The device counts after it has answered.
    eventually("the one execution is counted", || async {
        Ok((numbers(&caller, "m").await?["inference_count"] == 1).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn no_tenant_finds_anothers_answer_even_on_a_granted_model() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let acme = prepared(&mesh, "acme", &identity(), with_cache(600)).await?;
    let (globex, admin) = (mesh.tenant("globex").await?, mesh.admin()?);
    admin.model("acme", "m", json!({"grants": ["globex"]})).await?;
    admin
        .endpoint_with("globex", "e", &[("only", "m", "", 100.0)], with_cache(600))
        .await?;
    globex.until_ready("e").await?;
    until(&acme, &[1.0, 2.0], Some("hit")).await?;
    assert_eq!(outcome(&globex, "e", &[1.0, 2.0]).await?.as_deref(), Some("miss"));
    assert_eq!(outcome(&globex, "e", &[1.0, 2.0]).await?.as_deref(), Some("hit"));
    Ok(())
}

#[tokio::test]
async fn a_label_that_moves_and_a_purge_forget() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, admin) = (mesh.tenant("acme").await?, mesh.admin()?);
    admin.publish("acme", "m", &identity()).await?;
    admin.publish("acme", "m", &identity()).await?;
    admin.model("acme", "m", json!({"labels": {"stable": 1}})).await?;
    admin
        .endpoint_with("acme", "e", &[("only", "m", "stable", 100.0)], with_cache(600))
        .await?;
    caller.until_ready("e").await?;
    until(&caller, &[1.0, 2.0], Some("hit")).await?;
    admin.model("acme", "m", json!({"labels": {"stable": 2}})).await?;
    eventually("the second version answers", || async {
        let answer = caller.ask("e", &[1.0, 2.0]).await?.ok()?;
        Ok((answer.header("x-mesh-version") == Some("2")).then_some(()))
    })
    .await?;
    until(&caller, &[1.0, 2.0], Some("hit")).await?;
    // Back again, the first version's old answer is gone as well.
    admin.model("acme", "m", json!({"labels": {"stable": 1}})).await?;
    eventually("the first version answers again", || async {
        let answer = caller.ask("e", &[7.0, 7.0]).await?.ok()?;
        Ok((answer.header("x-mesh-version") == Some("1")).then_some(()))
    })
    .await?;
    assert_eq!(outcome(&caller, "e", &[1.0, 2.0]).await?.as_deref(), Some("miss"));
    assert_eq!(outcome(&caller, "e", &[1.0, 2.0]).await?.as_deref(), Some("hit"));
    assert_eq!(purge(&mesh, admin, "e").await?, 0);
    assert_eq!(outcome(&caller, "e", &[1.0, 2.0]).await?.as_deref(), Some("miss"));
    assert_eq!(purge(&mesh, admin, "no-such-endpoint").await?, 1);
    // All that the tenant has.
    assert_eq!(outcome(&caller, "e", &[1.0, 2.0]).await?.as_deref(), Some("hit"));
    assert_eq!(purge(&mesh, admin, "").await?, 0);
    assert_eq!(outcome(&caller, "e", &[1.0, 2.0]).await?.as_deref(), Some("miss"));
    let audit = admin.get("/audit?limit=100").await?.to_string();
    for key in ["Endpoint/acme/e", "Tenant/acme"] {
        ensure!(audit.contains(&format!("purge cache of {key}")), "{audit}");
    }
    Ok(())
}

/// Runs `mesh cache purge`, of all that the tenant has where no endpoint is named; answers its exit code.
async fn purge(mesh: &Mesh, admin: &Admin, endpoint: &str) -> anyhow::Result<u8> {
    let globals = mesh_cli::GlobalOptions {
        admin_url: format!("http://{}", mesh.addresses().admin),
        admin_token: Some(admin.token().to_owned()),
        admin_token_from: None,
        url: String::new(),
        api_key: None,
        trust: mesh_cli::TrustOptions::default(),
    };
    let args = mesh_cli::CachePurgeArgs {
        name: (!endpoint.is_empty()).then(|| endpoint.to_owned()),
        tenant: Some("acme".parse()?),
        all: endpoint.is_empty(),
    };
    let run = move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = mesh_cli::Terminal {
            out: &mut out,
            err: &mut err,
            input: &mut std::io::empty(),
            interactive: false,
        };
        let command = mesh_cli::Command::Cache(mesh_cli::CacheCommand::Purge(args));
        mesh_cli::run_with(command, &globals, &mut terminal)
    };
    Ok(tokio::task::spawn_blocking(run).await?)
}

#[tokio::test]
async fn a_stream_finds_what_others_were_answered_and_a_decoupled_model_is_never_remembered() -> anyhow::Result<()> {
    use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
    let mesh = Mesh::start().await?;
    let caller = prepared(&mesh, "acme", &identity(), with_cache(600)).await?;
    let request = ModelInferRequest {
        model_name: "e".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 2],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![bytes::Bytes::from(vec![0; 8])],
        ..ModelInferRequest::default()
    };
    assert_eq!(outcome(&caller, "e", &[0.0, 0.0]).await?.as_deref(), Some("miss"));
    let grpc = mesh.grpc(caller.key()).await?;
    let mut stream = grpc.stream(vec![request.clone(), request]).await?;
    for _ in 0..2 {
        let answer = tokio::time::timeout(PATIENCE, stream.message()).await??;
        let answer = answer.context("an answer")?;
        ensure!(answer.error_message.is_empty(), "{answer:?}");
        let response = answer.infer_response.context("a response")?;
        assert_eq!(response.raw_output_contents[0].as_ref(), [0; 8]);
    }
    let found = numbers(&caller, "m").await?;
    assert_eq!((count(&found, "cache_hit"), count(&found, "cache_miss")), (2, 1));
    // Any number of answers are each computed.
    let admin = mesh.admin()?;
    admin.publish("acme", "repeats", &repeat_int32()).await?;
    admin
        .endpoint_with("acme", "r", &[("only", "repeats", "", 100.0)], with_cache(600))
        .await?;
    caller.until_ready("r").await?;
    let words = json!({"IN": [4, 2], "DELAY": [0, 0], "WAIT": 0});
    for _ in 0..2 {
        let answer = mesh_harness::Answer::of(caller.post("/v2/models/r/generate_stream").json(&words))
            .await?
            .ok()?;
        ensure!(answer.header("mesh-cache").is_none());
        ensure!(answer.body.starts_with(b"data: "), "{:?}", answer.body);
    }
    let repeated = numbers(&caller, "repeats").await?;
    assert_eq!((count(&repeated, "cache_hit"), count(&repeated, "cache_miss")), (0, 0));
    Ok(())
}

#[tokio::test]
async fn what_was_unloaded_is_not_answered_and_what_comes_back_is_computed() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = prepared(&mesh, "acme", &identity(), with_cache(600)).await?;
    until(&caller, &[1.0, 2.0], Some("hit")).await?;
    let admin = mesh.admin()?;
    let version = |unloaded: bool| async move {
        let path = "/tenants/acme/models/m/versions/1";
        let mut resource = admin.get(path).await?;
        resource["spec"]["unloaded"] = json!(unloaded);
        let metadata = resource["metadata"].as_object_mut().context("metadata")?;
        metadata.retain(|name, _| matches!(name.as_str(), "tenant" | "name"));
        admin.apply(&[resource]).await.map(drop)
    };
    version(true).await?;
    eventually("it is gone", || async {
        let answer = caller.ask("e", &[1.0, 2.0]).await?;
        Ok((answer.status.as_u16() == 503).then_some(()))
    })
    .await?;
    version(false).await?;
    caller.until_ready("e").await?;
    assert_eq!(outcome(&caller, "e", &[1.0, 2.0]).await?.as_deref(), Some("miss"));
    assert_eq!(outcome(&caller, "e", &[1.0, 2.0]).await?.as_deref(), Some("hit"));
    Ok(())
}

#[tokio::test]
async fn a_split_is_decided_before_the_cache_and_counts_each_request() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, admin) = (mesh.tenant("acme").await?, mesh.admin()?);
    admin.publish("acme", "m", &identity()).await?;
    admin.publish("acme", "m", &identity()).await?;
    let arms = [("old", "m", "1", 50.0), ("new", "m", "2", 50.0)];
    admin.endpoint_with("acme", "e", &arms, with_cache(600)).await?;
    caller.until_ready("e").await?;
    let (mut arms, mut misses) = (BTreeMap::<String, u64>::new(), 0);
    for _ in 0..60 {
        let answer = caller.ask("e", &[1.0, 2.0]).await?.ok()?;
        let arm = answer.header("x-mesh-arm").context("an arm")?.to_owned();
        let version = if arm == "old" { "1" } else { "2" };
        assert_eq!(answer.header("x-mesh-version"), Some(version), "an arm's own answer");
        misses += u64::from(answer.header("mesh-cache") == Some("miss"));
        *arms.entry(arm).or_default() += 1;
    }
    assert_eq!((arms.len(), misses), (2, 2), "each arm computes once: {arms:?}");
    let metrics = mesh.metrics().await?;
    for (arm, count) in arms {
        let version = if arm == "old" { 1 } else { 2 };
        let line = format!(
            r#"mesh_requests_total{{tenant="acme",endpoint="e",arm="{arm}",version="{version}",outcome="ok"}} {count}"#
        );
        ensure!(metrics.lines().any(|one| one == line), "{line} in {metrics}");
    }
    Ok(())
}

#[tokio::test]
async fn a_tenants_answers_take_no_more_than_its_part() -> anyhow::Result<()> {
    let mesh = Mesh::start_with(MeshOptions {
        serve: ServeOptions {
            cache_bytes: Some(Text("20000".into())),
            cache_tenant_bytes: Some(Text("2000".into())),
            ..ServeOptions::default()
        },
        ..MeshOptions::default()
    })
    .await?;
    let caller = prepared(&mesh, "acme", &identity(), with_cache(600)).await?;
    let globex = prepared(&mesh, "globex", &identity(), with_cache(600)).await?;
    until(&globex, &[1.0, 2.0], Some("hit")).await?;
    for number in 0..50_u8 {
        let asked = outcome(&caller, "e", &[f32::from(number), 0.0]).await?;
        assert_eq!(asked.as_deref(), Some("miss"));
    }
    let metrics = mesh.metrics().await?;
    let held = metrics.lines().find_map(|line| line.strip_prefix("mesh_cache_bytes "));
    let held: u64 = held.context("what it holds")?.parse()?;
    ensure!((1_000..=4_000).contains(&held), "{held}");
    // The last is there and the first is not; the neighbour's is.
    assert_eq!(outcome(&caller, "e", &[49.0, 0.0]).await?.as_deref(), Some("hit"));
    assert_eq!(outcome(&caller, "e", &[0.0, 0.0]).await?.as_deref(), Some("miss"));
    assert_eq!(outcome(&globex, "e", &[1.0, 2.0]).await?.as_deref(), Some("hit"));
    Ok(())
}

#[tokio::test]
async fn errors_are_not_remembered() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = prepared(&mesh, "acme", &builtin("fail_on_negative", &json!({})), with_cache(600)).await?;
    for _ in 0..2 {
        let answer = caller.ask("e", &[-1.0, 0.0]).await?;
        ensure!(
            !answer.status.is_success() && answer.header("mesh-cache").is_none(),
            "{answer:?}"
        );
    }
    // What is counted may come after what is answered.
    eventually("it was computed twice", || async {
        Ok((count(&numbers(&caller, "m").await?, "fail") == 2).then_some(()))
    })
    .await?;
    assert_eq!(outcome(&caller, "e", &[1.0, 0.0]).await?.as_deref(), Some("miss"));
    let metrics = mesh.metrics().await?;
    ensure!(metrics.lines().any(|line| line == "mesh_cache_entries 1"), "{metrics}");
    Ok(())
}
