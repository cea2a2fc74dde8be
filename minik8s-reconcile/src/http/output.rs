//! The last touch on an answer: indented for people, compressed for those who asked.

use std::io::Write;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::{HeaderValue, Request, Response, header};

use super::body::Body;
use super::params::Query;

/// Bodies up to this size are not worth compressing; the figure is Kubernetes'.
const GZIP_THRESHOLD: usize = 128 * 1024;

/// What a client wants done to an answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wishes {
    pretty: bool,
    gzip: bool,
}

impl Wishes {
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let text = |name| request.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
        // Few ask for it by name: no need to take every query apart.
        let asked = request.uri().query().filter(|q| q.contains("pretty"));
        let pretty = match Query::parse(asked).get("pretty") {
            Some(value) => matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True"),
            // Somebody sits before these.
            None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|p| text(header::USER_AGENT).starts_with(p)),
        };
        Self { pretty, gzip: accepts_gzip(text(header::ACCEPT_ENCODING)) }
    }

    /// The answer as the client wants it. Streams stay as they are.
    pub(super) async fn grant(self, response: Response<Body>) -> Response<Body> {
        if !self.pretty && !self.gzip {
            return response;
        }
        let (mut parts, body) = response.into_parts();
        let mut bytes = match body.into_whole() {
            Ok(bytes) => bytes,
            Err(stream) => return Response::from_parts(parts, stream),
        };
        let is_json = parts.headers.get(header::CONTENT_TYPE).is_some_and(|t| t == "application/json");
        if self.pretty && is_json {
            bytes = indented(&bytes).into();
        }
        if self.gzip && bytes.len() > GZIP_THRESHOLD && !parts.headers.contains_key(header::CONTENT_ENCODING)
        {
            // Megabytes take milliseconds, in which others want this thread.
            let plain = bytes.clone();
            if let Ok(packed) = tokio::task::spawn_blocking(move || compressed(&plain)).await {
                bytes = packed;
                parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                parts.headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            }
        }
        Response::from_parts(parts, Body::from(bytes))
    }
}

fn accepts_gzip(header: &str) -> bool {
    header.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let refused = |p: &str| p.strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
        parts.next() == Some("gzip") && !parts.any(refused)
    })
}

fn compressed(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    encoder.write_all(plain).and_then(|()| encoder.finish()).expect("writing into a vector").into()
}

/// JSON text with a line for each member and two blanks for each level. Anything else comes out unharmed, too.
fn indented(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 3 / 2);
    let mut depth = 0usize;
    let mut rest = json.iter().copied().peekable();
    let mut in_string = false;
    while let Some(byte) = rest.next() {
        if in_string {
            out.push(byte);
            match byte {
                b'\\' => out.extend(rest.next()),
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => {
                in_string = true;
                out.push(byte);
            }
            b'{' | b'[' => {
                out.push(byte);
                if let Some(end) = rest.next_if(|&b| matches!(b, b'}' | b']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    line(&mut out, depth);
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(&mut out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            _ => out.push(byte),
        }
    }
    out
}

fn line(out: &mut Vec<u8>, depth: usize) {
    out.push(b'\n');
    out.resize(out.len() + 2 * depth, b' ');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indentation_keeps_the_value() {
        let json = br#"{"a":[1,{"b":"x:{,\"}"}],"c":{},"d":[]}"#;
        let text = String::from_utf8(indented(json)).expect("text");
        let expected = "{\n  \"a\": [\n    1,\n    {\n      \"b\": \"x:{,\\\"}\"\n    }\n  ],\n  \"c\": {},\n  \"d\": []\n}";
        assert_eq!(text, expected);
    }

    #[test]
    fn who_takes_gzip() {
        assert!(accepts_gzip("gzip") && accepts_gzip("deflate, gzip;q=0.5"));
        assert!(!accepts_gzip("") && !accepts_gzip("br") && !accepts_gzip("gzip;q=0"));
    }
}
