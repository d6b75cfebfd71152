//! A list of a runtime while it is read: what changed is put on the board when the list is whole.

use crate::board::{Board, CONTAINERS_MAX};
use crate::container::{Id, hex};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The containers of a list, as far as it is read.
#[derive(Debug)]
pub struct Listing<'a> {
    board: &'a Board,
    uri: &'a str,
    /// A hash of the JSON of each.
    seen: BTreeMap<Id, u64>,
    /// Those that are new, or changed.
    fresh: BTreeMap<Id, Box<str>>,
    twice: BTreeSet<Id>,
    wrong: Option<String>,
}

impl<'a> Listing<'a> {
    /// Nothing is read.
    pub fn new(board: &'a Board, uri: &'a str) -> Self {
        let (seen, fresh, twice) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { board, uri, seen, fresh, twice, wrong: None }
    }

    /// Takes a container, or what is wrong with it.
    pub fn add(&mut self, container: Result<(Id, Box<str>), String>) {
        match container {
            Ok((id, json)) if self.seen.len() < CONTAINERS_MAX || self.seen.contains_key(&id) => {
                let hash = hash(&json);
                if self.seen.insert(id, hash).is_some_and(|earlier| earlier != hash) {
                    self.twice.insert(id);
                }
                if !self.board.is_known(self.uri, &id, &json) {
                    self.fresh.insert(id, json);
                }
            }
            Ok(_) => {}
            Err(why) => self.wrong = Some(why),
        }
    }

    /// The list is whole: puts it on the board. `user`: whose runtime it is; `None`: the system's.
    pub fn finish(mut self, user: Option<u32>) {
        // Which of two names is right is not known.
        for id in &self.twice {
            self.seen.remove(id);
            self.fresh.remove(id);
        }
        let health = match (self.wrong, self.twice.first()) {
            (Some(why), _) => format!("lists a container that cannot be read: {why}"),
            (None, Some(id)) => format!("lists two containers with one id, {}: neither is named", hex(id)),
            (None, None) => "ok".to_owned(),
        };
        let (board, uri) = (self.board, self.uri);
        if board.set_health(uri, user, &health) {
            match health.as_str() {
                "ok" => tracing::info!("{uri}: connected"),
                why => tracing::warn!("{uri}: {why}"),
            }
        }
        self.fresh.into_iter().for_each(|(id, json)| board.set(uri, id, json));
        board.retain(uri, &self.seen.keys().copied().collect());
    }
}

fn hash(json: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    hasher.finish()
}
