//! Meters between the machine and the wall (smart plugs, PDUs, UPSs), and others that something outside of this machine
//! reads: `[[meter.http]]` and others. Each entry is one [`Polled`] meter: a [`Probe`] asks, [`OwnTime`] says of when a
//! value is, [`follow`] makes energy of powers and counters. With `measures = "this machine"` it is a platform meter,
//! else it is compared with the authority only.

mod document;
mod entries;
pub mod follow;
pub mod http;
pub mod mqtt;
mod net;
pub mod nut;
mod own_time;
pub mod prometheus;
mod quantity;
pub mod snmp;

pub use entries::{Common, Entries, Entry, Measures};
pub use net::{Auth, Tls};
pub use quantity::{EnergyUnit, PowerUnit};

use super::Meter;
use super::polled::{Opener, Poll, Polled};
use crate::model::domain::{Domain, DomainReading, Quality, Scope, Zone};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::sys::backoff::Backoff;
use entries::{Say, entry, http_entry};
use follow::{At, Follow, Sample, Total};
use own_time::{Moment, OwnTime};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// What messages call the other side.
const PEER: &str = "the meter";
/// No meter of one machine measures more: 100 kW.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);
/// Longest pause after failures.
const LONGEST_PAUSE: Nanos = Nanos(60 * Nanos::SECOND.0);
/// First and longest pause after a refused password: Home Assistant bans addresses after some of them.
const LOGIN_PAUSES: (Nanos, Nanos) = (Nanos(60 * Nanos::SECOND.0), Nanos(1800 * Nanos::SECOND.0));

/// What kind of failure a question met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The meter did not answer, or not well.
    Broken,
    /// The meter refused the password.
    Login,
    /// It answered, and has no value now.
    Absent,
    /// It answered something that cannot be used.
    Unusable,
}

/// Why there is no value: one line for the operator, in which a meter's text is escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    kind: FailureKind,
    why: String,
}

impl Failure {
    fn broken(why: impl Into<String>) -> Self {
        Self { kind: FailureKind::Broken, why: why.into() }
    }
    fn login(why: impl Into<String>) -> Self {
        Self { kind: FailureKind::Login, why: why.into() }
    }
    fn absent(why: impl Into<String>) -> Self {
        Self { kind: FailureKind::Absent, why: why.into() }
    }
    fn unusable(why: impl Into<String>) -> Self {
        Self { kind: FailureKind::Unusable, why: why.into() }
    }
}

/// A value with the time that the meter gives for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Said<T> {
    /// The value.
    pub value: T,
    /// When it was measured, ns since 1970 by the meter's clock; `None`: it does not say.
    pub time: Option<i128>,
}

/// What a meter said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Its power.
    pub power: Option<Said<Microwatts>>,
    /// Its energy counter.
    pub energy: Option<Said<Total>>,
    /// The meter's clock at the answer, seconds since 1970.
    pub date: Option<u64>,
}

/// Asks a meter. May block for the time of a round.
pub trait Probe: Send {
    /// Asks for its values.
    ///
    /// # Errors
    /// There is no value now, and why.
    fn ask(&mut self) -> Result<Answer, Failure>;

    /// Whether it has an energy counter.
    fn counts(&self) -> bool;

    /// Where it is, and what is read, for the operator.
    fn describe(&self) -> String;

    /// A file with a password was changed since the last question that was refused.
    fn has_new_secret(&mut self) -> bool {
        false
    }
}

/// Starts the meter of an entry, on a thread of its own. `open` makes its probe, and may fail for files that cannot be
/// read.
fn start<P: Probe + 'static>(
    common: Common<'_>,
    path: &str,
    mut open: impl FnMut(CancellationToken) -> Result<P, String> + Send + 'static,
) -> Polled {
    let (source, kind) = (common.source(), common.kind());
    let mut domain = Domain::measured(
        format!("{}/{}/platform", common.section, common.name),
        &source,
        Zone::Platform,
        Scope::Machine,
        path.to_owned(),
    );
    domain.max_power = MAX_POWER;
    domain.refresh = Some(common.period);
    domain.platform = Some(kind.clone());
    if common.share < 1.0 {
        domain.quality = Quality::Derived;
    }
    let expected = Some(kind).filter(|kind| !kind.is_check());
    let period = Duration::from_nanos(common.period.0);
    let poll = Poll { source: source.clone(), absent: String::new(), period, by_name: true, expected };
    let stop = CancellationToken::new();
    let cancelled = stop.clone();
    let first_pause = common.period;
    let opener: Opener = Box::new(move || {
        let probe = open(cancelled.clone())?;
        Ok(Some(Box::new(WallMeter::new(source.clone(), domain.clone(), first_pause, probe)) as Box<dyn Meter>))
    });
    Polled::start_until(poll, opener, stop)
}

