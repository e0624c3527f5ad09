//! The book of an issuer's fetched keys: which there are, how long they may be used, and when to look again.
//!
//! Owns the times of the cache and who waits for it, with the clock passed in; whoever fetches reads [`KeyBook::due`], says
//! [`KeyBook::began`] and ends with [`KeyBook::fetched`] or [`KeyBook::failed`]. Requests only read the keys, without a lock; one
//! whose key is missing may ask for a fetch and wait for it. Knows no network and no runtime. A book outlives the snapshots that
//! refer to it, as long as its issuer is declared alike.
//!
//! Invariants: keys are used for at most [`MAX_STALE`] after the fetch that last had them, whatever fails meanwhile; a key that a
//! fetch no longer has is used no more from that moment on, by nobody; requests cause at most one fetch per [`ASK_REST`], and
//! at most [`MAX_KEY_WAITERS`] of them wait at a time.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use mesh_types::Clock;
use parking_lot::Mutex;

use super::{
    jwt::{IssuerKey, KeyAlgorithm},
    keyset::{KeySet, LeftOut},
};

/// The least and the most time that a set counts as new, whatever its answer says.
pub const MIN_MAX_AGE: Duration = Duration::from_secs(5 * 60);
/// See [`MIN_MAX_AGE`].
pub const MAX_MAX_AGE: Duration = Duration::from_secs(24 * 3_600);
/// How long a set counts as new whose answer does not say.
pub const DEFAULT_MAX_AGE: Duration = Duration::from_secs(15 * 60);
/// How long the keys of the last good fetch are used while fetching fails.
pub const MAX_STALE: Duration = Duration::from_secs(24 * 3_600);
/// How long after a fetch that a request asked for another may ask: until then a key that is missing is known to be.
pub const ASK_REST: Duration = Duration::from_secs(30);
/// Requests that wait for one issuer's keys at a time; one more is refused at once.
pub const MAX_KEY_WAITERS: usize = 256;
/// The wait after the first failed fetch; doubled for each further one.
const MIN_RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(60);

/// Now, by both clocks: the one that only goes on, and the one that expiry dates are in.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// Monotonic.
    pub instant: Instant,
    /// Unix seconds.
    pub unix: i64,
}

impl Moment {
    /// The present of a clock.
    pub fn of(clock: &dyn Clock) -> Self {
        Self {
            instant: clock.now(),
            unix: clock.unix_seconds(),
        }
    }

    fn unix_in(self, after: Duration) -> i64 {
        let seconds = i64::try_from(after.as_secs()).unwrap_or(i64::MAX);
        self.unix.saturating_add(seconds)
    }
}

/// Where an issuer's keys are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyLocation {
    /// At this address.
    KeySet(String),
    /// Where the issuer's discovery document says (OpenID Connect Discovery 1.0, section 4).
    Discovered,
}

/// A fetched key, and until when it may be used.
pub(super) struct FetchedKey {
    pub(super) key: IssuerKey,
    thumbprint: String,
    until: AtomicI64,
}

impl FetchedKey {
    /// Whether it may be used: asked again for each request, remembered tokens included.
    pub(super) fn is_alive(&self, now_unix: i64) -> bool {
        now_unix < self.until.load(Ordering::Acquire)
    }
}

/// The fetched keys of one issuer.
pub struct KeyBook {
    name: String,
    issuer: String,
    location: KeyLocation,
    allowed: Vec<KeyAlgorithm>,
    keys: ArcSwap<Vec<Arc<FetchedKey>>>,
    ledger: Mutex<Ledger>,
}

/// What changes with each fetch.
#[derive(Default)]
struct Ledger {
    fetches: u64,
    failures: u32,
    fetching: bool,
    /// When to fetch next; none: at once.
    due: Option<Moment>,
    fetched: Option<i64>,
    last_error: Option<(i64, String)>,
    left_out: Vec<LeftOut>,
    /// When a request last asked for a fetch.
    asked: Option<Instant>,
    /// Of whoever fetches.
    fetcher: Option<Waker>,
    waiters: BTreeMap<u64, Waker>,
    waiting: usize,
    next_waiter: u64,
}

/// What an admin sees of a book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookView {
    /// Where the keys are found.
    pub location: KeyLocation,
    /// The keys that are used: `kid`, algorithm, thumbprint.
    pub keys: Vec<(Option<String>, KeyAlgorithm, String)>,
    /// Those that were published and are left out.
    pub left_out: Vec<LeftOut>,
    /// When they were fetched last, in Unix seconds.
    pub fetched: Option<i64>,
    /// When they are fetched next; none: it is under way or about to be.
    pub next_fetch: Option<i64>,
    /// Until when they are used if no fetch succeeds.
    pub kept_until: Option<i64>,
    /// The last failure since then, and when.
    pub last_error: Option<(i64, String)>,
}

