//! What an HTTP/2 connection may send that is no work: counted frame by frame as it is read, so that a flood is noticed before it is
//! worked off.
//!
//! Every frame but those that carry a body costs something, and a call that is taken back costs more, since it was begun for
//! nothing. What is answered gives some back, as it is written, and so does time: a client that waits for its answers never runs out,
//! whatever else it sends along; one that opens and resets, pings, sets or prioritises without end does soon. The kinds of floods are
//! those of CVE-2019-9512 (pings), 9513 (priorities), 9514 and CVE-2023-44487 (resets), 9515 (settings), 9518 (empty frames)
//! and CVE-2024-27316 (continuations).
//!
//! Deliberately knows nothing of what frames mean beyond their first nine bytes: that is the HTTP/2 library's. Once they are too many, the
//! library reads nothing more and is heard no more: the other end is told why (GOAWAY, ENHANCE_YOUR_CALM) where that does not fall into
//! the middle of a frame, and then the connection ends. Whoever drives it asks [`Flood::is_over`] after each turn, and drops its calls.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use crate::linger::Linger;

/// What may be spent at once.
pub const ALLOWANCE: u32 = 2_000;
/// Time gives back one in so many milliseconds, up to the allowance.
const MILLISECONDS_PER_ONE: u128 = 10;
/// What an answered call gives back: it has cost one frame, and the client's own of flow control.
const PER_ANSWER: u32 = 10;
/// What a piece of an answer gives back: a client may say for each that it has read it, for the stream and the connection, and measure the
/// way by a ping.
const PER_PIECE: u32 = 3;

/// What a call that is taken back costs.
const PER_RESET: u32 = 5;
/// No frame costs more.
pub(crate) const MOST_PER_FRAME: u64 = PER_RESET as u64;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;
/// The padding's length, and the most that it can be.
const MOST_PADDING: usize = 1 + 255;

/// GOAWAY: any stream may have been begun, and the reason is ENHANCE_YOUR_CALM (RFC 9113, sections 6.8 and 7).
const FAREWELL: [u8; HEAD_BYTES + 8] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 11];

/// What a frame costs (RFC 9113, section 6).
fn cost(kind: u8, flags: u8, length: usize) -> u32 {
    match kind {
        // A piece that may be padding alone is no work either.
        DATA if flags & (PADDED | END_STREAM) == PADDED && length <= MOST_PADDING => 1,
        DATA if length > 0 || flags & END_STREAM != 0 => 0,
        SETTINGS | PING if flags & ACK != 0 => 0,
        RST_STREAM => PER_RESET,
        _ => 1,
    }
}

/// What a frame of ours gives back.
fn gain(kind: u8, flags: u8) -> u32 {
    let answered = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
    let piece = if kind == DATA { PER_PIECE } else { 0 };
    piece + if answered { PER_ANSWER } else { 0 }
}

/// What a connection has left, shared by its socket and whoever drives it.
#[derive(Debug, Clone)]
pub struct Flood(Rc<RefCell<Allowance>>);

#[derive(Debug)]
struct Allowance {
    left: u32,
    counted: Instant,
    is_over: bool,
}

impl Flood {
    /// Nothing is spent yet.
    pub fn new(now: Instant) -> Self {
        Self(Rc::new(RefCell::new(Allowance {
            left: ALLOWANCE,
            counted: now,
            is_over: false,
        })))
    }

    /// Whether more was sent than is allowed. It stays so.
    pub fn is_over(&self) -> bool {
        self.0.borrow().is_over
    }

    fn give(&self, more: u32) {
        let mut allowance = self.0.borrow_mut();
        allowance.left = (allowance.left + more).min(ALLOWANCE);
    }

    fn spend(&self, cost: u32, now: Instant) {
        let mut allowance = self.0.borrow_mut();
        let passed = now.saturating_duration_since(allowance.counted).as_millis() / MILLISECONDS_PER_ONE;
        if passed > 0 {
            // What is left of the time until the next one is lost, which is little where there is time.
            allowance.counted = now;
            let back = u32::try_from(passed).unwrap_or(ALLOWANCE);
            allowance.left = allowance.left.saturating_add(back).min(ALLOWANCE);
        }
        match allowance.left.checked_sub(cost) {
            Some(left) => allowance.left = left,
            None => allowance.is_over = true,
        }
    }
}

