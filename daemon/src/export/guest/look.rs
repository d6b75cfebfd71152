//! Scans the configured folders when they change, and keeps one task running for each socket that belongs to a VM. What
//! a task does is up to `hybrid` and `serial`.

use super::folder::{self, FileId, Folder, Owner};
use super::guests::Guests;
use crate::model::usage::ProcessKey;
use crate::model::vm::Vm;
use crate::sys::mutex::lock;
use rustc_hash::{FxHashMap, FxHashSet};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Time between two looks whether a folder changed: also until a socket that was removed is made again. Folders are
/// also scanned when a VM starts or ends, and when a task ended.
const AGAIN: Duration = Duration::from_secs(1);
/// Looks without a change after which folders are scanned all the same. A scan of 1,000 sockets costs 20 ms of CPU
/// time.
const SKIPPED_MAX: u32 = 60;
/// A folder that changed less than this before its scan may have changed again within the same clock tick.
const TOO_FRESH: Duration = Duration::from_secs(1);

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

/// What a task noticed.
#[derive(Default)]
pub(super) struct Noted {
    /// Warnings that were logged already: path and reason.
    warned: Mutex<FxHashSet<(PathBuf, String)>>,
}

impl Noted {
    /// Logs once what is wrong with a socket. The path is quoted and escaped: another user may have chosen it.
    pub fn warn(&self, path: PathBuf, why: String) {
        let mut noted = lock(&self.warned);
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

/// A task that serves a socket.
pub(super) struct Serving {
    pub task: JoinHandle<()>,
    /// The socket that was made for it, which goes with it. A task whose socket was removed or replaced is begun again.
    pub made: Option<Made>,
}

/// A socket that jouled made.
#[derive(Clone)]
pub(super) struct Made {
    pub folder: Arc<Folder>,
    pub name: OsString,
    pub file: FileId,
}

impl Made {
    fn is_there(&self) -> bool {
        self.folder.socket(&self.name).is_ok_and(|found| found.is_some_and(|found| found.id == self.file))
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
    fn begin(&self, key: &Key, found: &ListeningSocket, stop: CancellationToken) -> Option<Serving>;
}

/// Runs until `stop`. When it returns, every task has ended.
pub(super) async fn follow<T: Task + 'static>(guests: Guests, folders: Vec<PathBuf>, task: T, stop: CancellationToken) {
    let (task, folders) = (Arc::new(task), Arc::new(folders));
    let mut running = FxHashMap::<Key, (CancellationToken, Serving)>::default();
    let (mut changes, mut last, mut must) = (guests.vms(), Last::default(), true);
    loop {
        let vms = Arc::clone(&changes.borrow_and_update());
        must |= running.values().any(|(_, work)| work.task.is_finished());
        let (of, folders) = (Arc::clone(&task), Arc::clone(&folders));
        let made = |(key, (_, work)): (&Key, &(_, Serving))| Some((key.clone(), work.made.clone()?));
        let made: Vec<(Key, Made)> = running.iter().filter_map(made).collect();
        // On a blocking thread: these files belong to other users, and reading them may block.
        let look = tokio::task::spawn_blocking(move || {
            if !must && last.holds() {
                return (None, last);
            }
            let found = last.scan(&folders, &*of);
            let whose = |found: ListeningSocket| Some((of.whose(&found, &vms)?, found));
            let wanted: FxHashMap<Key, ListeningSocket> = found.into_iter().filter_map(whose).collect();
            let lost = made.into_iter().filter(|(_, made)| !made.is_there());
            (Some((wanted, lost.collect::<FxHashMap<Key, Made>>())), last)
        });
        // A blocked scan must not delay the stop.
        let looked = tokio::select! {
            () = stop.cancelled() => break,
            looked = look => looked,
        };
        let Ok((wanted, looked)) = looked else { break };
        (last, must) = (looked, false);
        if let Some((wanted, lost)) = wanted {
            for made in lost.iter().filter_map(|(key, made)| wanted.contains_key(key).then_some(made)) {
                let path = made.folder.path(&made.name);
                tracing::warn!("guest channel: {path:?}: the socket was removed: made again as its VM still runs");
            }
            let is_over = |key: &Key| lost.contains_key(key) || !wanted.contains_key(key);
            let over: Vec<Key> = running
                .iter()
                .filter(|(key, (_, work))| work.task.is_finished() || is_over(key))
                .map(|(key, _)| key.clone())
                .collect();
            end(over.iter().filter_map(|key| running.remove(key)).collect()).await;
            for (key, found) in wanted {
                let token = stop.child_token();
                if running.contains_key(&key) {
                    continue;
                }
                match task.begin(&key, &found, token.clone()) {
                    Some(work) => drop(running.insert(key, (token, work))),
                    None => must = true,
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            changed = changes.changed() => match changed {
                Ok(()) => must = true,
                Err(_) => break,
            },
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
    end(running.into_values().collect()).await;
}

/// Stops tasks and waits for their end: the next VM may need the same socket name.
async fn end(works: Vec<(CancellationToken, Serving)>) {
    works.iter().for_each(|(token, _)| token.cancel());
    for (_, work) in works {
        let _ = work.task.await;
    }
}

/// The owner of each socket when it was last asked. Inode numbers are reused, so the key includes the time of the last
/// change.
type Asked = FxHashMap<(FileId, (i64, i64)), Owner>;

/// What the last scan saw.
#[derive(Default)]
struct Last {
    asked: Asked,
    /// Every folder that was looked into, with its stamp from before; `None` where there was none.
    folders: Vec<(PathBuf, Option<folder::Stamp>)>,
    /// Whether everything could be looked into, and no folder had changed just before.
    complete: bool,
    skipped: u32,
}

impl Last {
    /// Whether a scan would find the same: no folder changed since.
    fn holds(&mut self) -> bool {
        self.skipped += 1;
        let same = |(path, stamp): &(PathBuf, Option<folder::Stamp>)| folder::stamp(path).ok() == *stamp;
        self.complete && self.skipped <= SKIPPED_MAX && self.folders.iter().all(same)
    }

    /// Scans the folders. Each socket's owner is asked once.
    fn scan(&mut self, folders: &[PathBuf], task: &impl Task) -> Vec<ListeningSocket> {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let fresh = began.saturating_sub(TOO_FRESH);
        let (mut all, mut known, mut seen, mut complete) = (Vec::new(), Asked::default(), Vec::new(), true);
        let asked = &self.asked;
        let mut look = |folder: Folder| -> Vec<Folder> {
            let (Ok(stamp), Ok((sockets, folders))) = (folder.stamp(), folder.list()) else {
                complete = false;
                return Vec::new();
            };
            complete &= stamp.1 < (fresh.as_secs() as i64, i64::from(fresh.subsec_nanos()));
            seen.push((folder.own_path().to_owned(), Some(stamp)));
            let folder = Arc::new(folder);
            for name in sockets.into_iter().filter(|name| task.may_be(name)) {
                let Ok(Some(socket)) = folder.socket(&name) else {
                    complete = false;
                    continue;
                };
                let key = (socket.id, socket.changed);
                match asked.get(&key).copied().or_else(|| socket.owner().ok()) {
                    Some(owner) => {
                        known.insert(key, owner);
                        all.push(ListeningSocket { folder: Arc::clone(&folder), name, id: socket.id, owner });
                    }
                    None => complete = false,
                }
            }
            folders
        };
        let mut closed = Vec::new();
        for path in folders {
            match Folder::open(path) {
                Ok(folder) => look(folder).into_iter().for_each(|below| drop(look(below))),
                Err(error) => {
                    closed.push((path.clone(), folder::stamp(path).ok()));
                    task.noted().warn(path.clone(), format!("cannot be looked into (links are not followed): {error}"));
                }
            }
        }
        seen.append(&mut closed);
        *self = Self { asked: known, folders: seen, complete, skipped: 0 };
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    struct Any(Noted);

    impl Task for Any {
        fn noted(&self) -> &Noted {
            &self.0
        }
        fn may_be(&self, _: &OsStr) -> bool {
            true
        }
        fn whose(&self, _: &ListeningSocket, _: &[Vm]) -> Option<Key> {
            None
        }
        fn begin(&self, _: &Key, _: &ListeningSocket, _: CancellationToken) -> Option<Serving> {
            None
        }
    }

    #[tokio::test]
    async fn folders_are_scanned_again_only_where_something_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (root, below) = (dir.path().join("vms"), dir.path().join("vms/one"));
        std::fs::create_dir_all(&below).unwrap();
        let _listener = UnixListener::bind(below.join("a")).unwrap();
        let (task, folders) = (Any(Noted::default()), [root.clone()]);
        let mut last = Last::default();
        assert!(!last.holds(), "nothing was scanned yet");
        assert_eq!(last.scan(&folders, &task).len(), 1);
        assert!(!last.holds(), "a change just before the scan may not be the last in its clock tick");
        // As if the last change were long ago.
        last.complete = true;
        assert!(last.holds() && last.holds());
        let _another = UnixListener::bind(below.join("b")).unwrap();
        assert!(!last.holds(), "a socket in a folder below");
        assert_eq!(last.scan(&folders, &task).len(), 2);
        last.complete = true;
        std::fs::create_dir(root.join("two")).unwrap();
        assert!(!last.holds(), "a folder");
        last.scan(&folders, &task);
        last.complete = true;
        std::fs::rename(&root, dir.path().join("away")).unwrap();
        std::fs::create_dir_all(&below).unwrap();
        assert!(!last.holds(), "another folder of that name");
        last.scan(&folders, &task);
        last.complete = true;
        for _ in 0..SKIPPED_MAX {
            assert!(last.holds());
        }
        assert!(!last.holds(), "now and then in any case");
        std::fs::remove_dir_all(&root).unwrap();
        last.scan(&folders, &task);
        assert!(last.holds(), "a folder that is not there is not looked for again and again");
        std::fs::create_dir(&root).unwrap();
        assert!(!last.holds(), "it may come");
    }
}
