//! What is known of one BMC and what comes next: find this machine's chassis, read it, wait after trouble. Not the thread, not the wire.

use super::chassis;
use super::clock::Clock;
use super::config::{Auth, BmcConfig};
use super::discover::{Cache, Found, Search};
use super::reading::{Taken, Way};
use super::session::Bmc;
use super::{Problem, SOURCE, Trouble, cut};
use crate::meter::bmc::PEER;
use crate::meter::file::read_text;
use crate::model::domain::{Domain, DomainId, DomainReading, Reading, Scope, Zone};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};
use crate::model::units::{Microwatts, Nanos};
use crate::sys::backoff::Backoff;
use crate::sys::secret::Secret;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No machine with one BMC draws more.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);
/// Between two tries, at most.
const LONGEST_PAUSE: Nanos = Nanos(60 * Nanos::SECOND.0);
/// BMCs lock a user after a few wrong passwords: the first pause, and the longest.
const LOCKED: (Nanos, Nanos) = (Nanos(60 * Nanos::SECOND.0), Nanos(1800 * Nanos::SECOND.0));
/// A `Retry-After` is believed up to here.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// After so many rounds without its reading, a chassis is looked for anew: firmware was updated, a supply was taken out.
pub(super) const LOST: u32 = 3;

/// One BMC, from round to round.
pub(super) struct State {
    pub(super) config: BmcConfig,
    pub(super) source: String,
    pub(super) bmc: Bmc,
    pub(super) uuid_file: PathBuf,
    pub(super) domains: Vec<Domain>,
    pub(super) cache: Cache,
    /// Empty: to be found.
    pub(super) chassis: Vec<Followed>,
    /// How it is known that they are this machine's.
    pub(super) matched: String,
    pub(super) clock: Clock,
    /// Pauses after failures of any kind, and the longer ones after a refused login. Both count every failure.
    pub(super) retry: Backoff<Nanos>,
    pub(super) login_retry: Backoff<Nanos>,
    /// The last round failed.
    pub(super) failing: bool,
    pub(super) not_before: Nanos,
    /// The user or password is wrong: another one is tried at once.
    pub(super) locked_out: bool,
    pub(super) health: Health,
}

/// A chassis that is read.
pub(super) struct Followed {
    pub(super) domain: DomainId,
    pub(super) way: Way,
    pub(super) last: Option<Last>,
    /// The BMC's times of this sensor are of no use.
    pub(super) timeless: bool,
    /// Rounds without a reading.
    pub(super) misses: u32,
    pub(super) refresh: Nanos,
}

#[derive(Clone, Copy)]
pub(super) struct Last {
    pub(super) reading: Reading,
    /// When the BMC says it was read, where that can be.
    pub(super) time: Option<i128>,
    pub(super) at: Nanos,
    /// When it was last new.
    pub(super) new: Nanos,
}

impl State {
    pub(super) fn new(config: &BmcConfig, bmc: Bmc, uuid_file: &Path) -> Self {
        Self {
            source: config.source(),
            config: config.clone(),
            bmc,
            uuid_file: uuid_file.to_owned(),
            domains: Vec::new(),
            cache: Cache::new(),
            chassis: Vec::new(),
            matched: String::new(),
            clock: Clock::default(),
            retry: Backoff::new(config.period.0, LONGEST_PAUSE),
            login_retry: Backoff::new(LOCKED.0, LOCKED.1),
            failing: false,
            not_before: Nanos::ZERO,
            locked_out: false,
            health: Health::starting(),
        }
    }

    pub(super) fn is_due(&mut self, now: Nanos) -> bool {
        if self.failing
            && let Ok(secret) =
                Secret::read(PEER, self.config.password_file.as_deref(), self.config.credential.as_deref())
            && self.bmc.take(secret)
            && self.locked_out
        {
            return true;
        }
        now >= self.not_before
    }

