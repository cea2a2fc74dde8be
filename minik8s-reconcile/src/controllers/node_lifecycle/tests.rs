use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use minik8s_api::Registry;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::heard::{Believed, Heard};
use super::outage::{Extent, Outage, Outages};
use super::readiness::Readiness;
use super::*;
use crate::client::Event;
use crate::request::{Patch, WatchParams};
use crate::storage::memory::MemoryStorage;
use crate::{ApiServer, Client, Manager};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time")
}

fn clock_at(second: i64) -> Clock {
    Clock::tokio(at(second))
}

/// A node with these statuses of its conditions, in order, since the epoch.
fn node(name: &str, ready: &str, spec: Value) -> Node {
    let conditions: Vec<_> = match ready {
        "" => Vec::new(),
        ready => [("Ready", ready), ("MemoryPressure", "False"), ("DiskPressure", "False"), ("PIDPressure", "False")]
            .map(|(type_, status)| json!({ "type": type_, "status": status, "lastTransitionTime": "1970-01-01T00:00:00Z" }))
            .to_vec(),
    };
    let node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "spec": spec,
        "status": { "conditions": conditions },
    });
    serde_json::from_value(node).expect("a node")
}

fn lifecycle() -> Lifecycle {
    let (clock, settings) = (clock_at(0), Settings::default());
    let kind = Registry::builtin().of::<Node>().expect("built in").clone();
    Lifecycle { kind, heard: Heard::new(clock.clone(), &settings), outages: Outages::new(clock, &settings) }
}

/// Carries plans out until there is nothing left to do.
fn settled(node: &Node, world: &World, now: i64) -> (Node, Option<Duration>) {
    let mut node = node.clone();
    for _ in 0..4 {
        let mut plan = lifecycle().plan(&node, world, at(now));
        match plan.changes.pop() {
            Some(Change::Update(object, _) | Change::UpdateStatus(object, _)) => {
                node = *object.downcast::<Node>().expect("a node");
            }
            Some(other) => panic!("{other}"),
            None => return (node, plan.requeue),
        }
    }
    panic!("it goes on and on: {node:?}");
}

/// `key:effect`, without what is common to all keys.
fn taints(node: &Node) -> Vec<String> {
    let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
    taints.map(|t| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect)).collect()
}

fn world(believed_until: i64, extent: Extent, not_before: i64) -> World {
    let outage = Outage { extent, not_before: at(not_before) };
    World { believed_until: at(believed_until), outage: Some(outage) }
}

#[tokio::test]
async fn a_silent_node_is_unknown_and_given_up() {
    let up = node("a", "True", json!({ "taints": [{ "key": "gpu", "effect": "NoSchedule" }] }));
    let (same, wait) = settled(&up, &world(10, Extent::Some, 0), 5);
    assert_eq!((same, wait), (up.clone(), Some(Duration::from_secs(1))), "it is looked at often");
    let late = Timestamp::from_millisecond(9_500).expect("a time");
    let plan = lifecycle().plan(&up, &world(10, Extent::Some, 0), late);
    assert_eq!((plan.changes.len(), plan.requeue), (0, Some(Duration::from_millis(500))));

    let (down, wait) = settled(&up, &world(10, Extent::Some, 0), 10);
    assert_eq!(taints(&down), ["gpu:NoSchedule", "unreachable:NoSchedule", "unreachable:NoExecute"]);
    assert_eq!(wait, None);
    for type_ in CONDITIONS {
        let condition = condition(&down, type_).expect("a condition");
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_deref()),
            ("Unknown", Some("NodeStatusUnknown"))
        );
        assert_eq!(condition.last_transition_time, Some(stamp(at(10))));
    }
    let ending =
        down.spec.as_ref().expect("a spec").taints.iter().flatten().find(|t| t.effect == "NoExecute");
    assert_eq!(ending.expect("a taint").time_added, Some(stamp(at(10))));

    // It says something again, first that it is not well.
    let mut back = node("a", "False", json!({}));
    back.spec = down.spec.clone();
    let (back, _) = settled(&back, &world(30, Extent::Some, 99), 20);
    assert_eq!(taints(&back), ["gpu:NoSchedule", "not-ready:NoSchedule", "not-ready:NoExecute"]);
    let ending =
        back.spec.as_ref().expect("a spec").taints.iter().flatten().find(|t| t.effect == "NoExecute");
    assert_eq!(
        ending.expect("a taint").time_added,
        Some(stamp(at(10))),
        "since it was down, not since it said so"
    );
    let well = Node { status: node("a", "True", json!({})).status, ..back };
    let (well, _) = settled(&well, &World { believed_until: at(30), outage: None }, 21);
    assert_eq!(taints(&well), ["gpu:NoSchedule"]);
}

