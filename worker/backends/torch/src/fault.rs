//! libtorch's errors, cut down to what a caller can use.
//!
//! A C++ exception carries a stack of native frames and source paths; only the sentence that says what went wrong is kept.

use mesh_backend::BackendError;
use tch::TchError;

/// The longest sentence kept, in characters.
const MAX_SENTENCE: usize = 300;

/// The sentence that says what went wrong.
fn sentence(error: &TchError) -> String {
    let text = error.to_string();
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let names_an_error = |line: &&str| {
        let head = line.split(':').next().unwrap_or_default();
        head.ends_with("Error") && !head.contains(' ')
    };
    // TorchScript puts the Python-like error last; libtorch's own errors say it first.
    let chosen = lines()
        .rfind(names_an_error)
        .or_else(|| lines().find(|line| !line.starts_with("The following operation failed")));
    let chosen = chosen.unwrap_or("unknown libtorch error");
    // "Exception raised from f at /path/file.cpp:1" may share the line.
    let chosen = chosen.split("Exception raised from").next().unwrap_or(chosen).trim();
    chosen.chars().take(MAX_SENTENCE).collect()
}

fn is_out_of_memory(text: &str) -> bool {
    text.contains("out of memory") || text.contains("can't allocate memory")
}

/// An error while a model runs.
pub(crate) fn execution(error: &TchError) -> BackendError {
    let text = sentence(error);
    if is_out_of_memory(&error.to_string()) {
        BackendError::OutOfMemory(text)
    } else {
        BackendError::Execution(text)
    }
}

/// An error while a model loads.
pub(crate) fn load(error: &TchError) -> BackendError {
    let text = sentence(error);
    if is_out_of_memory(&error.to_string()) {
        return BackendError::OutOfMemory(text);
    }
    if text.contains("PytorchStreamReader") || text.contains("zip archive") {
        return BackendError::Load("the file is not a TorchScript archive; write one with torch.jit.save".to_owned());
    }
    BackendError::Load(text)
}
