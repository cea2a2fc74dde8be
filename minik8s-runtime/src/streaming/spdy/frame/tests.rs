use proptest::prelude::*;

use super::*;

fn headers(pairs: &[(&str, &str)]) -> Headers {
    Headers(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
}

/// What a Go client (golang.org/x/net's successor in kubectl) sends first: the two opening bytes of zlib with a
/// dictionary, and the dictionary's checksum.
#[test]
fn the_first_header_block_names_the_dictionary() {
    let mut out = BytesMut::new();
    let open = Frame::SynStream { stream: 1, fin: false, headers: headers(&[("streamtype", "error")]) };
    Encoder::new().encode(&open, &mut out);
    assert_eq!(out[..8], [0x80, 3, 0, 1, 0, 0, 0, u8::try_from(out.len() - 8).unwrap()]);
    assert_eq!(out[18] & 0x0f, 8, "deflate");
    assert_ne!(out[19] & 0x20, 0, "with a dictionary");
    assert_eq!(out[20..24], [0xe3, 0xc6, 0xa7, 0xc2]);
}

#[test]
fn fixed_layouts() {
    let bytes = |frame: Frame| {
        let mut out = BytesMut::new();
        Encoder::new().encode(&frame, &mut out);
        out.to_vec()
    };
    let cancel = Frame::Reset { stream: 5, status: ResetStatus::CANCEL };
    assert_eq!(bytes(cancel), [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 5]);
    let settings = Frame::Settings(vec![(INITIAL_WINDOW, 0x10000)]);
    assert_eq!(bytes(settings), [0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7, 0, 1, 0, 0]);
    assert_eq!(bytes(Frame::Ping(3)), [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 3]);
    let end = Frame::Data { stream: 3, fin: true, bytes: Bytes::from_static(b"x") };
    assert_eq!(bytes(end), [0, 0, 0, 3, 1, 0, 0, 1, b'x']);
}

fn decode_all(decoder: &mut Decoder, input: &mut BytesMut) -> Result<Vec<Frame>, ProtocolError> {
    let mut frames = Vec::new();
    while let Some(frame) = decoder.decode(input)? {
        frames.push(frame);
    }
    Ok(frames)
}

fn refused(bytes: &[u8]) -> ProtocolError {
    decode_all(&mut Decoder::new(), &mut BytesMut::from(bytes)).unwrap_err()
}

#[test]
fn what_is_wrong_is_refused() {
    assert_eq!(refused(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]), ProtocolError::Version(2));
    assert_eq!(refused(&[0x80, 3, 0, 6, 0, 0, 0, 2, 0, 0]), ProtocolError::Length { kind: 6, length: 2 });
    assert_eq!(refused(&[0x80, 3, 0, 1, 0, 2, 0, 0]), ProtocolError::Length { kind: 1, length: 0x20000 });
    assert_eq!(refused(&[0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 5]), ProtocolError::ZeroStream);
    assert_eq!(refused(&[0, 0, 0, 0, 0, 0, 0, 0]), ProtocolError::ZeroStream);
    let rubbish = [0x80, 3, 0, 2, 0, 0, 0, 8, 0, 0, 0, 1, 1, 2, 3, 4];
    assert!(matches!(refused(&rubbish), ProtocolError::Headers(_)));
    // A count of settings that the frame does not hold.
    assert!(matches!(
        refused(&[0x80, 3, 0, 4, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff]),
        ProtocolError::Length { .. }
    ));
}

#[test]
fn a_block_that_unpacks_to_too_much_is_refused() {
    let long = "x".repeat(100_000);
    let mut out = BytesMut::new();
    let open = Frame::SynStream { stream: 1, fin: false, headers: headers(&[("a", &long)]) };
    Encoder::new().encode(&open, &mut out);
    assert!(out.len() < 1000, "it is small as it is sent");
    assert!(matches!(refused(&out), ProtocolError::Headers(_)));
}

#[test]
fn unknown_types_are_skipped() {
    let mut input =
        BytesMut::from(&[0x80, 3, 0, 99, 0, 0, 0, 1, 7, 0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1][..]);
    assert_eq!(decode_all(&mut Decoder::new(), &mut input), Ok(vec![Frame::Ping(1)]));
}

/// Frames that say the same, with the data of each stream in one piece.
fn joined(frames: Vec<Frame>) -> Vec<Frame> {
    let mut all: Vec<Frame> = Vec::new();
    for frame in frames {
        match (all.last_mut(), frame) {
            (
                Some(Frame::Data { stream, fin, bytes }),
                Frame::Data { stream: next, fin: last, bytes: more },
            ) if *stream == next && !*fin => {
                *bytes = [&bytes[..], &more[..]].concat().into();
                *fin = last;
            }
            (_, frame) => all.push(frame),
        }
    }
    all
}

fn any_headers() -> impl Strategy<Value = Headers> {
    prop::collection::vec(("[a-z-]{1,12}", "[ -~]{0,40}"), 0..6).prop_map(Headers)
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let stream = 1..=ID;
    prop_oneof![
        (stream.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| Frame::SynStream {
            stream,
            fin,
            headers
        }),
        (stream.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| Frame::SynReply {
            stream,
            fin,
            headers
        }),
        (stream.clone(), any::<bool>(), any_headers()).prop_map(|(stream, fin, headers)| Frame::Headers {
            stream,
            fin,
            headers
        }),
        (stream.clone(), any::<u32>())
            .prop_map(|(stream, s)| Frame::Reset { stream, status: ResetStatus(s) }),
        prop::collection::vec((0..0x0100_0000u32, any::<u32>()), 0..4).prop_map(Frame::Settings),
        any::<u32>().prop_map(Frame::Ping),
        (0..=ID, any::<u32>()).prop_map(|(last, s)| Frame::GoAway { last, status: GoAwayStatus(s) }),
        (0..=ID, 0..=ID).prop_map(|(stream, delta)| Frame::WindowUpdate { stream, delta }),
        (stream, any::<bool>(), prop::collection::vec(any::<u8>(), 0..300))
            .prop_map(|(stream, fin, bytes)| Frame::Data { stream, fin, bytes: bytes.into() }),
    ]
}

proptest! {
    /// However the bytes are cut on their way, the same frames come out.
    #[test]
    fn what_is_encoded_is_decoded(
        frames in prop::collection::vec(any_frame(), 1..12),
        cuts in prop::collection::vec(1..40usize, 1..20),
    ) {
        let mut wire = BytesMut::new();
        let mut encoder = Encoder::new();
        for frame in &frames {
            encoder.encode(frame, &mut wire);
        }
        let mut decoder = Decoder::new();
        let (mut input, mut decoded) = (BytesMut::new(), Vec::new());
        for cut in cuts.iter().cycle() {
            if wire.is_empty() {
                break;
            }
            input.extend_from_slice(&wire.split_to((*cut).min(wire.len())));
            decoded.extend(decode_all(&mut decoder, &mut input).unwrap());
        }
        prop_assert!(input.is_empty());
        prop_assert_eq!(joined(decoded), joined(frames));
    }

    /// Nothing that can be sent makes it panic.
    #[test]
    fn rubbish_is_survived(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0..10u8) {
        let mut input = BytesMut::from(&[0x80, 3, 0, kind, 0, 0, 0, u8::try_from(bytes.len()).unwrap()][..]);
        input.extend_from_slice(&bytes);
        let _ = decode_all(&mut Decoder::new(), &mut input);
    }
}
