//! Texts made of the last snapshot, such as the metrics page: each is made once for a snapshot, when a reader asks for
//! it first, and all readers share it. Readers that hold texts of earlier snapshots are closed where these become too
//! many bytes.

use super::places::Places;
use crate::export::Snapshots;
use crate::model::snapshot::Snapshot;
use crate::sys::mutex::lock;
use axum::body::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Most bytes of all texts that exist at a time, as long as there is more than one.
const BYTES: usize = 64 << 20;
/// Time for connections that were closed to let go of their texts, in steps.
const LET_GO: (u32, Duration) = (100, Duration::from_millis(10));

/// One text, for the last snapshot.
#[derive(Clone, Default)]
pub(in crate::export) struct Once {
    last: Arc<tokio::sync::Mutex<Option<Made>>>,
    /// Length of the last text in bytes.
    length: Arc<AtomicUsize>,
    living: Arc<Living>,
}

struct Made {
    of: Arc<Snapshot>,
    text: Bytes,
    /// When its making began.
    since: Instant,
}

/// Every text that exists, also those that only slow readers hold.
struct Living {
    most: usize,
    texts: Mutex<Vec<(Instant, usize, Weak<()>)>>,
}

impl Default for Living {
    fn default() -> Self {
        Self { most: BYTES, texts: Mutex::default() }
    }
}

struct Text {
    bytes: Vec<u8>,
    _lives: Arc<()>,
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Living {
    fn text(&self, bytes: Vec<u8>, since: Instant) -> Bytes {
        let lives = Arc::new(());
        lock(&self.texts).push((since, bytes.len(), Arc::downgrade(&lives)));
        Bytes::from_owner(Text { bytes, _lives: lives })
    }

    /// Bytes of all texts that exist.
    fn bytes(&self) -> usize {
        let mut texts = lock(&self.texts);
        texts.retain(|(_, _, lives)| lives.strong_count() > 0);
        texts.iter().map(|(_, length, _)| length).sum()
    }

    /// Makes room for `more` bytes: closes the readers of the oldest texts. False where that did not help.
    async fn make_room(&self, more: usize, places: Option<&Arc<Places>>) -> bool {
        for step in 0..LET_GO.0 {
            let bytes = self.bytes();
            if bytes == 0 || bytes + more <= self.most {
                return true;
            }
            if step == 0
                && let Some(places) = places
            {
                places.close_readers_since_before(self.oldest_that_may_stay(bytes + more - self.most));
            }
            sleep(LET_GO.1).await;
        }
        false
    }

    /// When the oldest text was made of those that can stay where `excess` bytes have to go.
    fn oldest_that_may_stay(&self, excess: usize) -> Instant {
        let mut gone = 0;
        let texts = lock(&self.texts);
        let stays = texts.iter().find(|(_, length, _)| {
            let enough = gone >= excess;
            gone += length;
            enough
        });
        stays.map_or_else(Instant::now, |(since, ..)| *since)
    }
}

impl Once {
    /// Another text, whose bytes count together with those of this one.
    pub fn beside(&self) -> Self {
        Self { living: Arc::clone(&self.living), ..Self::default() }
    }

    /// The last of `snapshots` and its text: `make` makes it on a blocking thread, if it does not exist yet. `None`
    /// where it cannot be made, or slow readers hold too much. `places` has the readers.
    pub async fn get(
        &self,
        snapshots: &Snapshots,
        places: Option<Arc<Places>>,
        make: impl FnOnce(&Arc<Snapshot>) -> Vec<u8> + Send + 'static,
    ) -> Option<(Arc<Snapshot>, Bytes)> {
        let asked = Instant::now();
        let mut last = Arc::clone(&self.last).lock_owned().await;
        let snapshot = Arc::clone(&snapshots.borrow());
        // Those that wait while one is made take that one, also where it takes longer than a tick.
        if let Some(made) = &*last
            && (Arc::ptr_eq(&made.of, &snapshot) || made.since >= asked)
        {
            return Some((Arc::clone(&made.of), made.text.clone()));
        }
        *last = None;
        let (this, mut snapshots) = (self.clone(), snapshots.clone());
        // A task of its own: the lock is held until the text is made, also where the reader is gone by then. So a
        // reader that comes and goes cannot begin more of them.
        let made = tokio::spawn(async move {
            if !this.living.make_room(this.length.load(Relaxed), places.as_ref()).await {
                tracing::debug!("slow readers hold too many texts");
                return None;
            }
            let (of, since) = (Arc::clone(&snapshot), Instant::now());
            let bytes = tokio::task::spawn_blocking(move || make(&of)).await.ok()?;
            this.length.store(bytes.len(), Relaxed);
            let text = this.living.text(bytes, since);
            *last = Some(Made { of: Arc::clone(&snapshot), text: text.clone(), since });
            drop(last);
            let made = (Arc::clone(&snapshot), text);
            // Of no use once there is another snapshot.
            tokio::spawn(async move {
                let _ = snapshots.wait_for(|now| !Arc::ptr_eq(now, &snapshot)).await;
                this.last.lock().await.take_if(|made| Arc::ptr_eq(&made.of, &snapshot));
            });
            Some(made)
        });
        made.await.ok()?
    }
}
