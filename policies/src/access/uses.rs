//! When API keys were last used: to the minute, without a cost that a request could notice.
//!
//! Owns one number per key ([`LastUse`]), which outlives the credentials that are compiled anew with each change of a record, and
//! the bytes that all of them are kept as between two starts ([`Remembered`]). Does not read or write files, and decides nothing
//! by what it knows: it is for people who look for keys that nobody needs any more.
//!
//! Invariants: a use costs a relaxed load, and a relaxed store at most once per key and minute; a key is who it belongs to, its
//! name and its secret, so a new key never inherits the uses of an old one of the same name; at most [`MAX_REMEMBERED`] uses are
//! kept, the latest ones; no secret and no hash of one is among the bytes.

use std::{
    collections::HashMap,
    fmt,
    sync::atomic::{AtomicI64, Ordering},
};

use mesh_types::TenantId;
use sha2::{Digest, Sha256};

use super::SecretHash;

/// How coarse a use is, in seconds.
pub const USE_SECONDS: i64 = 60;
/// The most uses that are kept over a restart.
pub const MAX_REMEMBERED: usize = 1_000_000;
/// How the bytes begin: what they are, and their version.
const MAGIC: &[u8; 8] = b"meshuse1";
const PRINT_BYTES: usize = 16;
const ENTRY_BYTES: usize = PRINT_BYTES + 8;
const CHECKSUM_BYTES: usize = 4;
/// The most bytes that uses are kept as.
pub const MAX_REMEMBERED_BYTES: usize = MAGIC.len() + MAX_REMEMBERED * ENTRY_BYTES + CHECKSUM_BYTES;

/// When a key was last used: the beginning of that minute in Unix seconds, or nothing yet.
#[derive(Default)]
pub struct LastUse(AtomicI64);

impl fmt::Debug for LastUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LastUse({:?})", self.get())
    }
}

impl LastUse {
    fn at(unix: i64) -> Self {
        Self(AtomicI64::new(unix))
    }

    /// It is used at this second.
    pub(super) fn note(&self, now_unix: i64) {
        let minute = now_unix - now_unix.rem_euclid(USE_SECONDS);
        // Two threads that see a new minute write the same; a clock that was set back does not take a use back.
        if self.0.load(Ordering::Relaxed) < minute {
            self.0.store(minute, Ordering::Relaxed);
        }
    }

    /// The minute of its last use, in Unix seconds.
    pub fn get(&self) -> Option<i64> {
        let minute = self.0.load(Ordering::Relaxed);
        (minute > 0).then_some(minute)
    }
}

/// What stands for a key in the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyPrint([u8; PRINT_BYTES]);

impl KeyPrint {
    /// That of a key with this secret's hash.
    pub(super) fn of(tenant: &TenantId, id: &str, hash: &SecretHash) -> Self {
        let digest = Sha256::new()
            .chain_update(MAGIC)
            .chain_update(tenant.as_str())
            .chain_update([0])
            .chain_update(id)
            .chain_update([0])
            .chain_update(hash.to_string())
            .finalize();
        let mut print = [0; PRINT_BYTES];
        for (to, from) in print.iter_mut().zip(digest.as_slice()) {
            *to = *from;
        }
        Self(print)
    }
}

/// Bytes that are no uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("they are damaged, or of another version")]
pub struct NotUses;

/// The last uses of keys as they are kept between two starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered(HashMap<KeyPrint, i64>);

impl FromIterator<(KeyPrint, i64)> for Remembered {
    fn from_iter<I: IntoIterator<Item = (KeyPrint, i64)>>(uses: I) -> Self {
        Self(uses.into_iter().collect())
    }
}

