//! BMCs by Redfish: the power or energy of the whole machine, over the network, on a thread of its own. Not IPMI; decides no authority.

mod chassis;
mod client;
mod clock;
mod config;
mod discover;
mod doc;
mod reading;
mod secret;
mod session;
mod tls;

pub use config::{Auth, BmcConfig, Pin, RedfishConfig, Tls};

use super::polled::{Opener, Poll, Polled};
use super::{Domain, DomainReading, Meter, Reading, Roots, Scope, Zone};
use crate::source::{Health, Stamp};
use crate::units::{Microwatts, Nanos};
use client::Client;
use clock::Clock;
use discover::{Cache, Found, Search};
use reading::{Taken, Way};
use secret::Secret;
use session::Bmc;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The name of this source; with a BMC's name, `redfish:NAME`.
pub const SOURCE: &str = "redfish";

/// No machine with one BMC draws more.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);
/// One round of requests takes no longer: a slow BMC is gone on with in the next one.
const ROUND: Duration = Duration::from_secs(9);
/// A login that is under way when jouled ends may take so long: broken off, its session would stay with the BMC.
const LAST_LOGIN: Duration = Duration::from_millis(400);
/// The logout may take so long.
const FAREWELL: Duration = Duration::from_millis(500);
/// Between two tries, at most.
const LONGEST_PAUSE: Nanos = Nanos(60 * Nanos::SECOND.0);
/// BMCs lock a user after a few wrong passwords: the first pause, and the longest.
const LOCKED: (Nanos, Nanos) = (Nanos(60 * Nanos::SECOND.0), Nanos(1800 * Nanos::SECOND.0));
/// A `Retry-After` is believed up to here.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// After so many rounds without its reading, a chassis is looked for anew: firmware was updated, a supply was taken out.
const LOST: u32 = 3;
/// Most of a BMC's text in one place.
const CUT: usize = 120;

/// What kind of trouble a BMC makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// No connection, or one that broke.
    Broken,
    /// No answer in time.
    Slow,
    /// It asks for patience.
    Busy(Option<Duration>),
    /// It does not let jouled in.
    Login,
    /// It has no reading there (now).
    Absent,
    /// It says what cannot be used.
    Odd,
}

/// Trouble, in words for an operator. A BMC's text is in them escaped and cut only.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    trouble: Trouble,
    why: String,
}

impl Problem {
    const fn broken(why: String) -> Self {
        Self { trouble: Trouble::Broken, why }
    }
    const fn slow(why: String) -> Self {
        Self { trouble: Trouble::Slow, why }
    }
    const fn busy(why: String, after: Option<Duration>) -> Self {
        Self { trouble: Trouble::Busy(after), why }
    }
    const fn login(why: String) -> Self {
        Self { trouble: Trouble::Login, why }
    }
    const fn absent(why: String) -> Self {
        Self { trouble: Trouble::Absent, why }
    }
    const fn odd(why: String) -> Self {
        Self { trouble: Trouble::Odd, why }
    }

    /// Of a login: without an answer, there may be a session that nobody knows. They are few, so the next try waits.
    fn lost_login(self) -> Self {
        match self.trouble {
            Trouble::Slow => Self::busy(self.why, Some(Duration::from_secs(60))),
            _ => self,
        }
    }
}

/// A BMC's text as it may be shown: escaped, and not all of it.
fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(CUT).collect::<String>().escape_debug().to_string();
    if text.chars().nth(CUT).is_some() || shown.len() > 2 * CUT {
        shown = shown.chars().take(2 * CUT).collect();
        shown.push('…');
    }
    shown
}

/// The meter of one BMC, on a thread of its own.
///
/// # Errors
/// The system gives no thread.
pub fn start(config: &BmcConfig, roots: &Roots) -> Result<Polled, String> {
    let poll = Poll { source: config.source(), absent: String::new(), period: config.every(), by_name: true };
    let (config, stop) = (config.clone(), CancellationToken::new());
    let (uuid, stopped) = (roots.sysfs.join("class/dmi/id/product_uuid"), stop.clone());
    let opener: Opener = Box::new(move || {
        let meter = Redfish::open(&config, &uuid, stopped.clone())?;
        Ok(Some(Box::new(meter) as Box<dyn Meter>))
    });
    Polled::start_until(poll, opener, stop)
}

