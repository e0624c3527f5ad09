//! HTTP/2 without TLS at the inference door: the same answers, calls that are taken back, floods beside a polite tenant, the end.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use h2::{Reason, client::SendRequest};
use mesh_harness::{Answer, Caller, Mesh, MeshOptions, ServeOptions, Text, batched, builtin, eventually, identity};
use reqwest::{Client, Version};
use serde_json::json;
use tokio::{net::TcpStream, task::JoinHandle};

const BODY: &[u8] = br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1]}]}"#;
/// Far more than may be taken back on one connection.
const MANY: usize = 20_000;

/// A connection by hand.
struct Connection {
    send: SendRequest<Bytes>,
    driven: JoinHandle<Result<(), h2::Error>>,
    base: String,
    key: String,
}

impl Connection {
    async fn open(mesh: &Mesh, caller: &Caller) -> anyhow::Result<Self> {
        let door = mesh.addresses().http;
        let (send, connection) = h2::client::handshake(TcpStream::connect(door).await?).await?;
        #[expect(clippy::disallowed_methods, reason = "a client of the mesh, that the test waits for")]
        let driven = tokio::spawn(connection);
        Ok(Self {
            send,
            driven,
            base: format!("http://{door}"),
            key: caller.key().to_owned(),
        })
    }

    /// Asks for a prediction, to be waited for or taken back.
    async fn infer(&mut self, model: &str) -> Result<(h2::client::ResponseFuture, h2::SendStream<Bytes>), h2::Error> {
        let request = http::Request::post(format!("{}/v2/models/{model}/infer", self.base))
            .header("authorization", format!("Bearer {}", self.key));
        let request = request.body(()).map_err(|_| h2::Error::from(Reason::INTERNAL_ERROR))?;
        let mut send = self.send.clone().ready().await?;
        let (response, mut stream) = send.send_request(request, false)?;
        stream.send_data(Bytes::from_static(BODY), true)?;
        Ok((response, stream))
    }
}

async fn with_model(mesh: &Mesh, name: &str, model: &serde_json::Value) -> anyhow::Result<Caller> {
    let caller = mesh.tenant("acme").await?;
    mesh.admin()?.publish("acme", name, model).await?;
    caller.until_ready(name).await?;
    Ok(caller)
}

async fn nothing_is_under_way(mesh: &Mesh) -> anyhow::Result<()> {
    eventually("nothing is under way", || async {
        let metrics = mesh.metrics().await?;
        Ok(metrics
            .lines()
            .any(|line| line == "mesh_requests_in_flight 0")
            .then_some(()))
    })
    .await
}

#[tokio::test]
async fn answers_without_tls_are_the_same_over_both_versions() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let old = with_model(&mesh, "m", &identity()).await?;
    let client = Client::builder().http2_prior_knowledge().build()?;
    let base = format!("http://{}", mesh.addresses().http);
    let new = |path: &str| client.post(format!("{base}{path}")).bearer_auth(old.key());
    let numbers: Vec<f32> = (0..10_000_u16).map(f32::from).collect();
    let predict = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, numbers.len()], "data": numbers}]});
    for (path, body) in [
        ("/v2/models/m/infer", &predict),
        ("/v2/models/m/generate", &json!({"x": [1.5, -2.0]})),
        ("/v2/models/m/generate_stream", &json!({"x": [1.5, -2.0]})),
        ("/v2/models/m/infer", &json!({"inputs": []})),
        ("/v2/models/none/infer", &predict),
        ("/v2/repository/index", &json!({})),
    ] {
        let (before, now) = (
            Answer::of(old.post(path).json(body)).await?,
            new(path).json(body).send().await?,
        );
        assert_eq!(now.version(), Version::HTTP_2, "{path}");
        assert_eq!(now.status(), before.status, "{path}");
        assert_eq!(
            now.headers().get("content-type"),
            before.headers.get("content-type"),
            "{path}"
        );
        assert_eq!(now.bytes().await?, before.body, "{path}");
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_is_taken_back_leaves_the_device_to_others() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let slow = batched(builtin("busy", &json!({"busy_us": 200_000})), 1, 0);
    let caller = with_model(&mesh, "slow", &slow).await?;
    let mut connection = Connection::open(&mesh, &caller).await?;
    let mut calls = Vec::new();
    for _ in 0..50 {
        calls.push(connection.infer("slow").await?);
    }
    eventually("all are under way", || async {
        let metrics = mesh.metrics().await?;
        Ok(metrics
            .lines()
            .any(|line| line == "mesh_requests_in_flight 50")
            .then_some(()))
    })
    .await?;
    let begun = Instant::now();
    drop(calls);
    nothing_is_under_way(&mesh).await?;
    // Ten seconds of batches were waiting; one that runs is finished.
    caller.ask("slow", &[1.0]).await?.ok()?;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_flood_of_calls_that_are_taken_back_ends_its_connection_and_a_polite_tenant_is_served() -> anyhow::Result<()>
{
    let mesh = Mesh::start().await?;
    let polite = with_model(&mesh, "m", &identity()).await?;
    let hostile = mesh.tenant("hostile").await?;
    mesh.admin()?.publish("hostile", "m", &identity()).await?;
    hostile.until_ready("m").await?;
    for _ in 0..2 {
        let mut connection = Connection::open(&mesh, &hostile).await?;
        let flood = async {
            for _ in 0..MANY {
                match connection.infer("m").await {
                    Ok((response, mut stream)) => {
                        stream.send_reset(Reason::CANCEL);
                        drop(response);
                        tokio::task::yield_now().await;
                    }
                    Err(_) => return Ok(()),
                }
            }
            bail!("nobody minds {MANY} calls that are taken back")
        };
        let politely = async {
            for _ in 0..20 {
                polite.ask("m", &[1.0]).await?.ok()?;
            }
            anyhow::Ok(())
        };
        tokio::try_join!(flood, politely)?;
        let ended = connection.driven.await?;
        let reason = ended.err().context("the connection ended well")?.reason();
        assert_eq!(reason, Some(Reason::ENHANCE_YOUR_CALM));
    }
    nothing_is_under_way(&mesh).await?;
    hostile.ask("m", &[1.0]).await?.ok()?;
    let metrics = mesh.metrics().await?;
    let counted = r#"mesh_refused_total{reason="http2_flood"} 2"#;
    assert!(metrics.lines().any(|line| line == counted), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn a_mesh_with_idle_connections_of_both_versions_stops_quickly() -> anyhow::Result<()> {
    let mesh = Mesh::start_with(MeshOptions {
        serve: ServeOptions {
            grace_ms: Some(Text("60000".to_owned())),
            ..ServeOptions::default()
        },
        ..MeshOptions::default()
    })
    .await?;
    let caller = with_model(&mesh, "m", &identity()).await?;
    let mut connection = Connection::open(&mesh, &caller).await?;
    let (response, _) = connection.infer("m").await?;
    assert_eq!(response.await?.status(), 200);
    caller.ask("m", &[1.0]).await?.ok()?;
    let begun = Instant::now();
    mesh.stop().await?;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // It was told, and not cut off.
    connection.driven.await??;
    Ok(())
}