impl fmt::Debug for KeyBook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyBook")
            .field("name", &self.name)
            .field("issuer", &self.issuer)
            .field("location", &self.location)
            .field("keys", &self.keys.load().len())
            .finish_non_exhaustive()
    }
}

impl KeyBook {
    /// An empty book, to be fetched at once. The name is the declaration's.
    pub fn new(name: &str, issuer: &str, location: KeyLocation, allowed: Vec<KeyAlgorithm>) -> Self {
        Self {
            name: name.to_owned(),
            issuer: issuer.to_owned(),
            location,
            allowed,
            keys: ArcSwap::default(),
            ledger: Mutex::default(),
        }
    }

    /// Whether it is what a declaration asks for, so that its keys may be used on.
    pub fn is_for(&self, name: &str, issuer: &str, location: &KeyLocation, allowed: &[KeyAlgorithm]) -> bool {
        self.name == name && self.issuer == issuer && self.location == *location && self.allowed == allowed
    }

    /// The declaration's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The `iss` of its tokens.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Where its keys are found.
    pub fn location(&self) -> &KeyLocation {
        &self.location
    }

    /// In which ways its issuer may sign.
    pub fn allowed(&self) -> &[KeyAlgorithm] {
        &self.allowed
    }

    /// The keys of the last good fetch, those that may not be used any more included.
    pub(super) fn keys(&self) -> Arc<Vec<Arc<FetchedKey>>> {
        self.keys.load_full()
    }

    /// When to fetch; none: at once.
    pub fn due(&self) -> Option<Instant> {
        self.ledger.lock().due.map(|due| due.instant)
    }

    /// A fetch begins.
    pub fn began(&self) {
        self.ledger.lock().fetching = true;
    }

    /// A fetch brought this set, which counts as new so long.
    pub fn fetched(&self, set: KeySet, max_age: Option<Duration>, now: Moment) {
        let max_age = max_age.unwrap_or(DEFAULT_MAX_AGE).clamp(MIN_MAX_AGE, MAX_MAX_AGE);
        let until = now.unix_in(MAX_STALE);
        let before = self.keys();
        let kept = |one: &super::keyset::SetKey| {
            before.iter().find(|known| {
                known.thumbprint == one.thumbprint
                    && known.key.key_id() == one.key.key_id()
                    && known.key.algorithm() == one.key.algorithm()
            })
        };
        let mut keys = Vec::with_capacity(set.keys.len());
        for one in set.keys {
            let key = match kept(&one) {
                Some(known) => known.clone(),
                None => Arc::new(FetchedKey {
                    key: one.key,
                    thumbprint: one.thumbprint,
                    until: AtomicI64::new(until),
                }),
            };
            key.until.store(until, Ordering::Release);
            keys.push(key);
        }
        let keys = Arc::new(keys);
        self.keys.store(keys.clone());
        for gone in before
            .iter()
            .filter(|known| !keys.iter().any(|key| Arc::ptr_eq(key, known)))
        {
            gone.until.store(i64::MIN, Ordering::Release);
        }
        self.over(now, |ledger| {
            ledger.failures = 0;
            ledger.fetched = Some(now.unix);
            ledger.last_error = None;
            ledger.left_out = set.left_out;
            // Ahead of its end, so that no request ever waits for it.
            max_age * 4 / 5
        });
    }

    /// A book that nobody uses yet gets the keys that a fetch of a former start brought, at this Unix second. It is to be fetched at once
    /// nevertheless.
    pub(super) fn restore(&self, set: KeySet, fetched: i64) {
        let stale = i64::try_from(MAX_STALE.as_secs()).unwrap_or(i64::MAX);
        let until = fetched.saturating_add(stale);
        let key = |one: super::keyset::SetKey| {
            Arc::new(FetchedKey {
                key: one.key,
                thumbprint: one.thumbprint,
                until: AtomicI64::new(until),
            })
        };
        self.keys.store(Arc::new(set.keys.into_iter().map(key).collect()));
        let mut ledger = self.ledger.lock();
        ledger.fetched = Some(fetched);
        ledger.left_out = set.left_out;
    }

    /// A fetch failed; the words are for admins.
    pub fn failed(&self, error: String, now: Moment) {
        self.over(now, |ledger| {
            let wait = MIN_RETRY * 2_u32.saturating_pow(ledger.failures.min(16));
            ledger.failures = ledger.failures.saturating_add(1);
            ledger.last_error = Some((now.unix, error));
            wait.min(MAX_RETRY)
        });
    }