/// One BMC.
struct Redfish {
    runtime: Option<Runtime>,
    state: State,
    stop: CancellationToken,
    logging_in: std::sync::Arc<AtomicBool>,
}

struct State {
    config: BmcConfig,
    source: String,
    bmc: Bmc,
    uuid_file: PathBuf,
    domains: Vec<Domain>,
    cache: Cache,
    /// Empty: to be found.
    chassis: Vec<Followed>,
    /// How it is known that they are this machine's.
    matched: String,
    clock: Clock,
    failures: u32,
    not_before: Nanos,
    /// The user or password is wrong: another one is tried at once.
    locked_out: bool,
    health: Health,
}

/// A chassis that is read.
struct Followed {
    domain: usize,
    way: Way,
    last: Option<Last>,
    /// The BMC's times of this sensor are of no use.
    timeless: bool,
    /// Rounds without a reading.
    misses: u32,
    refresh: Nanos,
}

#[derive(Clone, Copy)]
struct Last {
    reading: Reading,
    time: Option<i128>,
    at: Nanos,
    /// When it was last new.
    new: Nanos,
}

impl Redfish {
    /// Asks nobody yet.
    fn open(config: &BmcConfig, uuid_file: &Path, stop: CancellationToken) -> Result<Self, String> {
        let client = Client::open(config)?;
        let bmc = Bmc::new(client, config, Secret::read(config)?);
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| format!("no runtime: {error}"))?;
        let logging_in = bmc.logging_in();
        let state = State {
            source: config.source(),
            config: config.clone(),
            bmc,
            uuid_file: uuid_file.to_owned(),
            domains: Vec::new(),
            cache: Cache::new(),
            chassis: Vec::new(),
            matched: String::new(),
            clock: Clock::default(),
            failures: 0,
            not_before: Nanos::ZERO,
            locked_out: false,
            health: Health::Degraded("not yet read".into()),
        };
        Ok(Self { runtime: Some(runtime), state, stop, logging_in })
    }
}

impl Meter for Redfish {
    fn source(&self) -> &str {
        &self.state.source
    }

    fn domains(&self) -> &[Domain] {
        &self.state.domains
    }

    fn read(&mut self, now: Stamp, out: &mut Vec<DomainReading>) {
        let Some(runtime) = &self.runtime else { return };
        if !self.state.is_due(now.monotonic) {
            return;
        }
        let (stop, logging_in) = (self.stop.clone(), self.logging_in.clone());
        let late = async {
            sleep(ROUND).await;
            finish(&logging_in, ROUND).await;
        };
        let stopped = async {
            stop.cancelled().await;
            finish(&logging_in, LAST_LOGIN).await;
        };
        let mut readings = Vec::new();
        let result = runtime.block_on(async {
            tokio::select! {
                result = self.state.round(&mut readings) => Some(result),
                () = late => Some(Err(Problem::slow(format!("its answers took more than {} s in all", ROUND.as_secs())))),
                () = stopped => None,
            }
        });
        out.append(&mut readings);
        match result {
            Some(Ok(())) => self.state.failures = 0,
            Some(Err(problem)) => {
                if problem.trouble == Trouble::Slow {
                    self.state.bmc.broken_off();
                }
                self.state.failed(&problem, out);
            }
            None => self.state.bmc.broken_off(),
        }
    }

    fn health(&self) -> Health {
        self.state.health.clone()
    }

    fn detail(&self) -> String {
        self.state.detail()
    }

    fn opened_anew(&self) -> bool {
        // It connects anew by itself, and has a session to keep or to give back.
        false
    }
}

/// Waits until no login is under way, `most` at most.
async fn finish(logging_in: &AtomicBool, most: Duration) {
    let wait = async {
        while logging_in.load(Ordering::Acquire) {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let _ = timeout(most, wait).await;
}

impl Drop for Redfish {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            let _ = runtime.block_on(async { timeout(FAREWELL, self.state.bmc.logout()).await });
            // A name that is being resolved must not keep anybody.
            runtime.shutdown_background();
        }
    }
}

