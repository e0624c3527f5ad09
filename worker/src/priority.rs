//! How urgently a thread asks for a processor, where the system can tell threads apart.
//!
//! A loader that nobody waits for leaves processors to all others where some time is idle, so that what serves never waits for it, and
//! takes a small part of them by its number (nice) where none is, so that loads come to an end under any traffic. Which of the two is
//! asked anew for each part of a load ([`finds_time`]). One that requests wait for has its part by number always: what is idle now may not
//! be in a moment, and who has given way cannot take it back.

use std::time::Duration;
#[cfg(target_os = "linux")]
use std::{sync::mpsc, time::Instant};

/// For what a thread works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// Requests wait for it: it gives way to what runs already, but not far.
    Awaited,
    /// Nobody waits.
    Background,
}

/// Lowers the calling thread's priority.
#[cfg(target_os = "linux")]
pub(crate) fn lower(urgency: Urgency) {
    // A thread of a busy processor gets about a quarter, or a tenth, of it beside one that has not lowered itself.
    let nice = match urgency {
        Urgency::Awaited => 5,
        Urgency::Background => 10,
    };
    // On Linux the "process" of no number is the calling thread.
    let lowered = rustix::process::getpriority_process(None)
        .and_then(|now| rustix::process::setpriority_process(None, (now + nice).min(19)));
    if let Err(error) = lowered {
        tracing::warn!(%error, "a loader's priority cannot be lowered");
    }
}

/// What a probe runs for.
const PROBE: Duration = Duration::from_millis(2);

/// The part of a processor that a thread must find idle to do with what is idle: about what it gets in a busy one otherwise.
const IDLE_PART: u32 = 10;

/// Whether a thread would find time now if it left processors to all others: one that does, and ends at once, is tried. Who has given
/// way cannot take it back, so it must not begin where everything is busy, or it would wait for as long as that lasts.
#[cfg(target_os = "linux")]
pub(crate) fn finds_time(urgency: Urgency, give_way: impl FnOnce() -> bool + Send + 'static) -> bool {
    if urgency == Urgency::Awaited {
        return false;
    }
    let patience = PROBE.saturating_mul(IDLE_PART);
    let (told, answer) = mpsc::channel();
    let probe = move || {
        // Nobody listens any more where it took too long.
        let _ = told.send(give_way() && ran_for(PROBE, patience));
    };
    // Left alone where it gets no time: it ends with its first moment.
    let started = std::thread::Builder::new().name("probe".to_owned()).spawn(probe);
    started.is_ok() && answer.recv_timeout(patience).unwrap_or(false)
}

/// Keeps a processor busy until the thread has had so much time, or patience is over.
#[cfg(target_os = "linux")]
fn ran_for(time: Duration, patience: Duration) -> bool {
    let (began, had) = (Instant::now(), thread_time());
    loop {
        if thread_time().saturating_sub(had) >= time {
            return true;
        }
        if began.elapsed() >= patience {
            return false;
        }
        std::hint::spin_loop();
    }
}

#[cfg(target_os = "linux")]
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or_default(), nanoseconds.unwrap_or_default())
}

/// Elsewhere no thread gives way.
#[cfg(not(target_os = "linux"))]
pub(crate) fn finds_time(_: Urgency, _: impl FnOnce() -> bool + Send + 'static) -> bool {
    false
}

/// Elsewhere loaders run as the system likes.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lower(_: Urgency) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_gets_no_time_does_not_give_way_and_one_that_may_not_give_way_either() {
        assert!(!finds_time(Urgency::Background, || false));
        assert!(!finds_time(Urgency::Awaited, || unreachable!("it is not asked")));
        let began = Instant::now();
        let (held, hold) = mpsc::channel::<()>();
        // Like a thread that the system keeps waiting.
        assert!(!finds_time(Urgency::Background, move || hold.recv().is_err()));
        assert!(began.elapsed() >= PROBE * IDLE_PART);
        drop(held);
        assert!(ran_for(Duration::from_millis(1), Duration::from_secs(60)));
        assert!(!ran_for(Duration::from_secs(60), Duration::from_millis(1)));
    }

    #[test]
    fn only_the_calling_thread_is_lowered() {
        let of = || rustix::process::getpriority_process(None).unwrap();
        let before = of();
        for (urgency, by) in [(Urgency::Awaited, 5), (Urgency::Background, 10)] {
            let lowered = std::thread::spawn(move || {
                lower(urgency);
                of()
            });
            assert_eq!(lowered.join().unwrap(), (before + by).min(19));
        }
        assert_eq!(of(), before);
    }
}
