//! A containerd of the test's own, which it may kill.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use futures::StreamExt;
use minik8s_runtime::containerd::{Config, Containerd};
use minik8s_runtime::runtime::{ContainerEvent, ContainerSpec, ContainerState, Exit};
use minik8s_runtime::{ContainerRuntime, ImageStore};

use crate::image::write_image;
use crate::node::{IMAGE, log_program, within};

/// A containerd with folders of its own; its containers are in a namespace of the test's, since runc keeps its own list
/// of them for the whole machine.
pub(crate) struct Daemon {
    pub(crate) folder: tempfile::TempDir,
    child: Child,
}

impl Daemon {
    /// `None` where the tests against containerd are not to run.
    pub(crate) async fn start() -> Option<Self> {
        std::env::var_os("MINIK8S_TEST_CONTAINERD")?;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             [grpc]\naddress = {:?}\n[ttrpc]\naddress = {:?}\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = {:?}\n",
            at("root"),
            at("state"),
            at("containerd.sock"),
            at("containerd.sock.ttrpc"),
            at("hosts"),
        );
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let child = Self::spawn(&folder);
        let daemon = Self { folder, child };
        daemon.answers().await;
        Some(daemon)
    }

    fn spawn(folder: &tempfile::TempDir) -> Child {
        Command::new("containerd")
            .arg("--config")
            .arg(folder.path().join("config.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap()
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("containerd.sock")
    }

    pub(crate) fn config(&self, namespace: &str) -> Config {
        Config {
            namespace: namespace.to_owned(),
            ..Config::new(self.folder.path().join("agent"), log_program())
        }
    }

    /// Waits until it answers.
    async fn answers(&self) {
        within(async {
            loop {
                if let Ok(client) = containerd_client::Client::from_path(self.socket()).await
                    && client.version().version(()).await.is_ok()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    async fn restart(&mut self) {
        self.child = Self::spawn(&self.folder);
        self.answers().await;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may be dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its shims are gone by now; what it mounted for itself, if anything, would keep the folder.
        for mount in ["state", "root"] {
            let _ = nix::mount::umount2(&self.folder.path().join(mount), nix::mount::MntFlags::MNT_DETACH);
        }
    }
}

#[tokio::test]
async fn containers_survive_containerd() {
    let Some(mut daemon) = Daemon::start().await else {
        return;
    };
    let namespace = format!("minik8s-test-{}-d", std::process::id());
    let containerd = Containerd::connect(daemon.socket(), daemon.config(&namespace)).await.unwrap();
    let archive = daemon.folder.path().join("busybox.tar");
    write_image(&archive, IMAGE);
    containerd.import(&archive, None).await.unwrap();
    let mut events = containerd.events();
    assert_eq!(within(events.next()).await, Some(ContainerEvent::Resync));
    let spec = |id: &str, script: &str| ContainerSpec {
        id: id.into(),
        image: IMAGE.into(),
        command: vec!["sh".into(), "-c".into(), script.into()],
        cgroup_parent: format!("/{namespace}/pod"),
        log_path: daemon.folder.path().join(id),
        ..ContainerSpec::default()
    };
    let flag = daemon.folder.path().join("flag");
    std::fs::create_dir(&flag).unwrap();
    let mut ends =
        spec("ends", "echo begun; while [ ! -e /flag/go ]; do sleep 0.05; done; echo ended; exit 6");
    ends.mounts.push(minik8s_runtime::runtime::Mount {
        host_path: flag.clone(),
        container_path: "/flag".into(),
        read_only: true,
        propagation: Default::default(),
    });
    let mut pids = Vec::new();
    for spec in [spec("lives", "sleep 1000"), ends] {
        containerd.create(&spec).await.unwrap();
        pids.push(containerd.start(&spec.id).await.unwrap());
    }
    daemon.kill();
    assert!(matches!(containerd.inspect("lives").await, Err(minik8s_runtime::RuntimeError::Unavailable(_))));
    // One of them ends while nobody is there to see it.
    std::fs::write(flag.join("go"), "").unwrap();
    within(async {
        while std::path::Path::new(&format!("/proc/{}", pids[1])).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    daemon.restart().await;
    assert_eq!(within(events.next()).await, Some(ContainerEvent::Resync));
    let listed = ContainerRuntime::list(&containerd).await.unwrap();
    assert!(matches!(listed[0].state, ContainerState::Exited(Exit { code: 6, .. })), "{:?}", listed[0]);
    assert!(
        matches!(listed[1].state, ContainerState::Running { pid, .. } if pid == pids[0]),
        "{:?}",
        listed[1]
    );
    let log = std::fs::read_to_string(daemon.folder.path().join("ends")).unwrap();
    assert!(log.ends_with("stdout F ended\n"), "{log}");
    // And events come as before.
    containerd.kill("lives", 9).await.unwrap();
    let ended = within(events.next()).await.unwrap();
    assert!(
        matches!(&ended, ContainerEvent::Exited { id, exit } if id == "lives" && exit.code == 137),
        "{ended:?}"
    );
    for id in ["lives", "ends"] {
        ContainerRuntime::remove(&containerd, id).await.unwrap();
    }
    ImageStore::remove(&containerd, IMAGE).await.unwrap();
    containerd.remove_cgroup(&format!("/{namespace}")).await.unwrap();
    let _ = std::fs::remove_dir(std::path::Path::new("/run/containerd/runc").join(&namespace));
}
