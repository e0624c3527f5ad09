//! Policies: what they keep a tenant's callers from, at every door, and how soon; what is refused; what the command line says.

use anyhow::bail;
use clap::Parser as _;
use mesh_cli::{Cli, Terminal, run_with};
use mesh_e2e::Load;
use mesh_harness::{
    Admin, Answer, Caller, GrpcCaller, Mesh, MeshOptions, ServeOptions, Text, eventually, identity, repeat_int32,
};
use mesh_protocol::grpc::messages::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    RepositoryIndexRequest, RepositoryIndexResponse, TraceSettingRequest, TraceSettingResponse,
    model_infer_request::InferInputTensor,
};
use mesh_protocol::serving::{
    MODELS, PREDICTIONS,
    messages::{
        DataType as Dtype, Example, Feature, Features, FloatList, TensorProto, TensorShapeProto,
        feature::Kind,
        serving::{model_spec::VersionChoice, *},
        tensor_shape_proto::Dim,
    },
};
use reqwest::Method;
use serde_json::{Value, json};
use tonic::{Code, Status};

fn policy(name: &str, cedar: &str) -> Value {
    json!({"apiVersion": "mesh/v1", "kind": "Policy", "metadata": {"name": name}, "spec": {"cedar": cedar}})
}

fn one() -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]})
}

/// What differs from request to request.
const VARIES: [&str; 3] = ["date", "x-request-id", "traceparent"];

/// An answer without what differs from request to request.
fn shape(answer: &Answer, name: &str) -> (u16, Vec<(String, String)>, String) {
    let headers = answer
        .headers
        .iter()
        .filter(|(name, _)| !VARIES.contains(&name.as_str()));
    let mut headers: Vec<(String, String)> = headers
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    headers.sort();
    let body = String::from_utf8_lossy(&answer.body).replace(name, "NAME");
    (answer.status.as_u16(), headers, body)
}

async fn key_of(admin: &Admin, tenant: &str, name: &str, groups: &[&str]) -> anyhow::Result<String> {
    let request = admin.request(Method::POST, &format!("/tenants/{tenant}/keys"));
    let made: Value = request
        .json(&json!({"name": name, "groups": groups}))
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    Ok(made["key"].as_str().unwrap_or_default().to_owned())
}

fn tensor() -> InferInputTensor {
    InferInputTensor {
        name: "x".into(),
        datatype: "FP32".into(),
        shape: vec![1, 2],
        contents: None,
        ..InferInputTensor::default()
    }
}

#[tokio::test]
async fn a_denied_name_answers_like_one_that_is_not_there_to_the_byte_at_every_door() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let acme = mesh.tenant("acme").await?;
    for model in ["model-a", "model-b"] {
        admin.publish("acme", model, &identity()).await?;
    }
    admin
        .endpoint("acme", "front-a", &[("main", "model-a", "", 100.0)])
        .await?;
    let intern = mesh.caller(&key_of(admin, "acme", "intern", &["interns"]).await?);
    admin.publish("acme", "model-r", &repeat_int32()).await?;
    let body = one();
    intern.until_answers("front-a", &body).await?;
    intern.until_ready("model-r").await?;
    let text = "forbid (principal in Mesh::Group::\"acme/interns\", action == Mesh::Action::\"model:infer\", resource)\n\
                unless { resource == Mesh::Model::\"acme/model-b\" };";
    admin.apply(&[policy("interns", text)]).await?;
    eventually("the policy is in force", || async {
        Ok((intern.infer("front-a", &body).await?.status.as_u16() == 404).then_some(()))
    })
    .await?;
    denied_over_http(&intern).await?;
    assert_eq!(intern.infer("model-b", &body).await?.status.as_u16(), 200);
    assert_eq!(
        acme.infer("front-a", &body).await?.status.as_u16(),
        200,
        "who is in no such group is let be"
    );
    lists_hold_only(&intern, "model-b").await?;
    denied_over_grpc(&mesh.grpc(intern.key()).await?).await
}

