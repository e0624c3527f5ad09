//! What is remembered, and what is forgotten when there is no room: of the tenant itself what it has not asked for longest, and
//! of the tenant that has most where all together have too much.
//!
//! Pure: the time is passed in. Bytes are counted with what it takes to find them, so that many small answers are bounded too.
//!
//! Invariants: neither bound is ever passed; an answer is copied when it is remembered, so that it keeps no batch alive; the
//! numbers that are kept of tenants and endpoints are the sums of what they have, and who has nothing is not there.

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use bytes::Bytes;
use lru::LruCache;
use mesh_types::{EndpointId, TenantId, Tensor};

use super::{CacheBounds, CacheUse, Kept, key::Key};

/// What an entry takes besides its tensors' bytes, and a tensor besides its own: rather too much than too little.
pub(crate) const ENTRY_OVERHEAD: usize = 384;
pub(crate) const TENSOR_OVERHEAD: usize = 160;

/// Whose answer it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) tenant: &'a TenantId,
    pub(crate) endpoint: &'a EndpointId,
    /// Of the endpoint's rule in the request's snapshot.
    pub(crate) serial: u64,
}

/// An answer to be remembered.
#[derive(Debug, Clone)]
pub(crate) struct New {
    pub(crate) outputs: Kept,
    pub(crate) expires: Instant,
    /// The most that the endpoint lets one answer take.
    pub(crate) max_bytes: usize,
}

struct Entry {
    outputs: Kept,
    bytes: usize,
    expires: Instant,
    /// When it was last asked for, in asks.
    asked: u64,
}

struct Bucket {
    entries: LruCache<Key, Entry>,
    serial: u64,
}

#[derive(Default)]
struct OfTenant {
    buckets: HashMap<EndpointId, Bucket>,
    bytes: usize,
}

pub(crate) struct Store {
    bounds: CacheBounds,
    tenants: HashMap<TenantId, OfTenant>,
    /// Who has how much, to find who has most.
    by_size: BTreeSet<(usize, TenantId)>,
    usage: CacheUse,
    asks: u64,
    epoch: u64,
}

/// What an answer takes.
pub(crate) fn size_of(outputs: &[Tensor]) -> usize {
    let sizes = outputs
        .iter()
        .map(|tensor| tensor.data.len() + tensor.name.len() + TENSOR_OVERHEAD);
    sizes.fold(ENTRY_OVERHEAD, usize::saturating_add)
}

/// The same bytes in memory of their own.
fn apart(outputs: &[Tensor]) -> Kept {
    let copy = |tensor: &Tensor| Tensor {
        data: Bytes::copy_from_slice(&tensor.data),
        ..tensor.clone()
    };
    outputs.iter().map(copy).collect()
}

impl Store {
    pub(crate) fn new(bounds: CacheBounds) -> Self {
        Self {
            bounds,
            tenants: HashMap::new(),
            by_size: BTreeSet::new(),
            usage: CacheUse::default(),
            asks: 0,
            epoch: 0,
        }
    }

    pub(crate) fn usage(&self) -> CacheUse {
        self.usage
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    pub(crate) fn get(&mut self, place: &Place<'_>, key: &Key, now: Instant) -> Option<Kept> {
        let bucket = self.tenants.get_mut(place.tenant)?.buckets.get_mut(place.endpoint)?;
        if bucket.serial < place.serial {
            // The endpoint has moved on: nothing of it will be asked for again.
            self.drop_bucket(place.tenant, place.endpoint);
            return None;
        }
        let entry = bucket.entries.get_mut(key)?;
        if now >= entry.expires {
            let gone = bucket.entries.pop(key).map(|entry| entry.bytes);
            self.shrink(place.tenant, gone.unwrap_or(0), 1);
            self.forget_empty(place.tenant, place.endpoint);
            return None;
        }
        self.asks += 1;
        entry.asked = self.asks;
        Some(entry.outputs.clone())
    }

    /// Remembers an answer, unless it is too large or something was purged since `epoch`, or the endpoint has moved on.
    pub(crate) fn put(&mut self, place: &Place<'_>, key: Key, new: &New, epoch: u64) -> bool {
        let bytes = size_of(&new.outputs);
        let most = new.max_bytes.min(self.bounds.tenant_bytes).min(self.bounds.bytes);
        if bytes > most || epoch != self.epoch {
            return false;
        }
        let serial = self.bucket(place).map(|bucket| bucket.serial);
        match serial {
            Some(serial) if serial > place.serial => return false,
            Some(serial) if serial < place.serial => self.drop_bucket(place.tenant, place.endpoint),
            _ => {}
        }
        self.remove(place, &key);
        while self.bytes_of(place.tenant) + bytes > self.bounds.tenant_bytes && self.evict(place.tenant) {}
        while self.usage.bytes + bytes > self.bounds.bytes {
            let Some((_, most)) = self.by_size.last().cloned() else {
                break;
            };
            if !self.evict(&most) {
                break;
            }
        }
        self.asks += 1;
        let entry = Entry {
            outputs: apart(&new.outputs),
            bytes,
            expires: new.expires,
            asked: self.asks,
        };
        let of_tenant = self.tenants.entry(place.tenant.clone()).or_default();
        let bucket = of_tenant
            .buckets
            .entry(place.endpoint.clone())
            .or_insert_with(|| Bucket {
                entries: LruCache::unbounded(),
                serial: place.serial,
            });
        bucket.entries.put(key, entry);
        let before = of_tenant.bytes;
        of_tenant.bytes += bytes;
        self.by_size.remove(&(before, place.tenant.clone()));
        self.by_size.insert((before + bytes, place.tenant.clone()));
        self.usage.bytes += bytes;
        self.usage.entries += 1;
        true
    }

    pub(crate) fn purge(&mut self, tenant: &TenantId, endpoint: &EndpointId) -> CacheUse {
        self.epoch += 1;
        let before = self.usage;
        self.drop_bucket(tenant, endpoint);
        CacheUse {
            entries: before.entries - self.usage.entries,
            bytes: before.bytes - self.usage.bytes,
        }
    }

    /// The same of all endpoints of a tenant.
    pub(crate) fn purge_tenant(&mut self, tenant: &TenantId) -> CacheUse {
        self.epoch += 1;
        let before = self.usage;
        let of_tenant = self.tenants.get(tenant);
        let names: Vec<_> = of_tenant.iter().flat_map(|of| of.buckets.keys().cloned()).collect();
        for endpoint in names {
            self.drop_bucket(tenant, &endpoint);
        }
        CacheUse {
            entries: before.entries - self.usage.entries,
            bytes: before.bytes - self.usage.bytes,
        }
    }

    /// The tenants of whom anything is remembered.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = &TenantId> {
        self.tenants.keys()
    }

