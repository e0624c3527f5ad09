//! The response cache: answers of endpoints that were declared to have one, so that an equal request is not computed again.
//!
//! Owns what is remembered ([`store`]), how equal requests that come at once become one ([`flights`]), and what stands for a
//! request ([`key`]). Off unless an endpoint says so; a request of any other looks at one pointer. Never asked for what belongs to
//! a sequence or a stream, names a version, or has outputs in shared memory: the pipeline leaves those out.
//!
//! Invariants: a key holds the tenant, so no answer is another tenant's; an answer is the bytes that the model gave; what is
//! remembered takes no more than its bounds, in all and per tenant; what was computed before a change of the endpoint, of what
//! its arms lead to, or before a purge is never given after it.

pub(crate) mod flights;
pub(crate) mod key;
pub(crate) mod recall;
pub(crate) mod store;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use lru::LruCache;
use mesh_policies::{MeshSnapshot, Target};
use mesh_types::{EndpointId, ModelVersionKey, TenantId, Tensor, Times, VersionStatistics};
use parking_lot::Mutex;

use self::{
    flights::Flights,
    key::Key,
    store::{Place, Store},
};

/// What is remembered in all where nothing else is said.
pub const DEFAULT_CACHE_BYTES: usize = 256 << 20;
/// What is remembered of one tenant where nothing else is said.
pub const DEFAULT_TENANT_CACHE_BYTES: usize = 64 << 20;
/// Versions whose hits are counted; of more, those that were asked for last.
pub const MAX_COUNTED_VERSIONS: usize = 4_096;

/// How much may be remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheBounds {
    /// In all, in bytes.
    pub bytes: usize,
    /// Of one tenant, in bytes.
    pub tenant_bytes: usize,
}

impl Default for CacheBounds {
    fn default() -> Self {
        Self {
            bytes: DEFAULT_CACHE_BYTES,
            tenant_bytes: DEFAULT_TENANT_CACHE_BYTES,
        }
    }
}

/// Where an answer came from, at an endpoint with a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheOutcome {
    /// It was remembered, or an equal request had just been computed.
    Hit,
    /// The model computed it.
    Miss,
}

impl CacheOutcome {
    /// The name on both wires.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

/// What is remembered of a request: its outputs, in the order of the model.
pub(crate) type Kept = Arc<[Tensor]>;

/// What a purge or a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheUse {
    /// Answers.
    pub entries: usize,
    /// What they take, with what it takes to find them.
    pub bytes: usize,
}

/// The cache; shared by the routers of all threads.
pub struct ResponseCache {
    store: Mutex<Store>,
    pub(crate) flights: Arc<Flights>,
    counts: Mutex<LruCache<ModelVersionKey, [Times; 2]>>,
}

impl fmt::Debug for ResponseCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCache")
            .field("use", &self.usage())
            .finish_non_exhaustive()
    }
}

impl Default for ResponseCache {
    fn default() -> Self {
        Self::new(CacheBounds::default())
    }
}

impl ResponseCache {
    /// An empty one.
    pub fn new(bounds: CacheBounds) -> Self {
        Self {
            store: Mutex::new(Store::new(bounds)),
            flights: Arc::default(),
            counts: Mutex::new(LruCache::unbounded()),
        }
    }

    /// Forgets what an endpoint has answered; what is being computed now is not remembered either.
    pub fn purge(&self, tenant: &TenantId, endpoint: &EndpointId) -> CacheUse {
        self.store.lock().purge(tenant, endpoint)
    }

    /// The same of all endpoints of a tenant.
    pub fn purge_tenant(&self, tenant: &TenantId) -> CacheUse {
        self.store.lock().purge_tenant(tenant)
    }

    /// What is remembered now.
    pub fn usage(&self) -> CacheUse {
        self.store.lock().usage()
    }

    /// Forgets what a snapshot has no use for: of endpoints that are gone, have no cache any more or lead elsewhere.
    pub fn retain(&self, snapshot: &MeshSnapshot) {
        self.store.lock().retain(|tenant, endpoint, serial| {
            let target = snapshot
                .tenant(tenant.as_str())
                .and_then(|tenant| tenant.target(endpoint.as_str()));
            let Some(Target::Endpoint(route)) = target else {
                return false;
            };
            route.cache.as_ref().is_some_and(|rule| rule.serial <= serial)
        });
    }

    /// Forgets all that tenants of these have asked, and what was counted of their models: others have their names now.
    pub fn renew(&self, is_another: impl Fn(&TenantId) -> bool) {
        let mut store = self.store.lock();
        for tenant in store
            .tenants()
            .filter(|tenant| is_another(tenant))
            .cloned()
            .collect::<Vec<_>>()
        {
            store.purge_tenant(&tenant);
        }
        drop(store);
        let mut counts = self.counts.lock();
        let gone = counts.iter().map(|(version, _)| version);
        let gone: Vec<_> = gone.filter(|version| is_another(&version.tenant)).cloned().collect();
        for version in gone {
            counts.pop(&version);
        }
    }

    /// Adds what was answered without the version: a success, but no inference.
    pub fn add_to(&self, version: &ModelVersionKey, numbers: &mut VersionStatistics) {
        let [hit, miss] = self.times(version);
        numbers.success.count += hit.count;
        numbers.success.total += hit.total;
        (numbers.cache_hit, numbers.cache_miss) = (hit, miss);
    }

    /// How often a version's answers were found and not found, and how long that took.
    pub(crate) fn times(&self, version: &ModelVersionKey) -> [Times; 2] {
        self.counts.lock().peek(version).copied().unwrap_or_default()
    }

    pub(crate) fn count(&self, version: &ModelVersionKey, outcome: CacheOutcome, took: Duration) {
        let mut counts = self.counts.lock();
        if !counts.contains(version) {
            if counts.len() >= MAX_COUNTED_VERSIONS {
                counts.pop_lru();
            }
            counts.put(version.clone(), <[Times; 2]>::default());
        }
        if let Some([hit, miss]) = counts.get_mut(version) {
            let times = match outcome {
                CacheOutcome::Hit => hit,
                CacheOutcome::Miss => miss,
            };
            times.count += 1;
            times.total += took;
        }
    }

    pub(crate) fn find(&self, place: &Place<'_>, key: &Key, now: Instant) -> Option<Kept> {
        self.store.lock().get(place, key, now)
    }

    /// What must still be true for an answer that is begun now to be remembered.
    pub(crate) fn epoch(&self) -> u64 {
        self.store.lock().epoch()
    }

    /// Remembers an answer whose computation began at `epoch`; answers whether it is.
    pub(crate) fn keep(&self, place: &Place<'_>, key: Key, entry: &store::New, epoch: u64) -> bool {
        self.store.lock().put(place, key, entry, epoch)
    }
}

#[cfg(test)]
mod tests;
