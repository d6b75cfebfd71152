//! A connection whose first byte can be peeked, and whose writes fail when the peer does not read. Knows no HTTP.

use super::peer::Transport;
use super::places::Seat;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Passes all data through; a write without progress for `limit` fails with `TimedOut`. Whether writes make progress is
/// noted at the connection's seat. Where one does not when this is dropped, the kernel drops what it was given.
pub(in crate::export) struct Stall<I: Transport> {
    io: I,
    limit: Duration,
    seat: Option<Arc<Seat>>,
    deadline: Option<Pin<Box<Sleep>>>,
    put_back: Option<u8>,
}

impl<I: Transport> Drop for Stall<I> {
    fn drop(&mut self) {
        if self.deadline.is_some() {
            self.io.drop_unsent();
        }
    }
}

impl<I: Transport> Stall<I> {
    pub fn new(io: I, limit: Duration, seat: Option<Arc<Seat>>) -> Self {
        Self { io, limit, seat, deadline: None, put_back: None }
    }

    fn note(&self, blocked: bool) {
        if let Some(seat) = &self.seat {
            seat.blocked(blocked);
        }
    }

    fn limited<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            if self.deadline.take().is_some() {
                self.note(false);
            }
            return outcome;
        }
        if self.deadline.is_none() {
            self.note(true);
        }
        let limit = self.limit;
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(limit)));
        deadline.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the reader is too slow")))
    }
}

impl<I: Transport> Stall<I> {
    /// Waits for the first byte and returns it; it is still read afterwards.
    ///
    /// # Errors
    /// Where the connection fails or ends before its first byte.
    pub async fn first_byte(&mut self) -> io::Result<u8> {
        let byte = self.read_u8().await?;
        self.put_back = Some(byte);
        Ok(byte)
    }
}

impl<I: Transport> AsyncRead for Stall<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(byte) = self.put_back.take()
        {
            buffer.put_slice(&[byte]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<I: Transport> AsyncWrite for Stall<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.limited(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.io).poll_write_vectored(cx, bytes);
        self.limited(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_flush(cx);
        self.limited(cx, outcome)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.io).poll_shutdown(cx);
        self.limited(cx, outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    #[tokio::test]
    async fn a_reader_that_does_not_read_is_given_up() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut near = Stall::new(near, Duration::from_millis(50), None);
        near.write_all(&[0; 16]).await.unwrap();
        assert_eq!(near.write_all(&[0; 1]).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        // When the peer reads again, writes succeed again.
        far.read_exact(&mut [0; 16]).await.unwrap();
        near.write_all(&[0; 16]).await.unwrap();
    }

    #[tokio::test]
    async fn the_first_byte_is_read_again() {
        let (near, mut far) = tokio::io::duplex(16);
        far.write_all(b"abc").await.unwrap();
        drop(far);
        let mut near = Stall::new(near, Duration::from_secs(1), None);
        assert_eq!(near.first_byte().await.unwrap(), b'a');
        let mut all = String::new();
        near.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "abc");
        assert!(near.first_byte().await.is_err());
    }
}
