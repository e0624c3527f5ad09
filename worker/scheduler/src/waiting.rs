//! Everything that waits on one device, in the orders that decisions need.
//!
//! A group is what one batch can be formed from: the requests for one model, of one shape, and of one tenant where that is
//! isolated. Within a group there is a lane per service class; within a lane a queue per tenant. Owns all indices over the
//! requests and keeps them in step: whatever is put in or taken out goes through [`Waiting::insert`], [`Waiting::put_back`] and
//! [`Waiting::remove`].
//! Decides nothing.
//!
//! Cost: a handful of ordered-set operations per request, whatever the number of tenants known.

use std::{collections::BTreeSet, time::Instant};

use ahash::AHashMap as HashMap;
use mesh_types::TimeoutAction;

use crate::{
    item::{Item, ShapeKey},
    pricing::Unpriced,
    queue::{Stand, TenantQueue},
    tenants::{CLASSES, TenantIx, Tenants, Virtual},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct EntryIx(pub(crate) u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupIx(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ModelIx {
    pub(crate) slot: u32,
    /// Another model in the same slot has another number.
    pub(crate) serial: u32,
}

/// Where a step of a sequence must run, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pin {
    pub(crate) place: usize,
    pub(crate) sequence: u64,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    pub(crate) item: Item<T>,
    pub(crate) tenant: TenantIx,
    pub(crate) model: ModelIx,
    pub(crate) group: GroupIx,
    pub(crate) class: usize,
    pub(crate) stand: Stand,
    /// Whether it shares batches with its tenant's own requests only.
    isolated: bool,
    /// The device time that it is expected to take, in nanoseconds.
    pub(crate) cost: u64,
    /// Whether it was admitted by a prediction.
    pub(crate) foreseen: bool,
    /// When it has waited for too long, and what happens then.
    pub(crate) timeout: Option<(Instant, TimeoutAction)>,
    /// None but for steps of sequences.
    pub(crate) pin: Option<Pin>,
}

#[derive(Debug, Default)]
pub(crate) struct Lane {
    queues: HashMap<TenantIx, TenantQueue>,
    /// Who is next.
    order: BTreeSet<(Virtual, TenantIx)>,
}

/// Requests that could run together.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) model: ModelIx,
    pub(crate) shape: ShapeKey,
    isolated: Option<TenantIx>,
    /// The only slot that may take them.
    pub(crate) place: Option<usize>,
    lanes: [Lane; CLASSES],
    pub(crate) rows: u64,
    pub(crate) count: usize,
    arrivals: BTreeSet<(Instant, u64)>,
    deadlines: BTreeSet<(Instant, EntryIx)>,
    timeouts: BTreeSet<(Instant, EntryIx)>,
}

type Name = (ModelIx, ShapeKey, Option<TenantIx>, Option<usize>);

/// All requests of one device.
#[derive(Debug)]
pub(crate) struct Waiting<T> {
    entries: Vec<Option<Entry<T>>>,
    free_entries: Vec<EntryIx>,
    groups: Vec<Option<Group>>,
    free_groups: Vec<GroupIx>,
    names: HashMap<Name, GroupIx>,
    /// Groups that hold something.
    active: BTreeSet<GroupIx>,
    /// Steps by their sequence, of which at most one waits.
    pinned: HashMap<u64, EntryIx>,
    /// What was taken in for nothing.
    pub(crate) unpriced: Unpriced<EntryIx>,
    sequence: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            free_entries: Vec::new(),
            groups: Vec::new(),
            free_groups: Vec::new(),
            names: HashMap::default(),
            active: BTreeSet::new(),
            pinned: HashMap::default(),
            unpriced: Unpriced::default(),
            sequence: 0,
        }
    }
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) model: ModelIx,
    pub(crate) tenant: TenantIx,
    pub(crate) class: usize,
    pub(crate) level: usize,
    /// Whether its model has several levels.
    pub(crate) ages: bool,
    /// Whether it shares batches with its tenant's own requests only.
    pub(crate) isolated: bool,
    /// The device time that it is expected to take, in nanoseconds.
    pub(crate) cost: u64,
    /// Whether it was admitted by a prediction.
    pub(crate) foreseen: bool,
    /// When it will have waited for too long, and what happens then.
    pub(crate) timeout: Option<(Instant, TimeoutAction)>,
}

