//! Tenants and their virtual time: who is next, by the device time that each has had for its weight.
//!
//! Owns one clock per tenant and service class. A clock shows the device time charged so far, divided by the weight, plus what
//! batches under way are expected to cost; the tenant whose clock shows least goes next. A tenant that comes back is lifted to
//! the clock of whoever was served last, so that nobody saves up while idle (virtual token counter, Sheng et al., OSDI 2024;
//! start-time fair queueing, Goyal et al., SIGCOMM 1996).
//!
//! Invariants: the time charged never goes down; charges of a batch are exact, so a tenant's clock is its device time; idle
//! tenants whose clock shows nothing that a new one would not get are forgotten, and at most [`MAX_TENANTS`] are remembered.

use ahash::AHashMap as HashMap;
use mesh_types::{TenantId, TenantShare};
use smallvec::SmallVec;

use crate::waiting::GroupIx;

/// The most tenants that are remembered while they are idle. At the bound those that owe most are forgotten, to their advantage.
pub const MAX_TENANTS: usize = 65_536;
/// Device nanoseconds are counted in parts this small, so that dividing by a weight loses nothing that matters.
const SCALE: u128 = 1 << 16;
/// Idle tenants are looked through once there are so many more than after the last time.
const PRUNE_STEP: usize = 256;
/// So many are forgotten when the bound is reached.
const FORGOTTEN_AT_ONCE: usize = 4_096;

/// The service classes, as indices.
pub(crate) const CLASSES: usize = 2;
pub(crate) const INTERACTIVE: usize = 0;
pub(crate) const BATCH: usize = 1;

/// Weighted device time.
pub(crate) type Virtual = u128;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TenantIx(u32);

#[derive(Debug, Clone, Copy, Default)]
struct Clock {
    charged: Virtual,
    under_way: Virtual,
}

#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) weight: u32,
    clocks: [Clock; CLASSES],
    /// Requests that wait, by class.
    waiting: [usize; CLASSES],
    /// Device time that those are expected to take, in nanoseconds.
    backlog: [u64; CLASSES],
    /// Its parts of batches that are being formed or are under way.
    pub(crate) batches: usize,
    /// The groups and classes that it waits in.
    pub(crate) places: SmallVec<[(GroupIx, usize); 2]>,
}

/// Device time in a tenant's own units.
pub(crate) fn weighted(nanoseconds: u64, weight: u32) -> Virtual {
    u128::from(nanoseconds) * SCALE / u128::from(weight.max(1))
}

/// All tenants of one device.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    by_id: HashMap<TenantId, TenantIx>,
    slots: Vec<Option<Tenant>>,
    free: Vec<TenantIx>,
    /// What the clock of whoever was served last showed.
    served: [Virtual; CLASSES],
    /// Sum of the weights of those who wait.
    active_weight: [u64; CLASSES],
    backlog: [u64; CLASSES],
    pruned_at: usize,
}

impl Tenants {
    pub(crate) fn get(&self, tenant: TenantIx) -> Option<&Tenant> {
        self.slots.get(place(tenant)).and_then(Option::as_ref)
    }

