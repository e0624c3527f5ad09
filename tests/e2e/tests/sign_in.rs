//! Signing in to the admin door with an identity provider: the whole way of a browser, and one test for each way to cheat.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use jsonwebtoken::Algorithm;
use mesh_harness::{Authority, Mesh, MeshOptions, ServeOptions, Text};
use mesh_node::{LoginOptions, Secret, TlsOptions};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect::Policy};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

mod identity {
    pub(crate) mod people;
    pub(crate) mod signer;
    pub(crate) mod wire;
}
use self::identity::{
    people::{ACCESS_TOKEN, CLIENT, People, SECRET},
    signer::{Signer, base64, claims, now, signed},
};

const BEGIN: &str = "/admin/v1/sign-in/oidc";
const LEFT: &str = "/admin/v1/sign-in/oidc/left";
const CALLBACK: &str = "/admin/v1/sign-in/oidc/callback";

fn text(text: &str) -> Option<Text> {
    Some(Text(text.to_owned()))
}

fn options(issuer: &str) -> LoginOptions {
    LoginOptions {
        oidc_issuer: text(issuer),
        oidc_client_id: text(CLIENT),
        oidc_client_secret: Some(SECRET.parse::<Secret>().unwrap_or_else(|never| match never {})),
        oidc_name: text("Acme"),
        oidc_roles: text("ops=admin,staff=viewer"),
        oidc_require: text("org=acme"),
        ..LoginOptions::default()
    }
}

/// Somebody's browser: follows no redirect by itself, and keeps cookies.
#[derive(Default)]
struct Browser {
    client: Client,
    cookies: BTreeMap<String, String>,
    /// The last `Set-Cookie` of each cookie.
    set: BTreeMap<String, String>,
}

