//! Workers over the node in memory and a server that knows no more than to keep one pod.

use minik8s_reconcile::clock::Clock;
use std::sync::Mutex;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use minik8s_api::{Kind, Registry};
use minik8s_reconcile::request::{ApiRequest, ApiResponse, Operation, Payload, ResponseBody};
use minik8s_reconcile::{ApiError, Client, Stored};
use serde_json::{Value, json};

use super::*;
use crate::agent::config::AgentConfig;
use crate::agent::directory::AgentHandle;
use crate::agent::events;
use crate::fake::{Fake, Op, Program, Strike};
use crate::runtime::{ContainerEvent, ContainerRuntime, ContainerState, RuntimeError};

/// The server: its pod, the phases it was told of, and whether it answers.
#[derive(Debug, Default)]
struct Server {
    pod: Option<Value>,
    version: u64,
    phases: Vec<String>,
    maps: Vec<(String, Value)>,
    away: bool,
}

impl Server {
    fn answer(&mut self, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        if self.away {
            return Err(ApiError::unavailable("away"));
        }
        let name = request.name.clone().unwrap_or_default();
        if request.kind.kind == "ConfigMap" {
            let found = self.maps.iter().find(|(n, _)| *n == name);
            let (_, map) = found.ok_or_else(|| ApiError::not_found(&request.kind, &name))?;
            return Ok(object(map, 1));
        }
        let Some(pod) = self.pod.as_mut() else {
            return Err(ApiError::not_found(&request.kind, &name));
        };
        match request.operation {
            Operation::Get => {}
            Operation::Update(Payload::Typed(new), _) => {
                assert_eq!(request.subresource.as_deref(), Some("status"));
                let new = new.to_value();
                if new["metadata"]["resourceVersion"] != pod["metadata"]["resourceVersion"] {
                    return Err(ApiError::conflict(&request.kind, &name, "it changed"));
                }
                pod["status"] = new["status"].clone();
                let phase = new["status"]["phase"].as_str().unwrap_or_default().to_owned();
                if self.phases.last() != Some(&phase) {
                    self.phases.push(phase);
                }
                self.version += 1;
                pod["metadata"]["resourceVersion"] = json!(self.version.to_string());
            }
            Operation::Delete(params) => {
                assert_eq!(params.uid.as_deref(), Some("u1"));
                assert_eq!(params.grace_period_s, Some(0));
                self.pod = None;
                return Ok(ResponseBody::Deleted { revision: 0, name, uid: "u1".into() }.into());
            }
            other => panic!("{other:?}"),
        }
        Ok(object(self.pod.as_ref().unwrap(), self.version))
    }
}

fn object(value: &Value, version: u64) -> ApiResponse {
    let object = Stored::new(value.to_string().into(), version);
    ResponseBody::Object { object, created: false }.into()
}

struct Bench {
    node: Fake,
    server: Arc<Mutex<Server>>,
    ctx: Arc<Context>,
    worker: WorkerHandle,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new(spec: Value) -> Self {
        Self::prepared(spec, |_, _| {}).await
    }

