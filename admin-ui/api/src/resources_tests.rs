//! Each route's way when all is well, and its refusals.

use actix_web::http::Method;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    fixture_tests::{Ask, Fixture, endpoint, resource, tenant, version_spec},
    live::MAX_EVENT_CLIENTS,
    state::MAX_UPLOADS,
};

fn revision(answer: &Value) -> u64 {
    answer["metadata"]["revision"].as_u64().unwrap()
}

#[actix_web::test]
async fn a_resource_is_created_read_changed_and_deleted() {
    let door = Fixture::new().await;
    let created = door.put("/tenants/acme", &tenant("acme")).await.is(201);
    assert_eq!(created.header("etag"), format!("\"{}\"", revision(&created.body)));
    let read = door.get("/tenants/acme").await.is(200);
    assert_eq!(read.body, created.body);
    let again = door.put("/tenants/acme", &tenant("acme")).await.is(200);
    assert_eq!(
        revision(&again.body),
        revision(&created.body),
        "nothing changed, nothing written"
    );
    let mut heavier = tenant("acme");
    heavier["spec"]["weight"] = json!(5);
    let changed = door.put("/tenants/acme", &heavier).await.is(200);
    assert!(revision(&changed.body) > revision(&created.body));
    door.delete("/tenants/acme").await.is(204);
    door.get("/tenants/acme").await.is(404);
    door.delete("/tenants/acme").await.is(404);
}

#[actix_web::test]
async fn a_conflict_names_both_revisions() {
    let door = Fixture::new().await;
    let old = revision(&door.put("/tenants/acme", &tenant("acme")).await.is(201).body);
    let mut changed = tenant("acme");
    changed["spec"]["weight"] = json!(2);
    let new = revision(&door.put("/tenants/acme", &changed).await.is(200).body);
    changed["spec"]["weight"] = json!(3);
    let put = |body: &Value| Ask::new(Method::PUT, "/tenants/acme").bearer(&door.admin).json(body);
    let in_header = door
        .send(put(&changed).header("if-match", &format!("\"{old}\"")))
        .await
        .is(409);
    let mut stale = changed.clone();
    stale["metadata"]["revision"] = json!(old);
    for answer in [in_header, door.send(put(&stale)).await.is(409)] {
        let text = answer.body["error"].as_str().unwrap();
        assert!(
            text.contains(&format!("revision {old}")) && text.contains(&format!("revision {new}")),
            "{text}"
        );
    }
    door.send(put(&changed).header("if-none-match", "*")).await.is(409);
    door.send(put(&changed).header("if-match", "soon")).await.is(400);
    door.send(put(&changed).header("if-match", &format!("\"{new}\"")))
        .await
        .is(200);
    let delete = Ask::new(Method::DELETE, "/tenants/acme")
        .bearer(&door.admin)
        .header("if-match", &format!("\"{new}\""));
    door.send(delete).await.is(409);
}

#[actix_web::test]
async fn a_dry_run_tells_the_difference_and_writes_nothing() {
    let door = Fixture::new().await;
    door.put("/tenants/acme", &tenant("acme")).await.is(201);
    let mut changed = tenant("acme");
    changed["spec"]["weight"] = json!(9);
    let would = door.put("/tenants/acme?dry_run=true", &changed).await.is(200).body;
    assert_eq!(
        (
            &would["action"],
            &would["before"]["spec"]["weight"],
            &would["after"]["spec"]["weight"]
        ),
        (&json!("changed"), &json!(1), &json!(9))
    );
    assert_eq!(door.get("/tenants/acme").await.body["spec"]["weight"], 1);
    changed["spec"]["weight"] = json!(0);
    let refused = door.put("/tenants/acme?dry_run=true", &changed).await.is(400).body;
    assert_eq!(refused["problems"][0]["field"], "spec.weight");
    let dangling = resource(
        "Endpoint",
        Some("acme"),
        "e",
        json!({"arms": [{"name": "a", "model": "none", "weight": 100}]}),
    );
    for dry_run in [true, false] {
        let both = json!({"resources": [tenant("zeta"), dangling]});
        let refused = door
            .post(&format!("/apply?dry_run={dry_run}"), &both)
            .await
            .is(400)
            .body;
        assert_eq!(
            refused["problems"][0]["field"], "resources[1].spec.arms[0].model",
            "{refused}"
        );
        door.post(&format!("/apply?dry_run={dry_run}"), &json!({"resources": [dangling]}))
            .await
            .is(400);
    }
}

