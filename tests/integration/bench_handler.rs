//! What eBPF costs: a switch, against an empty program at the same place, and a sample. Prints a table; needs root. Not a test.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark prints")]

use aya::programs::{RawTracePoint, loaded_programs};
use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, EbpfLoader};
use jouled::usage::Usage;
use jouled::usage::bpf::{BpfOptions, BpfPath, BpfUsage, Counters};
use std::io::{Read, Write};
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut out = std::io::stdout();
    // SAFETY: no arguments.
    if unsafe { libc::geteuid() } != 0 {
        return Ok(writeln!(out, "skipped: not root")?);
    }
    // The kernel measures every program while this is open.
    let _stats = enable_stats(Stats::RunTime)?;
    let _empty = load_empty()?;
    writeln!(out, "{:<28}{:>10}{:>12}{:>12}{:>8}", "switch", "runs", "ns a run", "empty, ns", "ratio")?;
    for (path, counters, program) in [
        (BpfPath::Btf, Counters::Off, "switch_btf"),
        (BpfPath::Helpers, Counters::Off, "switch_helpers"),
        (BpfPath::Btf, Counters::Software, "switch_btf"),
        (BpfPath::Helpers, Counters::Software, "switch_helpers"),
    ] {
        for _ in 0..3 {
            let usage = BpfUsage::open(&BpfOptions { path, counters, ..BpfOptions::default() })?;
            let (runs, ns, empty) = measure(program)?;
            writeln!(
                out,
                "{:<28}{runs:>10}{ns:>12.1}{empty:>12.1}{:>8.2}",
                format!("{path:?}, counters {counters:?}"),
                ns / empty
            )?;
            drop(usage);
        }
    }
    for path in [BpfPath::Btf, BpfPath::Helpers] {
        sample(path, &mut out)?;
    }
    Ok(())
}

fn load_empty() -> Result<Ebpf, Failure> {
    let object = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../daemon-bpf/jouled.bpf.o"))?;
    let mut ebpf = EbpfLoader::new().btf(None).load(&object)?;
    let program: &mut RawTracePoint = ebpf.program_mut("empty").ok_or("no program")?.try_into()?;
    program.load()?;
    program.attach("sched_switch")?;
    Ok(ebpf)
}

/// Runs and nanoseconds a run of the newest program of this name, and of the empty one, under two pairs of threads playing ping-pong.
fn measure(program: &str) -> Result<(u64, f64, f64), Failure> {
    let before = (totals(program)?, totals("empty")?);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| ping_pong(40_000));
        }
    });
    let after = (totals(program)?, totals("empty")?);
    let mean =
        |before: (Duration, u64), after: (Duration, u64)| (after.0 - before.0).as_nanos() as f64 / (after.1 - before.1) as f64;
    Ok((after.0.1 - before.0.1, mean(before.0, after.0), mean(before.1, after.1)))
}

fn totals(name: &str) -> Result<(Duration, u64), Failure> {
    let newest = loaded_programs().filter_map(Result::ok).filter(|info| info.name_as_str() == Some(name)).last();
    let info = newest.ok_or("the program is not loaded")?;
    Ok((info.run_time(), info.run_count()))
}

/// Two threads wake each other this often.
fn ping_pong(rounds: usize) {
    let (mut here, mut there) = match (std::io::pipe(), std::io::pipe()) {
        (Ok(here), Ok(there)) => (here, there),
        _ => return,
    };
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..rounds {
                if here.0.read_exact(&mut [0]).and_then(|()| there.1.write_all(&[0])).is_err() {
                    return;
                }
            }
        });
        for _ in 0..rounds {
            if here.1.write_all(&[0]).and_then(|()| there.0.read_exact(&mut [0])).is_err() {
                return;
            }
        }
    });
}

/// CPU time of a sample with many processes asleep and some at work.
fn sample(path: BpfPath, out: &mut impl Write) -> Result<(), Failure> {
    const ASLEEP: usize = 10_000;
    const AWAKE: usize = 100;
    let mut usage = BpfUsage::open(&BpfOptions { path, counters: Counters::Off, ..BpfOptions::default() })?;
    let mut children = Vec::new();
    for number in 0..ASLEEP + AWAKE {
        children.push(child(number < AWAKE)?);
    }
    usage.sample()?;
    let mut spent = Vec::new();
    let mut uses = 0;
    for _ in 0..10 {
        std::thread::sleep(Duration::from_secs(1));
        let before = thread_time();
        uses = usage.sample()?.uses.len();
        spent.push(thread_time() - before);
    }
    for child in children {
        // SAFETY: our own children.
        unsafe {
            libc::kill(child, libc::SIGKILL);
            libc::waitpid(child, std::ptr::null_mut(), 0);
        }
    }
    spent.sort();
    writeln!(
        out,
        "sample {path:?}: {ASLEEP} asleep, {AWAKE} awake, {uses} uses: CPU time median {:?}, highest {:?}",
        spent[spent.len() / 2],
        spent[spent.len() - 1]
    )?;
    Ok(())
}

/// A child that sleeps, or that wakes 50 times a second.
fn child(awake: bool) -> Result<i32, Failure> {
    // SAFETY: the child only makes system calls.
    unsafe {
        let pid = libc::fork();
        if pid < 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        if pid == 0 {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            loop {
                if awake {
                    libc::usleep(20_000);
                } else {
                    libc::pause();
                }
            }
        }
        Ok(pid)
    }
}

fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
