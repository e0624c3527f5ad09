//! A set in parts, so that a copy with one thing changed shares all parts but one.
//!
//! Owns where a thing lies: by its name, which it carries. Snapshots hold what there is one of for every tenant or key in it: the next
//! snapshot begins as a copy, and what a change costs follows from what it changes and not from how many tenants there are.
//! Does not order what it holds, and says nothing of what is in it.
//!
//! Invariants: a thing is in the part that its name says, and once; a part that another copy holds too is never changed in place.

use std::{borrow::Borrow, collections::HashSet, fmt, hash::Hash, sync::Arc};

use ahash::RandomState;

/// The parts: with 200,000 things in them a change copies 800 pointers, and an empty set takes 4 KB.
const PARTS: usize = 256;

type Part<T> = Arc<HashSet<T, RandomState>>;

/// The set. A clone copies no part.
pub(crate) struct Shards<T> {
    parts: Arc<[Part<T>]>,
    hasher: RandomState,
}

impl<T> Clone for Shards<T> {
    fn clone(&self) -> Self {
        Self {
            parts: self.parts.clone(),
            hasher: self.hasher.clone(),
        }
    }
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        let hasher = RandomState::new();
        let empty: Part<T> = Arc::new(HashSet::with_hasher(hasher.clone()));
        Self {
            parts: vec![empty; PARTS].into(),
            hasher,
        }
    }
}

impl<T> fmt::Debug for Shards<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shards")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<T> Shards<T> {
    /// How many things there are.
    pub(crate) fn len(&self) -> usize {
        self.parts.iter().map(|part| part.len()).sum()
    }

    /// Each of them, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.parts.iter().flat_map(|part| part.iter())
    }
}

impl<T: Borrow<str> + Clone + Eq + Hash> Shards<T> {
    fn place(&self, name: &str) -> usize {
        // Not the bits that a part's own table looks at first.
        usize::try_from(self.hasher.hash_one(name) >> 24).unwrap_or(0) % PARTS
    }

    /// The one of this name.
    pub(crate) fn get(&self, name: &str) -> Option<&T> {
        self.parts.get(self.place(name))?.get(name)
    }

    fn part(&mut self, name: &str) -> Option<&mut HashSet<T, RandomState>> {
        let place = self.place(name);
        Arc::make_mut(&mut self.parts).get_mut(place).map(Arc::make_mut)
    }

    /// Puts one in; of two of one name the later stays.
    pub(crate) fn insert(&mut self, thing: T) {
        if let Some(part) = self.part(thing.borrow()) {
            part.replace(thing);
        }
    }

    /// Takes the one of this name out.
    pub(crate) fn take(&mut self, name: &str) -> Option<T> {
        // What is not there copies nothing.
        self.get(name)?;
        self.part(name)?.take(name)
    }
}

impl<T: Borrow<str> + Clone + Eq + Hash> FromIterator<T> for Shards<T> {
    fn from_iter<I: IntoIterator<Item = T>>(things: I) -> Self {
        let mut shards = Self::default();
        things.into_iter().for_each(|thing| shards.insert(thing));
        shards
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn names(numbers: std::ops::Range<u32>) -> Shards<String> {
        numbers.map(|number| format!("n{number}")).collect()
    }

    #[test]
    fn a_copy_with_one_thing_changed_shares_all_parts_but_one() {
        let first = names(0..5_000);
        assert_eq!((first.len(), first.iter().count()), (5_000, 5_000));
        let mut second = first.clone();
        second.insert("new".to_owned());
        let mut third = second.clone();
        assert_eq!(third.take("n7").as_deref(), Some("n7"));
        assert_eq!(third.take("n7"), None);
        let shared = |one: &Shards<String>, other: &Shards<String>| {
            let pairs = one.parts.iter().zip(&*other.parts);
            pairs.filter(|(one, other)| Arc::ptr_eq(one, other)).count()
        };
        assert_eq!(
            (shared(&first, &second), shared(&second, &third)),
            (PARTS - 1, PARTS - 1)
        );
        assert!(first.get("new").is_none() && second.get("n7").is_some() && third.get("n7").is_none());
        assert_eq!((first.len(), second.len(), third.len()), (5_000, 5_001, 5_000));
        // What is not there copies nothing.
        let mut fourth = third.clone();
        assert!(fourth.take("nobody").is_none() && shared(&third, &fourth) == PARTS);
    }

    #[test]
    fn things_are_spread_over_the_parts() {
        let shards = names(0..PARTS as u32 * 20);
        let sizes: BTreeSet<usize> = shards.parts.iter().map(|part| part.len()).collect();
        assert!(sizes.first().is_some_and(|least| *least > 0), "{sizes:?}");
        assert!(sizes.last().is_some_and(|most| *most < 60), "{sizes:?}");
    }

    #[test]
    fn of_two_of_one_name_the_later_stays() {
        #[derive(Clone)]
        struct Named(&'static str, u32);
        impl Borrow<str> for Named {
            fn borrow(&self) -> &str {
                self.0
            }
        }
        impl PartialEq for Named {
            fn eq(&self, other: &Self) -> bool {
                self.0 == other.0
            }
        }
        impl Eq for Named {}
        impl Hash for Named {
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }
        let shards: Shards<Named> = [Named("one", 1), Named("one", 2)].into_iter().collect();
        assert_eq!((shards.len(), shards.get("one").map(|named| named.1)), (1, Some(2)));
    }
}
