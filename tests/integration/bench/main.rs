//! Benchmarks: the costs of jouled and the accuracy of its numbers, compared with targets. They need root. Not tests: a
//! missed target is printed and does not fail.
//!
//! `cargo bench` runs all; `cargo bench -- tick accuracy` runs some.

mod accuracy;
#[path = "../common/bus.rs"]
#[allow(dead_code, clippy::unwrap_used, clippy::print_stdout, reason = "shared with tests")]
mod bus;
mod clock;
mod crowd;
mod daemon;
mod dbus;
mod guest;
mod guests;
mod handler;
mod history;
mod hook;
mod load;
#[path = "../common/many_units.rs"]
mod many_units;
mod meters;
mod models;
mod names;
mod page;
#[path = "../common/protocol_host.rs"]
mod protocol_host;
mod report;
mod scale;
mod start;
#[path = "../common/sysfs.rs"]
mod sysfs;
mod tenants;
mod tick;
mod truth;
mod unit;

use report::Report;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

/// Name of a benchmark, its title, and its function.
type Benchmark = (&'static str, &'static str, fn(&mut Report) -> Result<(), Failure>);

const BENCHMARKS: [Benchmark; 15] = [
    ("handler", "eBPF: nanoseconds at a switch, against an empty program at the same place", handler::run),
    ("hook", "eBPF: what the programs cost a pipe and a compile, end to end", hook::run),
    ("tick", "One tick: CPU time of the sampler's thread, by stage", tick::run),
    ("start", "From the start to READY", start::run),
    ("scale", "jouled with 10,000 processes: memory and scrapes", scale::run),
    ("names", "Names of 10,000 containers: time of a tick, memory", names::run),
    ("tenants", "Tenants of 10,000 containers: time of a tick by number of rules", tenants::run),
    ("history", "The history of 2,000 entities: a tick, a minute, a year, a report", history::run),
    ("meters", "Ticks while every slow source hangs: Redfish, IPMI, ACPI, NVML", meters::run),
    ("models", "Power models: a lesson, a read of the estimate, memory", models::run),
    ("guest", "The guest channel: from the end of an epoch to the guest's own jouled", guest::run),
    ("guests", "The guest channel with 1,000 guests that read every second", guests::run),
    ("dbus", "org.jouled1 with 2,000 units: reads, introspection", dbus::run),
    ("page", "The page with 10,000 processes and 2,000 units: a tick, 100 open pages", page::run),
    ("accuracy", "Energy of units against the truth, on a machine whose meter is made from the truth", accuracy::run),
];

fn main() -> ExitCode {
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        let _ = writeln!(std::io::stdout(), "skipped: not root, which eBPF and cgroups need");
        return ExitCode::SUCCESS;
    }
    match guarded() {
        Ok(code) => code,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the benchmarks in a child process, so that files and cgroups are removed however it ends, by Ctrl-C too.
fn guarded() -> Result<ExitCode, Failure> {
    let memory = Path::new("/dev/shm");
    let files = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
    // SAFETY: the sets are valid; there is only one thread, so the child may do anything.
    let code = unsafe {
        let mut signals: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut signals);
        for signal in [libc::SIGCHLD, libc::SIGINT, libc::SIGTERM] {
            libc::sigaddset(&mut signals, signal);
        }
        libc::sigprocmask(libc::SIG_BLOCK, &signals, std::ptr::null_mut());
        let child = libc::fork();
        if child < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        if child == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::sigprocmask(libc::SIG_UNBLOCK, &signals, std::ptr::null_mut());
            let result = benchmarks(files.path());
            // The parent removes the files.
            std::mem::forget(files);
            return result;
        }
        if libc::sigwaitinfo(&signals, std::ptr::null_mut()) != libc::SIGCHLD {
            libc::kill(child, libc::SIGKILL);
        }
        let mut status = 0;
        libc::waitpid(child, &mut status, 0);
        unit::remove_all(child);
        status
    };
    Ok(if code == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn benchmarks(files: &Path) -> Result<ExitCode, Failure> {
    tempfile::env::override_temp_dir(files).map_err(|_| "the folder for temporary files is chosen already")?;
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = wanted.iter().find(|wanted| !BENCHMARKS.iter().any(|(name, ..)| name == wanted)) {
        return Err(
            format!("no benchmark {unknown}; there are {}", BENCHMARKS.map(|(name, ..)| name).join(", ")).into()
        );
    }
    let mut report = Report::new()?;
    for (name, about, benchmark) in BENCHMARKS {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            report.title(name, about)?;
            if let Err(error) = benchmark(&mut report) {
                report.line(&format!("skipped: {error}"))?;
            }
        }
    }
    report.end()?;
    Ok(ExitCode::SUCCESS)
}
