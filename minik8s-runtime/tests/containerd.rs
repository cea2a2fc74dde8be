//! The containerd implementation against a real containerd.
//!
//! Needs root, and a containerd of its own whose socket is in `MINIK8S_TEST_CONTAINERD`; without that variable every
//! test here passes without doing anything. Also needs a statically linked busybox in `/bin/busybox`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use containerd_client::services::v1::DeleteNamespaceRequest;
use futures::{Stream, StreamExt};
use minik8s_runtime::containerd::{Config, Containerd};
use minik8s_runtime::runtime::{
    ContainerEvent, ContainerLabels, ContainerSpec, ContainerState, ExecSpec, Exit, Namespaces, Resources,
    Security,
};
use minik8s_runtime::{ContainerRuntime, ImageStore, RuntimeError};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

type Events = Pin<Box<dyn Stream<Item = ContainerEvent> + Send>>;

const IMAGE: &str = "localhost/busybox:test";

/// A node with the image on it, in a namespace of containerd and a folder of its own.
struct Node {
    folder: tempfile::TempDir,
    socket: PathBuf,
    config: Config,
    containerd: Containerd,
    events: Events,
}

impl Node {
    async fn new() -> Option<Self> {
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

    fn spec(&self, id: &str, script: &str) -> ContainerSpec {
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

    fn cgroup(&self) -> String {
        format!("/{}/pod", self.config.namespace)
    }

    fn log_path(&self, id: &str) -> PathBuf {
        self.folder.path().join("logs").join(id).join("0.log")
    }

    async fn run(&self, spec: &ContainerSpec) -> u32 {
        self.containerd.create(spec).await.unwrap();
        self.containerd.start(&spec.id).await.unwrap()
    }

    async fn exited(&mut self, id: &str) -> Exit {
        loop {
            if let ContainerEvent::Exited { id: ended, exit } = next(&mut self.events).await
                && ended == id
            {
                return exit;
            }
        }
    }

    /// The lines of a log, without their times.
    fn log(&self, id: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.log_path(id)).unwrap();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }

    /// Waits until the log has this many lines.
    async fn log_lines(&self, id: &str, count: usize) -> Vec<String> {
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

    async fn state(&self, id: &str) -> ContainerState {
        self.containerd.inspect(id).await.unwrap().unwrap().state
    }

    /// Removes all, and sees that nothing is left.
    async fn finish(self) {
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

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("nothing happened for 20 seconds")
}

async fn next(events: &mut Events) -> ContainerEvent {
    within(events.next()).await.unwrap()
}

async fn read(mut from: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = String::new();
    within(from.read_to_string(&mut text)).await.unwrap();
    text
}

/// The log driver among the examples, which are built with the tests.
fn log_program() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().unwrap().parent().unwrap().join("examples/log_driver")
}

fn put<W: std::io::Write>(tar: &mut tar::Builder<W>, name: &str, bytes: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    tar.append_data(&mut header, name, bytes).unwrap();
}

/// Writes an OCI layout with one image: busybox, its applets and a user database.
fn write_image(path: &Path, name: &str) {
    let sha = |bytes: &[u8]| format!("sha256:{:x}", Sha256::digest(bytes));
    let mut layer = tar::Builder::new(Vec::new());
    put(&mut layer, "bin/busybox", &std::fs::read("/bin/busybox").unwrap(), 0o755);
    for applet in ["sh", "cat", "echo", "sleep", "id", "env", "hostname", "stty", "tty", "dd", "kill", "seq"]
    {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    put(&mut layer, "etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/:/bin/sh\n", 0o644);
    put(&mut layer, "etc/group", b"root:x:0:\nwww:x:34:\nlogs:x:40:web\n", 0o644);
    let layer = layer.into_inner().unwrap();
    let diff = sha(&layer);
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::to_vec(&serde_json::json!({
        "architecture": arch, "os": "linux",
        "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM=image"], "User": "web"},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
    }))
    .unwrap();
    let manifest = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json", "digest": sha(&config), "size": config.len(),
        },
        "layers": [
            {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": diff, "size": layer.len()},
        ],
    }))
    .unwrap();
    let index = serde_json::to_vec(&serde_json::json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": sha(&manifest), "size": manifest.len(),
            "annotations": {"io.containerd.image.name": name},
        }],
    }))
    .unwrap();
    let mut tar = tar::Builder::new(std::fs::File::create(path).unwrap());
    put(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644);
    put(&mut tar, "index.json", &index, 0o644);
    for blob in [&layer, &config, &manifest] {
        put(&mut tar, &format!("blobs/sha256/{}", &sha(blob)["sha256:".len()..]), blob, 0o644);
    }
    tar.finish().unwrap();
}

