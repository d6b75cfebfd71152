//! Power models: what a lesson and the model's estimate cost of a tick, and what a domain's model takes.

use crate::Failure;
use crate::clock::thread_time;
use crate::report::{Limit, Report};
use crate::sysfs::{FakeHost, ICE_LAKE_SERVER};
use jouled::attribution::learned::Learned;
use jouled::meter::estimate::{Estimate, EstimateConfig};
use jouled::meter::{Meter, Roots, Topology};
use jouled::model::domain::{Domain, Scope, Zone};
use jouled::model::source::{PackageId, Stamp};
use jouled::model::units::Nanos;
use jouled::power_model::Features;
use jouled::power_model::model::Machine;
use jouled::power_model::samples::Target;
use jouled::power_model::stand_in::{Known, Taught};
use std::time::Duration;

const PACKAGES: u32 = 2;
const THREADS: u32 = 48;
const LESSONS: u32 = 20_000;
const READS: u32 = 2_000;

pub fn run(report: &mut Report) -> Result<(), Failure> {
    let micros = |time: Duration, of: u32| time.as_secs_f64() * 1e6 / f64::from(of);
    let mut taught = Vec::new();
    let (mut lesson, mut bytes) = (Duration::ZERO, 0);
    for package in 0..PACKAGES {
        let domain = domain(package as u16);
        let machine =
            Machine { processor: ICE_LAKE_SERVER.name.into(), packages: Some(1), threads: THREADS, memory_gib: None };
        let mut learned = Learned::new(machine);
        let start = thread_time();
        for number in 0..LESSONS {
            let (features, watts) = window(number);
            learned.observe(&domain, &features, watts, Nanos(10 * Nanos::SECOND.0));
        }
        lesson += thread_time() - start;
        bytes = learned.by_time.bytes() + learned.by_counters.as_ref().map_or(0, |learner| learner.bytes());
        taught.push(Taught {
            domain: domain.id,
            source: domain.source,
            scope: domain.scope,
            target: Target::Package,
            model: learned.model(),
            at: None,
        });
    }
    let lesson = micros(lesson, LESSONS * PACKAGES);
    let (prior, model) = (estimate(&Known::default())?, estimate(&Known { taught, ..Known::default() })?);
    let (prior, model) = (micros(prior, READS), micros(model, READS));
    report.line(&format!(
        "a lesson (10 s of a domain, both models) {lesson:.1} µs; a read of the estimate, {PACKAGES} packages of \
         {THREADS} threads: by the prior {prior:.1} µs, by learned models {model:.1} µs; {bytes} bytes a domain"
    ))?;
    report.target("models: a lesson of one domain, with what is solved now and then", lesson, Limit::Most(50.0), "µs");
    report.target("models: a read of the estimate by learned models, more", model - prior, Limit::Most(50.0), "µs");
    report.target("models: memory of a domain", bytes as f64 / 1024.0, Limit::Most(100.0), "KiB");
    Ok(())
}

fn domain(package: u16) -> Domain {
    let scope = Scope::Package(PackageId(package));
    Domain::measured(format!("rapl/package-{package}"), "rapl-perf", Zone::Package, scope, "/bench".to_owned())
}

/// A window of changing work.
fn window(number: u32) -> (Features, f64) {
    let part = |divisor: u32| f64::from(number % divisor) / f64::from(divisor);
    let busy = part(97);
    let features = Features {
        busy,
        cycles: Some(1e11 * busy * (0.5 + part(7))),
        instructions: Some(2e11 * busy * part(83)),
        cache_misses: Some(3e9 * busy * part(79)),
        ghz: None,
    };
    (features, 60.0 + 40.0 * busy / (busy + 0.05) + 150.0 * busy * (0.5 + part(7)))
}

/// CPU time of [`READS`] reads of the estimate with these models.
fn estimate(known: &Known) -> Result<Duration, Failure> {
    let host = FakeHost::new();
    host.cpus(PACKAGES, THREADS, &ICE_LAKE_SERVER);
    let mut busy = vec![0; (PACKAGES * THREADS) as usize];
    host.stat(&busy, &busy);
    let roots = Roots { sysfs: host.sysfs(), procfs: host.procfs() };
    let mut meter = Estimate::open(&EstimateConfig::default(), &roots, &Topology::read(&roots))?;
    meter.set_models(known);
    let (mut time, mut out) = (Duration::ZERO, Vec::new());
    for second in 0..u64::from(READS) {
        busy.iter_mut().for_each(|busy| *busy += second % 100);
        host.stat(&busy, &busy);
        let now = Stamp { monotonic: Nanos(second * Nanos::SECOND.0), ..Stamp::default() };
        let start = thread_time();
        meter.read(now, &mut out);
        time += thread_time() - start;
        out.clear();
    }
    Ok(time)
}
