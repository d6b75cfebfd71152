//! A folder with sockets, the program, and a simulated jouled.
#![allow(dead_code, reason = "not all tests use all of it")]

use std::io::{BufRead, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn id(number: u32) -> String {
    format!("{number:064x}")
}

pub struct World {
    pub folder: tempfile::TempDir,
    pub children: Vec<Child>,
    options: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl World {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), children: Vec::new(), options: Vec::new() }
    }

    pub fn path(&self, of: &str) -> PathBuf {
        self.folder.path().join(of)
    }

    /// Starts the program for these runtimes: the option that names each, and its socket.
    pub fn start(&mut self, runtimes: &[(&str, &str)]) {
        let options = runtimes.iter().flat_map(|(option, runtime)| [(*option).into(), self.path(runtime)]);
        let options: Vec<String> = options.map(|option: PathBuf| option.display().to_string()).collect();
        self.start_with(&options.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Starts the program with these options.
    pub fn start_with(&mut self, options: &[&str]) {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
        self.again();
    }

    /// Starts the program with the options of the last time.
    pub fn again(&mut self) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_jouled-containers"));
        command.args(&self.options).args(["--label", "team", "--socket"]).arg(self.path("inventory.sock"));
        self.children.push(command.stderr(Stdio::inherit()).spawn().unwrap());
    }

    /// Ends the program.
    pub fn stop(&mut self) {
        for mut child in self.children.drain(..) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The most memory that the program started last has had.
    pub fn peak_kilobytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.children.last().unwrap().id())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

/// A jouled that takes lines.
pub struct Jouled(BufReader<UnixStream>);

impl Jouled {
    pub fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(BufReader::new(stream))
    }

    /// The first line in which `is` is found.
    pub fn line(&mut self, is: impl Fn(&str) -> bool) -> serde_json::Value {
        let (began, mut last) = (Instant::now(), String::new());
        loop {
            let mut line = String::new();
            // There is a line every ten seconds.
            assert!(self.0.read_line(&mut line).unwrap() > 0, "it closed the connection");
            assert!(began.elapsed() < PATIENCE, "waited in vain; before: {last}");
            last.push_str(line.get(..line.len().min(300)).unwrap_or_default());
            assert!(line.len() < 4 << 20);
            if is(&line) {
                return serde_json::from_str(&line).unwrap();
            }
        }
    }
}

pub fn lacks_ok(line: &str) -> bool {
    !line.contains(r#""health":"ok""#)
}
