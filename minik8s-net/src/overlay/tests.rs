use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn other(n: u8) -> NodeRoute {
    NodeRoute {
        subnet: format!("10.244.{n}.0/24").parse().unwrap(),
        address: IpAddr::from([10, 100, 0, n]),
        mac: None,
    }
}

fn local() -> vxlan::Local {
    let NodeRoute { subnet, address, .. } = other(1);
    vxlan::Local { subnet, address, link_mtu: 1500, port: vxlan::PORT }
}

#[test]
fn a_tunnel_knows_everybody() {
    let state = vxlan::desired(&local(), &[other(1), other(2)]);
    let device = state.device.as_ref().unwrap();
    assert_eq!((device.mtu, device.vni, device.port, device.learning), (1450, 1, 8472, false));
    assert_eq!(device.mac.to_string(), "0a:58:0a:f4:01:00");
    assert_eq!(device.address.unwrap().to_string(), "10.244.1.0");
    let mac: Mac = "0a:58:0a:f4:02:00".parse().unwrap();
    let remote = IpAddr::from([10, 100, 0, 2]);
    let gateway = IpAddr::from([10, 244, 2, 0]);
    assert_eq!(state.forwarding, [Forwarding { mac, remote }].into(), "and not itself");
    assert_eq!(state.neighbours, [Neighbour { address: gateway, mac }].into());
    assert_eq!(state.routes, [Route { to: other(2).subnet, via: gateway, out: Egress::Tunnel }].into());
    let own = NodeRoute { mac: Some(Mac([2, 0, 0, 0, 0, 9])), ..other(3) };
    let state = vxlan::desired(&local(), &[own]);
    assert_eq!(state.neighbours.first().unwrap().mac.to_string(), "02:00:00:00:00:09", "as it says itself");
}

#[test]
fn routes_over_a_link_go_by_nodes() {
    let v6 = NodeRoute { subnet: "fd00:3::/64".parse().unwrap(), ..other(3) };
    let state = host_gw::desired(&other(1).subnet, &[other(1), other(2), v6]);
    let via = IpAddr::from([10, 100, 0, 2]);
    assert_eq!(state.routes, [Route { to: other(2).subnet, via, out: Egress::Link }].into());
    assert!(state.device.is_none() && state.neighbours.is_empty());
}

#[test]
fn words_are_read_or_refused() {
    for text in ["vxlan", "host-gw"] {
        assert_eq!(text.parse::<Backend>().unwrap().to_string(), text);
    }
    assert!("ipip".parse::<Backend>().unwrap_err().to_string().contains("vxlan or host-gw"));
    for text in ["", "0a:58:0a:f4:02", "0a:58:0a:f4:02:00:00", "0a:58:0a:f4:02:0g", "0a:58:0a:f4:02:+1"] {
        assert!(text.parse::<Mac>().is_err(), "{text:?}");
    }
}

#[test]
fn a_tunnel_that_is_not_ours_is_made_anew_and_one_that_is_down_is_not() {
    let wanted = vxlan::desired(&local(), &[other(2)]);
    let mut present = wanted.clone();
    present.device.as_mut().unwrap().up = false;
    assert!(matches!(wanted.since(&present).as_slice(), [Step::ConfigureDevice(_)]));
    present.device.as_mut().unwrap().port = 4789;
    let steps = wanted.since(&present);
    assert_eq!(steps[0], Step::DeleteDevice);
    assert_eq!(steps.len(), 6, "all that was in it is made again: {steps:?}");
    let over_link = host_gw::desired(&other(1).subnet, &[other(2)]);
    let steps = over_link.since(&wanted);
    assert!(matches!(steps.as_slice(), [Step::DeleteDevice, Step::AddRoute(_)]), "{steps:?}");
}

/// The kernel, as far as it matters.
fn perform(state: &mut State, step: Step) {
    match step {
        Step::DeleteDevice => {
            *state = State { routes: state.routes.clone(), ..State::default() };
            state.routes.retain(|route| route.out != Egress::Tunnel);
        }
        Step::CreateDevice(device) => {
            assert!(state.device.is_none());
            state.device = Some(Device { up: false, address: None, mtu: 0, ..device });
        }
        Step::ConfigureDevice(device) => state.device = Some(device),
        Step::DeleteRoute(route) => assert!(state.routes.remove(&route)),
        Step::DeleteNeighbour(neighbour) => assert!(state.neighbours.remove(&neighbour)),
        Step::DeleteForwarding(entry) => assert!(state.forwarding.remove(&entry)),
        Step::AddForwarding(entry) => {
            assert!(state.device.is_some() && state.forwarding.insert(entry));
        }
        Step::AddNeighbour(neighbour) => {
            state.neighbours.retain(|n| n.address != neighbour.address);
            assert!(state.device.is_some() && state.neighbours.insert(neighbour));
        }
        Step::AddRoute(route) => {
            assert!(route.out != Egress::Tunnel || state.device.as_ref().is_some_and(|d| d.up));
            state.routes.retain(|r| r.to != route.to);
            assert!(state.routes.insert(route));
        }
    }
}

/// A cluster of some of nine nodes, some of which have moved or have another hardware address.
fn states() -> impl Strategy<Value = State> {
    let nodes = proptest::collection::btree_map(2..9u8, (0..2u8, 0..2u8), 0..7);
    (nodes, 0..3u8, any::<bool>()).prop_map(|(nodes, backend, up): (BTreeMap<u8, (u8, u8)>, u8, bool)| {
        let others: Vec<_> = nodes
            .iter()
            .map(|(n, (moved, mac))| NodeRoute {
                address: IpAddr::from([10, 100, *moved, *n]),
                mac: (*mac > 0).then_some(Mac([2, 0, 0, 0, *mac, *n])),
                ..other(*n)
            })
            .collect();
        match backend {
            0 => host_gw::desired(&local().subnet, &others),
            1 => State::default(),
            _ => {
                let mut state = vxlan::desired(&local(), &others);
                state.device.as_mut().unwrap().up = up;
                if !up {
                    state.routes.clear();
                }
                state
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// From anything to anything; and then there is nothing more to do.
    #[test]
    fn the_difference_makes_what_is_wanted(present in states(), wanted in states()) {
        prop_assume!(wanted.device.as_ref().is_none_or(|d| d.up));
        let mut state = present.clone();
        for step in wanted.since(&present) {
            perform(&mut state, step);
        }
        prop_assert_eq!(&state, &wanted);
        prop_assert_eq!(wanted.since(&state), vec![]);
    }
}