impl Browser {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::builder().redirect(Policy::none()).build()?,
            ..Self::default()
        })
    }

    async fn send(&mut self, method: Method, url: &str, body: Option<Value>) -> anyhow::Result<Response> {
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let mut request = self
            .client
            .request(method.clone(), url)
            .header("cookie", cookies.join("; "));
        if method != Method::GET {
            let url = Url::parse(url)?;
            request = request.header("origin", url.origin().ascii_serialization());
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        for set in answer.headers().get_all("set-cookie") {
            let set = set.to_str()?;
            let (name, value) = set
                .split(';')
                .next()
                .unwrap_or(set)
                .split_once('=')
                .context("no cookie")?;
            self.set.insert(name.to_owned(), set.to_owned());
            if value.is_empty() {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(answer)
    }

    /// Where a page sends on to.
    async fn sent_on(&mut self, url: &str) -> anyhow::Result<String> {
        let answer = self.send(Method::GET, url, None).await?;
        ensure!(answer.status().is_redirection(), "{url}: {}", answer.status());
        Ok(answer.headers()["location"].to_str()?.to_owned())
    }
}

/// A mesh, and the provider that its admins sign in with.
struct Bed {
    mesh: Mesh,
    people: People,
    door: String,
}

impl Bed {
    async fn start() -> anyhow::Result<Self> {
        Self::with(true, |options| options).await
    }

    async fn with(says_iss: bool, more: impl FnOnce(LoginOptions) -> LoginOptions) -> anyhow::Result<Self> {
        let people = People::start(Signer::new("k", Algorithm::ES256)?, says_iss).await?;
        let serve = ServeOptions {
            login: more(options(&people.issuer())),
            ..ServeOptions::default()
        };
        let mesh = Mesh::start_with(MeshOptions {
            serve,
            ..MeshOptions::default()
        })
        .await?;
        let door = format!("http://{}", mesh.addresses().admin);
        people.allow(&format!("{door}{CALLBACK}"));
        people.is(json!({"groups": ["ops"], "org": "acme"}));
        Ok(Self { mesh, people, door })
    }

    /// The address that the provider sends a browser back to.
    async fn sent_back(&self, browser: &mut Browser, to: &str) -> anyhow::Result<String> {
        let provider = browser.sent_on(&format!("{}{BEGIN}{to}", self.door)).await?;
        ensure!(provider.starts_with(&self.people.issuer()), "{provider}");
        browser.sent_on(&provider).await
    }

    /// Where a browser ends that does all that it is told.
    async fn sign_in(&self, browser: &mut Browser) -> anyhow::Result<String> {
        let back = self.sent_back(browser, "").await?;
        browser.sent_on(&back).await
    }

    async fn session(&self, browser: &mut Browser) -> anyhow::Result<(StatusCode, Value)> {
        let answer = browser
            .send(Method::GET, &format!("{}/admin/v1/session", self.door), None)
            .await?;
        Ok((answer.status(), answer.json().await?))
    }

    /// A sign-in ends without a session, and the audit log says why.
    async fn refuses(&self, why: &str) -> anyhow::Result<()> {
        let mut browser = Browser::new()?;
        let place = self.sign_in(&mut browser).await?;
        ensure!(place == "/?sign_in=invalid", "{why}: {place}");
        self.is_nobody(&mut browser).await?;
        let entry = self.last_event().await?;
        let event = entry["event"].as_str().context("no event")?;
        ensure!(
            entry["who"] == "nobody" && event.starts_with("sign-in refused: "),
            "{entry}"
        );
        ensure!(event.contains(why), "{why}: {event}");
        Ok(())
    }

    async fn is_nobody(&self, browser: &mut Browser) -> anyhow::Result<()> {
        ensure!(!browser.cookies.contains_key("mesh_session"), "there is a session");
        let (status, body) = self.session(browser).await?;
        ensure!(status == 401, "{body}");
        Ok(())
    }

    /// The newest entry of the audit log that is no signature.
    async fn last_event(&self) -> anyhow::Result<Value> {
        let admin = self.mesh.admin()?;
        let latest = admin.get("/audit?limit=1").await?["latest"]
            .as_u64()
            .context("no revision")?;
        let page = admin.get(&format!("/audit?after={}", latest.saturating_sub(3))).await?;
        let items = page["items"].as_array().context("no items")?;
        let last = items.iter().rev().find(|item| item["signed_by"].is_null());
        Ok(last.context("no entry")?.clone())
    }
}

#[tokio::test]
async fn somebody_signs_in_with_the_provider_works_under_their_name_and_signs_out() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    let mut browser = Browser::new()?;
    let ways = browser
        .send(Method::GET, &format!("{}/admin/v1/sign-in", bed.door), None)
        .await?;
    ensure!(ways.json::<Value>().await? == json!({"oidc": "Acme"}));
    let back = bed.sent_back(&mut browser, "?to=/models%3Fa%3Db").await?;
    let begun = browser.set.get("mesh_sign_in").context("no cookie")?;
    for part in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=600"] {
        ensure!(begun.contains(part), "{begun}");
    }
    ensure!(browser.sent_on(&back).await? == "/models?a=b");
    let session = browser.set.get("mesh_session").context("no cookie")?;
    for part in ["HttpOnly", "SameSite=Strict", "Path=/admin", "Max-Age=43200"] {
        ensure!(session.contains(part), "{session}");
    }
    ensure!(!browser.cookies.contains_key("mesh_sign_in"), "the sign-in is over");
    let (status, who) = bed.session(&mut browser).await?;
    ensure!(
        status == 200 && who["who"] == "oidc:anna" && who["role"] == "admin",
        "{who}"
    );
    let entry = bed.last_event().await?;
    ensure!(
        entry["who"] == "oidc:anna" && entry["event"] == "sign-in as admin",
        "{entry}"
    );
    ensure!(entry["from"] == "127.0.0.1" && entry["request"].is_string(), "{entry}");

    let tenant = json!({"apiVersion": "mesh/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}});
    let url = format!("{}/admin/v1/tenants/acme", bed.door);
    let written = browser.send(Method::PUT, &url, Some(tenant)).await?;
    ensure!(written.status() == 201, "{}", written.text().await?);
    let entry = bed.last_event().await?;
    ensure!(entry["who"] == "oidc:anna" && entry["source"] == "ui", "{entry}");

    // Another sign-in gets another session, and ends this one.
    let before = browser.cookies["mesh_session"].clone();
    ensure!(bed.sign_in(&mut browser).await? == "/");
    let after = browser
        .cookies
        .insert("mesh_session".into(), before)
        .context("no session")?;
    ensure!(after != browser.cookies["mesh_session"] && bed.session(&mut browser).await?.0 == 401);
    browser.cookies.insert("mesh_session".into(), after.clone());
    let out = browser
        .send(Method::DELETE, &format!("{}/admin/v1/session", bed.door), None)
        .await?;
    ensure!(out.status() == 200 && out.json::<Value>().await? == json!({"provider": null}));
    browser.cookies.insert("mesh_session".into(), after);
    ensure!(bed.session(&mut browser).await?.0 == 401);
    Ok(())
}

#[tokio::test]
async fn a_viewers_group_gives_a_viewer_and_no_group_nobody() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    bed.people.is(json!({"groups": ["staff"], "org": "acme"}));
    let mut browser = Browser::new()?;
    ensure!(bed.sign_in(&mut browser).await? == "/");
    ensure!(bed.session(&mut browser).await?.1["role"] == "viewer");
    let tenant = json!({"apiVersion": "mesh/v1", "kind": "Tenant", "metadata": {"name": "acme"}, "spec": {}});
    let url = format!("{}/admin/v1/tenants/acme", bed.door);
    ensure!(browser.send(Method::PUT, &url, Some(tenant)).await?.status() == 403);
    for (claims, why) in [
        (
            json!({"groups": ["guests"], "org": "acme"}),
            "no claim that gives a role",
        ),
        (json!({"org": "acme"}), "no claim that gives a role"),
        (json!({"groups": ["ops"]}), "the required claim is missing"),
        (
            json!({"groups": ["ops"], "org": "globex"}),
            "the required claim is missing",
        ),
    ] {
        bed.people.is(claims);
        let mut browser = Browser::new()?;
        ensure!(bed.sign_in(&mut browser).await? == "/?sign_in=role");
        bed.is_nobody(&mut browser).await?;
        let entry = bed.last_event().await?;
        ensure!(entry["who"] == "oidc:anna", "{entry}");
        ensure!(entry["event"] == format!("sign-in refused: {why}"), "{entry}");
    }
    Ok(())
}

#[tokio::test]
async fn a_wrong_or_replayed_state_and_another_browser_sign_nobody_in() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    let (mut browser, mut other) = (Browser::new()?, Browser::new()?);
    let back = bed.sent_back(&mut browser, "").await?;
    let mut wrong = Url::parse(&back)?;
    let changed: Vec<(String, String)> = wrong
        .query_pairs()
        .map(|(name, value)| {
            let value = if name == "state" {
                "0".repeat(64)
            } else {
                value.into_owned()
            };
            (name.into_owned(), value)
        })
        .collect();
    wrong.query_pairs_mut().clear().extend_pairs(changed);
    for place in [
        wrong.as_str(),
        &format!("{}{CALLBACK}", bed.door),
        &format!("{}{CALLBACK}?state=&state=", bed.door),
    ] {
        let mut copy = Browser::new()?;
        copy.cookies = browser.cookies.clone();
        ensure!(copy.sent_on(place).await? == "/?sign_in=ended", "{place}");
        bed.is_nobody(&mut copy).await?;
    }
    // The address in another browser, as one that a victim is led to: RFC 6749, 10.12. It is spent by that.
    ensure!(other.sent_on(&back).await? == "/?sign_in=browser");
    bed.is_nobody(&mut other).await?;
    ensure!(browser.sent_on(&back).await? == "/?sign_in=ended");
    bed.is_nobody(&mut browser).await?;
    // One that was come back to is spent as well.
    let back = bed.sent_back(&mut browser, "").await?;
    let cookies = browser.cookies.clone();
    ensure!(browser.sent_on(&back).await? == "/");
    other.cookies = cookies;
    ensure!(other.sent_on(&back).await? == "/?sign_in=ended");
    bed.is_nobody(&mut other).await
}

