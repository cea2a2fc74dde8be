//! A tar archive whose entries are read in any order.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::containerd::content::Source;
use crate::runtime::{Result, RuntimeError};

/// The most that a JSON file in an archive may have.
const MAX_JSON: u64 = 16 << 20;

/// Where each entry of an archive is.
#[derive(Debug)]
pub(super) struct Archive {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File {
        offset: u64,
        size: u64,
    },
    /// To another entry: `docker save` of old links layers that occur twice.
    Link(String),
}

impl Archive {
    pub(super) fn read(path: &Path) -> io::Result<Self> {
        let mut tar = tar::Archive::new(BufReader::new(File::open(path)?));
        let mut entries = BTreeMap::new();
        for entry in tar.entries_with_seek()? {
            let entry = entry?;
            let name = entry.path()?.into_owned();
            let place = if entry.header().entry_type().is_file() {
                Entry::File { offset: entry.raw_file_position(), size: entry.size() }
            } else if let Some(link) = entry.link_name()? {
                let hard = entry.header().entry_type().is_hard_link();
                let base = name.parent().filter(|_| !hard).unwrap_or(Path::new(""));
                Entry::Link(plain(&base.join(link)))
            } else {
                continue;
            };
            entries.insert(plain(&name), place);
        }
        Ok(Self { path: path.to_owned(), entries })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.place(name).is_some()
    }

    /// Where the bytes of a file are.
    pub(super) fn source(&self, name: &str) -> Option<Source> {
        let (offset, size) = self.place(name)?;
        Some(Source::File { path: self.path.clone(), offset, size })
    }

    pub(super) fn json<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        let parsed = serde_json::from_slice(&self.bytes(name)?);
        parsed.map_err(|error| RuntimeError::Other(format!("{name}: {error}")))
    }

    /// All of a small file.
    pub(super) fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let bad = |why: &dyn std::fmt::Display| RuntimeError::Other(format!("{name}: {why}"));
        let (offset, size) = self.place(name).ok_or_else(|| bad(&"it is not there"))?;
        if size > MAX_JSON {
            return Err(bad(&"it is too large"));
        }
        let mut bytes = Vec::new();
        section(&self.path, offset, size)
            .and_then(|mut file| file.read_to_end(&mut bytes))
            .map_err(|error| bad(&error))?;
        Ok(bytes)
    }

    /// The digest of a file, and the suffix that its compression gives to a media type.
    pub(super) async fn examine(&self, name: &str) -> Result<(String, &'static str)> {
        let bad = |why: &dyn std::fmt::Display| RuntimeError::Other(format!("{name}: {why}"));
        let (offset, size) = self.place(name).ok_or_else(|| bad(&"it is not there"))?;
        let path = self.path.clone();
        let examined = tokio::task::spawn_blocking(move || examine(section(&path, offset, size)?)).await;
        examined.map_err(|error| bad(&error))?.map_err(|error| bad(&error))
    }

    fn place(&self, name: &str) -> Option<(u64, u64)> {
        let mut name = name;
        // As many links as the kernel would follow.
        for _ in 0..40 {
            match self.entries.get(name)? {
                Entry::File { offset, size } => return Some((*offset, *size)),
                Entry::Link(to) => name = to,
            }
        }
        None
    }
}

fn section(path: &Path, offset: u64, size: u64) -> io::Result<io::Take<File>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    Ok(file.take(size))
}

fn examine(mut from: impl Read) -> io::Result<(String, &'static str)> {
    let mut hash = Sha256::new();
    let mut head = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = from.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        if head.len() < 4 {
            head.extend_from_slice(&buffer[..count.min(4)]);
        }
        hash.update(&buffer[..count]);
    }
    let compression = match head.as_slice() {
        [0x1f, 0x8b, ..] => "+gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "+zstd",
        _ => "",
    };
    Ok((format!("sha256:{:x}", hash.finalize()), compression))
}

/// A path in an archive without `.` and `..`.
fn plain(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop();
            }
            _ => {}
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(folder: &Path) -> PathBuf {
        let path = folder.join("a.tar");
        let mut tar = tar::Builder::new(File::create(&path).unwrap());
        let mut file = |name: &str, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, bytes).unwrap();
        };
        file("./index.json", b"{\"a\":1}");
        file("one/layer.tar", b"\x1f\x8brest");
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        tar.append_link(&mut link, "two/layer.tar", "../one/layer.tar").unwrap();
        tar.append_link(&mut link, "loop", "loop").unwrap();
        tar.finish().unwrap();
        path
    }

    #[tokio::test]
    async fn entries_are_found_by_name_and_through_links() {
        let folder = tempfile::tempdir().unwrap();
        let archive = Archive::read(&archive(folder.path())).unwrap();
        assert!(archive.has("index.json") && !archive.has("loop") && !archive.has("nothing"));
        let json: BTreeMap<String, u8> = archive.json("index.json").unwrap();
        assert_eq!(json["a"], 1);
        let (digest, compression) = archive.examine("two/layer.tar").await.unwrap();
        assert_eq!(compression, "+gzip");
        assert_eq!(digest, format!("sha256:{:x}", Sha256::digest(b"\x1f\x8brest")));
        assert_eq!(archive.source("two/layer.tar").unwrap().size(), 6);
        assert_eq!(archive.bytes("nothing").unwrap_err().to_string(), "nothing: it is not there");
    }

    #[test]
    fn what_is_no_tar_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, vec![b'x'; 2000]).unwrap();
        assert!(Archive::read(&path).is_err());
    }
}
