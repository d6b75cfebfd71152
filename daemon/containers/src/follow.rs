//! Follows one runtime: events first, then the list, so that nothing is missed between; the list again every minute;
//! and all of it again when the runtime is gone.

use crate::board::{Board, CONTAINERS_MAX};
use crate::container::{Event, Id, hex, of_event, of_list};
use crate::http::{Answer, get};
use crate::sockets::Owner;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, interval_at, sleep, timeout};

/// Time between two full lists: an event can be lost, and a runtime that hangs is noticed.
const LIST_EVERY: Duration = Duration::from_secs(60);
/// Pause between two attempts: the first, and the longest.
const RETRY_PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Longest time for a list.
const LIST_LIMIT: Duration = Duration::from_secs(60);
/// Events about names, of Docker and of Podman. Health checks have many others.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22start%22%2C%22rename%22%2C%22die%22%2C%22died%22%2C%22destroy%22%2C%22remove%22%5D%7D";
const LIST: &str = "/containers/json";

/// A runtime that is followed.
#[derive(Debug)]
pub struct Runtime {
    /// Its socket.
    pub path: PathBuf,
    /// Whom the socket has to belong to.
    pub owner: Owner,
    /// Labels that are sent.
    pub labels: Arc<[String]>,
    /// What is known is written here.
    pub board: Arc<Board>,
}

/// The URI by which jouled knows a socket.
pub fn uri(path: &Path) -> String {
    format!("unix://{}", path.display())
}

impl Runtime {
    /// Follows the runtime, forever.
    pub async fn follow(self) -> Infallible {
        let uri = uri(&self.path);
        let mut pause = RETRY_PAUSES.0;
        loop {
            let began = Instant::now();
            let why = match self.session(&uri).await {
                Ok(never) => match never {},
                Err(why) => why,
            };
            let user = match self.owner {
                Owner::User(user) => Some(user),
                Owner::Root | Owner::Any => None,
            };
            if self.board.set_health(&uri, user, &why) {
                tracing::warn!("{uri}: {why}; trying again");
            }
            if began.elapsed() > RETRY_PAUSES.1 {
                pause = RETRY_PAUSES.0;
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSES.1);
        }
    }

    /// One session; returns why it ended.
    async fn session(&self, uri: &str) -> Result<Infallible, String> {
        let (mut events, user) = get(&self.path, self.owner, EVENTS).await?;
        let user = Some(user).filter(|user| *user != 0);
        self.list(uri, user).await?;
        let mut lists = interval_at(Instant::now() + LIST_EVERY, LIST_EVERY);
        loop {
            tokio::select! {
                more = self.event(uri, &mut events) => if !more? {
                    return Err("it closed the connection".to_owned());
                },
                _ = lists.tick() => self.list(uri, user).await?,
            }
        }
    }

    async fn event(&self, uri: &str, events: &mut Answer) -> Result<bool, String> {
        events
            .next(|object| match of_event(object, &self.labels) {
                Ok(Event::Is(id, json)) => self.board.set(uri, id, json),
                Ok(Event::Ended(id)) => self.board.remove(uri, &id),
                Ok(Event::Other) => {}
                Err(why) => tracing::debug!("{uri}: an event that cannot be read: {why}"),
            })
            .await
    }

    /// Reads the list, and puts what changed on the board.
    async fn list(&self, uri: &str, user: Option<u32>) -> Result<(), String> {
        let (mut seen, mut fresh) = (BTreeMap::<Id, u64>::new(), BTreeMap::new());
        let (mut twice, mut wrong) = (BTreeSet::new(), None);
        let reading = async {
            let (answer, _) = get(&self.path, self.owner, LIST).await?;
            answer
                .list(|object| match of_list(object, &self.labels) {
                    Ok((id, json)) if seen.len() < CONTAINERS_MAX || seen.contains_key(&id) => {
                        let hash = hash(&json);
                        if seen.insert(id, hash).is_some_and(|earlier| earlier != hash) {
                            twice.insert(id);
                        }
                        if !self.board.is_known(uri, &id, &json) {
                            fresh.insert(id, json);
                        }
                    }
                    Ok(_) => {}
                    Err(why) => wrong = Some(why),
                })
                .await
        };
        let slow = |_| format!("its list takes more than {} s", LIST_LIMIT.as_secs());
        timeout(LIST_LIMIT, reading).await.map_err(slow)??;
        // Which of two names is right is not known.
        for id in &twice {
            seen.remove(id);
            fresh.remove(id);
        }
        let health = match (wrong, twice.first()) {
            (Some(why), _) => format!("lists a container that cannot be read: {why}"),
            (None, Some(id)) => format!("lists two containers with one id, {}: neither is named", hex(id)),
            (None, None) => "ok".to_owned(),
        };
        if self.board.set_health(uri, user, &health) {
            match health.as_str() {
                "ok" => tracing::info!("{uri}: connected"),
                why => tracing::warn!("{uri}: {why}"),
            }
        }
        fresh.into_iter().for_each(|(id, json)| self.board.set(uri, id, json));
        self.board.retain(uri, &seen.keys().copied().collect());
        Ok(())
    }
}

fn hash(json: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    json.hash(&mut hasher);
    hasher.finish()
}
