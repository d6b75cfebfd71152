//! `joulectl model prior`: the expected power of a machine by load, as text or as JSON. The figures are in
//! `power_model::prior`.

use super::super::{Error, text};
use crate::meter::estimate::machine;
use crate::meter::{Roots, Topology};
use crate::power_model::Predicted;
use crate::power_model::prior::{MOST_GIB, MOST_PACKAGES, MOST_THREADS, Machine, Policy, Prior};
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::Write;

/// The machine. What is not given is read from this one, unless `--cpu` names another.
#[derive(Clone, Debug, Default, PartialEq, Args)]
pub struct Arguments {
    /// `model name` of /proc/cpuinfo [default: this machine's]
    #[arg(long, value_name = "NAME", requires = "threads")]
    pub cpu: Option<String>,
    /// Number of processor packages (sockets) [default: this machine's; 1 with --cpu]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_PACKAGES)))]
    pub packages: Option<u32>,
    /// Number of hardware threads of all packages [default: this machine's; with --cpu it must be given]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_THREADS)))]
    pub threads: Option<u32>,
    /// Memory in GiB [default: this machine's; not known with --cpu]
    #[arg(long, value_name = "GIB", value_parser = gib)]
    pub memory_gib: Option<f64>,
    /// Whether the processors raise their frequency above the nominal one [default: this machine's; with --cpu, turbo
    /// for processors that are made for a cloud, and efficient for all others]
    #[arg(long, value_enum)]
    pub policy: Option<FrequencyPolicy>,
    /// The machine is a VM: its threads are vCPUs of a host with such processors
    #[arg(long)]
    pub vm: bool,
    /// A JSON array, one object for each load of 0, 10, … 100 %.
    #[arg(long)]
    pub json: bool,
}

/// `--policy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FrequencyPolicy {
    /// Turbo is on: the default of firmware, and of clouds.
    Turbo,
    /// Turbo is off, as in the servers of SPECpower's results.
    Efficient,
}

/// The most memory of a VM for each of its vCPUs, in GiB: ten times that of the VMs with the most that clouds sell.
const MOST_GIB_PER_VCPU: f64 = 512.0;

fn gib(text: &str) -> Result<f64, String> {
    let gib: f64 = text.parse().map_err(|_| "must be a number of GiB".to_owned())?;
    if gib > 0.0 && gib <= MOST_GIB { Ok(gib) } else { Err(format!("must be above 0, at most {MOST_GIB} GiB")) }
}

/// One load.
#[derive(Debug, Serialize)]
struct AtLoad {
    load_percent: u32,
    package: Watts,
    dram: Option<Watts>,
    platform: Watts,
}

/// Watts, with the interval that holds the true power in 90 % of cases.
#[derive(Debug, Serialize)]
struct Watts {
    watts: f64,
    low: f64,
    high: f64,
}

impl From<Predicted> for Watts {
    fn from(p: Predicted) -> Self {
        let round = |watts: f64| (watts * 100.0).round() / 100.0;
        Self { watts: round(p.watts), low: round(p.low), high: round(p.high) }
    }
}

/// The machine that the arguments describe.
fn described(arguments: &Arguments, this: impl FnOnce() -> Machine) -> Result<Machine, Error> {
    let mut machine = match &arguments.cpu {
        Some(cpu) => Machine { cpu: cpu.clone(), packages: 1, threads: 1, ..Machine::default() },
        None => this(),
    };
    machine.packages = arguments.packages.unwrap_or(machine.packages);
    machine.threads = arguments.threads.unwrap_or(machine.threads);
    machine.memory_gib = arguments.memory_gib.or(machine.memory_gib);
    machine.guest |= arguments.vm;
    machine.policy = match arguments.policy {
        Some(FrequencyPolicy::Turbo) => Policy::Turbo,
        Some(FrequencyPolicy::Efficient) => Policy::Efficient,
        None => machine.policy,
    };
    if machine.threads < machine.packages {
        return Err(Error::Model(format!(
            "--threads {} is less than --packages {}: give the hardware threads of all packages together",
            machine.threads, machine.packages
        )));
    }
    let most = Prior::most_host_threads(&machine);
    if machine.guest && machine.threads > most {
        return Err(Error::Model(format!(
            "--threads {}: a VM has the vCPUs of one host, and hosts with such a processor have at most {most} hardware \
             threads: give the vCPUs of one VM, or leave out --vm",
            machine.threads
        )));
    }
    if let Some(gib) = machine.memory_gib.filter(|_| machine.guest)
        && gib > MOST_GIB_PER_VCPU * f64::from(machine.threads)
    {
        return Err(Error::Model(format!(
            "--memory-gib {gib}: more than {MOST_GIB_PER_VCPU} GiB for each of {} vCPUs is no part of a host: give the \
             memory of one VM in GiB",
            machine.threads
        )));
    }
    Ok(machine)
}

fn at_loads(prior: &Prior) -> Vec<AtLoad> {
    let at = |load_percent: u32| {
        let load = f64::from(load_percent) / 100.0;
        AtLoad {
            load_percent,
            package: prior.package(load).into(),
            dram: prior.dram(load).map(Into::into),
            platform: prior.platform(load).into(),
        }
    };
    (0..=100).step_by(10).map(at).collect()
}

