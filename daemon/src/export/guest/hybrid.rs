//! Hybrid vsock: a Unix socket beside each VM's own, in folders that the operator named. Knows no route.
//!
//! A guest that connects to CID 2 arrives at `UDS_PORT`, from the process that listens on UDS: the VMM or its vhost-user helper.

use super::accept::accept;
use super::folder::{FileId, Folder, Owner};
use super::guests::{Guests, Refusal};
use super::helper;
use crate::entity::vm::{Vm, Vmm};
use crate::usage::ProcessKey;
use rustc_hash::{FxHashMap, FxHashSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Folders are looked through so often, and whenever VMs came or went.
const AGAIN: Duration = Duration::from_secs(5);
/// Folders below a named one that are looked at.
const BELOW: usize = 1024;

/// A VM's own socket.
#[derive(Clone, Debug)]
struct Found {
    folder: Arc<Folder>,
    name: OsString,
    id: FileId,
    owner: Owner,
}

/// What tells a door from another: whose, at which socket, and which process speaks there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    vm: String,
    process: ProcessKey,
    uds: FileId,
    peer: u32,
}

/// Serves until `stop`; then all sockets that were made are gone.
pub(super) async fn serve(guests: Guests, stop: CancellationToken) {
    let mut everybody = guests.vms();
    let (mut doors, mut rooms) = (FxHashMap::<Key, CancellationToken>::default(), TaskTracker::new());
    let (mut known, mut noted) = (FxHashMap::default(), FxHashSet::default());
    loop {
        let vms = Arc::clone(&everybody.borrow_and_update());
        let (folders, port) = (guests.config().hybrid.clone(), guests.config().port);
        let look = tokio::task::spawn_blocking(move || {
            let found = scan(&folders, port, &mut known);
            (found, known)
        });
        let Ok((found, cache)) = look.await else { break };
        known = cache;
        let wanted: Vec<(Key, Found)> =
            found.into_iter().filter_map(|found| Some((key(&found, &vms, &guests, &mut noted)?, found))).collect();
        doors.retain(|key, door| {
            let stays = wanted.iter().any(|(wanted, _)| wanted == key) && !door.is_cancelled();
            if !stays {
                door.cancel();
            }
            stays
        });
        for (key, found) in wanted {
            if !doors.contains_key(&key)
                && let Some(door) = open(&key, &found, &guests, &stop, &mut rooms, &mut noted)
            {
                doors.insert(key, door);
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            _ = everybody.changed() => {}
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    doors.values().for_each(CancellationToken::cancel);
    rooms.close();
    rooms.wait().await;
}

/// Looks through the folders. Who listens is asked once per socket.
fn scan(folders: &[PathBuf], port: u32, known: &mut FxHashMap<FileId, Owner>) -> Vec<Found> {
    let suffix = format!("_{port}");
    let mut found = Vec::new();
    let mut look = |folder: Folder| -> Vec<Folder> {
        let Ok((sockets, folders)) = folder.list() else { return Vec::new() };
        let folder = Arc::new(folder);
        for name in sockets {
            if name.as_encoded_bytes().ends_with(suffix.as_bytes()) {
                continue;
            }
            let Ok(Some(socket)) = folder.socket(&name) else { continue };
            let owner = known.get(&socket.id).copied().or_else(|| socket.owner().ok());
            if let Some(owner) = owner {
                found.push(Found { folder: Arc::clone(&folder), name, id: socket.id, owner });
            }
        }
        folders
    };
    for path in folders {
        let Ok(folder) = Folder::open(path) else { continue };
        for below in look(folder).into_iter().take(BELOW) {
            look(below);
        }
    }
    *known = found.iter().map(|found| (found.id, found.owner)).collect();
    found
}

/// Whose socket it is; `None`: no VM's, or nobody can tell.
fn key(found: &Found, vms: &[Vm], guests: &Guests, noted: &mut FxHashSet<PathBuf>) -> Option<Key> {
    let pid = found.owner.pid;
    let of = |vm: &Vm| Key { vm: vm.id.clone(), process: vm.process, uds: found.id, peer: pid };
    // QEMU has no hybrid sockets of its own: what it listens on is something else.
    let own = vms.iter().find(|vm| vm.process.pid == pid && vm.vmm != Vmm::Qemu);
    if let Some(vm) = own {
        return guests.by_id(&vm.id, vm.process).is_ok().then(|| of(vm));
    }
    let cmdline = fs::read(guests.procfs().join(pid.to_string()).join("cmdline")).ok()?;
    let pairs = match helper::served(&cmdline)? {
        Ok(pairs) => pairs,
        Err(why) => {
            let path = found.folder.path(&found.name);
            if noted.insert(path.clone()) {
                tracing::warn!("guest channel: {path:?} is not served: process {pid}: {why}");
            }
            return None;
        }
    };
    let pair = pairs.iter().find(|pair| fs::metadata(&pair.uds).is_ok_and(|of| (of.dev(), of.ino()) == found.id))?;
    // Anybody may write a VM's socket on a command line; who made that socket has the VM's memory anyway.
    let made = fs::metadata(&pair.socket).is_ok_and(|of| of.uid() == found.owner.uid);
    let vm = vms.iter().find(|vm| vm.vhost_user.iter().any(|path| same(path, &pair.socket)))?;
    (made && guests.by_id(&vm.id, vm.process).is_ok()).then(|| of(vm))
}

fn same(one: &str, other: &str) -> bool {
    let id = |path: &str| fs::metadata(path).map(|of| (of.dev(), of.ino())).ok();
    one == other || (Path::new(one).is_absolute() && id(one).is_some_and(|one| id(other) == Some(one)))
}

/// Makes the channel's socket beside a VM's, and serves it.
fn open(
    key: &Key,
    found: &Found,
    guests: &Guests,
    stop: &CancellationToken,
    rooms: &mut TaskTracker,
    noted: &mut FxHashSet<PathBuf>,
) -> Option<CancellationToken> {
    let mut name = found.name.clone();
    name.push(format!("_{}", guests.config().port));
    let path = found.folder.path(&name);
    let (listener, file) = match found.folder.listen(&name, found.owner) {
        Ok(made) => made,
        Err(error) => {
            if noted.insert(path.clone()) {
                tracing::warn!("guest channel: {path:?} cannot be made for VM {:?}: {error}", key.vm);
            }
            return None;
        }
    };
    noted.remove(&path);
    tracing::info!("guest channel: {path:?} serves VM {:?}", key.vm);
    guests.seen(&key.vm, "hybrid", path.to_string_lossy().into_owned());
    let (door, known, folder) = (stop.child_token(), guests.clone(), Arc::clone(&found.folder));
    let (peer, vm, process) = (key.peer, key.vm.clone(), key.process);
    let who = move |io: &UnixStream, _: &_| {
        let pid = io.peer_cred().ok().and_then(|peer| peer.pid());
        if pid != i32::try_from(peer).ok() {
            return Err(Refusal::Process);
        }
        known.by_id(&vm, process)
    };
    let serving = accept(listener, guests.clone(), who, door.clone());
    rooms.spawn(async move {
        serving.await;
        if let Err(error) = folder.remove(&name, file) {
            tracing::warn!("guest channel: {path:?} stays behind: {error}");
        }
    });
    Some(door)
}
