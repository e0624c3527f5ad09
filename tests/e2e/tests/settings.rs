//! What is traced and logged, as callers see it at both doors; and that it is changed only where the operator lets them, and
//! then really.

use anyhow::{Context, ensure};
use mesh_harness::{Answer, Caller, Collector, GrpcCaller, Mesh, MeshOptions, ServeOptions, Text, identity};
use mesh_protocol::grpc::messages::{
    LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse, log_settings_request,
    log_settings_request::setting_value::ParameterChoice, log_settings_response, trace_setting_request,
};
use serde_json::{Value, json};
use tonic::{Code, Status};

/// A mesh that pushes to a collector, with a tenant's two models.
async fn traced(collector: &Collector, ratio: &str, may_change: bool) -> anyhow::Result<(Mesh, Caller)> {
    let serve = ServeOptions {
        otlp_endpoint: Some(Text(collector.endpoint().to_owned())),
        otlp_sample_ratio: Some(Text(ratio.to_owned())),
        allow_client_settings: may_change,
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await?;
    let caller = mesh.tenant("acme").await?;
    for model in ["m", "other"] {
        mesh.admin()?.publish("acme", model, &identity()).await?;
        caller.until_ready(model).await?;
    }
    Ok((mesh, caller))
}

fn path(model: Option<&str>) -> String {
    model.map_or_else(
        || "/v2/trace/setting".to_owned(),
        |model| format!("/v2/models/{model}/trace/setting"),
    )
}

async fn read(caller: &Caller, model: Option<&str>) -> anyhow::Result<Value> {
    Answer::of(caller.get(&path(model))).await?.ok()?.json()
}

async fn set(caller: &Caller, model: Option<&str>, change: &Value) -> anyhow::Result<Answer> {
    Answer::of(caller.post(&path(model)).json(change)).await
}

async fn over_grpc(
    grpc: &GrpcCaller,
    model: &str,
    settings: &[(&str, &[&str])],
) -> Result<TraceSettingResponse, Status> {
    let setting = |(name, values): &(&str, &[&str])| {
        let value = values.iter().map(|value| (*value).to_owned()).collect();
        ((*name).to_owned(), trace_setting_request::SettingValue { value })
    };
    let asked = TraceSettingRequest {
        settings: settings.iter().map(setting).collect(),
        model_name: model.into(),
    };
    Ok(grpc.ask("TraceSetting", asked).await?.into_inner())
}

/// Of so many requests, how many are traced, as their answers say; a caller that has decided says what.
async fn traced_of(caller: &Caller, model: &str, requests: usize, decided: Option<bool>) -> anyhow::Result<usize> {
    let one = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    let mut traced = 0;
    for _ in 0..requests {
        let mut request = caller.post(&format!("/v2/models/{model}/infer")).json(&one);
        if let Some(decided) = decided {
            let flag = u8::from(decided);
            let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flag:02x}");
            request = request.header("traceparent", parent);
        }
        let answer = Answer::of(request).await?.ok()?;
        let trace = answer.header("traceparent").context("no traceparent")?;
        traced += usize::from(trace.ends_with("-01"));
    }
    Ok(traced)
}

