//! Telling the server what became of a pod.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use minik8s_reconcile::request::DeleteParams;
use minik8s_reconcile::{ApiError, Client};

use super::pod_fsm::backoff::Retry;
use super::pod_fsm::instance::seconds;
use super::pod_fsm::is_own_condition;

/// Which status of one pod has to be written, and when. Only the newest counts, and only differences are written.
#[derive(Debug)]
pub(crate) struct Publisher {
    /// The newest version known.
    pod: Arc<Pod>,
    desired: Option<PodStatus>,
    /// What was asked for last, and what the server made of it.
    answered: Option<(PodStatus, PodStatus)>,
    in_flight: Option<PodStatus>,
    deleting: bool,
    delete: bool,
    gone: bool,
    retry: Retry,
}

/// A request to send.
#[derive(Clone, Debug)]
pub(crate) enum Write {
    /// Replace the status.
    Status(Box<Pod>),
    /// Remove the object, for nothing is left of the pod here.
    Delete(Arc<Pod>),
}

/// What came of it.
#[derive(Clone, Debug)]
pub(crate) enum Written {
    /// The object as it is now.
    Pod(Arc<Pod>),
    /// Somebody else was first; this is the object now.
    Behind(Arc<Pod>),
    /// There is no such object any more.
    Gone,
    /// Try again.
    Failed(String),
}

impl Publisher {
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        Self {
            pod,
            desired: None,
            answered: None,
            in_flight: None,
            deleting: false,
            delete: false,
            gone: false,
            retry: Retry::call(),
        }
    }

    /// The object is known to be so (unless a newer version is known already).
    pub(crate) fn observe(&mut self, pod: Arc<Pod>) {
        let version = |p: &Pod| p.metadata.resource_version.as_ref().and_then(|v| v.parse::<u64>().ok());
        if version(&pod) >= version(&self.pod) {
            self.pod = pod;
        }
    }

    /// The object is gone: there is nobody to tell.
    pub(crate) fn gone(&mut self) {
        self.gone = true;
    }

    /// Whether the object is gone.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// The status should be this.
    pub(crate) fn want(&mut self, status: PodStatus) {
        self.desired = Some(status);
    }

    /// After the last status, remove the object.
    pub(crate) fn want_deleted(&mut self) {
        self.delete = true;
    }

    /// The next request, if one is due.
    pub(crate) fn next(&mut self, now: Timestamp) -> Option<Write> {
        if self.gone
            || self.in_flight.is_some()
            || self.deleting
            || self.retry.due().is_some_and(|due| due > now)
        {
            return None;
        }
        if let Some(status) = self.difference(now) {
            let mut pod = Pod::clone(&self.pod);
            pod.status = Some(status);
            self.in_flight = self.desired.clone();
            return Some(Write::Status(Box::new(pod)));
        }
        if self.delete {
            self.deleting = true;
            return Some(Write::Delete(self.pod.clone()));
        }
        None
    }

    /// When to ask again, if nothing happens before.
    pub(crate) fn wake(&self) -> Option<Timestamp> {
        self.retry.due().filter(|_| !self.gone && self.in_flight.is_none() && !self.deleting)
    }

    /// A request came to its end.
    pub(crate) fn done(&mut self, written: Written, now: Timestamp) {
        let asked = self.in_flight.take();
        let deleted = std::mem::take(&mut self.deleting);
        match written {
            Written::Pod(pod) => {
                self.retry.reset();
                if let (Some(asked), Some(status)) = (asked, &pod.status) {
                    self.answered = Some((asked, status.clone()));
                }
                // An object that lives on after its deletion waits for its finalizers.
                self.delete &= !deleted;
                self.observe(pod);
            }
            Written::Behind(pod) => {
                self.retry.reset();
                self.observe(pod);
            }
            Written::Gone => self.gone = true,
            Written::Failed(_) => self.retry.fail(now),
        }
    }

    /// The status to write, if it differs from the one that the server has.
    fn difference(&self, now: Timestamp) -> Option<PodStatus> {
        let desired = self.desired.as_ref()?;
        let known = self.pod.status.clone().unwrap_or_default();
        if let Some((asked, answer)) = &self.answered
            && asked == desired
            && *answer == known
        {
            return None;
        }
        let merged = merged(known.clone(), desired, now);
        (merged != known).then_some(merged)
    }
}

