//! Parsers for /proc/PID/mountinfo (where cgroup hierarchies are mounted) and /proc/PID/cgroup (the cgroup of a
//! process). Pure.

use super::path;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A mounted cgroup hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Mount point.
    pub point: PathBuf,
    /// Mount options of a v1 hierarchy, which name its controllers or `name=systemd`. Empty for v2.
    pub controllers: String,
}

/// Cgroup mounts in a mountinfo text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mounts {
    /// The v2 tree, if there is one.
    pub v2: Option<Mount>,
    /// The v1 hierarchies; empty on hosts with v2 alone.
    pub v1: Vec<Mount>,
}

/// Cgroup mounts in the text of /proc/PID/mountinfo (proc(5)). Where the v2 tree is mounted several times, the first
/// mount counts.
pub fn parse(mountinfo: &str) -> Mounts {
    let mut mounts = Mounts::default();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else { continue };
        let (Some(point), mut right) = (left.split(' ').nth(4), right.split(' ')) else { continue };
        let point = PathBuf::from(std::ffi::OsStr::from_bytes(&unescape_octal(point)));
        match right.next() {
            Some("cgroup2") if mounts.v2.is_none() => mounts.v2 = Some(Mount { point, controllers: String::new() }),
            Some("cgroup") => {
                mounts.v1.push(Mount { point, controllers: right.nth(1).unwrap_or_default().to_string() })
            }
            _ => {}
        }
    }
    mounts
}

/// Undoes the octal escapes of mountinfo: `\040` is a blank.
fn unescape_octal(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes
            .get(at + 1..at + 4)
            .and_then(|octal| std::str::from_utf8(octal).ok())
            .and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(byte) if bytes[at] == b'\\' => {
                out.push(byte);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    out
}

/// v1 hierarchies by what they are mounted with, in the order in which they are asked for the cgroup of a process:
/// systemd's own, then those in which container engines make cgroups, then those in which only schedulers do.
const V1_ORDER: [&str; 8] = ["name=systemd", "cpuacct", "cpu", "pids", "memory", "devices", "freezer", "cpuset"];

/// Where a process is, by one line of its /proc/PID/cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Mount options of the v1 hierarchy, which name it; empty: the v2 tree.
    pub controllers: String,
    /// Path from the root of the hierarchy.
    pub path: String,
}

/// The path in the v2 tree, from the text of /proc/PID/cgroup; `None` where the process is in its root.
pub fn v2_path(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::")).map(existing);
    path.filter(|path| path.starts_with('/') && *path != "/")
}

/// A path without the mark that the kernel appends to that of a removed cgroup.
fn existing(path: &str) -> &str {
    path.trim_end_matches(" (deleted)")
}

