//! A list of a runtime while it is read: what changed is put on the board when the list is whole.

use crate::board::{Amount, Board};
use crate::container::{Id, hex};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

/// The containers of a list, as far as it is read.
#[derive(Debug)]
pub struct Listing<'a> {
    board: &'a Board,
    uri: &'a str,
    /// The owner of the runtime; `None`: the system.
    user: Option<u32>,
    /// The amount of `seen`.
    amount: Amount,
    /// The runtime has more containers than are kept.
    is_cut: bool,
    /// The containers of the list, with a hash of the JSON of each.
    seen: BTreeMap<Id, u64>,
    /// Containers that are new, or whose JSON changed.
    fresh: BTreeMap<Id, Box<str>>,
    twice: BTreeSet<Id>,
    wrong: Option<String>,
}

impl<'a> Listing<'a> {
    /// An empty list. `user`: the owner of the runtime; `None`: the system.
    pub fn new(board: &'a Board, uri: &'a str, user: Option<u32>) -> Self {
        let (seen, fresh, twice) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
        Self { board, uri, user, amount: Amount::default(), is_cut: false, seen, fresh, twice, wrong: None }
    }

    /// Adds a container, or the reason why it cannot be read.
    pub fn add(&mut self, container: Result<(Id, Box<str>), String>) {
        match container {
            Ok((id, json)) => {
                let is_new = !self.seen.contains_key(&id);
                if is_new && !self.amount.has_room(json.len(), Amount::most(self.user)) {
                    self.is_cut = true;
                    return;
                }
                if is_new {
                    self.amount.add(json.len());
                }
                let hash = hash(&json);
                if self.seen.insert(id, hash).is_some_and(|earlier| earlier != hash) {
                    self.twice.insert(id);
                    self.fresh.remove(&id);
                } else if !self.board.is_known(self.uri, &id, &json) {
                    self.fresh.insert(id, json);
                }
            }
            Err(why) => self.wrong = Some(why),
        }
    }

    /// Puts the list on the board, when it has been read to its end.
    pub fn finish(mut self) {
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
        if board.set_health(uri, self.user, &health) {
            match health.as_str() {
                "ok" => tracing::info!("{uri}: connected"),
                why => tracing::warn!("{uri}: {why}"),
            }
        }
        // Containers that ended come first: they make room.
        board.retain(uri, &self.seen.keys().copied().collect());
        self.fresh.into_iter().for_each(|(id, json)| board.set(uri, id, json));
        if self.is_cut {
            board.set_full(uri);
        }
    }
}

fn hash(json: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    hasher.finish()
}
