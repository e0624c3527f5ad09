//! Who may do what: every route against no credential, wrong ones, a viewer's and an admin's.

use std::time::Duration;

use actix_web::http::Method;
use mesh_resources::{AdminRole, Kind};
use serde_json::json;
use utoipa::openapi::HttpMethod;

use crate::{
    SESSION_SECONDS,
    authz::Needs,
    entry::Entry,
    fixture_tests::{Answer, Ask, Fixture, tenant, token},
    routes::entries,
    throttle::MAX_ATTEMPTS,
};

fn method(entry: &Entry) -> Method {
    match entry.method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Delete => Method::DELETE,
        _ => panic!("{} has another method", entry.id),
    }
}

fn path(entry: &Entry) -> String {
    let names = [
        ("{tenant}", "acme"),
        ("{model}", "digits"),
        ("{version}", "1"),
        ("{name}", "read"),
    ];
    names
        .iter()
        .fold(entry.path.clone(), |path, (part, name)| path.replace(part, name))
}

fn is_public(entry: &Entry) -> bool {
    matches!(
        entry.id.as_str(),
        "signIn" | "getOpenApi" | "getSignIn" | "beginSignIn" | "endSignIn" | "endSignOut"
    )
}

#[actix_web::test]
async fn every_route_needs_a_valid_token() {
    let door = Fixture::new().await;
    let mut wrong = door.admin.clone();
    wrong.pop();
    wrong.push('~');
    let foreign = token(&mesh_policies::Pepper::from_bytes([8; 32]), AdminRole::Admin).0;
    let mut asked = 0;
    for entry in entries().iter().filter(|entry| !is_public(entry)) {
        let ask = || Ask::new(method(entry), &path(entry)).json(&json!({}));
        let credentials = [
            ask(),
            ask().bearer(&wrong),
            ask().bearer(&foreign),
            ask().bearer(""),
            ask().header("authorization", &door.admin),
            ask().header("authorization", &format!("Basic {}", door.admin)),
            ask().cookie("0").header("origin", "http://mesh.test"),
        ];
        for ask in credentials {
            let answer = door.send(ask).await;
            assert_eq!(
                (answer.status, answer.header("www-authenticate")),
                (401, "Bearer"),
                "{}",
                entry.id
            );
            asked += 1;
        }
    }
    assert!(asked > 200, "only {asked} were asked");
    door.send(Ask::new(Method::GET, "/nowhere")).await.is(401);
    door.send(Ask::new(Method::GET, "/openapi.json")).await.is(200);
}

#[actix_web::test]
async fn a_viewer_reads_everything_but_backups_and_writes_nothing() {
    let door = Fixture::new().await;
    door.demo().await;
    for entry in entries()
        .iter()
        .filter(|entry| !is_public(entry) && entry.id != "signOut" && entry.id != "streamEvents")
    {
        let answer = door
            .send(
                Ask::new(method(entry), &path(entry))
                    .bearer(&door.viewer)
                    .json(&json!({})),
            )
            .await;
        // A backup reads more than a viewer may: secrets.
        if method(entry) == Method::GET && entry.id != "downloadBackup" {
            assert!(matches!(answer.status, 200 | 404), "{}: {}", entry.id, answer.status);
        } else if entry.needs == Needs::Handler {
            // What it takes is in the body, which is read first: this one says nothing.
            assert!(matches!(answer.status, 400 | 403), "{}: {}", entry.id, answer.status);
        } else if entry.id != "testPolicy" {
            assert_eq!(answer.status, 403, "{}", entry.id);
        }
    }
    assert_eq!(door.get("/tenants").await.body["items"].as_array().unwrap().len(), 1);
}

async fn sign_in(door: &Fixture, token: &str) -> Answer {
    door.send(Ask::new(Method::POST, "/session").json(&json!({ "token": token })))
        .await
}

fn session_of(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie");
    let value = cookie.split(';').next().unwrap().strip_prefix("mesh_session=").unwrap();
    assert_eq!(value.len(), 64);
    value.to_owned()
}

