//! The zip file of a package: which part of it is the model, and unpacking that part.

use std::{
    fs::File,
    io::{self, ErrorKind, Read, Write, copy},
    path::{Path, PathBuf},
};

use mesh_backend::BackendError;
use tempfile::TempDir;
use zip::ZipArchive;

use super::{
    code::Code,
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
/// The most bytes that are unpacked of one package.
const MAX_UNPACKED: u64 = 256 * 1024 * 1024 * 1024;

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
    /// Constants beside the library, and how many bytes.
    pub(crate) weights: Option<(PathBuf, u64)>,
    /// The library and the weights together.
    pub(crate) bytes: u64,
}

fn load(text: &str) -> BackendError {
    BackendError::Load(text.to_owned())
}

fn damaged(_: impl std::error::Error) -> BackendError {
    load("the package is damaged: compile and publish it again")
}

/// What went wrong while a file was unpacked: the disk below, or the archive.
fn unpacking(error: &io::Error) -> BackendError {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge | ErrorKind::WriteZero => load(
            "there is no room to unpack the package: make room where that is done, which of a mesh is its data folder",
        ),
        ErrorKind::InvalidData | ErrorKind::InvalidInput | ErrorKind::UnexpectedEof | ErrorKind::Other => {
            damaged(error)
        }
        kind => BackendError::Load(format!("the package cannot be unpacked: {kind}")),
    }
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

    /// What the sources of all its code say of it.
    pub(crate) fn code(&mut self) -> Result<Code, BackendError> {
        let mut code = Code::default();
        for (place, _) in self.files.iter().filter(|(_, name)| name.ends_with(".cpp")) {
            code.read(&text_at(&mut self.zip, *place)?)?;
        }
        Ok(code)
    }

    /// What the model takes and gives.
    pub(crate) fn contract(&self) -> Result<Contract, BackendError> {
        source::read(&self.source)
    }

    /// Unpacks the model into a folder of its own, within this one; none: that for temporary files.
    pub(crate) fn unpack(&mut self, within: Option<&Path>) -> Result<Unpacked, BackendError> {
        let wanted = |name: &str| ![".cpp", ".h"].iter().any(|end| name.ends_with(end));
        let files: Vec<(usize, String)> = self.files.iter().filter(|(_, name)| wanted(name)).cloned().collect();
        self.check_sizes(&files, MAX_UNPACKED)?;
        let mut builder = tempfile::Builder::new();
        let named = builder.prefix("mesh-pt2-");
        let folder = within.map_or_else(|| named.tempdir(), |within| named.tempdir_in(within));
        let folder = folder.map_err(|error| unpacking(&error))?;
        let (mut library, mut weights, mut bytes) = (None, None, 0);
        for (place, name) in files {
            let mut entry = self.zip.by_index(place).map_err(damaged)?;
            let path = folder.path().join(&name);
            let mut file = File::create_new(&path).map_err(|error| unpacking(&error))?;
            let size = entry.size();
            let length = write_out(&mut entry, size, &mut file)?;
            if name.ends_with(".so") {
                bytes += length;
                library = Some(path);
            } else if name.ends_with(".blob") {
                bytes += length;
                weights = Some((path, length));
            }
        }
        Ok(Unpacked {
            library: library.ok_or_else(|| load("the package holds no compiled library"))?,
            folder,
            weights,
            bytes,
        })
    }

    /// Refuses what would take more than so many bytes, by what the archive says of its files.
    fn check_sizes(&mut self, files: &[(usize, String)], most: u64) -> Result<(), BackendError> {
        let mut all = 0u64;
        for (place, _) in files {
            all = all.saturating_add(self.zip.by_index_raw(*place).map_err(damaged)?.size());
        }
        if all > most {
            return Err(BackendError::Load(format!(
                "the package takes {all} bytes when it is unpacked, and at most {most} are"
            )));
        }
        Ok(())
    }
}

