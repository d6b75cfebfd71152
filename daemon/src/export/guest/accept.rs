//! The accept loop for guests: identify the peer, reserve a connection, serve it. Knows no transport and no route.

use super::client::{Guest, Refusal};
use super::guests::Guests;
use super::http;
use crate::export::http::peer::Transport;
use axum::serve::Listener;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Accepts connections until `stop`. A refused peer is disconnected at once, so that it delays no other guest.
pub(super) async fn accept<L, I>(
    mut listener: L,
    guests: Guests,
    who: impl Fn(&I, &L::Addr) -> Result<Arc<Guest>, Refusal>,
    stop: CancellationToken,
) where
    L: Listener<Io = I>,
    I: Transport,
{
    let connections = TaskTracker::new();
    loop {
        let (io, address) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let guest = match who(&io, &address) {
            Ok(guest) => guest,
            Err(refusal) => {
                guests.refuse(refusal, None);
                continue;
            }
        };
        match guests.admit(Arc::clone(&guest)) {
            Ok(place) => drop(connections.spawn(http::serve(io, place, stop.clone()))),
            Err(refusal) => guests.refuse(refusal, Some(&guest)),
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}