#[actix_web::test]
async fn lists_come_in_pages_and_by_tenant() {
    let door = Fixture::new().await;
    let names = ["a", "b", "c"];
    for name in names {
        door.put(&format!("/tenants/{name}"), &tenant(name)).await.is(201);
        let model = resource("Model", Some(name), "m", json!({}));
        door.put(&format!("/tenants/{name}/models/m"), &model).await.is(201);
    }
    let (mut seen, mut path) = (Vec::new(), "/tenants?limit=2".to_owned());
    loop {
        let page = door.get(&path).await.is(200).body;
        seen.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/tenants?limit=2&cursor={next}");
    }
    assert_eq!(seen, names);
    assert_eq!(
        door.get("/models?tenant=b").await.body["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    for wrong in [
        "/tenants?limit=0",
        "/tenants?limit=1001",
        "/tenants?cursor=x",
        "/tenants?cursor=Model/a/m",
        "/tenants?tenant=a",
        "/models?tenant=A",
    ] {
        door.get(wrong).await.is(400);
    }
    door.get("/tenants?limit=1000").await.is(200);
}

#[actix_web::test]
async fn apply_writes_all_or_none_and_says_what_changed() {
    let door = Fixture::new().await;
    door.demo().await;
    let resources = |weight: f64, model: &str| {
        json!({"resources": [
        tenant("zeta"), endpoint(weight), resource("Model", Some("zeta"), model, json!({}))]})
    };
    let bad = door.post("/apply", &resources(101.0, "m")).await.is(400).body;
    assert!(
        bad["problems"][0]["field"]
            .as_str()
            .unwrap()
            .starts_with("resources[1].spec.arms"),
        "{bad}"
    );
    door.get("/tenants/zeta").await.is(404);
    let done = door.post("/apply", &resources(50.0, "m")).await.is(200).body;
    let actions = |done: &Value| {
        done["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["action"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(actions(&done), ["created", "changed", "created"]);
    assert_eq!(done["results"][1]["before"]["spec"]["arms"][0]["weight"], 90.0);
    assert_eq!(done["results"][1]["after"]["spec"]["arms"][0]["weight"], 50.0);
    let salt = |done: &Value| done["results"][1]["after"]["spec"]["salt"].as_str().unwrap().to_owned();
    assert_eq!(salt(&done).len(), 32);
    let again = door.post("/apply", &resources(50.0, "m")).await.is(200).body;
    assert_eq!(actions(&again), ["unchanged"; 3]);
    assert_eq!(salt(&again), salt(&done), "the split stays the same split");
    let twice = door
        .post("/apply", &json!({"resources": [tenant("zeta"), tenant("zeta")]}))
        .await
        .is(400)
        .body;
    assert!(twice.to_string().contains("there twice"), "{twice}");
    let unreadable = door
        .post("/apply", &json!({"resources": [tenant("zeta"), {"kind": "Cat"}]}))
        .await
        .is(400)
        .body;
    assert_eq!(unreadable["problems"][0]["field"], "resources[1]");
}

#[actix_web::test]
async fn apply_takes_as_many_as_one_transaction_and_not_one_more() {
    let door = Fixture::new().await;
    let many =
        |count: usize| json!({"resources": (0..count).map(|number| tenant(&format!("t{number}"))).collect::<Vec<_>>()});
    door.post("/apply", &many(crate::apply::MAX_RESOURCES + 1))
        .await
        .is(400);
    door.post("/apply", &many(crate::apply::MAX_RESOURCES)).await.is(200);
}

#[actix_web::test]
async fn versions_are_numbered_one_after_the_other_and_labels_move_with_them() {
    let door = Fixture::new().await;
    door.put("/tenants/acme", &tenant("acme")).await.is(201);
    let publish = |labels: Value| {
        let body = json!({"spec": version_spec(), "labels": labels});
        let door = &door;
        async move { door.post("/tenants/acme/models/digits/versions", &body).await }
    };
    let first = publish(json!(["stable"])).await.is(201).body;
    assert_eq!(first["metadata"]["name"], "digits/1");
    let both = join_all([publish(json!(["stable"])), publish(json!([]))]).await;
    let mut names: Vec<_> = both
        .into_iter()
        .map(|answer| answer.is(201).body["metadata"]["name"].clone())
        .collect();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["digits/2", "digits/3"]);
    let labels = door.get("/tenants/acme/models/digits").await.body["spec"]["labels"].clone();
    assert!(labels["stable"].as_u64().unwrap() >= 2, "{labels}");
    let listed = door.get("/tenants/acme/models/digits/versions").await.is(200).body;
    assert_eq!(listed["items"].as_array().unwrap().len(), 3);
    publish(json!(["7"])).await.is(400);
    let unknown = json!({"spec": version_spec()});
    door.post("/tenants/nobody/models/digits/versions", &unknown)
        .await
        .is(400);
}

#[actix_web::test]
async fn an_artifact_is_taken_by_its_digest() {
    let door = Fixture::new().await;
    let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let upload = |digest: &str| {
        Ask::new(Method::POST, "/artifacts")
            .bearer(&door.admin)
            .header("x-sha256", digest)
            .bytes(b"abc")
    };
    let taken = door.send(upload(sha256)).await.is(201).body;
    assert_eq!(taken, json!({"sha256": sha256, "bytes": 3}));
    let other = door.send(upload(&"0".repeat(64))).await;
    assert!((400..500).contains(&other.status), "{}", other.status);
    door.send(upload("ABC")).await.is(400);
    let held: Vec<_> = (0..MAX_UPLOADS)
        .map(|_| door.state.inner.uploads.try_acquire().unwrap())
        .collect();
    door.send(upload(sha256)).await.is(503);
    drop(held);
    door.send(upload(sha256)).await.is(201);
}

#[actix_web::test]
async fn a_trial_runs_on_every_arm() {
    let door = Fixture::new().await;
    door.demo().await;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]}]});
    let arms = door.post("/tenants/acme/endpoints/read/try", &body).await.is(200).body["arms"].clone();
    for (index, version) in [(0, 1), (1, 2)] {
        assert_eq!(
            (&arms[index]["version"], &arms[index]["response"]["outputs"][0]["data"]),
            (&json!(version), &json!([1.5, 2.0])),
            "{arms}"
        );
        assert!(arms[index]["milliseconds"].is_number() && arms[index].get("error").is_none());
    }
    let mut broken = body.clone();
    broken["parameters"] = json!({"broken": true});
    let arms = door
        .post("/tenants/acme/endpoints/read/try", &broken)
        .await
        .is(200)
        .body["arms"]
        .clone();
    assert_eq!(
        arms[0]["error"], "the model failed",
        "the request's parameters count: {arms}"
    );
    let wrong = json!({"inputs": [{"name": "z", "datatype": "FP32", "shape": [1, 2], "data": [1.5, 2.0]}]});
    let arms = door.post("/tenants/acme/endpoints/read/try", &wrong).await.is(200).body["arms"].clone();
    assert!(
        arms[0]["error"]
            .as_str()
            .unwrap()
            .contains("unexpected inference input 'z'"),
        "{arms}"
    );
    door.post("/tenants/acme/endpoints/nothing/try", &body).await.is(404);
    door.post("/tenants/acme/endpoints/read/try", &json!({"inputs": 1}))
        .await
        .is(400);
}

