//! An endpoint's split: shares as declared, units that stay.

use std::collections::{BTreeMap, BTreeSet};

use mesh_harness::{Caller, Mesh, identity};
use serde_json::json;

async fn two_versions(mesh: &Mesh) -> anyhow::Result<Caller> {
    let caller = mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    assert_eq!(admin.publish("acme", "m", &identity()).await?, 1);
    assert_eq!(admin.publish("acme", "m", &identity()).await?, 2);
    Ok(caller)
}

fn body(user: Option<&str>) -> serde_json::Value {
    let mut body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    if let Some(user) = user {
        body["parameters"] = json!({"user": user});
    }
    body
}

async fn arm(caller: &Caller, target: &str, user: Option<&str>) -> anyhow::Result<String> {
    let answer = caller.infer(target, &body(user)).await?.ok()?;
    Ok(answer.header("x-mesh-arm").unwrap_or("none").to_owned())
}

#[tokio::test]
async fn shares_are_as_declared_within_what_chance_allows() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = two_versions(&mesh).await?;
    let arms = [("a", "m", "1", 90.0), ("b", "m", "2", 10.0)];
    mesh.admin()?.endpoint("acme", "front", &arms).await?;
    caller.until_answers("front", &body(None)).await?;
    const REQUESTS: u32 = 1_500;
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..REQUESTS {
        *counts.entry(arm(&caller, "front", None).await?).or_default() += 1;
    }
    assert_eq!(counts.keys().collect::<Vec<_>>(), ["a", "b"]);
    // A binomial's standard deviation; six of them are passed by chance once in 500 million runs.
    let (n, p) = (f64::from(REQUESTS), 0.1);
    let bound = 6.0 * (n * p * (1.0 - p)).sqrt();
    let b = f64::from(counts["b"]);
    assert!(
        (b - n * p).abs() < bound,
        "{b} of {n} requests went to an arm with 10 percent, allowed are {bound} beside {}",
        n * p
    );
    Ok(())
}

#[tokio::test]
async fn a_unit_stays_with_its_arm_and_units_are_split() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = two_versions(&mesh).await?;
    let admin = mesh.admin()?;
    let sticky = json!({"sticky_by": "user", "salt": "0123456789abcdef0123456789abcdef"});
    let halves = [("a", "m", "1", 50.0), ("b", "m", "2", 50.0)];
    admin.endpoint_with("acme", "front", &halves, sticky.clone()).await?;
    caller.until_answers("front", &body(Some("u"))).await?;
    let users: Vec<String> = (0..60).map(|n| format!("user-{n}")).collect();
    let mut first = BTreeMap::new();
    for user in &users {
        first.insert(user, arm(&caller, "front", Some(user)).await?);
    }
    let arms: BTreeSet<&String> = first.values().collect();
    assert_eq!(arms.len(), 2, "units are split");
    for user in &users {
        assert_eq!(arm(&caller, "front", Some(user)).await?, first[user], "{user}");
    }
    // The header does what the parameter does.
    for user in users.iter().take(10) {
        let request = caller
            .post("/v2/models/front/infer")
            .header("x-mesh-unit", user)
            .json(&body(None));
        let answer = mesh_harness::Answer::of(request).await?.ok()?;
        assert_eq!(answer.header("x-mesh-arm"), Some(first[user].as_str()), "{user}");
    }
    // More for b takes units from a and none from b.
    let more = [("a", "m", "1", 25.0), ("b", "m", "2", 75.0)];
    admin.endpoint_with("acme", "front", &more, sticky).await?;
    let mover = users.iter().filter(|user| first[user] == "a");
    let mut moved = 0;
    mesh_harness::eventually("the new split is in force", || async {
        for user in &users {
            if first[user] == "a" && arm(&caller, "front", Some(user)).await? == "b" {
                return Ok(Some(()));
            }
        }
        Ok(None)
    })
    .await?;
    for user in mover {
        moved += usize::from(arm(&caller, "front", Some(user)).await? == "b");
    }
    assert!(moved > 0);
    for user in users.iter().filter(|user| first[user] == "b") {
        assert_eq!(arm(&caller, "front", Some(user)).await?, "b", "{user}");
    }
    Ok(())
}

#[tokio::test]
async fn a_version_or_label_in_the_path_pins_it() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = two_versions(&mesh).await?;
    let admin = mesh.admin()?;
    admin.model("acme", "m", json!({"labels": {"stable": 1}})).await?;
    admin.endpoint("acme", "front", &[("a", "m", "2", 100.0)]).await?;
    caller.until_answers("front", &body(None)).await?;
    caller.until_answers("m/versions/stable", &body(None)).await?;
    for (target, version) in [
        ("m/versions/1", "1"),
        ("m/versions/2", "2"),
        ("m/versions/stable", "1"),
        ("front", "2"),
        ("front/versions/1", "1"),
        ("front/versions/stable", "1"),
    ] {
        let answer = caller.infer(target, &body(None)).await?.ok()?;
        assert_eq!(answer.header("x-mesh-version"), Some(version), "{target}");
    }
    let missing = caller.infer("m/versions/9", &body(None)).await?;
    assert_eq!(missing.status.as_u16(), 404);
    Ok(())
}
