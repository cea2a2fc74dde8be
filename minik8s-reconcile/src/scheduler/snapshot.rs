//! Nodes and the pods on them, kept up to date change by change: the world that decisions are made in.
//!
//! Nodes have numbers, and what is counted is counted per node in plain arrays, so that the cost of a decision does not
//! grow with the pods that are there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Taint};

use super::demand::{Demand, HostPort, Term};
use super::pod_set::{Labels, PodSet};
use super::resources::Amounts;
use crate::key::Key;
use crate::placement::is_over;

/// Sets of pods that are counted although no decision has asked for them lately.
const TALLIES: usize = 512;

static NO_LABELS: Labels = Labels::new();

/// A node, and what the pods on it take.
#[derive(Clone, Debug)]
pub struct NodeInfo {
    index: usize,
    name: String,
    /// `None` while only pods on it are known.
    node: Option<Arc<Node>>,
    /// What it has to give.
    pub allocatable: Amounts,
    /// What the pods on it take.
    pub requested: Amounts,
    /// CPU and memory of the pods on it, as scores count them.
    pub weighed: [i64; 2],
    /// The pods on it.
    pub pods: BTreeMap<Key, Arc<Demand>>,
    /// Ports of the node that are taken.
    pub host_ports: Vec<HostPort>,
    /// Bytes of the images that it has, by name.
    pub images: BTreeMap<String, i64>,
}

impl NodeInfo {
    fn blank(index: usize, name: &str) -> Self {
        Self {
            index,
            name: name.to_owned(),
            node: None,
            allocatable: Amounts::default(),
            requested: Amounts::default(),
            weighed: [0; 2],
            pods: BTreeMap::new(),
            host_ports: Vec::new(),
            images: BTreeMap::new(),
        }
    }

    /// `node` with those of `pods` that still use it, outside any snapshot.
    pub fn new(node: Arc<Node>, pods: impl IntoIterator<Item = Arc<Pod>>) -> Self {
        let mut info = Self::blank(0, node.metadata.name.as_deref().unwrap_or_default());
        info.set(node);
        for pod in pods.into_iter().filter(|pod| !is_over(pod)) {
            info.add(&Arc::new(Demand::of(pod)));
        }
        info
    }

    fn set(&mut self, node: Arc<Node>) {
        let status = node.status.as_ref();
        let allocatable = status.and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        self.allocatable = allocatable.map(Amounts::of_list).unwrap_or_default();
        let images = status.iter().flat_map(|s| s.images.iter().flatten());
        self.images = images
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or(0);
                image.names.iter().flatten().map(move |name| (name.clone(), size))
            })
            .collect();
        self.node = Some(node);
    }

    fn add(&mut self, demand: &Arc<Demand>) {
        self.requested.add(&demand.requests);
        for (sum, own) in self.weighed.iter_mut().zip(demand.weighed) {
            *sum = sum.saturating_add(own);
        }
        self.host_ports.extend(demand.host_ports.iter().cloned());
        self.pods.insert(demand.key().clone(), demand.clone());
    }

    fn remove(&mut self, key: &Key) -> Option<Arc<Demand>> {
        let demand = self.pods.remove(key)?;
        self.requested.subtract(&demand.requests);
        for (sum, own) in self.weighed.iter_mut().zip(demand.weighed) {
            *sum = sum.saturating_sub(own);
        }
        for port in &demand.host_ports {
            if let Some(at) = self.host_ports.iter().position(|p| p == port) {
                self.host_ports.swap_remove(at);
            }
        }
        Some(demand)
    }

    /// Its number in the snapshot.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node's labels.
    pub fn labels(&self) -> &Labels {
        self.node.as_ref().and_then(|n| n.metadata.labels.as_ref()).unwrap_or(&NO_LABELS)
    }

    /// The node's taints.
    pub fn taints(&self) -> &[Taint] {
        self.node.as_ref().and_then(|n| n.spec.as_ref()?.taints.as_deref()).unwrap_or_default()
    }

    /// Whether nothing new is to come here.
    pub fn is_cordoned(&self) -> bool {
        self.node.as_ref().and_then(|n| n.spec.as_ref()?.unschedulable).unwrap_or(false)
    }

    /// Whether pods may be given to it: it is there, and not being deleted.
    pub fn exists(&self) -> bool {
        self.node.as_ref().is_some_and(|n| n.metadata.deletion_timestamp.is_none())
    }
}

