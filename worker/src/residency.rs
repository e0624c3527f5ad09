//! Which models stay in a device's memory and which give way: decided from figures, without a clock of its own.
//!
//! Owns what a model is worth (who used it when, and how long it takes to bring back), what a device holds, and the choice of
//! victims. Loads and unloads nothing.
//!
//! A model's worth is its reload time, multiplied by the sum over its users of the user's weight divided by the time since
//! that user came last: least recent use, with a model that takes four times as long to load kept four times as long, and one
//! of a tenant with weight two twice as long. What is worth least goes first.
//!
//! Invariants: who is pinned, busy or freshly loaded is never chosen; after the chosen have gone there is room; none is chosen
//! that need not go.

use std::time::{Duration, Instant};

use mesh_types::TenantId;
use smallvec::SmallVec;

/// The users of a model that count one by one; of more, the one that came longest ago is forgotten.
pub(crate) const MAX_USERS: usize = 8;
/// A reload is never taken to be quicker than this: below it differences are noise.
const SHORTEST_RELOAD: Duration = Duration::from_millis(5);
/// A freshly loaded model stays for so many times its load time, so that a device does not only load.
const STAYS_FOR: u32 = 2;
/// The longest such stay.
const LONGEST_STAY: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct User {
    tenant: TenantId,
    weight: u32,
    last: Instant,
}

/// Who has used a model, and when.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    users: SmallVec<[User; 2]>,
}

impl Usage {
    /// A request of this tenant has come.
    pub(crate) fn note(&mut self, now: Instant, tenant: &TenantId, weight: u32) {
        if let Some(user) = self.users.iter_mut().find(|user| user.tenant == *tenant) {
            (user.weight, user.last) = (weight, now);
            return;
        }
        if self.users.len() >= MAX_USERS {
            let oldest = self.users.iter().enumerate().min_by_key(|(_, user)| user.last);
            if let Some(index) = oldest.map(|(index, _)| index) {
                self.users.swap_remove(index);
            }
        }
        self.users.push(User {
            tenant: tenant.clone(),
            weight,
            last: now,
        });
    }

    /// When anybody came last.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.users.iter().map(|user| user.last).max()
    }

    /// What it is worth to keep a model with this use that takes so long to load again.
    pub(crate) fn worth(&self, now: Instant, reload: Duration) -> f64 {
        let of = |user: &User| {
            // Whoever came this very moment must not be worth infinitely much.
            let since = now.saturating_duration_since(user.last).max(Duration::from_micros(1));
            f64::from(user.weight.max(1)) / since.as_secs_f64()
        };
        let used: f64 = self.users.iter().map(of).sum();
        reload.max(SHORTEST_RELOAD).as_secs_f64() * used
    }
}

/// Until when a model that is ready since `since` is not asked to leave.
pub(crate) fn stays_until(since: Instant, load: Duration) -> Instant {
    since + load.saturating_mul(STAYS_FOR).min(LONGEST_STAY)
}

/// Whether something that a device holds may be asked to leave.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Guard {
    /// It may; this is what it is worth.
    Free(f64),
    /// Not before this instant.
    Until(Instant),
    /// Not now: something waits for it or runs on it, or it is being loaded.
    Busy,
    /// Never.
    Pinned,
    /// It is on its way out already.
    Leaving,
}

/// What a model takes of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Size {
    /// Instances.
    pub(crate) instances: usize,
    /// Bytes of one instance at rest.
    pub(crate) weights: u64,
    /// Further bytes while one instance runs its largest batch.
    pub(crate) peak: u64,
}

impl Size {
    /// All instances at rest.
    pub(crate) fn at_rest(&self) -> u64 {
        self.weights
            .saturating_mul(u64::try_from(self.instances).unwrap_or(u64::MAX))
    }
}

/// Something that a device holds.
#[derive(Debug, Clone)]
pub(crate) struct Holding<K> {
    pub(crate) key: K,
    pub(crate) size: Size,
    pub(crate) guard: Guard,
}

