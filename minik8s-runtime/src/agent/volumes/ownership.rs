//! Giving a volume to the pod's group.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

/// Whether the root of a volume belongs to the group already.
pub(super) fn is_given(path: &Path, gid: u32) -> io::Result<bool> {
    let meta = fs::metadata(path)?;
    Ok(meta.gid() == gid && meta.mode() & 0o2070 == 0o2070)
}

/// Makes everything below `path` belong to the group, which may read and write it; what is made in its directories
/// later belongs to it too. Symlinks are not followed.
pub(super) fn give(path: &Path, gid: u32) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    if meta.is_symlink() {
        return lchown(path, None, Some(gid));
    }
    if meta.gid() != gid {
        lchown(path, None, Some(gid))?;
    }
    let extra = if meta.is_dir() { 0o2770 } else { 0o660 };
    if meta.mode() & extra != extra && (meta.is_dir() || meta.is_file()) {
        fs::set_permissions(path, fs::Permissions::from_mode((meta.mode() | extra) & 0o7777))?;
    }
    if meta.is_dir() {
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), gid)?;
        }
    }
    Ok(())
}
