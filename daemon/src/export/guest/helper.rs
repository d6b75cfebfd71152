//! The helper `vhost-device-vsock`: which hybrid socket it serves for which vhost-user socket, read from its command
//! line (/proc/PID/cmdline). The command line is untrusted.

use rustc_hash::FxHashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc::channel;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

/// Longest command line that is read, in bytes.
const CMDLINE_MAX: u64 = 512 << 10;
/// Longest time to wait for a command line. A process can make reading block for ever: its pages may belong to a file
/// system that it serves itself (FUSE).
const PATIENCE: Duration = Duration::from_secs(1);
/// Most reader threads that may be blocked at a time, one for each process.
const STUCK_MAX: usize = 16;

/// Reads command lines, each on its own thread. A thread that blocks is abandoned, and its process is not read again
/// while it blocks.
#[derive(Debug, Default)]
pub(super) struct Commands {
    stuck: FxHashMap<u32, JoinHandle<()>>,
}

impl Commands {
    /// The command line of a process; `None` where it cannot be read within [`PATIENCE`].
    pub fn read(&mut self, procfs: &Path, pid: u32) -> Option<Vec<u8>> {
        self.stuck.retain(|_, thread| !thread.is_finished());
        if self.stuck.contains_key(&pid) || self.stuck.len() >= STUCK_MAX {
            return None;
        }
        let path = procfs.join(pid.to_string()).join("cmdline");
        let (answer, answers) = channel();
        let work = move || {
            let mut line = Vec::new();
            let read = File::open(path).and_then(|file| file.take(CMDLINE_MAX).read_to_end(&mut line));
            let _ = answer.send(read.ok().map(|_| line));
        };
        let thread = Builder::new().name("jouled-helpers".into()).spawn(work).ok()?;
        match answers.recv_timeout(PATIENCE) {
            Ok(line) => line,
            Err(_) => {
                tracing::warn!(
                    "guest channel: the command line of process {pid} cannot be read in {PATIENCE:?}: it is no VM's helper"
                );
                self.stuck.insert(pid, thread);
                None
            }
        }
    }
}

/// Name of the helper's executable.
const PROGRAM: &str = "vhost-device-vsock";

/// One VM that the helper serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// Path of the hybrid socket.
    pub uds: String,
    /// Path of the vhost-user socket that the VMM connects to.
    pub socket: String,
}

/// The VMs that a helper's command line names; `None` where the process is another program.
///
/// # Errors
/// Where the VM behind a connection cannot be identified, with the reason.
pub fn served(cmdline: &[u8]) -> Option<Result<Vec<Served>, &'static str>> {
    let words: Vec<String> =
        cmdline.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let program = Path::new(words.first()?).file_name()?;
    (program == PROGRAM).then(|| vms(&words[1..]))
}

fn vms(words: &[String]) -> Result<Vec<Served>, &'static str> {
    let (mut vms, mut alone) = (Vec::new(), Served::default());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value)),
            _ => (word.as_str(), None),
        };
        let mut value = || value.map(str::to_owned).or_else(|| words.next().cloned()).unwrap_or_default();
        match option {
            "--vm" => vms.push(vm(&value())?),
            "--uds-path" => alone.uds = value(),
            "--socket" => alone.socket = value(),
            "--forward-cid" => return Err(FORWARDS),
            "--config" => return Err("it takes its VMs from a configuration file: give them with --vm"),
            _ => {}
        }
    }
    if alone != Served::default() {
        vms.push(alone);
    }
    vms.retain(|vm| !vm.uds.is_empty() && !vm.socket.is_empty());
    Ok(vms)
}

const FORWARDS: &str = "it forwards to a CID (forward-cid), so that all its guests look the same";

fn vm(text: &str) -> Result<Served, &'static str> {
    let mut vm = Served::default();
    for part in text.split(',') {
        match part.split_once('=').unwrap_or((part, "")) {
            ("uds-path", value) => vm.uds = value.to_owned(),
            ("socket", value) => vm.socket = value.to_owned(),
            ("forward-cid", _) => return Err(FORWARDS),
            _ => {}
        }
    }
    Ok(vm)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Option<Result<Vec<Served>, &'static str>> {
        served(words.join("\0").as_bytes())
    }

    fn pair(uds: &str, socket: &str) -> Served {
        Served { uds: uds.into(), socket: socket.into() }
    }

    #[test]
    fn a_command_line_that_blocks_is_waited_for_once() {
        let root = tempfile::tempdir().unwrap();
        let cmdline = |pid: u32| {
            let dir = root.path().join(pid.to_string());
            std::fs::create_dir(&dir).unwrap();
            dir.join("cmdline")
        };
        let (pipe, good) = (cmdline(7), cmdline(8));
        std::fs::write(good, "a\0b\0").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
        let mut commands = Commands::default();
        assert_eq!(commands.read(root.path(), 7), None);
        let from = std::time::Instant::now();
        assert_eq!(commands.read(root.path(), 7), None);
        assert_eq!(commands.read(root.path(), 8).as_deref(), Some(&b"a\0b\0"[..]));
        assert!(from.elapsed() < PATIENCE / 2, "{:?}", from.elapsed());
        // Unblocks the reader thread.
        std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        while !commands.stuck[&7].is_finished() {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(commands.read(root.path(), 9), None);
        assert!(commands.stuck.is_empty());
    }

    #[test]
    fn both_ways_of_writing_it() {
        let vm = "--vm";
        assert_eq!(
            of(&[
                "/usr/bin/vhost-device-vsock",
                vm,
                "guest-cid=3,uds-path=/x/a,socket=/x/a.s,tx-buffer-size=65536",
                "--vm=uds-path=/x/b,socket=/x/b.s"
            ]),
            Some(Ok(vec![pair("/x/a", "/x/a.s"), pair("/x/b", "/x/b.s")]))
        );
        assert_eq!(
            of(&["vhost-device-vsock", "--guest-cid", "3", "--socket", "/x/a.s", "--uds-path=/x/a"]),
            Some(Ok(vec![pair("/x/a", "/x/a.s")]))
        );
        assert_eq!(of(&["/bin/sh", vm, "uds-path=/x/a,socket=/x/a.s"]), None);
        assert_eq!(of(&[""]), None);
    }

    #[test]
    fn a_helper_that_erases_who_it_is_from_is_refused() {
        for words in [
            &["vhost-device-vsock", "--forward-cid=1", "--vm", "uds-path=/x/a,socket=/x/a.s"][..],
            &["vhost-device-vsock", "--vm", "uds-path=/x/a,socket=/x/a.s,forward-cid=1"],
            &["vhost-device-vsock", "--uds-path", "/x/a", "--socket", "/x/s", "--forward-cid", "1"],
            &["vhost-device-vsock", "--config", "/etc/x.yml"],
        ] {
            assert!(matches!(of(words), Some(Err(_))), "{words:?}");
        }
    }
}
