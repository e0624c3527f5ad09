//! Fuzzes the decoder of inference requests with a body that is all JSON; what must hold is in `mesh_protocol::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_protocol::fuzz::infer_json(data) {
        panic!("{problem}");
    }
});
