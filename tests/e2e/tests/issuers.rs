//! Issuers that publish their keys, against a real one over HTTP: rotation without a lost request, outages that cost nobody
//! anything, answers that are no key set, storms of unknown keys, and the whole flow of a client with a secret.

use std::{os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use jsonwebtoken::Algorithm;
use mesh_harness::{Answer, Mesh, MeshOptions, eventually};
use mesh_policies::{KeyAlgorithm, KeyBook, KeyLocation, Pepper};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::sync::Notify;

mod identity {
    pub(crate) mod provider;
    pub(crate) mod signer;
    pub(crate) mod wire;
}
use self::identity::{
    provider::{Manner, Provider},
    signer::{Signer, claims, now},
};

fn issuer(name: &str, iss: &str, jwks: &Value) -> Value {
    json!({
        "apiVersion": "mesh/v1", "kind": "Issuer", "metadata": {"name": name},
        "spec": {"issuer": iss, "audiences": ["mesh"], "jwks": jwks, "tenants": {"tenant": "acme"}},
    })
}

/// A mesh with a model of `acme`, and a provider that it fetches keys from.
struct Bed {
    mesh: Mesh,
    provider: Provider,
}

impl Bed {
    /// The issuer `sso`, by the address of its key set or discovered.
    async fn start(keys: &[&Signer], discovered: bool) -> anyhow::Result<Self> {
        let mesh = Mesh::start().await?;
        let provider = Provider::start(keys.iter().map(|key| key.jwk()).collect()).await?;
        mesh.tenant("acme").await?;
        mesh.admin()?.publish("acme", "m", &mesh_harness::identity()).await?;
        let jwks = if discovered {
            json!({})
        } else {
            json!({"url": provider.keys_url()})
        };
        mesh.admin()?.apply(&[issuer("sso", &provider.issuer(), &jwks)]).await?;
        Ok(Self { mesh, provider })
    }

    fn token(&self, signer: &Signer) -> anyhow::Result<String> {
        signer.token(&claims(&self.provider.issuer()))
    }

    async fn ask(&self, token: &str) -> anyhow::Result<Answer> {
        let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
        self.mesh.caller(token).infer("m", &body).await
    }

    async fn takes(&self, signer: &Signer) -> anyhow::Result<()> {
        self.ask(&self.token(signer)?).await?.ok().map(drop)
    }

    async fn until_takes(&self, signer: &Signer) -> anyhow::Result<()> {
        let token = self.token(signer)?;
        eventually("the issuer's keys are there", || async {
            Ok(self.ask(&token).await?.status.is_success().then_some(()))
        })
        .await
    }

    async fn refuses(&self, signer: &Signer) -> anyhow::Result<()> {
        let answer = self.ask(&self.token(signer)?).await?;
        ensure!(answer.status == 401, "{answer:?}");
        Ok(())
    }

    async fn shown(&self) -> anyhow::Result<Value> {
        self.mesh.admin()?.get("/issuers/sso/keys").await
    }

    /// Waits until a fetch has failed with words that hold these.
    async fn until_failed(&self, words: &str) -> anyhow::Result<Value> {
        eventually(words, || async {
            let shown = self.shown().await?;
            let error = shown["last_error"].as_str().unwrap_or_default();
            Ok(error.contains(words).then_some(shown))
        })
        .await
    }
}

fn signer(kid: &str) -> anyhow::Result<Signer> {
    Signer::new(kid, Algorithm::EdDSA)
}

#[tokio::test]
async fn a_rotated_key_is_taken_with_its_first_request_and_the_removed_one_no_more() -> anyhow::Result<()> {
    let (old, new) = (signer("old")?, Signer::new("new", Algorithm::ES256)?);
    let bed = Bed::start(&[&old], false).await?;
    bed.until_takes(&old).await?;
    let shown = bed.shown().await?;
    ensure!(
        shown["keys"][0]["key_id"] == "old" && shown["source"] == "jwks",
        "{shown}"
    );
    ensure!(
        shown["next_refresh"].is_string() && shown["last_error"].is_null(),
        "{shown}"
    );
    let before = bed.provider.fetches();
    bed.provider.says(Manner::Keys(vec![new.jwk()])).await;
    // Remembered keys need nobody.
    bed.takes(&old).await?;
    ensure!(bed.provider.fetches() == before);
    // Eight at once with the new key: each waits for the one fetch, none is refused.
    let token = bed.token(&new)?;
    let all = futures::future::try_join_all((0..8).map(|_| bed.ask(&token))).await?;
    ensure!(all.iter().all(|answer| answer.status == 200), "{all:?}");
    ensure!(
        bed.provider.fetches() == before + 1,
        "{} fetches",
        bed.provider.fetches()
    );
    // Although the mesh has seen its token hold.
    bed.refuses(&old).await?;
    let shown = bed.shown().await?;
    ensure!(
        shown["keys"].as_array().is_some_and(|keys| keys.len() == 1) && shown["keys"][0]["key_id"] == "new",
        "{shown}"
    );
    let metrics = bed.mesh.metrics().await?;
    ensure!(
        metrics.contains("mesh_issuer_key_fetches_total{issuer=\"sso\",outcome=\"fetched\"} 2"),
        "{metrics}"
    );
    ensure!(metrics.contains("mesh_issuer_keys{issuer=\"sso\"} 1"), "{metrics}");
    Ok(())
}

#[tokio::test]
async fn what_is_asked_without_the_pipeline_waits_for_a_new_key_too() -> anyhow::Result<()> {
    for grpc in [false, true] {
        let (old, new) = (signer("old")?, signer("new")?);
        let bed = Bed::start(&[&old], true).await?;
        bed.until_takes(&old).await?;
        bed.provider.says(Manner::Keys(vec![old.jwk(), new.jwk()])).await;
        let token = bed.token(&new)?;
        if grpc {
            let caller = bed.mesh.grpc(&token).await?;
            let asked = mesh_protocol::grpc::messages::ModelConfigRequest {
                name: "m".into(),
                version: String::new(),
            };
            let answered = caller
                .ask::<_, mesh_protocol::grpc::messages::ModelConfigResponse>("ModelConfig", asked)
                .await;
            ensure!(answered.is_ok(), "{answered:?}");
        } else {
            let answer = Answer::of(bed.mesh.caller(&token).get("/v2/models/m")).await?;
            ensure!(answer.status == 200, "{answer:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_issuer_that_is_down_costs_known_tenants_nothing() -> anyhow::Result<()> {
    let (known, other) = (signer("known")?, signer("other")?);
    let mut bed = Bed::start(&[&known], true).await?;
    bed.until_takes(&known).await?;
    let elsewhere = Provider::start(vec![]).await?;
    // Nobody listens any more; the one in its place is only there so that the bed is whole.
    let token = bed.token(&known)?;
    let unknown = bed.token(&other)?;
    drop(std::mem::replace(&mut bed.provider, elsewhere));
    let refused = bed.ask(&unknown).await?;
    ensure!(refused.status == 401, "{refused:?}");
    let shown = bed.until_failed("cannot be reached").await?;
    ensure!(
        shown["keys"][0]["key_id"] == "known" && shown["kept_until"].is_string(),
        "{shown}"
    );
    for _ in 0..200 {
        bed.ask(&token).await?.ok()?;
    }
    // Neither a change of the records nor another issuer's trouble costs the keys.
    bed.mesh.admin()?.tenant("globex", json!({})).await?;
    bed.ask(&token).await?.ok()?;
    // The mesh itself is as ready as it was.
    let ready = reqwest::get(format!("http://{}/health/ready", bed.mesh.addresses().metrics)).await?;
    ensure!(ready.status() == StatusCode::OK);
    Ok(())
}

/// The file of the issuer `sso` in a data folder.
fn kept(data: &tempfile::TempDir) -> std::path::PathBuf {
    data.path().join("issuer-keys/sso.keys")
}

/// A mesh on an old data folder.
async fn again(data: Arc<tempfile::TempDir>) -> anyhow::Result<Mesh> {
    Mesh::start_with(MeshOptions {
        data: Some(data),
        ..MeshOptions::default()
    })
    .await
}

#[tokio::test]
async fn an_issuer_that_is_down_while_the_mesh_restarts_costs_known_tenants_nothing() -> anyhow::Result<()> {
    for discovered in [false, true] {
        let (known, other) = (signer("known")?, signer("other")?);
        let bed = Bed::start(&[&known], discovered).await?;
        bed.until_takes(&known).await?;
        let (token, unknown) = (bed.token(&known)?, bed.token(&other)?);
        let Bed { mesh, provider } = bed;
        drop(provider);
        let mut data = mesh.stop().await?;
        let mode = std::fs::metadata(kept(&data))?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "{mode:o}");
        // Twice: nothing is lost by a start that could fetch nothing.
        for _ in 0..2 {
            let mesh = again(data).await?;
            // The first call, with no wait for anything.
            let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
            mesh.caller(&token).infer("m", &body).await?.ok()?;
            let refused = mesh.caller(&unknown).infer("m", &body).await?;
            ensure!(refused.status == 401, "{refused:?}");
            data = mesh.stop().await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn kept_keys_that_are_damaged_too_old_or_of_another_mesh_are_not_used() -> anyhow::Result<()> {
    let known = signer("known")?;
    let bed = Bed::start(&[&known], false).await?;
    bed.until_takes(&known).await?;
    let (token, set) = (bed.token(&known)?, json!({"keys": [known.jwk()]}).to_string());
    let location = KeyLocation::KeySet(bed.provider.keys_url());
    let allowed = vec![
        KeyAlgorithm::RS256,
        KeyAlgorithm::PS256,
        KeyAlgorithm::ES256,
        KeyAlgorithm::EdDSA,
    ];
    let book = KeyBook::new("sso", &bed.provider.issuer(), location, allowed);
    let Bed { mesh, provider } = bed;
    drop(provider);
    let mut data = mesh.stop().await?;
    let pepper: [u8; 32] = std::fs::read(data.path().join("pepper"))?
        .try_into()
        .ok()
        .context("no pepper")?;
    let pepper = Pepper::from_bytes(pepper);
    let right = std::fs::read(kept(&data))?;
    let mut damaged = right.clone();
    *damaged.last_mut().context("an empty file")? ^= 1;
    let at = |unix: i64, pepper: &Pepper| book.to_keep(set.as_bytes(), unix, pepper).context("too many bytes");
    let now = now();
    let day = 24 * 3_600;
    for (bytes, used) in [
        (right.clone(), true),
        (damaged, false),
        (at(now - day + 600, &pepper)?, true),
        (at(now - day, &pepper)?, false),
        (at(now + 600, &pepper)?, false),
        (at(now, &Pepper::default())?, false),
        (b"mesh issuer keys 1 \n".to_vec(), false),
        (right, true),
    ] {
        std::fs::write(kept(&data), bytes)?;
        let mesh = again(data).await?;
        let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
        let answer = mesh.caller(&token).infer("m", &body).await?;
        let wanted: u16 = if used { 200 } else { 503 };
        ensure!(answer.status == wanted, "{answer:?}");
        data = mesh.stop().await?;
    }
    Ok(())
}

#[tokio::test]
async fn kept_keys_go_with_a_rotation_and_with_their_issuer() -> anyhow::Result<()> {
    let (old, new) = (signer("old")?, signer("new")?);
    let bed = Bed::start(&[&old], false).await?;
    bed.until_takes(&old).await?;
    let (token, fresh) = (bed.token(&old)?, bed.token(&new)?);
    let Bed { mesh, provider } = bed;
    let data = mesh.stop().await?;
    // While the mesh is away the issuer replaces its key: the start that finds it there uses the old one no more.
    provider.says(Manner::Keys(vec![new.jwk()])).await;
    let mesh = again(data).await?;
    let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    mesh.caller(&fresh).infer("m", &body).await?.ok()?;
    let refused = mesh.caller(&token).infer("m", &body).await?;
    ensure!(refused.status == 401, "{refused:?}");
    let data = mesh.stop().await?;
    ensure!(std::fs::read_to_string(kept(&data))?.contains("\"new\""));
    Ok(())
}

#[tokio::test]
async fn kept_keys_are_removed_with_the_issuers_record() -> anyhow::Result<()> {
    let key = signer("k")?;
    let bed = Bed::start(&[&key], false).await?;
    bed.until_takes(&key).await?;
    let file = kept(bed.mesh.data());
    // The keys are used before they are kept.
    let bytes = eventually("the file is there", || async { Ok(std::fs::read(&file).ok()) }).await?;
    let request = bed.mesh.admin()?.request(Method::DELETE, "/issuers/sso");
    request.send().await?.error_for_status()?;
    eventually("the file is gone", || async { Ok((!file.exists()).then_some(())) }).await?;
    // One that a killed node would have left: the next start takes it away.
    let data = bed.mesh.stop().await?;
    std::fs::write(kept(&data), bytes)?;
    let mesh = again(data).await?;
    ensure!(!kept(mesh.data()).exists());
    Ok(())
}

#[tokio::test]
async fn a_mesh_whose_issuer_was_never_there_is_ready_and_says_that_it_is_not_the_tokens_fault() -> anyhow::Result<()> {
    let key = signer("k")?;
    let bed = Bed::start(&[&key], false).await?;
    bed.until_takes(&key).await?;
    bed.provider
        .says(Manner::Status("503 Service Unavailable", String::new()))
        .await;
    let absent = issuer(
        "absent",
        "https://absent.example",
        &json!({"url": bed.provider.keys_url()}),
    );
    bed.mesh.admin()?.apply(&[absent]).await?;
    let token = key.token(&claims("https://absent.example"))?;
    let answer = eventually("the issuer is known", || async {
        let answer = bed.ask(&token).await?;
        Ok((answer.status == 503).then_some(answer))
    })
    .await?;
    ensure!(
        answer.header("retry-after") == Some("1") && answer.header("www-authenticate").is_none(),
        "{answer:?}"
    );
    bed.takes(&key).await?;
    // It comes back by itself.
    bed.provider.says(Manner::Keys(vec![key.jwk()])).await;
    eventually("the keys come", || async {
        Ok((bed.ask(&token).await?.status == 200).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_slow_issuer_is_waited_for_within_the_callers_own_deadline() -> anyhow::Result<()> {
    let (old, new, go_on) = (signer("old")?, signer("new")?, Arc::new(Notify::new()));
    let bed = Bed::start(&[&old], false).await?;
    bed.until_takes(&old).await?;
    bed.provider
        .says(Manner::Held(vec![old.jwk(), new.jwk()], go_on.clone()))
        .await;
    let token = bed.token(&new)?;
    let row = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [1.0]}]});
    let hasty = bed.mesh.caller(&token);
    let hasty = hasty
        .post("/v2/models/m/infer")
        .header("x-request-timeout-ms", "100")
        .json(&row);
    let began = std::time::Instant::now();
    let refused = Answer::of(hasty).await?;
    ensure!(
        refused.status == 401 && began.elapsed() < Duration::from_secs(4),
        "{refused:?} after {:?}",
        began.elapsed()
    );
    // While others wait for it, who needs no new key does not.
    let patient = bed.ask(&token);
    let others = async {
        for _ in 0..20 {
            bed.takes(&old).await?;
        }
        go_on.notify_one();
        anyhow::Ok(())
    };
    let (answer, others) = futures::join!(patient, others);
    others?;
    answer?.ok().map(drop)
}

#[tokio::test]
async fn answers_that_are_no_key_set_displace_nothing() -> anyhow::Result<()> {
    let key = signer("k")?;
    let mut over = json!({"keys": [key.jwk()]}).to_string().into_bytes();
    over.resize((1 << 20) + 1, b' ');
    let many: Vec<Value> = (0..101)
        .map(|at| {
            let mut jwk = key.jwk();
            jwk["kid"] = json!(format!("k{at}"));
            jwk
        })
        .collect();
    let secret = json!({"keys": [{"kty": "oct", "kid": "s", "alg": "HS256", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MTI"}]});
    for (manner, words) in [
        (Manner::Body(over), "more than 1048576 bytes"),
        (Manner::Keys(many), "has 101 keys, at most 100"),
        (Manner::Body(b"<html>Sign in</html>".to_vec()), "it is no key set"),
        (Manner::Body(secret.to_string().into_bytes()), "no key that can be used"),
        (
            Manner::Status("302 Found", "location: /elsewhere\r\n".to_owned()),
            "redirects are not followed",
        ),
        (
            Manner::Status("500 Internal Server Error", String::new()),
            "answered 500",
        ),
    ] {
        let bed = Bed::start(&[&key], false).await?;
        bed.until_takes(&key).await?;
        bed.provider.says(manner).await;
        bed.refuses(&signer("unknown")?).await?;
        let shown = bed.until_failed(words).await?;
        ensure!(shown["keys"][0]["key_id"] == "k", "{words}: {shown}");
        bed.takes(&key).await?;
        ensure!(bed.provider.elsewhere() == 0, "a redirect was followed");
    }
    Ok(())
}

#[tokio::test]
async fn plain_http_to_another_machine_and_another_issuers_document_are_refused() -> anyhow::Result<()> {
    let key = signer("k")?;
    let bed = Bed::start(&[&key], true).await?;
    bed.until_takes(&key).await?;
    for (iss, jwks) in [
        ("https://a.example", json!({"url": "http://login.example/keys"})),
        (
            "https://b.example",
            json!({"url": "http://127.0.0.1@login.example/keys"}),
        ),
        ("http://login.example", json!({})),
        (
            "https://c.example",
            json!({"url": "https://login.example/keys", "algorithms": ["HS256"]}),
        ),
    ] {
        let body = json!({"resources": [issuer("bad", iss, &jwks)]});
        let answer = bed
            .mesh
            .admin()?
            .request(Method::POST, "/apply")
            .json(&body)
            .send()
            .await?;
        ensure!(answer.status().is_client_error(), "{iss}: {}", answer.status());
        let text = answer.text().await?;
        ensure!(text.contains("spec.jwks."), "{text}");
    }
    // OpenID Connect Discovery 1.0, 4.3: the document names exactly the issuer that was asked.
    *bed.provider.shared.issuer.lock().await = Some(format!("{}/", bed.provider.issuer()));
    bed.refuses(&signer("unknown")?).await?;
    bed.until_failed("of another issuer").await?;
    bed.takes(&key).await
}

#[tokio::test]
async fn a_storm_of_unknown_keys_causes_one_fetch() -> anyhow::Result<()> {
    let key = signer("k")?;
    let bed = Bed::start(&[&key], false).await?;
    bed.until_takes(&key).await?;
    let before = bed.provider.fetches();
    for _ in 0..10 {
        let tokens = (0..30)
            .map(|at| bed.token(&signer(&format!("storm{at}"))?))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let answers = futures::future::try_join_all(tokens.iter().map(|token| bed.ask(token))).await?;
        ensure!(answers.iter().all(|answer| answer.status == 401), "{answers:?}");
    }
    ensure!(
        bed.provider.fetches() == before + 1,
        "{} fetches",
        bed.provider.fetches() - before
    );
    bed.takes(&key).await
}

#[tokio::test]
async fn a_client_with_a_secret_gets_a_token_and_calls_with_it() -> anyhow::Result<()> {
    let key = signer("k")?;
    let bed = Bed::start(&[&key], true).await?;
    bed.until_takes(&key).await?;
    bed.provider.signs_with(key).await;
    // What a client does: find the token's endpoint, ask there, call here.
    let http = reqwest::Client::new();
    let found: Value = http
        .get(format!("{}/.well-known/openid-configuration", bed.provider.issuer()))
        .send()
        .await?
        .json()
        .await?;
    let endpoint = found["token_endpoint"].as_str().context("no endpoint")?;
    let granted = async |secret: &str| {
        let form = format!("grant_type=client_credentials&client_id=batch&client_secret={secret}");
        http.post(endpoint)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .send()
            .await
    };
    ensure!(granted("wrong").await?.status() == 401);
    let granted: Value = granted("s3cret").await?.error_for_status()?.json().await?;
    let token = granted["access_token"].as_str().context("no token")?;
    let answer = bed.ask(token).await?.ok()?;
    ensure!(answer.numbers(0)? == [1.0], "{answer:?}");
    let client = bed.mesh.grpc_client(token)?;
    let input = mesh_client::Input::new("x", [1, 1], &[2.0_f32])?;
    let answer = client.model("m").infer([input]).await?;
    ensure!(answer.output("y")?.to_vec::<f32>()? == [2.0]);
    Ok(())
}