#[tokio::test]
async fn rfc7636_a_code_of_another_sign_in_is_of_no_use() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    let (mut victim, mut thief) = (Browser::new()?, Browser::new()?);
    let code = |back: &str| -> anyhow::Result<String> {
        let url = Url::parse(back)?;
        let code = url.query_pairs().find(|(name, _)| name == "code").context("no code")?;
        Ok(code.1.into_owned())
    };
    // The victim's code, brought back in the thief's own sign-in: its verifier is another.
    let stolen = code(&bed.sent_back(&mut victim, "").await?)?;
    let own = bed.sent_back(&mut thief, "").await?;
    let mut forged = Url::parse(&own)?;
    let changed: Vec<(String, String)> = Url::parse(&own)?
        .query_pairs()
        .map(|(name, value)| {
            let value = if name == "code" {
                stolen.clone()
            } else {
                value.into_owned()
            };
            (name.into_owned(), value)
        })
        .collect();
    forged.query_pairs_mut().clear().extend_pairs(changed);
    ensure!(thief.sent_on(forged.as_str()).await? == "/?sign_in=invalid");
    bed.is_nobody(&mut thief).await?;
    let entry = bed.last_event().await?;
    ensure!(entry["who"] == "nobody", "{entry}");
    let event = "sign-in refused: the identity provider refused the code: invalid_grant";
    ensure!(entry["event"] == event, "{entry}");
    Ok(())
}

