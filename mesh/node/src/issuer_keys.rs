//! The key sets of issuers, from one start of the node to the next: an identity provider that is down while the mesh restarts costs
//! the tenants whom it vouches for nothing.
//!
//! Owns the folder `issuer-keys` in the data folder, a file for each issuer, readable by the owner only: written whole after each good
//! fetch, read once before the first snapshot, and gone with its issuer. What may be used of it, and for how long, is the books' to say
//! (`policies`). A file that is damaged, too old or cannot be written costs what it would have saved and nothing else. One that a node
//! left behind which was ended before it could remove it is not read, and removed at the next start.
//!
//! Invariants: at most [`MAX_FILES`] files are read, and of none more than may be kept; a name never leads out of the folder; no file
//! is read of an issuer that the registry does not know, or whose keys are not fetched.

use std::{
    collections::BTreeSet,
    fs::{self, DirEntry, File},
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use mesh_jwks::Shelf;
use mesh_policies::{
    KeyBook, Pepper,
    access::{MAX_KEPT_BYTES, NotKept},
};
use mesh_registry::{MAX_PAGE, RegistryError, RegistryHandle};
use mesh_resources::{Kind, Spec};
use mesh_types::KeyId;

use crate::{
    StartError,
    data::{DataError, DataFolder},
    whole::write_whole,
};

/// Files that are read at a start; with more issuers than that, some have their keys fetched first.
const MAX_FILES: usize = 1_000;
const SUFFIX: &str = ".keys";
/// What a write that was cut short leaves.
const HALF_SUFFIX: &str = ".keys.new";

/// What a former start has kept for the issuers that are declared, at this Unix second.
pub(crate) fn kept(
    data: &DataFolder,
    pepper: &Pepper,
    registry: &RegistryHandle,
    now: i64,
) -> Result<Vec<Arc<KeyBook>>, StartError> {
    Ok(IssuerKeys::open(data, pepper)?.read(now, &published(registry)?))
}

/// The names of the issuers whose keys are fetched.
fn published(registry: &RegistryHandle) -> Result<BTreeSet<String>, RegistryError> {
    let (mut names, mut after) = (BTreeSet::new(), None);
    loop {
        let page = registry.list(Kind::Issuer, None, after.as_ref(), MAX_PAGE)?;
        for resource in page.items {
            if matches!(&resource.spec, Spec::Issuer(spec) if spec.jwks.is_some()) {
                names.insert(resource.metadata.name);
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(names),
        }
    }
}

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct IssuerKeys {
    folder: PathBuf,
    pepper: Pepper,
}

impl IssuerKeys {
    pub(crate) fn open(data: &DataFolder, pepper: &Pepper) -> Result<Self, DataError> {
        Ok(Self {
            folder: data.issuer_keys()?,
            pepper: pepper.clone(),
        })
    }

    /// The file of an issuer; none where the name is no name of a resource, as that of the provider that admins sign in with.
    fn file(&self, name: &str) -> Option<PathBuf> {
        let name = KeyId::parse(name).ok()?;
        Some(self.folder.join(format!("{name}{SUFFIX}")))
    }

    /// The books that can be used at this Unix second; what cannot is told of. What is of none of these issuers is removed.
    fn read(&self, now: i64, issuers: &BTreeSet<String>) -> Vec<Arc<KeyBook>> {
        let files = match fs::read_dir(&self.folder) {
            Ok(files) => files,
            Err(error) => {
                tracing::warn!(%error, "the kept keys of issuers cannot be read: they are fetched first");
                return Vec::new();
            }
        };
        let kept = files.flatten().filter_map(|file| {
            let (name, is_whole) = name_of(&file)?;
            if !issuers.contains(&name) {
                remove(&file.path(), &name);
                return None;
            }
            is_whole.then(|| (file.path(), name))
        });
        let mut books = Vec::new();
        for (path, name) in kept.take(MAX_FILES) {
            match self.read_one(&path, now) {
                // A file under another name was moved there by somebody.
                Ok(book) if book.name() == name => books.push(Arc::new(book)),
                Ok(_) => refuse(&name, &NotKept::Damaged.to_string()),
                Err(error) => refuse(&name, &error),
            }
        }
        books
    }

    fn read_one(&self, path: &Path, now: i64) -> Result<KeyBook, String> {
        let most = u64::try_from(MAX_KEPT_BYTES).unwrap_or(u64::MAX).saturating_add(1);
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut bytes));
        read.map_err(|error| error.to_string())?;
        KeyBook::from_kept(&bytes, now, &self.pepper).map_err(|error| error.to_string())
    }
}

/// Whose a file is, and whether it was written to its end.
fn name_of(file: &DirEntry) -> Option<(String, bool)> {
    let name = file.file_name().into_string().ok()?;
    let half = name.strip_suffix(HALF_SUFFIX).map(|name| (name.to_owned(), false));
    half.or_else(|| Some((name.strip_suffix(SUFFIX)?.to_owned(), true)))
}

