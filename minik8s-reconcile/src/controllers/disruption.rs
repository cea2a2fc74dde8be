//! Keeps the status of PodDisruptionBudgets: how many of their pods there should be, how many there are, and how many
//! may go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use minik8s_api::{Kind, Registry, Resource, Selector};

use crate::cache::{Cache, Caches};
use crate::controller::Controller;
use crate::key::Key;
use crate::planner::{Change, Plan, Planned, Planner};
use crate::reconciler::Reconciler;
use crate::recorder::EventKind;

/// How long an evicted pod counts as gone before it must have begun to go.
pub const DELETION_TIMEOUT: Duration = Duration::from_secs(2 * 60);
/// The condition that says whether a pod may go.
const ALLOWED: &str = "DisruptionAllowed";

/// The controller, to be given to a [`crate::Manager`].
///
/// # Panics
/// `registry` has no PodDisruptionBudgets.
pub fn controller(registry: &Registry) -> Controller<impl Reconciler> {
    let kind = registry.of::<PodDisruptionBudget>().expect("PodDisruptionBudgets are built in").clone();
    Controller::new("disruption", Planned(Disruption { kind }))
        .maps_with(|pod: &Pod, budgets| {
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            in_namespace_of(pod, budgets, |budget| selector(budget).is_some_and(|s| s.matches(&labels)))
        })
        .maps_with(|owner: &Deployment, budgets| in_namespace_of(owner, budgets, |_| true))
        .maps_with(|owner: &ReplicaSet, budgets| in_namespace_of(owner, budgets, |_| true))
        .maps_with(|owner: &StatefulSet, budgets| in_namespace_of(owner, budgets, |_| true))
        .maps_with(|owner: &ReplicationController, budgets| in_namespace_of(owner, budgets, |_| true))
}

fn in_namespace_of<K: Resource>(
    object: &K,
    budgets: &Cache<PodDisruptionBudget>,
    wanted: impl Fn(&PodDisruptionBudget) -> bool,
) -> Vec<Key> {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    budgets.list_in(namespace).iter().filter(|b| wanted(b)).map(|b| Key::of(&**b)).collect()
}

/// What the budget is about; nothing, if it does not say.
fn selector(budget: &PodDisruptionBudget) -> Option<Selector> {
    Selector::from_label_selector(budget.spec.as_ref()?.selector.as_ref()?).ok()
}

/// Whether a pod counts as healthy.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Says in the budget's conditions whether a pod may go.
pub(crate) fn set_allowed_condition(budget: &mut PodDisruptionBudget, now: Time) {
    let generation = budget.metadata.generation;
    let status = budget.status.get_or_insert_default();
    let (word, reason) = match status.disruptions_allowed.unwrap_or(0) {
        ..=0 => ("False", "InsufficientPods"),
        _ => ("True", "SufficientPods"),
    };
    condition(status, word, reason, String::new(), generation, now);
}

fn condition(
    status: &mut PodDisruptionBudgetStatus,
    word: &str,
    reason: &str,
    message: String,
    generation: Option<i64>,
    now: Time,
) {
    let conditions = status.conditions.get_or_insert_default();
    let old = conditions.iter().find(|c| c.type_ == ALLOWED);
    let since = old.filter(|c| c.status == word).map_or(now, |c| c.last_transition_time.clone());
    let new = Condition {
        type_: ALLOWED.to_owned(),
        status: word.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: since,
    };
    match conditions.iter_mut().find(|c| c.type_ == ALLOWED) {
        Some(place) => *place = new,
        None => conditions.push(new),
    }
}

/// What is known of the controllers of a budget's pods.
#[derive(Clone, Debug, Default)]
struct World {
    pods: Vec<Arc<Pod>>,
    /// How many pods the pods' controllers want together.
    scale: i32,
    /// Pods that nobody controls.
    unmanaged: Vec<String>,
    /// A pod whose controller is of a kind whose scale is not known.
    unknown: Option<String>,
}

#[derive(Debug)]
struct Disruption {
    kind: Arc<Kind>,
}

impl Planner for Disruption {
    type Object = PodDisruptionBudget;
    type World = World;

    fn observe(&self, budget: &PodDisruptionBudget, caches: &Caches) -> World {
        let namespace = budget.metadata.namespace.as_deref().unwrap_or_default();
        let Some(selector) = selector(budget) else { return World::default() };
        let mut world =
            World { pods: caches.of::<Pod>().select_in(namespace, &selector), ..World::default() };
        let mut seen = BTreeSet::new();
        for pod in &world.pods {
            let name = pod.metadata.name.clone().unwrap_or_default();
            let Some(owner) = controlling(&pod.metadata.owner_references) else {
                world.unmanaged.push(name);
                continue;
            };
            match scale_of(caches, namespace, owner) {
                Some((uid, replicas)) => {
                    if seen.insert(uid) {
                        world.scale = world.scale.saturating_add(replicas);
                    }
                }
                None => world.unknown = Some(name),
            }
        }
        world
    }

