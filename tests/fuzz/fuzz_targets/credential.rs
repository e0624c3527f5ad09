//! Fuzzes credentials: keys, and tokens with their headers and claims; what must hold is in `mesh_policies::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(problem) = mesh_policies::fuzz::credential(text) {
        panic!("{problem}");
    }
});