/// Finds the heads of frames in what is read, in whatever pieces it comes.
#[derive(Debug)]
struct Heads {
    /// Bytes until the next head.
    skip: usize,
    head: [u8; HEAD_BYTES],
    filled: usize,
}

impl Heads {
    fn behind(skip: usize) -> Self {
        Self {
            skip,
            head: [0; HEAD_BYTES],
            filled: 0,
        }
    }

    /// Whether the next byte begins a frame.
    fn is_between(&self) -> bool {
        self.skip == 0 && self.filled == 0
    }

    fn find(&mut self, mut bytes: &[u8], mut found: impl FnMut(u8, u8, usize)) {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            let part = bytes.len().min(HEAD_BYTES - self.filled);
            let (now, rest) = bytes.split_at(part);
            for (at, byte) in self.head.iter_mut().skip(self.filled).zip(now) {
                *at = *byte;
            }
            self.filled += part;
            bytes = rest;
            if self.filled == HEAD_BYTES {
                let [high, middle, low, kind, flags, ..] = self.head;
                let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                found(kind, flags, length);
                (self.skip, self.filled) = (length, 0);
            }
        }
    }
}

/// How many frames there are in what a connection sends at one moment, behind its preface and in pieces of this size, what they cost, and
/// whether it ends; for fuzzing.
pub(crate) fn counted(sent: &[u8], size: usize) -> (u64, u64, bool) {
    let now = Instant::now();
    let (mut heads, flood) = (Heads::behind(PREFACE_BYTES), Flood::new(now));
    let (mut frames, mut all) = (0, 0);
    for piece in sent.chunks(size) {
        heads.find(piece, |kind, flags, length| {
            let cost = cost(kind, flags, length);
            frames += 1;
            all += u64::from(cost);
            flood.spend(cost, now);
        });
    }
    (frames, all, flood.is_over())
}

/// A socket whose frames are counted.
#[derive(Debug)]
pub struct Counted<IO> {
    socket: IO,
    came: Heads,
    went: Heads,
    flood: Flood,
    /// How much of the farewell is said.
    said: usize,
    linger: Linger,
}

impl<IO> Counted<IO> {
    /// Counts the frames of a connection that has just begun.
    pub fn new(socket: IO, flood: Flood) -> Self {
        Self {
            socket,
            came: Heads::behind(PREFACE_BYTES),
            went: Heads::behind(0),
            flood,
            said: 0,
            linger: Linger::default(),
        }
    }

    fn went(&mut self, bytes: &[u8]) {
        let flood = &self.flood;
        self.went.find(bytes, |kind, flags, _| flood.give(gain(kind, flags)));
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Counted<IO> {
    /// Says why the connection ends, and waits a little for the other end to hear it.
    fn leave(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(left) = FAREWELL.get(self.said..).filter(|left| !left.is_empty())
            && self.went.is_between()
        {
            match Pin::new(&mut self.socket).poll_write(context, left) {
                Poll::Ready(Ok(said)) if said > 0 => self.said += said,
                // Whoever does not take a few bytes is not waited for.
                _ => self.said = FAREWELL.len(),
            }
        }
        self.linger.poll(&mut self.socket, context)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Counted<IO> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flood.is_over() {
            // Nothing read is the end.
            return this.leave(context);
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut this.socket).poll_read(context, into))?;
        let (read, flood) = (into.filled().get(before..).unwrap_or_default(), &this.flood);
        this.came.find(read, |kind, flags, length| {
            let cost = cost(kind, flags, length);
            if cost > 0 {
                flood.spend(cost, Instant::now());
            }
        });
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Counted<IO> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.flood.is_over() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut self.socket).poll_write(context, bytes))?;
        self.went(bytes.get(..written).unwrap_or_default());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.flood.is_over() {
            return Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()));
        }
        let written = ready!(Pin::new(&mut self.socket).poll_write_vectored(context, pieces))?;
        let mut left = written;
        for piece in pieces {
            let part = piece.get(..left.min(piece.len())).unwrap_or_default();
            self.went(part);
            left -= part.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flood.is_over() {
            return this.leave(context);
        }
        this.linger.poll(&mut this.socket, context)
    }
}

#[cfg(test)]
#[path = "flood_tests.rs"]
mod tests;
