//! Tasks that belong to somebody: all are told to end, and shutdown waits for them a bounded time.
//!
//! The only place that spawns; clippy bans the bare calls elsewhere, because a detached task outlives the drain.

use std::{future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};

/// A group of tasks. Clones are the same group.
#[derive(Debug, Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    ending: watch::Sender<bool>,
    running: Mutex<Vec<(&'static str, JoinHandle<()>)>>,
}

/// Tells a task that it should end.
#[derive(Debug, Clone)]
pub struct ShutdownSignal {
    ending: watch::Receiver<bool>,
}

impl ShutdownSignal {
    /// Returns once the group is ending.
    pub async fn ended(&mut self) {
        // An error means that the group is gone, which is the end as well.
        let _ = self.ending.wait_for(|ending| *ending).await;
    }

    /// Whether the group is ending.
    pub fn is_ended(&self) -> bool {
        *self.ending.borrow()
    }
}

impl Default for Tasks {
    fn default() -> Self {
        let inner = Inner {
            ending: watch::Sender::new(false),
            running: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }
}

impl Tasks {
    /// An empty group.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a future on the current tokio runtime; it should end soon after the signal does.
    pub fn spawn<F>(&self, name: &'static str, task: impl FnOnce(ShutdownSignal) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that spawns")]
        let handle = tokio::spawn(task(self.signal()));
        let mut running = self.inner.running.lock();
        running.retain(|(_, handle)| !handle.is_finished());
        running.push((name, handle));
    }

    /// The signal that this group is ending.
    pub fn signal(&self) -> ShutdownSignal {
        ShutdownSignal {
            ending: self.inner.ending.subscribe(),
        }
    }

    /// Tells every task to end and waits at most `grace`; what has not ended by then is aborted and named.
    pub async fn end(&self, grace: Duration) -> Vec<&'static str> {
        self.inner.ending.send_replace(true);
        let deadline = tokio::time::Instant::now() + grace;
        let running = std::mem::take(&mut *self.inner.running.lock());
        let mut late = Vec::new();
        for (name, mut handle) in running {
            if tokio::time::timeout_at(deadline, &mut handle).await.is_err() {
                handle.abort();
                late.push(name);
            }
        }
        late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn tasks_end_at_the_signal_and_the_deaf_are_named() {
        let tasks = Tasks::new();
        tasks.spawn("listens", |mut signal| async move { signal.ended().await });
        tasks.spawn("deaf", |_| std::future::pending());
        assert_eq!(tasks.end(Duration::from_secs(1)).await, ["deaf"]);
    }
}
