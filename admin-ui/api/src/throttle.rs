//! Attempts to sign in, counted per address: a few per minute, and a bounded memory of who tried.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

/// Attempts in a window without a success.
pub(crate) const MAX_ATTEMPTS: u32 = 10;
/// Addresses that are remembered; one more forgets the oldest window.
pub(crate) const MAX_ADDRESSES: usize = 1_000;
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Window {
    start: Instant,
    attempts: u32,
}

/// Who tried how often.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    windows: Mutex<HashMap<IpAddr, Window>>,
}

/// One IPv6 customer holds 2^64 addresses, so those are counted by their network.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & !u128::from(u64::MAX)).to_be_bytes()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

impl Throttle {
    /// Counts an attempt, or says how long to wait.
    pub(crate) fn attempt(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut windows = self.windows.lock();
        let address = network(address);
        let fresh = Window {
            start: now,
            attempts: 0,
        };
        let age = |window: &Window| now.saturating_duration_since(window.start);
        if !windows.contains_key(&address) && windows.len() >= MAX_ADDRESSES {
            windows.retain(|_, window| age(window) < WINDOW);
            let oldest = windows
                .iter()
                .min_by_key(|(_, window)| window.start)
                .map(|(address, _)| *address);
            if let Some(oldest) = oldest.filter(|_| windows.len() >= MAX_ADDRESSES) {
                windows.remove(&oldest);
            }
        }
        let window = windows.entry(address).or_insert(fresh);
        if age(window) >= WINDOW {
            *window = fresh;
        }
        if window.attempts >= MAX_ATTEMPTS {
            return Err(WINDOW.saturating_sub(age(window)));
        }
        window.attempts += 1;
        Ok(())
    }

    /// The attempt was right: its address starts anew.
    pub(crate) fn succeeded(&self, address: IpAddr) {
        self.windows.lock().remove(&network(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_attempts_pass_and_the_next_waits_for_the_window() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        let address = IpAddr::from([10, 0, 0, 1]);
        for _ in 0..MAX_ATTEMPTS {
            assert_eq!(throttle.attempt(address, now), Ok(()));
        }
        let later = now + Duration::from_secs(20);
        assert_eq!(throttle.attempt(address, later), Err(Duration::from_secs(40)));
        assert_eq!(throttle.attempt(IpAddr::from([10, 0, 0, 2]), later), Ok(()));
        assert_eq!(throttle.attempt(address, now + WINDOW), Ok(()));
        throttle.succeeded(address);
        assert_eq!(throttle.windows.lock().len(), 1);
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for host in 0..MAX_ATTEMPTS {
            let address = format!("2001:db8::{host:x}").parse().unwrap();
            assert_eq!(throttle.attempt(address, now), Ok(()));
        }
        assert!(throttle.attempt("2001:db8::ffff".parse().unwrap(), now).is_err());
        assert!(throttle.attempt("2001:db8:0:1::1".parse().unwrap(), now).is_ok());
    }

    #[test]
    fn the_bound_of_addresses_holds() {
        let (throttle, now) = (Throttle::default(), Instant::now());
        for number in 0..=u32::try_from(MAX_ADDRESSES).unwrap() {
            let _ = throttle.attempt(
                IpAddr::from(number.to_be_bytes()),
                now + Duration::from_millis(number.into()),
            );
            assert!(throttle.windows.lock().len() <= MAX_ADDRESSES);
        }
        assert!(!throttle.windows.lock().contains_key(&IpAddr::from([0, 0, 0, 0])));
    }
}