#[tokio::test]
async fn callers_see_what_is_traced_and_may_not_change_it_unless_the_operator_lets_them() -> anyhow::Result<()> {
    let collector = Collector::start().await?;
    let (mesh, caller) = traced(&collector, "0.01", false).await?;
    let grpc = mesh.grpc(caller.key()).await?;
    let wanted = json!({
        "trace_file": "", "trace_level": ["TIMESTAMPS"], "trace_rate": "100", "trace_count": "-1", "log_frequency": "0",
        "trace_mode": "opentelemetry",
    });
    assert_eq!(read(&caller, None).await?, wanted);
    assert_eq!(read(&caller, Some("m")).await?, wanted);
    let told = over_grpc(&grpc, "m", &[]).await?.settings;
    assert_eq!(told.len(), 6);
    for (name, setting) in &told {
        let json = if wanted[name].is_array() {
            wanted[name][0].clone()
        } else {
            wanted[name].clone()
        };
        assert_eq!(json!(setting.value[0]), json, "{name}");
    }
    let refused = set(&caller, None, &json!({"trace_rate": "1"})).await?;
    let text = refused.error()?;
    ensure!(
        refused.status.as_u16() == 403 && text.contains("--allow-client-settings"),
        "{text}"
    );
    let refused = over_grpc(&grpc, "", &[("trace_rate", &["1"])])
        .await
        .err()
        .context("changed")?;
    assert_eq!((refused.code(), refused.message()), (Code::PermissionDenied, &*text));
    assert_eq!(
        set(&caller, Some("m"), &json!({"trace_count": null}))
            .await?
            .status
            .as_u16(),
        403
    );
    // What asks for nothing asks.
    assert_eq!(set(&caller, None, &json!({})).await?.ok()?.json()?, wanted);
    assert_eq!(read(&caller, None).await?, wanted);

    // A name of another tenant's is an unknown one, to whoever asks or changes.
    let globex = mesh.tenant("globex").await?;
    let (foreign, unknown) = (
        Answer::of(globex.get(&path(Some("m")))).await?,
        Answer::of(globex.get(&path(Some("n")))).await?,
    );
    assert_eq!(foreign.status.as_u16(), 404);
    assert_eq!(foreign.error()?.replace("'m'", "'n'"), unknown.error()?);
    assert_eq!(Answer::of(mesh.stranger().get(&path(None))).await?.status.as_u16(), 401);
    Ok(())
}

#[tokio::test]
async fn rate_level_and_count_change_what_is_traced_of_the_server_and_of_a_model() -> anyhow::Result<()> {
    let mut collector = Collector::start().await?;
    let (mesh, caller) = traced(&collector, "0", true).await?;
    let grpc = mesh.grpc(caller.key()).await?;
    assert_eq!(read(&caller, None).await?["trace_rate"], "0");
    assert_eq!(traced_of(&caller, "m", 5, None).await?, 0);
    assert_eq!(
        traced_of(&caller, "m", 1, Some(true)).await?,
        1,
        "its caller has decided"
    );

    let told = set(&caller, None, &json!({"trace_rate": "1", "trace_count": "3"}))
        .await?
        .ok()?
        .json()?;
    assert_eq!((&told["trace_rate"], &told["trace_count"]), (&json!("1"), &json!("3")));
    assert_eq!(traced_of(&caller, "m", 5, None).await?, 3);
    assert_eq!(read(&caller, None).await?["trace_count"], "0");

    // A model's own count and rate, and for the rest the server's.
    let told = over_grpc(&grpc, "other", &[("trace_count", &["2"])]).await?.settings;
    assert_eq!(
        (&*told["trace_count"].value[0], &*told["trace_rate"].value[0]),
        ("2", "1")
    );
    assert_eq!(traced_of(&caller, "other", 5, None).await?, 2);
    assert_eq!(traced_of(&caller, "m", 5, None).await?, 0);
    over_grpc(&grpc, "other", &[("trace_count", &["-1"]), ("trace_level", &["OFF"])]).await?;
    assert_eq!(
        traced_of(&caller, "other", 2, Some(true)).await?,
        0,
        "off is off for everybody"
    );
    assert_eq!(read(&caller, Some("other")).await?["trace_level"], json!(["OFF"]));
    assert_eq!(read(&caller, None).await?["trace_level"], json!(["TIMESTAMPS"]));

    // Cleared, the model is as the server, and the server as at the start.
    let clear = json!({"trace_level": null, "trace_rate": null, "trace_count": null});
    set(&caller, Some("other"), &clear).await?.ok()?;
    assert_eq!(read(&caller, Some("other")).await?, read(&caller, None).await?);
    let start = set(&caller, None, &clear).await?.ok()?.json()?;
    assert_eq!(
        (&start["trace_rate"], &start["trace_count"]),
        (&json!("0"), &json!("-1"))
    );
    set(&caller, None, &json!({"trace_level": ["OFF"]})).await?.ok()?;
    assert_eq!(traced_of(&caller, "m", 2, Some(true)).await?, 0);

    for (change, status) in [
        (json!({"trace_file": "/tmp/x"}), 501),
        (json!({"trace_level": ["TENSORS"]}), 501),
        (json!({"trace_rate": "many"}), 400),
        (json!({"trace": "x"}), 400),
    ] {
        let refused = set(&caller, None, &change).await?;
        assert_eq!(refused.status.as_u16(), status, "{}", refused.error()?);
    }
    // All that was said to be traced was: one, three and two.
    mesh.stop().await?;
    let roots = |spans: &[mesh_harness::ExportedSpan]| spans.iter().filter(|span| span.span.name == "infer").count();
    let spans = collector.spans_until(|spans| roots(spans) >= 6).await?;
    assert_eq!(roots(&spans), 6);
    Ok(())
}

