//! A BMC for tests: OpenIPMI's ipmi_sim with DCMI (`dcmi.c`), and a relay that loses, delays and cuts its datagrams.

use crate::common::{PATIENCE, until};
use ipmi_rs::connection::{IpmiConnection, LogicalUnit, Message, NetFn, Request, RequestTargetAddress};
use ipmi_rs::rmcp::Rmcp;
use std::fs::{self, File};
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

pub const USER: &str = "root";
pub const PASSWORD: &str = "topsecret";

/// The simulator, running. Killed when dropped.
pub struct Sim {
    child: Option<Child>,
    program: PathBuf,
    dir: tempfile::TempDir,
    pub port: u16,
}

impl Sim {
    /// Starts it with DCMI. `None`, with a message, where this machine has no ipmi_sim.
    pub fn start() -> Option<Self> {
        Self::with(true, "")
    }

    /// Without DCMI, and with two sensors: a temperature, and `Pwr Consumption` at 34 steps of 4 W.
    pub fn with_sensor() -> Option<Self> {
        let record = |number: u8, unit: u8, name: &str| {
            let mut bytes = vec![0; 48];
            (bytes[0], bytes[2], bytes[3], bytes[5], bytes[7], bytes[8]) = (number, 0x51, 1, 0x20, number, 7);
            (bytes[12], bytes[13], bytes[21], bytes[24]) = (0x0B, 1, unit, 4);
            bytes[47] = 0xC0 | name.len() as u8;
            bytes.extend(name.bytes());
            bytes[4] = (bytes.len() - 5) as u8;
            let none = "0".repeat(15);
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("0x{byte:02x}")).collect();
            format!(
                "main_sdr_add 0x20 {}\nsensor_add 0x20 0 {number} 0x0b 1\nsensor_set_value 0x20 0 {number} 34 0\n\
                 sensor_set_event_support 0x20 0 {number} enable scanning none {none} {none} {none} {none}\n",
                bytes.join(" ")
            )
        };
        Self::with(false, &(record(1, 1, "Inlet Temp") + &record(7, 6, "Pwr Consumption")))
    }

    fn with(dcmi: bool, more: &str) -> Option<Self> {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let target = option_env!("CARGO_TARGET_TMPDIR").map(|tmp| Path::new(tmp).with_file_name("tools"));
        // The unpacked one first: it has the headers.
        let folders = target.into_iter().chain(std::env::split_paths(&paths));
        let program = folders.map(|dir| dir.join("ipmi_sim")).find(|path| path.exists());
        let Some(program) = program else {
            println!("skipped: no ipmi_sim (packaging/dev/deps.sh test)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let module = dir.path().join("dcmi.so");
        let unpacked = program.with_file_name("openipmi").join("usr/include");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/integration/ipmi_sim/dcmi.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&module).arg("-I").arg(unpacked).arg(source);
        match cc.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => {
                println!("skipped: no C compiler: {error}");
                return None;
            }
        }
        let port = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let auth = ["callback", "user", "operator", "admin"]
            .map(|level| format!("    allowed_auths_{level} none md2 md5 straight\n"));
        let lan = format!(
            "name \"fake\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n{}    guid a123456789abcdefa123456789abcdef\n  endlan\n  \
             user 2 true \"{USER}\" \"{PASSWORD}\" admin 10 none md2 md5 straight\n{}",
            auth.concat(),
            if dcmi {
                format!("  loadlib \"{}\" \"{}\"\n", module.display(), dir.path().join("control").display())
            } else {
                String::new()
            },
        );
        fs::write(dir.path().join("lan.conf"), lan).unwrap();
        let mc = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n";
        fs::write(dir.path().join("sim.emu"), format!("{mc}{more}mc_enable 0x20\n")).unwrap();
        fs::create_dir(dir.path().join("state")).unwrap();
        let mut sim = Self { child: None, program, dir, port };
        sim.says("watts 137");
        sim.boot();
        Some(sim)
    }

    /// Starts it again.
    pub fn boot(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let log = File::create(path("log")).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(path("lan.conf")).arg("-f").arg(path("sim.emu")).arg("-s").arg(path("state")).arg("-n");
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.child = Some(child);
        // It answers an RMCP ping once it listens.
        let io = UdpSocket::bind("127.0.0.1:0").unwrap();
        io.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let ping = [6, 0, 0xFF, 6, 0, 0, 0x11, 0xBE, 0x80, 1, 0, 0];
        until("ipmi_sim", || {
            let _ = io.send_to(&ping, ("127.0.0.1", self.port));
            io.recv(&mut [0; 64]).ok()
        });
    }

    /// Ends it, like a BMC that restarts.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Sets what `dcmi.c` answers from now on.
    pub fn says(&self, line: &str) {
        let new = self.dir.path().join("control.new");
        fs::write(&new, line).unwrap();
        fs::rename(new, self.dir.path().join("control")).unwrap();
    }

    /// Number of its sessions, with the one of this call.
    pub fn sessions(&self) -> u8 {
        let ask = |rmcp: &mut Rmcp, command, data: &[u8]| {
            let message = Message::new_request(NetFn::App, command, data.to_vec());
            rmcp.send_recv(&mut Request::new(message, RequestTargetAddress::Bmc(LogicalUnit::Zero))).unwrap()
        };
        let mut rmcp = Rmcp::new(("127.0.0.1", self.port), PATIENCE).unwrap();
        rmcp.activate(true, Some(USER), Some(PASSWORD.as_bytes())).unwrap();
        assert_eq!(ask(&mut rmcp, 0x3B, &[4]).cc(), 0);
        // Get Session Info of this session: handle, most sessions, sessions now.
        let info = ask(&mut rmcp, 0x3D, &[0]);
        assert_eq!(info.cc(), 0);
        let text = format!("{rmcp:?}");
        let id: u32 = text.split("session_id: ").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        assert_eq!(ask(&mut rmcp, 0x3C, &id.to_le_bytes()).cc(), 0);
        info.data()[2]
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Faults of datagrams from the BMC.
#[derive(Default)]
pub struct Faults {
    /// Number of datagrams to lose.
    pub lose: AtomicUsize,
    /// Delay in milliseconds.
    pub late_ms: AtomicU32,
    /// Number of datagrams to cut to half.
    pub cut: AtomicUsize,
    /// Whether each comes twice.
    pub twice: AtomicBool,
    /// Number of sessions that were opened.
    pub sessions: AtomicUsize,
    /// Number of datagrams to the BMC.
    pub sent: AtomicUsize,
}

/// A relay between jouled and a BMC.
pub struct Line {
    pub faults: Arc<Faults>,
    pub port: u16,
}

fn take(counter: &AtomicUsize) -> bool {
    counter.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl Line {
    /// A relay to a BMC on this machine. Its threads end with the test's process.
    pub fn to(port: u16) -> Self {
        let front = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let line = Self { faults: Arc::default(), port: front.local_addr().unwrap().port() };
        let faults = Arc::clone(&line.faults);
        thread::spawn(move || {
            let mut peers: Vec<(SocketAddr, Arc<UdpSocket>)> = Vec::new();
            let mut bytes = [0; 2048];
            loop {
                let (length, peer) = front.recv_from(&mut bytes).unwrap();
                faults.sent.fetch_add(1, SeqCst);
                // RMCP+ Open Session Request.
                if length > 5 && bytes[4] == 6 && bytes[5] == 0x10 {
                    faults.sessions.fetch_add(1, SeqCst);
                }
                if peers.iter().all(|(known, _)| *known != peer) {
                    let back = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
                    back.connect(("127.0.0.1", port)).unwrap();
                    peers.push((peer, Arc::clone(&back)));
                    let (front, faults) = (Arc::clone(&front), Arc::clone(&faults));
                    thread::spawn(move || answers(&front, &back, peer, &faults));
                }
                let back = &peers.iter().find(|(known, _)| *known == peer).unwrap().1;
                let _ = back.send(&bytes[..length]);
            }
        });
        line
    }
}

fn answers(front: &Arc<UdpSocket>, back: &UdpSocket, peer: SocketAddr, faults: &Arc<Faults>) {
    let mut bytes = [0; 2048];
    loop {
        // The port of a BMC that is gone refuses datagrams; the BMC may come back.
        let Ok(mut length) = back.recv(&mut bytes) else { continue };
        if take(&faults.lose) {
            continue;
        }
        if take(&faults.cut) {
            length /= 2;
        }
        let (datagram, front, twice) = (bytes[..length].to_vec(), Arc::clone(front), faults.twice.load(SeqCst));
        let late = Duration::from_millis(faults.late_ms.load(SeqCst).into());
        thread::spawn(move || {
            thread::sleep(late.min(PATIENCE));
            for _ in 0..=usize::from(twice) {
                let _ = front.send_to(&datagram, peer);
            }
        });
    }
}
