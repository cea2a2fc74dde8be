//! Local copies of the server's objects, kept up to date by watching.
//!
//! One informer serves everyone in a process who reads a kind. Values are shared, ordered and indexed; whoever wants
//! to hear of changes holds a set of dirty keys, which cannot overflow and never makes the informer wait.

mod informer;

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, RwLock};

use minik8s_api::Resource;
use minik8s_api::selector::Selector;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::key::Key;
use crate::queue::Priority;

/// Gives the values under which an object is found in an index.
pub type IndexFn<K> = fn(&K) -> Vec<String>;

type Mapper<K> = Box<dyn Fn(&K, &mut dyn FnMut(Key)) + Send + Sync>;

/// A copy of all objects of one type. Cheap to clone; clones are the same cache.
pub struct Cache<K>(Arc<Shared<K>>);

struct Shared<K> {
    state: RwLock<State<K>>,
    /// Apart from the state, since mappers may read the cache.
    listeners: RwLock<Vec<(Mapper<K>, Arc<Dirty>)>>,
    /// Wakes those who wait for a revision.
    moved: Notify,
}

struct State<K> {
    objects: BTreeMap<Key, Arc<K>>,
    indexes: BTreeMap<&'static str, Index<K>>,
    /// What the cache shows; 0 before the first list.
    revision: u64,
}

struct Index<K> {
    of: IndexFn<K>,
    keys: BTreeMap<String, BTreeSet<Key>>,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K: Resource> fmt::Debug for Cache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.state.read().expect("no writer panics");
        write!(f, "Cache<{}>({} at {})", K::kind(&()), state.objects.len(), state.revision)
    }
}

impl<K: Resource> Cache<K> {
    fn new() -> Self {
        let state = State { objects: BTreeMap::new(), indexes: BTreeMap::new(), revision: 0 };
        Self(Arc::new(Shared {
            state: RwLock::new(state),
            listeners: RwLock::default(),
            moved: Notify::new(),
        }))
    }

    fn read<T>(&self, f: impl FnOnce(&State<K>) -> T) -> T {
        f(&self.0.state.read().expect("no writer panics"))
    }

    fn write<T>(&self, f: impl FnOnce(&mut State<K>) -> T) -> T {
        f(&mut self.0.state.write().expect("no writer panics"))
    }

