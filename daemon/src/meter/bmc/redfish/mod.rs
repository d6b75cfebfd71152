//! BMCs by Redfish: the power or energy of the whole machine, read over the network on a thread of its own
//! (`[[meter.redfish.bmc]]`). Not IPMI, which is `ipmi`.

mod chassis;
mod clock;
mod config;
mod discover;
mod doc;
mod linked;
mod reading;
mod session;
mod state;

pub use config::{Auth, BmcConfig, RedfishConfig, Tls};

use super::PEER;
use crate::meter::open::{Opening, Section};
use crate::meter::polled::{Opener, Poll, Polled};
use crate::meter::{Meter, Roots};
use crate::model::domain::{Domain, DomainReading, Reading};
use crate::model::platform::PlatformKind;
use crate::model::source::{Health, Stamp};
use crate::sys::https_client;
use crate::sys::safe_text::excerpt;
use crate::sys::secret::{Secret, warn_of_open_secret};
use session::Bmc;
use state::State;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The name of this source; `redfish:NAME` where the BMC has a name.
pub const SOURCE: &str = "redfish";

/// Longest time of one round of requests. A search that takes longer goes on in the next round.
const ROUND: Duration = Duration::from_secs(9);
/// Longest time of a stop: for a login in progress, whose session would otherwise stay with the BMC, and for the
/// logout.
const STOP_TIME: Duration = Duration::from_millis(900);
/// Longest excerpt of a BMC's text, in characters.
const EXCERPT: usize = 120;

/// What kind of failure a request or a reading met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorKind {
    /// No connection, or one that broke.
    Broken,
    /// No response in time.
    Slow,
    /// The BMC is busy, and may say for how long (`Retry-After`).
    Busy(Option<Duration>),
    /// The BMC refused the login.
    Login,
    /// The resource has no reading, or none now.
    Absent,
    /// There is no such resource: status 404 or 410.
    Missing,
    /// The BMC refuses the resource with this status.
    Refused(u16),
    /// The BMC sent something that cannot be used.
    Unusable,
}

/// A failure, with a line for the operator in which a BMC's text is escaped and cut.
#[derive(Clone, Debug, PartialEq, Eq)]
struct BmcError {
    kind: ErrorKind,
    why: String,
}

impl BmcError {
    const fn broken(why: String) -> Self {
        Self { kind: ErrorKind::Broken, why }
    }
    const fn slow(why: String) -> Self {
        Self { kind: ErrorKind::Slow, why }
    }
    const fn busy(why: String, after: Option<Duration>) -> Self {
        Self { kind: ErrorKind::Busy(after), why }
    }
    const fn login(why: String) -> Self {
        Self { kind: ErrorKind::Login, why }
    }
    const fn absent(why: String) -> Self {
        Self { kind: ErrorKind::Absent, why }
    }
    const fn missing(why: String) -> Self {
        Self { kind: ErrorKind::Missing, why }
    }
    const fn refused(code: u16, why: String) -> Self {
        Self { kind: ErrorKind::Refused(code), why }
    }
    const fn unusable(why: String) -> Self {
        Self { kind: ErrorKind::Unusable, why }
    }

    /// Whether only one resource is affected; else the BMC as a whole is.
    const fn is_of_one_resource(&self) -> bool {
        matches!(self.kind, ErrorKind::Absent | ErrorKind::Missing | ErrorKind::Refused(_) | ErrorKind::Unusable)
    }

    /// The same of a login: without a response, the BMC may have made a session that cannot be used. Sessions are
    /// few, so the next login waits.
    fn of_login(self) -> Self {
        match self.kind {
            ErrorKind::Slow => Self::busy(self.why, Some(Duration::from_secs(60))),
            _ => self,
        }
    }
}

/// Reads a resource with this body as every kind of resource that a BMC is asked for: what there is for any body that a
/// BMC may send. The meter itself knows which kind it asked for.
pub fn read_as_every_kind(body: &[u8]) -> Vec<Result<Reading, String>> {
    let doc = match doc::Doc::parse("/redfish/v1/Any", body) {
        Ok(doc) => doc,
        Err(error) => return vec![Err(error.why)],
    };
    let mut left_out = Vec::new();
    let systems: Vec<_> = chassis::System::read(&doc, &mut left_out).into_iter().collect();
    let all = [chassis::Chassis::read(&doc, &mut left_out)];
    let system = chassis::system(&systems, None).ok().flatten().map(|(system, _)| system);
    let chosen = chassis::outermost(&all, system).map(|_| Reading::Standby);
    let readings = reading::Location::every_kind().into_iter().map(|location| {
        let measurement = location.parse(&doc).map_err(|error| error.why)?;
        Ok(measurement.reading)
    });
    let left_out = left_out.into_iter().map(|error| Err(error.why));
    readings.chain([chosen]).chain(left_out).collect()
}

