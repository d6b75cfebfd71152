//! What the eBPF programs cost a whole workload: its CPU time with the programs attached, over its CPU time without
//! them. Both are measured in turn, in so many pairs that the noise of the machine is below the answer.

use crate::Failure;
use crate::report::{Limit, Report};
use jouled::usage::bpf::{BpfOptions, BpfUsage};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Round trips of the pipe in one measurement, about 0.1 s.
const ROUND_TRIPS: usize = 20_000;
const PIPE_PAIRS: usize = 150;
const COMPILE_PAIRS: usize = 60;
/// Functions in the source that is compiled, about 0.3 s of CPU time.
const FUNCTIONS: usize = 400;

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    report.line(&format!(
        "{:<44}{:>8}{:>10}{:>22}",
        "CPU time with the programs, over without", "pairs", "median", "95 % interval"
    ))?;
    let pipe = "a pipe between two processes on one CPU";
    let result = compare(PIPE_PAIRS, pipe_once)?;
    result.show(report, pipe)?;
    report.target(&format!("hook, {pipe}"), result.percent(), Limit::Most(3.0), "%");
    if Command::new("cc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return report.line("a compile: skipped: there is no cc");
    }
    let source = source();
    let result = compare(COMPILE_PAIRS, || compile_once(&source))?;
    result.show(report, "a compile on each CPU")?;
    report.target("hook, a compile on each CPU", result.percent(), Limit::Most(0.5), "%");
    Ok(())
}

/// The ratios of all pairs.
struct Ratios(Vec<f64>);

impl Ratios {
    fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn percent(&self) -> f64 {
        (self.median() - 1.0) * 100.0
    }

    /// The 95 % interval of the median: order statistics of a binomial distribution with p = 1/2.
    fn interval(&self) -> [f64; 2] {
        let count = self.0.len() as f64;
        let away = 1.96 * count.sqrt() / 2.0;
        let at = |place: f64| self.0.get(place.clamp(0.0, count - 1.0) as usize).copied().unwrap_or(f64::NAN);
        [at(count / 2.0 - away), at(count / 2.0 + away)]
    }

    fn show(&self, report: &mut Report, what: &str) -> Result<(), Failure> {
        let [low, high] = self.interval();
        let interval = format!("{low:.4} to {high:.4}");
        report.line(&format!("{what:<44}{:>8}{:>10.4}{interval:>22}", self.0.len(), self.median()))
    }
}

/// Measures `work` (which returns its CPU time) with and without the programs, each first in every other pair.
fn compare(pairs: usize, work: impl Fn() -> Result<Duration, Failure>) -> Result<Ratios, Failure> {
    let with = || {
        let usage = BpfUsage::open(&BpfOptions::default())?;
        let time = work();
        drop(usage);
        time
    };
    work()?;
    with()?;
    let mut ratios = Vec::new();
    for pair in 0..pairs {
        let (with, without) = if pair % 2 == 0 {
            let first = with()?;
            (first, work()?)
        } else {
            let first = work()?;
            (with()?, first)
        };
        ratios.push(with.as_secs_f64() / without.as_secs_f64());
    }
    ratios.sort_by(f64::total_cmp);
    Ok(Ratios(ratios))
}

/// CPU time of all children that were waited for.
fn of_children() -> Duration {
    // SAFETY: an all-zero rusage is valid.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}

/// Two processes on CPU 0 send a byte to and fro: nearly nothing but context switches.
fn pipe_once() -> Result<Duration, Failure> {
    let (mut here, mut there) = ([0; 2], [0; 2]);
    let before = of_children();
    // SAFETY: the arrays have room for two descriptors; the children make system calls only.
    unsafe {
        if libc::pipe(here.as_mut_ptr()) != 0 || libc::pipe(there.as_mut_ptr()) != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        let [first, second] = [[here[0], there[1]], [there[0], here[1]]];
        let children = [player(first, false), player(second, true)];
        here.iter().chain(&there).for_each(|end| {
            libc::close(*end);
        });
        for child in children {
            if child < 0 || libc::waitpid(child, std::ptr::null_mut(), 0) != child {
                return Err(std::io::Error::last_os_error().into());
            }
        }
    }
    Ok(of_children() - before)
}

/// Forks a process that reads from one end and writes to the other.
///
/// # Safety
/// Both are open descriptors.
unsafe fn player([read, write]: [libc::c_int; 2], begins: bool) -> libc::pid_t {
    // SAFETY: the child makes system calls only, with valid arguments.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            let mut one: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut one);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one);
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            let mut byte = 0_u8;
            let byte = (&raw mut byte).cast::<libc::c_void>();
            for _ in 0..ROUND_TRIPS {
                let both = match begins {
                    true => libc::write(write, byte, 1) == 1 && libc::read(read, byte, 1) == 1,
                    false => libc::read(read, byte, 1) == 1 && libc::write(write, byte, 1) == 1,
                };
                if !both {
                    break;
                }
            }
            libc::_exit(0);
        }
        child
    }
}

/// A source in C with many functions.
fn source() -> String {
    let mut text = String::new();
    for at in 0..FUNCTIONS {
        text.push_str(&format!(
            "int f{at}(int *a, int n) {{ int s = {at}; for (int i = 0; i < n; i++) {{ if (a[i] % {} == s % 7) s += a[i] * i; else s ^= a[i] >> {}; }} return s; }}\n",
            at % 13 + 2,
            at % 9
        ));
    }
    text
}

/// Compiles the source once on each CPU, all at the same time.
fn compile_once(source: &str) -> Result<Duration, Failure> {
    let before = of_children();
    let mut compilers = Vec::new();
    for _ in 0..std::thread::available_parallelism()?.get() {
        let mut compiler = Command::new("cc")
            .args(["-O1", "-x", "c", "-c", "-o", "/dev/null", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        if let Some(mut input) = compiler.stdin.take() {
            input.write_all(source.as_bytes())?;
        }
        compilers.push(compiler);
    }
    for mut compiler in compilers {
        if !compiler.wait()?.success() {
            return Err("cc failed".into());
        }
    }
    Ok(of_children() - before)
}
