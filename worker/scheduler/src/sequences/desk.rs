//! The sequences of one model: their names, the instances with their seats, and the backlog by tenant.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::Hash,
};

use ahash::{AHashMap as HashMap, AHashSet as HashSet};
use mesh_types::{CorrelationId, TenantId};

use super::{SeatAt, SequenceRules};

/// The backlog is looked through this far for a sequence whose id is free on some instance.
const LOOKED_THROUGH: usize = 32;

/// How many sequences a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SequenceCounts {
    /// All of them.
    pub open: usize,
    /// Those of them that wait for a seat.
    pub backlog: usize,
}

/// One instance: a device thread that has the model.
#[derive(Debug, Default)]
pub(crate) struct Instance {
    pub(crate) ready: bool,
    /// By slot.
    pub(crate) taken: BTreeMap<u32, u64>,
    free: BTreeSet<u32>,
    /// The ids that the model was told.
    told: HashSet<String>,
}

/// One model.
#[derive(Debug)]
pub(crate) struct Desk<K> {
    pub(crate) key: K,
    pub(crate) rules: SequenceRules,
    pub(crate) names: HashMap<(TenantId, CorrelationId), u64>,
    /// How many open sequences have each id, where the model is told it.
    ids: HashMap<String, usize>,
    pub(crate) instances: Vec<Instance>,
    /// Those that wait for a seat, by the order in which they go.
    pub(crate) backlog: BTreeMap<TenantId, BTreeMap<i64, u64>>,
    backlogged: usize,
    /// The places of those who came in front of the backlog last, and behind it.
    ends: (i64, i64),
    /// Seats by tenant.
    seated: HashMap<TenantId, u32>,
    /// No new sequences are taken.
    pub(crate) closing: bool,
    /// So many rows were found to fit into the device's memory, where it ran out.
    fitting: Option<u32>,
}

impl Instance {
    /// Whether one of so many seats is free, of which the lowest is taken next.
    fn has_seat(&self, slots: u32) -> bool {
        let beyond = self.taken.range(slots..).count();
        u32::try_from(self.taken.len() - beyond).is_ok_and(|taken| taken < slots)
    }

    fn take(&mut self, sequence: u64) -> u32 {
        let next = u32::try_from(self.taken.len()).unwrap_or(u32::MAX);
        // Without a gap, the taken ones are 0 to next - 1.
        let slot = self.free.pop_first().unwrap_or(next);
        self.taken.insert(slot, sequence);
        slot
    }

    fn give_back(&mut self, slot: u32) {
        self.taken.remove(&slot);
        self.free.insert(slot);
        if self.taken.is_empty() {
            self.free.clear();
        }
    }
}

impl<K> Desk<K> {
    pub(crate) fn new(key: K, rules: SequenceRules) -> Self {
        Self {
            key,
            rules,
            names: HashMap::default(),
            ids: HashMap::default(),
            instances: Vec::new(),
            backlog: BTreeMap::new(),
            backlogged: 0,
            ends: (0, 0),
            seated: HashMap::default(),
            closing: false,
            fitting: None,
        }
    }

    /// The device ran out of memory, and so many rows fit; or any number again. True if that changes anything.
    ///
    /// Where each sequence has a row of its own, a batch has all rows up to the last of its own: one that sits beyond what fits
    /// would never run. Elsewhere a batch has as many rows as steps, and is kept small enough by itself.
    pub(crate) fn fits(&mut self, rows: Option<u32>) -> bool {
        let rows = rows.filter(|_| self.rules.padded);
        std::mem::replace(&mut self.fitting, rows) != rows
    }

    /// Seats of one instance.
    fn slots(&self) -> u32 {
        self.fitting.map_or(self.rules.slots, |rows| rows.min(self.rules.slots))
    }

    /// Those who sit beyond the seats that there are now.
    pub(crate) fn beyond(&self) -> Vec<u64> {
        let slots = self.slots();
        let instances = self.instances.iter();
        let beyond = instances.flat_map(|instance| instance.taken.range(slots..).map(|(_, sequence)| *sequence));
        beyond.collect()
    }

    pub(crate) fn counts(&self) -> SequenceCounts {
        SequenceCounts {
            open: self.names.len(),
            backlog: self.backlogged,
        }
    }

    /// A sequence of this name is there.
    pub(crate) fn open(&mut self, name: (TenantId, CorrelationId), sequence: u64) {
        if self.rules.tells_ids {
            *self.ids.entry(name.1.to_string()).or_default() += 1;
        }
        self.names.insert(name, sequence);
    }

