//! What outlives a change of the records and is kept by tenants' names: told of each change, it forgets those that are gone.
//!
//! A tenant that is deleted and made anew under the same name is another: it begins at nothing, also where control has seen both changes at once.
//! Owns how the two are told apart, by when their records were made, and who is told. What each keeps is its own.
//!
//! Invariant: whatever keeps anything by a tenant's name over changes is told here, or says in its own documentation why it need not be.

use std::sync::Arc;

use arc_swap::ArcSwap;
use mesh_policies::{Limiter, MeshSnapshot};
use mesh_router::{Homes, Regions, ResponseCache};
use mesh_telemetry::Telemetry;
use mesh_types::{Clock, TenantId};
use parking_lot::Mutex;

/// Who keeps something of tenants.
pub(crate) struct Keepers {
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) regions: Arc<Regions>,
    pub(crate) cache: Arc<ResponseCache>,
    pub(crate) sequences: Arc<Homes>,
    pub(crate) telemetry: Telemetry,
}

/// Tells them.
pub(crate) struct Tenants {
    keepers: Keepers,
    snapshots: Arc<ArcSwap<MeshSnapshot>>,
    before: Mutex<Arc<MeshSnapshot>>,
    clock: Arc<dyn Clock>,
}

impl Tenants {
    pub(crate) fn new(keepers: Keepers, snapshots: Arc<ArcSwap<MeshSnapshot>>, clock: Arc<dyn Clock>) -> Self {
        Self {
            keepers,
            before: Mutex::new(snapshots.load_full()),
            snapshots,
            clock,
        }
    }

    /// The newest snapshot has been published.
    pub(crate) fn changed(&self) {
        let mut last = self.before.lock();
        let snapshot = self.snapshots.load_full();
        let before = std::mem::replace(&mut *last, snapshot.clone());
        let is_there = |tenant: &TenantId| snapshot.tenant(tenant.as_str()).is_some();
        let is_another = |tenant: &TenantId| is_another(&before, &snapshot, tenant.as_str());
        let Keepers {
            limiter,
            regions,
            cache,
            sequences,
            telemetry,
        } = &self.keepers;
        limiter.renew(is_another);
        limiter.retain(is_there);
        regions.retain(|tenant| is_there(tenant) && !is_another(tenant));
        sequences.forget_tenants(|tenant| !is_there(tenant) || is_another(tenant), self.clock.now());
        cache.renew(|tenant| !is_there(tenant) || is_another(tenant));
        cache.retain(&snapshot);
        let held = cache.usage();
        telemetry.metrics().cache_holds(held.entries, held.bytes);
        let is_gone = |name: &str| snapshot.tenant(name).is_none();
        let is_another = |name: &str| self::is_another(&before, &snapshot, name);
        // What of a tenant still ran when it went was counted once more as it ended.
        let is_new = |name: &str| before.tenant(name).is_none() || is_another(name);
        telemetry.metrics().forget(|name| is_gone(name) || is_new(name));
        telemetry.spans().retain(|name| !is_gone(name) && !is_another(name));
    }
}

/// Whether the tenant of this name is another than before.
fn is_another(before: &MeshSnapshot, now: &MeshSnapshot, tenant: &str) -> bool {
    let (Some(before), Some(now)) = (before.tenant(tenant), now.tenant(tenant)) else {
        return false;
    };
    !Arc::ptr_eq(before, now) && before.created != now.created
}