/// What is asked for, over HTTP, about a name of seven signs that is not there and about three that are.
async fn denied_over_http(intern: &Caller) -> anyhow::Result<()> {
    let text = json!({"text_input": "x"});
    let rows = json!({"instances": [[1.0, 2.0]]});
    for (path, body) in [
        ("/v2/models/NAME/infer", Some(one())),
        ("/v2/models/NAME/versions/1/infer", Some(one())),
        ("/v2/models/NAME/versions/9/infer", Some(one())),
        ("/v2/models/NAME/generate", Some(text.clone())),
        ("/v2/models/NAME/generate_stream", Some(text.clone())),
        ("/v2/models/NAME/versions/1/generate_stream", Some(text)),
        ("/v2/models/NAME", None),
        ("/v2/models/NAME/ready", None),
        ("/v2/models/NAME/versions/1", None),
        ("/v2/models/NAME/config", None),
        ("/v2/models/NAME/stats", None),
        ("/v2/models/NAME/trace/setting", None),
        ("/v2/models/NAME/openapi.json", None),
        ("/v1/models/NAME:predict", Some(rows)),
        ("/v1/models/NAME", None),
    ] {
        let ask = |name: &'static str| {
            let at = path.replace("NAME", name);
            let request = match &body {
                Some(body) => intern.post(&at).json(body),
                None => intern.get(&at),
            };
            async move { anyhow::Ok(shape(&Answer::of(request).await?, name)) }
        };
        let unknown = ask("absent-").await?;
        assert_eq!(unknown.0, 404, "{path}: {unknown:?}");
        for name in ["model-a", "front-a", "model-r"] {
            assert_eq!(ask(name).await?, unknown, "{path}");
        }
    }
    Ok(())
}

async fn lists_hold_only(intern: &Caller, name: &str) -> anyhow::Result<()> {
    let names = |list: &Value, field: &str| -> Vec<String> {
        let entries = list.as_array().into_iter().flatten();
        entries
            .filter_map(|entry| entry[field].as_str().map(str::to_owned))
            .collect()
    };
    let index = Answer::of(intern.post("/v2/repository/index")).await?.ok()?.json()?;
    assert_eq!(names(&index, "name"), [name]);
    let listed = Answer::of(intern.get("/v2/models")).await?.ok()?.json()?;
    assert_eq!(listed, json!({"models": [name]}));
    let counted = Answer::of(intern.get("/v2/models/stats")).await?.ok()?.json()?;
    assert_eq!(names(&counted["model_stats"], "name"), [name]);
    let document = Answer::of(intern.get("/v2/openapi.json")).await?.ok()?;
    let document = String::from_utf8_lossy(&document.body).into_owned();
    assert!(
        !document.contains("model-a") && !document.contains("front-a"),
        "{document}"
    );
    Ok(())
}

fn infer(name: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: name.to_owned(),
        inputs: vec![tensor()],
        raw_input_contents: vec![vec![0; 8].into()],
        ..ModelInferRequest::default()
    }
}

