//! Counts what a caller sends, against the memory that all callers share, and gives up on a caller that takes too long.
//!
//! The first bytes of each message are free: they are no more than a connection's own buffer, and small calls must pass also
//! where large ones have taken everything. What was counted is held until the message's call is answered.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use mesh_router::{Budget, Share};
use parking_lot::Mutex;
use tokio::time::Sleep;
use tonic::Status;

/// What is not counted of each message.
pub(crate) const FREE_BYTES: usize = 16 * 1024;

/// What has been counted since the last message was taken.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    budget: Budget,
    counted: Arc<Mutex<Counted>>,
}

#[derive(Debug)]
struct Counted {
    share: Share,
    free: usize,
}

/// A request's body under a meter.
#[derive(Debug)]
pub(crate) struct Metered {
    body: Incoming,
    meter: Meter,
    patience: Option<(Duration, Pin<Box<Sleep>>)>,
}

impl Meter {
    pub(crate) fn new(budget: &Budget) -> Self {
        let counted = Counted {
            share: budget.share(),
            free: FREE_BYTES,
        };
        Self {
            budget: budget.clone(),
            counted: Arc::new(Mutex::new(counted)),
        }
    }

    fn count(&self, bytes: usize) -> bool {
        let mut counted = self.counted.lock();
        let free = bytes.min(counted.free);
        counted.free -= free;
        free == bytes || counted.share.grow(bytes - free)
    }

    /// What was counted so far, to be held for as long as it is kept.
    pub(crate) fn take(&self) -> Share {
        let mut counted = self.counted.lock();
        counted.free = FREE_BYTES;
        std::mem::replace(&mut counted.share, self.budget.share())
    }

    /// The body, counted; with `patience`, all of it must come in that time.
    pub(crate) fn over(&self, body: Incoming, patience: Option<Duration>) -> Metered {
        Metered {
            body,
            meter: self.clone(),
            patience: patience.map(|patience| (patience, Box::pin(tokio::time::sleep(patience)))),
        }
    }
}

impl Body for Metered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            if let Some((patience, sleep)) = &mut self.patience
                && sleep.as_mut().poll(context).is_ready()
            {
                let text = format!("the message took longer than {} seconds to arrive", patience.as_secs());
                return Poll::Ready(Some(Err(Status::deadline_exceeded(text))));
            }
            return Poll::Pending;
        };
        let Some(frame) = frame else { return Poll::Ready(None) };
        let frame = frame.map_err(|_| Status::cancelled("the request ended early"))?;
        if let Some(data) = frame.data_ref()
            && !self.meter.count(data.len())
        {
            let text = "the server has no room for another large message: try again";
            return Poll::Ready(Some(Err(Status::unavailable(text))));
        }
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_messages_are_free_and_large_ones_are_counted_to_the_bound_until_they_are_given_back() {
        let budget = Budget::new(100);
        let (one, other) = (Meter::new(&budget), Meter::new(&budget));
        assert!(one.count(FREE_BYTES));
        assert!(one.count(100));
        assert!(!one.count(1));
        assert!(other.count(FREE_BYTES), "a small message passes all the same");
        assert!(!other.count(1));
        let held = one.take();
        assert!(one.count(FREE_BYTES), "the next message has its own free bytes");
        assert!(!one.count(1));
        drop(held);
        assert!(one.count(100));
    }
}
