//! Finds the sockets of container runtimes. The program looks every few seconds, as a runtime may be installed, and a
//! user log in, at any time.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Runtimes at most, as jouled accepts them.
pub const RUNTIMES_MAX: usize = 64;
/// Sockets of the system's runtimes, below the root. /var/run is a link to /run. Those of containerd: its own, that of
/// k3s and RKE2, of k0s and of MicroK8s.
const OF_SYSTEM: [(&str, Protocol); 7] = [
    ("run/docker.sock", Protocol::Docker),
    ("run/podman/podman.sock", Protocol::Docker),
    ("run/containerd/containerd.sock", Protocol::Containerd),
    ("run/k3s/containerd/containerd.sock", Protocol::Containerd),
    ("run/k0s/containerd.sock", Protocol::Containerd),
    ("var/snap/microk8s/common/run/containerd.sock", Protocol::Containerd),
    ("run/crio/crio.sock", Protocol::Cri),
];
/// Sockets of a user's runtimes (rootless), below /run/user/UID.
const OF_USER: [&str; 2] = ["docker.sock", "podman/podman.sock"];

/// The user that must own a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Root: a runtime of the system.
    Root,
    /// This user: a runtime of that user.
    User(u32),
    /// Any user: the operator named the socket.
    Any,
}

/// What a runtime speaks at its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Docker's API over HTTP; Podman speaks it, too.
    Docker,
    /// containerd's own API over gRPC.
    Containerd,
    /// Kubernetes' CRI over gRPC: CRI-O, and others.
    Cri,
}

/// The sockets that exist now, with their owners and what is spoken there. `named` are those of the command line;
/// without any, the usual places below `root` are looked at.
pub fn find(root: &Path, named: &[(PathBuf, Protocol)]) -> BTreeMap<PathBuf, (Owner, Protocol)> {
    let mut found = BTreeMap::new();
    let mut seen = Vec::new();
    let mut add = |path: PathBuf, owner: Owner, protocol: Protocol| {
        let Ok(metadata) = fs::metadata(&path) else { return };
        let file = (metadata.dev(), metadata.ino());
        if metadata.file_type().is_socket() && !seen.contains(&file) && seen.len() < RUNTIMES_MAX {
            seen.push(file);
            found.insert(path, (owner, protocol));
        }
    };
    if !named.is_empty() {
        named.iter().for_each(|(path, protocol)| add(path.clone(), Owner::Any, *protocol));
        return found;
    }
    OF_SYSTEM.iter().for_each(|(path, protocol)| add(root.join(path), Owner::Root, *protocol));
    let Ok(users) = fs::read_dir(root.join("run/user")) else { return found };
    let mut users: Vec<u32> = users.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    users.sort_unstable();
    for user in users {
        let folder = root.join("run/user").join(user.to_string());
        OF_USER.iter().for_each(|path| add(folder.join(path), Owner::User(user), Protocol::Docker));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn sockets_of_the_system_and_of_users_are_found_once() {
        let root = tempfile::tempdir().unwrap();
        let path = |of: &str| root.path().join(of);
        assert!(find(root.path(), &[]).is_empty());
        for folder in ["run/podman", "run/crio", "run/user/1000/podman", "run/user/x", "run/user/1001"] {
            fs::create_dir_all(path(folder)).unwrap();
        }
        let _listeners: Vec<UnixListener> =
            ["run/docker.sock", "run/crio/crio.sock", "run/user/1000/podman/podman.sock", "run/user/x/docker.sock"]
                .map(|of| UnixListener::bind(path(of)).unwrap())
                .into();
        fs::write(path("run/podman/podman.sock"), "no socket").unwrap();
        std::os::unix::fs::symlink(path("run/docker.sock"), path("run/user/1001/docker.sock")).unwrap();
        let found = find(root.path(), &[]);
        let expected = [
            (path("run/docker.sock"), (Owner::Root, Protocol::Docker)),
            (path("run/crio/crio.sock"), (Owner::Root, Protocol::Cri)),
            (path("run/user/1000/podman/podman.sock"), (Owner::User(1000), Protocol::Docker)),
        ];
        assert_eq!(found, expected.into());
        assert_eq!(
            find(root.path(), &[path("run/user/x/docker.sock"), path("none")].map(|path| (path, Protocol::Cri))).len(),
            1
        );
    }
}
