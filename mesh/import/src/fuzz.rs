//! The bodies of this crate's fuzz targets, here so that ordinary tests run them too. Not for use by the mesh.

use crate::{MAX_NOTES, read_config, read_config_json, text::Message};

/// A `config.pbtxt`: read or refused with a line that it has; what there is to be said of it is bounded.
pub fn model_config(text: &str) -> Result<(), String> {
    if let Err(error) = Message::parse(text) {
        let lines = text.split('\n').count();
        if !(1..=lines).contains(&(error.line as usize)) {
            return Err(format!("a line outside: {error}"));
        }
    }
    bounded(read_config(text))
}

/// A configuration in JSON: what there is to be said of it is bounded.
pub fn model_config_json(text: &str) -> Result<(), String> {
    bounded(read_config_json(text))
}

fn bounded(notes: usize) -> Result<(), String> {
    let bounded = notes <= MAX_NOTES + 1;
    bounded.then_some(()).ok_or_else(|| format!("{notes} notes"))
}