/// A call, and how it was refused: status, message and metadata.
type Told = (&'static str, Code, String, Vec<(String, String)>);

/// How a call that takes a name is refused, without the name and what differs from call to call.
fn refused<R>(call: &'static str, name: &str, answer: Result<R, Status>) -> anyhow::Result<Told> {
    let Err(status) = answer else {
        bail!("{call} of {name} was answered")
    };
    let metadata = status.metadata().clone().into_headers();
    let mut told: Vec<(String, String)> = metadata
        .iter()
        .filter(|(name, _)| !VARIES.contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    told.sort();
    Ok((call, status.code(), status.message().replace(name, "NAME"), told))
}

/// The same of a call of version 2.
async fn refusal<Q, R>(grpc: &GrpcCaller, call: &'static str, name: &str, message: Q) -> anyhow::Result<Told>
where
    Q: prost::Message + Send + Sync + 'static,
    R: prost::Message + Default + Send + Sync + 'static,
{
    refused(call, name, grpc.ask::<Q, R>(call, message).await)
}

/// Every call of TensorFlow Serving's that takes a name.
async fn serving_refusals(grpc: &GrpcCaller, name: &str, version: Option<i64>) -> anyhow::Result<Vec<Told>> {
    let model_spec = Some(ModelSpec {
        name: name.to_owned(),
        version_choice: version.map(VersionChoice::Version),
        ..ModelSpec::default()
    });
    let predict = PredictRequest {
        model_spec: model_spec.clone(),
        inputs: [("x".to_owned(), numbers())].into(),
        ..PredictRequest::default()
    };
    let classify = ClassificationRequest {
        model_spec: model_spec.clone(),
        input: example(),
    };
    let regress = RegressionRequest {
        model_spec: model_spec.clone(),
        input: example(),
    };
    let metadata = GetModelMetadataRequest {
        model_spec: model_spec.clone(),
        metadata_field: vec!["signature_def".to_owned()],
    };
    let status = GetModelStatusRequest { model_spec };
    let predict = grpc.ask_of::<_, PredictResponse>(PREDICTIONS, "Predict", predict);
    let classify = grpc.ask_of::<_, ClassificationResponse>(PREDICTIONS, "Classify", classify);
    let regress = grpc.ask_of::<_, RegressionResponse>(PREDICTIONS, "Regress", regress);
    let metadata = grpc.ask_of::<_, GetModelMetadataResponse>(PREDICTIONS, "GetModelMetadata", metadata);
    let status = grpc.ask_of::<_, GetModelStatusResponse>(MODELS, "GetModelStatus", status);
    Ok(vec![
        refused("Predict", name, predict.await)?,
        refused("Classify", name, classify.await)?,
        refused("Regress", name, regress.await)?,
        refused("GetModelMetadata", name, metadata.await)?,
        refused("GetModelStatus", name, status.await)?,
    ])
}

/// Two numbers, as TensorFlow Serving's clients send them.
fn numbers() -> TensorProto {
    let dim = |size| Dim { size, ..Dim::default() };
    TensorProto {
        dtype: Dtype::DtFloat.into(),
        tensor_shape: Some(TensorShapeProto {
            dim: vec![dim(1), dim(2)],
            unknown_rank: false,
        }),
        float_val: vec![1.0, 2.0],
        ..TensorProto::default()
    }
}

fn example() -> Option<Input> {
    let numbers = FloatList { value: vec![1.0, 2.0] };
    let feature = Feature {
        kind: Some(Kind::FloatList(numbers)),
    };
    let features = Features {
        feature: [("x".to_owned(), feature)].into(),
    };
    let examples = vec![Example {
        features: Some(features),
    }];
    Some(Input {
        kind: Some(input::Kind::ExampleList(ExampleList { examples })),
    })
}

/// Every call of the service that takes a name.
async fn refusals(grpc: &GrpcCaller, name: &str) -> anyhow::Result<Vec<Told>> {
    let (of, version) = (name.to_owned(), String::new());
    let metadata = ModelMetadataRequest {
        name: of.clone(),
        version: version.clone(),
    };
    let config = ModelConfigRequest {
        name: of.clone(),
        version: version.clone(),
    };
    let statistics = ModelStatisticsRequest {
        name: of.clone(),
        version,
    };
    let ready = ModelReadyRequest {
        name: of.clone(),
        version: String::new(),
    };
    let setting = TraceSettingRequest {
        model_name: of,
        ..TraceSettingRequest::default()
    };
    let mut told = vec![
        refusal::<_, ModelInferResponse>(grpc, "ModelInfer", name, infer(name)).await?,
        refusal::<_, ModelReadyResponse>(grpc, "ModelReady", name, ready).await?,
        refusal::<_, ModelMetadataResponse>(grpc, "ModelMetadata", name, metadata).await?,
        refusal::<_, ModelConfigResponse>(grpc, "ModelConfig", name, config).await?,
        refusal::<_, ModelStatisticsResponse>(grpc, "ModelStatistics", name, statistics).await?,
        refusal::<_, TraceSettingResponse>(grpc, "TraceSetting", name, setting).await?,
    ];
    let streamed = grpc.stream(vec![infer(name)]).await?.message().await?;
    let streamed = streamed.unwrap_or_default();
    assert!(streamed.infer_response.is_none_or(|answer| answer.outputs.is_empty()));
    told.push((
        "ModelStreamInfer",
        Code::Ok,
        streamed.error_message.replace(name, "NAME"),
        Vec::new(),
    ));
    Ok(told)
}

const DENIED: [&str; 3] = ["model-a", "front-a", "model-r"];

/// What is denied answers as what is absent, to each of Triton's calls.
async fn denied_in_tritons_words(grpc: &GrpcCaller) -> anyhow::Result<()> {
    let unknown = refusals(grpc, "absent-").await?;
    for (call, code, message, _) in &unknown {
        assert!(*code == Code::NotFound || *call == "ModelStreamInfer", "{call}: {code}");
        assert!(
            message.contains("Request for unknown model: 'NAME' is not found"),
            "{call}: {message}"
        );
    }
    for name in DENIED {
        assert_eq!(refusals(grpc, name).await?, unknown, "{name}");
    }
    Ok(())
}

/// The same to each of TensorFlow Serving's.
async fn denied_in_tensorflow_servings_words(grpc: &GrpcCaller) -> anyhow::Result<()> {
    for (version, words) in [
        (None, "Latest(NAME)"),
        (Some(1), "Specific(NAME, 1)"),
        (Some(9), "Specific(NAME, 9)"),
    ] {
        let unknown = serving_refusals(grpc, "absent-", version).await?;
        for (call, code, message, _) in &unknown {
            assert_eq!(*code, Code::NotFound, "{call}");
            assert_eq!(*message, format!("Servable not found for request: {words}"), "{call}");
        }
        for name in DENIED {
            assert_eq!(serving_refusals(grpc, name, version).await?, unknown, "{name}");
        }
    }
    Ok(())
}

async fn denied_over_grpc(grpc: &GrpcCaller) -> anyhow::Result<()> {
    denied_in_tritons_words(grpc).await?;
    denied_in_tensorflow_servings_words(grpc).await?;
    grpc.infer(infer("model-b")).await?;
    let answered = grpc.stream(vec![infer("model-b")]).await?.message().await?;
    assert_eq!(answered.unwrap_or_default().error_message, "");
    let index: RepositoryIndexResponse = grpc
        .ask("RepositoryIndex", RepositoryIndexRequest::default())
        .await?
        .into_inner();
    let names: Vec<&str> = index.models.iter().map(|model| model.name.as_str()).collect();
    assert_eq!(names, ["model-b"]);
    Ok(())
}

const IN_REPOSITORY: &str = r#"
backend: "add_sub"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] }, { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] }, { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] } ]
"#;

