//! Names: what is not there and what belongs to somebody else answer alike.

use mesh_harness::{Answer, Mesh, identity};
use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
use serde_json::json;

/// An answer without what differs from request to request.
fn shape(answer: &Answer, name: &str) -> (u16, Vec<(String, String)>, String) {
    let varies = ["date", "x-request-id", "traceparent"];
    let mut headers: Vec<(String, String)> = answer
        .headers
        .iter()
        .filter(|(name, _)| !varies.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    let body = String::from_utf8_lossy(&answer.body).replace(name, "NAME");
    (answer.status.as_u16(), headers, body)
}

#[tokio::test]
async fn a_foreign_name_answers_like_one_that_is_not_there_to_the_byte() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    admin.publish("acme", "model-a", &identity()).await?;
    admin
        .endpoint("acme", "front-a", &[("main", "model-a", "", 100.0)])
        .await?;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    acme.until_answers("front-a", &body).await?;
    acme.until_answers("model-a", &body).await?;
    for path in [
        "/infer",
        "/versions/1/infer",
        "/versions/9/infer",
        "/versions/stable/infer",
    ] {
        let ask = |name: &'static str| {
            let request = globex.post(&format!("/v2/models/{name}{path}")).json(&body);
            async move { anyhow::Ok(shape(&Answer::of(request).await?, name)) }
        };
        let unknown = ask("absent-").await?;
        assert_eq!(unknown.0, 404, "{path}");
        assert_eq!(ask("model-a").await?, unknown, "{path}");
        assert_eq!(ask("front-a").await?, unknown, "{path}");
    }
    for path in ["", "/ready", "/versions/1", "/versions/1/ready"] {
        let ask = |name: &'static str| {
            let request = globex.get(&format!("/v2/models/{name}{path}"));
            async move { anyhow::Ok(shape(&Answer::of(request).await?, name)) }
        };
        let unknown = ask("absent-").await?;
        assert_eq!(ask("model-a").await?, unknown, "{path}");
        assert_eq!(ask("front-a").await?, unknown, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn statistics_and_what_is_traced_are_told_of_the_callers_own_alone() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    // Each has a model of the same name, and acme one more.
    for (tenant, caller, model) in [
        ("acme", &acme, "m"),
        ("globex", &globex, "m"),
        ("acme", &acme, "secret"),
    ] {
        admin.publish(tenant, model, &identity()).await?;
        caller.until_ready(model).await?;
    }
    for (caller, model, requests) in [(&acme, "m", 3), (&globex, "m", 1), (&acme, "secret", 2)] {
        for _ in 0..requests {
            caller.ask(model, &[1.0]).await?.ok()?;
        }
    }
    for (caller, expected) in [(&acme, json!([["m", 3], ["secret", 2]])), (&globex, json!([["m", 1]]))] {
        let all = Answer::of(caller.get("/v2/models/stats")).await?.ok()?.json()?;
        let counts: Vec<_> = all["model_stats"].as_array().into_iter().flatten().collect();
        let counts: Vec<_> = counts
            .iter()
            .map(|of| json!([of["name"], of["inference_count"]]))
            .collect();
        assert_eq!(json!(counts), expected);
    }
    // Whether there is such a name is not told either.
    for path in ["stats", "trace/setting", "config", "versions/1/stats"] {
        let ask = |model: &str| Answer::of(globex.get(&format!("/v2/models/{model}/{path}")));
        let (foreign, absent) = (ask("secret").await?, ask("absent").await?);
        assert_eq!(foreign.status.as_u16(), 404, "{path}");
        assert_eq!(shape(&foreign, "secret"), shape(&absent, "absent"), "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn the_list_of_models_is_the_callers_own() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    for name in ["b", "a", "c"] {
        admin.publish("acme", name, &identity()).await?;
        acme.until_ready(name).await?;
    }
    admin.endpoint("acme", "front", &[("main", "a", "", 100.0)]).await?;
    admin.model("acme", "c", json!({"grants": ["globex"]})).await?;
    acme.until_ready("front").await?;
    globex.until_ready("c").await?;
    let list = |caller: &mesh_harness::Caller, query: &str| {
        let request = caller.get(&format!("/v2/models{query}"));
        async move { Answer::of(request).await?.ok()?.json() }
    };
    assert_eq!(list(&acme, "").await?, json!({"models": ["a", "b", "c", "front"]}));
    let first = list(&acme, "?limit=3&else=1").await?;
    assert_eq!(first, json!({"models": ["a", "b", "c"], "next": "c"}));
    assert_eq!(list(&acme, "?limit=3&after=c").await?, json!({"models": ["front"]}));
    assert_eq!(list(&globex, "").await?, json!({"models": ["c"]}));
    let refused = Answer::of(acme.get("/v2/models?limit=0")).await?;
    assert_eq!(refused.status.as_u16(), 400);
    assert_eq!(
        Answer::of(mesh.stranger().get("/v2/models")).await?.status.as_u16(),
        401
    );
    Ok(())
}

#[tokio::test]
async fn a_granted_model_answers_and_stops_when_the_grant_is_taken_back() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let (_acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    admin.publish("acme", "m", &identity()).await?;
    admin.model("acme", "m", json!({"grants": ["globex"]})).await?;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    globex.until_answers("m", &body).await?;
    admin.model("acme", "m", json!({})).await?;
    mesh_harness::eventually("the grant is gone", || async {
        let answer = globex.infer("m", &body).await?;
        Ok((answer.status.as_u16() == 404).then_some(()))
    })
    .await
}

#[tokio::test]
async fn without_a_key_with_a_wrong_one_and_with_a_revoked_one_nobody_gets_in() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let acme = mesh.tenant("acme").await?;
    admin.publish("acme", "m", &identity()).await?;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    acme.until_answers("m", &body).await?;
    let none = mesh.stranger().infer("m", &body).await?;
    assert_eq!(none.status.as_u16(), 401);
    assert!(none.header("www-authenticate").is_some());
    let mut wrong = acme.key().to_owned();
    let last = if wrong.ends_with('0') { "1" } else { "0" };
    wrong.replace_range(wrong.len() - 1.., last);
    for bad in [wrong.as_str(), "mesh_live_abc_def", "eyJhbGciOiJub25lIn0.e30.", "x"] {
        let answer = mesh.caller(bad).infer("m", &body).await?;
        assert_eq!(answer.status.as_u16(), 401, "{bad}");
    }
    let id = acme.key().split('_').nth(2).unwrap_or_default().to_owned();
    admin.revoke("acme", &id).await?;
    mesh_harness::eventually("the key is revoked", || async {
        let answer = acme.infer("m", &body).await?;
        Ok((answer.status.as_u16() == 401).then_some(()))
    })
    .await
}

