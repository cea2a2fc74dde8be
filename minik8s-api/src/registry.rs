//! Finding a kind by path, by type or by what a user calls it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kind::Kind;
use crate::object::Resource;

/// The kinds that a server knows. Cheap to clone; a clone is a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// By (group, version, plural).
    kinds: BTreeMap<(String, String, String), Arc<Kind>>,
}

impl Registry {
    /// No kinds at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Adds a kind, replacing one of the same group, version and plural.
    pub fn register(&mut self, kind: Kind) -> Arc<Kind> {
        let kind = Arc::new(kind);
        self.insert(kind.clone());
        kind
    }

    /// Adds a kind that others share, replacing one of the same group, version and plural.
    pub fn insert(&mut self, kind: Arc<Kind>) {
        let key = (kind.group.to_string(), kind.version.to_string(), kind.plural.to_string());
        self.kinds.insert(key, kind);
    }

    /// The kind that has the group, version and plural of `kind` in this registry, which may be a newer one.
    pub fn same(&self, kind: &Kind) -> Option<&Arc<Kind>> {
        self.by_path(&kind.group, &kind.version, &kind.plural)
    }

    /// Takes a kind out.
    pub fn remove(&mut self, group: &str, version: &str, plural: &str) -> Option<Arc<Kind>> {
        self.kinds.remove(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The kind at `/apis/GROUP/VERSION/PLURAL`; the core group is empty.
    pub fn by_path(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Kind>> {
        // A borrowed tuple of &str is no key of a map of Strings; the kinds of a server are a few dozen.
        self.kinds.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    /// The kind that a manifest names by `apiVersion` and `kind`.
    pub fn by_kind(&self, api_version: &str, kind: &str) -> Option<&Arc<Kind>> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        self.kinds.values().find(|k| k.group == group && k.version == version && k.kind == kind)
    }

    /// The kind of the Rust type `K`.
    pub fn of<K: Resource>(&self) -> Option<&Arc<Kind>> {
        self.by_path(&K::group(&()), &K::version(&()), &K::plural(&()))
    }

    /// The kind a user means by `word`: plural, singular, kind or short name, alone or with `.GROUP` or
    /// `.VERSION.GROUP` behind it.
    pub fn find(&self, word: &str) -> Option<&Arc<Kind>> {
        let word = word.to_lowercase();
        let (name, rest) = word.split_once('.').unwrap_or((&word, ""));
        self.kinds.values().find(|k| {
            let named = k.plural == name || k.singular == name || k.short_names.iter().any(|s| s == name);
            let grouped = rest.is_empty() || k.group == rest || format!("{}.{}", k.version, k.group) == rest;
            named && grouped
        })
    }

    /// The kinds as they are stored: each object belongs to one of these, in however many versions it is served. Of a
    /// kind whose stored version is not served, any version will do.
    pub fn stored(&self) -> impl Iterator<Item = &Arc<Kind>> {
        let mut by_resource: BTreeMap<Cow<'_, str>, &Arc<Kind>> = BTreeMap::new();
        for kind in self.kinds.values().filter(|k| k.stored) {
            let place = by_resource.entry(kind.stored_resource()).or_insert(kind);
            if kind.is_stored_form() {
                *place = kind;
            }
        }
        by_resource.into_values()
    }

    /// Whether two registries hold the very same kinds.
    pub fn is_same(&self, other: &Self) -> bool {
        self.kinds.len() == other.kinds.len()
            && self.kinds.values().zip(other.kinds.values()).all(|(a, b)| Arc::ptr_eq(a, b))
    }

    /// All kinds, ordered by group, version and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Kind>> {
        self.kinds.values()
    }
}
