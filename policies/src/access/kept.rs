//! An issuer's last good key set as it is kept from one start to the next, so that a provider that is down meanwhile costs nobody
//! anything.
//!
//! Owns the form of the bytes and what is asked of them when they are read; whoever fetches writes them, and a start reads them before
//! anybody calls. They are the set as the issuer published it, read again by the rules of one that is fetched, with the declaration
//! that it was fetched for and the moment, under a seal that only this mesh's pepper makes: keys decide who gets in, so a file that somebody
//! else has written, or the disk has damaged, is none. Reads no file.
//!
//! Invariants: keys are used for at most [`MAX_STALE`] after the fetch that brought them, by the wall's clock, restarts included; a set
//! from the future is not used.

use mesh_types::check_fetch_url;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    Pepper,
    book::{KeyBook, KeyLocation, MAX_STALE},
    jwt::KeyAlgorithm,
    keyset::{KeySet, KeySetError, MAX_KEY_SET_BYTES},
    secret::SecretHash,
};

/// The most that is kept of one issuer.
pub const MAX_KEPT_BYTES: usize = MAX_KEY_SET_BYTES + MAX_HEAD_BYTES;
/// The most of it that is not the set.
const MAX_HEAD_BYTES: usize = 4_096;
const MAGIC: &str = "mesh issuer keys 1";
/// How far the clock may have been set back since.
const LEEWAY_SECONDS: i64 = 60;
/// Every algorithm that a published key may have.
const ALGORITHMS: [KeyAlgorithm; 4] = [
    KeyAlgorithm::RS256,
    KeyAlgorithm::PS256,
    KeyAlgorithm::ES256,
    KeyAlgorithm::EdDSA,
];

/// Why kept keys are not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotKept {
    /// Bytes of somebody else, of another version, or damaged.
    #[error("they are damaged, of another version, or were not written by this mesh")]
    Damaged,
    /// Fetched too long ago.
    #[error("they were fetched longer than {} hours ago", MAX_STALE.as_secs() / 3_600)]
    Stale,
    /// Fetched later than now.
    #[error("they were fetched later than it is now: is the clock right?")]
    Future,
    /// No key of the set can be used.
    #[error(transparent)]
    KeySet(#[from] KeySetError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    name: String,
    issuer: String,
    url: Option<String>,
    algorithms: Vec<String>,
    fetched: i64,
}

fn seal(pepper: &Pepper, body: &[u8]) -> SecretHash {
    let digest: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    pepper.hash(&format!("{MAGIC} {digest}"))
}

impl KeyBook {
    /// What is to be kept of a fetch that brought these bytes at that Unix second; none where they are too many.
    pub fn to_keep(&self, set: &[u8], fetched: i64, pepper: &Pepper) -> Option<Vec<u8>> {
        let head = Head {
            name: self.name().to_owned(),
            issuer: self.issuer().to_owned(),
            url: match self.location() {
                KeyLocation::KeySet(url) => Some(url.clone()),
                KeyLocation::Discovered => None,
            },
            algorithms: self.allowed().iter().map(|one| one.as_str().to_owned()).collect(),
            fetched,
        };
        let mut body = serde_json::to_vec(&head).ok()?;
        body.push(b'\n');
        body.extend_from_slice(set);
        let mut bytes = format!("{MAGIC} {}\n", seal(pepper, &body)).into_bytes();
        bytes.extend_from_slice(&body);
        (bytes.len() <= MAX_KEPT_BYTES).then_some(bytes)
    }

    /// The book that [`Self::to_keep`] kept, at this Unix second: to be fetched at once, and used until then and while that fails.
    pub fn from_kept(bytes: &[u8], now: i64, pepper: &Pepper) -> Result<Self, NotKept> {
        if bytes.len() > MAX_KEPT_BYTES {
            return Err(NotKept::Damaged);
        }
        let (first, body) = split_line(bytes).ok_or(NotKept::Damaged)?;
        let sealed = first
            .strip_prefix(MAGIC.as_bytes())
            .and_then(|rest| rest.strip_prefix(b" "));
        let sealed = sealed.and_then(|sealed| str::from_utf8(sealed).ok()?.parse::<SecretHash>().ok());
        if sealed.is_none_or(|sealed| sealed != seal(pepper, body)) {
            return Err(NotKept::Damaged);
        }
        let (head, set) = split_line(body).ok_or(NotKept::Damaged)?;
        let head: Head = serde_json::from_slice(head).map_err(|_| NotKept::Damaged)?;
        let age = now.saturating_sub(head.fetched);
        if age < -LEEWAY_SECONDS {
            return Err(NotKept::Future);
        }
        if u64::try_from(age).is_ok_and(|age| age >= MAX_STALE.as_secs()) {
            return Err(NotKept::Stale);
        }
        let algorithm = |name: &String| ALGORITHMS.into_iter().find(|known| known.as_str() == name);
        let allowed: Option<Vec<KeyAlgorithm>> = head.algorithms.iter().map(algorithm).collect();
        let allowed = allowed.ok_or(NotKept::Damaged)?;
        let set = KeySet::read(set, &allowed)?;
        let location = match head.url {
            Some(url) if check_fetch_url(&url).is_err() => return Err(NotKept::Damaged),
            Some(url) => KeyLocation::KeySet(url),
            None => KeyLocation::Discovered,
        };
        let book = Self::new(&head.name, &head.issuer, location, allowed);
        book.restore(set, head.fetched.min(now));
        Ok(book)
    }
}

fn split_line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let (line, rest) = bytes.split_at_checked(end)?;
    Some((line, rest.get(1..)?))
}
