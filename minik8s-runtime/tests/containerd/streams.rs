//! Execs, attached clients and logs.

use std::time::Duration;

use minik8s_runtime::runtime::ExecSpec;
use minik8s_runtime::{ContainerRuntime, RuntimeError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::node::{Node, read, within};

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
