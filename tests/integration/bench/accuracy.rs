//! Energy of units compared with a known machine (`truth`): steady load, many short-lived processes, sleepers. The
//! built jouled runs twice, by eBPF and by /proc.

use crate::Failure;
use crate::daemon::Daemon;
use crate::load::{Work, Worker};
use crate::report::{Limit, Report};
use crate::truth::{IDLE_WATTS, JOULES_PER_CPU_SECOND, Truth};
use crate::unit::Unit;
use std::time::Duration;

/// CPU shares of the steady units: 1.0 is a whole CPU.
const STEADY: [f64; 5] = [0.05, 0.1, 0.2, 0.4, 1.0];
const STEADY_TIME: Duration = Duration::from_secs(60);
/// CPU shares before the measurement, from rest to full load and back, so that the idle floor can be learned.
const WARM_UP: [f64; 10] = [0.0, 0.1, 0.3, 0.6, 0.9, 0.7, 0.4, 0.2, 0.05, 0.0];
const WARM_UP_STEP: Duration = Duration::from_secs(2);
const STORM_LIFE: Duration = Duration::from_millis(30);
const STORM_TIME: Duration = Duration::from_secs(30);
const SLEEPERS: usize = 50;
/// Long enough for two ticks.
const REST: Duration = Duration::from_millis(2500);
/// Largest lag of the kernel's account of a running task: a scheduler tick at 100 Hz.
const ACCOUNT_LAG: Duration = Duration::from_millis(10);

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    let truth = Truth::start()?;
    let daemons = [
        Daemon::start(&truth.host, "[usage]\nsource = \"bpf\"\n")?,
        Daemon::start(&truth.host, "[usage]\nsource = \"procfs\"\n")?,
    ];
    let cpus = std::thread::available_parallelism()?.get();
    report.line(&format!(
        "truth: {IDLE_WATTS} W at rest and {JOULES_PER_CPU_SECOND} J for a second of CPU time of any task, by {}",
        truth.source
    ))?;

    let warm_up = Unit::new("warm-up.service")?;
    let workers: Vec<_> =
        (0..cpus).map(|_| Worker::start(&warm_up, Work::Steps(&WARM_UP, WARM_UP_STEP))).collect::<Result<_, _>>()?;
    for worker in workers {
        worker.join()?;
    }
    drop(warm_up);
    let sleeping = Unit::new("sleeping.service")?;
    let _sleepers: Vec<_> = (0..SLEEPERS).map(|_| Worker::start(&sleeping, Work::Sleep)).collect::<Result<_, _>>()?;
    std::thread::sleep(REST);
    for (name, daemon) in ["eBPF", "/proc"].iter().zip(&daemons) {
        report.line(&format!(
            "after {} s of varied load, by {name}: {}",
            WARM_UP_STEP.as_secs() * 10,
            floor(daemon)?
        ))?;
    }

    let mut parts = Vec::new();
    for share in STEADY {
        parts.push(Part { unit: Unit::new(&format!("steady-{:03.0}.service", share * 100.0))?, workers: Vec::new() });
    }
    let shares: Vec<[f64; 1]> = STEADY.iter().map(|share| [*share]).collect();
    let phase = Phase::begin(&daemons, &truth)?;
    for (part, share) in parts.iter_mut().zip(&shares) {
        part.workers.push(Worker::start(&part.unit, Work::Steps(share, STEADY_TIME))?);
    }
    let rows = phase.end(report, "steady load", STEADY_TIME, parts, &sleeping)?;
    let worst = rows.iter().map(|row| row.error(0).abs()).fold(0.0, f64::max);
    report.target("steady units, largest error", worst, Limit::Most(1.0), "%");

    let mut storm = Part { unit: Unit::new("storm.service")?, workers: Vec::new() };
    let mut beside = Part { unit: Unit::new("beside.service")?, workers: Vec::new() };
    let phase = Phase::begin(&daemons, &truth)?;
    for _ in 0..cpus.div_ceil(2) {
        storm.workers.push(Worker::start(&storm.unit, Work::Storm(STORM_LIFE, STORM_TIME))?);
    }
    beside.workers.push(Worker::start(&beside.unit, Work::Steps(&[0.4], STORM_TIME))?);
    let rows = phase.end(report, "lives of 30 ms on half the CPUs", STORM_TIME, vec![storm, beside], &sleeping)?;
    report.target("storm, of its energy on its unit", 100.0 + rows[0].error(0), Limit::Least(98.0), "%");
    report.target("unit beside the storm, error", rows[1].error(0).abs(), Limit::Most(1.0), "%");
    let asleep = daemons[0].series()?.get(&series("joules", "sleeping.service")).copied().unwrap_or_default();
    let forked = sleeping.used()?.as_secs_f64() * JOULES_PER_CPU_SECOND;
    report.line(&format!("{SLEEPERS} sleepers: {asleep:.3} J in all, truth {forked:.3} J (when they were forked)"))?;
    Ok(())
}

