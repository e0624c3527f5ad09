//! Half a minute of callers who are right, hostile or leave: every valid request is answered, and nothing of the others stays.
//! `cargo xtask bench --only soak --minutes 10` is the same for longer.

use std::time::Duration;

use mesh_harness::{Mesh, eventually, identity};
use mesh_load::{Soak, soak};

const SECONDS: u64 = 30;
/// Memory may grow by so much of what it was, in percent.
const MOST_GROWTH: u64 = 5;

/// What this process, of which the mesh is a part, has open: file descriptors and threads.
fn held() -> anyhow::Result<(usize, usize)> {
    let count = |what: &str| anyhow::Ok(std::fs::read_dir(format!("/proc/self/{what}"))?.count());
    Ok((count("fd")?, count("task")?))
}

fn resident_kib() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
    kib.ok_or_else(|| anyhow::anyhow!("no VmRSS"))
}

/// Calls that the mesh is answering, by its own count.
async fn in_flight(mesh: &Mesh) -> anyhow::Result<f64> {
    let metrics = mesh.metrics().await?;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("mesh_requests_in_flight "));
    Ok(line.unwrap_or("-1").parse()?)
}

#[tokio::test]
async fn mixed_and_hostile_traffic_leaves_nothing_behind_and_disturbs_nobody() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    let caller = mesh.tenant("acme").await?;
    admin
        .publish("acme", "echo", &mesh_harness::batched(identity(), 64, 0))
        .await?;
    caller.until_ready("echo").await?;
    let traffic = |seconds: u64| Soak {
        http: mesh.addresses().http,
        grpc: mesh.addresses().grpc,
        key: caller.key().to_owned(),
        model: "echo".to_owned(),
        duration: Duration::from_secs(seconds),
        callers: 4,
    };
    // What the first requests open for good is not a leak.
    soak(&traffic(8)).await?;
    let at_rest = |most: Option<(usize, usize)>| {
        let mesh = &mesh;
        move || async move {
            let (before, idle) = (held()?, in_flight(mesh).await?);
            tokio::time::sleep(Duration::from_millis(500)).await;
            let still = most.map_or(before == held()?, |most| before.0 <= most.0 && before.1 <= most.1);
            Ok((still && idle <= 0.0).then_some(before))
        }
    };
    let before = eventually("nothing is under way", at_rest(None)).await?;
    let memory = resident_kib()?;
    let summary = soak(&traffic(SECONDS)).await?;
    println!("{summary:?}");
    assert_eq!(summary.answered, summary.valid, "{:?}", summary.failures);
    assert!(
        summary.valid > 500 && summary.hostile > 500 && summary.left > 500,
        "{summary:?}"
    );
    let after = eventually("what callers left behind is gone", at_rest(Some(before))).await?;
    let grown = resident_kib()?;
    println!("{before:?} before, {after:?} after; {memory} KiB before, {grown} KiB after");
    assert!(
        grown <= memory + memory * MOST_GROWTH / 100,
        "memory grew from {memory} to {grown} KiB"
    );
    mesh.stop().await?;
    Ok(())
}
