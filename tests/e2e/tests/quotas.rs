//! Limits of every unit and scope over both wires, what answers say of them, problem details, budgets over a restart, shadow, and
//! device time that is paid by whoever caused it.

use std::time::Duration;

use anyhow::Context;
use mesh_harness::{Admin, Answer, Caller, GrpcCaller, Mesh, MeshOptions, builtin, eventually, identity, repeat_int32};
use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
use reqwest::Method;
use serde_json::{Value, json};
use tonic::{Code, Status};

const PROBLEM: &str = "application/problem+json";

/// A tenant `small` with these limits and the model `m`.
async fn small(mesh: &Mesh, spec: Value) -> anyhow::Result<(Caller, GrpcCaller)> {
    let admin = mesh.admin()?;
    admin.tenant("small", spec).await?;
    admin.publish("small", "m", &identity()).await?;
    let key = admin.key("small").await?;
    let caller = mesh.caller(&key);
    caller.until_ready("m").await?;
    Ok((caller, mesh.grpc(&key).await?))
}

fn rows(rows: usize) -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [rows, 1], "data": vec![1.0; rows]}]})
}

fn message(rows: usize) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "m".to_owned(),
        inputs: vec![InferInputTensor {
            name: "x".to_owned(),
            datatype: "FP32".to_owned(),
            shape: vec![i64::try_from(rows).unwrap_or(0), 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![vec![0; rows * 4].into()],
        ..ModelInferRequest::default()
    }
}

fn metadata<'a>(status: &'a Status, name: &str) -> Option<&'a str> {
    status.metadata().get(name).and_then(|value| value.to_str().ok())
}

/// What a structured list says of an item: `name` -> (`r`, `t`).
fn item(text: &str, name: &str) -> Option<(u64, Option<u64>)> {
    let item = text
        .split(", ")
        .find(|item| item.starts_with(&format!("\"{name}\";")))?;
    let parameter = |key: &str| {
        let value = item.split(';').find_map(|part| part.strip_prefix(key))?;
        value.parse().ok()
    };
    Some((parameter("r=")?, parameter("t=")))
}

async fn refused_over_http(caller: &Caller, (rule, header): (&str, &str), each: usize) -> anyhow::Result<()> {
    let refused = caller.infer("m", &rows(each)).await?;
    assert_eq!(refused.status, 429, "{rule}");
    assert!(refused.error()?.contains(&format!("'{rule}'")), "{}", refused.error()?);
    let (left, whole) = item(refused.header(header).context("no state")?, rule).context("no item")?;
    assert!(left < u64::try_from(each)? * 4 && whole.is_some_and(|whole| whole >= 1));
    let wait: u64 = refused.header("retry-after").context("no Retry-After")?.parse()?;
    assert!((1..=16).contains(&wait), "{wait}");
    Ok(())
}

async fn refused_over_grpc(grpc: &GrpcCaller, (rule, header): (&str, &str), each: usize) -> anyhow::Result<()> {
    let Err(refused) = grpc.infer(message(each)).await else {
        anyhow::bail!("{rule} let it through");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains(&format!("'{rule}'")), "{refused:?}");
    let name = header.to_ascii_lowercase();
    assert!(item(metadata(&refused, &name).context("no state")?, rule).is_some());
    assert!(metadata(&refused, &format!("{name}-policy")).is_some_and(|policy| policy.contains(rule)));
    assert!(metadata(&refused, "retry-after").is_some());
    assert!(metadata(&refused, "grpc-retry-pushback-ms").is_some());
    Ok(())
}