/// How many pods of a set are on each node, and in each domain of the topologies that have been asked for.
#[derive(Clone, Debug)]
pub struct Tally {
    there: Vec<u32>,
    /// Of those, the ones that are being deleted.
    leaving: Vec<u32>,
    /// By label.
    sums: BTreeMap<String, Sums>,
    used: u64,
}

/// How many pods of a set are in each domain of a topology.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// All of them.
    pub there: Vec<i64>,
    /// Those that are not being deleted.
    pub staying: Vec<i64>,
}

impl Sums {
    fn add(&mut self, domain: usize, there: i64, staying: i64) {
        add(&mut self.there, domain, there);
        add(&mut self.staying, domain, staying);
    }
}

fn add(sums: &mut Vec<i64>, at: usize, amount: i64) {
    if sums.len() <= at {
        sums.resize(at + 1, 0);
    }
    sums[at] += amount;
}

impl Tally {
    /// How many are on the node of that number.
    pub fn on(&self, node: usize) -> i64 {
        self.there.get(node).copied().unwrap_or(0).into()
    }

    /// How many are on it that stay.
    pub fn staying_on(&self, node: usize) -> i64 {
        self.on(node) - i64::from(self.leaving.get(node).copied().unwrap_or(0))
    }

    /// How many are in each domain of the label `key`, on nodes that pods may be given to. Domains at the end may be missing.
    ///
    /// # Panics
    /// Nobody has called [`Snapshot::prepare`] for a pod that has to do with it.
    pub fn sums(&self, key: &str) -> &Sums {
        &self.sums[key]
    }

    fn count(&mut self, demand: &Demand, node: usize, more: bool, topologies: &BTreeMap<String, Topology>) {
        step(&mut self.there, node, more);
        if demand.is_leaving() {
            step(&mut self.leaving, node, more);
        }
        let one = if more { 1 } else { -1 };
        for (key, sums) in &mut self.sums {
            if let Some(domain) = topologies[key].domain(node) {
                sums.add(domain, one, if demand.is_leaving() { 0 } else { one });
            }
        }
    }

    /// A node has moved from one domain to another.
    fn moved(&mut self, key: &str, node: usize, from: Option<usize>, to: Option<usize>) {
        let (there, staying) = (self.on(node), self.staying_on(node));
        if let Some(sums) = self.sums.get_mut(key) {
            from.into_iter().for_each(|domain| sums.add(domain, -there, -staying));
            to.into_iter().for_each(|domain| sums.add(domain, there, staying));
        }
    }

    /// Keeps sums for the label `key` too.
    fn sum_up(&mut self, key: &str, topology: &Topology) {
        if self.sums.contains_key(key) {
            return;
        }
        let mut sums = Sums::default();
        for node in 0..self.there.len() {
            if let Some(domain) = topology.domain(node) {
                sums.add(domain, self.on(node), self.staying_on(node));
            }
        }
        self.sums.insert(key.to_owned(), sums);
    }
}

fn step(counts: &mut Vec<u32>, node: usize, more: bool) {
    if counts.len() <= node {
        counts.resize(node + 1, 0);
    }
    counts[node] = if more { counts[node].saturating_add(1) } else { counts[node].saturating_sub(1) };
}

/// Pods that have a term, and thereby a say in where the pods of its set go.
#[derive(Clone, Debug, Default)]
pub struct Carriers {
    against: Vec<u32>,
    wish: Vec<i64>,
    /// How many in each domain of the term's topology must not have pods of the set near them. Domains at the end may be
    /// missing.
    pub against_in: Vec<i64>,
    /// How much those in each domain would rather have them near.
    pub wish_in: Vec<i64>,
    count: usize,
}

