//! Fuzzes what has models loaded and unloaded; what must hold is in `mesh_protocol::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_protocol::fuzz::load(data) {
        panic!("{problem}");
    }
});
