//! Signing in with a provider that answers by rote: bounds, places, and what the door does where there is none.

use std::sync::Arc;

use actix_web::http::Method;
use futures::{FutureExt as _, future::BoxFuture};
use mesh_policies::access::Identity;
use mesh_resources::AdminRole;
use serde_json::{Value, json};

use super::*;
use crate::{
    fixture_tests::{Answer, Ask, Fixture},
    throttle::MAX_ATTEMPTS,
};

/// Sends everybody to one address with their state, and knows everybody as one person.
struct Rote;

impl IdentityProvider for Rote {
    fn address(&self, asked: Asked) -> BoxFuture<'static, Result<String, ProviderError>> {
        std::future::ready(Ok(asked.state)).boxed()
    }

    fn identity(&self, returned: Returned) -> BoxFuture<'static, Result<Identity, ProviderError>> {
        let error = |outage| ProviderError {
            outage,
            text: "e".repeat(1_000),
        };
        let claims = json!({"sub": "anna", "groups": "ops"});
        let answer = match (returned.code.as_str(), claims) {
            ("outage", _) => Err(error(true)),
            ("wrong", _) => Err(error(false)),
            (_, Value::Object(claims)) => Ok(Identity::of(claims)),
            _ => panic!("no object"),
        };
        std::future::ready(answer).boxed()
    }

    fn leaving(&self, leaving: Leaving) -> BoxFuture<'static, Result<Option<String>, ProviderError>> {
        // Where to come back to, as if it were the place to go to.
        let place = format!("{}?state={}", leaving.redirect_uri, leaving.state);
        std::future::ready(Ok(Some(place))).boxed()
    }
}

fn rote() -> Option<SignIn> {
    rote_at("http://mesh.test/")
}

fn rote_at(url: &str) -> Option<SignIn> {
    Some(SignIn {
        name: "Acme".into(),
        url: Some(url.to_owned()),
        rules: RoleRules {
            user_claim: "sub".into(),
            role_claim: "groups".into(),
            roles: vec![("ops".into(), AdminRole::Admin)],
            required: None,
        },
        provider: Arc::new(Rote),
    })
}

async fn begin(door: &Fixture) -> Answer {
    door.send(Ask::new(Method::GET, "/sign-in/oidc")).await.is(303)
}

/// Begins, and comes back with this; where that leads to.
async fn come_back(door: &Fixture, with: &str) -> String {
    let begun = begin(door).await;
    let (state, cookie) = (begun.header("location"), begun.header("set-cookie"));
    let cookie = cookie.split(';').next().unwrap();
    let ask = Ask::new(Method::GET, &format!("/sign-in/oidc/callback?state={state}&{with}"));
    let answer = door.send(ask.header("cookie", cookie)).await.is(303);
    answer.header("location").to_owned()
}

/// Signs in, and out again; where that leads to.
async fn leave(door: &Fixture) -> String {
    let begun = begin(door).await;
    let (state, cookie) = (begun.header("location"), begun.header("set-cookie"));
    let cookie = cookie.split(';').next().unwrap();
    let ask = Ask::new(Method::GET, &format!("/sign-in/oidc/callback?state={state}&code=right"));
    let signed_in = door.send(ask.header("cookie", cookie)).await.is(303);
    let mut sets = signed_in.headers.get_all("set-cookie").map(|set| set.to_str().unwrap());
    let session = sets.find(|set| set.starts_with("mesh_session=")).unwrap();
    let out = Ask::new(Method::DELETE, "/session").header("cookie", session.split(';').next().unwrap());
    let out = door.send(out.header("origin", "http://mesh.test")).await.is(200);
    assert!(out.header("set-cookie").starts_with("mesh_session=;"), "it is not over");
    out.body["provider"].as_str().unwrap_or_default().to_owned()
}

/// Comes back to a place of this door.
async fn left(door: &Fixture, place: &str) {
    let path = place.strip_prefix("http://mesh.test/admin/v1").unwrap();
    let back = door.send(Ask::new(Method::GET, path)).await.is(303);
    assert_eq!(back.header("location"), "/");
}