impl Placed {
    /// Where a request that was taken out goes again.
    pub(crate) fn again<T>(entry: &Entry<T>) -> Self {
        Self {
            model: entry.model,
            tenant: entry.tenant,
            class: entry.class,
            level: entry.stand.level,
            ages: entry.stand.ages,
            isolated: entry.isolated,
            cost: entry.cost,
            foreseen: entry.foreseen,
            timeout: entry.timeout,
        }
    }
}

impl Group {
    /// When the oldest request came.
    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.arrivals.first().map(|(arrived, _)| *arrived)
    }

    /// The nearest deadline.
    pub(crate) fn tightest(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Requests whose deadline is before `limit`, the nearest first.
    pub(crate) fn due_before(&self, limit: Instant) -> impl Iterator<Item = EntryIx> + '_ {
        let due = self.deadlines.iter().take_while(move |(deadline, _)| *deadline < limit);
        due.map(|(_, entry)| *entry)
    }

    /// Requests whose deadline has passed, and the next deadline after.
    pub(crate) fn expired(&self, now: Instant) -> (impl Iterator<Item = EntryIx> + '_, Option<Instant>) {
        passed(&self.deadlines, now)
    }

    /// Requests that have waited for as long as their queue allows, and when the next will have.
    pub(crate) fn timed_out(&self, now: Instant) -> (impl Iterator<Item = EntryIx> + '_, Option<Instant>) {
        passed(&self.timeouts, now)
    }

    /// Whether all its requests have one row.
    pub(crate) fn has_single_rows(&self) -> bool {
        usize::try_from(self.rows) == Ok(self.count)
    }

    /// Who is next in a class, and what its clock shows.
    pub(crate) fn next_tenant(&self, class: usize) -> Option<(Virtual, TenantIx)> {
        self.lanes.get(class).and_then(|lane| lane.order.first().copied())
    }

    /// That tenant's next request.
    pub(crate) fn next_of(&self, class: usize, tenant: TenantIx, now: Instant) -> Option<EntryIx> {
        self.lanes.get(class)?.queues.get(&tenant)?.first(now)
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn put<T>(&mut self, tenants: &mut Tenants, index: EntryIx, entry: &Entry<T>) {
        let Entry {
            tenant, class, stand, ..
        } = entry;
        self.rows += u64::from(entry.item.rows);
        self.count += 1;
        self.arrivals.insert((stand.arrived, stand.sequence));
        self.deadlines.insert((stand.deadline, index));
        self.timeouts.extend(entry.timeout.map(|(timeout, _)| (timeout, index)));
        let Some(lane) = self.lanes.get_mut(*class) else { return };
        let queue = lane.queues.entry(*tenant).or_default();
        if queue.is_empty() {
            lane.order.insert((tenants.clock(*tenant, *class), *tenant));
            if let Some(known) = tenants.get_mut(*tenant) {
                known.places.push((entry.group, *class));
            }
        }
        queue.insert(index, stand);
    }
}

impl<T> Waiting<T> {
    pub(crate) fn entry(&self, entry: EntryIx) -> Option<&Entry<T>> {
        self.entries.get(place(entry.0)).and_then(Option::as_ref)
    }

    pub(crate) fn group(&self, group: GroupIx) -> Option<&Group> {
        self.groups.get(place(group.0)).and_then(Option::as_ref)
    }

