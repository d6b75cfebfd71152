//! Shared by the integration tests: the built binaries, started and queried from outside. The fake hosts that they run
//! on are in `sysfs` and `world`.

pub mod bpf;
pub mod burn;
pub mod bus;
pub mod client;
pub mod examples;
pub mod known;
pub mod kubelet;
pub mod many_units;
pub mod on_bus;
pub mod page;
pub mod plug_sim;
pub mod programs;
pub mod protocol_host;
pub mod redfish_sim;
pub mod redfish_trees;
pub mod sysfs;
pub mod world;

pub use bus::{Bus, Policy};
pub use client::{Answer, Ticks, get};
pub use page::Page;
pub use protocol_host::ProtocolHost;
pub use world::World;

use jouled::model::snapshot::Snapshot;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

/// Time limit for anything that a test waits for; generous, as the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Time limit from SIGTERM to the end of the daemon.
const STOP: Duration = Duration::from_secs(6);

/// The daemon on a fake host, with its own state folder and port, and ticks of 100 ms. It reads none of this machine's
/// configuration.
pub fn jouled(sysfs: &Path, procfs: &Path, state: &Path) -> Command {
    let config = state.with_extension("toml");
    if !config.exists() {
        std::fs::write(&config, "").unwrap();
    }
    let mut command = bare_jouled();
    command.arg("--config").arg(config).args(["--listen", "127.0.0.1:0"]).arg("--state-dir").arg(state);
    command.arg("--sysfs").arg(sysfs).arg("--procfs").arg(procfs);
    command.env("JOULED_INTERVAL", "100ms").env("JOULED_NODE_NAME", "node-1").env("JOULED_USAGE__SOURCE", "procfs");
    // systemd-machined would be this machine's.
    command.env("JOULED_INVENTORY__MACHINED", "false");
    // These worlds draw a few joules.
    command.env("JOULED_SERIES__MIN_JOULES", "0");
    command
}

/// The daemon without arguments and with an empty environment. Without AF_VSOCK, as a build machine may itself be a
/// guest, and without this machine's bus.
pub fn bare_jouled() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_jouled"));
    command.env_clear().env("JOULED_EXPORT__GUEST__VSOCK", "off").env("JOULED_EXPORT__DBUS__USE", "off");
    command
}

/// joulectl for the daemon with this state folder.
pub fn joulectl(state: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_joulectl"));
    output(command.env_clear().arg("--socket").arg(state.join("jouled.sock")).args(arguments))
}

/// Runs a command that must end by itself.
pub fn output(command: &mut Command) -> Output {
    fn all(mut from: impl Read + Send + 'static) -> impl FnOnce() -> Vec<u8> {
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            bytes
        });
        || reader.join().unwrap()
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (all(child.stdout.take().unwrap()), all(child.stderr.take().unwrap()));
    let status = wait(&mut child, PATIENCE);
    let (stdout, stderr) = (stdout(), stderr());
    let status =
        status.unwrap_or_else(|| panic!("{command:?} does not end; it said {}", String::from_utf8_lossy(&stderr)));
    Output { status, stdout, stderr }
}