#[tokio::test]
async fn every_unit_is_limited_over_both_wires_and_the_rule_is_named() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, grpc) = small(&mesh, json!({})).await?;
    let admin = mesh.admin()?;
    // The burst, what uses it up, and what is over it by one: in rows of four bytes.
    let cases = [
        (
            "requests",
            json!({"requests": {"per_second": 1, "burst": 2}}),
            1,
            "RateLimit",
        ),
        (
            "rows",
            json!({"rows": {"per_second": 1, "burst": 8}}),
            4,
            "x-mesh-limit",
        ),
        (
            "input-bytes",
            json!({"input_bytes": {"per_second": 1, "burst": 32}}),
            4,
            "RateLimit",
        ),
    ];
    for (rule, limits, each, header) in cases {
        for over_http in [true, false] {
            // Nothing is left of the former case's account.
            let tenant = format!("{rule}-{over_http}");
            admin.tenant(&tenant, json!({"limits": limits})).await?;
            admin.publish(&tenant, "m", &identity()).await?;
            let key = admin.key(&tenant).await?;
            let caller = mesh.caller(&key);
            caller.until_ready("m").await?;
            let first = caller.infer("m", &rows(each)).await?.ok()?;
            let policy = first.header(&format!("{header}-Policy")).context("no policy")?;
            assert!(
                policy.starts_with(&format!("\"{rule}\";q=")) && policy.contains(";pk=:"),
                "{policy}"
            );
            assert!(!policy.contains(&tenant), "{policy}");
            let (left, _) = item(first.header(header).context("no state")?, rule).context("no item")?;
            assert!(left > 0);
            caller.infer("m", &rows(each)).await?.ok()?;
            if over_http {
                refused_over_http(&caller, (rule, header), each).await?;
            } else {
                refused_over_grpc(&mesh.grpc(&key).await?, (rule, header), each).await?;
            }
        }
    }
    // Who has no limits is told of none.
    let free = caller.infer("m", &rows(1)).await?.ok()?;
    assert_eq!(
        (free.header("ratelimit"), free.header("ratelimit-policy")),
        (None, None)
    );
    let free = grpc.infer(message(1)).await?;
    assert!(free.metadata().get("ratelimit").is_none());
    Ok(())
}

#[tokio::test]
async fn a_request_that_never_fits_is_too_large_and_not_to_be_sent_again() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, grpc) = small(&mesh, json!({"limits": {"rows": {"per_second": 100, "burst": 5}}})).await?;
    let refused = caller.infer("m", &rows(6)).await?;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (413, None));
    assert!(refused.error()?.contains("'rows'"), "{}", refused.error()?);
    let refused = grpc.infer(message(6)).await.unwrap_err();
    assert_eq!(
        (refused.code(), metadata(&refused, "grpc-retry-pushback-ms")),
        (Code::ResourceExhausted, None)
    );
    caller.infer("m", &rows(5)).await?.ok()?;
    Ok(())
}

#[tokio::test]
async fn keys_endpoints_and_models_have_limits_of_their_own() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (other_key, _) = small(&mesh, json!({})).await?;
    let admin = mesh.admin()?;
    let two = json!({"requests": {"per_second": 1, "burst": 2}});
    let request = admin.request(Method::POST, "/tenants/small/keys");
    let made: Value = request.json(&json!({"limits": two})).send().await?.json().await?;
    let limited = mesh.caller(made["key"].as_str().context("no key")?);
    limited.until_let_in().await?;
    let arms = [("only", "m", "", 100.0)];
    admin.endpoint_with("small", "e", &arms, json!({"limits": two})).await?;
    other_key.until_ready("e").await?;
    let third = |caller: Caller, target: &'static str| async move {
        for _ in 0..2 {
            caller.infer(target, &rows(1)).await?.ok()?;
        }
        caller.infer(target, &rows(1)).await
    };
    let refused = third(limited, "m").await?;
    assert_eq!(refused.status, 429);
    assert!(refused.error()?.contains("'key-requests'"), "{}", refused.error()?);
    // Another key of the tenant does not feel it.
    let refused = third(other_key.clone(), "e").await?;
    assert!(refused.error()?.contains("'endpoint-requests'"), "{}", refused.error()?);
    assert!(
        refused
            .header("ratelimit-policy")
            .is_some_and(|policy| policy.contains("\"endpoint-requests\";q=2;w=2"))
    );
    // A model's limit is met directly and through an endpoint, by each tenant on its own.
    admin.tenant("guest", json!({})).await?;
    let guest = mesh.caller(&admin.key("guest").await?);
    admin.publish("small", "n", &identity()).await?;
    admin
        .model("small", "n", json!({"limits": two, "grants": ["guest"]}))
        .await?;
    guest.until_ready("n").await?;
    for caller in [other_key, guest] {
        let refused = eventually("the model's limit is known", || async {
            let answer = caller.infer("n", &rows(1)).await?;
            Ok((answer.status == 429).then_some(answer))
        })
        .await?;
        assert!(refused.error()?.contains("'model-requests'"), "{}", refused.error()?);
    }
    Ok(())
}