impl From<https_client::Error> for BmcError {
    fn from(error: https_client::Error) -> Self {
        match error.kind {
            https_client::ErrorKind::Broken => Self::broken(error.why),
            https_client::ErrorKind::Slow => Self::slow(error.why),
            https_client::ErrorKind::Unusable => Self::unusable(error.why),
        }
    }
}

/// A BMC's text for a message: escaped and cut.
fn cut(text: &str) -> String {
    excerpt(text, EXCERPT)
}

impl Section for RedfishConfig {
    fn platform_kinds() -> Vec<PlatformKind> {
        vec![PlatformKind::Redfish]
    }

    fn check(&self) -> Vec<(String, String)> {
        self.wrong().into_iter().map(|(key, rule)| (key, rule.to_owned())).collect()
    }

    fn open(&self, opening: &mut Opening<'_>) {
        if self.bmc.is_empty() {
            opening.unused(SOURCE, "not wanted: no [[meter.redfish.bmc]] is configured");
        }
        self.bmc.iter().for_each(|bmc| opening.add(start(bmc, opening.roots)));
    }
}

/// The meter of one BMC, on a thread of its own.
pub fn start(config: &BmcConfig, roots: &Roots) -> Polled {
    let expected = Some(PlatformKind::Redfish);
    let poll = Poll { source: config.source(), absent: String::new(), period: config.every(), by_name: true, expected };
    if let Some(file) = &config.password_file {
        warn_of_open_secret(file);
    }
    let (config, stop) = (config.clone(), CancellationToken::new());
    let (uuid, stopped) = (roots.sysfs.join("class/dmi/id/product_uuid"), stop.clone());
    let opener: Opener = Box::new(move || {
        let meter = Redfish::open(&config, &uuid, stopped.clone())?;
        Ok(Some(Box::new(meter) as Box<dyn Meter>))
    });
    Polled::start_until(poll, opener, stop)
}

/// The meter of one BMC.
struct Redfish {
    runtime: Option<Runtime>,
    state: State,
    stop: CancellationToken,
    logging_in: Arc<AtomicBool>,
    /// Longest time of one round.
    longest: Duration,
    /// Deadline for the logout, where a stop came during a read.
    until: Option<Instant>,
}

impl Redfish {
    /// Sends no request yet.
    fn open(config: &BmcConfig, uuid_file: &Path, stop: CancellationToken) -> Result<Self, String> {
        let client = config.client()?;
        let secret = Secret::read(PEER, config.password_file.as_deref(), config.credential.as_deref())?;
        let bmc = Bmc::new(client, config, secret);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("no runtime: {error}"))?;
        let logging_in = bmc.logging_in();
        let state = State::new(config, bmc, uuid_file);
        Ok(Self { runtime: Some(runtime), state, stop, logging_in, longest: ROUND, until: None })
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
        let (stop, logging_in, longest) = (self.stop.clone(), self.logging_in.clone(), self.longest);
        let late = async {
            sleep(longest).await;
            login_finished(&logging_in, longest).await;
        };
        let stopped = async {
            stop.cancelled().await;
            let stopped_at = Instant::now();
            login_finished(&logging_in, STOP_TIME / 2).await;
            stopped_at + STOP_TIME
        };
        let mut readings = Vec::new();
        let result = runtime.block_on(async {
            tokio::select! {
                result = self.state.round(&mut readings) => Ok(result),
                () = late => Ok(Err(BmcError::slow(format!("its answers took more than {} s in all", longest.as_secs())))),
                until = stopped => Err(until),
            }
        });
        out.append(&mut readings);
        match result {
            Ok(Ok(())) => self.state.round_succeeded(),
            Ok(Err(error)) => {
                if error.kind == ErrorKind::Slow {
                    self.state.bmc.request_aborted();
                }
                self.state.round_failed(&error, out);
            }
            Err(until) => {
                self.until = Some(until);
                self.state.bmc.request_aborted();
            }
        }
    }

    fn health(&self) -> Health {
        self.state.health.clone()
    }

    fn detail(&self) -> String {
        self.state.detail()
    }

    fn is_reopened(&self) -> bool {
        // It reconnects itself, and has a session to keep or to end.
        false
    }
}

/// Waits until no login is in progress, for `most` at most.
async fn login_finished(logging_in: &AtomicBool, most: Duration) {
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
            let left = self.until.map_or(STOP_TIME, |until| until.saturating_duration_since(Instant::now()));
            let _ = runtime.block_on(async { timeout(left, self.state.bmc.logout()).await });
            // Does not wait for a DNS lookup in progress.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests;
