//! `mesh serve --model-repository`: a Triton model repository, brought in before anything is served.
//!
//! What the repository says is `mesh_import`'s, and what may be written the registry's; here is only the way between the two,
//! without the admin door, which is not open yet. It happens once, at the start: what changes in the folder later is brought in
//! by the next start, by `mesh model import`, or where models are loaded on demand by [`crate::control`].

use std::path::{Path, PathBuf};

use bytes::Bytes;
use mesh_import::{FolderError, Outcome, Plan, Setback, Target, Weight, carry_out, plan};
use mesh_registry::{Author, Change, Expected, RegistryError, RegistryHandle};
use mesh_resources::{ArtifactRef, Resource, ResourceKey, TenantSpec};
use mesh_types::TenantId;
use tokio::io::AsyncReadExt as _;

use crate::signature::ConfinedFiles;

/// How much of a model's file is read at once.
const READ_BYTES: usize = 1 << 20;
/// Who writes, in the audit log.
const AUTHOR: &str = "model repository";
/// By this all models are named.
const ALL: &str = "*";

/// Why a repository was not brought in at all.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The folder.
    #[error("cannot use the model repository: {0}")]
    Folder(#[from] FolderError),
    /// The reader of the folder is gone.
    #[error("cannot use the model repository: reading it panicked")]
    Reader,
    /// The registry.
    #[error("cannot write what the model repository holds: {0}")]
    Registry(#[from] RegistryError),
}

/// Brings a repository in. A model that is not supported, or that the registry refuses, is logged and skipped.
///
/// Where models are loaded on demand, only those that are named are brought in, and come back to the devices if they were
/// kept off them.
pub(crate) async fn import(
    registry: RegistryHandle,
    root: PathBuf,
    tenant: &TenantId,
    on_demand: Option<&[String]>,
    files: ConfinedFiles,
) -> Result<(), RepositoryError> {
    let shown = root.display().to_string();
    make_tenant(&registry, tenant, AUTHOR).await?;
    let all = on_demand.is_none_or(|named| named.iter().any(|name| name == ALL));
    let only = on_demand.filter(|_| !all).unwrap_or_default().to_vec();
    // It reads every file, and where a configuration does not say enough also a model.
    let read = tokio::task::spawn_blocking(move || {
        if !all && only.is_empty() {
            // What it cannot read it should say now, and not when the first model is asked for.
            return mesh_import::models(&root).map(|_| Plan::default());
        }
        plan(&root, &only, &files)
    });
    let mut plan = read.await.map_err(|_| RepositoryError::Reader)??;
    plan.models
        .iter_mut()
        .for_each(|model| model.loads = on_demand.is_some());
    log(&plan);
    let mut records = Records::new(registry, Author::mesh(AUTHOR));
    let report = carry_out(&plan, tenant, false, &mut records).await?;
    for note in &report.refused {
        tracing::warn!("model repository: {note}");
    }
    let skipped = plan.skipped.len() + report.refused.len();
    tracing::info!(
        repository = shown,
        %tenant,
        models = report.models,
        written = report.written,
        skipped,
        "the model repository is brought in"
    );
    Ok(())
}

fn log(plan: &Plan) {
    for note in &plan.notes {
        match note.weight {
            Weight::Ignored => tracing::info!("model repository: {note}"),
            Weight::Refused => tracing::warn!("model repository: skipped: {note}"),
        }
    }
}

/// Makes a tenant that is not there, as this author.
pub(crate) async fn make_tenant(
    registry: &RegistryHandle,
    tenant: &TenantId,
    author: &str,
) -> Result<(), RegistryError> {
    let key = ResourceKey::tenant(tenant);
    if registry.get(&key)?.is_some() {
        return Ok(());
    }
    let change = Change::Put {
        resource: Resource::new(&key, TenantSpec::default()),
        expected: Expected::Absent,
    };
    registry.write(Author::mesh(author), vec![change]).await?;
    tracing::info!(%tenant, "{author}: the tenant was made; `mesh key create` makes a key for it");
    Ok(())
}

/// The registry of this node, and who writes to it.
pub(crate) struct Records {
    registry: RegistryHandle,
    author: Author,
}

/// What is wrong with a model is no reason to bring in no other.
fn setback(error: RegistryError) -> Setback<RegistryError> {
    match error {
        RegistryError::Conflict { .. }
        | RegistryError::NotFound(_)
        | RegistryError::Invalid(_)
        | RegistryError::TooMany { .. }
        | RegistryError::Artifact(_) => Setback::Model(error.to_string()),
        other => Setback::All(other),
    }
}

impl Records {
    pub(crate) fn new(registry: RegistryHandle, author: Author) -> Self {
        Self { registry, author }
    }

    async fn copy(&self, file: &Path, artifact: &ArtifactRef) -> Result<(), Setback<RegistryError>> {
        let failed = |error: std::io::Error| Setback::Model(format!("its file cannot be read: {error}"));
        let refused = |error| setback(RegistryError::Artifact(error));
        let mut from = tokio::fs::File::open(file).await.map_err(failed)?;
        let mut upload = self.registry.artifacts().begin().await.map_err(refused)?;
        loop {
            let mut chunk = vec![0; READ_BYTES];
            let count = from.read(&mut chunk).await.map_err(failed)?;
            if count == 0 {
                break;
            }
            chunk.truncate(count);
            upload.write(Bytes::from(chunk)).await.map_err(refused)?;
        }
        upload.finish(Some(&artifact.sha256)).await.map(drop).map_err(refused)
    }
}

impl Target for Records {
    type Error = RegistryError;

    async fn find(&mut self, key: &ResourceKey) -> Result<Option<Resource>, RegistryError> {
        self.registry.get(key)
    }

    async fn upload(&mut self, file: &Path, artifact: &ArtifactRef) -> Result<(), Setback<RegistryError>> {
        if self.registry.artifacts().check_present(artifact).is_ok() {
            return Ok(());
        }
        self.copy(file, artifact).await
    }

    async fn write(&mut self, resources: Vec<Resource>) -> Result<(), Setback<RegistryError>> {
        // The registry's own check is of what resources refer to.
        let problems: Vec<_> = resources.iter().flat_map(Resource::problems).collect();
        if !problems.is_empty() {
            return Err(Setback::Model(RegistryError::Invalid(problems).to_string()));
        }
        let change = |resource: Resource| Change::Put {
            expected: resource.metadata.revision.map_or(Expected::Absent, Expected::Revision),
            resource,
        };
        let changes = resources.into_iter().map(change).collect();
        let written = self.registry.write(self.author.clone(), changes).await;
        written.map(drop).map_err(setback)
    }

    fn tell(&mut self, outcome: &Outcome) -> Result<(), RegistryError> {
        tracing::debug!(key = %outcome.key, action = %outcome.action, "model repository");
        Ok(())
    }
}
