//! Meters between the machine and the wall (smart plugs, PDUs, UPSs), and others that something outside of this machine
//! reads: `[[meter.http]]` and others. Each entry is one [`Polled`] meter: a [`Probe`] asks, [`OwnTime`] says of when a
//! value is, [`follow`] makes energy of powers and counters. With `measures = "this machine"` it is a platform meter,
//! else it is compared with the authority only.

pub mod follow;
pub mod http;
mod net;
pub mod nut;
mod own_time;
pub mod prometheus;
mod quantity;

pub use net::{Auth, Tls};
pub use quantity::{EnergyUnit, PowerUnit};

use super::Meter;
use super::polled::{Opener, Poll, Polled};
use crate::model::domain::{Domain, DomainReading, Quality, Scope, Zone};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};
use crate::model::units::{Microjoules, Microwatts, Nanos};
use crate::model::values::Span;
use crate::sys::backoff::Backoff;
use follow::{At, Follow, Sample, Total};
use own_time::{Moment, OwnTime};
use serde::Deserialize;
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
/// Most entries of one section.
const MOST: usize = 16;

/// What a meter measures: `measures` of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Measures {
    /// This machine, or one of its feeds.
    #[serde(rename = "this machine")]
    ThisMachine,
}

/// Keys that every entry has.
#[derive(Clone, Copy, Debug)]
pub struct Common<'a> {
    /// The section: `http`.
    section: &'static str,
    /// The meter's name.
    name: &'a str,
    measures: Option<Measures>,
    /// The part of what it measures that is this machine's.
    share: f64,
    /// What its values are multiplied by.
    scale: f64,
    period: Nanos,
    timeout: Nanos,
}

/// Defines the entry of a section: its own keys, and those of every entry.
macro_rules! entry {
    ($section:literal, $(#[$doc:meta])* $name:ident { $($(#[$key_doc:meta])* $key:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            /// Its name in names of sources and domains.
            pub name: String,
            /// What it measures; `None`: it is only compared.
            pub measures: Option<$crate::meter::wall::Measures>,
            /// The part of what it measures that is this machine's.
            pub share: f64,
            /// What its values are multiplied by.
            pub scale: f64,
            /// Time between two readings.
            pub period: $crate::model::values::Span,
            /// Longest time for each step of a request.
            pub timeout: $crate::model::values::Span,
            $($(#[$key_doc])* pub $key: $type,)*
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    name: String::new(),
                    measures: None,
                    share: 1.0,
                    scale: 1.0,
                    period: $crate::model::values::Span(Nanos(5 * Nanos::SECOND.0)),
                    timeout: $crate::model::values::Span(Nanos(4 * Nanos::SECOND.0)),
                    $($key: $default,)*
                }
            }
        }

        impl $name {
            fn common(&self) -> $crate::meter::wall::Common<'_> {
                $crate::meter::wall::Common::new($section, &self.name, self.measures, self.share, self.scale, self.period, self.timeout)
            }
        }
    };
}
use entry;

/// Where a wrong value is reported: the key of the entry, and the rule.
type Say<'a> = dyn FnMut(&str, &str) + 'a;

impl<'a> Common<'a> {
    const fn new(
        section: &'static str,
        name: &'a str,
        measures: Option<Measures>,
        share: f64,
        scale: f64,
        period: Span,
        timeout: Span,
    ) -> Self {
        Self { section, name, measures, share, scale, period: period.0, timeout: timeout.0 }
    }

    fn wrong(&self, say: &mut Say<'_>) {
        if self.name.is_empty() {
            say("name", "is missing: a word for this meter, such as \"plug\"");
        } else if !is_word(self.name) {
            say("name", "1 to 64 letters, digits, '-', '_' and '.'");
        }
        if !(self.share > 0.0 && self.share <= 1.0) {
            say("share", "above 0, at most 1");
        }
        if !(self.scale >= 1e-6 && self.scale <= 1e6) {
            say("scale", "0.000001 to 1000000");
        }
        let seconds = |from: u64, to: u64| Nanos(from * Nanos::SECOND.0)..=Nanos(to * Nanos::SECOND.0);
        if !seconds(1, 60).contains(&self.period) {
            say("period", "1s to 60s");
        }
        if !seconds(1, 8).contains(&self.timeout) {
            say("timeout", "1s to 8s");
        }
    }

    fn source(&self) -> String {
        format!("{}:{}", self.section, self.name)
    }

    fn kind(&self) -> PlatformKind {
        match self.measures {
            Some(Measures::ThisMachine) => PlatformKind::Wall,
            None => PlatformKind::check(self.name),
        }
    }

    /// What values are multiplied by in all.
    fn factor(&self) -> f64 {
        self.share * self.scale
    }
}

fn is_word(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !text.is_empty() && text.len() <= 64 && text.chars().all(plain)
}

/// Wrong values of the entries of a section: the number of the entry and the key, and the rule.
fn wrong_entries<'a, T: 'a>(
    entries: &'a [T],
    common: impl Fn(&'a T) -> Common<'a>,
    wrong: impl Fn(&T, &mut Say<'_>),
) -> Vec<(String, String)> {
    let mut all = Vec::new();
    if entries.len() > MOST {
        all.push((MOST.to_string(), format!("at most {MOST} meters")));
    }
    for (number, entry) in entries.iter().enumerate() {
        let mut say = |key: &str, rule: &str| all.push((format!("{number}.{key}"), rule.to_owned()));
        common(entry).wrong(&mut say);
        wrong(entry, &mut say);
        let name = common(entry).name;
        if !name.is_empty() && entries[..number].iter().any(|earlier| common(earlier).name == name) {
            say("name", "another meter of this section has this name");
        }
    }
    all
}

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

/// A value with the time that the meter gives for it: ns since 1970 by its clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said<T> {
    value: T,
    time: Option<i128>,
}

/// What a meter said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Answer {
    power: Option<Said<Microwatts>>,
    energy: Option<Said<Total>>,
    /// The meter's clock at the answer, seconds since 1970.
    date: Option<u64>,
}

/// Asks a meter. May block for the time of a round.
trait Probe: Send {
    /// Asks for its values.
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
