//! What is pushed over OTLP: a request's spans under its caller's, its batch's span with a link to each request in it, and
//! the counters.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use mesh_harness::{Answer, Caller, Collector, ExportedSpan, Mesh, MeshOptions, ServeOptions, Text, batched, identity};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// As many as the model's batch has rows: so many at once are one batch.
const TOGETHER: u64 = 4;
const STAGES: [&str; 9] = [
    "decode",
    "authenticate",
    "admit",
    "choose",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "encode",
];

fn good() -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]})
}

/// A trace of its own for each number, and the caller's span in it.
fn trace(number: u64) -> (u128, u64) {
    (
        0x4bf9_2f35_77b3_4da6_0000_0000_0000_0000 + u128::from(number),
        0x00f0_67aa_0000_0000 + number,
    )
}

async fn ask(caller: Caller, number: u64, sampled: bool, body: Value) -> anyhow::Result<Answer> {
    let ((trace, span), flag) = (trace(number), u8::from(sampled));
    let request = caller
        .post("/v2/models/front/infer")
        .header("traceparent", format!("00-{trace:032x}-{span:016x}-{flag:02x}"))
        .json(&body);
    Answer::of(request).await
}

/// Sends a batch's worth of requests at once.
async fn together(caller: &Caller, numbers: std::ops::Range<u64>, sampled: bool) -> anyhow::Result<()> {
    let mut asked = JoinSet::new();
    for number in numbers {
        asked.spawn(ask(caller.clone(), number, sampled, good()));
    }
    while let Some(answer) = asked.join_next().await {
        answer??.ok()?;
    }
    Ok(())
}

fn root(spans: &[ExportedSpan], number: u64) -> Option<&ExportedSpan> {
    let (trace, _) = trace(number);
    spans
        .iter()
        .find(|span| span.span.name == "infer" && span.span.trace_id == trace.to_be_bytes())
}

async fn pushing_mesh(collector: &Collector) -> anyhow::Result<(Mesh, Caller)> {
    let serve = ServeOptions {
        otlp_endpoint: Some(Text(collector.endpoint().to_owned())),
        otlp_sample_ratio: Some(Text("0".to_owned())),
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    // Far longer than the requests of a batch take to arrive: it goes when it is full.
    let model = batched(identity(), u32::try_from(TOGETHER)?, 10_000_000);
    admin.publish("acme", "m", &model).await?;
    admin.endpoint("acme", "front", &[("main", "m", "1", 100.0)]).await?;
    caller.until_ready("front").await?;
    Ok((mesh, caller))
}

#[tokio::test]
async fn sampled_requests_their_stages_their_batch_and_the_counters_reach_the_collector() -> anyhow::Result<()> {
    let mut collector = Collector::start().await?;
    let (mesh, caller) = pushing_mesh(&collector).await?;
    together(&caller, 0..TOGETHER, true).await?;
    together(&caller, TOGETHER..2 * TOGETHER, false).await?;
    // The last of all, so that whatever was to be pushed before it has been when it arrives.
    let last = 2 * TOGETHER;
    let wrong = json!({"inputs": [{"name": "z", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    assert_eq!(ask(caller, last, true, wrong).await?.status.as_u16(), 400);
    // What is pending is pushed at the end.
    mesh.stop().await?;

    let spans = collector.spans_until(|spans| root(spans, last).is_some()).await?;
    for span in &spans {
        assert_eq!(span.resource.get("service.name").map(String::as_str), Some("mesh"));
    }
    is_one_batch(&spans)?;
    for number in TOGETHER..2 * TOGETHER {
        assert!(
            root(&spans, number).is_none(),
            "a caller that does not sample is not traced"
        );
    }
    let refused = root(&spans, last).expect("a refused request's span");
    let status = refused.span.status.as_ref().expect("a status");
    assert!(status.code == 2 && status.message.contains("'z'"), "{status:?}");

    are_counted(&mut collector).await
}

/// The request's span hangs under its caller's, and each stage's under it, within its time.
fn is_whole(spans: &[ExportedSpan], number: u64, root: &ExportedSpan) {
    let (trace, parent) = trace(number);
    assert_eq!(root.span.parent_span_id, parent.to_be_bytes());
    let told = root.attributes();
    assert_eq!(
        (told["mesh.tenant"].as_str(), told["mesh.endpoint"].as_str()),
        ("acme", "front")
    );
    assert_eq!(told["mesh.batch_rows"], TOGETHER.to_string());
    let stages: Vec<&ExportedSpan> = spans
        .iter()
        .filter(|span| span.span.parent_span_id == root.span.span_id)
        .collect();
    let mut names: Vec<&str> = stages.iter().map(|stage| stage.span.name.as_str()).collect();
    for needed in ["decode", "authenticate", "choose", "queue", "compute_infer", "encode"] {
        assert!(names.contains(&needed), "no span of the stage {needed}: {names:?}");
    }
    assert!(names.iter().all(|name| STAGES.contains(name)), "{names:?}");
    for stage in &stages {
        assert_eq!(stage.span.trace_id, trace.to_be_bytes());
        let (began, ended) = (stage.span.start_time_unix_nano, stage.span.end_time_unix_nano);
        assert!(
            began <= ended && began >= root.span.start_time_unix_nano,
            "{}",
            stage.span.name
        );
    }
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count, "a stage has one span");
}

/// The sampled requests were one batch, whose span and theirs are linked both ways.
fn is_one_batch(spans: &[ExportedSpan]) -> anyhow::Result<()> {
    let batches: Vec<&ExportedSpan> = spans.iter().filter(|span| span.span.name == "batch").collect();
    let [batch] = batches.as_slice() else {
        bail!("{} batches with a sampled request", batches.len());
    };
    let mut roots = BTreeSet::new();
    for number in 0..TOGETHER {
        let root = root(spans, number).context("no span of a sampled request")?;
        roots.insert((root.span.trace_id.clone(), root.span.span_id.clone()));
        is_whole(spans, number, root);
        let [link] = root.span.links.as_slice() else {
            bail!("{} links from a request to its batch", root.span.links.len());
        };
        assert_eq!(
            (&link.trace_id, &link.span_id),
            (&batch.span.trace_id, &batch.span.span_id)
        );
    }
    let linked = batch.span.links.iter();
    let linked: BTreeSet<_> = linked
        .map(|link| (link.trace_id.clone(), link.span_id.clone()))
        .collect();
    assert_eq!(
        linked, roots,
        "the batch is linked from every request in it, and from no other"
    );
    assert_eq!(batch.span.links.len(), roots.len());
    let told = batch.attributes();
    assert_eq!(told["mesh.model"], "acme/m/1");
    assert_eq!(told["mesh.batch_rows"], TOGETHER.to_string());
    Ok(())
}

/// The counters that are pushed say what was asked and answered.
async fn are_counted(collector: &mut Collector) -> anyhow::Result<()> {
    let labels = [
        ("tenant", "acme"),
        ("endpoint", "front"),
        ("arm", "main"),
        ("version", "1"),
    ];
    for (outcome, requests) in [("ok", 2 * TOGETHER), ("client", 1)] {
        let labels = [&labels[..], &[("outcome", outcome)]].concat();
        let requests = i64::try_from(requests)?;
        let (resource, value) = collector.counter_until("mesh.requests", &labels, requests).await?;
        assert_eq!(
            (value, resource["service.name"].as_str()),
            (requests, "mesh"),
            "{outcome}"
        );
    }
    Ok(())
}
