//! Callers that are known by their certificates, at both inference doors; and tokens that are bound to one.

use anyhow::{Context, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{EncodingKey, Header, encode};
use mesh_client::{Client, ClientBuilder, Error, FaultClass, Input};
use mesh_harness::{Authority, Mesh, MeshOptions, PATIENCE, Pair, ServeOptions, Text, eventually, identity};
use mesh_node::TlsOptions;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

const SECRET: &[u8] = b"thirty-two bytes of test secret!";

/// A mesh that asks callers for certificates and lets in who has none, with a model of `acme` and one of `globex`.
struct Bed {
    mesh: Mesh,
    authority: Authority,
    folder: TempDir,
    /// API keys of the two.
    keys: [String; 2],
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
            keys.push(mesh.tenant(tenant).await?.key().to_owned());
            mesh.admin()?.publish(tenant, "m", &identity()).await?;
        }
        let keys = keys.try_into().ok().context("two keys")?;
        Ok(Self {
            mesh,
            authority,
            folder,
            keys,
        })
    }

    /// Clients over both wires that show this certificate, if any.
    fn both(&self, shown: Option<&Pair>, more: impl Fn(ClientBuilder) -> ClientBuilder) -> anyhow::Result<[Client; 2]> {
        let addresses = self.mesh.addresses();
        let rest = Client::http(&format!("https://{}", addresses.http));
        let grpc = Client::grpc(&format!("https://{}", addresses.grpc));
        let build = |client: ClientBuilder| {
            let client = client.trust_only(self.authority.pem().as_bytes()).timeout(PATIENCE);
            let client = match shown {
                Some(shown) => client.identity(shown.pem().as_bytes()),
                None => client,
            };
            more(client).build()
        };
        Ok([build(rest)?, build(grpc)?])
    }

    async fn declare(&self, tenant: &str, name: &str, spec: Value) -> anyhow::Result<()> {
        let metadata = json!({"tenant": tenant, "name": name});
        let resource =
            json!({"apiVersion": "mesh/v1", "kind": "ClientCertificate", "metadata": metadata, "spec": spec});
        self.mesh.admin()?.apply(&[resource]).await.map(drop)
    }

    /// Until both wires answer so.
    async fn until(&self, clients: &[Client; 2], wanted: Option<FaultClass>) -> anyhow::Result<()> {
        for client in clients {
            eventually("the door answers as it should", || async {
                Ok((ask(client).await == wanted).then_some(()))
            })
            .await?;
        }
        Ok(())
    }
}

/// Why a prediction is refused, if it is.
async fn ask(client: &Client) -> Option<FaultClass> {
    let input = Input::new("x", [1, 2], &[1.0_f32, 2.0]).ok()?;
    client
        .model("m")
        .infer([input])
        .await
        .err()
        .map(|error: Error| error.class())
}

fn plain(client: ClientBuilder) -> ClientBuilder {
    client
}

fn infers(identity: &Value) -> Value {
    json!({"identity": identity, "scopes": ["infer"]})
}

