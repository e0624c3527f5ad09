//! What callers and models get wrong: a precise answer, and the next request works.

use mesh_client::Input;
use mesh_harness::{Answer, Caller, Mesh, MeshOptions, builtin, identity};
use mesh_harness::{ServeOptions, Text};
use serde_json::{Value, json};

const LIMIT: usize = 1 << 20;

fn good() -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]})
}

async fn mesh_with_limit() -> anyhow::Result<(Mesh, Caller)> {
    let serve = ServeOptions {
        max_body_bytes: Some(Text(LIMIT.to_string())),
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "m", &identity()).await?;
    caller.until_answers("m", &good()).await?;
    Ok((mesh, caller))
}

async fn raw(caller: &Caller, body: impl Into<reqwest::Body>) -> anyhow::Result<Answer> {
    Answer::of(
        caller
            .post("/v2/models/m/infer")
            .header("content-type", "application/json")
            .body(body),
    )
    .await
}

#[tokio::test]
async fn each_mistake_has_its_own_answer_and_the_next_request_works() -> anyhow::Result<()> {
    let (_mesh, caller) = mesh_with_limit().await?;
    let input = |field: &str, value: Value| {
        let mut body = good();
        body["inputs"][0][field] = value;
        body
    };
    let mistakes: [(&str, Value, &str); 7] = [
        ("wrong rank", input("shape", json!([2])), "shape"),
        ("data of another length", input("shape", json!([1, 3])), "x"),
        (
            "too many rows",
            json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [9, 1], "data": [0,0,0,0,0,0,0,0,0]}]}),
            "batch-size must be <= 8",
        ),
        ("wrong datatype", input("datatype", json!("INT32")), "x"),
        ("no datatype at all", input("datatype", json!("FLOAT")), "FLOAT"),
        (
            "an input that the model does not have",
            input("name", json!("z")),
            "unexpected inference input 'z'",
        ),
        ("no inputs", json!({"inputs": []}), "inputs"),
    ];
    for (what, body, part) in mistakes {
        let answer = caller.infer("m", &body).await?;
        assert_eq!(
            answer.status.as_u16(),
            400,
            "{what}: {}",
            String::from_utf8_lossy(&answer.body)
        );
        let error = answer.error()?;
        assert!(error.contains(part), "{what}: {error}");
        assert!(caller.infer("m", &good()).await?.status.is_success(), "after {what}");
    }
    let unknown = caller.infer("nothing", &good()).await?;
    assert_eq!(unknown.status.as_u16(), 404);
    assert!(unknown.error()?.contains("'nothing'"));
    assert!(caller.infer("m", &good()).await?.status.is_success());
    Ok(())
}

#[tokio::test]
async fn bodies_that_are_broken_deep_cut_or_too_long_are_refused_and_the_next_request_works() -> anyhow::Result<()> {
    let (_mesh, caller) = mesh_with_limit().await?;
    for (what, body) in [
        ("nothing", String::new()),
        ("no JSON", "{\"inputs\": [".to_owned()),
        ("10,000 brackets", "[".repeat(10_000)),
        (
            "10,000 deep data",
            format!(
                "{{\"inputs\":[{{\"name\":\"x\",\"datatype\":\"FP32\",\"shape\":[1,1],\"data\":{}1{}}}]}}",
                "[".repeat(10_000),
                "]".repeat(10_000)
            ),
        ),
        (
            "10,000 deep parameters",
            format!("{{\"parameters\":{}{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000)),
        ),
    ] {
        let answer = raw(&caller, body).await?;
        assert_eq!(answer.status.as_u16(), 400, "{what}");
        assert!(!answer.error()?.is_empty(), "{what}");
        assert!(caller.infer("m", &good()).await?.status.is_success(), "after {what}");
    }
    let too_long = raw(&caller, vec![b' '; LIMIT + 1]).await?;
    assert_eq!(too_long.status.as_u16(), 413);
    assert!(caller.infer("m", &good()).await?.status.is_success());
    let just_fits = raw(&caller, vec![b' '; LIMIT]).await?;
    assert_eq!(just_fits.status.as_u16(), 400, "it is read, and is not JSON");
    Ok(())
}

#[tokio::test]
async fn binary_tensors_come_back_and_cut_ones_are_refused() -> anyhow::Result<()> {
    let (_mesh, caller) = mesh_with_limit().await?;
    let x = Input::new("x", [1, 2], &[1.5_f32, -2.0])?;
    let answer = caller.client()?.model("m").infer([x]).await?;
    assert_eq!(answer.output("y")?.as_slice::<f32>()?, [1.5, -2.0]);
    let head = br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"parameters":{"binary_data_size":8}}]}"#;
    for (what, length, bytes) in [
        ("a byte is missing", head.len(), 7),
        ("a byte too many", head.len(), 9),
        ("no bytes", head.len(), 0),
        ("a header longer than the body", head.len() + 100, 8),
    ] {
        let request = caller
            .post("/v2/models/m/infer")
            .header("Inference-Header-Content-Length", length)
            .body([&head[..], &vec![0; bytes]].concat());
        let answer = Answer::of(request).await?;
        assert_eq!(answer.status.as_u16(), 400, "{what}");
        assert!(caller.infer("m", &good()).await?.status.is_success(), "after {what}");
    }
    Ok(())
}

#[tokio::test]
async fn a_model_that_panics_or_fails_fails_its_own_batch_and_serves_the_next() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    for model in ["panic_on_negative", "fail_on_negative"] {
        let name = model.replace('_', "-");
        admin.publish("acme", &name, &builtin(model, &json!({}))).await?;
        caller.until_answers(&name, &good()).await?;
        for round in 0..3 {
            let answer = caller.ask(&name, &[-1.0]).await?;
            assert_eq!(answer.status.as_u16(), 500, "{model} {round}");
            assert!(!answer.error()?.contains('/'), "no path is shown: {}", answer.error()?);
            caller.until_answers(&name, &good()).await?;
        }
    }
    // The models beside it never noticed.
    admin.publish("acme", "calm", &identity()).await?;
    caller.until_answers("calm", &good()).await?;
    for _ in 0..5 {
        caller.ask("panic-on-negative", &[-1.0]).await?;
        assert!(caller.infer("calm", &good()).await?.status.is_success());
    }
    Ok(())
}
