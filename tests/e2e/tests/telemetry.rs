//! What the mesh tells of itself: traces go through, stages are measured.

use mesh_harness::{Answer, Mesh, identity};
use serde_json::json;

#[tokio::test]
async fn a_trace_goes_in_and_out_and_the_stages_are_measured() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", "m", &identity()).await?;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    caller.until_answers("m", &body).await?;

    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let request = caller
        .post("/v2/models/m/infer")
        .header("traceparent", &parent)
        .json(&body);
    let answer = Answer::of(request).await?.ok()?;
    let out = answer.header("traceparent").unwrap_or_default();
    let parts: Vec<&str> = out.split('-').collect();
    assert_eq!((parts.len(), parts[1]), (4, trace), "{out}");
    assert_ne!(parts[2], "00f067aa0ba902b7", "a span of its own");
    let id = answer.header("x-request-id").unwrap_or_default().to_owned();
    let other = caller.infer("m", &body).await?.ok()?;
    assert!(!id.is_empty());
    assert_ne!(other.header("x-request-id"), Some(id.as_str()));

    let metrics = mesh.metrics().await?;
    for stage in ["decode", "authenticate", "choose", "queue", "compute_infer", "encode"] {
        let counted = metrics
            .lines()
            .any(|line| line.contains("_bucket") && line.contains(&format!("stage=\"{stage}\"")));
        assert!(counted, "no histogram of the stage {stage} in {metrics}");
    }
    assert!(metrics.contains("tenant=\"acme\""), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"));
    Ok(())
}
