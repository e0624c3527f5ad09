//! TensorFlow Serving's REST protocol, and KServe's V1, against the whole mesh.

#![expect(clippy::too_many_lines, reason = "a test tells one story, or is one table")]

use mesh_harness::{Answer, Caller, Mesh, batched, identity};
use serde_json::{Value, json};

async fn posted(caller: &Caller, path: &str, body: &Value) -> anyhow::Result<Answer> {
    Answer::of(caller.post(path).json(body)).await
}

async fn got(caller: &Caller, path: &str) -> anyhow::Result<Answer> {
    Answer::of(caller.get(path)).await
}

/// A model that gives back its four numbers, in batches.
fn four() -> Value {
    let mut model = batched(identity(), 8, 0);
    for side in ["input", "output"] {
        model["config"][side][0]["dims"] = json!([4]);
    }
    model
}

#[tokio::test]
async fn rows_and_columns_are_answered_as_tensorflow_serving_does() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "m", &four()).await?;
    caller.until_ready("m").await?;
    let rows = json!([[1.0, 2.5, -3.0, 0.1], [0.0, 1e-7, 3.25, 4.0]]);
    for path in [
        "/v1/models/m:predict",
        "/v1/models/m/versions/1:predict",
        "/V1/models/m:Predict",
    ] {
        let answer = posted(&caller, path, &json!({"instances": rows})).await?.ok()?;
        assert_eq!(answer.json()?, json!({"predictions": rows}), "{path}");
        assert_eq!(answer.header("x-mesh-version"), Some("1"));
        assert!(answer.header("traceparent").is_some());
    }
    let columns = json!({"signature_name": "serving_default", "inputs": {"x": rows}});
    let answer = posted(&caller, "/v1/models/m:predict", &columns).await?.ok()?;
    assert_eq!(answer.json()?, json!({"outputs": rows}));
    // The same rows by version 2 give the same numbers.
    let flat: Vec<&Value> = rows
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_array)
        .flatten()
        .collect();
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2, 4], "data": flat}]});
    let reference = posted(&caller, "/v2/models/m/infer", &body).await?.ok()?.json()?;
    assert_eq!(reference["outputs"][0]["data"], json!(flat));
    Ok(())
}

#[tokio::test]
async fn labels_lead_to_versions_and_status_and_metadata_say_what_is_there() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "m", &four()).await?;
    admin.model("acme", "m", json!({"labels": {"stable": 1}})).await?;
    caller.until_ready("m").await?;
    let body = json!({"instances": [[1.0, 2.0, 3.0, 4.0]]});
    mesh_harness::eventually("the label leads to the version", || async {
        let answer = posted(&caller, "/v1/models/m/labels/stable:predict", &body).await?;
        Ok(answer.status.is_success().then_some(()))
    })
    .await?;
    let version = json!({"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}});
    for path in ["/v1/models/m", "/v1/models/m/versions/1", "/v1/models/m/labels/stable"] {
        let status = got(&caller, path).await?.ok()?.json()?;
        assert_eq!(
            status,
            json!({"name": "m", "ready": true, "model_version_status": [version]}),
            "{path}"
        );
    }
    let metadata = got(&caller, "/v1/models/m/metadata").await?.ok()?.json()?;
    assert_eq!(metadata["model_spec"]["version"], "1");
    let signature = &metadata["metadata"]["signature_def"]["signature_def"]["serving_default"];
    assert_eq!(signature["inputs"]["x"]["dtype"], "DT_FLOAT");
    assert_eq!(
        got(&caller, "/v1/models").await?.ok()?.json()?,
        json!({"models": ["m"]})
    );
    Ok(())
}

#[tokio::test]
async fn errors_have_the_texts_that_clients_look_for() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, other) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    mesh.admin()?.publish("acme", "m", &four()).await?;
    caller.until_ready("m").await?;
    let one = json!({"instances": [[1.0, 2.0, 3.0, 4.0]]});
    for (path, body, status, text) in [
        (
            "/v1/models/m:guess",
            &one,
            400,
            "Malformed request: POST /v1/models/m:guess",
        ),
        (
            "/v1/models/m/versions/x:predict",
            &one,
            400,
            "Failed to convert version",
        ),
        (
            "/v1/models/m/labels/none:predict",
            &one,
            400,
            "Unrecognized servable version label: none",
        ),
        (
            "/v1/models/none:predict",
            &one,
            404,
            "Servable not found for request: Latest(none)",
        ),
        (
            "/v1/models/m/versions/9:predict",
            &one,
            404,
            "Servable not found for request: Specific(m, 9)",
        ),
        (
            "/v1/models/m:predict",
            &json!({"signature_name": 3, "inputs": 1}),
            400,
            "'signature_name' key must be a string value.",
        ),
        (
            "/v1/models/m:predict",
            &json!({"instances": [[1.0, 2.0], [3.0]]}),
            400,
            "input 'x'",
        ),
        (
            "/v1/models/m:predict",
            &json!({"instances": [[1.0, 2.0]]}),
            400,
            "input 'x'",
        ),
        ("/v1/models/m:explain", &one, 501, "no explainer"),
    ] {
        let answer = posted(&caller, path, body).await?;
        assert_eq!(answer.status.as_u16(), status, "{path}: {answer:?}");
        let error = answer.error()?;
        assert!(error.contains(text), "{path}: {error}");
    }
    let answer = Answer::of(caller.post("/v1/models/m:predict").body("{\"instances\": [")).await?;
    assert!(answer.error()?.starts_with("JSON Parse error: "));
    let answer = got(&caller, "/v1/models/m:predict").await?;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, Some("POST")));
    // Another tenant's model, and its labels, are not there.
    for path in ["/v1/models/m:predict", "/v1/models/m/labels/none:predict"] {
        let answer = posted(&other, path, &one).await?;
        assert_eq!(answer.status.as_u16(), 404, "{path}");
        assert!(answer.error()?.starts_with("Servable not found for request: "));
    }
    assert_eq!(got(&other, "/v1/models").await?.ok()?.json()?, json!({"models": []}));
    assert_eq!(
        posted(&mesh.stranger(), "/v1/models/m:predict", &one)
            .await?
            .status
            .as_u16(),
        401
    );
    Ok(())
}

