//! Fuzzes what registers shared memory and changes settings; what must hold is in `mesh_protocol::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_protocol::fuzz::settings(data) {
        panic!("{problem}");
    }
});