    /// The object of that key.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.read(|s| s.objects.get(key).cloned())
    }

    /// All objects, by namespace and name.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.read(|s| s.objects.values().cloned().collect())
    }

    /// The objects of one namespace, by name.
    pub fn list_in(&self, namespace: &str) -> Vec<Arc<K>> {
        self.read(|s| {
            let in_namespace = s.objects.range(Key::new(namespace, "")..);
            in_namespace.take_while(|(k, _)| k.namespace() == namespace).map(|(_, o)| o.clone()).collect()
        })
    }

    /// The objects of one namespace that have the labels, by name.
    pub fn select_in(&self, namespace: &str, selector: &Selector) -> Vec<Arc<K>> {
        let empty = BTreeMap::new();
        let mut found = self.list_in(namespace);
        found.retain(|o| selector.matches(o.meta().labels.as_ref().unwrap_or(&empty)));
        found
    }

    /// Adds an index; one of that name that exists already stays.
    pub fn index(&self, name: &'static str, of: IndexFn<K>) {
        self.write(|s| {
            let State { indexes, objects, .. } = s;
            indexes.entry(name).or_insert_with(|| {
                let mut index = Index { of, keys: BTreeMap::new() };
                objects.iter().for_each(|(key, object)| index.insert(key, object));
                index
            });
        });
    }

    /// The objects that the index `name` has under `value`, by namespace and name.
    ///
    /// # Panics
    /// There is no such index.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<K>> {
        self.read(|s| {
            let index = s.indexes.get(name).unwrap_or_else(|| panic!("no index {name} of {}", K::kind(&())));
            let keys = index.keys.get(value).into_iter().flatten();
            keys.filter_map(|key| s.objects.get(key).cloned()).collect()
        })
    }

    /// The revision that the cache shows; 0 before the first list has come.
    pub fn revision(&self) -> u64 {
        self.read(|s| s.revision)
    }

    /// Waits until the cache shows `revision` or a later one. With 1: until it has been filled.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn wait_for(&self, revision: u64) {
        loop {
            let mut moved = std::pin::pin!(self.0.moved.notified());
            moved.as_mut().enable();
            if self.revision() >= revision {
                return;
            }
            moved.await;
        }
    }

    /// Puts the keys that `map` gives for a changed object into `dirty`, from now on; those of all objects that are
    /// here already, at once.
    pub(crate) fn listen(
        &self,
        map: impl Fn(&K, &mut dyn FnMut(Key)) + Send + Sync + 'static,
        dirty: Arc<Dirty>,
    ) {
        let mut listeners = self.0.listeners.write().expect("no writer panics");
        listeners.push((Box::new(map), dirty));
        drop(listeners);
        // What changes from here on is told to the new listener; what is here already, now.
        let listeners = self.0.listeners.read().expect("no writer panics");
        let (map, dirty) = listeners.last().expect("pushed above");
        for object in self.list() {
            map(&object, &mut |key| dirty.insert(key, Priority::Resync));
        }
    }

    /// Makes a change, then tells the listeners and those who wait.
    fn change(&self, f: impl FnOnce(&mut State<K>, &mut Vec<(Arc<K>, Priority)>)) {
        let mut touched = Vec::new();
        self.write(|s| f(s, &mut touched));
        for (map, dirty) in self.0.listeners.read().expect("no writer panics").iter() {
            for (object, priority) in &touched {
                map(object, &mut |key| dirty.insert(key, *priority));
            }
        }
        self.0.moved.notify_waiters();
    }

    /// Takes over a whole list.
    fn replace(&self, objects: Vec<Arc<K>>, revision: u64) {
        self.change(|s, touched| {
            let new: BTreeMap<Key, Arc<K>> = objects.into_iter().map(|o| (Key::of(&*o), o)).collect();
            let gone: Vec<Key> = s.objects.keys().filter(|k| !new.contains_key(k)).cloned().collect();
            let priority = if s.revision == 0 { Priority::Resync } else { Priority::Change };
            for key in gone {
                touched.extend(s.remove(&key).map(|old| (old, Priority::Change)));
            }
            for (key, object) in new {
                let version = &object.meta().resource_version;
                if s.objects.get(&key).is_none_or(|old| old.meta().resource_version != *version) {
                    touched.push((object.clone(), priority));
                    touched.extend(s.insert(key, object).map(|old| (old, priority)));
                }
            }
            s.revision = s.revision.max(revision).max(1);
        });
    }

    fn apply(&self, object: Arc<K>, revision: u64) {
        self.change(|s, touched| {
            touched.push((object.clone(), Priority::Change));
            touched.extend(s.insert(Key::of(&*object), object).map(|old| (old, Priority::Change)));
            s.revision = s.revision.max(revision);
        });
    }

    fn delete(&self, object: &K, revision: u64) {
        self.change(|s, touched| {
            touched.extend(s.remove(&Key::of(object)).map(|old| (old, Priority::Change)));
            s.revision = s.revision.max(revision);
        });
    }

    fn progress(&self, revision: u64) {
        self.change(|s, _| s.revision = s.revision.max(revision));
    }
}

impl<K: Resource> State<K> {
    fn insert(&mut self, key: Key, object: Arc<K>) -> Option<Arc<K>> {
        let old = self.objects.insert(key.clone(), object.clone());
        for index in self.indexes.values_mut() {
            if let Some(old) = &old {
                index.remove(&key, old);
            }
            index.insert(&key, &object);
        }
        old
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let old = self.objects.remove(key)?;
        for index in self.indexes.values_mut() {
            index.remove(key, &old);
        }
        Some(old)
    }
}

impl<K> Index<K> {
    fn insert(&mut self, key: &Key, object: &K) {
        for value in (self.of)(object) {
            self.keys.entry(value).or_default().insert(key.clone());
        }
    }