#[tokio::test]
async fn classes_have_their_labels_and_a_regression_is_a_number() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    let mut labelled = four();
    labelled["config"]["output"][0]["labels"] = json!(["a", "b", "c", "d"]);
    admin.publish("acme", "classes", &labelled).await?;
    let mut number = batched(identity(), 8, 0);
    for side in ["input", "output"] {
        number["config"][side][0]["dims"] = json!([1]);
    }
    admin.publish("acme", "number", &number).await?;
    caller.until_ready("classes").await?;
    caller.until_ready("number").await?;
    let body = json!({"examples": [{"x": [0.5, 0.25, 0.125, 1.0]}]});
    let answer = posted(&caller, "/v1/models/classes:classify", &body).await?.ok()?;
    assert_eq!(
        answer.json()?,
        json!({"results": [[["a", 0.5], ["b", 0.25], ["c", 0.125], ["d", 1.0]]]})
    );
    let answer = posted(&caller, "/v1/models/classes:regress", &body).await?;
    assert!(answer.status.as_u16() == 400 && answer.error()?.contains("one number for each row"));
    let body = json!({"examples": [{"x": 1.5}, {"x": -2.0}]});
    let answer = posted(&caller, "/v1/models/number:regress", &body).await?.ok()?;
    assert_eq!(answer.json()?, json!({"results": [1.5, -2.0]}));
    Ok(())
}

#[tokio::test]
async fn a_cloud_event_is_answered_with_one_of_its_mode() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "m", &four()).await?;
    caller.until_ready("m").await?;
    let rows = json!([[1.0, 2.0, 3.0, 4.0]]);
    let event =
        json!({"specversion": "1.0", "id": "e-1", "source": "test", "type": "ask", "data": {"instances": rows}});
    let request = caller.post("/v1/models/m:predict");
    let request = request
        .header("content-type", "application/cloudevents+json")
        .body(event.to_string());
    let answer = Answer::of(request).await?.ok()?;
    assert_eq!(answer.header("content-type"), Some("application/cloudevents+json"));
    let told = answer.json()?;
    assert_eq!(
        (&told["id"], &told["data"]),
        (&json!("e-1"), &json!({"predictions": rows}))
    );
    let mut request = caller.post("/v1/models/m:predict").json(&json!({"instances": rows}));
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "e-2"),
        ("ce-source", "test"),
        ("ce-type", "ask"),
    ] {
        request = request.header(name, value);
    }
    let answer = Answer::of(request).await?.ok()?;
    assert_eq!(answer.json()?, json!({"predictions": rows}));
    assert_eq!(answer.header("ce-id"), Some("e-2"));
    assert_eq!(answer.header("ce-source"), Some("io.kserve.inference.m"));
    Ok(())
}
