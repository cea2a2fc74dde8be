use tokio::io::DuplexStream;
use tokio::sync::oneshot;

use super::super::headers::Headers;
use super::*;

/// The client's end of a connection.
pub(crate) struct Client {
    io: DuplexStream,
    encoder: Encoder,
    decoder: Decoder,
    input: BytesMut,
}

impl Client {
    /// A client of `handler`, whose connection ends with the task.
    pub(crate) fn of<F>(
        handler: impl FnOnce(mpsc::Receiver<Stream>) -> F + Send + 'static,
    ) -> (Self, tokio::task::JoinHandle<()>)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (io, theirs) = tokio::io::duplex(1 << 20);
        let (reader, writer) = tokio::io::split(theirs);
        let server = tokio::spawn(serve(reader, writer, handler));
        (Self { io, encoder: Encoder::new(), decoder: Decoder::new(), input: BytesMut::new() }, server)
    }

    async fn send(&mut self, frame: Frame) {
        let mut out = BytesMut::new();
        self.encoder.encode(&frame, &mut out);
        self.io.write_all(&out).await.expect("the server reads");
    }

    pub(crate) async fn open(&mut self, stream: u32, headers: &[(&str, &str)]) {
        let headers = Headers(headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect());
        self.send(Frame::SynStream { stream, fin: false, headers }).await;
    }

    pub(crate) async fn data(&mut self, stream: u32, fin: bool, bytes: &[u8]) {
        self.send(Frame::Data { stream, fin, bytes: Bytes::copy_from_slice(bytes) }).await;
    }

    /// The next frame; `None` when the server has hung up.
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.input).expect("SPDY") {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.input).await.expect("a pipe") == 0 {
                return None;
            }
        }
    }

    /// All that a stream is sent until it ends; frames of others in between are kept out.
    pub(crate) async fn read(&mut self, id: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Some(Frame::Data { stream, fin, bytes }) if stream == id => {
                    all.extend_from_slice(&bytes);
                    if fin {
                        return all;
                    }
                }
                Some(Frame::Reset { stream, .. }) if stream == id => panic!("{id} was reset"),
                Some(_) => {}
                None => panic!("{id} did not end"),
            }
        }
    }

    /// The next data, and whose it is.
    pub(crate) async fn some(&mut self) -> (u32, Bytes) {
        loop {
            match self.next().await.expect("the server still speaks") {
                Frame::Data { stream, bytes, .. } if !bytes.is_empty() => return (stream, bytes),
                _ => {}
            }
        }
    }

    pub(crate) async fn reset(&mut self, stream: u32) {
        self.send(Frame::Reset { stream, status: ResetStatus::CANCEL }).await;
    }

    /// Waits until the server has nothing more to say.
    pub(crate) async fn ended(&mut self) {
        self.next_of(|f| matches!(f, Frame::GoAway { .. })).await;
    }

    /// The next frame that is wanted; others are skipped.
    async fn next_of(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().await.expect("the server still speaks");
            if wanted(&frame) {
                return frame;
            }
        }
    }
}

fn accepted(stream: u32) -> Frame {
    Frame::SynReply { stream, fin: false, headers: Headers::default() }
}

async fn echo(mut streams: mpsc::Receiver<Stream>) {
    let mut stream = streams.recv().await.expect("a stream");
    while let Some(bytes) = stream.input.recv().await {
        assert!(stream.output.send(bytes).await);
    }
    stream.output.finish().await;
}

#[tokio::test]
async fn a_stream_from_its_beginning_to_the_end_of_the_connection() {
    let (mut client, server) = Client::of(echo);
    client.open(1, &[("streamtype", "x")]).await;
    assert_eq!(client.next().await, Some(accepted(1)));
    client.data(1, false, b"ab").await;
    assert_eq!(client.next().await, Some(Frame::Data { stream: 1, fin: false, bytes: "ab".into() }));
    client.data(1, true, b"").await;
    assert_eq!(client.read(1).await, b"");
    assert_eq!(client.next().await, Some(Frame::GoAway { last: 1, status: GoAwayStatus::OK }));
    // It is the client that hangs up.
    assert!(!server.is_finished());
    drop(client);
    server.await.unwrap();
}

