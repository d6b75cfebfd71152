//! Regularity of ticks while every slow source hangs: two BMCs by Redfish, two by IPMI over LAN, an ACPI power meter,
//! and NVIDIA's library.

use crate::Failure;
use crate::daemon::Daemon;
use crate::report::{Limit, Report};
use crate::sysfs::{FakeHost, ICE_LAKE_SERVER};
use std::ffi::CString;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

const TICKS: usize = 60;

pub fn run(report: &mut Report) -> Result<(), Failure> {
    let host = FakeHost::new();
    host.cpus(2, 2, &ICE_LAKE_SERVER);
    host.zone("intel-rapl:0", "package-0", 1_000_000);
    let quiet = jitter(&host, "")?;
    report
        .line(&format!("no slow source: 50 % {:.2} ms, 99 % {:.2} ms, most {:.2} ms off", quiet.0, quiet.1, quiet.2))?;

    // They accept connections and never answer.
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    let sockets = [UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?];
    let dir = tempfile::tempdir()?;
    let secret = dir.path().join("password");
    std::fs::write(&secret, "secret\n")?;
    let mut config = String::new();
    for (number, listener) in listeners.iter().enumerate() {
        config += &format!(
            "[[meter.redfish.bmc]]\nname = \"r{number}\"\nurl = \"https://{}\"\nusername = \"u\"\npassword_file = {secret:?}\ntls = \"insecure\"\n",
            listener.local_addr()?
        );
    }
    for (number, socket) in sockets.iter().enumerate() {
        config += &format!(
            "[[meter.ipmi.lan]]\nname = \"i{number}\"\naddress = \"{}\"\nusername = \"u\"\npassword_file = {secret:?}\n",
            socket.local_addr()?
        );
    }
    config += &nvml(dir.path())?;
    hwmon(&host)?;
    let busy = jitter(&host, &config)?;
    report.line(&format!(
        "every slow source hangs: 50 % {:.2} ms, 99 % {:.2} ms, most {:.2} ms off",
        busy.0, busy.1, busy.2
    ))?;
    report.target(
        "meters: ticks off their second while every slow source hangs, 99 %",
        busy.1,
        Limit::Most(10.0),
        "ms",
    );
    Ok(())
}

/// Deviation of the ticks from multiples of 1 s after the first one, in milliseconds: median, 99th percentile and
/// maximum.
fn jitter(host: &FakeHost, config: &str) -> Result<(f64, f64, f64), Failure> {
    let daemon = Daemon::start(host, config)?;
    let at = daemon.ticks(TICKS)?;
    let first = *at.first().ok_or("no tick")?;
    let off = |(number, at): (usize, &f64)| ((at - first) - number as f64 * 1e3).abs();
    let mut off: Vec<f64> = at.iter().enumerate().map(off).collect();
    off.sort_by(f64::total_cmp);
    let percentile = |share: usize| off.get((off.len() - 1) * share / 100).copied().unwrap_or_default();
    Ok((percentile(50), percentile(99), percentile(100)))
}

/// Configuration with a fake NVML library whose calls take an hour; empty where there is no C compiler.
fn nvml(dir: &Path) -> Result<String, Failure> {
    let (library, answers) = (dir.join("libnvidia-ml.so.1"), dir.join("nvml.txt"));
    std::fs::write(&answers, "gpu 0 GPU-0 00000000:41:00.0 H100\nhang 3600\n")?;
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/integration/nvml/standin.c");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(format!("-DSTANDIN_FILE={answers:?}")).arg(source);
    match cc.status() {
        Ok(status) if status.success() => Ok(format!("[meter.nvml]\nlibrary = {library:?}\n")),
        _ => Ok(String::new()),
    }
}

/// An ACPI power meter whose value never comes: a pipe without a writer.
fn hwmon(host: &FakeHost) -> Result<(), Failure> {
    let device = host.sysfs().join("devices/LNXSYSTM:00/ACPI000D:00");
    host.write_sys("devices/LNXSYSTM:00/ACPI000D:00/power1_is_battery", "0\n");
    let path = CString::new(device.join("power1_average").as_os_str().as_bytes())?;
    // SAFETY: a path that ends in a zero byte.
    if unsafe { libc::mkfifo(path.as_ptr(), 0o600) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    std::fs::create_dir_all(host.sysfs().join("class/hwmon/hwmon0"))?;
    Ok(symlink(device, host.sysfs().join("class/hwmon/hwmon0/device"))?)
}
