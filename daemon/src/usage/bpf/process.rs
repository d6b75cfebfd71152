//! Which processes are known, what they are called, and which have gone. Not what they used.

use crate::usage::{ProcessInfo, ProcessKey};
use rustc_hash::FxHashMap;
use std::collections::VecDeque;

/// A process's short name as the kernel keeps it.
pub type Comm = [u8; 16];

/// What /proc/PID/stat says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Start since boot in clock ticks.
    pub start: u64,
    /// It ran to its end and waits to be reaped.
    pub dead: bool,
    /// Its name.
    pub comm: Comm,
}

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
        let alive = stat(process.pid).filter(|stat| stat.start == process.start);
        let exe = match &alive {
            Some(_) => exe(process.pid),
            None => String::new(),
        };
        // The name in the kernel's hands may be older than an exec on another CPU. Kernel threads have a longer one in /proc that
        // changes with their work.
        let comm = alive.filter(|_| !exe.is_empty()).map_or(comm, |stat| stat.comm);
        self.known.insert(process.pid, Known { start: process.start, comm });
        if before.is_none() {
            self.rounds.push_back(process.pid);
        }
        let told = before.is_some_and(|known| known.start == process.start && name(&known.comm) == name(&comm));
        (!told).then(|| ProcessInfo { process, comm: text(&comm), exe })
    }

    /// Takes over a process that did not run yet and is called so.
    pub fn adopt(&mut self, info: &ProcessInfo) {
        let mut comm = Comm::default();
        comm.iter_mut().take(15).zip(info.comm.bytes()).for_each(|(to, from)| *to = from);
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

/// Reads /proc/PID/stat; `None` where there is no such process.
pub fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The name may hold anything, also `) `.
    let open = text.iter().position(|&byte| byte == b'(')?;
    let close = text.iter().rposition(|&byte| byte == b')')?;
    let mut comm = Comm::default();
    for (to, from) in comm.iter_mut().take(15).zip(text.get(open + 1..close)?) {
        *to = *from;
    }
    // The state is field 3, the start field 22.
    let mut fields = std::str::from_utf8(text.get(close + 1..)?).ok()?.split_ascii_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X" | "x");
    let start = fields.nth(18)?.parse().ok()?;
    Some(Stat { start, dead, comm })
}

fn exe(pid: u32) -> String {
    std::fs::read_link(format!("/proc/{pid}/exe")).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

fn exists(pid: u32) -> bool {
    let Ok(pid) = i32::try_from(pid) else { return false };
    // SAFETY: signal 0 only asks whether the process exists.
    let result = unsafe { libc::kill(pid, 0) };
    result == 0 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
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

    fn comm(name: &[u8]) -> Comm {
        let mut comm = Comm::default();
        comm[..name.len()].copy_from_slice(name);
        comm
    }

    #[test]
    fn stat_with_any_name() {
        let stat = |name: &[u8]| {
            let mut line = b"7 (".to_vec();
            line.extend(name);
            line.extend(b") S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 20");
            parse_stat(&line)
        };
        let plain = stat(b"sh").unwrap();
        assert_eq!((plain.start, plain.dead, text(&plain.comm).as_str()), (4242, false, "sh"));
        assert_eq!(text(&stat(b"a) Z (\n").unwrap().comm), "a) Z (\n");
        assert_eq!(text(&stat(b"\xff\"").unwrap().comm), "\u{fffd}\"");
        assert_eq!(parse_stat(b"7 (sh"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn a_name_is_told_once_and_when_it_changes() {
        let mut processes = Processes::default();
        let mut ended = Vec::new();
        // No process has this id.
        let process = ProcessKey { pid: u32::MAX, start: 1 };
        assert_eq!(processes.ran(process, comm(b"a"), &mut ended).unwrap().comm, "a");
        assert_eq!(processes.ran(process, comm(b"a"), &mut ended), None);
        assert_eq!(processes.ran(process, comm(b"b"), &mut ended).unwrap().comm, "b");
        assert!(ended.is_empty());
        let next = ProcessKey { start: 2, ..process };
        assert_eq!(processes.ran(next, comm(b"b"), &mut ended).unwrap().process, next);
        assert_eq!(ended, [process]);
        assert_eq!(processes.ran_and_ended(next, comm(b"b")), None);
        assert_eq!(processes.len(), 0);
    }

    #[test]
    fn who_was_taken_over_ends_by_its_name() {
        let mut processes = Processes::default();
        let mut ended = Vec::new();
        let info = |pid| ProcessInfo { process: ProcessKey { pid, start: 5 }, comm: "sleeper".into(), exe: "/bin/sleeper".into() };
        processes.adopt(&info(i32::MAX as u32));
        assert_eq!(processes.ran_and_ended(info(i32::MAX as u32).process, comm(b"sleeper")), None, "nothing is new of it");
        processes.adopt(&info(i32::MAX as u32 - 1));
        (0..3).for_each(|_| processes.look_after(&mut ended));
        assert_eq!(ended, [info(i32::MAX as u32 - 1).process], "whose end nobody told");
    }

    #[test]
    fn who_is_gone_is_forgotten() {
        let mut processes = Processes::default();
        let mut ended = Vec::new();
        let me = ProcessKey { pid: std::process::id(), start: stat(std::process::id()).unwrap().start };
        let gone = ProcessKey { pid: i32::MAX as u32, start: 5 };
        let info = processes.ran(me, comm(b"old"), &mut ended).unwrap();
        assert_eq!(info.exe, std::env::current_exe().unwrap().to_string_lossy());
        assert_ne!(info.comm, "old");
        processes.ran(gone, comm(b"x"), &mut ended);
        processes.look_after(&mut ended);
        assert_eq!(ended, [gone]);
        assert_eq!(processes.len(), 1);
    }
}
