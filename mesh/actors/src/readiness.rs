//! What must be up before the mesh is ready. Each part registers a name and says when it is.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;

/// The set of names that are not ready yet. Empty is ready; a shutdown makes it never ready again.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeSet<&'static str>,
    ended: bool,
}

/// One part's promise; dropping it says that the part is ready.
#[derive(Debug)]
pub struct ReadinessGuard {
    state: Arc<Mutex<State>>,
    name: &'static str,
}

impl Readiness {
    /// The mesh is not ready until the guard is dropped.
    pub fn register(&self, name: &'static str) -> ReadinessGuard {
        self.state.lock().pending.insert(name);
        ReadinessGuard {
            state: self.state.clone(),
            name,
        }
    }

    /// Whether everything is up and nothing is ending.
    pub fn is_ready(&self) -> bool {
        let state = self.state.lock();
        state.pending.is_empty() && !state.ended
    }

    /// What is waited for.
    pub fn pending(&self) -> Vec<&'static str> {
        self.state.lock().pending.iter().copied().collect()
    }

    /// The mesh is ending: not ready, whatever comes.
    pub fn end(&self) {
        self.state.lock().ended = true;
    }
}

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        self.state.lock().pending.remove(self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_part_is_and_never_after_the_end() {
        let readiness = Readiness::default();
        let guard = readiness.register("models");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.pending(), ["models"]);
        drop(guard);
        assert!(readiness.is_ready());
        readiness.end();
        assert!(!readiness.is_ready());
    }
}
