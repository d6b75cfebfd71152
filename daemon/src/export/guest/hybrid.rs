//! Hybrid vsock (Firecracker, Cloud Hypervisor, vhost-device-vsock): a Unix socket beside each VM's own socket, in the
//! folders of `hybrid` in `[export.guest]`. Knows no route.
//!
//! A guest's connection to CID 2 arrives at the socket `UDS_PORT`. It comes from the process that listens on `UDS`: the
//! VMM or its vhost-user helper.

use super::accept::accept;
use super::client::Refusal;
use super::guests::Guests;
use super::helper;
use super::look::{Key, ListeningSocket, Made, Noted, Serving, Task};
use crate::model::vm::{Vm, Vmm};
use crate::sys::mutex::lock;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

/// Creates the channel's sockets and serves them.
pub(super) struct Hybrid {
    guests: Guests,
    suffix: String,
    noted: Noted,
    commands: Mutex<helper::Commands>,
}

impl Hybrid {
    pub fn new(guests: Guests) -> Self {
        Self {
            suffix: format!("_{}", guests.config().port),
            noted: Noted::default(),
            commands: Mutex::default(),
            guests,
        }
    }
}

impl Task for Hybrid {
    fn noted(&self) -> &Noted {
        &self.noted
    }

    fn may_be(&self, name: &OsStr) -> bool {
        !name.as_encoded_bytes().ends_with(self.suffix.as_bytes())
    }

    fn whose(&self, found: &ListeningSocket, vms: &[Vm]) -> Option<Key> {
        let pid = found.owner.pid;
        // QEMU has no hybrid sockets: a socket on which it listens has another purpose.
        if let Some(vm) = vms.iter().find(|vm| vm.process.pid == pid && vm.vmm != Vmm::Qemu) {
            let is_its = self.guests.by_id(&vm.id, vm.process).is_ok() && self.guests.runs_as(pid, found.owner.uid);
            return is_its.then(|| Key::of(vm, found));
        }
        let cmdline = lock(&self.commands).read(self.guests.procfs(), pid)?;
        let pairs = match helper::served(&cmdline)? {
            Ok(pairs) => pairs,
            Err(why) => {
                self.noted.warn(found.folder.path(&found.name), format!("not served: process {pid}: {why}"));
                return None;
            }
        };
        let pair =
            pairs.iter().find(|pair| fs::metadata(&pair.uds).is_ok_and(|of| (of.dev(), of.ino()) == found.id))?;
        // A command line can name any VM's vhost-user socket. The owner of that socket has access to the VM's memory
        // anyway, so it is trusted. The path is resolved once: it could lead to another file the next time.
        let socket = match fs::metadata(&pair.socket) {
            Ok(of) => Some(of).filter(|of| of.uid() == found.owner.uid).map(Some)?,
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(_) => return None,
        };
        let claims = |vm: &&Vm| vm.vhost_user.iter().any(|path| same(path, &pair.socket, socket.as_ref()));
        let Some(vm) = only(vms.iter().filter(claims)) else {
            if vms.iter().any(|vm| claims(&vm)) {
                let why = format!("not served: more than one VM names {:?} as its vhost-user socket", pair.socket);
                self.noted.warn(found.folder.path(&found.name), why);
            }
            return None;
        };
        // vhost-device-vsock removes the socket once the VMM has connected. Then root and the user who runs the VM are
        // trusted.
        let may = socket.is_some() || self.guests.runs_as(vm.process.pid, found.owner.uid);
        (may && self.guests.by_id(&vm.id, vm.process).is_ok()).then(|| Key::of(vm, found))
    }

    fn begin(&self, key: &Key, found: &ListeningSocket, stop: CancellationToken) -> Option<Serving> {
        let mut name = found.name.clone();
        name.push(&self.suffix);
        let path = found.folder.path(&name);
        let (listener, file) = match found.folder.listen(&name, found.owner) {
            Ok(made) => made,
            Err(error) => {
                self.noted.warn(path, format!("cannot be made for VM {:?}: {error}", key.vm));
                return None;
            }
        };
        tracing::info!("guest channel: {path:?} serves VM {:?}", key.vm);
        let shown = path.to_string_lossy().into_owned();
        self.guests.door(&key.vm, "hybrid", &shown);
        let made = Made { folder: Arc::clone(&found.folder), name: name.clone(), file };
        let (known, folder) = (self.guests.clone(), Arc::clone(&found.folder));
        let (peer, vm, process) = (i32::try_from(key.peer).ok(), key.vm.clone(), key.process);
        let who = move |io: &UnixStream, _: &_| match io.peer_cred() {
            Ok(from) if from.pid().is_some() && from.pid() == peer => known.by_id(&vm, process),
            _ => Err(Refusal::Process),
        };
        let (serving, guests, vm) =
            (accept(listener, self.guests.clone(), who, stop), self.guests.clone(), key.vm.clone());
        let task = tokio::spawn(async move {
            serving.await;
            guests.no_door(&vm, &shown);
            if let Err(error) = folder.remove(&name, file) {
                tracing::warn!("guest channel: {path:?} stays behind: {error}");
            }
        });
        Some(Serving { task, made: Some(made) })
    }
}

/// The one VM that a socket claimed by several belongs to: the only one in a machine scope, else the only one. Any user
/// can start a VM that claims the socket, but not in a machine scope.
fn only<'a>(vms: impl Iterator<Item = &'a Vm>) -> Option<&'a Vm> {
    let vms: Vec<&Vm> = vms.collect();
    let vouched = vms.iter().any(|vm| vm.vouched);
    let mut best = vms.into_iter().filter(|vm| vm.vouched == vouched);
    best.next().filter(|_| best.next().is_none())
}

/// Whether a path on a VM's command line leads to this socket.
fn same(path: &str, socket: &str, file: Option<&fs::Metadata>) -> bool {
    let is_file =
        |file: &fs::Metadata| fs::metadata(path).is_ok_and(|of| (of.dev(), of.ino()) == (file.dev(), file.ino()));
    path == socket || (Path::new(path).is_absolute() && file.is_some_and(is_file))
}
