//! Fuzzes Triton's model configurations: any text is read or refused with a line that it has, and what is read is gone through.
#![no_main]

use mesh_import::{MAX_NOTES, read_config, text::Message};

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Err(error) = Message::parse(text) {
        let lines = text.split('\n').count();
        assert!((1..=lines).contains(&(error.line as usize)), "{error}");
    }
    assert!(read_config(text) <= MAX_NOTES + 1);
});
