//! The agent against the real server and a node in memory: what a user of the cluster sees.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod};
use minik8s_reconcile::clock::Clock;
use minik8s_reconcile::request::{DeleteParams, Patch};
use minik8s_reconcile::storage::memory::MemoryStorage;
use minik8s_reconcile::{ApiServer, Client};
use minik8s_runtime::agent::{Agent, AgentConfig, AgentHandle};
use minik8s_runtime::fake::{Fake, Program};
use minik8s_runtime::runtime::{ContainerLabels, ContainerRuntime, ContainerSpec, ContainerState};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

struct Cluster {
    client: Client,
    node: Fake,
    clock: Clock,
    dir: tempfile::TempDir,
}

struct Running {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    handle: AgentHandle,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        self.task.await.expect("ends well");
    }
}

impl Cluster {
    async fn new() -> Self {
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let clock = Clock::tokio(start);
        let server = ApiServer::builder().clock(clock.clone()).build(MemoryStorage::new());
        server.bootstrap().await.expect("bootstrap");
        let for_node = clock.clone();
        let node = Fake::with_clock(move || for_node.now());
        node.add_image("i:1");
        Self { client: server.client(), node, clock, dir: tempfile::tempdir().unwrap() }
    }

    fn agent(&self) -> Running {
        let mut config = AgentConfig::default();
        config.addresses = vec!["10.0.0.1".parse().unwrap()];
        config.cpu_milli = Some(2000);
        config.memory = Some(1 << 30);
        config.pods_dir = self.dir.path().join("pods");
        config.logs_dir = self.dir.path().join("logs");
        config.clock = self.clock.clone();
        let seam = Arc::new(self.node.clone());
        let agent = Agent::new("n1", self.client.clone(), seam.clone(), seam.clone(), seam, config);
        let (stop, handle) = (CancellationToken::new(), agent.handle());
        let stopped = stop.clone();
        let task = tokio::spawn(agent.run(async move { stopped.cancelled().await }));
        Running { stop, task, handle }
    }

    async fn create(&self, name: &str, mut spec: Value) -> Arc<Pod> {
        spec["nodeName"] = json!("n1");
        let pod: Pod =
            serde_json::from_value(json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec}))
                .unwrap();
        self.client.namespaced::<Pod>("default").create(&pod).await.expect("create")
    }

    async fn pod(&self, name: &str) -> Option<Value> {
        let pod = self.client.namespaced::<Pod>("default").get_opt(name).await.expect("get");
        pod.map(|p| serde_json::to_value(&*p).unwrap())
    }

    async fn until(&self, name: &str, what: &str, holds: impl Fn(Option<&Value>) -> bool) -> Option<Value> {
        let waiting = async {
            loop {
                let pod = self.pod(name).await;
                if holds(pod.as_ref()) {
                    return pod;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(3600), waiting).await {
            Ok(pod) => pod,
            Err(_) => panic!("{name} never {what}: {:#?}\n{:?}", self.pod(name).await, self.node.calls()),
        }
    }

    async fn phase(&self, name: &str, phase: &str) -> Value {
        self.until(name, phase, |p| p.is_some_and(|p| p["status"]["phase"] == phase)).await.unwrap()
    }

    async fn gone(&self, name: &str) {
        self.until(name, "gone", |p| p.is_none()).await;
    }

    async fn delete(&self, name: &str, grace: i64) {
        let params = DeleteParams { grace_period_s: Some(grace), ..DeleteParams::default() };
        self.client.namespaced::<Pod>("default").delete(name, &params).await.expect("delete");
    }

    fn running(&self) -> Vec<String> {
        let running =
            |c: &minik8s_runtime::runtime::Container| matches!(c.state, ContainerState::Running { .. });
        self.node.containers().into_iter().filter(running).map(|c| c.id).collect()
    }

    /// Waits until nothing is left on the node.
    async fn empty(&self) {
        let waiting = async {
            while !self.node.containers().is_empty() || !self.node.attachments().is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(3600), waiting)
            .await
            .unwrap_or_else(|_| panic!("left: {:?}", self.node.containers()));
    }
}

fn simple() -> Value {
    json!({"containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent"}]})
}

