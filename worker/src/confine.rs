//! What code of models may not do: a thread that loads or runs models is confined by the system before it does.
//!
//! A model's file is code. TorchScript opens files by itself (`torch.from_file`), and a compiled package is a library. Owns the rules
//! that threads of models live under on Linux: which files they read and write (Landlock), and which system calls they are refused
//! (seccomp). Both hold for the calling thread and for those that it starts, for good. A thread that runs models reads no model's file, and
//! one that loads reads that model's alone: so what a running thread has to load anew is loaded for it on another. No boundary in memory:
//! models share the process's, and code that writes there on purpose gets others to act for it. What it stops is what asks the system openly.
//!
//! Invariants: what is open stays open; a rule that the system does not know is left out, told once, and the others hold; a folder
//! is never opened up for a library's sake if what is private lies in it.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
};

#[cfg(target_os = "linux")]
#[path = "confine/linux.rs"]
mod system;

/// Elsewhere nothing is confined, and that is told.
#[cfg(not(target_os = "linux"))]
mod system {
    use super::{Confinement, Reach};

    pub(super) struct Rules;

    impl Rules {
        pub(super) fn new(_: &Confinement) -> (Self, Vec<String>) {
            (Self, vec!["threads can be confined on Linux only".to_owned()])
        }

        pub(super) fn enter(&self, _: Reach<'_>) -> Vec<String> {
            Vec::new()
        }
    }

    pub(super) fn knows_files() -> bool {
        false
    }
}

/// What threads of models may reach, beside the system's own libraries and those that are loaded already.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Confinement {
    /// The folder of all that is private: nothing in it is read but what is named here.
    pub private: PathBuf,
    /// Folders whose files all threads read. Models' files are not among them.
    pub readable: Vec<PathBuf>,
    /// Folders in which files are read, made, changed and removed.
    pub writable: Vec<PathBuf>,
}

/// What a thread may reach of files.
#[derive(Debug, Clone, Copy)]
pub enum Reach<'a> {
    /// All: a driver of devices opens files of its own while models run, and speaks to its services. Only system calls are refused.
    Driver,
    /// What all threads of models do, and this file of a model, where it is loaded.
    File(Option<&'a Path>),
}

impl Reach<'_> {
    /// What a thread reaches that runs models of its own processors.
    pub const RUN: Self = Reach::File(None);
}

type Work = Box<dyn FnOnce() + Send>;

/// Confines threads. Clones are the same.
#[derive(Clone)]
pub struct Cage {
    rules: Arc<system::Rules>,
    /// Has a thread started that is not confined yet, by one that never is.
    start: SyncSender<Work>,
}

impl std::fmt::Debug for Cage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cage").finish_non_exhaustive()
    }
}

impl Cage {
    /// Made once the libraries are loaded that run models. What the system does not know of it is told, here and once.
    ///
    /// Fails where there can be no thread.
    pub fn new(confinement: &Confinement) -> io::Result<Self> {
        let (rules, missing) = system::Rules::new(confinement);
        for missing in missing {
            tracing::warn!("code of models is not confined as it should be: {missing}");
        }
        // Whoever asks waits for what it asked for: there is nothing to queue. It ends with the last cage.
        let (start, asked) = sync_channel::<Work>(0);
        let open = move || {
            for work in asked {
                if let Err(error) = thread(work) {
                    tracing::error!(%error, "no thread to load a model on");
                }
            }
        };
        std::thread::Builder::new()
            .name("model-starter".to_owned())
            .spawn(open)?;
        let rules = Arc::new(rules);
        let cage = Self { rules, start };
        // Once, and not at the first load: it is the system that has to let it.
        if let Err(error) = cage.run(None, || ()) {
            tracing::error!("no model will be loaded: {error}");
        }
        Ok(cage)
    }

    /// Whether this system has rules for files at all. Without them threads read what the process may.
    pub fn knows_files() -> bool {
        system::knows_files()
    }

    /// Confines the calling thread for good; where that fails, no model may run on it.
    pub fn enter(&self, reach: Reach<'_>) -> io::Result<()> {
        let failed = self.rules.enter(reach);
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
    pub fn run<T: Send>(&self, file: Option<&Path>, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let confined = || self.enter(Reach::File(file)).map(|()| work());
            let thread = std::thread::Builder::new()
                .name("model-code".to_owned())
                .spawn_scoped(scope, confined)?;
            thread.join().map_err(|_| io::Error::other("it panicked"))?
        })
    }

    /// The same for a caller that is confined itself and may not read the file: the thread is not one of its own. A panic goes on here.
    pub fn run_apart<T: Send + 'static>(
        &self,
        file: Option<PathBuf>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let (tell, told) = sync_channel(1);
        let cage = self.clone();
        let confined = move || {
            let entered = cage.enter(Reach::File(file.as_deref()));
            // It holds what starts threads, and outlives no cage.
            drop(cage);
            let done = catch_unwind(AssertUnwindSafe(|| entered.map(|()| work())));
            // Whoever has asked waits.
            let _ = tell.send(done);
        };
        let gone = || io::Error::other("there is no thread to load it on");
        self.start.send(Box::new(confined)).map_err(|_| gone())?;
        let done = told.recv().map_err(|_| gone())?;
        done.unwrap_or_else(|panic| resume_unwind(panic))
    }
}

fn thread(work: Work) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("model-load".to_owned());
    thread.spawn(work).map(drop)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
#[path = "confine/tests.rs"]
mod tests;