#[actix_web::test]
async fn a_session_is_a_strict_cookie_that_lasts_half_a_day_or_until_signing_out() {
    let door = Fixture::new().await;
    let answer = sign_in(&door, &door.admin).await.is(204);
    let cookie = answer.header("set-cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/admin", "Max-Age=43200"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let session = session_of(&answer);
    let seen = door
        .send(Ask::new(Method::GET, "/session").cookie(&session))
        .await
        .is(200);
    assert_eq!(seen.body["role"], "admin");
    // Who signs in anew has another identifier, and the one before is worth nothing.
    let body = json!({"token": door.admin});
    let again = Ask::new(Method::POST, "/session").cookie(&session).json(&body);
    let renewed = session_of(&door.send(again.header("origin", "http://mesh.test")).await.is(204));
    assert_ne!(renewed, session);
    door.send(Ask::new(Method::GET, "/session").cookie(&session))
        .await
        .is(401);
    let session = renewed;
    let other = session_of(&sign_in(&door, &door.admin).await);
    let out = Ask::new(Method::DELETE, "/session")
        .cookie(&other)
        .header("origin", "http://mesh.test");
    let out = door.send(out).await.is(200);
    assert_eq!(out.body, json!({"provider": null}));
    door.send(Ask::new(Method::GET, "/session").cookie(&other))
        .await
        .is(401);
    door.clock.advance(Duration::from_secs(SESSION_SECONDS.unsigned_abs()));
    door.send(Ask::new(Method::GET, "/session").cookie(&session))
        .await
        .is(401);
}

#[actix_web::test]
async fn a_write_with_a_cookie_comes_from_our_own_pages() {
    let door = Fixture::new().await;
    let session = session_of(&sign_in(&door, &door.admin).await);
    let put = || {
        Ask::new(Method::PUT, "/tenants/acme")
            .cookie(&session)
            .json(&tenant("acme"))
    };
    door.send(put()).await.is(403);
    for foreign in [
        "http://evil.test",
        "http://mesh.test.evil.test",
        "null",
        "mesh.test",
        "http://mesh.test:81",
    ] {
        door.send(put().header("origin", foreign)).await.is(403);
    }
    door.send(put().header("origin", "http://mesh.test")).await.is(201);
    let elsewhere = Ask::new(Method::POST, "/session")
        .header("origin", "http://evil.test")
        .json(&json!({"token": door.admin}));
    door.send(elsewhere).await.is(403);
    let trail = door.get("/audit").await.is(200).body;
    let last = trail["items"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["source"], "ui");
}

#[actix_web::test]
async fn a_token_that_ends_or_is_deleted_takes_its_sessions_along() {
    let door = Fixture::new().await;
    let made = door
        .post(
            "/admin-tokens",
            &json!({"role": "viewer", "expires": "2030-03-17T17:47:40Z"}),
        )
        .await
        .is(201)
        .body;
    let (text, name) = (
        made["token"].as_str().unwrap(),
        made["resource"]["metadata"]["name"].as_str().unwrap(),
    );
    let session = session_of(&sign_in(&door, text).await);
    door.send(Ask::new(Method::GET, "/tenants").cookie(&session))
        .await
        .is(200);
    door.clock.advance(Duration::from_secs(60));
    door.send(Ask::new(Method::GET, "/tenants").cookie(&session))
        .await
        .is(401);
    door.send(Ask::new(Method::GET, "/tenants").bearer(text)).await.is(401);
    door.delete(&format!("/admin-tokens/{name}")).await.is(204);
    let made = door.post("/admin-tokens", &json!({"role": "admin"})).await.is(201).body;
    let (text, name) = (
        made["token"].as_str().unwrap(),
        made["resource"]["metadata"]["name"].as_str().unwrap(),
    );
    let session = session_of(&sign_in(&door, text).await);
    door.delete(&format!("/admin-tokens/{name}")).await.is(204);
    door.send(Ask::new(Method::GET, "/tenants").cookie(&session))
        .await
        .is(401);
}

#[actix_web::test]
async fn the_last_admins_token_stays() {
    let door = Fixture::new().await;
    let tokens = door.get("/admin-tokens").await.body["items"].clone();
    let admin = tokens
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["spec"]["role"] == "admin")
        .unwrap();
    let path = format!("/admin-tokens/{}", admin["metadata"]["name"].as_str().unwrap());
    let refused = door.delete(&path).await.is(400).body;
    assert!(
        refused["problems"][0]["problem"]
            .as_str()
            .unwrap()
            .contains("last admin's token"),
        "{refused}"
    );
    // Nor does it become a viewer's, by itself or among others.
    let mut lowered = admin.clone();
    lowered["spec"]["role"] = json!("viewer");
    door.put(&path, &lowered).await.is(400);
    let apply = json!({"resources": [lowered, tenant("acme")]});
    door.post("/apply", &apply).await.is(400);
    door.get("/tenants/acme").await.is(404);
    let another = door.post("/admin-tokens", &json!({"role": "admin"})).await.is(201).body;
    door.delete(&path).await.is(204);
    door.get("/tenants").await.is(401);
    door.send(Ask::new(Method::GET, "/tenants").bearer(another["token"].as_str().unwrap()))
        .await
        .is(200);
}

