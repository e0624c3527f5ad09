//! The task that keeps books up to date: one follower for each book of the newest snapshot.
//!
//! A follower waits until its book is due or a request has asked, fetches and says what came of it, for ever. A panic in one
//! ends that follower only; it is begun anew after a while, and its book's keys are used on. A disk that takes its time holds up who
//! writes to it, and neither other followers nor what is said to the task.

use std::{collections::BTreeMap, future::poll_fn, panic::AssertUnwindSafe, pin::pin, sync::Arc, time::Duration};

use futures::{
    FutureExt, StreamExt,
    future::{AbortHandle, Abortable},
    stream::FuturesUnordered,
};
use mesh_actors::{ShutdownSignal, Tasks};
use mesh_policies::{KeyBook, Moment};
use mesh_telemetry::Telemetry;
use mesh_types::Clock;
use tokio::sync::{Notify, Semaphore, watch};

use crate::{
    fetch::{FetchError, Fetched, Fetcher},
    shelving::{Shelf, Shelving},
};

/// Fetches at once, over all issuers.
pub const MAX_FETCHES: usize = 8;
/// The wait before a follower that panicked is begun anew.
const RESTART: Duration = Duration::from_secs(5);

/// Why no keys can be fetched at all.
#[derive(Debug, thiserror::Error)]
#[error("issuers' keys cannot be fetched, because the client for that does not start: {0}")]
pub struct KeeperError(#[from] reqwest::Error);

type Books = Vec<Arc<KeyBook>>;

/// Says whose keys are fetched. Clones say it to the same task.
#[derive(Debug, Clone)]
pub struct Keeper {
    books: Arc<watch::Sender<Books>>,
}

struct Shop {
    fetcher: Fetcher,
    clock: Arc<dyn Clock>,
    telemetry: Telemetry,
    fetches: Semaphore,
    shelf: Option<Arc<Shelving>>,
    /// The shelf is to be tidied.
    untidy: Notify,
}

impl Keeper {
    /// Starts the task; it fetches nothing before it is told to follow.
    pub fn start(
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
        shelf: Option<Arc<dyn Shelf>>,
        tasks: &Tasks,
    ) -> Result<Self, KeeperError> {
        let (books, told) = watch::channel(Books::new());
        let shop = Arc::new(Shop {
            fetcher: Fetcher::new()?,
            clock,
            telemetry,
            fetches: Semaphore::new(MAX_FETCHES),
            shelf: shelf.map(|shelf| Arc::new(Shelving::new(shelf))),
            untidy: Notify::new(),
        });
        tasks.spawn("issuers' keys", move |signal| keep(shop, told, signal));
        Ok(Self { books: Arc::new(books) })
    }

    /// From now on these books are kept up to date, and no others.
    pub fn follow<'a>(&self, books: impl Iterator<Item = &'a Arc<KeyBook>>) {
        let books: Books = books.cloned().collect();
        self.books.send_if_modified(|known| {
            let same = |one: &Arc<KeyBook>| known.iter().any(|other| Arc::ptr_eq(one, other));
            let changed = known.len() != books.len() || !books.iter().all(same);
            *known = books;
            changed
        });
    }
}

async fn keep(shop: Arc<Shop>, mut told: watch::Receiver<Books>, mut signal: ShutdownSignal) {
    // By address: a book that is declared otherwise is another one.
    let mut followed: BTreeMap<usize, (Arc<KeyBook>, AbortHandle)> = BTreeMap::new();
    let mut followers = FuturesUnordered::new();
    let mut tidying = pin!(tidy(&shop));
    loop {
        let books = told.borrow_and_update().clone();
        let address = |book: &Arc<KeyBook>| Arc::as_ptr(book).addr();
        if let Some(shelf) = &shop.shelf {
            // Before a follower ends, whose write may go on.
            shelf.follow(&books);
            shop.untidy.notify_one();
        }
        followed.retain(|at, (book, follower)| {
            let stays = books.iter().any(|book| address(book) == *at);
            if !stays {
                follower.abort();
                shop.telemetry.metrics().issuer_gone(book.name());
            }
            stays
        });
        for book in &books {
            followed.entry(address(book)).or_insert_with(|| {
                let (handle, registration) = AbortHandle::new_pair();
                followers.push(Abortable::new(follow(shop.clone(), book.clone()), registration));
                (book.clone(), handle)
            });
        }
        // The other end is gone only where the mesh ends.
        let changed = loop {
            tokio::select! {
                () = signal.ended() => return,
                changed = told.changed() => break changed,
                Some(_) = followers.next() => {}
                () = &mut tidying => {}
            }
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Takes off the shelf what is no longer followed, for ever: once for all that was said meanwhile.
async fn tidy(shop: &Shop) {
    loop {
        shop.untidy.notified().await;
        if let Some(shelf) = shop.shelf.clone() {
            on_disk(move || shelf.tidy()).await;
        }
    }
}

async fn follow(shop: Arc<Shop>, book: Arc<KeyBook>) {
    loop {
        // What a panic leaves behind is a book that says it is being fetched: the next fetch sets it right.
        let followed = AssertUnwindSafe(follow_on(&shop, &book)).catch_unwind();
        if followed.await.is_err() {
            tracing::error!(
                issuer = book.name(),
                "fetching an issuer's keys panicked; it is begun anew"
            );
            tokio::time::sleep(RESTART).await;
        }
    }
}

async fn follow_on(shop: &Shop, book: &Arc<KeyBook>) {
    loop {
        due(shop, book).await;
        let permit = shop.fetches.acquire().await;
        book.began();
        let fetched = shop.fetcher.fetch(book).await;
        drop(permit);
        note(shop, book, fetched).await;
    }
}

/// Waits until a book is to be fetched: it is due, or a request has asked.
async fn due(shop: &Shop, book: &KeyBook) {
    let Some(due) = book.due() else { return };
    // How long by the mesh's clock; asleep by the runtime's.
    let wait = due.saturating_duration_since(shop.clock.now());
    tokio::select! {
        () = poll_fn(|context| book.poll_asked(context)) => {}
        () = tokio::time::sleep(wait) => {}
    }
}

/// Off the runtime's threads: a disk may take its time.
async fn on_disk(work: impl FnOnce() + Send + 'static) {
    if tokio::task::spawn_blocking(work).await.is_err() {
        tracing::error!("keeping the keys of issuers panicked");
    }
}

/// Writes down what came of a fetch: for requests first, and then for the next start.
async fn note(shop: &Shop, book: &Arc<KeyBook>, fetched: Result<Fetched, FetchError>) {
    let (now, metrics) = (Moment::of(&*shop.clock), shop.telemetry.metrics());
    match fetched {
        Ok(fetched) => {
            let keys = fetched.set.len();
            book.fetched(fetched.set, fetched.max_age, now);
            metrics.issuer_fetched(book.name(), keys, now.unix);
            tracing::info!(issuer = book.name(), keys, "fetched the keys of an issuer");
            if let Some(shelf) = shop.shelf.clone() {
                let (book, bytes) = (book.clone(), fetched.bytes);
                on_disk(move || shelf.keep(&book, &bytes, now.unix)).await;
            }
        }
        Err(error) => {
            metrics.issuer_failed(book.name(), error.as_str());
            tracing::warn!(issuer = book.name(), %error, "the keys of an issuer could not be fetched");
            book.failed(error.to_string(), now);
        }
    }
}
