//! Fuzzes connections of HTTP/1.1, line by line; what must hold is in `mesh_wire::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_wire::fuzz::heads(data) {
        panic!("{problem}");
    }
});
