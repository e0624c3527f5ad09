//! What a refusal says by the time that it takes: nothing. Names that are not there, another's, not for the caller's tenant, or kept
//! from the caller by a policy, and keys that are not there or wrong, are refused in times that cannot be told apart, where they are
//! asked to infer over either wire and where a model's metadata is read.
//!
//! All kinds of a way of asking are asked for in one run, in an order drawn at random, so that whatever else the machine does falls on
//! all of them alike. The distributions are compared two by two (Kolmogorov-Smirnov). Of so many comparisons some are below a bound on one
//! by chance alone: the bound is on all of them together (Bonferroni), which a mesh that tells nothing passes in 99 of a hundred runs. What
//! is below it is measured once more, by itself, under the same bound on all that are: only what is found both times is told apart. The two
//! runs have nothing in common, so that chance alone finds something in one of ten thousand; what is really there is found in both.
#![expect(clippy::print_stdout, reason = "the figures are for who reads the test")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use mesh_harness::{GrpcCaller, Mesh, eventually, identity};
use mesh_node::Addresses;
use mesh_policies::access::{generate_api_key, generate_api_key_as};
use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
use mesh_types::KeyId;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tonic::Code;

/// Of each kind.
const SAMPLES: usize = 10_000;
const CONNECTIONS: usize = 8;
/// Keys of one kind that differ, so that no memory of one makes the difference.
const KEYS: usize = 32;
/// The probability that in one run anything is taken for different though nothing is; of a run and its confirmation its square.
const BOUND: f64 = 0.01;
/// The kinds that are compared with each other: names, and keys.
const PAIRS: [(usize, usize); 7] = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3), (4, 5)];
/// All comparisons: where a model's metadata is read too.
const COMPARISONS: f64 = (PAIRS.len() * Way::ALL.len()) as f64;

/// How somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    HttpInfer,
    HttpMetadata,
    GrpcInfer,
}

impl Way {
    const ALL: [Self; 3] = [Self::HttpInfer, Self::HttpMetadata, Self::GrpcInfer];

    /// A whole request over HTTP.
    fn request(self, name: &str, key: &str) -> Vec<u8> {
        let head = |line: &str, length: usize| {
            format!("{line} HTTP/1.1\r\nhost: mesh\r\nauthorization: Bearer {key}\r\ncontent-length: {length}\r\n\r\n")
        };
        let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,1],"data":[1.0]}]}"#;
        let text = match self {
            Self::HttpMetadata => head(&format!("GET /v2/models/{name}"), 0),
            _ => head(&format!("POST /v2/models/{name}/infer"), body.len()) + body,
        };
        text.into_bytes()
    }
}

struct Kind {
    name: &'static str,
    /// What is asked for.
    model: &'static str,
    keys: Vec<String>,
    status: (&'static [u8], Code),
}

/// A connection of either wire for each key of every kind that is asked with there.
struct Lane {
    http: TcpStream,
    buffer: Vec<u8>,
    grpc: Vec<Vec<GrpcCaller>>,
}

impl Lane {
    async fn open(addresses: Addresses, kinds: &[Kind]) -> anyhow::Result<Self> {
        let http = TcpStream::connect(addresses.http).await?;
        http.set_nodelay(true)?;
        // One connection, which callers with other keys share.
        let first = GrpcCaller::connect(addresses.grpc, None).await?;
        let of = |kind: &Kind| kind.keys.iter().map(|key| first.showing(key)).collect();
        Ok(Self {
            http,
            buffer: Vec::new(),
            grpc: kinds.iter().map(of).collect(),
        })
    }

    /// How long it takes until the refusal is there, of one of the kinds with one of its keys.
    async fn ask(&mut self, way: Way, kinds: &[Kind], kind: usize, key: usize) -> anyhow::Result<Duration> {
        let of = &kinds[kind];
        if way != Way::GrpcInfer {
            let text = way.request(of.model, &of.keys[key]);
            return self.ask_http(of, &text).await;
        }
        let message = message(of.model);
        let begun = Instant::now();
        let answer = self.grpc[kind][key].infer(message).await;
        let took = begun.elapsed();
        let code = answer.map_or_else(|status| status.code(), |_| Code::Ok);
        ensure!(code == of.status.1, "{}: {code:?}", of.name);
        Ok(took)
    }

    /// Sends a request and reads its answer, which says its length.
    async fn ask_http(&mut self, kind: &Kind, text: &[u8]) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let Self { http, buffer, .. } = self;
        http.write_all(text).await?;
        buffer.clear();
        loop {
            ensure!(http.read_buf(buffer).await? > 0, "the connection ended");
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
            status == kind.status.0,
            "{}: {}",
            kind.name,
            String::from_utf8_lossy(buffer)
        );
        Ok(took)
    }
}

fn message(model: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![1.0_f32.to_le_bytes().to_vec().into()],
        ..ModelInferRequest::default()
    }
}

/// How long each request of a kind took.
type Times = Vec<Vec<u64>>;

