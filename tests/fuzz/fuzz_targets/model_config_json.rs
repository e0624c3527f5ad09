//! Fuzzes Triton's model configurations in JSON; what must hold is in `mesh_import::fuzz`.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(problem) = mesh_import::fuzz::model_config_json(text) {
        panic!("{problem}");
    }
});
