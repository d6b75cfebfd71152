//! BMCs by Redfish: the power or energy of the whole machine, over the network, on a thread of its own. Not IPMI; decides no authority.

mod chassis;
mod clock;
mod config;
mod discover;
mod doc;
mod reading;
mod session;
mod state;

pub use config::{Auth, BmcConfig, RedfishConfig, Tls};

use super::PEER;
use crate::meter::open::{Opening, Section};
use crate::meter::polled::{Opener, Poll, Polled};
use crate::meter::{Meter, Roots};
use crate::model::domain::{Domain, DomainReading};
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

/// The name of this source; with a BMC's name, `redfish:NAME`.
pub const SOURCE: &str = "redfish";

/// One round of requests takes no longer: a slow BMC is gone on with in the next one.
const ROUND: Duration = Duration::from_secs(9);
/// From being told to stop, all may take so long: a login that is under way (broken off, its session would stay with the BMC), and
/// the logout.
const FAREWELL: Duration = Duration::from_millis(900);
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

impl From<https_client::Error> for Problem {
    fn from(error: https_client::Error) -> Self {
        match error.kind {
            https_client::ErrorKind::Broken => Self::broken(error.why),
            https_client::ErrorKind::Slow => Self::slow(error.why),
            https_client::ErrorKind::Unusable => Self::odd(error.why),
        }
    }
}

/// A BMC's text as it may be shown: escaped, and not all of it.
fn cut(text: &str) -> String {
    excerpt(text, CUT)
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

/// One BMC.
struct Redfish {
    runtime: Option<Runtime>,
    state: State,
    stop: CancellationToken,
    logging_in: Arc<AtomicBool>,
    /// One round takes no longer.
    longest: Duration,
    /// When everything has to be over, once it was told to stop in a read.
    until: Option<Instant>,
}

impl Redfish {
    /// Asks nobody yet.
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
            finish(&logging_in, longest).await;
        };
        let stopped = async {
            stop.cancelled().await;
            let told = Instant::now();
            finish(&logging_in, FAREWELL / 2).await;
            told + FAREWELL
        };
        let mut readings = Vec::new();
        let result = runtime.block_on(async {
            tokio::select! {
                result = self.state.round(&mut readings) => Ok(result),
                () = late => Ok(Err(Problem::slow(format!("its answers took more than {} s in all", longest.as_secs())))),
                until = stopped => Err(until),
            }
        });
        out.append(&mut readings);
        match result {
            Ok(Ok(())) => self.state.succeeded(),
            Ok(Err(problem)) => {
                if problem.trouble == Trouble::Slow {
                    self.state.bmc.broken_off();
                }
                self.state.failed(&problem, out);
            }
            Err(until) => {
                self.until = Some(until);
                self.state.bmc.broken_off();
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
            let left = self.until.map_or(FAREWELL, |until| until.saturating_duration_since(Instant::now()));
            let _ = runtime.block_on(async { timeout(left, self.state.bmc.logout()).await });
            // A name that is being resolved must not keep anybody.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests;
