//! A way of knowing GPU use, on a thread of its own: asked once a second, handed over in even parts, so that a tick finds some of it
//! whenever it comes. Knows no vendor.

use super::super::GpuUsage;
use crate::model::source::{Health, PciAddress, Stamp};
use crate::model::units::Nanos;
use crate::model::usage::{GpuSample, GpuUse, ProcessKey, WatchedGpu};
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Between two looks.
pub const PERIOD: Duration = Duration::from_secs(1);
/// The same, where there was nothing to look at: twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An answer is late when it takes longer than this: then nothing is known any more.
const LATE: Duration = Duration::from_secs(10);
/// A start waits so long for the first look.
const PATIENCE: Duration = Duration::from_millis(200);

/// What one look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// Who used what since the look before.
    pub sample: GpuSample,
    /// How the source is.
    pub health: Health,
    /// One line for people.
    pub detail: String,
}

impl Look {
    /// Nothing is known, for this reason.
    pub fn nothing(health: Health) -> Self {
        Self { sample: GpuSample::default(), health, detail: String::new() }
    }
}

/// One who looks. May be slow, and may hang.
pub trait Looker: Send {
    /// Who used what since the last call; the first call only begins.
    fn look(&mut self) -> Look;
}

#[derive(Default)]
struct Shared {
    looks: Vec<Look>,
    /// Since when a look has been under way, CLOCK_MONOTONIC.
    asked: Option<Nanos>,
}

/// A source of GPU use with its thread.
pub struct Threaded {
    source: &'static str,
    shared: Arc<Mutex<Shared>>,
    health: Health,
    detail: String,
    parts: Parts,
    last: Nanos,
    /// Its end tells the thread to end.
    _stop: Sender<()>,
}

impl Threaded {
    /// Starts looking.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(source: &'static str, mut looker: impl Looker + 'static) -> Result<Self, String> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (stop, stopped) = channel::<()>();
        let (first, looked) = channel::<()>();
        let of_thread = Arc::clone(&shared);
        let run = move || {
            let (mut first, mut pause) = (Some(first), PERIOD);
            loop {
                lock(&of_thread).asked = Some(Stamp::now().monotonic);
                let look = looker.look();
                pause = if look.sample.watched.is_empty() { (pause * 2).min(LONGEST_PAUSE) } else { PERIOD };
                let mut shared = lock(&of_thread);
                shared.asked = None;
                shared.looks.push(look);
                drop(shared);
                // Whoever waits for the first look waits no longer.
                drop(first.take());
                if !matches!(stopped.recv_timeout(pause), Err(RecvTimeoutError::Timeout)) {
                    break;
                }
            }
        };
        let name = format!("gpu-{source}");
        thread::Builder::new()
            .name(name)
            .spawn(run)
            .map_err(|error| format!("no thread for GPU use by {source}: {error}"))?;
        let _ = looked.recv_timeout(PATIENCE);
        let health = Health::Degraded(super::NOT_YET.into());
        let last = Stamp::now().monotonic;
        Ok(Self { source, shared, health, detail: String::new(), parts: Parts::default(), last, _stop: stop })
    }
}

impl GpuUsage for Threaded {
    fn source(&self) -> &str {
        self.source
    }

    fn sample(&mut self, out: &mut GpuSample) {
        let now = Stamp::now().monotonic;
        // Where the thread holds the lock just now, its news come with the next tick.
        let (looks, asked) = match self.shared.try_lock() {
            Ok(mut shared) => (std::mem::take(&mut shared.looks), shared.asked),
            Err(_) => (Vec::new(), None),
        };
        for look in looks {
            self.parts.take(look.sample, now);
            (self.health, self.detail) = (look.health, look.detail);
        }
        let silent = asked.map_or(Nanos::ZERO, |asked| now - asked);
        if silent > Nanos::from(LATE) {
            self.parts = Parts::default();
            self.health = Health::Failed(format!("no answer for more than {} s", LATE.as_secs()));
        }
        self.parts.give(now, now - self.last, out);
        self.last = now;
    }

    fn health(&self) -> Health {
        self.health.clone()
    }

    fn detail(&self) -> String {
        self.detail.clone()
    }
}

/// What was found and not yet handed over. Each look is handed over evenly until the next one is due.
#[derive(Debug, Default)]
struct Parts {
    uses: BTreeMap<(PciAddress, ProcessKey), Nanos>,
    watched: BTreeMap<PciAddress, (bool, Nanos)>,
    due: Nanos,
}

impl Parts {
    fn take(&mut self, sample: GpuSample, now: Nanos) {
        // A GPU that nobody watches any more: what is known of it ends here.
        self.watched.retain(|gpu, _| sample.watched.iter().any(|watched| watched.gpu == *gpu));
        for watched in sample.watched {
            let (estimated, busy) = self.watched.entry(watched.gpu).or_default();
            *estimated = watched.estimated;
            *busy += watched.busy;
        }
        for one in sample.uses {
            *self.uses.entry((one.gpu, one.process)).or_default() += one.busy;
        }
        let watched = &self.watched;
        self.uses.retain(|(gpu, _), _| watched.contains_key(gpu));
        self.due = now + Nanos::from(PERIOD);
    }

