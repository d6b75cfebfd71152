//! The body of a request on its way from the client: while it is awaited, the connection counts as one that waits for a
//! request, because it is the client that has to go on. What a route does not read is read and dropped before the
//! answer is sent: a client that is still writing would take a closed connection or a reset stream for the answer.

use super::places::Seat;
use crate::sys::mutex::lock;
use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;

/// The most bytes of a body that are read and dropped. One that is longer by its head is not read at all.
const DROPPED: u64 = 256 << 10;
/// Time for the rest of a body to arrive.
const REST: Duration = Duration::from_secs(1);

/// A request's body as a route reads it.
pub(super) struct RequestBody {
    incoming: Option<Incoming>,
    seat: Arc<Seat>,
    awaited: bool,
    unread: Arc<Mutex<Option<Incoming>>>,
}

/// What a route has not read of a body, once it is done.
pub(super) struct Unread {
    left: Arc<Mutex<Option<Incoming>>>,
    seat: Arc<Seat>,
}

impl RequestBody {
    pub fn new(incoming: Incoming, seat: Arc<Seat>) -> (Self, Unread) {
        let left = Arc::new(Mutex::new(None));
        let unread = Unread { left: Arc::clone(&left), seat: Arc::clone(&seat) };
        (Self { incoming: Some(incoming), seat, awaited: false, unread: left }, unread)
    }

    fn note(&mut self, awaited: bool) {
        if self.awaited != awaited {
            self.awaited = awaited;
            self.seat.awaits_body(awaited);
        }
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.note(false);
        *lock(&self.unread) = self.incoming.take();
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(incoming).poll_frame(cx);
        self.note(frame.is_pending());
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

impl Unread {
    /// Reads the rest and drops it, as far as there is not too much of it.
    pub async fn dropped(self) {
        let Some(incoming) = lock(&self.left).take() else { return };
        if incoming.is_end_stream() || incoming.size_hint().lower() > DROPPED {
            return;
        }
        let (mut body, _) = RequestBody::new(incoming, self.seat);
        let rest = async {
            let mut bytes = 0;
            while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > DROPPED {
                    break;
                }
            }
        };
        // A client that does not go on has its answer then.
        let _ = timeout(REST, rest).await;
    }
}