#[tokio::test]
async fn a_node_that_never_spoke_has_nothing_to_give_up() {
    let new = node(
        "a",
        "",
        json!({ "taints": [{ "key": "node.kubernetes.io/not-ready", "effect": "NoSchedule" }] }),
    );
    let (same, _) = settled(&new, &world(15, Extent::Some, 0), 1);
    assert_eq!(same, new, "it is awaited");
    let (down, _) = settled(&new, &world(15, Extent::Some, 0), 15);
    let ready = condition(&down, "Ready").expect("a condition");
    assert_eq!(ready.reason.as_deref(), Some("NodeStatusNeverUpdated"));
    let (up, _) = settled(
        &node("a", "True", json!({ "taints": new.spec.expect("a spec").taints })),
        &world(15, Extent::Some, 0),
        2,
    );
    assert_eq!(taints(&up), [""; 0]);
}

#[tokio::test]
async fn conditions_and_cordons_are_taints() {
    let mut sick = node("a", "True", json!({ "unschedulable": true }));
    for condition in sick.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()) {
        condition.status = "True".to_owned();
    }
    let believed = World { believed_until: at(9), outage: None };
    let (sick, _) = settled(&sick, &believed, 0);
    assert_eq!(
        taints(&sick),
        [
            "memory-pressure:NoSchedule",
            "disk-pressure:NoSchedule",
            "pid-pressure:NoSchedule",
            "unschedulable:NoSchedule"
        ]
    );
    let spec =
        k8s_openapi::api::core::v1::NodeSpec { unschedulable: None, ..sick.spec.clone().expect("a spec") };
    let well = Node { spec: Some(spec), ..node("a", "True", json!({})) };
    assert_eq!(taints(&settled(&well, &believed, 0).0), [""; 0]);
    // Of a taint that somebody else added it is said since when.
    let own = node("a", "True", json!({ "taints": [{ "key": "mine", "effect": "NoExecute" }] }));
    let (own, _) = settled(&own, &believed, 5);
    let taint = &own.spec.expect("a spec").taints.expect("taints")[0];
    assert_eq!((taint.key.as_str(), taint.time_added.clone()), ("mine", Some(stamp(at(5)))));
}

#[tokio::test]
async fn large_outages_give_nobody_up() {
    let down = node("a", "Unknown", json!({}));
    let given_up = |extent, not_before, now| {
        let (node, wait) = settled(&down, &world(0, extent, not_before), now);
        (taints(&node).contains(&"unreachable:NoExecute".to_owned()), wait)
    };
    assert_eq!(given_up(Extent::Some, 0, 5), (true, None));
    assert_eq!(given_up(Extent::Some, 8, 5), (false, Some(Duration::from_secs(3))), "one after the other");
    assert_eq!(given_up(Extent::Most, 0, 5), (false, None));
    assert_eq!(given_up(Extent::All, 0, 5), (false, None));
    let (gone, _) = settled(&down, &world(0, Extent::Some, 0), 5);
    assert!(
        taints(&settled(&gone, &world(0, Extent::Most, 0), 6).0)
            .contains(&"unreachable:NoExecute".to_owned())
    );
    assert!(
        taints(&settled(&gone, &world(0, Extent::Some, 99), 6).0)
            .contains(&"unreachable:NoExecute".to_owned())
    );
    assert_eq!(taints(&settled(&gone, &world(0, Extent::All, 0), 6).0), ["unreachable:NoSchedule"]);
}

