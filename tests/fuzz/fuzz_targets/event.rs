//! Fuzzes CloudEvents whose body is the event; what must hold is in `mesh_protocol::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Err(problem) = mesh_protocol::fuzz::event(data) {
        panic!("{problem}");
    }
});