fn remove(path: &Path, name: &str) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            tracing::warn!(issuer = name, %error, "the kept keys of an issuer cannot be removed");
        }
        _ => {}
    }
}

/// The next good fetch writes over it.
fn refuse(name: &str, error: &str) {
    tracing::warn!(
        issuer = name,
        error,
        "the kept keys of an issuer are not used: they are fetched first"
    );
}

impl Shelf for IssuerKeys {
    fn keep(&self, book: &KeyBook, set: &[u8], fetched: i64) {
        let (Some(path), Some(bytes)) = (self.file(book.name()), book.to_keep(set, fetched, &self.pepper)) else {
            return;
        };
        if let Err(error) = write_whole(&path, &bytes) {
            tracing::warn!(issuer = book.name(), %error, "the keys of an issuer cannot be kept for the next start");
        }
    }

    fn forget(&self, name: &str) {
        if let Some(path) = self.file(name) {
            remove(&path, name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use mesh_policies::{KeyAlgorithm, KeyLocation};
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn shelf() -> (tempfile::TempDir, IssuerKeys) {
        let root = tempfile::tempdir().unwrap();
        let data = DataFolder::open(root.path()).unwrap();
        let shelf = IssuerKeys::open(&data, &Pepper::default()).unwrap();
        (root, shelf)
    }

    fn set() -> Vec<u8> {
        let key =
            json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        json!({"keys": [key]}).to_string().into_bytes()
    }

    fn book(name: &str) -> KeyBook {
        KeyBook::new(
            name,
            "https://idp.example",
            KeyLocation::Discovered,
            vec![KeyAlgorithm::EdDSA],
        )
    }

    fn keep(shelf: &IssuerKeys, name: &str) {
        shelf.keep(&book(name), &set(), NOW);
    }

    fn names(shelf: &IssuerKeys) -> Vec<String> {
        let declared = ["sso", "other", "copied", "empty", "long", "one-more"].map(str::to_owned);
        let many = (0..MAX_FILES).map(|number| format!("i{number}"));
        let books = shelf.read(NOW, &declared.into_iter().chain(many).collect());
        let mut names: Vec<String> = books.iter().map(|book| book.name().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn keys_are_kept_for_their_owner_alone_and_go_with_their_issuer() {
        let (_root, shelf) = shelf();
        for name in ["sso", "other", "admin sign-in", "../escape"] {
            keep(&shelf, name);
        }
        assert_eq!(names(&shelf), ["other", "sso"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&shelf.folder), mode(&shelf.folder.join("sso.keys"))),
            (0o700, 0o600)
        );
        assert_eq!(
            fs::read_dir(&shelf.folder).unwrap().count(),
            2,
            "nothing half written is left"
        );
        shelf.forget("sso");
        shelf.forget("never");
        assert_eq!(names(&shelf), ["other"]);
    }

    #[test]
    fn a_file_that_is_damaged_or_of_another_name_costs_that_issuer_alone() {
        let (_root, shelf) = shelf();
        keep(&shelf, "sso");
        keep(&shelf, "other");
        let file = |name: &str| shelf.folder.join(format!("{name}{SUFFIX}"));
        fs::copy(file("sso"), file("copied")).unwrap();
        fs::write(file("empty"), []).unwrap();
        fs::write(file("long"), vec![b'x'; MAX_KEPT_BYTES + 1]).unwrap();
        fs::write(shelf.folder.join("sso.keys.new"), b"half").unwrap();
        assert_eq!(names(&shelf), ["other", "sso"]);
        let mut bytes = fs::read(file("sso")).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(file("sso"), bytes).unwrap();
        assert_eq!(names(&shelf), ["other"]);
        keep(&shelf, "sso");
        assert_eq!(names(&shelf), ["other", "sso"]);
    }

    #[test]
    fn what_is_of_no_declared_issuer_is_not_read_and_does_not_stay() {
        let (_root, shelf) = shelf();
        for name in ["sso", "deleted"] {
            keep(&shelf, name);
            fs::write(shelf.folder.join(format!("{name}{HALF_SUFFIX}")), b"half").unwrap();
        }
        fs::write(shelf.folder.join("note"), b"somebody else's").unwrap();
        assert_eq!(names(&shelf), ["sso"]);
        let there = fs::read_dir(&shelf.folder).unwrap().flatten();
        let mut there: Vec<_> = there.map(|file| file.file_name().into_string().unwrap()).collect();
        there.sort();
        assert_eq!(there, ["note", "sso.keys", "sso.keys.new"]);
    }

    #[test]
    fn as_many_files_as_the_bound_are_read_and_not_one_more() {
        let (_root, shelf) = shelf();
        for number in 0..MAX_FILES {
            // Without waiting for the disk a thousand times.
            let book = book(&format!("i{number}"));
            let bytes = book.to_keep(&set(), NOW, &shelf.pepper).unwrap();
            fs::write(shelf.file(book.name()).unwrap(), bytes).unwrap();
        }
        assert_eq!(names(&shelf).len(), MAX_FILES);
        keep(&shelf, "one-more");
        assert_eq!(names(&shelf).len(), MAX_FILES);
    }
}