    fn remove(&mut self, key: &Key, object: &K) {
        for value in (self.of)(object) {
            if let Some(keys) = self.keys.get_mut(&value) {
                keys.remove(key);
                if keys.is_empty() {
                    self.keys.remove(&value);
                }
            }
        }
    }
}

/// Keys that somebody has to look at again.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    keys: Mutex<BTreeMap<Key, Priority>>,
    added: Notify,
}

impl Dirty {
    pub(crate) fn insert(&self, key: Key, priority: Priority) {
        let mut keys = self.keys.lock().expect("no writer panics");
        let known = keys.entry(key).or_insert(priority);
        *known = priority.max(*known);
        drop(keys);
        // A permit is kept if nobody waits just now.
        self.added.notify_one();
    }

    pub(crate) fn take(&self) -> BTreeMap<Key, Priority> {
        std::mem::take(&mut *self.keys.lock().expect("no writer panics"))
    }

    /// Waits for a key. There is one waiter at most.
    pub(crate) async fn added(&self) {
        self.added.notified().await;
    }
}

/// The caches of one process, each made and started when first asked for. Cheap to clone.
#[derive(Clone)]
pub struct Caches {
    client: Client,
    all: Arc<Mutex<BTreeMap<TypeId, Entry>>>,
    /// Ends all informers.
    stop: CancellationToken,
}

struct Entry {
    kind: String,
    cache: Box<dyn Any + Send + Sync>,
    waiter: Arc<dyn WaitFor>,
}

/// A cache whose type is not known.
#[async_trait::async_trait]
pub(crate) trait WaitFor: Send + Sync {
    async fn wait_for(&self, revision: u64);
}

#[async_trait::async_trait]
impl<K: Resource> WaitFor for Cache<K> {
    async fn wait_for(&self, revision: u64) {
        Cache::wait_for(self, revision).await;
    }
}

impl fmt::Debug for Caches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Caches({})", self.all.lock().expect("no writer panics").len())
    }
}

impl Caches {
    /// Caches of what `client` sees, until `stop`.
    pub fn new(client: Client, stop: CancellationToken) -> Self {
        Self { client, all: Arc::default(), stop }
    }

    /// The cache of all `K`s. The first call starts filling it: see [`Cache::wait_for`].
    ///
    /// # Panics
    /// The server does not know `K`; or not in a tokio runtime.
    pub fn of<K: Resource>(&self) -> Cache<K> {
        let mut all = self.all.lock().expect("no writer panics");
        let entry = all.entry(TypeId::of::<K>()).or_insert_with(|| {
            let cache = Cache::<K>::new();
            let api = self.client.all::<K>();
            tokio::spawn(informer::run(api, cache.clone(), self.stop.clone()));
            let registry = self.client.registry();
            let kind = registry.of::<K>().expect("`all` would have panicked").qualified();
            Entry { kind, waiter: Arc::new(cache.clone()), cache: Box::new(cache) }
        });
        entry.cache.downcast_ref::<Cache<K>>().expect("keyed by type").clone()
    }

    /// Waits until every cache has been filled.
    pub async fn synced(&self) {
        let waiters: Vec<_> = self.waiters(|_| Some(1));
        for (waiter, revision) in waiters {
            waiter.wait_for(revision).await;
        }
    }

    /// Waits until the caches show the given revisions of their kinds.
    pub(crate) async fn show(&self, revisions: &BTreeMap<String, u64>) {
        for (waiter, revision) in self.waiters(|kind| revisions.get(kind).copied()) {
            waiter.wait_for(revision).await;
        }
    }

    fn waiters(&self, of: impl Fn(&str) -> Option<u64>) -> Vec<(Arc<dyn WaitFor>, u64)> {
        let all = self.all.lock().expect("no writer panics");
        all.values().filter_map(|e| Some((e.waiter.clone(), of(&e.kind)?))).collect()
    }
}

#[cfg(test)]
mod tests;
