//! How many rows of a shape fit into the device's memory, for the shapes for which it ran out.
//!
//! Kept apart from latencies: those are forgotten for shapes that are used longer ago than others, and learnt again at no cost,
//! while a batch that finds no memory costs everybody in it. Only shapes for which memory ran out are here, and each leaves once
//! so many batches have gone well, of however many rows, that its limit is raised to what the model takes.
//!
//! Invariants: a limit is only lowered by running out, and only raised by a quarter after [`RAISE_AFTER`] batches that went well;
//! at most [`MAX_FITS`] shapes of a model are kept, and the one used longest ago gives way; [`Fits::fewest`] is the least of all.

use std::collections::BTreeMap;

use ahash::AHashMap as HashMap;

use crate::{ShapeKey, item::Extents};

/// The most shapes of one model for which it is remembered that memory ran out.
pub(crate) const MAX_FITS: usize = 1_024;
/// After so many batches without trouble, a limit learnt from running out of memory is raised by a quarter.
pub(crate) const RAISE_AFTER: u32 = 64;

/// What is known of one shape.
#[derive(Debug, Clone, Copy)]
struct Fit {
    rows: u32,
    untroubled: u32,
    used: u64,
}

/// The limits of one model.
#[derive(Debug, Default)]
pub(crate) struct Fits {
    by_shape: HashMap<Extents, Fit>,
    /// How many shapes have each limit.
    by_rows: BTreeMap<u32, usize>,
    uses: u64,
}

impl Fits {
    /// The rows of this shape that fit; none where memory has not run out.
    pub(crate) fn of(&self, shape: &ShapeKey) -> Option<u32> {
        self.by_shape.get(shape.extents()).map(|fit| fit.rows)
    }

    /// The least of all.
    pub(crate) fn fewest(&self) -> Option<u32> {
        self.by_rows.first_key_value().map(|(rows, _)| *rows)
    }

    /// Memory ran out, and so many rows are taken to fit; not more than before.
    pub(crate) fn ran_out(&mut self, shape: &ShapeKey, rows: u32) {
        let shape = shape.extents();
        if self.by_shape.len() >= MAX_FITS && !self.by_shape.contains_key(shape) {
            let oldest = self.by_shape.iter().min_by_key(|(_, fit)| fit.used);
            if let Some(oldest) = oldest.map(|(shape, _)| shape.clone()) {
                self.forget(&oldest);
            }
        }
        let before = self.by_shape.get(shape).map(|fit| fit.rows);
        self.set(shape, before.map_or(rows, |before| before.min(rows)), 0);
    }

    /// A batch of this shape went well; one of the model has so many rows at most.
    pub(crate) fn went_well(&mut self, shape: &ShapeKey, largest: u32) {
        let shape = shape.extents();
        let Some(Fit { rows, untroubled, .. }) = self.by_shape.get(shape).copied() else {
            return;
        };
        if untroubled + 1 < RAISE_AFTER {
            self.set(shape, rows, untroubled + 1);
            return;
        }
        let raised = rows.saturating_add((rows / 4).max(1));
        if raised < largest {
            self.set(shape, raised, 0);
        } else {
            self.forget(shape);
        }
    }

    fn set(&mut self, shape: &Extents, rows: u32, untroubled: u32) {
        self.uses += 1;
        let used = self.uses;
        let fit = Fit { rows, untroubled, used };
        match self.by_shape.insert(shape.clone(), fit) {
            Some(before) if before.rows == rows => return,
            Some(before) => self.uncount(before.rows),
            None => {}
        }
        *self.by_rows.entry(rows).or_default() += 1;
    }

    fn forget(&mut self, shape: &Extents) {
        if let Some(fit) = self.by_shape.remove(shape) {
            self.uncount(fit.rows);
        }
    }

    fn uncount(&mut self, rows: u32) {
        if let Some(count) = self.by_rows.get_mut(&rows) {
            *count -= 1;
            if *count == 0 {
                self.by_rows.remove(&rows);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shape(extent: usize) -> ShapeKey {
        ShapeKey::of([[1, extent as u64].as_slice()].into_iter())
    }

    #[test]
    fn so_many_shapes_are_kept_and_of_one_more_the_one_used_longest_ago_gives_way() {
        let mut fits = Fits::default();
        for extent in 0..MAX_FITS {
            fits.ran_out(&shape(extent), 4);
        }
        assert_eq!((fits.by_shape.len(), fits.of(&shape(0))), (MAX_FITS, Some(4)));
        fits.went_well(&shape(0), 100);
        fits.ran_out(&shape(MAX_FITS), 4);
        assert_eq!(fits.by_shape.len(), MAX_FITS);
        let kept = [0, 1, 2, MAX_FITS].map(|extent| fits.of(&shape(extent)));
        assert_eq!(kept, [Some(4), None, Some(4), Some(4)]);
    }

    proptest! {
        #[test]
        fn the_fewest_are_those_of_a_walk_over_all(
            acts in prop::collection::vec((any::<bool>(), 0..6_usize, 1..20_u32, 0..90_u32), 1..60)
        ) {
            let mut fits = Fits::default();
            for (runs_out, extent, rows, batches) in acts {
                let before = fits.of(&shape(extent));
                if runs_out {
                    fits.ran_out(&shape(extent), rows);
                    prop_assert_eq!(fits.of(&shape(extent)), Some(before.map_or(rows, |before| before.min(rows))));
                } else {
                    (0..batches).for_each(|_| fits.went_well(&shape(extent), 16));
                    prop_assert!(fits.of(&shape(extent)).is_none_or(|rows| before.is_some_and(|before| rows >= before)));
                }
                let walked = fits.by_shape.values().map(|fit| fit.rows).min();
                prop_assert_eq!(fits.fewest(), walked);
                prop_assert_eq!(fits.by_rows.values().sum::<usize>(), fits.by_shape.len());
            }
        }
    }
}
