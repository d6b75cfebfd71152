//! containerd's own API: the containers of nerdctl and of the kubelet (the CRI plugin keeps the latter in the namespace
//! k8s.io, with the kubelet's labels). Docker's containers (the namespace moby) have no names there.
//!
//! Events say which container is new, and a list of these alone has their labels. A container is known from its
//! creation to its removal, also while it does not run: containerd lists it so.

use super::listing::Listing;
use super::{LIST_LIMIT, Pace, Runtime, SETTLE, slow};
use crate::container::{Id, id, json, own_name, printable};
use crate::grpc::messages::{Container, ContainerEvent, Empty, Envelope, Filters, Namespace};
use crate::grpc::{Call, Method, Take, call};
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{Instant, interval_at, sleep_until, timeout};

/// Time between two full lists. A list has the whole specification of each container, so it is read less often than
/// that of other runtimes.
const LIST_EVERY: Duration = Duration::from_secs(300);
const LIST: &str = "/containerd.services.containers.v1.Containers/ListStream";
const NAMESPACES: &str = "/containerd.services.namespaces.v1.Namespaces/List";
const EVENTS: &str = "/containerd.services.events.v1.Events/Subscribe";
const TOPICS: [&str; 3] = ["/containers/create", "/containers/update", "/containers/delete"];
/// The namespace of Docker, whose own socket has the names.
const OF_DOCKER: &str = "moby";
/// Labels of nerdctl.
const NERDCTL_NAME: &str = "nerdctl/name";
/// Namespaces at most, and containers that are asked for at once.
const NAMESPACES_MAX: usize = 64;
const IDS_MAX: usize = 100;

/// Containers to ask for, by namespace.
type Wanted = BTreeMap<String, BTreeSet<String>>;

impl Runtime {
    /// One session with containerd; returns why it ended.
    pub(super) async fn containerd(&self, uri: &str) -> Result<Infallible, String> {
        let topics = TOPICS.map(|topic| format!("topic==\"{topic}\""));
        let subscribe = Method { path: EVENTS, namespace: None, take: Take::Messages };
        let (mut events, user) = call(&self.path, self.owner, subscribe, &Filters { filters: topics.into() }).await?;
        let user = Some(user).filter(|user| *user != 0);
        self.containerd_list(uri, user).await?;
        // A second list soon: nothing says when the stream of events begins.
        let mut lists = interval_at(Instant::now() + SETTLE, LIST_EVERY);
        let mut pace = Pace::default();
        let (mut wanted, mut due) = (Wanted::new(), Instant::now());
        loop {
            tokio::select! {
                more = self.containerd_event(uri, &mut events, &mut wanted) => {
                    if !more? {
                        return Err("it closed the connection".to_owned());
                    }
                    pace.keep(events.read()).await;
                }
                () = sleep_until(due), if !wanted.is_empty() => {
                    self.containerd_named(uri, std::mem::take(&mut wanted)).await?;
                    // Containers that start at the same time are asked for together.
                    due = Instant::now() + SETTLE / 20;
                }
                _ = lists.tick() => self.containerd_list(uri, user).await?,
            }
        }
    }

    async fn containerd_event(&self, uri: &str, events: &mut Call, wanted: &mut Wanted) -> Result<bool, String> {
        events
            .next(|bytes| {
                let event = Envelope::decode(bytes).and_then(|envelope| {
                    let event = envelope.event.unwrap_or_default();
                    Ok((envelope.namespace, envelope.topic, ContainerEvent::decode(event.value.as_slice())?.id))
                });
                let (namespace, topic, text) = match event {
                    Ok(event) => event,
                    Err(error) => return tracing::debug!("{uri}: an event that cannot be read: {error}"),
                };
                let Some(id) = id(&text).filter(|_| is_followed(&namespace)) else { return };
                if topic == TOPICS[2] {
                    wanted.retain(|_, ids| {
                        ids.remove(&text);
                        !ids.is_empty()
                    });
                    self.board.remove(uri, &id);
                } else if TOPICS.contains(&topic.as_str()) && wanted.len() < NAMESPACES_MAX {
                    let ids = wanted.entry(namespace).or_default();
                    if ids.len() < crate::board::CONTAINERS_MAX {
                        ids.insert(text);
                    }
                }
            })
            .await
    }

    /// Puts these containers on the board.
    async fn containerd_named(&self, uri: &str, wanted: Wanted) -> Result<(), String> {
        for (namespace, ids) in wanted {
            let filters: Vec<String> = ids.iter().map(|id| format!("id=={id}")).collect();
            for some in filters.chunks(IDS_MAX) {
                let reading = self.containerd_read(&namespace, some.to_vec(), |read| match read {
                    Ok((id, json)) => self.board.set(uri, id, json),
                    Err(why) => tracing::warn!("{uri}: a container that cannot be read: {why}"),
                });
                timeout(LIST_LIMIT, reading).await.map_err(slow)??;
            }
        }
        Ok(())
    }

