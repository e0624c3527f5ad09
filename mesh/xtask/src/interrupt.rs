//! The user's wish to stop: Ctrl-C or SIGTERM, told to everyone who waits.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context;

/// Shared by everyone who must stop.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    state: Arc<(Mutex<bool>, Condvar)>,
}

impl Interrupt {
    /// Listens for Ctrl-C and SIGTERM on a thread of its own, from now until the process ends.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let heard = interrupt.clone();
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("interrupt".into()).spawn(move || {
            runtime.block_on(async {
                let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate());
                let interrupt = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
                let (Ok(mut terminate), Ok(mut interrupt)) = (terminate, interrupt) else {
                    return;
                };
                // Nobody waits only if the command has failed meanwhile.
                let _ = ready.send(());
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
                heard.stop();
            });
        })?;
        is_ready.recv().context("cannot listen for Ctrl-C")?;
        Ok(interrupt)
    }

    /// Tells everyone to stop.
    pub(crate) fn stop(&self) {
        *self.state.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.state.1.notify_all();
    }

    /// Waits so long, or until told to stop; says whether to stop.
    pub(crate) fn wait(&self, duration: Duration) -> bool {
        let until = Instant::now() + duration;
        let mut stopped = self.state.0.lock().unwrap_or_else(PoisonError::into_inner);
        while !*stopped {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            stopped = self
                .state
                .1
                .wait_timeout(stopped, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_ends_every_wait_at_once_and_for_good() {
        let interrupt = Interrupt::default();
        assert!(!interrupt.wait(Duration::from_millis(1)));
        let other = interrupt.clone();
        let waiting = std::thread::spawn(move || other.wait(Duration::from_secs(600)));
        interrupt.stop();
        assert!(waiting.join().unwrap());
        assert!(interrupt.wait(Duration::from_secs(600)));
    }
}
