//! The containers of every runtime, and which changes still have to be sent to jouled. The followers (`follow`,
//! `kubelet`) write it, the sender (`send`) reads it.

use crate::container::{Id, hex};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Containers of all runtimes at most, as jouled keeps them.
pub const CONTAINERS_MAX: usize = 20_000;
/// What is kept at most of all runtimes together, of one runtime of a user, and of all users' runtimes together. Any
/// user can make a socket that lists as many containers as it likes; these do not take the room of the system's.
const OF_ALL: Amount = Amount { containers: CONTAINERS_MAX, bytes: 48 << 20 };
const OF_USER: Amount = Amount { containers: 2_000, bytes: 2 << 20 };
const OF_USERS: Amount = Amount { containers: CONTAINERS_MAX / 2, bytes: 16 << 20 };
/// Bytes of containers in a line. jouled accepts 4 MiB.
const LINE_BYTES: usize = 32 << 10;

/// A number of containers, and the length of their JSON in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    containers: usize,
    bytes: usize,
}

impl Amount {
    /// The most that one runtime may have. `user`: the owner of the runtime; `None`: the system.
    pub fn most(user: Option<u32>) -> Self {
        if user.is_some() { OF_USER } else { OF_ALL }
    }

    /// Whether there is room in `most` for one more container with so many bytes.
    pub fn has_room(self, bytes: usize, most: Self) -> bool {
        self.containers < most.containers && self.bytes + bytes <= most.bytes
    }

    /// Adds a container with so many bytes.
    pub fn add(&mut self, bytes: usize) {
        self.containers += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.containers -= 1;
        self.bytes -= bytes;
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |sum, one| Self {
            containers: sum.containers + one.containers,
            bytes: sum.bytes + one.bytes,
        })
    }
}

/// The shared state of every runtime.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// By the URI of the socket.
    runtimes: BTreeMap<String, Runtime>,
    /// URIs of runtimes that are gone; jouled does not know it yet.
    absent: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct Runtime {
    /// The user that owns the runtime; `None`: the system.
    user: Option<u32>,
    /// `ok`, or the reason why the runtime cannot be asked.
    health: String,
    /// The JSON of each container.
    containers: BTreeMap<Id, Box<str>>,
    /// The amount of `containers`.
    kept: Amount,
    /// The whole list has to be sent to jouled, with `begin`.
    begin: bool,
    /// The health changed, and was not sent to jouled yet.
    is_news: bool,
    /// Containers that changed or ended; jouled does not know it yet.
    news: BTreeSet<Id>,
    /// Containers were left out, as there are too many.
    is_full: bool,
}

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    source: &'a str,
    uri: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u32>,
    health: &'a str,
}

impl Board {
    /// Sets the health of a runtime: `ok`, or the reason why it cannot be asked. Its containers stay, as they go on
    /// running. Returns whether the health changed.
    pub fn set_health(&self, uri: &str, user: Option<u32>, health: &str) -> bool {
        self.change(|state| {
            state.absent.remove(uri);
            let is_new = !state.runtimes.contains_key(uri);
            let runtime = state.runtimes.entry(uri.to_owned()).or_default();
            let changed = is_new || runtime.health != health || runtime.user != user;
            runtime.begin |= is_new || runtime.user != user;
            runtime.is_news |= changed;
            (runtime.user, runtime.health) = (user, health.to_owned());
            changed
        })
    }

    /// Whether the board has this JSON of a container.
    pub fn is_known(&self, uri: &str, id: &Id, json: &str) -> bool {
        self.lock()
            .runtimes
            .get(uri)
            .and_then(|runtime| runtime.containers.get(id))
            .is_some_and(|known| **known == *json)
    }

    /// Adds a container that runs, or replaces its JSON.
    pub fn set(&self, uri: &str, id: Id, json: Box<str>) {
        self.change(|state| {
            let Some(runtime) = state.runtimes.get_mut(uri) else { return };
            if runtime.containers.get(&id).is_some_and(|known| *known == json) {
                return;
            }
            runtime.take(&id);
            if !state.has_room(uri, json.len()) {
                return state.set_full(uri);
            }
            let Some(runtime) = state.runtimes.get_mut(uri) else { return };
            runtime.kept.add(json.len());
            runtime.containers.insert(id, json);
            runtime.news.insert(id);
        });
    }

    /// Removes a container that ended, or that cannot be named.
    pub fn remove(&self, uri: &str, id: &Id) {
        self.change(|state| {
            if let Some(runtime) = state.runtimes.get_mut(uri) {
                runtime.take(id);
            }
        });
    }

