use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use minik8s_api::Selector;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn pod(namespace: &str, name: &str, node: &str, address: &str, app: &str, port: u16) -> Arc<Pod> {
    let pod = json!({
        "metadata": { "namespace": namespace, "name": name, "labels": { "app": app } },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "ports": [
            { "name": "web", "containerPort": port }, { "name": "dns", "containerPort": 53, "protocol": "UDP" },
        ] }] },
        "status": { "podIP": address, "podIPs": [{ "ip": address }], "phase": "Running" },
    });
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn namespace(name: &str, team: &str) -> Arc<Namespace> {
    let namespace = json!({ "metadata": { "name": name, "labels": { "team": team } } });
    Arc::new(serde_json::from_value(namespace).unwrap())
}

fn policy(namespace: &str, spec: Value) -> Arc<NetworkPolicy> {
    let policy = json!({ "metadata": { "namespace": namespace, "name": "p" }, "spec": spec });
    Arc::new(serde_json::from_value(policy).unwrap())
}

fn pods() -> Vec<Arc<Pod>> {
    vec![
        pod("a", "a1", "n1", "10.0.1.1", "web", 80),
        pod("a", "a2", "n1", "10.0.1.2", "db", 8080),
        pod("b", "b1", "n1", "10.0.1.3", "web", 81),
        pod("b", "b2", "n2", "10.0.2.1", "db", 80),
        pod("c", "c1", "n2", "10.0.2.2", "web", 8080),
    ]
}

fn namespaces() -> Vec<Arc<Namespace>> {
    vec![namespace("a", "x"), namespace("b", "x"), namespace("c", "y")]
}

fn compile(policies: &[Arc<NetworkPolicy>]) -> Table {
    Table::compile("n1", &pods(), &namespaces(), policies)
}

fn tcp(from: &str, to: &str, port: u16) -> Packet {
    Packet { from: from.parse().unwrap(), to: to.parse().unwrap(), port: Some((Protocol::Tcp, port)) }
}

#[test]
fn a_pod_that_no_policy_is_about_is_free_and_one_that_one_is_about_is_closed() {
    assert!(compile(&[]).is_empty());
    let table = compile(&[policy("a", json!({ "podSelector": {} }))]);
    assert!(!table.passes(&tcp("10.0.1.3", "10.0.1.1", 80)));
    assert!(table.passes(&tcp("10.0.1.1", "10.0.1.3", 80)), "what goes is free");
    assert!(compile(&[policy("c", json!({ "podSelector": {} }))]).is_empty(), "another node's to see to");
}

#[test]
fn what_is_rendered_is_what_was_meant() {
    let table = compile(&[policy(
        "a",
        json!({
            "podSelector": { "matchLabels": { "app": "web" } },
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                { "from": [{ "podSelector": {} }, { "ipBlock": { "cidr": "10.0.0.0/8", "except": ["10.9.0.0/16"] } }],
                  "ports": [{ "port": "web" }, { "port": 9000, "endPort": 9010, "protocol": "UDP" }] },
            ],
            "egress": [{ "to": [{ "namespaceSelector": { "matchLabels": { "team": "x" } } }],
                         "ports": [{ "port": "web" }] }, { "ports": [{ "port": 53, "protocol": "UDP" }] }],
        }),
    )]);
    let expected = "table inet minik8s_policy {}
