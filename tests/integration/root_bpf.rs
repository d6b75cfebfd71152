//! The eBPF source on this kernel, as root: the CPU time that it reports is compared with the kernel's own accounts.
//! Not its cost: `make bench` measures that.

use crate::common::bpf::{Birth, burn, cpu_time, last_cpu, on_cpu, open, reap, sample_after_death, with};
use crate::common::burn::{Cgroup, unless_disturbed};
use jouled::model::source::Health;
use jouled::model::usage::{ProcessKey, UsageSample};
use jouled::usage::Usage;
use jouled::usage::bpf::{BpfOptions, BpfPath, BpfUsage, Counters};
use std::collections::BTreeSet;
use std::time::Duration;

fn assert_near(what: &str, got: u64, truth: u64, permille: u64) {
    println!("{what}: {got} ns, truth {truth} ns ({:+.3} %)", (got as f64 / truth as f64 - 1.0) * 100.0);
    assert!(got.abs_diff(truth) * 1000 <= truth * permille, "{what}: {got} is not within {permille} ‰ of {truth}");
}

fn a_burner_gets_its_time(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&with(path)) else { return };
    assert_eq!(usage.path(), path);
    let name = b"a) \n\"\xff' x";
    // The helper path cannot correct switches that do not reach the tracepoint: here the burner has its CPU for itself.
    let alone_on = if path == BpfPath::Helpers { last_cpu() } else { None };
    let pid = burn(Birth { name, alone_on, ..Birth::default() }, Duration::from_millis(1500));
    let mut charged = 0;
    std::thread::sleep(Duration::from_millis(200));
    let first = usage.sample().unwrap();
    charged += on_cpu(&first, |r#use| r#use.process.pid == pid as u32);
    assert!(charged > 0);
    let info = first.processes.iter().find(|info| info.process.pid == pid as u32).unwrap();
    assert_eq!(info.comm, "a) \n\"\u{fffd}' x");
    assert_eq!(info.exe, std::env::current_exe().unwrap().to_string_lossy());
    let stat = std::fs::read(format!("/proc/{pid}/stat")).unwrap();
    let end = stat.iter().rposition(|&byte| byte == b')').unwrap();
    let start = std::str::from_utf8(&stat[end..]).unwrap().split(' ').nth(20).unwrap().parse().unwrap();
    let process = ProcessKey { pid: pid as u32, start };
    assert_eq!(info.process, process);
    assert!(!first.ended.contains(&process));

    let truth = reap(pid);
    let last = sample_after_death(&mut usage);
    charged += on_cpu(&last, |r#use| r#use.process == process);
    assert_near("burner", charged, truth, 10);
    assert!(last.ended.contains(&process));
    assert!(!last.processes.iter().any(|info| info.process == process));
    let after = usage.sample().unwrap();
    assert_eq!(on_cpu(&after, |r#use| r#use.process == process), 0);
    assert_eq!(matches!(usage.health(), Health::Degraded(_)), path == BpfPath::Helpers);
}

/// More processes than CPUs, at the normal priority.
fn preempted_burners_get_their_time_btf() {
    let Some((_alone, mut usage)) = open(&with(BpfPath::Btf)) else { return };
    let burners: Vec<i32> = (0..5).map(|_| burn(Birth::default(), Duration::from_millis(700))).collect();
    let mut charged = vec![0; burners.len()];
    let look = |sample: UsageSample, charged: &mut Vec<u64>| {
        for (sum, pid) in charged.iter_mut().zip(&burners) {
            *sum += on_cpu(&sample, |r#use| r#use.process.pid == *pid as u32);
        }
    };
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(200));
        look(usage.sample().unwrap(), &mut charged);
    }
    let truth: Vec<u64> = burners.iter().map(|pid| reap(*pid)).collect();
    look(sample_after_death(&mut usage), &mut charged);
    for (charged, truth) in charged.into_iter().zip(truth) {
        assert_near("preempted burner", charged, truth, 10);
    }
}

#[test]
fn root_preempted_burners_get_their_time_btf() {
    unless_disturbed(preempted_burners_get_their_time_btf);
}

#[test]
fn root_a_burner_gets_its_time_btf() {
    unless_disturbed(|| a_burner_gets_its_time(BpfPath::Btf));
}

#[test]
fn root_a_burner_gets_its_time_helpers() {
    unless_disturbed(|| a_burner_gets_its_time(BpfPath::Helpers));
}

fn short_lives_count(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&with(path)) else { return };
    let Some(cgroup) = Cgroup::new("short") else { return println!("skipped: no cgroup v2") };
    let file = cgroup.open();
    let (mut truth, mut pids) = (0, BTreeSet::new());
    for _ in 0..250 {
        let pair = [0, 1]
            .map(|_| burn(Birth { name: b"short", cgroup: Some(&file), ..Birth::default() }, Duration::from_millis(5)));
        truth += pair.map(reap).iter().sum::<u64>();
        pids.extend(pair.map(|pid| pid as u32));
    }
    let sample = sample_after_death(&mut usage);
    let charged = on_cpu(&sample, |r#use| r#use.cgroup == cgroup.id());
    // The clock of the path without BTF includes interrupts and stolen time.
    let permille = if path == BpfPath::Btf { 20 } else { 50 };
    assert_near("500 short lives, of rusage", charged, truth, permille);
    assert_near("500 short lives, of cpu.stat", charged, cgroup.used(), permille);
    assert!(charged * 100 >= truth * 98);
    let born = sample.born.iter().find(|born| born.cgroup == cgroup.id()).unwrap();
    assert_eq!(born.path, cgroup.path());
    let ended: BTreeSet<u32> = sample.ended.iter().map(|process| process.pid).collect();
    assert_eq!(pids.difference(&ended).count(), 0);
    let named = sample.processes.iter().filter(|info| info.comm == "short" && pids.contains(&info.process.pid)).count();
    assert_eq!(named, pids.len());
    assert_eq!(sample.overflows, 0);
    // The next sample has nothing of them.
    let next = usage.sample().unwrap();
    assert_eq!(on_cpu(&next, |r#use| r#use.cgroup == cgroup.id()), 0);
}

#[test]
fn root_short_lives_count_btf() {
    unless_disturbed(|| short_lives_count(BpfPath::Btf));
}

#[test]
fn root_short_lives_count_helpers() {
    unless_disturbed(|| short_lives_count(BpfPath::Helpers));
}

fn a_process_that_never_leaves_its_cpu_is_charged(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&with(path)) else { return };
    let cpus = std::thread::available_parallelism().unwrap().get();
    if cpus < 2 {
        return println!("skipped: needs two CPUs");
    }
    let pid = burn(Birth { alone_on: Some(cpus - 1), ..Birth::default() }, Duration::from_millis(700));
    std::thread::sleep(Duration::from_millis(50));
    usage.sample().unwrap();
    let switches = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        status.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (before, mut charged, start) = (switches(), 0, cpu_time(pid));
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        let sample = usage.sample().unwrap();
        let now = on_cpu(&sample, |r#use| r#use.process.pid == pid as u32);
        assert!((80_000_000..200_000_000).contains(&now), "{now} ns in 100 ms");
        charged += now;
    }
    assert_near("never switched", charged, cpu_time(pid) - start, 20);
    if before != switches() {
        println!("it was switched all the same: {before:?}, {:?}", switches());
    }
    reap(pid);
}

#[test]
fn root_a_process_that_never_leaves_its_cpu_is_charged_btf() {
    unless_disturbed(|| a_process_that_never_leaves_its_cpu_is_charged(BpfPath::Btf));
}

#[test]
fn root_a_process_that_never_leaves_its_cpu_is_charged_helpers() {
    unless_disturbed(|| a_process_that_never_leaves_its_cpu_is_charged(BpfPath::Helpers));
}

fn what_does_not_fit_is_lost_visibly(path: BpfPath) {
    let Some((_alone, mut tiny)) = open(&BpfOptions { max_entries: 8, ..with(path) }) else { return };
    let mut large = BpfUsage::open(&with(path)).unwrap();
    tiny.sample().unwrap();
    large.sample().unwrap();
    for _ in 0..20 {
        let children = [0; 10].map(|_| burn(Birth::default(), Duration::from_millis(4)));
        children.into_iter().for_each(|pid| assert!(reap(pid) > 0));
    }
    let (few, all) = (sample_after_death(&mut tiny), large.sample().unwrap());
    assert!(few.uses.len() <= 8 && few.overflows > 0);
    assert!(matches!(tiny.health(), Health::Degraded(_)));
    let lost = |sample: &UsageSample| sample.lost.iter().map(|lost| lost.used.on_cpu.0).sum::<u64>();
    assert!(lost(&few) > lost(&all));
    assert_eq!(all.overflows, 0);
    assert_near("charged and lost", on_cpu(&few, |_| true) + lost(&few), on_cpu(&all, |_| true) + lost(&all), 10);
}

#[test]
fn root_what_does_not_fit_is_lost_visibly_btf() {
    unless_disturbed(|| what_does_not_fit_is_lost_visibly(BpfPath::Btf));
}

#[test]
fn root_what_does_not_fit_is_lost_visibly_helpers() {
    unless_disturbed(|| what_does_not_fit_is_lost_visibly(BpfPath::Helpers));
}

/// CPU time of tasks on all CPUs, in nanoseconds: field 7 of the cpu lines in /proc/schedstat.
fn schedstat() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/schedstat").ok()?;
    text.lines().filter(|line| line.starts_with("cpu")).map(|line| line.split(' ').nth(7)?.parse::<u64>().ok()).sum()
}

fn the_sum_is_what_the_scheduler_says() {
    let Some((_alone, mut usage)) = open(&with(BpfPath::Btf)) else { return };
    if schedstat().is_none() {
        return println!("skipped: no /proc/schedstat");
    }
    let children = [0; 4].map(|_| burn(Birth::default(), Duration::from_millis(800)));
    usage.sample().unwrap();
    let before = schedstat().unwrap();
    children.into_iter().for_each(|pid| assert!(reap(pid) > 0));
    std::thread::sleep(Duration::from_millis(20));
    let after = schedstat().unwrap();
    let sample = usage.sample().unwrap();
    assert_near("all of the machine", on_cpu(&sample, |_| true), after - before, 10);
}

#[test]
fn root_the_sum_is_what_the_scheduler_says() {
    unless_disturbed(the_sum_is_what_the_scheduler_says);
}

fn software_counters_count(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&BpfOptions { counters: Counters::Software, ..with(path) }) else { return };
    let pid = burn(Birth { alone_on: last_cpu(), ..Birth::default() }, Duration::from_millis(100));
    let used = reap(pid);
    let sample = sample_after_death(&mut usage);
    assert!(sample.counted.cycles && sample.counted.instructions && sample.counted.cache_misses);
    let cycles =
        sample.uses.iter().filter(|r#use| r#use.process.pid == pid as u32).map(|r#use| r#use.used.cycles).sum();
    // Software cycles are a clock, as the CPU time is.
    assert_near("software cycles", cycles, used, 20);
    assert!(sample.uses.iter().any(|r#use| r#use.used.cache_misses > 0));
}

#[test]
fn root_software_counters_count_btf() {
    unless_disturbed(|| software_counters_count(BpfPath::Btf));
}

#[test]
fn root_software_counters_count_helpers() {
    unless_disturbed(|| software_counters_count(BpfPath::Helpers));
}

#[test]
fn root_a_machine_without_counters_is_healthy() {
    let Some((_alone, mut usage)) = open(&BpfOptions { counters: Counters::Auto, ..with(BpfPath::Auto) }) else {
        return;
    };
    let sample = usage.sample().unwrap();
    println!("counted: {:?}", sample.counted);
    assert_eq!(usage.health(), Health::Healthy);
    let pid = burn(Birth::default(), Duration::from_millis(50));
    reap(pid);
    let counted = sample_after_death(&mut usage);
    let own = counted.uses.iter().find(|r#use| r#use.process.pid == pid as u32).unwrap();
    assert_eq!(own.used.cycles > 0, sample.counted.cycles);
}
