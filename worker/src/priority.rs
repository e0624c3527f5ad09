//! How urgently a thread asks for a processor, where the system can tell threads apart.

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

/// Elsewhere loaders run as the system likes.
#[cfg(not(target_os = "linux"))]
pub(crate) fn lower(_: Urgency) {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

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