delete table inet minik8s_policy
table inet minik8s_policy {
    chain egress_10_0_1_1 {
        udp dport 53 return
        ip daddr { 10.0.1.1 } tcp dport 80 return
        ip daddr { 10.0.1.2 } tcp dport 8080 return
        ip daddr { 10.0.1.3 } tcp dport 81 return
        ip daddr { 10.0.2.1 } tcp dport 80 return
        drop
    }
    chain ingress_10_0_1_1 {
        ip saddr { 10.0.1.1, 10.0.1.2 } tcp dport 80 return
        ip saddr { 10.0.1.1, 10.0.1.2 } udp dport 9000-9010 return
        ip saddr 10.0.0.0/8 ip saddr != 10.9.0.0/16 tcp dport 80 return
        ip saddr 10.0.0.0/8 ip saddr != 10.9.0.0/16 udp dport 9000-9010 return
        drop
    }
    chain forward {
        type filter hook forward priority filter; policy accept;
        ct state established,related accept
        ip saddr vmap { 10.0.1.1 : jump egress_10_0_1_1 }
        ip daddr vmap { 10.0.1.1 : jump ingress_10_0_1_1 }
    }
    chain input {
        type filter hook input priority filter; policy accept;
        ct state established,related accept
        ip saddr vmap { 10.0.1.1 : jump egress_10_0_1_1 }
    }
}
";
    assert_eq!(table.to_string(), expected);
}

/// What the words of the policies say of one packet, one after the other.
fn may_pass(policies: &[Arc<NetworkPolicy>], packet: &Packet) -> bool {
    let (pods, namespaces) = (pods(), namespaces());
    let whose = |address: IpAddr| {
        pods.iter().find(|p| p.status.as_ref().unwrap().pod_ip.as_deref() == Some(&*address.to_string()))
    };
    let matches = |selector: &Option<_>, labels: &Option<std::collections::BTreeMap<String, String>>| {
        selector.as_ref().is_none_or(|s| {
            Selector::from_label_selector(s).unwrap().matches(&labels.clone().unwrap_or_default())
        })
    };
    let is_peer = |policy: &NetworkPolicy, peer: &NetworkPolicyPeer, address: IpAddr| {
        if let Some(block) = &peer.ip_block {
            let inside = |text: &String| text.parse::<Cidr>().unwrap().contains(address);
            return inside(&block.cidr) && !block.except.iter().flatten().any(inside);
        }
        whose(address).is_some_and(|pod| {
            let there = namespaces.iter().find(|n| n.metadata.name == pod.metadata.namespace).unwrap();
            let namespace = match &peer.namespace_selector {
                Some(_) => matches(&peer.namespace_selector, &there.metadata.labels),
                None => pod.metadata.namespace == policy.metadata.namespace,
            };
            namespace && matches(&peer.pod_selector, &pod.metadata.labels)
        })
    };
    let is_port = |port: &NetworkPolicyPort, target: IpAddr| {
        let Some((protocol, number)) = packet.port else { return false };
        let name = match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        port.protocol.as_deref().unwrap_or("TCP") == name
            && match &port.port {
                None => true,
                Some(IntOrString::Int(first)) => {
                    (*first..=port.end_port.unwrap_or(*first)).contains(&i32::from(number))
                }
                Some(IntOrString::String(wanted)) => whose(target).is_some_and(|pod| {
                    let ports = pod.spec.as_ref().unwrap().containers[0].ports.as_ref().unwrap();
                    ports.iter().any(|p| {
                        p.name.as_ref() == Some(wanted)
                            && p.container_port == i32::from(number)
                            && p.protocol.as_deref().unwrap_or("TCP") == name
                    })
                }),
            }
    };
    ["Egress", "Ingress"].iter().all(|way| {
        let (own, other) = if *way == "Egress" { (packet.from, packet.to) } else { (packet.to, packet.from) };
        let Some(pod) = whose(own).filter(|p| p.spec.as_ref().unwrap().node_name.as_deref() == Some("n1"))
        else {
            return true;
        };
        let about = policies.iter().filter(|p| {
            let spec = p.spec.as_ref().unwrap();
            p.metadata.namespace == pod.metadata.namespace
                && matches(&spec.pod_selector, &pod.metadata.labels)
                && spec.policy_types.as_ref().unwrap().iter().any(|t| t == way)
        });
        let about: Vec<_> = about.collect();
        about.is_empty()
            || about.iter().any(|policy| {
                let spec = policy.spec.as_ref().unwrap();
                let fits = |peers: &Option<Vec<NetworkPolicyPeer>>,
                            ports: &Option<Vec<NetworkPolicyPort>>| {
                    let peers = peers.as_deref().unwrap_or_default();
                    let ports = ports.as_deref().unwrap_or_default();
                    (peers.is_empty() || peers.iter().any(|peer| is_peer(policy, peer, other)))
                        && (ports.is_empty() || ports.iter().any(|port| is_port(port, packet.to)))
                };
                if *way == "Egress" {
                    spec.egress.iter().flatten().any(|rule| fits(&rule.to, &rule.ports))
                } else {
                    spec.ingress.iter().flatten().any(|rule| fits(&rule.from, &rule.ports))
                }
            })
    })
}

