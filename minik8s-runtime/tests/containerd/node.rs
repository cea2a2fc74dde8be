//! A node for one test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use containerd_client::services::v1::DeleteNamespaceRequest;
use futures::{Stream, StreamExt};
use minik8s_runtime::containerd::{Config, Containerd};
use minik8s_runtime::runtime::{ContainerEvent, ContainerLabels, ContainerSpec, ContainerState, Exit};
use minik8s_runtime::{ContainerRuntime, ImageStore};
use tokio::io::AsyncReadExt;

use crate::image::write_image;

pub(crate) type Events = Pin<Box<dyn Stream<Item = ContainerEvent> + Send>>;

pub(crate) const IMAGE: &str = "localhost/busybox:test";

/// A node with the image on it, in a namespace of containerd and a folder of its own.
pub(crate) struct Node {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) socket: PathBuf,
    pub(crate) config: Config,
    pub(crate) containerd: Containerd,
    pub(crate) events: Events,
}

impl Node {
    pub(crate) async fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let socket = PathBuf::from(std::env::var_os("MINIK8S_TEST_CONTAINERD")?);
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::new(folder.path().join("state"), log_program());
        let count = NEXT.fetch_add(1, Ordering::Relaxed);
        config.namespace = format!("minik8s-test-{}-{count}", std::process::id());
        let containerd = Containerd::connect(&socket, config.clone()).await.unwrap();
        let archive = folder.path().join("busybox.tar");
        write_image(&archive, IMAGE);
        let images = containerd.import(&archive, None).await.unwrap();
        assert_eq!(images.len(), 1);
        let mut events = containerd.events();
        assert_eq!(next(&mut events).await, ContainerEvent::Resync);
        Some(Self { folder, socket, config, containerd, events })
    }

    pub(crate) fn spec(&self, id: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            id: id.into(),
            labels: ContainerLabels {
                pod_uid: "uid".into(),
                pod_namespace: "default".into(),
                pod_name: "pod".into(),
                container: id.into(),
                attempt: 2,
                annotations: BTreeMap::from([("hash".to_owned(), "abc".to_owned())]),
            },
            image: IMAGE.into(),
            command: vec!["sh".into(), "-c".into(), script.into()],
            cgroup_parent: self.cgroup(),
            log_path: self.log_path(id),
            ..ContainerSpec::default()
        }
    }

    pub(crate) fn cgroup(&self) -> String {
        format!("/{}/pod", self.config.namespace)
    }

    pub(crate) fn log_path(&self, id: &str) -> PathBuf {
        self.folder.path().join("logs").join(id).join("0.log")
    }

    pub(crate) async fn run(&self, spec: &ContainerSpec) -> u32 {
        self.containerd.create(spec).await.unwrap();
        self.containerd.start(&spec.id).await.unwrap()
    }

    pub(crate) async fn exited(&mut self, id: &str) -> Exit {
        loop {
            if let ContainerEvent::Exited { id: ended, exit } = next(&mut self.events).await
                && ended == id
            {
                return exit;
            }
        }
    }

    /// The lines of a log, without their times.
    pub(crate) fn log(&self, id: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.log_path(id)).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// Waits until the log has this many lines.
    pub(crate) async fn log_lines(&self, id: &str, count: usize) -> Vec<String> {
        within(async {
            loop {
                let lines = self.log(id);
                if lines.len() >= count {
                    return lines;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }

    pub(crate) async fn state(&self, id: &str) -> ContainerState {
        self.containerd.inspect(id).await.unwrap().unwrap().state
    }

    /// Removes all, and sees that nothing is left.
    pub(crate) async fn finish(self) {
        for container in ContainerRuntime::list(&self.containerd).await.unwrap() {
            ContainerRuntime::remove(&self.containerd, &container.id).await.unwrap();
        }
        ImageStore::remove(&self.containerd, IMAGE).await.unwrap();
        let parent = format!("/{}", self.config.namespace);
        self.containerd.remove_cgroup(&parent).await.unwrap();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap() {
            let left = hierarchy.unwrap().path().join(&self.config.namespace);
            assert!(!left.exists(), "{}", left.display());
        }
        let left = std::fs::read_dir(self.config.state_dir.join("containers"));
        assert_eq!(left.map_or(0, Iterator::count), 0);
        let left = std::fs::read_dir(self.config.state_dir.join("exec"));
        assert_eq!(left.map_or(0, Iterator::count), 0);
        // containerd only forgets a namespace that has nothing in it: no blob, no snapshot, no lease.
        let namespace = &self.config.namespace;
        let client = containerd_client::Client::from_path(&self.socket).await.unwrap();
        let request = DeleteNamespaceRequest { name: namespace.clone() };
        let mut request = tonic::Request::new(request);
        request.metadata_mut().insert("containerd-namespace", namespace.parse().unwrap());
        client.namespaces().delete(request).await.unwrap();
        // Runc's own list of our containers, by now without any.
        let _ = std::fs::remove_dir(Path::new("/run/containerd/runc").join(namespace));
    }
}

pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("nothing happened for 20 seconds")
}

pub(crate) async fn next(events: &mut Events) -> ContainerEvent {
    within(events.next()).await.unwrap()
}

pub(crate) async fn read(mut from: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = String::new();
    within(from.read_to_string(&mut text)).await.unwrap();
    text
}

/// The log driver among the examples, which are built with the tests.
pub(crate) fn log_program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/log_driver")
}
