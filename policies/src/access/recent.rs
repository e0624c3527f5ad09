//! The API keys seen lately, so that a key's secret is hashed once and not for each request.
//!
//! Owns a bounded map from a fingerprint of a key's text to the stored key that it proved to be. A fingerprint is two keyed
//! hashes of 64 bits (SipHash with random keys of this memory alone), so that nobody can make two texts look alike, and the
//! memory holds no key. It belongs to one set of keys: whoever changes them starts a new one. Only keys that held are
//! remembered; whether one is revoked or has expired is asked each time.
//!
//! Invariant: at most [`MAX_RECENT_KEYS`] keys, in two generations; a full young one becomes the old one and the former old
//! one is forgotten.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    mem,
    sync::Arc,
};

use parking_lot::RwLock;

/// Keys remembered at any time.
pub(super) const MAX_RECENT_KEYS: usize = 16_384;
const GENERATION: usize = MAX_RECENT_KEYS / 2;

/// What stands for a key's text.
pub(super) type Fingerprint = (u64, u64);

type Generation<T> = HashMap<Fingerprint, Arc<T>>;

/// Keys that held.
pub(super) struct RecentKeys<T> {
    hashers: (RandomState, RandomState),
    /// The young one, then the old one.
    generations: RwLock<(Generation<T>, Generation<T>)>,
}

impl<T> Default for RecentKeys<T> {
    fn default() -> Self {
        Self {
            hashers: (RandomState::new(), RandomState::new()),
            generations: RwLock::default(),
        }
    }
}

impl<T> RecentKeys<T> {
    pub(super) fn fingerprint(&self, text: &str) -> Fingerprint {
        (self.hashers.0.hash_one(text), self.hashers.1.hash_one(text))
    }

    pub(super) fn get(&self, fingerprint: Fingerprint) -> Option<Arc<T>> {
        let generations = self.generations.read();
        let (young, old) = &*generations;
        young.get(&fingerprint).or_else(|| old.get(&fingerprint)).cloned()
    }

    pub(super) fn insert(&self, fingerprint: Fingerprint, key: Arc<T>) {
        let mut generations = self.generations.write();
        let (young, old) = &mut *generations;
        if young.len() >= GENERATION {
            *old = mem::take(young);
        }
        young.insert(fingerprint, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_keys_are_remembered_and_the_oldest_are_forgotten() {
        let recent = RecentKeys::default();
        for index in 0..MAX_RECENT_KEYS + 1 {
            recent.insert(recent.fingerprint(&index.to_string()), Arc::new(index));
        }
        let known = (0..=MAX_RECENT_KEYS).filter(|index| recent.get(recent.fingerprint(&index.to_string())).is_some());
        let known = known.count();
        assert!(known > GENERATION && known <= MAX_RECENT_KEYS, "{known}");
        assert!(recent.get(recent.fingerprint(&MAX_RECENT_KEYS.to_string())).is_some());
    }

    #[test]
    fn two_memories_have_nothing_in_common() {
        let (one, other) = (RecentKeys::<()>::default(), RecentKeys::<()>::default());
        assert_ne!(one.fingerprint("key"), other.fingerprint("key"));
        let (a, b) = one.fingerprint("key");
        assert_ne!(a, b);
    }
}
