//! What Kubernetes promises of a pod, one story each.

use std::sync::Arc;

use jiff::SignedDuration;
use serde_json::json;

use super::super::{Action, ImageError, Outcome, ProbeKind, StartError};
use super::world::{World, at, pod};

fn two() -> World {
    World::new(pod(json!({"containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]})))
}

fn one(policy: &str) -> World {
    World::new(pod(json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})))
}

#[test]
fn a_pod_comes_up() {
    let mut w = two();
    let first = w.step();
    assert_eq!(first.actions, [Action::Prepare, Action::Attach]);
    assert_eq!((w.phase(), w.waiting("a").as_str()), ("Pending", "ContainerCreating"));
    w.settle();
    assert_eq!(w.phase(), "Running");
    assert_eq!(w.started, [("a".to_owned(), 0), ("b".to_owned(), 0)]);
    for condition in ["PodScheduled", "PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready"]
    {
        assert_eq!(w.condition(condition), "True", "{condition}");
    }
    let status = w.status().clone();
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.0.5"));
    assert_eq!(status.host_ip.as_deref(), Some("10.0.0.1"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.observed_generation, Some(1));
    assert!(w.container("a").container_id.as_deref().unwrap().starts_with("containerd://"));
    assert_eq!(w.container("a").image_id, "img@sha256:1");
}

#[test]
fn the_first_container_makes_the_namespaces_and_the_others_join_it() {
    let mut w = two();
    w.hold = |a| matches!(a, Action::Start(_));
    w.settle();
    assert_eq!(w.pending.len(), 1, "the second one waits for the first one's process");
    w.hold = |_| false;
    let Some(Action::Start(first)) = w.pending.pop_front() else { panic!() };
    assert_eq!(first.join_pid, None);
    w.obey(Action::Start(first));
    let step = w.step();
    let [Action::Start(second)] = step.actions.as_slice() else { panic!("{:?}", step.actions) };
    assert_eq!(second.join_pid, Some(101));
}

#[test]
fn a_vanished_namespace_is_not_the_containers_fault() {
    let mut w = two();
    w.hold = |a| matches!(a, Action::Start(s) if s.container == "b");
    w.settle();
    w.exit("a", 1);
    let Some(Action::Start(b)) = w.pending.pop_front() else { panic!() };
    let result = Err(StartError::Create("no such process".into()));
    w.fsm.done(Outcome::Started { container: "b".into(), id: b.id, result }, w.now);
    w.hold = |_| false;
    w.settle();
    assert_eq!(w.phase(), "Running");
    assert_eq!(w.container("b").restart_count, 0);
}

#[test]
fn a_vanished_namespace_may_be_news() {
    let mut w = two();
    w.hold = |a| matches!(a, Action::Start(s) if s.container == "b");
    w.settle();
    let Some(Action::Start(b)) = w.pending.pop_front() else { panic!() };
    let result = Err(StartError::Vanished);
    w.fsm.done(Outcome::Started { container: "b".into(), id: b.id, result }, w.now);
    // It makes its own namespaces now, though "a" still passes for running.
    let step = w.step();
    let [Action::Start(again)] = step.actions.as_slice() else { panic!("{:?}", step.actions) };
    assert_eq!(again.join_pid, None);
    w.hold = |_| false;
    w.exit("a", 1);
    w.settle();
    assert_eq!(w.phase(), "Running");
    assert_eq!(w.container("b").restart_count, 0);
}

#[test]
fn init_containers_go_first_and_in_order() {
    let mut w = World::new(pod(json!({
        "initContainers": [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]
    })));
    w.settle();
    assert_eq!(w.live(), ["i1"]);
    assert_eq!((w.phase(), w.waiting("a").as_str()), ("Pending", "PodInitializing"));
    assert_eq!(w.condition("Initialized"), "False");
    w.exit("i1", 1);
    w.settle();
    assert_eq!(w.container("i1").restart_count, 1);
    w.exit("i1", 0);
    w.settle();
    assert_eq!(w.live(), ["i2"]);
    w.exit("i2", 0);
    w.settle();
    assert_eq!((w.live(), w.phase()), (vec!["a".to_owned()], "Running"));
    assert_eq!(w.condition("Initialized"), "True");
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let mut w = World::new(pod(json!({
        "restartPolicy": "Never",
        "initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]
    })));
    w.settle();
    w.exit("i", 3);
    w.settle();
    assert_eq!(w.phase(), "Failed");
    assert!(!w.attached && !w.volumes);
    assert_eq!(w.started.len(), 1);
}

#[test]
fn sidecars_start_first_stay_up_and_end_last_in_reverse() {
    let mut w = World::new(pod(json!({
        "restartPolicy": "Never",
        "initContainers": [
            {"name": "s1", "image": "i", "restartPolicy": "Always",
             "startupProbe": {"tcpSocket": {"port": 1}}},
            {"name": "s2", "image": "i", "restartPolicy": "Always"},
            {"name": "i", "image": "i"}
        ],
        "containers": [{"name": "a", "image": "i"}]
    })));
    w.settle();
    assert_eq!(w.live(), ["s1"], "the next waits until the sidecar has started");
    let id = w.running("s1").unwrap();
    w.fsm.probed(&id, ProbeKind::Startup, true, w.now);
    w.settle();
    w.exit("s2", 1);
    w.settle();
    assert_eq!(w.container("s2").restart_count, 1, "a sidecar is restarted even under Never");
    w.exit("i", 0);
    w.settle();
    assert_eq!(w.phase(), "Running");
    w.signals.clear();
    w.exit("a", 0);
    w.settle();
    assert_eq!(w.signals, ["s2 15", "s1 15"]);
    assert_eq!(w.phase(), "Succeeded");
    assert_eq!(w.condition("Ready"), "False");
}

#[test]
fn crashes_back_off() {
    let mut w = one("Always");
    w.settle();
    w.exit("a", 1);
    w.settle();
    assert_eq!(w.container("a").restart_count, 1, "the first restart is immediate");
    w.exit("a", 1);
    w.settle();
    assert_eq!((w.waiting("a").as_str(), w.phase()), ("CrashLoopBackOff", "Running"));
    let last = w.container("a").last_state.clone().unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
    w.pass(9);
    assert!(w.live().is_empty());
    w.pass(1);
    assert_eq!(w.container("a").restart_count, 2);
    assert_eq!(w.containers.len(), 2, "the last ended one is kept, older ones go");
}

#[test]
fn on_failure_ends_with_success() {
    let mut w = one("OnFailure");
    w.settle();
    w.exit("a", 1);
    w.settle();
    assert_eq!(w.phase(), "Running");
    w.exit("a", 0);
    w.settle();
    assert_eq!(w.phase(), "Succeeded");
    assert!(!w.attached, "the address goes back");
    assert_eq!(w.status().pod_ip.as_deref(), Some("10.244.0.5"), "but stays in the status");
    assert_eq!(w.containers.len(), 2, "the logs stay");
    let state = w.container("a").state.clone().unwrap().terminated.unwrap();
    assert_eq!(state.reason.as_deref(), Some("Completed"));
}

#[test]
fn never_fails_with_the_exit_code() {
    let mut w = one("Never");
    w.settle();
    w.exit("a", 7);
    w.settle();
    assert_eq!(w.phase(), "Failed");
    assert_eq!(w.started.len(), 1);
}

#[test]
fn pulls_back_off() {
    let mut w = one("Always");
    w.image_error = Some(ImageError::Pull("no route".into()));
    w.settle();
    assert_eq!(w.waiting("a"), "ErrImagePull");
    w.pass(1);
    assert_eq!(w.waiting("a"), "ImagePullBackOff");
    w.pass(9);
    assert_eq!(w.waiting("a"), "ErrImagePull");
    w.image_error = None;
    w.pass(19);
    assert!(w.live().is_empty());
    w.pass(1);
    assert_eq!(w.phase(), "Running");
    for (error, reason) in [
        (ImageError::NeverPull(String::new()), "ErrImageNeverPull"),
        (ImageError::InvalidName(String::new()), "InvalidImageName"),
    ] {
        let mut w = one("Always");
        w.image_error = Some(error);
        w.settle();
        assert_eq!((w.waiting("a").as_str(), w.phase()), (reason, "Pending"));
    }
}

#[test]
fn missing_configuration_is_waited_for() {
    let mut w = one("Never");
    w.start_errors.insert("a".into(), StartError::Config("configmap \"c\" not found".into()));
    w.settle();
    assert_eq!((w.waiting("a").as_str(), w.phase()), ("CreateContainerConfigError", "Pending"));
    w.pass(1);
    w.start_errors.clear();
    w.pass(2);
    assert_eq!((w.phase(), w.container("a").restart_count), ("Running", 0));
}

#[test]
fn a_program_that_does_not_exist() {
    let mut w = one("Never");
    w.start_errors.insert("a".into(), StartError::Start("exec: \"nope\": not found".into()));
    w.settle();
    assert_eq!(w.phase(), "Failed");
    let state = w.container("a").state.clone().unwrap().terminated.unwrap();
    assert_eq!((state.exit_code, state.reason.as_deref()), (128, Some("StartError")));

    let mut w = one("Always");
    w.start_errors.insert("a".into(), StartError::Start("exec: \"nope\": not found".into()));
    w.settle();
    assert_eq!(w.waiting("a"), "CrashLoopBackOff");
    assert_eq!(w.container("a").restart_count, 1);
}

#[test]
fn deletion_is_graceful_then_not() {
    let mut w = one("Always");
    w.stubborn = vec!["a".into()];
    w.settle();
    w.delete(30);
    w.settle();
    assert_eq!(w.signals, ["a 15"]);
    w.pass(29);
    assert_eq!(w.signals.len(), 1);
    assert!(!w.pass(1).finished || w.signals.len() == 2);
    let step = w.settle();
    assert_eq!(w.signals, ["a 15", "a 9"]);
    assert!(step.finished);
    assert!(w.containers.is_empty() && !w.attached && !w.volumes);
    assert_eq!(w.container("a").state.clone().unwrap().terminated.unwrap().exit_code, 137);
    assert_eq!(w.phase(), "Failed");
}

#[test]
fn a_second_deletion_may_shorten_the_grace() {
    let mut w = one("Always");
    w.stubborn = vec!["a".into()];
    w.settle();
    w.delete(600);
    w.settle();
    w.pass(5);
    w.delete(2);
    w.settle();
    assert!(w.pass(2).finished);
}

#[test]
fn a_pod_removed_by_force_ends_within_a_second() {
    let mut w = one("Always");
    w.stubborn = vec!["a".into()];
    w.settle();
    w.fsm.gone(w.now);
    w.settle();
    assert!(w.pass(1).finished);
}

#[test]
fn pre_stop_hooks_count_towards_the_grace() {
    let mut w = World::new(pod(json!({"containers": [
        {"name": "a", "image": "i", "lifecycle": {"preStop": {"sleep": {"seconds": 100}}}}
    ]})));
    w.stubborn = vec!["a".into()];
    w.settle();
    w.hold = |a| matches!(a, Action::Hook { .. });
    w.delete(10);
    w.settle();
    assert!(w.signals.is_empty());
    w.pass(10);
    assert_eq!(w.signals, ["a 15"], "the hook's time is up, the container gets its signal");
    w.pass(1);
    assert_eq!(w.signals.len(), 1);
    assert!(w.pass(1).finished, "and two seconds");
}

#[test]
fn a_lost_exit_is_found_out() {
    let mut w = one("Always");
    w.settle();
    w.delete(1);
    w.settle();
    let mut w = one("Always");
    w.settle();
    let id = w.running("a").unwrap();
    w.containers.remove(&id);
    w.fsm.done(Outcome::Inspected { id, result: Ok(None), message: String::new() }, w.now);
    w.settle();
    assert_eq!(w.container("a").restart_count, 1);
    let last = w.container("a").last_state.clone().unwrap().terminated.unwrap();
    assert_eq!(last.reason.as_deref(), Some("ContainerStatusUnknown"));
}

#[test]
fn liveness_restarts_only_its_container() {
    let mut w = World::new(pod(json!({"containers": [
        {"name": "a", "image": "i", "livenessProbe": {"tcpSocket": {"port": 1}}},
        {"name": "b", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}
    ]})));
    w.settle();
    assert_eq!(w.fsm.probes().len(), 2);
    assert_eq!(w.condition("Ready"), "False");
    let b = w.running("b").unwrap();
    w.fsm.probed(&b, ProbeKind::Readiness, true, w.now);
    w.settle();
    assert_eq!(w.condition("Ready"), "True");
    let a = w.running("a").unwrap();
    w.fsm.probed(&a, ProbeKind::Liveness, false, w.now);
    w.settle();
    assert_eq!(w.signals, ["a 15"]);
    assert_eq!((w.container("a").restart_count, w.container("b").restart_count), (1, 0));
}

#[test]
fn readiness_gates() {
    let mut w = World::new(pod(json!({
        "readinessGates": [{"conditionType": "x/y"}],
        "containers": [{"name": "a", "image": "i"}]
    })));
    w.settle();
    assert_eq!((w.condition("ContainersReady").as_str(), w.condition("Ready").as_str()), ("True", "False"));
    let mut pod = w.pod.clone();
    let conditions = pod.status.as_mut().unwrap().conditions.as_mut().unwrap();
    conditions.push(serde_json::from_value(json!({"type": "x/y", "status": "True"})).unwrap());
    w.fsm.update(Arc::new(pod), w.now);
    w.settle();
    assert_eq!(w.condition("Ready"), "True");
    assert_eq!(w.condition("x/y"), "True", "somebody else's condition stays");
}

#[test]
fn the_deadline_of_a_pod() {
    let mut w = World::new(pod(json!({
        "activeDeadlineSeconds": 60, "terminationGracePeriodSeconds": 5,
        "containers": [{"name": "a", "image": "i"}]
    })));
    w.settle();
    assert_eq!(w.last.as_ref().unwrap().wake, Some(at(60)));
    w.pass(60);
    assert_eq!((w.phase(), w.status().reason.as_deref()), ("Failed", Some("DeadlineExceeded")));
    assert!(w.live().is_empty());
    w.restart_agent();
    w.settle();
    assert_eq!(w.status().reason.as_deref(), Some("DeadlineExceeded"));
}

#[test]
fn a_new_agent_changes_nothing() {
    let mut w = World::new(pod(json!({
        "initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]
    })));
    w.settle();
    w.exit("i", 0);
    w.settle();
    for _ in 0..2 {
        w.exit("a", 1);
        w.settle();
        while w.live().is_empty() {
            w.sleep();
            w.settle();
        }
    }
    let id = w.running("a").unwrap();
    w.fsm.probed(&id, ProbeKind::Readiness, true, w.now);
    w.settle();
    let (before, started) = (w.status().clone(), w.started.len());
    w.now += SignedDuration::from_secs(5);
    w.restart_agent();
    w.settle();
    assert_eq!(w.status(), &before);
    assert_eq!(w.started.len(), started, "nothing was started");
    assert_eq!(w.running("a"), Some(id));
    w.exit("a", 1);
    w.settle();
    assert_eq!(w.waiting("a"), "CrashLoopBackOff");
    assert!(
        w.last.as_ref().unwrap().wake > Some(w.now + SignedDuration::from_secs(15)),
        "the delay goes on growing"
    );
}

#[test]
fn restart_counts_outlive_the_runtimes_memory() {
    let mut w = one("Always");
    w.settle();
    w.exit("a", 1);
    w.settle();
    w.containers.clear();
    w.restart_agent();
    w.settle();
    assert_eq!(w.container("a").restart_count, 2);
}

#[test]
fn a_reboot_runs_the_init_containers_again() {
    let mut w = World::new(pod(json!({
        "initContainers": [{"name": "i", "image": "i"}],
        "containers": [{"name": "a", "image": "i"}]
    })));
    w.settle();
    w.exit("i", 0);
    w.settle();
    w.exit("a", 255);
    w.pass(1);
    w.exit("a", 255);
    w.attached = false;
    w.volumes = false;
    w.now += SignedDuration::from_secs(60);
    w.restart_agent();
    w.settle();
    assert_eq!(w.live(), ["i"]);
    w.exit("i", 0);
    w.settle();
    assert_eq!(w.live(), ["a"]);
    assert!(w.attached);
}

#[test]
fn a_refused_pod_never_starts() {
    let mut w = one("Always");
    w.fsm.reject("OutOfcpu", "no cpu", w.now);
    w.settle();
    assert_eq!((w.phase(), w.status().reason.as_deref()), ("Failed", Some("OutOfcpu")));
    assert!(w.started.is_empty());
    w.restart_agent();
    w.settle();
    assert!(w.started.is_empty());
    w.delete(30);
    assert!(w.settle().finished);
}

#[test]
fn a_new_image_restarts_the_container() {
    let mut w = one("Never");
    w.settle();
    let mut pod = w.pod.clone();
    pod.spec.as_mut().unwrap().containers[0].image = Some("i2".into());
    w.fsm.update(Arc::new(pod), w.now);
    w.settle();
    assert_eq!((w.container("a").restart_count, w.live().len()), (1, 1));
}

#[test]
fn transition_times_are_kept() {
    let mut w = one("Always");
    w.settle();
    let time = |w: &World| {
        let conditions = w.status().conditions.clone().unwrap();
        conditions.iter().find(|c| c.type_ == "Ready").unwrap().last_transition_time.clone().unwrap().0
    };
    assert_eq!(time(&w), at(0));
    w.pass(100);
    assert_eq!(time(&w), at(0));
    w.exit("a", 1);
    w.step();
    assert_eq!(time(&w), at(100));
}