#[actix_web::test]
async fn a_sign_out_at_the_provider_is_written_down_once_and_within_ten_minutes() {
    let door = Fixture::with(rote()).await;
    let place = leave(&door).await;
    assert!(
        place.starts_with("http://mesh.test/admin/v1/sign-in/oidc/left?state="),
        "{place}"
    );
    let before = trail(&door).await;
    left(&door, &place).await;
    let entry = door.get(&format!("/audit?after={before}")).await.body["items"][0].clone();
    assert_eq!(
        (&entry["who"], &entry["event"]),
        (&json!("oidc:anna"), &json!("sign-out at the identity provider"))
    );
    let after = trail(&door).await;
    let late = leave(&door).await;
    let noted = trail(&door).await;
    door.clock
        .advance(std::time::Duration::from_secs(LOGIN_SECONDS.unsigned_abs()));
    let long = format!(
        "{}?state={}",
        place.split('?').next().unwrap(),
        "s".repeat(MAX_TEXT + 1)
    );
    for spent in [place.as_str(), &late, place.split('?').next().unwrap(), &long] {
        left(&door, spent).await;
    }
    assert_eq!(
        trail(&door).await,
        noted,
        "after {after} there was a sign-in, and nothing else"
    );
    door.end().await;
}

#[actix_web::test]
async fn while_the_provider_is_asked_by_as_many_as_may_be_a_sign_out_is_here_alone() {
    let door = Fixture::with(rote()).await;
    let begun = begin(&door).await;
    let (state, cookie) = (begun.header("location"), begun.header("set-cookie"));
    let ask = Ask::new(Method::GET, &format!("/sign-in/oidc/callback?state={state}&code=right"));
    let signed_in = door
        .send(ask.header("cookie", cookie.split(';').next().unwrap()))
        .await
        .is(303);
    let mut sets = signed_in.headers.get_all("set-cookie").map(|set| set.to_str().unwrap());
    let session = sets
        .find(|set| set.starts_with("mesh_session="))
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let _others: Vec<_> = (0..MAX_ASKING)
        .map(|_| door.state.inner.desk.asking.try_acquire().unwrap())
        .collect();
    let out = Ask::new(Method::DELETE, "/session")
        .header("cookie", session)
        .header("origin", "http://mesh.test");
    assert_eq!(door.send(out).await.is(200).body, json!({"provider": null}));
    door.send(Ask::new(Method::GET, "/session").header("cookie", session))
        .await
        .is(401);
    door.end().await;
}

async fn trail(door: &Fixture) -> u64 {
    door.get("/audit?limit=1").await.body["latest"].as_u64().unwrap()
}

#[actix_web::test]
async fn without_a_provider_there_are_tokens_only() {
    let door = Fixture::new().await;
    let ways = door.send(Ask::new(Method::GET, "/sign-in")).await.is(200);
    assert_eq!(ways.body, json!({"oidc": null}));
    door.send(Ask::new(Method::GET, "/sign-in/oidc")).await.is(404);
    let back = door
        .send(Ask::new(Method::GET, "/sign-in/oidc/callback?state=a&code=b"))
        .await
        .is(303);
    assert_eq!(back.header("location"), "/?sign_in=ended");
    door.end().await;
}

#[actix_web::test]
async fn what_comes_back_decides_where_a_browser_goes_and_each_failure_has_a_word() {
    let door = Fixture::with(rote()).await;
    assert_eq!(come_back(&door, "code=right").await, "/");
    let before = trail(&door).await;
    for (with, word) in [
        ("code=outage", "unavailable"),
        ("error=access_denied", "denied"),
        ("", "invalid"),
    ] {
        assert_eq!(come_back(&door, with).await, format!("/?sign_in={word}"));
    }
    assert_eq!(trail(&door).await, before, "an outage is no attempt of anybody");
    let long = format!("code={}", "c".repeat(MAX_TEXT + 1));
    assert_eq!(come_back(&door, &long).await, "/?sign_in=invalid");
    assert_eq!(come_back(&door, "code=wrong").await, "/?sign_in=invalid");
    let entry = door.get(&format!("/audit?after={before}")).await.body["items"][0].clone();
    assert_eq!(entry["event"], format!("sign-in refused: {}", "e".repeat(MAX_WHY)));
    door.end().await;
}

