//! How much of the server one client may take.

use std::time::Duration;

/// What a server takes from clients: how much, how many, for how long. The defaults are Kubernetes' where it has any.
///
/// What is not said here: a request has at most 100 headers; JSON nests at most 128 levels deep, YAML and protobuf 100;
/// aliases may not make a YAML text larger than 16 MiB; bodies are never decompressed.
///
/// ```
/// use std::time::Duration;
/// use minik8s_reconcile::http::Limits;
///
/// let limits = Limits::default().body(1 << 20).idle(Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub(super) body: usize,
    pub(super) uri: usize,
    pub(super) headers: usize,
    pub(super) connections: usize,
    pub(super) connections_per_address: usize,
    pub(super) streams: u32,
    pub(super) handshake_time: Duration,
    pub(super) header_time: Duration,
    pub(super) body_time: Duration,
    pub(super) stall: Duration,
    pub(super) idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: super::BODY_LIMIT,
            uri: 16 * 1024,
            headers: 64 * 1024,
            connections: 16_384,
            connections_per_address: 4096,
            streams: 250,
            handshake_time: Duration::from_secs(10),
            header_time: Duration::from_secs(30),
            body_time: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            idle: Duration::from_secs(90),
        }
    }
}

impl Limits {
    /// The largest body of a request, in bytes (3 MiB). What is larger is refused with 413.
    #[must_use]
    pub fn body(self, bytes: usize) -> Self {
        Self { body: bytes, ..self }
    }

    /// The longest path with its query, in bytes (16 KiB). What is longer is refused with 414.
    #[must_use]
    pub fn uri(self, bytes: usize) -> Self {
        Self { uri: bytes, ..self }
    }

    /// The most bytes that the headers of a request may have, the request line included (64 KiB; no fewer than 8 KiB).
    /// What has more is refused with 431, and its connection closed.
    #[must_use]
    pub fn headers(self, bytes: usize) -> Self {
        Self { headers: bytes.max(8 * 1024), ..self }
    }

    /// The most connections at once (16 384). One more closes those that have been idle longest, of which those that never
    /// made a request come first; where none is idle, it is closed itself.
    #[must_use]
    pub fn connections(self, most: usize) -> Self {
        Self { connections: most.max(1), ..self }
    }

    /// The most connections at once from one address (4 096), as for [`Self::connections`].
    #[must_use]
    pub fn connections_per_address(self, most: usize) -> Self {
        Self { connections_per_address: most.max(1), ..self }
    }

    /// The most requests at once on one connection of HTTP/2 (250).
    #[must_use]
    pub fn streams(self, most: u32) -> Self {
        Self { streams: most.max(1), ..self }
    }

    /// How long a client may take to agree on TLS (10 s).
    #[must_use]
    pub fn handshake_time(self, limit: Duration) -> Self {
        Self { handshake_time: limit, ..self }
    }

    /// How long a client may take to send the head of a request, from its first byte (30 s). To the second.
    #[must_use]
    pub fn header_time(self, limit: Duration) -> Self {
        Self { header_time: limit, ..self }
    }

    /// How long a client may take to send the body of a request (60 s). Then it gets a 408.
    #[must_use]
    pub fn body_time(self, limit: Duration) -> Self {
        Self { body_time: limit, ..self }
    }

    /// How long a client may take none of what is written to it (60 s) before its connection is closed. Streams of a pod's
    /// logs, `exec` and the like may stand still for as long as they want.
    #[must_use]
    pub fn stall(self, limit: Duration) -> Self {
        Self { stall: limit, ..self }
    }

    /// How long a connection may be without a request (90 s). To the second.
    #[must_use]
    pub fn idle(self, limit: Duration) -> Self {
        Self { idle: limit, ..self }
    }
}

#[cfg(test)]
mod tests;
