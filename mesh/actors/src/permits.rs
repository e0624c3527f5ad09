//! Bounded admission: so many at once, and an immediate no after that.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A counter with a bound.
#[derive(Debug, Clone)]
pub struct Permits {
    taken: Arc<AtomicUsize>,
    bound: usize,
}

/// One place; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    taken: Arc<AtomicUsize>,
}

impl Permits {
    /// At most `bound` at once.
    pub fn new(bound: usize) -> Self {
        Self {
            taken: Arc::default(),
            bound,
        }
    }

    /// A place, or none if all are taken. Never waits.
    pub fn try_acquire(&self) -> Option<Permit> {
        let take = |taken: usize| (taken < self.bound).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        taken.is_ok().then(|| Permit {
            taken: self.taken.clone(),
        })
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_admitted_and_one_more_is_not_until_one_is_given_back() {
        let permits = Permits::new(2);
        let first = permits.try_acquire().unwrap();
        let _second = permits.try_acquire().unwrap();
        assert!(permits.try_acquire().is_none());
        drop(first);
        assert!(permits.try_acquire().is_some());
        assert_eq!(permits.taken(), 1);
    }
}