/// Runs a command that must end with exit code 1; returns its standard error.
pub fn refused(command: &mut Command) -> String {
    let output = output(command);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// Standard output of a command that must have succeeded.
pub fn said(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Waits for the end of a child; kills it after `time` (`None`).
fn wait(child: &mut Child, time: Duration) -> Option<ExitStatus> {
    let end = Instant::now() + time;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if Instant::now() > end {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Calls `seen` until it returns something.
pub fn until<T>(what: &str, mut seen: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = seen() {
            return value;
        }
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// CLOCK_MONOTONIC in nanoseconds.
pub fn monotonic() -> u64 {
    jouled::model::source::Stamp::now().monotonic.0
}

/// Whether this test runs as root; prints that the test is skipped where it does not.
pub fn root() -> bool {
    // SAFETY: no arguments.
    let root = unsafe { libc::geteuid() == 0 };
    if !root {
        println!("skipped: not root");
    }
    root
}

/// Of the tests that need root: those that measure or load the whole machine run one at a time, the others side by
/// side.
static MACHINE: RwLock<()> = RwLock::new(());

/// Lock of a test as root that measures or loads the whole machine.
pub fn whole_machine() -> RwLockWriteGuard<'static, ()> {
    // A test that failed has no state that could affect the next one.
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Lock of a test as root that other tests of this kind do not affect.
pub fn shared_machine() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Lines {
    lines: Mutex<(Vec<String>, bool)>,
    more: Condvar,
}

/// The log lines of a daemon.
#[derive(Clone, Default)]
pub struct Log(Arc<Lines>);

impl Log {
    fn follow(&self, from: impl Read + Send + 'static) {
        let lines = self.0.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                lines.lines.lock().unwrap().0.push(String::from_utf8_lossy(&line.unwrap()).into_owned());
                lines.more.notify_all();
            }
            lines.lines.lock().unwrap().1 = true;
            lines.more.notify_all();
        });
    }

    /// Waits for a line that contains `text`.
    pub fn wait_for(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let mut guard = self.0.lines.lock().unwrap();
        loop {
            if let Some(line) = guard.0.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            assert!(!guard.1 && Instant::now() < end, "the log has no {text:?}:\n{}", guard.0.join("\n"));
            guard = self.0.more.wait_timeout(guard, Duration::from_millis(200)).unwrap().0;
        }
    }

    /// All lines so far.
    pub fn text(&self) -> String {
        self.0.lines.lock().unwrap().0.join("\n")
    }

    /// All lines, once the log has ended.
    fn whole(&self) -> String {
        let mut guard = self.0.lines.lock().unwrap();
        while !guard.1 {
            guard = self.0.more.wait(guard).unwrap();
        }
        guard.0.join("\n")
    }
}

/// A running daemon. Killed when dropped.
pub struct Daemon {
    child: Child,
    /// Its log.
    pub log: Log,
    /// Address of its metrics page.
    pub address: SocketAddr,
    /// Its state folder.
    pub state: PathBuf,
}

impl Daemon {
    /// Starts it and waits until it serves.
    pub fn start(command: &mut Command, state: &Path) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let log = Log::default();
        log.follow(child.stderr.take().unwrap());
        let mut daemon = Self { child, log, address: SocketAddr::from(([0; 4], 0)), state: state.to_path_buf() };
        let line = daemon.log.wait_for("metrics at http");
        daemon.address = line.split("://").nth(1).unwrap().strip_suffix("/metrics").unwrap().parse().unwrap();
        daemon.log.wait_for("joulectl's socket is");
        daemon
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Its snapshots, beginning with the last one.
    pub fn ticks(&self) -> Ticks {
        Ticks::open(&self.state.join("jouled.sock"))
    }

    /// Its last snapshot.
    pub fn snapshot(&self) -> Snapshot {
        self.ticks().next()
    }

    /// Its metrics page, checked for its format.
    pub fn page(&self) -> Page {
        let answer = get(self.address, "/metrics", &[]);
        assert_eq!(answer.status, 200, "{}", answer.body);
        Page::parse(&answer.body)
    }

    /// Sends SIGTERM: it must end in time and with exit code 0. Returns its log.
    pub fn stop(mut self) -> String {
        self.signal(libc::SIGTERM);
        let asked = Instant::now();
        let status = wait(&mut self.child, STOP);
        let (log, took) = (self.log.text(), asked.elapsed());
        let status = status.unwrap_or_else(|| panic!("still there {took:?} after SIGTERM:\n{log}"));
        assert_eq!(status.code(), Some(0), "{log}");
        let log = self.log.whole();
        assert!(!log.contains("panicked"), "{log}");
        log
    }

    /// Sends SIGKILL, as in a crash.
    pub fn kill(mut self) {
        self.signal(libc::SIGKILL);
        self.child.wait().unwrap();
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        // SAFETY: plain system call; the child has not been waited for, so its id is still its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