#[actix_web::test]
async fn a_sign_in_is_over_after_ten_minutes() {
    let door = Fixture::with(rote()).await;
    let begun = begin(&door).await;
    let (state, cookie) = (begun.header("location"), begun.header("set-cookie"));
    let cookie = cookie.split(';').next().unwrap();
    door.clock
        .advance(std::time::Duration::from_secs(LOGIN_SECONDS.unsigned_abs()));
    let ask = Ask::new(Method::GET, &format!("/sign-in/oidc/callback?state={state}&code=right"));
    let answer = door.send(ask.header("cookie", cookie)).await.is(303);
    assert_eq!(answer.header("location"), "/?sign_in=ended");
    door.end().await;
}

#[actix_web::test]
async fn ten_begin_in_a_minute_from_one_address_and_thirty_two_ask_at_once() {
    let door = Fixture::with(rote()).await;
    for _ in 0..MAX_ATTEMPTS {
        assert_eq!(begin(&door).await.header("location").len(), 64);
    }
    assert_eq!(begin(&door).await.header("location"), "/?sign_in=busy");
    door.clock.advance(std::time::Duration::from_secs(60));
    let mut others: Vec<_> = (1..MAX_ASKING)
        .map(|_| door.state.inner.desk.asking.try_acquire().unwrap())
        .collect();
    assert_eq!(begin(&door).await.header("location").len(), 64);
    others.push(door.state.inner.desk.asking.try_acquire().unwrap());
    assert_eq!(begin(&door).await.header("location"), "/?sign_in=busy");
    door.end().await;
}

#[actix_web::test]
async fn behind_a_proxy_with_tls_cookies_are_secure_as_well() {
    let door = Fixture::with(rote_at("https://mesh.test")).await;
    let begun = begin(&door).await;
    let (state, set) = (begun.header("location"), begun.header("set-cookie"));
    assert!(
        set.starts_with("__Host-mesh_sign_in=") && set.contains("; Secure"),
        "{set}"
    );
    let cookie = set.split(';').next().unwrap();
    let ask = Ask::new(Method::GET, &format!("/sign-in/oidc/callback?state={state}&code=right"));
    let answer = door.send(ask.header("cookie", cookie)).await.is(303);
    assert_eq!(answer.header("location"), "/");
    let sets: Vec<&str> = answer
        .headers
        .get_all("set-cookie")
        .map(|set| set.to_str().unwrap())
        .collect();
    assert_eq!(sets.len(), 2);
    for (set, name) in sets.iter().zip(["__Host-mesh_sign_in=;", "mesh_session="]) {
        assert!(set.starts_with(name) && set.contains("; Secure"), "{set}");
    }
    door.end().await;
}

#[test]
fn a_page_is_one_of_this_door() {
    for own in [
        "/",
        "/models?a=b#c",
        "/tenants/acme",
        &format!("/{}", "a".repeat(MAX_PAGE - 1)),
    ] {
        assert_eq!(page(Some(own)), own);
    }
    let long = format!("/{}", "a".repeat(MAX_PAGE));
    for foreign in [
        "",
        "models",
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "/a\nb",
        "/ä",
        "/\"><script>",
        &long,
    ] {
        assert_eq!(page(Some(foreign)), "/", "{foreign}");
    }
    assert_eq!(page(None), "/");
}

#[test]
fn rfc7636_b_the_challenge_is_that_of_the_example() {
    let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    assert_eq!(challenge(verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
}
