//! How long an HTTP/1.1 connection may take between its requests, and how long the head of a request may be.
//!
//! The library that reads HTTP/1.1 bounds the time of a connection's first head, and then the time in which nothing comes: a caller
//! who sends a byte of a second head now and then would keep its place for ever (slow loris), and a head may have 128 KiB. So the
//! socket is handed to the library in a [`Paced`], which knows when bytes come, and learns from the handlers when a request is under
//! way. It reads no head itself: what is under way when the library has looked at all that came is a head that is not whole. But it follows
//! their lines, since the library takes a line feed alone for a line's end ([`Lines`]): in the place of such a one it hands on what the
//! library refuses, as it refuses every other head that is none, and nothing more.
//!
//! Invariants: with no request under way a head is whole within `head_timeout` of its first byte, and a connection on which nothing
//! goes in or out ends after `keep_alive`; a head has [`MAX_HEAD_BYTES`] at most. Whoever is sent away with a head begun is told why,
//! but never into the middle of an answer. A request under way is cut off only where nothing of its answer is taken for `keep_alive`.
//! It costs a request no timer: one per connection is set anew only when it fires or a shorter time begins.

use std::{
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::http::StatusCode;
use mesh_protocol::error_body;
use mesh_telemetry::Telemetry;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::{lines::Lines, linger::Linger, pulse::Pulse};

/// The longest head of a request; what HTTP/2 has for a list of headers.
pub const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What no line may hold: a carriage return, and no line feed behind it.
const BROKEN_LINE: &[u8] = b"\rx";

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// A head, from its first byte to its last; a connection's first, from when it was accepted.
    pub head: Duration,
    /// A connection on which nothing goes in or out; an answer of which nothing is taken.
    pub still: Duration,
}

/// A head that is not known to be whole.
#[derive(Debug, Clone, Copy)]
struct Head {
    since: Instant,
    bytes: usize,
    /// How many requests had begun before it.
    after: u64,
}

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Late,
    Long,
    /// A line ends in a line feed alone. The library says so.
    Broken,
}

impl End {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Late => "http1_slow_head",
            Self::Long => "http1_long_head",
            Self::Broken => "http1_bare_line_feed",
        }
    }

    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Long => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Broken => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn message(self) -> String {
        match self {
            Self::Late => "the head of the request took too long".to_owned(),
            Self::Long => format!("the head of the request has more than {MAX_HEAD_BYTES} bytes"),
            Self::Broken => "a line ends in a line feed alone".to_owned(),
        }
    }

    fn answer(self) -> Vec<u8> {
        let body = error_body(&self.message());
        let head = format!(
            "HTTP/1.1 {}\r\ncontent-length: {}\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n",
            self.status(),
            body.len()
        );
        [head.into_bytes(), body].concat()
    }
}

/// How far the sending away has come.
#[derive(Debug)]
struct Farewell {
    text: Vec<u8>,
    said: usize,
    linger: Linger,
}

/// A socket that ends when its other end takes too long.
#[derive(Debug)]
pub struct Paced<IO> {
    socket: IO,
    pulse: Rc<Pulse>,
    bounds: Bounds,
    head: Option<Head>,
    /// Set to no later than the connection may last as it is.
    timer: Pin<Box<Sleep>>,
    is_set: bool,
    /// Whether all that the library had to say is said.
    is_said: bool,
    /// Since when the other end takes nothing of what is to be said.
    stuck_since: Option<Instant>,
    end: Option<End>,
    farewell: Option<Farewell>,
    lines: Lines,
    /// What is left to hand on of a line that is broken; nothing more is read.
    broken: Option<&'static [u8]>,
}

impl<IO> Paced<IO> {
    /// Paces a connection that was just accepted, and counts those that are sent away.
    pub fn new(socket: IO, bounds: Bounds, telemetry: Telemetry) -> Self {
        let now = Instant::now();
        Self {
            socket,
            pulse: Pulse::new(now, telemetry),
            // Who has connected owes a head.
            head: Some(Head {
                since: now,
                bytes: 0,
                after: 0,
            }),
            timer: Box::pin(sleep_until(now + bounds.head)),
            bounds,
            is_set: false,
            is_said: true,
            stuck_since: None,
            end: None,
            farewell: None,
            lines: Lines::new(),
            broken: None,
        }
    }

    /// What the handlers speak to.
    pub fn pulse(&self) -> Rc<Pulse> {
        self.pulse.clone()
    }

    /// The connection itself.
    pub fn paced(&self) -> &IO {
        &self.socket
    }

    /// The head that is awaited, if one is.
    fn awaited(&self) -> Option<Head> {
        self.head.filter(|head| head.after == self.pulse.begun.get())
    }

