//! The models of one device: their rules, what has been learnt of their latency, and who holds how much of their queues.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use ahash::AHashMap as HashMap;
use smallvec::SmallVec;

use crate::{
    BatchRules, Latency, ShapeKey, TooLarge,
    admission::Caution,
    exploring::Exploring,
    fits::Fits,
    item::{Extents, RefusedFor},
    latency::Enough,
    tenants::TenantIx,
    waiting::ModelIx,
};

/// The most shapes of one model whose latency is remembered; the one used longest ago gives way.
pub const MAX_SHAPES: usize = 64;
/// One tenant's bound on a model's queue, times this, is the bound of all tenants together.
pub const QUEUES_PER_MODEL: usize = 4;
/// An idle device takes a request that it believes to be too late once nothing of the model has run for so long.
const FRESH: Duration = Duration::from_millis(100);

/// What is known of one shape.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) latency: Latency,
    /// The rows at which a batch is full, as of the last observation: for one tenant, and for several.
    efficient: u32,
    in_company: u32,
    /// Rows of the last batch that went well.
    ran: u32,
    used: u64,
}

/// Latencies by shape; parameters are no part of it.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    by_shape: HashMap<Extents, Known>,
    uses: u64,
}

#[derive(Debug, Default)]
struct Held {
    all: usize,
    levels: SmallVec<[usize; 1]>,
}

/// One model.
#[derive(Debug)]
pub(crate) struct Model<K> {
    serial: u32,
    pub(crate) key: K,
    pub(crate) rules: BatchRules,
    pub(crate) latencies: Latencies,
    fits: Fits,
    pub(crate) waiting: usize,
    /// Device time that waits for it, in nanoseconds.
    pub(crate) backlog: u64,
    held: HashMap<TenantIx, Held>,
    /// How much longer than predicted a wait is taken for.
    pub(crate) caution: Caution,
    /// The slots that have said that they can run it, a bit for each of the first 64.
    slots: u64,
    pub(crate) exploring: Exploring,
    /// When a batch ended last.
    ran: Option<Instant>,
}

impl Latencies {
    pub(crate) fn get(&self, shape: &ShapeKey) -> Option<&Latency> {
        let known = self.by_shape.get(shape.extents());
        known.map(|known| &known.latency).filter(|latency| latency.is_known())
    }

    /// What is known of a shape, made if need be.
    fn of(&mut self, shape: &ShapeKey) -> &mut Known {
        let shape = shape.extents();
        self.uses += 1;
        if self.by_shape.len() >= MAX_SHAPES && !self.by_shape.contains_key(shape) {
            let oldest = self.by_shape.iter().min_by_key(|(_, known)| known.used);
            if let Some(oldest) = oldest.map(|(shape, _)| shape.clone()) {
                self.by_shape.remove(&oldest);
            }
        }
        let known = self.by_shape.entry(shape.clone()).or_default();
        known.used = self.uses;
        known
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (ShapeKey, &Latency)> {
        let all = self.by_shape.iter();
        all.map(|(shape, known)| (shape.clone().into(), &known.latency))
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.by_shape.len()
    }
}

/// How long batches of a shape take, and at how many rows one is full.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sizing<'a> {
    pub(crate) latency: Option<&'a Latency>,
    pub(crate) full: u32,
    /// The most rows that a batch may have.
    pub(crate) most: u32,
    shared: bool,
}

impl Sizing<'_> {
    /// The expected cost of one request among others: its rows' part of a full batch.
    pub(crate) fn cost(&self, rows: u32) -> Duration {
        let Some(latency) = self.latency else {
            return Duration::ZERO;
        };
        if !self.shared {
            return latency.mean(rows).unwrap_or_default();
        }
        let full = self.full.max(rows).max(1);
        let whole = latency.mean(full).unwrap_or_default();
        whole.mul_f64(f64::from(rows) / f64::from(full))
    }

    /// The 99th percentile of a batch of so many rows; nothing while nothing is known.
    pub(crate) fn tail(&self, rows: u32) -> Duration {
        self.latency.and_then(|latency| latency.tail(rows)).unwrap_or_default()
    }
}

impl<K> Model<K> {
    fn new(key: K, rules: BatchRules, serial: u32) -> Self {
        Self {
            serial,
            key,
            rules,
            latencies: Latencies::default(),
            fits: Fits::default(),
            waiting: 0,
            held: HashMap::default(),
            backlog: 0,
            caution: Caution::default(),
            slots: 0,
            exploring: Exploring::default(),
            ran: None,
        }
    }

