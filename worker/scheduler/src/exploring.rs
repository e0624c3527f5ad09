//! Other sizes of full batches than the one in use, now and then: what is not tried is known from the warm-up alone.
//!
//! Owns when, and which. What was learnt of them is the latency model's, and which of them is used follows from that.

use crate::latency::{next_above, next_below};

/// Every so many full batches of a right-sized model one has another size, so that neither a gain by larger batches is overlooked nor
/// a smaller size stays out of use for what it took once, in a bad moment.
const EXPLORE_EVERY: u32 = 32;
/// Of so many of those one is larger: whoever is in it, or behind it, waits longer, and where it was one batch in a hundred, the 99th
/// percentile would be that. The others are smaller and cost next to nothing.
const LARGER_EVERY: u32 = 4;

/// Counts a model's full batches.
#[derive(Debug, Default)]
pub(crate) struct Exploring {
    full_batches: u32,
}

impl Exploring {
    /// A batch is about to be formed of as many rows as it can take; the size to use, now and then another one: by turns the next
    /// that is learnt, and half or twice as many for what lies further away.
    pub(crate) fn next(&mut self, full: u32, most: u32) -> u32 {
        self.full_batches = self.full_batches.wrapping_add(1);
        if !self.full_batches.is_multiple_of(EXPLORE_EVERY) {
            return full;
        }
        let turn = self.full_batches / EXPLORE_EVERY;
        if turn.is_multiple_of(LARGER_EVERY) {
            let near = (turn / LARGER_EVERY) % 2 == 1;
            let rows = if near { next_above(full) } else { full.saturating_mul(2) };
            return rows.min(most);
        }
        if turn % 2 == 1 {
            next_below(full)
        } else {
            full.div_ceil(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn sizes_beside_the_one_in_use_are_tried_the_nearest_and_further_ones_and_seldom_larger_ones() {
        let mut exploring = Exploring::default();
        let mut tried = BTreeMap::<u32, u32>::new();
        for _ in 0..EXPLORE_EVERY * LARGER_EVERY * 200 {
            *tried.entry(exploring.next(6, 16)).or_default() += 1;
        }
        let of = |rows: u32| tried.get(&rows).copied().unwrap_or(0);
        assert_eq!((of(3), of(4), of(8), of(12)), (200, 400, 100, 100));
        assert_eq!(tried.len(), 5, "{tried:?}");
        // Whoever waits notices a larger batch less often than once in a hundred.
        assert!((of(8) + of(12)) * 100 < of(6), "{tried:?}");
        let beyond = (0..1_000).map(|_| exploring.next(16, 16)).max();
        assert_eq!(beyond, Some(16));
        let least = (0..1_000).map(|_| exploring.next(1, 16)).min();
        assert_eq!(least, Some(1));
    }
}
