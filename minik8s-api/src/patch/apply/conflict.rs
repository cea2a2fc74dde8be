//! What stands against an apply.

use std::collections::BTreeMap;
use std::fmt;

use super::manager::{Entry, Operation};
use super::path::Path;

/// A field that is to be changed and that somebody else owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The owner, as Kubernetes words it: `"kubectl" using apps/v1 at 2024-05-06T07:08:09Z`.
    pub owner: String,
    /// The field.
    pub path: Path,
}

/// All fields that stand against an apply. `Display` gives Kubernetes' words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Conflicts(pub Vec<Conflict>);

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [Conflict { owner, path }] = self.0.as_slice() {
            return write!(f, "Apply failed with 1 conflict: conflict with {owner}: {path}");
        }
        write!(f, "Apply failed with {} conflicts: ", self.0.len())?;
        let mut owners: BTreeMap<&str, Vec<&Path>> = BTreeMap::new();
        for Conflict { owner, path } in &self.0 {
            owners.entry(owner).or_default().push(path);
        }
        let mut end = "";
        for (owner, paths) in owners {
            write!(f, "{end}conflicts with {owner}:")?;
            end = "\n";
            paths.iter().try_for_each(|path| write!(f, "\n- {path}"))?;
        }
        Ok(())
    }
}

/// An owner, as Kubernetes words it in conflicts.
pub(super) fn owner(entry: &Entry) -> String {
    let mut out = format!("{:?}", entry.manager);
    if !entry.subresource.is_empty() {
        out.push_str(&format!(" with subresource {:?}", entry.subresource));
    }
    if entry.operation == Operation::Update {
        out.push_str(&format!(" using {}", entry.api_version));
    }
    out
}
