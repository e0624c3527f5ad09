//! Reads a model repository's folders: what is there, in bounds. The only part of this crate that touches files.
//!
//! A folder is a model if it is not hidden; a folder in it whose name is a number not beginning with 0 is a version of it, as in
//! Triton. What else lies there is left alone until a configuration names it.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Component, Path, PathBuf},
};

use mesh_resources::{ArtifactRef, recognise};
use mesh_types::{ArtifactFormat, Version};
use sha2::{Digest as _, Sha256};

use crate::{read::CONFIG, text::MAX_TEXT_BYTES};

/// The most models of a repository.
pub const MAX_MODELS: usize = 1_000;
/// The most versions of a model: they are written at once.
pub const MAX_VERSIONS: usize = 250;
/// The most files of a version's folder.
pub const MAX_FILES: usize = 1_000;
const READ_BYTES: usize = 1 << 20;

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The operating system refused.
    #[error("cannot read {path}: {source}")]
    Io {
        /// What.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// More than may be.
    #[error("{path} holds more than {most} {what}: split it")]
    TooMany {
        /// Where.
        path: String,
        /// How many there may be.
        most: usize,
        /// Of what.
        what: &'static str,
    },
    /// A configuration that is not a text, or too long.
    #[error("{CONFIG} is not a text of at most {MAX_TEXT_BYTES} bytes")]
    Config,
}

/// A version's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct VersionFolder {
    pub(crate) number: Version,
    pub(crate) path: PathBuf,
    /// The names of what lies in it, in their order.
    pub(crate) files: Vec<String>,
}

/// A model's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelFolder {
    pub(crate) path: PathBuf,
    pub(crate) config: Option<String>,
    /// By their numbers.
    pub(crate) versions: Vec<VersionFolder>,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    let path = path.display().to_string();
    move |source| FolderError::Io { path, source }
}

/// What lies in a folder and is not hidden, in the order of the names.
fn names(
    path: &Path,
    most: usize,
    what: &'static str,
    such: impl Fn(&Path) -> bool,
) -> Result<Vec<String>, FolderError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path).map_err(failed(path))? {
        let entry = entry.map_err(failed(path))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') || !such(&entry.path()) {
            continue;
        }
        if names.len() >= most {
            let path = path.display().to_string();
            return Err(FolderError::TooMany { path, most, what });
        }
        names.push(name);
    }
    names.sort();
    Ok(names)
}

/// The names of a repository's models: of the folders in it that are not hidden.
pub fn models(root: &Path) -> Result<Vec<String>, FolderError> {
    names(root, MAX_MODELS, "models", Path::is_dir)
}

/// A model's folder.
pub(crate) fn model(path: &Path) -> Result<ModelFolder, FolderError> {
    let version = |path: &Path| {
        path.is_dir()
            && path
                .file_name()
                .is_some_and(|name| number(&name.to_string_lossy()).is_some())
    };
    let mut versions = Vec::new();
    for name in names(path, MAX_VERSIONS, "versions", version)? {
        let path = path.join(&name);
        let files = names(&path, MAX_FILES, "files", |_| true)?;
        if let Some(number) = number(&name) {
            versions.push(VersionFolder { number, path, files });
        }
    }
    versions.sort_by_key(|version| version.number);
    Ok(ModelFolder {
        config: config(&path.join(CONFIG))?,
        path: path.to_path_buf(),
        versions,
    })
}

fn number(name: &str) -> Option<Version> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit()) && !name.starts_with('0');
    digits.then(|| Version::new(name.parse().ok()?).ok()).flatten()
}

fn config(path: &Path) -> Result<Option<String>, FolderError> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => {
            let most = u64::try_from(MAX_TEXT_BYTES).unwrap_or(u64::MAX);
            file.take(most.saturating_add(1))
                .read_to_end(&mut bytes)
                .map_err(failed(path))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(path)(error)),
    }
    let text = String::from_utf8(bytes)
        .ok()
        .filter(|text| text.len() <= MAX_TEXT_BYTES);
    text.map(Some).ok_or(FolderError::Config)
}

