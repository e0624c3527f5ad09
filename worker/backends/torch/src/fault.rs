//! libtorch's errors, cut down to what a caller can use.
//!
//! A C++ exception carries a stack of native frames and source paths; only the sentence that says what went wrong is kept.

use mesh_backend::BackendError;
use mesh_types::ModelConfig;
use tch::TchError;

use crate::module::{About, Failure};

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
    // "aoti_torch_f(a, b) API call failed at /path/file.cpp, line 1": what is called says more than with what and where.
    if let Some((expression, _)) = chosen.split_once(" API call failed at ") {
        let function = expression.split('(').next().unwrap_or(expression);
        return format!("{} failed", function.chars().take(MAX_SENTENCE).collect::<String>());
    }
    chosen.chars().take(MAX_SENTENCE).collect()
}

/// libtorch's words, cuBLAS's and C++'s.
const OUT_OF_MEMORY: [&str; 4] = [
    "out of memory",
    "can't allocate memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "std::bad_alloc",
];

fn is_out_of_memory(text: &str) -> bool {
    OUT_OF_MEMORY.iter().any(|words| text.contains(words))
}

/// An error of the bindings while a model runs.
pub(crate) fn execution(error: &TchError) -> BackendError {
    running(&Failure::of(error.to_string()))
}

fn running(failure: &Failure) -> BackendError {
    let said = sentence(&failure.text);
    if failure.about == About::Memory || is_out_of_memory(&failure.text) {
        BackendError::OutOfMemory(said)
    } else {
        BackendError::Execution(said)
    }
}

/// A call that failed.
pub(crate) fn call(failure: &Failure, config: &ModelConfig) -> BackendError {
    match failure.about {
        About::Input => BackendError::InvalidInput(failure.text.clone()),
        About::Output(output) => {
            let name = config.output.get(output).map_or("", |spec| &spec.name);
            BackendError::Output(format!("'{name}': {}", sentence(&failure.text)))
        }
        About::All | About::Memory => running(failure),
    }
}

/// A load that failed.
pub(crate) fn load(failure: &Failure) -> BackendError {
    let text = &failure.text;
    if failure.about == About::Memory || is_out_of_memory(text) {
        return BackendError::OutOfMemory(sentence(text));
    }
    if text.contains("PytorchStreamReader") || text.contains("zip archive") {
        return BackendError::Load("the file is not a TorchScript archive; write one with torch.jit.save".to_owned());
    }
    BackendError::Load(sentence(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_words_for_a_want_of_memory_are_understood() {
        let texts = [
            "CUDA out of memory. Tried to allocate 2.00 GiB",
            "[enforce fail at alloc_cpu.cpp:1] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes",
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
            "std::bad_alloc",
        ];
        let config = ModelConfig::default();
        for text in texts {
            let failure = Failure::of(text);
            assert!(
                matches!(call(&failure, &config), BackendError::OutOfMemory(_)),
                "{text}"
            );
            assert!(matches!(load(&failure), BackendError::OutOfMemory(_)), "{text}");
        }
        let told = Failure {
            about: About::Memory,
            ..Failure::of("run_func_(a) API call failed at /x.cpp, line 1")
        };
        assert_eq!(
            call(&told, &config),
            BackendError::OutOfMemory("run_func_ failed".to_owned())
        );
        let other = Failure::of("CUBLAS_STATUS_NOT_INITIALIZED");
        assert!(matches!(call(&other, &config), BackendError::Execution(_)));
    }

    #[test]
    fn what_a_caller_gave_wrongly_is_no_fault_of_the_model() {
        let failure = Failure::of_input("'x' has the shape [2], the package was compiled for [3]");
        let error = call(&failure, &ModelConfig::default());
        assert!(
            matches!(&error, BackendError::InvalidInput(text) if *text == failure.text),
            "{error}"
        );
    }
}