#[tokio::test]
async fn a_certificate_lets_its_caller_in_over_both_wires_and_so_does_the_next_one() -> anyhow::Result<()> {
    let bed = Bed::start("required").await?;
    let id = "spiffe://acme.test/ns/prod/sa/billing";
    let first = bed.authority.sign(&[id])?;
    let callers = bed.both(Some(&first), plain)?;
    // Signed by the authority, but nobody's: as if it had shown nothing.
    bed.until(&callers, Some(FaultClass::Unauthenticated)).await?;
    bed.declare("acme", "billing", infers(&json!({"spiffe": id}))).await?;
    bed.until(&callers, None).await?;
    // The next certificate has another key and the same name.
    let next = bed.authority.sign(&[id])?;
    assert_ne!(next.key, first.key);
    bed.until(&bed.both(Some(&next), plain)?, None).await?;
    // The connections with the former one go on.
    bed.until(&callers, None).await?;
    let longer = bed.authority.sign(&["spiffe://acme.test/ns/prod/sa/billing/x"])?;
    bed.until(&bed.both(Some(&longer), plain)?, Some(FaultClass::Unauthenticated))
        .await?;
    let metrics = bed.mesh.metrics().await?;
    let counted =
        |line: &str| line.starts_with(r#"mesh_certificate_requests_total{tenant="acme",certificate="billing"}"#);
    ensure!(metrics.lines().any(counted), "{metrics}");
    // Taken back, on connections that are open as well.
    let mut spec = infers(&json!({"spiffe": id}));
    spec["revoked"] = json!(true);
    bed.declare("acme", "billing", spec).await?;
    bed.until(&callers, Some(FaultClass::Unauthenticated)).await?;
    let audit = bed.mesh.admin()?.get("/audit?limit=100").await?;
    ensure!(audit.to_string().contains("ClientCertificate/acme/billing"), "{audit}");
    Ok(())
}

#[tokio::test]
async fn a_header_counts_before_the_certificate_and_must_agree_with_it() -> anyhow::Result<()> {
    let bed = Bed::start("optional").await?;
    let shown = bed.authority.sign(&["billing.acme.test"])?;
    bed.declare("acme", "billing", infers(&json!({"dns": "billing.acme.test"})))
        .await?;
    bed.until(&bed.both(Some(&shown), plain)?, None).await?;
    let [acme, globex] = &bed.keys;
    let with = |shown: Option<&Pair>, key: &str| bed.both(shown, |client| client.api_key(key));
    bed.until(&with(Some(&shown), acme)?, None).await?;
    bed.until(&with(Some(&shown), globex)?, Some(FaultClass::Unauthenticated))
        .await?;
    bed.until(&with(None, globex)?, None).await?;
    // A key that is wrong is not saved by the certificate.
    bed.until(&with(Some(&shown), "mesh_live_x")?, Some(FaultClass::Unauthenticated))
        .await?;
    // Nothing at all, and a certificate that nobody has declared.
    bed.until(&bed.both(None, plain)?, Some(FaultClass::Unauthenticated))
        .await?;
    let unknown = bed.authority.sign(&["other.acme.test"])?;
    bed.until(&with(Some(&unknown), globex)?, None).await?;
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
        description: None,
    };
    assert_eq!(create(&bed, args.clone()).await?, 0);
    bed.until(&bed.both(Some(&pair), plain)?, None).await?;
    // The same key under another name, and another key under the same.
    let renewed = bed.authority.sign_key(&["elsewhere.test"], &pair.key)?;
    bed.until(&bed.both(Some(&renewed), plain)?, None).await?;
    let foreign = bed.authority.sign(&["sensor.test"])?;
    bed.until(&bed.both(Some(&foreign), plain)?, Some(FaultClass::Unauthenticated))
        .await?;
    // One certificate means one caller.
    let twice = mesh_cli::CertificateCreateArgs {
        tenant: "acme".parse()?,
        ..args.clone()
    };
    assert_eq!(create(&bed, twice).await?, 1);
    assert_eq!(create(&bed, args).await?, 4);
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
async fn a_token_that_is_bound_to_a_certificate_is_nobodys_without_it() -> anyhow::Result<()> {
    let bed = Bed::start("optional").await?;
    let spec = json!({
        "issuer": "https://idp.test", "audiences": ["mesh"], "tenants": {"tenant": "acme"},
        "keys": [{"algorithm": "HS256", "secret_base64": STANDARD.encode(SECRET)}],
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
    let with = |shown: Option<&Pair>| bed.both(shown, |client| client.bearer(&token));
    bed.until(&with(Some(&own))?, None).await?;
    for shown in [None, Some(&other)] {
        bed.until(&with(shown)?, Some(FaultClass::Unauthenticated)).await?;
    }
    Ok(())
}
