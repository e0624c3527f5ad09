//! The threads of one device: who has what to do, and whom to replace.
//!
//! Owns their orders and what became of them; knows models only by key. A thread that hangs is abandoned and another takes
//! its place; what the old one says afterwards is recognised by its generation and not heard. At most [`MAX_ABANDONED`]
//! threads of a device hang at the same time: then its places stay empty, because each holds memory and a processor.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_types::{MAX_INSTANCES, ModelVersionKey, TraceContext};
use smallvec::SmallVec;

use crate::{
    link::Link,
    order::{BatchNews, Done, News, Order, RunBatch, ThreadId},
    replies::Replies,
    thread::{self, BATCHES_IN_FLIGHT, MAX_OUTSTANDING, Started, ThreadParts},
};

/// Threads of one device that may hang at the same time before it takes no more jobs.
pub(crate) const MAX_ABANDONED: usize = 4;
/// The most threads of a device, however many instances its models ask for.
pub(crate) const MAX_THREADS: usize = MAX_INSTANCES as usize;
/// How long a device's end waits for a thread that does not end.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);

/// A batch that a thread was given.
#[derive(Debug)]
pub(crate) struct InFlight {
    pub(crate) number: u64,
    pub(crate) model: Arc<ModelVersionKey>,
    pub(crate) rows: u32,
    pub(crate) replies: Arc<Replies>,
    pub(crate) traces: Vec<TraceContext>,
    /// How long its execution may take.
    limit: Duration,
}

/// One place in the crew.
#[derive(Debug)]
struct Post {
    id: ThreadId,
    started: Option<Started>,
    in_flight: VecDeque<InFlight>,
    /// Orders given and not yet done, batches among them.
    outstanding: usize,
    /// Orders about models that wait for room, the latest of each kind per model: their number is bounded by that of the
    /// models that the thread holds.
    postponed: VecDeque<Order>,
}

impl Post {
    fn give(&mut self, order: Order) -> Result<(), Box<Order>> {
        match &self.started {
            Some(started) if self.outstanding < MAX_OUTSTANDING => {
                started
                    .orders
                    .try_send(order)
                    .map_err(|error| Box::new(error.into_inner()))?;
                self.outstanding += 1;
                Ok(())
            }
            _ => Err(Box::new(order)),
        }
    }

    fn give_postponed(&mut self) {
        while let Some(order) = self.postponed.pop_front() {
            if let Err(order) = self.give(order) {
                self.postponed.push_front(*order);
                return;
            }
        }
    }

    fn is_free(&self) -> bool {
        self.started.is_some() && self.in_flight.len() < BATCHES_IN_FLIGHT
    }
}

/// A thread that hung, and what it had.
#[derive(Debug)]
pub(crate) struct Hung {
    pub(crate) place: usize,
    /// Of the thread that was given up.
    pub(crate) link: Arc<Link>,
    /// How long the call has taken.
    pub(crate) taken: Duration,
    /// The batch whose execution hangs; none if it hangs in loading.
    pub(crate) batch: Option<InFlight>,
    /// Batches that waited behind it.
    pub(crate) behind: Vec<InFlight>,
    /// Whether another thread has taken its place.
    pub(crate) replaced: bool,
}

/// All threads of a device.
pub(crate) struct Crew {
    posts: Vec<Post>,
    parts: ThreadParts,
    generation: u64,
}

impl Crew {
    pub(crate) fn new(threads: usize, parts: ThreadParts) -> Self {
        let mut crew = Self {
            posts: Vec::new(),
            generation: 0,
            parts,
        };
        crew.grow(threads.max(1));
        crew
    }

    /// Sees to it that there are at least so many threads, as far as they start.
    pub(crate) fn grow(&mut self, threads: usize) {
        while self.posts.len() < threads {
            let place = self.posts.len();
            let (id, started) = self.start(place);
            self.posts.push(Post {
                id,
                started,
                in_flight: VecDeque::new(),
                outstanding: 0,
                postponed: VecDeque::new(),
            });
        }
        self.parts.shared.has_threads(self.posts.len());
    }

    fn start(&mut self, place: usize) -> (ThreadId, Option<Started>) {
        // Counted on by the device's successive actors: none hears what threads of its predecessor say late.
        self.generation = self.parts.shared.next_generation();
        let id = ThreadId {
            place,
            generation: self.generation,
        };
        let started = thread::start(id, self.parts.clone())
            .inspect_err(|error| tracing::error!(%error, "a device thread does not start"));
        (id, started.ok())
    }

    /// Whether a thread has ended that nobody told to.
    pub(crate) fn has_lost_one(&self) -> bool {
        let mut started = self.posts.iter().filter_map(|post| post.started.as_ref());
        started.any(|started| !started.link.is_running())
    }

    /// Fills the places that stayed empty, once threads that hung have come back; which these are.
    pub(crate) fn refill(&mut self) -> Vec<usize> {
        let empty = |(place, post): (usize, &Post)| post.started.is_none().then_some(place);
        let empty: Vec<usize> = self.posts.iter().enumerate().filter_map(empty).collect();
        let mut filled = Vec::new();
        for place in empty {
            if self.parts.shared.abandoned() > MAX_ABANDONED {
                break;
            }
            let (id, started) = self.start(place);
            if let Some(post) = self.posts.get_mut(place).filter(|_| started.is_some()) {
                (post.id, post.started) = (id, started);
                filled.push(place);
            }
        }
        filled
    }

