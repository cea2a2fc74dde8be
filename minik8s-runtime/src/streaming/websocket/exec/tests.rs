use tokio::io::AsyncWriteExt;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

/// Streams of a process that writes without end and reads nothing, and what ends with them.
fn flood() -> (Streams, tokio::task::JoinHandle<()>, tokio::io::DuplexStream) {
    let (mut writes, stdout) = tokio::io::duplex(1024);
    let (stdin, unread) = tokio::io::duplex(1024);
    let process = tokio::spawn(async move { while writes.write_all(&[b'x'; 1024]).await.is_ok() {} });
    let streams = Streams {
        stdin: Some(Box::new(stdin)),
        stdout: Box::new(stdout),
        stderr: None,
        resize: mpsc::channel(1).0,
        exit: Box::pin(std::future::pending()),
    };
    (streams, process, unread)
}

async fn client_of(
    protocol: Protocol,
    streams: Streams,
) -> (WebSocketStream<tokio::io::DuplexStream>, tokio::task::JoinHandle<()>) {
    let (ours, theirs) = tokio::io::duplex(1024);
    let server = WebSocketStream::from_raw_socket(theirs, Role::Server, None).await;
    let session = tokio::spawn(async move { drive(server, protocol, true, async { Ok(streams) }).await });
    (WebSocketStream::from_raw_socket(ours, Role::Client, None).await, session)
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leaves_while_everything_is_full_ends_its_session() {
    let (streams, process, _unread) = flood();
    let (mut client, session) = client_of(PROTOCOLS[0], streams).await;
    // Until neither side takes any more.
    let feed = async {
        loop {
            let more = Frame::Binary(Bytes::from_static(&[STDIN; 1024]));
            client.send(more).await.expect("the session lives");
        }
    };
    let full = tokio::time::timeout(std::time::Duration::from_millis(200), feed).await;
    assert!(full.is_err());
    drop(client);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(3600), session).await;
    ended.expect("the session ends").unwrap();
    process.await.unwrap();
}

#[tokio::test]
async fn the_last_words_reach_a_client_whose_input_nobody_reads() {
    let (stdin, unread) = tokio::io::duplex(16);
    let (exit, code) = tokio::sync::oneshot::channel::<i32>();
    let streams = Streams {
        stdin: Some(Box::new(stdin)),
        stdout: Box::new(tokio::io::empty()),
        stderr: None,
        resize: mpsc::channel(1).0,
        exit: Box::pin(async { Ok(code.await.expect("the process ends")) }),
    };
    let (mut client, session) = client_of(PROTOCOLS[0], streams).await;
    client.send(Frame::Binary(Bytes::from_static(&[STDIN; 512]))).await.unwrap();
    drop(unread);
    client.send(Frame::Binary(Bytes::from_static(&[STDIN; 512]))).await.unwrap();
    exit.send(5).unwrap();
    let status = loop {
        match client.next().await {
            Some(Ok(Frame::Binary(payload))) if payload[0] == ERROR => break payload.slice(1..),
            Some(Ok(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    let status: k8s_openapi::apimachinery::pkg::apis::meta::v1::Status =
        serde_json::from_slice(&status).unwrap();
    assert_eq!(status, session::exited(5));
    assert!(matches!(client.next().await, Some(Ok(Frame::Close(_)))));
    drop(client);
    session.await.unwrap();
}
