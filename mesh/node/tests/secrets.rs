//! Secrets stay secret: a mesh that logs everything it can is spoken to through every door, rightly and wrongly, and nothing that
//! comes out of it holds a secret: not its log, nor its errors, answers, metrics or traces.
//!
//! What an answer is asked to show once (a new key, a new token, a session's cookie) is the exception, and is not searched.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use mesh_harness::{Authority, Collector, GrpcCaller, eventually, identity};
use mesh_protocol::grpc::messages::ModelInferRequest;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use sha2::Sha256;

const SHARED: &[u8] = b"a shared secret of an issuer, 32 bytes or more";
/// In the bodies of requests: no log holds a body.
const MARKED: &str = "bodymark-5e1f";

struct Served {
    child: Child,
    http: SocketAddr,
    grpc: SocketAddr,
    metrics: SocketAddr,
    admin: SocketAddr,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn serve(data: &Path, log: &Path, collector: &Collector, tls: [&Path; 2]) -> anyhow::Result<Served> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("MESH_")) {
        command.env_remove(name);
    }
    command.args([
        "serve",
        "--log-format",
        "json",
        "--log",
        "trace",
        "--threads-per-device",
        "1",
    ]);
    command.args(["--otlp-endpoint", collector.endpoint(), "--otlp-sample-ratio", "1"]);
    command
        .arg("--admin-tls-cert")
        .arg(tls[0])
        .arg("--admin-tls-key")
        .arg(tls[1]);
    for door in ["--http-listen", "--grpc-listen", "--metrics-listen", "--admin-listen"] {
        command.args([door, "127.0.0.1:0"]);
    }
    // Connections that are kept open must not keep it.
    command.args(["--grace-ms", "1000"]).arg("--data").arg(data);
    command.arg("--admin-token-file").arg(data.with_file_name("token"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(log)?);
    let child = command.spawn()?;
    let serving = eventually("it serves", || async {
        let text = fs::read_to_string(log)?;
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        Ok(lines.into_iter().find(|line| line["message"] == "serving"))
    })
    .await?;
    let door = |name: &str| -> anyhow::Result<SocketAddr> { Ok(serving[name].as_str().context("no door")?.parse()?) };
    Ok(Served {
        child,
        http: door("http")?,
        grpc: door("grpc")?,
        metrics: door("metrics")?,
        admin: door("admin")?,
    })
}

