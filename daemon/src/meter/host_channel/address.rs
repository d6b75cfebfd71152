//! The address of the host's guest channel: as configured (`connect` of `[meter.vsock]`), or found in sysfs. Connects
//! to nothing.

use super::super::file::read_text;
use serde::Deserialize;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// Context id of the host in its guests (vsock(7)).
const HOST_CID: u32 = 2;
/// vsock port of the guest channel.
pub const PORT: u32 = 28282;
/// The name of the virtio-serial port.
pub const SERIAL_NAME: &str = "org.jouled.0";
/// Device id of virtio-vsock (virtio 1.1, section 5).
const VIRTIO_VSOCK: u32 = 0x13;
/// Longest path of a Unix socket, in bytes (sockaddr_un).
const SOCKET_PATH: usize = 107;

/// `connect` of `[meter.vsock]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Connect {
    /// No guest channel.
    #[default]
    Off,
    /// Used if this machine has a device for it and no meter of its packages.
    Auto,
    /// Used in any case, in place of RAPL, which would measure the same energy.
    To(Address),
}

/// Address of the host's guest channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A vsock address.
    Vsock {
        /// Context id of the other side.
        cid: u32,
        /// Port.
        port: u32,
    },
    /// A Unix socket, for proxies and tests.
    Unix(PathBuf),
    /// A virtio-serial port, which carries lines from the host only.
    Serial(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(to, "vsock:{cid}:{port}"),
            Self::Unix(path) => write!(to, "unix:{}", path.display()),
            Self::Serial(path) => write!(to, "serial:{}", path.display()),
        }
    }
}

impl TryFrom<String> for Connect {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is no way to the host: write \"off\", \"auto\", \"vsock\", \"vsock:2:{PORT}\", \"unix:/PATH\" (up to \
                 {SOCKET_PATH} bytes) or \"serial:/dev/virtio-ports/{SERIAL_NAME}\""
            )
        };
        let absolute = |path: &str| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
        match text.split_once(':') {
            None if text == "off" => Ok(Self::Off),
            None if text == "auto" => Ok(Self::Auto),
            None if text == "vsock" => Ok(Self::To(Address::Vsock { cid: HOST_CID, port: PORT })),
            Some(("vsock", rest)) => {
                let (cid, port) = rest.split_once(':').ok_or_else(bad)?;
                // In both, the highest number (u32::MAX) means "any" (vsock(7)). CID 0 is the hypervisor, 1 this
                // machine.
                let cid = cid.parse().ok().filter(|cid| (HOST_CID..u32::MAX).contains(cid));
                let port = port.parse().ok().filter(|port| (1..u32::MAX).contains(port));
                cid.zip(port).map(|(cid, port)| Self::To(Address::Vsock { cid, port })).ok_or_else(bad)
            }
            Some(("unix", path)) if path.len() <= SOCKET_PATH => {
                absolute(path).map(|path| Self::To(Address::Unix(path))).ok_or_else(bad)
            }
            Some(("serial", path)) => absolute(path).map(|path| Self::To(Address::Serial(path))).ok_or_else(bad),
            _ => Err(bad()),
        }
    }
}

/// The address that this machine's devices offer: a virtio-vsock device, else the virtio-serial port named
/// org.jouled.0.
pub(super) fn find(sysfs: &Path) -> Option<Address> {
    let entries = |folder: &str| fs::read_dir(sysfs.join(folder)).into_iter().flatten().flatten();
    let is_vsock = |device: &fs::DirEntry| {
        let text = read_text(&device.path().join("device"), 64).unwrap_or_default();
        text.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok()) == Some(VIRTIO_VSOCK)
    };
    if entries("bus/virtio/devices").any(|device| is_vsock(&device)) {
        return Some(Address::Vsock { cid: HOST_CID, port: PORT });
    }
    let is_ours = |port: &fs::DirEntry| read_text(&port.path().join("name"), 256).is_ok_and(|name| name == SERIAL_NAME);
    let port = entries("class/virtio-ports").find(is_ours)?;
    Some(Address::Serial(Path::new("/dev").join(port.file_name())))
}

#[cfg(test)]
mod tests {
    use super::super::super::fake_sysfs::FakeHost;
    use super::*;

    fn connect(text: &str) -> Result<Connect, String> {
        Connect::try_from(text.to_owned())
    }

    #[test]
    fn configured_addresses() {
        assert_eq!(connect("off"), Ok(Connect::Off));
        assert_eq!(connect("auto"), Ok(Connect::Auto));
        let host = Address::Vsock { cid: 2, port: 28282 };
        assert_eq!(connect("vsock"), Ok(Connect::To(host.clone())));
        assert_eq!(connect("vsock:2:28282"), Ok(Connect::To(host)));
        assert_eq!(connect("unix:/run/host.sock"), Ok(Connect::To(Address::Unix("/run/host.sock".into()))));
        for text in ["vsock:9:1", "unix:/x", "serial:/dev/virtio-ports/org.jouled.0"] {
            let Ok(Connect::To(address)) = connect(text) else { panic!("{text}") };
            assert_eq!(address.to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(200));
        for bad in [
            "",
            "on",
            "vsock:",
            "vsock:2",
            "vsock:1:28282",
            "vsock:-1:1",
            "vsock:4294967295:1",
            "vsock:2:0",
            "unix:x",
            "tcp:1",
            &long,
        ] {
            assert!(connect(bad).unwrap_err().contains("\"auto\""), "{bad}");
        }
    }

    #[test]
    fn devices_are_found_by_id_and_name() {
        let host = FakeHost::new();
        assert_eq!(find(&host.sysfs()), None);
        host.write_sys("bus/virtio/devices/virtio0/device", "0x0001\n");
        host.write_sys("class/virtio-ports/vport1p1/name", "org.qemu.guest_agent.0\n");
        assert_eq!(find(&host.sysfs()), None);
        host.write_sys("class/virtio-ports/vport1p2/name", "org.jouled.0\n");
        assert_eq!(find(&host.sysfs()), Some(Address::Serial("/dev/vport1p2".into())));
        host.write_sys("bus/virtio/devices/virtio3/device", "0x0013\n");
        assert_eq!(find(&host.sysfs()), Some(Address::Vsock { cid: 2, port: 28282 }));
    }
}
