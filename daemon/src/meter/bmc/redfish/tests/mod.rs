//! The meter against a BMC that a test sets: what it finds, and what becomes of each fault.

mod faults;
mod login;
mod makers;
mod odd;
mod time;
mod trust;

use super::state::LOST;
use super::*;
use crate::config::Span;
use crate::meter::fake_redfish as sim;
use crate::meter::fake_redfish::{Fault, PASSWORD, Shows, Sim};
use crate::meter::fake_redfish_trees as trees;
use crate::model::domain::{Reading, Scope, Zone};
use crate::model::units::{Microjoules, Nanos};

const POWER: &str = "/redfish/v1/Chassis/1U/Sensors/TotalPower";
const METRICS: &str = "/redfish/v1/Chassis/1U/EnvironmentMetrics";

/// A meter at a simulator, with what it needs on disk.
struct Rig {
    sim: Sim,
    config: BmcConfig,
    dir: tempfile::TempDir,
}

impl Rig {
    fn new(tree: sim::Tree) -> Self {
        Self::showing(tree, Shows::Good)
    }

    fn showing(tree: sim::Tree, shows: Shows) -> Self {
        let (sim, dir) = (Sim::showing(tree, shows), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("password"), format!("{PASSWORD}\n")).unwrap();
        std::fs::write(dir.path().join("ca.pem"), &sim.ca).unwrap();
        std::fs::write(dir.path().join("uuid"), format!("{}\n", trees::UUID)).unwrap();
        let config = BmcConfig {
            url: sim.url(),
            username: sim::USER.into(),
            password_file: Some(dir.path().join("password")),
            ca_file: (shows != Shows::Nothing).then(|| dir.path().join("ca.pem")),
            tls: if shows == Shows::Nothing { Tls::None } else { Tls::Verify },
            timeout: Span(Nanos(2 * Nanos::SECOND.0)),
            ..BmcConfig::default()
        };
        Self { sim, config, dir }
    }

    fn open(&self) -> Redfish {
        Redfish::open(&self.config, &self.dir.path().join("uuid"), CancellationToken::new()).unwrap()
    }
}

/// A round, whatever pause the meter keeps.
fn round(meter: &mut Redfish) -> Vec<DomainReading> {
    meter.state.not_before = Nanos::ZERO;
    let mut out = Vec::new();
    meter.read(Stamp::now(), &mut out);
    out
}

fn watts(readings: &[DomainReading]) -> Option<f64> {
    match readings {
        [DomainReading { reading: Ok(Reading::Gauge { power }), .. }] => Some(power.watts()),
        _ => None,
    }
}

/// Opens a meter whose first round gives no reading, and whose health has these words.
fn fails(rig: &Rig, words: &[&str]) -> Redfish {
    let mut meter = rig.open();
    let readings = round(&mut meter);
    assert!(readings.iter().all(|one| one.reading.is_err()), "{readings:?}");
    says(&meter, words);
    meter
}

fn says(meter: &Redfish, words: &[&str]) {
    let health = meter.health();
    assert!(matches!(health, Health::Failed(_) | Health::Degraded(_)), "{health:?}");
    for word in words {
        assert!(health.why().contains(word), "{:?} does not say {word:?}", health.why());
    }
    assert!(!health.why().contains(PASSWORD) && !health.why().contains(char::is_control), "{health:?}");
}

fn pause(meter: &Redfish) -> f64 {
    (meter.state.not_before - Stamp::now().monotonic).seconds()
}

fn finds(tree: sim::Tree, expected: f64, id: &str, path: &str) {
    let rig = Rig::new(tree);
    let mut meter = rig.open();
    assert_eq!(watts(&round(&mut meter)), Some(expected), "{:?}", meter.health());
    assert_eq!(
        (meter.domains()[0].id.as_str(), meter.domains()[0].path.as_str()),
        (format!("redfish/127.0.0.1/{id}/platform").as_str(), path)
    );
    assert_eq!((meter.domains().len(), meter.health()), (1, Health::Healthy));
    let before = rig.sim.seen();
    assert_eq!(watts(&round(&mut meter)), Some(expected));
    let after = rig.sim.seen();
    assert!(after.requests.len() - before.requests.len() <= 2, "a period asks only for what is read");
    drop(meter);
    let seen = rig.sim.seen();
    assert_eq!((seen.logins, seen.logouts, seen.connections, seen.at_once, rig.sim.sessions()), (1, 1, 1, 1, 0));
}
