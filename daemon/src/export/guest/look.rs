//! Looks through the folders that the operator named, again and again, and keeps one task for each socket that is a VM's. What the
//! sockets are for is `hybrid`'s and `serial`'s.

use super::folder::{FileId, Folder, Owner};
use super::guests::{Guests, lock};
use crate::model::usage::ProcessKey;
use crate::model::vm::Vm;
use rustc_hash::{FxHashMap, FxHashSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Folders are looked through so often, and whenever VMs came or went.
const AGAIN: Duration = Duration::from_secs(5);

/// A socket that somebody listens on.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub folder: Arc<Folder>,
    pub name: OsString,
    pub id: FileId,
    pub owner: Owner,
}

/// What tells a task from another: whose, at which socket, and which process speaks there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub vm: String,
    pub process: ProcessKey,
    pub socket: FileId,
    pub peer: u32,
}

impl Key {
    pub fn of(vm: &Vm, found: &Found) -> Self {
        Self { vm: vm.id.clone(), process: vm.process, socket: found.id, peer: found.owner.pid }
    }
}

/// What the operator was told already.
#[derive(Default)]
pub(super) struct Noted(Mutex<FxHashSet<(PathBuf, String)>>);

impl Noted {
    /// Says once what is wrong with a socket. The path is quoted and escaped: others may have chosen it.
    pub fn warn(&self, path: PathBuf, why: String) {
        let mut noted = lock(&self.0);
        // What others make up must not fill memory.
        if noted.len() > 10_000 {
            noted.clear();
        }
        if !noted.contains(&(path.clone(), why.clone())) {
            tracing::warn!("guest channel: {path:?}: {why}");
            noted.insert((path, why));
        }
    }
}

/// What is done with sockets of one sort.
pub(super) trait Task: Send + Sync {
    /// What the operator was told of them.
    fn noted(&self) -> &Noted;
    /// Whether a socket of this name may be one.
    fn may_be(&self, name: &OsStr) -> bool;
    /// Whose it is; `None`: no VM's, or nobody can tell.
    fn whose(&self, found: &Found, vms: &[Vm]) -> Option<Key>;
    /// Begins to work on it, until `stop`. `None`: it cannot be done.
    fn begin(&self, key: &Key, found: &Found, stop: CancellationToken) -> Option<JoinHandle<()>>;
}

/// Works until `stop`; then every task has ended.
pub(super) async fn follow<T: Task + 'static>(guests: Guests, folders: Vec<PathBuf>, task: T, stop: CancellationToken) {
    let (task, folders) = (Arc::new(task), Arc::new(folders));
    let mut running = FxHashMap::<Key, (CancellationToken, JoinHandle<()>)>::default();
    let (mut everybody, mut asked) = (guests.vms(), FxHashMap::default());
    loop {
        let vms = Arc::clone(&everybody.borrow_and_update());
        let (of, folders) = (Arc::clone(&task), Arc::clone(&folders));
        // Off the worker: these are files of others.
        let look = tokio::task::spawn_blocking(move || {
            let found = scan(&folders, &*of, &mut asked);
            let whose = |found: Found| Some((of.whose(&found, &vms)?, found));
            (found.into_iter().filter_map(whose).collect::<FxHashMap<Key, Found>>(), asked)
        });
        // Others may keep it waiting, but not the end.
        let looked = tokio::select! {
            () = stop.cancelled() => break,
            looked = look => looked,
        };
        let Ok((wanted, known)) = looked else { break };
        asked = known;
        let over: Vec<Key> = running
            .iter()
            .filter(|(key, (_, work))| work.is_finished() || !wanted.contains_key(key))
            .map(|(key, _)| key.clone())
            .collect();
        end(over.iter().filter_map(|key| running.remove(key)).collect()).await;
        for (key, found) in wanted {
            let token = stop.child_token();
            if !running.contains_key(&key)
                && let Some(work) = task.begin(&key, &found, token.clone())
            {
                running.insert(key, (token, work));
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = everybody.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    end(running.into_values().collect()).await;
}

/// Ends work, and waits for it: its socket's name may be wanted for the next VM.
async fn end(works: Vec<(CancellationToken, JoinHandle<()>)>) {
    works.iter().for_each(|(token, _)| token.cancel());
    for (_, work) in works {
        let _ = work.await;
    }
}

/// Who listened on a socket when it was asked. Inodes are given anew: the time of the last change tells one from the next.
type Asked = FxHashMap<(FileId, (i64, i64)), Owner>;

/// Looks through the folders. Who listens is asked once per socket.
fn scan(folders: &[PathBuf], task: &impl Task, asked: &mut Asked) -> Vec<Found> {
    let (mut all, mut known) = (Vec::new(), Asked::default());
    let mut look = |folder: Folder| -> Vec<Folder> {
        let Ok((sockets, folders)) = folder.list() else { return Vec::new() };
        let folder = Arc::new(folder);
        for name in sockets.into_iter().filter(|name| task.may_be(name)) {
            let Ok(Some(socket)) = folder.socket(&name) else { continue };
            let key = (socket.id, socket.changed);
            if let Some(owner) = asked.get(&key).copied().or_else(|| socket.owner().ok()) {
                known.insert(key, owner);
                all.push(Found { folder: Arc::clone(&folder), name, id: socket.id, owner });
            }
        }
        folders
    };
    for path in folders {
        match Folder::open(path) {
            Ok(folder) => look(folder).into_iter().for_each(|below| drop(look(below))),
            Err(error) => {
                task.noted().warn(path.clone(), format!("cannot be looked into (links are not followed): {error}"))
            }
        }
    }
    *asked = known;
    all
}
