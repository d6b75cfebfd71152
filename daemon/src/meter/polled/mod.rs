//! A slow meter on a thread of its own, so that it delays no tick: opened there, asked at its own period, opened anew when it is gone.
//! Not a meter of anything itself.

use super::Meter;
use super::fresh::Fresh;
use crate::model::domain::{Domain, DomainReading, Reading};
use crate::model::source::{Health, Stamp};
use crate::model::units::Nanos;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// An answer is late when it takes longer than this.
const LATE: Duration = Duration::from_secs(10);
/// A start waits so long for the first answer.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two tries to open a source, at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// At the end, a meter has so long to give back what it holds: a BMC's session.
const FAREWELL: Duration = Duration::from_millis(1000);

/// Opens a meter: `Ok(None)` where this machine does not have it (now), `Err` where it has and it does not work.
pub type Opener = Box<dyn FnMut() -> Result<Option<Box<dyn Meter>>, String> + Send>;

/// What a [`Polled`] is called, and how it is driven.
#[derive(Clone, Debug)]
pub struct Poll {
    /// The source's name.
    pub source: String,
    /// What was looked for, for where it is not there.
    pub absent: String,
    /// Time between two readings.
    pub period: Duration,
    /// Whether it was asked for by name: then its absence is a failure.
    pub by_name: bool,
}

/// What the thread found out.
struct Found {
    domains: Vec<Domain>,
    /// The last one of each since the sampler looked; domains are numbers in `domains`.
    readings: Vec<DomainReading>,
    health: Health,
    detail: String,
    /// Since when the source has been asked something that it has not answered, CLOCK_MONOTONIC.
    asked: Option<Nanos>,
}

/// A meter that is read by a thread of its own.
pub struct Polled {
    poll: Poll,
    found: Arc<Mutex<Found>>,
    domains: Vec<Domain>,
    health: Health,
    detail: String,
    late: bool,
    /// Its end tells the thread to end.
    stop: Option<Sender<()>>,
    /// Tells a read that is under way to end.
    halt: CancellationToken,
    /// Closed when the thread has let go of the meter.
    ended: Receiver<()>,
    /// How long to wait for that, once told to end.
    until: Option<Instant>,
}

impl Polled {
    /// Starts the thread. It gives no reading before the source has answered.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(poll: Poll, opener: Opener) -> Result<Self, String> {
        Self::start_until(poll, opener, CancellationToken::new())
    }

    /// The same; `halt` is cancelled at the end, for a meter that can break off a read that is under way.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start_until(poll: Poll, opener: Opener, halt: CancellationToken) -> Result<Self, String> {
        let found = Arc::new(Mutex::new(Found {
            domains: Vec::new(),
            readings: Vec::new(),
            health: Health::Degraded("not yet read".into()),
            detail: String::new(),
            asked: None,
        }));
        let (stop, stopped) = channel::<()>();
        let mut asker = Asker {
            poll: poll.clone(),
            opener,
            found: Arc::clone(&found),
            meter: None,
            numbers: Vec::new(),
            fresh: Vec::new(),
            tries: 0,
        };
        let (first, answered) = channel::<()>();
        let (gone, ended) = channel::<()>();
        let run = move || {
            let mut pause = asker.step();
            drop(first);
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(pause) {
                pause = asker.step();
            }
            drop(asker);
            drop(gone);
        };
        thread::Builder::new()
            .name(poll.source.chars().take(15).collect())
            .spawn(run)
            .map_err(|error| format!("no thread for {}: {error}", poll.source))?;
        // Most sources are quick: then what it is like is known from the first tick on.
        let _ = answered.recv_timeout(PATIENCE);
        let (health, domains) = {
            let found = lock(&found);
            (found.health.clone(), found.domains.clone())
        };
        Ok(Self {
            poll,
            found,
            domains,
            health,
            detail: String::new(),
            late: false,
            stop: Some(stop),
            halt,
            ended,
            until: None,
        })
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
        // Never waits: where the thread holds the lock just now, its news come with the next tick.
        let Ok(mut found) = self.found.try_lock() else { return };
        self.domains.extend_from_slice(&found.domains[self.domains.len()..]);
        out.append(&mut found.readings);
        let silent = found.asked.map_or(Nanos::ZERO, |asked| now.monotonic - asked);
        if silent <= Nanos::from(LATE) {
            self.late = false;
            self.health.clone_from(&found.health);
            self.detail.clone_from(&found.detail);
        } else if !std::mem::replace(&mut self.late, true) {
            let why = format!("no answer for more than {:.0} s", silent.seconds().floor());
            let gone = |domain| DomainReading { domain, at: now.monotonic, reading: Err(why.clone()) };
            out.extend((0..self.domains.len()).map(gone));
            self.health = Health::Failed(why);
        }
    }

    fn health(&self) -> Health {
        self.health.clone()
    }

    fn detail(&self) -> String {
        self.detail.clone()
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
        // A thread that hangs is left: the process ends without it.
        let left = self.until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
        let _ = self.ended.recv_timeout(left);
    }
}

