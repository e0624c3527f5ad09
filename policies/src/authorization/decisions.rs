//! What was decided lately, so that policies are evaluated once for a caller and a name and not for each request.
//!
//! Owns a bounded map from a caller's number and a name to the answer. Asking it takes one hash and no allocation. It belongs to
//! one set of records: whoever changes them starts a new one, so nothing in it is ever out of date.
//!
//! Invariant: at most [`MAX_DECISIONS`] answers, in two generations; a full young one becomes the old one and the former old one
//! is forgotten.

use std::{fmt, hash::Hash, mem};

use indexmap::{Equivalent, IndexMap};
use parking_lot::RwLock;

use crate::access::PrincipalId;

/// Answers remembered at any time.
pub const MAX_DECISIONS: usize = 65_536;
const GENERATION: usize = MAX_DECISIONS / 2;

#[derive(PartialEq, Eq, Hash)]
struct Key {
    who: PrincipalId,
    name: Box<str>,
}

/// A key as it is asked for: borrowed. It hashes like [`Key`], because a boxed text hashes like the text.
#[derive(Hash)]
struct Asked<'a> {
    who: PrincipalId,
    name: &'a str,
}

impl Equivalent<Key> for Asked<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        self.who == key.who && *self.name == *key.name
    }
}

type Generation = IndexMap<Key, bool, ahash::RandomState>;

/// Answers by caller and name.
#[derive(Default)]
pub(super) struct Decisions {
    /// The young one, then the old one.
    generations: RwLock<(Generation, Generation)>,
}

impl fmt::Debug for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decisions").finish_non_exhaustive()
    }
}

impl Decisions {
    pub(super) fn get(&self, who: PrincipalId, name: &str) -> Option<bool> {
        let asked = Asked { who, name };
        let generations = self.generations.read();
        let (young, old) = &*generations;
        young.get(&asked).or_else(|| old.get(&asked)).copied()
    }

    pub(super) fn insert(&self, who: PrincipalId, name: &str, allowed: bool) {
        let mut generations = self.generations.write();
        let (young, old) = &mut *generations;
        if young.len() >= GENERATION {
            *old = mem::take(young);
        }
        let name = Box::from(name);
        young.insert(Key { who, name }, allowed);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        let generations = self.generations.read();
        generations.0.len() + generations.1.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_answers_are_remembered_and_the_oldest_are_forgotten() {
        let decisions = Decisions::default();
        let who: Vec<PrincipalId> = (0..=MAX_DECISIONS).map(|_| PrincipalId::fresh()).collect();
        for one in &who[..MAX_DECISIONS] {
            decisions.insert(*one, "m", true);
        }
        assert_eq!(decisions.len(), MAX_DECISIONS);
        assert_eq!(decisions.get(who[0], "m"), Some(true));
        decisions.insert(who[MAX_DECISIONS], "m", false);
        assert!(decisions.len() <= MAX_DECISIONS);
        assert_eq!(decisions.get(who[MAX_DECISIONS], "m"), Some(false));
        assert_eq!(decisions.get(who[0], "m"), None, "the oldest went");
    }

    #[test]
    fn callers_and_names_are_told_apart() {
        let decisions = Decisions::default();
        let (one, other) = (PrincipalId::fresh(), PrincipalId::fresh());
        decisions.insert(one, "a", true);
        assert_eq!(decisions.get(one, "a"), Some(true));
        assert_eq!(decisions.get(one, "b"), None);
        assert_eq!(decisions.get(other, "a"), None);
    }
}
