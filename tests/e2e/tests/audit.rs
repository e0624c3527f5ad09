//! The audit log of a whole mesh: signed at its stop, checked offline and by others, and no change without it.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mesh_harness::{Mesh, MeshOptions, identity};
use mesh_node::{AuditSource, AuditVerdict, verify_audit};
use mesh_registry::{Appending, DiskFiles, Files};
use reqwest::Method;
use serde_json::{Value, json};

/// A disk that can be told to take nothing more.
#[derive(Clone, Default)]
struct FailingDisk {
    full: Arc<AtomicBool>,
}

impl FailingDisk {
    fn takes(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

struct FailingFile(FailingDisk, Box<dyn Appending>);

impl Appending for FailingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.takes()?;
        self.1.write(bytes)
    }
    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.1.cut(length)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.takes()?;
        self.1.sync()
    }
}

impl Files for FailingDisk {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        DiskFiles.make_folder(folder)
    }
    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        DiskFiles.names(folder)
    }
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        DiskFiles.read(path)
    }
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        self.takes()?;
        Ok(Box::new(FailingFile(self.clone(), DiskFiles.create(path)?)))
    }
    fn append(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        Ok(Box::new(FailingFile(self.clone(), DiskFiles.append(path)?)))
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        DiskFiles.remove(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        DiskFiles.rename(from, to)
    }
    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        DiskFiles.sync_folder(folder)
    }
}

#[tokio::test]
async fn where_the_log_cannot_be_written_administration_stops_and_inference_goes_on() -> anyhow::Result<()> {
    let disk = FailingDisk::default();
    let mesh = Mesh::start_with(MeshOptions {
        files: Some(Arc::new(disk.clone())),
        ..MeshOptions::default()
    })
    .await?;
    let (admin, acme) = (mesh.admin()?.clone(), mesh.tenant("acme").await?);
    admin.publish("acme", "echo", &identity()).await?;
    acme.until_ready("echo").await?;
    disk.full.store(true, Ordering::SeqCst);
    let tenant =
        json!({"resources": [{"apiVersion": "mesh/v1", "kind": "Tenant", "metadata": {"name": "late"}, "spec": {}}]});
    let writes: [(Method, &str, Value); 5] = [
        (Method::POST, "/apply", tenant),
        (Method::POST, "/tenants/acme/keys", json!({})),
        (Method::POST, "/admin-tokens", json!({"role": "viewer"})),
        (Method::DELETE, "/tenants/acme/models/echo/versions/1", json!({})),
        (Method::POST, "/devices/cpu:0/drain", json!({})),
    ];
    for (method, path, body) in &writes {
        let answer = admin.request(method.clone(), path).json(body).send().await?;
        let (status, retry) = (answer.status(), answer.headers().contains_key("retry-after"));
        let told: Value = answer.json().await?;
        // The last version of a model cannot be deleted while it is used; a refusal of another kind is none of this test's.
        assert_eq!(status, 503, "{path}: {told}");
        assert!(retry, "{path}");
        let error = told["error"].as_str().unwrap_or_default();
        assert!(error.contains("audit log cannot be written"), "{path}: {error}");
    }
    for _ in 0..20 {
        acme.ask("echo", &[1.0]).await?.ok()?;
    }
    assert_eq!(admin.get("/audit/verify").await?["valid"], true, "reading goes on");
    assert_eq!(
        admin.get("/devices").await?[0]["draining"],
        false,
        "nothing was half done"
    );
    disk.full.store(false, Ordering::SeqCst);
    admin.tenant("late", json!({})).await?;
    assert_eq!(admin.get("/audit/verify").await?["valid"], true);
    mesh.stop().await?;
    Ok(())
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told from its beginning to its end")]
async fn a_stopped_mesh_has_signed_everything_and_others_can_check_it() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?.clone();
    admin.tenant("acme", json!({})).await?;
    admin.key("acme").await?;
    let trail = admin.get("/audit?limit=500").await?;
    let items = trail["items"].as_array().cloned().unwrap_or_default();
    let apply = items.iter().find(|item| item["changes"][0]["key"] == "Tenant/acme");
    let apply = apply.ok_or_else(|| anyhow::anyhow!("no entry: {trail}"))?;
    assert_eq!(apply["from"], "127.0.0.1");
    assert!(apply["request"].is_string() && apply["who"].is_string(), "{apply}");
    assert!(apply["changes"][0]["after"].is_string(), "{apply}");

    let signed = admin
        .request(Method::POST, "/audit/heads")
        .send()
        .await?
        .error_for_status()?;
    let signed: Value = signed.json().await?;
    assert_eq!(
        (&signed["valid"], &signed["heads"]),
        (&json!(true), &json!(1)),
        "{signed}"
    );
    let key = signed["public_key"].as_str().unwrap_or_default().to_owned();

    // The command line takes it elsewhere, and checks it there.
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("audit.jsonl");
    let globals = mesh_cli::GlobalOptions::clone(&options(&admin, &mesh));
    let args = mesh_cli::AuditExportArgs {
        output: file.clone(),
        since: None,
        until: None,
    };
    let told = run(mesh_cli::Command::Audit(mesh_cli::AuditCommand::Export(args)), globals).await?;
    assert!(told.starts_with("exported ") && !told.contains("not signed"), "{told}");
    let check = |file: &Path, key: &str| verify_audit(&AuditSource::Export(file.to_path_buf()), key.parse().ok());
    let AuditVerdict::Export(summary, true) = check(&file, &key)? else {
        anyhow::bail!("not the verdict of an export with a key");
    };
    assert_eq!(summary.heads, 1);
    let text = fs::read_to_string(&file)?;
    assert!(
        !text.contains("\"hash\":\"hmac") && !text.contains("\"spec\""),
        "no record is in it"
    );
    fs::write(&file, text.replace("Tenant/acme", "Tenant/evil"))?;
    let refused = check(&file, &key)
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(
        refused.contains("it was changed") && refused.contains("revision"),
        "{refused}"
    );

    admin.tenant("beta", json!({})).await?;
    let data = mesh.stop().await?;
    let AuditVerdict::Log(summary) = verify_audit(&AuditSource::Data(data.path().to_path_buf()), key.parse().ok())?
    else {
        anyhow::bail!("not the verdict of a log");
    };
    assert_eq!(
        summary.signed,
        Some(summary.revision - 1),
        "the stop signed what came last"
    );
    Ok(())
}

