//! Who reads old files of the journal: nothing is taken away under a reader, and no reader stops a write.

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

/// Counts the readers. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holds(Arc<Mutex<usize>>);

/// A reader; ends when dropped.
#[derive(Debug)]
pub(crate) struct Hold(Holds);

impl Holds {
    /// Begins to read; waits for a removal that is under way, which is short.
    pub(crate) fn hold(&self) -> Hold {
        *self.0.lock() += 1;
        Hold(self.clone())
    }

    /// Keeps readers out for as long as the answer lives; none if one is there.
    pub(crate) fn alone(&self) -> Option<MutexGuard<'_, usize>> {
        let readers = self.0.lock();
        (*readers == 0).then_some(readers)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        *self.0.0.lock() -= 1;
    }
}
