//! The door on a real socket: headers, files, events, and how it closes.

use std::{borrow::Cow, sync::Arc, time::Duration};

use mesh_actors::Tasks;
use reqwest::{Client, Response, StatusCode, redirect};

use crate::{AdminDoor, AdminDoorConfig, Asset, Assets, fixture_tests::Fixture};

struct Files;

impl Assets for Files {
    fn get(&self, path: &str) -> Option<Asset> {
        let (text, kind) = match path {
            "index.html" => ("<!doctype html><title>mesh</title>", "text/html; charset=utf-8"),
            "assets/app-1a2b3c.js" => ("console.log(1)", "text/javascript"),
            _ => return None,
        };
        Some(Asset {
            bytes: Cow::Borrowed(text.as_bytes()),
            content_type: Cow::Borrowed(kind),
        })
    }
}

struct Open {
    fixture: Fixture,
    door: AdminDoor,
    tasks: Tasks,
    client: Client,
}

impl Open {
    async fn new() -> Self {
        let (fixture, tasks) = (Fixture::new().await, Tasks::new());
        let parts = fixture.state.inner.parts.clone();
        let config = AdminDoorConfig {
            tls: None,
            listen: "127.0.0.1:0".parse().unwrap(),
        };
        Self {
            door: AdminDoor::start(config, parts, Arc::new(Files), &tasks).unwrap(),
            fixture,
            tasks,
            client: Client::builder().redirect(redirect::Policy::none()).build().unwrap(),
        }
    }

    async fn get(&self, path: &str) -> Response {
        let url = format!("http://{}{path}", self.door.addr());
        self.client
            .get(url)
            .bearer_auth(&self.fixture.admin)
            .send()
            .await
            .unwrap()
    }
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}

#[actix_web::test]
async fn every_answer_is_numbered_and_forbids_foreign_scripts() {
    let open = Open::new().await;
    let mut numbers = std::collections::HashSet::new();
    for path in [
        "/",
        "/admin/v1/tenants",
        "/admin/v1/nowhere",
        "/admin/x",
        "/assets/missing.js",
    ] {
        let response = open.get(path).await;
        let policy = header(&response, "content-security-policy");
        assert!(
            policy.contains("default-src 'self'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(
            !policy.contains("script-src") && !policy.contains("unsafe-eval"),
            "{policy}"
        );
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        assert!(numbers.insert(header(&response, "x-request-id").to_owned()), "{path}");
    }
    let api = open.get("/admin/v1/tenants").await;
    assert_eq!(header(&api, "cache-control"), "no-store");
}

#[actix_web::test]
async fn hashed_files_are_kept_pages_are_the_apps_and_the_api_is_not() {
    let open = Open::new().await;
    let script = open.get("/assets/app-1a2b3c.js").await;
    assert_eq!(header(&script, "cache-control"), "public, max-age=31536000, immutable");
    assert_eq!(header(&script, "content-type"), "text/javascript");
    for page in ["/", "/tenants/acme", "/index.html"] {
        let response = open.get(page).await;
        assert_eq!(
            (response.status(), header(&response, "cache-control")),
            (StatusCode::OK, "no-cache"),
            "{page}"
        );
        assert!(response.text().await.unwrap().contains("<title>mesh"), "{page}");
    }
    for missing in ["/assets/app-old.js", "/admin", "/admin/v2/x", "/admin/v1/nowhere"] {
        assert_eq!(open.get(missing).await.status(), StatusCode::NOT_FOUND, "{missing}");
    }
    let tag = header(&script, "etag").to_owned();
    let url = format!("http://{}/assets/app-1a2b3c.js", open.door.addr());
    let again = open.client.get(&url).header("if-none-match", tag).send().await.unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(
        open.client.post(&url).send().await.unwrap().status(),
        StatusCode::METHOD_NOT_ALLOWED
    );
}

#[actix_web::test]
async fn events_come_at_once_with_an_id_and_end_when_the_door_closes() {
    let open = Open::new().await;
    let mut events = open.get("/admin/v1/events").await;
    assert_eq!(header(&events, "content-type"), "text/event-stream");
    let first = events.chunk().await.unwrap().unwrap();
    let text = String::from_utf8(first.to_vec()).unwrap();
    assert!(
        text.starts_with("id: ") && text.contains("\nevent: overview\ndata: {") && text.ends_with("\n\n"),
        "{text}"
    );
    let next = events.chunk().await.unwrap().unwrap();
    assert_ne!(text.lines().next(), std::str::from_utf8(&next).unwrap().lines().next());
    open.door.stop(Duration::from_secs(5)).await;
    assert!(matches!(events.chunk().await, Ok(None)));
    let url = format!("http://{}/", open.door.addr());
    assert!(open.client.get(url).send().await.is_err());
    assert!(open.tasks.end(Duration::from_secs(5)).await.is_empty());
}

#[actix_web::test]
async fn events_of_who_is_bound_to_a_tenant_are_that_tenants() {
    let open = Open::new().await;
    open.fixture.demo().await;
    for (tenant, models) in [("acme", 1), ("globex", 0)] {
        let put = crate::fixture_tests::tenant(tenant);
        assert!(open.fixture.put(&format!("/tenants/{tenant}"), &put).await.status < 300);
        let made = serde_json::json!({"role": "viewer", "tenant": tenant});
        let made = open.fixture.post("/admin-tokens", &made).await.is(201).body;
        let url = format!("http://{}/admin/v1/events", open.door.addr());
        let events = open.client.get(url).bearer_auth(made["token"].as_str().unwrap());
        let mut events = events.send().await.unwrap();
        assert_eq!(events.status(), StatusCode::OK);
        let first = events.chunk().await.unwrap().unwrap();
        let text = std::str::from_utf8(&first).unwrap();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
        let seen: serde_json::Value = serde_json::from_str(data).unwrap();
        assert_eq!(seen["tenant"], tenant);
        assert_eq!(seen["devices"].as_array().unwrap().len(), models);
    }
}

#[actix_web::test]
async fn a_viewer_of_events_whose_token_goes_is_sent_away() {
    let open = Open::new().await;
    let made = open
        .client
        .post(format!("http://{}/admin/v1/admin-tokens", open.door.addr()));
    let made = made
        .bearer_auth(&open.fixture.admin)
        .json(&serde_json::json!({"role": "viewer"}))
        .send()
        .await
        .unwrap();
    let made: serde_json::Value = made.json().await.unwrap();
    let url = format!("http://{}/admin/v1/events", open.door.addr());
    let mut events = open
        .client
        .get(url)
        .bearer_auth(made["token"].as_str().unwrap())
        .send()
        .await
        .unwrap();
    assert!(events.chunk().await.unwrap().is_some());
    let name = made["resource"]["metadata"]["name"].as_str().unwrap();
    let url = format!("http://{}/admin/v1/admin-tokens/{name}", open.door.addr());
    let deleted = open
        .client
        .delete(url)
        .bearer_auth(&open.fixture.admin)
        .send()
        .await
        .unwrap();
    assert_eq!(deleted.status(), StatusCode::NO_CONTENT);
    while let Some(chunk) = events.chunk().await.unwrap() {
        assert!(chunk.starts_with(b"id: "));
    }
}
