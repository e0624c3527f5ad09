//! How long an HTTP/1.1 connection may take between its requests, and how long the head of a request may be.
//!
//! The library that reads HTTP/1.1 bounds the time of a connection's first head, and then the time in which nothing comes: a caller
//! who sends a byte of a second head now and then would keep its place for ever (slow loris), and a head may have 128 KiB. So the
//! socket is handed to the library in a [`Paced`], which knows when bytes come, and learns from the handlers when a request is under
//! way. It reads no head itself: what is under way when the library has looked at all that came is a head that is not whole.
//!
//! Invariants: with no request under way a head is whole within `head_timeout` of its first byte, and a connection on which nothing
//! goes in or out ends after `keep_alive`; a head has [`MAX_HEAD_BYTES`] at most. Whoever is sent away with a head begun is told why,
//! but never into the middle of an answer. A request under way is cut off only where nothing of its answer is taken for `keep_alive`.
//! It costs a request no timer: one per connection is set anew only when it fires or a shorter time begins.

use std::{
    cell::Cell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    http::{ConnectionType, StatusCode},
};
use bytes::Bytes;
use mesh_protocol::error_body;
use mesh_telemetry::Telemetry;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use crate::{config::HttpDoorConfig, linger::Linger, reply};

/// The longest head of a request; what HTTP/2 has for a list of headers.
pub(crate) const MAX_HEAD_BYTES: usize = 16 * 1024;

/// What the handlers say of a connection.
#[derive(Debug)]
pub(crate) struct Pulse {
    under_way: Cell<usize>,
    /// How many requests have begun.
    begun: Cell<u64>,
    /// When something last went out, or a request ended.
    still_since: Cell<Instant>,
    /// Whether an answer has said that it is the last.
    is_last: Cell<bool>,
    /// Whether more has come since the last request began than a head may have.
    is_much: Cell<bool>,
}

/// A request under way; over when it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay(Rc<Pulse>);

impl Pulse {
    fn new(now: Instant) -> Rc<Self> {
        Rc::new(Self {
            under_way: Cell::new(0),
            begun: Cell::new(0),
            still_since: Cell::new(now),
            is_last: Cell::new(false),
            is_much: Cell::new(false),
        })
    }

    /// Begins a request, on a connection that has a pulse.
    pub(crate) fn begin(request: &HttpRequest) -> Option<UnderWay> {
        let pulse = request.conn_data::<Rc<Self>>()?.clone();
        pulse.under_way.set(pulse.under_way.get() + 1);
        pulse.begun.set(pulse.begun.get().wrapping_add(1));
        Some(UnderWay(pulse))
    }
}

/// The bytes of a head, as one would write it.
fn head_bytes(request: &HttpRequest) -> usize {
    let line = request.method().as_str().len() + request.uri().to_string().len() + "  HTTP/1.1\r\n\r\n".len();
    let fields = request.headers().iter();
    line + fields
        .map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len())
        .sum::<usize>()
}

impl UnderWay {
    /// The answer to a request whose head is too long; none for all others. It is counted only where enough came for one.
    pub(crate) fn too_long(&self, request: &HttpRequest) -> Option<HttpResponse> {
        if !self.0.is_much.replace(false) || head_bytes(request) <= MAX_HEAD_BYTES {
            return None;
        }
        let mut answer = reply::refusal(End::Long.status().as_u16(), &End::Long.message());
        answer.head_mut().set_connection_type(ConnectionType::Close);
        Some(answer)
    }

    /// Ends it with the answer: at once where that is whole, else with the last of it.
    pub(crate) fn end_with(self, answer: HttpResponse) -> HttpResponse {
        if answer.head().connection_type() == ConnectionType::Close {
            self.0.is_last.set(true);
        }
        match answer.body().size() {
            BodySize::Stream => answer.map_body(|_, body| BoxBody::new(Parts { body, _until: self })),
            BodySize::None | BodySize::Sized(_) => answer,
        }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let left = self.0.under_way.get().saturating_sub(1);
        self.0.under_way.set(left);
        if left == 0 {
            self.0.still_since.set(Instant::now());
        }
    }
}