#[tokio::test]
async fn who_asks_for_problem_details_gets_them_and_nobody_else() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, _) = small(&mesh, json!({"budgets": {"daily": {"requests": {"hard": 1}}}})).await?;
    let ask = |target: &str| caller.post(&format!("/v2/models/{target}/infer")).json(&rows(1));
    Answer::of(ask("m")).await?.ok()?;
    let limited = Answer::of(ask("m").header("accept", PROBLEM)).await?;
    assert_eq!(
        (limited.status.as_u16(), limited.header("content-type")),
        (429, Some(PROBLEM))
    );
    let body = limited.json()?;
    assert_eq!(
        body["type"],
        "https://iana.org/assignments/http-problem-types#quota-exceeded"
    );
    assert_eq!((&body["status"], &body["code"]), (&json!(429), &json!("rate_limited")));
    assert_eq!(body["violated-policies"], json!(["daily-requests"]));
    assert_eq!(body["request_id"].as_str(), limited.header("x-request-id"));
    assert!(
        body["instance"]
            .as_str()
            .is_some_and(|instance| instance.ends_with(body["request_id"].as_str().unwrap()))
    );
    let plain = Answer::of(ask("m").header("accept", "application/json, */*")).await?;
    assert_eq!(
        (plain.status.as_u16(), plain.header("content-type")),
        (429, Some("application/json"))
    );
    assert!(plain.error()?.contains("requests"));
    // Unknown paths, other verbs, missing credentials and V1 alike.
    for (request, status, code) in [
        (caller.get("/v2/nothing"), 404, "not_found"),
        (caller.get("/v2/models/m/infer"), 405, "method_not_allowed"),
        (
            mesh.stranger().post("/v2/models/m/infer").json(&rows(1)),
            401,
            "unauthenticated",
        ),
        (caller.post("/v1/models/m:predict").body("{"), 400, "invalid_argument"),
    ] {
        let answer = Answer::of(request.header("accept", format!("text/html, {PROBLEM};q=0.9"))).await?;
        let body = answer.json()?;
        assert_eq!(
            (answer.status.as_u16(), answer.header("content-type")),
            (status, Some(PROBLEM)),
            "{body}"
        );
        assert_eq!((&body["code"], &body["status"]), (&json!(code), &json!(status)));
        assert!(body["title"].is_string() && body["detail"].is_string() && body["violated-policies"].is_null());
    }
    // A success is a success.
    let live = Answer::of(caller.get("/v2/health/live").header("accept", PROBLEM))
        .await?
        .ok()?;
    assert_eq!(live.header("content-type"), Some("application/json"));
    admin_problems(mesh.admin()?).await
}

async fn admin_problems(admin: &Admin) -> anyhow::Result<()> {
    let ask = |path: &str| Answer::of(admin.request(Method::GET, path).header("accept", PROBLEM));
    let missing = ask("/tenants/nobody").await?;
    let body = missing.json()?;
    assert_eq!(
        (missing.status.as_u16(), missing.header("content-type")),
        (404, Some(PROBLEM))
    );
    assert_eq!(
        (&body["code"], &body["title"]),
        (&json!("not_found"), &json!("Not Found"))
    );
    assert_eq!(body["request_id"].as_str(), missing.header("x-request-id"));
    assert_eq!(ask("/no-such-route").await?.json()?["code"], "not_found");
    let wrong = admin
        .request(Method::PUT, "/tenants/wrong")
        .header("accept", PROBLEM)
        .json(&json!({
            "apiVersion": "mesh/v1", "kind": "Tenant", "metadata": {"name": "wrong"},
            "spec": {"budgets": {"daily": {"rows": {}}}},
        }));
    let wrong = Answer::of(wrong).await?.json()?;
    assert_eq!(wrong["errors"][0]["field"], "spec.budgets.daily.rows");
    let plain = Answer::of(admin.request(Method::GET, "/tenants/nobody")).await?;
    assert!(plain.error()?.contains("nobody"));
    Ok(())
}

