//! The end of a connection whose other end may still be sending.
//!
//! A socket that is closed while bytes wait to be read is reset, and a reset takes back what the other end has not read yet: the
//! farewell that says why the connection ended. So our side is closed first, and what still comes is read and thrown away until
//! the other side is closed too (as RFC 9112, section 9.6 has it for HTTP/1.1).
//!
//! Bounds: [`MAX_BYTES`] and [`LONGEST`]; who sends more or for longer meets a reset.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

/// So much is thrown away at most.
const MAX_BYTES: usize = 1024 * 1024;
/// So long is waited at most.
const LONGEST: Duration = Duration::from_secs(1);
const PIECE_BYTES: usize = 4 * 1024;

/// How far the end has come.
#[derive(Debug)]
pub struct Linger {
    left: usize,
    is_closed: bool,
    over: Option<Pin<Box<Sleep>>>,
}

impl Default for Linger {
    fn default() -> Self {
        Self {
            left: MAX_BYTES,
            is_closed: false,
            over: None,
        }
    }
}

impl Linger {
    /// Closes our side, and waits for the other.
    pub fn poll<IO: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        socket: &mut IO,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let over = self.over.get_or_insert_with(|| Box::pin(sleep(LONGEST)));
        if !self.is_closed {
            if over.as_mut().poll(context).is_ready() {
                return Poll::Ready(Ok(()));
            }
            ready!(Pin::new(&mut *socket).poll_shutdown(context))?;
            self.is_closed = true;
        }
        let mut piece = [0; PIECE_BYTES];
        while self.left > 0 && over.as_mut().poll(context).is_pending() {
            let mut into = ReadBuf::new(piece.get_mut(..self.left.min(PIECE_BYTES)).unwrap_or_default());
            let came = ready!(Pin::new(&mut *socket).poll_read(context, &mut into));
            // A connection that breaks now is over as well.
            if came.is_err() || into.filled().is_empty() {
                break;
            }
            self.left -= into.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use futures::FutureExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[actix_web::test]
    async fn what_still_comes_is_thrown_away_up_to_the_bound_and_the_other_end_hears_all() {
        let (mut ours, mut theirs) = duplex(2 * MAX_BYTES);
        ours.write_all(b"farewell").await.unwrap();
        theirs.write_all(&vec![0; MAX_BYTES - 1]).await.unwrap();
        let mut linger = Linger::default();
        let early = tokio::time::timeout(LONGEST / 10, poll_fn(|context| linger.poll(&mut ours, context))).await;
        assert!(early.is_err(), "waits for the other side");
        let mut heard = Vec::new();
        theirs.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"farewell");
        theirs.write_all(&[0]).await.unwrap();
        poll_fn(|context| linger.poll(&mut ours, context)).await.unwrap();
        assert_eq!(linger.left, 0, "the bound is reached before the time is");
    }

    #[actix_web::test]
    async fn the_other_side_is_waited_for_until_it_closes_and_not_for_ever() {
        let (mut ours, theirs) = duplex(64);
        let mut linger = Linger::default();
        assert!(
            poll_fn(|context| linger.poll(&mut ours, context))
                .now_or_never()
                .is_none()
        );
        drop(theirs);
        assert!(
            poll_fn(|context| linger.poll(&mut ours, context))
                .now_or_never()
                .is_some()
        );
        let (mut ours, _theirs) = duplex(64);
        let mut linger = Linger::default();
        let ended = poll_fn(|context| linger.poll(&mut ours, context));
        tokio::time::timeout(20 * LONGEST, ended)
            .await
            .expect("waits for ever")
            .unwrap();
    }
}
