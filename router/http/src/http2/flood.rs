//! What a connection may send that is no work: counted frame by frame as it is read, so that a flood is noticed before it is
//! worked off.
//!
//! Every frame but those that carry a body costs something, and a call that is taken back costs more, since it was begun for
//! nothing. What is answered gives some back, and so does time: a client that waits for its answers never runs out, whatever
//! else it sends along; one that opens and resets, pings, sets or prioritises without end does soon. The kinds of floods are
//! those of CVE-2019-9512 (pings), 9513 (priorities), 9514 and CVE-2023-44487 (resets), 9515 (settings), 9518 (empty frames)
//! and CVE-2024-27316 (continuations).
//!
//! Deliberately knows nothing of what frames mean beyond their first nine bytes: that is the HTTP/2 library's.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use mesh_wire::Linger;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// What may be spent at once.
pub(super) const ALLOWANCE: u32 = 2_000;
/// Time gives back one in so many milliseconds, up to the allowance.
const MILLISECONDS_PER_ONE: u128 = 10;
/// What an answered call gives back: it has cost one frame, and the client's own of flow control.
const PER_ANSWER: u32 = 10;
/// What a piece of an answer gives back: a client may say for each that it has read it, for the stream and the connection.
const PER_PIECE: u32 = 2;

const PREFACE_BYTES: usize = 24;
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;

/// What a frame costs (RFC 9113, section 6).
fn cost(kind: u8, flags: u8, length: usize) -> u32 {
    match kind {
        DATA if length > 0 || flags & END_STREAM != 0 => 0,
        SETTINGS | PING if flags & ACK != 0 => 0,
        RST_STREAM => 5,
        _ => 1,
    }
}

/// What a connection has left, shared by its reader and its calls.
#[derive(Debug, Clone)]
pub(super) struct Flood(Rc<RefCell<Allowance>>);

#[derive(Debug)]
struct Allowance {
    left: u32,
    counted: Instant,
    is_over: bool,
}

impl Flood {
    pub(super) fn new(now: Instant) -> Self {
        Self(Rc::new(RefCell::new(Allowance {
            left: ALLOWANCE,
            counted: now,
            is_over: false,
        })))
    }

    /// A call was answered.
    pub(super) fn answered(&self) {
        self.give(PER_ANSWER);
    }

    /// A piece of an answer was sent.
    pub(super) fn sent(&self) {
        self.give(PER_PIECE);
    }

    /// Whether more was sent than is allowed. It stays so.
    pub(super) fn is_over(&self) -> bool {
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

/// A socket whose frames are counted. Once they are too many, nothing more is read from it.
#[derive(Debug)]
pub(super) struct Counted<IO> {
    socket: IO,
    heads: Heads,
    flood: Flood,
    linger: Linger,
}

impl<IO> Counted<IO> {
    pub(super) fn new(socket: IO, flood: Flood) -> Self {
        let heads = Heads {
            skip: PREFACE_BYTES,
            head: [0; HEAD_BYTES],
            filled: 0,
        };
        Self {
            socket,
            heads,
            flood,
            linger: Linger::default(),
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Counted<IO> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.flood.is_over() {
            // Whoever drives the connection asks after each turn, and ends it.
            return Poll::Pending;
        }
        let before = into.filled().len();
        std::task::ready!(Pin::new(&mut this.socket).poll_read(context, into))?;
        let (read, flood) = (into.filled().get(before..).unwrap_or_default(), &this.flood);
        this.heads.find(read, |kind, flags, length| {
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
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        this.linger.poll(&mut this.socket, context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn heads_are_found_in_whatever_pieces_they_come() {
        let frames = [
            frame(SETTINGS, 0, &[]),
            frame(DATA, 1, &[7; 300]),
            frame(PING, ACK, &[1; 8]),
        ];
        let sent = [&[9; PREFACE_BYTES][..], &frames.concat()].concat();
        for size in [1, 2, 8, 9, 10, 33, sent.len()] {
            let mut counted = Counted::new((), Flood::new(Instant::now()));
            let mut found = Vec::new();
            for piece in sent.chunks(size) {
                counted
                    .heads
                    .find(piece, |kind, flags, length| found.push((kind, flags, length)));
            }
            assert_eq!(
                found,
                [(SETTINGS, 0, 0), (DATA, 1, 300), (PING, ACK, 8)],
                "in pieces of {size}"
            );
        }
    }

    #[test]
    fn the_allowance_can_be_spent_and_not_one_more() {
        let now = Instant::now();
        let flood = Flood::new(now);
        for _ in 0..ALLOWANCE {
            flood.spend(1, now);
        }
        assert!(!flood.is_over());
        flood.spend(1, now);
        assert!(flood.is_over());
        flood.answered();
        assert!(flood.is_over(), "what is over stays so");
    }

    #[test]
    fn answers_and_time_give_back_and_never_more_than_the_allowance() {
        let now = Instant::now();
        let flood = Flood::new(now);
        flood.answered();
        for _ in 0..ALLOWANCE {
            flood.spend(1, now);
        }
        flood.answered();
        for _ in 0..PER_ANSWER {
            flood.spend(1, now);
        }
        assert!(!flood.is_over());
        let later = now + Duration::from_secs(1);
        for _ in 0..100 {
            flood.spend(1, later);
        }
        assert!(!flood.is_over());
        flood.spend(1, later);
        assert!(flood.is_over());
        let patient = Flood::new(now);
        for _ in 0..ALLOWANCE {
            patient.spend(1, now);
        }
        for second in 1..60 {
            for _ in 0..100 {
                patient.spend(1, now + Duration::from_secs(second));
            }
        }
        assert!(!patient.is_over());
    }

    #[test]
    fn bodies_and_what_answers_us_cost_nothing() {
        assert_eq!(cost(DATA, 0, 1), 0);
        assert_eq!(cost(DATA, END_STREAM, 0), 0);
        assert_eq!(cost(SETTINGS, ACK, 0), 0);
        assert_eq!(cost(PING, ACK, 8), 0);
        for idle in [
            (DATA, 0, 0),
            (SETTINGS, 0, 0),
            (PING, 0, 8),
            (1, 4, 9),
            (2, 0, 5),
            (8, 0, 4),
            (9, 0, 1),
            (77, 0, 3),
        ] {
            assert_eq!(cost(idle.0, idle.1, idle.2), 1, "{idle:?}");
        }
        assert!(cost(RST_STREAM, 0, 4) > 1);
    }
}
