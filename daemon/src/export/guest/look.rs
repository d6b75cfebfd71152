//! Scans the configured folders again and again, and keeps one task running for each socket that belongs to a VM. What
//! a task does is up to `hybrid` and `serial`.

use super::folder::{FileId, Folder, Owner};
use super::guests::Guests;
use crate::model::usage::ProcessKey;
use crate::model::vm::Vm;
use crate::sys::mutex::lock;
use rustc_hash::{FxHashMap, FxHashSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Time between two scans. Folders are also scanned when a VM starts or ends.
const AGAIN: Duration = Duration::from_secs(5);

/// A socket with a listener.
#[derive(Clone, Debug)]
pub(super) struct ListeningSocket {
    pub folder: Arc<Folder>,
    pub name: OsString,
    pub id: FileId,
    pub owner: Owner,
}

/// Identifies a task: the VM, the socket, and the process that listens on it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub vm: String,
    pub process: ProcessKey,
    pub socket: FileId,
    pub peer: u32,
}

impl Key {
    pub fn of(vm: &Vm, found: &ListeningSocket) -> Self {
        Self { vm: vm.id.clone(), process: vm.process, socket: found.id, peer: found.owner.pid }
    }
}

/// Warnings that were logged already: path and reason.
#[derive(Default)]
pub(super) struct Noted(Mutex<FxHashSet<(PathBuf, String)>>);

impl Noted {
    /// Logs once what is wrong with a socket. The path is quoted and escaped: another user may have chosen it.
    pub fn warn(&self, path: PathBuf, why: String) {
        let mut noted = lock(&self.0);
        // Other users can create any number of names: memory stays bounded.
        if noted.len() > 10_000 {
            noted.clear();
        }
        if !noted.contains(&(path.clone(), why.clone())) {
            tracing::warn!("guest channel: {path:?}: {why}");
            noted.insert((path, why));
        }
    }
}

/// What is done with the sockets of one transport.
pub(super) trait Task: Send + Sync {
    /// Warnings logged for these sockets.
    fn noted(&self) -> &Noted;
    /// Whether a socket of this name can be of this transport.
    fn may_be(&self, name: &OsStr) -> bool;
    /// The VM that the socket belongs to; `None` where it belongs to none, or to none for certain.
    fn whose(&self, found: &ListeningSocket, vms: &[Vm]) -> Option<Key>;
    /// Starts to serve the socket, until `stop`; `None` where that fails.
    fn begin(&self, key: &Key, found: &ListeningSocket, stop: CancellationToken) -> Option<JoinHandle<()>>;
}

/// Runs until `stop`. When it returns, every task has ended.
pub(super) async fn follow<T: Task + 'static>(guests: Guests, folders: Vec<PathBuf>, task: T, stop: CancellationToken) {
    let (task, folders) = (Arc::new(task), Arc::new(folders));
    let mut running = FxHashMap::<Key, (CancellationToken, JoinHandle<()>)>::default();
    let (mut changes, mut asked) = (guests.vms(), FxHashMap::default());
    loop {
        let vms = Arc::clone(&changes.borrow_and_update());
        let (of, folders) = (Arc::clone(&task), Arc::clone(&folders));
        // On a blocking thread: these files belong to other users, and reading them may block.
        let look = tokio::task::spawn_blocking(move || {
            let found = scan(&folders, &*of, &mut asked);
            let whose = |found: ListeningSocket| Some((of.whose(&found, &vms)?, found));
            (found.into_iter().filter_map(whose).collect::<FxHashMap<Key, ListeningSocket>>(), asked)
        });
        // A blocked scan must not delay the stop.
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
            changed = changes.changed() => if changed.is_err() { break },
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    end(running.into_values().collect()).await;
}

/// Stops tasks and waits for their end: the next VM may need the same socket name.
async fn end(works: Vec<(CancellationToken, JoinHandle<()>)>) {
    works.iter().for_each(|(token, _)| token.cancel());
    for (_, work) in works {
        let _ = work.await;
    }
}

/// The owner of each socket when it was last asked. Inode numbers are reused, so the key includes the time of the last
/// change.
type Asked = FxHashMap<(FileId, (i64, i64)), Owner>;

/// Scans the folders. Each socket's owner is asked once.
fn scan(folders: &[PathBuf], task: &impl Task, asked: &mut Asked) -> Vec<ListeningSocket> {
    let (mut all, mut known) = (Vec::new(), Asked::default());
    let mut look = |folder: Folder| -> Vec<Folder> {
        let Ok((sockets, folders)) = folder.list() else { return Vec::new() };
        let folder = Arc::new(folder);
        for name in sockets.into_iter().filter(|name| task.may_be(name)) {
            let Ok(Some(socket)) = folder.socket(&name) else { continue };
            let key = (socket.id, socket.changed);
            if let Some(owner) = asked.get(&key).copied().or_else(|| socket.owner().ok()) {
                known.insert(key, owner);
                all.push(ListeningSocket { folder: Arc::clone(&folder), name, id: socket.id, owner });
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
