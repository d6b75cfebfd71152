//! A private message bus: dbus-daemon with one of three policies. Not the machine's bus.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// What the bus permits.
#[derive(Clone, Copy, Debug)]
pub enum Policy {
    /// Everything to everybody.
    Open,
    /// A system bus with the policy file that jouled installs.
    Installed,
    /// A system bus without that file, as where jouled is not installed.
    Bare,
}

/// A bus. It ends when this is dropped.
pub struct Bus {
    daemon: Child,
    /// Its address.
    pub address: String,
}

impl Bus {
    /// Starts a bus with its socket in `folder`; prints the reason where there is no dbus-daemon (`None`).
    pub fn start(folder: &Path, policy: Policy) -> Option<Self> {
        let address = format!("unix:path={}", folder.join("bus").display());
        let file = folder.join("bus.conf");
        std::fs::write(&file, config(&address, policy)).unwrap();
        let _ = std::fs::remove_file(folder.join("bus"));
        let mut command = Command::new("dbus-daemon");
        command
            .arg("--config-file")
            .arg(file)
            .args(["--nofork", "--print-address"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut daemon = match command.spawn() {
            Ok(daemon) => daemon,
            Err(error) => {
                println!("skipped: dbus-daemon: {error}");
                return None;
            }
        };
        let mut line = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "dbus-daemon does not start");
        Some(Self { daemon, address })
    }

    /// Its process id.
    #[allow(dead_code, reason = "for the benchmark")]
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// busctl for this bus; prints the reason where there is none (`None`).
    pub fn busctl(&self, arguments: &[&str]) -> Option<Command> {
        if Command::new("busctl").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("skipped: no busctl");
            return None;
        }
        let mut command = Command::new("busctl");
        command.arg(format!("--address={}", self.address)).arg("--no-pager").args(arguments);
        Some(command)
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

fn config(address: &str, policy: Policy) -> String {
    let system = "<policy context='default'><allow user='*'/><deny own='*'/><deny send_type='method_call'/><allow send_type='signal'/>\
                  <allow send_requested_reply='true' send_type='method_return'/><allow send_requested_reply='true' send_type='error'/>\
                  <allow receive_type='method_call'/><allow receive_type='method_return'/><allow receive_type='error'/>\
                  <allow receive_type='signal'/><allow send_destination='org.freedesktop.DBus'/></policy>";
    let installed = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/org.jouled1.conf");
    let rules = match policy {
        Policy::Open => {
            "<policy context='default'><allow user='*'/><allow send_destination='*'/><allow receive_sender='*'/>\
                         <allow own='*'/></policy>"
                .to_owned()
        }
        Policy::Installed => format!("{system}<include>{installed}</include>"),
        Policy::Bare => system.to_owned(),
    };
    // A system bus limits a caller to 128 pending replies; the tests want floods to reach jouled.
    format!(
        "<busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth>{rules}\
         <limit name='max_replies_per_connection'>1000000</limit></busconfig>"
    )
}