    /// Keeps the endpoints of which this is so, asked with their serial.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&TenantId, &EndpointId, u64) -> bool) {
        let mut gone = Vec::new();
        for (tenant, of_tenant) in &self.tenants {
            for (endpoint, bucket) in &of_tenant.buckets {
                if !keep(tenant, endpoint, bucket.serial) {
                    gone.push((tenant.clone(), endpoint.clone()));
                }
            }
        }
        for (tenant, endpoint) in gone {
            self.drop_bucket(&tenant, &endpoint);
        }
    }

    fn bucket(&self, place: &Place<'_>) -> Option<&Bucket> {
        self.tenants.get(place.tenant)?.buckets.get(place.endpoint)
    }

    pub(crate) fn bytes_of(&self, tenant: &TenantId) -> usize {
        self.tenants.get(tenant).map_or(0, |of_tenant| of_tenant.bytes)
    }

    fn remove(&mut self, place: &Place<'_>, key: &Key) {
        let bucket = self
            .tenants
            .get_mut(place.tenant)
            .and_then(|of_tenant| of_tenant.buckets.get_mut(place.endpoint));
        let gone = bucket.and_then(|bucket| bucket.entries.pop(key));
        if let Some(entry) = gone {
            self.shrink(place.tenant, entry.bytes, 1);
            self.forget_empty(place.tenant, place.endpoint);
        }
    }

    /// Forgets what a tenant has not asked for longest; false where it has nothing.
    fn evict(&mut self, tenant: &TenantId) -> bool {
        let oldest = self.tenants.get_mut(tenant).and_then(|of_tenant| {
            let asked = |bucket: &Bucket| bucket.entries.peek_lru().map_or(u64::MAX, |(_, entry)| entry.asked);
            let (endpoint, bucket) = of_tenant.buckets.iter_mut().min_by_key(|(_, bucket)| asked(bucket))?;
            let (_, entry) = bucket.entries.pop_lru()?;
            Some((endpoint.clone(), entry.bytes))
        });
        let Some((endpoint, bytes)) = oldest else { return false };
        self.shrink(tenant, bytes, 1);
        self.forget_empty(tenant, &endpoint);
        true
    }

    fn drop_bucket(&mut self, tenant: &TenantId, endpoint: &EndpointId) {
        let of_tenant = self.tenants.get_mut(tenant);
        let Some(bucket) = of_tenant.and_then(|of_tenant| of_tenant.buckets.remove(endpoint)) else {
            return;
        };
        let bytes = bucket.entries.iter().map(|(_, entry)| entry.bytes).sum();
        self.shrink(tenant, bytes, bucket.entries.len());
        self.forget_empty(tenant, endpoint);
    }

    fn shrink(&mut self, tenant: &TenantId, bytes: usize, entries: usize) {
        if let Some(of_tenant) = self.tenants.get_mut(tenant) {
            let before = of_tenant.bytes;
            of_tenant.bytes = before.saturating_sub(bytes);
            self.by_size.remove(&(before, tenant.clone()));
            self.by_size.insert((of_tenant.bytes, tenant.clone()));
        }
        self.usage.bytes = self.usage.bytes.saturating_sub(bytes);
        self.usage.entries = self.usage.entries.saturating_sub(entries);
    }

    fn forget_empty(&mut self, tenant: &TenantId, endpoint: &EndpointId) {
        let Some(of_tenant) = self.tenants.get_mut(tenant) else {
            return;
        };
        if of_tenant
            .buckets
            .get(endpoint)
            .is_some_and(|bucket| bucket.entries.is_empty())
        {
            of_tenant.buckets.remove(endpoint);
        }
        if of_tenant.buckets.is_empty() {
            let bytes = of_tenant.bytes;
            self.tenants.remove(tenant);
            self.by_size.remove(&(bytes, tenant.clone()));
        }
    }

    /// Whether the sums are the sums.
    #[cfg(test)]
    pub(crate) fn is_consistent(&self) -> bool {
        let of = |of_tenant: &OfTenant| -> (usize, usize) {
            let entries = of_tenant.buckets.values().flat_map(|bucket| bucket.entries.iter());
            let sizes: Vec<usize> = entries.map(|(_, entry)| entry.bytes).collect();
            (sizes.iter().sum(), sizes.len())
        };
        let each = self.tenants.iter().all(|(tenant, of_tenant)| {
            of(of_tenant).0 == of_tenant.bytes
                && !of_tenant.buckets.is_empty()
                && self.by_size.contains(&(of_tenant.bytes, tenant.clone()))
        });
        let (bytes, entries) = self
            .tenants
            .values()
            .map(of)
            .fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
        each && self.by_size.len() == self.tenants.len() && self.usage == CacheUse { entries, bytes }
    }
}
