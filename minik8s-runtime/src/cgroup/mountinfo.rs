//! Which control groups a node has, from its table of mounts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Layout;

/// The layout that `/proc/self/mountinfo` describes. A node with both kinds (hybrid) counts as legacy, since there the
/// controllers are in the legacy hierarchies.
pub(super) fn layout(mountinfo: &str) -> Option<Layout> {
    let mut unified = None;
    let mut roots: Vec<PathBuf> = Vec::new();
    let mut controllers = BTreeMap::new();
    for line in mountinfo.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else {
            continue;
        };
        let Some(point) = mount.split(' ').nth(4).map(unescape) else {
            continue;
        };
        let mut filesystem = filesystem.split(' ');
        match filesystem.next() {
            Some("cgroup2") => {
                unified.get_or_insert(point);
            }
            Some("cgroup") => {
                let options = filesystem.nth(1).unwrap_or_default();
                let names: Vec<&str> = options
                    .split(',')
                    .filter(|option| KNOWN.contains(option) || option.starts_with("name="))
                    .collect();
                // The same hierarchy mounted twice is one: the first place counts, as for runc.
                if names.is_empty() || names.iter().any(|name| controllers.contains_key(*name)) {
                    continue;
                }
                controllers.extend(names.into_iter().map(|name| (name.to_owned(), roots.len())));
                roots.push(point);
            }
            _ => {}
        }
    }
    if roots.is_empty() {
        return unified.map(Layout::Unified);
    }
    // It has no controllers to limit with, but runc makes groups in it all the same.
    roots.extend(unified);
    Some(Layout::Legacy { roots, controllers })
}

/// The controllers of cgroup v1; other mount options, such as `rw`, stand beside them.
const KNOWN: [&str; 13] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
];

/// The table writes space, tab, newline and backslash as three octal digits.
fn unescape(path: &str) -> PathBuf {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('\\') {
        plain.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                plain.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    plain.push_str(rest);
    PathBuf::from(plain)
}
