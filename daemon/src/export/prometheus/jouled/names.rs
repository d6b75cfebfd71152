//! `jouled_container_info`, `jouled_pod_info` and `jouled_job_info`: the names of containers, pods and jobs, as they
//! are known now. Counters keep the labels with which they were first shown; a name that became known later is only
//! here.

use super::super::encode::{About, Encoder, LabelSet, gauges};
use crate::model::entity::{ContainerLabels, Kind};
use crate::model::snapshot::{Row, Snapshot};
use std::fmt;

pub(super) fn encode(encoder: &mut Encoder<'_>, snapshot: &Snapshot, levels: &[Kind]) -> fmt::Result {
    if levels.contains(&Kind::Container) {
        let pods = snapshot.pods();
        let about = About {
            name: "jouled_container_info",
            unit: "",
            help: "Always 1; its labels are the names of a container and its pod, its image, its compose project and service, and \
                   chosen labels of its runtime (label_NAME), as they are known now, empty where they are not",
        };
        let samples = rows(snapshot, Kind::Container).map(|row| {
            let pod = ContainerLabels::of(&row.labels).and_then(|labels| pods.get(labels.pod_id));
            let (name, namespace) = pod.map_or(("", ""), |pod| (pod.pod_name, pod.pod_namespace));
            let detail = |name| (name, row.labels.get(name));
            let others = [
                ("pod_name", name),
                ("pod_namespace", namespace),
                detail("image"),
                detail("compose_project"),
                detail("compose_service"),
            ];
            (LabelSet::with_runtime_labels(&row.labels, others), 1)
        });
        gauges(encoder, &about, samples)?;
    }
    if levels.contains(&Kind::Pod) {
        let about = About {
            name: "jouled_pod_info",
            unit: "",
            help: "Always 1; its labels are the name and namespace of a pod as they are known now, empty where they are not",
        };
        gauges(encoder, &about, rows(snapshot, Kind::Pod).map(|row| (LabelSet::of(&row.labels, []), 1)))?;
    }
    if levels.contains(&Kind::Job) {
        let about = About {
            name: "jouled_job_info",
            unit: "",
            help: "Always 1; its labels are the names of a job as they are known now, empty where they are not",
        };
        gauges(encoder, &about, rows(snapshot, Kind::Job).map(|row| (LabelSet::of(&row.labels, []), 1)))?;
    }
    Ok(())
}

/// The rows of a kind, each entity once. Rows are in the order of their labels.
fn rows(snapshot: &Snapshot, kind: Kind) -> impl Iterator<Item = &Row> {
    let rows = &snapshot.kind(kind).rows;
    rows.iter().enumerate().filter(|(at, row)| *at == 0 || rows[at - 1].labels != row.labels).map(|(_, row)| row)
}