    /// Whether a batch has ended lately. Where none has, what was learnt may be wrong, and only a batch can show that: a
    /// prediction that refuses everything would never be put right.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.ran.is_some_and(|ran| now.saturating_duration_since(ran) < FRESH)
    }

    /// A batch has ended.
    pub(crate) fn has_run(&mut self, now: Instant) {
        self.ran = Some(now);
    }

    /// The slot can run it, or not.
    pub(crate) fn runs_on(&mut self, slot: usize, runs: bool) {
        let bit = u32::try_from(slot)
            .ok()
            .and_then(|slot| 1_u64.checked_shl(slot))
            .unwrap_or(0);
        self.slots = if runs { self.slots | bit } else { self.slots & !bit };
    }

    /// Whether the slot can run it, as far as is known.
    pub(crate) fn may_run_on(&self, slot: usize) -> bool {
        let bit = u32::try_from(slot).ok().and_then(|slot| 1_u64.checked_shl(slot));
        self.slots == 0 || bit.is_none_or(|bit| self.slots & bit != 0)
    }

    /// What is known of batches of this shape, for one tenant or for several that use the device together.
    pub(crate) fn sizing(&self, shape: &ShapeKey, company: bool) -> Sizing<'_> {
        let known = self.latencies.by_shape.get(shape.extents());
        let largest = self.rules.largest();
        let most = self.fits.of(shape).map_or(largest, |rows| rows.min(largest));
        let latency = known.map(|known| &known.latency).filter(|latency| latency.is_known());
        Sizing {
            latency,
            full: match known {
                Some(known) if self.rules.right_size && latency.is_some() => {
                    // A little of the rate is worth it only where everybody waits half as long.
                    let smaller = company && known.in_company <= known.efficient / 2;
                    let rows = if smaller { known.in_company } else { known.efficient };
                    rows.clamp(1, most)
                }
                _ => most,
            },
            most,
            shared: self.rules.shared,
        }
    }

    /// Learns something of a shape's latency.
    pub(crate) fn learn(&mut self, shape: &ShapeKey, learn: impl FnOnce(&mut Latency)) {
        let largest = self.rules.largest();
        let known = self.latencies.of(shape);
        learn(&mut known.latency);
        let Known { latency, .. } = &*known;
        let now = |current: u32, enough| latency.efficient_rows(largest, (current > 0).then_some(current), enough);
        let efficient = now(known.efficient, Enough::ALONE);
        let in_company = now(known.in_company, Enough::IN_COMPANY);
        (known.efficient, known.in_company) = (efficient, in_company);
    }

    /// The device ran out of memory at so many rows of this shape: half of them are taken to fit, or as many as it had memory for
    /// just now.
    pub(crate) fn too_large(&mut self, shape: &ShapeKey, large: TooLarge) {
        let known = self.latencies.by_shape.get(shape.extents());
        let ran = known.map_or(0, |known| known.ran);
        let had = [large.fitted, ran].into_iter().filter(|rows| *rows < large.rows);
        let rows = had.max().unwrap_or(0).max(large.rows / 2).max(1);
        self.fits.ran_out(shape, rows);
    }

    /// So many rows of any of its shapes fit into the device's memory; none while it has not run out.
    pub(crate) fn fitting(&self) -> Option<u32> {
        self.fits.fewest()
    }

    /// A batch of this shape went well.
    pub(crate) fn went_well(&mut self, shape: &ShapeKey, rows: u32) {
        if let Some(known) = self.latencies.by_shape.get_mut(shape.extents()) {
            known.ran = rows;
        }
        self.fits.went_well(shape, self.rules.largest());
    }

    /// The model is another one from now on.
    pub(crate) fn unlearn(&mut self) {
        (self.latencies, self.fits) = Default::default();
    }

    /// Whether the tenant may have one more request in the queue of this level.
    ///
    /// Bounds are per tenant, so that one tenant's full queue is not another's; the bound on all together lets each have as
    /// much as is still free (dynamic thresholds, Choudhury and Hahne, 1998), which leaves room for whoever comes next.
    pub(crate) fn has_room(&self, tenant: TenantIx, level: usize) -> Result<(), RefusedFor> {
        let held = self.held.get(&tenant);
        let all = held.map_or(0, |held| held.all);
        let at_level = held.and_then(|held| held.levels.get(level).copied()).unwrap_or(0);
        let free = (self.rules.max_queue * QUEUES_PER_MODEL).saturating_sub(self.waiting);
        let level_bound = self
            .rules
            .levels
            .get(level)
            .map_or(self.rules.max_queue, |level| level.max_queue);
        if all >= self.rules.max_queue || all >= free || at_level >= level_bound {
            return Err(RefusedFor::Full);
        }
        Ok(())
    }

    pub(crate) fn entered(&mut self, tenant: TenantIx, level: usize, cost: u64) {
        self.waiting += 1;
        self.backlog = self.backlog.saturating_add(cost);
        let held = self.held.entry(tenant).or_default();
        held.all += 1;
        if held.levels.len() <= level {
            held.levels.resize(level + 1, 0);
        }
        if let Some(count) = held.levels.get_mut(level) {
            *count += 1;
        }
    }

    pub(crate) fn left(&mut self, tenant: TenantIx, level: usize, cost: u64) {
        self.waiting = self.waiting.saturating_sub(1);
        self.backlog = self.backlog.saturating_sub(cost);
        let Some(held) = self.held.get_mut(&tenant) else { return };
        held.all = held.all.saturating_sub(1);
        if let Some(count) = held.levels.get_mut(level) {
            *count = count.saturating_sub(1);
        }
        if held.all == 0 {
            self.held.remove(&tenant);
        }
    }
}