#[tokio::test]
async fn more_than_a_window_passes_both_ways_with_a_client_that_knows_no_windows() {
    let (mut client, _server) = Client::of(echo);
    client.open(1, &[]).await;
    let sent: Vec<u8> = (0..300_000u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
    for (index, piece) in sent.chunks(100_000).enumerate() {
        client.data(1, index == 2, piece).await;
    }
    assert_eq!(client.read(1).await, sent);
}

#[tokio::test]
async fn a_client_with_windows_is_not_sent_more_than_it_grants() {
    let (mut client, _server) = Client::of(echo);
    client.send(Frame::Settings(vec![(INITIAL_WINDOW, 4)])).await;
    client.open(1, &[]).await;
    client.data(1, true, b"abcdefgh").await;
    assert_eq!(client.next().await, Some(accepted(1)));
    assert_eq!(client.next().await, Some(Frame::Data { stream: 1, fin: false, bytes: "abcd".into() }));
    // Nothing but the answer follows.
    client.send(Frame::Ping(7)).await;
    assert_eq!(client.next().await, Some(Frame::Ping(7)));
    client.send(Frame::WindowUpdate { stream: 1, delta: 100 }).await;
    assert_eq!(client.read(1).await, b"efgh");
}

#[tokio::test]
async fn what_was_taken_is_granted_anew() {
    let (mut client, _server) = Client::of(echo);
    client.open(1, &[]).await;
    client.data(1, false, &[0; 40_000]).await;
    for expected in [1, 0] {
        let update = client.next_of(|f| matches!(f, Frame::WindowUpdate { .. })).await;
        assert!(
            matches!(update, Frame::WindowUpdate { stream, delta: 32_768..=40_000 } if stream == expected),
            "{update:?}"
        );
    }
}

#[tokio::test]
async fn a_reset_reaches_who_writes_and_who_reads() {
    let (told, tells) = oneshot::channel();
    let (mut client, _server) = Client::of(async |mut streams: mpsc::Receiver<Stream>| {
        let mut stream = streams.recv().await.unwrap();
        stream.output.reset().cancelled().await;
        assert_eq!(stream.input.recv().await, None);
        told.send(stream.output.send("x".into()).await).unwrap();
    });
    client.open(1, &[]).await;
    client.send(Frame::Reset { stream: 1, status: ResetStatus::CANCEL }).await;
    assert!(!tells.await.unwrap());
    assert_eq!(client.next().await, Some(accepted(1)));
    assert!(matches!(client.next().await, Some(Frame::GoAway { .. })), "no word about the stream");
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_reset() {
    let (mut client, _server) = Client::of(async |mut streams: mpsc::Receiver<Stream>| {
        drop(streams.recv().await);
    });
    client.open(1, &[]).await;
    assert_eq!(client.next().await, Some(accepted(1)));
    assert_eq!(client.next().await, Some(Frame::Reset { stream: 1, status: ResetStatus::CANCEL }));
}

#[tokio::test]
async fn numbers_must_be_odd_and_grow() {
    let (mut client, _server) = Client::of(async |mut streams: mpsc::Receiver<Stream>| {
        let mut kept = Vec::new();
        while let Some(stream) = streams.recv().await {
            kept.push(stream);
        }
    });
    client.open(5, &[]).await;
    assert_eq!(client.next().await, Some(accepted(5)));
    for (id, status) in [(3, ResetStatus::PROTOCOL_ERROR), (8, ResetStatus::PROTOCOL_ERROR)] {
        client.open(id, &[]).await;
        assert_eq!(client.next().await, Some(Frame::Reset { stream: id, status }));
    }
    client.open(5, &[]).await;
    assert_eq!(client.next().await, Some(Frame::Reset { stream: 5, status: ResetStatus::STREAM_IN_USE }));
}

#[tokio::test]
async fn what_is_not_spdy_ends_the_connection_with_a_word() {
    let (mut client, server) = Client::of(async |_| std::future::pending().await);
    client.io.write_all(b"\x80\x09\0\x01\0\0\0\x01x").await.unwrap();
    let last_word = Frame::GoAway { last: 0, status: GoAwayStatus::PROTOCOL_ERROR };
    assert_eq!(client.next().await, Some(last_word));
    assert_eq!(client.next().await, None);
    server.await.unwrap();
}

#[tokio::test]
async fn the_handler_ends_when_the_client_hangs_up() {
    let (client, server) = Client::of(async |_| std::future::pending().await);
    drop(client);
    server.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_quiet_connection_is_kept_alive_and_an_ended_one_is_not_kept_for_good() {
    let (mut client, server) = Client::of(echo);
    let start = tokio::time::Instant::now();
    assert_eq!(client.next().await, Some(Frame::Settings(Vec::new())));
    assert_eq!(start.elapsed(), HEARTBEAT);
    client.send(Frame::SynStream { stream: 1, fin: true, headers: Headers::default() }).await;
    let ended = client.next_of(|f| matches!(f, Frame::GoAway { .. })).await;
    assert_eq!(ended, Frame::GoAway { last: 1, status: GoAwayStatus::OK });
    while client.next().await.is_some() {}
    assert!(start.elapsed() <= HEARTBEAT + LINGER + LAST_WORDS, "{:?}", start.elapsed());
    server.await.unwrap();
}
