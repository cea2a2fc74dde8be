//! The addresses of a node's pods, each given to one pod at a time, whatever happens in between.
//!
//! Each address that is taken is a file of that name, which says whose it is; it appears by a rename, so that after a power
//! cut it is either there or not. Addresses go round: one that was given back is the last to be given out again, since
//! others may still believe that its former owner has it.
//!
//! Several processes may use one pool at a time, as the agent and CNI plugins do: they take turns by a lock on a file,
//! whose number says whether somebody else has changed anything since.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::{Error, Result, Subnet};

#[cfg(test)]
mod tests;

/// The file that has the address that was given out last.
const LAST: &str = "last";

/// The file that is locked, with the number of changes so far.
const LOCK: &str = "lock";

/// The suffix of files that are not there yet.
const UNFINISHED: &str = ".new";

/// A subnet's addresses, and who has them.
#[derive(Debug)]
pub struct Pool {
    dir: PathBuf,
    subnet: Subnet,
    owners: BTreeMap<IpAddr, String>,
    addresses: BTreeMap<String, IpAddr>,
    /// The number of the address after the one given out last.
    next: u128,
    /// The number of changes that this has seen.
    seen: u64,
}

/// The turn to change a pool.
struct Turn {
    file: Flock<File>,
    changes: u64,
}

impl Turn {
    /// Waits for it.
    fn take(dir: &Path) -> Result<Self> {
        let path = dir.join(LOCK);
        let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = open().map_err(|error| Error::at(&path, error))?;
        let mut file =
            Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::at(&path, errno))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|error| Error::at(&path, error))?;
        Ok(Self { file, changes: text.trim().parse().unwrap_or(0) })
    }

    /// Tells others of a change, and gives its number.
    fn changed(&mut self) -> std::io::Result<u64> {
        self.changes += 1;
        self.file.seek(SeekFrom::Start(0))?;
        // The text only grows, so nothing of the old one is left.
        self.file.write_all(self.changes.to_string().as_bytes())?;
        Ok(self.changes)
    }
}

impl Pool {
    /// Opens the pool that is kept in `dir`, which is made if it is not there. Addresses of another subnet are
    /// forgotten: the node was given a new one.
    ///
    /// # Errors
    /// [`Error::Io`] if the directory cannot be read or written.
    pub fn open(dir: impl Into<PathBuf>, subnet: Subnet) -> Result<Self> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(|error| Error::at(&dir, error))?;
        let mut pool =
            Self { dir, subnet, owners: BTreeMap::new(), addresses: BTreeMap::new(), next: 0, seen: 0 };
        let turn = Turn::take(&pool.dir)?;
        pool.read(&turn)?;
        Ok(pool)
    }

    /// Reads everything.
    fn read(&mut self, turn: &Turn) -> Result<()> {
        self.owners.clear();
        self.addresses.clear();
        for entry in fs::read_dir(&self.dir).map_err(|error| Error::at(&self.dir, error))? {
            let path = entry.map_err(|error| Error::at(&self.dir, error))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name == LAST || name == LOCK {
                continue;
            }
            let address = name.parse().ok().filter(|&address| self.subnet.pod_number(address).is_some());
            let owner = fs::read_to_string(&path).map_err(|error| Error::at(&path, error))?;
            match address {
                // A file that says nothing was cut off by a filesystem that renames before it writes.
                Some(address) if !owner.is_empty() && !self.addresses.contains_key(&owner) => {
                    self.addresses.insert(owner.clone(), address);
                    self.owners.insert(address, owner);
                }
                _ => fs::remove_file(&path).map_err(|error| Error::at(&path, error))?,
            }
        }
        let last = fs::read_to_string(self.dir.join(LAST)).ok();
        let last = last
            .and_then(|text| text.trim().parse().ok())
            .and_then(|address| self.subnet.pod_number(address));
        self.next = last.map_or(0, |number| number + 1);
        self.seen = turn.changes;
        Ok(())
    }

    /// Waits for the turn, and learns what others have changed.
    fn turn(&mut self) -> Result<Turn> {
        let turn = Turn::take(&self.dir)?;
        if turn.changes != self.seen {
            self.read(&turn)?;
        }
        Ok(turn)
    }

    /// Learns what others have changed.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn refresh(&mut self) -> Result<()> {
        self.turn().map(drop)
    }

    fn note(&mut self, turn: &mut Turn) -> Result<()> {
        self.seen = turn.changed().map_err(|error| Error::at(&self.dir, error))?;
        Ok(())
    }

    /// The subnet.
    pub fn subnet(&self) -> Subnet {
        self.subnet
    }

    /// Gives an owner an address; one that has an address keeps it. It is on disk when this returns.
    ///
    /// # Errors
    /// [`Error::Exhausted`] if none is free, [`Error::InvalidUid`] for an empty owner, [`Error::Io`].
    pub fn allocate(&mut self, owner: &str) -> Result<IpAddr> {
        if owner.is_empty() {
            return Err(Error::InvalidUid(owner.to_owned()));
        }
        let mut turn = self.turn()?;
        if let Some(address) = self.addresses.get(owner) {
            return Ok(*address);
        }
        // Among one more than there are taken, one is free.
        let tries = self.subnet.capacity().min(self.owners.len() as u128 + 1);
        let free = (0..tries)
            .map(|step| self.subnet.pod_address(self.next.wrapping_add(step)))
            .find(|address| !self.owners.contains_key(address));
        let address = free.ok_or(Error::Exhausted(self.subnet))?;
        self.note(&mut turn)?;
        self.put(&address.to_string(), owner, true)?;
        // Losing this only makes an address come back sooner.
        self.put(LAST, &address.to_string(), false)?;
        self.next = self.subnet.pod_number(address).map_or(0, |number| number + 1);
        self.owners.insert(address, owner.to_owned());
        self.addresses.insert(owner.to_owned(), address);
        Ok(address)
    }

    /// Takes an owner's address back. Says whether there was one.
    ///
    /// # Errors
    /// [`Error::Io`] if it could not be noted: then the owner still has it.
    pub fn release(&mut self, owner: &str) -> Result<bool> {
        let mut turn = self.turn()?;
        let Some(address) = self.addresses.get(owner).copied() else {
            return Ok(false);
        };
        self.note(&mut turn)?;
        let path = self.dir.join(address.to_string());
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(Error::at(&path, error)),
            _ => {}
        }
        // Not synced: after a power cut the owner may have it again, and whoever cleans up gives it back again.
        self.addresses.remove(owner);
        self.owners.remove(&address);
        Ok(true)
    }

    /// The address of an owner.
    pub fn get(&self, owner: &str) -> Option<IpAddr> {
        self.addresses.get(owner).copied()
    }

    /// All owners and their addresses, ordered by owner.
    pub fn list(&self) -> impl Iterator<Item = (&str, IpAddr)> {
        self.addresses.iter().map(|(owner, address)| (owner.as_str(), *address))
    }

    fn put(&self, name: &str, text: &str, durable: bool) -> Result<()> {
        let path = self.dir.join(name);
        let new = self.dir.join(format!("{name}{UNFINISHED}"));
        write(&new, text, durable)
            .and_then(|()| fs::rename(&new, &path))
            .and_then(|()| if durable { File::open(&self.dir)?.sync_all() } else { Ok(()) })
            .map_err(|error| Error::at(&path, error))
    }
}

fn write(path: &Path, text: &str, durable: bool) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(text.as_bytes())?;
    if durable { file.sync_all() } else { Ok(()) }
}
