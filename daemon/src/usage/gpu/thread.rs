//! Runs a probe of GPU use on a thread of its own, once a second, and hands each result out evenly over the following
//! second, so that a tick of any length gets its part. Knows no vendor.

use super::super::GpuUsage;
use crate::model::source::{Health, PciAddress, Stamp};
use crate::model::units::Nanos;
use crate::model::usage::{GpuSample, GpuUse, ProcessKey, WatchedGpu};
use crate::sys::backoff::Backoff;
use std::collections::BTreeMap;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Time between two probes.
pub const PERIOD: Duration = Duration::from_secs(1);
/// Longest time between two probes that find no GPU: it doubles up to this.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A probe that takes longer has hung: from then on GPU use is unknown.
const HANG_AFTER: Duration = Duration::from_secs(10);
/// Longest time that a start waits for the first result.
const FIRST_RESULT_WAIT: Duration = Duration::from_millis(200);

/// The result of one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeResult {
    /// Use since the probe before.
    pub sample: GpuSample,
    /// Health of the source.
    pub health: Health,
    /// One line for the operator.
    pub detail: String,
}

impl ProbeResult {
    /// No use is known, for this reason.
    pub fn nothing(health: Health) -> Self {
        Self { sample: GpuSample::default(), health, detail: String::new() }
    }
}

/// A way to read GPU use. May be slow, and may hang.
pub trait Probe: Send {
    /// Use since the last call; the first call only begins.
    fn probe(&mut self) -> ProbeResult;
}

#[derive(Default)]
struct Shared {
    /// Results that no sample has taken yet.
    results: Vec<ProbeResult>,
    /// Since when a probe has been running, CLOCK_MONOTONIC; `None`: none is.
    probing_since: Option<Nanos>,
}

/// A source of GPU use that runs a [`Probe`] on its thread.
pub struct ThreadedProbe {
    source: &'static str,
    shared: Arc<Mutex<Shared>>,
    health: Health,
    detail: String,
    pending: Pending,
    /// Time of the last sample, CLOCK_MONOTONIC.
    last: Nanos,
    /// Dropped with the source: that ends the thread.
    _stop: Sender<()>,
}

impl ThreadedProbe {
    /// Starts probing.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(source: &'static str, mut probe: impl Probe + 'static) -> Result<Self, String> {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (stop, stopped) = channel::<()>();
        let (first, first_result) = channel::<()>();
        let for_thread = Arc::clone(&shared);
        let run = move || {
            let mut first = Some(first);
            let mut backoff = Backoff::new(2 * PERIOD, LONGEST_PAUSE);
            loop {
                lock(&for_thread).probing_since = Some(Stamp::now().monotonic);
                let result = probe.probe();
                let pause = if result.sample.watched.is_empty() {
                    backoff.pause()
                } else {
                    backoff.reset();
                    PERIOD
                };
                let mut shared = lock(&for_thread);
                shared.probing_since = None;
                shared.results.push(result);
                drop(shared);
                // Ends the wait of `start` for the first result.
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
        let _ = first_result.recv_timeout(FIRST_RESULT_WAIT);
        let health = Health::starting();
        let last = Stamp::now().monotonic;
        Ok(Self { source, shared, health, detail: String::new(), pending: Pending::default(), last, _stop: stop })
    }
}

impl GpuUsage for ThreadedProbe {
    fn source(&self) -> &str {
        self.source
    }

    fn sample(&mut self, out: &mut GpuSample) {
        let now = Stamp::now().monotonic;
        // Where the thread holds the lock, its results come with the next tick.
        let (results, probing_since) = match self.shared.try_lock() {
            Ok(mut shared) => (std::mem::take(&mut shared.results), shared.probing_since),
            Err(_) => (Vec::new(), None),
        };
        for result in results {
            self.pending.add(result.sample, now);
            (self.health, self.detail) = (result.health, result.detail);
        }
        let silent = probing_since.map_or(Nanos::ZERO, |probing_since| now - probing_since);
        if silent > Nanos::from(HANG_AFTER) {
            self.pending = Pending::default();
            self.health = Health::Failed(format!("no answer for more than {} s", HANG_AFTER.as_secs()));
        }
        self.pending.hand_out(now, now - self.last, out);
        self.last = now;
    }

    fn health(&self) -> Health {
        self.health.clone()
    }

