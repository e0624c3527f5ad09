//! Keeps a device thread on one processor, where the system can.

/// Moves the calling thread to one of the processors that it may use: the one at `place`, counted around.
#[cfg(target_os = "linux")]
pub(crate) fn pin(place: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let pinned = sched_getaffinity(None).and_then(|allowed| {
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let count = usize::try_from(allowed.count()).unwrap_or(1).max(1);
        let mut one = CpuSet::new();
        if let Some(core) = cores.nth(place % count) {
            one.set(core);
        }
        sched_setaffinity(None, &one)
    });
    if let Err(error) = pinned {
        tracing::warn!(%error, "a device thread cannot be kept on one processor");
    }
}

/// Elsewhere threads go where the system puts them.
#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_: usize) {}

/// Whether so many threads get a processor each; more would share one while others idle.
pub(crate) fn suits(threads: usize) -> bool {
    std::thread::available_parallelism().is_ok_and(|cores| threads <= cores.get())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use rustix::thread::sched_getaffinity;

    use super::*;

    #[test]
    fn a_pinned_thread_may_use_one_processor_and_places_beyond_the_last_begin_anew() {
        let cores = std::thread::available_parallelism().unwrap().get();
        for place in [0, 1, cores, 10 * cores + 1] {
            let pinned = std::thread::spawn(move || {
                pin(place);
                sched_getaffinity(None).unwrap().count()
            });
            assert_eq!(pinned.join().unwrap(), 1, "place {place}");
        }
    }

    #[test]
    fn as_many_threads_as_processors_suit_and_one_more_does_not() {
        let cores = std::thread::available_parallelism().unwrap().get();
        assert!(suits(cores) && !suits(cores + 1));
    }
}
