//! Which processes are known, what they are called, and which have gone. Not what they used.

use crate::model::usage::{ProcessInfo, ProcessKey};
use crate::sys::proc_pid;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// A process's short name as the kernel keeps it.
pub type Comm = [u8; 16];

/// Where the processes are that eBPF tells of, wherever jouled is told to look for others.
pub const PROC: &str = "/proc";

#[derive(Clone, Copy)]
struct Known {
    start: u64,
    comm: Comm,
}

/// Every process that ran and is not known to have ended.
#[derive(Default)]
pub struct Processes {
    known: FxHashMap<u32, Known>,
    /// Process ids to look after from time to time, oldest first. Each known one is in it.
    rounds: VecDeque<u32>,
}

impl Processes {
    /// The start of the known process with this id.
    pub fn start(&self, pid: u32) -> Option<u64> {
        self.known.get(&pid).map(|known| known.start)
    }

    /// Notes that a process ran under a name. Says what is new of it, and adds to `ended` whom it shows to be gone.
    pub fn ran(&mut self, process: ProcessKey, comm: Comm, ended: &mut Vec<ProcessKey>) -> Option<ProcessInfo> {
        let before = self.known.get(&process.pid).copied();
        match before {
            Some(known) if known.start == process.start && name(&known.comm) == name(&comm) => return None,
            Some(known) if known.start != process.start => {
                ended.push(ProcessKey { pid: process.pid, start: known.start });
            }
            _ => {}
        }
        let alive = proc_pid::stat(PROC.as_ref(), process.pid, |stat| (stat.start, comm_of(stat.comm)));
        let alive = alive.filter(|(start, _)| *start == process.start);
        let exe = if alive.is_some() { proc_pid::exe(PROC.as_ref(), process.pid) } else { String::new() };
        // The name in the kernel's hands may be older than an exec on another CPU. Kernel threads have a longer one in /proc that
        // changes with their work.
        let comm = alive.filter(|_| !exe.is_empty()).map_or(comm, |(_, comm)| comm);
        self.known.insert(process.pid, Known { start: process.start, comm });
        if before.is_none() {
            self.rounds.push_back(process.pid);
        }
        let told = before.is_some_and(|known| known.start == process.start && name(&known.comm) == name(&comm));
        (!told).then(|| ProcessInfo { process, comm: text(&comm), exe })
    }

    /// Takes over a process that did not run yet and is called so.
    pub fn adopt(&mut self, info: &ProcessInfo) {
        let comm = comm_of(info.comm.as_bytes());
        if self.known.insert(info.process.pid, Known { start: info.process.start, comm }).is_none() {
            self.rounds.push_back(info.process.pid);
        }
    }

    /// Notes that a process ran and ended. Says what is new of it.
    pub fn ran_and_ended(&mut self, process: ProcessKey, comm: Comm) -> Option<ProcessInfo> {
        let told = match self.known.get(&process.pid) {
            Some(known) if known.start == process.start => {
                let known = self.known.remove(&process.pid);
                known.is_some_and(|known| name(&known.comm) == name(&comm))
            }
            _ => false,
        };
        // A new name came with an exec, and what it executed cannot be read any more.
        (!told).then(|| ProcessInfo { process, comm: text(&comm), exe: String::new() })
    }

    /// Looks after some of the known processes, and says which of them are gone. All get their turn in about a hundred calls.
    pub fn look_after(&mut self, ended: &mut Vec<ProcessKey>) {
        for _ in 0..self.rounds.len().min(16.max(self.rounds.len() / 64)) {
            let Some(pid) = self.rounds.pop_front() else { return };
            let Some(known) = self.known.get(&pid) else { continue };
            if exists(pid) {
                self.rounds.push_back(pid);
            } else {
                ended.push(ProcessKey { pid, start: known.start });
                self.known.remove(&pid);
            }
        }
    }

    /// How many processes are known.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.known.len()
    }
}

fn exists(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    // SAFETY: signal 0 only asks whether the process exists.
    let result = unsafe { libc::kill(pid, 0) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

/// A name as the kernel keeps it.
fn comm_of(name: &[u8]) -> Comm {
    let mut comm = Comm::default();
    comm.iter_mut().take(15).zip(name).for_each(|(to, from)| *to = *from);
    comm
}

/// The bytes of the name.
fn name(comm: &Comm) -> &[u8] {
    comm.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn text(comm: &Comm) -> String {
    String::from_utf8_lossy(name(comm)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_told_once_and_when_it_changes() {
        let mut processes = Processes::default();
        let mut ended = Vec::new();
        // No process has this id.
        let process = ProcessKey { pid: u32::MAX, start: 1 };
        assert_eq!(processes.ran(process, comm_of(b"a"), &mut ended).unwrap().comm, "a");
        assert_eq!(processes.ran(process, comm_of(b"a"), &mut ended), None);
        assert_eq!(processes.ran(process, comm_of(b"b"), &mut ended).unwrap().comm, "b");
        assert!(ended.is_empty());
        let next = ProcessKey { start: 2, ..process };
        assert_eq!(processes.ran(next, comm_of(b"b"), &mut ended).unwrap().process, next);
        assert_eq!(ended, [process]);
        assert_eq!(processes.ran_and_ended(next, comm_of(b"b")), None);
        assert_eq!(processes.len(), 0);
    }

    #[test]
    fn who_was_taken_over_ends_by_its_name() {
        let mut processes = Processes::default();
        let mut ended = Vec::new();
        let info = |pid| ProcessInfo {
            process: ProcessKey { pid, start: 5 },
            comm: "sleeper".into(),
            exe: "/bin/sleeper".into(),
        };
        processes.adopt(&info(i32::MAX as u32));
        assert_eq!(
            processes.ran_and_ended(info(i32::MAX as u32).process, comm_of(b"sleeper")),
            None,
            "nothing is new of it"
        );
        processes.adopt(&info(i32::MAX as u32 - 1));
        (0..3).for_each(|_| processes.look_after(&mut ended));
        assert_eq!(ended, [info(i32::MAX as u32 - 1).process], "whose end nobody told");
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut processes = Processes::default();
        let mut ended = Vec::new();
        let me = proc_pid::process(PROC.as_ref(), std::process::id()).unwrap();
        let gone = ProcessKey { pid: i32::MAX as u32, start: 5 };
        let info = processes.ran(me, comm_of(b"old"), &mut ended).unwrap();
        assert_eq!(info.exe, std::env::current_exe().unwrap().to_string_lossy());
        assert_ne!(info.comm, "old");
        processes.ran(gone, comm_of(b"x"), &mut ended);
        processes.look_after(&mut ended);
        assert_eq!(ended, [gone]);
        assert_eq!(processes.len(), 1);
    }
}
