//! How many tokens an address may have checked.
//!
//! To check a token's signature costs far more than all else that is done for a request, and anybody can send a token. So what is not
//! remembered as checked is counted by the address it comes from: a token bucket (governor's GCRA, over the mesh's clock) for each,
//! whether the token turns out to be right or not. A gateway in front of many callers has new tokens of many at once, so the bucket is
//! large; whoever sends forged ones costs a part of a core that does not grow with what it sends.
//!
//! Invariants: at most [`MAX_ADDRESSES`] are told apart, and beyond them all others share one bucket; a network of IPv6 counts as one
//! address, for one customer holds 2^64; a remembered token and an API key take nothing.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{Quota, RateLimiter, clock::Clock as _, middleware::NoOpMiddleware, state::keyed::HashMapStateStore};
use mesh_types::Clock;
use parking_lot::Mutex;

/// The most addresses that are told apart at a time.
pub const MAX_ADDRESSES: usize = 16_384;
/// The most tokens of one address that are checked at once.
pub const BURST: u32 = 1_000;
/// And so many a second for as long as one likes.
pub const PER_SECOND: u32 = 200;
/// What all share that are too many to be told apart.
const OTHERS: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The mesh's clock as governor asks it.
#[derive(Clone)]
struct GovernorClock(Arc<dyn Clock>);

impl governor::clock::Clock for GovernorClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.now()
    }
}

type Cells = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, GovernorClock, NoOpMiddleware<Instant>>;

/// Who has had how many tokens checked.
pub struct Attempts {
    cells: Cells,
    clock: GovernorClock,
    /// When the full ones were last thrown away.
    swept: Mutex<Option<Instant>>,
}

impl fmt::Debug for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempts")
            .field("addresses", &self.cells.len())
            .finish()
    }
}

impl Attempts {
    /// Nobody has had one checked yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let clock = GovernorClock(clock);
        let of = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(of(PER_SECOND)).allow_burst(of(BURST));
        Self {
            cells: RateLimiter::hashmap_with_clock(quota, clock.clone()),
            clock,
            swept: Mutex::new(None),
        }
    }

    /// Counts one, or says after what time the next is checked.
    pub fn take(&self, from: IpAddr) -> Result<(), Duration> {
        let mut address = network(from);
        if self.cells.len() >= MAX_ADDRESSES && !self.sweep() {
            address = OTHERS;
        }
        self.cells
            .check_key(&address)
            .map_err(|refusal| refusal.wait_time_from(self.clock.now()))
    }

    /// Forgets addresses whose buckets are full again, once a second at most; whether there is room then.
    fn sweep(&self) -> bool {
        let now = self.clock.now();
        let mut swept = self.swept.lock();
        if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= Duration::from_secs(1)) {
            *swept = Some(now);
            self.cells.retain_recent();
        }
        self.cells.len() < MAX_ADDRESSES
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & !u128::from(u64::MAX)).to_be_bytes()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that stands until it is set.
    struct Still(Instant, Mutex<Duration>);

    impl Clock for Still {
        fn now(&self) -> Instant {
            self.0 + *self.1.lock()
        }

        fn unix_seconds(&self) -> i64 {
            0
        }
    }

    fn attempts() -> (Attempts, Arc<Still>) {
        let clock = Arc::new(Still(Instant::now(), Mutex::new(Duration::ZERO)));
        (Attempts::new(clock.clone()), clock)
    }

    fn spend(attempts: &Attempts, from: &str) {
        let from: IpAddr = from.parse().unwrap();
        for number in 0..BURST {
            assert_eq!(attempts.take(from), Ok(()), "{number}");
        }
    }

    #[test]
    fn as_many_as_the_burst_are_checked_and_one_more_waits_for_its_very_time() {
        let (attempts, clock) = attempts();
        spend(&attempts, "10.0.0.1");
        let from = "10.0.0.1".parse().unwrap();
        let each = Duration::from_secs(1) / PER_SECOND;
        assert_eq!(attempts.take(from), Err(each));
        assert_eq!(attempts.take("10.0.0.2".parse().unwrap()), Ok(()));
        *clock.1.lock() = each;
        assert_eq!(attempts.take(from), Ok(()));
        assert_eq!(attempts.take(from), Err(each));
    }

    #[test]
    fn networks_of_ipv6_and_ways_to_write_ipv4_count_as_one() {
        let (attempts, _) = attempts();
        spend(&attempts, "2001:db8::1");
        assert!(attempts.take("2001:db8::ffff".parse().unwrap()).is_err());
        assert!(attempts.take("2001:db8:0:1::1".parse().unwrap()).is_ok());
        spend(&attempts, "::ffff:10.0.0.1");
        assert!(attempts.take("10.0.0.1".parse().unwrap()).is_err());
    }

    #[test]
    fn so_many_addresses_are_told_apart_and_all_beyond_them_share_a_bucket() {
        let (attempts, clock) = attempts();
        let address = |number: usize| IpAddr::from(u32::try_from(number + 1).unwrap().to_be_bytes());
        for number in 0..MAX_ADDRESSES {
            assert!(attempts.take(address(number)).is_ok());
        }
        for number in 0..BURST as usize {
            assert!(attempts.take(address(MAX_ADDRESSES + number)).is_ok());
        }
        assert!(attempts.take(address(2 * MAX_ADDRESSES)).is_err());
        assert_eq!(attempts.cells.len(), MAX_ADDRESSES + 1);
        // Once theirs are full again, they are forgotten.
        *clock.1.lock() = Duration::from_secs(2);
        assert!(attempts.take(address(2 * MAX_ADDRESSES)).is_ok());
        assert!(attempts.cells.len() < MAX_ADDRESSES);
    }
}
