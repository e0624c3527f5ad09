//! A node in this process: an actix system on a thread of its own.

use std::{path::PathBuf, sync::Arc, thread::JoinHandle};

use anyhow::{Context, anyhow};
use mesh_backend::Backend;
use mesh_node::{Addresses, Given, Node, NodeConfig, ServeOptions, Text};
use mesh_registry::Files;
use tempfile::TempDir;
use tokio::sync::oneshot;

use crate::{Admin, Caller, GrpcCaller, PATIENCE, eventually};

/// How a mesh for tests is set up.
#[derive(Clone, Default)]
pub struct MeshOptions {
    /// What differs from the defaults of tests.
    pub serve: ServeOptions,
    /// The data folder of a mesh that was stopped; absent: a new one.
    pub data: Option<Arc<TempDir>>,
    /// Backends that are asked before the mesh's own.
    pub backends: Vec<Arc<dyn Backend>>,
    /// What the records are written through, instead of the machine's files.
    pub files: Option<Arc<dyn Files>>,
    /// Who speaks to it where its inference and admin doors speak TLS; absent: they do not.
    pub tls_client: Option<reqwest::Client>,
}

impl std::fmt::Debug for MeshOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let backends: Vec<_> = self.backends.iter().map(|backend| backend.name()).collect();
        f.debug_struct("MeshOptions")
            .field("serve", &self.serve)
            .field("data", &self.data)
            .field("backends", &backends)
            .finish()
    }
}

/// A running mesh.
#[derive(Debug)]
pub struct Mesh {
    addresses: Addresses,
    admin: Option<Admin>,
    data: Arc<TempDir>,
    tls_client: Option<reqwest::Client>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

fn text(text: &str) -> Option<Text> {
    Some(Text(text.to_owned()))
}

/// Free ports, few threads, little patience.
fn for_tests(data: PathBuf) -> ServeOptions {
    ServeOptions {
        data: Some(data),
        http_listen: text("127.0.0.1:0"),
        grpc_listen: text("127.0.0.1:0"),
        metrics_listen: text("127.0.0.1:0"),
        admin_listen: text("127.0.0.1:0"),
        http_workers: text("1"),
        threads_per_device: text("1"),
        grace_ms: text("10000"),
        ..ServeOptions::default()
    }
}

fn admin_of(tls_client: Option<&reqwest::Client>, addresses: Addresses, token: &str) -> Admin {
    match tls_client {
        Some(client) => Admin::over_tls(client.clone(), addresses.admin, token),
        None => Admin::new(addresses.admin, token),
    }
}

type Started = (Addresses, Option<String>);

impl Mesh {
    /// A new mesh, ready.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(MeshOptions::default()).await
    }

    /// A mesh with these options, ready.
    pub async fn start_with(options: MeshOptions) -> anyhow::Result<Self> {
        let data = match options.data {
            Some(data) => data,
            None => Arc::new(tempfile::tempdir()?),
        };
        let serve = options.serve.or(for_tests(data.path().to_path_buf()));
        let config = NodeConfig::check(serve)?;
        let given = Given {
            backends: options.backends,
            files: options.files,
        };
        let (started, told) = oneshot::channel::<anyhow::Result<Started>>();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("mesh".to_owned())
            .spawn(move || actix_rt::System::new().block_on(run(config, given, started, stopped)))?;
        let (addresses, token) = told.await.context("the mesh did not start")??;
        let mesh = Self {
            addresses,
            admin: token.map(|token| admin_of(options.tls_client.as_ref(), addresses, &token)),
            data,
            tls_client: options.tls_client,
            stop: Some(stop),
            thread: Some(thread),
        };
        mesh.until_ready().await?;
        Ok(mesh)
    }

    /// Where its doors are.
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Its admin; the token is known of a mesh that started with a new data folder.
    pub fn admin(&self) -> anyhow::Result<&Admin> {
        self.admin
            .as_ref()
            .ok_or_else(|| anyhow!("this mesh was started with an old data folder, whose token is not known"))
    }

    /// Gives a mesh on an old data folder its admin.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.admin = Some(admin_of(self.tls_client.as_ref(), self.addresses, token));
        self
    }

    /// Somebody who calls with an API key.
    pub fn caller(&self, key: &str) -> Caller {
        match &self.tls_client {
            Some(client) => Caller::over_tls(client.clone(), self.addresses.http, Some(key)),
            None => Caller::new(self.addresses.http, Some(key)),
        }
    }

    /// Somebody who calls over gRPC with an API key.
    pub async fn grpc(&self, key: &str) -> anyhow::Result<GrpcCaller> {
        GrpcCaller::connect(self.addresses.grpc, Some(key)).await
    }

    /// The client that tenants use, at the gRPC door.
    pub fn grpc_client(&self, key: &str) -> anyhow::Result<mesh_client::Client> {
        let url = format!("http://{}", self.addresses.grpc);
        Ok(mesh_client::Client::grpc(&url).api_key(key).timeout(PATIENCE).build()?)
    }

    /// Somebody without a key.
    pub fn stranger(&self) -> Caller {
        Caller::new(self.addresses.http, None)
    }

    /// A new tenant with a key of its own.
    pub async fn tenant(&self, name: &str) -> anyhow::Result<Caller> {
        let admin = self.admin()?;
        admin.tenant(name, serde_json::json!({})).await?;
        let key = admin.key(name).await?;
        let caller = self.caller(&key);
        caller.until_let_in().await?;
        Ok(caller)
    }

    /// The text of its metrics.
    pub async fn metrics(&self) -> anyhow::Result<String> {
        let url = format!("http://{}/metrics", self.addresses.metrics);
        Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
    }

    async fn until_ready(&self) -> anyhow::Result<()> {
        let url = format!("http://{}/health/ready", self.addresses.metrics);
        eventually("the mesh is ready", || async {
            let answer = reqwest::get(&url).await;
            Ok(answer.is_ok_and(|answer| answer.status().is_success()).then_some(()))
        })
        .await
    }

    /// Asks it to end; [`Mesh::join`] waits for it.
    pub fn begin_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A mesh that has ended already need not be told.
            let _ = stop.send(());
        }
    }

    /// Its data folder.
    pub fn data(&self) -> &TempDir {
        &self.data
    }

    /// Stops it in order; answers its data folder.
    pub async fn stop(mut self) -> anyhow::Result<Arc<TempDir>> {
        self.begin_stop();
        let data = self.data.clone();
        self.join().await?;
        Ok(data)
    }

    /// Waits for the end that was asked for.
    pub async fn join(mut self) -> anyhow::Result<()> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        let joined = tokio::task::spawn_blocking(move || thread.join()).await?;
        joined.map_err(|_| anyhow!("the mesh panicked"))?
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.begin_stop();
        if let Some(thread) = self.thread.take() {
            // A test that fails has said so itself.
            let _ = thread.join();
        }
    }
}

async fn run(
    config: NodeConfig,
    given: Given,
    started: oneshot::Sender<anyhow::Result<Started>>,
    stopped: oneshot::Receiver<()>,
) -> anyhow::Result<()> {
    match Node::start_with(config, given).await {
        Ok(node) => {
            let token = node.first_admin_token().map(str::to_owned);
            // Whoever waits for the start and is gone drops the other channel too.
            let _ = started.send(Ok((node.addresses(), token)));
            let _ = stopped.await;
            node.stop().await;
        }
        Err(error) => {
            let _ = started.send(Err(error.into()));
        }
    }
    Ok(())
}
