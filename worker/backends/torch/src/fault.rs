//! libtorch's errors, cut down to what a caller can use.
//!
//! A C++ exception carries a stack of native frames and source paths; only the sentence that says what went wrong is kept.

use mesh_backend::BackendError;
use mesh_types::ModelConfig;
use tch::TchError;

use crate::module::Failure;

/// The longest sentence kept, in characters.
const MAX_SENTENCE: usize = 300;

/// The sentence that says what went wrong.
pub(crate) fn sentence(text: &str) -> String {
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

/// An error of the bindings while a model runs.
pub(crate) fn execution(error: &TchError) -> BackendError {
    running(&error.to_string())
}

fn running(text: &str) -> BackendError {
    let said = sentence(text);
    if is_out_of_memory(text) {
        BackendError::OutOfMemory(said)
    } else {
        BackendError::Execution(said)
    }
}

/// A call that failed.
pub(crate) fn call(failure: &Failure, config: &ModelConfig) -> BackendError {
    match failure.output.and_then(|output| config.output.get(output)) {
        Some(spec) => BackendError::Output(format!("'{}': {}", spec.name, sentence(&failure.text))),
        None => running(&failure.text),
    }
}

/// A load that failed.
pub(crate) fn load(failure: &Failure) -> BackendError {
    let text = &failure.text;
    if is_out_of_memory(text) {
        return BackendError::OutOfMemory(sentence(text));
    }
    if text.contains("PytorchStreamReader") || text.contains("zip archive") {
        return BackendError::Load("the file is not a TorchScript archive; write one with torch.jit.save".to_owned());
    }
    BackendError::Load(sentence(text))
}
