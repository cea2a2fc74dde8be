use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::runtime::{ContainerRuntime, ImageStore, PodNetwork};

const IMAGE: &str = "docker.io/library/busybox:latest";

fn spec(id: &str) -> ContainerSpec {
    ContainerSpec { id: id.into(), image: IMAGE.into(), ..ContainerSpec::default() }
}

fn node() -> Fake {
    let node = Fake::new();
    node.add_image(IMAGE);
    node
}

#[tokio::test]
async fn a_container_lives_until_it_is_told_to_end() {
    let node = node();
    let mut events = node.events();
    assert_eq!(events.next().await, Some(ContainerEvent::Resync));
    node.create(&spec("a")).await.unwrap();
    node.create(&spec("a")).await.unwrap();
    let pid = node.start("a").await.unwrap();
    assert_eq!(node.start("a").await.unwrap(), pid);
    assert!(node.exit("a", 3));
    assert!(!node.exit("a", 4), "an ended process does not end again");
    let exit = Exit { code: 3, started_at: EPOCH, finished_at: EPOCH, oom_killed: false };
    assert_eq!(events.next().await, Some(ContainerEvent::Exited { id: "a".into(), exit: exit.clone() }));
    let seen = node.inspect("a").await.unwrap().unwrap();
    assert_eq!(seen.state, ContainerState::Exited(exit));
    ContainerRuntime::remove(&node, "a").await.unwrap();
    ContainerRuntime::remove(&node, "a").await.unwrap();
    assert!(node.containers().is_empty());
}

#[tokio::test]
async fn signals_do_what_the_program_says() {
    let node = node();
    node.set_program(IMAGE, Program { on_signal: None, ..Program::default() });
    node.create(&spec("a")).await.unwrap();
    node.start("a").await.unwrap();
    node.kill("a", 15).await.unwrap();
    assert!(matches!(node.containers()[0].state, ContainerState::Running { .. }));
    node.kill("a", 9).await.unwrap();
    assert!(matches!(node.containers()[0].state, ContainerState::Exited(Exit { code: 137, .. })));
    node.kill("a", 9).await.unwrap();
}

#[tokio::test]
async fn faults_strike_before_or_after_and_once() {
    let node = node();
    node.fail(Op::Create, "b", Strike::Before, RuntimeError::Unavailable("gone".into()));
    node.fail(Op::Create, "", Strike::After, RuntimeError::Unavailable("lost".into()));
    assert_eq!(
        node.create(&spec("a")).await.unwrap_err().to_string(),
        "the container runtime is unavailable: lost"
    );
    assert_eq!(
        node.create(&spec("b")).await.unwrap_err().to_string(),
        "the container runtime is unavailable: gone"
    );
    let ids: Vec<_> = node.containers().into_iter().map(|c| c.id).collect();
    assert_eq!(ids, ["a"]);
    node.create(&spec("b")).await.unwrap();
    assert_eq!(node.take_calls(), ["create a", "create b", "create b"]);
    assert!(node.calls().is_empty());
}

#[tokio::test]
async fn held_calls_wait_for_their_release() {
    let node = node();
    node.add_to_registry("docker.io/library/nginx:latest");
    node.hold(Op::Pull);
    let other = node.clone();
    let pull = tokio::spawn(async move { other.pull("docker.io/library/nginx:latest", None).await });
    while node.calls().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.find("docker.io/library/nginx:latest").await.unwrap(), None);
    assert!(!pull.is_finished());
    node.release(Op::Pull);
    assert_eq!(pull.await.unwrap().unwrap().reference, "docker.io/library/nginx:latest");
}

#[tokio::test]
async fn the_registry_wants_the_right_password() {
    let node = Fake::new();
    let auth = RegistryAuth { username: "u".into(), password: "p".into() };
    node.put_registry(images::made_up("r.test/a:1"), Some(auth.clone()));
    let refused = node.pull("r.test/a:1", None).await.unwrap_err();
    assert_eq!(refused.to_string(), "failed to pull image \"r.test/a:1\": authorization failed");
    assert!(node.pull("r.test/a:1", Some(&auth)).await.is_ok());
    let missing = node.pull("r.test/b:1", None).await.unwrap_err();
    assert_eq!(missing.to_string(), "failed to pull image \"r.test/b:1\": not found");
}

#[tokio::test]
async fn addresses_go_round_and_run_out() {
    let node = Fake::new();
    node.set_pod_subnet(Ipv4Addr::new(10, 9, 8, 0), 29);
    let pod = |uid: &str| PodSandbox {
        uid: uid.into(),
        namespace: "default".into(),
        name: uid.into(),
        ports: Vec::new(),
    };
    let mut given = Vec::new();
    for uid in ["a", "b", "c", "d", "e"] {
        given.push(node.attach_network(&pod(uid)).await.unwrap().addresses[0].to_string());
    }
    assert_eq!(given, ["10.9.8.2", "10.9.8.3", "10.9.8.4", "10.9.8.5", "10.9.8.6"]);
    assert!(node.attach_network(&pod("f")).await.is_err());
    PodNetwork::detach(&node, "c").await.unwrap();
    assert_eq!(node.attach_network(&pod("f")).await.unwrap().addresses[0].to_string(), "10.9.8.4");
    assert_eq!(PodNetwork::list(&node).await.unwrap(), ["a", "b", "d", "e", "f"]);
}

impl Fake {
    async fn attach_network(&self, pod: &PodSandbox) -> Result<Attachment> {
        PodNetwork::attach(self, pod).await
    }
}

#[tokio::test]
async fn an_echoing_command_ends_when_its_input_does() {
    let node = node();
    node.on_exec(|id, spec| ExecResult {
        stdout: format!("{id} {}\n", spec.command.join(" ")).into_bytes(),
        echo: true,
        code: 7,
        ..ExecResult::default()
    });
    node.create(&spec("a")).await.unwrap();
    node.start("a").await.unwrap();
    let cat = ExecSpec { command: vec!["cat".into()], stdin: true, ..ExecSpec::default() };
    let mut streams = node.exec("a", &cat).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    drop(stdin);
    let mut out = String::new();
    streams.stdout.read_to_string(&mut out).await.unwrap();
    assert_eq!(out, "a cat\nhello");
    assert_eq!(streams.exit.await.unwrap(), 7);
}

#[tokio::test]
async fn attached_clients_and_the_log_see_what_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let node = node();
    let log_path = folder.path().join("0.log");
    node.create(&ContainerSpec { log_path: log_path.clone(), ..spec("a") }).await.unwrap();
    node.start("a").await.unwrap();
    let mut streams = ContainerRuntime::attach(&node, "a").await.unwrap();
    assert!(streams.stdin.is_none());
    node.print("a", Output::Stdout, "one").unwrap();
    node.print("a", Output::Stderr, "two").unwrap();
    node.exit("a", 5);
    let (mut out, mut err) = (String::new(), String::new());
    streams.stdout.read_to_string(&mut out).await.unwrap();
    streams.stderr.take().unwrap().read_to_string(&mut err).await.unwrap();
    assert_eq!((out.as_str(), err.as_str()), ("one\n", "two\n"));
    assert_eq!(streams.exit.await.unwrap(), 5);
    assert_eq!(
        std::fs::read_to_string(log_path).unwrap(),
        "2030-01-01T00:00:00.000000000Z stdout F one\n2030-01-01T00:00:00.000000000Z stderr F two\n"
    );
}
