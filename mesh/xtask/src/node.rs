//! A `mesh serve` beside us: its ports, its data folder, its start, its end, and its command line.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{
    interrupt::Interrupt,
    process::{self, Running},
    programs::Programs,
};

/// How long a node usually may take to be ready.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// Where the doors are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    pub(crate) inference: u16,
    pub(crate) grpc: u16,
    pub(crate) metrics: u16,
    pub(crate) admin: u16,
}

impl Ports {
    /// The doors' usual distances from a base; 0 takes free ports.
    pub(crate) fn of(base: u16) -> anyhow::Result<Self> {
        if base == 0 {
            return Self::free();
        }
        let at = |offset: u16| {
            base.checked_add(offset)
                .with_context(|| format!("--port-base is at most {}", u16::MAX - 80))
        };
        Ok(Self {
            inference: base,
            grpc: at(1)?,
            metrics: at(2)?,
            admin: at(80)?,
        })
    }

    fn free() -> anyhow::Result<Self> {
        // Held together, so that they differ.
        let listeners = (bind(0)?, bind(0)?, bind(0)?, bind(0)?);
        Ok(Self {
            inference: listeners.0.local_addr()?.port(),
            metrics: listeners.1.local_addr()?.port(),
            admin: listeners.2.local_addr()?.port(),
            grpc: listeners.3.local_addr()?.port(),
        })
    }

    /// Fails if a port is taken, naming it.
    pub(crate) fn check(self) -> anyhow::Result<()> {
        for (door, port) in [
            ("inference", self.inference),
            ("gRPC", self.grpc),
            ("metrics", self.metrics),
            ("admin", self.admin),
        ] {
            bind(port).with_context(|| {
                format!("port {port} (the {door} door) is in use: choose others, for example with --port-base 9000")
            })?;
        }
        Ok(())
    }
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
}

fn local(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// How a node is started.
#[derive(Debug)]
pub(crate) struct NodeSettings<'a> {
    /// Its program.
    pub(crate) programs: &'a Programs,
    /// Its folder: data, log, token, and what we keep for it.
    pub(crate) folder: &'a Path,
    pub(crate) ports: Ports,
    /// More of its options.
    pub(crate) options: &'a [String],
    /// Programs to run it under, such as valgrind with its options.
    pub(crate) under: &'a [String],
    /// How long it may take to be ready.
    pub(crate) patience: Duration,
}

/// A node that is ready.
#[derive(Debug)]
pub(crate) struct Node {
    running: Running,
    pub(crate) ports: Ports,
    pub(crate) folder: PathBuf,
    programs: Programs,
}

