//! How many wrong tokens of an address are checked.
//!
//! To check a token's signature costs far more than all else that is done for a request, and anybody can send a token; at most
//! [`MAX_TRIALS`](super::MAX_TRIALS) keys are tried on one, so a token is a fair measure of that. So what is not
//! remembered as checked takes one from the bucket (governor's GCRA, over the mesh's clock) of the address that it comes from before it
//! is checked, and gives it back where it turns out right. A gateway with a new token for each of its requests is therefore never
//! refused, and whoever sends forged ones costs a part of a core that does not grow with what it sends.
//!
//! Invariants: at most [`MAX_ADDRESSES`] are told apart, and beyond them all others share one bucket; a network of IPv6 counts as one
//! address, for one customer holds 2^64; a remembered token and an API key take nothing. From an address whose wrong tokens have used
//! all up, only what is not remembered waits, right ones too: whether one is right cannot be known without the cost that is bounded.
//! As it is taken first, no number of tokens at once is checked beyond the bound. What is given back is never more than was taken,
//! but may be one that time had given back meanwhile: a token's worth for each that is checked at that moment.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::Clock as _,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{StateStore, keyed::ShrinkableKeyedStateStore},
};
use mesh_types::Clock;
use parking_lot::Mutex;

/// The most addresses that are told apart at a time.
pub const MAX_ADDRESSES: usize = 16_384;
/// The most wrong tokens of one address that are checked at once.
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

/// The state of each address, as governor keeps it: when its bucket is full again. Governor's own maps give nothing back.
#[derive(Clone, Default)]
struct Cells(Arc<Mutex<HashMap<IpAddr, Nanos>>>);

impl StateStore for Cells {
    type Key = IpAddr;

    fn measure_and_replace<T, F, E>(&self, key: &IpAddr, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut cells = self.0.lock();
        let (outcome, full) = decide(cells.get(key).copied())?;
        cells.insert(*key, full);
        Ok(outcome)
    }
}

impl ShrinkableKeyedStateStore<IpAddr> for Cells {
    fn retain_recent(&self, drop_below: Nanos) {
        self.0.lock().retain(|_, full| *full >= drop_below);
    }

    fn len(&self) -> usize {
        self.0.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}

type Buckets = RateLimiter<IpAddr, Cells, GovernorClock, NoOpMiddleware<Instant>>;

/// Who has had how many wrong tokens checked.
pub struct Attempts {
    buckets: Buckets,
    cells: Cells,
    /// In what time a bucket gets one back.
    each: Nanos,
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

/// A token that may be checked. It counts as a wrong one unless it is given back.
#[derive(Debug)]
#[must_use = "what is not given back counts as a wrong token"]
pub struct Taken<'a> {
    attempts: &'a Attempts,
    address: IpAddr,
}

impl Taken<'_> {
    /// It was not a wrong one.
    pub fn give_back(self) {
        if let Some(full) = self.attempts.cells.0.lock().get_mut(&self.address) {
            *full = full.saturating_sub(self.attempts.each);
        }
    }
}

/// Where a token comes from, and what counts the wrong ones of there.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// What counts them.
    pub attempts: &'a Attempts,
    /// The other end of the connection.
    pub address: IpAddr,
    /// Whether the same request's credential is judged once more, and counts then. Even so none is checked beyond the bound.
    pub is_ahead: bool,
}