/// A body of unknown length, whose request lasts as long.
struct Parts {
    body: BoxBody,
    _until: UnderWay,
}

impl MessageBody for Parts {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

/// The bounds.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    head: Duration,
    still: Duration,
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
enum End {
    Late,
    Long,
}

impl End {
    fn reason(self) -> &'static str {
        match self {
            Self::Late => "http1_slow_head",
            Self::Long => "http1_long_head",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Long => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        }
    }

    fn message(self) -> String {
        match self {
            Self::Late => "the head of the request took too long".to_owned(),
            Self::Long => format!("the head of the request has more than {MAX_HEAD_BYTES} bytes"),
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
pub(crate) struct Paced<IO> {
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
    telemetry: Telemetry,
}

impl<IO> Paced<IO> {
    pub(crate) fn new(socket: IO, config: &HttpDoorConfig, telemetry: Telemetry) -> Self {
        let now = Instant::now();
        let bounds = Bounds {
            head: config.head_timeout,
            still: config.keep_alive,
        };
        Self {
            socket,
            pulse: Pulse::new(now),
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
            telemetry,
        }
    }

    /// What the handlers speak to.
    pub(crate) fn pulse(&self) -> Rc<Pulse> {
        self.pulse.clone()
    }

    /// The connection itself.
    pub(crate) fn paced(&self) -> &IO {
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
                self.telemetry.metrics().refused(end.reason());
            }
            if !has_begun || !self.is_said {
                return Poll::Ready(Ok(()));
            }
        }
        let farewell = self.farewell.get_or_insert_with(|| Farewell {
            text: end.answer(),
            said: 0,
            linger: Linger::new(),
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
        ready!(Pin::new(&mut this.socket).poll_read(context, into))?;
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
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const STILL: Duration = Duration::from_millis(200);

    fn paced(room: usize) -> (Paced<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(room);
        let config = HttpDoorConfig {
            head_timeout: Duration::from_secs(60),
            keep_alive: STILL,
            ..HttpDoorConfig::default()
        };
        (Paced::new(ours, &config, Telemetry::local()), theirs)
    }

    fn begin(of: &Paced<DuplexStream>) -> UnderWay {
        let pulse = of.pulse();
        pulse.under_way.set(1);
        pulse.begun.set(1);
        UnderWay(pulse)
    }

    #[actix_web::test]
    async fn an_answer_of_which_nothing_is_taken_ends_and_one_that_is_taken_slowly_does_not() {
        let (mut ours, mut theirs) = paced(4);
        let _under_way = begin(&ours);
        let said = async { ours.write_all(b"0123456789abcdef").await.map(|()| ours) };
        let heard = async {
            let mut heard = [0; 12];
            for four in heard.chunks_exact_mut(4) {
                tokio::time::sleep(STILL / 2).await;
                theirs.read_exact(four).await.unwrap();
            }
            heard
        };
        let (said, heard) = futures::join!(said, heard);
        assert_eq!(heard, *b"0123456789ab");
        let mut ours = said.unwrap();
        let late = tokio::time::timeout(20 * STILL, ours.write_all(b"more")).await;
        let late = late.expect("waits for ever").unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
    }

    #[actix_web::test]
    async fn nothing_is_said_into_the_middle_of_an_answer() {
        let (mut ours, mut theirs) = paced(64);
        ours.bounds.head = STILL;
        drop(begin(&ours));
        ours.write_all(b"half of an ").await.unwrap();
        theirs.write_all(b"GET /v2").await.unwrap();
        let mut read = [0; 64];
        assert_eq!(ours.read(&mut read).await.unwrap(), 7);
        // It waits without having said all: `flush` is not called.
        poll_fn(|context| {
            ours.look(context);
            Poll::Ready(())
        })
        .await;
        let ended = tokio::time::timeout(20 * STILL, ours.read(&mut read)).await;
        assert_eq!(ended.expect("waits for ever").unwrap(), 0);
        drop(ours);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "half of an ");
    }
}
