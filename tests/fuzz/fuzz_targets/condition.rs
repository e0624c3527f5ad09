//! Fuzzes conditions of graphs; what must hold is in `mesh_policies::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(problem) = mesh_policies::fuzz::condition(text) {
        panic!("{problem}");
    }
});
