//! Something for each subject of a tenant: in a list while they are few, which they are in most tenants, and in a table when they are more.
//!
//! Owns nothing but the two forms and the way between them. A table takes a third more than what is in it, and there is one for each of many
//! tenants; to look through a few identifiers costs no more than to ask a table for one. Does not bound how many there are: whoever
//! adds to it does.
//!
//! Invariant: at most [`MAX_LISTED`] are in a list, which has no room to spare.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::subject::SubjectId;

/// The most that are kept in a list.
const MAX_LISTED: usize = 8;

/// Takes a hash that was made before as it is.
#[derive(Debug, Default)]
pub(super) struct Made(u64);

impl Hasher for Made {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // For whatever is no made hash: FNV-1a. A subject's name never comes here.
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn write_u64(&mut self, made: u64) {
        self.0 = made;
    }
}

type Table<T> = HashMap<SubjectId, T, BuildHasherDefault<Made>>;

/// Something for each subject.
#[derive(Debug)]
pub(super) enum BySubject<T> {
    List(Vec<(SubjectId, T)>),
    Table(Table<T>),
}

impl<T> Default for BySubject<T> {
    fn default() -> Self {
        Self::List(Vec::new())
    }
}

impl<T> BySubject<T> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::List(list) => list.len(),
            Self::Table(table) => table.len(),
        }
    }

    pub(super) fn contains_key(&self, id: &SubjectId) -> bool {
        match self {
            Self::List(list) => list.iter().any(|(known, _)| known == id),
            Self::Table(table) => table.contains_key(id),
        }
    }

    pub(super) fn get_mut(&mut self, id: &SubjectId) -> Option<&mut T> {
        match self {
            Self::List(list) => {
                let found = list.iter_mut().find(|(known, _)| known == id);
                found.map(|(_, of)| of)
            }
            Self::Table(table) => table.get_mut(id),
        }
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let (list, table) = match self {
            Self::List(list) => (Some(list), None),
            Self::Table(table) => (None, Some(table)),
        };
        let listed = list.into_iter().flatten().map(|(_, of)| of);
        listed.chain(table.into_iter().flat_map(HashMap::values_mut))
    }

    /// What is there for a subject from now on.
    pub(super) fn add(&mut self, id: SubjectId, of: T) {
        if let Some(known) = self.get_mut(&id) {
            *known = of;
            return;
        }
        match self {
            Self::List(list) if list.len() < MAX_LISTED => {
                list.reserve_exact(1);
                list.push((id, of));
            }
            Self::List(list) => {
                let mut table: Table<T> = std::mem::take(list).into_iter().collect();
                table.insert(id, of);
                *self = Self::Table(table);
            }
            Self::Table(table) => drop(table.insert(id, of)),
        }
    }

    /// Forgets those for which this says no.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        match self {
            Self::List(list) => {
                list.retain_mut(|(_, of)| keep(of));
                list.shrink_to_fit();
            }
            Self::Table(table) => {
                table.retain(|_, of| keep(of));
                if table.len() <= MAX_LISTED {
                    let mut list = Vec::with_capacity(table.len());
                    list.extend(table.drain());
                    *self = Self::List(list);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Scope;

    fn id(number: usize) -> SubjectId {
        SubjectId::new(Scope::Key, (&number.to_string(), ""))
    }

    #[test]
    fn as_many_as_the_bound_are_in_a_list_without_room_to_spare_and_one_more_is_in_a_table() {
        let mut few = BySubject::default();
        for number in 0..=MAX_LISTED {
            assert!(!few.contains_key(&id(number)));
            few.add(id(number), number);
            assert_eq!(few.len(), number + 1);
            match &few {
                BySubject::List(list) => assert_eq!(list.capacity(), number + 1),
                BySubject::Table(_) => assert_eq!(number, MAX_LISTED),
            }
        }
        assert!(matches!(few, BySubject::Table(_)));
        for number in 0..=MAX_LISTED {
            assert_eq!(few.get_mut(&id(number)), Some(&mut { number }));
        }
    }

    #[test]
    fn who_comes_again_is_changed_and_who_is_let_go_of_leaves_no_room() {
        let mut few = BySubject::default();
        (0..=MAX_LISTED).for_each(|number| few.add(id(number), number));
        few.add(id(0), 100);
        assert_eq!((few.len(), few.get_mut(&id(0))), (MAX_LISTED + 1, Some(&mut 100)));
        few.retain(|number| *number != 100);
        assert!(matches!(&few, BySubject::List(list) if list.len() == MAX_LISTED));
        assert_eq!(few.get_mut(&id(0)), None);
        assert_eq!(few.get_mut(&id(1)), Some(&mut 1));
        few.add(id(1), 200);
        assert_eq!((few.len(), few.get_mut(&id(1))), (MAX_LISTED, Some(&mut 200)));
        few.retain(|number| *number == 200);
        assert!(matches!(&few, BySubject::List(list) if list.len() == 1 && list.capacity() == 1));
    }
}
