//! Metrics are sent to receivers (`[[export.push]]`) by Prometheus remote write, where nothing may be scraped. Each
//! receiver has a thread of its own, which reads snapshots as the metrics page does; neither a tick nor another export
//! waits for it.
//!
//! [`series`] chooses what is sent of a snapshot, [`queue`] and [`log`] keep what could not be sent yet, [`courier`]
//! decides what is sent next and what an answer changes, [`link`] sends it.

mod config;
mod courier;
mod link;
mod log;
mod queue;
mod series;
#[cfg(test)]
mod tests;
mod totals;
mod verdict;
mod wire;

pub use config::{Receiver, wrong};
pub use totals::{Board, Totals};

use super::prometheus::{Dialects, own_families};
use super::{HealthBoard, HealthSlot, Snapshots};
use crate::model::snapshot::Snapshot;
use crate::model::source::{Health, Stamp};
use crate::sys::secret::warn_of_open_secret;
use config::Protocol;
use courier::{Courier, Next, Now, Terms, Version};
use link::Link;
use queue::Queue;
use series::{Choice, Grid, Known};
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Folder of the logs in the state folder.
const FOLDER: &str = "push";
/// Time after which files that cannot be used are looked at again, and passwords while a login is refused.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What all receivers share.
#[derive(Clone)]
pub struct Common {
    /// The state folder.
    pub state_dir: PathBuf,
    /// The names on the metrics page.
    pub dialects: Dialects,
    /// What became of samples.
    pub board: Board,
    /// The health of receivers.
    pub health: HealthBoard,
}

/// Sends metrics to `receivers` until `stop`.
pub async fn serve(receivers: Vec<Receiver>, common: Common, snapshots: Snapshots, stop: CancellationToken) {
    common.board.keep(&receivers.iter().map(|receiver| receiver.name.as_str()).collect::<Vec<_>>());
    let mut threads = tokio::task::JoinSet::new();
    for receiver in receivers {
        let (common, snapshots, stop) = (common.clone(), snapshots.clone(), stop.clone());
        threads.spawn_blocking(move || thread(&receiver, &common, snapshots, &stop));
    }
    stop.cancelled().await;
    threads.join_all().await;
}

/// The thread of one receiver.
fn thread(receiver: &Receiver, common: &Common, snapshots: Snapshots, stop: &CancellationToken) {
    let health = common.health.slot(format!("push:{}", receiver.name));
    if let Some(file) = &receiver.password_file {
        warn_of_open_secret(file);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            health.set(Health::Failed(format!("no runtime: {error}")));
            return;
        }
    };
    runtime.block_on(async {
        tokio::select! {
            () = send(receiver, common, snapshots, &health) => {}
            () = stop.cancelled() => {}
        }
    });
    health.clear();
    // Does not wait for a DNS lookup in progress.
    runtime.shutdown_background();
}

fn now() -> Now {
    let stamp = Stamp::now();
    Now { monotonic: (stamp.monotonic.0 / 1_000_000) as i64, real: (stamp.realtime.0 / 1_000_000) as i64 }
}

/// What is made of snapshots for one receiver.
struct Maker {
    choice: Choice,
    grid: Grid,
    counters: Known,
    gauges: Known,
    board: Board,
    courier: Courier,
}

impl Maker {
    /// A new snapshot.
    fn observe(&mut self, snapshot: &Arc<Snapshot>, now: Now) {
        if snapshot.ticks == 0 {
            return;
        }
        let Some((at, snapshot)) = self.grid.observe(snapshot) else { return };
        let batch = self.choice.batch(&snapshot, own_families(&self.board.all()));
        if batch.too_many > 0 {
            tracing::warn!("push: {} series beyond {} are not sent", batch.too_many, series::SERIES_MAX);
        }
        let counters = if self.courier.wants(at) {
            let frames = self.counters.frames(at, &batch.counters);
            self.counters.arrived();
            frames
        } else {
            Vec::new()
        };
        if self.courier.gauges_arrived {
            self.gauges.arrived();
        }
        self.courier.take(counters, self.gauges.frames(at, &batch.gauges), now);
    }

    fn publish(&self, health: &HealthSlot) {
        self.board.set(&self.courier.totals);
        health.set(self.courier.health(now()));
    }
}

async fn send(receiver: &Receiver, common: &Common, mut snapshots: Snapshots, health: &HealthSlot) {
    let mut link = open(receiver, health).await;
    let folder = folder(&common.state_dir, &receiver.name);
    let (limit, age) = (u64::from(receiver.log_mb) * 1_000_000, (receiver.log_age.0.0 / 1_000_000) as i64);
    let terms = terms(receiver, &snapshots.borrow().host.node_name);
    let mut maker = Maker {
        choice: Choice::new(receiver, common.dialects),
        grid: Grid::new(terms.interval),
        counters: Known::default(),
        gauges: Known::default(),
        board: common.board.clone(),
        courier: Courier::new(terms, Queue::open(folder, limit, age, now().real), common.board.of(&receiver.name)),
    };
    loop {
        maker.publish(health);
        let wait = match maker.courier.next(now()) {
            Next::Send(job) => {
                let mut answer = std::pin::pin!(link.send(&job));
                let (verdict, status) = loop {
                    tokio::select! {
                        answer = &mut answer => break answer,
                        changed = snapshots.changed() => match changed {
                            Ok(()) => maker.observe(&snapshots.borrow_and_update().clone(), now()),
                            Err(_) => return,
                        }
                    }
                };
                maker.courier.answered(status, verdict, now());
                continue;
            }
            Next::Wait(until) => until.map(|until| Duration::from_millis((until - now().monotonic).max(1) as u64)),
        };
        let is_closed = maker.courier.is_closed();
        let wait = if is_closed { Some(wait.unwrap_or(LOOK_AGAIN).min(LOOK_AGAIN)) } else { wait };
        tokio::select! {
            changed = snapshots.changed() => match changed {
                Ok(()) => maker.observe(&snapshots.borrow_and_update().clone(), now()),
                Err(_) => return,
            },
            () = sleep(wait.unwrap_or_default()), if wait.is_some() => {}
        }
        if is_closed && link.has_new_secret() {
            maker.courier.try_again();
        }
    }
}

/// Opens the link, and tries again as long as a file of it cannot be used.
async fn open(receiver: &Receiver, health: &HealthSlot) -> Link {
    loop {
        match Link::open(receiver) {
            Ok(link) => return link,
            Err(why) => health.set(Health::Failed(format!("nothing is sent: {why}"))),
        }
        sleep(LOOK_AGAIN).await;
    }
}

fn folder(state_dir: &Path, name: &str) -> PathBuf {
    state_dir.join(FOLDER).join(name)
}

fn terms(receiver: &Receiver, node: &str) -> Terms {
    let interval = (receiver.interval.0.0 / 1_000_000) as i64;
    let spread = ((receiver.spread.0.0 / 1_000_000) as i64).min(interval / 2);
    let seed = rustc_hash::FxBuildHasher.hash_one((node, &receiver.name));
    Terms {
        version: if receiver.protocol == Protocol::RemoteWrite1 { Version::V1 } else { Version::V2 },
        may_fall_back: receiver.protocol == Protocol::RemoteWrite,
        interval,
        rate: receiver.replay_rate,
        delay: (courier::mix(seed, 0) % (spread + 1) as u64) as i64,
        seed,
    }
}