#[tokio::test]
async fn images_are_found_listed_and_removed() {
    let Some(node) = Node::new().await else { return };
    let image = node.containerd.find(IMAGE).await.unwrap().unwrap();
    assert_eq!(image.reference, IMAGE);
    assert_eq!(image.id, format!("localhost/busybox@{}", image.digest));
    assert_eq!((image.cmd.as_slice(), image.user.as_str()), (&["sh".to_owned()][..], "web"));
    assert!(image.size > 500_000, "{}", image.size);
    assert_eq!(ImageStore::list(&node.containerd).await.unwrap(), [image]);
    assert_eq!(node.containerd.find("localhost/none:1").await.unwrap(), None);
    assert!(matches!(node.containerd.find("No Name").await, Err(RuntimeError::InvalidImageName(_))));
    ImageStore::remove(&node.containerd, IMAGE).await.unwrap();
    ImageStore::remove(&node.containerd, IMAGE).await.unwrap();
    assert_eq!(node.containerd.find(IMAGE).await.unwrap(), None);
    let refused = node.containerd.create(&node.spec("a", "true")).await.unwrap_err();
    assert_eq!(refused.to_string(), format!("image {IMAGE} is not on this node"));
    // Once more, under a name of the caller's.
    let archive = node.folder.path().join("unnamed.tar");
    write_image(&archive, "latest");
    let unnamed = node.containerd.import(&archive, None).await.unwrap_err();
    assert!(unnamed.to_string().contains("give a name"), "{unnamed}");
    let named = node.containerd.import(&archive, Some(IMAGE)).await.unwrap();
    assert_eq!(named[0].reference, IMAGE);
    node.finish().await;
}

#[tokio::test]
async fn a_container_runs_writes_its_log_and_ends() {
    let Some(mut node) = Node::new().await else { return };
    let mut spec = node.spec("a", "echo out; echo err >&2; env; id; printf rest; exit 3");
    spec.env = vec![("POD".into(), "yes".into())];
    node.containerd.create(&spec).await.unwrap();
    node.containerd.create(&spec).await.unwrap();
    assert_eq!(node.state("a").await, ContainerState::Created);
    node.containerd.start("a").await.unwrap();
    let exit = node.exited("a").await;
    assert_eq!((exit.code, exit.oom_killed), (3, false));
    assert!(exit.started_at < exit.finished_at);
    // The log is complete when the end is told.
    let log = node.log("a");
    for line in ["stdout F out", "stderr F err", "stdout F POD=yes", "stdout F FROM=image", "stdout P rest"] {
        assert!(log.iter().any(|have| have == line), "{line} in {log:?}");
    }
    assert!(
        log.iter().any(|line| line.contains("uid=33(web) gid=34(www) groups=34(www),40(logs)")),
        "{log:?}"
    );
    let listed = ContainerRuntime::list(&node.containerd).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].labels, spec.labels);
    assert_eq!(listed[0].image, IMAGE);
    assert_eq!(listed[0].state, ContainerState::Exited(exit.clone()));
    // What has ended stays so.
    assert!(matches!(node.containerd.start("a").await, Err(RuntimeError::StartContainer(_))));
    node.containerd.kill("a", 9).await.unwrap();
    assert!(matches!(node.containerd.kill("b", 9).await, Err(RuntimeError::NotFound(_))));
    ContainerRuntime::remove(&node.containerd, "a").await.unwrap();
    ContainerRuntime::remove(&node.containerd, "a").await.unwrap();
    assert_eq!(node.containerd.inspect("a").await.unwrap(), None);
    node.finish().await;
}

#[tokio::test]
async fn what_cannot_be_run_is_told_in_runcs_words() {
    let Some(node) = Node::new().await else { return };
    let mut spec = node.spec("a", "");
    spec.command = vec!["/no/such/program".into()];
    node.containerd.create(&spec).await.unwrap();
    let error = node.containerd.start("a").await.unwrap_err();
    assert!(matches!(error, RuntimeError::StartContainer(_)), "{error:?}");
    assert!(error.to_string().contains("no such file or directory"), "{error}");
    let mut spec = node.spec("b", "true");
    spec.security = Security { run_as_user: Some(0), run_as_non_root: true, ..Security::default() };
    let error = node.containerd.create(&spec).await.unwrap_err();
    assert_eq!(error.to_string(), "container has runAsNonRoot and image will run as root");
    assert!(matches!(node.containerd.start("none").await, Err(RuntimeError::NotFound(_))));
    node.finish().await;
}

