//! From what there is to what there is to be.

use std::collections::BTreeSet;

use super::{Device, Egress, Forwarding, Neighbour, Route, State};
use crate::Subnet;

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Remove the tunnel, and with it all that is in it.
    DeleteDevice,
    /// Make the tunnel.
    CreateDevice(Device),
    /// Set what of the tunnel can be set: its size, its address, and that it is up.
    ConfigureDevice(Device),
    /// Remove a route.
    DeleteRoute(Route),
    /// Remove a neighbour.
    DeleteNeighbour(Neighbour),
    /// Remove an entry of the forwarding database.
    DeleteForwarding(Forwarding),
    /// Add an entry to the forwarding database.
    AddForwarding(Forwarding),
    /// Add a neighbour, in place of one with its address.
    AddNeighbour(Neighbour),
    /// Add a route, in place of one that goes to the same place.
    AddRoute(Route),
}

/// Whether it is the same tunnel; the rest of it can be set.
fn is_same(a: &Device, b: &Device) -> bool {
    (a.vni, a.port, a.local, a.mac, a.learning) == (b.vni, b.port, b.local, b.mac, b.learning)
}

impl State {
    /// The changes, in their order, that make this of `present`: what packets need comes before what sends them there.
    pub fn since(&self, present: &State) -> Vec<Step> {
        let mut steps = Vec::new();
        let (mut there, none) = (present.clone(), State::default());
        // Taking a tunnel down takes its routes and neighbours away.
        let gone = |there: &mut State| {
            there.forwarding.clear();
            there.neighbours.clear();
            there.routes.retain(|route| route.out != Egress::Tunnel);
        };
        match (&present.device, &self.device) {
            (Some(old), Some(new)) if is_same(old, new) => {
                if old != new {
                    steps.push(Step::ConfigureDevice(new.clone()));
                }
            }
            (old, new) => {
                if old.is_some() {
                    steps.push(Step::DeleteDevice);
                    gone(&mut there);
                }
                if let Some(new) = new {
                    steps.push(Step::CreateDevice(new.clone()));
                    steps.push(Step::ConfigureDevice(new.clone()));
                }
            }
        }
        let wanted = if self.device.is_some() { self } else { &none };
        // Those that are replaced go with the ones that replace them.
        let to: BTreeSet<Subnet> = self.routes.iter().map(|route| route.to).collect();
        let addresses: BTreeSet<_> = wanted.neighbours.iter().map(|neighbour| neighbour.address).collect();
        let stale = there.routes.difference(&self.routes).filter(|route| !to.contains(&route.to));
        steps.extend(stale.cloned().map(Step::DeleteRoute));
        let stale = there.neighbours.difference(&wanted.neighbours);
        let stale = stale.filter(|neighbour| !addresses.contains(&neighbour.address));
        steps.extend(stale.cloned().map(Step::DeleteNeighbour));
        let stale = there.forwarding.difference(&wanted.forwarding);
        steps.extend(stale.cloned().map(Step::DeleteForwarding));
        let new = wanted.forwarding.difference(&there.forwarding);
        steps.extend(new.cloned().map(Step::AddForwarding));
        let new = wanted.neighbours.difference(&there.neighbours);
        steps.extend(new.cloned().map(Step::AddNeighbour));
        let new = self.routes.difference(&there.routes);
        steps.extend(new.cloned().map(Step::AddRoute));
        steps
    }
}
