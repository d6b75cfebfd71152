//! The processes that eBPF has reported: their names, and which of them have ended. Holds nothing about their use.

use crate::model::usage::{ProcessInfo, ProcessKey};
use crate::sys::proc_pid;
use rustc_hash::FxHashMap;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::collections::VecDeque;

/// `task_struct.comm`: at most 15 bytes, ended by a zero byte.
pub type Comm = [u8; 16];

/// The procfs of this kernel. eBPF reports its processes, so `--procfs` does not apply here.
pub const PROC: &str = "/proc";

#[derive(Clone, Copy)]
struct KnownProcess {
    start: u64,
    comm: Comm,
}

/// Every process that ran or was adopted, and is not known to have ended.
#[derive(Default)]
pub struct Processes {
    known: FxHashMap<u32, KnownProcess>,
    /// Process ids in the order in which [`Processes::check_some_alive`] checks them. Has every id of `known`; ids of
    /// ended processes are dropped at their turn.
    check_queue: VecDeque<u32>,
}

impl Processes {
    /// Start of the known process with this id, in clock ticks since boot.
    pub fn start(&self, pid: u32) -> Option<u64> {
        self.known.get(&pid).map(|known| known.start)
    }

    /// Records that a process ran under this name. Returns its name and program where they are new. Adds to `ended` an
    /// earlier process whose id it has.
    pub fn record_run(&mut self, process: ProcessKey, comm: Comm, ended: &mut Vec<ProcessKey>) -> Option<ProcessInfo> {
        let before = self.known.get(&process.pid).copied();
        match before {
            Some(known) if known.start == process.start && name_bytes(&known.comm) == name_bytes(&comm) => return None,
            Some(known) if known.start != process.start => {
                ended.push(ProcessKey { pid: process.pid, start: known.start });
            }
            _ => {}
        }
        let current = proc_pid::stat(PROC.as_ref(), process.pid, |stat| (stat.start, comm_of(stat.comm)));
        let current = current.filter(|(start, _)| *start == process.start);
        let exe = if current.is_some() { proc_pid::exe(PROC.as_ref(), process.pid) } else { String::new() };
        // The name from eBPF may be older than an exec on another CPU. For kernel threads /proc has a longer name that
        // changes with their work, so it is not used.
        let comm = current.filter(|_| !exe.is_empty()).map_or(comm, |(_, comm)| comm);
        self.known.insert(process.pid, KnownProcess { start: process.start, comm });
        if before.is_none() {
            self.check_queue.push_back(process.pid);
        }
        let reported =
            before.is_some_and(|known| known.start == process.start && name_bytes(&known.comm) == name_bytes(&comm));
        (!reported).then(|| ProcessInfo { process, comm: name_text(&comm), exe })
    }

    /// Adds a process that has not run since the source was opened, with its name, so that its end is reported.
    pub fn adopt(&mut self, info: &ProcessInfo) {
        let comm = comm_of(info.comm.as_bytes());
        if self.known.insert(info.process.pid, KnownProcess { start: info.process.start, comm }).is_none() {
            self.check_queue.push_back(info.process.pid);
        }
    }

    /// Records that a process ran and ended. Returns its name where that is new.
    pub fn record_exit(&mut self, process: ProcessKey, comm: Comm) -> Option<ProcessInfo> {
        let reported = match self.known.get(&process.pid) {
            Some(known) if known.start == process.start => {
                let known = self.known.remove(&process.pid);
                known.is_some_and(|known| name_bytes(&known.comm) == name_bytes(&comm))
            }
            _ => false,
        };
        // A new name means an exec, whose program can no longer be read.
        (!reported).then(|| ProcessInfo { process, comm: name_text(&comm), exe: String::new() })
    }

    /// Checks whether some of the known processes still exist, and adds those that do not to `ended`. Every process
    /// gets its turn within about a hundred calls.
    pub fn check_some_alive(&mut self, ended: &mut Vec<ProcessKey>) {
        for _ in 0..self.check_queue.len().min(16.max(self.check_queue.len() / 64)) {
            let Some(pid) = self.check_queue.pop_front() else { return };
            let Some(known) = self.known.get(&pid) else { continue };
            if exists(pid) {
                self.check_queue.push_back(pid);
            } else {
                ended.push(ProcessKey { pid, start: known.start });
                self.known.remove(&pid);
            }
        }
    }

    /// Number of known processes.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

fn exists(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    // 0 is the idle task, which never ends.
    let Some(pid) = Pid::from_raw(pid) else { return true };
    // Signal 0 is not delivered: kill(2) only checks whether the process exists. EPERM means that it does.
    test_kill_process(pid) != Err(Errno::SRCH)
}

/// A name in the kernel's form: cut to 15 bytes, padded with zeros.
fn comm_of(name: &[u8]) -> Comm {
    let mut comm = Comm::default();
    comm.iter_mut().take(15).zip(name).for_each(|(to, from)| *to = *from);
    comm
}

/// The bytes of a name without the padding.
fn name_bytes(comm: &Comm) -> &[u8] {
    comm.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn name_text(comm: &Comm) -> String {
    String::from_utf8_lossy(name_bytes(comm)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_reported_once_and_when_it_changes() {
        let mut processes = Processes::default();
        let mut ended = Vec::new();
        // No process has this id.
        let process = ProcessKey { pid: u32::MAX, start: 1 };
        assert_eq!(processes.record_run(process, comm_of(b"a"), &mut ended).unwrap().comm, "a");
        assert_eq!(processes.record_run(process, comm_of(b"a"), &mut ended), None);
        assert_eq!(processes.record_run(process, comm_of(b"b"), &mut ended).unwrap().comm, "b");
        assert!(ended.is_empty());
        let next = ProcessKey { start: 2, ..process };
        assert_eq!(processes.record_run(next, comm_of(b"b"), &mut ended).unwrap().process, next);
        assert_eq!(ended, [process]);
        assert_eq!(processes.record_exit(next, comm_of(b"b")), None);
        assert_eq!(processes.len(), 0);
    }

    #[test]
    fn an_adopted_process_ends_without_a_second_report() {
        let mut processes = Processes::default();
        let mut ended = Vec::new();
        let info = |pid| ProcessInfo {
            process: ProcessKey { pid, start: 5 },
            comm: "sleeper".into(),
            exe: "/bin/sleeper".into(),
        };
        processes.adopt(&info(i32::MAX as u32));
        assert_eq!(
            processes.record_exit(info(i32::MAX as u32).process, comm_of(b"sleeper")),
            None,
            "its name is known"
        );
        processes.adopt(&info(i32::MAX as u32 - 1));
        (0..3).for_each(|_| processes.check_some_alive(&mut ended));
        assert_eq!(ended, [info(i32::MAX as u32 - 1).process], "its end was not reported");
    }

    #[test]
    fn a_process_that_no_longer_exists_ends() {
        let mut processes = Processes::default();
        let mut ended = Vec::new();
        let me = proc_pid::process(PROC.as_ref(), std::process::id()).unwrap();
        let gone = ProcessKey { pid: i32::MAX as u32, start: 5 };
        let info = processes.record_run(me, comm_of(b"old"), &mut ended).unwrap();
        assert_eq!(info.exe, std::env::current_exe().unwrap().to_string_lossy());
        assert_ne!(info.comm, "old");
        processes.record_run(gone, comm_of(b"x"), &mut ended);
        processes.check_some_alive(&mut ended);
        assert_eq!(ended, [gone]);
        assert_eq!(processes.len(), 1);
    }
}