/// `known` with everything that the agent answers for taken from `desired`.
fn merged(mut known: PodStatus, desired: &PodStatus, now: Timestamp) -> PodStatus {
    let foreign = known.conditions.take().unwrap_or_default();
    let own = desired.conditions.iter().flatten().filter(|c| is_own_condition(&c.type_));
    let own = own.map(|c| since(c, foreign.iter().find(|known| known.type_ == c.type_), now));
    let mut conditions: Vec<_> = own.collect();
    conditions.extend(foreign.into_iter().filter(|c| !is_own_condition(&c.type_)));
    PodStatus {
        phase: desired.phase.clone(),
        conditions: Some(conditions),
        reason: desired.reason.clone(),
        message: desired.message.clone(),
        host_ip: desired.host_ip.clone(),
        host_ips: desired.host_ips.clone(),
        pod_ip: desired.pod_ip.clone(),
        pod_ips: desired.pod_ips.clone(),
        start_time: desired.start_time.clone(),
        qos_class: desired.qos_class.clone(),
        observed_generation: desired.observed_generation,
        init_container_statuses: desired.init_container_statuses.clone(),
        container_statuses: desired.container_statuses.clone(),
        ephemeral_container_statuses: desired.ephemeral_container_statuses.clone(),
        ..known
    }
}

/// The agent's condition where the server has `known`: what somebody else has said of it since, such as that the node does
/// not answer, was a transition, and another one ends it.
fn since(own: &PodCondition, known: Option<&PodCondition>, now: Timestamp) -> PodCondition {
    let mut own = own.clone();
    if let Some(known) = known
        && known.last_transition_time.as_ref().map(|t| t.0) > own.last_transition_time.as_ref().map(|t| t.0)
    {
        own.last_transition_time =
            if known.status == own.status { known.last_transition_time.clone() } else { Some(seconds(now)) };
    }
    own
}

/// Sends a request.
pub(crate) async fn send(client: &Client, write: Write) -> Written {
    match write {
        Write::Status(pod) => {
            let (namespace, name) = place(&pod);
            let api = client.namespaced::<Pod>(&namespace);
            match api.update_status(&pod).await {
                Ok(now) => Written::Pod(now),
                Err(e) if e.is_conflict() || e.is_not_found() => match api.get(&name).await {
                    Ok(now) if now.metadata.uid == pod.metadata.uid => Written::Behind(now),
                    Ok(_) => Written::Gone,
                    Err(e) => failed(&e),
                },
                Err(e) => failed(&e),
            }
        }
        Write::Delete(pod) => {
            let (namespace, name) = place(&pod);
            let api = client.namespaced::<Pod>(&namespace);
            let params = DeleteParams { uid: pod.metadata.uid.clone(), ..DeleteParams::now() };
            match api.delete(&name, &params).await {
                Ok(()) => match api.get(&name).await {
                    Ok(now) if now.metadata.uid == pod.metadata.uid => Written::Pod(now),
                    Ok(_) => Written::Gone,
                    Err(e) => failed(&e),
                },
                Err(e) if e.is_conflict() => Written::Gone,
                Err(e) => failed(&e),
            }
        }
    }
}

fn failed(error: &ApiError) -> Written {
    if error.is_not_found() { Written::Gone } else { Written::Failed(error.to_string()) }
}