    async fn prepared(spec: Value, prepare: impl FnOnce(&Fake, &mut Server)) -> Self {
        let clock = Clock::tokio(Timestamp::from_second(1_800_000_000).unwrap());
        let for_node = clock.clone();
        let node = Fake::with_clock(move || for_node.now());
        node.add_image("i:1");
        let mut server = Server { version: 1, ..Server::default() };
        server.pod = Some(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u1", "resourceVersion": "1"}, "spec": spec
        }));
        prepare(&node, &mut server);
        let server = Arc::new(Mutex::new(server));
        let dir = tempfile::tempdir().unwrap();
        let ctx = context(&node, &server, clock, dir.path());
        let (worker, task) = begin(&ctx, &server, Vec::new(), false, &node);
        Self { node, server, ctx, worker, task, _dir: dir }
    }

    /// Ends the worker and begins another one that finds what there is.
    async fn restart(&mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
        let found = self.node.containers();
        let found = found.into_iter().map(|container| Found { container, message: String::new() }).collect();
        let attached = !self.node.attachments().is_empty();
        (self.worker, self.task) = begin(&self.ctx, &self.server, found, attached, &self.node);
    }

    fn pod(&self) -> Value {
        self.server.lock().unwrap().pod.clone().unwrap_or_default()
    }

    fn status(&self) -> Value {
        self.pod()["status"].clone()
    }

    /// Waits until the server's pod is so, in at most an hour of the test's time.
    async fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) {
        let waiting = async {
            while !holds(&self.pod()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(3600), waiting).await.is_err() {
            panic!("never {what}: {:#} {:?}", self.status(), self.node.calls());
        }
    }

    async fn phase(&self, phase: &str) {
        self.until(phase, |pod| pod["status"]["phase"] == phase).await;
    }

    fn delete(&self, grace: i64) {
        let mut server = self.server.lock().unwrap();
        server.version += 1;
        let version = server.version;
        let pod = server.pod.as_mut().unwrap();
        pod["metadata"]["deletionTimestamp"] = json!("2027-01-01T00:00:00Z");
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        pod["metadata"]["resourceVersion"] = json!(version.to_string());
        self.worker.tell(Input::Pod(Arc::new(serde_json::from_value(pod.clone()).unwrap())));
    }

    async fn over(&mut self) {
        tokio::time::timeout(Duration::from_secs(3600), &mut self.task).await.expect("ends").unwrap();
    }

    fn running(&self) -> Option<String> {
        let running = |c: &crate::runtime::Container| matches!(c.state, ContainerState::Running { .. });
        self.node.containers().into_iter().find(running).map(|c| c.id)
    }
}

fn context(node: &Fake, server: &Arc<Mutex<Server>>, clock: Clock, dir: &std::path::Path) -> Arc<Context> {
    let mut registry = Registry::empty();
    registry.register(Kind::of::<Pod>().status().build());
    registry.register(Kind::of::<ConfigMap>().build());
    registry.register(Kind::of::<Secret>().build());
    let server = server.clone();
    let service = tower::service_fn(move |request: ApiRequest| {
        let answer = server.lock().unwrap().answer(request);
        async move { answer }
    });
    let client = Client::new(service, Arc::new(registry));
    let (events, _) = events::events(client.clone(), "n1".to_owned());
    let seam = Arc::new(node.clone());
    let config = AgentConfig {
        addresses: vec!["10.0.0.1".parse().unwrap()],
        pods_dir: dir.join("pods"),
        logs_dir: dir.join("logs"),
        clock,
        ..AgentConfig::default()
    };
    Arc::new(Context::new("n1".into(), client, seam.clone(), seam.clone(), seam, config, events))
}

fn begin(
    ctx: &Arc<Context>,
    server: &Arc<Mutex<Server>>,
    found: Vec<Found>,
    attached: bool,
    node: &Fake,
) -> (WorkerHandle, tokio::task::JoinHandle<()>) {
    let pod = server.lock().unwrap().pod.clone().unwrap();
    let begin = Begin {
        pod: Arc::new(serde_json::from_value(pod).unwrap()),
        found,
        attached,
        refused: None,
        gone: false,
    };
    let (worker, handle) = Worker::new(ctx.clone(), begin);
    let mut events = node.events();
    let listener = handle.clone();
    let task = tokio::spawn(async move {
        let forward = async {
            use futures::StreamExt;
            while let Some(event) = events.next().await {
                listener.tell(match event {
                    ContainerEvent::Exited { id, exit } => Input::Exited(id, exit),
                    ContainerEvent::Resync => Input::Resync,
                });
            }
        };
        tokio::select! {
            () = worker.run() => {}
            () = forward => {}
        }
    });
    (handle, task)
}

fn simple() -> Value {
    json!({"containers": [{"name": "c", "image": "i:1", "command": ["run"]}]})
}

