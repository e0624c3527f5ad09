//! Callers that are known by their certificates, over HTTP/1.1, HTTP/2 and gRPC; and tokens that are bound to one.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, encode};
use mesh_harness::{Authority, Caller, Mesh, MeshOptions, PATIENCE, Pair, ServeOptions, Text, eventually, identity};
use mesh_node::TlsOptions;
use mesh_protocol::grpc::messages::{ModelInferRequest, model_infer_request::InferInputTensor};
use prost::Message as _;
use reqwest::{Client, ClientBuilder, Method, Version};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const SECRET: &[u8] = b"thirty-two bytes of test secret!";
/// How soon what an admin says is so.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A mesh that asks callers for certificates, with a model `m` of `acme` and one of `globex`.
struct Bed {
    mesh: Mesh,
    authority: Authority,
    folder: TempDir,
    /// API keys of the two.
    keys: [String; 2],
}

/// What a caller is told: none where it is answered.
type Refused = Option<(u16, String)>;

/// Somebody who calls over all three wires, on connections that stay open.
struct Someone {
    over_http: [(Client, Version); 2],
    over_grpc: Client,
    http: String,
    grpc: String,
    bearer: Option<String>,
}

impl Bed {
    async fn start(mode: &str) -> anyhow::Result<Self> {
        let (authority, folder) = (Authority::new("mesh test")?, tempfile::tempdir()?);
        let (certificate, key) = authority.sign(&["127.0.0.1"])?.write(folder.path(), "door")?;
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, authority.pem())?;
        let shown = authority.sign(&["nobody.test"])?.identity()?;
        let mesh = Mesh::start_with(MeshOptions {
            serve: ServeOptions {
                tls: TlsOptions {
                    tls_cert: Some(certificate),
                    tls_key: Some(key),
                    tls_client_ca: Some(ca),
                    tls_client_auth: Some(Text(mode.to_owned())),
                    ..TlsOptions::default()
                },
                ..ServeOptions::default()
            },
            tls_client: Some(authority.trusting()?.identity(shown).build()?),
            ..MeshOptions::default()
        })
        .await?;
        let mut keys = Vec::new();
        for tenant in ["acme", "globex"] {
            let caller = mesh.tenant(tenant).await?;
            mesh.admin()?.publish(tenant, "m", &identity()).await?;
            caller.until_ready("m").await?;
            keys.push(caller.key().to_owned());
        }
        let keys = keys.try_into().ok().context("two keys")?;
        Ok(Self {
            mesh,
            authority,
            folder,
            keys,
        })
    }

    /// Who shows this certificate, if any, and this credential, if any.
    fn someone(&self, shown: Option<&Pair>, bearer: Option<&str>) -> anyhow::Result<Someone> {
        let client = |more: fn(ClientBuilder) -> ClientBuilder| {
            let client = more(self.authority.trusting()?);
            anyhow::Ok(match shown {
                Some(shown) => client.identity(shown.identity()?).build()?,
                None => client.build()?,
            })
        };
        let addresses = self.mesh.addresses();
        Ok(Someone {
            over_http: [
                (client(ClientBuilder::http1_only)?, Version::HTTP_11),
                (client(|client| client)?, Version::HTTP_2),
            ],
            over_grpc: client(|client| client)?,
            http: format!("https://{}", addresses.http),
            grpc: format!("https://{}", addresses.grpc),
            bearer: bearer.map(str::to_owned),
        })
    }

    async fn declare(&self, tenant: &str, name: &str, spec: Value) -> anyhow::Result<()> {
        let metadata = json!({"tenant": tenant, "name": name});
        let resource =
            json!({"apiVersion": "mesh/v1", "kind": "ClientCertificate", "metadata": metadata, "spec": spec});
        self.mesh.admin()?.apply(&[resource]).await.map(drop)
    }
}