    fn give(&mut self, now: Nanos, passed: Nanos, out: &mut GpuSample) {
        // Of the time from the last call to when it has to be handed over, so much has passed.
        let whole = (self.due + passed - now).max(passed);
        let part = |all: &mut Nanos| {
            let given = if now >= self.due || whole == Nanos::ZERO {
                *all
            } else {
                Nanos((u128::from(all.0) * u128::from(passed.0) / u128::from(whole.0)) as u64)
            };
            *all = *all - given;
            given
        };
        for (gpu, (estimated, busy)) in &mut self.watched {
            out.watched.push(WatchedGpu { gpu: *gpu, estimated: *estimated, busy: part(busy) });
        }
        for ((gpu, process), busy) in &mut self.uses {
            let busy = part(busy);
            if busy > Nanos::ZERO {
                out.uses.push(GpuUse { gpu: *gpu, process: *process, busy });
            }
        }
        self.uses.retain(|_, left| *left > Nanos::ZERO);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GPU: PciAddress = PciAddress { domain: 0, bus: 0x41, devfn: 0 };

    fn found(busy: u64, uses: &[u64]) -> GpuSample {
        let process = |pid: usize| ProcessKey { pid: pid as u32 + 1, start: 1 };
        GpuSample {
            uses: uses
                .iter()
                .enumerate()
                .map(|(pid, busy)| GpuUse { gpu: GPU, process: process(pid), busy: Nanos(*busy) })
                .collect(),
            watched: vec![WatchedGpu { gpu: GPU, estimated: false, busy: Nanos(busy) }],
            ..GpuSample::default()
        }
    }

    fn sums(out: &GpuSample) -> (u64, u64) {
        (out.watched.iter().map(|one| one.busy.0).sum(), out.uses.iter().map(|one| one.busy.0).sum())
    }

    #[test]
    fn a_look_is_handed_over_evenly_until_the_next_one() {
        let (mut parts, second) = (Parts::default(), Nanos::SECOND);
        parts.take(found(1000, &[600, 300]), second);
        let mut given = Vec::new();
        for tenth in 1..=12u64 {
            let mut out = GpuSample::default();
            parts.give(second + Nanos(tenth * 100_000_000), Nanos(100_000_000), &mut out);
            given.push(sums(&out));
        }
        assert_eq!(given[..10], [(100, 90); 10]);
        assert_eq!(given[10..], [(0, 0); 2]);
    }

    #[test]
    fn a_gpu_that_nobody_watches_any_more_is_not_watched() {
        let mut parts = Parts::default();
        parts.take(found(1000, &[600]), Nanos::SECOND);
        parts.take(GpuSample::default(), Nanos::SECOND);
        let mut out = GpuSample::default();
        parts.give(Nanos::SECOND, Nanos::SECOND, &mut out);
        assert_eq!(out, GpuSample::default());
    }

    struct Hangs(std::sync::mpsc::Receiver<()>);
    impl Looker for Hangs {
        fn look(&mut self) -> Look {
            let _ = self.0.recv();
            Look::nothing(Health::Healthy)
        }
    }

    #[test]
    fn one_who_hangs_delays_nobody() {
        let (go, wait) = channel();
        let mut source = Threaded::start("test", Hangs(wait)).unwrap();
        let from = std::time::Instant::now();
        source.sample(&mut GpuSample::default());
        assert!(from.elapsed() < Duration::from_secs(5), "{:?}", from.elapsed());
        assert_eq!(source.health(), Health::Degraded("not yet read".into()));
        lock(&source.shared).asked = Some(Nanos(1));
        source.sample(&mut GpuSample::default());
        assert!(matches!(source.health(), Health::Failed(why) if why.contains("no answer")));
        drop(go);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_made(
            looks in proptest::collection::vec((0u64..2_000_000_000, proptest::collection::vec(0u64..500_000_000, 0..4)), 1..10),
            steps in proptest::collection::vec(1u64..3_000_000_000, 1..40),
        ) {
            let (mut parts, mut now, mut looks) = (Parts::default(), Nanos(1), looks.into_iter());
            let (mut put, mut got) = ((0, 0), (0, 0));
            for step in steps {
                if let Some((more, uses)) = looks.next() {
                    let used: u64 = uses.iter().sum();
                    parts.take(found(used + more, &uses), now);
                    put = (put.0 + used + more, put.1 + used);
                }
                let mut out = GpuSample::default();
                now += Nanos(step);
                parts.give(now, Nanos(step), &mut out);
                let (busy, used) = sums(&out);
                got = (got.0 + busy, got.1 + used);
                prop_assert!(got.0 <= put.0 && got.1 <= put.1);
            }
            let mut out = GpuSample::default();
            parts.give(now + Nanos(5_000_000_000), Nanos(5_000_000_000), &mut out);
            let (busy, used) = sums(&out);
            prop_assert_eq!((got.0 + busy, got.1 + used), put);
        }
    }
}
