//! A mesh with 100,000 tenants and 200,000 API keys: what it takes to declare them, what memory they take of the whole process, and how
//! soon a key that is taken back lets nobody in.
//!
//! Everything goes the way that an operator's does: resources by the admin API, keys shown once, requests at the inference door.

use std::{fs, time::Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::{
    bench::{
        Bench,
        samples::{processor_ns, resident_mib},
        table::{Row, median},
    },
    node::{Node, PATIENCE},
};

const TENANTS: usize = 100_000;
const KEYS_EACH: usize = 2;
/// Tenants with their keys in one write, which takes 256 resources.
const AT_ONCE: usize = 85;
const REVOCATIONS: usize = 5;
/// How long the mesh may take until it knows of a change.
const MOST_SECONDS: f64 = 60.0;
const POLL: std::time::Duration = std::time::Duration::from_millis(2);
/// Buffers of the writes before are given back.
const SETTLES: std::time::Duration = std::time::Duration::from_secs(5);
/// Of memory for a tenant, and of milliseconds for a revocation.
const BYTES_BOUND: f64 = 2_000.0;
const REVOCATION_BOUND: f64 = 1_000.0;
/// A mesh that has so many records to read may take so long.
const START: std::time::Duration = PATIENCE.saturating_mul(5);

/// The rows.
pub(crate) fn rows(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let folder = bench.folder.join("crowd");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    let node = bench.start("crowd", &[], PATIENCE)?;
    let empty = resident_mib(node.pid())?;
    let took = Admin::of(&node)?.declare(bench)?;
    let each = format!("{TENANTS} tenants with {KEYS_EACH} keys each");
    let mut rows = vec![Row::single(
        format!("{each}: declared in"),
        "s",
        took,
        "by the admin API",
    )];
    rows.extend(memory_and_revocation(
        bench,
        &node,
        empty,
        &format!("{each}, declared"),
    )?);
    node.stop()?;
    let began = Instant::now();
    let node = bench.start("crowd", &[], START)?;
    let started = began.elapsed().as_secs_f64();
    rows.push(Row::single(format!("{each}: start"), "s", started, "until it is ready"));
    rows.extend(memory_and_revocation(
        bench,
        &node,
        empty,
        &format!("{each}, after a start"),
    )?);
    node.stop()?;
    Ok(rows)
}

fn memory_and_revocation(bench: &Bench, node: &Node, empty: f64, what: &str) -> anyhow::Result<Vec<Row>> {
    bench.interrupt.wait(SETTLES);
    let each = (resident_mib(node.pid())? - empty) * f64::from(1 << 20) / TENANTS as f64;
    let admin = Admin::of(node)?;
    let (mut known, mut gone, mut cost) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..REVOCATIONS {
        let before = processor_ns(node.pid())?;
        let (till_known, till_gone) = admin.revoke(bench, node, &name(round * (TENANTS / REVOCATIONS)))?;
        cost.push((processor_ns(node.pid())? - before) / 2e6);
        known.push(till_known);
        gone.push(till_gone);
    }
    let worst = |milliseconds: &[f64]| milliseconds.iter().copied().fold(0.0, f64::max);
    let memory = "of the whole process, beside an empty mesh; the bound is 2,000";
    Ok(vec![
        Row::pair(format!("{what}: memory of a tenant"), "B", (each, BYTES_BOUND), memory),
        Row::pair(
            format!("{what}: a key taken back"),
            "ms",
            (worst(&gone), REVOCATION_BOUND),
            "until its next request is refused; the slowest of five, beside a second",
        ),
        Row::single(
            format!("{what}: a new key"),
            "ms",
            worst(&known),
            "until it lets its caller in; the slowest of five",
        ),
        Row::single(
            format!("{what}: a change"),
            "ms",
            median(cost),
            "of a processor, requests to see it included",
        ),
    ])
}

/// The admin API.
struct Admin {
    url: String,
    token: String,
}

impl Admin {
    fn of(node: &Node) -> anyhow::Result<Self> {
        Ok(Self {
            url: format!("{}/admin/v1", node.admin_url()),
            token: format!("Bearer {}", node.admin_token()?),
        })
    }

    fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let mut answer = ureq::post(format!("{}{path}", self.url))
            .header("authorization", &self.token)
            .header("content-type", "application/json")
            .send(body.to_string())
            .with_context(|| format!("POST {path}"))?;
        Ok(serde_json::from_str(&answer.body_mut().read_to_string()?)?)
    }

    /// Seconds that it took.
    fn declare(&self, bench: &Bench) -> anyhow::Result<f64> {
        let began = Instant::now();
        for start in (0..TENANTS).step_by(AT_ONCE) {
            let resources: Vec<Value> = (start..(start + AT_ONCE).min(TENANTS)).flat_map(resources).collect();
            self.post("/apply", &json!({ "resources": resources }))?;
            if (start / AT_ONCE).is_multiple_of(100) {
                eprintln!("declared {start} of {TENANTS} tenants");
            }
            ensure!(!bench.interrupt.wait(std::time::Duration::ZERO), "stopped");
        }
        Ok(began.elapsed().as_secs_f64())
    }

    /// Makes a key and takes it back: the milliseconds until each is in force.
    fn revoke(&self, bench: &Bench, node: &Node, tenant: &str) -> anyhow::Result<(f64, f64)> {
        let made = self.post(&format!("/tenants/{tenant}/keys"), &json!({}))?;
        let key = made["key"].as_str().context("no key was made")?;
        let name = made["resource"]["metadata"]["name"]
            .as_str()
            .context("the key has no name")?;
        let known = until(bench, || Ok(status(node, key)? != 401))?;
        ureq::delete(format!("{}/tenants/{tenant}/keys/{name}", self.url))
            .header("authorization", &self.token)
            .call()?;
        let gone = until(bench, || Ok(status(node, key)? == 401))?;
        Ok((known, gone))
    }
}

/// Milliseconds until it is so.
fn until(bench: &Bench, is_so: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<f64> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed().as_secs_f64() > MOST_SECONDS || bench.interrupt.wait(POLL) {
            bail!("the mesh did not follow within {MOST_SECONDS} s");
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}

/// What a caller with this key is told of a model that is not there.
fn status(node: &Node, key: &str) -> anyhow::Result<u16> {
    let agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .build()
        .new_agent();
    let answer = agent
        .get(format!("{}/v2/models/none", node.url()))
        .header("authorization", format!("Bearer {key}"))
        .call()?;
    Ok(answer.status().as_u16())
}

fn name(index: usize) -> String {
    format!("tenant-{index}")
}

/// A tenant of a usual plan, and its keys. Nobody knows what their secrets are.
fn resources(index: usize) -> Vec<Value> {
    let of = |kind: &str, metadata: Value, spec: Value| json!({"apiVersion": "mesh/v1", "kind": kind, "metadata": metadata, "spec": spec});
    let plan = json!({
        "limits": {
            "requests": {"per_second": 100, "burst": 200},
            "device_ms": {"per_second": 500, "burst": 1_000},
            "concurrency": 64,
        },
        "budgets": {"monthly": {"requests": {"hard": 1_000_000}}},
    });
    let tenant = of("Tenant", json!({"name": name(index)}), plan);
    let key = |number: usize| {
        let metadata = json!({"tenant": name(index), "name": format!("{index:08x}{number:04x}")});
        of(
            "ApiKey",
            metadata,
            json!({"hash": format!("{:064x}", index * KEYS_EACH + number), "scopes": ["infer"]}),
        )
    };
    std::iter::once(tenant).chain((0..KEYS_EACH).map(key)).collect()
}