#[tokio::test]
async fn an_identity_token_of_another_nonce_audience_issuer_or_time_signs_nobody_in() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    for (changes, why) in [
        (json!({"nonce": "another"}), "nonce is not that of this sign-in"),
        (json!({"aud": "another"}), "aud does not name the client"),
        (json!({"aud": [CLIENT, "another"]}), "azp is not the client"),
        (json!({"azp": "another"}), "azp is not the client"),
        (json!({"iss": "http://127.0.0.1:1"}), "iss is not the configured issuer"),
        (json!({"exp": now() - 60}), "has expired"),
        (json!({"iat": now() - 3_600}), "was not made just now"),
    ] {
        bed.people.claims_instead(changes);
        bed.refuses(why).await?;
    }
    bed.people
        .claims_instead(json!({"aud": [CLIENT, "another"], "azp": CLIENT}));
    ensure!(bed.sign_in(&mut Browser::new()?).await? == "/");
    Ok(())
}

#[tokio::test]
async fn an_identity_token_beside_another_access_token_signs_nobody_in() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    // base64url of the first half of the SHA-256, as the token is signed with ES256.
    let half = |text: &str| base64(&Sha256::digest(text.as_bytes())[..16]);
    for wrong in [
        json!(half("another")),
        json!(base64(&Sha256::digest(ACCESS_TOKEN))),
        json!(""),
    ] {
        bed.people.claims_instead(json!({"at_hash": wrong}));
        bed.refuses("at_hash is not that of the access token").await?;
    }
    bed.people.claims_instead(json!({"at_hash": half(ACCESS_TOKEN)}));
    ensure!(bed.sign_in(&mut Browser::new()?).await? == "/");
    Ok(())
}

#[tokio::test]
async fn who_signs_out_is_signed_out_at_the_provider_and_comes_back() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    bed.people.signs_out(&format!("{}{LEFT}", bed.door));
    let mut browser = Browser::new()?;
    ensure!(bed.sign_in(&mut browser).await? == "/");
    ensure!(bed.people.signed_in() == 1);
    let url = format!("{}/admin/v1/session", bed.door);
    let out = browser.send(Method::DELETE, &url, None).await?.error_for_status()?;
    let out: Value = out.json().await?;
    let place = out["provider"].as_str().context("nowhere to go")?;
    ensure!(place.starts_with(&bed.people.issuer()), "{place}");
    // It is over here before the browser goes anywhere.
    bed.is_nobody(&mut browser).await?;
    let back = browser.sent_on(place).await?;
    ensure!(bed.people.signed_in() == 0);
    ensure!(back.starts_with(&format!("{}{LEFT}?state=", bed.door)), "{back}");
    ensure!(browser.sent_on(&back).await? == "/");
    let entry = bed.last_event().await?;
    ensure!(
        entry["who"] == "oidc:anna" && entry["event"] == "sign-out at the identity provider",
        "{entry}"
    );
    // A state of nobody's, and the same once more: on to the first page, and no line in the log.
    let latest = bed.mesh.admin()?.get("/audit?limit=1").await?["latest"].clone();
    for place in [
        back,
        format!("{}{LEFT}?state=x&to=https://evil.example/", bed.door),
        format!("{}{LEFT}", bed.door),
    ] {
        ensure!(browser.sent_on(&place).await? == "/", "{place}");
    }
    ensure!(bed.mesh.admin()?.get("/audit?limit=1").await?["latest"] == latest);
    // Who came with a token has nothing to sign out of there.
    let token = json!({"token": bed.mesh.admin()?.token()});
    browser
        .send(Method::POST, &url, Some(token))
        .await?
        .error_for_status()?;
    let out: Value = browser.send(Method::DELETE, &url, None).await?.json().await?;
    ensure!(out == json!({"provider": null}), "{out}");
    Ok(())
}

