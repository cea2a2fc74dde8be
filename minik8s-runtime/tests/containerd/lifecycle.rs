//! Images and the life of containers.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use minik8s_runtime::containerd::Containerd;
use minik8s_runtime::runtime::{ContainerEvent, ContainerState, Exit, Namespaces, Resources, Security};
use minik8s_runtime::{ContainerRuntime, ImageStore, RuntimeError};

use crate::image::write_image;
use crate::node::{IMAGE, Node, next, within};

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
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 30);
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
