//! Other people's identity provider (`oidc-provider` for Node, a certified one) and nothing of ours in its place: programs get their
//! tokens of it and call with them, keys are rotated, and people sign in to the admin door with it and sign out.
#![expect(
    clippy::print_stdout,
    reason = "what the provider says is for who reads why a test failed"
)]

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, ensure};
use mesh_e2e::{
    node::packages,
    python::{cache, conformance},
};
use mesh_harness::{Mesh, MeshOptions, ServeOptions, Text, eventually};
use mesh_node::{LoginOptions, Secret};
use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect::Policy};
use serde_json::{Value, json};
use tonic::Code;

/// What `provider.mjs` says of its clients.
const CLIENT: (&str, &str) = ("batch", "s3cret:/ &+");
const ADMINS: (&str, &str) = ("mesh-admin", "a secret: with /+&");
/// What stands for the audiences `mesh` and `https://elsewhere.example` there.
const MESH: &str = "urn:mesh";
const ELSEWHERE: &str = "urn:https://elsewhere.example";

/// The provider's process, until it is dropped.
struct Provider {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    issuer: String,
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have ended by itself, which a test that needs it has noticed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Provider {
    async fn start() -> anyhow::Result<Self> {
        tokio::task::spawn_blocking(Self::begin).await?
    }

    fn begin() -> anyhow::Result<Self> {
        let packages = packages(&cache(env!("CARGO_TARGET_TMPDIR").as_ref()), "provider")?;
        let mut process = Command::new("node")
            .arg(conformance().join("provider/provider.mjs"))
            .env("MESH_PROVIDER_PACKAGES", packages)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Of what a test prints the runner shows that of one that has failed.
            .stderr(Stdio::piped())
            .spawn()
            .context("node did not start")?;
        let mut provider = Self {
            orders: process.stdin.take().context("no standard input")?,
            answers: BufReader::new(process.stdout.take().context("no standard output")?),
            process,
            issuer: String::new(),
        };
        let told = BufReader::new(provider.process.stderr.take().context("no standard error")?);
        // It ends with the process.
        std::thread::spawn(move || {
            told.lines()
                .map_while(Result::ok)
                .for_each(|line| println!("provider: {line}"));
        });
        provider.issuer = provider.line()?;
        Ok(provider)
    }

    /// The next line of its own; it also prints notices.
    fn line(&mut self) -> anyhow::Result<String> {
        loop {
            let mut line = String::new();
            ensure!(self.answers.read_line(&mut line)? > 0, "the provider has ended");
            if line.starts_with("http://") || line == "done\n" {
                return Ok(line.trim_end().to_owned());
            }
        }
    }

    /// Has it do something, and waits until it has.
    fn obeys(&mut self, order: &str) -> anyhow::Result<()> {
        self.orders.write_all(format!("{order}\n").as_bytes())?;
        let answer = self.line()?;
        ensure!(answer == "done", "{order}: {answer}");
        Ok(())
    }

    /// RFC 6749, section 4.4, and RFC 8707: a token for a client that shows its secret, for this resource.
    async fn token(&self, resource: &str) -> anyhow::Result<String> {
        let form = [
            ("grant_type", "client_credentials"),
            ("scope", "infer"),
            ("resource", resource),
        ];
        let form = Url::parse_with_params("http://form.invalid/", form)?;
        let credential = Url::parse_with_params("http://form.invalid/", [CLIENT])?;
        let (name, secret) = credential
            .query()
            .and_then(|pair| pair.split_once('='))
            .context("none")?;
        let answer = Client::new()
            .post(format!("{}/token", self.issuer))
            .basic_auth(name, Some(secret))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned())
            .send()
            .await?;
        let (status, body) = (answer.status(), answer.json::<Value>().await?);
        ensure!(status == StatusCode::OK, "{status}: {body}");
        Ok(body["access_token"].as_str().context("no token")?.to_owned())
    }
}

