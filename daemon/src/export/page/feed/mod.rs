//! What the page shows, kept from snapshot to snapshot by a task of its own: numbers of rows, curves of the last
//! minutes and hours, and the frames of the event stream. Each frame is made once for all readers. No reader changes
//! anything.

mod bounds;
mod curve;
mod head;
mod json;
mod lacking;
mod rows;
mod state;

pub(super) use bounds::Intervals;
pub(super) use curve::packed;
pub(super) use head::Head;
pub(super) use rows::note;

use crate::export::Snapshots;
use crate::model::entity::{Kind, Labels};
use crate::model::snapshot::Snapshot;
use crate::model::source::Stamp;
use crate::model::units::Nanos;
use crate::sys::mutex::lock;
use axum::body::Bytes;
use serde_json::{Value, json};
use state::{HOURS, State};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What is kept for the page.
pub struct Feed {
    /// Tells one run of jouled from another.
    life: String,
    state: Mutex<State>,
    /// The last snapshot that was taken in.
    shown: watch::Sender<Arc<Snapshot>>,
    receiver: Snapshots,
    /// Number of the last frame.
    news: watch::Sender<u64>,
    readers: AtomicUsize,
}

/// What a reader gets next.
pub(super) enum Next {
    /// This frame, with its number.
    Frame(u64, Bytes),
    /// Nothing yet.
    Nothing,
    /// It is too far behind.
    Lost,
}

/// A reader of the event stream, for which frames are made.
pub(super) struct Reader(Arc<Feed>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Relaxed);
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

impl Feed {
    /// Without anything.
    pub fn new() -> Self {
        let life = format!("{:x}", Stamp::now().realtime.0);
        let (shown, receiver) = watch::channel(Arc::new(nothing()));
        Self {
            state: Mutex::new(State::new(life.clone())),
            life,
            shown,
            receiver,
            news: watch::Sender::new(0),
            readers: AtomicUsize::new(0),
        }
    }

    /// Without anything, showing the kinds in `levels`.
    #[cfg(test)]
    pub(super) fn showing(levels: &[Kind]) -> Arc<Self> {
        let feed = Self::new();
        lock(&feed.state).kinds = super::tabs(levels);
        Arc::new(feed)
    }

    /// Takes in every snapshot until `stop`. Shows the kinds in `levels`.
    pub async fn run(self: Arc<Self>, mut snapshots: Snapshots, levels: Vec<Kind>, stop: CancellationToken) {
        lock(&self.state).kinds = super::tabs(&levels);
        let follow = async {
            loop {
                let snapshot = Arc::clone(&snapshots.borrow_and_update());
                if snapshot.ticks > 0 {
                    let feed = Arc::clone(&self);
                    // On a blocking thread: there may be thousands of rows.
                    if tokio::task::spawn_blocking(move || feed.take(&snapshot)).await.is_err() {
                        tracing::warn!("the page: a snapshot could not be taken in");
                    }
                }
                if snapshots.changed().await.is_err() {
                    break;
                }
            }
        };
        stop.run_until_cancelled(follow).await;
    }

    /// Takes in a snapshot.
    pub(super) fn take(&self, snapshot: &Arc<Snapshot>) {
        let wanted = self.readers.load(Relaxed) > 0;
        let number = {
            let mut state = lock(&self.state);
            state.take(snapshot, wanted);
            state.number
        };
        self.shown.send_replace(Arc::clone(snapshot));
        self.news.send_replace(number);
    }

    /// The last snapshot that was taken in; before the first one, one with `ticks` 0.
    pub(super) fn shown(&self) -> &Snapshots {
        &self.receiver
    }

    /// A reader, for which frames are made until it is dropped.
    pub(super) fn reader(self: &Arc<Self>) -> Reader {
        self.readers.fetch_add(1, Relaxed);
        Reader(Arc::clone(self))
    }

