//! Compaction: a snapshot once enough segments have ended since the last, and the end of segments that nobody needs.
//!
//! What is taken away was, for certain, behind the older of two whole snapshots, and beyond the segments that are kept as the
//! audit log's history. It goes oldest first, and each removal is durable before the next, so that what is left always is one
//! piece. A compaction that fails leaves a journal that can be appended to; it is tried again when the next segment ends.

use super::{Journal, Place, frame, snapshot};
use crate::{State, StorageError};

/// Snapshots that are kept: should the newest be damaged, the one before it and the segments after that stand in.
pub(super) const KEPT_SNAPSHOTS: usize = 2;

impl Journal {
    /// Whether as many segments have ended since the last snapshot as call for another.
    pub(crate) fn is_due(&self) -> bool {
        self.sealed >= self.due_at
    }

    /// Writes a snapshot of what is there after the last write, and takes away what is no longer needed.
    pub(crate) fn compact(&mut self, state: &State) -> Result<(), StorageError> {
        // Should anything below fail, the next segment's end calls again.
        self.due_at = self.sealed + 1;
        let at_head = state.revision == self.head.revision && state.mark == self.head.hash;
        if !at_head {
            return Err(StorageError::Failed);
        }
        self.mended()?;
        let bytes = snapshot::encode(self.head, state, &self.place.key)?;
        snapshot::write(&self.place, self.head.revision, &bytes)?;
        tracing::info!(
            revision = self.head.revision,
            records = state.entries.len(),
            bytes = bytes.len(),
            "registry: wrote a snapshot of the journal"
        );
        self.sealed = 0;
        self.due_at = self.limits.snapshot_segments.max(1);
        self.must_trim = true;
        // The next opening then reads nothing that the snapshot covers.
        if self
            .active
            .as_ref()
            .is_some_and(|active| active.length > frame::HEADER_BYTES as u64)
        {
            self.begin_segment()?;
            self.sealed = 0;
        }
        self.trim()
    }

    /// Takes away what is no longer needed, unless somebody reads old segments right now: then later.
    pub(crate) fn trim(&mut self) -> Result<(), StorageError> {
        if !self.must_trim {
            return Ok(());
        }
        let place = self.place.clone();
        let Some(_alone) = place.holds.alone() else {
            return Ok(());
        };
        for file in superfluous(&place.names()?, self.limits.archived_segments) {
            let removed = place.files.remove(&place.folder.join(file));
            removed.map_err(StorageError::io("remove a compacted part of the journal"))?;
            place.sync()?;
        }
        self.must_trim = false;
        Ok(())
    }
}

/// The first revision that the segments in the folder still tell of.
pub(crate) fn begins(place: &Place) -> Result<u64, StorageError> {
    let names = place.names()?;
    let first = names.iter().filter_map(|name| frame::first_of(name)).min();
    let snapshot = names.iter().filter_map(|name| snapshot::revision_of(name)).max();
    Ok(first.unwrap_or_else(|| snapshot.unwrap_or(0) + 1))
}

/// What may go, in the order in which it must.
fn superfluous(names: &[String], archived: usize) -> Vec<String> {
    let mut snapshots: Vec<u64> = names.iter().filter_map(|name| snapshot::revision_of(name)).collect();
    snapshots.sort_unstable_by(|a, b| b.cmp(a));
    let (Some(newest), Some(stand_in)) = (snapshots.first(), snapshots.get(KEPT_SNAPSHOTS - 1)) else {
        return Vec::new();
    };
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| frame::first_of(name)).collect();
    firsts.sort_unstable();
    // A segment ends where the next begins; the last one is being written.
    let ends = firsts.iter().skip(1).map(|next| next - 1);
    let ended: Vec<(u64, u64)> = firsts.iter().copied().zip(ends).collect();
    let behind = ended.iter().filter(|(_, last)| last <= newest).count();
    let beyond = behind.saturating_sub(archived);
    let segments = ended.iter().take(beyond).take_while(|(_, last)| last <= stand_in);
    let segments = segments.map(|(first, _)| frame::segment_name(*first));
    let old = snapshots
        .iter()
        .skip(KEPT_SNAPSHOTS)
        .rev()
        .map(|revision| snapshot::name(*revision));
    segments.chain(old).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(snapshots: &[u64], segments: &[u64]) -> Vec<String> {
        let snapshots = snapshots.iter().map(|revision| snapshot::name(*revision));
        snapshots
            .chain(segments.iter().map(|first| frame::segment_name(*first)))
            .collect()
    }

    #[test]
    fn nothing_goes_before_there_are_two_snapshots() {
        assert_eq!(superfluous(&names(&[9], &[1, 4, 7, 10]), 0), Vec::<String>::new());
    }

    #[test]
    fn what_the_older_snapshot_would_need_stays_whatever_the_archive_keeps() {
        let folder = names(&[6, 12], &[1, 4, 7, 10, 13]);
        assert_eq!(superfluous(&folder, 0), names(&[], &[1, 4]));
        assert_eq!(superfluous(&folder, 2), names(&[], &[1, 4]));
        assert_eq!(superfluous(&folder, 3), names(&[], &[1]));
        assert_eq!(superfluous(&folder, 4), names(&[], &[]));
    }

    #[test]
    fn snapshots_beyond_the_two_newest_go_after_the_segments_oldest_first() {
        let folder = names(&[3, 6, 9, 12], &[7, 10, 13]);
        let gone = superfluous(&folder, 0);
        assert_eq!(gone, [frame::segment_name(7), snapshot::name(3), snapshot::name(6)]);
    }

    #[test]
    fn the_segment_that_is_being_written_stays_even_if_a_snapshot_covers_it() {
        assert_eq!(superfluous(&names(&[6, 9], &[7]), 0), Vec::<String>::new());
    }
}
