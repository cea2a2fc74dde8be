//! The connections that there are, and which of them have to go when there are too many.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::limits::Limits;

/// All connections of a server.
#[derive(Debug)]
pub(super) struct Connections {
    limits: Limits,
    /// From when times are counted.
    origin: Instant,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    all: BTreeMap<u64, Arc<Connection>>,
    by_address: BTreeMap<IpAddr, usize>,
}

/// One of them. What happens on it is noted without a lock.
#[derive(Debug)]
pub(super) struct Connection {
    address: IpAddr,
    origin: Instant,
    /// Requests under way.
    active: AtomicU32,
    /// Whether it ever made a request.
    used: AtomicBool,
    /// When the last request ended, or else when it began, in milliseconds.
    since: AtomicU64,
    /// When the first byte of a head came that is not complete; 0 for none.
    head: AtomicU64,
    /// Whether it may stand still.
    patient: AtomicBool,
    closing: Notify,
}

/// A connection's place among all. Gives it back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    connections: Arc<Connections>,
    id: u64,
    pub(super) connection: Arc<Connection>,
}

impl Connections {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, origin: Instant::now(), table: Mutex::default() })
    }

    /// Takes a connection in, for which others may have to go; `None` if there is no room.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let mut table = self.table.lock().expect("no holder panics");
        let own = table.by_address.get(&address).copied().unwrap_or(0);
        if own >= self.limits.connections_per_address {
            make_room(&mut table, Some(address), self.limits.connections_per_address)?;
        }
        if table.all.len() >= self.limits.connections {
            make_room(&mut table, None, self.limits.connections)?;
        }
        let id = table.next;
        table.next += 1;
        let connection = Arc::new(Connection {
            address,
            origin: self.origin,
            active: AtomicU32::new(0),
            used: AtomicBool::new(false),
            since: AtomicU64::new(millis(self.origin)),
            head: AtomicU64::new(0),
            patient: AtomicBool::new(false),
            closing: Notify::new(),
        });
        table.all.insert(id, connection.clone());
        *table.by_address.entry(address).or_default() += 1;
        Some(Place { connections: self.clone(), id, connection })
    }

    /// Closes what has been idle for too long, or has been sending a head for too long.
    pub(super) fn sweep(&self) {
        let now = millis(self.origin);
        let past = |since: u64, limit: Duration| now.saturating_sub(since) > limit.as_millis() as u64;
        let table = self.table.lock().expect("no holder panics");
        for connection in table.all.values().filter(|c| c.is_idle()) {
            let head = connection.head.load(Ordering::Relaxed);
            let slow = head > 0 && past(head, self.limits.header_time);
            if slow || past(connection.since.load(Ordering::Relaxed), self.limits.idle) {
                connection.closing.notify_one();
            }
        }
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.table.lock().expect("no holder panics").all.len()
    }
}

/// Closes the connections, of `address` only if one is given, that have been idle longest: those that never made a
/// request first. Some more than one, so that a flood of connections is not a search for each. `None` if none is idle.
fn make_room(table: &mut Table, address: Option<IpAddr>, limit: usize) -> Option<()> {
    let of = |c: &Connection| address.is_none_or(|address| c.address == address);
    let idle = table.all.iter().filter(|(_, c)| of(c) && c.is_idle());
    let mut idle: Vec<_> =
        idle.map(|(id, c)| (c.used.load(Ordering::Relaxed), c.since.load(Ordering::Relaxed), *id)).collect();
    if idle.is_empty() {
        return None;
    }
    let count = (limit / 64).clamp(1, idle.len());
    idle.select_nth_unstable(count - 1);
    for (_, _, id) in idle.into_iter().take(count) {
        // Its room is free at once; that it notices is a matter of its task.
        if let Some(connection) = table.remove(id) {
            connection.closing.notify_one();
        }
    }
    Some(())
}

impl Table {
    fn remove(&mut self, id: u64) -> Option<Arc<Connection>> {
        let connection = self.all.remove(&id)?;
        if let Some(count) = self.by_address.get_mut(&connection.address) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&connection.address);
            }
        }
        Some(connection)
    }
}

impl Connection {
    fn is_idle(&self) -> bool {
        self.active.load(Ordering::Relaxed) == 0
    }

    /// A request begins. It is under way until what is returned is dropped.
    pub(super) fn request(self: &Arc<Self>) -> Busy {
        self.active.fetch_add(1, Ordering::Relaxed);
        self.used.store(true, Ordering::Relaxed);
        self.head.store(0, Ordering::Relaxed);
        Busy(self.clone())
    }

    /// Bytes have come.
    pub(super) fn received(&self) {
        if self.is_idle() && self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(millis(self.origin).max(1), Ordering::Relaxed);
        }
    }

    /// It may stand still from now on.
    pub(super) fn be_patient(&self) {
        self.patient.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_patient(&self) -> bool {
        self.patient.load(Ordering::Relaxed)
    }

    /// Waits until it has to go.
    pub(super) async fn closed(&self) {
        self.closing.notified().await;
    }
}

/// A request under way.
#[derive(Debug)]
pub(super) struct Busy(Arc<Connection>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.since.store(millis(self.0.origin), Ordering::Relaxed);
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let gone = self.connections.table.lock().expect("no holder panics").remove(self.id);
        // What is dropped is dropped without the lock.
        drop(gone);
    }
}

fn millis(origin: Instant) -> u64 {
    origin.elapsed().as_millis() as u64
}

#[cfg(test)]
mod tests;