impl Remembered {
    /// The use of one key, as a number that goes on from there.
    pub(super) fn of(&self, print: &KeyPrint) -> LastUse {
        self.0
            .get(print)
            .map_or_else(LastUse::default, |unix| LastUse::at(*unix))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads what [`Self::to_bytes`] wrote.
    pub fn read(bytes: &[u8]) -> Result<Self, NotUses> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(NotUses)?;
        let entries = body.strip_prefix(MAGIC.as_slice()).ok_or(NotUses)?;
        let (entries, rest) = entries.as_chunks::<ENTRY_BYTES>();
        let sound = rest.is_empty() && crc32fast::hash(body) == u32::from_le_bytes(*checksum);
        if !sound || entries.len() > MAX_REMEMBERED {
            return Err(NotUses);
        }
        let one = |entry: &[u8; ENTRY_BYTES]| {
            let (print, unix) = (entry.first_chunk()?, entry.last_chunk()?);
            Some((KeyPrint(*print), i64::from_le_bytes(*unix)))
        };
        Ok(entries.iter().filter_map(one).collect())
    }

    /// As bytes, the latest [`MAX_REMEMBERED`] uses of them; the same uses are the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.latest(MAX_REMEMBERED)
    }

    fn latest(&self, most: usize) -> Vec<u8> {
        let mut uses: Vec<(i64, [u8; PRINT_BYTES])> = self.0.iter().map(|(print, unix)| (*unix, print.0)).collect();
        uses.sort_unstable_by(|one, other| other.cmp(one));
        uses.truncate(most);
        let mut bytes = Vec::with_capacity(MAGIC.len() + uses.len() * ENTRY_BYTES + CHECKSUM_BYTES);
        bytes.extend_from_slice(MAGIC);
        for (unix, print) in uses {
            bytes.extend_from_slice(&print);
            bytes.extend_from_slice(&unix.to_le_bytes());
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Pepper;

    fn print(number: u8) -> KeyPrint {
        KeyPrint([number; PRINT_BYTES])
    }

    #[test]
    fn a_use_is_its_minute_and_the_latest_counts() {
        let last = LastUse::default();
        assert_eq!(last.get(), None);
        for (now, seen) in [
            (119, 60),
            (60, 60),
            (120, 120),
            (59, 120),
            (1_700_000_000, 1_699_999_980),
        ] {
            last.note(now);
            assert_eq!(last.get(), Some(seen), "{now}");
        }
    }

    #[test]
    fn a_new_key_of_an_old_name_inherits_no_use() {
        let (pepper, tenant) = (Pepper::default(), TenantId::parse("acme").unwrap());
        let print = |secret: &str| KeyPrint::of(&tenant, "key", &pepper.hash(secret));
        let uses: Remembered = [(print("old"), 60)].into_iter().collect();
        assert_eq!(
            (uses.of(&print("old")).get(), uses.of(&print("new")).get()),
            (Some(60), None)
        );
    }

    #[test]
    fn uses_are_read_as_they_were_written_and_damage_is_noticed() {
        let uses: Remembered = [(print(1), 60), (print(2), 120)].into_iter().collect();
        let bytes = uses.to_bytes();
        assert_eq!(Remembered::read(&bytes), Ok(uses.clone()));
        assert_eq!(uses.of(&print(2)).get(), Some(120));
        assert_eq!(uses.of(&print(3)).get(), None);
        assert_eq!(Remembered::read(&Remembered::default().to_bytes()).unwrap().len(), 0);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(Remembered::read(&damaged), Err(NotUses), "{at}");
            assert_eq!(Remembered::read(&bytes[..at]), Err(NotUses), "{at}");
        }
    }

    #[test]
    fn of_one_more_than_may_be_the_oldest_is_left_out() {
        let of = |count: u8| -> Remembered { (1..=count).map(|n| (print(n), i64::from(n) * 60)).collect() };
        assert_eq!(Remembered::read(&of(3).latest(3)), Ok(of(3)));
        let cut = Remembered::read(&of(4).latest(3)).unwrap();
        assert_eq!(cut.len(), 3);
        assert_eq!(cut.of(&print(1)).get(), None);
        assert_eq!(cut.of(&print(4)).get(), Some(240));
    }
}