/// The idle floor of a daemon, in words.
fn floor(daemon: &Daemon) -> Result<String, Failure> {
    let series = daemon.series()?;
    let find = |name: &str| series.iter().find(|(series, _)| series.starts_with(name));
    let (labels, floor) = find("jouled_idle_floor_watts{").ok_or("no idle floor")?;
    let (_, error) = find("jouled_idle_floor_uncertainty_watts{").ok_or("no idle floor")?;
    let from = labels.split("from=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    Ok(format!("{floor:.3} W at rest ({from}, ± {error:.3} W), truth {IDLE_WATTS} W"))
}

/// A unit with its workers.
struct Part {
    unit: Unit,
    workers: Vec<Worker>,
}

/// A measurement that begins and ends at rest, so that the moments of the ticks do not matter.
struct Phase<'a> {
    daemons: &'a [Daemon; 2],
    truth: &'a Truth,
    before: [Numbers; 2],
}

type Numbers = std::collections::HashMap<String, f64>;

/// Energy of one unit in joules: the truth, and by each daemon.
struct Row {
    truth: f64,
    by: [f64; 2],
}

impl Row {
    /// The error in percent of the truth.
    fn error(&self, daemon: usize) -> f64 {
        (self.by[daemon] / self.truth - 1.0) * 100.0
    }
}

impl<'a> Phase<'a> {
    fn begin(daemons: &'a [Daemon; 2], truth: &'a Truth) -> Result<Self, Failure> {
        std::thread::sleep(REST);
        truth.longest();
        let before = [daemons[0].series()?, daemons[1].series()?];
        Ok(Self { daemons, truth, before })
    }

    /// Waits for the workers and prints the table.
    fn end(
        self,
        report: &mut Report,
        title: &str,
        time: Duration,
        parts: Vec<Part>,
        sleeping: &Unit,
    ) -> Result<Vec<Row>, Failure> {
        let mut rows = Vec::new();
        let mut units = Vec::new();
        let mut disagreement = 0.0_f64;
        for part in parts {
            let mut reaped = Duration::ZERO;
            for worker in part.workers {
                reaped += worker.join()?;
            }
            let used = part.unit.used()?;
            disagreement = disagreement.max((reaped.as_secs_f64() / used.as_secs_f64() - 1.0).abs());
            units.push((part.unit, used));
        }
        std::thread::sleep(REST);
        let after = [self.daemons[0].series()?, self.daemons[1].series()?];
        let increase = |daemon: usize, series: &str| {
            let number = |numbers: &Numbers| numbers.get(series).copied().unwrap_or_default();
            number(&after[daemon]) - number(&self.before[daemon])
        };
        report.line(&format!(
            "{title:<36}{:>10}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "truth, J", "eBPF, J", "error", "CPU time", "/proc, J", "error"
        ))?;
        for (unit, used) in &units {
            let name = series("joules", &unit.name);
            let truth = used.as_secs_f64() * JOULES_PER_CPU_SECOND;
            let row = Row { truth, by: [increase(0, &name), increase(1, &name)] };
            let cpu = (increase(0, &series("cpu_seconds", &unit.name)) / used.as_secs_f64() - 1.0) * 100.0;
            report.line(&format!(
                "{:<36}{truth:>10.2}{:>10.2}{:>8.2} %{cpu:>8.2} %{:>10.2}{:>8.2} %",
                unit.name,
                row.by[0],
                row.error(0),
                row.by[1],
                row.error(1)
            ))?;
            rows.push(row);
        }
        let unattributed = r#"jouled_domain_joules_total{domain="rapl/package-0",zone="package",mode="unattributed"}"#;
        let asleep = increase(0, &series("joules", &sleeping.name));
        report.line(&format!("{}: {asleep:.3} J; unattributed: {:.3} J", sleeping.name, increase(0, unattributed)))?;
        // At both ends, and at each tick, energy may be counted late by one update of the meter and one lag of the
        // account.
        let late = (self.truth.longest() + ACCOUNT_LAG).as_secs_f64();
        report.line(&format!(
            "the truth's own error: {:.3} % at most (the meter is {:.0} ms late at most); cpu.stat and getrusage differ by {:.3} % at most",
            late / time.as_secs_f64() * 100.0,
            late * 1e3,
            disagreement * 100.0
        ))?;
        report.target(&format!("sleepers, energy: {title}"), asleep, Limit::Most(0.0), "J");
        Ok(rows)
    }
}

/// The series of a unit's own energy (`joules`) or CPU time (`cpu_seconds`).
fn series(what: &str, unit: &str) -> String {
    let zone = if what == "joules" { r#",zone="package",mode="dynamic""# } else { "" };
    format!(r#"jouled_unit_{what}_total{{unit="{unit}",slice="jouledbench{}.slice"{zone}}}"#, std::process::id())
}
