//! One BMC over the rounds: finds this machine's chassis, reads them, and sets the pause after a failed round.
//! Neither the thread (`polled`) nor the connection (`session`).

use super::chassis;
use super::clock::Clock;
use super::config::{Auth, BmcConfig};
use super::discover::{Cache, FoundChassis, Search};
use super::reading::{Location, Measurement};
use super::session::Bmc;
use super::{BmcError, ErrorKind, SOURCE, cut};
use crate::meter::bmc::PEER;
use crate::meter::file::read_text;
use crate::model::domain::{Domain, DomainId, DomainReading, Reading, Scope, Zone};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};
use crate::model::units::{Microwatts, Nanos};
use crate::sys::backoff::Backoff;
use crate::sys::secret::Secret;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// No machine with one BMC draws more: 100 kW.
const MAX_POWER: Microwatts = Microwatts(100_000_000_000);
/// Longest pause after failed rounds.
const LONGEST_PAUSE: Nanos = Nanos(60 * Nanos::SECOND.0);
/// First and longest pause after refused logins: BMCs lock a user after a few wrong passwords.
const LOGIN_PAUSES: (Nanos, Nanos) = (Nanos(60 * Nanos::SECOND.0), Nanos(1800 * Nanos::SECOND.0));
/// The longest `Retry-After` that is honoured.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// After this many rounds without its reading a chassis is searched for again: firmware was updated, or a supply was
/// removed.
pub(super) const LOST: u32 = 3;
/// A sensor that has not changed for so many of its refreshes, and for at least [`STUCK_AFTER`], is reported; and for
/// so many of the times that it took before, which may be far longer than what the BMC states.
const STUCK_REFRESHES: u64 = 6;
const STUCK_AFTER: Nanos = Nanos(60 * Nanos::SECOND.0);
const STUCK_PERIODS: u64 = 3;
/// Most messages about what a search left out.
const MOST_SAID: usize = 16;
/// Readings of one sensor are at least this far apart.
const SMALLEST_STEP: Nanos = Nanos(1_000_000);

/// One BMC.
pub(super) struct State {
    pub(super) config: BmcConfig,
    /// Name of the source: `redfish`, or `redfish:NAME`.
    pub(super) source: String,
    pub(super) bmc: Bmc,
    /// The machine's SMBIOS UUID: /sys/class/dmi/id/product_uuid.
    pub(super) uuid_file: PathBuf,
    pub(super) domains: Vec<Domain>,
    /// Resources that an unfinished search has read.
    pub(super) cache: Cache,
    /// The chassis that are read. Empty: they are searched for in the next round.
    pub(super) chassis: Vec<FollowedChassis>,
    /// What a search left out and the log has said.
    pub(super) said: BTreeSet<String>,
    /// Why these chassis are this machine's, for the operator.
    pub(super) matched_by: String,
    pub(super) clock: Clock,
    /// Pauses after failed rounds. Both count every failure: `login_retry` is used after a refused login.
    pub(super) retry: Backoff<Nanos>,
    pub(super) login_retry: Backoff<Nanos>,
    /// The last round failed.
    pub(super) failing: bool,
    /// The next round is not before this, CLOCK_MONOTONIC.
    pub(super) not_before: Nanos,
    /// The BMC refused the user or password. Another password is tried at once.
    pub(super) locked_out: bool,
    pub(super) health: Health,
}

/// A chassis that is read in each round.
pub(super) struct FollowedChassis {
    pub(super) domain: DomainId,
    pub(super) location: Location,
    pub(super) last: Option<LastReading>,
    /// The sensor's time stands still while its value changes, so it is not used.
    pub(super) ignores_sensor_time: bool,
    /// Rounds without a reading, in a row.
    pub(super) rounds_without_reading: u32,
    /// How often the BMC reads the sensor, but not less than the period of the rounds.
    pub(super) refresh: Nanos,
    /// Times between its last changes that were seen, two at most.
    pub(super) changes: [Nanos; 2],
}

/// The last reading of a chassis that was passed on.
#[derive(Clone, Copy)]
pub(super) struct LastReading {
    pub(super) reading: Reading,
    /// The sensor's own time by the BMC's clock, ns since 1970; `None` where it is absent or not plausible.
    pub(super) sensor_time: Option<i128>,
    /// Time of the reading as passed on, CLOCK_MONOTONIC.
    pub(super) at: Nanos,
    /// When the answer with it arrived, CLOCK_MONOTONIC.
    pub(super) changed_at: Nanos,
}