/// All models of one device.
#[derive(Debug)]
pub(crate) struct Models<K> {
    by_key: HashMap<K, ModelIx>,
    slots: Vec<Option<Model<K>>>,
    last_serial: u32,
}

impl<K> Default for Models<K> {
    fn default() -> Self {
        Self {
            by_key: HashMap::default(),
            slots: Vec::new(),
            last_serial: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> Models<K> {
    pub(crate) fn find(&self, key: &K) -> Option<ModelIx> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn get(&self, index: ModelIx) -> Option<&Model<K>> {
        let model = self.slots.get(place(index)).and_then(Option::as_ref);
        model.filter(|model| model.serial == index.serial)
    }

    pub(crate) fn get_mut(&mut self, index: ModelIx) -> Option<&mut Model<K>> {
        let model = self.slots.get_mut(place(index)).and_then(Option::as_mut);
        model.filter(|model| model.serial == index.serial)
    }

    pub(crate) fn of_mut(&mut self, key: &K) -> Option<&mut Model<K>> {
        let index = self.find(key)?;
        self.get_mut(index)
    }

    /// Adds a model, or gives a known one other rules.
    pub(crate) fn add(&mut self, key: K, rules: BatchRules) {
        if let Some(known) = self.of_mut(&key) {
            known.rules = rules;
            return;
        }
        self.last_serial = self.last_serial.wrapping_add(1);
        let serial = self.last_serial;
        let free = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        if let Some(slot) = self.slots.get_mut(free) {
            *slot = Some(Model::new(key.clone(), rules, serial));
        }
        let slot = u32::try_from(free).unwrap_or(u32::MAX);
        self.by_key.insert(key, ModelIx { slot, serial });
    }

    pub(crate) fn remove(&mut self, key: &K) {
        if let Some(index) = self.by_key.remove(key)
            && let Some(slot) = self.slots.get_mut(place(index))
        {
            *slot = None;
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Model<K>> {
        self.slots.iter().flatten()
    }
}

fn place(index: ModelIx) -> usize {
    usize::try_from(index.slot).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fits::RAISE_AFTER;
    use mesh_types::ModelConfig;

    fn model() -> Model<()> {
        let config = ModelConfig {
            max_batch_size: 16,
            dynamic_batching: Some(mesh_types::DynamicBatching::default()),
            ..ModelConfig::default()
        };
        Model::new((), BatchRules::of(&config, 8), 0)
    }

    #[test]
    fn latencies_are_remembered_for_so_many_shapes_and_no_more() {
        let mut latencies = Latencies::default();
        let shape = |extent: usize| ShapeKey::of([[1, extent as u64].as_slice()].into_iter());
        for extent in 0..MAX_SHAPES {
            latencies
                .of(&shape(extent))
                .latency
                .observe(1, Duration::from_millis(1));
        }
        // Used again, so the second is the one used longest ago.
        latencies.of(&shape(0));
        latencies
            .of(&shape(MAX_SHAPES))
            .latency
            .observe(1, Duration::from_millis(1));
        assert_eq!(latencies.len(), MAX_SHAPES);
        assert!(latencies.get(&shape(0)).is_some() && latencies.get(&shape(1)).is_none());
    }

    #[test]
    fn a_limit_learnt_from_running_out_of_memory_is_of_one_shape_and_is_raised_slowly() {
        let mut model = model();
        let (tight, other) = (ShapeKey::default(), ShapeKey::of([[1, 7].as_slice()].into_iter()));
        model.too_large(&tight, TooLarge { rows: 12, fitted: 0 });
        assert_eq!(
            (model.sizing(&tight, false).most, model.sizing(&other, false).most),
            (6, 16)
        );
        for _ in 0..RAISE_AFTER {
            model.went_well(&tight, 6);
        }
        assert_eq!(model.sizing(&tight, false).most, 7);
        for _ in 0..RAISE_AFTER * 20 {
            model.went_well(&tight, 4);
        }
        assert_eq!(model.sizing(&tight, false).most, 16);
    }

    #[test]
    fn what_fits_is_known_still_of_a_shape_whose_latency_has_given_way() {
        let mut model = model();
        let shape = |extent: usize| ShapeKey::of([[1, extent as u64].as_slice()].into_iter());
        let tight = shape(0);
        model.learn(&tight, |latency| latency.observe(1, Duration::from_millis(1)));
        model.too_large(&tight, TooLarge { rows: 12, fitted: 0 });
        for extent in 1..=MAX_SHAPES {
            model.learn(&shape(extent), |latency| latency.observe(1, Duration::from_millis(1)));
        }
        assert!(model.latencies.get(&tight).is_none(), "it has given way");
        assert_eq!((model.sizing(&tight, false).most, model.fitting()), (6, Some(6)));
        // It is raised all the same, and forgotten with the model.
        for _ in 0..RAISE_AFTER {
            model.went_well(&tight, 6);
        }
        assert_eq!(model.sizing(&tight, false).most, 7);
        model.unlearn();
        assert_eq!((model.sizing(&tight, false).most, model.fitting()), (16, None));
    }

    #[test]
    fn a_shape_that_is_used_all_the_time_stays_however_many_others_come() {
        let mut model = model();
        let shape = |extent: usize| ShapeKey::of([[1, extent as u64].as_slice()].into_iter());
        for extent in 1..MAX_SHAPES * 20 {
            for extent in [0, extent] {
                model.learn(&shape(extent), |latency| latency.observe(1, Duration::from_millis(1)));
            }
        }
        assert!(model.latencies.get(&shape(0)).is_some());
        assert_eq!(model.latencies.len(), MAX_SHAPES);
    }

    #[test]
    fn what_had_memory_just_now_is_taken_to_fit_though_it_is_more_than_half() {
        let most = |ran: u32, rows: u32, fitted: u32| {
            let mut model = model();
            let shape = ShapeKey::default();
            model.latencies.of(&shape);
            model.went_well(&shape, ran);
            model.too_large(&shape, TooLarge { rows, fitted });
            model.sizing(&shape, false).most
        };
        assert_eq!([most(0, 3, 0), most(0, 3, 2), most(2, 3, 0)], [1, 2, 2]);
        assert_eq!([most(0, 8, 2), most(2, 8, 0), most(7, 8, 0)], [4, 4, 7]);
        // Memory that others use comes and goes: what fitted before and does not now says nothing.
        assert_eq!([most(8, 8, 0), most(0, 8, 9), most(0, 1, 0)], [4, 4, 1]);
    }

    #[test]
    fn however_many_flood_there_is_room_for_one_more() {
        let mut tenants = crate::tenants::Tenants::default();
        let mut model = model();
        let mut meet = |name: &str| tenants.meet(&name.parse().unwrap(), mesh_types::TenantShare::default());
        let flooding: Vec<_> = (0..20).map(|index| meet(&format!("t{index}"))).collect();
        for _ in 0..100 {
            for tenant in &flooding {
                if model.has_room(*tenant, 0).is_ok() {
                    model.entered(*tenant, 0, 0);
                }
            }
        }
        assert!(model.waiting < 8 * QUEUES_PER_MODEL);
        assert!(model.has_room(meet("polite"), 0).is_ok());
    }
}
