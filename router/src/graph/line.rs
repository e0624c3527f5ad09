//! Who waits at a gate, and who is next. Pure: what waits is the caller's to wake.
//!
//! Interactive requests go before those of the batch class, which gets one place of [`BATCH_FLOOR`] while it waits. Within a
//! class tenants take turns by weight: each has a tag, the virtual time at which its next request is due, a turn lasts one over
//! the weight, and the earliest tag goes first. A tenant's own requests go in the order in which they came. Whoever waits no more
//! has no tag: it comes back at the tag that was served last, so that nobody saves up turns by staying away.
//!
//! Invariants: of a tenant and class at most [`MAX_WAITING`] wait, of a class those of at most [`MAX_WAITING_TENANTS`]; a tenant
//! without waiting requests is forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use mesh_types::{ServiceClass, TenantId};

/// The most requests of one tenant and class that wait at one step's gate; one more is refused.
pub const MAX_WAITING: usize = 1_024;
/// The most tenants whose requests of one class wait at one step's gate; those of one more are refused.
pub const MAX_WAITING_TENANTS: usize = 1_024;
/// Of so many places one goes to the batch class, if it waits.
const BATCH_FLOOR: u32 = 10;
/// How long a turn of weight 1 is, in virtual time.
const TURN: u64 = 1 << 20;

/// Why a request may not wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// As many of the tenant wait as may.
    Tenant,
    /// As many tenants wait as may.
    Tenants,
}

/// A place in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Number {
    tenant: TenantId,
    class: ServiceClass,
    number: u64,
}

/// All that wait at one gate.
#[derive(Debug)]
pub(super) struct Line<T> {
    interactive: Lane<T>,
    batch: Lane<T>,
    /// Interactive requests that went past waiting ones of the batch class, since one of those went.
    passed: u32,
    next: u64,
}

#[derive(Debug)]
struct Lane<T> {
    tenants: HashMap<TenantId, Own<T>>,
    order: BTreeSet<(u64, TenantId)>,
    /// The tag that was served last.
    served: u64,
}

/// What one tenant has waiting.
#[derive(Debug)]
struct Own<T> {
    tag: u64,
    turn: u64,
    /// By their number, so in the order in which they came.
    waiting: BTreeMap<u64, T>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self {
            interactive: Lane::default(),
            batch: Lane::default(),
            passed: 0,
            next: 0,
        }
    }
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            tenants: HashMap::new(),
            order: BTreeSet::new(),
            served: 0,
        }
    }
}

impl<T> Line<T> {
    fn lane(&mut self, class: ServiceClass) -> &mut Lane<T> {
        match class {
            ServiceClass::Interactive => &mut self.interactive,
            ServiceClass::Batch => &mut self.batch,
        }
    }

    /// Waits from now on, unless as many do as may.
    pub(super) fn join(
        &mut self,
        tenant: &TenantId,
        class: ServiceClass,
        weight: u32,
        item: T,
    ) -> Result<Number, Full> {
        let number = self.next;
        self.lane(class).join(tenant, weight, number, item)?;
        self.next += 1;
        Ok(Number {
            tenant: tenant.clone(),
            class,
            number,
        })
    }

    /// Who is next; it waits no more.
    pub(super) fn pop(&mut self) -> Option<T> {
        let batch_waits = !self.batch.order.is_empty();
        if batch_waits && (self.passed + 1 >= BATCH_FLOOR || self.interactive.order.is_empty()) {
            self.passed = 0;
            return self.batch.pop();
        }
        self.passed = if batch_waits { self.passed + 1 } else { 0 };
        self.interactive.pop()
    }

    /// Leaves the line; none if it was next before.
    pub(super) fn leave(&mut self, number: &Number) -> Option<T> {
        self.lane(number.class).leave(&number.tenant, number.number)
    }
}

impl<T> Lane<T> {
    fn join(&mut self, tenant: &TenantId, weight: u32, number: u64, item: T) -> Result<(), Full> {
        let turn = (TURN / u64::from(weight.max(1))).max(1);
        if let Some(own) = self.tenants.get_mut(tenant) {
            if own.waiting.len() >= MAX_WAITING {
                return Err(Full::Tenant);
            }
            own.turn = turn;
            own.waiting.insert(number, item);
            return Ok(());
        }
        if self.tenants.len() >= MAX_WAITING_TENANTS {
            return Err(Full::Tenants);
        }
        let tag = self.served.saturating_add(turn);
        self.order.insert((tag, tenant.clone()));
        let waiting = BTreeMap::from([(number, item)]);
        self.tenants.insert(tenant.clone(), Own { tag, turn, waiting });
        Ok(())
    }