/// What a measurement is, compared with the last one of its chassis.
enum Novelty {
    /// A new reading, with its time on CLOCK_MONOTONIC.
    New(Nanos),
    /// The BMC has not read the sensor since. `Err`: for suspiciously long.
    Repeated(Result<(), String>),
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
            said: BTreeSet::new(),
            matched_by: String::new(),
            clock: Clock::default(),
            retry: Backoff::new(config.period.0, LONGEST_PAUSE),
            login_retry: Backoff::new(LOGIN_PAUSES.0, LOGIN_PAUSES.1),
            failing: false,
            not_before: Nanos::ZERO,
            locked_out: false,
            health: Health::starting(),
        }
    }

    /// Whether the pause after a failure is over at `now`, or a refused password was replaced in the meantime.
    pub(super) fn is_due(&mut self, now: Nanos) -> bool {
        let (file, credential) = (self.config.password_file.as_deref(), self.config.credential.as_deref());
        if self.failing
            && let Ok(secret) = Secret::read(PEER, file, credential)
            && self.bmc.replace_secret(secret)
            && self.locked_out
        {
            return true;
        }
        now >= self.not_before
    }

    /// One round: searches for the chassis where they are not known, else reads each.
    ///
    /// # Errors
    /// The BMC as a whole failed. What one chassis lacks is in its reading and in the health.
    pub(super) async fn round(&mut self, out: &mut Vec<DomainReading>) -> Result<(), BmcError> {
        if self.chassis.is_empty() {
            return self.find(out).await;
        }
        let mut wrong = Vec::new();
        for index in 0..self.chassis.len() {
            let location = self.chassis[index].location.clone();
            match location.read(&mut self.bmc).await {
                Ok(measurement) => self.accept(index, measurement, out, &mut wrong),
                Err(error) if error.is_of_one_resource() => {
                    let chassis = &mut self.chassis[index];
                    chassis.rounds_without_reading += 1;
                    let at = Stamp::now().monotonic;
                    let domain = chassis.domain.clone();
                    out.push(DomainReading::new(domain, at, Err(error.why.clone())));
                    wrong.push(error.why);
                }
                Err(error) => return Err(error),
            }
        }
        let none = !wrong.is_empty() && self.chassis.iter().all(|chassis| chassis.rounds_without_reading > 0);
        self.health = match wrong.into_iter().next() {
            None => Health::Healthy,
            Some(why) if none => Health::Failed(why),
            Some(why) => Health::Degraded(why),
        };
        if self.chassis.iter().any(|chassis| chassis.rounds_without_reading >= LOST) {
            self.chassis.clear();
        }
        Ok(())
    }

    /// Searches for this machine's chassis, and passes on their first readings.
    async fn find(&mut self, out: &mut Vec<DomainReading>) -> Result<(), BmcError> {
        let uuid = read_text(&self.uuid_file, 64).ok().and_then(|text| chassis::uuid(&text));
        let period = self.config.period.0;
        let mut search = Search {
            bmc: &mut self.bmc,
            cache: &mut self.cache,
            chassis: &self.config.chassis,
            uuid,
            period,
            left_out: Vec::new(),
        };
        let result = search.run().await;
        for error in std::mem::take(&mut search.left_out) {
            // Once each, and bounded: a BMC chooses its texts.
            if self.said.len() < MOST_SAID && self.said.insert(error.why.clone()) {
                tracing::warn!("{}: not used while looking for this machine's chassis: {}", self.source, error.why);
            }
        }
        // A BMC that was too slow to finish is asked for the rest in the next round. A wrong answer may be right in
        // the next round, so then everything is read again.
        if result.as_ref().map_or_else(BmcError::is_of_one_resource, |_| true) {
            self.cache.clear();
        }
        let (found, matched_by) = result?;
        self.matched_by = matched_by;
        let mut wrong = Vec::new();
        for FoundChassis { id, location, first } in found {
            let domain = self.domain(&id, &location, &first);
            self.chassis.push(FollowedChassis {
                domain,
                location,
                last: None,
                ignores_sensor_time: false,
                rounds_without_reading: 0,
                refresh: first.refresh.unwrap_or_default().max(period),
                changes: [Nanos::ZERO; 2],
            });
            self.accept(self.chassis.len() - 1, first, out, &mut wrong);
        }
        self.health = Health::Healthy;
        Ok(())
    }

    /// The id of a chassis' domain. Adds the domain where it is new.
    fn domain(&mut self, chassis: &str, location: &Location, first: &Measurement) -> DomainId {
        let safe = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':') { c } else { '_' };
        let chassis: String = chassis.chars().take(64).map(safe).collect();
        let bmc = self.config.name.as_ref().unwrap_or(&self.bmc.client().endpoint().host);
        let id = DomainId::from(format!("{SOURCE}/{bmc}/{chassis}/platform"));
        if self.domains.iter().any(|domain| domain.id == id) {
            return id;
        }
        let path = cut(&location.path());
        let mut domain = Domain::measured(id.clone(), &self.source, Zone::Platform, Scope::Machine, path);
        domain.max_power = MAX_POWER;
        domain.continuous = matches!(first.reading, Reading::Counter { .. });
        domain.accuracy_ppm = first.accuracy_ppm;
        domain.refresh = Some(first.refresh.unwrap_or_default().max(self.config.period.0));
        domain.platform = Some(PlatformKind::Redfish);
        self.domains.push(domain);
        id
    }

    /// Passes on a measurement of the chassis with this index, if it is new.
    fn accept(
        &mut self,
        index: usize,
        measurement: Measurement,
        out: &mut Vec<DomainReading>,
        wrong: &mut Vec<String>,
    ) {
        self.clock.observe(measurement.date, measurement.received);
        let Some(chassis) = self.chassis.get_mut(index) else { return };
        chassis.rounds_without_reading = 0;
        match chassis.compare(&measurement, self.clock) {
            Novelty::New(at) => out.push(DomainReading::new(chassis.domain.clone(), at, Ok(measurement.reading))),
            Novelty::Repeated(Ok(())) => {}
            Novelty::Repeated(Err(why)) => wrong.push(why),
        }
    }

    /// After a round that went well.
    pub(super) fn round_succeeded(&mut self) {
        self.failing = false;
        self.retry.reset();
        self.login_retry.reset();
    }

    /// After a round in which the BMC as a whole failed: its domains have no reading, and the next round waits.
    pub(super) fn round_failed(&mut self, error: &BmcError, out: &mut Vec<DomainReading>) {
        let now = Stamp::now().monotonic;
        self.failing = true;
        self.locked_out = error.kind == ErrorKind::Login;
        let (mut pause, pause_after_login) = (self.retry.pause(), self.login_retry.pause());
        let why = match error.kind {
            ErrorKind::Login => {
                pause = pause_after_login;
                format!(
                    "{}; tried again ever more rarely, as BMCs lock users, and at once with another password",
                    error.why
                )
            }
            _ => error.why.clone(),
        };
        if let ErrorKind::Busy(Some(after)) = error.kind {
            pause = pause.max(Nanos::from(after.min(LONGEST_RETRY_AFTER)));
        }
        self.not_before = now + pause;
        for Domain { id, .. } in &self.domains {
            if !out.iter().any(|one| one.domain == *id) {
                out.push(DomainReading::new(id.clone(), now, Err(why.clone())));
            }
        }
        let why = format!("{}: {why}", self.bmc.client().endpoint().authority);
        self.health = match error.kind {
            ErrorKind::Busy(_) => Health::Degraded(why),
            ErrorKind::Slow if self.chassis.is_empty() && !self.cache.is_empty() => {
                Health::Degraded(format!("{why}: still looking for this machine's chassis"))
            }
            _ => Health::Failed(why),
        };
    }

    /// One line for the operator: the BMC's address, how it is verified, and what is read of which chassis.
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
            text.push_str(&format!(", {kind} from {}", chassis.location.describe()));
        }
        if !self.chassis.is_empty() {
            text.push_str(&format!(" ({})", self.matched_by));
        }
        text
    }
}

