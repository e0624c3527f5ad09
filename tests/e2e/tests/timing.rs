//! What a refusal says by the time that it takes: nothing. Names that are not there, another's, not for the caller's tenant, or kept
//! from the caller by a policy, and keys that are not there or wrong, are refused in times that cannot be told apart.
//!
//! All kinds are asked for in one run, in an order drawn at random, so that whatever else the machine does falls on all of them
//! alike. The distributions are compared by the two-sample Kolmogorov-Smirnov test. By chance alone one comparison in a hundred
//! falls below its bound, so a run that does is repeated once, with fresh samples.
#![expect(clippy::print_stdout, reason = "the figures are for who reads the test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use mesh_harness::{Mesh, eventually, identity};
use mesh_policies::access::{generate_api_key, generate_api_key_as};
use mesh_types::KeyId;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// Of each kind.
const SAMPLES: usize = 10_000;
const CONNECTIONS: usize = 8;
/// Requests of one kind that differ, so that no memory of one text makes the difference.
const TEXTS: usize = 32;
/// Below this, two samples are taken for different.
const BOUND: f64 = 0.01;

struct Kind {
    name: &'static str,
    status: &'static [u8],
    /// Whole requests.
    texts: Vec<Vec<u8>>,
}

fn request(name: &str, key: &str) -> Vec<u8> {
    let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1.0]}]}"#;
    format!(
        "POST /v2/models/{name}/infer HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {key}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// How long each request of a kind took.
type Times = Vec<Vec<u64>>;

/// Sends a request and reads its answer, which says its length.
async fn ask(stream: &mut TcpStream, kind: &Kind, text: &[u8], buffer: &mut Vec<u8>) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    stream.write_all(text).await?;
    buffer.clear();
    loop {
        ensure!(stream.read_buf(buffer).await? > 0, "the connection ended");
        let Some(head) = buffer.windows(4).position(|part| part == b"\r\n\r\n") else {
            continue;
        };
        let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if buffer.len() >= head + 4 + length.context("no length")? {
            break;
        }
    }
    let took = begun.elapsed();
    let status = buffer.get(9..12).unwrap_or_default();
    ensure!(
        status == kind.status,
        "{}: {}",
        kind.name,
        String::from_utf8_lossy(buffer)
    );
    Ok(took)
}

async fn measure(address: std::net::SocketAddr, kinds: &Arc<Vec<Kind>>) -> anyhow::Result<Times> {
    let mut order: Vec<usize> = (0..kinds.len())
        .flat_map(|kind| std::iter::repeat_n(kind, SAMPLES))
        .collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rand::random_range(0..=at));
    }
    let (order, next) = (Arc::new(order), Arc::new(AtomicUsize::new(0)));
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (kinds, order, next) = (kinds.clone(), order.clone(), next.clone());
        connections.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (mut times, mut buffer) = (vec![Vec::new(); kinds.len()], Vec::new());
            while let Some(kind) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let of = &kinds[*kind];
                let text = &of.texts[rand::random_range(0..of.texts.len())];
                let took = ask(&mut stream, of, text, &mut buffer).await?;
                times[*kind].push(u64::try_from(took.as_nanos())?);
            }
            anyhow::Ok(times)
        });
    }
    let mut all: Times = vec![Vec::new(); kinds.len()];
    while let Some(times) = connections.join_next().await {
        for (all, more) in all.iter_mut().zip(times??) {
            all.extend(more);
        }
    }
    all.iter_mut().for_each(|times| times.sort_unstable());
    Ok(all)
}

/// The probability that two samples of one distribution differ as much as these (Kolmogorov-Smirnov, its limit for large samples).
fn same(one: &[u64], other: &[u64]) -> f64 {
    let (n, m) = (one.len() as f64, other.len() as f64);
    let (mut i, mut j, mut distance) = (0, 0, 0.0_f64);
    while let (Some(a), Some(b)) = (one.get(i), other.get(j)) {
        let at = *a.min(b);
        i += one[i..].iter().take_while(|value| **value == at).count();
        j += other[j..].iter().take_while(|value| **value == at).count();
        distance = distance.max((i as f64 / n - j as f64 / m).abs());
    }
    let root = (n * m / (n + m)).sqrt();
    let lambda = (root + 0.12 + 0.11 / root) * distance;
    if lambda < 0.2 {
        return 1.0;
    }
    let term = |k: i32| (if k % 2 == 1 { 2.0 } else { -2.0 }) * (-2.0 * f64::from(k * k) * lambda * lambda).exp();
    (1..=100).map(term).sum::<f64>().clamp(0.0, 1.0)
}