    fn detail(&self) -> String {
        self.detail.clone()
    }
}

/// Use that is not handed out yet. Each result is handed out evenly until the next one is due.
#[derive(Debug, Default)]
struct Pending {
    /// Busy time that is left, by GPU and process.
    uses: BTreeMap<(PciAddress, ProcessKey), Nanos>,
    /// By GPU: whether its shares are estimated, and its busy time that is left.
    watched: BTreeMap<PciAddress, (bool, Nanos)>,
    /// When the next result is due, CLOCK_MONOTONIC.
    due: Nanos,
}

impl Pending {
    fn add(&mut self, sample: GpuSample, now: Nanos) {
        // A GPU that is no longer watched: its remaining use is dropped.
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

    fn hand_out(&mut self, now: Nanos, passed: Nanos, out: &mut GpuSample) {
        // The interval ends now and began `passed` ago; of the time until the rest is due, this is the interval's
        // share.
        let whole = (self.due + passed - now).max(passed);
        let hand_over = |all: &mut Nanos| {
            let share = if now >= self.due || whole == Nanos::ZERO {
                *all
            } else {
                Nanos((u128::from(all.0) * u128::from(passed.0) / u128::from(whole.0)) as u64)
            };
            *all = *all - share;
            share
        };
        for (gpu, (estimated, busy)) in &mut self.watched {
            out.watched.push(WatchedGpu { gpu: *gpu, estimated: *estimated, busy: hand_over(busy) });
        }
        for ((gpu, process), busy) in &mut self.uses {
            let busy = hand_over(busy);
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

    fn sample(busy: u64, uses: &[u64]) -> GpuSample {
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
    fn a_result_is_handed_out_evenly_until_the_next_one() {
        let (mut pending, second) = (Pending::default(), Nanos::SECOND);
        pending.add(sample(1000, &[600, 300]), second);
        let mut share = Vec::new();
        for tenth in 1..=12u64 {
            let mut out = GpuSample::default();
            pending.hand_out(second + Nanos(tenth * 100_000_000), Nanos(100_000_000), &mut out);
            share.push(sums(&out));
        }
        assert_eq!(share[..10], [(100, 90); 10]);
        assert_eq!(share[10..], [(0, 0); 2]);
    }

    #[test]
    fn a_gpu_that_is_no_longer_watched_is_dropped() {
        let mut pending = Pending::default();
        pending.add(sample(1000, &[600]), Nanos::SECOND);
        pending.add(GpuSample::default(), Nanos::SECOND);
        let mut out = GpuSample::default();
        pending.hand_out(Nanos::SECOND, Nanos::SECOND, &mut out);
        assert_eq!(out, GpuSample::default());
    }

    struct Hangs(std::sync::mpsc::Receiver<()>);
    impl Probe for Hangs {
        fn probe(&mut self) -> ProbeResult {
            let _ = self.0.recv();
            ProbeResult::nothing(Health::Healthy)
        }
    }

    #[test]
    fn a_probe_that_hangs_does_not_delay_a_tick() {
        let (go, wait) = channel();
        let mut source = ThreadedProbe::start("test", Hangs(wait)).unwrap();
        let from = std::time::Instant::now();
        source.sample(&mut GpuSample::default());
        assert!(from.elapsed() < Duration::from_secs(20), "{:?}", from.elapsed());
        assert_eq!(source.health(), Health::Starting("not yet read".into()));
        lock(&source.shared).probing_since = Some(Nanos(1));
        source.sample(&mut GpuSample::default());
        assert!(matches!(source.health(), Health::Failed(why) if why.contains("no answer")));
        drop(go);
    }

    proptest! {
        #[test]
        fn all_use_is_handed_out_once(
            results in proptest::collection::vec((0u64..2_000_000_000, proptest::collection::vec(0u64..500_000_000, 0..4)), 1..10),
            steps in proptest::collection::vec(1u64..3_000_000_000, 1..40),
        ) {
            let (mut pending, mut now, mut results) = (Pending::default(), Nanos(1), results.into_iter());
            let (mut total_in, mut total_out) = ((0, 0), (0, 0));
            for step in steps {
                if let Some((more, uses)) = results.next() {
                    let used: u64 = uses.iter().sum();
                    pending.add(sample(used + more, &uses), now);
                    total_in = (total_in.0 + used + more, total_in.1 + used);
                }
                let mut out = GpuSample::default();
                now += Nanos(step);
                pending.hand_out(now, Nanos(step), &mut out);
                let (busy, used) = sums(&out);
                total_out = (total_out.0 + busy, total_out.1 + used);
                prop_assert!(total_out.0 <= total_in.0 && total_out.1 <= total_in.1);
            }
            let mut out = GpuSample::default();
            pending.hand_out(now + Nanos(5_000_000_000), Nanos(5_000_000_000), &mut out);
            let (busy, used) = sums(&out);
            prop_assert_eq!((total_out.0 + busy, total_out.1 + used), total_in);
        }
    }
}