fn selectors() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        Just(json!({ "matchLabels": { "app": "web" } })),
        Just(json!({ "matchExpressions": [{ "key": "app", "operator": "NotIn", "values": ["web"] }] })),
    ]
}

fn peers() -> impl Strategy<Value = Value> {
    let team = prop_oneof![Just(json!({})), Just(json!({ "matchLabels": { "team": "x" } }))];
    prop_oneof![
        selectors().prop_map(|pods| json!({ "podSelector": pods })),
        team.clone().prop_map(|team| json!({ "namespaceSelector": team })),
        (team, selectors())
            .prop_map(|(team, pods)| json!({ "namespaceSelector": team, "podSelector": pods })),
        Just(json!({ "ipBlock": { "cidr": "10.0.1.0/24", "except": ["10.0.1.2/32"] } })),
        Just(json!({ "ipBlock": { "cidr": "0.0.0.0/0" } })),
    ]
}

fn ports() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({})),
        Just(json!({ "protocol": "UDP" })),
        Just(json!({ "port": 80 })),
        Just(json!({ "port": 80, "endPort": 90 })),
        Just(json!({ "port": "web" })),
        Just(json!({ "port": "dns", "protocol": "UDP" })),
    ]
}

fn policies() -> impl Strategy<Value = Vec<Arc<NetworkPolicy>>> {
    let rule = || (proptest::collection::vec(peers(), 0..3), proptest::collection::vec(ports(), 0..3));
    let rules = || proptest::collection::vec(rule(), 0..3);
    let types =
        prop_oneof![Just(json!(["Ingress"])), Just(json!(["Egress"])), Just(json!(["Ingress", "Egress"]))];
    let one = (0..3usize, selectors(), rules(), rules(), types).prop_map(|(n, pods, into, out, types)| {
        let into: Vec<_> = into.iter().map(|(p, t)| json!({ "from": p, "ports": t })).collect();
        let out: Vec<_> = out.iter().map(|(p, t)| json!({ "to": p, "ports": t })).collect();
        let spec = json!({ "podSelector": pods, "policyTypes": types, "ingress": into, "egress": out });
        policy(["a", "b", "c"][n], spec)
    });
    proptest::collection::vec(one, 0..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    /// Every packet among pods and strangers, against what the words say.
    #[test]
    fn a_table_is_what_the_policies_say(policies in policies()) {
        let table = compile(&policies);
        let everybody = ["10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.2.1", "10.0.2.2", "192.0.2.1"];
        let ports = [
            None,
            Some((Protocol::Tcp, 80)),
            Some((Protocol::Tcp, 81)),
            Some((Protocol::Tcp, 8080)),
            Some((Protocol::Udp, 53)),
            Some((Protocol::Udp, 80)),
        ];
        for from in everybody {
            for to in everybody.iter().filter(|to| **to != from) {
                for port in ports {
                    let packet = Packet { from: from.parse().unwrap(), to: to.parse().unwrap(), port };
                    prop_assert_eq!(table.passes(&packet), may_pass(&policies, &packet), "{:?}", packet);
                }
            }
        }
    }
}
