//! A package's library before it is opened: whole, for this processor, and asking for nothing that this libtorch lacks.
//!
//! A library that is cut short ends the process when it is opened, and one that was compiled for another libtorch fails in
//! words of the linker. Reads the parts of ELF that tell: the header, the segments, and the names that are to be found elsewhere.

use std::path::Path;

use libloading::os::unix::Library;
use mesh_backend::BackendError;

const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// The fields of a section header's type: a table of names for the linker.
const DYNAMIC_SYMBOLS: u32 = 11;
const SYMBOL_BYTES: usize = 24;
/// libtorch's names for packages begin so.
const PREFIX: &str = "aoti_torch_";

fn damaged() -> BackendError {
    BackendError::Load("the package's library is damaged: compile and publish it again".to_owned())
}

/// Checks a library on disk.
pub(crate) fn check(library: &Path) -> Result<(), BackendError> {
    let bytes = std::fs::read(library).map_err(|_| damaged())?;
    let wanted = wanted(&bytes).ok_or_else(damaged)?;
    let this = Library::this();
    let lacks = |name: &&str| {
        // SAFETY: the name is only looked for; the address is not used.
        let found = unsafe { this.get::<*const ()>(name.as_bytes()) };
        found.is_err()
    };
    match wanted.into_iter().find(lacks) {
        None => Ok(()),
        Some(name) => Err(BackendError::Load(format!(
            "the package was compiled for another libtorch: this one, {}, has no {name}",
            crate::LIBTORCH_VERSION
        ))),
    }
}

/// The names of libtorch that the library wants; none if it is not a whole library for this kind of processor.
fn wanted(bytes: &[u8]) -> Option<Vec<&str>> {
    if !bytes.starts_with(MAGIC) || half(bytes, 18)? != machine() {
        return None;
    }
    let (segments, size, count) = (long(bytes, 32)?, half(bytes, 54)?, half(bytes, 56)?);
    for index in 0..usize::from(count) {
        let header = segments.checked_add(index.checked_mul(usize::from(size))?)?;
        let (offset, length) = (long(bytes, header + 8)?, long(bytes, header + 32)?);
        bytes.get(offset..offset.checked_add(length)?)?;
    }
    let (sections, size, count) = (long(bytes, 40)?, half(bytes, 58)?, half(bytes, 60)?);
    let table = usize::from(size).checked_mul(usize::from(count))?;
    bytes.get(sections..sections.checked_add(table)?)?;
    let section = |index: usize| sections.checked_add(index.checked_mul(usize::from(size))?);
    for index in 0..usize::from(count) {
        let header = section(index)?;
        if word(bytes, header + 4)? == DYNAMIC_SYMBOLS {
            let symbols = content(bytes, header)?;
            let names = content(bytes, section(usize::try_from(word(bytes, header + 40)?).ok()?)?)?;
            return undefined(symbols, names);
        }
    }
    None
}

fn undefined<'a>(symbols: &[u8], names: &'a [u8]) -> Option<Vec<&'a str>> {
    let mut found = Vec::new();
    for symbol in symbols.chunks_exact(SYMBOL_BYTES) {
        if half(symbol, 6)? != 0 {
            continue;
        }
        let rest = names.get(usize::try_from(word(symbol, 0)?).ok()?..)?;
        let name = rest.split(|byte| *byte == 0).next()?;
        let name = std::str::from_utf8(name).ok()?;
        if name.starts_with(PREFIX) {
            found.push(name);
        }
    }
    Some(found)
}

fn content(bytes: &[u8], header: usize) -> Option<&[u8]> {
    let (offset, length) = (long(bytes, header + 24)?, long(bytes, header + 32)?);
    bytes.get(offset..offset.checked_add(length)?)
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

fn long(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(8)?)?;
    usize::try_from(u64::from_le_bytes(bytes.try_into().ok()?)).ok()
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