#[tokio::test(start_paused = true)]
async fn a_pod_lives_and_dies() {
    let mut b = Bench::new(simple()).await;
    b.phase("Running").await;
    let status = b.status();
    assert_eq!(status["podIP"], "10.244.0.2");
    assert_eq!(status["hostIP"], "10.0.0.1");
    assert_eq!(status["containerStatuses"][0]["ready"], true);
    let id = b.running().unwrap();
    let spec = b.node.spec(&id).unwrap();
    assert_eq!(spec.cgroup_parent, "/kubepods/besteffort/podu1");
    assert!(spec.log_path.ends_with("logs/ns_p_u1/c/0.log"));
    assert!(spec.mounts.iter().any(|m| m.container_path == std::path::Path::new("/etc/hosts")));
    let hosts = std::fs::read_to_string(b.ctx.config.pods_dir.join("u1/etc/hosts")).unwrap();
    assert!(hosts.contains("10.244.0.2\tp\n"));

    let handle = AgentHandle { directory: b.ctx.directory.clone() };
    let info = handle.container("ns", "p", "c", false).unwrap();
    assert_eq!((info.id.as_str(), info.running), (id.as_str(), true));
    assert!(handle.find("ns", "p").unwrap().netns.is_some());

    b.delete(30);
    b.over().await;
    assert!(b.server.lock().unwrap().pod.is_none());
    assert_eq!(b.server.lock().unwrap().phases, ["Pending", "Running", "Succeeded"]);
    assert!(b.node.containers().is_empty() && b.node.attachments().is_empty());
    assert!(!b.ctx.config.pods_dir.join("u1").exists() && !b.ctx.config.logs_dir.join("ns_p_u1").exists());
    assert!(handle.find("ns", "p").is_none());
}

