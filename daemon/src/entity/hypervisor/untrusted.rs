//! Checks text that any user may have chosen (names, UUIDs, numbers and paths of a command line or an inventory) and
//! makes it fit for labels. Knows no hypervisor.

use crate::model::source::PciAddress;
use crate::sys::safe_text::{is_terminal_control, replaced};

/// Longest name in bytes.
const NAME_MAX: usize = 256;
/// More virtual CPUs than any hypervisor has.
const VCPUS_MAX: u32 = 8192;
/// Longest path of a Unix socket in bytes (sockaddr_un).
const SOCKET_PATH_MAX: usize = 107;

/// A name as a label value: at most 256 bytes; characters that move a cursor or change the direction of writing are
/// replaced by U+FFFD.
pub fn name(text: &str) -> String {
    replaced(text, char::REPLACEMENT_CHARACTER, NAME_MAX)
}

/// A UUID in lower case with dashes; `None`: it is not a UUID, or the nil UUID, which identifies nothing.
pub fn uuid(text: &str) -> Option<String> {
    let dashes: Vec<usize> = text.match_indices('-').map(|(at, _)| at).collect();
    if !dashes.is_empty() && dashes != [8, 13, 18, 23] {
        return None;
    }
    let mut hex: String = text.chars().filter(|character| *character != '-').collect();
    if hex.len() != 32 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) || hex.bytes().all(|byte| byte == b'0') {
        return None;
    }
    hex.make_ascii_lowercase();
    Some(format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]))
}

/// A vsock context id that a guest can have. 0 to 2 and the highest have other meanings (vsock(7)).
pub fn cid(text: &str) -> Option<u32> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.ok().filter(|cid| guest_cid(*cid))
}

/// Whether a guest can have this context id: 3 to 4294967294.
pub fn guest_cid(cid: u32) -> bool {
    cid > 2 && cid < u32::MAX
}

/// A number of virtual CPUs.
pub fn vcpus(text: &str) -> Option<u32> {
    text.parse().ok().filter(|vcpus| (1..=VCPUS_MAX).contains(vcpus))
}

/// The path of a Unix socket; `None`: it cannot be one.
pub fn socket(text: &str) -> Option<String> {
    let fits = text.starts_with('/') && text.len() <= SOCKET_PATH_MAX && !text.chars().any(is_terminal_control);
    fits.then(|| text.to_owned())
}

/// The PCI address of a path below /sys: `/sys/bus/pci/devices/0000:41:00.0`. Links are not followed. A mediated device
/// has a UUID for a name, and so no address.
pub fn pci_path(text: &str) -> Option<PciAddress> {
    let name = text.strip_prefix("/sys/")?.trim_end_matches('/').rsplit('/').next()?;
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn uuids() {
        let good = "8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7";
        assert_eq!(uuid("8C0D1A2B-3C4D-5E6F-7081-92A3B4C5D6E7").as_deref(), Some(good));
        assert_eq!(uuid("8c0d1a2b3c4d5e6f708192a3b4c5d6e7").as_deref(), Some(good));
        for bad in [
            "",
            "web",
            "../../../../../../../../../../../etc",
            "00000000-0000-0000-0000-000000000000",
            "8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e",
            "8c0d1a2-b3c4d-5e6f-7081-92a3b4c5d6e7",
            "8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7\n",
            "{8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7}",
        ] {
            assert_eq!(uuid(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!((cid("3"), cid("0x10"), cid("4294967294")), (Some(3), Some(16), Some(u32::MAX - 1)));
        for bad in ["", "0", "1", "2", "-3", "4294967295", "4294967299", "3 ", "0x", "three"] {
            assert_eq!(cid(bad), None, "{bad:?}");
        }
        assert_eq!((vcpus("4"), vcpus("0"), vcpus("4000000000"), vcpus("4k")), (Some(4), None, None, None));
        assert_eq!((socket("/run/a"), socket("a"), socket("/a\nb")), (Some("/run/a".into()), None, None));
    }

    #[test]
    fn devices() {
        let address = "0000:41:00.0".parse().ok();
        assert!(address.is_some());
        assert_eq!(pci_path("/sys/bus/pci/devices/0000:41:00.0/"), address);
        assert_eq!(pci_path("/sys/devices/pci0000:40/0000:40:01.0/0000:41:00.0"), address);
        for bad in ["", "/sys/", "/dev/0000:41:00.0", "/sys/bus/mdev/devices/8c0d1a2b-3c4d-5e6f-7081-92a3b4c5d6e7"] {
            assert_eq!(pci_path(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names() {
        assert_eq!(name("web \"1\" ../.."), "web \"1\" ../..");
        assert_eq!(name("a\nb\u{1b}[2J\u{202e}c"), "a\u{fffd}b\u{fffd}[2J\u{fffd}c");
        assert_eq!(name(&"ä".repeat(5000)), "ä".repeat(128));
    }

    proptest! {
        #[test]
        fn any_name_is_bounded(text: String) {
            let name = name(&text);
            prop_assert!(name.len() <= NAME_MAX && !name.chars().any(char::is_control));
        }
    }
}