    /// When the connection is over if nothing happens; none while a request is under way whose answer is taken.
    fn over(&self) -> Option<Instant> {
        if let Some(since) = self.stuck_since {
            return Some(since + self.bounds.still);
        }
        if self.pulse.under_way.get() > 0 {
            return None;
        }
        Some(match self.awaited() {
            Some(head) => head.since + self.bounds.head,
            None => self.pulse.still_since.get() + self.bounds.still,
        })
    }

    /// Follows the lines of what was read into the buffer behind `before`, and breaks the first that ends in a line feed alone.
    fn follow(&mut self, into: &mut ReadBuf<'_>, before: usize) {
        let read = into.filled().get(before..).unwrap_or_default();
        if let Some(at) = self.lines.alone(read) {
            self.pulse.refused(End::Broken);
            into.set_filled(before + at);
            self.broken = Some(BROKEN_LINE);
            self.hand_on(into);
        }
    }

    /// Hands on as much as there is room for of what stands for a broken line.
    fn hand_on(&mut self, into: &mut ReadBuf<'_>) {
        let left = self.broken.unwrap_or_default();
        let (now, later) = left.split_at(left.len().min(into.remaining()));
        into.put_slice(now);
        self.broken = Some(later);
    }

    /// Notes what came while no request was under way.
    fn came(&mut self, bytes: usize) {
        if bytes == 0 || self.pulse.under_way.get() > 0 {
            return;
        }
        let head = self.awaited().unwrap_or_else(|| Head {
            since: Instant::now(),
            bytes: 0,
            after: self.pulse.begun.get(),
        });
        let bytes = head.bytes.saturating_add(bytes);
        if bytes > MAX_HEAD_BYTES {
            self.pulse.is_much.set(true);
        }
        self.head = Some(Head { bytes, ..head });
    }

    /// Looks at where the connection stands once the library has read all that came and said what it can, and sees to being woken.
    fn look(&mut self, context: &mut Context<'_>) {
        if self.end.is_some() {
            return;
        }
        let Some(over) = self.over() else { return };
        if self.is_said && self.awaited().is_some_and(|head| head.bytes > MAX_HEAD_BYTES) {
            self.end = Some(End::Long);
            // It is told to the library where it reads.
            context.waker().wake_by_ref();
            return;
        }
        if self.is_set && self.timer.deadline() <= over && !self.timer.is_elapsed() {
            return;
        }
        if !self.is_set || self.timer.deadline() != over {
            self.timer.as_mut().reset(over);
        }
        self.is_set = true;
        if self.timer.as_mut().poll(context).is_ready() {
            context.waker().wake_by_ref();
        }
    }

    /// Whether the connection is over.
    fn is_over(&mut self) -> bool {
        if self.end.is_none() && self.is_set && self.timer.is_elapsed() {
            let over = self.over();
            if over.is_some_and(|over| Instant::now() >= over) {
                self.end = Some(End::Late);
            }
        }
        self.end.is_some()
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Paced<IO> {
    /// Says why the connection ends, where that can be said, and then waits a little for the other end to hear it.
    fn poll_end(&mut self, end: End, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            let has_begun = self.awaited().is_some_and(|head| head.bytes > 0) && !self.pulse.is_last.get();
            if has_begun {
                self.pulse.refused(end);
            }
            if !has_begun || !self.is_said {
                return Poll::Ready(Ok(()));
            }
        }
        let farewell = self.farewell.get_or_insert_with(|| Farewell {
            text: end.answer(),
            said: 0,
            linger: Linger::default(),
        });
        while let Some(left) = farewell.text.get(farewell.said..).filter(|left| !left.is_empty()) {
            match Pin::new(&mut self.socket).poll_write(context, left) {
                Poll::Ready(Ok(said)) if said > 0 => farewell.said += said,
                // Whoever does not take a few bytes is not waited for.
                _ => return Poll::Ready(Ok(())),
            }
        }
        farewell.linger.poll(&mut self.socket, context)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Paced<IO> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_over()
            && let Some(end) = this.end
        {
            // Nothing read is the end.
            return this.poll_end(end, context);
        }
        let before = into.filled().len();
        match this.broken {
            // The library has all that it needs to refuse the rest.
            Some([]) => return Poll::Pending,
            Some(_) => this.hand_on(into),
            None => {
                ready!(Pin::new(&mut this.socket).poll_read(context, into))?;
                this.follow(into, before);
            }
        }
        this.came(into.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Paced<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_said = false;
        if self.is_over() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let written = Pin::new(&mut self.socket).poll_write(context, bytes);
        if written.is_pending() {
            self.stuck_since.get_or_insert_with(Instant::now);
            self.look(context);
        } else {
            self.stuck_since = None;
            if self.pulse.under_way.get() == 0 {
                self.pulse.still_since.set(Instant::now());
            }
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.socket).poll_flush(context))?;
        self.is_said = true;
        self.look(context);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
