//! Files that change all at once.
//!
//! The files live in a directory of their own, `..TIME`; `..data` is a symlink to it, and what the pod sees are
//! symlinks through `..data`. A change writes a new directory and renames a new `..data` over the old one, so that a
//! reader sees all of the old files or all of the new ones.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use super::payload::{File, Payload};

const DATA: &str = "..data";
const NEXT: &str = "..data_next";

/// Makes the directory hold just these files; whether anything had to be changed. `gid` may read them.
pub(super) fn write(dir: &Path, payload: &Payload, gid: Option<u32>) -> io::Result<bool> {
    let data = dir.join(DATA);
    let current = fs::read_link(&data).ok();
    if current.is_some() && holds(&data, payload, gid)? {
        link(dir, payload)?;
        return Ok(false);
    }
    let name = fresh_name(dir);
    let new = dir.join(&name);
    if let Err(e) = fill(&new, payload, gid) {
        // Half of it is of no use to anyone.
        let _ = fs::remove_dir_all(&new);
        return Err(e);
    }
    let next = dir.join(NEXT);
    remove_file(&next)?;
    symlink(&name, &next)?;
    fs::rename(&next, &data)?;
    link(dir, payload)?;
    sweep(dir, &name)?;
    Ok(true)
}

/// Whether the files are there as they should be, and no others.
fn holds(data: &Path, payload: &Payload, gid: Option<u32>) -> io::Result<bool> {
    let mut found = BTreeSet::new();
    list(data, Path::new(""), &mut found)?;
    if !found.iter().map(String::as_str).eq(payload.keys().map(String::as_str)) {
        return Ok(false);
    }
    for (path, file) in payload {
        let path = data.join(path);
        let meta = fs::metadata(&path)?;
        if meta.mode() & 0o777 != mode(file, gid)
            || gid.is_some_and(|gid| meta.gid() != gid)
            || meta.uid() != file.user.unwrap_or(meta.uid())
            || fs::read(&path)? != file.data
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn list(root: &Path, below: &Path, found: &mut BTreeSet<String>) -> io::Result<()> {
    let entries = match fs::read_dir(root.join(below)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = below.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            list(root, &path, found)?;
        } else {
            found.insert(path.to_string_lossy().into_owned());
        }
    }
    Ok(())
}

fn fill(dir: &Path, payload: &Payload, gid: Option<u32>) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o755).create(dir)?;
    for (path, file) in payload {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        io::Write::write_all(&mut out, &file.data)?;
        if gid.is_some() || file.user.is_some() {
            chown(&path, file.user, gid)?;
        }
        // Last: changing the owner takes bits away.
        fs::set_permissions(&path, fs::Permissions::from_mode(mode(file, gid)))?;
    }
    Ok(())
}

/// The group can always read.
fn mode(file: &File, gid: Option<u32>) -> u32 {
    if gid.is_some() { file.mode | 0o440 } else { file.mode }
}

/// The links that the pod sees: one for each first component of a path.
fn link(dir: &Path, payload: &Payload) -> io::Result<()> {
    let wanted: BTreeSet<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    for name in &wanted {
        let (link, target) = (dir.join(name), PathBuf::from(DATA).join(name));
        if fs::read_link(&link).is_ok_and(|t| t == target) {
            continue;
        }
        remove_file(&link)?;
        symlink(target, link)?;
    }
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(name.as_ref()) && entry.file_type()?.is_symlink() {
            remove_file(&entry.path())?;
        }
    }
    Ok(())
}

/// Removes the directories of earlier versions, and of one that a crash left half written.
fn sweep(dir: &Path, keep: &str) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("..") && name != keep && entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

fn fresh_name(dir: &Path) -> String {
    let stamp = jiff::Timestamp::now().strftime("..%Y_%m_%d_%H_%M_%S").to_string();
    let taken = |name: &String| !dir.join(name).exists();
    (0u32..).map(|n| format!("{stamp}.{n:09}")).find(taken).expect("numbers do not run out")
}

fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}
