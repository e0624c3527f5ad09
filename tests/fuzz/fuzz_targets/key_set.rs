//! Fuzzes the key sets that issuers publish; what must hold is in `mesh_policies::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(problem) = mesh_policies::fuzz::key_set(bytes) {
        panic!("{problem}");
    }
});
