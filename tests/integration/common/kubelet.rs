//! The folders in /var/log that the kubelet of a made-up host keeps. Layout and names are those of the kubelet's own
//! source, the same with kubeadm, k3s, kind, MicroK8s and OpenShift: pkg/kubelet/kuberuntime/helpers.go
//! (BuildPodLogsDirectory: `pods/NAMESPACE_POD_UID`, below it a folder for each container with a file for each start)
//! and legacy.go (logSymlink: `containers/POD_NAMESPACE_CONTAINER-ID.log`, a link to that file).

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// One pod: namespace, name and uid.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a>(pub &'a str, pub &'a str, pub &'a str);

/// The folder in place of /var/log.
pub struct Kubelet(pub PathBuf);

impl Kubelet {
    /// What the kubelet makes before a container of the pod.
    pub fn prepare(&self, Pod(namespace, pod, uid): Pod<'_>, container: &str) {
        fs::create_dir_all(self.0.join("containers")).unwrap();
        fs::create_dir_all(self.0.join(format!("pods/{namespace}_{pod}_{uid}/{container}"))).unwrap();
    }

    /// What it makes when the container has started.
    pub fn started(&self, of: Pod<'_>, container: &str, id: &str, start: u32) {
        self.prepare(of, container);
        let Pod(namespace, pod, uid) = of;
        let log = self.0.join(format!("pods/{namespace}_{pod}_{uid}/{container}/{start}.log"));
        fs::write(&log, "").unwrap();
        symlink(log, self.0.join(format!("containers/{pod}_{namespace}_{container}-{id}.log"))).unwrap();
    }
}
