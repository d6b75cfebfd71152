//! The name of a container of Proxmox VE, whose cgroup has its number alone (`/lxc/101/ns`, `/lxc.monitor/101`:
//! update_lxc_config in pve-container's src/PVE/LXC.pm): the `hostname` in `/etc/pve/lxc/101.conf`. Only root and the
//! group www-data read that folder; it is a file system in user space, so it may hang. Configured by `[names] proxmox`.

use crate::sys::small_file;
use std::io::ErrorKind;
use std::path::Path;

/// Longest configuration that is read, in bytes. Real ones have some hundred, more with snapshots.
const FILE_MAX: usize = 256 << 10;
/// Longest name of a host (RFC 1035).
const NAME_MAX: usize = 253;

/// The name of container `number`; `None` where it has none.
///
/// # Errors
/// Why its configuration cannot be read.
pub(super) fn name(folder: &Path, number: &str) -> Result<Option<String>, String> {
    let path = folder.join(format!("{number}.conf"));
    match small_file::read(&path, FILE_MAX) {
        Ok(text) => Ok(hostname(&String::from_utf8_lossy(&text))),
        // No Proxmox, or a container of LXC whose name is a number.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(format!("{}: {error}", path.display())),
    }
}

/// The hostname in a configuration: `OPTION: value` a line, comments with `#`, and then a section for each snapshot.
fn hostname(config: &str) -> Option<String> {
    let present = config.lines().take_while(|line| !line.trim_start().starts_with('['));
    let name = present.filter_map(|line| line.strip_prefix("hostname:")).last()?.trim();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (!name.is_empty() && name.len() <= NAME_MAX && name.bytes().all(fits)).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;

    #[test]
    fn the_hostname_of_now_is_the_name() {
        let config = "# hostname: comment\narch: amd64\ncores: 2\nhostname: shop-1.example.org\nostype: debian\n\n";
        let snapshot = "[before]\nhostname: old\nsnaptime: 1\n";
        assert_eq!(hostname(&format!("{config}{snapshot}")).as_deref(), Some("shop-1.example.org"));
        assert_eq!(
            hostname(&format!("{config}{snapshot}").replace('\n', "\r\n")).as_deref(),
            Some("shop-1.example.org")
        );
        let long = format!("hostname: {}", "x".repeat(10_000));
        for none in
            [snapshot, "", "arch: amd64", "hostname:", "hostname: a b", "hostname: a\u{202e}b", "hostname: ../x", &long]
        {
            assert_eq!(hostname(none), None, "{none}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_no_trouble_and_a_file_that_cannot_be_read_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("101.conf"), "hostname: shop\n").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("102.conf"), rustix::fs::Mode::RUSR).unwrap();
        assert_eq!(name(dir.path(), "101"), Ok(Some("shop".to_owned())));
        assert!(name(dir.path(), "102").unwrap_err().contains("102.conf: it is no regular file"));
        assert_eq!((name(dir.path(), "103"), name(&dir.path().join("101.conf"), "1")), (Ok(None), Ok(None)));
    }

    proptest! {
        #[test]
        fn any_text_gives_a_name_that_fits_or_none(text in "(hostname: ?)?.{0,40}(\nhostname: .{0,40})?") {
            prop_assert!(hostname(&text).is_none_or(|name| name.is_ascii() && !name.contains(char::is_control)));
        }
    }
}
