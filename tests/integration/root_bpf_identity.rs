//! The eBPF source on this kernel, as root: identity and names of processes. Not their CPU time: that is in
//! root_bpf.rs.

use crate::common::bpf::{Birth, burn, last_cpu, open, reap, sample_after_death, with};
use crate::common::burn::unless_disturbed;
use jouled::model::usage::ProcessKey;
use jouled::usage::Usage;
use jouled::usage::bpf::BpfPath;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

fn a_reused_pid_is_another(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&with(path)) else { return };
    let pid = burn(Birth { name: b"one", alone_on: last_cpu(), ..Birth::default() }, Duration::from_millis(20));
    let first = reap(pid);
    let mut samples = Vec::new();
    if path == BpfPath::Helpers {
        // Without BTF two processes with the same pid are two only with a sample between them.
        samples.push(usage.sample().unwrap());
    }
    std::thread::sleep(Duration::from_millis(20));
    burn(Birth { name: b"two", pid: Some(pid), alone_on: last_cpu(), ..Birth::default() }, Duration::from_millis(40));
    let second = reap(pid);
    samples.push(sample_after_death(&mut usage));
    let of_pid = |key: &ProcessKey| key.pid == pid as u32;
    let uses: Vec<u64> = samples
        .iter()
        .flat_map(|sample| &sample.uses)
        .filter(|r#use| of_pid(&r#use.process))
        .map(|r#use| r#use.used.on_cpu.0)
        .collect();
    let names: Vec<&str> = samples
        .iter()
        .flat_map(|sample| &sample.processes)
        .filter(|info| of_pid(&info.process))
        .map(|info| info.comm.as_str())
        .collect();
    println!("uses {uses:?}, names {names:?}, truth {first} {second}");
    assert_eq!(uses.iter().sum::<u64>().abs_diff(first + second) / 1_000_000, 0);
    assert!(names.contains(&"one") && names.contains(&"two"));
    assert_eq!(samples.iter().flat_map(|sample| &sample.ended).filter(|key| of_pid(key)).count(), 2);
    if path == BpfPath::Btf {
        let keys: BTreeSet<_> = samples[0].uses.iter().map(|r#use| r#use.process).filter(of_pid).collect();
        assert_eq!(keys.len(), 2);
    }
}

#[test]
fn root_a_reused_pid_is_another_process_btf() {
    unless_disturbed(|| a_reused_pid_is_another(BpfPath::Btf));
}

#[test]
fn root_a_reused_pid_is_another_process_helpers() {
    unless_disturbed(|| a_reused_pid_is_another(BpfPath::Helpers));
}

/// The process executes another program between two samples, and sleeps afterwards.
fn a_process_that_runs_another_program_has_its_name(path: BpfPath) {
    let Some((_alone, mut usage)) = open(&with(path)) else { return };
    let cpu = last_cpu().unwrap().to_string();
    let script = "read first; read second; exec sleep 60";
    let mut child =
        Command::new("taskset").args(["-c", &cpu, "sh", "-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let is_at_rest = |comm: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        stat.contains(&format!("({comm}) S"))
    };
    let mut name_when = |at_rest: &str| {
        while !is_at_rest(at_rest) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let sample = sample_after_death(&mut usage);
        sample.processes.into_iter().filter(|info| info.process.pid == id).map(|info| info.comm).collect::<Vec<_>>()
    };
    let mut stdin = child.stdin.take().unwrap();
    let first = name_when("sh");
    stdin.write_all(b"\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stdin.write_all(b"\n").unwrap();
    let last = name_when("sleep");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!((first, last), (vec!["sh".to_owned()], vec!["sleep".to_owned()]));
}

#[test]
fn root_a_process_that_runs_another_program_has_its_name_btf() {
    a_process_that_runs_another_program_has_its_name(BpfPath::Btf);
}

#[test]
fn root_a_process_that_runs_another_program_has_its_name_helpers() {
    a_process_that_runs_another_program_has_its_name(BpfPath::Helpers);
}
