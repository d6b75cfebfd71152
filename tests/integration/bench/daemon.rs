//! The built jouled as a child process, on a fake host.

use crate::Failure;
use crate::sysfs::FakeHost;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// A running jouled. SIGTERM ends it when this is dropped.
pub struct Daemon {
    process: Child,
    address: SocketAddr,
    state: tempfile::TempDir,
}

impl Daemon {
    /// Starts it and waits for its first metrics page. `config` is the text of its configuration file.
    pub fn start(host: &FakeHost, config: &str) -> Result<Self, Failure> {
        let mut daemon = Self::spawn(host, config, &[])?;
        let begin = Instant::now();
        while daemon.get("").is_err() {
            if let Some(status) = daemon.process.try_wait()? {
                return Err(format!("jouled ended at its start: {status}").into());
            }
            if begin.elapsed() > Duration::from_secs(10) {
                return Err("jouled shows no page".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// Starts it as a service manager does, and measures the time to its READY=1.
    pub fn ready(host: &FakeHost, config: &str) -> Result<(Duration, Self), Failure> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path)?;
        manager.set_read_timeout(Some(Duration::from_secs(10)))?;
        let begin = Instant::now();
        let daemon = Self::spawn(host, config, &[("NOTIFY_SOCKET", &path)])?;
        let mut message = [0; 4096];
        loop {
            let length = manager.recv(&mut message)?;
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                return Ok((begin.elapsed(), daemon));
            }
        }
    }

    fn spawn(host: &FakeHost, config: &str, environment: &[(&str, &Path)]) -> Result<Self, Failure> {
        let state = tempfile::tempdir()?;
        let file = state.path().join("jouled.toml");
        std::fs::write(&file, config)?;
        // The port was free a moment ago, so it most probably still is.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_jouled"));
        command.env_clear().env("JOULED_EXPORT__GUEST__VSOCK", "off").env("JOULED_EXPORT__DBUS__USE", "off").args([
            "--log-level",
            "error",
            "--listen",
            &address.to_string(),
        ]);
        command.arg("--config").arg(&file).arg("--sysfs").arg(host.sysfs()).arg("--state-dir").arg(state.path());
        // SAFETY: one system call between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM);
                Ok(())
            });
        }
        command.envs(environment.iter().copied());
        Ok(Self { process: command.spawn()?, address, state })
    }

    /// Gets the metrics page, with its head, over a new connection.
    pub fn get(&self, accept: &str) -> Result<String, Failure> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")?;
        let mut page = String::new();
        stream.read_to_string(&mut page)?;
        if page.starts_with("HTTP/1.1 200") { Ok(page) } else { Err(page.lines().next().unwrap_or("no answer").into()) }
    }

    /// Values of the metrics page by series, labels included.
    pub fn series(&self) -> Result<HashMap<String, f64>, Failure> {
        let page = self.get("")?;
        let samples = page.lines().filter(|line| line.starts_with("jouled_"));
        Ok(samples
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                Some((series.to_owned(), value.parse().ok()?))
            })
            .collect())
    }

    /// Times of the next `count` ticks, CLOCK_MONOTONIC in milliseconds.
    pub fn ticks(&self, count: usize) -> Result<Vec<f64>, Failure> {
        let mut stream = UnixStream::connect(self.state.path().join("jouled.sock"))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /v1/stream HTTP/1.0\r\n\r\n")?;
        let lines =
            BufReader::new(stream).lines().skip_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).skip(1);
        // The first snapshot may be that of the start, before ticks are regular.
        lines
            .skip(2)
            .take(count)
            .map(|line| {
                let snapshot: serde_json::Value = serde_json::from_str(&line?)?;
                Ok(snapshot["at"]["monotonic"].as_u64().ok_or("a snapshot without a time")? as f64 / 1e6)
            })
            .collect()
    }

    /// A field of /proc/PID/status (`VmRSS`, `VmHWM`) in MB of 10^6 bytes.
    pub fn memory_mb(&self, field: &str) -> Result<f64, Failure> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("no such field")?;
        let kib: f64 = line.trim_matches([':', ' ', '\t', 'k', 'B']).parse()?;
        Ok(kib * 1024.0 / 1e6)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // SAFETY: our own child, not reaped yet.
        unsafe { libc::kill(self.process.id() as i32, libc::SIGTERM) };
        for _ in 0..300 {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
