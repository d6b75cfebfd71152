//! `GET /v1/events`: the page's event stream. The first frame has everything, each further one what a tick changed; all
//! readers share them. A reader that is too slow is cut off: its browser comes back and says where it was.

use super::Page;
use super::feed::{Next, Reader};
use crate::export::http::answer::Endless;
use crate::export::http::peer::Peer;
use crate::export::http::places::Places;
use crate::model::snapshot::Snapshot;
use crate::sys::mutex::lock;
use axum::body::{Body, Bytes};
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use http_body_util::channel::Channel;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::timeout;

/// Event streams of each peer and of all: connections beyond them stay free for scrapes and pages.
const STREAMS: (usize, usize) = (112, 192);
/// Time after which a reader that takes no frame is cut off.
const SLOW: Duration = Duration::from_secs(10);
/// Longest silence: a comment tells proxies and browsers that the connection lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Before the first frame: after how many milliseconds a browser comes back.
const GREETING: &str = "retry: 2000\n\n";

/// How many event streams there are, by peer.
#[derive(Default)]
pub(super) struct Readers(Mutex<FxHashMap<Peer, usize>>);

/// One event stream. It is counted until this is dropped.
struct Seat {
    readers: Arc<Readers>,
    peer: Peer,
    _reader: Reader,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut readers = lock(&self.readers.0);
        if let Some(count) = readers.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                readers.remove(&self.peer);
            }
        }
    }
}

impl Page {
    /// A seat for one more stream of `peer`; `None`: there are too many.
    fn seat(&self, peer: Peer) -> Option<Seat> {
        let mut readers = lock(&self.readers.0);
        let all: usize = readers.values().sum();
        let own = readers.entry(peer).or_default();
        if *own >= STREAMS.0 || all >= STREAMS.1 {
            return None;
        }
        *own += 1;
        Some(Seat { readers: Arc::clone(&self.readers), peer, _reader: self.feed.reader() })
    }

    /// The first frame; `None` where slow readers hold too much, or nothing is measured yet.
    async fn first(&self, places: Option<Arc<Places>>) -> Option<Bytes> {
        let feed = Arc::clone(&self.feed);
        let make = move |snapshot: &Arc<Snapshot>| feed.full(snapshot);
        let (snapshot, frame) = self.full.get(self.shown(), places, make).await?;
        (snapshot.ticks > 0).then_some(frame)
    }
}

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Words {
    /// The first frame alone, for a page behind a proxy that keeps streams back.
    once: Option<u8>,
    /// The mark of the last frame that the page has, where it opened a new stream itself.
    after: String,
}

/// The event stream.
pub(super) async fn events(
    State(page): State<Page>,
    peer: Option<Extension<Peer>>,
    places: Option<Extension<Arc<Places>>>,
    Query(words): Query<Words>,
    headers: HeaderMap,
) -> Response {
    let places = places.map(|places| places.0);
    // Another site must not read the stream through the browser of a user who may.
    if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
        return (StatusCode::FORBIDDEN, "the events are for the page of this address alone\n").into_response();
    }
    if words.once.is_some() {
        return match page.first(places).await {
            Some(frame) => (head(), frame).into_response(),
            None => later("nothing is measured yet, or slow readers hold too many pages\n"),
        };
    }
    let Some(seat) = page.seat(peer.map_or(Peer::Other, |peer| peer.0)) else {
        return later("too many pages are open here; close some\n");
    };
    let mark = headers.get("last-event-id").and_then(|mark| mark.to_str().ok()).unwrap_or(&words.after);
    let (mark, stop) = (page.feed.resume(mark), page.stop.clone());
    let (mut sender, body) = Channel::<Bytes>::new(1);
    let frames = async move {
        let _seat = seat;
        let mut news = page.feed.news();
        // Taken before the first frame is made: what comes between is sent twice rather than not at all.
        let mut after = mark.unwrap_or_else(|| page.feed.last());
        if timeout(SLOW, sender.send_data(Bytes::from_static(GREETING.as_bytes()))).await.is_err() {
            return;
        }
        if mark.is_none() {
            // Before the first tick there is no frame; the frame of the first tick has nothing more than the full one.
            if after == 0 {
                match news.wait_for(|number| *number > 0).await {
                    Ok(number) => after = *number,
                    Err(_) => return,
                }
            }
            let Some(frame) = page.first(places).await else { return };
            if !matches!(timeout(SLOW, sender.send_data(frame)).await, Ok(Ok(()))) {
                return;
            }
        }
        loop {
            let frame = match page.feed.next(after) {
                Next::Frame(number, frame) => {
                    after = number;
                    frame
                }
                Next::Lost => return,
                Next::Nothing => match timeout(HEARTBEAT, news.wait_for(|number| *number > after)).await {
                    Ok(Ok(_)) => continue,
                    Ok(Err(_)) => return,
                    Err(_) => Bytes::from_static(b":\n\n"),
                },
            };
            if !matches!(timeout(SLOW, sender.send_data(frame)).await, Ok(Ok(()))) {
                return;
            }
        }
    };
    tokio::spawn(stop.run_until_cancelled_owned(frames));
    let mut answer = (head(), Body::new(body)).into_response();
    answer.extensions_mut().insert(Endless);
    answer
}

fn head() -> [(HeaderName, HeaderValue); 5] {
    let fixed = HeaderValue::from_static;
    [
        (header::CONTENT_TYPE, fixed("text/event-stream")),
        (header::CACHE_CONTROL, fixed("no-store, no-transform")),
        (HeaderName::from_static("x-accel-buffering"), fixed("no")),
        (header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff")),
        (HeaderName::from_static("cross-origin-resource-policy"), fixed("same-origin")),
    ]
}

fn later(why: &'static str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], why).into_response()
}