#[tokio::test]
async fn signals_and_kills() {
    let Some(mut node) = Node::new().await else { return };
    node.run(&node.spec("polite", "trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done")).await;
    node.run(&node.spec("stubborn", "trap '' TERM; echo ready; while :; do sleep 0.05; done")).await;
    node.log_lines("polite", 1).await;
    node.log_lines("stubborn", 1).await;
    node.containerd.kill("polite", 15).await.unwrap();
    assert_eq!(node.exited("polite").await.code, 7);
    node.containerd.kill("stubborn", 15).await.unwrap();
    assert!(matches!(node.state("stubborn").await, ContainerState::Running { .. }));
    node.containerd.kill("stubborn", 9).await.unwrap();
    assert_eq!(node.exited("stubborn").await.code, 137);
    // Removing a running one kills it.
    node.run(&node.spec("running", "sleep 1000")).await;
    ContainerRuntime::remove(&node.containerd, "running").await.unwrap();
    assert_eq!(node.containerd.inspect("running").await.unwrap(), None);
    node.finish().await;
}

#[tokio::test]
async fn a_new_agent_adopts_what_runs_and_learns_what_ended() {
    let Some(mut node) = Node::new().await else { return };
    let pid = node.run(&node.spec("lives", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.05; done")).await;
    node.run(&node.spec("ends", "sleep 0.3; echo done; exit 5")).await;
    let before = node.state("lives").await;
    // The agent is gone: nobody follows events, nobody holds a pipe.
    let socket = node.socket.clone();
    let config = node.config.clone();
    drop(node.containerd);
    let count = node_log_len(&node.folder, "lives");
    within(async {
        while node_log_len(&node.folder, "lives") < count + 5 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    node.containerd = Containerd::connect(&socket, config).await.unwrap();
    node.events = node.containerd.events();
    let listed = ContainerRuntime::list(&node.containerd).await.unwrap();
    let ids: Vec<&str> = listed.iter().map(|container| container.id.as_str()).collect();
    assert_eq!(ids, ["ends", "lives"]);
    assert!(matches!(listed[0].state, ContainerState::Exited(Exit { code: 5, .. })), "{:?}", listed[0].state);
    assert_eq!(listed[1].state, before);
    assert!(matches!(listed[1].state, ContainerState::Running { pid: now, .. } if now == pid));
    assert_eq!(next(&mut node.events).await, ContainerEvent::Resync);
    assert_eq!(node.containerd.start("lives").await.unwrap(), pid);
    node.containerd.kill("lives", 9).await.unwrap();
    assert_eq!(node.exited("lives").await.code, 137);
    node.finish().await;
}

fn node_log_len(folder: &tempfile::TempDir, id: &str) -> usize {
    let path = folder.path().join("logs").join(id).join("0.log");
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

#[tokio::test]
async fn exec_has_streams_and_a_code_of_its_own() {
    let Some(node) = Node::new().await else { return };
    node.run(&node.spec("a", "sleep 1000")).await;
    let sh = |script: &str| ExecSpec {
        command: vec!["sh".into(), "-c".into(), script.into()],
        ..ExecSpec::default()
    };
    let run = node.containerd.exec("a", &sh("echo out; echo err >&2; exit 9")).await.unwrap();
    assert_eq!(read(run.stdout).await, "out\n");
    assert_eq!(read(run.stderr.unwrap()).await, "err\n");
    assert_eq!(within(run.exit).await.unwrap(), 9);

    // More than fits into a pipe, both ways; the end of the input is seen.
    let cat = ExecSpec { stdin: true, ..sh("cat; echo end") };
    let mut run = node.containerd.exec("a", &cat).await.unwrap();
    let mut stdin = run.stdin.take().unwrap();
    let text = "x".repeat(300_000);
    let write = async {
        stdin.write_all(text.as_bytes()).await.unwrap();
        drop(stdin);
    };
    let ((), output) = tokio::join!(within(write), read(run.stdout));
    assert_eq!(output.len(), text.len() + 4);
    assert!(output.ends_with("xend\n"));
    assert_eq!(within(run.exit).await.unwrap(), 0);

    // A terminal of the size that we say.
    let tty = ExecSpec { tty: true, stdin: true, ..sh("read go; stty size; tty") };
    let mut run = node.containerd.exec("a", &tty).await.unwrap();
    assert!(run.stderr.is_none());
    run.resize.send((91, 37)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    run.stdin.as_mut().unwrap().write_all(b"go\n").await.unwrap();
    let output = read(run.stdout).await;
    assert!(output.contains("37 91") && output.contains("/dev/pts/"), "{output}");
    assert_eq!(within(run.exit).await.unwrap(), 0);

    let missing = ExecSpec { command: vec!["nope".into()], ..ExecSpec::default() };
    let error = node.containerd.exec("a", &missing).await.unwrap_err();
    assert!(error.to_string().contains("executable file not found"), "{error}");
    assert!(matches!(node.containerd.exec("none", &missing).await, Err(RuntimeError::NotFound(_))));

    // Nobody waits: it is killed.
    let forgotten = node.containerd.exec("a", &sh("echo $$; exec sleep 1000")).await.unwrap();
    let folder = node.config.state_dir.join("exec");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 1);
    drop(forgotten);
    within(async {
        while std::fs::read_dir(&folder).unwrap().count() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn attach_to_a_terminal_and_to_pipes() {
    let Some(mut node) = Node::new().await else { return };
    for tty in [false, true] {
        let id = if tty { "tty" } else { "pipes" };
        let mut spec =
            node.spec(id, "echo ready; while read line; do echo got $line; echo err >&2; done; exit 4");
        (spec.tty, spec.stdin, spec.stdin_once) = (tty, true, !tty);
        node.run(&spec).await;
        node.log_lines(id, 1).await;
        let mut streams = node.containerd.attach(id).await.unwrap();
        assert_eq!(streams.stderr.is_some(), !tty);
        let mut stdin = streams.stdin.take().unwrap();
        stdin.write_all(b"hello\n").await.unwrap();
        let mut seen = String::new();
        within(async {
            while !seen.contains("got hello") {
                let mut buffer = [0; 1024];
                let count = streams.stdout.read(&mut buffer).await.unwrap();
                assert!(count > 0, "the end, after {seen:?}");
                seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
            }
        })
        .await;
        if tty {
            // The end of input, typed.
            stdin.write_all(b"\x04").await.unwrap();
        } else {
            drop(stdin);
        }
        assert_eq!(within(streams.exit).await.unwrap(), 4);
        assert_eq!(node.exited(id).await.code, 4);
        let log = node.log(id);
        assert!(log.iter().any(|line| line.starts_with("stdout F got hello")), "{log:?}");
        if !tty {
            assert!(log.contains(&"stderr F err".to_owned()), "{log:?}");
        }
    }
    assert!(matches!(node.containerd.attach("pipes").await, Err(RuntimeError::NotFound(_))));
    node.finish().await;
}

#[tokio::test]
async fn rotated_logs_lose_nothing() {
    let Some(node) = Node::new().await else { return };
    node.run(&node.spec("a", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done")).await;
    node.log_lines("a", 5).await;
    let old = node.log_path("a").with_extension("old");
    std::fs::rename(node.log_path("a"), &old).unwrap();
    node.containerd.reopen_log("a").await.unwrap();
    let after = node.log_lines("a", 3).await;
    let before = std::fs::read_to_string(old).unwrap();
    let number = |line: &str| line.rsplit(' ').next().unwrap().parse::<u32>().unwrap();
    let last = before.lines().map(number).max().unwrap();
    assert_eq!(number(&after[0]), last + 1);
    node.finish().await;
}

#[tokio::test]
async fn memory_is_limited_and_counted() {
    let Some(mut node) = Node::new().await else { return };
    let mut spec = node.spec("greedy", "dd if=/dev/zero of=/dev/null bs=200M count=1");
    spec.resources = Resources { memory_limit: Some(32 << 20), ..Resources::default() };
    node.run(&spec).await;
    let exit = node.exited("greedy").await;
    assert!(exit.oom_killed, "{exit:?}");
    assert_eq!(exit.code, 137);
    let mut spec = node.spec("modest", "while :; do :; done");
    spec.resources = Resources {
        cpu_limit_milli: Some(200),
        cpu_shares: Some(200),
        memory_limit: Some(64 << 20),
        pids_limit: Some(20),
        oom_score_adj: -500,
    };
    let pid = node.run(&spec).await;
    let from = Instant::now();
    let first = node.containerd.stats("modest").await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = node.containerd.stats("modest").await.unwrap();
    let used = (second.cpu_ns - first.cpu_ns) as f64 / from.elapsed().as_nanos() as f64;
    assert!((0.05..0.4).contains(&used), "{used} of a CPU with a limit of 0.2");
    assert!(second.memory_usage > 0 && second.memory_working_set <= second.memory_usage && second.pids == 1);
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains("Uid:\t33"), "{status}");
    ContainerRuntime::remove(&node.containerd, "modest").await.unwrap();
    assert!(matches!(node.containerd.stats("modest").await, Err(RuntimeError::NotFound(_))));
    node.finish().await;
}

#[tokio::test]
async fn later_containers_join_the_namespaces_of_the_first() {
    let Some(node) = Node::new().await else { return };
    let of = |pid: u32, kind: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
    let (network, _network_thread) = network_namespace();
    let mut first = node.spec("first", "hostname; sleep 1000");
    first.hostname = "web-0".into();
    first.namespaces = Namespaces { network: Some(network.clone()), ..Namespaces::default() };
    let first_pid = node.run(&first).await;
    let mut second = node.spec("second", "sleep 1000");
    second.namespaces = first.namespaces.clone();
    second.hostname = "web-0".into();
    second.namespaces.join_pid = Some(first_pid);
    second.namespaces.share_pid = true;
    let second_pid = node.run(&second).await;
    assert_eq!(node.log_lines("first", 1).await, ["stdout F web-0"]);
    for kind in ["ipc", "pid", "net", "uts"] {
        assert_eq!(of(first_pid, kind), of(second_pid, kind), "{kind}");
        assert_ne!(of(first_pid, kind), of(std::process::id(), kind), "{kind}");
    }
    assert_ne!(of(first_pid, "mnt"), of(second_pid, "mnt"));
    node.finish().await;
}

/// A network namespace that lives as long as the returned sender.
fn network_namespace() -> (PathBuf, std::sync::mpsc::Sender<()>) {
    let (keep, kept) = std::sync::mpsc::channel::<()>();
    let (made, tid) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        made.send(nix::unistd::gettid()).unwrap();
        // An error is how the end of the test shows.
        let _ = kept.recv();
    });
    let path = format!("/proc/{}/task/{}/ns/net", std::process::id(), tid.recv().unwrap());
    (path.into(), keep)
}

#[tokio::test]
async fn a_privileged_container_and_a_confined_one() {
    let Some(mut node) = Node::new().await else { return };
    let mut spec =
        node.spec("free", "cat /proc/self/status; [ -e /dev/vda ] || [ -e /dev/sda ] || echo no disk");
    spec.security = Security { privileged: true, run_as_user: Some(0), ..Security::default() };
    node.run(&spec).await;
    assert_eq!(node.exited("free").await.code, 0);
    let log = node.log("free").join("\n");
    assert!(log.contains("Seccomp:\t0"), "{log}");
    let mut spec = node.spec("bound", "cat /proc/self/status; echo x >/file; echo $?");
    spec.security = Security {
        seccomp_default: true,
        no_new_privileges: true,
        read_only_root: true,
        run_as_user: Some(0),
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        ..Security::default()
    };
    node.run(&spec).await;
    node.exited("bound").await;
    let log = node.log("bound").join("\n");
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000400", "Read-only file system"] {
        assert!(log.contains(line), "{line} in {log}");
    }
    node.finish().await;
}

#[tokio::test]
async fn thirty_at_once() {
    let Some(node) = Node::new().await else { return };
    let mut times = Vec::new();
    for n in 0..5 {
        let from = Instant::now();
        node.run(&node.spec(&format!("alone-{n}"), "sleep 1000")).await;
        times.push(from.elapsed());
    }
    times.sort();
    let from = Instant::now();
    let specs: Vec<_> = (0..30).map(|n| node.spec(&format!("c{n}"), "sleep 1000")).collect();
    let pids = futures::future::join_all(specs.iter().map(|spec| node.run(spec))).await;
    let all = from.elapsed();
    assert_eq!(pids.iter().collect::<std::collections::BTreeSet<_>>().len(), 30);
    let ids: Vec<String> = ContainerRuntime::list(&node.containerd)
        .await
        .unwrap()
        .into_iter()
        .map(|container| container.id)
        .collect();
    assert_eq!(ids.len(), 35);
    let from = Instant::now();
    let removals = ids.iter().map(|id| ContainerRuntime::remove(&node.containerd, id));
    for removed in futures::future::join_all(removals).await {
        removed.unwrap();
    }
    // Figures for whoever runs it with --no-capture.
    let summary =
        format!("alone: median {:?}; 30 at once: {all:?}; 35 removed: {:?}", times[2], from.elapsed());
    std::io::Write::write_all(&mut std::io::stdout(), format!("{summary}\n").as_bytes()).unwrap();
    assert!(all < Duration::from_secs(20), "{summary}");
    node.finish().await;
}
