//! The data folder: where what lies, and the secrets that a node makes for itself.
//!
//! Owns the pepper and the key that the audit log is signed with (32 random bytes each, readable by the owner only) and the
//! first admin token. A node that finds one uses it and makes none. The key that snapshots and backups are signed with
//! follows from the pepper; the audit log's does not, because it stays what it is while a pepper may change.

use std::{
    fs::{self, File, Permissions},
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use mesh_policies::{Pepper, PublicKey, SigningKey, generate_admin_token, hash_secret, signing::SEED_BYTES};
use mesh_registry::{Author, Change, Expected, RegistryConfig, RegistryError, RegistryHandle, SealKey};
use mesh_resources::{AdminRole, AdminTokenSpec, Kind, Resource, ResourceKey};

use crate::{sent, whole::write_whole};

const PEPPER_BYTES: usize = 32;
/// The audit log's private key, and what a backup calls it.
pub(crate) const AUDIT_KEY: &str = "audit-key";
pub(crate) const OWNERS_FOLDER: u32 = 0o700;
pub(crate) const REGISTRY: &str = "registry";
/// Compiled packages while they are loaded.
const UNPACKED: &str = "unpacked";
pub(crate) const ARTIFACTS: &str = "artifacts";
/// The pepper's file, and what a backup calls it.
pub(crate) const PEPPER: &str = "pepper";
/// What devices have learnt.
const LATENCY: &str = "latency";
const SENT: &str = "sent";
const KEY_USES: &str = "key-uses";
/// The key sets of issuers, as they were last fetched.
const ISSUER_KEYS: &str = "issuer-keys";
/// What tenants have used of their budgets.
const USAGE: &str = "usage";
/// Where a restore puts what is not yet checked.
pub(crate) const RESTORING: &str = ".restoring";
/// What the key of snapshots and backups is derived for.
const SEAL_PURPOSE: &str = "mesh registry snapshots and backups, version 1";

/// Why the data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The folder or a file in it.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The pepper is not one.
    #[error(
        "the file {0} does not hold {PEPPER_BYTES} bytes: restore it from a backup, without it no key can be checked"
    )]
    Pepper(String),
    /// The pepper is missing although records are there.
    #[error(
        "the file {0} is missing beside existing records: restore it from a backup, without it no key can be checked"
    )]
    PepperMissing(String),
    /// The audit log's key is not one.
    #[error(
        "the file {0} does not hold {PEPPER_BYTES} bytes: restore it from a backup, the audit log is signed with it"
    )]
    AuditKey(String),
    /// A restore was begun here and never ended.
    #[error("a restore into {0} was not finished: empty the folder and run mesh restore again")]
    HalfRestored(String),
    /// The file of what tenants have used.
    #[error("cannot read what tenants have used from {path}: {source}")]
    Usage {
        /// The file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// The first admin token could not be kept.
    #[error("cannot keep the first admin token: {0}")]
    Token(#[from] RegistryError),
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DataError {
    let path = path.display().to_string();
    move |source| DataError::Io { what, path, source }
}

/// The parts of a data folder.
#[derive(Debug, Clone)]
pub(crate) struct DataFolder {
    root: PathBuf,
}

impl DataFolder {
    /// Makes the folder if it is not there.
    pub(crate) fn open(root: &Path) -> Result<Self, DataError> {
        if root.join(RESTORING).exists() {
            return Err(DataError::HalfRestored(root.display().to_string()));
        }
        if !root.exists() {
            fs::create_dir_all(root).map_err(failed("create the data folder", root))?;
            fs::set_permissions(root, Permissions::from_mode(OWNERS_FOLDER))
                .map_err(failed("protect the data folder", root))?;
        }
        Ok(Self {
            root: root.to_path_buf(),
        })
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.root.join(REGISTRY)
    }

    /// Where devices keep what they have learnt of latencies; made if it is not there. It can be lost at no harm, so no backup
    /// holds it.
    pub(crate) fn latency(&self) -> Result<PathBuf, DataError> {
        let folder = self.root.join(LATENCY);
        fs::create_dir_all(&folder).map_err(failed("create the folder of latencies", &folder))?;
        Ok(folder)
    }

    /// What is known of when API keys were last used. It can be lost at no harm, so no backup holds it.
    pub(crate) fn key_uses(&self) -> PathBuf {
        self.root.join(KEY_USES)
    }

    /// The folder of issuers' last good key sets; made if it is not there. It can be lost at no harm, so no backup holds it.
    pub(crate) fn issuer_keys(&self) -> Result<PathBuf, DataError> {
        let folder = self.root.join(ISSUER_KEYS);
        fs::create_dir_all(&folder).map_err(failed("create the folder of issuers' keys", &folder))?;
        fs::set_permissions(&folder, Permissions::from_mode(OWNERS_FOLDER))
            .map_err(failed("protect the folder of issuers' keys", &folder))?;
        Ok(folder)
    }

    /// The file of what tenants have used. A backup does not hold it: restored, it would take back what has been used since.
    pub(crate) fn usage(&self) -> PathBuf {
        self.root.join(USAGE)
    }

    /// Where compiled packages are unpacked while they are loaded; empty after a start. No backup holds it.
    pub(crate) fn unpacked(&self) -> Result<PathBuf, DataError> {
        let folder = self.root.join(UNPACKED);
        sent::clear(&folder).map_err(failed("clear the folder of unpacked models", &folder))?;
        Ok(folder)
    }

    /// Where models lie that came with a request, while they are read; empty after a start. No backup holds it.
    pub(crate) fn sent(&self) -> Result<PathBuf, DataError> {
        let folder = self.root.join(SENT);
        sent::clear(&folder).map_err(failed("clear the folder of sent models", &folder))?;
        Ok(folder)
    }

    /// Where the records and the artifacts are, and what they are signed with.
    pub(crate) fn registry_config(&self, pepper: &Pepper) -> RegistryConfig {
        RegistryConfig::new(self.registry())
            .with_artifacts(self.root.join(ARTIFACTS))
            .with_key(seal_key(pepper))
            .with_secret(PEPPER, self.root.join(PEPPER))
    }

    /// The key that the audit log is signed with; made where there is none, as in a folder of an older mesh.
    pub(crate) fn audit_key(&self) -> Result<SigningKey, DataError> {
        let path = self.root.join(AUDIT_KEY);
        if !path.exists() {
            let seed: [u8; SEED_BYTES] = rand::random();
            write_whole(&path, &seed).map_err(failed("write the audit log's key", &path))?;
        }
        let seed = read_secret(&path).map_err(failed("read the audit log's key", &path))?;
        SigningKey::from_seed(&seed).map_err(|_| DataError::AuditKey(path.display().to_string()))
    }

    /// What backups hold besides the records: a key that the mesh signs with must not be lost with the disk.
    pub(crate) fn with_audit_key(&self, config: RegistryConfig) -> Result<RegistryConfig, DataError> {
        let key = self.audit_key()?;
        Ok(config
            .with_audit_key(key)
            .with_secret(AUDIT_KEY, self.root.join(AUDIT_KEY)))
    }

    /// The key that the audit log must be signed with, where there is one. Changes nothing.
    pub(crate) fn audit_public_key(&self) -> Result<Option<PublicKey>, DataError> {
        let path = self.root.join(AUDIT_KEY);
        if path.exists() {
            return self.audit_key().map(|key| Some(key.public()));
        }
        Ok(None)
    }

    /// The pepper of this folder; made at the first start.
    pub(crate) fn pepper(&self) -> Result<Pepper, DataError> {
        let path = self.root.join(PEPPER);
        match File::open(&path) {
            Ok(file) => read_pepper(file, &path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if self.registry().exists() {
                    return Err(DataError::PepperMissing(path.display().to_string()));
                }
                let bytes: [u8; PEPPER_BYTES] = rand::random();
                write_whole(&path, &bytes).map_err(failed("write the pepper", &path))?;
                Ok(Pepper::from_bytes(bytes))
            }
            Err(error) => Err(failed("read the pepper", &path)(error)),
        }
    }
}

/// The key that snapshots and backups are signed with.
pub(crate) fn seal_key(pepper: &Pepper) -> SealKey {
    SealKey::derive(pepper.hash(SEAL_PURPOSE).to_string().as_bytes())
}

/// The pepper that bytes are, if they are one.
pub(crate) fn pepper_of(bytes: &[u8]) -> Option<Pepper> {
    <[u8; PEPPER_BYTES]>::try_from(bytes).ok().map(Pepper::from_bytes)
}

/// At most one byte more than a secret has: what is longer is none.
fn read_secret(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(File::open(path)?)
}

fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(PEPPER_BYTES + 1);
    let limit = u64::try_from(PEPPER_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn read_pepper(file: File, path: &Path) -> Result<Pepper, DataError> {
    let bytes = read_bounded(file).map_err(failed("read the pepper", path))?;
    pepper_of(&bytes).ok_or_else(|| DataError::Pepper(path.display().to_string()))
}

/// Makes the first admin token if there is none; its text is answered once and never kept.
pub(crate) async fn first_admin_token(
    registry: &RegistryHandle,
    pepper: &Pepper,
    file: Option<&Path>,
) -> Result<Option<String>, DataError> {
    if !registry.list(Kind::AdminToken, None, None, 1)?.items.is_empty() {
        return Ok(None);
    }
    let token = generate_admin_token(&mut rand::rng());
    if let Some(path) = file {
        let line = format!("{}\n", token.text);
        write_whole(path, line.as_bytes()).map_err(failed("write the admin token to", path))?;
    }
    let spec = AdminTokenSpec {
        hash: hash_secret(pepper, &token.secret),
        role: AdminRole::Admin,
        tenant: None,
        groups: Vec::new(),
        expires: None,
    };
    let author = Author {
        who: "mesh".to_owned(),
        source: "mesh".to_owned(),
        request: None,
        from: None,
    };
    let change = Change::Put {
        resource: Resource::new(&ResourceKey::admin_token(&token.id), spec),
        expected: Expected::Absent,
    };
    registry.write(author, vec![change]).await?;
    Ok(Some(token.text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::whole::OWNER_ONLY;

    #[test]
    fn the_pepper_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(&folder.path().join("new")).unwrap();
        let first = hash_secret(&data.pepper().unwrap(), "secret");
        assert_eq!(hash_secret(&data.pepper().unwrap(), "secret"), first);
        let path = folder.path().join("new/pepper");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, OWNER_ONLY);
        assert_eq!(fs::read(&path).unwrap().len(), PEPPER_BYTES);
    }

    #[test]
    fn a_pepper_of_another_length_is_refused_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        for length in [PEPPER_BYTES - 1, PEPPER_BYTES + 1] {
            fs::write(folder.path().join("pepper"), vec![1; length]).unwrap();
            assert!(matches!(data.pepper(), Err(DataError::Pepper(_))), "{length}");
        }
    }

    #[test]
    fn records_without_their_pepper_are_not_given_another() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        fs::create_dir(data.registry()).unwrap();
        assert!(matches!(data.pepper(), Err(DataError::PepperMissing(_))));
    }

    #[test]
    fn the_key_of_the_audit_log_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let data = DataFolder::open(folder.path()).unwrap();
        assert_eq!(data.audit_public_key().unwrap(), None);
        let first = data.audit_key().unwrap().public();
        assert_eq!(data.audit_key().unwrap().public(), first);
        assert_eq!(data.audit_public_key().unwrap(), Some(first));
        let path = folder.path().join(AUDIT_KEY);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, OWNER_ONLY);
        for length in [SEED_BYTES - 1, SEED_BYTES + 1] {
            fs::write(&path, vec![1; length]).unwrap();
            assert!(matches!(data.audit_key(), Err(DataError::AuditKey(_))), "{length}");
        }
    }

    #[test]
    fn a_folder_with_a_half_done_restore_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(RESTORING)).unwrap();
        let refused = DataFolder::open(folder.path());
        assert!(matches!(refused, Err(DataError::HalfRestored(_))), "{refused:?}");
    }
}