/// A mesh with a model of `acme`, whose tokens are the provider's.
async fn mesh_of(provider: &Provider) -> anyhow::Result<Mesh> {
    let mesh = Mesh::start().await?;
    mesh.tenant("acme").await?;
    let admin = mesh.admin()?;
    admin.publish("acme", "m", &mesh_harness::identity()).await?;
    let issuer = json!({
        "apiVersion": "mesh/v1", "kind": "Issuer", "metadata": {"name": "sso"},
        "spec": {"issuer": provider.issuer, "audiences": ["mesh"], "jwks": {}, "tenants": {"tenant": "acme"}},
    });
    admin.apply(&[issuer]).await?;
    Ok(mesh)
}

/// What calls with this token are answered over either wire.
async fn calls(mesh: &Mesh, token: &str) -> anyhow::Result<(u16, Code)> {
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.5]}]});
    let http = mesh.caller(token).infer("m", &body).await?;
    if http.status == 200 {
        ensure!(http.numbers(0)? == [1.5], "{http:?}");
    }
    let message = ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![InferInputTensor {
            name: "x".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![1.5_f32.to_le_bytes().to_vec().into()],
        ..ModelInferRequest::default()
    };
    let grpc = mesh.grpc(token).await?.infer(message).await;
    let code = grpc.map_or_else(|status| status.code(), |_| Code::Ok);
    Ok((http.status.as_u16(), code))
}

const TAKEN: (u16, Code) = (200, Code::Ok);
const REFUSED: (u16, Code) = (401, Code::Unauthenticated);

#[tokio::test]
async fn a_certified_providers_clients_call_with_its_tokens_and_those_for_others_are_refused() -> anyhow::Result<()> {
    let provider = Provider::start().await?;
    let mesh = mesh_of(&provider).await?;
    let token = provider.token(MESH).await?;
    let taken = || async { Ok((calls(&mesh, &token).await? == TAKEN).then_some(())) };
    eventually("the provider's keys are there", taken).await?;
    let elsewhere = provider.token(ELSEWHERE).await?;
    let answers = calls(&mesh, &elsewhere).await?;
    ensure!(answers == REFUSED, "{answers:?}");
    // One that it did not sign.
    let (signed, _) = token.rsplit_once('.').context("no signature")?;
    let (_, signature) = elsewhere.rsplit_once('.').context("no signature")?;
    let answers = calls(&mesh, &format!("{signed}.{signature}")).await?;
    ensure!(answers == REFUSED, "{answers:?}");
    Ok(())
}

#[tokio::test]
async fn a_certified_providers_new_key_is_taken_with_its_first_token_and_a_retired_one_no_more() -> anyhow::Result<()> {
    let mut provider = Provider::start().await?;
    let mesh = mesh_of(&provider).await?;
    let first = provider.token(MESH).await?;
    let taken = || async { Ok((calls(&mesh, &first).await? == TAKEN).then_some(())) };
    eventually("the provider's keys are there", taken).await?;
    // Another key, of another algorithm, and the first one is gone.
    provider.obeys("add second PS256")?;
    provider.obeys("retire first")?;
    let second = provider.token(MESH).await?;
    let answers = calls(&mesh, &second).await?;
    ensure!(answers == TAKEN, "the new key: {answers:?}");
    let answers = calls(&mesh, &first).await?;
    ensure!(answers == REFUSED, "the retired key: {answers:?}");
    let shown = mesh.admin()?.get("/issuers/sso/keys").await?;
    ensure!(
        shown["keys"][0]["key_id"] == "second" && shown["keys"][1].is_null(),
        "{shown}"
    );
    Ok(())
}

/// A cookie as a browser keeps it: for an origin and the paths below one.
struct Cookie {
    origin: String,
    path: String,
    name: String,
    value: String,
}

/// Somebody's browser: follows redirects one by one, keeps cookies by their origin and path, and sends forms.
struct Browser {
    client: Client,
    cookies: Vec<Cookie>,
}

/// A page, where its browser ended.
struct Page {
    url: Url,
    status: StatusCode,
    body: String,
}

/// The value of an attribute of the first tag that begins so.
fn attribute<'a>(page: &'a str, tag: &str, attribute: &str) -> anyhow::Result<&'a str> {
    let rest = page.split_once(tag).with_context(|| format!("no {tag} in {page}"))?.1;
    let tag = rest.split('>').next().unwrap_or_default();
    let value = tag
        .split_once(&format!("{attribute}=\""))
        .with_context(|| format!("no {attribute} in {tag}"))?
        .1;
    Ok(value.split('"').next().unwrap_or_default())
}