impl FollowedChassis {
    /// Compares a measurement with the last one, and keeps it where it is new.
    fn compare(&mut self, measurement: &Measurement, clock: Clock) -> Novelty {
        let received = measurement.received;
        // The sensor's time is used only where the BMC's clock confirms it.
        let read_at = measurement.sensor_time.and_then(|time| clock.monotonic(time, received));
        let read_at = read_at.filter(|_| !self.ignores_sensor_time);
        let mut at = read_at.unwrap_or(received);
        if let Some(last) = self.last {
            let is_counter = matches!(measurement.reading, Reading::Counter { .. });
            let same_value = last.reading == measurement.reading;
            let same_time = last.sensor_time.is_some() && last.sensor_time == measurement.sensor_time;
            self.ignores_sensor_time |= same_time && !same_value;
            // A counter with the same value was not read again, as a running machine draws something.
            if same_value && (is_counter || same_time) {
                return Novelty::Repeated(self.is_stuck(received - last.changed_at));
            }
            self.changes = [self.changes[1], received - last.changed_at];
            // Never before the last reading: the offset between the clocks is known to a second only.
            at = at.max(last.at + SMALLEST_STEP);
        }
        self.last = Some(LastReading {
            reading: measurement.reading,
            sensor_time: read_at.and(measurement.sensor_time).filter(|_| !self.ignores_sensor_time),
            at,
            changed_at: received,
        });
        Novelty::New(at)
    }

    /// `Err` with a line for the operator, where a sensor that has not changed for `unchanged` is stuck.
    fn is_stuck(&self, unchanged: Nanos) -> Result<(), String> {
        // The shorter of the last two: one long silence is no period.
        let known = self.changes.iter().filter(|time| **time > Nanos::ZERO);
        let period = known.min().copied().unwrap_or_default();
        let limit =
            Nanos(self.refresh.0 * STUCK_REFRESHES).max(STUCK_AFTER).max(Nanos(period.0.saturating_mul(STUCK_PERIODS)));
        if unchanged <= limit {
            return Ok(());
        }
        let what = self.location.describe();
        Err(format!("{what}: the BMC has not updated it for more than {:.0} s", limit.seconds()))
    }
}
