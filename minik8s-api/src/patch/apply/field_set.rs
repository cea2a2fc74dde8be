//! A set of fields.

use std::cmp::Ordering;

use super::path::{Path, PathElement};

/// A set of paths, as a tree that shares their beginnings.
///
/// A path being in the set says nothing of the paths that begin with it: whoever owns a map's entries need not own the
/// map.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Ordered by element, each there once; none without a member in or below it.
    nodes: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) element: PathElement,
    /// Whether the path that ends here is in the set.
    pub(super) member: bool,
    /// What follows.
    pub(super) below: FieldSet,
}

impl FieldSet {
    /// No fields.
    pub const fn new() -> Self {
        Self { nodes: Vec::new() }
    }

    /// Whether there are no fields in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many fields are in it.
    pub fn len(&self) -> usize {
        self.nodes.iter().map(|n| usize::from(n.member) + n.below.len()).sum()
    }

    /// Whether the field is in it.
    pub fn contains(&self, path: &[PathElement]) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        self.node(first).is_some_and(|n| if rest.is_empty() { n.member } else { n.below.contains(rest) })
    }

    /// Adds a field.
    pub fn insert(&mut self, path: &[PathElement]) {
        let Some((first, rest)) = path.split_first() else { return };
        let at = match self.find(first) {
            Ok(at) => at,
            Err(at) => {
                let node = Node { element: first.clone(), member: false, below: Self::new() };
                self.nodes.insert(at, node);
                at
            }
        };
        match rest {
            [] => self.nodes[at].member = true,
            rest => self.nodes[at].below.insert(rest),
        }
    }

    /// The fields, each before those below it.
    pub fn paths(&self) -> Vec<Path> {
        fn walk(set: &FieldSet, prefix: &mut Vec<PathElement>, out: &mut Vec<Path>) {
            for node in &set.nodes {
                prefix.push(node.element.clone());
                if node.member {
                    out.push(Path(prefix.clone()));
                }
                walk(&node.below, prefix, out);
                prefix.pop();
            }
        }
        let mut out = Vec::new();
        walk(self, &mut Vec::new(), &mut out);
        out
    }

    /// The fields that are in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut out = Self { nodes: Vec::with_capacity(self.nodes.len().max(other.nodes.len())) };
        zip(&self.nodes, &other.nodes, |a, b| {
            out.nodes.push(match (a, b) {
                (Some(a), Some(b)) => Node {
                    element: a.element.clone(),
                    member: a.member || b.member,
                    below: a.below.union(&b.below),
                },
                (Some(one), None) | (None, Some(one)) => one.clone(),
                (None, None) => return,
            });
        });
        out
    }

    /// The fields that are in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let mut out = Self::new();
        zip(&self.nodes, &other.nodes, |a, b| {
            if let (Some(a), Some(b)) = (a, b) {
                out.push(a.element.clone(), a.member && b.member, a.below.intersection(&b.below));
            }
        });
        out
    }

    /// The fields that are in this set and not in the other.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.subtract(other);
        out
    }

    /// Takes out the fields that are in the other set.
    pub fn subtract(&mut self, other: &Self) {
        let mut found = false;
        for b in &other.nodes {
            if let Ok(at) = self.find(&b.element) {
                let a = &mut self.nodes[at];
                a.member &= !b.member;
                a.below.subtract(&b.below);
                found = true;
            }
        }
        if found {
            self.nodes.retain(|n| n.member || !n.below.is_empty());
        }
    }

    /// Keeps of the object's own fields those that `keep` says, with what is below them.
    pub fn retain_fields(&mut self, keep: impl Fn(&str) -> bool) {
        self.nodes.retain(|n| !matches!(&n.element, PathElement::Field(name) if !keep(name)));
    }

    /// What is in the set below the step `element`.
    pub(super) fn below(&self, element: &PathElement) -> Option<&Node> {
        self.node(element)
    }

    /// The nodes, in order.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Adds a node whose element is not there yet, unless it is empty.
    pub(super) fn push(&mut self, element: PathElement, member: bool, below: Self) {
        if !member && below.is_empty() {
            return;
        }
        // What is walked is mostly in order already.
        let node = Node { element, member, below };
        match self.nodes.last() {
            Some(last) if last.element >= node.element => match self.find(&node.element) {
                Ok(at) => {
                    let there = &mut self.nodes[at];
                    there.member |= node.member;
                    there.below = there.below.union(&node.below);
                }
                Err(at) => self.nodes.insert(at, node),
            },
            _ => self.nodes.push(node),
        }
    }

    fn find(&self, element: &PathElement) -> Result<usize, usize> {
        self.nodes.binary_search_by(|n| n.element.cmp(element))
    }

    fn node(&self, element: &PathElement) -> Option<&Node> {
        self.find(element).ok().map(|at| &self.nodes[at])
    }
}

/// Calls `f` for every element of two ordered lists, with both nodes where both have it.
fn zip<'a>(a: &'a [Node], b: &'a [Node], mut f: impl FnMut(Option<&'a Node>, Option<&'a Node>)) {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    loop {
        let order = match (a.peek(), b.peek()) {
            (Some(x), Some(y)) => x.element.cmp(&y.element),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return,
        };
        match order {
            Ordering::Less => f(a.next(), None),
            Ordering::Equal => f(a.next(), b.next()),
            Ordering::Greater => f(None, b.next()),
        }
    }
}
