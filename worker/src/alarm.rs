//! An alarm clock for one device: wakes its actor at an instant, to within some tens of microseconds.
//!
//! The runtime's timers tick in milliseconds, and a model's `max_queue_delay` may be a tenth of one. So each device has a thread
//! that does nothing but sleep until the next alarm. It holds one alarm, the earliest; an actor that is woken sets the next.

use std::{
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};

#[derive(Debug, Default)]
struct State {
    /// When it rings; none while it is not set.
    at: Option<Instant>,
    ended: bool,
}

#[derive(Debug, Default)]
struct Clock {
    state: Mutex<State>,
    changed: Condvar,
}

/// The clock; dropping it ends its thread.
#[derive(Debug)]
pub(crate) struct AlarmClock {
    clock: Arc<Clock>,
    thread: Option<JoinHandle<()>>,
}

impl AlarmClock {
    /// A clock that does this when it rings.
    pub(crate) fn start(name: String, rung: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let clock = Arc::new(Clock::default());
        let own = clock.clone();
        let thread = std::thread::Builder::new().name(name).spawn(move || run(&own, rung))?;
        Ok(Self {
            clock,
            thread: Some(thread),
        })
    }

    /// Rings after this long, unless it is set to ring before that.
    pub(crate) fn set(&self, wait: Duration) {
        let now = Instant::now();
        let at = now.checked_add(wait).unwrap_or(now + Duration::from_secs(86_400));
        let mut state = self.clock.state.lock();
        if state.at.is_none_or(|known| at < known) {
            state.at = Some(at);
            self.clock.changed.notify_one();
        }
    }
}

fn run(clock: &Clock, rung: impl Fn()) {
    let mut state = clock.state.lock();
    while !state.ended {
        match state.at {
            None => clock.changed.wait(&mut state),
            Some(at) if at > Instant::now() => drop(clock.changed.wait_until(&mut state, at)),
            Some(_) => {
                state.at = None;
                MutexGuard::unlocked(&mut state, &rung);
            }
        }
    }
}

impl Drop for AlarmClock {
    fn drop(&mut self) {
        self.clock.state.lock().ended = true;
        self.clock.changed.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a device's alarm clock ended by a panic");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn it_rings_once_for_the_earliest_and_never_early() {
        let (rung, heard) = mpsc::channel();
        let alarm = AlarmClock::start("alarm".to_owned(), move || {
            let _ = rung.send(Instant::now());
        })
        .unwrap();
        alarm.set(Duration::from_secs(3_600));
        let set = Instant::now();
        alarm.set(Duration::from_millis(5));
        alarm.set(Duration::from_secs(60));
        let at = heard.recv_timeout(Duration::from_secs(30)).unwrap();
        assert!(at >= set + Duration::from_millis(5));
        assert!(heard.try_recv().is_err());
        // Its thread ends with it, though an alarm is set.
        alarm.set(Duration::from_secs(3_600));
        drop(alarm);
        assert!(heard.recv().is_err());
    }

    #[test]
    fn one_that_is_set_whenever_it_has_rung_never_stays_silent() {
        let (rung, heard) = mpsc::channel();
        let alarm = AlarmClock::start("alarm".to_owned(), move || {
            let _ = rung.send(());
        })
        .unwrap();
        for turn in 0..2_000 {
            // As a device does: at each turn for what comes next, whatever is set already.
            alarm.set(Duration::from_micros(turn % 50));
            alarm.set(Duration::from_micros(200));
            heard.recv_timeout(Duration::from_secs(30)).unwrap();
        }
    }
}