fn options(admin: &mesh_harness::Admin, mesh: &Mesh) -> mesh_cli::GlobalOptions {
    mesh_cli::GlobalOptions {
        admin_url: format!("http://{}", mesh.addresses().admin),
        admin_token: Some(admin.token().to_owned()),
        admin_token_from: None,
        url: String::new(),
        api_key: None,
        trust: mesh_cli::TrustOptions::default(),
    }
}

/// Runs a command as the program would; answers what it says on standard error.
async fn run(command: mesh_cli::Command, globals: mesh_cli::GlobalOptions) -> anyhow::Result<String> {
    tokio::task::spawn_blocking(move || {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal = mesh_cli::Terminal {
            out: &mut out,
            err: &mut err,
            input: &mut io::empty(),
            interactive: false,
        };
        let code = mesh_cli::run_with(command, &globals, &mut terminal);
        let err = String::from_utf8_lossy(&err).into_owned();
        anyhow::ensure!(code == 0, "{code}: {err}");
        Ok(err)
    })
    .await?
}

#[tokio::test]
async fn a_data_folder_is_checked_offline_and_the_first_bad_record_is_named() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?.clone();
    for name in ["a", "b", "c"] {
        admin.tenant(name, json!({})).await?;
    }
    let data = mesh.stop().await?;
    let source = AuditSource::Data(data.path().to_path_buf());
    let told = verify_audit(&source, None)?.to_string();
    assert!(
        told.contains("the audit log holds") && told.contains("public key ed25519:"),
        "{told}"
    );
    let journal = data.path().join("registry/journal/00000000000000000001.journal");
    let mut bytes = fs::read(&journal)?;
    let at = bytes.windows(8).position(|part| part == b"Tenant/b");
    bytes[at.unwrap_or_default()] ^= 1;
    fs::write(&journal, bytes)?;
    let refused = verify_audit(&source, None).err().map(|error| error.to_string());
    // The first admin's token is revision 1.
    assert!(
        refused
            .as_deref()
            .is_some_and(|text| text.contains("where revision 3 should be")),
        "{refused:?}"
    );
    Ok(())
}
