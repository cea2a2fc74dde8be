//! How much may be sent: SPDY/3.1's windows, one per stream and one for the connection.
//!
//! The client library that kubectl is built on neither grants windows nor keeps to them. So they are counted from
//! the start but hold nothing back until the other end has shown, by a grant or a setting, that it knows of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::frame::ProtocolError;

/// What may be sent unasked.
const INITIAL: i64 = 64 * 1024;
/// No window grows beyond this.
const LARGEST: i64 = 0x7fff_ffff;

/// The windows of a connection's sending side.
#[derive(Debug)]
pub(super) struct Windows {
    counted: bool,
    initial: i64,
    connection: i64,
    streams: BTreeMap<u32, i64>,
}

impl Windows {
    pub(super) fn new() -> Self {
        Self { counted: false, initial: INITIAL, connection: INITIAL, streams: BTreeMap::new() }
    }

    pub(super) fn open(&mut self, stream: u32) {
        self.streams.insert(stream, self.initial);
    }

    pub(super) fn close(&mut self, stream: u32) {
        self.streams.remove(&stream);
    }

    /// How many of `want` bytes may be sent now; they count as sent. 0: wait for a grant.
    pub(super) fn take(&mut self, stream: u32, want: usize) -> usize {
        let Some(window) = self.streams.get_mut(&stream) else { return want };
        let wanted = i64::try_from(want).unwrap_or(LARGEST);
        let taken = if self.counted { wanted.min(*window).min(self.connection).max(0) } else { wanted };
        *window -= taken;
        self.connection -= taken;
        usize::try_from(taken).expect("not negative")
    }

    /// The other end grants `delta` more on a stream, or on the connection for stream 0.
    ///
    /// # Errors
    /// The window would be too large.
    pub(super) fn grant(&mut self, stream: u32, delta: u32) -> Result<(), ProtocolError> {
        self.counted = true;
        let window = match stream {
            0 => &mut self.connection,
            // One that has ended meanwhile is fine.
            stream => match self.streams.get_mut(&stream) {
                Some(window) => window,
                None => return Ok(()),
            },
        };
        *window += i64::from(delta);
        if *window > LARGEST { Err(ProtocolError::Window) } else { Ok(()) }
    }

    /// The other end says how much may be sent on a stream unasked; it holds for those that are open, too.
    pub(super) fn set_initial(&mut self, size: u32) {
        self.counted = true;
        let size = i64::from(size).min(LARGEST);
        let more = size - self.initial;
        self.initial = size;
        for window in self.streams.values_mut() {
            *window += more;
        }
    }
}

/// [`Windows`] to be waited for.
#[derive(Debug)]
pub(super) struct Flow {
    windows: Mutex<Windows>,
    changed: Notify,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self { windows: Mutex::new(Windows::new()), changed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Windows> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the windows and wakes those who wait for them.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Windows) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.notify_waiters();
        result
    }

    /// Waits until something may be sent; says how many of `want` bytes, which must not be 0.
    pub(super) async fn take(&self, stream: u32, want: usize) -> usize {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            match self.lock().take(stream, want) {
                0 => {}
                taken => return taken,
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_held_back_from_a_client_that_knows_no_windows() {
        let mut windows = Windows::new();
        windows.open(1);
        assert_eq!(windows.take(1, 1 << 20), 1 << 20);
        assert_eq!(windows.take(1, 1 << 20), 1 << 20);
    }

    #[test]
    fn windows_count_once_they_are_spoken_of() {
        let mut windows = Windows::new();
        windows.open(1);
        windows.open(3);
        assert_eq!(windows.take(1, 60_000), 60_000);
        windows.grant(0, 100_000).unwrap();
        assert_eq!(windows.take(1, 60_000), 65_536 - 60_000);
        assert_eq!(windows.take(1, 1), 0);
        assert_eq!(windows.take(3, 1_000_000), 65_536);
        windows.grant(1, 1 << 20).unwrap();
        assert_eq!(windows.take(1, 1 << 20), 65_536 + 100_000 - 2 * 65_536, "the connection's is the limit");
    }

    #[test]
    fn a_smaller_initial_window_can_leave_a_debt() {
        let mut windows = Windows::new();
        windows.open(1);
        assert_eq!(windows.take(1, 1000), 1000);
        windows.set_initial(500);
        assert_eq!(windows.take(1, 10), 0);
        windows.grant(1, 500).unwrap();
        assert_eq!(windows.take(1, 10), 0, "the debt is paid first");
        windows.grant(1, 7).unwrap();
        assert_eq!(windows.take(1, 10), 7);
        windows.open(3);
        assert_eq!(windows.take(3, 1000), 500);
    }

    #[test]
    fn a_window_has_a_limit_and_a_closed_stream_has_none() {
        let mut windows = Windows::new();
        windows.open(1);
        assert_eq!(windows.grant(1, 0x7fff_ffff), Err(ProtocolError::Window));
        windows.close(1);
        assert_eq!(windows.grant(1, 1), Ok(()));
        assert_eq!(windows.take(1, 5), 5);
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let flow = Flow::new();
        flow.change(|w| w.open(1));
        flow.change(|w| w.set_initial(0));
        let grant = async {
            tokio::task::yield_now().await;
            flow.change(|w| w.grant(1, 3)).unwrap();
        };
        let (taken, ()) = tokio::join!(flow.take(1, 10), grant);
        assert_eq!(taken, 3);
    }
}