#[tokio::test(start_paused = true)]
async fn a_pod_from_create_to_delete() {
    let c = Cluster::new().await;
    let agent = c.agent();
    c.create("p", simple()).await;
    let pod = c.phase("p", "Running").await;
    assert_eq!(pod["status"]["hostIP"], "10.0.0.1");
    let ready =
        pod["status"]["conditions"].as_array().unwrap().iter().find(|x| x["type"] == "Ready").unwrap();
    assert_eq!(ready["status"], "True");
    assert!(agent.handle.container("default", "p", "c", false).unwrap().running);
    c.delete("p", 30).await;
    c.gone("p").await;
    c.empty().await;
    assert!(agent.handle.pods().is_empty());
    let events = c.client.namespaced::<Event>("default").list(&Default::default()).await.unwrap();
    let reasons: Vec<_> = events.items.iter().filter_map(|e| e.reason.clone()).collect();
    for reason in ["Pulled", "Started", "Killing"] {
        assert!(reasons.iter().any(|r| r == reason), "{reasons:?}");
    }
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_node_reports_itself() {
    let c = Cluster::new().await;
    let agent = c.agent();
    let nodes = c.client.all::<Node>();
    let node = loop {
        match nodes.get_opt("n1").await.unwrap() {
            Some(node) if node.status.as_ref().is_some_and(|s| s.conditions.is_some()) => break node,
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let node = serde_json::to_value(&*node).unwrap();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(node["status"]["capacity"]["cpu"], "2");
    assert_eq!(node["status"]["allocatable"]["memory"], "1048576Ki");
    assert_eq!(node["status"]["nodeInfo"]["containerRuntimeVersion"], "fake://1");
    assert_eq!(node["status"]["addresses"][0]["address"], "10.0.0.1");
    let lease = async || c.client.namespaced::<Lease>("kube-node-lease").get("n1").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let renewed = |l: &Lease| l.spec.as_ref().unwrap().renew_time.clone().unwrap().0;
    let first = lease().await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert!(renewed(&*lease().await).duration_since(renewed(&first)).as_secs() >= 20);
    // A node that does not change is not written all the time.
    let version = |n: &Node| n.metadata.resource_version.clone();
    let before = version(&nodes.get("n1").await.unwrap());
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(version(&nodes.get("n1").await.unwrap()), before);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_node_writes_no_pods() {
    let c = Cluster::new().await;
    let agent = c.agent();
    c.create("p", simple()).await;
    c.phase("p", "Running").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = c.pod("p").await.unwrap()["metadata"]["resourceVersion"].clone();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(c.pod("p").await.unwrap()["metadata"]["resourceVersion"], before);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn containers_outlive_the_agent_and_are_adopted() {
    let c = Cluster::new().await;
    let agent = c.agent();
    c.create("p", simple()).await;
    c.phase("p", "Running").await;
    let (before, ids) = (c.pod("p").await, c.running());
    agent.end().await;
    assert_eq!(c.running(), ids, "left running");
    c.node.take_calls();
    let agent = c.agent();
    while agent.handle.find("default", "p").is_none_or(|p| p.netns.is_none()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(c.pod("p").await, before, "not even a write");
    assert_eq!(c.running(), ids);
    agent.end().await;
    // A pod that was deleted meanwhile is ended by the next agent; one that ended meanwhile is restarted.
    c.delete("p", 5).await;
    c.create("q", simple()).await;
    let agent = c.agent();
    c.gone("p").await;
    c.phase("q", "Running").await;
    agent.end().await;
    c.node.exit(&c.running()[0], 1);
    let agent = c.agent();
    c.until("q", "restarted", |p| {
        p.is_some_and(|p| p["status"]["containerStatuses"][0]["restartCount"] == 1)
    })
    .await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_server_does_not_know_is_removed() {
    let c = Cluster::new().await;
    let spec = ContainerSpec {
        id: "orphan".into(),
        image: "i:1".into(),
        labels: ContainerLabels {
            pod_uid: "gone".into(),
            pod_namespace: "default".into(),
            pod_name: "old".into(),
            container: "c".into(),
            ..ContainerLabels::default()
        },
        ..ContainerSpec::default()
    };
    c.node.create(&spec).await.unwrap();
    c.node.start("orphan").await.unwrap();
    let left = [c.dir.path().join("pods/gone/volumes"), c.dir.path().join("logs/default_old_gone/c")];
    for dir in &left {
        std::fs::create_dir_all(dir).unwrap();
    }
    let agent = c.agent();
    c.empty().await;
    while left.iter().any(|d| d.exists()) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn jobs_end_and_keep_their_logs() {
    let c = Cluster::new().await;
    c.node.set_program("i:1", Program { exits: Some(0), ..Program::default() });
    let agent = c.agent();
    let mut spec = simple();
    spec["restartPolicy"] = json!("Never");
    c.create("p", spec).await;
    let pod = c.phase("p", "Succeeded").await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    assert_eq!(c.node.containers().len(), 1);
    assert!(agent.handle.container("default", "p", "c", false).is_some());
    c.delete("p", 30).await;
    c.gone("p").await;
    c.empty().await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_full_says_so() {
    let c = Cluster::new().await;
    let agent = c.agent();
    let asks = |cpu: &str| {
        let mut spec = simple();
        spec["containers"][0]["resources"] = json!({"requests": {"cpu": cpu}});
        spec
    };
    c.create("a", asks("1500m")).await;
    c.phase("a", "Running").await;
    c.create("b", asks("600m")).await;
    let b = c.phase("b", "Failed").await;
    assert_eq!(b["status"]["reason"], "OutOfcpu");
    c.delete("a", 1).await;
    c.gone("a").await;
    c.create("d", asks("600m")).await;
    c.phase("d", "Running").await;
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn finalizers_keep_the_object_and_nothing_else() {
    let c = Cluster::new().await;
    let agent = c.agent();
    c.create("p", simple()).await;
    c.phase("p", "Running").await;
    let pods = c.client.namespaced::<Pod>("default");
    pods.patch("p", Patch::merge(&json!({"metadata": {"finalizers": ["x.io/y"]}}))).await.unwrap();
    c.delete("p", 1).await;
    c.empty().await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(c.pod("p").await.is_some());
    pods.patch("p", Patch::merge(&json!({"metadata": {"finalizers": null}}))).await.unwrap();
    c.gone("p").await;
    while !agent.handle.pods().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_replaced_under_its_name() {
    let c = Cluster::new().await;
    c.node.set_program("i:1", Program { on_signal: None, ..Program::default() });
    let agent = c.agent();
    let first = c.create("p", simple()).await;
    c.phase("p", "Running").await;
    c.delete("p", 0).await;
    c.gone("p").await;
    let second = c.create("p", simple()).await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
    c.phase("p", "Running").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(c.running().len(), 1, "the first one is gone");
    let labels = c.node.containers()[0].labels.clone();
    assert_eq!(Some(labels.pod_uid), second.metadata.uid);
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn mounted_files_follow_their_config_map() {
    let c = Cluster::new().await;
    let agent = c.agent();
    let maps = c.client.namespaced::<ConfigMap>("default");
    let map: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "m"}, "data": {"k": "1"}})).unwrap();
    maps.create(&map).await.unwrap();
    let mut spec = simple();
    spec["volumes"] = json!([{"name": "v", "configMap": {"name": "m"}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}]);
    c.create("p", spec).await;
    c.phase("p", "Running").await;
    let made = c.node.spec(&c.running()[0]).unwrap();
    let mount = made.mounts.iter().find(|m| m.container_path.ends_with("v")).unwrap();
    let file = mount.host_path.join("k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    maps.patch("m", Patch::merge(&json!({"data": {"k": "2"}}))).await.unwrap();
    let waiting = async {
        while std::fs::read_to_string(&file).unwrap() != "2" {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), waiting).await.expect("refreshed within its period");
    agent.end().await;
}

#[tokio::test(start_paused = true)]
async fn labels_that_users_give_the_node_count() {
    let c = Cluster::new().await;
    let agent = c.agent();
    let nodes = c.client.all::<Node>();
    while nodes.get_opt("n1").await.unwrap().is_none_or(|n| n.status.is_none()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    nodes.patch("n1", Patch::merge(&json!({"metadata": {"labels": {"disk": "ssd"}}}))).await.unwrap();
    let selects = |value: &str| {
        let mut spec = simple();
        spec["nodeSelector"] = json!({ "disk": value });
        spec
    };
    c.create("fits", selects("ssd")).await;
    c.phase("fits", "Running").await;
    c.create("not", selects("hdd")).await;
    assert_eq!(c.phase("not", "Failed").await["status"]["reason"], "NodeAffinity");
    agent.end().await;
}
