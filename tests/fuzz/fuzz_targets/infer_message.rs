//! Fuzzes the decoder of inference requests over gRPC; what must hold is in `mesh_protocol::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_protocol::fuzz::infer_message(data) {
        panic!("{problem}");
    }
});
