//! A container's labels in containerd, from which an agent that knows nothing can adopt it.

use std::collections::HashMap;

use containerd_client::services::v1::Container as ProtoContainer;

use crate::runtime::{ContainerLabels, ContainerSpec};
use crate::spec;

/// Marks our containers among those of others.
pub(super) const KIND: &str = "minik8s.io/kind";
const KIND_CONTAINER: &str = "container";

const POD_UID: &str = "io.kubernetes.pod.uid";
const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD_NAME: &str = "io.kubernetes.pod.name";
const CONTAINER: &str = "io.kubernetes.container.name";
const ATTEMPT: &str = "minik8s.io/attempt";
const IMAGE: &str = "minik8s.io/image";
const IMAGE_ID: &str = "minik8s.io/image-id";
const SNAPSHOT: &str = "minik8s.io/snapshot";
const CGROUP: &str = "minik8s.io/cgroup";
const BOOT: &str = "minik8s.io/boot";
const TERMINAL: &str = "minik8s.io/terminal";
const STDIN: &str = "minik8s.io/stdin";
const ANNOTATION: &str = "minik8s.io/annotation/";

/// The filter that lists our containers.
pub(super) fn filter() -> String {
    format!("labels.\"{KIND}\"=={KIND_CONTAINER}")
}

/// What we know of a container from its record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) id: String,
    pub(super) labels: ContainerLabels,
    pub(super) image: String,
    pub(super) image_id: String,
    /// The snapshot that its own is on top of; empty for an image without layers.
    pub(super) snapshot: String,
    pub(super) cgroup: String,
    /// The boot of the node in which it was made.
    pub(super) boot: String,
    pub(super) terminal: bool,
    pub(super) stdin: Stdin,
    /// Its OCI spec, as JSON.
    pub(super) spec: Vec<u8>,
}

/// A container's standard input.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stdin {
    /// It has none.
    #[default]
    None,
    /// Open until the container ends.
    Open,
    /// Open until the first client leaves.
    Once,
}

impl Record {
    pub(super) fn new(spec: &ContainerSpec, image_id: &str, snapshot: &str, boot: &str) -> Self {
        Self {
            id: spec.id.clone(),
            labels: spec.labels.clone(),
            image: spec.image.clone(),
            image_id: image_id.to_owned(),
            snapshot: snapshot.to_owned(),
            cgroup: spec::cgroup_path(spec),
            boot: boot.to_owned(),
            terminal: spec.tty,
            stdin: match (spec.stdin, spec.stdin_once) {
                (false, _) => Stdin::None,
                (true, false) => Stdin::Open,
                (true, true) => Stdin::Once,
            },
            spec: Vec::new(),
        }
    }

    /// As labels for containerd.
    pub(super) fn to_labels(&self) -> HashMap<String, String> {
        let stdin = match self.stdin {
            Stdin::None => "none",
            Stdin::Open => "open",
            Stdin::Once => "once",
        };
        let attempt = self.labels.attempt.to_string();
        let fixed = [
            (KIND, KIND_CONTAINER),
            (POD_UID, &self.labels.pod_uid),
            (POD_NAMESPACE, &self.labels.pod_namespace),
            (POD_NAME, &self.labels.pod_name),
            (CONTAINER, &self.labels.container),
            (ATTEMPT, &attempt),
            (IMAGE, &self.image),
            (IMAGE_ID, &self.image_id),
            (SNAPSHOT, &self.snapshot),
            (CGROUP, &self.cgroup),
            (BOOT, &self.boot),
            (TERMINAL, if self.terminal { "true" } else { "false" }),
            (STDIN, stdin),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let free = self.labels.annotations.iter();
        fixed.chain(free.map(|(name, value)| (format!("{ANNOTATION}{name}"), value.clone()))).collect()
    }

    /// From what containerd has; `None` for a container that is not ours.
    pub(super) fn read(container: ProtoContainer) -> Option<Self> {
        let mut labels = container.labels;
        let mut take = |name: &str| labels.remove(name).unwrap_or_default();
        if take(KIND) != KIND_CONTAINER {
            return None;
        }
        let mut record = Self {
            id: container.id,
            labels: ContainerLabels {
                pod_uid: take(POD_UID),
                pod_namespace: take(POD_NAMESPACE),
                pod_name: take(POD_NAME),
                container: take(CONTAINER),
                attempt: take(ATTEMPT).parse().unwrap_or(0),
                annotations: Default::default(),
            },
            image: take(IMAGE),
            image_id: take(IMAGE_ID),
            snapshot: take(SNAPSHOT),
            cgroup: take(CGROUP),
            boot: take(BOOT),
            terminal: take(TERMINAL) == "true",
            stdin: match take(STDIN).as_str() {
                "open" => Stdin::Open,
                "once" => Stdin::Once,
                _ => Stdin::None,
            },
            spec: container.spec.map(|spec| spec.value).unwrap_or_default(),
        };
        let free = labels.into_iter();
        record.labels.annotations = free
            .filter_map(|(name, value)| Some((name.strip_prefix(ANNOTATION)?.to_owned(), value)))
            .collect();
        Some(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_containerd() {
        let spec = ContainerSpec {
            id: "c1".into(),
            labels: ContainerLabels {
                pod_uid: "u".into(),
                pod_namespace: "default".into(),
                pod_name: "web".into(),
                container: "app".into(),
                attempt: 3,
                annotations: [("hash".to_owned(), "x".to_owned())].into(),
            },
            image: "busybox".into(),
            cgroup_parent: "/kubepods/podu".into(),
            stdin: true,
            stdin_once: true,
            tty: true,
            ..ContainerSpec::default()
        };
        let record = Record::new(&spec, "docker.io/library/busybox@sha256:1", "sha256:2", "boot");
        let container =
            ProtoContainer { id: record.id.clone(), labels: record.to_labels(), ..ProtoContainer::default() };
        assert_eq!(Record::read(container), Some(record.clone()));
        assert_eq!(record.cgroup, "/kubepods/podu/c1");
        assert_eq!(Record::read(ProtoContainer::default()), None, "the containers of others are not ours");
    }
}
