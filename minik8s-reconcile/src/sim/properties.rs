//! Properties that hold of every cluster, for [`Simulation::always`](super::Simulation::always).
//!
//! ```
//! use minik8s_reconcile::sim::{Simulation, properties};
//!
//! let simulation = Simulation::new("mine");
//! let simulation = simulation.always("pods are bound once", || properties::pods_are_bound_once);
//! # let _ = simulation;
//! ```

use k8s_openapi::api::core::v1::{Node, Pod};

use super::{Change, Deed, State};
use crate::key::Key;
use crate::placement::{is_over, node_of};
use crate::scheduler::Amounts;

/// A pod that is on a node stays there.
///
/// # Errors
/// It is on another node than before.
pub fn pods_are_bound_once(change: &Change<'_>, _: &State) -> Result<(), String> {
    let (Some(before), Some(after)) = (change.before::<Pod>(), change.after::<Pod>()) else { return Ok(()) };
    let (was, is) = (node_of(&before), node_of(&after));
    if was.is_empty() || was == is {
        Ok(())
    } else {
        Err(format!("{} was on {was} and is on {is}", change.key))
    }
}

/// No object goes before the finalizers that it has are gone.
///
/// # Errors
/// One went with a finalizer.
pub fn nothing_goes_before_its_finalizers(change: &Change<'_>, _: &State) -> Result<(), String> {
    if change.deed() != Deed::Removed {
        return Ok(());
    }
    match change.metadata()["finalizers"].as_array() {
        Some(left) if !left.is_empty() => Err(format!("{} went with {left:?}", change.key)),
        _ => Ok(()),
    }
}

/// What the pods on a node ask for, it has.
///
/// # Errors
/// A pod was bound to a node that has no room for it.
pub fn no_node_is_overcommitted(change: &Change<'_>, state: &State) -> Result<(), String> {
    let Some(pod) = change.after::<Pod>() else { return Ok(()) };
    let name = node_of(&pod);
    let is_new = change.before::<Pod>().is_none_or(|before| node_of(&before) != name);
    if name.is_empty() || !is_new {
        return Ok(());
    }
    let Some(node) = state.get::<Node>(&Key::cluster(name)) else { return Ok(()) };
    let room =
        node.status.as_ref().and_then(|s| s.allocatable.as_ref()).map(Amounts::of_list).unwrap_or_default();
    let mut asked = Amounts::default();
    for pod in state.all::<Pod>() {
        if node_of(&pod) == name && !is_over(&pod) {
            asked.add(&Amounts::of_pod(&pod));
        }
    }
    match asked.iter().find(|(resource, amount)| *amount > room.get(resource)) {
        Some((resource, amount)) => Err(format!(
            "{} was bound to {name}, on which pods ask for {amount} of {resource} by now, and there are {}",
            change.key,
            room.get(resource)
        )),
        None => Ok(()),
    }
}
