//! Runs a slow meter (a BMC, a driver that can hang) on a thread of its own, so that it never delays a tick. The
//! thread opens the meter, reads it at its own period, and opens it again when it fails. Measures nothing itself.

use super::Meter;
use super::fresh::Fresh;
use crate::model::domain::{Domain, DomainId, DomainReading, Reading};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};
use crate::model::units::Nanos;
use crate::sys::backoff::Backoff;
use rustc_hash::FxHashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// If a read or an open takes longer than this, the source counts as failed until it ends.
const LATE: Duration = Duration::from_secs(10);
/// [`Polled::start`] waits this long for the first read, at most.
const FIRST_READ: Duration = Duration::from_millis(200);
/// Longest time between two attempts to open a source, unless its period is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Time that a meter gets after the stop to release what it holds (a BMC's session).
const FAREWELL: Duration = Duration::from_millis(1000);

/// Opens a meter: `Ok(None)` if this machine does not have the device now, `Err` if it has the device and that does not
/// work. May block for long.
pub type Opener = Box<dyn FnMut() -> Result<Option<Box<dyn Meter>>, String> + Send>;

/// Settings of a [`Polled`].
#[derive(Clone, Debug)]
pub struct Poll {
    /// The source's name.
    pub source: String,
    /// The reason shown if the device does not exist: what was looked for.
    pub absent: String,
    /// Time between two reads.
    pub period: Duration,
    /// Whether the configuration names the device: then its absence is a failure.
    pub by_name: bool,
    /// The kind of a configured platform meter. See [`Meter::expected`].
    pub expected: Option<PlatformKind>,
}

/// State that the thread passes to the tick.
struct Shared {
    domains: Vec<Domain>,
    /// The last reading of each domain since the last tick.
    readings: Vec<DomainReading>,
    health: Health,
    detail: String,
    /// Domains without power, until the thread passes them to the meter.
    without_power: Option<Vec<DomainId>>,
    /// Start of the read or open in progress, CLOCK_MONOTONIC; `None`: none is in progress.
    asked: Option<Nanos>,
}

/// A meter that is read by a thread of its own.
pub struct Polled {
    poll: Poll,
    shared: Arc<Mutex<Shared>>,
    domains: Vec<Domain>,
    health: Health,
    detail: String,
    late: bool,
    /// Domains without power that the thread has not been told of.
    without_power: Option<Vec<DomainId>>,
    /// The thread ends when this is dropped.
    stop: Option<Sender<()>>,
    /// Cancels the read in progress.
    halt: CancellationToken,
    /// Closed when the thread has dropped the meter.
    ended: Receiver<()>,
    /// Deadline of the wait for `ended`, set by [`Meter::stop`].
    until: Option<Instant>,
}

impl Polled {
    /// Starts the thread. There is no reading before the device has answered. If the thread cannot be started, the
    /// source is failed.
    pub fn start(poll: Poll, opener: Opener) -> Self {
        Self::start_until(poll, opener, CancellationToken::new())
    }

    /// As [`Polled::start`]. `halt` is cancelled at the stop, for a meter that can cancel a read in progress.
    pub fn start_until(poll: Poll, opener: Opener, halt: CancellationToken) -> Self {
        let shared = Arc::new(Mutex::new(Shared {
            domains: Vec::new(),
            readings: Vec::new(),
            health: Health::starting(),
            detail: String::new(),
            without_power: None,
            asked: None,
        }));
        let (stop, stopped) = channel::<()>();
        let mut poller = Poller {
            without_power: Vec::new(),
            poll: poll.clone(),
            opener,
            shared: Arc::clone(&shared),
            meter: None,
            fresh: FxHashMap::default(),
            backoff: retries(poll.period),
        };
        let (first, answered) = channel::<()>();
        let (gone, ended) = channel::<()>();
        let run = move || {
            let mut pause = poller.step();
            drop(first);
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
                pause = poller.step();
            }
            drop(poller);
            drop(gone);
        };
        if let Err(error) = thread::Builder::new().name(poll.source.chars().take(15).collect()).spawn(run) {
            lock(&shared).health = Health::Failed(format!("no thread for {}: {error}", poll.source));
        }
        // Most devices answer within this time, so that the first tick has their state and domains.
        let _ = answered.recv_timeout(FIRST_READ);
        let (health, domains) = {
            let shared = lock(&shared);
            (shared.health.clone(), shared.domains.clone())
        };
        Self {
            poll,
            shared,
            domains,
            health,
            detail: String::new(),
            late: false,
            without_power: None,
            stop: Some(stop),
            halt,
            ended,
            until: None,
        }
    }
}

impl Meter for Polled {
    fn source(&self) -> &str {
        &self.poll.source
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        // Never waits: while the thread holds the lock, its readings are left for the next tick.
        let Ok(mut shared) = self.shared.try_lock() else { return };
        if let Some(domains) = self.without_power.take() {
            shared.without_power = Some(domains);
        }
        self.domains.extend_from_slice(&shared.domains[self.domains.len()..]);
        out.append(&mut shared.readings);
        let silent = shared.asked.map_or(Nanos::ZERO, |asked| now.monotonic - asked);
        if silent <= Nanos::from(LATE) {
            self.late = false;
            self.health.clone_from(&shared.health);
            self.detail.clone_from(&shared.detail);
        } else if !std::mem::replace(&mut self.late, true) {
            let why = format!("no answer for more than {:.0} s", silent.seconds().floor());
            out.extend(self.domains.iter().map(|domain| DomainReading::failed(domain, now.monotonic, &why)));
            self.health = Health::Failed(why);
        }
    }

