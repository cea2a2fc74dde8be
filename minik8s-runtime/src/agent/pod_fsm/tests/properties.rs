//! What holds whatever happens.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::instance::Role;
use super::super::{ImageError, ProbeKind, StartError};
use super::world::{World, pod};

#[derive(Clone, Debug)]
enum Event {
    Act(prop::sample::Index),
    Exit(prop::sample::Index, i32),
    Pass(i64),
    Wake,
    Probe(prop::sample::Index, u8, bool),
    PullFails(bool),
    StartFails(u8),
    Stubborn(bool),
    RestartAgent,
    Delete(i64),
}

fn event() -> impl Strategy<Value = Event> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        12 => index().prop_map(Event::Act),
        4 => (index(), prop_oneof![Just(0), Just(1), Just(137)]).prop_map(|(i, c)| Event::Exit(i, c)),
        2 => (0i64..400).prop_map(Event::Pass),
        3 => Just(Event::Wake),
        2 => (index(), 0u8..3, any::<bool>()).prop_map(|(i, k, h)| Event::Probe(i, k, h)),
        1 => any::<bool>().prop_map(Event::PullFails),
        1 => (0u8..4).prop_map(Event::StartFails),
        1 => any::<bool>().prop_map(Event::Stubborn),
        1 => Just(Event::RestartAgent),
        1 => prop_oneof![Just(1i64), Just(30)].prop_map(Event::Delete),
    ]
}

fn spec() -> impl Strategy<Value = Value> {
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    (policy, prop::collection::vec(any::<bool>(), 0..3), 1usize..3, any::<bool>()).prop_map(
        |(policy, inits, mains, probes)| {
            let inits: Vec<Value> = inits
                .iter()
                .enumerate()
                .map(|(i, sidecar)| {
                    let mut c = json!({"name": format!("i{i}"), "image": "i"});
                    if *sidecar {
                        c["restartPolicy"] = json!("Always");
                    }
                    c
                })
                .collect();
            let mains: Vec<Value> = (0..mains)
                .map(|i| {
                    let mut c = json!({"name": format!("m{i}"), "image": "i"});
                    if probes {
                        let probe = json!({"tcpSocket": {"port": 1}});
                        c["livenessProbe"] = probe.clone();
                        c["startupProbe"] = probe;
                        c["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 1}},
                                                "postStart": {"sleep": {"seconds": 1}}});
                    }
                    c
                })
                .collect();
            json!({"restartPolicy": policy, "initContainers": inits, "containers": mains,
                   "terminationGracePeriodSeconds": 20})
        },
    )
}

/// What must hold after every event. (That no name has two live containers, that nothing starts before its volumes
/// and that nothing running is removed is checked by the world itself.)
fn check(w: &World, deleted: bool) {
    let by = |role: Role| w.fsm.instances().iter().filter(move |i| i.role == role);
    let main_started = by(Role::Main).any(|i| i.current.is_some());
    if main_started {
        for init in by(Role::Init) {
            assert!(init.ended().is_some_and(|e| e.code == 0), "{} not through, mains are up", init.name());
        }
    }
    for instance in w.fsm.instances() {
        let mut attempts: Vec<u32> =
            w.started.iter().filter(|(n, _)| n == instance.name()).map(|(_, a)| *a).collect();
        let all = attempts.len();
        attempts.dedup();
        assert_eq!(attempts.len(), all, "an attempt of {} was started twice", instance.name());
        assert!(attempts.is_sorted());
    }
    let status = w.status();
    for s in status.container_statuses.iter().flatten() {
        let state = s.state.as_ref().unwrap();
        let states = [state.running.is_some(), state.waiting.is_some(), state.terminated.is_some()];
        assert_eq!(states.iter().filter(|s| **s).count(), 1, "{s:?}");
        assert!(!s.ready || state.running.is_some(), "{s:?}");
    }
    if matches!(w.phase(), "Succeeded" | "Failed") {
        assert!(w.live().is_empty(), "{} with live containers", w.phase());
    }
    if let Some(wake) = w.last.as_ref().unwrap().wake
        && !deleted
    {
        assert!(wake.duration_since(w.now).as_secs() <= 310, "a delay out of bounds");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens(spec in spec(), events in prop::collection::vec(event(), 1..120)) {
        let never = spec["restartPolicy"] == "Never";
        let mut w = World::new(pod(spec));
        let mut deleted = false;
        let mut terminal = None;
        w.step();
        for event in events {
            match event {
                Event::Act(i) if !w.pending.is_empty() => {
                    let action = w.pending.remove(i.index(w.pending.len())).unwrap();
                    w.obey(action);
                }
                Event::Act(_) => {}
                Event::Exit(i, code) => {
                    let live = w.live();
                    if !live.is_empty() {
                        let name = live[i.index(live.len())].clone();
                        w.exit(&name, code);
                    }
                }
                Event::Pass(s) => w.now += jiff::SignedDuration::from_secs(s),
                Event::Wake => { w.sleep(); }
                Event::Probe(i, kind, healthy) => {
                    let targets = w.fsm.probes();
                    if !targets.is_empty() {
                        let target = &targets[i.index(targets.len())];
                        let _ = kind;
                        let healthy = healthy || target.kind == ProbeKind::Startup;
                        w.fsm.probed(&target.id.clone(), target.kind, healthy, w.now);
                    }
                }
                Event::PullFails(on) => w.image_error = on.then(|| ImageError::Pull("x".into())),
                Event::StartFails(how) => {
                    w.start_errors.clear();
                    let error = match how {
                        0 => None,
                        1 => Some(StartError::Config("x".into())),
                        2 => Some(StartError::Create("x".into())),
                        _ => Some(StartError::Start("x".into())),
                    };
                    if let Some(error) = error {
                        w.start_errors.insert("m0".into(), error);
                    }
                }
                Event::Stubborn(on) => {
                    w.stubborn = if on { vec!["m0".into(), "i0".into()] } else { Vec::new() };
                }
                Event::RestartAgent => w.restart_agent(),
                Event::Delete(grace) => {
                    w.delete(grace);
                    deleted = true;
                }
            }
            w.step();
            check(&w, deleted);
            if never {
                for instance in w.fsm.instances().iter().filter(|i| i.role != Role::Sidecar) {
                    let runs = w.started.iter().filter(|(n, _)| n == instance.name()).count();
                    prop_assert!(runs <= 1, "{} ran {runs} times under Never", instance.name());
                }
            }
            if let Some(phase) = &terminal {
                prop_assert_eq!(phase, w.phase(), "the end is final");
            } else if matches!(w.phase(), "Succeeded" | "Failed") {
                terminal = Some(w.phase().to_owned());
            }
        }
        // However it went: once the runtime obeys, a deleted pod is gone, within its grace and some retries.
        if !deleted {
            w.delete(20);
        }
        let began = w.now;
        let mut finished = w.settle().finished;
        for _ in 0..200 {
            if finished {
                break;
            }
            prop_assert!(w.sleep(), "neither finished nor waiting for anything: {:?}", w.last);
            finished = w.settle().finished;
        }
        prop_assert!(finished, "deletion does not converge: {:?}", w.last);
        prop_assert!(w.now.duration_since(began).as_secs() <= 90);
        prop_assert!(w.containers.is_empty() && !w.attached && !w.volumes);
    }
}
