//! What container runtimes say of their containers, as jouled-containers reports it: names, images, compose projects,
//! chosen labels. A name is a label: it decides nothing about what a cgroup is charged to.
//!
//! An id belongs to one owner: the system, or a user whose own runtime (a rootless one) reports it. A user's runtime
//! names only containers in that user's slice. Ids are random, so what was reported is never wrong later, and stays
//! when the helper is gone: health says that.

use super::container_line::{self, Line};
use crate::model::entity::Details;
use crate::model::source::{Health, SourceRole, SourceState};
use rustc_hash::FxHashMap;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A runtime of which nothing was said for this long has failed.
const STALE: Duration = super::STALE;
/// Runtimes (sockets) at most. Each user can have one.
const RUNTIMES_MAX: usize = 64;
/// Containers of all runtimes at most.
const CONTAINERS_MAX: usize = 20_000;
/// Changes that are kept for a reader. One that has read less has to look at everything.
const CHANGES_MAX: usize = 16_384;
/// Ids with two names that are logged.
const CONFLICTS_LOGGED: usize = 16;

/// The id of a container: 64 hex digits.
pub(super) type Id = [u8; 32];

/// A container id from its text.
pub(super) fn id(text: &str) -> Option<Id> {
    let digits = text.as_bytes();
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut id = Id::default();
    if digits.len() != 2 * id.len() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(id)
}

/// What a runtime says of a container.
#[derive(Debug, PartialEq, Eq)]
pub struct Reported {
    /// Its name; empty where it has none.
    pub name: Box<str>,
    /// Image, compose project and service, chosen labels.
    pub details: Details,
    /// The pod that it is in; `None`: it is in none, or its runtime does not say.
    pub pod: Option<Box<ReportedPod>>,
}

/// What a runtime says of the pod of a container.
#[derive(Debug, PartialEq, Eq)]
pub struct ReportedPod {
    /// Its uid, as it is in the path of the pod's cgroup.
    pub uid: Box<str>,
    /// Its name.
    pub name: Box<str>,
    /// Its namespace.
    pub namespace: Box<str>,
}

/// A container: its owner (a user, or the system) and its id.
type Key = (Option<u32>, Id);

/// What runtimes say of one id.
#[derive(Debug)]
enum Claims {
    One(u16, Arc<Reported>),
    Several(Vec<(u16, Arc<Reported>)>),
}

impl Claims {
    fn all(&self) -> Vec<(u16, Arc<Reported>)> {
        match self {
            Self::One(runtime, reported) => vec![(*runtime, Arc::clone(reported))],
            Self::Several(claims) => claims.clone(),
        }
    }

    fn of(mut claims: Vec<(u16, Arc<Reported>)>) -> Option<Self> {
        match claims.len() {
            0 | 1 => claims.pop().map(|(runtime, reported)| Self::One(runtime, reported)),
            _ => Some(Self::Several(claims)),
        }
    }

    /// What all agree on; `None`: they have different names for it.
    fn agreed(&self) -> Option<&Arc<Reported>> {
        match self {
            Self::One(_, reported) => Some(reported),
            Self::Several(claims) => {
                let (_, first) = claims.first()?;
                claims.iter().all(|(_, other)| other.name == first.name).then_some(first)
            }
        }
    }
}

#[derive(Debug)]
struct Runtime {
    number: u16,
    user: Option<u32>,
    health: Health,
    last_line: Instant,
    /// The last line that began a list: a helper that connects begins a list of each runtime that it follows.
    begun: Instant,
}

#[derive(Debug, Default)]
struct State {
    /// By the URI of the socket.
    runtimes: BTreeMap<String, Runtime>,
    known: FxHashMap<Key, Claims>,
    /// Ids with two names.
    conflicts: usize,
    conflicts_logged: usize,
    /// Containers beyond [`CONTAINERS_MAX`] were left out.
    is_full: bool,
    /// The last changes, and how many there were before these.
    changes: VecDeque<Key>,
    earlier_changes: u64,
    connected_once: bool,
}

/// What every runtime says. Written by the inventory socket, read at a tick; both hold the lock for a moment only.
#[derive(Debug, Default)]
pub struct Containers {
    state: Mutex<State>,
}

/// What a reader has read: a number of changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor(Option<u64>);

/// What changed since a reader looked last.
#[derive(Debug, PartialEq, Eq)]
pub enum Changed {
    /// Anything may have.
    All,
    /// Containers with these ids, in hex, with their owners.
    These(Vec<(Option<u32>, String)>),
}

impl Containers {
    /// Applies a line of jouled-containers, received `at` this time.
    ///
    /// # Errors
    /// Why the line cannot be used, in one short printable line.
    pub(super) fn accept(&self, line: &[u8], at: Instant) -> Result<(), String> {
        let line = container_line::read(line)?;
        let mut state = self.lock();
        state.connected_once = true;
        state.apply(line, at)
    }

