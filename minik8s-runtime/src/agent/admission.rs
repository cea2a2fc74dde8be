//! Whether the node can take a pod: the last word, for whoever binds pods may know too little.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerPort, NodeSelectorRequirement, NodeSelectorTerm, Pod};

use super::pod_fsm::spec;
use super::qos::pod_request;

/// What the node has for pods, and what it is called by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) cpu_milli: i64,
    pub(crate) memory: i64,
    pub(crate) storage: i64,
    pub(crate) pods: i64,
    pub(crate) node_name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Whether `pod` fits beside those that are `here`.
///
/// # Errors
/// The reason and the message of the pod's failure.
pub(crate) fn admit<'a>(
    pod: &Pod,
    here: impl Iterator<Item = &'a Pod> + Clone,
    room: &Room,
) -> Result<(), (String, String)> {
    let short = |what: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Pod was rejected: Node didn't have enough resource: {what}, requested: {requested}, used: {used}, \
             capacity: {capacity}"
        );
        Err((format!("OutOf{what}"), message))
    };
    let count = i64::try_from(here.clone().count()).unwrap_or(i64::MAX);
    if count + 1 > room.pods {
        return short("pods", 1, count, room.pods);
    }
    for (what, capacity) in
        [("cpu", room.cpu_milli), ("memory", room.memory), ("ephemeral-storage", room.storage)]
    {
        let requested = pod_request(spec(pod), what);
        let used = here.clone().map(|p| pod_request(spec(p), what)).fold(0, i64::saturating_add);
        if requested > 0 && requested.saturating_add(used) > capacity {
            return short(what, requested, used, capacity);
        }
    }
    if !matches(pod, room) {
        let message = "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node \
                       affinity/selector";
        return Err(("NodeAffinity".to_owned(), message.to_owned()));
    }
    let taken: Vec<Claim> = here.flat_map(host_ports).collect();
    if host_ports(pod).iter().any(|wanted| taken.iter().any(|t| t.collides(wanted))) {
        let message = "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the \
                       requested pod ports";
        return Err(("NodePorts".to_owned(), message.to_owned()));
    }
    Ok(())
}

/// A port of the node that a pod wants for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Claim {
    port: i32,
    protocol: String,
    ip: String,
}

impl Claim {
    fn collides(&self, other: &Self) -> bool {
        let any = |ip: &str| ip.is_empty() || ip == "0.0.0.0" || ip == "::";
        self.port == other.port
            && self.protocol == other.protocol
            && (any(&self.ip) || any(&other.ip) || self.ip == other.ip)
    }
}

fn host_ports(pod: &Pod) -> Vec<Claim> {
    let spec = spec(pod);
    let host_network = spec.host_network == Some(true);
    let port = |p: &ContainerPort| {
        let port = p.host_port.filter(|p| *p > 0).or(host_network.then_some(p.container_port))?;
        Some(Claim {
            port,
            protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            ip: p.host_ip.clone().unwrap_or_default(),
        })
    };
    let sidecars =
        spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let all = spec.containers.iter().chain(sidecars);
    all.flat_map(|c| c.ports.iter().flatten()).filter_map(port).collect()
}

/// Whether the node is one that the pod selects.
fn matches(pod: &Pod, room: &Room) -> bool {
    let spec = spec(pod);
    let selected =
        spec.node_selector.iter().flatten().all(|(key, value)| room.labels.get(key) == Some(value));
    let required = spec
        .affinity
        .as_ref()
        .and_then(|a| a.node_affinity.as_ref())
        .and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_matches(term, room)))
}

fn term_matches(term: &NodeSelectorTerm, room: &Room) -> bool {
    let labels = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    // A term without requirements selects nothing.
    !(labels.is_empty() && fields.is_empty())
        && labels.iter().all(|r| requirement(r, room.labels.get(&r.key).map(String::as_str)))
        && fields
            .iter()
            .all(|r| requirement(r, (r.key == "metadata.name").then_some(room.node_name.as_str())))
}

fn requirement(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| values.iter().any(|w| w == v));
    let compare = |test: fn(&i64, &i64) -> bool| {
        let (own, bound) = (value.and_then(|v| v.parse().ok()), values.first().and_then(|v| v.parse().ok()));
        own.zip(bound).is_some_and(|(own, bound)| test(&own, &bound))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        let mut full = json!({"containers": []});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": full})).unwrap()
    }

    fn asks(cpu: &str) -> Pod {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}}]}))
    }

    fn room() -> Room {
        Room {
            cpu_milli: 2000,
            memory: 2 << 20,
            storage: 1 << 30,
            pods: 3,
            node_name: "n1".into(),
            labels: BTreeMap::from([("disk".into(), "ssd".into()), ("rank".into(), "7".into())]),
        }
    }

    fn reason(pod: &Pod, here: &[Pod]) -> String {
        admit(pod, here.iter(), &room()).map_or_else(|(reason, _)| reason, |()| "fits".to_owned())
    }

    #[test]
    fn resources() {
        assert_eq!(reason(&asks("1500m"), &[asks("500m")]), "fits");
        assert_eq!(reason(&asks("1501m"), &[asks("500m")]), "OutOfcpu");
        assert_eq!(reason(&asks("1m"), &[asks("1m"), asks("1m")]), "OutOfmemory");
        assert_eq!(reason(&pod(json!({})), &vec![pod(json!({})); 3]), "OutOfpods");
        assert_eq!(reason(&pod(json!({})), &[asks("9"), asks("9")]), "fits", "asks for nothing");
    }

    #[test]
    fn ports() {
        let port = |p: Value| pod(json!({"containers": [{"name": "c", "ports": [p]}]}));
        let web = port(json!({"containerPort": 80, "hostPort": 8080}));
        assert_eq!(reason(&web, std::slice::from_ref(&web)), "NodePorts");
        assert_eq!(reason(&port(json!({"containerPort": 80})), std::slice::from_ref(&web)), "fits");
        let udp = port(json!({"containerPort": 80, "hostPort": 8080, "protocol": "UDP"}));
        assert_eq!(reason(&udp, std::slice::from_ref(&web)), "fits");
        let one = port(json!({"containerPort": 80, "hostPort": 8080, "hostIP": "1.1.1.1"}));
        let two = port(json!({"containerPort": 80, "hostPort": 8080, "hostIP": "1.1.1.2"}));
        assert_eq!(reason(&one, std::slice::from_ref(&two)), "fits");
        assert_eq!(reason(&one, &[web]), "NodePorts");
    }

    #[test]
    fn selection() {
        assert_eq!(reason(&pod(json!({"nodeSelector": {"disk": "ssd"}})), &[]), "fits");
        assert_eq!(reason(&pod(json!({"nodeSelector": {"disk": "hdd"}})), &[]), "NodeAffinity");
        let affinity = |term: Value| {
            let pod = pod(json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}));
            reason(&pod, &[])
        };
        let label = |key: &str, operator: &str, values: Value| {
            affinity(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        assert_eq!(label("disk", "In", json!(["ssd", "nvme"])), "fits");
        assert_eq!(label("disk", "NotIn", json!(["ssd"])), "NodeAffinity");
        assert_eq!(label("gpu", "DoesNotExist", json!([])), "fits");
        assert_eq!(label("rank", "Gt", json!(["6"])), "fits");
        assert_eq!(label("rank", "Lt", json!(["6"])), "NodeAffinity");
        let field = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]});
        assert_eq!(affinity(field), "NodeAffinity");
        assert_eq!(affinity(json!({})), "NodeAffinity");
    }
}
