//! Fuzzes connections of HTTP/2, frame by frame; what must hold is in `mesh_wire::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_wire::fuzz::frames(data) {
        panic!("{problem}");
    }
});
