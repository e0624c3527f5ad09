//! The zip file of a package: which part of it is the model, and unpacking that part.

use std::{
    fs::File,
    io::{Read, copy},
    path::{Path, PathBuf},
};

use mesh_backend::BackendError;
use tempfile::TempDir;
use zip::ZipArchive;

use super::{
    features::MadeFor,
    source::{self, Contract},
};

/// Where compiled models are in an archive.
const FOLDER: &str = "data/aotinductor/";
/// The model that is meant where there are several.
const NAME: &str = "model";
/// The most files of a model, and the largest text that is read as a whole.
const MAX_FILES: usize = 10_000;
const MAX_TEXT: u64 = 256 * 1024 * 1024;

/// An open package file.
#[derive(Debug)]
pub(crate) struct Archive {
    zip: ZipArchive<File>,
    /// Its files: place in the archive, and name within the model's folder.
    files: Vec<(usize, String)>,
    pub(crate) made_for: MadeFor,
    source: String,
}

/// What was unpacked; removed when dropped.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub(crate) folder: TempDir,
    pub(crate) library: PathBuf,
    pub(crate) weights: Option<PathBuf>,
    /// The library and the weights together.
    pub(crate) bytes: u64,
}

fn load(text: &str) -> BackendError {
    BackendError::Load(text.to_owned())
}

fn damaged(_: impl std::error::Error) -> BackendError {
    load("the package is damaged: compile and publish it again")
}

impl Archive {
    /// Opens a file and finds its model.
    pub(crate) fn open(path: &Path) -> Result<Self, BackendError> {
        let file = File::open(path).map_err(|_| load("the package's file cannot be opened"))?;
        let not_one =
            |_| load("the file is not a .pt2 package; write one with torch._inductor.aoti_compile_and_package");
        let mut zip = ZipArchive::new(file).map_err(not_one)?;
        let files = model_files(&zip)?;
        let texts = |zip: &mut ZipArchive<File>, end: &str| text_of(zip, &files, end);
        let metadata = texts(&mut zip, "wrapper_metadata.json")?.or(texts(&mut zip, "_metadata.json")?);
        let metadata = metadata.ok_or_else(|| load("the package has no metadata"))?;
        let source = texts(&mut zip, ".wrapper.cpp")?.or(texts(&mut zip, ".cpp")?);
        let source = source.ok_or_else(|| {
            load("the package holds no source, from which its inputs' types and extents are read: compile it without removing it")
        })?;
        Ok(Self {
            zip,
            files,
            made_for: MadeFor::read(metadata.as_bytes())?,
            source,
        })
    }

    /// What the model takes and gives.
    pub(crate) fn contract(&self) -> Result<Contract, BackendError> {
        source::read(&self.source)
    }

    /// Unpacks the model into a folder of its own.
    pub(crate) fn unpack(&mut self) -> Result<Unpacked, BackendError> {
        let failed = |_| load("there is no room to unpack the package");
        let folder = tempfile::Builder::new().prefix("mesh-pt2-").tempdir().map_err(failed)?;
        let (mut library, mut weights, mut bytes) = (None, None, 0);
        for (place, name) in &self.files {
            if [".cpp", ".h"].iter().any(|end| name.ends_with(end)) {
                continue;
            }
            let mut entry = self.zip.by_index(*place).map_err(damaged)?;
            let path = folder.path().join(name);
            let mut file = File::create_new(&path).map_err(failed)?;
            let length = copy(&mut entry, &mut file).map_err(damaged)?;
            if name.ends_with(".so") {
                bytes += length;
                library = Some(path);
            } else if name.ends_with(".blob") {
                bytes += length;
                weights = Some(path);
            }
        }
        Ok(Unpacked {
            library: library.ok_or_else(|| load("the package holds no compiled library"))?,
            folder,
            weights,
            bytes,
        })
    }
}

/// The files of the one model, or of the one called `model`.
fn model_files(zip: &ZipArchive<File>) -> Result<Vec<(usize, String)>, BackendError> {
    let mut models: Vec<(String, Vec<(usize, String)>)> = Vec::new();
    for place in 0..zip.len() {
        let Some((model, file)) = zip.name_for_index(place).and_then(split) else {
            continue;
        };
        let index = models.iter().position(|(known, _)| known == model);
        let index = index.unwrap_or_else(|| {
            models.push((model.to_owned(), Vec::new()));
            models.len() - 1
        });
        if let Some((_, files)) = models.get_mut(index) {
            files.push((place, file.to_owned()));
        }
    }
    let chosen = match models.len() {
        0 => None,
        1 => models.pop(),
        _ => models.into_iter().find(|(name, _)| name == NAME),
    };
    let (_, files) = chosen.ok_or_else(|| {
        load(
            "the file holds no compiled model, or several of which none is called 'model'; write one with \
              torch._inductor.aoti_compile_and_package",
        )
    })?;
    if files.len() > MAX_FILES {
        return Err(load("the package has too many files"));
    }
    Ok(files)
}

/// The model's and the file's names in a path of an archive; none for other files, and for names that lead elsewhere.
fn split(path: &str) -> Option<(&str, &str)> {
    let (_, rest) = path.split_once(FOLDER)?;
    let (model, file) = rest.split_once('/')?;
    let plain = !file.is_empty() && !file.contains(['/', '\\', '\0']) && file != "." && file != "..";
    plain.then_some((model, file))
}

fn text_of(zip: &mut ZipArchive<File>, files: &[(usize, String)], end: &str) -> Result<Option<String>, BackendError> {
    let Some((place, _)) = files.iter().find(|(_, name)| name.ends_with(end)) else {
        return Ok(None);
    };
    let entry = zip.by_index(*place).map_err(damaged)?;
    let mut text = String::new();
    entry.take(MAX_TEXT).read_to_string(&mut text).map_err(damaged)?;
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn names_that_lead_out_of_the_folder_are_no_files_of_the_model() {
        assert_eq!(split("a/data/aotinductor/model/x.so"), Some(("model", "x.so")));
        for odd in [
            "a/data/weights/x",
            "data/aotinductor/model/../x",
            "data/aotinductor/model/",
            "data/aotinductor/model/..",
        ] {
            assert_eq!(split(odd), None, "{odd}");
        }
    }

    #[test]
    fn files_without_a_compiled_model_say_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.pt2");
        let refused = |path: &Path| Archive::open(path).unwrap_err().to_string();
        assert!(refused(&path).contains("cannot be opened"));
        std::fs::write(&path, b"not a zip").unwrap();
        assert!(refused(&path).contains("not a .pt2 package"));
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        writer.start_file("x/archive_format", options).unwrap();
        writer.write_all(b"pt2").unwrap();
        writer.finish().unwrap();
        assert!(refused(&path).contains("holds no compiled model"));
    }
}