    fn over(&self, now: Moment, then: impl FnOnce(&mut Ledger) -> Duration) {
        let mut ledger = self.ledger.lock();
        let next = then(&mut ledger);
        ledger.fetching = false;
        ledger.fetches = ledger.fetches.wrapping_add(1);
        ledger.due = Some(Moment {
            instant: now.instant.checked_add(next).unwrap_or(now.instant),
            unix: now.unix_in(next),
        });
        let waiters = std::mem::take(&mut ledger.waiters);
        drop(ledger);
        waiters.into_values().for_each(Waker::wake);
    }

    /// A request whose key is missing asks for a fetch: it may wait for one that is under way, or have one begun. None where one
    /// was asked for a moment ago, so that the key is known to be missing, or where too many wait already.
    pub fn ask(self: &Arc<Self>, now: Instant) -> Option<KeyWait> {
        let mut ledger = self.ledger.lock();
        let rested = |asked: Instant| now.saturating_duration_since(asked) >= ASK_REST;
        // What is due is about to be fetched anyway.
        let coming = ledger.fetching || ledger.due.is_none_or(|due| due.instant <= now);
        if ledger.waiting >= MAX_KEY_WAITERS || !(coming || ledger.asked.is_none_or(rested)) {
            return None;
        }
        let fetcher = if coming {
            None
        } else {
            ledger.asked = Some(now);
            ledger.due = None;
            ledger.fetcher.take()
        };
        ledger.waiting += 1;
        ledger.next_waiter = ledger.next_waiter.wrapping_add(1);
        let wait = KeyWait {
            book: self.clone(),
            number: ledger.next_waiter,
            fetches: ledger.fetches,
        };
        drop(ledger);
        if let Some(fetcher) = fetcher {
            fetcher.wake();
        }
        Some(wait)
    }

    /// For whoever fetches: ready once a fetch was asked for, so that [`KeyBook::due`] says at once.
    pub fn poll_asked(&self, context: &mut Context<'_>) -> Poll<()> {
        let mut ledger = self.ledger.lock();
        if ledger.due.is_none() {
            return Poll::Ready(());
        }
        ledger.fetcher = Some(context.waker().clone());
        Poll::Pending
    }

    /// What an admin sees.
    pub fn view(&self, now_unix: i64) -> BookView {
        let keys = self.keys();
        let alive = keys.iter().filter(|key| key.is_alive(now_unix));
        let ledger = self.ledger.lock();
        BookView {
            location: self.location.clone(),
            keys: alive
                .map(|key| {
                    let id = key.key.key_id().map(str::to_owned);
                    (id, key.key.algorithm(), key.thumbprint.clone())
                })
                .collect(),
            left_out: ledger.left_out.clone(),
            fetched: ledger.fetched,
            next_fetch: ledger.due.filter(|_| !ledger.fetching).map(|due| due.unix),
            kept_until: keys.first().map(|key| key.until.load(Ordering::Acquire)),
            last_error: ledger.last_error.clone(),
        }
    }

    /// Fetches that were made, those that failed included.
    pub fn fetches(&self) -> u64 {
        self.ledger.lock().fetches
    }
}

/// What became of a credential that is judged by the keys of a book.
#[derive(Debug)]
pub enum Judged<T> {
    /// It holds.
    Holds(T),
    /// Its key may come: to be judged again after the wait.
    Waits(KeyWait),
}

/// Judges a credential by the keys that are here. One that is refused for want of a key in a book waits for that book if it may, see
/// [`KeyBook::ask`]; if it may not, it is judged once more: a fetch that ended since the first look may have brought its key, and it is
/// that fetch's end that lets nobody ask.
pub fn judge_or_wait<'a, T, E: Copy>(
    judge: impl Fn() -> Result<T, E>,
    book: impl FnOnce(E) -> Option<&'a Arc<KeyBook>>,
    now: impl FnOnce() -> Instant,
) -> Result<Judged<T>, E> {
    let refused = match judge() {
        Ok(holds) => return Ok(Judged::Holds(holds)),
        Err(refused) => refused,
    };
    let book = book(refused).ok_or(refused)?;
    match book.ask(now()) {
        Some(wait) => Ok(Judged::Waits(wait)),
        None => judge().map(Judged::Holds),
    }
}

/// A request's wait for the end of a fetch. Dropping it gives its place up.
pub struct KeyWait {
    book: Arc<KeyBook>,
    number: u64,
    fetches: u64,
}

impl fmt::Debug for KeyWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyWait({})", self.book.name)
    }
}

impl Future for KeyWait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut ledger = self.book.ledger.lock();
        if ledger.fetches != self.fetches {
            return Poll::Ready(());
        }
        ledger.waiters.insert(self.number, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for KeyWait {
    fn drop(&mut self) {
        let mut ledger = self.book.ledger.lock();
        ledger.waiting = ledger.waiting.saturating_sub(1);
        ledger.waiters.remove(&self.number);
    }
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
