//! The files that the journal is written to, behind a trait, so that a test can lose what was not fsynced.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

/// Only the owner reads and writes: records hold hashes and shared secrets.
const OWNER_ONLY: u32 = 0o600;
const OWNERS_FOLDER: u32 = 0o700;

/// Files in folders.
pub trait Files: Send + Sync + 'static {
    /// Makes a folder and those above it; durable on return.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;
    /// The names in a folder, in no order.
    fn names(&self, folder: &Path) -> io::Result<Vec<String>>;
    /// The whole of a file.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// A new file; its name is durable only after [`Files::sync_folder`].
    fn create(&self, path: &Path) -> io::Result<Box<dyn Appending>>;
    /// A file that is there, to go on at its end.
    fn append(&self, path: &Path) -> io::Result<Box<dyn Appending>>;
    /// Takes a file away; durable only after [`Files::sync_folder`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Gives a file another name, in place of what has it; durable only after [`Files::sync_folder`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// A file that grows at its end.
pub trait Appending: Send {
    /// Adds bytes; durable only after [`Appending::sync`].
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file to this length.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Makes all of it durable: fsync.
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's files.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiskFiles;

impl Files for DiskFiles {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(OWNERS_FOLDER).create(folder)?;
        match folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => self.sync_folder(parent),
            None => self.sync_folder(Path::new(".")),
        }
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
        fs::read_dir(folder)?.map(name).collect()
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .mode(OWNER_ONLY)
            .open(path)?;
        Ok(Box::new(file))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        Ok(Box::new(OpenOptions::new().append(true).open(path)?))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

impl Appending for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}
