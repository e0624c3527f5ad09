//! Why sequences ended that their callers did not end, for when the next request of one comes.

use std::{collections::VecDeque, hash::Hash};

use ahash::AHashMap as HashMap;
use mesh_types::{CorrelationId, TenantId};

use super::Aborted;

/// So many are remembered; then the oldest is forgotten, and its caller is told only that it must start anew.
pub const MAX_REMEMBERED: usize = 4_096;

type Name<K> = (K, TenantId, CorrelationId);

/// What is remembered.
#[derive(Debug)]
pub(crate) struct Lost<K> {
    reasons: HashMap<Name<K>, (Aborted, u64)>,
    order: VecDeque<(Name<K>, u64)>,
    last: u64,
}

impl<K> Default for Lost<K> {
    fn default() -> Self {
        Self {
            reasons: HashMap::default(),
            order: VecDeque::new(),
            last: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> Lost<K> {
    pub(crate) fn remember(&mut self, name: Name<K>, why: Aborted) {
        self.last += 1;
        self.reasons.insert(name.clone(), (why, self.last));
        self.order.push_back((name, self.last));
        while self.order.len() > MAX_REMEMBERED {
            let Some((name, number)) = self.order.pop_front() else {
                return;
            };
            // What was remembered again since is not the oldest.
            if self.reasons.get(&name).is_some_and(|(_, known)| *known == number) {
                self.reasons.remove(&name);
            }
        }
    }

    pub(crate) fn why(&self, name: &Name<K>) -> Option<Aborted> {
        self.reasons.get(name).map(|(why, _)| *why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u64) -> Name<&'static str> {
        ("m", TenantId::parse("t").unwrap(), CorrelationId::Number(number))
    }

    #[test]
    fn so_many_are_remembered_and_the_oldest_gives_way() {
        let mut lost = Lost::default();
        let most = u64::try_from(MAX_REMEMBERED).unwrap();
        for number in 0..most {
            lost.remember(name(number), Aborted::Idle);
        }
        assert_eq!(lost.why(&name(0)), Some(Aborted::Idle));
        lost.remember(name(most), Aborted::Lost);
        assert_eq!((lost.why(&name(0)), lost.why(&name(1))), (None, Some(Aborted::Idle)));
        assert_eq!(lost.order.len(), MAX_REMEMBERED);
    }

    #[test]
    fn what_ended_twice_is_remembered_by_its_last_end() {
        let mut lost = Lost::default();
        lost.remember(name(1), Aborted::Idle);
        lost.remember(name(1), Aborted::Closed);
        for number in 2..=u64::try_from(MAX_REMEMBERED).unwrap() {
            lost.remember(name(number), Aborted::Idle);
        }
        assert_eq!(lost.why(&name(1)), Some(Aborted::Closed));
    }
}
