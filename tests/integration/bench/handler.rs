//! The cost of the eBPF programs at a context switch, compared with an empty program at the same tracepoint. The cost
//! of a sample is measured by `tick`.

use crate::Failure;
use crate::report::{Limit, Report};
use aya::programs::{RawTracePoint, loaded_programs};
use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, EbpfLoader};
use jouled::usage::bpf::{BpfOptions, BpfPath, BpfUsage, Counters};
use std::io::{Read, Write};
use std::time::Duration;

const ROUNDS: usize = 3;

/// The benchmark.
pub fn run(report: &mut Report) -> Result<(), Failure> {
    // While this is open, the kernel measures the run time of every program.
    let _stats = enable_stats(Stats::RunTime)?;
    let _empty = load_empty()?;
    report
        .line(&format!("{:<32}{:>10}{:>12}{:>12}{:>8}", "median of three", "runs", "ns a run", "empty, ns", "ratio"))?;
    for (path, counters, program, most) in [
        (BpfPath::Btf, Counters::Off, "switch_btf", Some(2.0)),
        (BpfPath::Helpers, Counters::Off, "switch_helpers", Some(3.0)),
        (BpfPath::Btf, Counters::Software, "switch_btf", None),
        (BpfPath::Helpers, Counters::Software, "switch_helpers", None),
    ] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let usage = BpfUsage::open(&BpfOptions { path, counters, ..BpfOptions::default() })?;
            rounds.push(measure(program)?);
            drop(usage);
        }
        rounds.sort_by(|a, b| a.ratio().total_cmp(&b.ratio()));
        let round = &rounds[ROUNDS / 2];
        let what = format!("{path:?}, counters {counters:?}");
        let Round { runs, ns, empty } = round;
        report.line(&format!("{what:<32}{runs:>10}{ns:>12.1}{empty:>12.1}{:>8.2}", round.ratio()))?;
        if let Some(most) = most {
            report.target(
                &format!("switch, {path:?}, over an empty program"),
                round.ratio(),
                Limit::Most(most),
                "times",
            );
        }
    }
    Ok(())
}

struct Round {
    runs: u64,
    ns: f64,
    empty: f64,
}

impl Round {
    fn ratio(&self) -> f64 {
        self.ns / self.empty
    }
}

fn load_empty() -> Result<Ebpf, Failure> {
    let object = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../daemon-bpf/jouled.bpf.o"))?;
    let mut ebpf = EbpfLoader::new().btf(None).load(&object)?;
    let program: &mut RawTracePoint = ebpf.program_mut("empty").ok_or("no program")?.try_into()?;
    program.load()?;
    program.attach("sched_switch")?;
    Ok(ebpf)
}

/// Runs two pairs of threads that play ping-pong, and measures the newest program of this name and the empty one.
fn measure(program: &str) -> Result<Round, Failure> {
    let before = (totals(program)?, totals("empty")?);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| ping_pong(40_000));
        }
    });
    let after = (totals(program)?, totals("empty")?);
    let mean = |before: (Duration, u64), after: (Duration, u64)| {
        (after.0 - before.0).as_nanos() as f64 / (after.1 - before.1) as f64
    };
    Ok(Round { runs: after.0.1 - before.0.1, ns: mean(before.0, after.0), empty: mean(before.1, after.1) })
}

fn totals(name: &str) -> Result<(Duration, u64), Failure> {
    let newest = loaded_programs().filter_map(Result::ok).filter(|info| info.name_as_str() == Some(name)).last();
    let info = newest.ok_or("the program is not loaded")?;
    Ok((info.run_time(), info.run_count()))
}

/// Two threads wake each other so many times.
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
