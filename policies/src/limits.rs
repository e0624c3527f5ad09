//! Limits: how much a tenant may ask for, by rate and by requests at once.
//!
//! Owns the counters, in one [`Limiter`] that all routers share and that outlives snapshots; the limits themselves come with
//! each call from the snapshot. Knows nothing of queues or devices. The rate is governor's GCRA over the mesh's clock: a
//! sustained rate, a burst, and the exact wait until the next request fits.
//!
//! Invariants: a snapshot that leaves a limit alone leaves its bucket alone; a changed limit takes over the share that was
//! left, so no change refills a spent bucket; what is admitted is given back when its [`Admission`] drops, and a refusal
//! holds nothing; at most [`MAX_TENANTS`] tenants are tracked.

use std::{
    collections::HashMap,
    fmt,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use mesh_types::{Clock, Fault, FaultClass, FaultSource, Retry, TenantId};
use parking_lot::RwLock;

/// Tenants with counters at any time.
pub const MAX_TENANTS: usize = 100_000;

/// When to come back after too many requests at once: nobody knows when one ends, so soon but not at once.
pub const CONCURRENCY_RETRY: Duration = Duration::from_millis(100);

/// The rule of [`LimitError`] for requests a second.
pub const REQUESTS: &str = "requests";
/// The rule of [`LimitError`] for requests at once.
pub const CONCURRENCY: &str = "concurrency";
const TENANTS: &str = "tenants";

/// A tenant's limits; none is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TenantLimits {
    /// Requests a second.
    pub requests: Option<Rate>,
    /// Requests at once.
    pub concurrency: Option<u32>,
}

/// So many a second, and so many at once after a pause. Zero counts as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Sustained.
    pub per_second: u32,
    /// At once.
    pub burst: u32,
}

/// A limit that is used up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the limit '{rule}' of {limit}{} is reached: try again in {} ms", unit(rule), millis(*.retry_after))]
pub struct LimitError {
    /// Which rule: [`REQUESTS`] or [`CONCURRENCY`].
    pub rule: &'static str,
    /// Its bound.
    pub limit: u32,
    /// When the next request would fit.
    pub retry_after: Duration,
}

fn unit(rule: &str) -> &'static str {
    if rule == REQUESTS { " a second" } else { "" }
}

/// Rounded up, so that who waits as long as told is let in.
fn millis(wait: Duration) -> u128 {
    wait.as_nanos().div_ceil(1_000_000)
}

impl From<LimitError> for Fault {
    fn from(error: LimitError) -> Self {
        if error.rule == TENANTS {
            return Self::unavailable(FaultSource::Mesh, "too many tenants at once: try again")
                .with_retry(Retry::After(error.retry_after));
        }
        Self::new(FaultClass::RateLimited, FaultSource::TenantLimit, error.to_string())
            .with_retry(Retry::After(error.retry_after))
    }
}

/// The mesh's clock as governor asks it.
#[derive(Clone)]
struct GovernorClock(Arc<dyn Clock>);

impl governor::clock::Clock for GovernorClock {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.now()
    }
}

/// One tenant's token bucket.
struct Bucket {
    rate: Rate,
    cells: RateLimiter<NotKeyed, InMemoryState, GovernorClock, NoOpMiddleware<Instant>>,
}

