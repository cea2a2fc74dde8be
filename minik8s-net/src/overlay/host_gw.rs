//! Pods' packets as they are, by routes over the link that the nodes share.

use super::{Egress, NodeRoute, Route, State};
use crate::Subnet;

/// What the node whose pods have `subnet` needs to reach these others. A node that is not on the link cannot be reached
/// so; the kernel says it when the route is made.
pub fn desired(subnet: &Subnet, others: &[NodeRoute]) -> State {
    let v4 = subnet.network().is_ipv4();
    let routes = others
        .iter()
        .filter(|other| other.subnet != *subnet)
        .filter(|other| other.subnet.network().is_ipv4() == v4 && other.address.is_ipv4() == v4)
        .map(|other| Route { to: other.subnet, via: other.address, out: Egress::Link })
        .collect();
    State { routes, ..State::default() }
}