impl Someone {
    /// What each wire answers to a request for one row of `model`.
    async fn ask(&self, model: &str) -> anyhow::Result<[Refused; 3]> {
        let mut told: [Refused; 3] = Default::default();
        for (index, (client, version)) in self.over_http.iter().enumerate() {
            let row = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]});
            let request = client.post(format!("{}/v2/models/{model}/infer", self.http)).json(&row);
            let answer = self.with_bearer(request).send().await?;
            ensure!(answer.version() == *version, "{:?}", answer.version());
            if !answer.status().is_success() {
                told[index] = Some((answer.status().as_u16(), answer.text().await?));
            }
        }
        told[2] = self.ask_over_grpc(model).await?;
        Ok(told)
    }

    fn with_bearer(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.bearer {
            Some(bearer) => request.bearer_auth(bearer),
            None => request,
        }
    }

    /// The same in a message of gRPC; a refusal's status is written as HTTP's.
    async fn ask_over_grpc(&self, model: &str) -> anyhow::Result<Refused> {
        let message = ModelInferRequest {
            model_name: model.to_owned(),
            inputs: vec![InferInputTensor {
                name: "x".into(),
                datatype: "FP32".into(),
                shape: vec![1, 2],
                ..InferInputTensor::default()
            }],
            raw_input_contents: vec![bytes::Bytes::from(vec![0; 8])],
            ..ModelInferRequest::default()
        };
        let message = message.encode_to_vec();
        let mut framed = vec![0];
        framed.extend(u32::try_from(message.len())?.to_be_bytes());
        framed.extend(message);
        let url = format!("{}/inference.GRPCInferenceService/ModelInfer", self.grpc);
        let request = self.over_grpc.post(url).header("content-type", "application/grpc");
        let answer = self
            .with_bearer(request.header("te", "trailers").body(framed))
            .send()
            .await?;
        let header = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let told = match header("grpc-status") {
            None | Some("0") => None,
            Some("16") => Some((401, header("grpc-message").unwrap_or_default().replace("%20", " "))),
            Some("5") => Some((404, String::new())),
            Some(other) => anyhow::bail!("gRPC status {other}"),
        };
        let body = answer.bytes().await?;
        ensure!(told.is_some() || body.len() > 5, "an answer without a message");
        Ok(told)
    }

    /// That all wires say so, at the latest so long from now.
    async fn is(&self, wanted: Option<u16>, within: Duration) -> anyhow::Result<()> {
        let begun = Instant::now();
        eventually("the doors answer as they should", || async {
            let told = self.ask("m").await?;
            let so = told
                .iter()
                .all(|told| told.as_ref().map(|(status, _)| *status) == wanted);
            ensure!(so || begun.elapsed() < within, "after {within:?}: {told:?}");
            Ok(so.then_some(()))
        })
        .await
    }
}

fn infers(identity: &Value) -> Value {
    json!({"identity": identity, "scopes": ["infer"]})
}