/// Whether a name leads to something within its folder.
pub(crate) fn is_within(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    !name.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// A file beside a model that its configuration names.
pub(crate) fn data(model: &Path, folder: &str, name: &str, most: usize) -> Result<Vec<u8>, String> {
    if !is_within(name) {
        return Err(match folder {
            "" => "name a file within the model's folder".to_owned(),
            folder => format!("name a file within the folder {folder}"),
        });
    }
    let shown = Path::new(folder).join(name).display().to_string();
    let refused = |error: io::Error| format!("{shown}: {error}");
    let file = File::open(model.join(folder).join(name)).map_err(refused)?;
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    file.take(limit).read_to_end(&mut bytes).map_err(refused)?;
    if bytes.len() > most {
        return Err(format!(
            "{shown} has more than {most} bytes, the most that are kept with a model"
        ));
    }
    Ok(bytes)
}

/// A model's file: its digest and size, and its kind where that is known.
pub(crate) fn artifact(path: &Path) -> io::Result<(ArtifactRef, Option<ArtifactFormat>)> {
    let mut file = File::open(path)?;
    let (mut digest, mut chunk, mut bytes) = (Sha256::new(), vec![0; READ_BYTES], 0_u64);
    loop {
        let count = file.read(&mut chunk)?;
        let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        digest.update(read);
        bytes = bytes.saturating_add(u64::try_from(count).unwrap_or_default());
    }
    let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let kind = recognise(&mut file)?;
    Ok((ArtifactRef { sha256, bytes }, kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(root: &Path, folders: &[&str]) {
        folders
            .iter()
            .for_each(|folder| fs::create_dir_all(root.join(folder)).unwrap());
    }

    #[test]
    fn models_and_versions_are_folders_by_their_names() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &["b/10", "b/2", "b/01", "b/0", "b/warmup", "a", ".git/1"]);
        fs::write(root.path().join("notes.txt"), "x").unwrap();
        fs::write(root.path().join("b/3"), "a file is no version").unwrap();
        fs::write(root.path().join("b/2/model.pt"), "x").unwrap();
        assert_eq!(models(root.path()).unwrap(), ["a", "b"]);
        let read = model(&root.path().join("b")).unwrap();
        let numbers: Vec<u32> = read.versions.iter().map(|version| version.number.get()).collect();
        assert_eq!(numbers, [2, 10]);
        assert_eq!(read.versions[0].files, ["model.pt"]);
        assert_eq!(read.config, None);
        assert!(
            models(&root.path().join("none"))
                .unwrap_err()
                .to_string()
                .contains("cannot read")
        );
    }

    #[test]
    fn as_many_models_versions_and_files_as_there_may_be_and_not_one_more() {
        let root = tempfile::tempdir().unwrap();
        let fill = |folder: &str, count: usize| {
            (1..=count)
                .for_each(|number| fs::create_dir_all(root.path().join(folder).join(number.to_string())).unwrap());
        };
        fill("m", MAX_VERSIONS);
        assert_eq!(model(&root.path().join("m")).unwrap().versions.len(), MAX_VERSIONS);
        fill("m", MAX_VERSIONS + 1);
        assert!(
            model(&root.path().join("m"))
                .unwrap_err()
                .to_string()
                .contains("versions: split it")
        );
        fill("all", MAX_MODELS);
        assert_eq!(models(&root.path().join("all")).unwrap().len(), MAX_MODELS);
        fill("all", MAX_MODELS + 1);
        assert!(
            models(&root.path().join("all"))
                .unwrap_err()
                .to_string()
                .contains("models: split it")
        );
        fill("f/1", MAX_FILES);
        assert_eq!(
            model(&root.path().join("f")).unwrap().versions[0].files.len(),
            MAX_FILES
        );
        fill("f/1", MAX_FILES + 1);
        assert!(
            model(&root.path().join("f"))
                .unwrap_err()
                .to_string()
                .contains("files: split it")
        );
    }

    #[test]
    fn a_configuration_and_a_data_file_at_their_bounds_pass_and_one_byte_beyond_do_not() {
        let root = tempfile::tempdir().unwrap();
        make(root.path(), &["m/warmup"]);
        let write = |name: &str, bytes: usize| fs::write(root.path().join("m").join(name), vec![b'#'; bytes]).unwrap();
        let folder = root.path().join("m");
        write(CONFIG, MAX_TEXT_BYTES);
        assert!(model(&folder).unwrap().config.is_some());
        write(CONFIG, MAX_TEXT_BYTES + 1);
        assert!(model(&folder).unwrap_err().to_string().contains("at most"));
        write("warmup/x", 8);
        assert_eq!(data(&folder, "warmup", "x", 8).unwrap().len(), 8);
        assert!(
            data(&folder, "warmup", "x", 7)
                .unwrap_err()
                .contains("more than 7 bytes")
        );
    }

    #[test]
    fn a_name_leads_nowhere_else() {
        for (name, within) in [
            ("x", true),
            ("a/x", true),
            ("../x", false),
            ("/etc/passwd", false),
            ("", false),
            ("a/../../x", false),
        ] {
            assert_eq!(is_within(name), within, "{name}");
        }
        assert!(
            data(Path::new("."), "warmup", "../x", 1)
                .unwrap_err()
                .contains("within")
        );
    }

    #[test]
    fn a_files_digest_and_size_are_those_of_its_bytes() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.pt");
        fs::write(&path, "abc").unwrap();
        let (artifact, kind) = artifact(&path).unwrap();
        assert_eq!(artifact.bytes, 3);
        assert_eq!(
            artifact.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(artifact.is_well_formed() && kind.is_none());
    }
}