impl Attempts {
    /// Nobody has had one checked yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (clock, cells) = (GovernorClock(clock), Cells::default());
        let of = |number| NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(of(PER_SECOND)).allow_burst(of(BURST));
        Self {
            buckets: RateLimiter::new(quota, cells.clone(), clock.clone()),
            cells,
            each: quota.replenish_interval().into(),
            clock,
            swept: Mutex::new(None),
        }
    }

    /// Takes one for a token that is to be checked, or says after what time the next may be.
    pub fn take(&self, from: IpAddr) -> Result<Taken<'_>, Duration> {
        let mut address = network(from);
        if self.cells.len() >= MAX_ADDRESSES && !self.sweep() && !self.cells.0.lock().contains_key(&address) {
            address = OTHERS;
        }
        match self.buckets.check_key(&address) {
            Ok(()) => Ok(Taken {
                attempts: self,
                address,
            }),
            Err(refusal) => Err(refusal.wait_time_from(self.clock.now())),
        }
    }

    /// Forgets addresses whose buckets are full again, once a second at most; whether there is room then.
    fn sweep(&self) -> bool {
        let now = self.clock.now();
        let mut swept = self.swept.lock();
        if swept.is_none_or(|swept| now.saturating_duration_since(swept) >= Duration::from_secs(1)) {
            *swept = Some(now);
            self.buckets.retain_recent();
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

    /// Takes one and does not give it back.
    fn wrong(attempts: &Attempts, from: &str) -> Result<(), Duration> {
        attempts.take(from.parse().unwrap()).map(drop)
    }

    fn spend(attempts: &Attempts, from: &str) {
        for number in 0..BURST {
            assert_eq!(wrong(attempts, from), Ok(()), "{number}");
        }
    }

    const EACH: Duration = Duration::from_millis(1_000 / PER_SECOND as u64);

    #[test]
    fn as_many_as_the_burst_are_checked_and_one_more_waits_for_its_very_time() {
        let (attempts, clock) = attempts();
        spend(&attempts, "10.0.0.1");
        assert_eq!(wrong(&attempts, "10.0.0.1"), Err(EACH));
        assert_eq!(wrong(&attempts, "10.0.0.2"), Ok(()));
        *clock.1.lock() = EACH;
        assert_eq!(wrong(&attempts, "10.0.0.1"), Ok(()));
        assert_eq!(wrong(&attempts, "10.0.0.1"), Err(EACH));
    }

    #[test]
    fn what_is_given_back_leaves_everything_to_the_wrong_ones() {
        let (attempts, clock) = attempts();
        let from = "10.0.0.1".parse().unwrap();
        for round in 0..3 {
            *clock.1.lock() = round * Duration::from_secs(60);
            for _ in 0..2 * BURST {
                attempts.take(from).unwrap().give_back();
            }
            for _ in 0..BURST {
                attempts.take(from).unwrap().give_back();
                assert_eq!(wrong(&attempts, "10.0.0.1"), Ok(()));
            }
            assert_eq!(wrong(&attempts, "10.0.0.1"), Err(EACH));
        }
    }

    #[test]
    fn on_eight_threads_not_one_more_is_checked() {
        let (attempts, _) = attempts();
        let from = "10.0.0.1".parse().unwrap();
        let some = || {
            let passed = (0..BURST).filter(|number| match attempts.take(from) {
                // Every second one turns out right.
                Ok(taken) if number % 2 == 0 => {
                    taken.give_back();
                    false
                }
                Ok(_) => true,
                Err(_) => false,
            });
            passed.count()
        };
        let passed: usize = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(some)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        // A right one that is under way keeps its place, so one or the other wrong one is refused that would have had it.
        assert!((BURST as usize - 8..=BURST as usize).contains(&passed), "{passed}");
    }

    #[test]
    fn networks_of_ipv6_and_ways_to_write_ipv4_count_as_one() {
        let (attempts, _) = attempts();
        spend(&attempts, "2001:db8::1");
        assert!(wrong(&attempts, "2001:db8::ffff").is_err());
        assert!(wrong(&attempts, "2001:db8:0:1::1").is_ok());
        spend(&attempts, "::ffff:10.0.0.1");
        assert!(wrong(&attempts, "10.0.0.1").is_err());
    }

    #[test]
    fn so_many_addresses_are_told_apart_and_all_beyond_them_share_a_bucket() {
        let (attempts, clock) = attempts();
        let wrong = |number: usize| {
            let address = IpAddr::from(u32::try_from(number + 1).unwrap().to_be_bytes());
            attempts.take(address).map(drop)
        };
        for number in 0..MAX_ADDRESSES {
            assert!(wrong(number).is_ok());
        }
        for number in 0..BURST as usize {
            assert!(wrong(MAX_ADDRESSES + number).is_ok());
        }
        assert!(wrong(2 * MAX_ADDRESSES).is_err());
        assert_eq!(attempts.cells.len(), MAX_ADDRESSES + 1);
        assert!(wrong(0).is_ok(), "who is known keeps a bucket of its own");
        // Once theirs are full again, they are forgotten.
        *clock.1.lock() = Duration::from_secs(2);
        assert!(wrong(2 * MAX_ADDRESSES).is_ok());
        assert!(attempts.cells.len() < MAX_ADDRESSES);
    }
}
