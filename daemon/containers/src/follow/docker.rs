//! Docker's API, which Podman has, too: events first, then the list, so that nothing is missed between; the list again
//! every minute.

use super::listing::Listing;
use super::{LIST_EVERY, LIST_LIMIT, Pace, Runtime, slow};
use crate::container::{Event, of_event, of_list};
use crate::http::{Answer, get};
use std::convert::Infallible;
use tokio::time::{Instant, interval_at, timeout};

/// Events about names, of Docker and of Podman. Health checks have many others.
const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%2C%22event%22%3A%5B%22create%22%2C%22start%22%2C%22rename%22%2C%22die%22%2C%22died%22%2C%22destroy%22%2C%22remove%22%5D%7D";
const LIST: &str = "/containers/json";

impl Runtime {
    /// One session with Docker's API; returns why it ended.
    pub(super) async fn docker(&self, uri: &str) -> Result<Infallible, String> {
        let (mut events, user) = get(&self.path, self.owner, EVENTS).await?;
        let user = Some(user).filter(|user| *user != 0);
        self.docker_list(uri, user).await?;
        let mut pace = Pace::default();
        let mut lists = interval_at(Instant::now() + LIST_EVERY, LIST_EVERY);
        loop {
            tokio::select! {
                more = self.docker_event(uri, &mut events) => {
                    if !more? {
                        return Err("it closed the connection".to_owned());
                    }
                    pace.keep(events.read()).await;
                }
                _ = lists.tick() => self.docker_list(uri, user).await?,
            }
        }
    }

    async fn docker_event(&self, uri: &str, events: &mut Answer) -> Result<bool, String> {
        events
            .next(|object| match of_event(object, &self.labels) {
                Ok(Event::Is(id, json)) => self.board.set(uri, id, json),
                Ok(Event::Ended(id)) => self.board.remove(uri, &id),
                Ok(Event::Other) => {}
                Err(why) => tracing::debug!("{uri}: an event that cannot be read: {why}"),
            })
            .await
    }

    async fn docker_list(&self, uri: &str, user: Option<u32>) -> Result<(), String> {
        let mut listing = Listing::new(&self.board, uri, user);
        let reading = async {
            let (answer, _) = get(&self.path, self.owner, LIST).await?;
            answer.list(|object| listing.add(of_list(object, &self.labels))).await
        };
        timeout(LIST_LIMIT, reading).await.map_err(slow)??;
        listing.finish();
        Ok(())
    }
}