/// A token of the issuer.
fn token(claims: &Value) -> anyhow::Result<String> {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!(
        "{}.{}",
        part(&json!({"alg": "HS256", "kid": "k1", "typ": "at+jwt"})),
        part(claims)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(SHARED)?;
    mac.update(message.as_bytes());
    Ok(format!(
        "{message}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    ))
}

/// What must not come out, and what came out.
#[derive(Default)]
struct Search {
    secrets: Vec<(&'static str, String)>,
    out: Vec<(String, String)>,
}

impl Search {
    fn hide(&mut self, what: &'static str, secret: impl Into<String>) {
        self.secrets.push((what, secret.into()));
    }

    /// A credential of the mesh, and its secret half.
    fn hide_key(&mut self, what: &'static str, text: &str) {
        let half = text.rsplit('_').nth(1).unwrap_or_default();
        assert!(half.len() > 30, "{what}");
        self.hide(what, half);
    }

    async fn take(&mut self, what: &str, answer: reqwest::Response) -> anyhow::Result<StatusCode> {
        let status = answer.status();
        let headers = format!("{:?}", answer.headers());
        let body = String::from_utf8_lossy(&answer.bytes().await?).into_owned();
        self.out.push((format!("{what} ({status})"), headers + &body));
        Ok(status)
    }

    fn found(&self) -> Vec<String> {
        let mut found = Vec::new();
        for (place, text) in &self.out {
            for (what, secret) in &self.secrets {
                if let Some(at) = text.find(secret.as_str()) {
                    let from = text[..at].char_indices().rev().nth(300).map_or(0, |(at, _)| at);
                    found.push(format!("{what} in {place}: ..{}", &text[from..at]));
                }
            }
        }
        found
    }
}

fn body() -> Value {
    json!({"id": MARKED, "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]})
}

struct Admin<'a> {
    client: &'a Client,
    base: String,
    token: &'a str,
}

impl Admin<'_> {
    fn ask(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(self.token)
    }

    async fn make(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.ask(Method::POST, path).json(body).send().await?;
        let (status, text) = (answer.status(), answer.text().await?);
        ensure!(status.is_success(), "{path}: {status} {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

/// Makes a tenant, a model, an issuer and a key, and hides what is secret of them; answers the key.
async fn declare(admin: &Admin<'_>, search: &mut Search) -> anyhow::Result<String> {
    let resource = |kind: &str, metadata: Value, spec: Value| json!({"apiVersion": "mesh/v1", "kind": kind, "metadata": metadata, "spec": spec});
    let issuer = json!({
        "issuer": "https://idp.example", "audiences": ["mesh"], "tenants": {"tenant": "acme"},
        "keys": [{"key_id": "k1", "algorithm": "HS256", "secret_base64": STANDARD.encode(SHARED)}],
    });
    let resources = json!({"resources": [
        resource("Tenant", json!({"name": "acme"}), json!({})),
        resource("Issuer", json!({"name": "idp"}), issuer),
    ]});
    let applied = admin.ask(Method::POST, "/apply").json(&resources).send().await?;
    ensure!(
        search.take("apply", applied).await?.is_success(),
        "{:?}",
        search.out.last()
    );
    admin
        .make("/tenants/acme/models/echo/versions", &json!({"spec": identity()}))
        .await?;
    let key = admin.make("/tenants/acme/keys", &json!({})).await?;
    let key = key["key"].as_str().context("no key")?.to_owned();
    search.hide_key("an API key", &key);
    let second = admin.make("/admin-tokens", &json!({"role": "viewer"})).await?;
    search.hide_key("an admin token", second["token"].as_str().context("no token")?);
    search.hide("a shared secret", STANDARD.encode(SHARED));
    search.hide("a shared secret", String::from_utf8_lossy(SHARED));
    Ok(key)
}

/// Asks the inference door, with what holds and with what does not.
async fn ask_inference(client: &Client, mesh: &Served, key: &str, search: &mut Search) -> anyhow::Result<()> {
    let good = token(
        &json!({"iss": "https://idp.example", "aud": "mesh", "sub": "robot", "client_id": "robot",
        "iat": 1_700_000_000, "exp": 4_000_000_000_u64, "jti": "1", "scope": "infer", "scp": ["infer"]}),
    )?;
    let expired = token(&json!({"iss": "https://idp.example", "aud": "mesh", "sub": "robot", "exp": 1}))?;
    for token in [&good, &expired] {
        search.hide("the signature of a token", token.rsplit('.').next().unwrap_or_default());
    }
    let wrong = key.replace(&key[key.len() - 9..], "_00000000");
    let url = |path: &str| format!("http://{}{path}", mesh.http);
    let values = [
        format!("Bearer {key}"),
        format!("bearer  {key}"),
        format!("Bearer {good}"),
        format!("Bearer {expired}"),
        format!("Bearer {wrong}"),
        format!("Bearer {key} {key}"),
        format!("Basic {key}"),
        key.to_owned(),
    ];
    for value in &values {
        for (method, path) in [
            (Method::POST, "/v2/models/echo/infer"),
            (Method::POST, "/v2/models/none/infer"),
            (Method::POST, "/v2/models/echo/versions/9/infer"),
            (Method::POST, "/v2/models/echo/generate"),
            (Method::POST, "/v1/models/echo:predict"),
            (Method::GET, "/v2/models/echo"),
            (Method::GET, "/v2/models/stats"),
            (Method::POST, "/v2/repository/index"),
            (Method::PUT, "/v2/nothing"),
        ] {
            let request = client
                .request(method, url(path))
                .header("authorization", value)
                .json(&body());
            search.take(path, request.send().await?).await?;
        }
    }
    let broken = client
        .post(url("/v2/models/echo/infer"))
        .bearer_auth(key)
        .body(format!("{{\"{MARKED}"));
    search.take("a broken body", broken.send().await?).await?;
    // Who puts a key where it does not belong is told nothing back, and it is written nowhere.
    let in_url = client.get(url(&format!("/v2/models/echo?access_token={key}")));
    search.take("a key in the address", in_url.send().await?).await?;
    Ok(())
}

async fn ask_grpc(mesh: &Served, key: &str, search: &mut Search) -> anyhow::Result<()> {
    let wrong = key.replace(&key[key.len() - 9..], "_00000000");
    for key in [key, &wrong] {
        let caller = GrpcCaller::connect(mesh.grpc, Some(key)).await?;
        for model in ["echo", "none"] {
            let message = ModelInferRequest {
                id: MARKED.to_owned(),
                model_name: model.to_owned(),
                ..ModelInferRequest::default()
            };
            let told = format!("{:?}", caller.infer(message).await);
            search.out.push((format!("gRPC {model}"), told));
        }
    }
    Ok(())
}

async fn ask_admin(admin: &Admin<'_>, search: &mut Search) -> anyhow::Result<()> {
    for path in [
        "/tenants/acme/keys",
        "/keys",
        "/issuers/idp",
        "/issuers",
        "/admin-tokens",
        "/audit",
        "/audit/export",
        "/audit/verify",
        "/overview",
        "/devices",
        "/nothing",
    ] {
        let answer = admin.ask(Method::GET, path).send().await?;
        search.take(path, answer).await?;
    }
    let url = |path: &str| format!("{}{path}", admin.base);
    let sign_in = |token: String| admin.client.post(url("/session")).json(&json!({"token": token})).send();
    let answer = sign_in(admin.token.to_owned()).await?;
    let cookie = answer.headers().get("set-cookie").context("no cookie")?.to_str()?;
    let cookie = cookie.split(';').next().unwrap_or_default().to_owned();
    search.hide("a session", cookie.split_once('=').context("no value")?.1);
    let seen = admin
        .client
        .get(url("/session"))
        .header("cookie", &cookie)
        .send()
        .await?;
    ensure!(search.take("a session", seen).await?.is_success());
    let failed = sign_in(format!("{}0", admin.token)).await?;
    search.take("a wrong token", failed).await?;
    let broken = admin
        .client
        .post(url("/session"))
        .header("content-type", "application/json");
    let broken = broken
        .body(format!("{{\"token\": \"{}\", \"more\": 1}}", admin.token))
        .send()
        .await?;
    search.take("a broken sign-in", broken).await?;
    let in_cookie = admin
        .client
        .get(url("/overview"))
        .header("cookie", format!("mesh_session={}", admin.token));
    search.take("a token in the cookie", in_cookie.send().await?).await?;
    Ok(())
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told from its beginning to its end")]
async fn no_secret_comes_out_of_a_mesh_that_logs_everything() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let (data, log) = (folder.path().join("data"), folder.path().join("log"));
    let authority = Authority::new("test")?;
    let pair = authority.sign(&["127.0.0.1"])?;
    let (certificate, key_file) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&certificate, &pair.certificate)?;
    fs::write(&key_file, &pair.key)?;
    let mut collector = Collector::start().await?;
    let mut mesh = serve(&data, &log, &collector, [&certificate, &key_file]).await?;

    let mut search = Search::default();
    let token = fs::read_to_string(folder.path().join("token"))?.trim().to_owned();
    search.hide_key("the first admin token", &token);
    for file in ["pepper", "audit-key"] {
        let bytes = fs::read(data.join(file))?;
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        search.hide(file, hex);
        search.hide(file, STANDARD.encode(&bytes));
        search.hide(file, format!("{bytes:?}"));
    }
    let lines: Vec<&str> = pair.key.lines().collect();
    search.hide("the certificate's key", lines[1]);

    let over_tls = authority.trusting()?.build()?;
    let admin = Admin {
        client: &over_tls,
        base: format!("https://{}/admin/v1", mesh.admin),
        token: &token,
    };
    let key = declare(&admin, &mut search).await?;
    let client = Client::new();
    eventually("the model answers", || async {
        let request = client
            .post(format!("http://{}/v2/models/echo/infer", mesh.http))
            .bearer_auth(&key);
        let answer = request.json(&body()).send().await?;
        Ok(answer.status().is_success().then_some(()))
    })
    .await?;
    ask_inference(&client, &mesh, &key, &mut search).await?;
    ask_grpc(&mesh, &key, &mut search).await?;
    ask_admin(&admin, &mut search).await?;
    let metrics = client.get(format!("http://{}/metrics", mesh.metrics)).send().await?;
    search.take("metrics", metrics).await?;
    let spans = collector.spans_until(|spans| spans.len() >= 5).await?;
    search.out.push(("traces".to_owned(), format!("{spans:?}")));

    // Ended in order, so that what it says then is in it too; nobody holds a connection any more.
    drop((client, over_tls, collector));
    let status = Command::new("kill")
        .args(["-TERM", &mesh.child.id().to_string()])
        .status()?;
    ensure!(status.success());
    let ended = eventually("it ends", || {
        let ended = mesh.child.try_wait();
        async move { Ok(ended?) }
    });
    if let Err(error) = ended.await {
        let text = fs::read_to_string(&log)?;
        let last: Vec<&str> = text
            .lines()
            .rev()
            .filter(|line| line.contains("mesh_"))
            .take(12)
            .collect();
        anyhow::bail!("{error}: {}", last.join("\n"));
    }
    let logged = fs::read_to_string(&log)?;
    ensure!(
        logged.contains("\"TRACE\"") && logged.contains("request"),
        "not a log of everything"
    );
    ensure!(!logged.contains(MARKED), "a body is in the log");
    search.out.push(("the log".to_owned(), logged));

    assert!(search.out.len() > 80, "asked only {} times", search.out.len());
    let found = search.found();
    assert!(found.is_empty(), "{}", found.join("\n\n"));
    // The search itself finds what is there.
    search.out.push(("a test".to_owned(), format!("x{key}x")));
    assert!(!search.found().is_empty());
    Ok(())
}
