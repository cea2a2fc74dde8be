//! The conditions of a pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodCondition;

use super::instance::{Instance, Role, seconds};
use super::{PodFsm, spec};

/// The conditions that the agent answers for; the rest belongs to others.
pub(crate) const OWN: [&str; 5] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"];

/// What a condition should say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fact {
    type_: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

impl Fact {
    fn new(type_: &'static str, status: bool) -> Self {
        Self { type_, status, reason: "", message: String::new() }
    }

    fn because(mut self, reason: &'static str, message: impl Into<String>) -> Self {
        self.reason = reason;
        self.message = message.into();
        self
    }
}

impl PodFsm {
    pub(super) fn condition_facts(&self, phase: &str) -> Vec<Fact> {
        let containers_ready = self.containers_ready(phase);
        vec![
            Fact::new("PodReadyToStartContainers", self.is_set_up()),
            self.initialized_fact(phase),
            self.ready_fact(&containers_ready),
            containers_ready,
            Fact::new("PodScheduled", true),
        ]
    }

    fn initialized_fact(&self, phase: &str) -> Fact {
        let fact = |status| Fact::new("Initialized", status);
        if phase == "Succeeded" {
            return fact(true).because("PodCompleted", "");
        }
        if self.initialized {
            return fact(true);
        }
        let pending = names(self.instances.iter().filter(|i| match i.role {
            Role::Init => !i.is_ready(),
            Role::Sidecar => !i.is_started(),
            _ => false,
        }));
        if pending.is_empty() {
            return fact(true);
        }
        fact(false)
            .because("ContainersNotInitialized", format!("containers with incomplete status: [{pending}]"))
    }

    fn containers_ready(&self, phase: &str) -> Fact {
        let fact = |status| Fact::new("ContainersReady", status);
        match phase {
            "Succeeded" => return fact(false).because("PodCompleted", ""),
            "Failed" => return fact(false).because("PodFailed", ""),
            _ => {}
        }
        let unready = names(
            self.instances.iter().filter(|i| matches!(i.role, Role::Main | Role::Sidecar) && !i.is_ready()),
        );
        if unready.is_empty() {
            return fact(true);
        }
        fact(false).because("ContainersNotReady", format!("containers with unready status: [{unready}]"))
    }

    fn ready_fact(&self, containers: &Fact) -> Fact {
        if !containers.status {
            return Fact { type_: "Ready", ..containers.clone() };
        }
        let mut complaints = Vec::new();
        for gate in spec(&self.pod).readiness_gates.iter().flatten() {
            let gate = &gate.condition_type;
            match self.conditions.iter().find(|c| &c.type_ == gate) {
                None => complaints.push(format!(
                    "corresponding condition of pod readiness gate \"{gate}\" does not exist."
                )),
                Some(c) if c.status != "True" => complaints.push(format!(
                    "the status of pod readiness gate \"{gate}\" is not \"True\", but {}",
                    c.status
                )),
                Some(_) => {}
            }
        }
        if complaints.is_empty() {
            return Fact::new("Ready", true);
        }
        Fact::new("Ready", false).because("ReadinessGatesNotReady", complaints.join(", "))
    }
}

/// The conditions after `facts`: an unchanged status keeps its time of transition, others' conditions stay.
pub(super) fn update(known: &[PodCondition], facts: Vec<Fact>, now: Timestamp) -> Vec<PodCondition> {
    let mut out: Vec<PodCondition> = facts
        .into_iter()
        .map(|fact| {
            let status = if fact.status { "True" } else { "False" };
            let old = known.iter().find(|c| c.type_ == fact.type_ && c.status == status);
            PodCondition {
                type_: fact.type_.to_owned(),
                status: status.to_owned(),
                reason: (!fact.reason.is_empty()).then(|| fact.reason.to_owned()),
                message: (!fact.message.is_empty()).then_some(fact.message),
                last_transition_time: Some(
                    old.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| seconds(now)),
                ),
                ..PodCondition::default()
            }
        })
        .collect();
    out.extend(known.iter().filter(|c| !OWN.contains(&c.type_.as_str())).cloned());
    out
}

fn names<'a>(instances: impl Iterator<Item = &'a Instance>) -> String {
    instances.map(Instance::name).collect::<Vec<_>>().join(" ")
}

/// Whether the agent answers for the conditions of that type.
pub(crate) fn is_own(type_: &str) -> bool {
    OWN.contains(&type_)
}
