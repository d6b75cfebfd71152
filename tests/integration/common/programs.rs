//! Real programs that run beside a test: where they are, and a child that ends with the test.
#![allow(dead_code, reason = "every test crate that includes this uses its own part of it")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A child that is killed when dropped.
pub struct Running(pub Child);

impl Running {
    /// Starts a program without a terminal.
    pub fn start(command: &mut Command) -> Self {
        let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(quiet.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a program is: in PATH, or where Debian keeps servers. `None`, with a message, where it is not installed.
pub fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = ["/usr/sbin", "/usr/lib/nut", "/lib/nut"].map(PathBuf::from);
    let found = std::env::split_paths(&path).chain(folders).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: no {name} (packaging/dev/deps.sh test gets it)");
    }
    found
}

/// A TCP port of the loopback that is free now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