impl State {
    fn is_due(&mut self, now: Nanos) -> bool {
        if self.failures > 0
            && let Ok(secret) = Secret::read(&self.config)
            && self.bmc.take(secret)
            && self.locked_out
        {
            return true;
        }
        now >= self.not_before
    }

    /// One round: finds what is to be read where that is not known, and reads it.
    async fn round(&mut self, out: &mut Vec<DomainReading>) -> Result<(), Problem> {
        if self.chassis.is_empty() {
            return self.find(out).await;
        }
        let mut wrong = Vec::new();
        for index in 0..self.chassis.len() {
            let way = self.chassis[index].way.clone();
            match way.take(&mut self.bmc).await {
                Ok(taken) => self.took(index, taken, out, &mut wrong),
                Err(problem) if matches!(problem.trouble, Trouble::Absent | Trouble::Odd) => {
                    let chassis = &mut self.chassis[index];
                    chassis.misses += 1;
                    let at = Stamp::now().monotonic;
                    out.push(DomainReading { domain: chassis.domain, at, reading: Err(problem.why.clone()) });
                    wrong.push(problem.why);
                }
                Err(problem) => return Err(problem),
            }
        }
        let none = !wrong.is_empty() && self.chassis.iter().all(|chassis| chassis.misses > 0);
        self.health = match wrong.into_iter().next() {
            None => Health::Healthy,
            Some(why) if none => Health::Failed(why),
            Some(why) => Health::Degraded(why),
        };
        if self.chassis.iter().any(|chassis| chassis.misses >= LOST) {
            self.chassis.clear();
        }
        Ok(())
    }

    async fn find(&mut self, out: &mut Vec<DomainReading>) -> Result<(), Problem> {
        let uuid = super::file::read_text(&self.uuid_file, 64).ok().and_then(|text| chassis::uuid(&text));
        let period = self.config.period.0;
        let mut search = Search { bmc: &mut self.bmc, cache: &mut self.cache, chassis: &self.config.chassis, uuid, period };
        let result = search.run().await;
        // What was read stays where the BMC was too slow to finish; where it said something wrong, it may say another thing next.
        if result.as_ref().map_or_else(|problem| matches!(problem.trouble, Trouble::Absent | Trouble::Odd), |_| true) {
            self.cache.clear();
        }
        let (found, matched) = result?;
        self.matched = matched;
        let mut wrong = Vec::new();
        for Found { id, way, first } in found {
            let domain = self.domain(&id, &way, &first);
            let refresh = first.refresh.unwrap_or_default().max(period);
            self.chassis.push(Followed { domain, way, last: None, timeless: false, misses: 0, refresh });
            self.took(self.chassis.len() - 1, first, out, &mut wrong);
        }
        self.health = Health::Healthy;
        Ok(())
    }

