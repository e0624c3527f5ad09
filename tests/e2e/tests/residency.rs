//! More models than fit into memory, and what admins and tenants see of it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use mesh_harness::{Admin, Caller, Mesh, MeshOptions, builtin, eventually, vector};
use mesh_node::{ServeOptions, Text};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};
use tokio::{sync::watch, task::JoinSet};

const MIB: u64 = 1 << 20;
const MODELS: usize = 12;
/// How long requests may take to be answered.
const PATIENCE: Duration = Duration::from_secs(60);

/// A mesh with room for four models of a MiB.
async fn small() -> anyhow::Result<Mesh> {
    let serve = ServeOptions {
        cpu_memory: Some(Text("4MiB".to_owned())),
        ..ServeOptions::default()
    };
    Mesh::start_with(MeshOptions {
        serve,
        ..MeshOptions::default()
    })
    .await
}

fn of_one_mib() -> Value {
    let mut spec = builtin("identity", &json!({"weights_bytes": MIB}));
    spec["config"]["max_batch_size"] = json!(4);
    spec
}

#[tokio::test]
async fn every_model_answers_though_a_third_of_them_fit_and_a_hint_brings_one_back() -> anyhow::Result<()> {
    let mesh = small().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    for number in 0..MODELS {
        admin
            .publish_only("acme", &format!("m-{number}"), &of_one_mib())
            .await?;
    }
    for number in 0..MODELS {
        caller.until_ready(&format!("m-{number}")).await?;
    }
    for round in 0..2 {
        for number in 0..MODELS {
            let answer = caller
                .ask(&format!("m-{number}"), &[f32::from(number as u16), 0.5])
                .await?
                .ok()?;
            assert_eq!(answer.numbers(0)?, [number as f64, 0.5], "round {round}");
        }
    }
    let devices = admin.get("/devices").await?;
    let memory = devices[0]["memory_bytes"].as_u64().unwrap_or_default();
    assert!(
        memory <= 4 * MIB && devices[0]["budget_bytes"] == json!(4 * MIB),
        "{devices}"
    );
    let models = devices[0]["models"].as_array().cloned().unwrap_or_default();
    let standing_by = models.iter().filter(|model| model["state"] == "STANDBY").count();
    assert!(standing_by >= MODELS - 4, "{devices}");
    // The first one left memory long ago.
    admin.until_state("acme", "m-0", 1, "STANDBY").await?;
    let hint = admin.request(reqwest::Method::POST, "/tenants/acme/models/m-0/warm");
    let answer: Value = hint.json(&json!({})).send().await?.error_for_status()?.json().await?;
    assert_eq!(
        (&answer["version"], &answer["devices"][0]),
        (&json!(1), &json!("cpu:0"))
    );
    admin.until_state("acme", "m-0", 1, "READY").await?;
    let metrics = mesh.metrics().await?;
    assert!(
        metrics.contains("mesh_device_memory_budget_bytes{device=\"cpu:0\"} 4194304"),
        "{metrics}"
    );
    assert!(metrics.contains("mesh_model_evictions_total{device=\"cpu:0\",model=\"acme/m-0/1\",reason=\"memory\"}"));
    let too_large = builtin("identity", &json!({"weights_bytes": 8 * MIB}));
    let version = admin.publish_only("acme", "large", &too_large).await?;
    let failed = admin.until_state("acme", "large", version, "FAILED").await?;
    let reason = failed["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("the device's budget is 4096 KiB"), "{reason}");
    Ok(())
}

/// One answer: when it was asked for, when it was there, and who computed it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    began: Instant,
    ended: Instant,
    version: u32,
}

/// A version that a label named, from when that was asked for until the next one was seen to have come.
#[derive(Debug, Clone, Copy)]
struct Named {
    version: u32,
    from: Instant,
    until: Option<Instant>,
}

impl Named {
    /// Whether the label may have named it at some time of the request.
    fn meets(&self, seen: &Seen) -> bool {
        self.from <= seen.ended && self.until.is_none_or(|until| seen.began <= until)
    }
}

/// Callers that ask for one target over and over.
struct Askers {
    tasks: JoinSet<anyhow::Result<Vec<Seen>>>,
    stop: Arc<AtomicBool>,
    answered: watch::Sender<u64>,
}

impl Askers {
    fn begin(caller: &Caller, target: &str, callers: usize) -> Self {
        let (mut tasks, stop, answered) = (JoinSet::new(), Arc::<AtomicBool>::default(), watch::Sender::new(0));
        for _ in 0..callers {
            let (caller, target, stop, answered) = (caller.clone(), target.to_owned(), stop.clone(), answered.clone());
            tasks.spawn(async move {
                let mut all = Vec::new();
                while !stop.load(Ordering::Acquire) {
                    all.push(ask(&caller, &target).await?);
                    answered.send_modify(|answered| *answered += 1);
                }
                Ok(all)
            });
        }
        Self { tasks, stop, answered }
    }