/// A meter that is asked by a probe.
struct WallMeter<P> {
    source: String,
    /// The domain; in `domains` from the first reading on.
    domain: Domain,
    domains: Vec<Domain>,
    probe: P,
    follow: Follow,
    power_time: OwnTime,
    energy_time: OwnTime,
    retry: Backoff<Nanos>,
    login_retry: Backoff<Nanos>,
    /// The meter refused the password. Another one is tried at once.
    locked_out: bool,
    /// The next question is not before this, CLOCK_MONOTONIC.
    not_before: Nanos,
    health: Health,
}

impl<P: Probe> WallMeter<P> {
    fn new(source: String, domain: Domain, pause: Nanos, probe: P) -> Self {
        Self {
            source,
            follow: Follow::new(probe.counts(), domain.max_power),
            domain,
            domains: Vec::new(),
            probe,
            power_time: OwnTime::default(),
            energy_time: OwnTime::default(),
            retry: Backoff::new(pause, LONGEST_PAUSE),
            login_retry: Backoff::new(LOGIN_PAUSES.0, LOGIN_PAUSES.1),
            locked_out: false,
            not_before: Nanos::ZERO,
            health: Health::starting(),
        }
    }

    /// The reading of an answer that arrived at `now`.
    fn reading(&mut self, answer: &Answer, now: Stamp) -> Result<Option<DomainReading>, String> {
        let mut stale = None;
        let mut moment = |own: &mut OwnTime, time| match own.moment(time, answer.date, now) {
            Moment::New(at) => Some(at),
            Moment::Repeated => None,
            Moment::Stale(age) => {
                stale = Some(format!("its last value is {:.0} s old: it is no reading", age.seconds()));
                None
            }
        };
        let power =
            answer.power.and_then(|said| Some(At { value: said.value, at: moment(&mut self.power_time, said.time)? }));
        let energy = answer
            .energy
            .and_then(|said| Some(At { value: said.value, at: moment(&mut self.energy_time, said.time)? }));
        let is_machine = self.domain.platform == Some(PlatformKind::Wall);
        if is_machine && answer.power.is_some_and(|power| power.value == Microwatts::ZERO) {
            return Err("0 W, while this machine runs: is it on this socket?".into());
        }
        if power.is_none() && energy.is_none() {
            return stale.map_or(Ok(None), Err);
        }
        let reading = self.follow.take(Sample { power, energy })?;
        Ok(reading.map(|reading| DomainReading::new(self.domain.id.clone(), reading.at, Ok(reading.value))))
    }

    fn failed(&mut self, failure: Failure, now: Nanos, out: &mut Vec<DomainReading>) {
        let (pause, login_pause) = (self.retry.pause(), self.login_retry.pause());
        self.locked_out = failure.kind == FailureKind::Login;
        let (pause, why) = match failure.kind {
            FailureKind::Login => (
                login_pause,
                format!("{}; tried again ever more rarely, and at once with another password", failure.why),
            ),
            FailureKind::Broken => (pause, failure.why),
            // It answers: the next question may have a value.
            FailureKind::Absent | FailureKind::Unusable => (Nanos::ZERO, failure.why),
        };
        self.not_before = now + pause;
        self.health = Health::Failed(why.clone());
        out.extend(self.domains.iter().map(|domain| DomainReading::failed(domain, now, &why)));
    }
}

impl<P: Probe> Meter for WallMeter<P> {
    fn source(&self) -> &str {
        &self.source
    }

    fn domains(&self) -> &[Domain] {
        &self.domains
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        if now.monotonic < self.not_before && !(self.locked_out && self.probe.has_new_secret()) {
            return;
        }
        let answer = match self.probe.ask() {
            Ok(answer) => answer,
            Err(failure) => return self.failed(failure, Stamp::now().monotonic, out),
        };
        let now = Stamp::now();
        self.retry.reset();
        self.login_retry.reset();
        self.locked_out = false;
        match self.reading(&answer, now) {
            Ok(reading) => {
                if let Some(reading) = reading {
                    if self.domains.is_empty() {
                        self.domains.push(self.domain.clone());
                    }
                    out.push(reading);
                }
                self.health = match (self.domains.is_empty(), self.follow.waits()) {
                    (true, true) => Health::Degraded("it has only a counter, and no step of that was seen yet".into()),
                    (true, false) => Health::Degraded("it has no new value yet".into()),
                    (false, _) => Health::Healthy,
                };
            }
            Err(why) => self.failed(Failure::unusable(why), now.monotonic, out),
        }
    }

    fn health(&self) -> Health {
        self.health.clone()
    }

    fn detail(&self) -> String {
        let note = self.power_time.note().or(self.energy_time.note());
        let note = note.map(|note| format!(", {note}")).unwrap_or_default();
        format!("{}{note}", self.probe.describe())
    }

    fn is_reopened(&self) -> bool {
        // It reconnects itself, and its energy goes on.
        false
    }
}

/// An energy counter that does not name its beginning.
const fn total(energy: Microjoules) -> Total {
    Total { energy, since: 0 }
}