#[tokio::test(start_paused = true)]
async fn outages_are_counted_by_zone_and_nodes_given_up_in_turn() {
    let in_zone = |name: &str, zone: &str, ready: &str, given_up: Option<i64>| {
        let mut node = node(name, ready, json!({}));
        node.metadata.labels = Some([("topology.kubernetes.io/zone".to_owned(), zone.to_owned())].into());
        if let Some(second) = given_up {
            let taint = json!({ "key": "node.kubernetes.io/unreachable", "effect": "NoExecute", "timeAdded": at(second).to_string() });
            node.spec = serde_json::from_value(json!({ "taints": [taint] })).expect("a spec");
        }
        Arc::new(node)
    };
    let outages = Outages::new(clock_at(100), &Settings::default());
    let believed = Believed { since: at(90), until: at(94) }; // silent for long
    let around = |nodes: &[Arc<Node>]| outages.around(&nodes[0], believed, nodes, |_, _| true);
    let (down, up) = (|n: &str| in_zone(n, "z", "Unknown", None), |n: &str| in_zone(n, "z", "True", None));
    let first = around(&[down("a"), up("b"), up("c")]);
    assert_eq!(first, Outage { extent: Extent::Some, not_before: at(115) }, "this has only just begun");
    assert_eq!(around(&[down("a"), down("b"), up("c")]).extent, Extent::Some, "two are no outage");
    assert_eq!(around(&[down("a"), down("b"), down("c"), up("d"), up("e")]).extent, Extent::Most);
    assert_eq!(around(&[down("a"), down("b"), down("c"), up("d"), up("e"), up("f")]).extent, Extent::Some);
    let elsewhere = in_zone("x", "other", "True", None);
    assert_eq!(
        around(&[down("a"), down("b"), down("c"), elsewhere]).extent,
        Extent::Some,
        "the zone's own affair"
    );
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(around(&[down("a"), in_zone("b", "z", "Unknown", Some(158)), up("c")]).not_before, at(168));
    assert_eq!(
        around(&[down("a"), in_zone("b", "other", "Unknown", Some(158)), up("c")]).not_before,
        at(115)
    );
    // The others have not been heard of lately either: wait and see.
    let silent = |_: Timestamp, n: &Node| n.metadata.name.as_deref() == Some("d");
    let doubtful = [down("a"), up("b"), up("c"), up("d")];
    let doubt = |until| Outage { extent: Extent::Some, not_before: until };
    let half_a_second = at(160).checked_add(SignedDuration::from_millis(500)).expect("a time");
    assert_eq!(outages.around(&doubtful[0], believed, &doubtful, silent), doubt(half_a_second));
    assert_eq!(
        outages.around(&doubtful[0], believed, &[down("a"), up("c"), up("d")], silent),
        doubt(at(115)),
        "two are no outage"
    );
    // All of them, and then not any more: who is still away gets time.
    assert_eq!(around(&[down("a"), down("b")]).extent, Extent::All);
    tokio::time::advance(Duration::from_secs(60)).await;
    let after = Outage { extent: Extent::Some, not_before: at(220 + 15) };
    assert_eq!(around(&[down("a"), up("b")]), after);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(around(&[down("a"), up("b")]), after, "it is counted from the end of the outage");
}

