//! Hybrid vsock: a Unix socket beside each VM's own, in folders that the operator named. Knows no route.
//!
//! A guest that connects to CID 2 arrives at `UDS_PORT`, from the process that listens on UDS: the VMM or its vhost-user helper.

use super::accept::accept;
use super::guests::{Guests, Refusal};
use super::helper;
use super::look::{Found, Key, Noted, Task};
use crate::entity::vm::{Vm, Vmm};
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Makes the channel's sockets, and serves them.
pub(super) struct Hybrid {
    guests: Guests,
    suffix: String,
    noted: Noted,
}

impl Hybrid {
    pub fn new(guests: Guests) -> Self {
        Self { suffix: format!("_{}", guests.config().port), noted: Noted::default(), guests }
    }
}

impl Hybrid {
    /// Anybody may write a VM's socket on a command line; who made that socket has the VM's memory anyway. vhost-device-vsock removes it
    /// once the VMM has connected: then root may, and who runs the VM.
    fn may_serve(&self, user: u32, socket: &str, vm: &Vm) -> bool {
        match fs::metadata(socket) {
            Ok(of) => of.uid() == user,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let runs_it = || fs::metadata(self.guests.procfs().join(vm.process.pid.to_string())).map(|of| of.uid());
                user == 0 || runs_it().is_ok_and(|runs| runs == user)
            }
            Err(_) => false,
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

    fn whose(&self, found: &Found, vms: &[Vm]) -> Option<Key> {
        let pid = found.owner.pid;
        // QEMU has no hybrid sockets of its own: what it listens on is something else.
        if let Some(vm) = vms.iter().find(|vm| vm.process.pid == pid && vm.vmm != Vmm::Qemu) {
            return self.guests.by_id(&vm.id, vm.process).is_ok().then(|| Key::of(vm, found));
        }
        let cmdline = fs::read(self.guests.procfs().join(pid.to_string()).join("cmdline")).ok()?;
        let pairs = match helper::served(&cmdline)? {
            Ok(pairs) => pairs,
            Err(why) => {
                self.noted.warn(found.folder.path(&found.name), format!("not served: process {pid}: {why}"));
                return None;
            }
        };
        let pair = pairs.iter().find(|pair| fs::metadata(&pair.uds).is_ok_and(|of| (of.dev(), of.ino()) == found.id))?;
        let vm = vms.iter().find(|vm| vm.vhost_user.iter().any(|path| same(path, &pair.socket)))?;
        let made = self.may_serve(found.owner.uid, &pair.socket, vm);
        (made && self.guests.by_id(&vm.id, vm.process).is_ok()).then(|| Key::of(vm, found))
    }

    fn begin(&self, key: &Key, found: &Found, stop: CancellationToken) -> Option<JoinHandle<()>> {
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
        let (known, folder) = (self.guests.clone(), Arc::clone(&found.folder));
        let (peer, vm, process) = (i32::try_from(key.peer).ok(), key.vm.clone(), key.process);
        let who = move |io: &UnixStream, _: &_| match io.peer_cred() {
            Ok(from) if from.pid().is_some() && from.pid() == peer => known.by_id(&vm, process),
            _ => Err(Refusal::Process),
        };
        let (serving, guests, vm) = (accept(listener, self.guests.clone(), who, stop), self.guests.clone(), key.vm.clone());
        Some(tokio::spawn(async move {
            serving.await;
            guests.no_door(&vm, &shown);
            if let Err(error) = folder.remove(&name, file) {
                tracing::warn!("guest channel: {path:?} stays behind: {error}");
            }
        }))
    }
}

/// Whether two paths are one file.
fn same(one: &str, other: &str) -> bool {
    let id = |path: &str| fs::metadata(path).map(|of| (of.dev(), of.ino())).ok();
    one == other || (Path::new(one).is_absolute() && id(one).is_some_and(|one| id(other) == Some(one)))
}