    /// Whether a helper reports a runtime's containers now, so that a name will come.
    pub fn is_reporting(&self) -> bool {
        self.lock().runtimes.values().any(|runtime| runtime.health == Health::Healthy)
    }

    /// Marks runtimes of which nothing was said for [`STALE`]. Their names stay. A runtime that a helper does not
    /// follow any more since it was started again is forgotten. Whether that is a change.
    pub(super) fn expire(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let mut any = state.forget_unfollowed(now);
        for runtime in state.runtimes.values_mut() {
            if now.saturating_duration_since(runtime.last_line) >= STALE {
                let why = format!(
                    "jouled-containers said nothing for {} s: see systemctl status jouled-containers; names stay",
                    STALE.as_secs()
                );
                let stale = Health::Failed(why);
                any |= runtime.health != stale;
                runtime.health = stale;
            }
        }
        any
    }

    /// What changed since `cursor`, at most `most` changes; moves the cursor.
    pub fn changed(&self, cursor: &mut Cursor, most: usize) -> Changed {
        let state = self.lock();
        let all = state.earlier_changes + state.changes.len() as u64;
        match cursor.0 {
            Some(read) if read >= state.earlier_changes => {
                let from = usize::try_from(read - state.earlier_changes).unwrap_or(usize::MAX);
                let these: Vec<_> = state.changes.iter().skip(from).take(most).collect();
                cursor.0 = Some(read + these.len() as u64);
                Changed::These(these.into_iter().map(|(owner, id)| (*owner, hex(id))).collect())
            }
            _ => {
                cursor.0 = Some(all);
                Changed::All
            }
        }
    }

    /// Calls `each` for those of `wanted` (owner and id) of which a runtime says something, with their place.
    pub fn find<'a>(
        &self,
        wanted: impl IntoIterator<Item = (Option<u32>, &'a str)>,
        mut each: impl FnMut(usize, &Arc<Reported>),
    ) {
        let state = self.lock();
        for (place, (owner, text)) in wanted.into_iter().enumerate() {
            let claims = id(text).and_then(|id| state.known.get(&(owner, id)));
            if let Some(reported) = claims.and_then(Claims::agreed) {
                each(place, reported);
            }
        }
    }