#[tokio::test]
async fn a_sign_out_while_the_provider_is_gone_is_one_here_alone() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    let mut browser = Browser::new()?;
    ensure!(bed.sign_in(&mut browser).await? == "/");
    let Bed { mesh, people, door } = bed;
    // Its document is remembered for a while, and names no place for this.
    drop(people);
    let url = format!("{door}/admin/v1/session");
    let out = browser.send(Method::DELETE, &url, None).await?.error_for_status()?;
    ensure!(out.json::<Value>().await? == json!({"provider": null}));
    ensure!(browser.send(Method::GET, &url, None).await?.status() == 401);
    drop(mesh);
    Ok(())
}

#[tokio::test]
async fn an_unsigned_or_foreign_identity_token_signs_nobody_in() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    bed.people.forges(|_, claims| {
        let header = json!({"alg": "none", "typ": "JWT"}).to_string();
        Ok(format!(
            "{}.{}.",
            base64(header.as_bytes()),
            base64(claims.to_string().as_bytes())
        ))
    });
    bed.refuses("alg is none that a published key signs with").await?;
    bed.people.forges(|signer, claims| {
        let foreign = Signer::new(&signer.kid, signer.algorithm)?;
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": signer.kid}).to_string();
        foreign.raw(&header, &claims.to_string())
    });
    bed.refuses("signature does not hold").await?;
    // The client's secret is known to both, and still is no key: RFC 8725, 2.1.
    bed.people.forges(|_, claims| {
        let header = json!({"alg": "HS256", "typ": "JWT"}).to_string();
        let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
        signed(&header, &claims.to_string(), &key, Algorithm::HS256)
    });
    bed.refuses("alg is none that a published key signs with").await?;
    // An access token of the same issuer for the same audience: RFC 8725, 3.11.
    bed.people.forges(|signer, right| {
        let mut claims = claims(right["iss"].as_str().context("no iss")?);
        claims["aud"] = right["aud"].clone();
        claims["nonce"] = right["nonce"].clone();
        signer.token(&claims)
    });
    bed.refuses("typ is not that of an identity token").await
}

#[tokio::test]
async fn rfc9207_a_code_of_another_issuer_is_not_redeemed() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    for iss in [Some("https://evil.example"), Some(""), None] {
        bed.people.says(iss);
        bed.refuses("RFC 9207").await?;
    }
    // Where the provider does not say that it sends it, it may be absent, but not another.
    let bed = Bed::with(false, |options| options).await?;
    ensure!(bed.sign_in(&mut Browser::new()?).await? == "/");
    bed.people.says(Some("https://evil.example"));
    bed.refuses("RFC 9207").await
}

#[tokio::test]
async fn a_browser_goes_on_to_pages_of_this_door_only() -> anyhow::Result<()> {
    for to in [
        "https://evil.example/",
        "//evil.example/",
        "/\\evil.example/",
        "\\\\evil.example",
        "/\t/evil.example",
        "javascript:alert(1)",
        "models",
        "",
    ] {
        // A door of its own each time: as many sign-ins from one address are too many for one.
        let bed = Bed::start().await?;
        let mut browser = Browser::new()?;
        let mut begin = Url::parse(&format!("{}{BEGIN}", bed.door))?;
        begin.query_pairs_mut().append_pair("to", to);
        let back = bed
            .sent_back(&mut browser, &format!("?{}", begin.query().unwrap_or_default()))
            .await?;
        // Nor does the way back say where to.
        let place = browser.sent_on(&format!("{back}&to=https://evil.example/")).await?;
        ensure!(place == "/", "{to}: {place}");
    }
    Ok(())
}

