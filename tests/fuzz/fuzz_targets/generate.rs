//! Fuzzes the decoder of generate requests; what must hold is in `mesh_protocol::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_protocol::fuzz::generate(data) {
        panic!("{problem}");
    }
});
