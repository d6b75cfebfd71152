//! A pod as the kubelet lists it (`v1.Pod` of Kubernetes), and its containers in the form that is sent to jouled.

use crate::container::{Id, KUBERNETES_NAME, KUBERNETES_POD, id, json, printable};
use serde::Deserialize;
use std::collections::HashMap;

/// The annotation of a mirror pod, which represents a static pod at the API server. Its value is the uid that the
/// kubelet gave the static pod, which is in the path of the pod's cgroup.
const MIRROR: &str = "kubernetes.io/config.mirror";

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Metadata,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    labels: Option<HashMap<String, String>>,
    annotations: Option<HashMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    container_statuses: Option<Vec<Container>>,
    init_container_statuses: Option<Vec<Container>>,
    ephemeral_container_statuses: Option<Vec<Container>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Container {
    name: String,
    /// `containerd://ID`; empty where it was never made.
    #[serde(rename = "containerID")]
    container_id: String,
    image: String,
    state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct State {
    terminated: Option<serde::de::IgnoredAny>,
}

/// Calls `each` for each container of a pod that did not end, with its JSON for jouled, or with what is wrong with it.
pub fn containers(object: &[u8], chosen: &[String], mut each: impl FnMut(Result<(Id, Box<str>), String>)) {
    let Pod { metadata, status } = match serde_json::from_slice(object) {
        Ok(pod) => pod,
        Err(error) => return each(Err(printable(&format!("a pod: {error}")))),
    };
    let mirrored = metadata.annotations.as_ref().and_then(|annotations| annotations.get(MIRROR));
    let mut labels = metadata.labels.unwrap_or_default();
    let of_pod = [mirrored.unwrap_or(&metadata.uid), &metadata.name, &metadata.namespace];
    labels.extend(KUBERNETES_POD.map(str::to_owned).into_iter().zip(of_pod.map(String::clone)));
    let Status { container_statuses, init_container_statuses, ephemeral_container_statuses } = status;
    let all = [init_container_statuses, container_statuses, ephemeral_container_statuses];
    for Container { name, container_id, image, state } in all.into_iter().flatten().flatten() {
        if container_id.is_empty() || state.terminated.is_some() {
            continue;
        }
        let text = container_id.split_once("://").map_or("", |(_, id)| id);
        labels.insert(KUBERNETES_NAME.to_owned(), name.clone());
        let named = id(text).map(|id| (id, json(text, &name, &image, &labels, chosen)));
        each(named.ok_or_else(|| "a container of a pod with an id that has not 64 hex digits".to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pod: &str) -> Vec<Result<serde_json::Value, String>> {
        let mut found = Vec::new();
        containers(pod.as_bytes(), &["team".to_owned()], |container| {
            found.push(container.map(|(_, json)| serde_json::from_str(&json).unwrap()));
        });
        found
    }

    #[test]
    fn containers_of_all_kinds_that_did_not_end() {
        let (one, two, three) = ("1".repeat(64), "2".repeat(64), "3".repeat(64));
        let pod = serde_json::json!({
            "metadata": { "name": "web-0", "namespace": "shop", "uid": "u-1", "labels": { "team": "blue", "x": "y" } },
            "spec": { "containers": [{ "name": "nginx" }] },
            "status": {
                "initContainerStatuses": [
                    { "name": "setup", "containerID": format!("containerd://{three}"), "state": { "terminated": {} } },
                ],
                "containerStatuses": [
                    { "name": "nginx", "image": "nginx:1", "containerID": format!("containerd://{one}"),
                      "state": { "running": {} }, "lastState": { "terminated": { "containerID": "containerd://4" } } },
                    { "name": "waits", "state": { "waiting": {} } },
                ],
                "ephemeralContainerStatuses": [{ "name": "debug", "containerID": format!("cri-o://{two}") }],
            },
        });
        let container = |id: &str, name: &str, rest: &[(&str, &str)]| {
            let mut json = serde_json::json!({
                "id": id, "name": name, "labels": { "team": "blue" },
                "pod_uid": "u-1", "pod_name": "web-0", "pod_namespace": "shop",
            });
            rest.iter().for_each(|(name, value)| json[*name] = (*value).into());
            Ok(json)
        };
        let expected = [container(&one, "nginx", &[("image", "nginx:1")]), container(&two, "debug", &[])];
        assert_eq!(of(&pod.to_string()), expected);
    }

    #[test]
    fn a_static_pod_has_the_uid_of_its_cgroup() {
        let id = "1".repeat(64);
        let pod = serde_json::json!({
            "metadata": { "name": "etcd-node", "namespace": "kube-system", "uid": "of-the-api",
                "annotations": { "kubernetes.io/config.mirror": "0123456789abcdef0123456789abcdef" } },
            "status": { "containerStatuses": [{ "name": "etcd", "containerID": format!("containerd://{id}") }] },
        });
        let found = of(&pod.to_string()).remove(0).unwrap();
        assert_eq!(found["pod_uid"], "0123456789abcdef0123456789abcdef");
    }

    #[test]
    fn what_is_no_pod_is_said() {
        assert!(of("{\"metadata\":7}")[0].as_ref().unwrap_err().starts_with("a pod: "));
        let bad = r#"{"status":{"containerStatuses":[{"name":"a","containerID":"docker://../../etc"}]}}"#;
        assert!(of(bad)[0].as_ref().unwrap_err().contains("64 hex digits"));
        assert_eq!(of("{}"), []);
        assert_eq!(of(r#"{"metadata":{"labels":null},"status":{"containerStatuses":null}}"#), []);
    }
}