/// Copies a file out of the archive; an error if it holds more or less than the archive says.
fn write_out(entry: &mut dyn Read, size: u64, file: &mut dyn Write) -> Result<u64, BackendError> {
    let length = copy(&mut entry.take(size.saturating_add(1)), file).map_err(|error| unpacking(&error))?;
    if length != size {
        return Err(damaged(io::Error::from(ErrorKind::UnexpectedEof)));
    }
    Ok(length)
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
    let found = files.iter().find(|(_, name)| name.ends_with(end));
    found.map(|(place, _)| text_at(zip, *place)).transpose()
}

fn text_at(zip: &mut ZipArchive<File>, place: usize) -> Result<String, BackendError> {
    let mut entry = zip.by_index(place).map_err(damaged)?;
    text(&mut entry, MAX_TEXT)
}

/// A whole text of at most so many bytes: of one that is cut short nothing can be told.
fn text(entry: &mut dyn Read, most: u64) -> Result<String, BackendError> {
    let mut text = String::new();
    let read = entry
        .take(most.saturating_add(1))
        .read_to_string(&mut text)
        .map_err(damaged)?;
    if u64::try_from(read).is_ok_and(|read| read <= most) {
        return Ok(text);
    }
    Err(BackendError::Load(format!(
        "the package holds a source or metadata of more than {most} bytes"
    )))
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

    /// A package of one file.
    fn package(folder: &Path, content: &[u8]) -> PathBuf {
        let path = folder.join("one.pt2");
        let mut writer = zip::ZipWriter::new(File::create(&path).unwrap());
        let options = zip::write::SimpleFileOptions::default();
        let files: [(&str, &[u8]); 3] = [
            ("x.wrapper.so", content),
            ("x.wrapper.cpp", b"// source"),
            ("x.wrapper_metadata.json", b"{}"),
        ];
        for (name, content) in files {
            writer.start_file(format!("{FOLDER}model/{name}"), options).unwrap();
            writer.write_all(content).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    #[test]
    fn so_many_bytes_are_unpacked_and_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::open(&package(folder.path(), &[7; 100])).unwrap();
        let files = archive.files.clone();
        let sum = 100 + 9 + 2;
        assert_eq!(archive.check_sizes(&files, sum), Ok(()));
        let refused = archive.check_sizes(&files, sum - 1).unwrap_err().to_string();
        assert!(
            refused.contains("takes 111 bytes") && refused.contains("at most 110"),
            "{refused}"
        );
        let unpacked = archive.unpack(None).unwrap();
        assert_eq!(
            (unpacked.bytes, std::fs::read(&unpacked.library).unwrap()),
            (100, vec![7; 100])
        );
        assert!(unpacked.weights.is_none());
    }

    #[test]
    fn a_text_is_read_as_a_whole_or_not_at_all() {
        assert_eq!(text(&mut &b"abc"[..], 3), Ok("abc".to_owned()));
        let refused = text(&mut &b"abc"[..], 2).unwrap_err().to_string();
        assert!(refused.contains("more than 2 bytes"), "{refused}");
    }

    #[test]
    fn an_entry_that_is_longer_or_shorter_than_it_says_is_damage() {
        let mut written = Vec::new();
        assert_eq!(write_out(&mut &b"abc"[..], 3, &mut written), Ok(3));
        for size in [2, 4] {
            let refused = write_out(&mut &b"abc"[..], size, &mut written).unwrap_err().to_string();
            assert!(refused.contains("damaged"), "{refused}");
        }
        assert!(
            written.len() <= 3 + 3 + 3,
            "no more than one byte too many is ever written"
        );
    }

    #[test]
    fn a_full_disk_is_no_damage() {
        let mut full = File::options().write(true).open("/dev/full").unwrap();
        let refused = write_out(&mut &b"abc"[..], 3, &mut full).unwrap_err().to_string();
        assert!(refused.contains("no room") && !refused.contains("damaged"), "{refused}");
        let refused = unpacking(&io::Error::from(ErrorKind::PermissionDenied)).to_string();
        assert!(refused.contains("permission denied"), "{refused}");
    }
}