#[tokio::test(start_paused = true)]
async fn one_that_ignores_its_signal_is_killed_in_time() {
    let stubborn = Program { on_signal: None, ..Program::default() };
    let mut b = Bench::prepared(simple(), |node, _| node.set_program("i:1", stubborn)).await;
    b.phase("Running").await;
    let began = b.ctx.config.clock.now();
    b.delete(5);
    b.over().await;
    let took = b.ctx.config.clock.now().duration_since(began).as_secs_f64();
    assert!((5.0..6.0).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn crashes_are_told_with_their_last_words() {
    let b = Bench::new(simple()).await;
    b.phase("Running").await;
    let words = b.ctx.config.pods_dir.join("u1/containers/c/0");
    std::fs::write(words, "out of luck").unwrap();
    b.node.exit(&b.running().unwrap(), 3);
    b.until("restarted", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    let last = b.status()["containerStatuses"][0]["lastState"]["terminated"].clone();
    assert_eq!((&last["exitCode"], &last["message"]), (&json!(3), &json!("out of luck")));
    b.until("up again", |pod| !pod["status"]["containerStatuses"][0]["state"]["running"].is_null()).await;
    b.node.oom(&b.running().unwrap());
    b.until("told of the OOM", |pod| {
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["reason"] == "OOMKilled"
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_new_worker_adopts_what_runs() {
    let mut b = Bench::new(simple()).await;
    b.phase("Running").await;
    b.node.exit(&b.running().unwrap(), 1);
    b.until("restarted", |pod| {
        pod["status"]["containerStatuses"][0]["restartCount"] == 1
            && !pod["status"]["containerStatuses"][0]["state"]["running"].is_null()
    })
    .await;
    let (before, id) = (b.status(), b.running().unwrap());
    b.node.take_calls();
    b.restart().await;
    let handle = AgentHandle { directory: b.ctx.directory.clone() };
    while handle.find("ns", "p").is_none_or(|p| p.netns.is_none()) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(b.status(), before);
    assert_eq!(b.running(), Some(id));
    let calls = b.node.calls();
    assert!(
        !calls.iter().any(|c| ["create", "start", "kill", "remove"].iter().any(|w| c.starts_with(w))),
        "{calls:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn lost_answers_make_no_second_container() {
    let lost = || RuntimeError::Unavailable("connection reset".into());
    let b = Bench::prepared(simple(), |node, _| {
        node.fail(Op::AttachNetwork, "", Strike::After, lost());
        node.fail(Op::Create, "", Strike::After, lost());
        node.fail(Op::Start, "", Strike::After, lost());
    })
    .await;
    b.phase("Running").await;
    assert_eq!(b.node.containers().len(), 1);
    assert_eq!(b.status()["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(b.node.attachments().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_is_told_later() {
    let mut b = Bench::prepared(simple(), |_, server| server.away = true).await;
    while b.running().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    b.server.lock().unwrap().away = false;
    b.phase("Running").await;
    assert_eq!(b.server.lock().unwrap().phases, ["Running"], "what is over is not told");
    b.server.lock().unwrap().away = true;
    b.delete(1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(b.node.containers().is_empty());
    b.server.lock().unwrap().away = false;
    b.over().await;
    assert!(b.server.lock().unwrap().pod.is_none());
}

#[tokio::test(start_paused = true)]
async fn configuration_that_comes_late() {
    let spec = json!({"containers": [{"name": "c", "image": "i:1", "env": [
        {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}]}]});
    let b = Bench::new(spec).await;
    b.until("told what is missing", |pod| {
        let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == "configmap \"m\" not found"
    })
    .await;
    b.server.lock().unwrap().maps.push(("m".into(), json!({"metadata": {"name": "m"}, "data": {"k": "v"}})));
    b.phase("Running").await;
    let spec = b.node.spec(&b.running().unwrap()).unwrap();
    assert_eq!(spec.env, [("A".to_owned(), "v".to_owned())]);
}

#[tokio::test(start_paused = true)]
async fn files_follow_their_source() {
    let spec = json!({
        "volumes": [{"name": "v", "configMap": {"name": "m"}}],
        "containers": [{"name": "c", "image": "i:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]});
    let map = |text: &str| ("m".to_owned(), json!({"metadata": {"name": "m"}, "data": {"k": text}}));
    let b = Bench::prepared(spec, |_, server| server.maps.push(map("1"))).await;
    b.phase("Running").await;
    let spec = b.node.spec(&b.running().unwrap()).unwrap();
    let mount = spec.mounts.iter().find(|m| m.container_path == std::path::Path::new("/v")).unwrap();
    let file = mount.host_path.join("k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    b.server.lock().unwrap().maps = vec![map("2")];
    tokio::time::sleep(Duration::from_secs(1)).await;
    b.worker.tell(Input::Refresh(b.ctx.config.clock.now()));
    while std::fs::read_to_string(&file).unwrap() != "2" {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn probes_and_hooks_reach_the_container() {
    let spec = json!({"containers": [{"name": "c", "image": "i:1",
        "lifecycle": {"postStart": {"exec": {"command": ["hello"]}}, "preStop": {"exec": {"command": ["bye"]}}},
        "startupProbe": {"exec": {"command": ["up"]}, "periodSeconds": 1},
        "readinessProbe": {"exec": {"command": ["ready"]}, "periodSeconds": 1},
        "livenessProbe": {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 2}}]});
    let said = Arc::new(Mutex::new(Vec::new()));
    let healthy = Arc::new(Mutex::new(true));
    let (log, health) = (said.clone(), healthy.clone());
    let mut b = Bench::prepared(spec, |node, _| {
        node.on_exec(move |_, exec| {
            log.lock().unwrap().push(exec.command[0].clone());
            let code = i32::from(exec.command[0] == "alive" && !*health.lock().unwrap());
            crate::fake::ExecResult { code, ..Default::default() }
        });
    })
    .await;
    b.until("ready", |pod| pod["status"]["containerStatuses"][0]["ready"] == true).await;
    let first: Vec<String> = said.lock().unwrap().iter().take(2).cloned().collect();
    assert_eq!(first, ["hello", "up"]);
    *healthy.lock().unwrap() = false;
    b.until("restarted", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    *healthy.lock().unwrap() = true;
    assert!(said.lock().unwrap().iter().any(|c| c == "bye"), "a container that is restarted gets its hook");
    b.until("ready again", |pod| pod["status"]["containerStatuses"][0]["ready"] == true).await;
    b.delete(10);
    b.over().await;
}

#[tokio::test(start_paused = true)]
async fn whatever_a_lost_answer_left_behind_goes_with_the_pod() {
    let mut b = Bench::new(simple()).await;
    b.phase("Running").await;
    // A container of the pod that nobody remembers making.
    let mut spec = b.node.spec(&b.running().unwrap()).unwrap();
    spec.id = "stray".into();
    b.node.create(&spec).await.unwrap();
    b.node.start("stray").await.unwrap();
    b.worker.tell(Input::Gone);
    b.over().await;
    assert!(b.node.containers().is_empty());
}