/// The cgroup of a process, from the text of /proc/PID/cgroup: that in the v2 tree, except where a v1 hierarchy names a
/// container, a job or the machine scope of a VM and the v2 tree does not, as where a container engine with the
/// cgroupfs driver, or Slurm with its v1 plugin, runs on a host with both: by v2 all of it is in their own service.
/// Where the v2 tree has the process in its root, the first v1 hierarchy in which it is elsewhere counts. `None` where
/// it is in the root of every hierarchy.
pub fn place(text: &[u8]) -> Option<Place> {
    let text = String::from_utf8_lossy(text);
    let v2 = v2_path(&text);
    if v2.is_some_and(path::holds_payload) {
        return v2.map(|path| Place { controllers: String::new(), path: path.to_owned() });
    }
    let lines: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':').map(|(controllers, path)| (controllers, existing(path)))
        })
        .filter(|(controllers, path)| !controllers.is_empty() && *path != "/" && path.starts_with('/'))
        .collect();
    let by = |wanted: &str| lines.iter().find(|(controllers, _)| controllers.split(',').any(|one| one == wanted));
    let ordered = || V1_ORDER.iter().filter_map(|wanted| by(wanted));
    let payload = ordered().find(|(_, path)| path::holds_payload(path));
    let (controllers, path) = match (payload, v2) {
        (Some((controllers, path)), _) => (*controllers, *path),
        (None, Some(path)) => ("", path),
        (None, None) => ordered().next().copied()?,
    };
    Some(Place { controllers: controllers.to_owned(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn mounts_of_a_hybrid_host() {
        let text = "25 30 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro\n\
                    26 25 0:23 / /sys/fs/cgroup/unified rw shared:1 - cgroup2 cgroup2 rw\n\
                    27 25 0:24 / /sys/fs/cgroup/sys\\040temd rw - cgroup cgroup rw,xattr,name=systemd\n";
        let mounts = parse(text);
        assert_eq!(mounts.v2.unwrap().point, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounts.v1[0].point, Path::new("/sys/fs/cgroup/sys temd"));
        assert_eq!(mounts.v1[0].controllers, "rw,xattr,name=systemd");
    }

    fn path(text: &str) -> String {
        place(text.as_bytes()).map(|place| place.path).unwrap_or_default()
    }

    #[test]
    fn v1_prefers_systemd_then_controllers() {
        assert_eq!(path("3:cpu,cpuacct:/x\n1:name=systemd:/system.slice/a.service\n0::/\n"), "/system.slice/a.service");
        assert_eq!(path("3:cpu,cpuacct:/docker/a:b\n1:name=systemd:/\n"), "/docker/a:b");
        assert_eq!(path("0::/system.slice\nrubbish\n"), "/system.slice");
        assert_eq!(path("1:name=systemd:/a.service\n0::/b.service\n"), "/b.service");
        assert_eq!(path("1:name=systemd:/a.service\n0::/\n"), "/a.service");
        assert_eq!(path("1:name=systemd:/a.service (deleted)\n0::/ (deleted)\n"), "/a.service");
        assert_eq!((place(b"\xff"), place(b"0::/\n"), place(b"4:net_cls:/x\n")), (None, None, None));
    }

    #[test]
    fn a_container_in_any_hierarchy_comes_before_the_service_of_its_engine() {
        const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let pod = format!("/kubepods/burstable/pod0d206349-0faf-445c-8c3f-2d2153784f15/{ID}");
        let docker = format!("/docker/{ID}");
        let scope = format!("/system.slice/docker-{ID}.scope");
        for (text, is) in [
            // Docker and kubelet with the cgroupfs driver, on a host with both versions.
            (format!("1:name=systemd:{docker}\n0::/system.slice/containerd.service\n"), docker.as_str()),
            (format!("12:pids:{pod}\n1:name=systemd:{pod}\n0::/system.slice/containerd.service\n"), &pod),
            // The engine's own service in systemd's hierarchy, the container in the controllers'.
            (
                format!("4:cpu,cpuacct:{docker}\n1:name=systemd:/system.slice/d.service\n0::/system.slice/d.service\n"),
                &docker,
            ),
            (format!("7:devices:{docker}\n0::/system.slice/d.service\n"), &docker),
            // The same with systemd's driver, where both trees say it, and where only v2 does.
            (format!("1:name=systemd:/docker/other\n0::{scope}\n"), &scope),
            (format!("1:name=systemd:{docker}\n0::{scope}\n"), &scope),
            (format!("1:name=systemd:/\n0::{scope}\n"), &scope),
            // No container.
            ("1:name=systemd:/docker\n0::/system.slice/docker.service\n".to_owned(), "/system.slice/docker.service"),
            (
                "3:cpu,cpuacct:/user.slice\n1:name=systemd:/a\n0::/user.slice/user-0.slice/session-1.scope\n"
                    .to_owned(),
                "/user.slice/user-0.slice/session-1.scope",
            ),
            // A job of Slurm with the v1 plugin, by proctrack alone.
            (
                "9:freezer:/slurm/uid_1000/job_7/step_0\n1:name=systemd:/system.slice/slurmd.service\n\
                 0::/system.slice/slurmd.service\n"
                    .to_owned(),
                "/slurm/uid_1000/job_7/step_0",
            ),
            // A VM of a libvirt without systemd.
            (
                "2:cpuacct:/machine/qemu-1-web.libvirt-qemu/vcpu0\n0::/system.slice/libvirtd.service\n".to_owned(),
                "/machine/qemu-1-web.libvirt-qemu/vcpu0",
            ),
        ] {
            assert_eq!(path(&text), is, "{text}");
        }
    }

    #[test]
    fn garbage_mountinfo_is_no_mount() {
        assert_eq!(parse("a - \n - cgroup2\n\\"), Mounts::default());
    }
}
