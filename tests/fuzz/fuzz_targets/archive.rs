//! Fuzzes models' files that may be archives; what must hold is in `mesh_resources::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_resources::fuzz::archive(data) {
        panic!("{problem}");
    }
});
