use std::net::Ipv4Addr;

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::streaming::spdy::Client;

/// What listens on this machine stands for what listens in a pod on its network.
fn target() -> Target {
    Target { pod: "p_ns".to_owned(), uid: "u".to_owned(), netns: None, addresses: Vec::new() }
}

async fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    (listener, port)
}

fn client() -> (Client, tokio::task::JoinHandle<()>) {
    Client::of(|opened| run(target(), opened))
}

async fn open(client: &mut Client, first: u32, request: &str, port: &str) {
    for (id, kind) in [(first, "error"), (first + 2, "data")] {
        client.open(id, &[("streamtype", kind), ("port", port), ("requestid", request)]).await;
    }
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn the_clients_end_is_passed_on_and_the_pod_may_still_answer() {
    let (listener, port) = listener().await;
    let (mut client, _server) = client();
    open(&mut client, 1, "0", &port).await;
    client.data(3, true, b"question").await;
    let (mut pod, _) = listener.accept().await.unwrap();
    assert_eq!(read_all(&mut pod).await, b"question");
    pod.write_all(b"answer").await.unwrap();
    drop(pod);
    assert_eq!(client.read(3).await, b"answer");
    assert_eq!(client.read(1).await, b"");
}

#[tokio::test]
async fn the_pods_end_ends_both_streams_and_nothing_else() {
    let (listener, port) = listener().await;
    let (mut client, server) = client();
    open(&mut client, 1, "0", &port).await;
    drop(listener.accept().await.unwrap());
    assert_eq!(client.read(3).await, b"");
    assert_eq!(client.read(1).await, b"");
    open(&mut client, 5, "1", &port).await;
    let (mut pod, _) = listener.accept().await.unwrap();
    pod.write_all(b"more").await.unwrap();
    drop(pod);
    assert_eq!(client.read(7).await, b"more");
    assert!(!server.is_finished());
}

#[tokio::test]
async fn a_reset_by_the_client_ends_the_connection_to_the_pod() {
    let (listener, port) = listener().await;
    let (mut client, _server) = client();
    open(&mut client, 1, "0", &port).await;
    let (mut pod, _) = listener.accept().await.unwrap();
    client.reset(3).await;
    assert_eq!(read_all(&mut pod).await, b"");
    assert_eq!(client.read(1).await, b"", "and there is no error");
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_no_connection_to_the_pod() {
    let (listener, port) = listener().await;
    let (mut client, server) = client();
    open(&mut client, 1, "0", &port).await;
    let (mut pod, _) = listener.accept().await.unwrap();
    drop(client);
    assert_eq!(read_all(&mut pod).await, b"");
    server.await.unwrap();
}

#[tokio::test]
async fn what_is_wrong_is_said_on_the_stream_for_it() {
    let (listener, port) = listener().await;
    drop(listener);
    let (mut client, _server) = client();
    open(&mut client, 1, "0", &port).await;
    let words = String::from_utf8(client.read(1).await).unwrap();
    let start =
        format!("error forwarding port {port} to pod p_ns, uid u: failed to connect to 127.0.0.1:{port}");
    assert!(words.starts_with(&start), "{words}");
    assert!(words.contains("refused"), "{words}");
    open(&mut client, 5, "1", "70000").await;
    let words = String::from_utf8(client.read(5).await).unwrap();
    assert!(words.starts_with("unable to parse \"70000\" as a port"), "{words}");
}

#[tokio::test]
async fn streams_without_a_request_belong_together_by_their_order() {
    let (listener, port) = listener().await;
    let (mut client, _server) = client();
    client.open(1, &[("streamtype", "error"), ("port", &port)]).await;
    client.open(3, &[("streamtype", "data"), ("port", &port)]).await;
    let (mut pod, _) = listener.accept().await.unwrap();
    pod.write_all(b"x").await.unwrap();
    drop(pod);
    assert_eq!(client.read(3).await, b"x");
}

#[tokio::test(start_paused = true)]
async fn half_a_pair_is_not_waited_for_for_good() {
    let (mut client, _server) = client();
    client.open(1, &[("streamtype", "error"), ("port", "1"), ("requestid", "9")]).await;
    assert_eq!(client.read(1).await, b"request 9: timed out waiting for streams");
}

#[test]
fn ports_may_come_in_lists() {
    let parse = |query| ports(&Params::parse(query)).map_err(|r| r.message);
    assert_eq!(parse("ports=80,443&ports=1").unwrap(), [80, 443, 1]);
    assert_eq!(parse("port=80").unwrap(), [80]);
    assert_eq!(parse("ports=0").unwrap_err(), "port \"0\" must be > 0");
    assert!(parse("ports=x").is_err());
    assert!(parse("").is_err());
}