    /// Waits until so many more requests are answered; a caller that fails meanwhile is the error.
    async fn go_on_for(&mut self, requests: u64) -> anyhow::Result<()> {
        let goal = *self.answered.borrow() + requests;
        let mut answered = self.answered.subscribe();
        tokio::select! {
            waited = tokio::time::timeout(PATIENCE, answered.wait_for(|answered| *answered >= goal)) => {
                waited??;
                Ok(())
            }
            Some(ended) = self.tasks.join_next() => {
                ended??;
                anyhow::bail!("a caller has ended before it was told to")
            }
        }
    }

    async fn end(self) -> anyhow::Result<Vec<Seen>> {
        self.stop.store(true, Ordering::Release);
        let all: anyhow::Result<Vec<Vec<Seen>>> = self.tasks.join_all().await.into_iter().collect();
        Ok(all?.concat())
    }
}

/// Asks once. Each version gives its number times what it is given, so the numbers tell who computed them.
async fn ask(caller: &Caller, target: &str) -> anyhow::Result<Seen> {
    let began = Instant::now();
    let answer = caller.ask(target, &[1.0, 5.0]).await?.ok()?;
    let ended = Instant::now();
    let version: u32 = answer.header("x-mesh-version").context("no version")?.parse()?;
    let wanted = [f64::from(version), f64::from(version) * 5.0];
    anyhow::ensure!(
        answer.numbers(0)? == wanted,
        "version {version} gives {:?}",
        answer.numbers(0)?
    );
    Ok(Seen { began, ended, version })
}

/// Publishes a model that gives back `factor * x`.
async fn publish_scale(admin: &Admin, factor: u32) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("scale.pt");
    let mut forward = |inputs: &[Tensor]| inputs.iter().map(|x| x * f64::from(factor)).collect();
    let example = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
    CModule::create_by_tracing("Scale", "forward", &[example], &mut forward)?.save(&path)?;
    let mut config = vector(2, 2);
    config["max_batch_size"] = json!(8);
    config["dynamic_batching"] = json!({});
    let version = admin.publish_torchscript("acme", "m", &path, &config).await?;
    anyhow::ensure!(
        version == factor,
        "version {version} gives {factor} times what it is given"
    );
    Ok(())
}

/// Each answer is by a version that the label named at some time between its request's start and its end.
fn every_answer_was_asked_for(seen: &[Seen], named: &[Named], began: Instant) {
    let mut settled = vec![0; named.len()];
    for seen in seen {
        let met: Vec<usize> = (0..named.len()).filter(|at| named[*at].meets(seen)).collect();
        assert!(
            met.iter().any(|at| named[*at].version == seen.version),
            "version {} answered {:?} after the start what was asked for within {:?}",
            seen.version,
            seen.began - began,
            met.iter().map(|at| named[*at]).collect::<Vec<_>>(),
        );
        if let [only] = met.as_slice() {
            settled[*only] += 1;
        }
    }
    // Otherwise it would show nothing.
    let least = settled.iter().min().copied().unwrap_or_default();
    assert!(
        least > 0,
        "requests that could be answered by one version only, between switches: {settled:?}"
    );
}

#[tokio::test]
async fn a_label_is_switched_a_hundred_times_under_load_and_everybody_gets_what_was_asked_for() -> anyhow::Result<()> {
    const SWITCHES: usize = 100;
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    for factor in [1, 2] {
        publish_scale(admin, factor).await?;
    }
    admin.model("acme", "m", json!({"labels": {"stable": 1}})).await?;
    admin
        .endpoint("acme", "front", &[("main", "m", "stable", 100.0)])
        .await?;
    eventually("the label leads somewhere", || async {
        Ok(ask(&caller, "front").await.ok())
    })
    .await?;
    let began = Instant::now();
    let mut label = Askers::begin(&caller, "front", 48);
    let fixed = [1, 2].map(|version| Askers::begin(&caller, &format!("m/versions/{version}"), 8));
    let mut named = vec![Named {
        version: 1,
        from: began,
        until: None,
    }];
    label.go_on_for(100).await?;
    for round in 0..SWITCHES {
        let version = 1 + u32::from(round % 2 == 0);
        let from = Instant::now();
        admin.model("acme", "m", json!({"labels": {"stable": version}})).await?;
        // Confirmed by the first answer by it: whoever asks after that must get no other.
        let moved = eventually("the label is switched", || async {
            Ok(Some(ask(&caller, "front").await?).filter(|seen| seen.version == version))
        });
        let until = moved.await?.ended;
        if let Some(before) = named.last_mut() {
            before.until = Some(until);
        }
        named.push(Named {
            version,
            from,
            until: None,
        });
        // More than there are callers: each has asked anew.
        label.go_on_for(100).await?;
    }
    let seen = label.end().await?;
    for (version, askers) in (1..).zip(fixed) {
        let seen = askers.end().await?;
        assert!(
            seen.len() > 100 && seen.iter().all(|seen| seen.version == version),
            "version {version}"
        );
    }
    every_answer_was_asked_for(&seen, &named, began);
    assert!(seen.len() >= 100 * SWITCHES);
    Ok(())
}