    /// How many places there are.
    pub(crate) fn places(&self) -> usize {
        self.posts.len()
    }

    /// The places whose threads take a batch, those with the fewest first.
    pub(crate) fn free_places(&self) -> SmallVec<[usize; 8]> {
        let free = |(place, post): (usize, &Post)| post.is_free().then_some((post.in_flight.len(), place));
        let mut free: SmallVec<[(usize, usize); 8]> = self.posts.iter().enumerate().filter_map(free).collect();
        free.sort_unstable();
        free.into_iter().map(|(_, place)| place).collect()
    }

    /// Whether there is a thread at this place.
    pub(crate) fn is_manned(&self, place: usize) -> bool {
        self.posts.get(place).is_some_and(|post| post.started.is_some())
    }

    /// Tells a thread something about a model, now or once there is room, in the order of telling; false if there is no thread.
    pub(crate) fn tell(&mut self, place: usize, order: Order) -> bool {
        let post = self.posts.get_mut(place).filter(|post| post.started.is_some());
        post.is_some_and(|post| {
            if let Order::Configure(key, _) = &order {
                post.postponed
                    .retain(|known| !matches!(known, Order::Configure(other, _) if other == key));
            }
            post.postponed.push_back(order);
            post.give_postponed();
            true
        })
    }

    /// Hands a batch to a thread, or gives it back.
    pub(crate) fn run(&mut self, place: usize, run: RunBatch, limit: Duration) -> Result<(), Box<RunBatch>> {
        let Some(post) = self.posts.get_mut(place) else {
            return Err(Box::new(run));
        };
        let in_flight = InFlight {
            number: run.number,
            model: run.model.clone(),
            rows: run.rows,
            replies: run.replies.clone(),
            traces: run.members.iter().map(|member| member.job.trace).collect(),
            limit,
        };
        match post.give(Order::Run(run)).map_err(|order| *order) {
            Err(Order::Run(run)) => Err(Box::new(run)),
            _ => {
                post.in_flight.push_back(in_flight);
                Ok(())
            }
        }
    }

    /// A thread's news; none if it is of one that is here no more.
    pub(crate) fn heard(&mut self, done: Done) -> Option<(usize, News)> {
        let place = done.thread.place;
        let post = self.posts.get_mut(place).filter(|post| post.id == done.thread)?;
        post.outstanding = post.outstanding.saturating_sub(1);
        if let News::Batch(BatchNews { number, .. }) = done.news {
            post.in_flight.retain(|batch| batch.number != number);
        }
        post.give_postponed();
        Some((place, done.news))
    }

    /// Gives up the threads whose call into a model takes too long, and puts others in their places. What they had is to be
    /// answered by whoever asks for this.
    pub(crate) fn replace_hung(&mut self, now: Instant) -> Vec<Hung> {
        let mut all = Vec::new();
        for place in 0..self.posts.len() {
            let Some(post) = self.posts.get_mut(place) else { break };
            let Some(started) = &post.started else { continue };
            let (shared, link) = (&self.parts.shared, &started.link);
            let mut within = false;
            let given_up = link.pulse.give_up_overdue(now, || {
                // Counted before the thread can see it, which counts itself out again.
                within = shared.gave_up() <= MAX_ABANDONED;
                let abandoned = link.abandon();
                if !abandoned {
                    shared.came_back();
                }
                abandoned
            });
            let Some((taken, number)) = given_up else { continue };
            let link = link.clone();
            let mut behind: Vec<InFlight> = post.in_flight.drain(..).collect();
            let position = behind.iter().position(|batch| Some(batch.number) == number);
            let batch = position.map(|position| behind.remove(position));
            post.started = None;
            post.outstanding = 0;
            post.postponed.clear();
            if within {
                let (id, started) = self.start(place);
                if let Some(post) = self.posts.get_mut(place) {
                    (post.id, post.started) = (id, started);
                }
            }
            let replaced = self.posts.get(place).is_some_and(|post| post.started.is_some());
            all.push(Hung {
                place,
                link,
                taken,
                batch,
                behind,
                replaced,
            });
        }
        all
    }

    /// When to look for hung threads again.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let due = |post: &Post| {
            let started = post.started.as_ref()?;
            // What has not begun yet cannot hang before it may.
            let waiting = || post.in_flight.front().map(|batch| now + batch.limit);
            let told = || (post.outstanding > 0).then_some(now + self.parts.execution_timeout);
            started.link.pulse.due().or_else(waiting).or_else(told)
        };
        self.posts.iter().filter_map(due).min()
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        let mut ending = Vec::new();
        for post in &mut self.posts {
            // Without its orders' sender a thread finishes what it was given, and ends.
            ending.extend(post.started.take().map(|Started { link, handle, .. }| (link, handle)));
        }
        for (link, handle) in ending {
            if !link.wait(JOIN_PATIENCE) {
                self.parts.shared.gave_up();
                if link.abandon() {
                    tracing::error!("a device thread does not end: it is left behind");
                } else {
                    self.parts.shared.came_back();
                }
            } else if handle.join().is_err() {
                tracing::error!("a device thread ended by a panic");
            }
        }
    }
}