#[tokio::test]
async fn the_provider_sends_browsers_back_to_the_configured_address_alone() -> anyhow::Result<()> {
    let bed = Bed::with(true, |options| LoginOptions {
        oidc_url: text("https://mesh.example/"),
        ..options
    })
    .await?;
    let answer = Browser::new()?
        .client
        .get(format!("{}{BEGIN}?redirect_uri=https://evil.example/", bed.door))
        .header("host", "evil.example")
        .send()
        .await?;
    let place = Url::parse(answer.headers()["location"].to_str()?)?;
    let redirects: Vec<String> = place
        .query_pairs()
        .filter(|(name, _)| name == "redirect_uri")
        .map(|(_, value)| value.into_owned())
        .collect();
    ensure!(
        redirects == [format!("https://mesh.example{CALLBACK}")],
        "{redirects:?}"
    );
    Ok(())
}

#[tokio::test]
async fn while_the_provider_is_down_the_page_says_so_and_tokens_work() -> anyhow::Result<()> {
    let Bed { mesh, people, door } = Bed::start().await?;
    drop(people);
    let mut browser = Browser::new()?;
    ensure!(browser.sent_on(&format!("{door}{BEGIN}")).await? == "/?sign_in=unavailable");
    let token = json!({"token": mesh.admin()?.token()});
    let answer = browser
        .send(Method::POST, &format!("{door}/admin/v1/session"), Some(token))
        .await?;
    ensure!(answer.status() == 204);
    let answer = browser
        .send(Method::GET, &format!("{door}/admin/v1/session"), None)
        .await?;
    ensure!(answer.status() == 200);
    Ok(())
}

#[tokio::test]
async fn a_provider_that_refuses_is_told_of_and_ten_attempts_a_minute_are_made() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    let mut browser = Browser::new()?;
    let back = bed.sent_back(&mut browser, "").await?;
    let state = Url::parse(&back)?;
    let state = state
        .query_pairs()
        .find(|(name, _)| name == "state")
        .context("no state")?
        .1
        .into_owned();
    let denied = format!("{}{CALLBACK}?error=access_denied&state={state}", bed.door);
    ensure!(browser.sent_on(&denied).await? == "/?sign_in=denied");
    bed.is_nobody(&mut browser).await?;
    for _ in 1..10 {
        bed.sent_back(&mut browser, "").await?;
    }
    ensure!(browser.sent_on(&format!("{}{BEGIN}", bed.door)).await? == "/?sign_in=busy");
    Ok(())
}

#[tokio::test]
async fn over_tls_every_cookie_of_a_sign_in_is_secure_and_of_this_host_alone() -> anyhow::Result<()> {
    let people = People::start(Signer::new("k", Algorithm::EdDSA)?, true).await?;
    let (authority, folder) = (Authority::new("mesh test")?, tempfile::tempdir()?);
    let (certificate, key) = authority.sign(&["127.0.0.1"])?.write(folder.path(), "door")?;
    let client = authority.trusting()?.redirect(Policy::none()).build()?;
    let serve = ServeOptions {
        login: options(&people.issuer()),
        tls: TlsOptions {
            tls_cert: Some(certificate),
            tls_key: Some(key),
            ..TlsOptions::default()
        },
        ..ServeOptions::default()
    };
    let mesh = Mesh::start_with(MeshOptions {
        serve,
        tls_client: Some(client.clone()),
        ..MeshOptions::default()
    })
    .await?;
    let door = format!("https://{}", mesh.addresses().admin);
    people.allow(&format!("{door}{CALLBACK}"));
    people.is(json!({"groups": "staff", "org": ["acme"]}));
    let mut browser = Browser {
        client,
        ..Browser::default()
    };
    let provider = browser.sent_on(&format!("{door}{BEGIN}")).await?;
    // The provider itself speaks no TLS here.
    let back = Browser::new()?.sent_on(&provider).await?;
    ensure!(browser.sent_on(&back).await? == "/");
    for (name, path) in [("__Host-mesh_sign_in", "Path=/;"), ("mesh_session", "Path=/admin;")] {
        let set = browser.set.get(name).with_context(|| format!("no {name}"))?;
        ensure!(
            set.contains("; Secure") && set.contains("HttpOnly") && set.contains(path),
            "{set}"
        );
        ensure!(!set.contains("Domain"), "{set}");
    }
    Ok(())
}