#[tokio::test(start_paused = true)]
async fn signs_of_life_count_and_not_what_clocks_say() {
    let heard = Heard::new(clock_at(1000), &Settings::default());
    let lease = |renewed: i64, seconds: i32| {
        let mut lease = Lease::default();
        let spec = lease.spec.get_or_insert_default();
        spec.renew_time = Some(MicroTime(at(renewed)));
        spec.lease_duration_seconds = Some(seconds);
        lease
    };
    let until = |node: &Node, lease: Option<&Lease>| heard.note(node, lease).until;
    let a = node("a", "True", json!({}));
    // Somebody looks all the time.
    let other = node("other", "True", json!({}));
    let pass = async |seconds: u64| {
        for _ in 0..seconds {
            tokio::time::advance(Duration::from_secs(1)).await;
            heard.note(&other, None);
        }
    };
    assert_eq!(until(&a, None), at(1015), "who begins to watch gives everybody time");
    pass(5).await;
    assert_eq!(until(&a, None), at(1015));
    // A clock that is hours off is as good as any.
    assert_eq!(until(&a, Some(&lease(50_000, 4))), at(1009));
    pass(2).await;
    assert_eq!(until(&a, Some(&lease(50_000, 4))), at(1009), "no news");
    assert_eq!(until(&a, Some(&lease(40_000, 4))), at(1011), "another time, another sign");
    assert_eq!(until(&a, Some(&lease(40_001, 40))), at(1047), "it asks to be believed for longer");
    let mut posted = a.clone();
    posted.status.as_mut().expect("a status").conditions.as_mut().expect("conditions")[0]
        .last_heartbeat_time = Some(stamp(at(7)));
    pass(1).await;
    assert_eq!(until(&posted, Some(&lease(40_001, 4))), at(1012), "a status is a sign as well");
    heard.forget("a");
    assert_eq!(until(&posted, None), at(1023), "one of the same name is another node");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_listen_hears_no_silence() {
    let heard = Heard::new(clock_at(1000), &Settings::default());
    let (a, b) = (node("a", "True", json!({})), node("b", "True", json!({})));
    let mut lease = Lease::default();
    heard.note(&a, None);
    lease.spec.get_or_insert_default().renew_time = Some(MicroTime(at(1)));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(heard.note(&a, Some(&lease)).until, at(1005));
    // This process is held up for a minute, and looks at another node first.
    tokio::time::advance(Duration::from_secs(60)).await;
    heard.note(&b, None);
    assert_eq!(heard.note(&a, Some(&lease)).until, at(1065));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(heard.note(&a, Some(&lease)), Believed { since: at(1061), until: at(1065) });
}

#[test]
fn pods_of_a_silent_node_are_not_ready() {
    let planner = Readiness { kind: Registry::builtin().of::<Pod>().expect("built in").clone() };
    let pod = |status: &str, since: i64| -> Pod {
        let ready = json!({ "type": "Ready", "status": status, "lastTransitionTime": at(since).to_string() });
        serde_json::from_value(json!({
            "metadata": { "name": "p", "namespace": "default" }, "spec": { "nodeName": "a", "containers": [] },
            "status": { "phase": "Running", "conditions": [ready] },
        }))
        .expect("a pod")
    };
    let mut silent = node("a", "Unknown", json!({}));
    for condition in silent.status.iter_mut().flat_map(|s| s.conditions.iter_mut().flatten()) {
        condition.last_transition_time = Some(stamp(at(100)));
    }
    let silent = Some(Arc::new(silent));
    let plan = planner.plan(&pod("True", 50), &silent, at(101));
    let [Change::UpdateStatus(object, _)] = plan.changes.as_slice() else { panic!("{plan:?}") };
    let unready = object.downcast_ref::<Pod>().expect("a pod");
    let ready = &unready.status.as_ref().expect("a status").conditions.as_ref().expect("conditions")[0];
    assert_eq!((ready.status.as_str(), ready.reason.as_deref()), ("False", Some("NodeNotReady")));
    assert!(planner.plan(unready, &silent, at(102)).changes.is_empty());
    assert!(
        planner.plan(&pod("True", 100), &silent, at(101)).changes.is_empty(),
        "the agent has said so since"
    );
    let up = Some(Arc::new(node("a", "True", json!({}))));
    for world in [up, Some(Arc::new(node("a", "False", json!({})))), None] {
        assert!(planner.plan(&pod("True", 50), &world, at(101)).changes.is_empty());
    }
}

/// Everything together, on a server.
struct Cluster {
    client: Client,
    stop: CancellationToken,
    manager: tokio::task::JoinHandle<()>,
}

impl Cluster {
    async fn start() -> Self {
        let clock = clock_at(1_000_000);
        let server = ApiServer::builder().clock(clock.clone()).build(MemoryStorage::new());
        server.bootstrap().await.expect("bootstrap");
        let (registry, stop) = (server.registry(), CancellationToken::new());
        let manager = Manager::new(server.client())
            .clock(clock.clone())
            .controller(controller(&registry, clock, Settings::default()))
            .controller(readiness::controller(&registry))
            .controller(crate::controllers::taint_eviction::controller(&registry));
        let manager = tokio::spawn(manager.run(stop.clone()));
        Self { client: server.client(), stop, manager }
    }

    /// A node that says that it is ready.
    async fn node(&self, name: &str) {
        self.client.all::<Node>().create(&node(name, "", json!({}))).await.expect("a node");
        self.post(name, "True").await;
    }

    async fn post(&self, name: &str, ready: &str) {
        let status = node(name, ready, json!({})).status;
        let patch = Patch::merge(&json!({ "status": status }));
        self.client.all::<Node>().patch_status(name, patch).await.expect("a status");
    }

    async fn renew(&self, name: &str, second: i64) {
        let leases = self.client.namespaced::<Lease>(LEASES);
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.to_owned());
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(at(second)));
        leases.apply(name, "agent", &lease, true).await.expect("a lease");
    }

    async fn pod(&self, name: &str, node: &str, seconds: i64) {
        let toleration = json!({ "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds });
        let pod = json!({
            "metadata": { "name": name },
            "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i" }], "tolerations": [toleration] },
        });
        let pods = self.client.namespaced::<Pod>("default");
        pods.create(&serde_json::from_value(pod).expect("a pod")).await.expect("created");
        let status = json!({ "status": { "phase": "Running", "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:00Z" },
        ] } });
        pods.patch_status(name, Patch::merge(&status)).await.expect("a status");
    }

    async fn until<K: minik8s_api::Resource>(&self, name: &str, wanted: impl Fn(&K) -> bool) -> Arc<K> {
        let params = WatchParams {
            field_selector: format!("metadata.name={name}"),
            send_initial_events: true,
            bookmarks: true,
            ..WatchParams::default()
        };
        let mut events = self.client.all::<K>().watch(&params).await.expect("a watch");
        let found = async {
            while let Some(event) = events.next().await {
                match event.expect("an event") {
                    Event::Applied(object) if wanted(&object) => return object,
                    _ => {}
                }
            }
            panic!("the watch ended");
        };
        tokio::time::timeout(Duration::from_secs(600), found).await.expect("in time")
    }

    async fn end(self) {
        self.stop.cancel();
        self.manager.await.expect("the manager ends");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_dies_and_comes_back() {
    let cluster = Cluster::start().await;
    let began = tokio::time::Instant::now();
    for name in ["a", "b", "c"] {
        cluster.node(name).await;
        cluster.until::<Node>(name, |n| taints(n).is_empty()).await;
    }
    cluster.pod("brief", "a", 0).await;
    cluster.pod("patient", "a", 30).await;
    cluster.pod("elsewhere", "b", 0).await;
    // Everybody is heard of for half a minute, and then one is not any more.
    let mut beat = 0;
    while began.elapsed() < Duration::from_secs(30) {
        for name in ["a", "b", "c"] {
            cluster.renew(name, beat).await;
        }
        beat += 1;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let silent = tokio::time::Instant::now();
    let others = async {
        for beat in beat.. {
            for name in ["b", "c"] {
                cluster.renew(name, beat).await;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let story = async {
        cluster.until::<Node>("a", |n| status_of(n, "Ready") == Some("Unknown")).await;
        assert!(silent.elapsed() < Duration::from_secs(5), "{:?}", silent.elapsed());
        let down = cluster.until::<Node>("a", |n| taints(n).len() == 2).await;
        assert_eq!(taints(&down), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
        let brief = cluster.until::<Pod>("brief", |p| p.metadata.deletion_timestamp.is_some()).await;
        let conditions = brief.status.clone().expect("a status").conditions.expect("conditions");
        let target = conditions.iter().find(|c| c.type_ == "DisruptionTarget").expect("a condition");
        assert_eq!(target.reason.as_deref(), Some("DeletionByTaintManager"));
        assert!(silent.elapsed() < Duration::from_secs(7), "{:?}", silent.elapsed());
        let unready = |p: &Pod| !crate::controllers::disruption::is_ready(p);
        let patient = cluster.until::<Pod>("patient", unready).await;
        assert!(patient.metadata.deletion_timestamp.is_none());
        cluster.until::<Pod>("patient", |p| p.metadata.deletion_timestamp.is_some()).await;
        let waited = SignedDuration::try_from(silent.elapsed()).expect("short").as_secs();
        assert!((33..38).contains(&waited), "{waited} s");
        // They wait for their node to end them.
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(cluster.client.namespaced::<Pod>("default").get("brief").await.is_ok());
        cluster.renew("a", -1).await;
        cluster.post("a", "True").await;
        cluster.until::<Node>("a", |n| taints(n).is_empty()).await;
        let elsewhere = cluster.client.namespaced::<Pod>("default").get("elsewhere").await.expect("a pod");
        assert!(elsewhere.metadata.deletion_timestamp.is_none());
    };
    tokio::select! {
        () = story => {}
        () = others => unreachable!("it goes on for ever"),
    }
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn when_all_are_silent_nobody_is_given_up() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        cluster.node(name).await;
        cluster.renew(name, 1).await;
    }
    cluster.pod("p", "a", 0).await;
    for name in ["a", "b"] {
        cluster.until::<Node>(name, |n| status_of(n, "Ready") == Some("Unknown")).await;
    }
    tokio::time::sleep(Duration::from_secs(3600)).await;
    for name in ["a", "b"] {
        let node = cluster.client.all::<Node>().get(name).await.expect("a node");
        assert_eq!(taints(&node), ["unreachable:NoSchedule"]);
    }
    let pod = cluster.client.namespaced::<Pod>("default").get("p").await.expect("a pod");
    assert!(pod.metadata.deletion_timestamp.is_none());
    // Nothing more is written.
    let revision = async || {
        let list = cluster.client.all::<Node>().list(&Default::default()).await.expect("a list");
        list.revision
    };
    let before = revision().await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(revision().await, before);
    cluster.end().await;
}