    fn pop(&mut self) -> Option<T> {
        let (tag, tenant) = self.order.pop_first()?;
        self.served = tag;
        let own = self.tenants.get_mut(&tenant)?;
        let next = own.waiting.pop_first().map(|(_, item)| item);
        if own.waiting.is_empty() {
            self.tenants.remove(&tenant);
        } else {
            own.tag = tag.saturating_add(own.turn);
            self.order.insert((own.tag, tenant));
        }
        next
    }

    fn leave(&mut self, tenant: &TenantId, number: u64) -> Option<T> {
        let own = self.tenants.get_mut(tenant)?;
        let left = own.waiting.remove(&number)?;
        if own.waiting.is_empty() {
            let tag = own.tag;
            self.order.remove(&(tag, tenant.clone()));
            self.tenants.remove(tenant);
        }
        Some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: ServiceClass = ServiceClass::Interactive;

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn served(line: &mut Line<&'static str>, count: usize) -> Vec<&'static str> {
        std::iter::from_fn(|| line.pop()).take(count).collect()
    }

    fn join(line: &mut Line<&'static str>, name: &'static str, class: ServiceClass, weight: u32) -> Number {
        line.join(&tenant(name), class, weight, name).unwrap()
    }

    #[test]
    fn tenants_take_turns_by_weight_however_many_of_one_wait() {
        let mut line = Line::default();
        for _ in 0..100 {
            join(&mut line, "flood", NOW, 1);
        }
        assert_eq!(served(&mut line, 3), ["flood"; 3]);
        for _ in 0..6 {
            join(&mut line, "late", NOW, 1);
            join(&mut line, "heavy", NOW, 2);
        }
        let next = served(&mut line, 8);
        let count = |name: &str| next.iter().filter(|served| **served == name).count();
        assert_eq!((count("flood"), count("late"), count("heavy")), (2, 2, 4), "{next:?}");
    }

    #[test]
    fn who_comes_back_has_saved_up_nothing() {
        let mut line = Line::default();
        for _ in 0..10 {
            join(&mut line, "stays", NOW, 1);
        }
        assert_eq!(served(&mut line, 5), ["stays"; 5]);
        for _ in 0..10 {
            join(&mut line, "away", NOW, 1);
        }
        let next = served(&mut line, 6);
        assert_eq!(next.iter().filter(|name| **name == "stays").count(), 3, "{next:?}");
    }

    #[test]
    fn the_batch_class_waits_for_interactive_requests_but_gets_one_place_in_ten() {
        let mut line = Line::default();
        for _ in 0..2 {
            join(&mut line, "batch", ServiceClass::Batch, 100);
        }
        for _ in 0..20 {
            join(&mut line, "now", NOW, 1);
        }
        let next = served(&mut line, 20);
        let places: Vec<usize> = (0..20).filter(|at| next[*at] == "batch").collect();
        assert_eq!(places, [9, 19]);
        assert_eq!(served(&mut line, 20).len(), 2);
    }

    #[test]
    fn who_leaves_is_passed_over_and_nothing_is_kept_of_it() {
        let mut line = Line::default();
        let first = join(&mut line, "a", NOW, 1);
        let second = join(&mut line, "b", NOW, 1);
        assert_eq!(line.leave(&first), Some("a"));
        assert_eq!(line.leave(&first), None);
        assert_eq!(line.pop(), Some("b"));
        assert_eq!(line.leave(&second), None);
        assert!(line.interactive.tenants.is_empty() && line.interactive.order.is_empty());
    }

    #[test]
    fn as_many_of_a_tenant_and_as_many_tenants_wait_as_may_and_one_more_does_not() {
        let mut line = Line::default();
        for _ in 0..MAX_WAITING {
            join(&mut line, "flood", NOW, 1);
        }
        assert_eq!(line.join(&tenant("flood"), NOW, 1, "x"), Err(Full::Tenant));
        assert!(line.join(&tenant("flood"), ServiceClass::Batch, 1, "x").is_ok());
        for number in 1..MAX_WAITING_TENANTS {
            line.join(&tenant(&format!("t{number}")), NOW, 1, "x").unwrap();
        }
        assert_eq!(line.join(&tenant("more"), NOW, 1, "x"), Err(Full::Tenants));
        while line.pop().is_some() {}
        assert!(line.interactive.tenants.is_empty() && line.interactive.order.is_empty());
        assert!(line.batch.tenants.is_empty() && line.batch.order.is_empty());
    }
}