fn lines(prior: &Prior) -> Vec<String> {
    let cell = |watts: &Watts| format!("{:.1} W ({:.1} to {:.1})", watts.watts, watts.low, watts.high);
    let mut rows = vec![["LOAD", "PACKAGE", "DRAM", "PLATFORM"].map(String::from).to_vec()];
    rows.extend(at_loads(prior).iter().map(|at| {
        vec![
            format!("{} %", at.load_percent),
            cell(&at.package),
            at.dram.as_ref().map_or_else(|| "-".to_owned(), cell),
            cell(&at.platform),
        ]
    }));
    let mut lines = vec![
        format!("Expected, not measured: {}.", text::safe(prior.description())),
        "In brackets: the interval that holds the true power in 90 % of cases.".to_owned(),
        String::new(),
    ];
    lines.extend(text::table(&rows, false, None));
    if !prior.has_turbo() {
        lines.push(String::new());
        lines.push("With turbo on the packages draw more: --policy turbo.".to_owned());
    }
    lines
}

/// Writes the expected power.
///
/// # Errors
/// Where the arguments contradict each other, or `out` cannot be written.
pub fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<(), Error> {
    let roots = Roots::default();
    let prior = Prior::of(&described(arguments, || machine::machine(&roots, &Topology::read(&roots)))?);
    if arguments.json {
        writeln!(out, "{}", text::json(&at_loads(&prior)))?;
    } else {
        text::write_lines(out, &lines(&prior))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Only {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parsed(words: &[&str]) -> Result<Arguments, clap::Error> {
        Only::try_parse_from(std::iter::once("prior").chain(words.iter().copied())).map(|only| only.arguments)
    }

    const CLOUD: [&str; 8] = [
        "--cpu",
        "Intel(R) Xeon(R) Platinum 8275CL CPU @ 3.00GHz",
        "--packages",
        "2",
        "--threads",
        "96",
        "--memory-gib",
        "192",
    ];

    #[test]
    fn eleven_loads_as_json() {
        let mut out = Vec::new();
        run(&parsed(&[&CLOUD[..], &["--json"]].concat()).unwrap(), &mut out).unwrap();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let loads = value.as_array().unwrap();
        assert_eq!(loads.len(), 11);
        for (at, load) in loads.iter().enumerate() {
            assert_eq!(load["load_percent"], 10 * at);
            for part in ["package", "dram", "platform"] {
                let of = |name: &str| load[part][name].as_f64().unwrap();
                assert!(0.0 < of("low") && of("low") < of("watts") && of("watts") < of("high"), "{load}");
            }
            let watts = |part: &str| load[part]["watts"].as_f64().unwrap();
            assert!(watts("package") + watts("dram") < watts("platform"), "{load}");
        }
        // RAPL of such a host says 617 W at full load, and 58 to 59 W at rest.
        let package = |at: usize, end: &str| loads[at]["package"][end].as_f64().unwrap();
        assert!(package(10, "low") < 617.0 && package(10, "high") > 617.0);
        assert!(package(0, "low") < 58.0 && package(0, "high") > 59.0);
    }

    #[test]
    fn text_says_what_it_is() {
        let mut out = Vec::new();
        run(&parsed(&CLOUD).unwrap(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Expected, not measured: ") && text.contains("TDP 240 W (codecarbon's list)"), "{text}");
        assert!(text.contains("\n100 %  ") && !text.contains("--policy turbo"), "{text}");
        out = Vec::new();
        run(&parsed(&["--cpu", "AMD EPYC 7763", "--threads", "128"]).unwrap(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("--policy turbo") && text.contains("  -  "), "{text}");
    }

    #[test]
    fn this_machine_without_arguments() {
        run(&parsed(&[]).unwrap(), &mut Vec::new()).unwrap();
        let this = || Machine { cpu: "x".into(), packages: 1, threads: 4, memory_gib: Some(8.0), ..Machine::default() };
        let all = described(&parsed(&["--vm", "--policy", "efficient", "--memory-gib", "2.5"]).unwrap(), this).unwrap();
        assert_eq!((all.threads, all.memory_gib, all.guest, all.policy), (4, Some(2.5), true, Policy::Efficient));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for wrong in [
            &["--cpu", "x"][..],
            &["--threads", "0"],
            &["--packages", "65"],
            &["--memory-gib", "nan"],
            &["--memory-gib", "-1"],
            &["--memory-gib", "much"],
            &["--memory-gib", "4294967296"],
            &["--policy", "fast"],
        ] {
            assert_eq!(parsed(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        for (words, why) in [
            (&["--vm", "--cpu", "x", "--threads", "4000"][..], "at most 1920 hardware threads"),
            (&["--vm", "--cpu", "Intel Xeon Platinum 8275CL", "--threads", "1000"], "at most 384 hardware threads"),
            (&["--vm", "--cpu", "AMD EPYC 7763", "--threads", "1000"], "at most 384 hardware threads"),
            (&["--vm", "--cpu", "x", "--threads", "2", "--memory-gib", "4096"], "for each of 2 vCPUs"),
        ] {
            let error = run(&parsed(words).unwrap(), &mut Vec::new()).unwrap_err().to_string();
            assert!(error.contains(why), "{words:?}: {error}");
        }
        // The largest VM of a cloud is larger than a host of two packages.
        let large = ["--vm", "--cpu", "Intel Xeon Platinum 8259CL", "--threads", "384", "--memory-gib", "12288"];
        run(&parsed(&large).unwrap(), &mut Vec::new()).unwrap();
        let few = parsed(&["--cpu", "x", "--packages", "4", "--threads", "2"]).unwrap();
        assert!(run(&few, &mut Vec::new()).unwrap_err().to_string().contains("--threads 2 is less than --packages 4"));
    }
}