fn at_least_one(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

impl Bucket {
    fn full(rate: Rate, clock: &GovernorClock) -> Self {
        let quota = Quota::per_second(at_least_one(rate.per_second)).allow_burst(at_least_one(rate.burst));
        Self {
            rate,
            cells: RateLimiter::direct_with_clock(quota, clock.clone()),
        }
    }

    /// A bucket for a changed rate, filled to the share that the former one had left.
    fn after(former: Self, rate: Rate, clock: &GovernorClock) -> Self {
        let former_burst = u64::from(at_least_one(former.rate.burst).get());
        let burst = at_least_one(rate.burst).get();
        let left = u64::from(former.drain()) * u64::from(burst) / former_burst;
        let spent = burst.saturating_sub(u32::try_from(left).unwrap_or(burst));
        let bucket = Self::full(rate, clock);
        if let Some(spent) = NonZeroU32::new(spent) {
            // A full bucket has room for its whole burst.
            let _ = bucket.cells.check_n(spent);
        }
        bucket
    }

    /// How many requests were left. Takes them all: powers of two from the largest, each if it still fits.
    fn drain(self) -> u32 {
        let fits = |count: &NonZeroU32| matches!(self.cells.check_n(*count), Ok(Ok(())));
        let powers = (0..u32::BITS).rev().filter_map(|bit| NonZeroU32::new(1 << bit));
        powers.filter(fits).map(NonZeroU32::get).sum()
    }

    fn take(&self) -> Result<(), LimitError> {
        self.cells.check().map_err(|refusal| LimitError {
            rule: REQUESTS,
            limit: self.rate.per_second,
            retry_after: refusal.wait_time_from(governor::clock::Clock::now(self.cells.clock())),
        })
    }
}

/// What is counted for one tenant.
#[derive(Default)]
struct Counters {
    in_flight: AtomicU32,
    bucket: RwLock<Option<Bucket>>,
}

impl Counters {
    fn enter(self: Arc<Self>, limit: Option<u32>) -> Result<Admission, LimitError> {
        let limit = limit.unwrap_or(u32::MAX);
        let one_more = |now: u32| (now < limit).then_some(now.saturating_add(1));
        let entered = self
            .in_flight
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        match entered {
            Ok(_) => Ok(Admission { counters: self }),
            Err(_) => Err(LimitError {
                rule: CONCURRENCY,
                limit,
                retry_after: CONCURRENCY_RETRY,
            }),
        }
    }

    fn take(&self, rate: Rate, clock: &GovernorClock) -> Result<(), LimitError> {
        if let Some(bucket) = &*self.bucket.read()
            && bucket.rate == rate
        {
            return bucket.take();
        }
        let mut slot = self.bucket.write();
        let bucket = match slot.take() {
            // Another thread was first.
            Some(bucket) if bucket.rate == rate => bucket,
            Some(former) => Bucket::after(former, rate, clock),
            None => Bucket::full(rate, clock),
        };
        slot.insert(bucket).take()
    }
}

/// Leave to run one request; dropping it ends the request for the limits.
#[must_use = "dropping it ends the request for the limits"]
pub struct Admission {
    counters: Arc<Counters>,
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.counters.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Admission")
    }
}

/// Every tenant's counters. One for all routers, living longer than any snapshot.
pub struct Limiter {
    clock: GovernorClock,
    tenants: RwLock<HashMap<TenantId, Arc<Counters>>>,
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").field("tenants", &self.tracked()).finish()
    }
}

impl Limiter {
    /// A limiter that has let nobody in yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock: GovernorClock(clock),
            tenants: RwLock::new(HashMap::new()),
        }
    }

    /// Lets one request of the tenant in, or says which limit is used up and for how long.
    pub fn admit(&self, tenant: &TenantId, limits: &TenantLimits) -> Result<Admission, LimitError> {
        let counters = self.counters(tenant)?;
        // A place first: a request that finds none costs no token, and one without a token leaves its place again.
        let admission = counters.enter(limits.concurrency)?;
        if let Some(rate) = limits.requests {
            admission.counters.take(rate, &self.clock)?;
        }
        Ok(admission)
    }

    fn counters(&self, tenant: &TenantId) -> Result<Arc<Counters>, LimitError> {
        if let Some(counters) = self.tenants.read().get(tenant) {
            return Ok(Arc::clone(counters));
        }
        let mut tenants = self.tenants.write();
        if tenants.len() >= MAX_TENANTS && !tenants.contains_key(tenant) {
            return Err(LimitError {
                rule: TENANTS,
                limit: u32::try_from(MAX_TENANTS).unwrap_or(u32::MAX),
                retry_after: CONCURRENCY_RETRY,
            });
        }
        Ok(Arc::clone(tenants.entry(tenant.clone()).or_default()))
    }

    /// Requests of the tenant that are running now.
    pub fn in_flight(&self, tenant: &TenantId) -> u32 {
        let tenants = self.tenants.read();
        tenants
            .get(tenant)
            .map_or(0, |counters| counters.in_flight.load(Ordering::Acquire))
    }

    /// How many tenants have counters.
    pub fn tracked(&self) -> usize {
        self.tenants.read().len()
    }

    /// Forgets tenants that are not to be kept and have nothing running; those that have go at a later call.
    pub fn retain(&self, mut keep: impl FnMut(&TenantId) -> bool) {
        self.tenants.write().retain(|tenant, counters| {
            // With the map locked, a count of one means that nobody holds or is about to take an admission.
            keep(tenant) || Arc::strong_count(counters) > 1
        });
    }
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