/// Asks for these of the kinds.
async fn measure(addresses: Addresses, way: Way, kinds: &Arc<Vec<Kind>>, which: &[usize]) -> anyhow::Result<Times> {
    let mut order: Vec<usize> = which
        .iter()
        .flat_map(|kind| std::iter::repeat_n(*kind, SAMPLES))
        .collect();
    for at in (1..order.len()).rev() {
        order.swap(at, rand::random_range(0..=at));
    }
    let (order, next) = (Arc::new(order), Arc::new(AtomicUsize::new(0)));
    let mut connections = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (kinds, order, next) = (kinds.clone(), order.clone(), next.clone());
        connections.spawn(async move {
            let mut lane = Lane::open(addresses, &kinds).await?;
            let mut times = vec![Vec::new(); kinds.len()];
            while let Some(kind) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                let key = rand::random_range(0..kinds[*kind].keys.len());
                let took = lane.ask(way, &kinds, *kind, key).await?;
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
    // Twenty times as many comparisons as are made of the mesh: nearly all pass at the bound that is on them together, and a shift of a fiftieth of
    // what a sample spreads over does not.
    let found = |shift: f64| same(&draw(0.0), &draw(shift)) <= BOUND / COMPARISONS;
    let false_alarms = (0..20 * COMPARISONS as u32).filter(|_| found(0.0)).count();
    assert!(false_alarms <= 3, "{false_alarms} of twenty runs fail for nothing");
    assert!((0..20).all(|_| found(0.05)));
    assert!((same(&[1, 2, 3], &[1, 2, 3]) - 1.0).abs() < 1e-9);
    assert!(same(&vec![1; 100], &vec![2; 100]) < 1e-9);
}

#[test]
fn what_is_there_is_found_twice_and_chance_is_not() {
    // As refusals are: half of them within a tenth of the middle.
    let draw = |shift: f64| {
        let mut sample: Vec<u64> = (0..SAMPLES)
            .map(|_| (1e6 * (0.8 + 0.2 * (rand::random::<f64>() + rand::random::<f64>()) + shift)) as u64)
            .collect();
        sample.sort_unstable();
        sample
    };
    // A run, and its confirmation where something is below the bound.
    let found = |shifts: &[f64]| {
        let low = |shift: f64, bound: f64| same(&draw(0.0), &draw(shift)) <= bound;
        let suspects = shifts.iter().filter(|shift| low(**shift, BOUND / COMPARISONS));
        let suspects: Vec<f64> = suspects.copied().collect();
        let bound = BOUND / suspects.len() as f64;
        suspects.into_iter().filter(|shift| low(*shift, bound)).count()
    };
    let alike = vec![0.0; COMPARISONS as usize];
    let chance: usize = (0..20).map(|_| found(&alike)).sum();
    assert!(chance <= 1, "{chance} of twenty runs fail for nothing");
    // A fiftieth of the middle, in one comparison of all.
    let mut one = alike;
    one[4] = 0.02;
    assert!((0..20).all(|_| found(&one) >= 1));
}

/// Which of these pairs of kinds are below a bound on one comparison.
fn below(bound: f64, way: Way, kinds: &[Kind], times: &Times, pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (one, other) in pairs.iter().copied() {
        let p = same(&times[one], &times[other]);
        let middle = |kind: usize| times[kind][SAMPLES / 2] as f64 / 1e6;
        let line = format!(
            "{way:?}: {} ({:.3} ms) and {} ({:.3} ms): p = {p:.5}",
            kinds[one].name,
            middle(one),
            kinds[other].name,
            middle(other)
        );
        println!("{line}");
        if p <= bound {
            found.push((one, other));
        }
    }
    found
}

/// What of the kinds can be told apart, found in a run and in its confirmation.
async fn told_apart(
    addresses: Addresses,
    kinds: &Arc<Vec<Kind>>,
) -> anyhow::Result<Vec<(Way, &'static str, &'static str)>> {
    let every: Vec<usize> = (0..kinds.len()).collect();
    let mut suspects = Vec::new();
    for way in Way::ALL {
        let times = measure(addresses, way, kinds, &every).await?;
        suspects.push((way, below(BOUND / COMPARISONS, way, kinds, &times, &PAIRS)));
    }
    let number: usize = suspects.iter().map(|(_, pairs)| pairs.len()).sum();
    let mut found = Vec::new();
    for (way, pairs) in suspects.into_iter().filter(|(_, pairs)| !pairs.is_empty()) {
        println!("once more: {way:?} {pairs:?}");
        let asked = every
            .iter()
            .filter(|kind| pairs.iter().any(|(one, other)| [one, other].contains(kind)));
        let times = measure(addresses, way, kinds, &asked.copied().collect::<Vec<_>>()).await?;
        let again = below(BOUND / number as f64, way, kinds, &times, &pairs);
        let name = |kind: usize| kinds[kind].name;
        found.extend(again.into_iter().map(|(one, other)| (way, name(one), name(other))));
    }
    Ok(found)
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
        model: name,
        keys: vec![globex.key().to_owned()],
        status: (b"404", Code::NotFound),
    };
    let shown = |name, key: &dyn Fn() -> String| Kind {
        name,
        model: "unknown",
        keys: (0..KEYS).map(|_| key()).collect(),
        status: (b"401", Code::Unauthenticated),
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
    let found = told_apart(mesh.addresses(), &kinds).await?;
    assert!(found.is_empty(), "can be told apart twice: {found:?}");
    Ok(())
}
