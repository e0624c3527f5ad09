//! Where the time of a request goes, stage by stage, until it is handed to a device.

use std::time::{Duration, Instant};

use mesh_types::Clock;

/// Time between stages.
pub(crate) struct Lap<'a> {
    clock: &'a dyn Clock,
    pub(crate) last: Instant,
}

impl<'a> Lap<'a> {
    pub(crate) fn start(clock: &'a dyn Clock) -> Self {
        Self {
            last: clock.now(),
            clock,
        }
    }

    /// How long the stage took that has just ended.
    pub(crate) fn next(&mut self) -> Duration {
        let now = self.clock.now();
        let lap = now.saturating_duration_since(self.last);
        self.last = now;
        lap
    }
}