/// A device's memory, and how many batches run on it at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    pub(crate) bytes: u64,
    pub(crate) slots: usize,
}

impl Budget {
    /// The most memory that these take: all at rest, and the largest batches that can run at once.
    pub(crate) fn taken(&self, sizes: impl Iterator<Item = Size> + Clone) -> u64 {
        let rest = sizes.clone().map(|size| size.at_rest()).fold(0, u64::saturating_add);
        let mut peaks: Vec<(u64, usize)> = sizes.map(|size| (size.peak, size.instances)).collect();
        peaks.sort_unstable_by(|a, b| b.cmp(a));
        let mut slots = self.slots;
        peaks.into_iter().fold(rest, |sum, (peak, instances)| {
            let running = instances.min(slots);
            slots -= running;
            sum.saturating_add(peak.saturating_mul(u64::try_from(running).unwrap_or(u64::MAX)))
        })
    }

    fn fits<'a, K: 'a>(&self, held: impl Iterator<Item = &'a Holding<K>> + Clone, newcomer: Size) -> bool {
        let sizes = held.map(|holding| holding.size).chain([newcomer]);
        self.taken(sizes) <= self.bytes
    }
}

/// What must happen before a newcomer can be loaded.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Choice<K> {
    /// Nothing: there is room.
    Room,
    /// These must go.
    Evict(Vec<K>),
    /// Not now; worth another look at this instant, if one is named, or when something ends.
    Later(Option<Instant>),
    /// It will never fit beside what is pinned, which takes so many bytes.
    Never(u64),
}

/// Who must go so that the newcomer fits.
pub(crate) fn choose<K: Clone>(budget: Budget, held: &[Holding<K>], newcomer: Size) -> Choice<K> {
    if budget.fits(held.iter(), newcomer) {
        return Choice::Room;
    }
    let pinned = held.iter().filter(|holding| holding.guard == Guard::Pinned);
    if !budget.fits(pinned.clone(), newcomer) {
        return Choice::Never(budget.taken(pinned.map(|holding| holding.size)));
    }
    let unmoved = |holding: &&Holding<K>| !matches!(holding.guard, Guard::Leaving | Guard::Free(_));
    let mut free: Vec<(f64, &Holding<K>)> = held
        .iter()
        .filter_map(|holding| match holding.guard {
            Guard::Free(worth) => Some((worth, holding)),
            _ => None,
        })
        .collect();
    // The least worth first; of equals the larger, of which fewer have to go.
    free.sort_by(|(a, x), (b, y)| a.total_cmp(b).then(y.size.at_rest().cmp(&x.size.at_rest())));
    let fits_with = |kept: &[&Holding<K>]| {
        let stay = held.iter().filter(unmoved);
        budget.fits(stay.chain(kept.iter().copied()), newcomer)
    };
    if !fits_with(&[]) {
        let until = held.iter().filter_map(|holding| match holding.guard {
            Guard::Until(at) => Some(at),
            _ => None,
        });
        return Choice::Later(until.min());
    }
    // As few of the least worth as it takes; then whoever of them fits in after all stays, the most worth first.
    let keepers: Vec<&Holding<K>> = free.iter().map(|(_, holding)| *holding).collect();
    let (mut fewest, mut most) = (0, keepers.len());
    while fewest < most {
        let middle = fewest.midpoint(most);
        if fits_with(keepers.get(middle..).unwrap_or_default()) {
            most = middle;
        } else {
            fewest = middle + 1;
        }
    }
    let (going, staying) = keepers.split_at(fewest.min(keepers.len()));
    let mut kept = staying.to_vec();
    let mut victims = Vec::new();
    for holding in going.iter().rev() {
        kept.push(holding);
        if !fits_with(&kept) {
            kept.pop();
            victims.push(holding.key.clone());
        }
    }
    if victims.is_empty() {
        // Those that are leaving make the room.
        return Choice::Later(None);
    }
    Choice::Evict(victims)
}

#[cfg(test)]
#[path = "tests/residency.rs"]
mod tests;
