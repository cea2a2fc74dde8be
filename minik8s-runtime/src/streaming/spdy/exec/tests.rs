use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::oneshot;

use super::*;
use crate::streaming::spdy::Client;

/// The process's ends of its pipes.
struct Process {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::Receiver<(u16, u16)>,
    exit: oneshot::Sender<i32>,
}

fn process() -> (Process, Streams) {
    let ((stdin, input), (stdout, output), (stderr, errors)) =
        (tokio::io::duplex(1024), tokio::io::duplex(1024), tokio::io::duplex(1024));
    let ((resize, sizes), (exit, code)) = (mpsc::channel(4), oneshot::channel());
    let streams = Streams {
        stdin: Some(Box::new(input)),
        stdout: Box::new(output),
        stderr: Some(Box::new(errors)),
        resize,
        exit: Box::pin(async { Ok(code.await.expect("the process ends")) }),
    };
    (Process { stdin, stdout, stderr, sizes, exit }, streams)
}

fn session(protocol: &'static str, query: &str) -> (Client, Process, tokio::task::JoinHandle<()>) {
    let (process, streams) = process();
    let params = Params::parse(query);
    let (client, server) = Client::of(move |opened| async move {
        exec(protocol, &params, async { Ok(streams) }, opened).await;
    });
    (client, process, server)
}

#[tokio::test]
async fn a_process_and_its_streams() {
    let (mut client, mut process, server) =
        session("v4.channel.k8s.io", "stdin=true&stdout=true&stderr=true");
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "stderr")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    client.data(3, true, b"in").await;
    let mut read = String::new();
    process.stdin.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "in", "and it sees the end");
    process.stdout.write_all(b"out").await.unwrap();
    drop(process.stdout);
    process.stderr.write_all(b"err").await.unwrap();
    drop(process.stderr);
    process.exit.send(3).unwrap();
    let mut said = [Vec::new(), Vec::new()];
    let status = loop {
        let (id, bytes) = client.some().await;
        match id {
            5 => said[0].extend_from_slice(&bytes),
            7 => said[1].extend_from_slice(&bytes),
            1 => break [&bytes[..], &client.read(1).await].concat(),
            other => panic!("data on {other}"),
        }
    };
    assert_eq!(said, [b"out".to_vec(), b"err".to_vec()]);
    let status: k8s_openapi::apimachinery::pkg::apis::meta::v1::Status =
        serde_json::from_slice(&status).unwrap();
    assert_eq!(status, session::exited(3));
    drop(client);
    server.await.unwrap();
}

#[tokio::test]
async fn older_clients_are_told_in_words_and_new_sizes_reach_the_terminal() {
    let (mut client, mut process, _server) = session("v3.channel.k8s.io", "stdout=true&stderr=true&tty=true");
    for (id, kind) in [(1, "error"), (3, "stdout"), (5, "resize")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    client.data(5, false, b"{\"Width\":80,").await;
    client.data(5, false, b"\"Height\":24}").await;
    assert_eq!(process.sizes.recv().await, Some((80, 24)));
    drop((process.stdout, process.stderr));
    process.exit.send(1).unwrap();
    let words = client.read(1).await;
    assert_eq!(words, b"command terminated with non-zero exit code: exit status 1");
}

#[tokio::test]
async fn the_session_ends_with_its_client() {
    let (mut client, mut process, server) = session("v4.channel.k8s.io", "stdin=true&stdout=true");
    for (id, kind) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    process.stdout.write_all(b"x").await.unwrap();
    assert_eq!(client.some().await.0, 5);
    drop(client);
    server.await.unwrap();
    assert_eq!(process.stdin.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_for_a_client_that_does_not_open_its_streams() {
    let (mut client, process, _server) = session("v4.channel.k8s.io", "stdin=true&stdout=true");
    client.open(1, &[("streamtype", "error")]).await;
    client.ended().await;
    assert!(process.exit.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_client_may_take_its_time_to_read_the_rest() {
    let (mut client, mut process, _server) = session("v4.channel.k8s.io", "stdout=true");
    for (id, kind) in [(1, "error"), (3, "stdout")] {
        client.open(id, &[("streamtype", kind)]).await;
    }
    // More than all that is on the way can hold; the process has ended when it is in the pipe.
    let writes = async {
        process.stdout.write_all(&[b'x'; 4 << 20]).await.unwrap();
        drop(process.stdout);
    };
    let reads = async {
        tokio::time::sleep(std::time::Duration::from_secs(20)).await;
        client.read(3).await
    };
    process.exit.send(0).unwrap();
    let ((), read) = tokio::join!(writes, reads);
    assert_eq!(read.len(), 4 << 20);
}
