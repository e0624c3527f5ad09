//! How long the body of a request may take.
//!
//! Owns the wait for what is still to come of a body, of whoever sends it: a place at the door is held meanwhile, and the door has few. A
//! body that is read whole has a time in all; an upload, which may take as long as its file is large, has a time for each part of it.
//! Bounds no bytes: whoever reads does.
//!
//! Invariants: only waiting for the caller counts, never what the door itself does with a piece; who is late is answered 408 whatever the
//! handler would have said, and the connection ends, because the rest of the body may be on it.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    Error, HttpMessage as _, ResponseError as _,
    body::BoxBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::StatusCode,
    middleware::Next,
    web::Bytes,
};
use futures::{Stream, StreamExt as _};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::error::ApiError;

/// How long a body may be waited for that is read whole: as long as at the inference doors.
const MAX_BODY_TIME: Duration = Duration::from_secs(60);
/// The same for who has shown no credential yet: as long as a head may take.
const MAX_LOGIN_TIME: Duration = Duration::from_secs(5);
/// How long each part of an upload may be waited for.
const MAX_PART_TIME: Duration = Duration::from_secs(30);
/// What counts as a part; the last one may be smaller.
const PART_BYTES: usize = 64 << 10;

/// How long a body may be waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    time: Duration,
    /// The time is for each so many bytes, and not for all.
    part: Option<usize>,
}

impl Pace {
    /// Of a body that is read whole.
    pub(crate) const WHOLE: Self = Self {
        time: MAX_BODY_TIME,
        part: None,
    };
    /// Of a sign-in's.
    pub(crate) const LOGIN: Self = Self {
        time: MAX_LOGIN_TIME,
        part: None,
    };
    /// Of an upload's.
    pub(crate) const UPLOAD: Self = Self {
        time: MAX_PART_TIME,
        part: Some(PART_BYTES),
    };
}

/// A body that ends with an error once it was waited for too long.
struct Paced {
    payload: Payload,
    pace: Pace,
    /// Waited so far, and come, since a part was last whole.
    waited: Duration,
    came: usize,
    /// Since when it is waited now.
    since: Option<Instant>,
    over: Pin<Box<Sleep>>,
    is_late: Rc<Cell<bool>>,
}

impl Paced {
    fn new(payload: Payload, pace: Pace, is_late: Rc<Cell<bool>>) -> Self {
        Self {
            payload,
            pace,
            waited: Duration::ZERO,
            came: 0,
            since: None,
            over: Box::pin(sleep_until(Instant::now())),
            is_late,
        }
    }

    fn note(&mut self, bytes: usize) {
        self.came = self.came.saturating_add(bytes);
        if self.pace.part.is_some_and(|part| self.came >= part) {
            (self.came, self.waited) = (0, Duration::ZERO);
        }
    }
}

impl Stream for Paced {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.is_late.get() {
            return Poll::Ready(None);
        }
        if let Some(since) = this.since.take() {
            this.waited = this.waited.saturating_add(since.elapsed());
        }
        if let Poll::Ready(piece) = this.payload.poll_next_unpin(context) {
            if let Some(Ok(piece)) = &piece {
                this.note(piece.len());
            }
            return Poll::Ready(piece);
        }
        if this.waited >= this.pace.time {
            this.is_late.set(true);
            return Poll::Ready(Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into()))));
        }
        let now = Instant::now();
        this.since = Some(now);
        this.over
            .as_mut()
            .reset(now + this.pace.time.saturating_sub(this.waited));
        if this.over.as_mut().poll(context).is_ready() {
            // It is over already: what was waited is looked at once more.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// Stands before a route, and sees to it that its body comes in time.
pub(crate) async fn keep_pace(
    pace: Pace,
    mut request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse, Error> {
    let is_late = Rc::new(Cell::new(false));
    match request.take_payload() {
        Payload::None => {}
        payload => {
            let payload = Box::pin(Paced::new(payload, pace, is_late.clone()));
            request.set_payload(Payload::Stream { payload });
        }
    }
    let answer = next.call(request).await?;
    if !is_late.get() {
        return Ok(answer);
    }
    let (request, _) = answer.into_parts();
    let late = ApiError::new(
        StatusCode::REQUEST_TIMEOUT,
        "the body of the request took too long to come: nothing was done, send it again",
    );
    Ok(ServiceResponse::new(request, late.error_response()))
}

#[cfg(test)]
#[path = "bodies_tests.rs"]
mod tests;
