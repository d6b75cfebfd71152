//! Looks for names on a thread of its own, so that a folder that does not answer (a network file system) delays no
//! tick. One request at a time.

use super::{PodName, conmon, kubernetes, proxmox};
use rustc_hash::FxHashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// A look that takes longer is reported.
const HANG_AFTER: Duration = Duration::from_secs(10);

/// A container whose name is sought.
#[derive(Clone, Debug, Default)]
pub(super) struct WantedContainer {
    pub id: String,
    /// Uid of its pod; empty where it is in none.
    pub pod: String,
    /// The name of that pod, where it is known.
    pub pod_name: Option<PodName>,
    /// Of a container of Podman: the directory of a cgroup with some of its processes.
    pub source: Option<PathBuf>,
    /// Its name is in a configuration of Proxmox.
    pub of_proxmox: bool,
}

/// What one look is to find.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// Uids of pods.
    pub pods: Vec<String>,
    pub containers: Vec<WantedContainer>,
}

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// By uid.
    pub pods: FxHashMap<String, PodName>,
    /// By id.
    pub containers: FxHashMap<String, String>,
    /// Why a folder cannot be read.
    pub trouble: Option<String>,
}

/// Where requests go, and where replies come from, each with its request.
type Thread = (Sender<Wanted>, Receiver<(Wanted, Found)>);

/// A reader with its thread, which begins with the first request.
pub(super) struct Reader {
    procfs: PathBuf,
    kubernetes: Option<PathBuf>,
    proxmox: Option<PathBuf>,
    thread: Option<Thread>,
    /// When the request without a reply was sent.
    since: Option<Instant>,
    is_reported: bool,
}

impl Reader {
    pub fn new(procfs: &Path, kubernetes: Option<&Path>) -> Self {
        Self {
            procfs: procfs.to_path_buf(),
            kubernetes: kubernetes.map(Path::to_path_buf),
            proxmox: None,
            thread: None,
            since: None,
            is_reported: false,
        }
    }

    pub fn with_proxmox(self, folder: Option<&Path>) -> Self {
        Self { proxmox: folder.map(Path::to_path_buf), ..self }
    }

    /// Whether a request has no reply yet.
    pub fn is_busy(&self) -> bool {
        self.since.is_some()
    }

    /// Sends a request. To be called when the reader is not busy.
    pub fn request(&mut self, wanted: Wanted) {
        if self.thread.is_none() {
            self.thread = self.begin();
        }
        let sent = self.thread.as_ref().is_some_and(|(requests, _)| requests.send(wanted).is_ok());
        if sent {
            self.since = Some(Instant::now());
        } else {
            self.thread = None;
        }
    }

    /// The reply to the last request; waits up to `patience` for it.
    pub fn reply(&mut self, patience: Duration) -> Option<(Wanted, Found)> {
        let since = self.since?;
        let (_, replies) = self.thread.as_ref()?;
        match replies.recv_timeout(patience) {
            Ok(reply) => {
                (self.since, self.is_reported) = (None, false);
                Some(reply)
            }
            Err(RecvTimeoutError::Timeout) => {
                if since.elapsed() >= HANG_AFTER && !std::mem::replace(&mut self.is_reported, true) {
                    tracing::warn!("names of containers: a look for them has not ended in {HANG_AFTER:?}");
                }
                None
            }
            Err(RecvTimeoutError::Disconnected) => {
                (self.since, self.thread) = (None, None);
                None
            }
        }
    }

    fn begin(&self) -> Option<Thread> {
        let ((requests, received), (reply, replies)) = (channel::<Wanted>(), channel());
        let (procfs, root, pve) = (self.procfs.clone(), self.kubernetes.clone(), self.proxmox.clone());
        let work = move || {
            for wanted in received {
                let found = look(&procfs, root.as_deref(), pve.as_deref(), &wanted);
                if reply.send((wanted, found)).is_err() {
                    break;
                }
            }
        };
        match std::thread::Builder::new().name("jouled-names".into()).spawn(work) {
            Ok(_) => Some((requests, replies)),
            Err(error) => {
                tracing::warn!("no thread that reads names of containers: {error}");
                None
            }
        }
    }
}

fn look(procfs: &Path, root: Option<&Path>, pve: Option<&Path>, wanted: &Wanted) -> Found {
    let mut found = Found::default();
    if let Some(root) = root {
        kubernetes::look(root, wanted, &mut found);
    }
    for WantedContainer { id, source, of_proxmox, .. } in &wanted.containers {
        if let Some(name) = source.as_ref().and_then(|dir| conmon::name(procfs, dir, id)) {
            found.containers.entry(id.clone()).or_insert(name);
        }
        match pve.filter(|_| *of_proxmox).map(|folder| proxmox::name(folder, id)) {
            Some(Ok(Some(name))) => drop(found.containers.insert(id.clone(), name)),
            Some(Err(why)) => found.trouble = found.trouble.or(Some(why)),
            Some(Ok(None)) | None => {}
        }
    }
    found
}
