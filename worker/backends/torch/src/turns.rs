//! How long a thread that runs models keeps its processor while others wait for it.
//!
//! A model's execution takes milliseconds; a door, the router and a device's actor need a processor for microseconds, but several times
//! for each request. Linux's scheduler lets a thread that wakes up go before the one that runs only where it asks for shorter turns
//! (EEVDF, `sched_attr::sched_runtime`, Linux 6.12): with turns as everybody has, each of a request's steps waits for a good part of
//! one behind a device thread, and a refusal takes milliseconds. So threads that run or load models ask for longer turns than others:
//! they get as much of the processor as before, in fewer pieces, and everybody else goes first when they have something to do.

use std::time::Duration;

// SAFETY: the signatures are those of shim/turns.cpp, compiled with this crate; neither throws.
unsafe extern "C" {
    fn mesh_torch_ask_for_turns(nanoseconds: u64);
    #[cfg(test)]
    fn mesh_torch_turns() -> u64;
}

/// Longer than the turns that Linux gives by itself on any machine (3 ms), and within what it grants (0.1 to 100 ms).
pub(crate) const TURN: Duration = Duration::from_millis(10);

/// Asks for long turns for the calling thread, where the system has such a thing.
pub(crate) fn ask_for_long_ones() {
    let nanoseconds = u64::try_from(TURN.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: takes a number, and changes nothing but how the calling thread is scheduled.
    unsafe { mesh_torch_ask_for_turns(nanoseconds) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{TorchBackend, TorchOptions};
    use mesh_backend::Backend as _;

    fn turns() -> Duration {
        // SAFETY: takes nothing.
        Duration::from_nanos(unsafe { mesh_torch_turns() })
    }

    #[test]
    fn a_thread_that_runs_models_has_long_turns_and_no_other() {
        let before = turns();
        let backend = TorchBackend::new(TorchOptions::default());
        let entered = std::thread::spawn(move || {
            backend.enter_thread();
            turns()
        });
        let entered = entered.join().unwrap();
        // A system that knows no such turns tells of none.
        if !before.is_zero() {
            assert_eq!(entered, TURN);
            assert!(before < TURN, "{before:?}");
        }
        assert_eq!(turns(), before);
    }
}