#[tokio::test]
async fn a_budget_outlasts_a_restart_warns_first_and_then_refuses() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let budgets =
        json!({"budgets": {"daily": {"requests": {"soft": 2, "hard": 3}}, "monthly": {"rows": {"soft": 50}}}});
    let (caller, _) = small(&mesh, budgets).await?;
    let first = caller.infer("m", &rows(4)).await?.ok()?;
    assert_eq!(first.header("x-mesh-budget-warning"), None);
    let second = caller.infer("m", &rows(4)).await?.ok()?;
    assert_eq!(
        second.header("x-mesh-budget-warning"),
        Some("\"daily-requests\";used=2;soft=2")
    );
    let admin = mesh.admin()?;
    let usage = admin.get("/tenants/small/usage").await?;
    assert_eq!(
        (&usage["daily"]["requests"], &usage["monthly"]["rows"]),
        (&json!(2), &json!(8)),
        "{usage}"
    );
    assert_eq!(usage["monthly"]["input_bytes"], 32);
    assert_eq!(usage["budgets"]["daily"]["requests"]["hard"], 3);
    let metrics = mesh.metrics().await?;
    assert!(metrics.contains("mesh_limit_effects_total{tenant=\"small\",rule=\"daily-requests\",effect=\"warned\"} 1"));
    let (token, key) = (admin.token().to_owned(), caller.key().to_owned());
    let data = mesh.stop().await?;
    let options = MeshOptions {
        data: Some(data),
        ..MeshOptions::default()
    };
    let mesh = Mesh::start_with(options).await?.with_token(&token);
    let (caller, grpc) = (mesh.caller(&key), mesh.grpc(&key).await?);
    caller.until_ready("m").await?;
    caller.infer("m", &rows(4)).await?.ok()?;
    let refused = caller.infer("m", &rows(4)).await?;
    assert_eq!(refused.status, 429);
    assert!(
        refused.error()?.contains("'daily-requests' of 3 a day"),
        "{}",
        refused.error()?
    );
    let wait: u64 = refused.header("retry-after").context("no Retry-After")?.parse()?;
    let (left, rest) = item(refused.header("ratelimit").context("no state")?, "daily-requests").context("no item")?;
    assert_eq!(left, 0);
    assert!(
        wait <= 86_400 && rest.is_some_and(|rest| wait.abs_diff(rest) <= 1),
        "{wait} {rest:?}"
    );
    let refused = grpc.infer(message(1)).await.unwrap_err();
    assert!(refused.message().contains("'daily-requests'"), "{refused:?}");
    let list = mesh.admin()?.get("/usage").await?;
    let small = list["items"]
        .as_array()
        .and_then(|items| items.iter().find(|item| item["tenant"] == "small"));
    assert_eq!(small.context("not listed")?["monthly"]["rows"], 12);
    assert!(mesh.admin()?.get("/tenants/nobody/usage").await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_limit_in_shadow_refuses_nobody_and_is_counted() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let limits = json!({"limits": {"enforce": "shadow", "rows": {"per_second": 1, "burst": 5}}});
    let (caller, _) = small(&mesh, limits).await?;
    for _ in 0..3 {
        caller.infer("m", &rows(4)).await?.ok()?;
    }
    let metrics = mesh.metrics().await?;
    assert!(
        metrics.contains("mesh_limit_effects_total{tenant=\"small\",rule=\"rows\",effect=\"shadow\"} 2"),
        "{metrics}"
    );
    // Enforced, it is as it stands: one of five is left, and comes back in a second each.
    mesh.admin()?
        .tenant("small", json!({"limits": {"rows": {"per_second": 1, "burst": 5}}}))
        .await?;
    let refused = eventually("the limit is enforced", || async {
        let answer = caller.infer("m", &rows(5)).await?;
        Ok((answer.status == 429).then_some(answer))
    })
    .await?;
    assert!(refused.error()?.contains("'rows'"));
    let metrics = mesh.metrics().await?;
    assert!(metrics.contains("rule=\"rows\",effect=\"refused\""), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn no_change_of_a_limit_refills_it() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let limits = |burst: u64| json!({"limits": {"input_bytes": {"per_second": 1, "burst": burst}}});
    let (caller, _) = small(&mesh, limits(4_000)).await?;
    caller.infer("m", &rows(8)).await?.ok()?;
    for _ in 0..124 {
        caller.infer("m", &rows(8)).await?.ok()?;
    }
    // All 4,000 are gone, but for those that came back meanwhile.
    assert_eq!(caller.infer("m", &rows(8)).await?.status, 429);
    mesh.admin()?.tenant("small", limits(40_000)).await?;
    let refused = eventually("the new limit is known", || async {
        let answer = caller.infer("m", &rows(8)).await?;
        let known = answer
            .header("ratelimit-policy")
            .is_some_and(|policy| policy.contains("q=40000"));
        Ok(known.then_some(answer))
    })
    .await?;
    let (left, _) = item(refused.header("ratelimit").context("no state")?, "input-bytes").context("no item")?;
    // The share that came back in seconds, ten times: not the whole of what is more.
    assert!(left < 4_000, "{left}");
    Ok(())
}

#[tokio::test]
async fn device_time_is_limited_and_who_leaves_pays_for_what_ran() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, _) = small(&mesh, json!({"limits": {"device_ms": {"per_second": 1, "burst": 150}}})).await?;
    let admin = mesh.admin()?;
    admin
        .publish("small", "busy", &builtin("busy", &json!({"busy_us": 100_000})))
        .await?;
    caller.until_ready("busy").await?;
    caller.infer("busy", &rows(1)).await?.ok()?;
    let used = || async {
        let usage = admin.get("/tenants/small/usage").await?;
        usage["daily"]["device_ms"].as_u64().context("no device time")
    };
    eventually("the first is paid", || async {
        Ok((used().await? >= 100).then_some(()))
    })
    .await?;
    let refused = caller.infer("busy", &rows(1)).await?;
    assert_eq!(refused.status, 429);
    assert!(
        refused.error()?.contains("'device-ms' of 1 a second"),
        "{}",
        refused.error()?
    );
    // Without the limit, one that leaves while it runs.
    admin.tenant("small", json!({})).await?;
    eventually("the limit is gone", || async {
        Ok(caller.infer("busy", &rows(1)).await?.status.is_success().then_some(()))
    })
    .await?;
    admin
        .publish("small", "slow", &builtin("busy", &json!({"busy_us": 600_000})))
        .await?;
    caller.until_ready("slow").await?;
    let before = eventually("nothing runs", || async {
        let usage = admin.get("/tenants/small/usage").await?;
        Ok((usage["in_flight"] == 0).then_some(usage))
    })
    .await?;
    let before = before["daily"]["device_ms"].as_u64().unwrap_or(0);
    let leaving = caller
        .post("/v2/models/slow/infer")
        .json(&rows(1))
        .timeout(Duration::from_millis(250));
    assert!(leaving.send().await.is_err());
    eventually("what ran is paid", || async {
        Ok((used().await? >= before + 600).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn any_number_of_answers_costs_the_time_that_they_took_and_tells_of_limits_at_its_head() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, _) = small(&mesh, json!({"limits": {"device_ms": {"per_second": 1, "burst": 150}}})).await?;
    let admin = mesh.admin()?;
    admin.publish("small", "repeat", &repeat_int32()).await?;
    caller.until_ready("repeat").await?;
    let ask = || {
        let request = caller.post("/v2/models/repeat/generate_stream");
        Answer::of(request.json(&json!({"IN": [1, 2, 3, 4], "DELAY": [80, 80, 80, 80], "WAIT": [0]})))
    };
    let first = ask().await?.ok()?;
    assert!(
        first
            .header("x-mesh-limit")
            .is_some_and(|state| state.contains("\"device-ms\";r="))
    );
    assert!(
        first
            .header("x-mesh-limit-policy")
            .is_some_and(|policy| policy.contains("q=150"))
    );
    eventually("what ran is paid", || async {
        let usage = admin.get("/tenants/small/usage").await?;
        let used = usage["daily"]["device_ms"].as_u64().context("no device time")?;
        Ok((used >= 200 && usage["in_flight"] == 0 && usage["daily"]["requests"] == 1).then_some(()))
    })
    .await?;
    let refused = ask().await?;
    assert_eq!(refused.status, 429);
    assert!(
        refused.error()?.contains("'device-ms' of 1 a second"),
        "{}",
        refused.error()?
    );
    Ok(())
}

#[tokio::test]
async fn a_want_of_room_is_503_and_names_no_limit() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, _) = small(
        &mesh,
        json!({"limits": {"requests": {"per_second": 1000, "burst": 1000}}}),
    )
    .await?;
    let mut narrow = builtin("busy", &json!({"busy_us": 300_000}));
    narrow["config"]["dynamic_batching"] = json!({"default_queue_policy": {"max_queue_size": 1}});
    narrow["config"]["max_batch_size"] = json!(1);
    mesh.admin()?.publish("small", "narrow", &narrow).await?;
    caller.until_ready("narrow").await?;
    let ask = || {
        let request = caller.post("/v2/models/narrow/infer").header("accept", PROBLEM);
        Answer::of(request.json(&rows(1)))
    };
    let answers = futures::future::try_join_all((0..12).map(|_| ask())).await?;
    assert!(answers.iter().any(|answer| answer.status == 200));
    let full = answers
        .iter()
        .find(|answer| answer.status != 200)
        .context("all had room")?;
    let body = full.json()?;
    assert_eq!(
        (full.status.as_u16(), full.header("content-type")),
        (503, Some(PROBLEM)),
        "{body}"
    );
    assert_eq!(
        (&body["type"], &body["code"], &body["violated-policies"]),
        (
            &json!("https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"),
            &json!("no_capacity"),
            &Value::Null
        )
    );
    // What is left of the caller's own limit is told all the same.
    assert!(
        full.header("ratelimit")
            .is_some_and(|state| state.starts_with("\"requests\";r="))
    );
    Ok(())
}

