//! The audit log of a node: signed every hour and at each stop, and checked where no mesh runs.

use std::{
    fmt,
    fs::File,
    io::{self, BufReader},
    path::{Path, PathBuf},
    time::Duration,
};

use mesh_actors::Tasks;
use mesh_policies::PublicKey;
use mesh_registry::{
    AuditSummary, Author, ExportError, ExportSummary, RegistryError, RegistryHandle, verify_audit_folder, verify_export,
};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::data::{DataError, DataFolder};

/// No entry waits longer for a signature.
const SIGNED_EVERY: Duration = Duration::from_secs(3_600);

/// Signs what was written, now and then, until the group ends.
pub(crate) fn keep_signed(registry: RegistryHandle, tasks: &Tasks) {
    tasks.spawn("audit signatures", |mut ending| async move {
        let mut hourly = interval_at(Instant::now() + SIGNED_EVERY, SIGNED_EVERY);
        hourly.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = hourly.tick() => sign(&registry).await,
                () = ending.ended() => return,
            }
        }
    });
}

/// Signs what was written. Where it cannot, the next time does.
pub(crate) async fn sign(registry: &RegistryHandle) {
    if let Err(error) = registry.sign_audit(Author::mesh("audit")).await {
        tracing::warn!(%error, "the audit log was not signed");
    }
}

/// What is to be checked.
#[derive(Debug, Clone)]
pub enum AuditSource {
    /// A data folder.
    Data(PathBuf),
    /// A file that `mesh audit export` wrote.
    Export(PathBuf),
}

/// Why an audit log does not hold, or could not be checked.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what its source says")]
pub enum AuditError {
    #[error("cannot read {path}: {source}")]
    Io { path: String, source: io::Error },
    #[error("{0} is no data folder of a mesh")]
    NoData(String),
    #[error(transparent)]
    Data(#[from] DataError),
    #[error("the audit log does not hold: {0}")]
    Log(#[from] RegistryError),
    #[error("the export does not hold: {file}, {error}")]
    Export { file: String, error: ExportError },
}

/// What an audit log that holds is.
#[derive(Debug)]
pub enum AuditVerdict {
    /// Of a data folder.
    Log(AuditSummary),
    /// Of an export, and whether its key was given or is the one that it names.
    Export(ExportSummary, bool),
}

/// Checks an audit log where no mesh need run. A given key is the one that signatures must be by.
pub fn verify_audit(source: &AuditSource, key: Option<PublicKey>) -> Result<AuditVerdict, AuditError> {
    match source {
        AuditSource::Data(folder) => folder_verdict(folder, key),
        AuditSource::Export(file) => {
            let path = file.display().to_string();
            let opened = File::open(file).map_err(|source| AuditError::Io {
                path: path.clone(),
                source,
            })?;
            let checked = verify_export(&mut BufReader::new(opened), key);
            let summary = checked.map_err(|error| AuditError::Export { file: path, error })?;
            Ok(AuditVerdict::Export(summary, key.is_some()))
        }
    }
}

fn folder_verdict(folder: &Path, key: Option<PublicKey>) -> Result<AuditVerdict, AuditError> {
    if !folder.join(crate::data::PEPPER).exists() {
        return Err(AuditError::NoData(folder.display().to_string()));
    }
    let data = DataFolder::open(folder)?;
    let key = match key {
        Some(key) => Some(key),
        None => data.audit_public_key()?,
    };
    let summary = verify_audit_folder(&data.registry_config(&data.pepper()?), key)?;
    Ok(AuditVerdict::Log(summary))
}

impl fmt::Display for AuditVerdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, heads, signed, key, last) = match self {
            Self::Log(summary) => {
                let AuditSummary {
                    entries,
                    begins,
                    revision,
                    head,
                    ..
                } = summary;
                writeln!(
                    f,
                    "the audit log holds: {entries} entries, from revision {begins} to {revision}"
                )?;
                writeln!(f, "hash {head}")?;
                (*entries, summary.heads, summary.signed, summary.key, *revision)
            }
            Self::Export(summary, given) => {
                let (first, last) = summary.revisions.unwrap_or_default();
                let entries = summary.entries;
                writeln!(
                    f,
                    "the export holds: {entries} entries, from revision {first} to {last}"
                )?;
                if summary.unproved > 0 {
                    let unproved = summary.unproved;
                    writeln!(
                        f,
                        "{unproved} of them are of an older form: only their hashes are proved"
                    )?;
                }
                if !given {
                    writeln!(
                        f,
                        "the key is the one that the file names: give --public-key to know whose signatures these are"
                    )?;
                }
                (entries, summary.heads, summary.signed, summary.key, last)
            }
        };
        let key = key.map_or_else(|| "none".to_owned(), |key| key.to_string());
        writeln!(f, "public key {key}")?;
        match signed {
            Some(signed) if heads > 0 => write!(
                f,
                "{heads} signatures, the last of everything up to revision {signed}; {} entries after it are not signed yet",
                // The signature is an entry itself.
                last.saturating_sub(signed + 1)
            ),
            _ => write!(f, "no signatures: nothing proves who wrote these {entries} entries"),
        }
    }
}