#[tokio::test]
async fn where_traces_go_nowhere_they_are_off_and_cannot_be_switched_on() -> anyhow::Result<()> {
    let mesh = may_change().await?;
    let caller = mesh.tenant("acme").await?;
    let told = read(&caller, None).await?;
    assert_eq!(
        (&told["trace_level"], &told["trace_rate"]),
        (&json!(["OFF"]), &json!("0"))
    );
    let refused = set(&caller, None, &json!({"trace_level": ["TIMESTAMPS"]})).await?;
    ensure!(refused.status.as_u16() == 501 && refused.error()?.contains("--otlp-endpoint"));
    Ok(())
}

async fn may_change() -> anyhow::Result<Mesh> {
    let serve = ServeOptions {
        allow_client_settings: true,
        ..ServeOptions::default()
    };
    Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await
}

async fn log_over_grpc(grpc: &GrpcCaller, verbose: Option<u32>) -> Result<LogSettingsResponse, Status> {
    let setting = |level| {
        let parameter_choice = Some(ParameterChoice::Uint32Param(level));
        let value = log_settings_request::SettingValue { parameter_choice };
        ("log_verbose_level".to_owned(), value)
    };
    let asked = LogSettingsRequest {
        settings: verbose.into_iter().map(setting).collect(),
    };
    Ok(grpc.ask("LogSettings", asked).await?.into_inner())
}

/// A mesh within another program, such as this test, does not write the log: it says so, and changes nothing. That a program
/// of its own does is tested where it is made.
#[tokio::test]
async fn what_is_logged_is_told_alike_at_both_doors_and_is_not_for_every_caller_to_change() -> anyhow::Result<()> {
    let nothing = json!({
        "log_file": "", "log_info": false, "log_warning": false, "log_error": false, "log_verbose_level": 0,
        "log_format": "ISO8601",
    });
    for (mesh, status, code) in [
        (Mesh::start().await?, 403, Code::PermissionDenied),
        (may_change().await?, 501, Code::Unimplemented),
    ] {
        let caller = mesh.tenant("acme").await?;
        let grpc = mesh.grpc(caller.key()).await?;
        assert_eq!(Answer::of(caller.get("/v2/logging")).await?.ok()?.json()?, nothing);
        let told = log_over_grpc(&grpc, None).await?.settings;
        assert_eq!(told.len(), 6);
        assert_eq!(
            told["log_info"].parameter_choice,
            Some(log_settings_response::setting_value::ParameterChoice::BoolParam(false))
        );
        let refused = Answer::of(caller.post("/v2/logging").json(&json!({"log_verbose_level": 1}))).await?;
        assert_eq!(refused.status.as_u16(), status);
        let over_grpc = log_over_grpc(&grpc, Some(1)).await.err().context("changed")?;
        assert_eq!((over_grpc.code(), over_grpc.message()), (code, &*refused.error()?));
        for (change, status) in [
            (json!({"log_file": "/x"}), 501),
            (json!({"log_format": "default"}), status),
            (json!({"log_format": "RFC3339"}), 400),
            (json!({"log_info": 1}), 400),
            (json!({"log": true}), 400),
        ] {
            let refused = Answer::of(caller.post("/v2/logging").json(&change)).await?;
            assert_eq!(refused.status.as_u16(), status, "{change}");
        }
        let stranger = Answer::of(mesh.stranger().get("/v2/logging")).await?;
        assert_eq!(stranger.status.as_u16(), 401);
    }
    Ok(())
}