impl Node {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(settings: &NodeSettings<'_>, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let NodeSettings {
            programs,
            folder,
            ports,
            ..
        } = *settings;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        ports.check()?;
        let mesh = programs.mesh();
        let mut command = match settings.under.split_first() {
            Some((first, rest)) => {
                let mut command = programs.command(Path::new(first));
                command.args(rest).arg(mesh);
                command
            }
            None => programs.command(&mesh),
        };
        command
            .arg("serve")
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--admin-token-file")
            .arg(folder.join("admin-token"))
            .args(["--http-listen", &local(ports.inference).to_string()])
            .args(["--grpc-listen", &local(ports.grpc).to_string()])
            .args(["--metrics-listen", &local(ports.metrics).to_string()])
            .args(["--admin-listen", &local(ports.admin).to_string()])
            .args(settings.options);
        forget_settings(&mut command);
        // Its log is a file.
        command.env("NO_COLOR", "1");
        let node = Self {
            running: Running::start(&mut command, &folder.join("mesh.log"))?,
            ports,
            folder: folder.to_path_buf(),
            programs: programs.clone(),
        };
        node.wait_ready(settings.patience, interrupt)?;
        Ok(node)
    }

    fn wait_ready(&self, patience: Duration, interrupt: &Interrupt) -> anyhow::Result<()> {
        let until = Instant::now() + patience;
        let url = format!("{}/v2/health/ready", self.url());
        while ureq::get(&url).call().is_err() || !self.folder.join("admin-token").is_file() {
            self.running.check()?;
            if Instant::now() > until {
                bail!(
                    "the mesh is not ready after {} s; its log is {}",
                    patience.as_secs(),
                    self.log().display()
                );
            }
            if interrupt.wait(POLL) {
                bail!("stopped before the mesh was ready");
            }
        }
        Ok(())
    }

    /// Fails if it has ended.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        self.running.check()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Its program.
    pub(crate) fn program(&self) -> PathBuf {
        self.programs.mesh()
    }

    /// Asks it to end, and waits.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.running.stop()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("mesh.log")
    }

    /// The inference door.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", local(self.ports.inference))
    }

    /// The admin door.
    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", local(self.ports.admin))
    }

    /// The admin token.
    pub(crate) fn admin_token(&self) -> anyhow::Result<String> {
        let path = self.folder.join("admin-token");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(text.trim().to_owned())
    }

    /// What the metrics door says.
    pub(crate) fn metrics(&self) -> anyhow::Result<String> {
        let mut answer = ureq::get(format!("http://{}/metrics", local(self.ports.metrics))).call()?;
        Ok(answer.body_mut().read_to_string()?)
    }

    /// Says that requests for a model will come. Unlike the command line it takes no processor's time: that starts libtorch, which is a
    /// quarter of a second of one processor, beside whatever is measured.
    pub(crate) fn hint(&self, tenant: &str, model: &str) -> anyhow::Result<()> {
        let url = format!("{}/admin/v1/tenants/{tenant}/models/{model}/warm", self.admin_url());
        let token = format!("Bearer {}", self.admin_token()?);
        ureq::post(url)
            .header("authorization", token)
            .header("content-type", "application/json")
            .send("{}")?;
        Ok(())
    }

    /// A command of the mesh's own command line, as its first admin.
    pub(crate) fn cli(&self, arguments: &[&str]) -> Command {
        let mut command = self.programs.command(&self.programs.mesh());
        forget_settings(&mut command);
        command
            .args(arguments)
            .env("MESH_ADMIN_URL", self.admin_url())
            .env("MESH_ADMIN_TOKEN_FILE", self.folder.join("admin-token"))
            .env("MESH_URL", self.url());
        command
    }

    /// Applies resources, given as YAML documents.
    pub(crate) fn apply(&self, yaml: &str) -> anyhow::Result<()> {
        let mut command = self.cli(&["apply", "-f", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        child
            .stdin
            .take()
            .context("no standard input")?
            .write_all(yaml.as_bytes())?;
        let output = child.wait_with_output()?;
        if !output.status.success() {
            bail!("mesh apply failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    /// The resources of one kind of a tenant.
    pub(crate) fn list(&self, kind: &str, tenant: Option<&str>) -> anyhow::Result<Vec<Value>> {
        let mut arguments = vec!["get", kind, "-o", "json"];
        arguments.extend(tenant.into_iter().flat_map(|tenant| ["-t", tenant]));
        let text = process::output(&mut self.cli(&arguments))?;
        let value: Value = serde_json::from_str(&text).context("mesh get did not print JSON")?;
        let items = value.get("items").and_then(Value::as_array);
        items.cloned().context("mesh get printed no items")
    }

    /// The tenant's key that a former start kept if it still opens the door, or a new one.
    pub(crate) fn key(&self, tenant: &str) -> anyhow::Result<String> {
        let kept = self.folder.join(format!("{tenant}.key"));
        if let Ok(key) = fs::read_to_string(&kept) {
            let id = key.split('_').nth(2).unwrap_or_default().to_owned();
            let known = |item: &Value| {
                let is_it = item.pointer("/metadata/name").and_then(Value::as_str) == Some(&id);
                is_it && item.pointer("/spec/revoked").and_then(Value::as_bool) != Some(true)
            };
            if self.list("keys", Some(tenant))?.iter().any(known) {
                return Ok(key.trim().to_owned());
            }
        }
        let text = process::output(&mut self.cli(&["key", "create", "-t", tenant, "--description", "made by xtask"]))?;
        write_secret(&kept, text.trim())?;
        Ok(text.trim().to_owned())
    }
}

/// The user's own settings of a mesh are not for this one.
fn forget_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MESH_") {
            command.env_remove(name);
        }
    }
}

/// Writes a file that its owner alone can read.
pub(crate) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(text.as_bytes())?)
}

/// A YAML document of a resource.
pub(crate) fn document(kind: &str, tenant: Option<&str>, name: &str, spec: &str) -> String {
    let mut text = format!("---\napiVersion: mesh/v1\nkind: {kind}\nmetadata:\n");
    if let Some(tenant) = tenant {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  tenant: {tenant}");
    }
    let _ = writeln!(text, "  name: {name}\nspec: {spec}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_door_and_the_flag() {
        let ports = Ports::free().unwrap();
        let taken = bind(ports.admin).unwrap();
        let error = ports.check().unwrap_err().to_string();
        assert!(error.contains(&ports.admin.to_string()), "{error}");
        assert!(error.contains("admin door") && error.contains("--port-base"), "{error}");
        drop(taken);
        ports.check().unwrap();
    }

    #[test]
    fn ports_keep_their_distances_and_end_at_the_last() {
        let ports = Ports::of(9000).unwrap();
        assert_eq!((ports.inference, ports.metrics, ports.admin), (9000, 9002, 9080));
        assert!(Ports::of(u16::MAX - 80).is_ok());
        assert!(Ports::of(u16::MAX - 79).is_err());
    }

    #[test]
    fn a_document_reads_as_the_envelope() {
        let text = document("Model", Some("acme"), "m", "{grants: [globex]}");
        assert_eq!(
            text,
            "---\napiVersion: mesh/v1\nkind: Model\nmetadata:\n  tenant: acme\n  name: m\nspec: {grants: [globex]}\n"
        );
    }
}
