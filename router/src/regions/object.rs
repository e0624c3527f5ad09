//! A shared memory object as a file: opened by a name that leads nowhere else, read and written by copying.
//!
//! Mapping it would be faster by a copy, and would end the whole server where its owner cuts it short.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

/// Names that begin like this are the mesh's own, and no caller's.
pub const RESERVED_KEY_PREFIX: &str = "mesh_";
/// Named semaphores lie beside the objects, and are no memory of anybody's.
const SEMAPHORE_PREFIX: &str = "sem.";
/// The longest name of a file.
const MAX_KEY_BYTES: usize = 255;

/// Why a key is no name of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyProblem {
    Malformed,
    Reserved,
}

/// The name of a file in the folder of objects, where a key is one.
pub(super) fn file_name(key: &str) -> Result<&str, KeyProblem> {
    let name = key.strip_prefix('/').unwrap_or(key);
    let sound = (1..=MAX_KEY_BYTES).contains(&name.len())
        && !matches!(name, "." | "..")
        && !name.contains(['/', '\0'])
        && !name.starts_with(SEMAPHORE_PREFIX);
    if !sound {
        return Err(KeyProblem::Malformed);
    }
    if name.starts_with(RESERVED_KEY_PREFIX) {
        return Err(KeyProblem::Reserved);
    }
    Ok(name)
}

/// An open object. It stays what it is, whatever becomes of its name.
#[derive(Debug)]
pub(super) struct Object {
    file: File,
    identity: (u64, u64),
}

impl Object {
    /// Opens an object by its file's name, which [`file_name`] has passed: a plain file, and no link to one.
    pub(super) fn open(folder: &Path, name: &str) -> io::Result<Self> {
        // Not to wait, for a pipe that lies there would not be opened before somebody writes to it.
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(rustix::fs::open(folder.join(name), flags, Mode::empty())?);
        let about = file.metadata()?;
        if !about.is_file() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        Ok(Self {
            file,
            identity: (about.dev(), about.ino()),
        })
    }

    /// Whether both are one object, by whatever names.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// How long it is now.
    pub(super) fn size(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills the buffer from there; an error where it ends before.
    pub(super) fn read(&self, buffer: &mut [u8], from: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, from)
    }

    /// Writes the bytes there.
    pub(super) fn write(&self, bytes: &[u8], to: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, to)
    }
}
