//! TLS of the doors: certificates that are renewed under load, callers who must show one, and what is spoken.

use std::{path::PathBuf, time::Duration};

use mesh_e2e::Load;
use mesh_harness::{Admin, Answer, Authority, Caller, Mesh, MeshOptions, ServeOptions, Text, eventually, identity};
use mesh_node::{NodeConfig, TlsOptions};
use reqwest::{Client, ClientBuilder, Method, tls};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// `ServerLive` without fields, in a frame of gRPC; the answer's frame says yes.
const LIVE: [u8; 5] = [0; 5];
const YES: [u8; 7] = [0, 0, 0, 0, 2, 8, 1];

/// A mesh behind TLS, and who may have signed what.
struct Bed {
    mesh: Mesh,
    authority: Authority,
    folder: TempDir,
}

fn text(text: &str) -> Option<Text> {
    Some(Text(text.to_owned()))
}

impl Bed {
    async fn start(more: impl FnOnce(TlsOptions) -> TlsOptions) -> anyhow::Result<Self> {
        let (authority, folder) = (Authority::new("mesh test")?, tempfile::tempdir()?);
        let (certificate, key) = authority.sign(&["127.0.0.1"])?.write(folder.path(), "door")?;
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        let tls = more(TlsOptions {
            tls_cert: Some(certificate),
            tls_key: Some(key),
            ..TlsOptions::default()
        });
        // A handshake for every request of callers; the certificate that nobody must have is shown.
        let shown = authority.sign(&["caller"])?;
        let client = authority
            .trusting()?
            .identity(shown.identity()?)
            .pool_max_idle_per_host(0)
            .tls_info(true)
            .build()?;
        let mesh = Mesh::start_with(MeshOptions {
            serve: ServeOptions {
                tls,
                ..ServeOptions::default()
            },
            tls_client: Some(client),
            ..MeshOptions::default()
        })
        .await?;
        Ok(Self {
            mesh,
            authority,
            folder,
        })
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn client(&self, more: impl FnOnce(ClientBuilder) -> ClientBuilder) -> anyhow::Result<Client> {
        Ok(more(self.authority.trusting()?).build()?)
    }

    async fn live(&self, client: &Client) -> anyhow::Result<bool> {
        let url = format!("https://{}/v2/health/live", self.mesh.addresses().http);
        Ok(client.get(url).send().await?.status().is_success())
    }

    async fn live_over_grpc(&self, client: &Client) -> anyhow::Result<bool> {
        let address = self.mesh.addresses().grpc;
        let url = format!("https://{address}/inference.GRPCInferenceService/ServerLive");
        let asked = client
            .post(url)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        Ok(asked.body(LIVE.to_vec()).send().await?.bytes().await? == YES[..])
    }

    /// The certificate that the door serves with, seen by a client of its own: one that resumes a session sees the old one.
    async fn served(&self) -> anyhow::Result<Vec<u8>> {
        let client = self.client(|client| client.tls_info(true))?;
        let url = format!("https://{}/v2/health/live", self.mesh.addresses().http);
        let answer = client.get(url).send().await?;
        let info = answer.extensions().get::<tls::TlsInfo>();
        Ok(info
            .and_then(tls::TlsInfo::peer_certificate)
            .unwrap_or_default()
            .to_vec())
    }
}

#[tokio::test]
async fn a_certificate_is_renewed_under_load_and_no_request_fails() -> anyhow::Result<()> {
    let bed = Bed::start(|tls| tls).await?;
    let admin = bed.mesh.admin()?;
    let caller = bed.mesh.tenant("acme").await?;
    admin.publish("acme", "m", &identity()).await?;
    caller.until_ready("m").await?;
    // A connection that was there before goes on.
    let staying = Caller::over_tls(
        bed.client(|client| client)?,
        bed.mesh.addresses().http,
        Some(caller.key()),
    );
    let load = Load::begin(&caller, "m", 2);
    let old_friends = Load::begin(&staying, "m", 1);
    load.go_on_for(20).await;
    let first = bed.served().await?;
    // A key that is not the certificate's is refused, and the old pair serves on.
    let second = bed.authority.sign(&["127.0.0.1"])?;
    std::fs::write(bed.folder.path().join("door.key"), &second.key)?;
    eventually("the bad pair is refused", || async {
        let metrics = bed.mesh.metrics().await?;
        let refused = r#"mesh_tls_renewals_total{door="inference",outcome="refused"} 1"#;
        Ok(metrics.lines().any(|line| line == refused).then_some(()))
    })
    .await?;
    assert_eq!(bed.served().await?, first);
    let shown = admin.get("/door-certificates").await?;
    assert_eq!(shown[0]["door"], "inference");
    assert!(shown[0]["tls"]["refused_since"].is_string(), "{shown}");
    assert_eq!(shown[0]["tls"]["certificate"]["names"], json!(["127.0.0.1"]));
    assert_eq!(shown[2], json!({"door": "metrics", "tls": null}));
    second.write(bed.folder.path(), "door")?;
    eventually("the new certificate serves", || async {
        Ok((bed.served().await? != first).then_some(()))
    })
    .await?;
    load.go_on_for(20).await;
    old_friends.go_on_for(20).await;
    for load in [load, old_friends] {
        let seen = load.end().await;
        assert_eq!(seen.failures, [""; 0]);
        assert!(seen.ok >= 40);
    }
    let renewed = admin.get("/door-certificates").await?;
    let (before, after) = (&shown[0]["tls"], &renewed[0]["tls"]);
    assert_eq!((&after["renewals"], &after["refused_since"]), (&json!(1), &json!(null)));
    assert_ne!(after["certificate"]["sha256"], before["certificate"]["sha256"]);
    let metrics = bed.mesh.metrics().await?;
    for door in ["inference", "admin"] {
        let renewed = format!(r#"mesh_tls_renewals_total{{door="{door}",outcome="renewed"}} 1"#);
        assert!(metrics.contains(&renewed), "{door}");
    }
    assert!(metrics.contains("mesh_tls_certificate_expiry_timestamp_seconds{door=\"inference\"} "));
    Ok(())
}

#[tokio::test]
async fn callers_without_a_certificate_of_the_authority_are_refused_at_both_inference_doors() -> anyhow::Result<()> {
    let bed = Bed::start(|tls| {
        let ca = tls.tls_cert.as_ref().map(|cert| cert.with_file_name("ca.pem"));
        TlsOptions {
            tls_client_ca: ca,
            ..tls
        }
    })
    .await?;
    assert!(bed.ca().exists());
    let (known, foreign) = (
        bed.authority.sign(&["caller"])?,
        Authority::new("mesh test")?.sign(&["caller"])?,
    );
    let (known, foreign) = (known.identity()?, foreign.identity()?);
    let known = bed.client(|client| client.identity(known))?;
    assert!(bed.live(&known).await?);
    assert!(bed.live_over_grpc(&known).await?);
    let (nobody, foreigner) = (
        bed.client(|client| client)?,
        bed.client(|client| client.identity(foreign))?,
    );
    for refused in [&nobody, &foreigner] {
        assert!(bed.live(refused).await.is_err());
        assert!(bed.live_over_grpc(refused).await.is_err());
    }
    // The admin door asks for a token and for no certificate.
    let url = format!("https://{}/", bed.mesh.addresses().admin);
    assert!(nobody.get(url).send().await?.status().as_u16() < 500);
    Ok(())
}

#[tokio::test]
async fn where_certificates_are_optional_a_foreign_one_is_still_refused() -> anyhow::Result<()> {
    let bed = Bed::start(|tls| TlsOptions {
        tls_client_ca: tls.tls_cert.as_ref().map(|cert| cert.with_file_name("ca.pem")),
        tls_client_auth: text("optional"),
        ..tls
    })
    .await?;
    let foreign = Authority::new("another")?.sign(&["caller"])?.identity()?;
    assert!(bed.live(&bed.client(|client| client)?).await?);
    assert!(bed.live(&bed.client(|client| client.identity(foreign))?).await.is_err());
    Ok(())
}

#[tokio::test]
async fn tls_1_3_is_spoken_and_1_2_only_where_it_is_asked_for() -> anyhow::Result<()> {
    let old = |client: ClientBuilder| client.tls_version_max(tls::Version::TLS_1_2);
    let strict = Bed::start(|tls| tls).await?;
    assert!(strict.live(&strict.client(|client| client)?).await?);
    assert!(strict.live(&strict.client(old)?).await.is_err());
    assert!(strict.live_over_grpc(&strict.client(old)?).await.is_err());
    drop(strict);
    let lenient = Bed::start(|tls| TlsOptions {
        tls_min_version: text("1.2"),
        metrics_tls: text("off"),
        ..tls
    })
    .await?;
    assert!(lenient.live(&lenient.client(old)?).await?);
    assert!(lenient.live_over_grpc(&lenient.client(old)?).await?);
    Ok(())
}

#[tokio::test]
async fn http_2_and_1_1_are_agreed_on_and_the_answers_are_the_same() -> anyhow::Result<()> {
    let bed = Bed::start(|tls| tls).await?;
    let (both, old) = (bed.client(|client| client)?, bed.client(ClientBuilder::http1_only)?);
    let addresses = bed.mesh.addresses();
    let url = format!("https://{}/v2/health/live", addresses.http);
    assert_eq!(both.get(&url).send().await?.version(), reqwest::Version::HTTP_2);
    assert_eq!(old.get(&url).send().await?.version(), reqwest::Version::HTTP_11);
    // The admin door and the gRPC door speak one each.
    let admin = both.get(format!("https://{}/", addresses.admin)).send().await?;
    assert_eq!(admin.version(), reqwest::Version::HTTP_11);
    assert!(bed.live_over_grpc(&both).await?);
    assert!(bed.live_over_grpc(&old).await.is_err());
    // Plain text is no TLS, and gets no answer.
    assert!(
        reqwest::get(format!("http://{}/v2/health/live", addresses.http))
            .await
            .is_err()
    );
    let known = bed.mesh.tenant("acme").await?;
    bed.mesh.admin()?.publish("acme", "m", &identity()).await?;
    known.until_ready("m").await?;
    let by = |client: &Client| Caller::over_tls(client.clone(), addresses.http, Some(known.key()));
    let (new, old) = (by(&both), by(&old));
    let events = json!({"x": [1.5, -2.0]});
    for (caller, other) in [(&new, &old), (&old, &new)] {
        let (answer, same) = (
            caller.ask("m", &[1.5, -2.0]).await?.ok()?,
            other.ask("m", &[1.5, -2.0]).await?,
        );
        assert_eq!((answer.status, &answer.body), (same.status, &same.body));
        let stream = |caller: &Caller| Answer::of(caller.post("/v2/models/m/generate_stream").json(&events));
        let (answer, same) = (stream(caller).await?.ok()?, stream(other).await?);
        assert!(answer.body.starts_with(b"data: "));
        assert_eq!(
            (answer.header("content-type"), &answer.body),
            (same.header("content-type"), &same.body)
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_handshake_is_cut_off_in_time() -> anyhow::Result<()> {
    let bed = Bed::start(|tls| tls).await?;
    let mut silent = Vec::new();
    // Nothing, the head of a record without its hello, and HTTP/2 that forgot about TLS.
    for said in [&b""[..], &[22, 3, 1, 1, 0], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = tokio::net::TcpStream::connect(bed.mesh.addresses().http).await?;
        stream.write_all(said).await?;
        silent.push(stream);
    }
    assert!(bed.live(&bed.client(|client| client)?).await?);
    for mut stream in silent {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "still open after 15 s");
    }
    Ok(())
}

#[tokio::test]
async fn the_admin_door_binds_browsers_to_tls_and_its_cookie_too() -> anyhow::Result<()> {
    let bed = Bed::start(|tls| tls).await?;
    let address = bed.mesh.addresses().admin;
    let origin = format!("https://{address}");
    let client = bed.client(|client| client)?;
    let admin = Admin::over_tls(client.clone(), address, bed.mesh.admin()?.token());
    let token = json!({"token": admin.token()});
    let sign_in = client
        .post(format!("{origin}/admin/v1/session"))
        .header("origin", &origin)
        .json(&token);
    let answer = Answer::of(sign_in).await?.ok()?;
    let cookie = answer.header("set-cookie").unwrap_or_default().to_owned();
    assert!(cookie.contains("Secure") && cookie.contains("HttpOnly"), "{cookie}");
    assert!(
        answer
            .header("strict-transport-security")
            .is_some_and(|value| value.starts_with("max-age="))
    );
    // A change by cookie names its origin, which is compared with the address that it was sent to.
    let cookie = cookie.split(';').next().unwrap_or_default();
    let sign_out = |origin: &str| {
        let request = client.delete(format!("https://{address}/admin/v1/session"));
        request.header("cookie", cookie).header("origin", origin)
    };
    assert_eq!(Answer::of(sign_out("https://elsewhere")).await?.status.as_u16(), 403);
    assert_eq!(Answer::of(sign_out(&origin)).await?.status.as_u16(), 200);
    assert!(
        admin
            .request(Method::GET, "/devices")
            .send()
            .await?
            .status()
            .is_success()
    );
    Ok(())
}

#[tokio::test]
async fn the_command_line_trusts_the_authority_it_is_told_and_shows_its_certificate() -> anyhow::Result<()> {
    let bed = Bed::start(|tls| TlsOptions {
        admin_tls_client_ca: tls.tls_cert.as_ref().map(|cert| cert.with_file_name("ca.pem")),
        ..tls
    })
    .await?;
    let (certificate, key) = bed
        .authority
        .sign(&["operator"])?
        .write(bed.folder.path(), "operator")?;
    let known = mesh_cli::TrustOptions {
        ca_cert: Some(bed.ca()),
        client_cert: Some(certificate),
        client_key: Some(key),
    };
    let without = mesh_cli::TrustOptions {
        ca_cert: Some(bed.ca()),
        ..mesh_cli::TrustOptions::default()
    };
    assert_eq!(status(&bed, known).await?, 0);
    assert_eq!(status(&bed, without).await?, 3);
    assert_eq!(status(&bed, mesh_cli::TrustOptions::default()).await?, 3);
    Ok(())
}

/// Runs `mesh status`; answers its exit code.
async fn status(bed: &Bed, trust: mesh_cli::TrustOptions) -> anyhow::Result<u8> {
    let globals = mesh_cli::GlobalOptions {
        admin_url: format!("https://{}", bed.mesh.addresses().admin),
        admin_token: Some(bed.mesh.admin()?.token().to_owned()),
        admin_token_from: None,
        url: String::new(),
        api_key: None,
        trust,
    };
    let run = move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = mesh_cli::Terminal {
            out: &mut out,
            err: &mut err,
            input: &mut std::io::empty(),
            interactive: false,
        };
        let args = mesh_cli::StatusArgs {
            output: mesh_cli::OutputFormat::Json,
        };
        mesh_cli::run_with(mesh_cli::Command::Status(args), &globals, &mut terminal)
    };
    Ok(tokio::task::spawn_blocking(run).await?)
}

#[tokio::test]
async fn a_pair_that_does_not_fit_stops_the_start_and_names_the_file() -> anyhow::Result<()> {
    let (authority, folder) = (Authority::new("mesh test")?, tempfile::tempdir()?);
    let (certificate, _) = authority.sign(&["127.0.0.1"])?.write(folder.path(), "door")?;
    let (_, key) = authority.sign(&["127.0.0.1"])?.write(folder.path(), "other")?;
    let started = Mesh::start_with(MeshOptions {
        serve: ServeOptions {
            tls: TlsOptions {
                tls_cert: Some(certificate),
                tls_key: Some(key.clone()),
                ..TlsOptions::default()
            },
            ..ServeOptions::default()
        },
        ..MeshOptions::default()
    })
    .await;
    let error = started.err().map(|error| format!("{error:#}")).unwrap_or_default();
    assert!(
        error.contains(&key.display().to_string()) && error.contains("is not that of"),
        "{error}"
    );
    // In a file the settings have the same names.
    let file = folder.path().join("mesh.toml");
    std::fs::write(&file, "tls_cert = \"a\"\ntls_min_version = 1.2\nhttp_workers = 1\n")?;
    let refused = NodeConfig::load(ServeOptions {
        config: Some(file),
        ..ServeOptions::default()
    });
    let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(refused.contains("tls_key: missing"), "{refused}");
    Ok(())
}
