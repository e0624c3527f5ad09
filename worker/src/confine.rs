//! What code of models may not do: a thread that loads or runs models is confined by the system before it does.
//!
//! A model's file is code. TorchScript opens files by itself (`torch.from_file`), and a compiled package is a library. Owns the rules
//! that threads of models live under on Linux: which files they read and write (Landlock), and which system calls they are refused
//! (seccomp). Both hold for the calling thread and for those that it starts, for good. No boundary between models: they share the
//! process's memory, and code that writes there on purpose gets others to act for it. What it stops is what asks the system openly.
//!
//! Invariants: what is open stays open; a rule that the system does not know is left out, told once, and the others hold; a folder
//! is never opened up for a library's sake if what is private lies in it.

use std::{io, path::PathBuf, sync::Arc};

#[cfg(target_os = "linux")]
#[path = "confine/linux.rs"]
mod system;

/// Elsewhere nothing is confined, and that is told.
#[cfg(not(target_os = "linux"))]
mod system {
    use super::Confinement;

    pub(super) struct Rules;

    impl Rules {
        pub(super) fn new(_: &Confinement) -> (Self, Vec<String>) {
            (Self, vec!["threads can be confined on Linux only".to_owned()])
        }

        pub(super) fn enter(&self, _: bool) -> Vec<String> {
            Vec::new()
        }
    }
}

/// What threads of models may reach, beside the system's own libraries and those that are loaded already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The folder of all that is private: nothing in it is read but what is named here.
    pub private: PathBuf,
    /// Folders whose files are read.
    pub readable: Vec<PathBuf>,
    /// Folders in which files are read, made, changed and removed.
    pub writable: Vec<PathBuf>,
}

/// Confines threads. Clones are the same.
#[derive(Clone)]
pub struct Cage {
    rules: Arc<system::Rules>,
}

impl std::fmt::Debug for Cage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cage").finish_non_exhaustive()
    }
}

impl Cage {
    /// Made once the libraries are loaded that run models. What the system does not know of it is told, here and once.
    pub fn new(confinement: &Confinement) -> Self {
        let (rules, missing) = system::Rules::new(confinement);
        for missing in missing {
            tracing::warn!("code of models is not confined as it should be: {missing}");
        }
        Self { rules: Arc::new(rules) }
    }

    /// Confines the calling thread for good; where that fails, no model may run on it. A driver of devices opens files of its own while
    /// models run, and speaks to its services: with one, `files` is false and only system calls are refused.
    pub fn enter(&self, files: bool) -> io::Result<()> {
        let failed = self.rules.enter(files);
        if failed.is_empty() {
            return Ok(());
        }
        let text = format!(
            "a thread of models cannot be confined ({}): let the system allow it, or start the mesh with --unconfined-models",
            failed.join("; ")
        );
        Err(io::Error::other(text))
    }

    /// Runs this on a thread of its own that is confined, and waits for it. An error if there can be no such thread, or if it panicked.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let confined = || self.enter(true).map(|()| work());
            let thread = std::thread::Builder::new()
                .name("model-code".to_owned())
                .spawn_scoped(scope, confined)?;
            thread.join().map_err(|_| io::Error::other("it panicked"))?
        })
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[path = "confine/tests.rs"]
mod tests;
