//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once.

use mesh_actors::Tasks;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell reports of a process that a second signal ended.
const ENDED_AT_ONCE: i32 = 130;

/// The two signals.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// From now on the signals are this program's own business. Must be called within a tokio runtime.
pub fn listen() -> std::io::Result<Signals> {
    Ok(Signals {
        terminate: signal(SignalKind::terminate())?,
        interrupt: signal(SignalKind::interrupt())?,
    })
}

impl Signals {
    /// Returns at the first signal.
    pub async fn first(&mut self) {
        let name = self.next().await;
        tracing::info!(signal = name, "ending; another signal ends at once");
    }

    /// From now on, the next signal ends the process without waiting for anything.
    pub fn end_at_the_next(mut self) {
        // Ends with the process: there is nobody to wait for it.
        Tasks::new().spawn("second signal", |_| async move {
            let name = self.next().await;
            tracing::warn!(signal = name, "ended at once by a second signal");
            std::process::exit(ENDED_AT_ONCE);
        });
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
