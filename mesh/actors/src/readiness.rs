//! What must be up before the mesh is ready. Each part registers a name and says when it is.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

/// The set of names that are not ready yet. Empty is ready; a shutdown makes it never ready again.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug, Default)]
struct State {
    pending: BTreeSet<&'static str>,
    ended: bool,
}

impl State {
    fn is_ready(&self) -> bool {
        self.pending.is_empty() && !self.ended
    }
}

/// Follows whether everything is up.
#[derive(Debug)]
pub struct ReadinessWatch {
    state: watch::Receiver<State>,
    told: Option<bool>,
}

impl ReadinessWatch {
    /// Whether everything is up, once that is other than what was told before; none once nobody can change it any more.
    pub async fn next(&mut self) -> Option<bool> {
        let told = self.told;
        let other = self.state.wait_for(|state| Some(state.is_ready()) != told).await;
        let ready = other.ok()?.is_ready();
        self.told = Some(ready);
        Some(ready)
    }
}

/// One part's promise; dropping it says that the part is ready.
#[derive(Debug)]
pub struct ReadinessGuard {
    state: Arc<watch::Sender<State>>,
    name: &'static str,
}

impl Readiness {
    /// The mesh is not ready until the guard is dropped.
    pub fn register(&self, name: &'static str) -> ReadinessGuard {
        self.state.send_if_modified(|state| state.pending.insert(name));
        ReadinessGuard {
            state: self.state.clone(),
            name,
        }
    }

    /// Whether everything is up and nothing is ending.
    pub fn is_ready(&self) -> bool {
        self.state.borrow().is_ready()
    }

    /// Told of each change between ready and not ready; the first answer is what is so now.
    pub fn follow(&self) -> ReadinessWatch {
        ReadinessWatch {
            state: self.state.subscribe(),
            told: None,
        }
    }

    /// What is waited for.
    pub fn pending(&self) -> Vec<&'static str> {
        self.state.borrow().pending.iter().copied().collect()
    }

    /// The mesh is ending: not ready, whatever comes.
    pub fn end(&self) {
        self.state.send_modify(|state| state.ended = true);
    }
}

impl Drop for ReadinessGuard {
    fn drop(&mut self) {
        self.state.send_if_modified(|state| state.pending.remove(self.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_follows_is_told_of_each_change_once() {
        let readiness = Readiness::default();
        let mut follow = readiness.follow();
        assert_eq!(follow.next().await, Some(true));
        let guards = (readiness.register("models"), readiness.register("doors"));
        assert_eq!(follow.next().await, Some(false));
        drop(guards);
        assert_eq!(follow.next().await, Some(true));
        readiness.end();
        assert_eq!(follow.next().await, Some(false));
        drop(readiness);
        assert_eq!(follow.next().await, None);
    }

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