impl Carriers {
    fn moved(&mut self, node: usize, from: Option<usize>, to: Option<usize>) {
        let against: i64 = self.against.get(node).copied().unwrap_or(0).into();
        let wish = self.wish.get(node).copied().unwrap_or(0);
        for (domain, sign) in from.into_iter().map(|d| (d, -1)).chain(to.into_iter().map(|d| (d, 1))) {
            if against != 0 {
                add(&mut self.against_in, domain, sign * against);
            }
            if wish != 0 {
                add(&mut self.wish_in, domain, sign * wish);
            }
        }
    }
}

/// Which nodes have the same value of a label. Only nodes that pods may be given to are in a domain.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    numbers: BTreeMap<String, usize>,
    of_node: Vec<Option<usize>>,
    /// How many nodes are in each domain, and in all of them.
    sizes: Vec<usize>,
    labelled: usize,
}

impl Topology {
    /// The number of the domain of that node; `None` if it does not have the label.
    pub fn domain(&self, node: usize) -> Option<usize> {
        self.of_node.get(node).copied().flatten()
    }

    /// One more than the highest number of a domain.
    pub fn domains(&self) -> usize {
        self.numbers.len()
    }

    /// How many nodes are in each domain.
    pub fn sizes(&self) -> &[usize] {
        &self.sizes
    }

    /// How many nodes are in some domain.
    pub fn labelled(&self) -> usize {
        self.labelled
    }

    /// Sets the value that a node has; says in which domain it was, and is.
    fn set(&mut self, node: usize, value: Option<&String>) -> (Option<usize>, Option<usize>) {
        if self.of_node.len() <= node {
            self.of_node.resize(node + 1, None);
        }
        let domain = value.map(|value| {
            let next = self.numbers.len();
            *self.numbers.entry(value.clone()).or_insert(next)
        });
        self.sizes.resize(self.numbers.len(), 0);
        let before = std::mem::replace(&mut self.of_node[node], domain);
        if let Some(before) = before {
            self.sizes[before] -= 1;
            self.labelled -= 1;
        }
        if let Some(domain) = domain {
            self.sizes[domain] += 1;
            self.labelled += 1;
        }
        (before, domain)
    }
}

/// The nodes and the pods on them.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    /// Apart from the nodes: all of them are looked at for each decision. 0 for a number that no node has.
    generations: Vec<u64>,
    by_name: BTreeMap<String, usize>,
    free: Vec<usize>,
    /// Where each pod is.
    places: BTreeMap<Key, usize>,
    namespaces: BTreeMap<String, Labels>,
    tallies: BTreeMap<PodSet, Tally>,
    carriers: BTreeMap<Term, Carriers>,
    topologies: BTreeMap<String, Topology>,
    /// How many nodes pods may be given to.
    existing: usize,
    /// How many nodes have an image.
    images: BTreeMap<String, usize>,
    images_generation: u64,
    /// Pods that room is being made for, and where.
    nominated: BTreeMap<Key, (usize, Arc<Demand>)>,
    clock: u64,
}