    pub(crate) fn get_mut(&mut self, tenant: TenantIx) -> Option<&mut Tenant> {
        self.slots.get_mut(place(tenant)).and_then(Option::as_mut)
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// The tenant's index; known from now on, with this weight.
    pub(crate) fn meet(&mut self, id: &TenantId, share: TenantShare) -> TenantIx {
        let weight = share.weight.max(1);
        if let Some(known) = self.by_id.get(id).copied() {
            self.reweigh(known, weight);
            return known;
        }
        self.prune();
        let tenant = Tenant {
            id: id.clone(),
            weight,
            clocks: [Clock::default(); CLASSES],
            waiting: [0; CLASSES],
            backlog: [0; CLASSES],
            batches: 0,
            places: SmallVec::new(),
        };
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            TenantIx(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(slot) = self.slots.get_mut(place(index)) {
            *slot = Some(tenant);
        }
        self.by_id.insert(id.clone(), index);
        index
    }

    fn reweigh(&mut self, index: TenantIx, weight: u32) {
        let Some(tenant) = self.slots.get_mut(place(index)).and_then(Option::as_mut) else {
            return;
        };
        if tenant.weight == weight {
            return;
        }
        for (active, waiting) in self.active_weight.iter_mut().zip(tenant.waiting) {
            if waiting > 0 {
                *active = *active - u64::from(tenant.weight) + u64::from(weight);
            }
        }
        tenant.weight = weight;
    }

    /// What its clock shows.
    pub(crate) fn clock(&self, tenant: TenantIx, class: usize) -> Virtual {
        let clock = self.get(tenant).and_then(|tenant| tenant.clocks.get(class));
        clock.map_or(0, |clock| clock.charged + clock.under_way)
    }

    /// One more of its requests waits. The first lifts its clock.
    pub(crate) fn enter(&mut self, index: TenantIx, class: usize, backlog: u64) {
        let served = self.served.get(class).copied().unwrap_or(0);
        let Some(tenant) = self.slots.get_mut(place(index)).and_then(Option::as_mut) else {
            return;
        };
        if let (Some(waiting), Some(clock)) = (tenant.waiting.get_mut(class), tenant.clocks.get_mut(class)) {
            if *waiting == 0 {
                add(&mut self.active_weight, class, u64::from(tenant.weight));
                clock.charged += served.saturating_sub(clock.charged + clock.under_way);
            }
            *waiting += 1;
        }
        add(&mut tenant.backlog, class, backlog);
        add(&mut self.backlog, class, backlog);
    }

    /// What waits of it is expected to take so much more.
    pub(crate) fn owe(&mut self, index: TenantIx, class: usize, backlog: u64) {
        if let Some(tenant) = self.slots.get_mut(place(index)).and_then(Option::as_mut) {
            add(&mut tenant.backlog, class, backlog);
            add(&mut self.backlog, class, backlog);
        }
    }

    /// One less waits.
    pub(crate) fn leave(&mut self, index: TenantIx, class: usize, backlog: u64) {
        let Some(tenant) = self.slots.get_mut(place(index)).and_then(Option::as_mut) else {
            return;
        };
        if let Some(waiting) = tenant.waiting.get_mut(class) {
            *waiting = waiting.saturating_sub(1);
            if *waiting == 0 {
                take(&mut self.active_weight, class, u64::from(tenant.weight));
            }
        }
        take(&mut tenant.backlog, class, backlog);
        take(&mut self.backlog, class, backlog);
    }

    /// What the clock of whoever was served last showed.
    pub(crate) fn served(&self, class: usize) -> Virtual {
        self.served.get(class).copied().unwrap_or(0)
    }

    /// Sets a clock forward.
    pub(crate) fn lift(&mut self, index: TenantIx, class: usize, by: Virtual) {
        if let Some(clock) = self.get_mut(index).and_then(|tenant| tenant.clocks.get_mut(class)) {
            clock.charged += by;
        }
    }

    /// Whoever shows this goes now.
    pub(crate) fn serve(&mut self, class: usize, clock: Virtual) {
        if let Some(served) = self.served.get_mut(class) {
            *served = (*served).max(clock);
        }
    }

    /// A batch with its rows is under way and is expected to cost so much.
    pub(crate) fn expect(&mut self, index: TenantIx, class: usize, cost: Virtual) {
        if let Some(clock) = self.get_mut(index).and_then(|tenant| tenant.clocks.get_mut(class)) {
            clock.under_way += cost;
        }
    }

    /// It has cost so much instead.
    pub(crate) fn charge(&mut self, index: TenantIx, class: usize, expected: Virtual, cost: Virtual) {
        if let Some(clock) = self.get_mut(index).and_then(|tenant| tenant.clocks.get_mut(class)) {
            clock.under_way = clock.under_way.saturating_sub(expected);
            clock.charged += cost;
        }
    }

    /// The device time that its requests wait for, and that all do, in nanoseconds.
    pub(crate) fn backlogs(&self, index: TenantIx, class: usize) -> (u64, u64) {
        let own = self.get(index).and_then(|tenant| tenant.backlog.get(class).copied());
        (own.unwrap_or(0), self.backlog.get(class).copied().unwrap_or(0))
    }

    /// Whether anything of the class waits.
    pub(crate) fn anyone_waits(&self, class: usize) -> bool {
        self.active_weight.get(class).is_some_and(|weight| *weight > 0)
    }

    /// The part of the class's time that is its own while all that wait now do so.
    pub(crate) fn share(&self, index: TenantIx, class: usize) -> f64 {
        let Some(tenant) = self.get(index) else { return 1.0 };
        let active = self.active_weight.get(class).copied().unwrap_or(0);
        let is_active = tenant.waiting.get(class).is_some_and(|waiting| *waiting > 0);
        let all = if is_active {
            active
        } else {
            active + u64::from(tenant.weight)
        };
        f64::from(tenant.weight) / (all.max(1) as f64)
    }

    /// One part of a batch less.
    pub(crate) fn let_go(&mut self, index: TenantIx) {
        if let Some(tenant) = self.get_mut(index) {
            tenant.batches = tenant.batches.saturating_sub(1);
        }
    }

    /// Perhaps nothing of it is here any more: it may be forgotten once a new one would stand no worse.
    pub(crate) fn part(&mut self, index: TenantIx) {
        let owes = |tenant: &Tenant| {
            let clocks = tenant.clocks.iter().zip(self.served);
            clocks.into_iter().any(|(clock, served)| clock.charged > served)
        };
        let gone = self.get(index).is_some_and(|tenant| tenant.is_idle() && !owes(tenant));
        if gone {
            self.forget(index);
        }
    }

    fn forget(&mut self, index: TenantIx) {
        if let Some(tenant) = self.slots.get_mut(place(index)).and_then(Option::take) {
            self.by_id.remove(&tenant.id);
            self.free.push(index);
        }
    }

    /// Forgets who is idle and owes nothing, each time that many have come; and, at the bound, who owes most.
    fn prune(&mut self) {
        if self.by_id.len() < (self.pruned_at + PRUNE_STEP).min(MAX_TENANTS) {
            return;
        }
        let all: Vec<TenantIx> = self.by_id.values().copied().collect();
        all.into_iter().for_each(|index| self.part(index));
        if self.by_id.len() >= MAX_TENANTS {
            let idle = self
                .by_id
                .values()
                .copied()
                .filter(|index| self.get(*index).is_some_and(Tenant::is_idle));
            let owes = |index: &TenantIx| self.clock(*index, INTERACTIVE) + self.clock(*index, BATCH);
            let mut idle: Vec<(Virtual, TenantIx)> = idle.map(|index| (owes(&index), index)).collect();
            // Many at once, because looking through them all takes long.
            let keep = idle.len().saturating_sub(FORGOTTEN_AT_ONCE);
            if keep > 0 {
                idle.select_nth_unstable(keep);
            }
            idle.drain(keep..).for_each(|(_, index)| self.forget(index));
        }
        self.pruned_at = self.by_id.len();
    }
}

#[cfg(test)]
impl Tenants {
    /// The time charged to a tenant that is remembered.
    pub(crate) fn charged(&self, id: &str, class: usize) -> Option<Virtual> {
        let index = self.by_id.get(id)?;
        Some(self.get(*index)?.clocks.get(class)?.charged)
    }

    /// Whether nobody waits, nothing is under way and nothing is left over in the sums.
    pub(crate) fn is_quiet(&self) -> bool {
        let quiet = |tenant: &Tenant| tenant.is_idle() && tenant.places.is_empty() && tenant.backlog == [0; CLASSES];
        self.slots.iter().flatten().all(quiet)
            && self.active_weight == [0; CLASSES]
            && self.backlog == [0; CLASSES]
            && self
                .slots
                .iter()
                .flatten()
                .all(|tenant| tenant.clocks.iter().all(|clock| clock.under_way == 0))
    }
}

impl Tenant {
    fn is_idle(&self) -> bool {
        self.batches == 0 && self.waiting.iter().all(|waiting| *waiting == 0)
    }
}

fn place(index: TenantIx) -> usize {
    usize::try_from(index.0).unwrap_or(usize::MAX)
}

fn add(values: &mut [u64; CLASSES], class: usize, value: u64) {
    if let Some(known) = values.get_mut(class) {
        *known = known.saturating_add(value);
    }
}

fn take(values: &mut [u64; CLASSES], class: usize, value: u64) {
    if let Some(known) = values.get_mut(class) {
        *known = known.saturating_sub(value);
    }
}