#[actix_web::test]
async fn a_token_may_have_a_name_and_the_trail_says_it() {
    let door = Fixture::new().await;
    let body = json!({"role": "admin", "name": "anna"});
    let made = door.post("/admin-tokens", &body).await.is(201).body;
    assert_eq!(made["resource"]["metadata"]["name"], "anna");
    let text = made["token"].as_str().unwrap();
    let write = Ask::new(Method::PUT, "/tenants/acme")
        .bearer(text)
        .json(&tenant("acme"));
    door.send(write).await.is(201);
    let trail = door.get("/audit").await.body;
    assert_eq!(trail["items"].as_array().unwrap().last().unwrap()["who"], "anna");
    door.post("/admin-tokens", &body).await.is(409);
    let bad = json!({"role": "admin", "name": "Anna Smith"});
    door.post("/admin-tokens", &bad).await.is(400);
}

#[actix_web::test]
async fn signing_in_is_tried_ten_times_a_minute() {
    let door = Fixture::new().await;
    for _ in 0..MAX_ATTEMPTS {
        sign_in(&door, "meshadmin_guess").await.is(401);
    }
    let answer = sign_in(&door, &door.admin).await.is(429);
    assert_eq!(answer.header("retry-after"), "60");
    door.clock.advance(Duration::from_secs(60));
    sign_in(&door, &door.admin).await.is(204);
}

#[actix_web::test]
async fn secrets_are_shown_once_and_hashes_never() {
    let door = Fixture::new().await;
    door.demo().await;
    let made = door
        .post("/tenants/acme/keys", &json!({"name": "ci", "description": "builds"}))
        .await
        .is(201)
        .body;
    let key = made["key"].as_str().unwrap();
    assert!(key.starts_with("mesh_live_ci_"), "{key}");
    let secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA==";
    let issuer = crate::fixture_tests::resource(
        "Issuer",
        None,
        "idp",
        json!({"issuer": "https://idp.test", "audiences": ["mesh"],
        "keys": [{"algorithm": "HS256", "secret_base64": secret}], "tenants": {"claim": "tenant"}}),
    );
    let put = door.put("/issuers/idp", &issuer).await.is(201).body;
    let stored = door.registry.all().unwrap().1;
    let mut hashes: Vec<String> = vec![secret.to_owned(), key.to_owned()];
    for one in &stored {
        let spec = serde_json::to_value(one).unwrap()["spec"].clone();
        hashes.extend(spec["hash"].as_str().map(ToOwned::to_owned));
    }
    assert_eq!(hashes.len(), 5);
    let mut answers = vec![put, made["resource"].clone()];
    for kind in Kind::ALL {
        answers.push(door.get(&format!("/{}", kind.plural())).await.is(200).body);
    }
    for path in [
        "/tenants/acme/keys/ci",
        "/issuers/idp",
        "/audit?limit=500",
        "/session",
        "/overview",
    ] {
        answers.push(door.get(path).await.is(200).body);
    }
    answers.push(
        door.post("/apply?dry_run=true", &json!({"resources": [issuer]}))
            .await
            .is(200)
            .body,
    );
    for answer in answers {
        for hash in &hashes {
            assert!(!answer.to_string().contains(hash.as_str()), "{answer}");
        }
    }
}