    fn plan(&self, budget: &PodDisruptionBudget, world: &World, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        if budget.metadata.deletion_timestamp.is_some() {
            return plan;
        }
        let old = budget.status.clone().unwrap_or_default();
        let mut updated = budget.clone();
        let status = updated.status.get_or_insert_default();
        status.observed_generation = budget.metadata.generation;
        let stamp = Time(Timestamp::from_second(now.as_second()).unwrap_or(now));
        match expected(budget, world) {
            Err(pod) => {
                // Without the facts nobody may go.
                status.disruptions_allowed = Some(0);
                let message = format!("found no controllers for pod \"{pod}\"");
                let generation = budget.metadata.generation;
                condition(status, "False", "SyncFailed", message, generation, stamp);
            }
            Ok((expected, desired)) => {
                let (disrupted, recheck) = still_disrupted(&old, &world.pods, now);
                plan.requeue = recheck;
                let counts = |pod: &&Arc<Pod>| {
                    let name = pod.metadata.name.as_deref().unwrap_or_default();
                    pod.metadata.deletion_timestamp.is_none()
                        && !disrupted.contains_key(name)
                        && is_ready(pod)
                };
                let healthy = i32::try_from(world.pods.iter().filter(counts).count()).unwrap_or(i32::MAX);
                status.expected_pods = Some(expected);
                status.desired_healthy = Some(desired);
                status.current_healthy = Some(healthy);
                let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
                status.disruptions_allowed = Some(allowed);
                status.disrupted_pods = (!disrupted.is_empty()).then_some(disrupted);
                set_allowed_condition(&mut updated, stamp);
            }
        }
        if updated.status.as_ref() == Some(&old) {
            return plan;
        }
        if !world.unmanaged.is_empty() && needs_scale(budget) {
            let pods = world.unmanaged.join(", ");
            let message = format!("Pods that no controller is in charge of do not count: {pods}");
            plan.events.push((EventKind::Warning, "UnmanagedPods", message));
        }
        plan.changes.push(Change::UpdateStatus(Box::new(updated), self.kind.clone()));
        plan
    }
}

fn controlling(owners: &Option<Vec<OwnerReference>>) -> Option<&OwnerReference> {
    owners.iter().flatten().find(|o| o.controller == Some(true))
}

/// The uid of what is scaled to have the pods of `owner`, and how many it wants.
fn scale_of(caches: &Caches, namespace: &str, owner: &OwnerReference) -> Option<(String, i32)> {
    let key = Key::new(namespace, &owner.name);
    fn found<K: Resource>(object: Option<Arc<K>>, owner: &OwnerReference) -> Option<Arc<K>> {
        object.filter(|o| o.meta().uid.as_deref() == Some(&owner.uid))
    }
    let uid = owner.uid.clone();
    match (owner.kind.as_str(), owner.api_version.split('/').next().unwrap_or_default()) {
        ("ReplicaSet", "apps") => {
            let set = found(caches.of::<ReplicaSet>().get(&key), owner)?;
            match controlling(&set.metadata.owner_references) {
                Some(above) if above.kind == "Deployment" => {
                    let key = Key::new(namespace, &above.name);
                    let deployment = found(caches.of::<Deployment>().get(&key), above)?;
                    Some((above.uid.clone(), deployment.spec.replicas.unwrap_or(1)))
                }
                _ => Some((uid, set.spec.replicas.unwrap_or(1))),
            }
        }
        ("StatefulSet", "apps") => {
            let set = found(caches.of::<StatefulSet>().get(&key), owner)?;
            Some((uid, set.spec.replicas.unwrap_or(1)))
        }
        ("ReplicationController", _) => {
            let controller = found(caches.of::<ReplicationController>().get(&key), owner)?;
            Some((uid, controller.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)))
        }
        _ => None,
    }
}

/// Whether the budget is relative to how many pods there should be.
fn needs_scale(budget: &PodDisruptionBudget) -> bool {
    let spec = budget.spec.clone().unwrap_or_default();
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

/// How many pods there should be, and how many of them healthy; or the pod that nobody can say that for.
fn expected(budget: &PodDisruptionBudget, world: &World) -> Result<(i32, i32), String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let count = i32::try_from(world.pods.len()).unwrap_or(i32::MAX);
    if needs_scale(budget)
        && let Some(pod) = &world.unknown
    {
        return Err(pod.clone());
    }
    Ok(match (&spec.max_unavailable, &spec.min_available) {
        (Some(value), _) => (world.scale, (world.scale - part_of(value, world.scale)).max(0)),
        (None, Some(IntOrString::Int(n))) => (count, *n),
        (None, Some(value)) => (world.scale, part_of(value, world.scale)),
        (None, None) => (count, 0),
    })
}

/// A number, or a percentage of `whole`, rounded up.
fn part_of(value: &IntOrString, whole: i32) -> i32 {
    match value {
        IntOrString::Int(n) => *n,
        IntOrString::String(text) => {
            let percent = text.strip_suffix('%').and_then(|t| t.parse::<i64>().ok()).unwrap_or(0);
            i32::try_from((i64::from(whole) * percent + 99) / 100).unwrap_or(i32::MAX)
        }
    }
}

/// The evicted pods that have not begun to go yet but should, and when to look again.
fn still_disrupted(
    status: &PodDisruptionBudgetStatus,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> (BTreeMap<String, Time>, Option<Duration>) {
    let mut left = BTreeMap::new();
    let mut recheck: Option<Duration> = None;
    for pod in pods.iter().filter(|p| p.metadata.deletion_timestamp.is_none()) {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let Some(time) = status.disrupted_pods.as_ref().and_then(|d| d.get(name)) else { continue };
        let age = now.duration_since(time.0).max(SignedDuration::ZERO).unsigned_abs();
        let Some(rest) = DELETION_TIMEOUT.checked_sub(age).filter(|rest| !rest.is_zero()) else { continue };
        left.insert(name.to_owned(), time.clone());
        recheck = Some(recheck.map_or(rest, |r| r.min(rest)));
    }
    (left, recheck)
}

#[cfg(test)]
mod tests;