impl Snapshot {
    /// All nodes that pods may be given to, by number.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        self.nodes.iter().filter(|n| n.exists())
    }

    /// How many nodes pods may be given to.
    pub fn len(&self) -> usize {
        self.existing
    }

    /// Whether there is no such node.
    pub fn is_empty(&self) -> bool {
        self.existing == 0
    }

    /// The node of that number.
    ///
    /// # Panics
    /// There has never been one.
    pub fn node(&self, index: usize) -> &NodeInfo {
        &self.nodes[index]
    }

    /// The node of that name.
    pub fn find(&self, name: &str) -> Option<&NodeInfo> {
        self.by_name.get(name).map(|&index| &self.nodes[index])
    }

    /// Changes with everything about the node or on it; 0 if there is none.
    pub(super) fn generations(&self) -> &[u64] {
        &self.generations
    }

    /// Changes when a node has other images than before, and when there are more nodes or fewer.
    pub(super) fn images_generation(&self) -> u64 {
        self.images_generation
    }

    /// How many nodes have the image.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or(0)
    }

    /// Where the pod is, and what is known of it.
    pub fn place(&self, key: &Key) -> Option<(&NodeInfo, &Arc<Demand>)> {
        let node = &self.nodes[*self.places.get(key)?];
        Some((node, node.pods.get(key)?))
    }

    /// The labels of a namespace.
    pub fn namespace(&self, name: &str) -> &Labels {
        self.namespaces.get(name).unwrap_or(&NO_LABELS)
    }

    /// How many pods of `set` are where.
    ///
    /// # Panics
    /// Nobody has called [`Self::prepare`] for a pod that has to do with it.
    pub fn tally(&self, set: &PodSet) -> &Tally {
        &self.tallies[set]
    }

    /// Which nodes have the same value of the label `key`.
    ///
    /// # Panics
    /// As [`Self::tally`].
    pub fn topology(&self, key: &str) -> &Topology {
        &self.topologies[key]
    }

    /// Pods on nodes with terms that mean `demand`'s pod.
    pub fn carriers(&self, demand: &Demand) -> impl Iterator<Item = (&Term, &Carriers)> {
        self.carriers.iter().filter(|(term, _)| self.is_member(&term.set, demand))
    }

    /// Whether the pod is one of `set`.
    pub fn is_member(&self, set: &PodSet, demand: &Demand) -> bool {
        let namespace = demand.key().namespace();
        set.contains(namespace, self.namespace(namespace), demand.labels())
    }

    /// Pods that room is being made for, by node number.
    pub fn nominated(&self) -> impl Iterator<Item = (usize, &Arc<Demand>)> {
        self.nominated.values().map(|(node, demand)| (*node, demand))
    }

    /// The node that the pod is nominated to.
    pub fn nomination(&self, key: &Key) -> Option<usize> {
        self.nominated.get(key).map(|(node, _)| *node)
    }

    /// Room is being made for the pod on the node of that name, or no longer.
    pub fn nominate(&mut self, demand: &Arc<Demand>, node: Option<&str>) {
        match node.and_then(|name| self.by_name.get(name)) {
            Some(&node) => drop(self.nominated.insert(demand.key().clone(), (node, demand.clone()))),
            None => drop(self.nominated.remove(demand.key())),
        }
    }

    /// The pod is gone, or has a node.
    pub fn forget_nomination(&mut self, key: &Key) {
        self.nominated.remove(key);
    }

    /// A namespace has these labels now. Whether they are other ones than before.
    pub fn set_namespace(&mut self, name: &str, labels: Option<&Labels>) -> bool {
        let labels = labels.cloned().unwrap_or_default();
        let changed = *self.namespace(name) != labels;
        self.namespaces.insert(name.to_owned(), labels);
        if changed {
            // Whose members the pods there are may have changed.
            let sets: Vec<PodSet> = self.tallies.keys().cloned().collect();
            for set in sets {
                self.recount(set);
            }
        }
        changed
    }

    /// A namespace is gone.
    pub fn remove_namespace(&mut self, name: &str) {
        self.set_namespace(name, None);
        self.namespaces.remove(name);
    }

    /// A node is as `node` says.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let index = self.index_of(node.metadata.name.as_deref().unwrap_or_default());
        let labels = node.metadata.labels.as_ref().filter(|_| node.metadata.deletion_timestamp.is_none());
        self.set_domains(index, labels);
        let before = std::mem::take(&mut self.nodes[index].images);
        self.nodes[index].set(node);
        let after = self.nodes[index].images.clone();
        self.count_images(&before, &after);
        self.touch(index);
    }

    /// A node is gone. Pods on it stay until they go themselves.
    pub fn remove_node(&mut self, name: &str) {
        let Some(&index) = self.by_name.get(name) else { return };
        let before = std::mem::take(&mut self.nodes[index].images);
        self.count_images(&before, &BTreeMap::new());
        let node = &mut self.nodes[index];
        node.node = None;
        node.allocatable = Amounts::default();
        self.set_domains(index, None);
        self.nominated.retain(|_, (node, _)| *node != index);
        self.touch(index);
        self.reuse(index);
    }

    /// A node is in the domains that these labels say; in none, without labels.
    fn set_domains(&mut self, node: usize, labels: Option<&Labels>) {
        for (key, topology) in &mut self.topologies {
            let (from, to) = topology.set(node, labels.and_then(|labels| labels.get(key)));
            if from == to {
                continue;
            }
            self.tallies.values_mut().for_each(|tally| tally.moved(key, node, from, to));
            let carriers = self.carriers.iter_mut().filter(|(term, _)| term.topology_key == *key);
            carriers.for_each(|(_, carriers)| carriers.moved(node, from, to));
        }
    }

    /// A pod is on the node of that name. One that was elsewhere is moved.
    pub fn put(&mut self, demand: &Arc<Demand>, node: &str) {
        self.remove(demand.key());
        let index = self.index_of(node);
        self.places.insert(demand.key().clone(), index);
        self.nodes[index].add(demand);
        self.count(demand, index, true);
        self.touch(index);
    }

    /// A pod takes nothing any more.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Demand>> {
        let index = self.places.remove(key)?;
        let demand = self.nodes[index].remove(key)?;
        self.count(&demand, index, false);
        self.touch(index);
        self.reuse(index);
        Some(demand)
    }

    /// Does `work` as if some pods were on a node or not there; afterwards everything is as before.
    pub(super) fn supposing<T>(
        &mut self,
        node: usize,
        without: &[Key],
        with: &[Arc<Demand>],
        work: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let generation = self.generations[node];
        let name = self.nodes[node].name.clone();
        let gone: Vec<Arc<Demand>> = without.iter().filter_map(|key| self.remove(key)).collect();
        let new: Vec<&Arc<Demand>> = with.iter().filter(|d| !self.places.contains_key(d.key())).collect();
        for demand in &new {
            self.put(demand, &name);
        }
        let answer = work(self);
        for demand in new {
            self.remove(demand.key());
        }
        for demand in gone {
            self.put(&demand, &name);
        }
        self.generations[node] = generation;
        answer
    }

    /// Sees to it that what decisions about the pod ask for is counted.
    pub fn prepare(&mut self, demand: &Demand) {
        self.clock += 1;
        let affinity = super::pod_affinity::all(demand);
        let sets = demand.terms().map(|term| &term.set).chain(&affinity);
        for set in sets {
            match self.tallies.get_mut(set) {
                Some(tally) => tally.used = self.clock,
                None => self.recount(set.clone()),
            }
        }
        for term in demand.terms() {
            self.know(&term.topology_key);
            let topology = &self.topologies[&term.topology_key];
            // A pod looks for those that meet all of its terms, too.
            for set in [Some(&term.set), affinity.as_ref()].into_iter().flatten() {
                self.tallies
                    .get_mut(set)
                    .into_iter()
                    .for_each(|tally| tally.sum_up(&term.topology_key, topology));
            }
        }
        if self.tallies.len() > TALLIES {
            let mut ages: Vec<u64> = self.tallies.values().map(|t| t.used).collect();
            ages.sort_unstable();
            let old = ages[ages.len() / 2];
            let now = self.clock;
            self.tallies.retain(|_, tally| tally.used > old || tally.used == now);
        }
    }

    fn know(&mut self, key: &str) {
        if !self.topologies.contains_key(key) {
            let mut topology = Topology::default();
            for node in self.nodes() {
                topology.set(node.index, node.labels().get(key));
            }
            self.topologies.insert(key.to_owned(), topology);
        }
    }

    fn recount(&mut self, set: PodSet) {
        let sums = self.tallies.remove(&set).map(|tally| tally.sums).unwrap_or_default();
        let sums = sums.into_keys().map(|key| (key, Sums::default())).collect();
        let mut tally = Tally { there: Vec::new(), leaving: Vec::new(), sums, used: self.clock };
        for node in &self.nodes {
            for demand in node.pods.values().filter(|demand| self.is_member(&set, demand)) {
                tally.count(demand, node.index, true, &self.topologies);
            }
        }
        self.tallies.insert(set, tally);
    }

    fn count(&mut self, demand: &Demand, node: usize, more: bool) {
        let namespace = demand.key().namespace();
        let of_namespace = self.namespaces.get(namespace).unwrap_or(&NO_LABELS);
        for (set, tally) in &mut self.tallies {
            if set.contains(namespace, of_namespace, demand.labels()) {
                tally.count(demand, node, more, &self.topologies);
            }
        }
        let against = demand.anti_affinity.iter().map(|term| (term, true, 0));
        // Pods that must be near others are better near them, too: Kubernetes' hardPodAffinityWeight.
        let near = demand.affinity.iter().map(|term| (term, false, 1));
        let wishes = demand.preferred.iter().map(|(weight, term)| (term, false, *weight));
        for (term, against, wish) in against.chain(near).chain(wishes) {
            if more {
                self.know(&term.topology_key);
            }
            let domain = self.topologies[&term.topology_key].domain(node);
            let carriers = self.carriers.entry(term.clone()).or_default();
            let sign = if more { 1 } else { -1 };
            if against {
                step(&mut carriers.against, node, more);
                domain.into_iter().for_each(|domain| add(&mut carriers.against_in, domain, sign));
            } else {
                add(&mut carriers.wish, node, sign * wish);
                domain.into_iter().for_each(|domain| add(&mut carriers.wish_in, domain, sign * wish));
            }
            carriers.count = if more { carriers.count + 1 } else { carriers.count.saturating_sub(1) };
            if carriers.count == 0 {
                self.carriers.remove(term);
            }
        }
    }

    fn count_images(&mut self, before: &BTreeMap<String, i64>, after: &BTreeMap<String, i64>) {
        if before == after {
            return;
        }
        self.images_generation += 1;
        for name in after.keys() {
            *self.images.entry(name.clone()).or_default() += 1;
        }
        for name in before.keys() {
            if let Some(count) = self.images.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(name);
                }
            }
        }
    }

    fn index_of(&mut self, name: &str) -> usize {
        if let Some(&index) = self.by_name.get(name) {
            return index;
        }
        let index = self.free.pop().unwrap_or(self.nodes.len());
        let node = NodeInfo::blank(index, name);
        if index == self.nodes.len() {
            self.nodes.push(node);
            self.generations.push(0);
        } else {
            self.nodes[index] = node;
        }
        self.by_name.insert(name.to_owned(), index);
        index
    }

    fn touch(&mut self, index: usize) {
        self.clock += 1;
        let (was, is) = (self.generations[index] > 0, self.nodes[index].exists());
        self.generations[index] = if is { self.clock } else { 0 };
        if was != is {
            self.existing = if is { self.existing + 1 } else { self.existing - 1 };
            // What share of the nodes has an image is another one now.
            self.images_generation += 1;
        }
    }

    /// Gives the number of a node back of which nothing is left.
    fn reuse(&mut self, index: usize) {
        let node = &self.nodes[index];
        if node.node.is_none() && node.pods.is_empty() && self.by_name.remove(&node.name).is_some() {
            self.generations[index] = 0;
            self.free.push(index);
        }
    }

    /// Names of pods, for those who check that nothing is counted twice.
    pub fn pods(&self) -> BTreeSet<Key> {
        self.places.keys().cloned().collect()
    }
}