#[tokio::test]
async fn what_waits_is_bounded_and_the_tenants_bound_is_not_the_meshs() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, _) = small(&mesh, json!({"limits": {"queued_rows": 2}})).await?;
    let admin = mesh.admin()?;
    admin
        .publish("small", "slow", &builtin("busy", &json!({"busy_us": 700_000})))
        .await?;
    caller.until_ready("slow").await?;
    let mut running = tokio::task::JoinSet::new();
    let ask = |running: &mut tokio::task::JoinSet<anyhow::Result<Answer>>| {
        let caller = caller.clone();
        // Refused while the one before still waits itself.
        let ask = async move {
            eventually("there is room", || async {
                let answer = caller.infer("slow", &rows(1)).await?;
                Ok((answer.status != 429).then_some(answer))
            })
            .await
        };
        running.spawn(ask);
    };
    // One runs, two wait.
    for _ in 0..3 {
        ask(&mut running);
    }
    eventually("three are in flight", || async {
        let usage = admin.get("/tenants/small/usage").await?;
        Ok((usage["in_flight"] == 3).then_some(()))
    })
    .await?;
    let refused = caller.infer("slow", &rows(1)).await?;
    assert_eq!(
        (refused.status.as_u16(), refused.header("retry-after")),
        (429, Some("1"))
    );
    assert!(refused.error()?.contains("'queued-rows' of 2"), "{}", refused.error()?);
    while let Some(answer) = running.join_next().await {
        answer??.ok()?;
    }
    Ok(())
}
