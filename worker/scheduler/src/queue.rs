//! One tenant's requests within a group: by priority level, and within a level by deadline.
//!
//! A level that has waited long counts as a higher one (ageing), so that a steady stream of urgent requests does not starve
//! the others. Requests that outwaited their queue's timeout with the action DELAY go behind the others of their level, as in
//! Triton.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use smallvec::SmallVec;

use crate::waiting::EntryIx;

/// So much waiting is worth one priority level.
pub const AGEING: Duration = Duration::from_secs(1);

/// Where a request stands in its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stand {
    pub(crate) level: usize,
    pub(crate) deadline: Instant,
    pub(crate) arrived: Instant,
    /// The order of arrival, unique.
    pub(crate) sequence: u64,
    pub(crate) delayed: bool,
    /// Whether there are other levels, which it may overtake by waiting.
    pub(crate) ages: bool,
}

#[derive(Debug, Default)]
struct Level {
    /// Earliest deadline first.
    timely: BTreeSet<(Instant, u64, EntryIx)>,
    /// In the order of arrival.
    delayed: BTreeSet<(u64, EntryIx)>,
    /// When each came; only kept where the model has several levels.
    arrivals: BTreeSet<(Instant, u64)>,
}

/// The requests of one tenant.
#[derive(Debug, Default)]
pub(crate) struct TenantQueue {
    levels: SmallVec<[Level; 1]>,
}

impl Level {
    fn first(&self) -> Option<EntryIx> {
        let timely = self.timely.first().map(|(_, _, entry)| *entry);
        timely.or_else(|| self.delayed.first().map(|(_, entry)| *entry))
    }
}

impl TenantQueue {
    pub(crate) fn insert(&mut self, entry: EntryIx, stand: &Stand) {
        while self.levels.len() <= stand.level {
            self.levels.push(Level::default());
        }
        let Some(level) = self.levels.get_mut(stand.level) else {
            return;
        };
        if stand.delayed {
            level.delayed.insert((stand.sequence, entry));
        } else {
            level.timely.insert((stand.deadline, stand.sequence, entry));
        }
        if stand.ages {
            level.arrivals.insert((stand.arrived, stand.sequence));
        }
    }

    pub(crate) fn remove(&mut self, entry: EntryIx, stand: &Stand) {
        let Some(level) = self.levels.get_mut(stand.level) else {
            return;
        };
        if stand.delayed {
            level.delayed.remove(&(stand.sequence, entry));
        } else {
            level.timely.remove(&(stand.deadline, stand.sequence, entry));
        }
        level.arrivals.remove(&(stand.arrived, stand.sequence));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.levels.iter().all(|level| level.first().is_none())
    }

    /// Which goes next.
    pub(crate) fn first(&self, now: Instant) -> Option<EntryIx> {
        if let [only] = self.levels.as_slice() {
            return only.first();
        }
        let aged = |(index, level): (usize, &Level)| {
            let head = level.first()?;
            let oldest = level.arrivals.first().map_or(now, |(arrived, _)| *arrived);
            let steps = now.saturating_duration_since(oldest).as_secs_f64() / AGEING.as_secs_f64();
            Some((index as f64 - steps.floor(), index, head))
        };
        let levels = self.levels.iter().enumerate().filter_map(aged);
        let first = levels.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        first.map(|(_, _, entry)| entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stand(now: Instant, level: usize, sequence: u64, slack_ms: u64) -> Stand {
        Stand {
            level,
            deadline: now + Duration::from_millis(slack_ms),
            arrived: now,
            sequence,
            delayed: false,
            ages: true,
        }
    }

    #[test]
    fn the_highest_level_goes_first_and_within_it_the_nearest_deadline() {
        let now = Instant::now();
        let mut queue = TenantQueue::default();
        let requests = [(1, 10), (0, 30), (0, 20), (2, 5)];
        for (sequence, (level, slack)) in (0..).zip(requests) {
            queue.insert(EntryIx(sequence), &stand(now, level, u64::from(sequence), slack));
        }
        let mut order = Vec::new();
        while let Some(entry) = queue.first(now) {
            let (level, slack) = requests[entry.0 as usize];
            queue.remove(entry, &stand(now, level, u64::from(entry.0), slack));
            order.push(entry.0);
        }
        assert_eq!(order, [2, 1, 0, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_low_level_overtakes_once_it_has_waited_for_long_enough() {
        let now = Instant::now();
        let mut queue = TenantQueue::default();
        queue.insert(EntryIx(0), &stand(now, 2, 0, 60_000));
        let later = now + AGEING * 2;
        queue.insert(EntryIx(1), &stand(later, 0, 1, 60_000));
        // Two steps make them equal, and of equals the higher level goes first.
        assert_eq!(queue.first(later), Some(EntryIx(1)));
        let latest = now + AGEING * 3;
        queue.remove(EntryIx(1), &stand(later, 0, 1, 60_000));
        queue.insert(EntryIx(2), &stand(latest, 0, 2, 60_000));
        assert_eq!(queue.first(latest), Some(EntryIx(0)));
    }

    #[test]
    fn a_delayed_request_goes_behind_its_level_and_before_the_next() {
        let now = Instant::now();
        let mut queue = TenantQueue::default();
        let delayed = Stand {
            delayed: true,
            ..stand(now, 0, 0, 1)
        };
        queue.insert(EntryIx(0), &delayed);
        queue.insert(EntryIx(1), &stand(now, 0, 1, 50));
        queue.insert(EntryIx(2), &stand(now, 1, 2, 5));
        assert_eq!(queue.first(now), Some(EntryIx(1)));
        queue.remove(EntryIx(1), &stand(now, 0, 1, 50));
        assert_eq!(queue.first(now), Some(EntryIx(0)));
    }
}