impl Browser {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            client: Client::builder().redirect(Policy::none()).build()?,
            cookies: Vec::new(),
        })
    }

    async fn send(&mut self, method: Method, url: &Url, form: Option<&[(&str, &str)]>) -> anyhow::Result<Response> {
        let origin = url.origin().ascii_serialization();
        let sent: Vec<String> = self
            .cookies
            .iter()
            .filter(|cookie| cookie.origin == origin && url.path().starts_with(&cookie.path))
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        let mut request = self.client.request(method.clone(), url.clone());
        request = request.header("cookie", sent.join("; "));
        if method != Method::GET {
            request = request.header("origin", &origin);
        }
        if let Some(form) = form {
            let form = Url::parse_with_params("http://form.invalid/", form)?;
            request = request
                .header("content-type", "application/x-www-form-urlencoded")
                .body(form.query().unwrap_or_default().to_owned());
        }
        let answer = request.send().await?;
        for set in answer.headers().get_all("set-cookie") {
            self.keep(&origin, set.to_str()?)?;
        }
        Ok(answer)
    }

    fn keep(&mut self, origin: &str, set: &str) -> anyhow::Result<()> {
        let mut parts = set.split(';').map(str::trim);
        let (name, value) = parts
            .next()
            .and_then(|pair| pair.split_once('='))
            .context("no cookie")?;
        let path = parts.find_map(|part| {
            part.split_once('=')
                .filter(|(name, _)| name.eq_ignore_ascii_case("path"))
        });
        let path = path.map_or("/", |(_, path)| path);
        self.cookies
            .retain(|cookie| (&*cookie.origin, &*cookie.path, &*cookie.name) != (origin, path, name));
        if !value.is_empty() {
            self.cookies.push(Cookie {
                origin: origin.to_owned(),
                path: path.to_owned(),
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
        Ok(())
    }

    /// Goes there, and wherever it is sent on to.
    async fn visit(&mut self, url: &str) -> anyhow::Result<Page> {
        let answer = self.send(Method::GET, &Url::parse(url)?, None).await?;
        self.follow(answer).await
    }

    /// Sends the form of a page, and goes wherever it is sent on to.
    async fn submit(&mut self, page: &Page, fields: &[(&str, &str)]) -> anyhow::Result<Page> {
        let action = page.url.join(attribute(&page.body, "<form", "action")?)?;
        let answer = self.send(Method::POST, &action, Some(fields)).await?;
        self.follow(answer).await
    }

    async fn follow(&mut self, mut answer: Response) -> anyhow::Result<Page> {
        while answer.status().is_redirection() {
            let to = answer.headers()["location"].to_str()?;
            let to = answer.url().join(to)?;
            answer = self.send(Method::GET, &to, None).await?;
        }
        Ok(Page {
            url: answer.url().clone(),
            status: answer.status(),
            body: answer.text().await?,
        })
    }

    fn has(&self, name: &str) -> bool {
        self.cookies.iter().any(|cookie| cookie.name == name)
    }
}

/// A mesh whose admins sign in with a provider.
struct Bed {
    mesh: Mesh,
    provider: Provider,
    door: String,
}

impl Bed {
    async fn start() -> anyhow::Result<Self> {
        let mut provider = Provider::start().await?;
        let text = |text: &str| Some(Text(text.to_owned()));
        let login = LoginOptions {
            oidc_issuer: text(&provider.issuer),
            oidc_client_id: text(ADMINS.0),
            oidc_client_secret: Some(ADMINS.1.parse::<Secret>().unwrap_or_else(|never| match never {})),
            oidc_scopes: text("openid groups"),
            oidc_roles: text("ops=admin,staff=viewer"),
            ..LoginOptions::default()
        };
        let mesh = Mesh::start_with(MeshOptions {
            serve: ServeOptions {
                login,
                ..ServeOptions::default()
            },
            ..MeshOptions::default()
        })
        .await?;
        let door = format!("http://{}", mesh.addresses().admin);
        provider.obeys(&format!("admins {door}"))?;
        Ok(Self { mesh, provider, door })
    }

    /// Signs somebody in as a person would: the provider's login page, its page of consent, and back; where that ended.
    async fn sign_in(&self, browser: &mut Browser, who: &str) -> anyhow::Result<Page> {
        let page = browser.visit(&format!("{}/admin/v1/sign-in/oidc", self.door)).await?;
        ensure!(page.url.as_str().starts_with(&self.provider.issuer), "{}", page.url);
        let filled = [("prompt", "login"), ("login", who), ("password", "any")];
        let page = browser.submit(&page, &filled).await?;
        ensure!(page.body.contains("value=\"consent\""), "{}: {}", page.url, page.body);
        browser.submit(&page, &[("prompt", "consent")]).await
    }

    async fn session(&self, browser: &mut Browser) -> anyhow::Result<(StatusCode, Value)> {
        let page = browser.visit(&format!("{}/admin/v1/session", self.door)).await?;
        Ok((page.status, serde_json::from_str(&page.body)?))
    }
}

#[tokio::test]
async fn admins_sign_in_with_a_certified_provider_under_their_roles_and_sign_out_there_too() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    let mut browser = Browser::new()?;
    let page = bed.sign_in(&mut browser, "anna").await?;
    ensure!(page.url.as_str() == format!("{}/", bed.door), "{}", page.url);
    let (status, who) = bed.session(&mut browser).await?;
    ensure!(
        status == 200 && who["who"] == "oidc:anna" && who["role"] == "admin",
        "{who}"
    );

    // Who is signed in there already comes back without another word.
    let again = browser.visit(&format!("{}/admin/v1/sign-in/oidc", bed.door)).await?;
    ensure!(again.url.as_str() == format!("{}/", bed.door), "{}", again.url);

    let out = Url::parse(&format!("{}/admin/v1/session", bed.door))?;
    let out: Value = browser.send(Method::DELETE, &out, None).await?.json().await?;
    let place = out["provider"].as_str().context("nowhere to go on to")?;
    ensure!(place.starts_with(&bed.provider.issuer), "{place}");
    ensure!(bed.session(&mut browser).await?.0 == 401, "it is over here already");
    let page = browser.visit(place).await?;
    let xsrf = attribute(&page.body, "name=\"xsrf\"", "value")?.to_owned();
    let page = browser.submit(&page, &[("xsrf", &xsrf), ("logout", "yes")]).await?;
    ensure!(page.url.as_str() == format!("{}/", bed.door), "{}", page.url);
    let latest = bed.mesh.admin()?.get("/audit?limit=1").await?["latest"].clone();
    let after = latest.as_u64().context("no revision")?.saturating_sub(3);
    let log = bed
        .mesh
        .admin()?
        .get(&format!("/audit?after={after}"))
        .await?
        .to_string();
    ensure!(log.contains("sign-out at the identity provider"), "{log}");
    // Nobody is signed in there any more: the next one is asked who they are.
    let page = browser.visit(&format!("{}/admin/v1/sign-in/oidc", bed.door)).await?;
    ensure!(page.body.contains("name=\"password\""), "{}: {}", page.url, page.body);
    Ok(())
}

#[tokio::test]
async fn a_certified_providers_groups_give_a_viewer_a_viewers_rights_and_nobody_else_any() -> anyhow::Result<()> {
    let bed = Bed::start().await?;
    let mut viewer = Browser::new()?;
    bed.sign_in(&mut viewer, "ben").await?;
    let (_, who) = bed.session(&mut viewer).await?;
    ensure!(who["who"] == "oidc:ben" && who["role"] == "viewer", "{who}");
    let url = Url::parse(&format!("{}/admin/v1/tenants/acme", bed.door))?;
    let refused = viewer.send(Method::DELETE, &url, None).await?;
    ensure!(refused.status() == 403, "{}", refused.status());

    let mut stranger = Browser::new()?;
    let page = bed.sign_in(&mut stranger, "carl").await?;
    ensure!(page.url.query() == Some("sign_in=role"), "{}", page.url);
    ensure!(!stranger.has("mesh_session") && bed.session(&mut stranger).await?.0 == 401);
    Ok(())
}