#[tokio::test]
async fn a_model_of_the_repository_is_loaded_by_whom_the_policies_let() -> anyhow::Result<()> {
    let root = tempfile::tempdir()?;
    for name in ["loaded", "hidden"] {
        std::fs::create_dir_all(root.path().join(name).join("1"))?;
        std::fs::write(root.path().join(name).join("config.pbtxt"), IN_REPOSITORY)?;
    }
    let mesh = Mesh::start_with(MeshOptions {
        serve: ServeOptions {
            compat: Some(Text("triton".to_owned())),
            model_control_mode: Some(Text("explicit".to_owned())),
            model_repository: Some(root.path().to_path_buf()),
            ..ServeOptions::default()
        },
        ..MeshOptions::default()
    })
    .await?;
    let admin = mesh.admin()?;
    let intern = mesh.caller(&key_of(admin, "default", "intern", &["interns"]).await?);
    let local = mesh.stranger();
    let change = async |caller: &Caller, name: &str, what: &str| {
        let request = caller.post(&format!("/v2/repository/models/{name}/{what}"));
        Answer::of(request.json(&json!({}))).await
    };
    change(&intern, "loaded", "load").await?.ok()?;
    let text = "forbid (principal in Mesh::Group::\"default/interns\", action == Mesh::Action::\"model:load\", resource);\n\
                forbid (principal in Mesh::Group::\"default/interns\", action, resource == Mesh::Model::\"default/hidden\");\n\
                forbid (principal in Mesh::Group::\"default/interns\", action, resource == Mesh::Model::\"default/absent\");";
    admin.apply(&[policy("interns", text)]).await?;
    eventually("the policy is in force", || async {
        Ok((change(&intern, "loaded", "load").await?.status.as_u16() == 403).then_some(()))
    })
    .await?;
    let refused = change(&intern, "loaded", "unload").await?;
    assert_eq!(refused.status.as_u16(), 403);
    assert!(refused.error()?.contains("model:load"), "{}", refused.error()?);
    assert!(intern.is_ready("loaded").await?, "it may still be called");
    for what in ["load", "unload"] {
        let hidden = shape(&change(&intern, "hidden", what).await?, "hidden");
        assert_eq!(hidden.0, 404, "{hidden:?}");
        assert_eq!(
            shape(&change(&intern, "absent", what).await?, "absent"),
            hidden,
            "there or not"
        );
    }
    let index = Answer::of(intern.post("/v2/repository/index")).await?.ok()?.json()?;
    assert!(!index.to_string().contains("hidden"), "{index}");
    change(&local, "hidden", "load").await?.ok()?;
    change(&local, "loaded", "unload").await?.ok()?;
    mesh.stop().await.map(drop)
}