    /// The state of the source `containers`.
    pub(super) fn source(&self) -> SourceState {
        let state = self.lock();
        let detail = state.runtimes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        SourceState { detail, ..SourceState::new("containers", SourceRole::Entity, state.health()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is released, also by a panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn apply(&mut self, line: Line, at: Instant) -> Result<(), String> {
        let Line { uri, user, health, begin, containers, gone } = line;
        let is_new = !self.runtimes.contains_key(&uri);
        if health == "absent" {
            if let Some(Runtime { number, .. }) = self.runtimes.remove(&uri) {
                self.forget(number);
            }
            return Ok(());
        }
        if is_new && !begin {
            return Err(format!("{uri}: the first line has to have \"begin\""));
        }
        if is_new && self.runtimes.len() >= RUNTIMES_MAX {
            return Err(format!("more than {RUNTIMES_MAX} runtimes: {uri} is not taken"));
        }
        let health = match health.as_str() {
            "ok" => Health::Healthy,
            why => Health::Failed(why.into()),
        };
        let free = (0..=u16::MAX).find(|number| self.runtimes.values().all(|runtime| runtime.number != *number));
        let number = free.unwrap_or_default();
        let new = Runtime { number, user, health: health.clone(), last_line: at, begun: at };
        let runtime = self.runtimes.entry(uri).or_insert(new);
        let other_user = runtime.user != user;
        (runtime.user, runtime.health, runtime.last_line) = (user, health, at);
        let number = runtime.number;
        if begin {
            runtime.begun = at;
        }
        if begin || other_user {
            self.forget(number);
        }
        for id in gone {
            self.remove((user, id), number);
        }
        if self.known.len() + containers.len() > CONTAINERS_MAX {
            self.make_room(number);
        }
        for (id, reported) in containers {
            self.add((user, id), number, reported);
        }
        Ok(())
    }

    fn add(&mut self, key: Key, runtime: u16, reported: Reported) {
        let mut claims = self.known.get(&key).map(Claims::all).unwrap_or_default();
        if claims.is_empty() && self.known.len() >= CONTAINERS_MAX {
            self.is_full = true;
            return;
        }
        let was = conflicts(&claims);
        match claims.iter_mut().find(|(other, _)| *other == runtime) {
            Some((_, known)) if **known == reported => return,
            Some((_, known)) => *known = Arc::new(reported),
            None => claims.push((runtime, Arc::new(reported))),
        }
        self.replace(key, claims, was);
    }

    fn remove(&mut self, key: Key, runtime: u16) {
        let Some(mut claims) = self.known.get(&key).map(Claims::all) else { return };
        let was = conflicts(&claims);
        claims.retain(|(other, _)| *other != runtime);
        self.replace(key, claims, was);
    }

    fn replace(&mut self, key: Key, claims: Vec<(u16, Arc<Reported>)>, was_conflict: bool) {
        let is_conflict = conflicts(&claims);
        self.conflicts = self.conflicts + usize::from(is_conflict) - usize::from(was_conflict);
        if is_conflict && !was_conflict && self.conflicts_logged < CONFLICTS_LOGGED {
            self.conflicts_logged += 1;
            let of = |number| self.runtimes.iter().find(|(_, runtime)| runtime.number == number);
            let uris: Vec<&str> = claims.iter().filter_map(|(number, _)| Some(of(*number)?.0.as_str())).collect();
            tracing::warn!("containers: {} have different names for {}: it has none", uris.join(" and "), hex(&key.1));
        }
        match Claims::of(claims) {
            Some(claims) => drop(self.known.insert(key, claims)),
            None => drop(self.known.remove(&key)),
        }
        if self.changes.len() >= CHANGES_MAX {
            self.changes.pop_front();
            self.earlier_changes += 1;
        }
        self.changes.push_back(key);
    }

    /// Makes room for what a runtime says: drops what was said of runtimes that were silent since its list began, as an
    /// earlier run of the helper may have followed them.
    fn make_room(&mut self, of: u16) {
        let begun = self.runtimes.values().find(|runtime| runtime.number == of).map(|runtime| runtime.begun);
        let is_silent = |runtime: &&Runtime| begun.is_some_and(|begun| runtime.last_line < begun);
        let silent: Vec<u16> = self.runtimes.values().filter(is_silent).map(|runtime| runtime.number).collect();
        silent.into_iter().for_each(|number| self.forget(number));
    }

    /// Forgets runtimes that were last heard of before a helper began to speak that does not follow them: a user's that
    /// logged out meanwhile, or those of another command line. A helper names all that it follows when it connects, so
    /// after [`STALE`] nothing more comes. The kubelet has a helper of its own. Whether there was any.
    fn forget_unfollowed(&mut self, now: Instant) -> bool {
        let is_over = |at: Instant| now.saturating_duration_since(at) >= STALE;
        let is_kubelet = |uri: &str| uri.starts_with("https:");
        let is_unfollowed = |(uri, runtime): &(&String, &Runtime)| {
            let mut others = self.runtimes.iter().filter(|(other, _)| is_kubelet(other) == is_kubelet(uri));
            is_over(runtime.last_line)
                && others.any(|(_, other)| {
                    other.begun > runtime.last_line && is_over(other.begun) && !is_over(other.last_line)
                })
        };
        let unfollowed: Vec<String> = self.runtimes.iter().filter(is_unfollowed).map(|(uri, _)| uri.clone()).collect();
        for uri in &unfollowed {
            tracing::info!("containers: {uri}: jouled-containers does not follow it any more");
            if let Some(Runtime { number, .. }) = self.runtimes.remove(uri) {
                self.forget(number);
            }
        }
        !unfollowed.is_empty()
    }

    /// Drops what a runtime said.
    fn forget(&mut self, runtime: u16) {
        self.is_full = false;
        let is_its = |claims: &Claims| match claims {
            Claims::One(number, _) => *number == runtime,
            Claims::Several(claims) => claims.iter().any(|(number, _)| *number == runtime),
        };
        let keys: Vec<Key> = self.known.iter().filter(|(_, claims)| is_its(claims)).map(|(key, _)| *key).collect();
        keys.into_iter().for_each(|key| self.remove(key, runtime));
    }

    /// Healthy where every runtime is, failed where none is, else degraded.
    fn health(&self) -> Health {
        if self.runtimes.is_empty() {
            return match self.connected_once {
                true => Health::Unsupported("jouled-containers found no container runtime".into()),
                false => Health::Unsupported(
                    "no jouled-containers is connected: install the package jouled-containers for names of containers"
                        .into(),
                ),
            };
        }
        let faulty = self.runtimes.iter().filter(|(_, runtime)| runtime.health != Health::Healthy);
        let mut faulty: Vec<String> = faulty.map(|(uri, runtime)| format!("{uri}: {}", runtime.health.why())).collect();
        let all = faulty.len() == self.runtimes.len();
        if self.is_full {
            faulty.push(format!("more than {CONTAINERS_MAX} containers: the others have no names"));
        }
        if self.conflicts > 0 {
            faulty
                .push(format!("containers without a name, as two runtimes name them differently: {}", self.conflicts));
        }
        match faulty.is_empty() {
            true => Health::Healthy,
            false if all => Health::Failed(faulty.join("; ")),
            false => Health::Degraded(faulty.join("; ")),
        }
    }
}

fn conflicts(claims: &[(u16, Arc<Reported>)]) -> bool {
    claims.first().is_some_and(|(_, first)| claims.iter().any(|(_, other)| other.name != first.name))
}

fn hex(id: &Id) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}
