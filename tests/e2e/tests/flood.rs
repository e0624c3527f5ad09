//! One tenant floods a device; two polite ones, who ask little, hardly feel it.
//!
//! Everything is compared within the run: the polite tenants' wait with what one batch takes on the idle device.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mesh_harness::{Lane, Mesh, batched, builtin};
use serde_json::json;
use tokio::task::JoinSet;

const BATCH_ROWS: u32 = 4;
const BATCH_US: u64 = 10_000;
/// Connections of the tenant that floods, each with a request under way at any time: sixteen batches.
const FLOOD: usize = 64;
const POLITE_REQUESTS: u32 = 30;
/// What a polite request may wait for, in batches: those already on the device, one that closes before it, its own, and as
/// much again for a busy machine. First come, first served would be the flood's sixteen.
const FAIR_BATCHES: f64 = 8.0;

fn middle(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Asks so many times, with a pause of so many batch times between; answers how long the answers took.
async fn politely(mut lane: Lane, requests: u32, pause: Duration) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for _ in 0..requests {
        let began = Instant::now();
        let answer = lane.ask(&[1.0]).await?;
        anyhow::ensure!(answer.status == 200, "a polite request was answered {}", answer.status);
        times.push(began.elapsed());
        tokio::time::sleep(pause).await;
    }
    Ok(times)
}

#[tokio::test]
async fn polite_tenants_wait_a_few_batches_beside_a_flood_of_sixteen() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let door = mesh.addresses().http;
    let mut callers = Vec::new();
    for name in ["flood", "polite-1", "polite-2"] {
        callers.push(mesh.tenant(name).await?);
    }
    let admin = mesh.admin()?;
    let model = batched(builtin("busy", &json!({"busy_us": BATCH_US})), BATCH_ROWS, 0);
    admin.publish("flood", "slow", &model).await?;
    let grants = json!({"grants": ["polite-1", "polite-2"]});
    admin.model("flood", "slow", grants).await?;
    for caller in &callers {
        caller.until_ready("slow").await?;
    }
    let lane = Lane::open(door, callers[1].key(), "slow", 1).await?;
    let batch = middle(politely(lane, 20, Duration::ZERO).await?);

    let (mut flood, is_over) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    for _ in 0..FLOOD {
        let mut lane = Lane::open(door, callers[0].key(), "slow", 1).await?;
        let is_over = is_over.clone();
        flood.spawn(async move {
            let mut served = 0_u32;
            while !is_over.load(Ordering::Acquire) {
                served += u32::from(lane.ask(&[2.0]).await?.status == 200);
            }
            anyhow::Ok(served)
        });
    }
    let full = format!("mesh_requests_in_flight {FLOOD}");
    mesh_harness::eventually("the flood is there", || async {
        Ok(mesh.metrics().await?.lines().any(|line| line == full).then_some(()))
    })
    .await?;
    let mut polite = JoinSet::new();
    for caller in &callers[1..] {
        let lane = Lane::open(door, caller.key(), "slow", 1).await?;
        polite.spawn(politely(lane, POLITE_REQUESTS, 4 * batch));
    }
    let mut waits = Vec::new();
    // Every polite request is answered well, or this fails.
    while let Some(times) = polite.join_next().await {
        waits.push(middle(times??));
    }
    is_over.store(true, Ordering::Release);
    let mut served = 0;
    while let Some(lane) = flood.join_next().await {
        served += lane??;
    }
    assert!(
        served > POLITE_REQUESTS,
        "the flood was served with what was left: {served}"
    );
    for wait in waits {
        let batches = wait.as_secs_f64() / batch.as_secs_f64();
        assert!(
            batches < FAIR_BATCHES,
            "a polite request waited {batches:.1} batches of {batch:?}"
        );
    }
    Ok(())
}
