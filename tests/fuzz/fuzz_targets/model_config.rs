//! Fuzzes Triton's model configurations; what must hold is in `mesh_import::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(problem) = mesh_import::fuzz::model_config(text) {
        panic!("{problem}");
    }
});