#[tokio::test]
async fn who_is_denied_gets_no_remembered_answer() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let acme = mesh.tenant("acme").await?;
    admin.publish("acme", "m", &identity()).await?;
    let arms = [("only", "m", "", 100.0)];
    let spec = json!({"cache": {"ttl_seconds": 600}});
    admin.endpoint_with("acme", "e", &arms, spec).await?;
    acme.until_ready("e").await?;
    let intern = mesh.caller(&key_of(admin, "acme", "intern", &["interns"]).await?);
    intern.until_ready("e").await?;
    let hit = async |caller: &Caller| {
        let answer = caller.infer("e", &one()).await?.ok()?;
        anyhow::Ok(answer.header("mesh-cache") == Some("hit"))
    };
    let text = "forbid (principal in Mesh::Group::\"acme/interns\", action, resource == Mesh::Endpoint::\"acme/e\");";
    admin.apply(&[policy("interns", text)]).await?;
    eventually("the policy is in force", || async {
        Ok((!intern.is_ready("e").await?).then_some(()))
    })
    .await?;
    eventually("the answer is remembered", || async {
        Ok(hit(&acme).await?.then_some(()))
    })
    .await?;
    let denied = intern.infer("e", &one()).await?;
    assert_eq!(denied.status.as_u16(), 404);
    assert_eq!(denied.header("mesh-cache"), None);
    Ok(())
}

#[tokio::test]
async fn policies_change_under_load_without_a_lost_request_and_nothing_reaches_across_tenants() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    admin.publish("acme", "m", &identity()).await?;
    let body = one();
    acme.until_answers("m", &body).await?;
    let other = mesh.caller(&key_of(admin, "acme", "other", &[]).await?);
    other.until_answers("m", &body).await?;
    let load = Load::begin(&acme, "m", 4);
    for round in 0..5 {
        let wide = policy(
            "wide",
            &format!("// round {round}\npermit (principal, action, resource);"),
        );
        let shut = policy(
            "shut",
            "forbid (principal == Mesh::Key::\"acme/other\", action, resource is Mesh::Model);",
        );
        admin.apply(&[wide, shut]).await?;
        eventually("the other key is shut out", || async {
            Ok((other.infer("m", &body).await?.status.as_u16() == 404).then_some(()))
        })
        .await?;
        assert_eq!(
            globex.infer("m", &body).await?.status.as_u16(),
            404,
            "whatever is permitted"
        );
        admin
            .request(Method::DELETE, "/policies/shut")
            .send()
            .await?
            .error_for_status()?;
        other.until_answers("m", &body).await?;
    }
    load.go_on_for(50).await;
    let tally = load.end().await;
    assert_eq!(tally.failures, Vec::<String>::new());
    assert!(tally.ok >= 50);
    Ok(())
}

