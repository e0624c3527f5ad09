//! Fuzzes the decoder of inference requests with a body of JSON and raw tensors; what must hold is in `mesh_protocol::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_protocol::fuzz::infer_binary(data) {
        panic!("{problem}");
    }
});