    /// The groups that hold something, and their indices.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (GroupIx, &Group)> + '_ {
        self.active
            .iter()
            .filter_map(|index| Some((*index, self.group(*index)?)))
    }

    /// The step of a sequence that waits, if one does.
    pub(crate) fn pinned(&self, sequence: u64) -> Option<EntryIx> {
        self.pinned.get(&sequence).copied()
    }

    /// The group that a request would join, if it holds anything.
    pub(crate) fn find(
        &self,
        model: ModelIx,
        shape: &ShapeKey,
        isolated: Option<TenantIx>,
        place: Option<usize>,
    ) -> Option<(GroupIx, &Group)> {
        let name = (model, shape.clone(), isolated, place);
        let index = *self.names.get(&name)?;
        Some((index, self.group(index)?))
    }

    /// Takes a request in.
    pub(crate) fn insert(&mut self, tenants: &mut Tenants, item: Item<T>, placed: &Placed, pin: Option<Pin>) {
        let isolated = placed.isolated.then_some(placed.tenant);
        self.sequence += 1;
        let stand = Stand {
            level: placed.level,
            deadline: item.deadline,
            arrived: item.arrived,
            sequence: self.sequence,
            delayed: false,
            ages: placed.ages,
        };
        let entry = Entry {
            group: self.group_for(placed.model, &item.shape, isolated, pin),
            item,
            tenant: placed.tenant,
            model: placed.model,
            class: placed.class,
            stand,
            isolated: placed.isolated,
            cost: placed.cost,
            foreseen: placed.foreseen,
            timeout: placed.timeout,
            pin,
        };
        self.put(tenants, entry);
    }

    /// Puts a request back to where it was taken from.
    pub(crate) fn put_back(&mut self, tenants: &mut Tenants, mut entry: Entry<T>) {
        let isolated = entry.isolated.then_some(entry.tenant);
        entry.group = self.group_for(entry.model, &entry.item.shape, isolated, entry.pin);
        self.put(tenants, entry);
    }

    fn put(&mut self, tenants: &mut Tenants, entry: Entry<T>) {
        let (tenant, class, group) = (entry.tenant, entry.class, entry.group);
        // A clock is lifted only while nothing of the class waits, so no lane needs to be ordered anew.
        tenants.enter(tenant, class, entry.cost);
        let index = self.free_entries.pop().unwrap_or_else(|| {
            self.entries.push(None);
            EntryIx(u32::try_from(self.entries.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(found) = self.groups.get_mut(place(group.0)).and_then(Option::as_mut) {
            found.put(tenants, index, &entry);
            self.active.insert(group);
        }
        self.pinned.extend(entry.pin.map(|pin| (pin.sequence, index)));
        self.unpriced.came(entry.model, &entry.item.shape, entry.cost, index);
        if let Some(slot) = self.entries.get_mut(place(index.0)) {
            *slot = Some(entry);
        }
    }

    /// A request that was taken in for nothing, and is listed as such no more, costs so much.
    pub(crate) fn price(&mut self, tenants: &mut Tenants, index: EntryIx, cost: u64) {
        if let Some(known) = self.entries.get_mut(place(index.0)).and_then(Option::as_mut) {
            known.cost = known.cost.saturating_add(cost);
            self.unpriced.came(known.model, &known.item.shape, known.cost, index);
            tenants.owe(known.tenant, known.class, cost);
        }
    }

    /// Takes a request out.
    pub(crate) fn remove(&mut self, tenants: &mut Tenants, index: EntryIx) -> Option<Entry<T>> {
        let entry = self.entries.get_mut(place(index.0)).and_then(Option::take)?;
        self.free_entries.push(index);
        self.unpriced.left(entry.model, &entry.item.shape, entry.cost, &index);
        if let Some(pin) = entry.pin {
            self.pinned.remove(&pin.sequence);
        }
        tenants.leave(entry.tenant, entry.class, entry.cost);
        let Some(group) = self.groups.get_mut(place(entry.group.0)).and_then(Option::as_mut) else {
            return Some(entry);
        };
        group.rows = group.rows.saturating_sub(u64::from(entry.item.rows));
        group.count = group.count.saturating_sub(1);
        group.arrivals.remove(&(entry.stand.arrived, entry.stand.sequence));
        group.deadlines.remove(&(entry.stand.deadline, index));
        if let Some((timeout, _)) = entry.timeout {
            group.timeouts.remove(&(timeout, index));
        }
        if let Some(lane) = group.lanes.get_mut(entry.class)
            && let Some(queue) = lane.queues.get_mut(&entry.tenant)
        {
            queue.remove(index, &entry.stand);
            if queue.is_empty() {
                lane.queues.remove(&entry.tenant);
                lane.order
                    .remove(&(tenants.clock(entry.tenant, entry.class), entry.tenant));
                if let Some(tenant) = tenants.get_mut(entry.tenant) {
                    tenant.places.retain(|place| *place != (entry.group, entry.class));
                }
            }
        }
        if group.is_empty() {
            self.drop_group(entry.group);
        }
        Some(entry)
    }

    /// Puts a request behind the others of its level.
    pub(crate) fn delay(&mut self, index: EntryIx) {
        let Some(entry) = self.entries.get_mut(place(index.0)).and_then(Option::as_mut) else {
            return;
        };
        let before = entry.stand;
        entry.stand.delayed = true;
        let timeout = entry.timeout.take();
        let Some(group) = self.groups.get_mut(place(entry.group.0)).and_then(Option::as_mut) else {
            return;
        };
        if let Some((timeout, _)) = timeout {
            group.timeouts.remove(&(timeout, index));
        }
        let lane = group.lanes.get_mut(entry.class);
        if let Some(queue) = lane.and_then(|lane| lane.queues.get_mut(&entry.tenant)) {
            queue.remove(index, &before);
            queue.insert(index, &entry.stand);
        }
    }

    /// Changes a tenant's clock, and its place in every lane that it waits in.
    pub(crate) fn reclock(
        &mut self,
        tenants: &mut Tenants,
        tenant: TenantIx,
        class: usize,
        change: impl FnOnce(&mut Tenants),
    ) {
        let before = tenants.clock(tenant, class);
        change(tenants);
        let after = tenants.clock(tenant, class);
        if before == after {
            return;
        }
        let Some(places) = tenants.get(tenant).map(|tenant| &tenant.places) else {
            return;
        };
        for (group, _) in places.iter().filter(|(_, other)| *other == class) {
            let group = self.groups.get_mut(place(group.0)).and_then(Option::as_mut);
            if let Some(lane) = group.and_then(|group| group.lanes.get_mut(class))
                && lane.order.remove(&(before, tenant))
            {
                lane.order.insert((after, tenant));
            }
        }
    }

    /// The requests of which `wanted` is true; looks at all.
    pub(crate) fn entries_where(&self, wanted: impl Fn(&Entry<T>) -> bool) -> Vec<EntryIx> {
        let of = |(index, entry): (usize, &Option<Entry<T>>)| {
            let index = u32::try_from(index).ok()?;
            wanted(entry.as_ref()?).then_some(EntryIx(index))
        };
        self.entries.iter().enumerate().filter_map(of).collect()
    }

    fn group_for(&mut self, model: ModelIx, shape: &ShapeKey, isolated: Option<TenantIx>, pin: Option<Pin>) -> GroupIx {
        let only = pin.map(|pin| pin.place);
        let name = (model, shape.clone(), isolated, only);
        if let Some(known) = self.names.get(&name) {
            return *known;
        }
        let group = Group {
            model,
            shape: shape.clone(),
            isolated,
            place: only,
            lanes: [Lane::default(), Lane::default()],
            rows: 0,
            count: 0,
            arrivals: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            timeouts: BTreeSet::new(),
        };
        let index = self.free_groups.pop().unwrap_or_else(|| {
            self.groups.push(None);
            GroupIx(u32::try_from(self.groups.len() - 1).unwrap_or(u32::MAX))
        });
        if let Some(slot) = self.groups.get_mut(place(index.0)) {
            *slot = Some(group);
        }
        self.names.insert(name, index);
        index
    }

    /// A group per shape that was ever seen would grow without bound.
    fn drop_group(&mut self, index: GroupIx) {
        self.active.remove(&index);
        if let Some(group) = self.groups.get_mut(place(index.0)).and_then(Option::take) {
            self.names
                .remove(&(group.model, group.shape, group.isolated, group.place));
            self.free_groups.push(index);
        }
    }

    /// Whether nothing waits and nothing is left of what did.
    #[cfg(test)]
    pub(crate) fn is_bare(&self) -> bool {
        self.entries.iter().all(Option::is_none)
            && self.names.is_empty()
            && self.active.is_empty()
            && self.pinned.is_empty()
            && self.unpriced.is_empty()
    }
}

/// What is due at `now`, and when the rest begins to be.
fn passed(due: &BTreeSet<(Instant, EntryIx)>, now: Instant) -> (impl Iterator<Item = EntryIx> + '_, Option<Instant>) {
    let passed = due
        .iter()
        .take_while(move |(at, _)| *at <= now)
        .map(|(_, entry)| *entry);
    let next = due.range((now, EntryIx(u32::MAX))..).next().map(|(at, _)| *at);
    (passed, next)
}

fn place(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
