//! Against a driver that is compiled for the tests, whose devices' memory is in files: see `fake/driver.c`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use libloading::os::unix::Library;

use super::*;

/// The driver counts for the whole process.
static ALONE: Mutex<()> = Mutex::new(());

fn compiled(folder: &Path) -> PathBuf {
    let library = folder.join("libcuda.so.1");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/fake/driver.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .args([source, "-lpthread"])
        .status();
    assert!(compiled.unwrap().success());
    library
}

fn handle(path: &Path) -> [u8; 64] {
    let mut handle = [0; 64];
    let path = path.to_str().unwrap().as_bytes();
    assert!(path.len() < 64, "the path must fit a handle");
    handle[..path.len()].copy_from_slice(path);
    handle
}

/// Memory open and contexts held.
fn held(library: &Path) -> (c_int, c_int) {
    type Count = unsafe extern "C" fn() -> c_int;
    // SAFETY: the library is loaded, and these are its functions.
    unsafe {
        let library = Library::new(library).unwrap();
        let opened = library.get::<Count>(b"fake_opened").unwrap();
        let retained = library.get::<Count>(b"fake_retained").unwrap();
        (opened(), retained())
    }
}

#[test]
fn memory_of_another_process_is_read_written_and_closed() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let library = compiled(folder.path());
    let memory = CudaMemory::start(&library).unwrap();
    let file = folder.path().join("m");
    fs::write(&file, b"0123456789").unwrap();
    let open = memory.open(1, handle(&file)).unwrap();
    assert_eq!(open.size(), 10);
    let mut buffer = [0; 4];
    open.read(&mut buffer, 3).unwrap();
    assert_eq!(&buffer, b"3456");
    // The driver of the tests writes nothing before its stream is waited for.
    open.write(b"ab", 8).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"01234567ab");
    for (offset, count) in [(9, 2), (10, 1), (11, 0), (u64::MAX, 1)] {
        let error = open.read(&mut vec![0; count], offset).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{offset} {count}");
        assert!(open.write(&vec![0; count], offset).is_err());
    }
    let again = memory.open(1, handle(&file)).unwrap();
    again.write(b"X", 0).unwrap();
    open.read(&mut buffer[..1], 0).unwrap();
    assert_eq!(buffer[0], b'X', "the same memory");
    assert_eq!(held(&library), (2, 1), "a device has one context");
    drop(open);
    again.read(&mut buffer, 0).unwrap();
    drop(again);
    assert_eq!(held(&library), (0, 1), "which stays for the next");
    drop(memory);
    assert_eq!(held(&library), (0, 0));
}

#[test]
fn what_cannot_be_opened_or_copied_is_said_in_the_drivers_words() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let library = compiled(folder.path());
    let memory = CudaMemory::start(&library).unwrap();
    let error = memory.open(0, handle(&folder.path().join("none"))).unwrap_err();
    assert_eq!(error.to_string(), "cuIpcOpenMemHandle answers CUDA_ERROR_INVALID_VALUE");
    assert_eq!(memory.open(7, [0; 64]).unwrap_err(), CudaMemoryError::NoDevice(7));
    // What has a size that nobody tells would have no bound.
    let file = folder.path().join("unsized");
    fs::write(&file, b"0123").unwrap();
    let error = memory.open(0, handle(&file)).unwrap_err();
    assert!(error.to_string().contains("cuMemGetAddressRange"), "{error}");
    assert_eq!(held(&library).0, 0, "what was refused is closed");
}

#[test]
fn a_machine_without_the_driver_and_a_library_that_is_none_are_told_apart_from_nothing() {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    let missing = CudaMemory::start(&folder.path().join("libcuda.so.1")).unwrap_err();
    assert!(missing.to_string().contains("cannot be used"), "{missing}");
    let other = folder.path().join("other.so");
    let source = folder.path().join("other.c");
    fs::write(&source, "int cuInit(unsigned flags) { return flags; }").unwrap();
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&other)
        .arg(&source)
        .status();
    assert!(compiled.unwrap().success());
    let error = CudaMemory::start(&other).unwrap_err().to_string();
    assert!(error.contains("cuDeviceGetCount"), "{error}");
}