/// Headers that say, in words of other systems or of this one, who somebody is, where a request goes, or how it was decided.
const CLAIMS: [(&str, &str); 14] = [
    ("x-tenant", "acme"),
    ("x-tenant-id", "acme"),
    ("x-mesh-tenant", "acme"),
    ("x-mesh-principal", "oidc:anna"),
    ("x-mesh-role", "admin"),
    ("x-mesh-scopes", "infer admin"),
    ("x-mesh-groups", "ops"),
    ("x-mesh-arm", "other"),
    ("x-mesh-version", "9"),
    ("x-mesh-model", "secret"),
    ("x-mesh-limit", "\"requests\";r=1000000"),
    ("x-mesh-priority", "1"),
    ("x-request-id", "000000000000000000000001"),
    ("forwarded", "for=127.0.0.1;host=acme"),
];

#[tokio::test]
async fn headers_that_say_who_somebody_is_change_nothing() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    for (tenant, caller, model) in [("acme", &acme, "secret"), ("globex", &globex, "m")] {
        admin.publish(tenant, model, &identity()).await?;
        caller.until_ready(model).await?;
    }
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    let said = |caller: &mesh_harness::Caller, model: &str, claims: &[(&'static str, &'static str)]| {
        let mut request = caller.post(&format!("/v2/models/{model}/infer")).json(&body);
        for (name, value) in claims {
            request = request.header(*name, *value);
        }
        async move { Answer::of(request).await }
    };
    // One at a time, and all together.
    let each = CLAIMS.iter().map(std::slice::from_ref);
    for claims in each.chain([&CLAIMS[..]]) {
        for (caller, model, expected) in [
            (&globex, "secret", 404),
            (&mesh.stranger(), "secret", 401),
            (&globex.showing("mesh_test_nobody"), "m", 401),
            (&globex, "m", 200),
        ] {
            let (plain, claimed) = (said(caller, model, &[]).await?, said(caller, model, claims).await?);
            assert_eq!(plain.status.as_u16(), expected, "{model}: {plain:?}");
            assert_eq!(shape(&claimed, model), shape(&plain, model), "{claims:?}");
            // Its number is the mesh's own.
            assert_ne!(claimed.header("x-request-id"), Some("000000000000000000000001"));
        }
    }
    // The same over gRPC.
    let message = |model: &str| ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![1.0_f32.to_le_bytes().to_vec().into()],
        ..ModelInferRequest::default()
    };
    let plain = mesh.grpc(globex.key()).await?;
    for (name, value) in CLAIMS {
        let claims = plain.with(name, value);
        let refused = claims.infer(message("secret")).await;
        assert_eq!(
            refused.err().map(|status| status.code()),
            Some(tonic::Code::NotFound),
            "{name}"
        );
        claims.infer(message("m")).await?;
    }
    // All that was answered was globex's.
    let metrics = mesh.metrics().await?;
    let counted = |tenant: &str| mesh_e2e::counted(&metrics, "mesh_requests_total", &[&format!("tenant=\"{tenant}\"")]);
    assert!(counted("globex") > 0.0);
    assert!(counted("acme") <= 1.0, "{metrics}");
    Ok(())
}