    fn health(&self) -> Health {
        self.health.clone()
    }

    fn detail(&self) -> String {
        self.detail.clone()
    }

    fn expected(&self) -> Option<PlatformKind> {
        self.poll.expected.clone()
    }

    fn set_without_power(&mut self, domains: &[DomainId]) {
        // Never waits: passed on at the next read.
        self.without_power = Some(domains.to_vec());
    }

    fn stop(&mut self) {
        self.stop = None;
        self.halt.cancel();
        self.until.get_or_insert_with(|| Instant::now() + FAREWELL);
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.stop();
        // A thread that hangs is not waited for: it ends with the process.
        let left = self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let _ = self.ended.recv_timeout(left);
    }
}

/// The thread's side.
struct Poller {
    poll: Poll,
    opener: Opener,
    shared: Arc<Mutex<Shared>>,
    meter: Option<Box<dyn Meter>>,
    /// Domains without power, as last set: a meter that is opened again has to know them, too.
    without_power: Vec<DomainId>,
    /// Detects repeated values of each domain: a meter may be read more often than it measures.
    fresh: FxHashMap<DomainId, Fresh>,
    /// Pauses between attempts to open it.
    backoff: Backoff,
}

impl Poller {
    /// Opens or reads once. Returns the time until the next step.
    fn step(&mut self) -> Duration {
        lock(&self.shared).asked = Some(Stamp::now().monotonic);
        let pause = match self.open() {
            Ok(()) => self.read(),
            Err(health) => self.closed(health),
        };
        lock(&self.shared).asked = None;
        pause
    }

    /// Opens the meter if it is not open.
    fn open(&mut self) -> Result<(), Health> {
        if self.meter.is_some() {
            return Ok(());
        }
        let absent = || self.poll.absent.clone();
        let mut meter = match (self.opener)() {
            Ok(Some(meter)) => meter,
            Ok(None) if self.poll.by_name => return Err(Health::Failed(absent())),
            Ok(None) => return Err(Health::Unsupported(absent())),
            Err(why) => return Err(Health::Failed(why)),
        };
        if !self.without_power.is_empty() {
            meter.set_without_power(&self.without_power);
        }
        self.meter = Some(meter);
        self.backoff.reset();
        Ok(())
    }

    fn read(&mut self) -> Duration {
        let Some(meter) = &mut self.meter else { return LONGEST_PAUSE };
        if let Some(domains) = lock(&self.shared).without_power.take() {
            meter.set_without_power(&domains);
            self.without_power = domains;
        }
        let mut readings = Vec::new();
        meter.read(Stamp::now(), &mut readings);
        let (health, detail) = (meter.health(), meter.detail());
        let mut shared = lock(&self.shared);
        for domain in meter.domains() {
            // A domain that returns with a reopened meter is in the list already.
            if shared.domains.iter().all(|known| known.id != domain.id) {
                shared.domains.push(domain.clone());
            }
        }
        // A meter that has domains and gave no reading has nothing new: that is no failure.
        let failed =
            readings.iter().all(|one| one.reading.is_err()) && (!readings.is_empty() || meter.domains().is_empty());
        let reopen = failed && meter.is_reopened();
        for mut reading in readings {
            if let Ok(Reading::Gauge { power }) = &reading.reading {
                let refresh = shared.domains.iter().find(|one| one.id == reading.domain).and_then(|one| one.refresh);
                let fresh = self.fresh.entry(reading.domain.clone()).or_default();
                let Some(at) = fresh.measured_at(*power, reading.at, refresh) else { continue };
                reading.at = at;
            }
            // At most one reading a tick: if two came in one tick, the usage between them would be unknown.
            shared.readings.retain(|earlier| earlier.domain != reading.domain);
            shared.readings.push(reading);
        }
        (shared.health, shared.detail) = (health, detail);
        drop(shared);
        if reopen {
            // The reopened meter may find other devices, after a reload of a driver or a restart of a BMC.
            self.meter = None;
        }
        self.poll.period
    }

    /// Reports that the meter could not be opened. The pause doubles with each attempt in a row.
    fn closed(&mut self, health: Health) -> Duration {
        let mut shared = lock(&self.shared);
        let at = Stamp::now().monotonic;
        shared.readings = shared.domains.iter().map(|domain| DomainReading::failed(domain, at, health.why())).collect();
        shared.health = health;
        shared.detail.clear();
        self.backoff.pause()
    }
}

/// The pauses between attempts to open a meter that is read once a `period`: at most 32 periods.
fn retries(period: Duration) -> Backoff {
    Backoff::new(period, LONGEST_PAUSE.min(period.saturating_mul(32)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
