//! The driving of one connection: its calls first, then the wire, then what time says.

use std::{
    future::{Future, poll_fn},
    panic::AssertUnwindSafe,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::{
    body::BoxBody,
    dev::{Service, ServiceResponse},
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use h2::{
    Ping, PingPong, Reason, RecvStream,
    server::{self, SendResponse},
};
use mesh_wire::{Counted, Flood};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, Sleep, sleep},
};

use super::{
    Far, Thread,
    call::{self, Caller},
};

/// How long a client without calls may take to close its side once it was told that the connection ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection that has begun.
pub(super) struct Connection<IO, S> {
    wire: server::Connection<Counted<IO>, Bytes>,
    far: Far,
    thread: Rc<Thread<S>>,
    flood: Flood,
    calls: FuturesUnordered<LocalBoxFuture<'static, ()>>,
    pings: Option<Pings>,
    /// How long it may go on without a call.
    patience: Pin<Box<Sleep>>,
    was_busy: bool,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The client was told that no more calls are taken.
    Leaving,
    /// The client was told why all its calls have ended.
    Broken,
}

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    S: Service<actix_http::Request, Response = ServiceResponse<BoxBody>, Error = actix_web::Error> + 'static,
{
    pub(super) fn new(
        mut wire: server::Connection<Counted<IO>, Bytes>,
        far: Far,
        thread: Rc<Thread<S>>,
        flood: Flood,
    ) -> Self {
        let limits = &thread.limits;
        Self {
            pings: wire
                .ping_pong()
                .map(|pings| Pings::new(pings, limits.ping_interval, limits.ping_timeout)),
            patience: Box::pin(sleep(limits.idle)),
            wire,
            far,
            flood,
            thread,
            calls: FuturesUnordered::new(),
            was_busy: false,
            stage: Stage::Open,
        }
    }

    pub(super) async fn run(mut self, ending: impl Future<Output = ()>) {
        let mut ending = pin!(ending.fuse());
        poll_fn(|context| {
            if ending.as_mut().poll(context).is_ready() {
                self.leave();
            }
            self.poll(context)
        })
        .await;
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.stage != Stage::Broken && self.turn(context).is_ready() {
            return Poll::Ready(());
        }
        if self.stage == Stage::Broken {
            // Who does not take the farewell is not waited for.
            let closed = self.wire.poll_closed(context).is_ready();
            return if closed {
                Poll::Ready(())
            } else {
                self.patience.as_mut().poll(context)
            };
        }
        if self.pings.as_mut().is_some_and(|pings| pings.poll(context).is_ready()) {
            tracing::debug!("nobody is at the other end of an HTTP/2 connection");
            return Poll::Ready(());
        }
        self.wait(context)
    }

    /// Drives calls and wire until neither gets any further; ready once the connection is over.
    fn turn(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            // Answers first, so that the wire sends them in the same turn.
            while let Poll::Ready(Some(())) = self.calls.poll_next_unpin(context) {}
            let accepted = self.wire.poll_accept(context);
            if self.flood.is_over() {
                self.break_off();
                return Poll::Pending;
            }
            match ready!(accepted) {
                Some(Ok((request, respond))) => self.begin(request, respond),
                Some(Err(error)) => {
                    if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                        self.count_flood();
                    }
                    tracing::debug!(%error, "an HTTP/2 connection broke");
                    return Poll::Ready(());
                }
                None => return Poll::Ready(()),
            }
        }
    }

    fn begin(&self, request: http::Request<RecvStream>, respond: SendResponse<Bytes>) {
        let caller = Caller {
            request,
            respond,
            far: self.far.clone(),
        };
        let call = AssertUnwindSafe(call::answer(self.thread.clone(), caller)).catch_unwind();
        self.calls.push(Box::pin(call.map(|ended| match ended {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::debug!(%why, "an answer was not sent"),
            Err(_) => tracing::error!("an HTTP/2 call panicked"),
        })));
    }

    /// Says how long the connection is waited for where it has no calls; ready once that is over.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.calls.is_empty() {
            self.was_busy = true;
            return Poll::Pending;
        }
        if std::mem::take(&mut self.was_busy) {
            let leaving = self.stage == Stage::Leaving;
            self.bear(if leaving { FAREWELL } else { self.thread.limits.idle });
        }
        ready!(self.patience.as_mut().poll(context));
        if self.stage == Stage::Leaving {
            return Poll::Ready(());
        }
        self.leave();
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells the client to make no more calls here.
    fn leave(&mut self) {
        if self.stage == Stage::Open {
            self.stage = Stage::Leaving;
            self.wire.graceful_shutdown();
            self.bear(FAREWELL);
        }
    }

    /// Ends all calls, which gives back what they hold; the socket says why.
    fn break_off(&mut self) {
        self.stage = Stage::Broken;
        self.count_flood();
        self.calls.clear();
        self.bear(FAREWELL);
    }

    fn count_flood(&self) {
        self.thread.telemetry.metrics().refused("http2_flood");
    }

    fn bear(&mut self, wait: Duration) {
        self.patience.as_mut().reset(Instant::now() + wait);
    }
}

/// Asks now and then whether the client is still there: one that is gone without a word would hold its calls for ever.
struct Pings {
    pings: PingPong,
    interval: Duration,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    is_asked: bool,
}

impl Pings {
    fn new(pings: PingPong, interval: Duration, timeout: Duration) -> Self {
        Self {
            pings,
            interval,
            timeout,
            timer: Box::pin(sleep(interval)),
            is_asked: false,
        }
    }

    /// Ready where nobody is there.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let wait = if self.is_asked {
                match self.pings.poll_pong(context) {
                    Poll::Ready(Ok(_)) => self.interval,
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return self.timer.as_mut().poll(context),
                }
            } else {
                ready!(self.timer.as_mut().poll(context));
                if self.pings.send_ping(Ping::opaque()).is_err() {
                    return Poll::Ready(());
                }
                self.timeout
            };
            self.is_asked = !self.is_asked;
            self.timer.as_mut().reset(Instant::now() + wait);
        }
    }
}
