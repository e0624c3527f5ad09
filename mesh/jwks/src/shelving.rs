//! Keeping and forgetting on a shelf, in an order in which nothing comes back.
//!
//! Owns which books are followed as far as the shelf is concerned, and the one hand at it. A fetch and the end of its issuer meet
//! here from different threads, and a disk may hold either of them up: whether a book is still followed is asked with the hand on the
//! shelf, so that a set is either written before its issuer is forgotten, or not at all. Times no write and fetches nothing.
//!
//! Invariants: what no followed book has on the shelf is gone once [`Shelving::tidy`] has run after the last change; a set is kept only
//! for the very book that is followed, so a declaration that has changed while the mesh runs leaves nothing behind that the former one
//! brought (after a start, what does not fit its declaration is not read); as many names
//! are known as books were followed since the shelf was last tidied.

use std::{collections::BTreeMap, fmt, sync::Arc};

use mesh_policies::KeyBook;
use parking_lot::Mutex;

/// Where good key sets are kept from one start to the next. Its calls may wait for a disk, and never overlap.
pub trait Shelf: Send + Sync + 'static {
    /// A fetch at this Unix second brought this set.
    fn keep(&self, book: &KeyBook, set: &[u8], fetched: i64);
    /// No issuer of this name has fetched keys any more, or none by the declaration that they were kept for.
    fn forget(&self, name: &str);
}

/// A shelf, and who may have something on it.
pub(crate) struct Shelving {
    shelf: Arc<dyn Shelf>,
    /// Held for each call of the shelf. Taken before the other.
    hand: Mutex<()>,
    /// Held for a moment.
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    followed: Vec<Arc<KeyBook>>,
    /// By name, the book whose set may lie on the shelf.
    shelved: BTreeMap<String, Arc<KeyBook>>,
}

impl Known {
    fn follows(&self, book: &Arc<KeyBook>) -> bool {
        self.followed.iter().any(|known| Arc::ptr_eq(known, book))
    }
}

impl fmt::Debug for Shelving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelving").finish_non_exhaustive()
    }
}

impl Shelving {
    pub(crate) fn new(shelf: Arc<dyn Shelf>) -> Self {
        Self {
            shelf,
            hand: Mutex::default(),
            known: Mutex::default(),
        }
    }

    /// From now on nothing is kept but for these books. Waits for no disk; what others have on the shelf goes with the next
    /// [`Self::tidy`].
    pub(crate) fn follow(&self, books: &[Arc<KeyBook>]) {
        let mut known = self.known.lock();
        for book in books {
            // A former start may have left its set there.
            let name = known.shelved.entry(book.name().to_owned());
            name.or_insert_with(|| book.clone());
        }
        known.followed = books.to_vec();
    }

    /// Forgets what no followed book has there. May wait for a disk.
    pub(crate) fn tidy(&self) {
        let _hand = self.hand.lock();
        let gone: Vec<String> = {
            let known = self.known.lock();
            let gone = known.shelved.iter().filter(|(_, book)| !known.follows(book));
            gone.map(|(name, _)| name.clone()).collect()
        };
        for name in gone {
            self.shelf.forget(&name);
            self.known.lock().shelved.remove(&name);
        }
    }

    /// Keeps a set, if its book is still followed. May wait for a disk.
    pub(crate) fn keep(&self, book: &Arc<KeyBook>, set: &[u8], fetched: i64) {
        let _hand = self.hand.lock();
        {
            let mut known = self.known.lock();
            if !known.follows(book) {
                return;
            }
            // Before it is written: a write that fails halfway has something there too.
            known.shelved.insert(book.name().to_owned(), book.clone());
        }
        self.shelf.keep(book, set, fetched);
    }
}

#[cfg(test)]
#[path = "shelving_tests.rs"]
mod tests;