    /// One round: finds what is to be read where that is not known, and reads it.
    pub(super) async fn round(&mut self, out: &mut Vec<DomainReading>) -> Result<(), Problem> {
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
                    let domain = chassis.domain.clone();
                    out.push(DomainReading { domain, at, reading: Err(problem.why.clone()) });
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
        let uuid = read_text(&self.uuid_file, 64).ok().and_then(|text| chassis::uuid(&text));
        let period = self.config.period.0;
        let mut search =
            Search { bmc: &mut self.bmc, cache: &mut self.cache, chassis: &self.config.chassis, uuid, period };
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

    /// The id of a chassis' domain, which may be new.
    fn domain(&mut self, chassis: &str, way: &Way, first: &Taken) -> DomainId {
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':') { c } else { '_' };
        let chassis: String = chassis.chars().take(64).map(safe).collect();
        let bmc = self.config.name.as_ref().unwrap_or(&self.bmc.client().endpoint().host);
        let id = DomainId::from(format!("{SOURCE}/{bmc}/{chassis}/platform"));
        if self.domains.iter().any(|domain| domain.id == id) {
            return id;
        }
        let mut domain = Domain::measured(id.clone(), &self.source, Zone::Platform, Scope::Machine, cut(&way.path()));
        domain.max_power = MAX_POWER;
        domain.continuous = matches!(first.reading, Reading::Counter { .. });
        domain.accuracy_ppm = first.accuracy_ppm;
        domain.refresh = Some(first.refresh.unwrap_or_default().max(self.config.period.0));
        domain.platform = Some(PlatformKind::Redfish);
        self.domains.push(domain);
        id
    }

    /// Takes up a reading: passes on what is new.
    fn took(&mut self, index: usize, taken: Taken, out: &mut Vec<DomainReading>, wrong: &mut Vec<String>) {
        self.clock.saw(taken.date, taken.answered);
        let Some(chassis) = self.chassis.get_mut(index) else { return };
        chassis.misses = 0;
        let now = taken.answered;
        // A time that the BMC's own clock contradicts is none.
        let read = taken.time.and_then(|time| self.clock.at(time, now)).filter(|_| !chassis.timeless);
        let mut at = read.unwrap_or(now);
        if let Some(last) = chassis.last {
            let counter = matches!(taken.reading, Reading::Counter { .. });
            let same_value = last.reading == taken.reading;
            let same_time = last.time.is_some() && last.time == taken.time;
            chassis.timeless |= same_time && !same_value;
            // A counter that stands still has not been read anew: this machine draws something.
            if same_value && (counter || same_time) {
                let limit = Nanos((chassis.refresh.0 * 6).max(60 * Nanos::SECOND.0));
                if now - last.new > limit {
                    let what = chassis.way.words();
                    wrong.push(format!("{what}: the BMC has not read it anew for more than {:.0} s", limit.seconds()));
                }
                return;
            }
            // Never before the one before: offsets of clocks are known to a second.
            at = at.max(last.at + Nanos(1_000_000));
        }
        chassis.last = Some(Last {
            reading: taken.reading,
            time: read.and(taken.time).filter(|_| !chassis.timeless),
            at,
            new: now,
        });
        out.push(DomainReading { domain: chassis.domain.clone(), at, reading: Ok(taken.reading) });
    }

    /// Takes note of a round that went well.
    pub(super) fn succeeded(&mut self) {
        self.failing = false;
        self.retry.reset();
        self.login_retry.reset();
    }

    /// Takes note of trouble with the BMC as a whole: no domain has a reading, and the next try waits.
    pub(super) fn failed(&mut self, problem: &Problem, out: &mut Vec<DomainReading>) {
        let now = Stamp::now().monotonic;
        self.failing = true;
        self.locked_out = problem.trouble == Trouble::Login;
        let (mut pause, after_login) = (self.retry.pause(), self.login_retry.pause());
        let why = match problem.trouble {
            Trouble::Login => {
                pause = after_login;
                format!(
                    "{}; tried again ever more rarely, as BMCs lock users, and at once with another password",
                    problem.why
                )
            }
            _ => problem.why.clone(),
        };
        if let Trouble::Busy(Some(after)) = problem.trouble {
            pause = pause.max(Nanos::from(after.min(LONGEST_RETRY_AFTER)));
        }
        self.not_before = now + pause;
        for Domain { id, .. } in &self.domains {
            if !out.iter().any(|one| one.domain == *id) {
                out.push(DomainReading { domain: id.clone(), at: now, reading: Err(why.clone()) });
            }
        }
        let why = format!("{}: {why}", self.bmc.client().endpoint().authority);
        self.health = match problem.trouble {
            Trouble::Busy(_) => Health::Degraded(why),
            Trouble::Slow if self.chassis.is_empty() && !self.cache.is_empty() => {
                Health::Degraded(format!("{why}: still looking for this machine's chassis"))
            }
            _ => Health::Failed(why),
        };
    }

    /// Which BMC, how it is trusted, what is read of which chassis.
    pub(super) fn detail(&self) -> String {
        let client = self.bmc.client();
        let auth = match self.config.auth {
            Auth::Session => "session",
            Auth::Basic => "Basic",
        };
        let scheme = if client.endpoint().https { "https" } else { "http" };
        let mut text = format!("{scheme}://{}, {}, {auth}", client.endpoint().authority, client.trust());
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