#[tokio::test]
async fn a_certificate_lets_its_caller_in_over_each_wire_until_it_is_taken_back() -> anyhow::Result<()> {
    let bed = Bed::start("required").await?;
    let id = "spiffe://acme.test/ns/prod/sa/billing";
    let first = bed.authority.sign(&[id])?;
    let caller = bed.someone(Some(&first), None)?;
    // Signed by the authority, but nobody's: as if it had shown nothing.
    caller.is(Some(401), PATIENCE).await?;
    bed.declare("acme", "billing", infers(&json!({"spiffe": id}))).await?;
    caller.is(None, PATIENCE).await?;
    // It is acme's and nobody else's: another tenant's model is not there.
    bed.mesh.admin()?.publish("globex", "theirs", &identity()).await?;
    let told = caller.ask("theirs").await?;
    assert_eq!(told.map(|told| told.map(|(status, _)| status)), [Some(404); 3]);
    // The next certificate has another key and the same name; a longer name is another.
    let next = bed.authority.sign(&[id])?;
    assert_ne!(next.key, first.key);
    bed.someone(Some(&next), None)?.is(None, PATIENCE).await?;
    let longer = bed.authority.sign(&["spiffe://acme.test/ns/prod/sa/billing/x"])?;
    bed.someone(Some(&longer), None)?.is(Some(401), PATIENCE).await?;
    let metrics = bed.mesh.metrics().await?;
    let counted =
        |line: &str| line.starts_with(r#"mesh_certificate_requests_total{tenant="acme",certificate="billing"}"#);
    ensure!(metrics.lines().any(counted), "{metrics}");
    // Taken back, on connections that are open; and given again, and its record deleted.
    let mut spec = infers(&json!({"spiffe": id}));
    spec["revoked"] = json!(true);
    bed.declare("acme", "billing", spec).await?;
    caller.is(Some(401), AT_ONCE).await?;
    bed.declare("acme", "billing", infers(&json!({"spiffe": id}))).await?;
    caller.is(None, AT_ONCE).await?;
    let path = "/tenants/acme/certificates/billing";
    let deleted = bed.mesh.admin()?.request(Method::DELETE, path).send().await?;
    ensure!(deleted.status().is_success(), "{deleted:?}");
    caller.is(Some(401), AT_ONCE).await?;
    let audit = bed.mesh.admin()?.get("/audit?limit=100").await?;
    ensure!(audit.to_string().contains("ClientCertificate/acme/billing"), "{audit}");
    Ok(())
}

#[tokio::test]
async fn a_foreign_authority_and_a_date_that_is_past_let_nobody_in() -> anyhow::Result<()> {
    let bed = Bed::start("optional").await?;
    bed.declare("acme", "billing", infers(&json!({"dns": "billing.acme.test"})))
        .await?;
    let own = bed.someone(Some(&bed.authority.sign(&["billing.acme.test"])?), None)?;
    own.is(None, PATIENCE).await?;
    // The same name, signed by somebody else of the same name: the handshake ends, also where certificates are optional.
    let foreign = Authority::new("mesh test")?.sign(&["billing.acme.test"])?;
    let foreigner = bed.someone(Some(&foreign), None)?;
    for (client, _) in &foreigner.over_http {
        let request = client.get(format!("{}/v2/models/m", foreigner.http));
        assert!(request.send().await.is_err());
    }
    assert!(foreigner.ask_over_grpc("m").await.is_err());
    // A record ends by its own date, whatever the certificate's.
    let mut spec = infers(&json!({"dns": "billing.acme.test"}));
    spec["expires"] = json!("2026-01-01T00:00:00Z");
    bed.declare("acme", "billing", spec).await?;
    own.is(Some(401), PATIENCE).await?;
    assert!(
        own.ask("m").await?[0]
            .as_ref()
            .is_some_and(|(_, told)| told.contains("expired"))
    );
    Ok(())
}

#[tokio::test]
async fn a_header_counts_before_the_certificate_and_must_agree_with_it() -> anyhow::Result<()> {
    let bed = Bed::start("optional").await?;
    let shown = bed.authority.sign(&["billing.acme.test"])?;
    bed.declare("acme", "billing", infers(&json!({"dns": "billing.acme.test"})))
        .await?;
    bed.someone(Some(&shown), None)?.is(None, PATIENCE).await?;
    let [acme, globex] = &bed.keys;
    bed.someone(Some(&shown), Some(acme))?.is(None, PATIENCE).await?;
    let torn = bed.someone(Some(&shown), Some(globex))?;
    torn.is(Some(401), PATIENCE).await?;
    for told in torn.ask("m").await? {
        let (_, told) = told.context("a refusal")?;
        ensure!(told.contains("are of different tenants"), "{told}");
    }
    bed.someone(None, Some(globex))?.is(None, PATIENCE).await?;
    // A key that is wrong is not saved by the certificate.
    bed.someone(Some(&shown), Some("mesh_live_x"))?
        .is(Some(401), PATIENCE)
        .await?;
    // Nothing at all, and a certificate that nobody has declared beside a key that is right.
    bed.someone(None, None)?.is(Some(401), PATIENCE).await?;
    let unknown = bed.authority.sign(&["other.acme.test"])?;
    bed.someone(Some(&unknown), Some(globex))?.is(None, PATIENCE).await?;
    Ok(())
}

#[tokio::test]
async fn a_key_is_pinned_by_the_command_line_and_two_records_of_one_are_refused() -> anyhow::Result<()> {
    let bed = Bed::start("optional").await?;
    let pair = bed.authority.sign(&["sensor.test"])?;
    let (path, _) = pair.write(bed.folder.path(), "sensor")?;
    let args = mesh_cli::CertificateCreateArgs {
        name: "sensor-7".to_owned(),
        tenant: "globex".parse()?,
        spiffe: None,
        dns: None,
        cert: Some(path),
        expires: None,
        groups: vec!["sensors".to_owned()],
        description: None,
    };
    assert_eq!(create(&bed, args.clone()).await?, 0);
    let path = "/tenants/globex/certificates/sensor-7";
    let made = bed.mesh.admin()?.get(path).await?;
    assert_eq!(made["spec"]["groups"], json!(["sensors"]), "{made}");
    bed.someone(Some(&pair), None)?.is(None, PATIENCE).await?;
    // The same key under another name, and another key under the same.
    let renewed = bed.authority.sign_key(&["elsewhere.test"], &pair.key)?;
    bed.someone(Some(&renewed), None)?.is(None, PATIENCE).await?;
    let foreign = bed.authority.sign(&["sensor.test"])?;
    bed.someone(Some(&foreign), None)?.is(Some(401), PATIENCE).await?;
    // One certificate means one caller.
    let twice = mesh_cli::CertificateCreateArgs {
        tenant: "acme".parse()?,
        ..args.clone()
    };
    assert_eq!(create(&bed, twice).await?, 1);
    assert_eq!(create(&bed, args).await?, 4);
    Ok(())
}

#[tokio::test]
async fn policies_know_callers_by_the_groups_of_their_certificates() -> anyhow::Result<()> {
    let bed = Bed::start("required").await?;
    let shown = [
        bed.authority.sign(&["a.acme.test"])?,
        bed.authority.sign(&["b.acme.test"])?,
    ];
    let callers = [bed.someone(Some(&shown[0]), None)?, bed.someone(Some(&shown[1]), None)?];
    let grouped = |name: &str, groups: &[&str]| {
        let mut spec = infers(&json!({"dns": format!("{name}.acme.test")}));
        spec["groups"] = json!(groups);
        spec
    };
    bed.declare("acme", "a", grouped("a", &["services", "batch"])).await?;
    bed.declare("acme", "b", grouped("b", &["others"])).await?;
    for caller in &callers {
        caller.is(None, PATIENCE).await?;
    }
    let text =
        "forbid (principal in Mesh::Group::\"acme/services\", action == Mesh::Action::\"model:infer\", resource);";
    let policy = json!({
        "apiVersion": "mesh/v1", "kind": "Policy", "metadata": {"name": "services"}, "spec": {"cedar": text},
    });
    let admin = bed.mesh.admin()?;
    admin.apply(&[policy]).await?;
    // The name is not there for the one in the group, over each wire, and nothing has changed for the other.
    callers[0].is(Some(404), PATIENCE).await?;
    callers[1].is(None, PATIENCE).await?;
    // The same question asked by an admin, of the record that is there.
    let question = json!({"principal": "Certificate/acme/a", "action": "model:infer", "resource": "Model/acme/m"});
    let asked = admin
        .request(Method::POST, "/policy-test")
        .json(&question)
        .send()
        .await?;
    let verdict: Value = asked.error_for_status()?.json().await?;
    ensure!(verdict["allowed"] == json!(false), "{verdict}");
    // Out of the group, and into it: with its record, on connections that are open.
    bed.declare("acme", "a", grouped("a", &["batch"])).await?;
    callers[0].is(None, PATIENCE).await?;
    bed.declare("acme", "b", grouped("b", &["services"])).await?;
    callers[1].is(Some(404), PATIENCE).await?;
    // What is no group is refused, by its field.
    let wrong = bed.declare("acme", "a", grouped("a", &["a/b"])).await;
    ensure!(wrong.is_err_and(|error| error.to_string().contains("spec.groups[0]")));
    Ok(())
}

/// Runs `mesh certificate create`; answers its exit code.
async fn create(bed: &Bed, args: mesh_cli::CertificateCreateArgs) -> anyhow::Result<u8> {
    let globals = mesh_cli::GlobalOptions {
        admin_url: format!("https://{}", bed.mesh.addresses().admin),
        admin_token: Some(bed.mesh.admin()?.token().to_owned()),
        admin_token_from: None,
        url: String::new(),
        api_key: None,
        trust: mesh_cli::TrustOptions {
            ca_cert: Some(bed.folder.path().join("ca.pem")),
            ..mesh_cli::TrustOptions::default()
        },
    };
    let run = move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = mesh_cli::Terminal {
            out: &mut out,
            err: &mut err,
            input: &mut std::io::empty(),
            interactive: false,
        };
        let command = mesh_cli::Command::Certificate(mesh_cli::CertificateCommand::Create(args));
        mesh_cli::run_with(command, &globals, &mut terminal)
    };
    Ok(tokio::task::spawn_blocking(run).await?)
}