fn place(pod: &Pod) -> (String, String) {
    (pod.metadata.namespace.clone().unwrap_or_default(), pod.metadata.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(version: u64, status: serde_json::Value) -> Arc<Pod> {
        let pod = json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "resourceVersion": version.to_string()},
            "status": status,
        });
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn status(phase: &str) -> PodStatus {
        serde_json::from_value(json!({
            "phase": phase, "conditions": [{"type": "Ready", "status": "False"}]}))
        .unwrap()
    }

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(s).unwrap()
    }

    fn written(write: Option<Write>) -> Pod {
        match write {
            Some(Write::Status(pod)) => *pod,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_the_newest_difference_is_written_one_at_a_time() {
        let mut p = Publisher::new(pod(1, json!({"conditions": [{"type": "x/y", "status": "True"}]})));
        assert!(p.next(at(0)).is_none());
        p.want(status("Pending"));
        let first = written(p.next(at(0)));
        assert_eq!(first.status.as_ref().unwrap().conditions.as_ref().unwrap().len(), 2, "others' stay");
        p.want(status("Running"));
        p.want(status("Succeeded"));
        assert!(p.next(at(0)).is_none(), "one is under way");
        let mut answer = first;
        answer.metadata.resource_version = Some("2".into());
        p.done(Written::Pod(Arc::new(answer)), at(0));
        let second = written(p.next(at(0)));
        assert_eq!(second.status.as_ref().unwrap().phase.as_deref(), Some("Succeeded"));
        assert_eq!(second.metadata.resource_version.as_deref(), Some("2"));
        let mut answer = second;
        answer.metadata.resource_version = Some("3".into());
        p.done(Written::Pod(Arc::new(answer)), at(0));
        assert!(p.next(at(0)).is_none());
        p.observe(pod(2, json!({"phase": "Pending"})));
        assert!(p.next(at(0)).is_none(), "old news");
        p.observe(pod(4, json!({"phase": "Pending"})));
        assert!(p.next(at(0)).is_some(), "somebody else wrote");
    }

    #[test]
    fn failures_wait_and_conflicts_do_not() {
        let mut p = Publisher::new(pod(1, json!({})));
        p.want(status("Running"));
        assert!(p.next(at(0)).is_some());
        p.done(Written::Failed("away".into()), at(0));
        assert!(p.next(at(0)).is_none());
        assert_eq!(p.wake(), Some(at(1)));
        assert!(p.next(at(1)).is_some());
        p.done(Written::Behind(pod(7, json!({}))), at(1));
        assert_eq!(written(p.next(at(1))).metadata.resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn the_object_goes_after_its_last_status() {
        let mut p = Publisher::new(pod(1, json!({})));
        p.want(status("Failed"));
        p.want_deleted();
        let mut answer = written(p.next(at(0)));
        answer.metadata.resource_version = Some("2".into());
        assert!(p.next(at(0)).is_none());
        p.done(Written::Pod(Arc::new(answer)), at(0));
        assert!(matches!(p.next(at(0)), Some(Write::Delete(_))));
        p.done(Written::Gone, at(0));
        assert!(p.is_gone() && p.next(at(0)).is_none());
    }

    #[test]
    fn what_was_said_meanwhile_is_a_transition() {
        let ready = |status: &str, s: i64| {
            json!({"phase": "Running", "conditions": [
            {"type": "Ready", "status": status, "lastTransitionTime": at(s).to_string()}]})
        };
        let mut p = Publisher::new(pod(1, ready("True", 10)));
        p.want(serde_json::from_value(ready("True", 10)).unwrap());
        assert!(p.next(at(20)).is_none());
        p.observe(pod(2, ready("False", 30)));
        let said = written(p.next(at(40)));
        assert_eq!(json!(said.status)["conditions"], ready("True", 40)["conditions"]);
        p.done(Written::Pod(pod(3, ready("True", 40))), at(40));
        assert!(p.next(at(41)).is_none(), "it is not argued about");
        p.want(
            serde_json::from_value(
                json!({"phase": "Succeeded", "conditions": ready("False", 50)["conditions"]}),
            )
            .unwrap(),
        );
        let over = written(p.next(at(51)));
        assert_eq!(json!(over.status)["conditions"], ready("False", 50)["conditions"]);
    }

    #[test]
    fn a_server_that_edits_is_not_argued_with() {
        let mut p = Publisher::new(pod(1, json!({})));
        p.want(status("Running"));
        assert!(p.next(at(0)).is_some());
        p.done(Written::Pod(pod(2, json!({"phase": "Running"}))), at(0));
        assert!(p.next(at(0)).is_none());
    }
}