    /// Number of the last frame; changes with each.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// The number after which a reader goes on whose last frame had the mark `mark`. `None`: it begins again.
    pub(super) fn resume(&self, mark: &str) -> Option<u64> {
        let (life, number) = mark.split_once('.')?;
        let number = number.parse().ok()?;
        let state = lock(&self.state);
        let next_is_kept = state.frames.front().is_some_and(|(first, _)| first.saturating_sub(1) <= number);
        (life == self.life && number <= state.number && (number == state.number || next_is_kept)).then_some(number)
    }

    /// The frame after number `after`.
    pub(super) fn next(&self, after: u64) -> Next {
        let state = lock(&self.state);
        let frame = state.frames.iter().find(|(number, _)| *number == after + 1);
        match frame {
            Some((number, frame)) => Next::Frame(*number, frame.clone()),
            None if after >= state.number => Next::Nothing,
            None => Next::Lost,
        }
    }

    /// Number of the last tick that was taken in.
    pub(super) fn last(&self) -> u64 {
        lock(&self.state).number
    }

    /// The first frame for a reader that knows nothing, of the last snapshot.
    pub(super) fn full(&self, snapshot: &Arc<Snapshot>) -> Vec<u8> {
        lock(&self.state).full(snapshot).into_bytes()
    }

    /// Curves of the rows with these numbers: number, largest power, points.
    pub(super) fn curves(&self, life: &str, ids: &[u32]) -> Option<Value> {
        let state = lock(&self.state);
        let curve = |known: &rows::Known| {
            let (most, points) = packed(known.points(state.span).into_iter());
            json!([known.id, most, points])
        };
        let curves = || state.rows.by_ids(ids).map(curve).collect::<Vec<_>>();
        (life == self.life).then(|| json!({ "span": state.span, "curves": curves() }))
    }

    /// The labels of the row with this number.
    pub(super) fn labels(&self, life: &str, id: u32) -> Option<Labels> {
        let state = lock(&self.state);
        let (labels, _) = state.rows.by_id(id).filter(|_| life == self.life)?;
        Some(labels.clone())
    }

    /// The numbers of rows, where they have one.
    pub(super) fn ids<'a>(&self, labels: impl Iterator<Item = &'a Labels>) -> Vec<Option<u32>> {
        let state = lock(&self.state);
        labels.map(|labels| state.rows.id(labels)).collect()
    }

    /// The machine's power and its idle part by the minute: the largest of each, and the points.
    pub(super) fn hours(&self) -> Value {
        let state = lock(&self.state);
        let [power, idle] =
            state.hours.each_ref().map(|curve| packed(curve.points(state.minute).collect::<Vec<_>>().into_iter()));
        json!({ "step": HOURS.1.seconds(), "power": power, "idle": idle })
    }

    /// The machine's curve of the last minutes: points of power in µW, the oldest first.
    pub(super) fn machine(&self) -> Vec<Option<f64>> {
        let state = lock(&self.state);
        state.power.points(state.span).collect()
    }

    /// What the curves lack.
    pub(super) fn lack(&self) -> Vec<String> {
        lock(&self.state).lacking.without().to_vec()
    }

    /// The kinds that are shown.
    pub(super) fn kinds(&self) -> Vec<Kind> {
        lock(&self.state).kinds.clone()
    }
}

/// Before the first tick.
fn nothing() -> Snapshot {
    let host = Arc::default();
    Snapshot {
        host,
        ticks: 0,
        at: Stamp::default(),
        cpu_usage: None,
        sources: Vec::new(),
        domains: Vec::new(),
        origins: Default::default(),
        platform: Default::default(),
        kinds: Kind::ALL.into_iter().map(crate::model::snapshot::KindView::empty).collect(),
        uncontained: Default::default(),
        vms: Arc::default(),
        counted: Default::default(),
        overflows: 0,
        lost_cpu: Nanos::ZERO,
        own_cpu: Nanos::ZERO,
        footprint: None,
    }
}
