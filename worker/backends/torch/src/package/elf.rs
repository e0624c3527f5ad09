//! A package's library before it is opened: whole, for this processor, and asking for nothing that this libtorch lacks.
//!
//! A library that is cut short ends the process when it is opened, and one that was compiled for another libtorch fails in
//! words of the linker. Reads the parts of ELF that tell, and only these: the header, the segments, and the names that are to be
//! found elsewhere.

use std::{fs::File, os::unix::fs::FileExt as _, path::Path};

use libloading::os::unix::Library;
use mesh_backend::BackendError;

const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const HEADER_BYTES: u64 = 64;
const SEGMENT_BYTES: u16 = 56;
const SECTION_BYTES: u16 = 64;
/// The fields of a section header's type: a table of names for the linker.
const DYNAMIC_SYMBOLS: u32 = 11;
const SYMBOL_BYTES: usize = 24;
/// libtorch's names for packages begin so.
const PREFIX: &str = "aoti_torch_";
/// The largest table that is read: of the names, far more than any library has.
const MAX_TABLE: u64 = 64 * 1024 * 1024;

fn damaged() -> BackendError {
    BackendError::Load("the package's library is damaged: compile and publish it again".to_owned())
}

/// Checks a library on disk.
pub(crate) fn check(library: &Path) -> Result<(), BackendError> {
    let whole = File::open(library).ok().and_then(|file| Whole::of(&file)?.wanted());
    let wanted = whole.ok_or_else(damaged)?;
    let this = Library::this();
    let lacks = |name: &&String| {
        // SAFETY: the name is only looked for; the address is not used.
        let found = unsafe { this.get::<*const ()>(name.as_bytes()) };
        found.is_err()
    };
    match wanted.iter().find(lacks) {
        None => Ok(()),
        Some(name) => Err(BackendError::Load(format!(
            "the package was compiled for another libtorch: this one, {}, has no {name}",
            crate::LIBTORCH_VERSION
        ))),
    }
}

/// A file of which only pieces are read: a library may hold gigabytes of weights.
struct Whole<'a> {
    file: &'a File,
    length: u64,
}

impl<'a> Whole<'a> {
    fn of(file: &'a File) -> Option<Self> {
        let length = file.metadata().ok()?.len();
        Some(Self { file, length })
    }

    /// A piece of the file; none where it ends before, or is larger than any table.
    fn piece(&self, offset: u64, length: u64) -> Option<Vec<u8>> {
        if length > MAX_TABLE || !self.has(offset, length) {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(length).ok()?];
        self.file.read_exact_at(&mut bytes, offset).ok()?;
        Some(bytes)
    }

    fn has(&self, offset: u64, length: u64) -> bool {
        offset.checked_add(length).is_some_and(|end| end <= self.length)
    }

    /// A table of so many entries, each in its bytes; none where they are of another size than they must be.
    fn table(&self, offset: u64, (size, right): (u16, u16), count: u16) -> Option<Vec<Vec<u8>>> {
        if size != right {
            return None;
        }
        let bytes = self.piece(offset, u64::from(size) * u64::from(count))?;
        Some(bytes.chunks_exact(usize::from(size)).map(<[u8]>::to_vec).collect())
    }

    /// The names of libtorch that the library wants; none if it is not a whole library for this kind of processor.
    fn wanted(&self) -> Option<Vec<String>> {
        let header = self.piece(0, HEADER_BYTES)?;
        if !header.starts_with(MAGIC) || half(&header, 18)? != machine() {
            return None;
        }
        let sizes = (half(&header, 54)?, SEGMENT_BYTES);
        for segment in self.table(long(&header, 32)?, sizes, half(&header, 56)?)? {
            if !self.has(long(&segment, 8)?, long(&segment, 32)?) {
                return None;
            }
        }
        let sizes = (half(&header, 58)?, SECTION_BYTES);
        let sections = self.table(long(&header, 40)?, sizes, half(&header, 60)?)?;
        for section in &sections {
            if word(section, 4)? == DYNAMIC_SYMBOLS {
                let names = sections.get(usize::try_from(word(section, 40)?).ok()?)?;
                return undefined(&self.content(section)?, &self.content(names)?);
            }
        }
        None
    }