#[actix_web::test]
async fn a_redacted_resource_can_be_written_back_without_losing_its_secret() {
    let door = Fixture::new().await;
    door.demo().await;
    door.post("/tenants/acme/keys", &json!({"name": "ci"})).await.is(201);
    let key = "ApiKey/acme/ci".parse().unwrap();
    let before = door.registry.get(&key).unwrap().unwrap();
    let mut shown = door.get("/tenants/acme/keys/ci").await.is(200).body;
    shown["spec"]["revoked"] = json!(true);
    door.put("/tenants/acme/keys/ci", &shown).await.is(200);
    let after = door.registry.get(&key).unwrap().unwrap();
    let hash = |resource| serde_json::to_value(resource).unwrap()["spec"]["hash"].clone();
    assert_eq!(hash(&before), hash(&after));
    shown["metadata"] = json!({"tenant": "acme", "name": "other"});
    let answer = door.put("/tenants/acme/keys/other", &shown).await.is(400);
    assert!(answer.body.to_string().contains("spec.hash"), "{}", answer.body);
}

#[actix_web::test]
async fn bodies_have_a_bound_a_type_and_a_shape() {
    let door = Fixture::new().await;
    let put = || Ask::new(Method::PUT, "/tenants/acme").bearer(&door.admin);
    let padded = |bytes: usize| {
        let text = tenant("acme").to_string();
        format!("{text}{}", " ".repeat(bytes - text.len()))
    };
    let json = |text: &str| put().header("content-type", "application/json").bytes(text.as_bytes());
    let login = |bytes: usize| {
        let start = r#"{"token":""#;
        let body = format!("{start}{}\"}}", "x".repeat(bytes - start.len() - 2));
        Ask::new(Method::POST, "/session")
            .header("content-type", "application/json")
            .bytes(body.as_bytes())
    };
    door.send(login(crate::routes::MAX_LOGIN_BYTES)).await.is(401);
    door.send(login(crate::routes::MAX_LOGIN_BYTES + 1)).await.is(413);
    door.send(json(&padded(crate::routes::MAX_JSON_BYTES))).await.is(201);
    door.send(json(&padded(crate::routes::MAX_JSON_BYTES + 1)))
        .await
        .is(413);
    door.send(put().bytes(tenant("acme").to_string().as_bytes()))
        .await
        .is(415);
    door.send(json("{")).await.is(400);
    let mut odd = tenant("acme");
    odd["spec"]["wieght"] = json!(1);
    let answer = door.put("/tenants/acme", &odd).await.is(400);
    assert!(
        answer.body["error"].as_str().unwrap().contains("wieght"),
        "{}",
        answer.body
    );
    door.put("/tenants/other", &tenant("acme")).await.is(400);
    door.send(Ask::new(Method::POST, "/tenants/acme").bearer(&door.admin))
        .await
        .is(405);
    door.get("/nowhere").await.is(404);
    door.get("/tenants/Not%20A%20Name").await.is(400);
}

#[actix_web::test]
async fn a_backup_is_an_admins_one_at_a_time_and_in_the_trail() {
    let door = Fixture::new().await;
    door.demo().await;
    let path = "/backup";
    let answer = door
        .send(Ask::new(Method::GET, path).bearer(&door.viewer))
        .await
        .is(403);
    assert!(
        answer.body["error"]
            .as_str()
            .unwrap()
            .contains("may not do mesh:backup to the mesh"),
        "{}",
        answer.body
    );
    door.send(Ask::new(Method::GET, path)).await.is(401);
    let others: Vec<_> = (0..crate::backup::MAX_BACKUPS)
        .map(|_| door.state.inner.backups.try_acquire().unwrap())
        .collect();
    assert_eq!(door.get(path).await.is(503).header("retry-after"), "1");
    drop(others);
    let answer = door.get(path).await.is(200);
    let latest = door.get("/audit?limit=1").await.body["latest"].as_u64().unwrap();
    assert_eq!(
        answer.header("content-disposition"),
        format!("attachment; filename=\"mesh-backup-{latest}.tar\"")
    );
    let trail = door.get(&format!("/audit?after={}", latest - 1)).await.body;
    let name = door.admin.split('_').nth(1).unwrap();
    assert_eq!(
        (&trail["items"][0]["event"], &trail["items"][0]["who"]),
        (&json!("backup"), &json!(name))
    );
    assert_eq!(
        (&trail["items"][0]["changes"], &trail["begins"]),
        (&json!([]), &json!(1))
    );
    // Given back, although nothing was asked of the caller after the last piece.
    door.get(path).await.is(200);
}