#[tokio::test]
async fn a_bad_policy_is_refused_with_its_place_and_changes_nothing() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let acme = mesh.tenant("acme").await?;
    admin.publish("acme", "m", &identity()).await?;
    acme.until_answers("m", &one()).await?;
    for (text, place) in [
        (
            "forbid (principal, action, resource)\nwhen { principal.age > 3 };",
            "line 2, column 8: ",
        ),
        (
            "forbid (principal, action, resource)\n\n  whn { true };",
            "line 3, column 3: ",
        ),
        (
            "forbid (principal, action == Mesh::Action::\"model:eat\", resource);",
            "line 1, column 30: ",
        ),
    ] {
        let error = admin
            .apply(&[policy("bad", text)])
            .await
            .expect_err("it is refused")
            .to_string();
        assert!(error.contains(place), "{error}");
    }
    let lock = admin
        .apply(&[policy("lock", "forbid (principal, action, resource);")])
        .await;
    assert!(
        lock.expect_err("it is refused")
            .to_string()
            .contains("nobody could take it back")
    );
    assert_eq!(acme.infer("m", &one()).await?.status.as_u16(), 200);
    assert_eq!(admin.get("/policies").await?["items"], json!([]));
    Ok(())
}

/// What a command prints, and its exit code.
async fn mesh_command(mesh: &Mesh, arguments: &[&str]) -> anyhow::Result<(u8, String, String)> {
    let admin = mesh.admin()?;
    let url = format!("http://{}", mesh.addresses().admin);
    let mut all = vec!["mesh", "--admin-url", &url, "--admin-token", admin.token()];
    all.extend(arguments);
    let cli = Cli::try_parse_from(all)?;
    let run = move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = Terminal {
            out: &mut out,
            err: &mut err,
            input: &mut std::io::empty(),
            interactive: false,
        };
        let code = run_with(cli.command, &cli.globals, &mut terminal);
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (code, text(out), text(err))
    };
    Ok(tokio::task::spawn_blocking(run).await?)
}

#[tokio::test]
async fn the_command_line_says_who_may_do_what_and_why_also_with_a_policy_not_written_yet() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    mesh.tenant("acme").await?;
    key_of(admin, "acme", "ci", &["bots"]).await?;
    let question = ["policy", "test", "Key/acme/ci", "model:infer", "Model/acme/digits"];
    let (code, out, _) = mesh_command(&mesh, &question).await?;
    assert_eq!(code, 0);
    let allowed = "allowed: Mesh::Key::\"acme/ci\" model:infer Mesh::Model::\"acme/digits\"\n";
    assert!(
        out.starts_with(allowed) && out.contains("permit builtin:infer, statement 1"),
        "{out}"
    );
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("no-bots.cedar");
    let text = "forbid (principal in Mesh::Group::\"acme/bots\", action == Mesh::Action::\"model:infer\", resource);\n";
    std::fs::write(&file, text)?;
    let file = file.to_string_lossy().into_owned();
    let with_file = [&question[..], &["-f", &file, "--exit-code"]].concat();
    let (code, out, _) = mesh_command(&mesh, &with_file).await?;
    assert_eq!(code, 1);
    assert!(
        out.starts_with("denied: ") && out.contains("because: forbidden by no-bots (statement 1, line 1)"),
        "{out}"
    );
    assert!(
        mesh_command(&mesh, &question).await?.1.starts_with("allowed"),
        "nothing was written"
    );
    let (code, out, _) = mesh_command(&mesh, &["policy", "put", "no-bots", &file]).await?;
    assert_eq!((code, out.as_str()), (0, "Policy/no-bots created\n"));
    assert!(mesh_command(&mesh, &question).await?.1.starts_with("denied"));
    assert!(mesh_command(&mesh, &["get", "policies"]).await?.1.contains("no-bots"));
    assert!(
        mesh_command(&mesh, &["policy", "schema"])
            .await?
            .1
            .contains("rollout:promote")
    );
    std::fs::write(
        folder.path().join("bad.cedar"),
        "permit (principal, action, resource)\nwhen { 1 };",
    )?;
    let bad = folder.path().join("bad.cedar").to_string_lossy().into_owned();
    let (code, _, err) = mesh_command(&mesh, &["policy", "put", "bad", &bad]).await?;
    assert_eq!(code, 1);
    assert!(err.contains("spec.cedar: line 2, column 8: "), "{err}");
    Ok(())
}