    /// What a section's header points to.
    fn content(&self, section: &[u8]) -> Option<Vec<u8>> {
        self.piece(long(section, 24)?, long(section, 32)?)
    }
}

fn undefined(symbols: &[u8], names: &[u8]) -> Option<Vec<String>> {
    let mut found = Vec::new();
    for symbol in symbols.chunks_exact(SYMBOL_BYTES) {
        if half(symbol, 6)? != 0 {
            continue;
        }
        let rest = names.get(usize::try_from(word(symbol, 0)?).ok()?..)?;
        let name = rest.split(|byte| *byte == 0).next()?;
        let name = std::str::from_utf8(name).ok()?;
        if name.starts_with(PREFIX) {
            found.push(name.to_owned());
        }
    }
    Some(found)
}

const fn machine() -> u16 {
    if cfg!(target_arch = "aarch64") { 183 } else { 62 }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any library will do.
    fn some_library() -> Vec<u8> {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let path = maps
            .lines()
            .find_map(|line| line.split_whitespace().find(|part| part.ends_with("libc10.so")));
        std::fs::read(path.unwrap()).unwrap()
    }

    /// What these bytes want as a file.
    fn wanted(bytes: &[u8]) -> Option<Vec<String>> {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        Whole::of(&file).unwrap().wanted()
    }

    #[test]
    fn a_whole_library_passes_and_one_cut_short_does_not() {
        let library = some_library();
        assert_eq!(
            wanted(&library),
            Some(Vec::new()),
            "libc10 wants nothing of what packages want"
        );
        for length in [0, 10, 2_000, library.len() / 2, library.len() - 64] {
            assert_eq!(wanted(&library[..length]), None, "{length}");
        }
        let mut other = library;
        other[18] = 40;
        assert_eq!(wanted(&other), None, "another processor");
    }

    #[test]
    fn numbers_that_lead_beyond_all_bounds_are_damage() {
        // Where the tables of segments and sections are, and how large their entries are and how many.
        for at in [32, 40] {
            for offset in [u64::MAX, u64::MAX - 8, 1 << 62] {
                let mut library = some_library();
                library[at..at + 8].copy_from_slice(&offset.to_le_bytes());
                assert_eq!(wanted(&library), None, "{at} {offset}");
            }
        }
        for at in [54, 58] {
            for size in [0u16, 1, u16::MAX] {
                let mut library = some_library();
                library[at..at + 2].copy_from_slice(&size.to_le_bytes());
                assert_eq!(wanted(&library), None, "{at} {size}");
            }
        }
    }

    #[test]
    fn a_table_is_read_up_to_its_bound() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MAX_TABLE + 1).unwrap();
        let whole = Whole::of(&file).unwrap();
        let most = usize::try_from(MAX_TABLE).unwrap();
        assert_eq!(whole.piece(0, MAX_TABLE).map(|bytes| bytes.len()), Some(most));
        assert_eq!(whole.piece(0, MAX_TABLE + 1), None);
        assert_eq!(whole.piece(2, MAX_TABLE), None, "beyond the end");
    }

    #[test]
    fn names_that_nobody_has_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let (source, library) = (folder.path().join("a.c"), folder.path().join("a.so"));
        std::fs::write(
            &source,
            "void aoti_torch_from_the_future(void); void f(void) { aoti_torch_from_the_future(); }",
        )
        .unwrap();
        let mut command = std::process::Command::new("cc");
        let status = command
            .args(["-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(&source)
            .status()
            .unwrap();
        assert!(status.success());
        let refused = check(&library).unwrap_err().to_string();
        assert!(
            refused.contains("another libtorch") && refused.contains("aoti_torch_from_the_future"),
            "{refused}"
        );
    }
}