#[tokio::test]
async fn rfc8705_3_a_token_that_is_bound_to_a_certificate_is_nobodys_without_it() -> anyhow::Result<()> {
    let bed = Bed::start("optional").await?;
    let spec = json!({
        "issuer": "https://idp.test", "audiences": ["mesh"], "tenants": {"tenant": "acme"},
        "keys": [{"algorithm": "HS256", "secret_base64": STANDARD.encode(SECRET)}], "profile": "rfc7519",
    });
    let issuer = json!({"apiVersion": "mesh/v1", "kind": "Issuer", "metadata": {"name": "idp"}, "spec": spec});
    bed.mesh.admin()?.apply(&[issuer]).await?;
    let (own, other) = (bed.authority.sign(&["own.test"])?, bed.authority.sign(&["other.test"])?);
    let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(&own.der));
    let now = i64::try_from(std::time::UNIX_EPOCH.elapsed()?.as_secs())?;
    let claims = json!({
        "iss": "https://idp.test", "aud": "mesh", "sub": "alice", "nbf": now - 10, "exp": now + 600,
        "cnf": {"x5t#S256": thumbprint},
    });
    let token = encode(&Header::default(), &claims, &EncodingKey::from_secret(SECRET))?;
    bed.someone(Some(&own), Some(&token))?.is(None, PATIENCE).await?;
    for shown in [None, Some(&other)] {
        bed.someone(shown, Some(&token))?.is(Some(401), PATIENCE).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_is_asked_about_models_is_answered_by_certificate_too() -> anyhow::Result<()> {
    let bed = Bed::start("required").await?;
    bed.declare("acme", "billing", infers(&json!({"dns": "billing.acme.test"})))
        .await?;
    let someone = bed.someone(Some(&bed.authority.sign(&["billing.acme.test"])?), None)?;
    someone.is(None, PATIENCE).await?;
    for (client, _) in &someone.over_http {
        let caller = Caller::over_tls(client.clone(), bed.mesh.addresses().http, None);
        for path in ["/v2/models/m", "/v2/models/m/stats", "/v2/models/m/config"] {
            let answer = mesh_harness::Answer::of(caller.get(path)).await?.ok()?;
            ensure!(!answer.body.is_empty(), "{path}");
        }
    }
    Ok(())
}
