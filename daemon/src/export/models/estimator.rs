//! The socket of Kepler's estimator: one request a connection, without a terminator, and one answer of at most 4,096
//! bytes in one write. A client costs at most 1 MiB and 10 s each for its request and for reading the answer.

use super::SharedModels;
use crate::export::http::peer::Transport as _;
use crate::export::http::places::{Limits, Places};
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::power_model::kepler::answer::Answer;
use crate::power_model::kepler::request::{End, Request};
use crate::sys::mutex::lock;
use crate::sys::token_bucket::TokenBucket;
use crate::sys::unix_socket::ListeningSocket;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Most connections at a time, each with a request of at most 1 MiB.
const CONNECTIONS: Limits = Limits { all: 16, each: 8, waiting: 8 };
/// Time for a whole request, and for its answer to be taken.
const LIMIT: Duration = Duration::from_secs(10);
/// Size of what is read at once, in bytes.
const PIECE: usize = 16 << 10;
/// Time after a failed accept(2), which would fail again at once.
const PAUSE: Duration = Duration::from_secs(1);
/// Lines about clients in the log: so many at once, then one each minute.
const LINES: (u64, Nanos) = (10, Nanos(60 * Nanos::SECOND.0));

/// Serves until `stop`.
pub async fn serve(mut socket: ListeningSocket, models: SharedModels, stop: CancellationToken) {
    let places = Places::new(CONNECTIONS);
    let connections = TaskTracker::new();
    let lines = Arc::new(Mutex::new(TokenBucket::new(LINES.0, LINES.1)));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = socket.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("estimator: {error}");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (models, places, stop, lines) = (models.clone(), Arc::clone(&places), stop.clone(), Arc::clone(&lines));
        connections.spawn(async move {
            let peer = stream.peer();
            let place = match places.admit(peer) {
                Some(place) => Some(place),
                None => match places.queue(peer) {
                    Some(queued) => queued.place().await,
                    None => None,
                },
            };
            let name = peer_name(&stream);
            let why = match place {
                None => Err(format!("there are more than {} connections of this user", CONNECTIONS.each)),
                Some(place) => tokio::select! {
                    outcome = exchange(stream, &models) => outcome,
                    () = place.seat.closed.cancelled() => Err("it made room for another connection".to_owned()),
                    () = stop.cancelled() => Ok(()),
                },
            };
            if let Err(why) = why
                && lock(&lines).take(Stamp::now().monotonic)
            {
                tracing::warn!("estimator: {name}: {why}");
            }
        });
    }
    connections.close();
    connections.wait().await;
}

/// The process of a client, for the log.
fn peer_name(stream: &UnixStream) -> String {
    match stream.peer_cred() {
        Ok(peer) => match peer.pid() {
            Some(pid) => format!("process {pid} of user {}", peer.uid()),
            None => format!("a process of user {}", peer.uid()),
        },
        Err(_) => "a client".to_owned(),
    }
}

/// One request and its answer.
async fn exchange(mut stream: UnixStream, models: &SharedModels) -> Result<(), String> {
    let request = match timeout(LIMIT, request(&mut stream)).await {
        Ok(Ok(None)) => return Ok(()),
        Ok(request) => request,
        Err(_) => return Err(format!("it did not send the rest of its request within {} s", LIMIT.as_secs())),
    };
    let models = Arc::clone(&models.borrow());
    let answered = tokio::task::spawn_blocking(move || {
        let request = request.and_then(|bytes| Request::read(&bytes.unwrap_or_default()));
        match request {
            Ok(request) => (models.estimate(&request).to_json(), Ok(())),
            Err(why) => (Answer::error(why.clone()).to_json(), Err(why)),
        }
    });
    let (answer, outcome) = answered.await.map_err(|error| error.to_string())?;
    match timeout(LIMIT, stream.write_all(answer.as_bytes())).await {
        Err(_) => return Err(format!("it did not take its answer within {} s", LIMIT.as_secs())),
        // A client that is gone needs no answer, and the reason for an error is in `outcome`.
        Ok(Err(error)) if outcome.is_ok() => return Err(format!("it did not take its answer: {error}")),
        Ok(_) => {}
    }
    outcome
}

/// The bytes of a request; `None`: the client sent nothing.
async fn request(stream: &mut UnixStream) -> Result<Option<Vec<u8>>, String> {
    let (mut bytes, mut end) = (Vec::new(), End::default());
    loop {
        let mut piece = [0; PIECE];
        match stream.read(&mut piece).await {
            Ok(0) if bytes.is_empty() => return Ok(None),
            Ok(0) => return Err("its request is cut short".to_owned()),
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error) => return Err(format!("its request cannot be read: {error}")),
        }
        if let Some(length) = end.find(&bytes)? {
            bytes.truncate(length);
            return Ok(Some(bytes));
        }
    }
}
