//! Sets of pods, as affinity terms and spread constraints describe them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::PodAffinityTerm;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use minik8s_api::Selector;
use minik8s_api::selector::{Operator, Requirement};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Pods that have certain labels, in certain namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Members {
    namespaces: BTreeSet<String>,
    /// Namespaces by their labels, beside those by name.
    of_namespaces: Option<Selector>,
    selector: Selector,
}

impl Members {
    fn contains(&self, namespace: &str, of_namespace: &Labels, labels: &Labels) -> bool {
        let there = self.namespaces.contains(namespace)
            || self.of_namespaces.as_ref().is_some_and(|s| s.matches(of_namespace));
        there && self.selector.matches(labels)
    }
}

/// The pods that are members of all of some groups.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodSet(Vec<Members>);

impl PodSet {
    /// Those that `term` of a pod in `namespace` with `labels` means.
    pub(super) fn of_term(term: &PodAffinityTerm, namespace: &str, labels: &Labels) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(namespace.to_owned());
        }
        let same = own(term.match_label_keys.as_deref(), Operator::In, labels);
        let other = own(term.mismatch_label_keys.as_deref(), Operator::NotIn, labels);
        Self(vec![Members {
            namespaces,
            of_namespaces: term.namespace_selector.as_ref().map(|s| selector(Some(s), Vec::new())),
            selector: selector(term.label_selector.as_ref(), [same, other].concat()),
        }])
    }

    /// Those of `namespace` that a constraint of a pod with `labels` means.
    pub(super) fn of_constraint(
        selected: Option<&LabelSelector>,
        keys: Option<&[String]>,
        namespace: &str,
        labels: &Labels,
    ) -> Self {
        Self(vec![Members {
            namespaces: [namespace.to_owned()].into(),
            of_namespaces: None,
            selector: selector(selected, own(keys, Operator::In, labels)),
        }])
    }

    /// Those that are in all of `sets`.
    pub(super) fn all_of<'a>(sets: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut members: Vec<Members> = sets.into_iter().flat_map(|set| set.0.iter().cloned()).collect();
        members.sort();
        members.dedup();
        Self(members)
    }

    /// Whether a pod with `labels` is one of them if its namespace has the right labels, where these matter.
    pub(super) fn may_contain(&self, namespace: &str, labels: &Labels) -> bool {
        self.0.iter().all(|members| {
            let there = members.namespaces.contains(namespace) || members.of_namespaces.is_some();
            there && members.selector.matches(labels)
        })
    }

    /// Whether a pod with `labels` is one of them, in `namespace`, which has the labels `of_namespace`.
    pub fn contains(&self, namespace: &str, of_namespace: &Labels, labels: &Labels) -> bool {
        self.0.iter().all(|members| members.contains(namespace, of_namespace, labels))
    }
}

/// Requirements that the labels of a pod's own make.
fn own(keys: Option<&[String]>, operator: Operator, labels: &Labels) -> Vec<Requirement> {
    let of = |key: &String| Requirement::new(key, operator, [labels.get(key)?.clone()]).ok();
    keys.unwrap_or_default().iter().filter_map(of).collect()
}

/// A selector that is absent takes nothing, and so does one that is not valid; validation has refused it before.
fn selector(selector: Option<&LabelSelector>, more: Vec<Requirement>) -> Selector {
    match selector.map(Selector::from_label_selector) {
        Some(Ok(selector)) if more.is_empty() => selector,
        Some(Ok(selector)) => Selector::new(selector.requirements().iter().cloned().chain(more)),
        _ => Selector::nothing(),
    }
}