    /// It is over.
    pub(crate) fn close(&mut self, name: &(TenantId, CorrelationId)) {
        self.names.remove(name);
        if self.ids.is_empty() {
            return;
        }
        let id = name.1.to_string();
        if let Some(count) = self.ids.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.ids.remove(&id);
            }
        }
    }

    /// Whether every instance has a sequence of this id, or has to keep a seat for one: as many are open as there are
    /// instances. So whoever is taken in waits for a seat at most, and not for another's sequence to end.
    pub(crate) fn is_taken(&self, id: &CorrelationId) -> bool {
        let instances = self.instances.iter().filter(|instance| instance.ready).count();
        let open = || self.ids.get(&id.to_string()).copied().unwrap_or(0);
        self.rules.tells_ids && open() >= instances.max(1)
    }

    /// Seats that one tenant may have.
    pub(crate) fn bound(&self) -> u32 {
        if self.rules.per_tenant > 0 {
            return self.rules.per_tenant;
        }
        let ready = self.instances.iter().filter(|instance| instance.ready).count();
        let all = self.slots().saturating_mul(u32::try_from(ready).unwrap_or(u32::MAX));
        if all < 2 { 1 } else { all - (all / 8).max(1) }
    }

    /// Whether any instance has a seat left.
    pub(crate) fn has_seat(&self) -> bool {
        let slots = self.slots();
        self.instances
            .iter()
            .any(|instance| instance.ready && instance.has_seat(slots))
    }

    pub(crate) fn seats_of(&self, tenant: &TenantId) -> u32 {
        self.seated.get(tenant).copied().unwrap_or(0)
    }

    /// The ready instance with the fewest sequences that has a seat left and was not told this id.
    pub(crate) fn room_for(&self, id: &CorrelationId) -> Option<usize> {
        let slots = self.slots();
        let told = self.rules.tells_ids.then(|| id.to_string());
        let has_room = |(_, instance): &(usize, &Instance)| {
            let clashes = told.as_ref().is_some_and(|id| instance.told.contains(id));
            instance.ready && instance.has_seat(slots) && !clashes
        };
        let free = self.instances.iter().enumerate().filter(has_room);
        free.min_by_key(|(place, instance)| (instance.taken.len(), *place))
            .map(|(place, _)| place)
    }

    pub(crate) fn sit(&mut self, place: usize, sequence: u64, tenant: &TenantId, id: &CorrelationId) -> Option<SeatAt> {
        let instance = self.instances.get_mut(place)?;
        let slot = instance.take(sequence);
        if self.rules.tells_ids {
            instance.told.insert(id.to_string());
        }
        *self.seated.entry(tenant.clone()).or_default() += 1;
        Some(SeatAt { place, slot })
    }

    pub(crate) fn stand(&mut self, seat: SeatAt, tenant: &TenantId, id: &CorrelationId) {
        if let Some(instance) = self.instances.get_mut(seat.place) {
            instance.give_back(seat.slot);
            if self.rules.tells_ids {
                instance.told.remove(&id.to_string());
            }
        }
        if let Some(seats) = self.seated.get_mut(tenant) {
            *seats -= 1;
            if *seats == 0 {
                self.seated.remove(tenant);
            }
        }
    }

    /// The sequence waits for a seat; answers its place among those who do.
    pub(crate) fn join_backlog(&mut self, tenant: &TenantId, sequence: u64, in_front: bool) -> i64 {
        let (front, back) = &mut self.ends;
        let at = if in_front {
            *front -= 1;
            *front
        } else {
            *back += 1;
            *back
        };
        self.backlog.entry(tenant.clone()).or_default().insert(at, sequence);
        self.backlogged += 1;
        at
    }

    pub(crate) fn leave_backlog(&mut self, tenant: &TenantId, at: i64) {
        let Some(queue) = self.backlog.get_mut(tenant) else {
            return;
        };
        if queue.remove(&at).is_some() {
            self.backlogged -= 1;
        }
        if queue.is_empty() {
            self.backlog.remove(tenant);
        }
    }

    /// Of each tenant that may have another seat, its first sequences in the backlog.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = (&TenantId, impl Iterator<Item = u64> + '_)> {
        let bound = self.bound();
        let entitled = move |(tenant, _): &(&TenantId, &BTreeMap<i64, u64>)| self.seats_of(tenant) < bound;
        self.backlog
            .iter()
            .filter(entitled)
            .map(|(tenant, queue)| (tenant, queue.values().take(LOOKED_THROUGH).copied()))
    }

    #[cfg(test)]
    pub(crate) fn is_bare(&self) -> bool {
        let empty = |instance: &Instance| instance.taken.is_empty() && instance.told.is_empty();
        let nobody = self.names.is_empty() && self.ids.is_empty() && self.seated.is_empty();
        nobody && self.backlog.is_empty() && self.backlogged == 0 && self.instances.iter().all(empty)
    }
}

impl<K: Clone + Eq + Hash> Desk<K> {
    /// The instance at a place, made if need be.
    pub(crate) fn instance(&mut self, place: usize) -> Option<&mut Instance> {
        while self.instances.len() <= place {
            self.instances.push(Instance::default());
        }
        self.instances.get_mut(place)
    }
}