/// The thread's side.
struct Asker {
    poll: Poll,
    opener: Opener,
    found: Arc<Mutex<Found>>,
    meter: Option<Box<dyn Meter>>,
    /// Of the meter's domains, their numbers in `found`: one that comes back keeps its number.
    numbers: Vec<usize>,
    /// Of each domain: a meter may be asked more often than it measures.
    fresh: Vec<Fresh>,
    tries: u32,
}

impl Asker {
    /// Opens or reads once; how long to wait before the next time.
    fn step(&mut self) -> Duration {
        lock(&self.found).asked = Some(Stamp::now().monotonic);
        let pause = self.ask();
        lock(&self.found).asked = None;
        pause
    }

    fn ask(&mut self) -> Duration {
        if self.meter.is_none() {
            match (self.opener)() {
                Ok(Some(meter)) => {
                    self.meter = Some(meter);
                    self.numbers.clear();
                    self.tries = 0;
                }
                Ok(None) => {
                    let absent = self.poll.absent.clone();
                    return self.closed(if self.poll.by_name {
                        Health::Failed(absent)
                    } else {
                        Health::Unsupported(absent)
                    });
                }
                Err(why) => return self.closed(Health::Failed(why)),
            }
        }
        let Some(meter) = &mut self.meter else { return LONGEST_PAUSE };
        let mut readings = Vec::new();
        meter.read(Stamp::now(), &mut readings);
        let (health, detail, domains) = (meter.health(), meter.detail(), meter.domains().to_vec());
        // No news is no reason to open it anew, where there may be some.
        let failed =
            if readings.is_empty() { domains.is_empty() } else { readings.iter().all(|one| one.reading.is_err()) };
        let nothing = failed && meter.opened_anew();
        let mut found = lock(&self.found);
        for domain in domains.into_iter().skip(self.numbers.len()) {
            let known = found.domains.iter().position(|known| known.id == domain.id);
            self.numbers.push(known.unwrap_or(found.domains.len()));
            if known.is_none() {
                found.domains.push(domain);
            }
        }
        self.fresh.resize_with(found.domains.len(), Fresh::default);
        for mut reading in readings {
            reading.domain = self.numbers.get(reading.domain).copied().unwrap_or(usize::MAX);
            if let (Ok(Reading::Gauge { power }), Some(fresh)) = (&reading.reading, self.fresh.get_mut(reading.domain))
            {
                let refresh = found.domains.get(reading.domain).and_then(|domain| domain.refresh);
                let Some(at) = fresh.measured_at(*power, reading.at, refresh) else { continue };
                reading.at = at;
            }
            // One reading a tick: who ran between two that come together is not known.
            found.readings.retain(|earlier| earlier.domain != reading.domain);
            found.readings.push(reading);
        }
        (found.health, found.detail) = (health, detail);
        drop(found);
        if nothing {
            // It may be another one by the next time: a driver reloaded, a BMC restarted.
            self.meter = None;
        }
        self.poll.period
    }

    fn closed(&mut self, health: Health) -> Duration {
        let mut found = lock(&self.found);
        let at = Stamp::now().monotonic;
        let why = health.why().to_owned();
        let gone = |domain| DomainReading { domain, at, reading: Err(why.clone()) };
        found.readings = (0..found.domains.len()).map(gone).collect();
        found.health = health;
        found.detail.clear();
        self.tries = (self.tries + 1).min(6);
        self.poll.period.saturating_mul(1 << (self.tries - 1)).min(LONGEST_PAUSE.max(self.poll.period))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
