//! The CRI, version v1, as CRI-O speaks it: a list at each event, and without events (CRI-O's `enable_pod_events` is
//! off by default; its stream then ends at once) a list every second.

use super::listing::Listing;
use super::{LIST_EVERY, LIST_LIMIT, Runtime, SETTLE, slow};
use crate::container::{Id, id, json, printable};
use crate::grpc::messages::{CriContainer, Empty};
use crate::grpc::{Call, Method, Take, call};
use prost::Message;
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, sleep_until, timeout};

const LIST: &str = "/runtime.v1.RuntimeService/ListContainers";
const EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";
/// CONTAINER_EXITED.
const EXITED: i32 = 2;
/// Time between two lists without events, and at least so many times as long as a list takes.
const POLL_EVERY: Duration = Duration::from_secs(1);
const POLL_SHARE: u32 = 20;

impl Runtime {
    /// One session with the CRI; returns why it ended.
    pub(super) async fn cri(&self, uri: &str) -> Result<Infallible, String> {
        let subscribe = Method { path: EVENTS, namespace: None, take: Take::Elements };
        let (events, user) = call(&self.path, self.owner, subscribe, &Empty {}).await?;
        let (mut events, user) = (Some(events), Some(user).filter(|user| *user != 0));
        // Two lists at the beginning: nothing says when the stream of events begins.
        let (mut due, mut lists) = (Instant::now(), 0_u32);
        loop {
            let now = Instant::now();
            tokio::select! {
                more = event(&mut events) => match more {
                    Ok(true) => due = due.min(now + SETTLE / 20),
                    Ok(false) => {}
                    Err(why) => {
                        tracing::debug!("{uri}: no events: {why}: it is asked for its list every second");
                        (events, due) = (None, due.min(now + POLL_EVERY));
                    }
                },
                () = sleep_until(due) => {
                    self.cri_list(uri, user).await?;
                    lists = lists.saturating_add(1);
                    let took = now.elapsed();
                    let pause = match events {
                        Some(_) if lists > 1 => LIST_EVERY,
                        Some(_) => SETTLE,
                        None => POLL_EVERY.max(took * POLL_SHARE),
                    };
                    due = Instant::now() + pause;
                }
            }
        }
    }

    async fn cri_list(&self, uri: &str, user: Option<u32>) -> Result<(), String> {
        let mut listing = Listing::new(&self.board, uri, user);
        let reading = async {
            let list = Method { path: LIST, namespace: None, take: Take::Elements };
            let (answer, _) = call(&self.path, self.owner, list, &Empty {}).await?;
            let each = |bytes: &[u8]| match running(bytes, &self.labels) {
                Ok(Some(container)) => listing.add(Ok(container)),
                Ok(None) => {}
                Err(why) => listing.add(Err(why)),
            };
            answer.list(each).await
        };
        timeout(LIST_LIMIT, reading).await.map_err(slow)??;
        listing.finish();
        Ok(())
    }
}

/// Waits for the next event, and forever without a stream of events. Whether there was one.
async fn event(events: &mut Option<Call>) -> Result<bool, String> {
    let Some(events) = events else { return std::future::pending().await };
    let mut any = false;
    match events.next(|_| any = true).await {
        Ok(true) => Ok(any),
        Ok(false) => Err("their stream ended".to_owned()),
        Err(why) => Err(why),
    }
}

/// Id and JSON of a container; `None`: it ended.
fn running(bytes: &[u8], chosen: &[String]) -> Result<Option<(Id, Box<str>)>, String> {
    let CriContainer { id: text, metadata, image, state, labels } =
        CriContainer::decode(bytes).map_err(|error| printable(&error.to_string()))?;
    let id = id(&text).ok_or("an id that has not 64 hex digits")?;
    let image = image.unwrap_or_default();
    let image = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
    let name = metadata.unwrap_or_default().name;
    Ok((state != EXITED).then(|| (id, json(&text, &name, &image, &labels, chosen))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::messages::{Image, Metadata};

    #[test]
    fn containers_that_run_are_taken() {
        let container = |id: &str, state| {
            let labels = [("io.kubernetes.pod.uid", "u"), ("io.kubernetes.pod.name", "web-0"), ("team", "blue")];
            let container = CriContainer {
                id: id.to_owned(),
                metadata: Some(Metadata { name: "nginx".to_owned() }),
                image: Some(Image { image: "sha256:1".to_owned(), user_specified_image: "nginx:1".to_owned() }),
                state,
                labels: labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            };
            running(&container.encode_to_vec(), &["team".to_owned()])
        };
        let id = "ab".repeat(32);
        let (_, json) = container(&id, 1).unwrap().unwrap();
        let expected = serde_json::json!({
            "id": id, "name": "nginx", "image": "nginx:1", "labels": { "team": "blue" },
            "pod_uid": "u", "pod_name": "web-0", "pod_namespace": "",
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap(), expected);
        assert_eq!(container(&id, EXITED), Ok(None));
        assert!(container("../../x", 1).unwrap_err().contains("64 hex digits"));
    }
}