#[tokio::test]
async fn an_admin_of_a_tenant_is_refused_with_the_action_by_name_beyond_it() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    mesh.tenant("acme").await?;
    mesh.tenant("globex").await?;
    let request = admin.request(Method::POST, "/admin-tokens");
    let body = json!({"name": "ann", "role": "operator", "tenant": "acme"});
    let made: Value = request.json(&body).send().await?.error_for_status()?.json().await?;
    let ann = Admin::new(mesh.addresses().admin, made["token"].as_str().unwrap_or_default());
    ann.publish_only("acme", "m", &identity()).await?;
    for (refusal, action) in [
        (
            ann.publish_only("globex", "m", &identity()).await.map(drop),
            "model:publish",
        ),
        (ann.get("/devices").await.map(drop), "device:read"),
        (ann.key("acme").await.map(drop), "key:admin"),
        (ann.tenant("acme", json!({"weight": 9})).await, "tenant:admin"),
    ] {
        let text = refusal.expect_err("it is refused").to_string();
        assert!(
            text.starts_with("403") && text.contains(&format!("'ann' may not do {action} to ")),
            "{text}"
        );
    }
    Ok(())
}

/// An overview without what moves from second to second.
fn told(overview: &Value) -> Value {
    json!([overview["tenant"], overview["totals"], overview["devices"]])
}

#[tokio::test]
async fn who_is_bound_to_a_tenant_is_shown_its_numbers_and_no_others() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    for (tenant, model, requests) in [("acme", "ours", 3), ("globex", "theirs", 5)] {
        let caller = mesh.tenant(tenant).await?;
        admin.publish(tenant, model, &identity()).await?;
        caller.until_ready(model).await?;
        for _ in 0..requests {
            caller.ask(model, &[1.0, 2.0]).await?.ok()?;
        }
    }
    let all = eventually("all are counted", || async {
        let seen = admin.get("/overview").await?;
        Ok((seen["totals"]["ok"] == 8).then_some(seen))
    })
    .await?;
    assert_eq!(all["tenant"], Value::Null);
    let made = admin.request(Method::POST, "/admin-tokens");
    let made: Value = made
        .json(&json!({"role": "viewer", "tenant": "acme"}))
        .send()
        .await?
        .json()
        .await?;
    let bound = Admin::new(mesh.addresses().admin, made["token"].as_str().unwrap_or_default());
    let seen = bound.get("/overview").await?;
    assert_eq!(
        (&seen["tenant"], &seen["totals"]["ok"]),
        (&json!("acme"), &json!(3)),
        "{seen}"
    );
    assert_eq!(seen["endpoints"][0]["target"], "ours");
    assert_eq!(seen["devices"][0]["models"][0]["model"], "ours");
    assert!(seen["latency_ms"]["p50"].is_number(), "{seen}");
    let mut events = bound.request(Method::GET, "/events").send().await?.error_for_status()?;
    let first = events.chunk().await?.unwrap_or_default();
    let first = std::str::from_utf8(&first)?;
    let data = first.lines().find_map(|line| line.strip_prefix("data: "));
    let streamed: Value = serde_json::from_str(data.unwrap_or_default())?;
    assert_eq!(told(&streamed), told(&seen));
    for text in [seen.to_string(), first.to_owned()] {
        assert!(!text.contains("globex") && !text.contains("theirs"), "{text}");
    }
    Ok(())
}