    /// Removes all containers of a runtime that are not in its new list (`keep`).
    pub fn retain(&self, uri: &str, keep: &BTreeSet<Id>) {
        self.change(|state| {
            let Some(runtime) = state.runtimes.get_mut(uri) else { return };
            runtime.is_news |= std::mem::take(&mut runtime.is_full);
            let gone: Vec<Id> = runtime.containers.keys().filter(|id| !keep.contains(*id)).copied().collect();
            gone.iter().for_each(|id| runtime.take(id));
        });
    }

    /// Notes that containers of a runtime were left out, as there are too many.
    pub fn set_full(&self, uri: &str) {
        self.change(|state| state.set_full(uri));
    }

    /// Removes a runtime whose socket is gone.
    pub fn forget(&self, uri: &str) {
        self.change(|state| {
            if state.runtimes.remove(uri).is_some() {
                state.absent.insert(uri.to_owned());
            }
        });
    }

    /// Sends everything again: a new connection to jouled knows nothing.
    pub fn begin(&self) {
        self.change(|state| {
            state.absent.clear();
            state.runtimes.values_mut().for_each(|runtime| runtime.begin = true);
        });
    }

    /// The next line for jouled; `None`: there is nothing new.
    pub fn line(&self) -> Option<String> {
        let mut state = self.lock();
        if let Some(uri) = state.absent.pop_first() {
            return Some(Line { v: 2, source: "containers", uri: &uri, user: None, health: "absent" }.with(""));
        }
        let is_new = |runtime: &&mut Runtime| runtime.begin || runtime.is_news || !runtime.news.is_empty();
        let (uri, runtime) = state.runtimes.iter_mut().find(|(_, runtime)| is_new(runtime))?;
        runtime.is_news = false;
        if std::mem::take(&mut runtime.begin) {
            runtime.news = runtime.containers.keys().copied().collect();
            return Some(runtime.line(uri, r#","begin":true"#));
        }
        let (mut containers, mut gone) = (String::new(), String::new());
        while containers.len() + gone.len() < LINE_BYTES
            && let Some(id) = runtime.news.pop_first()
        {
            match runtime.containers.get(&id) {
                Some(json) => append(&mut containers, json),
                None => append(&mut gone, &format!("\"{}\"", hex(&id))),
            }
        }
        let list = |name: &str, items: &str| match items {
            "" => String::new(),
            items => format!(r#","{name}":[{items}]"#),
        };
        Some(runtime.line(uri, &format!("{}{}", list("containers", &containers), list("gone", &gone))))
    }

    /// A line for each runtime that says that nothing changed.
    pub fn heartbeat(&self) -> String {
        let state = self.lock();
        state
            .runtimes
            .iter()
            .filter(|(_, runtime)| !runtime.begin)
            .map(|(uri, runtime)| runtime.line(uri, ""))
            .collect()
    }

    /// Returns when something changed since the last call.
    pub async fn wait(&self) {
        self.changed.notified().await;
    }

    /// The state of every runtime in one line, for the service manager; `none`: the line where there is none.
    pub fn status(&self, none: &str) -> String {
        let state = self.lock();
        let lines = state.runtimes.iter().map(|(uri, runtime)| match runtime.health.as_str() {
            "ok" => format!("{uri}: {} containers", runtime.containers.len()),
            why => format!("{uri}: {why}"),
        });
        let lines: Vec<String> = lines.collect();
        if lines.is_empty() { none.to_owned() } else { lines.join("; ") }
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_one();
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is released.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there is room for one more container of a runtime, with so many bytes.
    fn has_room(&self, uri: &str, bytes: usize) -> bool {
        let Some(runtime) = self.runtimes.get(uri) else { return false };
        let of_users = || self.runtimes.values().filter(|runtime| runtime.user.is_some()).map(|runtime| runtime.kept);
        runtime.kept.has_room(bytes, Amount::most(runtime.user))
            && (runtime.user.is_none() || of_users().sum::<Amount>().has_room(bytes, OF_USERS))
            && self.runtimes.values().map(|runtime| runtime.kept).sum::<Amount>().has_room(bytes, OF_ALL)
    }

    fn set_full(&mut self, uri: &str) {
        if let Some(runtime) = self.runtimes.get_mut(uri) {
            runtime.is_news |= !std::mem::replace(&mut runtime.is_full, true);
        }
    }
}

impl Runtime {
    /// Removes a container, if it is known, and notes that for jouled.
    fn take(&mut self, id: &Id) {
        if let Some(json) = self.containers.remove(id) {
            self.kept.remove(json.len());
            self.news.insert(*id);
        }
    }

    fn line(&self, uri: &str, rest: &str) -> String {
        let full = match self.user {
            None => "has more containers than jouled keeps: the others have no names",
            Some(_) => "has more containers than are kept of a user, or of all users: the others have no names",
        };
        let health = if self.is_full && self.health == "ok" { full } else { &self.health };
        Line { v: 2, source: "containers", uri, user: self.user, health }.with(rest)
    }
}

impl Line<'_> {
    /// The line with more fields, each of them with a comma before it.
    fn with(&self, rest: &str) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.pop();
        format!("{text}{rest}}}\n")
    }
}

fn append(list: &mut String, item: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    list.push_str(item);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> Id {
        let mut id = Id::default();
        id[30..].copy_from_slice(&number.to_be_bytes());
        id
    }

    fn json(number: u16, name: &str) -> Box<str> {
        format!(r#"{{"id":"{}","name":"{name}"}}"#, hex(&id(number))).into()
    }

    fn lines(board: &Board) -> Vec<serde_json::Value> {
        let lines = std::iter::from_fn(|| board.line());
        lines.map(|line| serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap()).collect()
    }

    #[test]
    fn jouled_is_told_once_and_a_new_one_everything() {
        let board = Board::default();
        assert!(board.set_health("unix:///a", None, "ok") && !board.set_health("unix:///a", None, "ok"));
        board.set("unix:///a", id(1), json(1, "web"));
        let first = lines(&board);
        assert_eq!((first.len(), &first[0]["begin"]), (2, &true.into()));
        assert_eq!(first[1]["containers"][0]["name"], "web");
        board.set("unix:///a", id(1), json(1, "web"));
        assert_eq!(lines(&board), Vec::<serde_json::Value>::new());
        board.set("unix:///a", id(2), json(2, "db"));
        board.remove("unix:///a", &id(1));
        let news = lines(&board);
        assert_eq!((news.len(), &news[0]["gone"][0]), (1, &hex(&id(1)).into()));
        assert_eq!(news[0]["containers"][0]["name"], "db");
        board.begin();
        assert_eq!(lines(&board)[1]["containers"].as_array().unwrap().len(), 1);
        assert!(board.set_health("unix:///a", None, "closed"));
        assert_eq!(lines(&board)[0]["health"], "closed");
        board.set("unix:///a", id(3), json(3, "x"));
        board.retain("unix:///a", &[id(3)].into());
        assert_eq!(lines(&board)[0]["gone"][0], hex(&id(2)));
        board.forget("unix:///a");
        assert_eq!(lines(&board)[0]["health"], "absent");
        assert_eq!(board.heartbeat(), "");
    }

    #[test]
    fn lines_are_short_and_containers_bounded() {
        let board = Board::default();
        board.set_health("unix:///a", None, "ok");
        for number in 0..=CONTAINERS_MAX {
            board.set("unix:///a", id(number as u16), json(number as u16, "a name of some length"));
        }
        let all = lines(&board);
        let count: usize = all.iter().filter_map(|line| Some(line["containers"].as_array()?.len())).sum();
        assert_eq!(count, CONTAINERS_MAX);
        assert!(all.iter().all(|line| line.to_string().len() < LINE_BYTES + 4096));
        assert!(board.heartbeat().contains("more containers than jouled keeps"));
    }

    #[test]
    fn users_do_not_take_the_room_of_the_system() {
        let board = Board::default();
        let taken =
            || lines(&board).iter().filter_map(|line| Some(line["containers"].as_array()?.len())).sum::<usize>();
        let users: Vec<String> = (0..20).map(|user| format!("unix:///run/user/{user}/docker.sock")).collect();
        for (user, uri) in users.iter().enumerate() {
            board.set_health(uri, Some(user as u32), "ok");
            (0..=OF_USER.containers as u16).for_each(|number| board.set(uri, id(number), json(number, "a")));
        }
        assert_eq!(taken(), OF_USERS.containers);
        assert_eq!(board.heartbeat().matches("than are kept of a user").count(), users.len());
        board.set_health("unix:///a", None, "ok");
        (0..20_000).for_each(|number| board.set("unix:///a", id(number), json(number, "a")));
        assert_eq!(taken(), CONTAINERS_MAX - OF_USERS.containers);
        // Room that becomes free is taken again, and a runtime that has room says so.
        board.retain(&users[0], &BTreeSet::new());
        board.set(&users[0], id(7), json(7, "b"));
        let news = lines(&board);
        assert_eq!((&news[0]["containers"][0]["name"], &news[0]["health"]), (&"b".into(), &"ok".into()));
        // Long names take the room of several.
        board.retain(&users[0], &BTreeSet::new());
        let long = "x".repeat(OF_USER.bytes / 4);
        (0..8).for_each(|number| board.set(&users[0], id(number), json(number, &long)));
        lines(&board);
        board.set(&users[0], id(1), json(1, "short"));
        board.set(&users[0], id(5), json(5, &long));
        let news = lines(&board);
        assert_eq!(news.iter().filter_map(|line| line["containers"].as_array()).map(Vec::len).sum::<usize>(), 2);
    }
}