    /// The index of a chassis' domain, which may be new.
    fn domain(&mut self, chassis: &str, way: &Way, first: &Taken) -> usize {
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':') { c } else { '_' };
        let chassis: String = chassis.chars().take(64).map(safe).collect();
        let bmc = self.config.name.as_ref().unwrap_or(&self.bmc.client().place().host);
        let id = format!("{SOURCE}/{bmc}/{chassis}/platform");
        if let Some(known) = self.domains.iter().position(|domain| domain.id == id) {
            return known;
        }
        let mut domain = Domain::measured(id, &self.source, Zone::Platform, Scope::Machine, cut(&way.path()));
        domain.max_power = MAX_POWER;
        domain.continuous = matches!(first.reading, Reading::Counter { .. });
        domain.accuracy_ppm = first.accuracy_ppm;
        domain.refresh = Some(first.refresh.unwrap_or_default().max(self.config.period.0));
        self.domains.push(domain);
        self.domains.len() - 1
    }

    /// Takes up a reading: passes on what is new.
    fn took(&mut self, index: usize, taken: Taken, out: &mut Vec<DomainReading>, wrong: &mut Vec<String>) {
        self.clock.saw(taken.date, taken.answered);
        let Some(chassis) = self.chassis.get_mut(index) else { return };
        chassis.misses = 0;
        let now = taken.answered;
        let mut at = now;
        if let Some(last) = chassis.last {
            let counter = matches!(taken.reading, Reading::Counter { .. });
            let same_value = last.reading == taken.reading;
            let same_time = taken.time.is_some() && last.time == taken.time;
            if same_time && !same_value {
                chassis.timeless = true;
            }
            // A counter that stands still has not been read anew: this machine draws something.
            if same_value && (counter || (same_time && !chassis.timeless)) {
                let limit = Nanos((chassis.refresh.0 * 6).max(60 * Nanos::SECOND.0));
                if now - last.new > limit {
                    let what = chassis.way.words();
                    wrong.push(format!("{what}: the BMC has not read it anew for more than {:.0} s", limit.seconds()));
                }
                return;
            }
        }
        if let Some(time) = taken.time.filter(|_| !chassis.timeless) {
            at = self.clock.at(time, now).unwrap_or(now);
        }
        if let Some(last) = chassis.last {
            // Never before the one before: offsets of clocks are known to a second.
            at = at.max(last.at + Nanos(1_000_000));
        }
        chassis.last = Some(Last { reading: taken.reading, time: taken.time, at, new: now });
        out.push(DomainReading { domain: chassis.domain, at, reading: Ok(taken.reading) });
    }

    /// Takes note of trouble with the BMC as a whole: no domain has a reading, and the next try waits.
    fn failed(&mut self, problem: &Problem, out: &mut Vec<DomainReading>) {
        let now = Stamp::now().monotonic;
        self.failures = self.failures.saturating_add(1);
        self.locked_out = problem.trouble == Trouble::Login;
        let doubled =
            |first: Nanos, most: Nanos| Nanos(first.0.saturating_mul(1 << (self.failures - 1).min(16))).min(most.max(first));
        let period = self.config.period.0;
        let mut pause = doubled(period, LONGEST_PAUSE);
        let why = match problem.trouble {
            Trouble::Login => {
                pause = doubled(LOCKED.0, LOCKED.1);
                format!("{}; tried again ever more rarely, as BMCs lock users, and at once with another password", problem.why)
            }
            _ => problem.why.clone(),
        };
        if let Trouble::Busy(Some(after)) = problem.trouble {
            pause = pause.max(Nanos::from(after.min(LONGEST_RETRY_AFTER)));
        }
        self.not_before = now + pause;
        for (domain, _) in self.domains.iter().enumerate() {
            if !out.iter().any(|one| one.domain == domain) {
                out.push(DomainReading { domain, at: now, reading: Err(why.clone()) });
            }
        }
        let why = format!("{}: {why}", self.bmc.client().place().authority);
        self.health = match problem.trouble {
            Trouble::Busy(_) => Health::Degraded(why),
            Trouble::Slow if self.chassis.is_empty() && !self.cache.is_empty() => {
                Health::Degraded(format!("{why}: still looking for this machine's chassis"))
            }
            _ => Health::Failed(why),
        };
    }

    /// Which BMC, how it is trusted, what is read of which chassis.
    fn detail(&self) -> String {
        let client = self.bmc.client();
        let auth = match self.config.auth {
            Auth::Session => "session",
            Auth::Basic => "Basic",
        };
        let scheme = if client.place().https { "https" } else { "http" };
        let mut text = format!("{scheme}://{}, {}, {auth}", client.place().authority, client.trust());
        for chassis in &self.chassis {
            let kind = match chassis.last.map(|last| last.reading) {
                Some(Reading::Counter { .. }) => "energy",
                _ => "power",
            };
            text.push_str(&format!(", {kind} from {}", chassis.way.words()));
        }
        if !self.chassis.is_empty() {
            text.push_str(&format!(" ({})", self.matched));
        }
        text
    }
}

#[cfg(test)]
mod tests;