#[test]
fn the_comparison_tells_a_shift_from_none() {
    let draw = |shift: f64| {
        let mut sample: Vec<u64> = (0..SAMPLES)
            .map(|_| (1e6 * (rand::random::<f64>() + rand::random::<f64>() + shift)) as u64)
            .collect();
        sample.sort_unstable();
        sample
    };
    let passed = (0..20).filter(|_| same(&draw(0.0), &draw(0.0)) > BOUND).count();
    assert!(passed >= 17, "{passed} of 20");
    assert!(same(&draw(0.0), &draw(0.05)) < 1e-6);
    assert!((same(&[1, 2, 3], &[1, 2, 3]) - 1.0).abs() < 1e-9);
    assert!(same(&vec![1; 100], &vec![2; 100]) < 1e-9);
}

/// What of the kinds can be told apart.
fn told_apart(kinds: &[Kind], times: &Times) -> Vec<String> {
    let pairs = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (4, 5)];
    let mut found = Vec::new();
    for (one, other) in pairs {
        let p = same(&times[one], &times[other]);
        let middle = |kind: usize| times[kind][SAMPLES / 2] as f64 / 1e6;
        let line = format!(
            "{} ({:.3} ms) and {} ({:.3} ms): p = {p:.4}",
            kinds[one].name,
            middle(one),
            kinds[other].name,
            middle(other)
        );
        println!("{line}");
        if p <= BOUND {
            found.push(line);
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_take_times_that_cannot_be_told_apart() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let (acme, globex) = (mesh.tenant("acme").await?, mesh.tenant("globex").await?);
    for name in ["foreign", "forbidden"] {
        admin.publish("acme", name, &identity()).await?;
        acme.until_ready(name).await?;
    }
    // What globex calls runs a model that it may not call itself.
    let graph = json!({"steps": [{"name": "only", "model": "forbidden", "inputs": {"x": "x"}, "outputs": {"y": "y"}}]});
    let tensor = |name: &str| json!([{"name": name, "datatype": "FP32", "dims": [-1]}]);
    let config = json!({"max_batch_size": 8, "input": tensor("x"), "output": tensor("y"), "graph": graph});
    let spec = json!({"format": "ensemble", "config": config});
    admin.publish_only("acme", "granted", &spec).await?;
    admin.model("acme", "granted", json!({"grants": ["globex"]})).await?;
    globex.until_ready("granted").await?;
    // A model of globex' own that a policy keeps from it.
    admin.publish("globex", "denied", &identity()).await?;
    globex.until_ready("denied").await?;
    let text = "forbid (principal in Mesh::Tenant::\"globex\", action, resource == Mesh::Model::\"globex/denied\");";
    let policy =
        json!({"apiVersion": "mesh/v1", "kind": "Policy", "metadata": {"name": "shut"}, "spec": {"cedar": text}});
    admin.apply(&[policy]).await?;
    eventually("the policy is in force", || async {
        Ok((!globex.is_ready("denied").await?).then_some(()))
    })
    .await?;
    let known = globex.key().split('_').nth(2).context("no key")?.to_owned();

    let named = |name: &'static str| Kind {
        name,
        status: b"404",
        texts: vec![request(name, globex.key())],
    };
    let shown = |name, key: &dyn Fn() -> String| Kind {
        name,
        status: b"401",
        texts: (0..TEXTS).map(|_| request("unknown", &key())).collect(),
    };
    let id = KeyId::parse(&known)?;
    let kinds = Arc::new(vec![
        named("unknown"),
        named("foreign"),
        named("forbidden"),
        named("denied"),
        shown("wrong key", &|| {
            generate_api_key_as("test", id.clone(), &mut rand::rng()).text
        }),
        shown("unknown key", &|| generate_api_key("test", &mut rand::rng()).text),
    ]);
    let address = mesh.addresses().http;
    let mut found = told_apart(&kinds, &measure(address, &kinds).await?);
    if !found.is_empty() {
        println!("once more, with fresh samples");
        found = told_apart(&kinds, &measure(address, &kinds).await?);
    }
    assert!(found.is_empty(), "can be told apart: {found:?}");
    Ok(())
}