    async fn containerd_list(&self, uri: &str, user: Option<u32>) -> Result<(), String> {
        let mut listing = Listing::new(&self.board, uri, user);
        let reading = async {
            let mut namespaces = BTreeSet::new();
            let all = Method { path: NAMESPACES, namespace: None, take: Take::Elements };
            let (answer, _) = call(&self.path, self.owner, all, &Empty {}).await?;
            let each = |bytes: &[u8]| {
                let name = Namespace::decode(bytes).map(|namespace| namespace.name).unwrap_or_default();
                if is_followed(&name) && namespaces.len() < NAMESPACES_MAX {
                    namespaces.insert(name);
                }
            };
            answer.list(each).await?;
            for namespace in namespaces {
                self.containerd_read(&namespace, Vec::new(), |read| listing.add(read)).await?;
            }
            Ok::<_, String>(())
        };
        timeout(LIST_LIMIT, reading).await.map_err(slow)??;
        listing.finish();
        Ok(())
    }

    /// Reads containers of a namespace, and calls `each` for each container with a name.
    async fn containerd_read(
        &self,
        namespace: &str,
        filters: Vec<String>,
        mut each: impl FnMut(Result<(Id, Box<str>), String>),
    ) -> Result<(), String> {
        let list = Method { path: LIST, namespace: Some(namespace), take: Take::Elements };
        let (answer, _) = call(&self.path, self.owner, list, &Filters { filters }).await?;
        answer
            .list(|bytes| match named(bytes, &self.labels) {
                Ok(Some(named)) => each(Ok(named)),
                Ok(None) => {}
                Err(why) => each(Err(why)),
            })
            .await
    }
}

/// Whether containers of a namespace are followed, and its name is one (containerd's `identifiers`).
fn is_followed(namespace: &str) -> bool {
    let is_in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    namespace != OF_DOCKER && (1..=76).contains(&namespace.len()) && namespace.bytes().all(is_in_name)
}

/// Id and JSON of a container; `None`: it has no name, or, as `ctr` makes it, an id of its own that jouled cannot see.
fn named(bytes: &[u8], chosen: &[String]) -> Result<Option<(Id, Box<str>)>, String> {
    let Container { id: text, labels, image } =
        Container::decode(bytes).map_err(|error| printable(&error.to_string()))?;
    let name = labels.get(NERDCTL_NAME).map(String::as_str).unwrap_or_default();
    let Some(id) = id(&text) else { return Ok(None) };
    let is_named = !own_name(name, &labels).is_empty();
    Ok(is_named.then(|| (id, json(&text, name, &image, &labels, chosen))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, labels: &[(&str, &str)]) -> Result<Option<serde_json::Value>, String> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let container = Container { id: id.to_owned(), labels, image: "docker.io/library/nginx:1".to_owned() };
        let named = named(&container.encode_to_vec(), &["team".to_owned()])?;
        Ok(named.map(|(_, json)| serde_json::from_str(&json).unwrap()))
    }

    #[test]
    fn containers_with_names_are_taken() {
        let id = "ab".repeat(32);
        let compose = [("com.docker.compose.project", "shop"), ("com.docker.compose.service", "web"), ("team", "blue")];
        let nerdctl = container(&id, &[&[(NERDCTL_NAME, "shop-web-1")], &compose[..]].concat()).unwrap().unwrap();
        let expected = serde_json::json!({
            "id": id, "name": "shop-web-1", "image": "docker.io/library/nginx:1", "compose_project": "shop",
            "compose_service": "web", "labels": { "team": "blue" },
        });
        assert_eq!(nerdctl, expected);
        let kubernetes = [
            ("io.kubernetes.container.name", "nginx"),
            ("io.kubernetes.pod.uid", "u"),
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
        ];
        let of_pod = container(&id, &kubernetes).unwrap().unwrap();
        assert_eq!((&of_pod["name"], &of_pod["pod_name"]), (&"nginx".into(), &"web-0".into()));
        assert_eq!(container(&id, &[("io.cri-containerd.kind", "sandbox")]), Ok(None));
        assert_eq!(container("redis", &[(NERDCTL_NAME, "redis")]), Ok(None));
        assert_eq!(container(&id, &[("team", "blue")]), Ok(None), "labels are no name");
        assert!(named(b"\x0a\x05ab", &[]).is_err());
        assert!(named(b"\x0a\x02\xff\xfe", &[]).is_err(), "no UTF-8");
        assert!(is_followed("k8s.io") && is_followed("default"));
        assert!(!is_followed("moby") && !is_followed("") && !is_followed("a\nb") && !is_followed(&"a".repeat(77)));
    }
}
