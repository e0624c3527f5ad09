//! What a load takes of a device's memory for a time, and whether there is room for it.
//!
//! A load that begins has its room kept until it is over, like a model that is there. Where there is none the load does with less: it
//! is not optimised, which takes a second form of the model beside the first. What it takes in any case keeps nobody from being
//! loaded whose model fits: a budget that is large enough for a model is large enough to load it.
//!
//! One load at a time may warm its model up past the budget, by what that takes for one batch; the others' batches are kept room for.

use mesh_backend::Passing;

use crate::residency::{Budget, Choice, Guard, Holding, Size, choose};

/// What is kept for a load besides its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Kept {
    /// Until it is over.
    pub(crate) bytes: u64,
    /// Whether that is enough for what optimising it takes.
    pub(crate) optimize: bool,
}

impl Kept {
    /// As something that a device holds.
    pub(crate) const fn size(self) -> Size {
        Size {
            instances: 1,
            weights: self.bytes,
            peak: 0,
        }
    }
}

/// What a load asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// What is to come of the model.
    pub(crate) newcomer: Size,
    /// What its load takes for a time.
    pub(crate) passing: Passing,
    /// Whether another load is under way, which may warm its model up past the budget.
    pub(crate) beside: bool,
    /// Whether others may leave memory for it.
    pub(crate) displaces: bool,
    /// Whether it has waited for long enough to do with less.
    pub(crate) impatient: bool,
}

impl Asked {
    /// What to keep for it, the most first.
    fn ways(&self) -> impl Iterator<Item = Kept> {
        let Passing { load, optimize } = self.passing;
        let run = if self.beside { self.newcomer.peak } else { 0 };
        let least = load.saturating_add(run);
        let all = Kept {
            bytes: least.saturating_add(optimize),
            optimize: true,
        };
        let plain = Kept {
            bytes: least,
            optimize: optimize == 0,
        };
        let none = Kept { bytes: 0, ..plain };
        let plain = (optimize > 0).then_some(plain);
        let none = (least > 0).then_some(none);
        std::iter::once(all).chain(plain).chain(none)
    }
}

/// What must happen before the load can begin, and what is kept for it then.
pub(crate) fn choose_for<K: Clone>(
    budget: Budget,
    held: &mut Vec<Holding<K>>,
    (key, asked): (&K, &Asked),
) -> (Choice<K>, Kept) {
    let pinned: Vec<Size> = held
        .iter()
        .filter(|holding| holding.guard == Guard::Pinned)
        .map(|holding| holding.size)
        .collect();
    let mut last = (Choice::Room, Kept::default());
    for kept in asked.ways() {
        held.push(Holding {
            key: key.clone(),
            size: kept.size(),
            guard: Guard::Busy,
        });
        let choice = choose(budget, held, asked.newcomer);
        held.pop();
        // With all gone that may go.
        let alone = pinned.iter().copied().chain([kept.size(), asked.newcomer]);
        let is_worth_waiting = !asked.impatient && budget.taken(alone) <= budget.bytes;
        let settles = match &choice {
            Choice::Room => true,
            Choice::Evict(_) => asked.displaces,
            Choice::Later(_) => asked.displaces && is_worth_waiting,
            Choice::Never(_) => false,
        };
        last = (choice, kept);
        if settles {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { bytes: 100, slots: 1 };

    fn size(weights: u64, peak: u64) -> Size {
        Size {
            instances: 1,
            weights,
            peak,
        }
    }

    fn holding(key: u32, weights: u64, guard: Guard) -> Holding<u32> {
        Holding {
            key,
            size: size(weights, 0),
            guard,
        }
    }

    fn asked(load: u64, optimize: u64) -> Asked {
        Asked {
            newcomer: size(20, 10),
            passing: Passing { load, optimize },
            beside: false,
            displaces: true,
            impatient: false,
        }
    }

    fn chosen(held: &[Holding<u32>], asked: &Asked) -> (Choice<u32>, u64, bool) {
        let mut all = held.to_vec();
        let (choice, kept) = choose_for(BUDGET, &mut all, (&9, asked));
        assert_eq!(all.len(), held.len(), "nothing is left of the trials");
        (choice, kept.bytes, kept.optimize)
    }

    #[test]
    fn all_that_a_load_takes_is_kept_where_there_is_room_or_others_may_leave() {
        let free = [holding(1, 40, Guard::Free(1.0))];
        assert_eq!(chosen(&free, &asked(10, 20)), (Choice::Room, 30, true));
        assert_eq!(chosen(&free, &asked(10, 21)), (Choice::Evict(vec![1]), 31, true));
        let busy = [holding(1, 40, Guard::Busy)];
        assert_eq!(chosen(&busy, &asked(10, 21)), (Choice::Later(None), 31, true));
    }

    #[test]
    fn who_may_not_have_others_leave_or_has_waited_does_with_less() {
        let free = [holding(1, 40, Guard::Free(1.0))];
        let modest = |load, optimize| Asked {
            displaces: false,
            ..asked(load, optimize)
        };
        assert_eq!(chosen(&free, &modest(10, 21)), (Choice::Room, 10, false));
        assert_eq!(chosen(&free, &modest(31, 21)), (Choice::Room, 0, false));
        assert_eq!(chosen(&free, &modest(31, 0)), (Choice::Room, 0, true));
        let busy = [holding(1, 40, Guard::Busy)];
        let impatient = Asked {
            impatient: true,
            ..asked(10, 21)
        };
        assert_eq!(chosen(&busy, &impatient), (Choice::Room, 10, false));
    }

    #[test]
    fn what_the_budget_could_never_hold_is_not_waited_for_and_keeps_no_model_that_fits_out() {
        let pinned = [holding(1, 60, Guard::Pinned)];
        assert_eq!(chosen(&pinned, &asked(10, 1)), (Choice::Room, 10, false));
        assert_eq!(chosen(&pinned, &asked(11, 0)), (Choice::Room, 0, true));
        assert_eq!(chosen(&[], &asked(u64::MAX, u64::MAX)), (Choice::Room, 0, false));
        assert_eq!(
            chosen(&[holding(1, 71, Guard::Pinned)], &asked(5, 5)).0,
            Choice::Never(71)
        );
    }

    #[test]
    fn beside_another_load_room_is_kept_for_the_batch_that_warms_it_up() {
        let beside = Asked {
            beside: true,
            ..asked(5, 0)
        };
        assert_eq!(chosen(&[], &beside), (Choice::Room, 15, true));
        let unknown = Asked {
            newcomer: size(20, 0),
            ..asked(0, 0)
        };
        assert_eq!(chosen(&[], &unknown), (Choice::Room, 0, true));
    }
}
