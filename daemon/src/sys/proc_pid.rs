//! One process in /proc: name, start, executable, users (proc_pid_stat(5) and others). Its use over time is in
//! `usage/procfs`.

use crate::model::units::Nanos;
use crate::model::usage::ProcessKey;
use nix::time::{ClockId, clock_gettime};
use std::borrow::Cow;
use std::fs;
use std::path::Path;

/// PF_KTHREAD of linux/sched.h: set for kernel threads only.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Longest `task_struct.comm` in bytes (TASK_COMM_LEN without the zero byte).
const COMM_LENGTH: usize = 15;

/// The contents of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// The name: any bytes. For some kernel threads longer than 15 bytes.
    pub comm: &'a [u8],
    /// It is a kernel thread.
    pub kernel: bool,
    /// Process id of its parent; 0: it has none here.
    pub parent: u32,
    /// A zombie: all threads have ended, and it waits to be reaped.
    pub dead: bool,
    /// CPU time so far, user and system, in clock ticks (USER_HZ).
    pub ticks: u64,
    /// Start time, as in [`ProcessKey::start`].
    pub start: u64,
    /// The CPU that it ran on last.
    pub cpu: usize,
}

impl Stat<'_> {
    /// The name, with invalid UTF-8 replaced.
    pub fn name(&self) -> String {
        String::from_utf8_lossy(self.comm).into_owned()
    }

    /// The name as `task_struct.comm` has it, by which eBPF knows the process, too: for kernel threads /proc shows a
    /// longer one, and to that of a worker it appends what the worker does (wq_worker_comm() of the kernel's
    /// kernel/workqueue.c), which changes all the time.
    pub fn short_name(&self) -> &[u8] {
        if !self.kernel {
            return self.comm;
        }
        let name = self.comm.strip_prefix(b"kworker/").map_or(self.comm, |worker| {
            let length = worker.len() - appended(worker);
            &self.comm[..b"kworker/".len() + length]
        });
        name.get(..COMM_LENGTH).unwrap_or(name)
    }
}

/// Number of bytes that /proc has appended to the name of a worker: `0:1-events` and `u8:3+flush-8:0` have a suffix
/// after their number, `R-nvme-wq-nvme-wq` (a rescuer) has its work queue twice.
fn appended(worker: &[u8]) -> usize {
    match worker.strip_prefix(b"R-") {
        Some(queue) => {
            let half = queue.len() / 2;
            let twice =
                queue.len() % 2 == 1 && matches!(queue[half], b'-' | b'+') && queue[..half] == queue[half + 1..];
            if twice { half + 1 } else { 0 }
        }
        None => {
            let number = worker.iter().position(|byte| matches!(byte, b'-' | b'+')).unwrap_or(worker.len());
            worker.len() - number
        }
    }
}

/// Parses /proc/PID/stat. The name is between the first `(` and the last `)`, and may contain both.
pub fn parse_stat(text: &[u8]) -> Option<Stat<'_>> {
    let open = text.iter().position(|byte| *byte == b'(')?;
    let close = text.iter().rposition(|byte| *byte == b')')?;
    let comm = text.get(open + 1..close)?;
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // The first field after the name is number 3.
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<u64>().ok());
    let ended = matches!(fields.first(), Some(&("Z" | "X" | "x")));
    Some(Stat {
        comm,
        parent: field(4).and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0),
        kernel: field(9)? & KERNEL_THREAD != 0,
        // The first thread may have ended before the others.
        dead: ended && field(20).is_none_or(|threads| threads <= 1),
        ticks: field(14)?.checked_add(field(15)?)?,
        start: field(22)?,
        cpu: field(39).unwrap_or(0) as usize,
    })
}

/// Applies `of` to the stat of a process; `None`: there is no such process.
pub fn stat<T>(procfs: &Path, pid: u32, of: impl FnOnce(&Stat<'_>) -> T) -> Option<T> {
    let text = fs::read(procfs.join(pid.to_string()).join("stat")).ok()?;
    parse_stat(&text).as_ref().map(of)
}

/// The process that has this id now; `None`: there is none.
pub fn process(procfs: &Path, pid: u32) -> Option<ProcessKey> {
    stat(procfs, pid, |stat| ProcessKey { pid, start: stat.start })
}

/// CPU time of a process with all its threads, also of those that ended, since it began: its CPU clock, to the
/// nanosecond. Needs no permission. `pid` is an id in jouled's own PID namespace. `None`: there is no such process.
pub fn cpu_time(pid: u32) -> Option<Nanos> {
    // 0 would be this process. Larger ids than 2^22 do not exist (PID_MAX_LIMIT of linux/threads.h).
    let pid = i32::try_from(pid).ok().filter(|pid| (1..=1 << 22).contains(pid))?;
    // CPUCLOCK_SCHED of linux/posix-timers.h; glibc's clock_getcpuclockid(3) asks the kernel once more.
    let clock = ClockId::from_raw(!pid << 3 | 2);
    let time = clock_gettime(clock).ok()?;
    Some(Nanos(time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64))
}

/// Whether a folder is the /proc of the PID namespace that jouled runs in, so that its numbers are process ids here.
pub fn is_own(procfs: &Path) -> bool {
    fs::read_link(procfs.join("self")).is_ok_and(|pid| pid == Path::new(&std::process::id().to_string()))
}

/// Longest path of an executable, in bytes: it is a label of each of a process' series. Linux allows 4096, and any user
/// can have as many such processes as the system lets.
const EXE_MAX: usize = 256;
/// Of a longer path, the bytes that are kept of its end, which has the name of the program.
const EXE_END: usize = 160;

/// Path of a process' executable; empty where there is none, or it cannot be read. Its middle is left out where it is
/// long: [`shortened`].
pub fn exe(procfs: &Path, pid: u32) -> String {
    let link = fs::read_link(procfs.join(pid.to_string()).join("exe"));
    link.map(|exe| shortened(&exe.to_string_lossy()).into_owned()).unwrap_or_default()
}

/// A path of at most 256 bytes: of a longer one the beginning and the end, with `…` between.
pub fn shortened(path: &str) -> Cow<'_, str> {
    const BETWEEN: &str = "…";
    if path.len() <= EXE_MAX {
        return path.into();
    }
    let boundary = |at: &usize| path.is_char_boundary(*at);
    let begin = (0..=EXE_MAX - EXE_END - BETWEEN.len()).rev().find(boundary).unwrap_or_default();
    let end = (path.len() - EXE_END..=path.len()).find(boundary).unwrap_or(path.len());
    format!("{}{BETWEEN}{}", &path[..begin], &path[end..]).into()
}