#[actix_web::test]
async fn the_overview_and_the_devices_are_there() {
    let door = Fixture::new().await;
    let overview = door.get("/overview").await.is(200).body;
    assert_eq!(overview["time"], "2030-03-17T17:46:40Z");
    assert_eq!(overview["latency_ms"], json!({"p50": null, "p90": null, "p99": null}));
    assert_eq!(overview["devices"][0]["models"][0]["state"], "READY");
    let devices = door.get("/devices").await.is(200).body;
    assert_eq!(devices[0]["device"], overview["devices"][0]["device"]);
}

#[actix_web::test]
async fn events_have_a_bound_and_a_place_is_given_back() {
    let door = Fixture::new().await;
    let held: Vec<_> = (1..MAX_EVENT_CLIENTS)
        .map(|_| door.state.inner.event_clients.try_acquire().unwrap())
        .collect();
    let last = door.state.inner.event_clients.try_acquire().unwrap();
    let answer = door.get("/events").await.is(503);
    assert_eq!(answer.header("retry-after"), "1");
    drop((held, last));
    assert_eq!(door.state.inner.event_clients.taken(), 0);
}

#[actix_web::test]
async fn the_trail_says_who_did_what_and_its_chain_holds() {
    let door = Fixture::new().await;
    let cli = Ask::new(Method::PUT, "/tenants/acme")
        .bearer(&door.admin)
        .header("user-agent", "mesh-cli/0.1.0");
    door.send(cli.json(&tenant("acme"))).await.is(201);
    door.delete("/tenants/acme").await.is(204);
    let trail = door.get("/audit").await.is(200).body["items"].clone();
    let entries = trail.as_array().unwrap();
    let (put, deleted) = (&entries[entries.len() - 2], &entries[entries.len() - 1]);
    assert_eq!(
        (&put["source"], &put["changes"][0]["key"], &put["changes"][0]["action"]),
        (&json!("cli"), &json!("Tenant/acme"), &json!("created")),
        "{put}"
    );
    assert_eq!(
        (&deleted["source"], &deleted["changes"][0]["action"]),
        (&json!("api"), &json!("deleted")),
        "{deleted}"
    );
    assert!(put["request"].is_string() && put["who"].is_string());
    let first = door.get("/audit?limit=1").await.is(200).body;
    assert_eq!(first["items"].as_array().unwrap().len(), 1);
    let after = door
        .get(&format!("/audit?limit=500&after={}", first["next"]))
        .await
        .is(200)
        .body;
    assert_eq!(after["items"].as_array().unwrap().len(), entries.len() - 1);
    door.get("/audit?limit=501").await.is(400);
    let verdict = door.get("/audit/verify").await.is(200).body;
    assert_eq!(
        (&verdict["valid"], verdict["entries"].as_u64().unwrap() as usize),
        (&json!(true), entries.len())
    );
    door.end().await;
}
