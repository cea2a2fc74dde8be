//! Which definitions may have the names that they ask for, and what their status says of that.
//!
//! Within a group no two definitions share a name. Who has one keeps it; who asks for one that is taken gets the others
//! that it asked for, and is not served before it has all that matter.

use std::borrow::Borrow;
use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
    CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::registry::Registry;

/// The finalizer that keeps a definition until its objects are gone.
pub const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";
/// The annotation that says who consented to a group of the Kubernetes community.
pub(super) const API_APPROVED: &str = "api-approved.kubernetes.io";

/// The names under which a definition's kinds are served: those it was granted, or those that it asks for where its
/// status does not say.
pub fn accepted(crd: &CustomResourceDefinition) -> &CustomResourceDefinitionNames {
    let granted = crd.status.as_ref().and_then(|s| s.accepted_names.as_ref());
    granted.filter(|n| !n.plural.is_empty() && !n.kind.is_empty()).unwrap_or(&crd.spec.names)
}

/// Whether a definition's kinds are served.
pub fn is_established(crd: &CustomResourceDefinition) -> bool {
    has_condition(crd, "Established")
}

/// Whether a condition of the definition is true.
pub fn has_condition(crd: &CustomResourceDefinition, type_: &str) -> bool {
    let conditions = crd.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == type_ && c.status == "True")
}

/// Sets a condition; its time changes with its status only.
pub fn set_condition(
    status: &mut CustomResourceDefinitionStatus,
    type_: &str,
    is: bool,
    reason: &str,
    message: &str,
    now: Timestamp,
) {
    let word = if is { "True" } else { "False" };
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter_mut().find(|c| c.type_ == type_);
    let time = match &known {
        Some(known) if known.status == word => known.last_transition_time.clone(),
        _ => Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
    };
    let condition = CustomResourceDefinitionCondition {
        type_: type_.to_owned(),
        status: word.to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: time,
        observed_generation: None,
    };
    match known {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

/// The names that are taken in a group.
#[derive(Debug, Default)]
struct Taken {
    /// What a user may type: plurals, singulars and short names.
    resources: BTreeSet<String>,
    /// Kinds and the kinds of lists.
    kinds: BTreeSet<String>,
}

impl Taken {
    fn add(&mut self, names: &CustomResourceDefinitionNames) {
        self.resources.insert(names.plural.clone());
        self.resources.extend(names.singular.clone().filter(|s| !s.is_empty()));
        self.resources.extend(names.short_names.iter().flatten().cloned());
        self.kinds.insert(names.kind.clone());
        self.kinds.extend(names.list_kind.clone());
    }
}

/// The status that each definition ought to have, in the same order. `built_in` are the kinds that no definition may
/// take the place of.
pub fn settle<D: Borrow<CustomResourceDefinition>>(
    crds: &[D],
    built_in: &Registry,
    now: Timestamp,
) -> Vec<CustomResourceDefinitionStatus> {
    let mut settled: Vec<_> = crds.iter().map(|c| c.borrow().status.clone().unwrap_or_default()).collect();
    // Who is served already goes first, then the elder, whatever the order of names.
    let mut order: Vec<usize> = (0..crds.len()).collect();
    order.sort_by_key(|i| {
        let crd = crds[*i].borrow();
        (!is_established(crd), crd.metadata.creation_timestamp.as_ref().map(|t| t.0), &crd.metadata.name)
    });
    for i in order {
        let crd = crds[i].borrow();
        let mut taken = built_in_names(built_in, &crd.spec.group);
        for (j, other) in crds.iter().enumerate() {
            let other = other.borrow();
            // One that goes without ever having been served holds nothing.
            let holds = other.metadata.deletion_timestamp.is_none() || is_established(other);
            if j != i && other.spec.group == crd.spec.group && holds {
                settled[j].accepted_names.iter().for_each(|names| taken.add(names));
            }
        }
        settle_one(crd, &taken, &mut settled[i], now);
    }
    settled
}

fn built_in_names(built_in: &Registry, group: &str) -> Taken {
    let mut taken = Taken::default();
    for kind in built_in.iter().filter(|k| k.group == group && !k.custom) {
        taken.resources.extend([kind.plural.to_string(), kind.singular.to_string()]);
        taken.resources.extend(kind.short_names.iter().map(ToString::to_string));
        taken.kinds.extend([kind.kind.to_string(), format!("{}List", kind.kind)]);
    }
    taken
}

/// Grants what is free. What is not stays as it was granted before.
fn settle_one(
    crd: &CustomResourceDefinition,
    taken: &Taken,
    status: &mut CustomResourceDefinitionStatus,
    now: Timestamp,
) {
    let wanted = &crd.spec.names;
    let mut granted = status.accepted_names.take().unwrap_or_default();
    let mut conflict: Option<(&str, String)> = None;
    let mut complain = |reason: &'static str, name: &str| {
        conflict.get_or_insert_with(|| (reason, format!("{name:?} is already in use")));
    };
    if taken.resources.contains(&wanted.plural) {
        complain("PluralConflict", &wanted.plural);
    } else {
        granted.plural.clone_from(&wanted.plural);
    }
    match wanted.singular.as_deref() {
        Some(singular) if taken.resources.contains(singular) => complain("SingularConflict", singular),
        _ => granted.singular.clone_from(&wanted.singular),
    }
    let short = wanted.short_names.iter().flatten().find(|n| taken.resources.contains(*n));
    match short {
        Some(name) => complain("ShortNamesConflict", name),
        None => granted.short_names.clone_from(&wanted.short_names),
    }
    if taken.kinds.contains(&wanted.kind) {
        complain("KindConflict", &wanted.kind);
    } else {
        granted.kind.clone_from(&wanted.kind);
    }
    match wanted.list_kind.as_deref() {
        Some(list) if taken.kinds.contains(list) => complain("ListKindConflict", list),
        _ => granted.list_kind.clone_from(&wanted.list_kind),
    }
    granted.categories.clone_from(&wanted.categories);
    status.accepted_names = Some(granted);
    let stored = status.stored_versions.get_or_insert_default();
    for version in crd.spec.versions.iter().filter(|v| v.storage) {
        if !stored.contains(&version.name) {
            stored.push(version.name.clone());
        }
    }
    if let Some(words) = crd.metadata.annotations.as_ref().and_then(|a| a.get(API_APPROVED)) {
        let approved = !words.starts_with("unapproved");
        let reason = if approved { "ApprovedAnnotation" } else { "UnapprovedAnnotation" };
        let message =
            if approved { format!("approved in {words}") } else { format!("not approved: {words:?}") };
        set_condition(status, "KubernetesAPIApprovalPolicyConformant", approved, reason, &message, now);
    }
    let established = is_established(crd);
    match &conflict {
        None => set_condition(status, "NamesAccepted", true, "NoConflicts", "no conflicts found", now),
        Some((reason, message)) => set_condition(status, "NamesAccepted", false, reason, message, now),
    }
    if conflict.is_none() || established {
        let words = "the initial names have been accepted";
        set_condition(status, "Established", true, "InitialNamesAccepted", words, now);
    } else {
        set_condition(status, "Established", false, "NotAccepted", "not all names are accepted", now);
    }
}