/// All user ids of a process (proc_pid_status(5)); empty where it has ended.
pub fn uids(procfs: &Path, pid: u32) -> Vec<u32> {
    // The name in it may be invalid UTF-8.
    let status = fs::read(procfs.join(pid.to_string()).join("status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|uid| uid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(name: &[u8], state: &str, flags: u64, threads: u32) -> Vec<u8> {
        let rest = format!(") {state} 1 2 3 4 5 {flags} 7 8 9 10 11 12 13 14 15 16 {threads} 18 4242 20");
        [b"7 (", name, rest.as_bytes()].concat()
    }

    #[test]
    fn any_name() {
        for name in [&b"sh"[..], b"a) Z (\n", b"", b"\xff\""] {
            let text = line(name, "S", 4_194_560, 1);
            let stat = parse_stat(&text).unwrap();
            assert_eq!((stat.comm, stat.start, stat.ticks, stat.kernel, stat.dead), (name, 4242, 23, false, false));
        }
        assert_eq!(parse_stat(&line(b"\xff\"", "S", 0, 1)).unwrap().name(), "\u{fffd}\"");
        assert_eq!((parse_stat(b"7 (sh"), parse_stat(b"")), (None, None));
    }

    #[test]
    fn kernel_threads_have_one_name() {
        for (shown, name) in [
            ("kworker/0:1-events", "kworker/0:1"),
            ("kworker/0:1+events_long", "kworker/0:1"),
            ("kworker/0:1", "kworker/0:1"),
            ("kworker/0:1H-kblockd", "kworker/0:1H"),
            ("kworker/u16:3+flush-259:0", "kworker/u16:3"),
            ("kworker/u129:12-i", "kworker/u129:12"),
            ("kworker/R-nvme-wq-nvme-wq", "kworker/R-nvme-"),
            ("kworker/R-mld-mld", "kworker/R-mld"),
            ("kworker/R-mld+mld", "kworker/R-mld"),
            ("kworker/R-mld", "kworker/R-mld"),
            ("kworker/", "kworker/"),
            ("kvm-nx-lpage-recovery-4242", "kvm-nx-lpage-re"),
            ("ksoftirqd/0", "ksoftirqd/0"),
            ("jbd2/sda1-8", "jbd2/sda1-8"),
        ] {
            let text = line(shown.as_bytes(), "S", KERNEL_THREAD, 1);
            let found = parse_stat(&text).unwrap().short_name().to_vec();
            assert_eq!(String::from_utf8(found).unwrap(), name, "{shown}");
        }
        let text = line(b"kworker/0:1-events", "S", 0, 1);
        assert_eq!(parse_stat(&text).unwrap().short_name(), b"kworker/0:1-events", "a program of a user");
    }

    #[test]
    fn zombies() {
        let dead = |state, threads| parse_stat(&line(b"x", state, 0, threads)).unwrap().dead;
        assert!(dead("Z", 1) && dead("X", 0) && !dead("S", 1) && !dead("R", 9));
        assert!(!dead("Z", 2), "others live on where the first thread ended");
    }

    #[test]
    fn this_process() {
        let (proc, me) = (Path::new("/proc"), std::process::id());
        assert_eq!(stat(proc, me, |stat| (stat.kernel, stat.dead)), Some((false, false)));
        assert!(process(proc, me).is_some_and(|process| process.start > 0));
        assert_eq!(exe(proc, me), std::env::current_exe().unwrap().to_string_lossy());
        assert!(!uids(proc, me).is_empty());
        assert!(is_own(proc) && !is_own(Path::new("/")));
        let before = cpu_time(me).unwrap();
        assert!(before > Nanos::ZERO);
        while cpu_time(me).unwrap() <= before {}
        assert_eq!([0, i32::MAX as u32, u32::MAX].map(cpu_time), [None; 3]);
        assert_eq!((process(proc, u32::MAX), exe(proc, u32::MAX)), (None, String::new()));
    }

    #[test]
    fn a_long_path_is_shortened_to_its_ends() {
        let long = format!("/home/eve/{}/bin/miner", "x".repeat(4000));
        let short = shortened(&long);
        assert!(short.len() <= 256 && short.starts_with("/home/eve/x") && short.ends_with("x/bin/miner"), "{short}");
        let other = format!("/home/eve/{}/bin/miner (deleted)", "é".repeat(2000));
        assert!(shortened(&other).len() <= 256 && shortened(&shortened(&other)) == shortened(&other));
        assert_eq!(shortened("/bin/sh"), "/bin/sh");
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_stat(&text);
        }
    }
}
