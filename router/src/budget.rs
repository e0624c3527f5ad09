//! Memory for what doors read, shared by all threads: callers without a credential must not be able to fill it.
//!
//! A door counts what it keeps beyond a connection's own buffer, until the call has been answered. What does not fit is refused
//! at once.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// The bytes that all bodies may take together.
#[derive(Debug, Clone)]
pub struct Budget {
    taken: Arc<AtomicUsize>,
    bound: usize,
}

/// What one body has taken; given back when dropped.
#[derive(Debug)]
pub struct Share {
    budget: Budget,
    bytes: usize,
}

impl Budget {
    /// So many bytes.
    pub fn new(bound: usize) -> Self {
        Self {
            taken: Arc::default(),
            bound,
        }
    }

    /// A share of nothing yet.
    pub fn share(&self) -> Share {
        Share {
            budget: self.clone(),
            bytes: 0,
        }
    }
}

impl Share {
    /// Takes so many bytes more; false, and nothing taken, if they are not there.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let bound = self.budget.bound;
        let take = |taken: usize| taken.checked_add(bytes).filter(|sum| *sum <= bound);
        let taken = self
            .budget
            .taken
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
        if taken.is_ok() {
            self.bytes += bytes;
        }
        taken.is_ok()
    }

    /// What it has taken.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is more than this.
    pub fn shrink_to(&mut self, bytes: usize) {
        let surplus = self.bytes.saturating_sub(bytes);
        self.bytes -= surplus;
        self.budget.taken.fetch_sub(surplus, Ordering::AcqRel);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.shrink_to(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_given_and_one_byte_more_is_not_until_some_are_given_back() {
        let budget = Budget::new(100);
        let (mut first, mut second) = (budget.share(), budget.share());
        assert!(first.grow(60));
        assert!(second.grow(40));
        assert!(!second.grow(1));
        assert!(!second.grow(usize::MAX));
        first.shrink_to(59);
        assert!(second.grow(1));
        drop(second);
        assert!(first.grow(41));
        drop(first);
        assert!(budget.share().grow(100));
    }
}
